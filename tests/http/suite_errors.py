"""Requests that are refused: errors of clients, limits, framing, slow clients.
suite_errors.py BUILD_DIR FIXTURES (see run.sh). Every group of checks has a daemon of its own."""
import random
import socket
import struct
import time
import zlib

from harness import *


def png(width, height, interlaced=0, data=b"x"):
    """A gray PNG; by default its header states a size and there is next to nothing behind it."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced), b"IDAT" + data, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)


def client_errors():
    with Daemon(BUILD, FOLDER, *BOTH, "--max-pixels", "9000", "--max-images", "4") as daemon:
        error("empty body", daemon.post("/classify", b""), 400, "empty_body")
        error("no body", daemon.request("POST", "/classify"), 400, "empty_body")
        for top_k in ("0", "-1", "x", "1x", "65537", "99999999999", "", "1.5", "+1"):
            error("top_k=" + top_k, daemon.post("/classify?top_k=" + top_k.replace("+", "%2B"), JPEG), 400, "bad_top_k")
        error("top_k in the form", daemon.form("/classify", [("image", JPEG), ("top_k", b"many")]), 400, "bad_top_k")
        error("two models", daemon.post("/v1/models/gray/classify?model=color", JPEG), 400, "two_models")
        for name in ("none", "", "a/b", "x" * 300, "%27%3B--"):
            error("model=" + name[:20], daemon.post("/classify?model=" + name, JPEG), 404, "unknown_model")
        error("unknown model in the path", daemon.post("/v1/models/none/classify", JPEG), 404, "unknown_model")
        error("unknown model in the form", daemon.form("/classify", [("image", JPEG), ("model", b"none")]), 404, "unknown_model")
        error("no image field", daemon.form("/classify", [("picture", JPEG)]), 400, "no_image")
        check("... and which field there was", "picture" in daemon.form("/classify", [("picture", JPEG)]).json["error"]["message"])
        error("an empty form", daemon.form("/classify", []), 400, "no_image")
        for content_type in ("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=a; boundary=b"):
            error(content_type, daemon.post("/classify", JPEG, content_type), 400, "bad_multipart")
        error("a form that is none", daemon.post("/classify", JPEG, "multipart/form-data; boundary=x"), 400, "bad_multipart")
        body, content_type = form([("image", JPEG)])
        error("a form that was cut off", daemon.post("/classify", body[:-30], content_type), 400, "bad_multipart")
        for content_type in ("application/json", "text/plain", "multipart/mixed; boundary=x", "video/mp4", "", "x"):
            error("type " + content_type, daemon.post("/classify", JPEG, content_type), 415, "unsupported_media_type")
        error("form text", daemon.post("/classify", b"a=b", "application/x-www-form-urlencoded"), 415, "unsupported_media_type")
        error("not an image", daemon.post("/classify", b"hello, world"), 415, "unsupported_image")
        error("a PDF", daemon.post("/classify", b"%PDF-1.7 " + bytes(1000)), 415, "unsupported_image")
        error("a cut image", daemon.post("/classify", JPEG[:200]), 422, "undecodable_image")
        error("a header and nothing", daemon.post("/classify", JPEG[:4]), 422, "undecodable_image")
        wide = bytearray(JPEG)
        frame = JPEG.index(b"\xff\xc0")
        wide[frame + 5:frame + 9] = b"\xff\xff\xff\xff"
        error("65535 x 65535 pixels", daemon.post("/classify", bytes(wide)), 422, "image_too_large")
        for fields in ([("image", JPEG)] * 5, [("image", JPEG)] * 30, [("x", b"x")] * 9 + [("image", JPEG)] * 30):
            error("too many images", daemon.form("/classify", fields), 413, "too_many_images")
        error("too many other fields", daemon.form("/classify", [("image", JPEG)] + [("x", b"x")] * 20), 413, "too_many_parts")
        check("as many images as allowed", len(daemon.form("/classify", [("image", JPEG)] * 4).json["results"]) == 4)
    with Daemon(BUILD, FOLDER, *BOTH, "--max-decode-bytes", "4194304") as daemon:
        files = ["rgb.png", "truncated.jpg", "lossy-alpha.webp", "gray.jpg", "frames.webp"]
        images = [read("tests/images/" + name) for name in files] + [png(50000, 50000), png(3000, 3000, 1), b"text"]
        results = daemon.form("/classify", [("image", image) for image in images]).json["results"]
        check("each image of a form has its own result or error",
              [r["image"]["format"] if "image" in r else r["error"]["code"] for r in results] ==
              ["png", "undecodable_image", "webp", "jpeg", "webp", "image_too_large", "image_too_large", "unsupported_image"], results)
        for name, image in zip(files, images):
            if name.startswith("truncated"):
                continue
            alone = daemon.post("/classify", image, "image/jpeg").json
            check("%s alone, under a wrong type, has the same answer" % name,
                  alone["predictions"] == results[files.index(name)]["predictions"])
        error("a PNG of 50000 x 50000", daemon.post("/classify", png(50000, 50000)), 422, "image_too_large")
        interlaced = daemon.post("/classify", png(3000, 3000, 1))
        error("an interlaced PNG over max_decode_bytes", interlaced, 422, "image_too_large")
        check("... says what to do", "smaller size" in interlaced.json["error"]["message"], interlaced.body)
    black = png(8000, 8000, 0, zlib.compress(bytes(8000 * 8001)))
    with Daemon(BUILD, FOLDER, *BOTH, "--max-decode-ms", "20") as daemon:
        error("decoding takes too long", daemon.post("/classify", black), 422, "image_too_large")
        results = daemon.form("/classify", [("image", black), ("image", JPEG)]).json["results"]
        check("a smaller image does not pay for it", ["predictions" in r for r in results] == [False, True], results)
    less = png(4500, 4500, 0, zlib.compress(bytes(4500 * 4501)))  # not above its share of the pixels, so in its turn
    with Daemon(BUILD, FOLDER, *BOTH, "--max-decode-ms", "5", "--workers", "1") as daemon:
        results = daemon.form("/classify", [("image", JPEG), ("image", less), ("image", JPEG)]).json["results"]
        check("the time of one request is bounded", ["predictions" in r for r in results[1:]] == [False, False], results)
    with Daemon(BUILD, FOLDER, *BOTH, "--max-pixels", "16000", "--max-images", "9") as daemon:
        broken = JPEG[:-len(JPEG) // 2]
        for what, images in (("good", [JPEG] * 9), ("damaged", [broken, broken] + [JPEG] * 7)):
            results = daemon.form("/classify", [("image", image) for image in images]).json["results"]
            expected = ["image_too_large"] * 9
            expected[:2] = [None] * 2 if what == "good" else ["undecodable_image"] * 2
            check("the pixels of one request are bounded, %s images first" % what,
                  [r.get("error", {}).get("code") for r in results] == expected and "together" in results[8]["error"]["message"], results)
    with Daemon(BUILD, FOLDER, *BOTH, "--max-pixels", "7999") as daemon:
        error("one pixel too many", daemon.post("/classify", JPEG), 422, "image_too_large")


def body_limits():
    limit = 100000
    with Daemon(BUILD, FOLDER, *BOTH, "--max-body-bytes", str(limit)) as daemon:
        big = JPEG + bytes(limit + 1 - len(JPEG))
        check("a body of the limit", daemon.post("/classify", big[:limit]).status == 200)
        error("one byte more", daemon.post("/classify", big), 413, "body_too_large")
        error("one byte more, chunked", daemon.request("POST", "/classify", iter([big[:50000], big[50000:]])), 413, "body_too_large")
        error("three times as much", daemon.post("/classify", big * 3), 413, "body_too_large")
        head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n" % (10 * limit)
        reply = daemon.raw(head + b"Expect: 100-continue\r\n\r\n")
        check("413 before the body is sent", reply.startswith(b"HTTP/1.1 413"), reply)
        reply = daemon.raw(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nabc")
        check("413 at once for a body that is never read", reply.startswith(b"HTTP/1.1 413"), reply)
        with daemon.connect() as connection:
            connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(JPEG))
            check("100-continue", connection.recv(1000).startswith(b"HTTP/1.1 100"))
            connection.sendall(JPEG)
            check("... and then the answer", b" 200 " in connection.recv(10000))
        endless = b"POST /classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + bytes(65536) + b"\r\n") * 40
        reply = daemon.raw(endless)
        check("an endless chunked body is cut", reply == b"" or reply.startswith(b"HTTP/1.1 413"), reply[:100])
        settled(daemon)
        codes = metrics(daemon.get("/metrics").body.decode())
        check("413s are counted", codes['hwgqd_requests_total{model="color",code="413"}'] == 6, codes)
        check("body memory is given back", daemon.post("/classify", big[:limit]).status == 200)
    with Daemon(BUILD, FOLDER, *BOTH, "--max-body-bytes", "1000000", "--max-buffered-bytes", "1500000") as daemon:
        with daemon.connect() as held:  # a body of 900 kB that stops just before its end
            held.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 900000\r\n\r\n" + bytes(899990))
            check("a body takes its memory", until(lambda: sample(daemon, "hwgqd_buffered_bytes") == 900000))
            error("a second one does not fit", daemon.post("/classify", bytes(900000)), 503, "overloaded")
            held.sendall(bytes(10))
            check("the first one is answered", read_all(held).startswith(b"HTTP/1.1 415"))
        check("no memory is held", until(lambda: sample(daemon, "hwgqd_buffered_bytes") == 0))
        check("and the memory is given back", daemon.post("/classify", JPEG).status == 200)
    with Daemon(BUILD, FOLDER, *BOTH, "--max-body-bytes", "1000000", "--max-buffered-bytes", "4000000") as daemon:
        def upload(address):
            return socket.create_connection(("127.0.0.1", daemon.port), PATIENCE, (address, 0))
        head, body = b"POST /classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", JPEG + bytes(999990 - len(JPEG))
        held = []
        for i in range(3):
            held.append(upload("127.0.0.1"))
            held[i].sendall(head % 1000000 + body)
            check("three of four bodies take their memory", until(lambda: sample(daemon, "hwgqd_buffered_bytes") == 1000000 * (i + 1)))
        with upload("127.0.0.1") as fourth:
            fourth.sendall(head % 1000000 + body + bytes(10))
            reply = read_all(fourth)
        check("one client does not get all of it", reply.startswith(b"HTTP/1.1 503") and b'"overloaded"' in reply and b"four fifths" in reply, reply)
        replies = []
        for address in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):  # a few clients share a share: one of these may, though not likely, be such
            with upload(address) as other:
                other.sendall(head % len(body) + body)
                replies.append(read_all(other)[:12])
        check("others upload meanwhile", replies.count(b"HTTP/1.1 200") >= 2, replies)
        for c in held:
            c.sendall(bytes(10))
        check("who began in time is answered", [read_all(c)[:12] for c in held] == [b"HTTP/1.1 200"] * 3)
        for c in held:
            c.close()
        check("no memory is held, by whomever", until(lambda: sample(daemon, "hwgqd_buffered_bytes") == 0))
        with upload("127.0.0.1") as again:
            again.sendall(head % 1000000 + body + bytes(10))
            check("and the share is free again", read_all(again).startswith(b"HTTP/1.1 200"))


def framing():
    """What no two parties may read differently, and plain nonsense."""
    with Daemon(BUILD, FOLDER, *BOTH, "--request-timeout-ms", "10000") as daemon:
        post = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
        inner = b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n"
        for what, data in [
                ("both lengths", post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner),
                ("both lengths, other order", post + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + inner),
                ("two lengths", post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + inner),
                ("two encodings", post + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner),
                ("unknown encoding", post + b"Transfer-Encoding: gzip\r\n\r\nhello" + inner),
                ("encoding list", post + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + inner),
                ("negative length", post + b"Content-Length: -5\r\n\r\nhello" + inner),
                ("length with a sign", post + b"Content-Length: +5\r\n\r\nhello" + inner),
                ("length with a unit", post + b"Content-Length: 5k\r\n\r\nhello" + inner),
                ("an overflowing length", post + b"Content-Length: 99999999999999999999999999\r\n\r\nhello" + inner)]:
            reply = daemon.raw(data)
            # libmicrohttpd 0.9.75 answers a malformed length itself, and writes its header twice
            check("refused and closed: " + what, reply[9:12] in (b"400", b"413") and b"uptime_s" not in reply and
                  b"200 OK" not in reply, reply)
        two = daemon.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2 + b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        check("requests one after the other", two.count(b"HTTP/1.1 200") == 3, two)
        one = post + b"Content-Length: %d\r\n" % len(JPEG)
        two = daemon.raw((one + b"\r\n" + JPEG) * 2 + one + b"Connection: close\r\n\r\n" + JPEG)
        check("classifications on one connection, sent at once", two.count(b"HTTP/1.1 200") == 3 and two.count(b'"predictions"') == 3, two)
        check("HTTP/1.0", daemon.raw(b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1"))
        check("a GET with a body", b" 200 " in daemon.raw(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"))
        generator = random.Random(5)
        pieces = [b"GET", b"POST", b" ", b"/classify", b"/v1/models/", b"HTTP/1.1", b"\r\n", b"\n", b"\0", b"Host: x", b"Content-Length:",
                  b"Transfer-Encoding: chunked", b"%", b"%zz", b"?", b"&", b"=", b"multipart/form-data; boundary=", b"Expect: 100-continue",
                  b"\xff\xfe", b"Content-Type: ", b"0", b"ffffffffffffffff", JPEG[:50], b"A" * 3000, b"X-Request-Id: ", b":", b"\r\n\r\n"]
        inputs = [[b"".join(generator.choice(pieces) for _ in range(generator.randrange(1, 30))) for _ in range(15)] for _ in range(8)]
        # Behind it something that ends the connection; where the nonsense swallows that, the daemon ends it at its deadline.
        end = b"\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        replies = in_threads(8, lambda i: [daemon.raw(data + end) for data in inputs[i]])
        replies = [reply for some in replies for reply in some]
        check("nonsense is answered", sum(reply.startswith(b"HTTP/1.") for reply in replies) > 10, replies[:5])
        check("nonsense never gives 5xx", not [r for r in replies if r[9:10] == b"5"], [r for r in replies if r[9:10] == b"5"])
        check("and the daemon lives", daemon.get("/healthz").status == 200)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def slow_clients():
    with Daemon(BUILD, FOLDER, *BOTH, "--request-timeout-ms", "800", "--idle-timeout-ms", "1200") as daemon:
        head = b"POST /classify HTTP/1.1\r\nHost: x\r\nX-Request-Id: slow-1\r\nContent-Length: 1000\r\n\r\n"

        def drip(_):
            with daemon.connect() as connection:
                connection.sendall(head)
                try:
                    for _ in range(990):  # a byte every 20 ms would take 20 s
                        connection.sendall(b"x")
                        time.sleep(0.02)
                except OSError:
                    pass
                return read_all(connection)

        def stall(_):
            start = time.monotonic()
            with daemon.connect() as connection:
                connection.sendall(head + b"abc")
                return read_all(connection), time.monotonic() - start
        dripped, (stalled, seconds) = in_threads(2, lambda i: (drip, stall)[i](i))
        check("a dripping body is cut", dripped == b"" or dripped.startswith(b"HTTP/1.1 408"), dripped)
        check("a stalled body gets 408", stalled.startswith(b"HTTP/1.1 408") and b'"slow_request"' in stalled and
              b'"request_id":"slow-1"' in stalled and b"X-Request-Id: slow-1" in stalled, stalled)
        check("at the deadline, not before", seconds > 0.7, seconds)
        with daemon.connect() as connection:
            connection.sendall(head.replace(b"/classify", b"/v2/models/color/infer") + b"abc")
            late = read_all(connection)
            check("in the form of /v2", late.startswith(b"HTTP/1.1 408") and b'\r\n\r\n{"error":"The request did not' in late and
                  b"X-Request-Id: slow-1" in late, late)
        with daemon.connect() as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Fill")
            check("stalled headers get 408", read_all(connection).startswith(b"HTTP/1.1 408"))
        start = time.monotonic()
        with daemon.connect() as connection:
            check("an idle connection is closed", read_all(connection) == b"" and time.monotonic() - start > 0.8)
        with daemon.connect() as connection:
            connection.sendall(b"GET /hea")
            check("half a request line does not hold a connection", read_all(connection) == b"")
        settled(daemon)
        codes = metrics(daemon.get("/metrics").body.decode())
        check("408s are counted", codes.get('hwgqd_requests_total{model="color",code="408"}') == 3, codes)
        check("others are served meanwhile", until(lambda: daemon.post("/classify", JPEG).status == 200))


main(client_errors, body_limits, framing, slow_clients)
