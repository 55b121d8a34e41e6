"""What one core serves, and how far the models of queueing.py can be believed.

    usage: capacity.py BUILD_DIR images PHOTO.jpg        processor time of the daemon per request, by size of the image
           capacity.py BUILD_DIR networks PHOTO.jpg      the same by network (random weights, full size), with memory
           capacity.py BUILD_DIR model PHOTO.jpg...      latency predicted and measured, one and two workers
           capacity.py BUILD_DIR start PHOTO.jpg         start to ready, and memory, with the shipped networks
Sizes are made of the photograph by djpeg, cjpeg (Debian: libjpeg-turbo-progs), larger ones as mosaics. `model` needs bench_http
(make bench). Processor time is that of all threads of the daemon (/proc/PID/task/*/schedstat), so a client beside it does not count;
latencies want a quiet machine: `chrt -r 1 python3 ...`, as root, takes precedence over other work."""
import glob
import http.client
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

import queueing

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
sys.path.insert(0, os.path.join(ROOT, "tests", "http"))
from daemon import Daemon, PATIENCE  # noqa: E402

ZOO = os.path.join(ROOT, "models/zoo")
SECONDS = 5  # of each measurement under load
NETWORKS = "lenet vgg-small alexnet vgg-variant darknet-19 googlenet resnet-18 resnet-34 resnet-50".split()


class Metered(Daemon):
    pause = 0.001

    def __init__(self, build, folder, *flags):
        start = time.monotonic()
        super().__init__(build, folder, *flags)
        self.ready_seconds = time.monotonic() - start
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def classify(self, image):
        """(seconds that the client waited, seconds of a worker) of one request."""
        start = time.monotonic()
        self.connection.request("POST", "/classify", image, {"Content-Type": "image/jpeg"})
        reply = json.loads(self.connection.getresponse().read())
        waited = time.monotonic() - start
        times = reply["timing_ms"]
        return waited, (times["decode"] + times["preprocess"] + times["inference"]) / 1e3

    def cpu_seconds(self):
        return sum(int(open(path).read().split()[0]) for path in glob.glob("/proc/%d/task/*/schedstat" % self.process.pid)) / 1e9

    def resident_mb(self):
        with open("/proc/%d/status" % self.process.pid) as stream:
            return next(int(line.split()[1]) for line in stream if line.startswith("VmRSS")) / 1024

    def cost(self, image, seconds):
        """(processor seconds per request, the worker's part) with one request at a time; medians of ten parts."""
        for _ in range(3):
            self.classify(image)
        parts = []
        for _ in range(10):
            before, end, services = self.cpu_seconds(), time.monotonic() + seconds / 10, []
            while time.monotonic() < end or not services:
                services.append(self.classify(image)[1])
            parts.append(((self.cpu_seconds() - before) / len(services), statistics.median(services)))
        return [statistics.median(column) for column in zip(*parts)]


def scaled(photo, eighths=8, across=1):
    """The photograph at so many eighths of its size, laid out across x across; (width, height, JPEG)."""
    ppm = subprocess.run(["djpeg", "-scale", "%d/8" % eighths, "-ppm", photo], check=True, capture_output=True).stdout
    _, size, _, pixels = ppm.split(b"\n", 3)
    width, height = map(int, size.split())
    rows = b"".join(pixels[3 * width * y:3 * width * (y + 1)] * across for y in range(height)) * across
    width, height = width * across, height * across
    jpeg = subprocess.run(["cjpeg", "-quality", "90"], input=b"P6\n%d %d\n255\n" % (width, height) + rows, check=True, capture_output=True).stdout
    return width, height, jpeg


