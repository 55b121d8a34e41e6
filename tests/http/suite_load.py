"""Load from outside: the queue, deadlines, clients that leave or do not read, counts.
suite_load.py BUILD_DIR FIXTURES (see run.sh). Every group of checks has a daemon of its own."""
import json
import signal
import socket
import struct
import zlib

from harness import *


def full_queue():
    with Daemon(BUILD, FOLDER, *SLOW, "--queue-capacity", "1") as daemon:
        with Busy(daemon):
            patient = Later(lambda: daemon.post("/classify", JPEG))
            check("one runs, one waits", waiting(daemon, 1))
            replies = in_threads(4, lambda i: daemon.post("/classify", JPEG))
            for reply in replies:
                error("the others get 503", reply, 503, "queue_full")
                check("Retry-After", int(reply.headers["Retry-After"]) >= 1)
            head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(JPEG)
            with daemon.connect() as connection:
                connection.sendall(head + b"Expect: 100-continue\r\n\r\n")
                start = connection.recv(12)
                check("whoever asks before the body is refused then", start == b"HTTP/1.1 503" and b'"queue_full"' in read_all(connection), start)
            with daemon.connect() as connection:
                connection.sendall(head + b"\r\n" + JPEG + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                replies = read_all(connection)
                check("a refused body is read, and the connection goes on", replies.startswith(b"HTTP/1.1 503 ") and
                      b'"queue_full"' in replies and replies.count(b"HTTP/1.1 ") == 2 and b"HTTP/1.1 200 " in replies, replies)
        check("who waited is served", patient.result().status == 200)
        settled(daemon)
        stats = daemon.get("/stats").json["models"]["color"]["requests"]
        check("rejected are counted", stats["rejected"] == 6 and stats["ok"] == 1, stats)


def deadline():
    with Daemon(BUILD, FOLDER, *SLOW, "--queue-deadline-ms", "500") as daemon:
        with Busy(daemon):
            error("deadline in the queue", daemon.post("/classify", JPEG), 504, "deadline_exceeded")
            check("at the deadline, not when a worker comes around", sample(daemon, "hwgqd_workers_busy") == 1)
            check("a scrape does not wait for inference",
                  until(lambda: daemon.get("/stats").json["models"]["color"]["requests"]["expired"] == 1), daemon.get("/stats").body)
        check("the worker is free again", until(lambda: sample(daemon, "hwgqd_workers_busy") == 0))
        check("no work was done for it", daemon.get("/stats").json["models"]["color"]["images"] == 0, daemon.get("/stats").body)


def gone_client():
    with Daemon(BUILD, FOLDER, *SLOW) as daemon:
        with Busy(daemon):
            connections = [daemon.connect() for _ in range(5)]
            for connection in connections:
                connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(JPEG) + JPEG)
            check("five wait", waiting(daemon, 5), sample(daemon, "hwgqd_queue_depth"))
            for connection in connections:
                connection.close()
        check("clients that went away cost no work", until(lambda: sample(daemon, 'hwgqd_requests_total{model="color",code="499"}') == 5),
              daemon.get("/metrics").body)
        check("no image of theirs ran", daemon.get("/stats").json["models"]["color"]["images"] == 0)


