"""What goes wrong on the internet and in a full machine, with counts: suite_faults.py BUILD_DIR FIXTURES (see run.sh)."""
import json
import mmap
import os
import random
import select
import signal
import socket
import struct
import subprocess
import threading
import time

from harness import *

POST = b"POST /classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: image/jpeg\r\n"
REQUEST = POST + b"Content-Length: %d\r\n\r\n" % len(JPEG) + JPEG


def daemon(*flags, **options):
    return Daemon(BUILD, FOLDER, *BOTH, *flags, **options)


def descriptors(d):
    return len(os.listdir("/proc/%d/fd" % d.process.pid))


def quiet(d):
    """Nothing is in progress and no memory of bodies is held."""
    return until(lambda: sample(d, "hwgqd_requests_in_flight") == 0 and sample(d, "hwgqd_buffered_bytes") == 0)


def slow_drip():
    """1,000 connections that send one byte a second, in the head or in the body, while others are served."""
    count, seconds, timeout = 1000, 5, 4
    if not allow_descriptors(count + 200):
        skip("this machine allows too few open files for %d connections" % count)
        return
    with daemon("--request-timeout-ms", str(1000 * timeout), "--idle-timeout-ms", str(1000 * timeout), "--max-connections", "1200") as d:
        start = time.monotonic()
        dripping = [d.connect() for _ in range(count)]
        for i, c in enumerate(dripping):
            try:
                c.sendall(b"POST /classify HT" if i % 2 else POST + b"Content-Length: 1000\r\n\r\nabc")
            except OSError:  # it took longer than the timeout to get here
                pass
        waits, stop = [], threading.Event()

        def others():
            while not stop.is_set():
                begin = time.monotonic()
                good = d.post("/classify", JPEG).status == 200
                waits.append((good, time.monotonic() - begin))
        threads = [threading.Thread(target=others) for _ in range(2)]
        for thread in threads:
            thread.start()
        while time.monotonic() < start + seconds or (len(waits) <= 20 and time.monotonic() < start + PATIENCE):
            time.sleep(1)
            for i, c in enumerate(dripping):
                try:
                    if select.select([c], [], [], 0)[0]:
                        continue  # it has its answer, which a byte more could cost it
                    c.send((b"TP/1.1\r\n" * 2)[int(time.monotonic() - start) % 16:][:1] if i % 2 else b"x")
                except OSError:
                    pass
        stop.set()
        for thread in threads:
            thread.join()
        ended = [read_all(c) for c in dripping]
        for c in dripping:
            c.close()
        refused = sum(reply.startswith(b"HTTP/1.1 408") for reply in ended)
        print("slow drip: %d connections, %d told 408, %d cut; %d other requests meanwhile, the slowest %.0f ms" % (
            count, refused, count - refused, len(waits), 1000 * max(w for _, w in waits)))
        check("others are served meanwhile", len(waits) > 20 and all(good for good, _ in waits), waits[:5])
        check("every body that drips gets 408 or is cut, each head is cut", refused >= count // 4, refused)
        check("all of them are gone", quiet(d) and until(lambda: descriptors(d) < 60), descriptors(d))
    check("exit code", d.exit_code == 0, d.log()[-2000:])


def resets():
    """Connections that are reset in the middle of a request, anywhere."""
    count, generator = 500, random.Random(3)
    cuts = [generator.randrange(1, len(REQUEST)) for _ in range(count)]
    with daemon() as d:
        check("before", d.post("/classify", JPEG).status == 200)
        before = descriptors(d)

        def client(i):
            for cut in cuts[i::10]:
                with d.connect() as c:
                    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    c.sendall(REQUEST[:cut])
                    if cut % 3 == 0:
                        time.sleep(0.001)
            return len(cuts[i::10])
        sent = in_threads(10, client)
        check("%d resets" % count, sum(n for n in sent if isinstance(n, int)) == count, sent)
        check("no request, no memory and no descriptor is left", quiet(d) and until(lambda: descriptors(d) <= before), (before, descriptors(d)))
        check("and it serves", d.post("/classify", JPEG).status == 200)
        gone = sample(d, 'hwgqd_requests_total{model="color",code="499"}')
        print("resets: %d, of them %d seen as a request of a client that has gone" % (count, gone))
        check("they are counted as gone", 0 < gone <= count, gone)
    check("exit code", d.exit_code == 0, d.log()[-2000:])


def gone_while_queued():
    """Clients that leave while they wait cost no work."""
    count = 200
    with Daemon(BUILD, FOLDER, *SLOW) as d:
        with Busy(d):
            clients = [d.connect() for _ in range(count)]
            for c in clients:
                c.sendall(REQUEST)
            check("%d clients wait" % count, waiting(d, count), sample(d, "hwgqd_queue_depth"))
            for c in clients:
                c.close()
        check("all are gone", until(lambda: sample(d, 'hwgqd_requests_total{model="color",code="499"}') == count),
              sample(d, 'hwgqd_requests_total{model="color",code="499"}'))
        check("and no work was done for them", sample(d, 'hwgqd_images_total{model="color"}') == 0)
        check("nothing is left", quiet(d))
    check("exit code", d.exit_code == 0, d.log()[-2000:])


def descriptors_exhausted():
    """More clients than the process may have descriptors."""
    limit, count = 60, 200
    with daemon(prefix=("sh", "-c", 'ulimit -n %d; exec "$@"' % limit, "sh")) as d:
        check("the low limit is a warning", any("limit of open files" in e["message"] for e in d.events()), d.log()[:600])
        holding = []
        for i in range(count):  # the kernel accepts them; the daemon cannot take all
            holding.append(d.connect())
            if i < 20:
                holding[i].sendall(REQUEST)
        served = sum(read_all(c).startswith(b"HTTP/1.1 200") for c in holding[:20])
        check("the first 20 are served", served == 20, served)
        busy = [float(x) for x in open("/proc/%d/stat" % d.process.pid).read().split()[13:15]]
        start = time.monotonic()
        time.sleep(0.5)
        later = [float(x) for x in open("/proc/%d/stat" % d.process.pid).read().split()[13:15]]
        used, took = (sum(later) - sum(busy)) / os.sysconf("SC_CLK_TCK"), time.monotonic() - start
        check("it does not spin while it cannot accept (%.2f s of CPU in %.2f s)" % (used, took), used < 0.6 * took, used)
        d.signal(signal.SIGHUP)
        until(lambda: any(e["message"].startswith(("reloaded", "reload failed")) for e in d.events()))
        check("a reload still finds descriptors", any(e["message"] == "reloaded" for e in d.events()) and
              "Too many open files" not in d.log(), d.log()[-600:])
        for c in holding[20:120]:
            c.close()

        def late(i):
            try:
                holding[120 + i].sendall(REQUEST)
                if read_all(holding[120 + i]).startswith(b"HTTP/1.1 200"):
                    return True
            except OSError:  # it was idle and in the way: a client connects again then
                pass
            return d.post("/classify", JPEG).status == 200
        answers = in_threads(80, late)
        check("the others are served: 80", answers.count(True) == 80, [a for a in answers if a is not True][:3])
        for c in holding:
            c.close()
        check("and new ones too", d.post("/classify", JPEG).status == 200)
    check("exit code", d.exit_code == 0, d.log()[-2000:])


def idle_connections():
    """One client opens more connections than there may be and is silent: others are served, and whoever has a request keeps his."""
    count = 128
    with daemon("--max-connections", str(count), "--io-threads", "2") as d:
        def alive(c):
            c.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            return c.recv(4096).startswith(b"HTTP/1.1 200")
        # Addresses share 256 slots: one of these may, though not likely, be taken for the silent client's.
        kept = [socket.create_connection(("127.0.0.1", d.port), PATIENCE, ("127.0.0.%d" % (2 + i), 0)) for i in range(4)]
        check("other clients are answered", all(alive(c) for c in kept))
        with d.connect() as upload:
            upload.sendall(REQUEST[:-10])
            check("an upload has begun", until(lambda: sample(d, "hwgqd_buffered_bytes") > 0))
            silent = [d.connect() for _ in range(count + 64)]
            begin = time.monotonic()
            answers = in_threads(8, lambda i: [d.get("/healthz").status for _ in range(4)])
            print("idle connections: %d of at most %d; 32 probes meanwhile in %.0f ms" % (len(silent), count, 1000 * (time.monotonic() - begin)))
            check("probes are answered meanwhile", answers == [[200] * 4] * 8, answers)
            check("images too", d.post("/classify", JPEG).status == 200)
            evicted = sample(d, "hwgqd_evicted_connections_total")
            check("those in the way were closed, and counted", 64 <= evicted < len(silent), evicted)
            check("the longest idle first", read_all(silent[0]) == b"" and not select.select([silent[-1]], [], [], 0)[0])
            check("of the address that has most: the others' connections are open",
                  sum(not select.select([c], [], [], 0)[0] and alive(c) for c in kept) >= 3)
            upload.sendall(REQUEST[-10:])
            check("and the upload is answered", read_all(upload).startswith(b"HTTP/1.1 200"))
            silent[-1].sendall(REQUEST)
            check("as is one that was silent so far", read_all(silent[-1]).startswith(b"HTTP/1.1 200"))
            for c in silent + kept:
                c.close()
    check("exit code", d.exit_code == 0, d.log()[-2000:])
    with daemon("--max-connections", "1", "--io-threads", "1") as d:
        with d.connect():
            check("the only connection that there may be", until(lambda: d.get("/healthz").status == 200))
    check("exit code", d.exit_code == 0, d.log()[-2000:])


# ---- memory -------------------------------------------------------------------------------------------------------------


class Failing:
    """The control block of fail_malloc.c."""

    def __init__(self):
        self.library, path = fixture("fail_malloc.so"), fixture("fail_malloc")
        compiler = open(os.path.join(BUILD, "flags")).read().split()[0]
        subprocess.run([compiler, "-O1", "-fPIC", "-shared", "tests/http/fail_malloc.c", "-o", self.library], check=True)
        with open(path, "wb") as stream:
            stream.write(bytes(24))
        self.file = open(path, "r+b")
        self.block = mmap.mmap(self.file.fileno(), 24)
        self.environment = dict(os.environ, LD_PRELOAD=self.library, FAIL_MALLOC=path)

    def arm(self, first, last):
        self.block[8:24] = struct.pack("qq", last, 0)
        self.block[0:8] = struct.pack("q", first)

    def disarm(self):
        """Allocations since arm()."""
        self.block[0:8] = struct.pack("q", 0)
        return struct.unpack("q", self.block[16:24])[0]


def exchange(d, data):
    """A whole request; the reply's status (0: closed without one) and body."""
    with d.connect() as c:
        c.sendall(data)
        reply = b""
        while True:
            try:
                piece = c.recv(65536)
            except ConnectionResetError:
                break
            if not piece:
                break
            reply += piece
    head, _, body = reply.partition(b"\r\n\r\n")
    return (int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else 0), body


def judge(status, body, expected):
    """'good', 'refused' (an orderly error), 'closed' or 'wrong'."""
    if status == 0:
        return "closed" if not body else "wrong"
    try:
        answer = json.loads(body)
    except ValueError:
        return "refused" if status in (413, 431, 503) and b"<html>" in body else "wrong"  # libmicrohttpd's own
    if status == 503:
        return "refused" if answer["error"]["code"] in ("out_of_memory", "overloaded") else "wrong"
    if status != 200:
        return "wrong"
    results = answer.get("results", [answer])
    if any("error" in r and r["error"]["code"] != "out_of_memory" for r in results):
        return "wrong"
    if any("predictions" in r and r["predictions"] != e["predictions"] for r, e in zip(results, expected) if "predictions" in e):
        return "wrong"
    return "refused" if any("error" in r for r in results) else "good"


def allocations_fail():
    """Each of the first 2000 allocations of a request fails in turn; then all from one on."""
    if SANITIZED:
        skip("allocations that fail: sanitizers have allocators of their own")
        return
    failing, wanted = Failing(), 2000
    body, kind = form([("image", read("tests/images/one.jpg"))] * 145)
    many = ("POST /v1/models/gray/classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" %
            (kind, len(body))).encode() + body
    plain = [("GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path).encode() for path in (
        "/", "/healthz", "/stats?window=60", "/metrics", "/v1/models", "/v1/models/color", "/none", "/v1/models/none", "/classify")]
    with daemon("--max-images", "200", "--workers", "1", env=failing.environment) as d:
        def outcomes(data, numbers, until_the_end):
            failing.arm(1 << 40, 1 << 40)
            status, reply = exchange(d, data)
            total = failing.disarm()
            expected = json.loads(reply).get("results", [json.loads(reply)]) if data.startswith(b"POST") else None
            seen = {}
            for number in numbers(total):
                failing.arm(number, 1 << 40 if until_the_end else number)
                got, reply = exchange(d, data)
                failing.disarm()
                if expected:
                    kind = judge(got, reply, expected)
                else:
                    kind = "good" if got == status else "refused" if got in (413, 431, 503) else "closed" if got == 0 else "wrong"
                if kind == "wrong":
                    print("allocation %d of %d: %d %r" % (number, total, got, reply[:200]))
                seen[kind] = seen.get(kind, 0) + 1
            return total, seen
        before = descriptors(d)
        total, seen = outcomes(REQUEST, lambda n: range(1, n + 1), False)
        print("one image: %d allocations, each failed once: %s" % (total, seen))
        check("one image: no crash, no wrong answer", "wrong" not in seen and seen.get("refused", 0) > 3 and total > 20, seen)
        total, seen = outcomes(REQUEST, lambda n: range(1, n + 1), True)
        check("one image, all allocations from each one on fail", "wrong" not in seen and d.process.poll() is None, seen)
        total, seen = outcomes(many, lambda n: range(1, min(n, wanted) + 1), False)
        print("145 images: %d allocations, the first %d failed once each: %s" % (total, min(total, wanted), seen))
        check("145 images: the first %d allocations" % wanted, total >= wanted and "wrong" not in seen and seen.get("refused", 0) > 100, seen)
        for data in plain:
            total, seen = outcomes(data, lambda n: range(1, n + 1), False)
            check("%s: each of %d allocations" % (data.split(b" ")[1].decode(), total), "wrong" not in seen and total > 0, seen)
        check("the daemon lives and serves", d.process.poll() is None and d.post("/classify", JPEG).status == 200)
        check("nothing is left", quiet(d) and until(lambda: descriptors(d) <= before + 1), (before, descriptors(d)))
    check("exit code", d.exit_code == 0, d.log()[-2000:])


# ---- the end ------------------------------------------------------------------------------------------------------------


def end_at_peak():
    """SIGTERM while 32 clients send as fast as they can, each request on a connection of its own: what was accepted is answered."""
    with daemon("--queue-capacity", "4096") as d:
        stop, counts, lock = threading.Event(), {}, threading.Lock()

        def client(_):
            while not stop.is_set():
                try:
                    c = d.connect()
                except OSError:
                    with lock:
                        counts["refused"] = counts.get("refused", 0) + 1
                    return
                with c:
                    try:
                        c.sendall(REQUEST)
                        reply = read_all(c)
                    except OSError:
                        reply = b""
                    what = reply[9:12].decode() if reply.startswith(b"HTTP/1.1 ") and reply.endswith(b"}\n") else "lost"
                    with lock:
                        counts[what] = counts.get(what, 0) + 1
        thread = threading.Thread(target=lambda: in_threads(32, client))
        thread.start()
        check("there is load", until(lambda: counts.get("200", 0) > 50), counts)
        in_flight = sample(d, "hwgqd_requests_in_flight")
        d.signal(signal.SIGTERM)
        code = d.wait()
        stop.set()
        thread.join()
        print("SIGTERM with %d requests in flight: %s" % (in_flight, counts))
        check("exit code 0", code == 0, d.log()[-2000:])
        check("every accepted request was answered", counts.get("lost", 0) == 0 and counts.get("200", 0) > 50 and
              set(counts) <= {"200", "503", "refused"}, counts)
        check("and the log says so", "nothing accepted was lost" in d.log(), d.log()[-500:])


main(slow_drip, resets, gone_while_queued, descriptors_exhausted, idle_connections, allocations_fail, end_at_peak)
