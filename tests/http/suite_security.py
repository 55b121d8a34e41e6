"""Keys, certificates, limits and turns: suite_security.py BUILD_DIR FIXTURES (see run.sh)."""
import email.message
import itertools
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import struct
import threading
import time

from harness import *

HUP = signal.SIGHUP
READS = ("/v1/models", "/v1/models/color", "/v2", "/v2/models/color", "/v2/models/color/ready")
METRICS = ("/metrics", "/stats", "/v1/models/color/stats", "/v2/models/color/stats", "/v2/models/stats")
OPEN = ("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
CLASSIFY = ("/classify", "/v1/models/color/classify", "/v1/models/color/versions/1/classify", "/v2/models/color/infer")
ADMIN = ("/v1/models/gray/load", "/v1/models/gray/reload", "/v1/models/gray/unload", "/v2/repository/models/gray/load",
         "/v2/repository/models/gray/unload")


def key_file(name):
    path = fixture(name)
    return path, add_key(path, "boss", "admin"), add_key(path, "user")


# ---- keys ---------------------------------------------------------------------------------------------------------------


def command_line():
    path = fixture("made-keys")
    key = add_key(path, "first", "admin")
    second = add_key(path, "second")
    text = read(path).decode()
    check("the file has two lines and neither key", text.count("\n") == 2 and key[6:] not in text and second[6:] not in text and
          text.startswith("first admin sha256:") and "\nsecond inference sha256:" in text, text)
    check("the file is its owner's", stat.S_IMODE(os.stat(path).st_mode) == 0o600)
    with open(path, "a") as stream:
        stream.write("# no line end here")
    add_key(path, "third")
    check("a line end is added where one is missing", read(path).decode().count("\n") == 4, read(path))
    for code, what, flags, message in [
            (1, "a name twice", ("--add-key", "first", "--keys-file", path), "named 'first' already"),
            (1, "a bad name", ("--add-key", "a b", "--keys-file", path), "no name for a key"),
            (2, "unknown rights", ("--add-key", "x", "--rights", "root", "--keys-file", path), "is not one of inference|admin"),
            (2, "no file", ("--add-key", "x"), "needs --keys-file"),
            (2, "no value", ("--add-key",), "--add-key needs a value"),
            (1, "no such folder", ("--add-key", "x", "--keys-file", fixture("none/keys")), "cannot open"),
            (1, "metrics for nobody", (*BOTH, "--check", "--metrics-access", "key"), "metrics_access is given without keys_file"),
            (1, "a certificate without a key", (*BOTH, "--check", "--tls-certificate", "x"), "tls_certificate is given without tls_key"),
            (2, "a bad proxy", (*BOTH, "--check", "--trusted-proxies", "10.0.0.0/33"), "'10.0.0.0/33' is no address")]:
        result = run(HWGQD, *flags)
        check("refused: " + what, result.returncode == code and message in result.stderr and not result.stdout, result)
    for what, line, message in [("short hash", "a admin sha256:00", ":5: after the rights"), ("rights", "a root", ":5: after the name"),
                                ("missing", None, "cannot open")]:
        bad = fixture("bad-keys")
        if line:
            write(bad, "# one\n\n\n\n" + line + "\n")
        result = run(HWGQD, "--check", *BOTH, "--keys-file", bad if line else fixture("no-keys"))
        check("a keys file is refused with file and line: " + what, result.returncode == 1 and message in result.stderr, result)
    os.chmod(path, 0o666)
    result = run(HWGQD, "--check", *BOTH, "--keys-file", path)
    check("a keys file that everyone may write is refused", result.returncode == 1 and "chmod" in result.stderr, result)


def expected_status(kind, rights, access="open"):
    """What a request without and with a key of these rights gets; rights None: no key, "": a wrong one."""
    if kind == "open" or (kind == "metrics" and access == "open"):
        return 200
    if rights is None or rights == "":
        return 401
    return 403 if rights == "inference" and (kind == "admin" or (kind == "metrics" and access == "admin")) else 200


def ask(daemon, kind, path, headers):
    if kind == "admin":
        return daemon.request("POST", path, b"", headers)
    if kind != "classify":
        return daemon.get(path, headers)
    if path.startswith("/v2"):
        body = json.dumps({"inputs": [{"name": "tensor", "shape": [1, 3, 32, 32], "datatype": "FP32", "data": [0] * 3072}]})
        return daemon.post(path, body.encode(), "application/json", headers)
    return daemon.post(path, JPEG, headers=headers)


def matrix():
    """Every kind of path with every kind of key, in both headers."""
    path, admin, user = key_file("matrix-keys")
    asked = 0
    kinds = (("open", OPEN), ("metrics", METRICS), ("read", READS), ("classify", CLASSIFY), ("admin", ADMIN))
    wrong = admin[:-1] + ("0" if admin[-1] != "0" else "1")
    for access in ("open", "key", "admin"):
        with Daemon(BUILD, FOLDER, *BOTH, "--keys-file", path, "--metrics-access", access) as daemon:
            for kind, paths in kinds:
                for (rights, key), form in itertools.product(((None, None), ("", wrong), ("inference", user), ("admin", admin)),
                                                             ("Bearer", "X-API-Key")):
                    headers = {} if key is None else {"Authorization": "bearer " + key} if form == "Bearer" else {"X-API-Key": key}
                    for target in paths:
                        if kind == "admin" and rights == "admin":
                            ask(daemon, "admin", "/v1/models/gray/load", headers)
                        reply = ask(daemon, kind, target, headers)
                        asked += 1
                        want = expected_status(kind, rights, access)
                        good = reply.status == want and (want != 401 or reply.headers["WWW-Authenticate"].startswith("Bearer"))
                        if want in (401, 403):
                            good = good and ("error" in reply.json)
                        check("%s %s with %s by %s, metrics %s" % (kind, target, rights, form, access), good,
                              "%s instead of %s: %s" % (reply.status, want, reply.body[:200]))
            for headers in ({"Authorization": "Basic " + admin}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "},
                            {"X-API-Key": ""}, {"X-API-Key": admin + " "[:0] + "x"}, {"X-API-Key": "x" * 5000}, {"X-API-Key": admin[:-1]},
                            {"X-API-Key": admin.upper()}):
                check("no key: %s" % str(headers)[:40], daemon.get("/v1/models", headers).status == 401)
            check("the key's name is logged, the key is not", any(e.get("key") == "user" for e in daemon.events()) and
                  user not in daemon.log() and admin not in daemon.log() and user[6:] not in daemon.log())
    with Daemon(BUILD, FOLDER, *BOTH) as daemon:
        for (kind, paths), headers in itertools.product(kinds, ({}, bearer(admin))):
            for target in paths:
                reply = ask(daemon, kind, target, headers)
                asked += 1
                check("without a keys file: " + target, reply.status == (403 if kind == "admin" else 200), reply.body[:200])
        error("and it says what to do", ask(daemon, "admin", ADMIN[0], {}), 403, "admin_disabled")
        counted = daemon.get("/v1/models").json["models"]
        check("nothing was unloaded", [m["state"] for m in counted] == ["ready"] * 2, counted)
    print("    %d requests" % asked)


def keys_again():
    """Keys come and go with SIGHUP; a file that cannot be read leaves them as they are."""
    path, admin, user = key_file("changing-keys")
    with Daemon(BUILD, FOLDER, *BOTH, "--keys-file", path) as daemon:
        late = add_key(path, "late")
        check("a key before the reload", daemon.get("/v1/models", bearer(late)).status == 401)
        check("and after it", reloaded(daemon, HUP) and daemon.get("/v1/models", bearer(late)).status == 200)
        write(path, "nonsense\n")
        check("a bad file is reported", reloaded(daemon, HUP, "reload failed, the API keys"))
        check("and the keys stay", daemon.get("/v1/models", bearer(user)).status == 200)
        write(path, "# nobody\n")
        check("an empty file locks everyone out", reloaded(daemon, HUP) and
              [daemon.get("/v1/models", bearer(k)).status for k in (admin, user, late)] == [401] * 3 and
              daemon.get("/healthz").status == 200)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def revoked_whatever_fails():
    """Keys and certificate are taken although the configuration, or its networks, cannot be."""
    path, admin, user = key_file("revoked-keys")
    pairs = [make_certificate("before"), make_certificate("after")]
    certificate, key, file = fixture("revoked.crt"), fixture("revoked.key"), fixture("revoked.json")
    lines = read(path).decode().splitlines()
    good = {"models": {"color": COLOR}, "keys_file": path, "tls_certificate": certificate, "tls_key": key}

    def install(pair):
        write(certificate, read(pair[0]))
        write(key, read(pair[1]))

    def status(tls, one):
        with connect(daemon, tls) as connection:
            connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: %s\r\n\r\n" % one.encode())
            return subject(connection), read_all(connection)[9:12]
    tls = context(pairs[0][0], pairs[1][0])
    for what, bad in (("an unknown key", dict(good, nonsense=1)), ("no JSON", None), ("no such network", dict(good, default_model="x"))):
        install(pairs[0])
        write(path, "\n".join(lines) + "\n")
        write(file, json.dumps(good))
        with Daemon(BUILD, FOLDER, "--config", file) as daemon:
            check("both keys: " + what, [status(tls, k) for k in (admin, user)] == [("before", b"200")] * 2)
            write(file, json.dumps(bad) if bad else "{")
            write(path, lines[0] + "\n")
            install(pairs[1])
            check("the reload fails: " + what, reloaded(daemon, HUP, "reload failed, networks and settings"), daemon.log())
            check("but the key is revoked and the certificate new: " + what, [status(tls, k) for k in (admin, user)] ==
                  [("after", b"200"), ("after", b"401")], [status(tls, k) for k in (admin, user)])
            write(path, "nonsense\n")
            check("a bad keys file is reported, too: " + what, reloaded(daemon, HUP, "reload failed, the API keys"))
            check("and the keys stay: " + what, [status(tls, k)[1] for k in (admin, user)] == [b"200", b"401"])
        check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def warnings():
    path, _, _ = key_file("warning-keys")
    certificate, key = make_certificate("warn")
    far = (*BOTH, "--listen", "0.0.0.0:0")
    tls = ("--tls-certificate", certificate, "--tls-key", key)

    def warned(*flags):
        with Daemon(BUILD, FOLDER, *flags) as daemon:
            return " ".join(e["message"] for e in daemon.events() if e["level"] == "warning")
    check("no key", "without authentication" in warned(*far))
    check("no certificate", "clear text" in warned(*far, "--keys-file", path))
    check("both: nothing", "reachable" not in warned(*far, "--keys-file", path, *tls))
    check("loopback: nothing", "reachable" not in warned(*BOTH))


# ---- TLS ----------------------------------------------------------------------------------------------------------------


def make_certificate(name, days=30):
    certificate, key = fixture(name + ".crt"), fixture(name + ".key")
    result = run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out",
                 certificate, "-days", str(days), "-subj", "/CN=" + name, "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    if result.returncode:
        raise RuntimeError(result.stderr)
    return certificate, key


def context(*certificates, version=None):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for certificate in certificates:
        made.load_verify_locations(certificate)
    if version:
        made.minimum_version = made.maximum_version = version
    return made


def connect(daemon, tls):
    return tls.wrap_socket(socket.create_connection(("127.0.0.1", daemon.port), PATIENCE), server_hostname="localhost")


def subject(connection):
    return dict(pair[0] for pair in connection.getpeercert()["subject"])["commonName"]


def ask_healthz(connection):
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b""
    while not received.endswith(b'{"status":"ok"}\n'):
        piece = connection.recv(4000)
        if not piece:
            return False
        received += piece
    return b" 200 " in received


def run_https(daemon, tls, path):
    with connect(daemon, tls) as connection:
        connection.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode())
        return read_all(connection)


