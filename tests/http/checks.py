"""What the suites share: counting, waiting, threads. A suite is called with the build folder and the fixtures' (see run.sh)."""
import os
import resource
import sys
import threading
import time
import traceback

from daemon import metrics

BUILD, FOLDER = sys.argv[1], sys.argv[2]
HWGQD = os.path.join(BUILD, "hwgqd")
SANITIZED = "-fsanitize=" in open(os.path.join(BUILD, "flags")).read()
counts = {"passed": 0, "failed": 0, "skipped": 0}


def fixture(name):
    return os.path.join(FOLDER, name)


def read(path):
    with open(path, "rb") as stream:
        return stream.read()


JPEG = read(fixture("image-0.jpg"))
COLOR, GRAY = ("--models", "color=" + fixture("color.hwgq")), ("--models", "gray=" + fixture("gray.hwgq"))


def check(what, good, detail=""):
    counts["passed" if good else "failed"] += 1
    if not good:
        print("FAILED: %s %s" % (what, str(detail)[:600]), flush=True)


def skip(reason):
    counts["skipped"] += 1
    print("SKIPPED: " + reason)


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def in_threads(count, work):
    """work(0) ... work(count - 1) at once; an exception is a result."""
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


def sample(daemon, name):
    """A Prometheus sample, by name with labels; 0 when it is not there."""
    return metrics(daemon.get("/metrics").body.decode()).get(name, 0)


def allow_descriptors(wanted):
    """Whether this process may open so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return False
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


def run_groups(*groups):
    """Runs each group, prints the counts, returns the exit code."""
    for group in groups:
        start = time.monotonic()
        try:
            group()
        except Exception:  # noqa: BLE001: one group that breaks must not hide the others
            check(group.__name__, False, traceback.format_exc()[-600:])
        print("%-28s %5.1f s" % (group.__name__, time.monotonic() - start), flush=True)
    print("%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % counts)
    return counts["failed"] != 0