def gone_while_running():
    """Someone who leaves while his images run does not get the rest of them classified."""
    size = len(JPEG).to_bytes(4, "little")
    batch = json.dumps({"inputs": [{"name": "image", "shape": [4096], "datatype": "BYTES",
                                    "parameters": {"binary_data_size": 4096 * len(size + JPEG)}}]}).encode()
    one_by_one = {"inputs": [{"name": "pixels", "shape": [4096, 1, 1, 3], "datatype": "UINT8", "data": [0] * (3 * 4096)}]}
    for what, path, headers, body in (
            ("a form", "/v1/models/slow/classify", "Content-Type: %s\r\n" % Busy.kind, Busy.body),
            ("a batch", "/v2/models/slow/infer", "Inference-Header-Content-Length: %d\r\n" % len(batch), batch + 4096 * (size + JPEG)),
            ("a batch as JSON", "/v2/models/slow/infer", "", json.dumps(one_by_one).encode())):
        with Daemon(BUILD, FOLDER, *SLOW) as daemon:
            with daemon.connect() as connection:
                connection.sendall(("POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n" % (path, headers, len(body))).encode() + body)
                check(what + " runs", until(lambda: sample(daemon, "hwgqd_workers_busy") == 1))
            check("it is counted as gone", until(lambda: sample(daemon, 'hwgqd_requests_total{model="slow",code="499"}') == 1))
            images = daemon.get("/stats").json["models"]["slow"]["images"]
            check(what + ": some of its images ran, most did not", 0 < images < 4096 * 0.8, images)
            check("they are counted everywhere", sample(daemon, 'hwgqd_images_total{model="slow"}') == images ==
                  daemon.get("/stats").json["models"]["slow"]["latency_ms"]["inference"]["count"], images)
            check("the next one is served", daemon.post("/classify", JPEG).status == 200)