def tls_files():
    certificate, key = make_certificate("one")
    _, other_key = make_certificate("two")
    text = fixture("text.pem")
    write(text, "hello")
    for what, flags, message in [
            ("no such certificate", (fixture("none.crt"), key), "tls_certificate: cannot open"),
            ("no such key", (certificate, fixture("none.key")), "tls_key: cannot open"),
            ("no certificate", (text, key), "tls_certificate: %s holds no PEM certificate" % text),
            ("no private key", (certificate, text), "tls_key: %s holds no private key" % text),
            ("another key", (certificate, other_key), "does not belong to the certificate"),
            ("a key as certificate", (key, key), "holds no PEM certificate")]:
        result = run(HWGQD, "--listen", "127.0.0.1:0", *BOTH, "--tls-certificate", flags[0], "--tls-key", flags[1])
        check("no start: " + what, result.returncode == 1 and message in result.stderr, result)
    result = run(HWGQD, "--check", *BOTH, "--tls-certificate", certificate, "--tls-key", other_key)
    check("--check sees it too", result.returncode == 1 and "does not belong" in result.stderr, result)
    check("--check of a good pair", "days left" in run(HWGQD, "--check", *BOTH, "--tls-certificate", certificate, "--tls-key", key).stdout)


def tls_serves():
    certificate, key = make_certificate("served")
    image = fixture("image-0.jpg")
    pair = ("--tls-certificate", certificate, "--tls-key", key)
    with Daemon(BUILD, FOLDER, *BOTH, *pair, "--max-body-bytes", "200000") as daemon:
        url = "https://localhost:%d" % daemon.port
        curl = ("curl", "-sS", "--max-time", str(PATIENCE), "-w", "\n%{http_code}")
        for what, flags in [("-F", ["-F", "image=@" + image]), ("-T", ["-T", image]),
                            ("--tls-max 1.2", ["--tls-max", "1.2", "-T", image]), ("--tlsv1.3", ["--tlsv1.3", "-T", image]),
                            ("chunked", ["-H", "Transfer-Encoding: chunked", "-F", "image=@" + image]),
                            ("Expect", ["-H", "Expect: 100-continue", "-F", "image=@" + image])]:
            result = run(*curl, "--cacert", certificate, *flags, url + "/classify")
            check("curl " + what, result.stdout.endswith("\n200") and "predictions" in result.stdout, result)
        result = run(*curl, url + "/healthz")
        check("curl without the certificate refuses", result.returncode == 60, result)
        result = run(*curl, "-k", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", url + "/healthz")
        check("TLS 1.1 is refused", result.returncode == 35, result)
        check("plain HTTP gets nothing", not daemon.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200"))
        flags = ("--health", "--listen", "127.0.0.1:%d" % daemon.port)
        check("--health", until(lambda: run(HWGQD, *flags, *pair).returncode == 0) and run(HWGQD, *flags).returncode == 1)
        tls = context(certificate)
        with connect(daemon, tls) as connection:
            head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
            connection.sendall((head + b"Content-Length: %d\r\n\r\n" % len(JPEG) + JPEG) * 3)
            received = b""
            while received.count(b"}}\n") < 3:
                piece = connection.recv(65536)
                if not piece:
                    break
                received += piece
            check("three requests at once on one connection", received.count(b" 200 ") == 3, received[:300])
        with connect(daemon, tls) as connection:
            connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            answer = b""
            try:
                for _ in range(60):
                    connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
            except OSError:
                pass
            try:
                answer = connection.recv(4000)
            except OSError:
                pass
            check("an endless body is cut", answer == b"" or answer.startswith(b"HTTP/1.1 413"), answer[:100])

        def client(_):
            with connect(daemon, tls) as own:
                return [ask_healthz(own) for _ in range(20)]
        check("many connections at once", in_threads(16, client) == [[True] * 20] * 16)
        silent = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(20)]  # handshakes that never come
        check("who says nothing holds nobody up", run(*curl, "--cacert", certificate, url + "/healthz").stdout.endswith("200"))
        for one in silent:
            one.close()
        check("the client that has gone costs no work", gone(daemon, tls))
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def gone(daemon, tls):
    """Closes with requests unanswered; the daemon must go on."""
    for _ in range(20):
        connection = connect(daemon, tls)
        connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(JPEG) + JPEG)
        connection.close()
    with connect(daemon, tls) as connection:
        return ask_healthz(connection)


