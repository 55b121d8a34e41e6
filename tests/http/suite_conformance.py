"""HTTP/1.1 as RFC 9110 and 9112 have it, byte by byte: suite_conformance.py BUILD_DIR FIXTURES (see run.sh)."""
import json
import re
import socket
import time

from harness import *

POST = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
LAST = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
PATHS = ("/", "/healthz", "/readyz", "/stats", "/metrics", "/v1/models", "/v1/models/color", "/v1/models/color/stats")


class Connection:
    """One connection, reply by reply."""

    def __init__(self, daemon):
        self.socket, self.buffer = daemon.connect(), b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def more(self):
        piece = self.socket.recv(65536)
        self.buffer += piece
        return bool(piece)

    def head(self):
        """Status and headers (names in lower case, values in order) of the next reply."""
        while b"\r\n\r\n" not in self.buffer:
            if not self.more():
                raise EOFError("closed after %r" % self.buffer[:200])
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        version, status = lines[0].split(" ")[:2]
        headers = {}
        for line in lines[1:]:
            name, value = line.split(": ", 1)
            headers.setdefault(name.lower(), []).append(value)
        return version, int(status), headers

    def reply(self, method="GET"):
        """Status, headers and body."""
        _, status, headers = self.head()
        length = 0 if method == "HEAD" or status in (100, 204) else int(headers["content-length"][0])
        while len(self.buffer) < length:
            if not self.more():
                raise EOFError("closed in a body")
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return status, headers, body

    def ended(self):
        """Whether the server closes, with nothing more to say."""
        try:
            return not self.buffer and not self.more()
        except ConnectionResetError:
            return True
        except socket.timeout:
            return False


def code(body):
    try:
        return json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return None


def daemon(*flags):
    return Daemon(BUILD, FOLDER, *BOTH, *flags)


