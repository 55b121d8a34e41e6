"""What the suites of this folder share: counting, programs of build/tools, ports, load."""
import http.client
import os
import shutil
import sys
import threading
import time
import traceback

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
sys.path.insert(0, os.path.join(ROOT, "tests/http"))
from daemon import PATIENCE  # noqa: E402: it lies there

BUILD, FOLDER = sys.argv[1], sys.argv[2]
CIFAR10 = os.path.join(ROOT, "models/zoo/cifar10.hwgq")
with open(os.path.join(ROOT, "tests/images/baseline.jpg"), "rb") as stream:
    JPEG = stream.read()


class Counts:
    passed = failed = skipped = 0


def check(what, good, detail=""):
    if good:
        Counts.passed += 1
    else:
        Counts.failed += 1
        print("FAILED: %s %s" % (what, str(detail)[-1500:]), flush=True)
    return good


def skip(why):
    Counts.skipped += 1
    print("SKIPPED: " + why)


def tool(name):
    """A program that config/install-packages.sh fetched, or that is installed, or None."""
    path = os.path.join(ROOT, "build/tools", name)
    return path if os.path.exists(path) else shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


def run_groups(*groups):
    for group in groups:
        start = time.monotonic()
        try:
            group()
        except Exception:  # noqa: BLE001: one group that breaks must not hide the others
            check(group.__name__, False, traceback.format_exc())
        print("%-36s %5.1f s" % (group.__name__, time.monotonic() - start), flush=True)
    print("%d passed, %d failed, %d skipped" % (Counts.passed, Counts.failed, Counts.skipped))
    sys.exit(Counts.failed != 0)


def wait_for(condition, every=0.1):
    """Its first true value, or its last one when patience ends."""
    end = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(every)


class Load:
    """with Load(port, threads, path, body, content_type) as load: clients that send one request after the other; `seen` counts statuses,
    and exceptions by name. keep: requests on one connection before it is replaced; pause: seconds between requests."""

    def __init__(self, port, threads, body, content_type, path="/classify", keep=50, pause=0):
        self.port, self.body, self.content_type, self.path, self.keep, self.pause = port, body, content_type, path, keep, pause
        self.seen, self.lock, self.going = {}, threading.Lock(), True
        self.slowest = 0
        self.threads = [threading.Thread(target=self.client) for _ in range(threads)]

    def count(self, what, seconds):
        with self.lock:
            self.seen[what] = self.seen.get(what, 0) + 1
            self.slowest = max(self.slowest, seconds)

    def client(self):
        connection, used = None, 0
        while self.going:
            start = time.monotonic()
            try:
                if connection is None:
                    connection, used = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE), 0
                connection.request("POST", self.path, self.body, {"Content-Type": self.content_type})
                reply = connection.getresponse()
                reply.read()
                used += 1
                self.count(reply.status, time.monotonic() - start)
                if used >= self.keep or reply.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.count(type(error).__name__, time.monotonic() - start)
                if connection:
                    connection.close()
                connection = None
            time.sleep(self.pause)
        if connection:
            connection.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.going = False
        for thread in self.threads:
            thread.join()