def tls_stalls():
    """Whoever stops in the middle of a request gets 408 over TLS too."""
    certificate, key = make_certificate("stall")
    with Daemon(BUILD, FOLDER, *BOTH, "--tls-certificate", certificate, "--tls-key", key, "--request-timeout-ms", "1500") as daemon:
        tls = context(certificate)
        with connect(daemon, tls) as connection:
            start = time.monotonic()
            connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\nabc")
            rest = read_all(connection)
            check("a stalled upload gets 408", rest.startswith(b"HTTP/1.1 408 ") and b'"slow_request"' in rest and
                  time.monotonic() - start > 1, rest)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with connect(daemon, context(certificate, version=version)) as connection:
                connection.sendall(b"POST /v2/models/color/infer HTTP/1.1\r\nHost: x\r\nX-Request-Id: slow-1\r\nContent-Le")
                rest = read_all(connection)
                check("stalled headers too, in the form of /v2: " + version.name, rest.startswith(b"HTTP/1.1 408 ") and
                      b'\r\n\r\n{"error":"The request did not' in rest, rest)
        check("which is counted", until(lambda: b'hwgqd_requests_total{model="color",code="408"} 1\n' in
                                        run_https(daemon, tls, "/metrics")))
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def tls_again():
    """Certificates change every 50 ms while clients ask; connections that are open stay, new ones see the new certificate."""
    pairs = [make_certificate("old"), make_certificate("new")]
    certificate, key = fixture("live.crt"), fixture("live.key")

    def install(pair):
        write(certificate, read(pair[0]))
        write(key, read(pair[1]))
    install(pairs[0])
    tls = context(pairs[0][0], pairs[1][0])
    with Daemon(BUILD, FOLDER, *BOTH, "--tls-certificate", certificate, "--tls-key", key) as daemon:
        with connect(daemon, tls) as kept:
            check("the first certificate", subject(kept) == "old" and ask_healthz(kept))
            install(pairs[1])
            check("after a reload", reloaded(daemon, HUP))
            with connect(daemon, tls) as fresh:
                check("a new connection sees the new one", subject(fresh) == "new" and ask_healthz(fresh))
            check("the old connection goes on", ask_healthz(kept))
            write(key, read(pairs[0][1]))
            check("a pair that does not fit is reported", reloaded(daemon, HUP, "reload failed, the certificate"))
            with connect(daemon, tls) as fresh:
                check("and the pair before it stays", subject(fresh) == "new" and ask_healthz(fresh))
            os.remove(key)
            check("a missing file is reported", reloaded(daemon, HUP, "reload failed, the certificate"))
            install(pairs[0])
            stop, seen = threading.Event(), [[] for _ in range(3)]

            def client(i):
                while not stop.is_set():
                    with connect(daemon, tls) as own:
                        seen[i].append((subject(own), ask_healthz(own)))
            threads = [threading.Thread(target=client, args=(i,)) for i in range(3)]
            for thread in threads:
                thread.start()
            turn = 0
            while turn < 20 or (turn < 2000 and {name for some in seen for name, _ in some[:]} != {"old", "new"}):
                turn += 1
                install(pairs[turn % 2])
                reloaded(daemon, HUP, "reloaded")
                time.sleep(0.05)
            stop.set()
            for thread in threads:
                thread.join()
            every = [s for some in seen for s in some]
            print("    %d handshakes during %d changes" % (len(every), turn))
            check("no handshake and no request failed", {good for _, good in every} == {True} and
                  {name for name, _ in every} == {"old", "new"}, set(every))
            check("the first connection still goes on", ask_healthz(kept))
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])
    short = make_certificate("short", days=3)
    with Daemon(BUILD, FOLDER, *BOTH, "--tls-certificate", short[0], "--tls-key", short[1]) as daemon:
        check("a certificate that ends soon is told", any(e["message"] == "the certificate expires soon" and e["days_left"] in (2, 3)
                                                          for e in daemon.events()), daemon.log())