def failures_are_charged():
    """Work that ends in an error is work: who gave it waits for his next turn as anybody else."""
    keys = fixture("load-keys")
    costly, patient, blocking = (add_key(keys, name) for name in ("costly", "patient", "blocking"))
    batch = [JPEG] * 1000 + [JPEG[:200]]
    binary = [len(image).to_bytes(4, "little") + image for image in batch]
    head = json.dumps({"inputs": [{"name": "image", "shape": [len(batch)], "datatype": "BYTES",
                                   "parameters": {"binary_data_size": sum(map(len, binary))}}]}).encode()
    pixels = zlib.compress(bytes(8000 * 8001), 1)

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    picture = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8000, 8000, 8, 0, 0, 0, 0)) +
               chunk(b"IDAT", pixels[:-len(pixels) // 8]) + chunk(b"IEND", b""))
    for what, path, body, headers in (
            ("a picture that breaks off", "/v1/models/gray/classify", picture, {}),
            ("a batch whose last image is broken", "/v2/models/gray/infer", head + b"".join(binary),
             {"Inference-Header-Content-Length": str(len(head))})):
        with Daemon(BUILD, FOLDER, *SLOW, "--models", "gray=" + GRAY, "--keys-file", keys) as daemon:
            def post(*arguments, headers={}):
                return Later(lambda: daemon.post(*arguments, headers=dict(headers, **bearer(costly))))
            for _ in range(50):  # so that it knows what an image costs, whatever came between when it measured the first one
                post("/v1/models/gray/classify", JPEG).result()
            with Busy(daemon, blocking):
                failing = post(path, body, "application/octet-stream", headers=headers)
                check("it waits", waiting(daemon, 1))
                # Of the same client: without the charge they are all served in the turn that the failing one began.
                others = [post("/v1/models/gray/classify", JPEG) for _ in range(4)]
                check("his others wait", waiting(daemon, 5))
                other_client = Busy(daemon, patient, wait=False)
                check("so does another client", waiting(daemon, 6))
            with other_client:
                check(what + " fails", failing.result().status == 422, failing.reply.body[:300])
                check("the other client's turn comes", until(lambda: sample(daemon, "hwgqd_queue_depth") <= 4))
                check(what + " is charged", not until(lambda: sample(daemon, "hwgqd_queue_depth") != 4, 0.5))
            check("then the rest is served", [later.result().status for later in others] == [200] * 4)


def waits_for_memory():
    """Two workers, and one client whose images take all the memory that is set aside for decoding: no other client waits for that."""
    keys = fixture("memory-keys")
    large, small = (bearer(add_key(keys, name)) for name in ("large", "small"))
    side = 8192
    passes = [(8, 8), (8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2)]  # steps across and down of an interlaced PNG
    rows = bytes(sum(-(-side // down) * (1 + -(-side // across)) for across, down in passes))

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    picture = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 1)) +
               chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))
    with Daemon(BUILD, FOLDER, *BOTH, "--workers", "2", "--max-decode-bytes", "100000000", "--keys-file", keys) as daemon:
        check("it fits", daemon.post("/classify", picture, headers=large).status == 200)
        for path, body, headers in (
                ("/classify", picture, large),
                ("/v2/models/color/infer", picture, dict(large, **{"Inference-Header-Content-Length": "0"}))):
            refused, alone = [], []

            def in_the_way():
                """Whether the second of two large ones is refused when somebody else comes. The first may be done before that."""
                sent = [Later(lambda: daemon.post(path, body, headers=headers)) for _ in range(2)]
                until(lambda: sample(daemon, "hwgqd_workers_busy") == 2 or not any(later.is_alive() for later in sent))
                other = daemon.post("/classify", JPEG, headers=small)
                replies = sorted((later.result() for later in sent), key=lambda reply: reply.status)
                alone.append((other.status, replies[0].status))
                refused[:] = [reply for reply in replies if reply.status != 200]
                return refused
            check(path + ": a worker does not wait for memory while another client waits for it", until(in_the_way))
            check("the others are served", set(alone) == {(200, 200)}, alone)
            if path == "/classify":
                error("it is told to come again", refused[0], 503, "out_of_memory")
            check("when", len(refused) == 1 and refused[0].status == 503 and refused[0].headers["Retry-After"] == "1", refused[0].status)
        statuses = [reply.status for reply in in_threads(3, lambda i: daemon.post("/classify", picture, headers=large))]
        check("without other clients they wait for each other", statuses == [200] * 3, statuses)


def lazy_reader(daemon, images=3000):
    """A connection whose reply is larger than what the kernel takes and is never read."""
    body, content_type = form([("image", b"no image")] * images)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    connection.settimeout(PATIENCE)
    connection.connect(("127.0.0.1", daemon.port))
    connection.sendall(("POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" %
                        (content_type, len(body))).encode() + body)
    return connection


def unread_replies():
    """A client that does not take its reply loses the connection, and holds neither memory nor the end of the daemon."""
    flags = (*BOTH, "--max-images", "4000")
    answered = 'hwgqd_requests_total{model="color",code="200"}'
    with Daemon(BUILD, FOLDER, *flags, "--request-timeout-ms", "2000") as daemon:
        # The deadline is that of the upload, too, for which a busy machine may need longer: then once more.
        def waits_for_its_client():
            with lazy_reader(daemon) as lazy:
                settled(daemon)
                return sample(daemon, answered) == 1 and not read_all(lazy).endswith(b"}}\n")
        check("the reply is cut at the deadline", until(waits_for_its_client))
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])
    with Daemon(BUILD, FOLDER, *flags, "--max-body-bytes", "700000", "--max-buffered-bytes", "700000") as daemon:
        with lazy_reader(daemon):
            check("it waits for its client", until(lambda: sample(daemon, answered) == 1))
            body, content_type = form([("image", b"no image")] * 4000)
            error("replies count as bodies do", daemon.post("/classify", body, content_type), 503, "overloaded")
        check("the memory is given back", until(lambda: daemon.post("/classify", body, content_type).status == 200))
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])
    ended = []
    # Likewise once more: the reply must be stuck when the end begins.
    def ends_before_its_client():
        with Daemon(BUILD, FOLDER, *flags, "--request-timeout-ms", "3000") as daemon:
            with lazy_reader(daemon):
                if until(lambda: sample(daemon, "hwgqd_requests_in_flight") == 1 and sample(daemon, answered) == 1, 3):
                    daemon.signal(signal.SIGTERM)
                    ended.append(daemon.wait() == 0)
                return ended
    check("a client that does not read does not hold the drain", until(ends_before_its_client) and ended[0])


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
        check("nothing in flight", settled(daemon))
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


main(full_queue, deadline, gone_client, gone_while_running, failures_are_charged, waits_for_memory, unread_replies, counts_agree)
