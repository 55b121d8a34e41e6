"""What the suites of management and security share: counting checks, threads, daemons with keys and certificates."""
import os
import re
import subprocess
import sys
import threading
import time
import traceback

from daemon import Daemon, form

BUILD, FOLDER = sys.argv[1], sys.argv[2]
HWGQD = os.path.join(BUILD, "hwgqd")
counts = {"passed": 0, "failed": 0, "skipped": 0}


def fixture(name):
    return os.path.join(FOLDER, name)


def read(path):
    with open(path, "rb") as stream:
        return stream.read()


def write(path, content):
    """In one step, as whoever replaces a file of a running daemon should."""
    with open(path + ".new", "wb") as stream:
        stream.write(content if isinstance(content, bytes) else content.encode())
    os.rename(path + ".new", path)


JPEG = read(fixture("image-0.jpg"))
COLOR, GRAY, OTHER = fixture("color.hwgq"), fixture("gray.hwgq"), fixture("other.hwgq")
BOTH = ("--models", "color=" + COLOR, "--models", "gray=" + GRAY)


def check(what, good, detail=""):
    counts["passed" if good else "failed"] += 1
    if not good:
        print("FAILED: %s %s" % (what, str(detail)[:600]))


def skip(reason):
    counts["skipped"] += 1
    print("SKIPPED: " + reason)


def error(what, reply, status, code):
    check(what, reply.status == status and reply.code == code, "%s %s" % (reply.status, reply.body[:300]))


def run(*command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60, **options)


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def in_threads(count, work):
    """Runs work(0) ... work(count - 1) at once and returns their results; an exception is a result."""
    results = [None] * count

    def call(i):
        try:
            results[i] = work(i)
        except Exception as problem:  # noqa: BLE001: whatever happens to a client is what the test looks at
            results[i] = problem
    threads = [threading.Thread(target=call, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def add_key(path, name, rights="inference"):
    result = run(HWGQD, "--add-key", name, "--rights", rights, "--keys-file", path)
    if not re.fullmatch(r"hwgqd_[0-9a-f]{64}\n", result.stdout):
        raise RuntimeError("no key: %s" % (result,))
    return result.stdout.strip()


def bearer(key):
    return {"Authorization": "Bearer " + key}


def reloaded(daemon, signal_number, message="reloaded"):
    """Sends the signal and waits for the event that begins with `message`."""
    def seen():
        return len([e for e in daemon.events() if e["message"].startswith(message)])
    before = seen()
    daemon.signal(signal_number)
    return until(lambda: seen() > before)


def main(*groups):
    """All groups, or those that the command line names after build and folder."""
    for group in [g for g in groups if not sys.argv[3:] or g.__name__ in sys.argv[3:]]:
        start = time.monotonic()
        try:
            group()
        except Exception:  # noqa: BLE001: one group that breaks must not hide the others
            check(group.__name__, False, traceback.format_exc()[-600:])
        print("%-28s %5.1f s" % (group.__name__, time.monotonic() - start), flush=True)
    print("%(passed)d passed, %(failed)d failed" % counts + (", %(skipped)d skipped" % counts if counts["skipped"] else ""))
    sys.exit(counts["failed"] != 0)


__all__ = [name for name in dir() if not name.startswith("__")]