# ---- limits and turns ---------------------------------------------------------------------------------------------------


def rates():
    """Rates are one request a minute where somebody must be refused: however slow the machine, that is less than it asks."""
    path, admin, user = key_file("rate-keys")
    quick, third = add_key(path, "quick"), add_key(path, "third")
    ends = {"user": " requests_per_minute=0", "quick": " requests_per_minute=60 burst=1", "third": " requests_per_minute=6000 burst=50"}
    write(path, "".join(line + ends.get(line.split()[0], "") + "\n" for line in read(path).decode().splitlines()))
    slowly = (*BOTH, "--client-requests-per-minute", "1")
    with Daemon(BUILD, FOLDER, *slowly, "--keys-file", path, "--client-burst", "5") as daemon:
        def codes(key, count):
            return [daemon.post("/classify", JPEG, headers=bearer(key)) for _ in range(count)]
        start = time.monotonic()
        got = codes(admin, 30)
        fine = [r for r in got if r.status == 200]
        check("a burst of five, then one a minute", [r.status for r in got[:6]] == [200] * 5 + [429] and
              len(fine) <= 6 + (time.monotonic() - start) / 60 and {r.status for r in got} == {200, 429}, [r.status for r in got])
        last = next(r for r in reversed(got) if r.status == 429)
        error("429", last, 429, "too_many_requests")
        check("when to come again", 1 <= int(last.headers["Retry-After"]) <= 60, last.headers["Retry-After"])

        def refused():
            reply = codes(quick, 1)[0]
            return reply if reply.status == 429 else None
        reply = next(filter(None, (refused() for _ in range(1000))))
        seconds = int(reply.headers["Retry-After"])
        time.sleep(seconds)
        check("Retry-After is true", seconds == 1 and codes(quick, 1)[0].status == 200, seconds)
        check("a key without a limit", {r.status for r in codes(user, 100)} == {200})
        check("a key with its own", {r.status for r in codes(third, 50)} == {200} and codes(third, 40)[-1].status in (200, 429))
        check("reading is not counted", {daemon.get("/v1/models", bearer(admin)).status for _ in range(20)} == {200})
        stats = daemon.get("/stats").json["without_model"]["requests"]
        check("429s are counted as rejected", stats["rejected"] >= len(got) - len(fine), stats)
        error("administration counts, too", [daemon.request("POST", "/v1/models/gray/reload", b"", bearer(admin)) for _ in range(10)][-1],
              429, "too_many_requests")
    with Daemon(BUILD, FOLDER, *slowly, "--client-burst", "3", "--trusted-proxies", "10.1.0.0/16, 127.0.0.1") as daemon:
        def by(header):
            return daemon.post("/classify", JPEG, headers={"X-Forwarded-For": header}).status
        check("clients behind a proxy", [[by("192.0.2.%d" % i) for _ in range(4)] for i in range(3)] == [[200, 200, 200, 429]] * 3)
        check("what a client writes itself is not believed",
              [by("198.51.100.%d, 203.0.113.7" % i) for i in range(4)] == [200, 200, 200, 429])
        check("a chain of proxies", [by("203.0.113.8, 10.1.2.%d" % i) for i in range(4)] == [200, 200, 200, 429])
        def by_lines(*lines):
            headers = email.message.Message()  # one line each, even of the same name
            for line in lines:
                headers["X-Forwarded-For"] = line
            headers["Content-Type"] = "image/jpeg"
            return daemon.request("POST", "/classify", JPEG, headers).status
        check("proxies that add lines of their own",
              [by_lines("198.51.100.%d, 203.0.113.9" % i, "10.1.2.%d" % i, "10.1.3.1") for i in range(4)] == [200, 200, 200, 429])
        check("... which clients may have written, too",
              [by_lines("198.51.100.%d" % i, "203.0.113.10", "10.1.2.1") for i in range(4)] == [200, 200, 200, 429])
        check("one IPv6 network is one client", [by("2001:db8::%d" % i) for i in range(4)] == [200, 200, 200, 429])
        check("nonsense counts as the proxy", [by("nobody") for i in range(4)] == [200, 200, 200, 429])
    with Daemon(BUILD, FOLDER, *slowly, "--client-burst", "3") as daemon:
        check("without trusted proxies the header is nothing",
              [daemon.post("/classify", JPEG, headers={"X-Forwarded-For": "192.0.2.%d" % i}).status for i in range(4)] ==
              [200, 200, 200, 429])


