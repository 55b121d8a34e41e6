"""What the suites share: counting checks, waiting, threads, requests, daemons with keys and slow ones. A suite is called with the
build folder, the fixtures' (see run.sh) and, when not all of its groups shall run, with their names."""
import os
import re
import resource
import select
import socket
import subprocess
import sys
import threading
import time
import traceback

from daemon import Daemon, PATIENCE, form, free_port, metrics, read_all

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
# For Busy: one worker, a network that takes long, and another one whose counts show what was done besides.
SLOW = ("--models", "slow=" + fixture("slow.hwgq"), "--models", "color=" + COLOR, "--default-model", "color", "--workers", "1",
        "--max-images", "4096", "--cpu", "scalar")


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
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, **options)


def until(condition, seconds=PATIENCE):
    """Whether it becomes true. Fewer seconds are for what must not become true."""
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


def settled(daemon):
    """Whether everything is counted: a client has its reply a moment before the server has counted the request as finished."""
    return until(lambda: sample(daemon, "hwgqd_requests_in_flight") == 0)


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


class Busy:
    """with Busy(daemon): a request of someone who leaves at the end of the block, or at release(); the daemon then stops working on
    it. Until then it keeps the one worker of a SLOW daemon: its images take a minute on the fastest machine. Where the worker has
    others to do first, wait=False."""
    body, kind = form([("image", read("tests/images/one.jpg"))] * 4096)

    def __init__(self, daemon, key=None, wait=True, path="/v1/models/slow/classify"):
        head = "POST %s?top_k=1 HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n" % (path, self.kind, len(self.body))
        if key:
            head += "X-API-Key: %s\r\n" % key
        self.connection = None

        def send():
            if self.connection:
                self.connection.close()
            self.connection = daemon.connect()
            self.connection.sendall(head.encode() + b"\r\n" + self.body)

        def busy():
            if select.select([self.connection], [], [], 0)[0]:
                send()  # it has expired before a worker came
            return sample(daemon, "hwgqd_workers_busy") == 1
        send()
        if wait:
            check("the worker is busy", until(busy), daemon.get("/metrics").body)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()

    def release(self):
        self.connection.close()


class Later(threading.Thread):
    """A request that is sent now and answered some time: result() waits for the reply, or raises what went wrong."""

    def __init__(self, send):
        super().__init__()
        self.send, self.reply, self.problem = send, None, None
        self.start()

    def run(self):
        try:
            self.reply = self.send()
        except Exception as problem:  # noqa: BLE001: it is raised where it is looked at
            self.problem = problem

    def result(self):
        self.join()
        if self.problem:
            raise self.problem
        return self.reply


def waiting(daemon, count):
    """Whether so many requests come to wait for a worker."""
    return until(lambda: sample(daemon, "hwgqd_queue_depth") == count)


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
    """Sends the signal, waits for the end of the reload, and says whether an event came that begins with `message`."""
    def seen(start):
        return len([e for e in daemon.events() if e["message"].startswith(start)])
    ends = ("reloaded", "reload failed, networks and settings stay")  # networks that fail are reported before
    before, ended = seen(message), seen(ends)
    daemon.signal(signal_number)
    return until(lambda: seen(ends) > ended) and seen(message) > before


def main(*groups):
    """All groups, or those that the command line names after build and folder."""
    socket.setdefaulttimeout(PATIENCE)
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
