#!/usr/bin/env python3
"""Leaves a daemon alone with the public: soak.py [MINUTES=30] [REQUESTS_PER_SECOND=20, 0: as many as it takes] [BUILD=build/release]
[MORE FLAGS OF hwgqd...]

Clients send images of every format, damaged ones, several in one request, /v2 as JSON and with binary tensors; others send slowly, stop
in the middle or leave before their answer comes; the networks are reloaded every few seconds, by SIGHUP and by management calls, also
from damaged files. Every answer must be the first one's, bit for bit. A line a minute has resident memory, descriptors and threads; the
last one is the verdict. Exit status 0: nothing failed, nothing grew, the daemon ended cleanly."""
import base64
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "tests", "http"))
from daemon import Daemon, form  # noqa: E402

CLIENTS = 4
RELOAD_SECONDS = 3
# How much the median of a later part may be above that of an earlier one: what the allocator keeps moves by this much.
SLACK_KIB = 1024


def read(path):
    with open(path, "rb") as stream:
        return stream.read()


class Soak:
    def __init__(self, daemon, folder, key, rate):
        self.daemon, self.folder, self.rate = daemon, folder, rate
        self.headers = {"Authorization": "Bearer " + key}
        self.counts, self.failures, self.lock = {}, [], threading.Lock()
        self.stop = threading.Event()
        self.bodies = [read(os.path.join(ROOT, "tests", "images", name)) for name in sorted(os.listdir(os.path.join(ROOT, "tests", "images")))
                       if name.rsplit(".")[-1] in ("jpg", "png", "webp")]
        self.bodies += [b"no image at all", self.bodies[0][:100], b"\xff\xd8\xff" + os.urandom(3000)]
        self.expected = []
        for body in self.bodies:
            reply = daemon.post("/classify", body, headers=self.headers)
            self.expected.append((reply.status, outcome(reply.json)))
        self.good = [body for body, (status, _) in zip(self.bodies, self.expected) if status == 200]

    def count(self, kind):
        with self.lock:
            self.counts[kind] = self.counts.get(kind, 0) + 1

    def check(self, kind, good, detail):
        self.count(kind)
        if good:
            return
        with self.lock:
            self.failures.append("%s: %s" % (kind, str(detail)[:300]))
            if len(self.failures) <= 20:
                print("FAILED", self.failures[-1], flush=True)

    # ---- what clients do; each gets its own connection that is kept and its own random numbers

    def one(self, ask, dice):
        i = dice.randrange(len(self.bodies))
        status, body = ask("POST", "/classify", self.bodies[i], "application/octet-stream")
        self.check("one image", (status, outcome(body)) == self.expected[i], (i, status, body))

    def several(self, ask, dice):
        chosen = [dice.randrange(len(self.bodies)) for _ in range(dice.randint(2, 10))]
        status, body = ask("POST", "/v1/models/cifar10/classify", *form([("image", self.bodies[i]) for i in chosen]))
        results = [outcome(result) for result in body.get("results", [])]
        self.check("several images", status == 200 and results == [self.expected[i][1] for i in chosen], (chosen, status, body))

    def v2_json(self, ask, dice):
        i = dice.randrange(len(self.bodies))
        request = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES",
                               "data": [{"b64": base64.b64encode(self.bodies[i]).decode()}]}]}
        status, body = ask("POST", "/v2/models/cifar10/infer", json.dumps(request).encode(), "application/json")
        good = status == 200 if self.expected[i][0] == 200 else 400 <= status < 500 and list(body) == ["error"]
        self.check("v2 JSON", good, (i, status, body))

    def v2_binary(self, ask, dice):
        images = [dice.choice(self.good) for _ in range(dice.randint(1, 5))]
        data = b"".join(len(image).to_bytes(4, "little") + image for image in images)
        header = json.dumps({"inputs": [{"name": "image", "shape": [len(images)], "datatype": "BYTES",
                                         "parameters": {"binary_data_size": len(data)}}]}).encode()
        status, body = ask("POST", "/v2/models/cifar10/infer", header + data, "application/octet-stream",
                           {"Inference-Header-Content-Length": str(len(header))})
        self.check("v2 binary", status == 200 and body["outputs"][0]["shape"][0] == len(images), (status, body))

    def second_network(self, ask, dice):
        status, body = ask("POST", "/classify?model=second", dice.choice(self.good), "image/jpeg")
        good = status == 200 or (status == 404 and body["error"]["code"] == "model_not_loaded")
        self.check("a network that comes and goes", good, (status, body))

    def wrong(self, ask, dice):
        path, body, content_type, wanted = dice.choice([
            ("/classify", b"", "image/png", 400), ("/classify?top_k=x", b"x", "image/png", 400), ("/none", b"x", "image/png", 404),
            ("/v2/models/cifar10/infer", b"{", "application/json", 400), ("/classify", b"a=b", "text/plain", 415),
            ("/classify?model=none", b"x", "image/png", 404)])
        status, body = ask("POST", path, body, content_type)
        self.check("wrong requests", status == wanted, (path, status, body))

    def look(self, ask, dice):
        path = dice.choice(["/stats?window=60", "/v1/models", "/v2/models/cifar10/stats", "/readyz", "/"])
        status, _ = ask("GET", path, None, None)
        self.check("readers", status == 200, (path, status))

    def raw_head(self, length, more=""):
        return ("POST /classify HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: %d\r\n%s\r\n" %
                (self.headers["Authorization"], length, more)).encode()

    def aborted(self, _, dice):
        body = dice.choice(self.bodies)
        with self.daemon.connect() as connection:
            connection.sendall(self.raw_head(len(body) + 1) + body[:dice.randrange(len(body))])
        self.count("uploads that stop")

    def impatient(self, _, dice):
        body = dice.choice(self.good)
        with self.daemon.connect() as connection:
            connection.sendall(self.raw_head(len(body)) + body)
        self.count("clients that leave")

    def slow(self, _, dice):
        body, pieces = dice.choice(self.good), 8
        with self.daemon.connect() as connection:
            data = self.raw_head(len(body), "Connection: close\r\n") + body
            for i in range(pieces):
                connection.sendall(data[i * len(data) // pieces:(i + 1) * len(data) // pieces])
                self.stop.wait(0.1)
            received = b""
            while True:
                piece = connection.recv(300)
                if not piece:
                    break
                received += piece
        self.check("slow clients", received.startswith(b"HTTP/1.1 200 "), received)

    def client(self, number):
        dice = random.Random(number)
        kinds = ([self.one] * 8 + [self.several] * 3 + [self.v2_json] * 2 + [self.v2_binary] * 2 + [self.second_network] * 2 +
                 [self.wrong] * 2 + [self.look, self.aborted, self.impatient, self.slow])
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=60)

        def ask(method, path, body, content_type, more=None):
            headers = dict(self.headers, **(more or {}))
            if content_type:
                headers["Content-Type"] = content_type
            try:
                connection.request(method, path, body, headers)
                reply = connection.getresponse()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # The daemon may close a connection that idled or brought a wrong request: once, on a new one, it must work.
                connection.close()
                connection.request(method, path, body, headers)
                reply = connection.getresponse()
            content = reply.read()
            is_json = reply.headers.get("Content-Type") == "application/json"
            return reply.status, json.loads(content) if is_json else {}

        while not self.stop.is_set():
            kind = dice.choice(kinds)
            try:
                kind(ask, dice)
            except Exception as problem:  # noqa: BLE001: whatever happens to a client is a finding
                self.check(kind.__name__, False, repr(problem))
                connection.close()
            if self.rate:
                self.stop.wait(dice.expovariate(self.rate / CLIENTS))
        connection.close()

    # ---- whoever runs the daemon

    def replace(self, content):
        path = os.path.join(self.folder, "models", "second.hwgq")
        with open(path + ".new", "wb") as stream:
            stream.write(content)
        os.rename(path + ".new", path)

    def manage(self, path, wanted=200):
        reply = self.daemon.request("POST", path, b"", self.headers)
        self.check("management calls", reply.status == wanted, (path, reply.status, reply.body))

    def operator(self):
        second, turn = read(os.path.join(self.folder, "models", "second.hwgq")), 0
        while not self.stop.wait(RELOAD_SECONDS):
            turn += 1
            try:
                if turn % 2:
                    self.daemon.signal(signal.SIGHUP)
                    self.count("SIGHUP")
                elif turn % 10 == 2:
                    self.manage("/v1/models/second/unload")
                    self.manage("/v1/models/second/load")
                elif turn % 10 == 4:
                    self.replace(second[:len(second) // 2])
                    self.manage("/v1/models/second/load", 422)
                    self.replace(second)
                    self.manage("/v2/repository/models/second/load")
                else:
                    self.manage("/v1/models/cifar10/reload")
            except Exception as problem:  # noqa: BLE001
                self.check("management calls", False, repr(problem))

    def measure(self):
        process = "/proc/%d/" % self.daemon.process.pid
        status = dict(line.split(":", 1) for line in read(process + "status").decode().splitlines())
        cpu = sum(int(read(process + "task/%s/schedstat" % task).split()[0]) for task in os.listdir(process + "task"))
        return int(status["VmRSS"].split()[0]), len(os.listdir(process + "fd")), int(status["Threads"]), cpu / 1e9


def outcome(body):
    """What must be the same every time: predictions, or the error's code."""
    return body["error"]["code"] if "error" in body else body.get("predictions")


def median(values):
    return sorted(values)[len(values) // 2]


def grew(samples):
    """The third quarter's and the last one's median against the second one's; the first is for warming up."""
    quarter = len(samples) // 4
    if not quarter:
        return 0
    second, third, last = (median(samples[i * quarter:(i + 1) * quarter]) for i in (1, 2, 3))
    return min(third, last) - second


def watch(soak, minutes):
    start = time.monotonic()
    table, resident = [], []
    print("minute  resident KiB  descriptors  threads  daemon's CPU s  requests  failed", flush=True)
    for second in range(int(minutes * 60)):
        time.sleep(max(0, start + second + 1 - time.monotonic()))
        if soak.daemon.process.poll() is not None:
            soak.failures.append("the daemon has ended")
            break
        table.append(soak.measure())
        resident.append(table[-1][0])
        if (second + 1) % 60 == 0:
            rss, fds, threads, cpu = (median([row[i] for row in table[-60:]]) for i in range(4))
            print("%6d  %12d  %11d  %7d  %14.1f  %8d  %6d" % ((second + 1) // 60, rss, fds, threads, table[-1][3],
                                                              sum(soak.counts.values()), len(soak.failures)), flush=True)
    return table, grew(resident)


def main():
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30
    rate = float(sys.argv[2]) if len(sys.argv) > 2 else 20
    build = sys.argv[3] if len(sys.argv) > 3 else os.path.join(ROOT, "build", "release")
    folder = tempfile.mkdtemp()
    os.mkdir(os.path.join(folder, "models"))
    shutil.copy(os.path.join(ROOT, "models", "zoo", "cifar10.hwgq"), os.path.join(folder, "models"))
    shutil.copy(os.path.join(ROOT, "models", "zoo", "fashion-mnist.hwgq"), os.path.join(folder, "models", "second.hwgq"))
    keys = os.path.join(folder, "keys")
    key = subprocess.run([os.path.join(build, "hwgqd"), "--add-key", "soak", "--rights", "admin", "--keys-file", keys],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout.strip()
    flags = ["--models", os.path.join(folder, "models"), "--default-model", "cifar10", "--keys-file", keys, "--log-level", "error"]
    try:
        with Daemon(build, folder, *flags, *sys.argv[4:]) as daemon:
            soak = Soak(daemon, folder, key, rate)
            before = soak.measure()
            threads = [threading.Thread(target=soak.client, args=(i,)) for i in range(CLIENTS)]
            threads.append(threading.Thread(target=soak.operator))
            for thread in threads:
                thread.start()
            table, growth = watch(soak, minutes)
            soak.stop.set()
            for thread in threads:
                thread.join()
            time.sleep(1)  # the last connections close
            after = soak.measure() if daemon.process.poll() is None else before
        print("  ".join("%s: %d" % item for item in sorted(soak.counts.items())))
        # A sanitizer keeps what was freed, to find late uses.
        if growth > SLACK_KIB and b"-fsanitize=" not in read(os.path.join(build, "flags")):
            soak.failures.append("resident memory grew by %d KiB" % growth)
        if after[1] > before[1] or after[2] > before[2]:
            soak.failures.append("%d descriptors and %d threads at the end, %d and %d at the start" % (after[1:3] + before[1:3]))
        if daemon.exit_code != 0:
            soak.failures.append("exit status %s\n%s" % (daemon.exit_code, daemon.log()[-2000:]))
        print("%s: %d requests in %.0f minutes, %d failed; resident memory %+d KiB from the second quarter on; %d of %d descriptors" %
              ("FAILED " + soak.failures[-1] if soak.failures else "good", sum(soak.counts.values()), minutes, len(soak.failures),
               growth, after[1], before[1]))
        sys.exit(1 if soak.failures else 0)
    finally:
        shutil.rmtree(folder)


main()