def concurrency():
    path, admin, user = key_file("concurrency-keys")
    with Daemon(BUILD, FOLDER, *SLOW, "--keys-file", path, "--client-concurrency", "2") as daemon:
        with Busy(daemon, admin):
            second = Later(lambda: daemon.post("/classify", JPEG, headers=bearer(admin)))
            check("the second one waits", waiting(daemon, 1))
            refused = in_threads(4, lambda i: daemon.post("/classify", JPEG, headers=bearer(admin)))
            check("two at a time", [r.status for r in refused] == [429] * 4, refused)
            error("429", refused[0], 429, "too_many_in_progress")
            check("with a time to wait", int(refused[0].headers["Retry-After"]) >= 1)
            other = Later(lambda: daemon.post("/classify", JPEG, headers=bearer(user)))
            check("another client is not refused", waiting(daemon, 2))
        check("both are served", [second.result().status, other.result().status] == [200, 200])
        for _ in range(5):  # who breaks off gives the place back
            with daemon.connect() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Length: 100\r\n\r\nabc" % admin.encode())
        check("places come back", until(lambda: daemon.post("/classify", JPEG, headers=bearer(admin)).status == 200))
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def surely_before(daemon, key, many, few):
    """`many` and then `few` are sent while the worker is busy; returns how many of `many` it surely took before the last of `few`. The
    daemon says how long each waited; when it came is known to within the sending, so a slow machine makes this less sure, not wrong."""
    sent = []
    with Busy(daemon, key):
        for request in many + few:
            begin = time.monotonic()
            later = Later(request)
            check("it waits", waiting(daemon, len(sent) + 1))
            sent.append((later, begin, time.monotonic()))
    replies = [later.result() for later, _, _ in sent]
    check("everyone is served", [reply.status for reply in replies] == [200] * len(sent))
    waited = [reply.json["timing_ms"]["queue"] / 1000 for reply in replies]
    last = max(begin + queue for (_, begin, _), queue in zip(sent[len(many):], waited[len(many):]))
    before = sum(end + queue < last for (_, _, end), queue in zip(sent[:len(many)], waited))
    print("    %d of %d before the last of %d others" % (before, len(many), len(few)))
    return before


