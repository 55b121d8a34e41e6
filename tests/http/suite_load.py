"""Load from outside: the queue, deadlines, clients that leave or do not read, counts.
suite_load.py BUILD_DIR FIXTURES (see run.sh). Every group of checks has a daemon of its own."""
import signal
import socket
import threading
import time

from harness import *


def full_queue():
    with Daemon(BUILD, FOLDER, *SLOW, "--queue-capacity", "1", "--queue-deadline-ms", "60000") as daemon:
        body, content_type = slow_form(daemon, 1.5)
        replies = in_threads(6, lambda i: daemon.post("/classify?top_k=1", body, content_type))
        codes = sorted(r.status for r in replies)
        check("one runs, one waits, the others get 503", codes[:2] == [200, 200] and codes[-1] == 503 and
              set(codes) == {200, 503}, codes)
        refused = [r for r in replies if r.status == 503]
        for reply in refused[:1]:
            error("503", reply, 503, "queue_full")
        check("Retry-After", all(int(r.headers["Retry-After"]) >= 1 for r in refused))
        stats = daemon.get("/stats").json["models"]["slow"]["requests"]
        check("rejected are counted", stats["rejected"] == len(refused) and stats["ok"] == 7 - len(refused), stats)


def deadline():
    with Daemon(BUILD, FOLDER, *SLOW, "--queue-deadline-ms", "200") as daemon:
        body, content_type = slow_form(daemon, 4)
        busy = threading.Thread(target=lambda: daemon.post("/classify?top_k=1", body, content_type))
        busy.start()
        check("a worker is busy", until(lambda: b"\nhwgqd_workers_busy 1\n" in daemon.get("/metrics").body, 30))
        error("deadline in the queue", daemon.post("/classify", JPEG), 504, "deadline_exceeded")
        check("at the deadline, not when a worker comes around", busy.is_alive())
        check("a scrape does not wait for inference", daemon.get("/stats").json["models"]["slow"]["requests"]["expired"] == 1)
        busy.join()
        check("no work was done for it", daemon.get("/stats").json["models"]["slow"]["images"] ==
              PROBE + body.count(b"\xff\xd8\xff"), daemon.get("/stats").body)


def gone_client():
    with Daemon(BUILD, FOLDER, *SLOW, "--queue-deadline-ms", "60000") as daemon:
        body, content_type = slow_form(daemon, 1.0)
        busy = threading.Thread(target=lambda: daemon.post("/classify?top_k=1", body, content_type))
        busy.start()
        check("the worker is busy", until(lambda: b"\nhwgqd_workers_busy 1\n" in daemon.get("/metrics").body, 30))
        for _ in range(5):
            connection = daemon.connect()
            connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(JPEG) + JPEG)
            time.sleep(0.02)
            connection.close()
        busy.join()
        check("clients that went away cost no work", until(
            lambda: metrics(daemon.get("/metrics").body.decode()).get('hwgqd_requests_total{model="slow",code="499"}') == 5),
            daemon.get("/metrics").body)
        check("only the others' images ran", daemon.get("/stats").json["models"]["slow"]["images"] == PROBE + body.count(b"\xff\xd8\xff"))


def gone_while_running():
    """Someone who leaves while his images run does not get the rest of them classified."""
    with Daemon(BUILD, FOLDER, *SLOW) as daemon:
        body, content_type = slow_form(daemon, 10)
        with daemon.connect() as connection:
            connection.sendall(("POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" %
                                (content_type, len(body))).encode() + body)
            check("the worker is busy", until(lambda: sample(daemon, "hwgqd_workers_busy") == 1, 30))
        check("it is counted as gone", until(lambda: sample(daemon, 'hwgqd_requests_total{model="slow",code="499"}') == 1, 30))
        images = daemon.get("/stats").json["models"]["slow"]["images"] - PROBE
        check("most of its images did not run", images < body.count(b"\xff\xd8\xff") * 0.8, images)
        check("the next one is served", daemon.post("/classify", JPEG).status == 200)


def lazy_reader(daemon, images=3000):
    """A connection whose reply is larger than what the kernel takes and is never read."""
    body, content_type = form([("image", b"no image")] * images)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", daemon.port))
    connection.sendall(("POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" %
                        (content_type, len(body))).encode() + body)
    return connection