def row(*cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def images(build, folder, photo):
    row("image", "JPEG, kB", "processor time, ms", "of it decoding and network", "requests/s and core")
    row(*["---"] * 5)
    for network in ("cifar10", "fashion-mnist"):
        with Metered(build, folder, "--models", os.path.join(ZOO, network + ".hwgq"), "--workers", "1", "--idle-workers", "sleep") as daemon:
            for eighths, across in ((1, 1), (4, 1), (8, 1), (8, 2), (8, 4), (8, 8)):
                width, height, jpeg = scaled(photo, eighths, across)
                cpu, worker = daemon.cost(jpeg, 4)
                row("%s, %dx%d" % (network, width, height), "%.0f" % (len(jpeg) / 1e3), "%.3f" % (1e3 * cpu), "%.3f" % (1e3 * worker), "%.0f" % (1 / cpu))


def networks(build, folder, photo):
    row("network", "processor time, ms", "requests/s and core", "resident, MB")
    row(*["---"] * 4)
    image = open(photo, "rb").read()
    for name in NETWORKS:
        path = os.path.join(folder, name + ".hwgq")
        subprocess.run([os.path.join(build, "hwgq"), "new", name, "--output", path], check=True, capture_output=True)
        with Metered(build, folder, "--models", path, "--workers", "1", "--idle-workers", "sleep") as daemon:
            cpu, _ = daemon.cost(image, 4)
            row(name, "%.2f" % (1e3 * cpu), "%.0f" % (1 / cpu), "%.1f" % daemon.resident_mb())
        os.remove(path)


def start(build, folder, photo):
    image = open(photo, "rb").read()
    ready, resident = [], []
    for _ in range(9):
        with Metered(build, folder, "--config", os.path.join(ROOT, "config/hwgqd.json")) as daemon:
            ready.append(1e3 * daemon.ready_seconds)
            daemon.classify(image)
            resident.append(daemon.resident_mb())
    print("start to ready: median %.0f ms (%.0f to %.0f); resident after a photograph: %.1f MB" % (
        statistics.median(ready), min(ready), max(ready), statistics.median(resident)))


def load(bench, daemon, rate, seconds, photos):
    # Without a rate every connection waits for its answer: no more of them than one client may have in the queue.
    connections = "64" if rate == "0" else "256"
    line = subprocess.run([bench, str(daemon.port), rate, str(seconds), connections, *photos], capture_output=True, text=True).stdout
    return {name: float(value) for name, value in (word.split("=") for word in line.split())}


def arrivals(rate, seconds):
    """When bench_http sends the requests of ~RATE: its random numbers again."""
    state, now, mask = 88172645463325252, 0.0, 2**64 - 1
    while now < seconds:
        yield now
        state ^= state >> 12
        state ^= state << 25 & mask
        state ^= state >> 27
        now -= math.log(((state * 0x2545F4914F6CDD1D & mask) >> 11) * 2.0**-53 + 2.0**-53) / rate


class Measured:
    """A daemon with so many workers: what its parts take, and latencies under loads. The daemon's workers do not help each other: an
    image is one worker's, as the models have it."""

    def __init__(self, build, folder, workers, photos):
        bench = os.path.join(build, "tests/bench/bench_http")
        pictures = [open(photo, "rb").read() for photo in photos]
        flags = ("--models", os.path.join(ZOO, "cifar10.hwgq"), "--workers", str(workers), "--idle-workers", "sleep", "--io-threads", "1")
        self.workers, self.rounds = workers, []
        with Metered(build, folder, *flags) as daemon:
            load(bench, daemon, "0", 1, photos)
            self.services = [statistics.median(daemon.classify(picture)[1] for _ in range(25)) for picture in pictures]
            # The I/O thread and the generator take less for a request when there are many at once. What they take longer alone is
            # taken for time that no core is short of.
            before = daemon.cpu_seconds()
            busy = load(bench, daemon, "0", 3, photos)
            io = max(0, (daemon.cpu_seconds() - before) / busy["ok"] - statistics.mean(self.services))
            client = busy["generator_us"] / 1e6
            slow = load(bench, daemon, "200", 3, photos)
            overhead = max(0, slow["p50"] / 1e3 - statistics.median(self.services) - io - client)
            self.model = queueing.Simulation(self.services, workers, os.cpu_count(), io, overhead, client)
            for share in (0.3, 0.5, 0.7, 0.8):
                rate = round(share * self.model.capacity())
                self.rounds.append((share, rate, [load(bench, daemon, "~%d" % rate, SECONDS, photos) for _ in range(3)]))

    def table(self):
        model = self.model
        print("<!-- worker %.3f ms (%.3f to %.3f), I/O thread %.3f, generator %.3f, alone %.3f more -->" % tuple(
            1e3 * v for v in (statistics.mean(self.services), min(self.services), max(self.services), model.io, model.client, model.overhead)))
        for share, rate, rounds in self.rounds:
            times = list(arrivals(rate, SECONDS))
            latencies, _ = model.replay([(t, self.services[i % len(self.services)]) for i, t in enumerate(times)])
            cells = [text for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
                     for text in ("%.2f" % (1e3 * queueing.quantile(latencies, q)), "%.2f" % statistics.median(r[name] for r in rounds))]
            beside = model.overhead + model.io + model.client
            row(str(self.workers), "%d" % rate, "%.0f %%" % (100 * share), *cells, "%.2f" % (1e3 * statistics.mean(latencies)),
                "%.2f" % (1e3 * queueing.formula(self.services, rate, self.workers, beside)))


def model(build, folder, *photos):
    measured = [Measured(build, folder, workers, photos) for workers in (1, 2)]
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # what follows takes precedence over nobody
    row("workers", "requests/s", "of capacity", "p50: predicted", "measured", "p90: predicted", "measured", "p99: predicted", "measured",
        "mean: simulated", "M/G/k")
    row(*["---"] * 11)
    for one in measured:
        one.table()


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[2] not in ("images", "networks", "model", "start"):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as temporary:
        globals()[sys.argv[2]](sys.argv[1], temporary, *sys.argv[3:])