def images(daemon, count, key=None, path="/v1/models/slow/classify"):
    body, kind = form([("image", JPEG)] * count)
    return lambda: daemon.post(path + "?top_k=1", body, kind, bearer(key) if key else None)


def turns():
    """One client fills the queue; another's requests are served in between, one for one."""
    path, busy, calm = key_file("turn-keys")
    with Daemon(BUILD, FOLDER, *SLOW, "--keys-file", path) as daemon:
        before = surely_before(daemon, busy, [images(daemon, 5, busy)] * 14, [images(daemon, 5, calm)] * 4)
        check("after about one of the busy client's each, not all of them", before <= 6, before)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def work_is_shared():
    """Turns are of work, not of requests: one request with many images pays for many with one."""
    path, heavy, light = key_file("work-keys")
    with Daemon(BUILD, FOLDER, *SLOW, "--keys-file", path) as daemon:
        before = surely_before(daemon, heavy, [images(daemon, 30, heavy)] * 6, [images(daemon, 1, light)] * 20)
        check("most of the small ones before the second or third large one", before <= 3, before)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def networks_take_turns():
    with Daemon(BUILD, FOLDER, *SLOW, "--models", "other=" + fixture("slow.hwgq")) as daemon:
        before = surely_before(daemon, None, [images(daemon, 5)] * 14, [images(daemon, 5, path="/v1/models/other/classify")] * 4)
        check("the other network's requests come in between", before <= 6, before)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def deadlines():
    with Daemon(BUILD, FOLDER, *SLOW) as daemon:
        with Busy(daemon):
            for what, text in (("0.2", 0.2), ("0.1s", 0.1), ("150ms", 0.15), ("150 ms", 0.15)):
                start = time.monotonic()
                reply = daemon.post("/classify", JPEG, headers={"X-Request-Timeout": what})
                seconds = time.monotonic() - start
                error("X-Request-Timeout: " + what, reply, 504, "deadline_exceeded")
                check("at its time: " + what, seconds > text * 0.8 and "X-Request-Timeout" in reply.json["error"]["message"],
                      (seconds, reply.body))
            longer = Later(lambda: daemon.post("/classify", JPEG, headers={"X-Request-Timeout": "3600"}))
            check("the one that is longer waits", waiting(daemon, 1))
        check("and is served", longer.result().status == 200)
        for what in ("", "0", "-1", "x", "1h", "1 s x", "0.0", "nan", "1e3", ".5"):
            error("X-Request-Timeout: '%s'" % what, daemon.post("/classify", JPEG, headers={"X-Request-Timeout": what}), 400,
                  "bad_timeout")
        settled(daemon)
        images = daemon.get("/stats").json["models"]["color"]
        check("no work was done for the expired", images["requests"]["expired"] == 4 and images["images"] == 1, images)
        with daemon.connect() as connection:  # the upload alone takes longer
            connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nX-Request-Timeout: 100ms\r\nContent-Length: %d\r\n\r\n" % len(JPEG) +
                               JPEG[:100])
            check("its headers have come", until(lambda: sample(daemon, "hwgqd_requests_in_flight") == 1))
            time.sleep(0.2)
            connection.sendall(JPEG[100:])
            check("the time begins with the headers", connection.recv(4000).startswith(b"HTTP/1.1 504"))
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


if not shutil.which("openssl"):
    raise SystemExit("openssl is needed (config/install-packages.sh test)")
main(command_line, matrix, keys_again, revoked_whatever_fails, warnings, tls_files, tls_serves, tls_stalls, tls_again, rates, concurrency, turns, work_is_shared, networks_take_turns,
     deadlines)