def unread_replies():
    """A client that does not take its reply loses the connection, and holds neither memory nor the end of the daemon."""
    flags = (*BOTH, "--max-images", "4000", "--request-timeout-ms", "1500", "--idle-timeout-ms", "600000")
    with Daemon(BUILD, FOLDER, *flags, "--max-body-bytes", "700000", "--max-buffered-bytes", "700000") as daemon:
        with lazy_reader(daemon) as lazy:
            check("it waits for its client", until(lambda: sample(daemon, 'hwgqd_requests_total{model="color",code="200"}') == 1))
            check("until the deadline", until(lambda: sample(daemon, "hwgqd_requests_in_flight") == 0, 20))
            lazy.settimeout(5)
            check("the reply was cut", not read_all(lazy).endswith(b"}}\n"))
        with lazy_reader(daemon):
            check("the second one waits", until(lambda: sample(daemon, 'hwgqd_requests_total{model="color",code="200"}') == 2))
            body, content_type = form([("image", b"no image")] * 4000)
            error("replies count as bodies do", daemon.post("/classify", body, content_type), 503, "overloaded")
        check("the memory is given back", until(lambda: daemon.post("/classify", body, content_type).status == 200, 20))
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])
    with Daemon(BUILD, FOLDER, *flags) as daemon:
        with lazy_reader(daemon):
            check("it waits again", until(lambda: sample(daemon, 'hwgqd_requests_total{model="color",code="200"}') == 1))
            daemon.signal(signal.SIGTERM)
            check("a client that does not read does not hold the drain", daemon.wait(25) == 0, daemon.log()[-2000:])


def counts_agree():
    """What clients saw, /stats and /metrics tell the same."""
    with Daemon(BUILD, FOLDER, *BOTH) as daemon:
        def client(i):
            seen = []
            for k in range(12):
                kind = (i + k) % 6
                if kind == 0:
                    seen.append(("color", daemon.post("/classify", JPEG).status, 1))
                elif kind == 1:
                    seen.append(("gray", daemon.post("/classify?model=gray", JPEG).status, 1))
                elif kind == 2:
                    seen.append(("color", daemon.post("/classify", b"no image").status, 0))
                elif kind == 3:
                    seen.append(("gray", daemon.post("/v1/models/gray/classify", JPEG[:200]).status, 0))
                elif kind == 4:
                    seen.append(("color", daemon.form("/classify", [("image", JPEG), ("image", b"x" * 50), ("image", JPEG)]).status, 2))
                else:
                    seen.append(("", daemon.post("/classify?model=none", JPEG).status, 0))
            return seen
        seen = [event for events in in_threads(8, client) for event in events]
        # A client has its reply a moment before the server has counted the request as finished.
        check("nothing in flight", until(lambda: sample(daemon, "hwgqd_requests_in_flight") == 0))
        stats, samples = daemon.get("/stats").json, metrics(daemon.get("/metrics").body.decode())
        recent = daemon.get("/stats?window=60").json
        for model in ("color", "gray"):
            ok = sum(1 for m, status, _ in seen if m == model and status == 200)
            bad = sum(1 for m, status, _ in seen if m == model and status != 200)
            images = sum(count for m, _, count in seen if m == model)
            one = stats["models"][model]
            check(model + ": /stats counts what clients saw", one["requests"] ==
                  {"ok": ok, "failed": bad, "rejected": 0, "expired": 0} and one["images"] == images, one)
            check(model + ": so does the last minute", recent["models"][model]["requests"] == one["requests"] and
                  recent["models"][model]["latency_ms"]["total"]["count"] == one["latency_ms"]["total"]["count"])
            check(model + ": so does /metrics", samples['hwgqd_requests_total{model="%s",code="200"}' % model] == ok and
                  sum(v for k, v in samples.items() if k.startswith('hwgqd_requests_total{model="%s"' % model)) == ok + bad and
                  samples['hwgqd_images_total{model="%s"}' % model] == images)
            for stage, numbers in one["latency_ms"].items():
                name = 'hwgqd_stage_duration_seconds_%%s{model="%s",stage="%s"' % (model, stage)
                count, total = samples[name % "count" + "}"], samples[name % "sum" + "}"]
                buckets = [v for k, v in samples.items() if k.startswith(name % "bucket")]
                check("%s %s: histogram" % (model, stage), count == numbers["count"] == buckets[-1] and buckets == sorted(buckets) and
                      abs(total * 1000 - numbers["mean"] * count) < 0.01 + 0.0001 * count, (numbers, count, total, buckets))
                check("%s %s: quantiles in order" % (model, stage), numbers["min"] <= numbers["p50"] <= numbers["p90"] <=
                      numbers["p95"] <= numbers["p99"] <= numbers["p999"] <= numbers["max"], numbers)
        check("requests without a network", stats["without_model"]["requests"]["failed"] ==
              sum(1 for m, _, _ in seen if m == "") == samples['hwgqd_requests_total{model="",code="404"}'])
        check("nothing waits", samples["hwgqd_queue_depth"] == 0)


main(full_queue, deadline, gone_client, gone_while_running, unread_replies, counts_agree)