def keep_alive():
    with daemon() as d:
        with Connection(d) as c:
            good = 0
            for i in range(200):
                c.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-Id: k-%d\r\n\r\n" % i)
                status, headers, _ = c.reply()
                good += status == 200 and headers["x-request-id"] == ["k-%d" % i] and "connection" not in headers
            check("200 requests on one connection", good == 200, good)
            good = 0
            for _ in range(50):
                c.send(POST + b"Content-Length: %d\r\n\r\n" % len(JPEG) + JPEG)
                good += c.reply()[0] == 200
            check("50 classifications on it", good == 50, good)
            for what, data, wanted in [("an unknown path", b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n", 404),
                                       ("an unknown method", b"BREW /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 405),
                                       ("no image", POST + b"Content-Length: 5\r\n\r\nhello", 415),
                                       ("a body at a path without one", b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 405)]:
                c.send(data)
                status, headers, _ = c.reply()
                check("it survives " + what, status == wanted and "connection" not in headers, (status, headers))
            c.send(GET + b"Connection: close\r\n\r\n")
            status, headers, _ = c.reply()
            check("Connection: close is obeyed and said", status == 200 and headers["connection"] == ["close"] and c.ended(), headers)


def pipelining():
    with daemon() as d:
        with Connection(d) as c:
            kinds = [b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-Id: p-%d\r\n\r\n", b"HEAD /stats HTTP/1.1\r\nHost: x\r\nX-Request-Id: p-%d\r\n\r\n",
                     POST + b"X-Request-Id: p-%%d\r\nContent-Length: %d\r\n\r\n" % len(JPEG),
                     CHUNKED + b"X-Request-Id: p-%d\r\n\r\n", b"GET /none HTTP/1.1\r\nHost: x\r\nX-Request-Id: p-%d\r\n\r\n"]
            bodies = [b"", b"", JPEG, b"%x\r\n" % len(JPEG) + JPEG + b"\r\n0\r\n\r\n", b""]
            statuses = [200, 200, 200, 200, 404]
            data = b"".join(kinds[i % 5] % i + bodies[i % 5] for i in range(60))
            sender = in_threads(2, lambda i: c.send(data) if i == 0 else
                                [c.reply("HEAD" if k % 5 == 1 else "GET") for k in range(60)])
            replies = sender[1]
            check("60 requests sent at once are answered in order",
                  isinstance(replies, list) and [(status, headers["x-request-id"]) for status, headers, _ in replies] ==
                  [(statuses[i % 5], ["p-%d" % i]) for i in range(60)], replies)
        with Connection(d) as c:
            for i in range(0, len(GET) + 2):  # a request that comes in two parts, whatever the cut
                whole = GET + b"\r\n"
                c.send(whole[:i])
                time.sleep(0.001)
                c.send(whole[i:])
                if c.reply()[0] != 200:
                    check("cut after %d bytes" % i, False)
                    break
            else:
                check("a request may be cut anywhere", True)


def methods():
    with daemon() as d:
        with Connection(d) as c:
            for path in PATHS:
                c.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
                get = c.reply()
                c.send(b"HEAD %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
                head = c.reply("HEAD")
                length = abs(int(head[1]["content-length"][0]) - int(get[1]["content-length"][0]))
                check("HEAD is GET without a body: " + path, get[0] == head[0] == 200 and head[1]["content-type"] ==
                      get[1]["content-type"] and length < 100 and not c.buffer, head)  # statistics grow meanwhile
            for path, allow in [(p, "GET, HEAD, OPTIONS") for p in PATHS] + [("/classify", "POST, PUT, OPTIONS"),
                                                                             ("/v1/models/gray/classify", "POST, PUT, OPTIONS"),
                                                                             ("*", "GET, HEAD, POST, PUT, OPTIONS")]:
                c.send(b"OPTIONS %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
                status, headers, body = c.reply()
                check("OPTIONS " + path, status == 204 and headers["allow"] == [allow] and not body and "content-type" not in headers,
                      (status, headers))
            c.send(b"OPTIONS /none HTTP/1.1\r\nHost: x\r\n\r\n")
            check("OPTIONS of an unknown path", c.reply()[0] == 404)
            names = [b"DELETE", b"PATCH", b"TRACE", b"CONNECT", b"BREW", b"PROPFIND", b"get", b"Post", b"G", b"X" * 300, b"M-SEARCH", b"!#$%&'*+.^_`|~"]
            good = 0
            for name in names:
                for path, allow in ((b"/healthz", "GET, HEAD"), (b"/classify", "POST, PUT")):
                    c.send(name + b" " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
                    status, headers, body = c.reply()
                    good += status == 405 and headers["allow"] == [allow] and code(body) == "method_not_allowed"
            check("405 with Allow for each unknown method", good == 2 * len(names), good)
            c.send(b"GET http://example.org:80/healthz?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            check("the absolute form of a path", c.reply()[2] == b'{"status":"ok"}\n')
            c.send(b"GET HTTP://example.org HTTP/1.1\r\nHost: x\r\n\r\n")
            check("... without a path", b"<form" in c.reply()[2])


def continue_100():
    with daemon("--max-body-bytes", "100000") as d:
        with Connection(d) as c:
            for i in range(5):
                c.send(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(JPEG))
                first = c.reply()[0]
                c.send(JPEG)
                second = c.reply()[0]
                if (first, second) != (100, 200):
                    check("100-continue, then the answer", False, (i, first, second))
                    break
            else:
                check("100-continue, then the answer, five times on one connection", True)
            c.send(CHUNKED + b"Expect: 100-Continue\r\n\r\n")
            first = c.reply()[0]
            c.send(b"%x\r\n" % len(JPEG) + JPEG + b"\r\n0\r\n\r\n")
            check("... chunked", (first, c.reply()[0]) == (100, 200))
        for what, head, wanted in [("a body that is too large", POST + b"Content-Length: 100001\r\n", 413),
                                   ("an unknown path", b"POST /none HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n", 404),
                                   ("a wrong type", b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: text/html\r\nContent-Length: 9\r\n", 415),
                                   ("an unknown network", b"POST /classify?model=none HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n", 404)]:
            with Connection(d) as c:
                c.send(head + b"Expect: 100-continue\r\n\r\n")
                status, headers, _ = c.reply()
                check("the final answer at once for " + what, status == wanted and headers["connection"] == ["close"] and c.ended(), status)


def chunked():
    with daemon() as d:
        pieces = b"".join(b"1\r\n" + JPEG[i:i + 1] + b"\r\n" for i in range(len(JPEG)))
        size = b"%x\r\n" % len(JPEG)
        with Connection(d) as c:
            for what, body in [("one chunk", size + JPEG + b"\r\n0\r\n\r\n"), ("chunks of one byte", pieces + b"0\r\n\r\n"),
                               ("leading zeros", b"0000" + size + JPEG + b"\r\n000\r\n\r\n"),
                               ("upper case sizes", size.upper() + JPEG + b"\r\n0\r\n\r\n"),
                               ("an extension", size[:-2] + b";name=value;flag\r\n" + JPEG + b"\r\n0;last\r\n\r\n"),
                               ("a trailer", size + JPEG + b"\r\n0\r\nX-Checksum: 1\r\nContent-Length: 3\r\n\r\n")]:
                c.send(CHUNKED + b"\r\n" + body)
                status, _, _ = c.reply()
                c.send(GET + b"\r\n")
                check("chunked body: " + what, status == 200 and c.reply()[0] == 200, status)
            c.send(CHUNKED.replace(b"chunked", b"Chunked") + b"\r\n" + size + JPEG + b"\r\n0\r\n\r\n")
            check("the name of the encoding has no case", c.reply()[0] == 200)
            c.send(CHUNKED + b"\r\n0\r\n\r\n")
            check("an empty chunked body", code(c.reply()[2]) == "empty_body")


def old_versions():
    with daemon() as d:
        with Connection(d) as c:
            c.send(b"GET /healthz HTTP/1.0\r\n\r\n")
            status, headers, _ = c.reply()
            check("HTTP/1.0 without Host, closed after the answer", status == 200 and c.ended(), headers)
        with Connection(d) as c:
            for _ in range(3):
                c.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                status, headers, _ = c.reply()
                check("HTTP/1.0 with keep-alive", status == 200 and headers["connection"][0].lower() == "keep-alive", headers)
            c.send(b"POST /classify HTTP/1.0\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(JPEG) + JPEG)
            check("HTTP/1.0 classifies", c.reply()[0] == 200 and c.ended())
        for version, wanted in ((b"HTTP/2.0", 505), (b"HTTP/0.9", 505), (b"HTTP/9.9", 505), (b"http/1.1", 400), (b"HTTP/1", 400), (b"HTTQ/1.1", 400)):
            with Connection(d) as c:
                c.send(b"GET /healthz " + version + b"\r\nHost: x\r\n\r\n")
                status = c.reply()[0]
                check("version %s" % version.decode(), status in (wanted, 400) and c.ended(), status)


def limits():
    with daemon() as d:
        with Connection(d) as c:
            c.send(b"GET /" + b"a" * 7999 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            check("a path of 8,000 bytes", c.reply()[0] == 404)
            c.send(b"GET /stats?" + b"a=b&" * 63 + b"window=60 HTTP/1.1\r\nHost: x\r\n\r\n")
            check("64 parameters", c.reply()[0] == 200)
            c.send(GET + b"".join(b"X-%d: y\r\n" % i for i in range(63)) + b"\r\n")
            check("64 headers", c.reply()[0] == 200)
            c.send(GET + b"X: " + b"y" * 10000 + b"\r\n\r\n")
            check("10,000 bytes of headers", c.reply()[0] == 200)
            c.send(b"POST /classify?" + b"a=b&" * 40 + b"x=" + b"y" * 2000 + b" HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(JPEG) +
                   b"".join(b"X-%d: %s\r\n" % (i, b"y" * 60) for i in range(40)) + b"\r\n" + JPEG)
            check("much of everything at once, and a body", c.reply()[0] == 200)
        small = [("a path of 8,001 bytes", b"GET /" + b"a" * 8000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
                 ("a long query", b"GET /stats?a=" + b"b" * 8200 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
                 ("65 parameters", b"GET /stats?" + b"a=b&" * 64 + b"a HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
                 ("4,000 parameters", b"GET /stats?" + b"&" * 3999 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
                 ("a long path before a body", b"POST /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 414, "uri_too_long"),
                 ("65 headers", GET + b"".join(b"X-%d: y\r\n" % i for i in range(64)) + b"\r\n", 431, "headers_too_large"),
                 ("10,300 bytes of headers", GET + b"X: " + b"y" * 10300 + b"\r\n\r\n", 431, "headers_too_large"),
                 ("20,000 bytes of headers", GET + b"X: " + b"y" * 20000 + b"\r\n\r\n", 431, "headers_too_large"),
                 ("28,000 bytes of headers", GET + (b"X: " + b"y" * 995 + b"\r\n") * 28 + b"\r\n", 431, "headers_too_large"),
                 ("300 headers", GET + b"".join(b"X-%d: y\r\n" % i for i in range(300)) + b"\r\n", 431, "headers_too_large"),
                 ("a path of 20,000 bytes", b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
                 ("a path of 28,000 bytes", b"GET /" + b"a" * 28000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long")]
        large = [("a path of 100,000 bytes", b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, None),
                 ("100,000 bytes of headers", GET + b"X: " + b"y" * 100000 + b"\r\n\r\n", 431, None),
                 ("20,000 headers", GET + b"X: y\r\n" * 20000 + b"\r\n", 431, None)]
        for what, data, status, wanted in small + large:
            reply = d.raw(data)
            body = reply.split(b"\r\n\r\n", 1)[-1]
            check("refused: " + what, reply.startswith(b"HTTP/1.1 %d " % status) and (wanted is None or code(body) == wanted), reply[:300])
            check("with a request id: " + what, wanted is None or b"\r\nX-Request-Id: " in reply, reply[:300])
        for what, data in (("29,000 bytes of headers", GET + b"X: " + b"y" * 29000 + b"\r\n\r\n"), ("300 headers", small[8][1])):
            reply = d.raw(data.replace(b"/healthz", b"/v2/health/live"))
            check("in the form of /v2: " + what, reply.startswith(b"HTTP/1.1 431 ") and b'\r\n\r\n{"error":"A request may have ' in reply, reply[:300])
        flood = in_threads(50, lambda i: d.raw(large[i % 3][1]))
        check("50 header floods at once: each refused or cut", len([r for r in flood if isinstance(r, bytes) and (
            r[:13] in (b"HTTP/1.1 414 ", b"HTTP/1.1 431 ") or not r)]) == 50, flood[:3])
        # libmicrohttpd forgets a request whose parameters it has no memory for; a client that leaves must not leave it behind.
        for _ in range(20):
            with d.connect() as c:
                c.sendall(b"GET /stats?" + b"a&" * 4000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        check("and the daemon serves", d.post("/classify", JPEG).status == 200)
        d.stop()
        check("and ends without waiting for anything", d.exit_code == 0, d.log()[-1000:])


# What could make another party see other requests than the daemon does. The body hides a request: were it taken for one, its
# answer would show.
HIDDEN = b"GET /stats HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
SMUGGLING = [
    ("both lengths", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("both lengths, the other order", CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n"),
    ("two equal lengths", POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    ("two lengths", POST + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello"),
    ("a list of lengths", POST + b"Content-Length: 5, 5\r\n\r\nhello"),
    ("a signed length", POST + b"Content-Length: +5\r\n\r\nhello"),
    ("a hexadecimal length", POST + b"Content-Length: 0x5\r\n\r\nhello"),
    ("an empty length", POST + b"Content-Length:\r\n\r\nhello"),
    ("a length with a fraction", POST + b"Content-Length: 5.0\r\n\r\nhello"),
    ("a length of 20 digits", POST + b"Content-Length: 18446744073709551621\r\n\r\nhello"),
    ("a space before the colon", POST + b"Content-Length : 5\r\n\r\nhello"),
    ("a tab before the colon", POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"),
    ("a length that goes on in the next line", POST + b"Content-Length: 5\r\n 6\r\n\r\nhello"),
    ("a length in the next line", POST + b"Content-Length:\r\n 5\r\n\r\nhello"),
    ("an encoding in the next line", POST + b"Transfer-Encoding:\r\n\tchunked\r\n\r\n0\r\n\r\n"),
    ("a header hidden in a continued one", POST + b"X: y\r\n Content-Length: 5\r\n\r\nhello"),
    ("a continued first line", b"POST /classify HTTP/1.1\r\n Host: x\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"),
    ("a bare CR before a header", POST + b"X: y\rContent-Length: 5\r\n\r\nhello"),
    ("a control character in a value", POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("a control character in a name", POST + b"\x0bContent-Length: 5\r\n\r\nhello"),
    ("a line without a colon", POST + b"Content-Length 5\r\n\r\nhello"),
    ("two encodings", CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("an encoding that is not chunked", POST + b"Transfer-Encoding: identity\r\n\r\nhello"),
    ("a list of encodings", POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("an encoding in quotes", POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n'),
    ("an encoding with a parameter", POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
    ("a misspelt encoding", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("an encoding in HTTP/1.0", b"POST /classify HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("no Host", b"POST /classify HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"),
    ("two Hosts", POST + b"Host: y\r\nContent-Length: 5\r\n\r\nhello"),
    ("a space in the path", b"POST /classify x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"),
    ("a request line in the path", b"GET /healthz HTTP/1.1 x HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a control character in the path", b"GET /health\x7fz HTTP/1.1\r\nHost: x\r\n\r\n"),
] + [(what, CHUNKED + b"\r\n" + body) for what, body in [
    ("a chunk size with 0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk size with a sign", b"+5\r\nhello\r\n0\r\n\r\n"),
    ("a negative chunk size", b"-5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk size after a space", b" 5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk size before a space", b"5 \r\nhello\r\n0\r\n\r\n"),
    ("a chunk size that overflows", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("no chunk size", b"\r\nhello\r\n0\r\n\r\n"),
    ("a chunk that is longer than it says", b"5\r\nhello!\r\n0\r\n\r\n"),
    ("a chunk without its line end", b"5\r\nhello0\r\n\r\n"),
    ("a line end within an extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ("bare CR as line ends", b"5\rhello\r0\r\r"),
]]


def smuggling():
    with daemon() as d:
        replies = in_threads(len(SMUGGLING), lambda i: d.raw(SMUGGLING[i][1] + HIDDEN))
        for (what, _), reply in zip(SMUGGLING, replies):
            # Where libmicrohttpd 0.9.75 refuses a length it writes its headers twice, the second time within the body.
            check("refused and closed: " + what, isinstance(reply, bytes) and reply[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 413 ", b"HTTP/1.0 400 ") and
                  b"uptime_s" not in reply and b" 200 OK" not in reply, reply)
        with Connection(d) as c:
            c.send(b"POST /classify HTTP/1.1\nHost: x\nContent-Type: image/jpeg\nContent-Length: %d\n\n" % len(JPEG) + JPEG + LAST)
            check("a bare LF ends a line, as RFC 9112 permits, so the length after it counts",
                  (c.reply()[0], c.reply()[2], c.ended()) == (200, b'{"status":"ready"}\n', True))
        with Connection(d) as c:
            c.send(b"\r\n\r\n" + GET + b"\r\n")
            check("empty lines before a request are passed over", c.reply()[0] == 200)
        check("a body that a GET has is not a request", [p.count(b"HTTP/1.1 ") for p in [d.raw(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN + LAST)]] == [2])
        check("refusals are logged with their status", until(lambda: len(
            [e for e in d.events() if e.get("code") in (400, 413)]) >= len(SMUGGLING) - 15), len([e for e in d.events() if e.get("code") in (400, 413)]))
        check("and the daemon serves", d.post("/classify", JPEG).status == 200)


def replies_are_well_formed():
    """Every header once, ids and trace in every reply of the daemon's own."""
    with daemon() as d:
        with Connection(d) as c:
            for data in (GET + b"\r\n", b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n", b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n",
                         POST + b"Content-Length: %d\r\n\r\n" % len(JPEG) + JPEG, POST + b"Content-Length: 5\r\n\r\nhello"):
                c.send(data)
                status, headers, body = c.reply()
                check("a reply with %d" % status, all(len(values) == 1 for values in headers.values()) and
                      re.fullmatch("[0-9a-f]{16}", headers["x-request-id"][0]) and
                      re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", headers["traceparent"][0]) and "date" in headers, headers)
    check("exit code", d.exit_code == 0, d.log()[-2000:])


main(keep_alive, pipelining, methods, continue_100, chunked, old_versions, limits, smuggling, replies_are_well_formed)
