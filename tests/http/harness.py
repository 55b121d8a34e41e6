"""What the suites share: counting checks, waiting, threads, requests, daemons with keys and slow ones. A suite is called with the
build folder, the fixtures' (see run.sh) and, when not all of its groups shall run, with their names."""
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
import traceback

from daemon import Daemon, form, metrics, read_all

BUILD, FOLDER = sys.argv[1], sys.argv[2]
HWGQD, HWGQ = os.path.join(BUILD, "hwgqd"), os.path.join(BUILD, "hwgq")
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


SANITIZED = b"-fsanitize=" in read(os.path.join(BUILD, "flags"))
IMAGES = [read(fixture("image-%d.jpg" % i)) for i in range(10)]
JPEG = IMAGES[0]
COLOR, GRAY, OTHER = fixture("color.hwgq"), fixture("gray.hwgq"), fixture("other.hwgq")
ONLY_COLOR = ("--models", "color=" + COLOR)
BOTH = ("--models", "color=" + COLOR, "--models", "gray=" + GRAY)
# PROBE: images of the request with which slow_form() measures
SLOW = ("--models", "slow=" + fixture("slow.hwgq"), "--workers", "1", "--max-images", "4000", "--request-timeout-ms", "120000")
PROBE = 10


def check(what, good, detail=""):
    counts["passed" if good else "failed"] += 1
    if not good:
        print("FAILED: %s %s" % (what, str(detail)[:600]), flush=True)


def skip(reason):
    counts["skipped"] += 1
    print("SKIPPED: " + reason)


def error(what, reply, status, code):
    """An error reply as the contract says: status, code, a sentence, and the request id in header and body."""
    try:
        body = reply.json
        good = (reply.status == status and body["error"]["code"] == code and len(body["error"]["message"]) > 15 and
                body["request_id"] == reply.headers["X-Request-Id"])
    except (ValueError, KeyError, TypeError):
        good = False
    check(what, good, "%s %s" % (reply.status, reply.body[:300]))


def run(*command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60, **options)


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def allow_descriptors(wanted):
    """Whether this process may open so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return False
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


def sample(daemon, name):
    """A Prometheus sample, by name with labels; 0 when it is not there."""
    return metrics(daemon.get("/metrics").body.decode()).get(name, 0)


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


def slow_form(daemon, seconds, headers=None):
    """A form whose images keep the worker of a SLOW daemon busy for about so long on this machine and build. Costs one request
    of PROBE images."""
    body, content_type = form([("image", JPEG)] * PROBE)
    probe = daemon.post("/classify", body, content_type, headers).json
    each = max(probe["timing_ms"]["inference"] / PROBE, 0.02)
    return form([("image", JPEG)] * min(4000, max(2, int(seconds * 1000 / each))))


def predictions_of(daemon, body, **arguments):
    return daemon.post("/classify", body, **arguments).json["predictions"]


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
    socket.setdefaulttimeout(60)
    for group in [g for g in groups if not sys.argv[3:] or g.__name__ in sys.argv[3:]]:
        start = time.monotonic()
        try:
            group()
        except Exception:  # noqa: BLE001: one group that breaks must not hide the others
            check(group.__name__, False, traceback.format_exc()[-600:])
        print("%-28s %5.1f s" % (group.__name__, time.monotonic() - start), flush=True)
    print("%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % counts)
    sys.exit(counts["failed"] != 0)


__all__ = [name for name in dir() if not name.startswith("__")]
