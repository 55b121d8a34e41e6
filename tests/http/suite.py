"""The daemon from outside: suite.py BUILD_DIR FIXTURES (see run.sh). Every group of checks has a daemon of its own."""
import json
import os
import pty
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import zlib

from daemon import Daemon, form, metrics, read_all

BUILD, FOLDER = sys.argv[1], sys.argv[2]
HWGQD, HWGQ = os.path.join(BUILD, "hwgqd"), os.path.join(BUILD, "hwgq")
passed = failed = skipped = 0


def fixture(name):
    return os.path.join(FOLDER, name)


def read(path):
    with open(path, "rb") as stream:
        return stream.read()


IMAGES = [read(fixture("image-%d.jpg" % i)) for i in range(10)]
JPEG = IMAGES[0]
COLOR, GRAY = fixture("color.hwgq"), fixture("gray.hwgq")
SLOW = ("--models", "slow=" + fixture("slow.hwgq"), "--workers", "1", "--max-images", "4000", "--request-timeout-ms", "120000")
BOTH = ("--models", "color=" + COLOR, "--models", "gray=" + GRAY)


def check(what, good, detail=""):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print("FAILED: %s %s" % (what, str(detail)[:600]))


def error(what, reply, status, code):
    """An error reply as the contract says: status, code, a sentence, and the request id in header and body."""
    try:
        body = reply.json
        good = (reply.status == status and body["error"]["code"] == code and len(body["error"]["message"]) > 15 and
                body["request_id"] == reply.headers["X-Request-Id"])
    except (ValueError, KeyError, TypeError):
        good = False
    check(what, good, "%s %s" % (reply.status, reply.body[:300]))


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)


def skip(reason):
    global skipped
    skipped += 1
    print("SKIPPED: " + reason)


def sample(daemon, name):
    return metrics(daemon.get("/metrics").body.decode()).get(name, 0)


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def in_threads(count, work):
    """Runs work(0) ... work(count - 1) at once and returns their results; an exception is a result."""
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


PROBE = 10


def slow_form(daemon, seconds):
    """A form whose images keep the worker of a SLOW daemon busy for about so long on this machine and build. Costs one request
    of PROBE images."""
    probe = daemon.form("/classify", [("image", JPEG)] * PROBE).json
    each = max(probe["timing_ms"]["inference"] / PROBE, 0.02)
    return form([("image", JPEG)] * min(4000, max(2, int(seconds * 1000 / each))))


# ---- command line -------------------------------------------------------------------------------------------------------


def command_line():
    check("--version", re.fullmatch(r"hwgqd \d+\.\d+\.\d+\n", run(HWGQD, "--version").stdout))
    check("--help", "--queue-capacity" in run(HWGQD, "--help").stdout)
    result = run(HWGQD, *BOTH, "--check")
    check("--check good", result.returncode == 0 and "color (default)" in result.stdout, result)
    for what, flags, message in [
            ("unknown flag", ["--nonsense", "1"], "unknown flag '--nonsense'"),
            ("no network", [], "no network to serve"),
            ("missing file", ["--models", fixture("none.hwgq")], "none.hwgq: cannot open"),
            ("not a model", ["--models", "x=" + fixture("image-0.jpg")], "image-0.jpg"),
            ("unknown default", [*BOTH, "--default-model", "nobody"], "no network 'nobody'"),
            ("two of one name", [*BOTH, "--models", "color=" + GRAY], "two networks are called 'color'"),
            ("an empty folder", ["--models", os.path.join(FOLDER, "empty")], "no .hwgq file in the folder")]:
        os.makedirs(os.path.join(FOLDER, "empty"), exist_ok=True)
        result = run(HWGQD, "--check", *flags)
        check("--check: " + what, result.returncode == 2 and message in result.stderr, result)
    path = fixture("bad.json")
    with open(path, "w") as stream:
        stream.write('{\n  "listen": "127.0.0.1:0",\n  "workrs": 2\n}\n')
    result = run(HWGQD, "--config", path)
    check("a bad configuration is refused with file, line and key",
          result.returncode == 2 and path + ":3: workrs: unknown key" in result.stderr, result)
    result = run(HWGQD, "--listen", "127.0.0.1:0", "--models", fixture("none.hwgq"))
    check("a missing network stops the start, with a reason and what to do",
          result.returncode == 1 and "none.hwgq" in result.stderr and "hwgq train" in result.stderr, result)
    cut = fixture("cut.hwgq")
    with open(cut, "wb") as stream:
        stream.write(read(COLOR)[:-100])
    result = run(HWGQD, "--listen", "127.0.0.1:0", "--models", cut)
    check("a damaged network stops the start", result.returncode == 1 and "cut.hwgq" in result.stderr, result)


def configuration_file():
    models = os.path.join(FOLDER, "zoo")
    os.makedirs(models, exist_ok=True)
    shutil.copy(COLOR, os.path.join(models, "b.hwgq"))
    shutil.copy(GRAY, os.path.join(models, "a.hwgq"))
    path = fixture("hwgqd.json")
    with open(path, "w") as stream:
        json.dump({"models": "zoo", "default_model": "b", "workers": 1}, stream)
    with Daemon(BUILD, FOLDER, "--config", path) as daemon:
        listed = daemon.get("/v1/models").json["models"]
        check("a folder of networks, relative to the configuration file",
              [(m["name"], m["default"]) for m in listed] == [("a", False), ("b", True)], listed)
        check("workers from the file", daemon.get("/stats").json["workers"] == 1)
        check("--health of a living daemon", run(HWGQD, "--config", path, "--listen", "127.0.0.1:%d" % daemon.port,
                                                 "--health").returncode == 0)
        check("--health by port file", run(HWGQD, "--listen", "127.0.0.1:0", "--port-file", daemon.port_file,
                                           "--health").returncode == 0)
        result = run(HWGQD, *BOTH, "--listen", "127.0.0.1:%d" % daemon.port)
        check("a port in use is refused", result.returncode == 1 and "cannot listen" in result.stderr, result)
        port = daemon.port
    check("exit code", daemon.exit_code == 0, daemon.log())
    result = run(HWGQD, "--listen", "127.0.0.1:%d" % port, "--health")
    check("--health of a dead one", result.returncode == 1 and "no daemon answers" in result.stderr, result)
    with Daemon(BUILD, FOLDER, *BOTH, "--listen", "0.0.0.0:0") as daemon:
        check("a warning when other machines can reach it",
              any(e["level"] == "warning" and "other machines" in e["message"] for e in daemon.events()), daemon.log())


def terminal():
    """Started by hand: text that says what to type, and an end when the terminal is closed."""
    try:
        pid, master = pty.fork()
    except OSError as problem:
        skip("there are no pseudo-terminals here: %s" % problem)
        return
    if pid == 0:
        os.execv(HWGQD, [HWGQD, "--listen", "127.0.0.1:0", *BOTH])
    text = b""
    while b"try: " not in text or not text.endswith(b"\n"):
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        text += piece
    text = text.decode()
    line = re.search(r"try: curl -F image=@cat.jpg (http://127\.0\.0\.1:\d+/classify)", text)
    check("text on a terminal, with address and networks", line and not text.startswith("{") and "model=color" in text and
          "memory ceiling" in text, text)
    result = run("curl", "-sS", "-F", "image=@" + fixture("image-0.jpg"), line.group(1))
    check("its curl line works", '"predictions"' in result.stdout, result)
    os.close(master)
    check("it ends with its terminal", until(lambda: os.waitpid(pid, os.WNOHANG) == (pid, 0)))


# ---- endpoints ----------------------------------------------------------------------------------------------------------


def endpoints():
    with Daemon(BUILD, FOLDER, *BOTH, "--log-level", "debug") as daemon:
        check("/healthz", daemon.get("/healthz").json == {"status": "ok"})
        check("/readyz", daemon.get("/readyz").json == {"status": "ready"})
        page = daemon.get("/")
        check("/ is a page", page.status == 200 and page.headers["Content-Type"].startswith("text/html") and
              b"<form" in page.body)
        check("/ loads nothing from outside", not re.search(rb'(src|href)="(https?:)?//', page.body))
        listed = daemon.get("/v1/models").json["models"]
        check("/v1/models", [m["name"] for m in listed] == ["color", "gray"] and all(
            set(m) >= {"name", "version", "state", "default", "network", "input", "classes", "bytes", "path", "digest"}
            for m in listed), listed)
        check("/v1/models says what is in the files", listed[0]["bytes"] == len(read(COLOR)) and
              listed[0]["digest"].startswith("xxh3:") and listed[0]["network"] == "vgg-small" and
              listed[0]["input"]["width"] == 32 and listed[1]["input"]["order"] == "gray", listed)
        one = daemon.get("/v1/models/gray").json
        check("/v1/models/{name}", one["name"] == "gray" and len(one["labels"]) == 10 and len(one["layers"]) > 5 and
              len(one["stages"]) > 3 and one["labels"][3] == 'class "3" \u00e9' and
              one["provenance"] == {"made_by": "make_fixtures"}, one)
        error("unknown network", daemon.get("/v1/models/none"), 404, "unknown_model")
        error("statistics of an unknown network", daemon.get("/v1/models/none/stats"), 404, "unknown_model")
        stats = daemon.get("/stats").json
        check("/stats", set(stats) >= {"uptime_s", "kernels", "workers", "queue", "models"} and
              set(stats["queue"]) == {"depth", "capacity"} and set(stats["models"]) == {"color", "gray"})
        stages = stats["models"]["color"]["latency_ms"]
        check("/stats stages", set(stages) == {"queue", "decode", "preprocess", "inference", "total"} and
              set(stages["total"]) == {"count", "mean", "min", "max", "p50", "p90", "p95", "p99", "p999"})
        check("/v1/models/{name}/stats", set(daemon.get("/v1/models/gray/stats").json["models"]) == {"gray"})
        check("?window=60 and what it covers", 60 <= daemon.get("/stats?window=60").json["window_s"] < 65)
        for window in ("0", "301", "1000", "x", "-1", ""):
            error("?window=" + window, daemon.get("/stats?window=" + window), 400, "bad_window")
        reply = daemon.get("/metrics")
        check("/metrics type", reply.headers["Content-Type"].startswith("text/plain; version=0.0.4"))
        names = {key.split("{")[0] for key in metrics(reply.body.decode())}
        check("/metrics names", names >= {
            "hwgqd_images_total", "hwgqd_stage_duration_seconds_bucket", "hwgqd_queue_depth", "hwgqd_queue_capacity",
            "hwgqd_requests_in_flight", "hwgqd_buffered_bytes", "hwgqd_model_info", "hwgqd_build_info", "process_cpu_seconds_total",
            "process_resident_memory_bytes", "process_start_time_seconds", "process_open_fds"}, names)
        for path in ("/nothing", "/classify/", "/v1/models/", "/v1/models//classify", "/v1/models/color/nothing", "/openapi",
                     "/../etc/passwd", "/%00", "/v1/models/" + "a" * 5000):
            error("404 for " + path[:40], daemon.get(path), 404,
                  "unknown_model" if "aaa" in path else "not_found")
        for path in ("/", "/healthz", "/readyz", "/stats", "/metrics", "/v1/models", "/v1/models/color", "/v1/models/color/stats"):
            get, head = daemon.get(path), daemon.request("HEAD", path)
            check("HEAD " + path, head.status == 200 and head.body == b"" and "Content-Length" in head.headers and
                  head.headers["Content-Type"] == get.headers["Content-Type"], head.status)
            reply = daemon.request("DELETE", path)
            error("405 " + path, reply, 405, "method_not_allowed")
            check("Allow " + path, reply.headers["Allow"] == "GET, HEAD")
            error("405 POST " + path, daemon.post(path, JPEG), 405, "method_not_allowed")
        for path in ("/classify", "/v1/models/color/classify"):
            for method in ("GET", "HEAD", "DELETE", "PATCH"):
                reply = daemon.request(method, path)
                check("405 %s %s" % (method, path), reply.status == 405 and reply.headers["Allow"] == "POST, PUT")
        check("ids: made", re.fullmatch("[0-9a-f]{16}", daemon.get("/healthz").headers["X-Request-Id"]))
        for sent in ("a", "A-b_c.9", "x" * 128):
            check("ids: taken", daemon.get("/healthz", {"X-Request-Id": sent}).headers["X-Request-Id"] == sent)
        for sent in ("", "a b", "x" * 129, "a\u00e4", "<script>", 'a"b'):
            got = daemon.get("/healthz", {"X-Request-Id": sent.encode("latin-1")}).headers["X-Request-Id"]
            check("ids: not taken", got != sent and re.fullmatch("[0-9a-f]{16}", got), got)
        daemon.post("/classify", JPEG, headers={"X-Request-Id": "seen-in-the-log"})
        check("ids: logged", until(lambda: any(e.get("request_id") == "seen-in-the-log" and e["code"] == 200 and
                                               e["model"] == "color" and e["inference_ms"] > 0 for e in daemon.events())))


def loading():
    """What the daemon says before its networks are there. Many wide networks give the time to ask."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    models = [argument for i in range(3) for argument in ("--models", "m%d=%s" % (i, fixture("slow.hwgq")))]
    with Daemon(BUILD, FOLDER, *models, "--listen", "127.0.0.1:%d" % port, wait=False) as daemon:
        daemon.port = port
        seen = []

        def ask():
            try:
                answers = [daemon.get("/healthz"), daemon.get("/stats"), daemon.get("/metrics"), daemon.post("/classify", JPEG),
                           daemon.get("/v1/models"), daemon.get("/readyz")]
            except OSError:
                return False
            if answers[-1].status == 503:
                seen.append(answers)
            return answers[-1].status == 200
        check("ready in the end", until(ask, 60))
        if not seen:
            skip("the networks were loaded before anyone could ask")
        for answers in seen[:1]:
            check("alive, with statistics", all(reply.status == 200 for reply in answers[:3]) and answers[1].json["models"] == {})
            for reply in answers[3:]:
                error("loading", reply, 503, "loading")
                check("Retry-After", reply.headers["Retry-After"] == "1")
        check("then it serves", daemon.post("/v1/models/m2/classify", JPEG).status == 200)


# ---- classification -----------------------------------------------------------------------------------------------------


def predictions_of(daemon, body, **arguments):
    return daemon.post("/classify", body, **arguments).json["predictions"]


def classification():
    with Daemon(BUILD, FOLDER, *BOTH) as daemon:
        reply = daemon.form("/classify", [("image", JPEG)])
        answer = reply.json
        check("the reply of the contract", list(answer) == ["request_id", "model", "version", "predictions", "image", "timing_ms"]
              and answer["request_id"] == reply.headers["X-Request-Id"] and answer["model"] == "color" and
              answer["version"] == "1" and answer["image"] == {"format": "jpeg", "width": 100, "height": 80} and
              set(answer["timing_ms"]) == {"queue", "decode", "preprocess", "inference", "total"}, answer)
        probabilities = [p["probability"] for p in answer["predictions"]]
        check("five predictions, highest first", len(probabilities) == 5 and probabilities == sorted(probabilities, reverse=True))
        timing = answer["timing_ms"]
        check("total covers the stages", timing["total"] >= timing["queue"] + timing["decode"] + timing["preprocess"] +
              timing["inference"] - 0.003, timing)
        everything = predictions_of(daemon, JPEG)
        whole = daemon.post("/classify?top_k=10", JPEG).json["predictions"]
        check("probabilities sum to 1", abs(sum(p["probability"] for p in whole) - 1) < 1e-5, whole)
        check("each class once, with its label", sorted(p["class"] for p in whole) == list(range(10)) and
              all(p["label"] == 'class "%d" \u00e9' % p["class"] for p in whole), whole)
        check("top_k beyond the classes gives all", daemon.post("/classify?top_k=1000", JPEG).json["predictions"] == whole)
        check("top_k=1", daemon.post("/classify?top_k=1", JPEG).json["predictions"] == whole[:1])
        for field in ("image", "file", "data"):
            check("field " + field, daemon.form("/classify", [(field, JPEG)]).json["predictions"] == everything)
        for content_type in ("image/jpeg", "image/png", "application/octet-stream", "application/octet-stream; x=y",
                             "application/x-www-form-urlencoded", "IMAGE/JPEG"):
            check("raw body as " + content_type, predictions_of(daemon, JPEG, content_type=content_type) == everything)
        check("raw body without a type", daemon.request("POST", "/classify", JPEG).json["predictions"] == everything)
        check("PUT", daemon.request("PUT", "/classify", JPEG).json["predictions"] == everything)
        check("chunked", daemon.request("POST", "/classify", iter([JPEG[:100], JPEG[100:101], JPEG[101:]]),
                                        {"Content-Type": "image/jpeg"}).json["predictions"] == everything)
        gray = daemon.post("/v1/models/gray/classify", JPEG).json
        check("the other network by path", gray["model"] == "gray" and gray["predictions"] != everything)
        for what, reply in [("query", daemon.post("/classify?model=gray", JPEG)),
                            ("path and query", daemon.post("/v1/models/gray/classify?model=gray", JPEG)),
                            ("form field", daemon.form("/classify", [("image", JPEG), ("model", b"gray")]))]:
            check("the other network by " + what, reply.json["predictions"] == gray["predictions"], reply.body)
        check("top_k by form field", len(daemon.form("/classify", [("top_k", b"2"), ("image", JPEG)]).json["predictions"]) == 2)
        check("the query wins over the form field",
              len(daemon.form("/classify?top_k=3", [("top_k", b"2"), ("image", JPEG)]).json["predictions"]) == 3)
        several = daemon.form("/classify?top_k=2", [("image", IMAGES[0]), ("note", b"x"), ("file", b"no image at all"),
                                                     ("data", IMAGES[9]), ("image", IMAGES[1][:300])])
        results = several.json["results"]
        check("several images, in order, one broken does not hurt the others", several.status == 200 and len(results) == 4 and
              results[0]["predictions"] == whole[:2] and results[1]["error"]["code"] == "unsupported_image" and
              results[2]["predictions"] == daemon.post("/classify?top_k=2", IMAGES[9]).json["predictions"] and
              list(several.json) == ["request_id", "model", "version", "results", "timing_ms"], several.body)
        check("the same bits from many clients at once", all(
            isinstance(answer, list) and answer == everything
            for answer in in_threads(16, lambda i: predictions_of(daemon, JPEG))))
    for workers in ("1", "7"):
        with Daemon(BUILD, FOLDER, *BOTH, "--workers", workers, "--io-threads", workers) as daemon:
            check("the same bits with %s workers" % workers, predictions_of(daemon, JPEG) == everything)
    with Daemon(BUILD, FOLDER, *BOTH, "--cpu", "scalar") as daemon:
        check("the same bits with scalar kernels", predictions_of(daemon, JPEG) == everything)
        check("/stats names the kernels", daemon.get("/stats").json["kernels"] == "scalar")


def idle_workers():
    """Answers are the same bits whether idle workers help or not, for one client, for several at once, and while they change."""
    models = ("--models", "slow=" + fixture("slow.hwgq"), "--models", "color=" + COLOR)
    paths = ["/v1/models/slow/classify", "/v1/models/color/classify"]
    with Daemon(BUILD, FOLDER, *models, "--workers", "3", "--idle-workers", "sleep") as daemon:
        expected = [[daemon.post(path, image).json["predictions"] for image in IMAGES] for path in paths]
        stats = daemon.get("/stats").json["models"]
        check("idle workers sleep when told to", stats["slow"]["images"] == len(IMAGES) and stats["slow"]["shared_images"] == 0 and
              sample(daemon, 'hwgqd_shared_images_total{model="slow"}') == 0, stats["slow"])
    with Daemon(BUILD, FOLDER, *models, "--workers", "3") as daemon:
        def shared():
            same.append(daemon.post(paths[0], IMAGES[0]).json["predictions"] == expected[0][0])
            return daemon.get("/stats").json["models"]["slow"]["shared_images"] > 0
        same = []
        check("idle workers help", until(shared, 60), daemon.get("/stats").json)
        check("the same bits with help", all(same))
        for clients in (1, 2, 3, 8):
            def client(i):
                return all(daemon.post(paths[k % 2], IMAGES[(i + k) % 10]).json["predictions"] == expected[k % 2][(i + k) % 10]
                           for k in range(20))
            check("the same bits with help and %d clients" % clients, in_threads(clients, client) == [True] * clients)
        stats = daemon.get("/stats").json["models"]["slow"]
        check("/metrics counts shared images as /stats does",
              sample(daemon, 'hwgqd_shared_images_total{model="slow"}') == stats["shared_images"] <= stats["images"], stats)


def curl():
    """The lines that the documentation shows."""
    image = fixture("image-0.jpg")
    with Daemon(BUILD, FOLDER, *BOTH) as daemon:
        url = daemon.url("/classify")
        for what, flags in [("-F", ["-F", "image=@" + image]), ("--data-binary", ["--data-binary", "@" + image]), ("-T", ["-T", image]),
                            ("-H", ["-H", "Content-Type: image/jpeg", "--data-binary", "@" + image]),
                            ("two -F", ["-F", "image=@" + image, "-F", "image=@" + fixture("image-1.jpg")]),
                            ("-F chunked", ["-H", "Transfer-Encoding: chunked", "-F", "image=@" + image]),
                            ("Expect", ["-H", "Expect: 100-continue", "-F", "image=@" + image])]:
            result = run("curl", "-sS", "--max-time", "30", "-w", "\n%{http_code}", *flags, url)
            check("curl " + what, result.stdout.endswith("\n200") and "predictions" in result.stdout, result)
        result = run("curl", "-sS", "-w", "\n%{http_code}", "-d", "hello=world", url)
        check("curl -d gets told what to do", result.stdout.endswith("\n415") and "curl -F image=@" in result.stdout, result)


def predictions_text(text):
    """The predictions exactly as they were written."""
    return re.findall(r'"predictions":(\[[^\]]*\])', text.replace("\n", ""))


def same_as_the_tool():
    """`hwgq classify --json` and the daemon give the same bits."""
    files = [fixture("image-%d.jpg" % i) for i in range(10)]
    if not os.access(HWGQ, os.X_OK) or "classify" not in run(HWGQ, "--help").stdout + run(HWGQ, "--help").stderr:
        skip("hwgq classify is not in this build")
        return
    with Daemon(BUILD, FOLDER, *BOTH) as daemon:
        for name, model in (("color", COLOR), ("gray", GRAY)):
            for path in files:
                tool = run(HWGQ, "classify", "--json", "--top-k", "10", model, path)
                reply = daemon.post("/v1/models/%s/classify?top_k=10" % name, read(path))
                check("the tool's bits: %s %s" % (name, os.path.basename(path)), tool.returncode == 0 and reply.status == 200 and
                      predictions_text(tool.stdout) == predictions_text(reply.body.decode()) != [], "%s %s" % (tool, reply.body))


def images_in_the_repository():
    """Every kind of image there is a small file of."""
    folder = "tests/images"
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    names = [name for name in names if name.endswith((".jpg", ".png", ".webp"))]
    if not names:
        skip("there are no files in " + folder)
        return
    with Daemon(BUILD, FOLDER, *BOTH) as daemon:
        for name in names:
            reply = daemon.post("/classify", read(os.path.join(folder, name)))
            good = not name.startswith(("truncated", "scans"))
            check("image " + name, reply.status == (200 if good else 422), reply.body)


# ---- errors -------------------------------------------------------------------------------------------------------------


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
        error("too many images", daemon.form("/classify", [("image", JPEG)] * 5), 413, "too_many_images")
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
        results = daemon.form("/classify", [("image", JPEG), ("image", black), ("image", JPEG)]).json["results"]
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
        start = time.monotonic()
        head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n" % (10 * limit)
        reply = daemon.raw(head + b"Expect: 100-continue\r\n\r\n")
        check("413 before the body is sent", reply.startswith(b"HTTP/1.1 413") and time.monotonic() - start < 5, reply)
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


def framing():
    """What no two parties may read differently, and plain nonsense."""
    with Daemon(BUILD, FOLDER, *BOTH, "--request-timeout-ms", "3000") as daemon:
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
        two = daemon.raw((post + b"Content-Length: %d\r\n\r\n" % len(JPEG) + JPEG) * 3)
        check("classifications on one connection, sent at once", two.count(b"HTTP/1.1 200") == 3 and two.count(b'"predictions"') == 3, two)
        check("HTTP/1.0", daemon.raw(b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1"))
        check("a GET with a body", b" 200 " in daemon.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"))
        generator = random.Random(5)
        pieces = [b"GET", b"POST", b" ", b"/classify", b"/v1/models/", b"HTTP/1.1", b"\r\n", b"\n", b"\0", b"Host: x", b"Content-Length:",
                  b"Transfer-Encoding: chunked", b"%", b"%zz", b"?", b"&", b"=", b"multipart/form-data; boundary=", b"Expect: 100-continue",
                  b"\xff\xfe", b"Content-Type: ", b"0", b"ffffffffffffffff", JPEG[:50], b"A" * 3000, b"X-Request-Id: ", b":", b"\r\n\r\n"]
        inputs = [[b"".join(generator.choice(pieces) for _ in range(generator.randrange(1, 30))) for _ in range(15)] for _ in range(8)]
        replies = in_threads(8, lambda i: [daemon.raw(data, 0.5) for data in inputs[i]])
        replies = [reply for some in replies for reply in some]
        check("nonsense is answered", sum(reply.startswith(b"HTTP/1.") for reply in replies) > 10, replies[:5])
        check("nonsense never gives 5xx", not [r for r in replies if r[9:10] == b"5"], [r for r in replies if r[9:10] == b"5"])
        check("and the daemon lives", daemon.get("/healthz").status == 200)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def slow_clients():
    with Daemon(BUILD, FOLDER, *BOTH, "--request-timeout-ms", "400", "--idle-timeout-ms", "700") as daemon:
        head = b"POST /classify HTTP/1.1\r\nHost: x\r\nX-Request-Id: slow-1\r\nContent-Length: 1000\r\n\r\n"

        def drip(_):
            start = time.monotonic()
            with daemon.connect() as connection:
                connection.sendall(head)
                try:
                    for _ in range(200):  # a byte every 20 ms would take 20 s
                        connection.sendall(b"x")
                        time.sleep(0.02)
                except OSError:
                    pass
                return read_all(connection), time.monotonic() - start

        def stall(_):
            start = time.monotonic()
            with daemon.connect() as connection:
                connection.sendall(head + b"abc")
                return read_all(connection), time.monotonic() - start
        (dripped, _), (stalled, seconds) = in_threads(2, lambda i: (drip, stall)[i](i))
        check("a dripping body is cut", dripped == b"" or dripped.startswith(b"HTTP/1.1 408"), dripped)
        check("a stalled body gets 408", stalled.startswith(b"HTTP/1.1 408") and b'"slow_request"' in stalled and
              b'"request_id":"slow-1"' in stalled and b"X-Request-Id: slow-1" in stalled, stalled)
        check("in time", 0.35 < seconds < 3, seconds)
        with daemon.connect() as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Fill")
            check("stalled headers get 408", read_all(connection).startswith(b"HTTP/1.1 408"))
        start = time.monotonic()
        with daemon.connect() as connection:
            check("an idle connection is closed", read_all(connection) == b"" and 0.4 < time.monotonic() - start < 5)
        with daemon.connect() as connection:
            connection.sendall(b"GET /hea")
            check("half a request line does not hold a connection", read_all(connection) == b"")
        codes = metrics(daemon.get("/metrics").body.decode())
        check("408s are counted", codes.get('hwgqd_requests_total{model="color",code="408"}') == 2, codes)
        check("others are served meanwhile", daemon.post("/classify", JPEG).status == 200)


# ---- load ---------------------------------------------------------------------------------------------------------------


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


# ---- life ---------------------------------------------------------------------------------------------------------------


def drain_under_load():
    """SIGTERM while clients hammer: whoever was connected gets an answer; then connections are refused; exit code 0."""
    daemon = Daemon(BUILD, FOLDER, *BOTH, "--drain-delay-ms", "3000")
    stop, lost, answered, refused = threading.Event(), [], [], []
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(JPEG)

    def client(i):
        keep = i % 2 == 0
        while not stop.is_set():
            try:
                connection = daemon.connect()
            except OSError:
                refused.append(i)
                return
            with connection:
                for turn in range(20 if keep else 1):
                    reply = b""
                    try:
                        connection.sendall(head + (b"" if keep else b"Connection: close\r\n") + b"\r\n" + JPEG)
                        while b"}}\n" not in reply:
                            piece = connection.recv(65536)
                            if not piece:
                                break
                            reply += piece
                    except OSError as problem:
                        if turn and not reply:  # the server closed the idle connection: HTTP lets a client try again
                            break
                        lost.append((i, repr(problem)))
                        return
                    if turn and not reply:
                        break
                    if not reply.startswith(b"HTTP/1.1 200") or b"}}\n" not in reply:
                        lost.append((i, reply))
                        return
                    answered.append(i)
                    if b"Connection: close" in reply:
                        break
    threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    daemon.signal(signal.SIGTERM)
    check("not ready while draining", until(lambda: daemon.get("/readyz").status == 503, 2.5))
    error("draining", daemon.get("/readyz"), 503, "draining")
    check("alive while draining", daemon.get("/healthz").status == 200)
    check("still serving while draining", daemon.post("/classify", JPEG).status == 200)
    code = daemon.wait()
    stop.set()
    for thread in threads:
        thread.join()
    check("exit code 0 after SIGTERM", code == 0, daemon.log()[-2000:])
    check("nothing accepted was lost", not lost, lost[:3])
    check("there was load, and it ended by refusal", len(answered) > 20 and len(refused) == 8, (len(answered), len(refused)))


def drain_finishes():
    """What waits in the queue and what is still being uploaded when SIGTERM comes is finished."""
    daemon = Daemon(BUILD, FOLDER, *SLOW, "--queue-deadline-ms", "60000")
    body, content_type = slow_form(daemon, 2)
    with daemon.connect() as upload:
        upload.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(JPEG) + JPEG[:100])
        results = []
        threads = [threading.Thread(target=lambda: results.append(daemon.post("/classify?top_k=1", body, content_type).status))
                   for _ in range(3)]
        for thread in threads:
            thread.start()
        check("four requests are on their way", until(lambda: b"\nhwgqd_requests_in_flight 4\n" in daemon.get("/metrics").body, 30))
        daemon.signal(signal.SIGTERM)

        def refused():
            try:
                daemon.connect().close()
            except OSError:
                return True
            return False
        check("new connections are refused", until(refused))
        upload.sendall(JPEG[100:])
        check("an upload that had begun is answered", read_all(upload).startswith(b"HTTP/1.1 200"))
        for thread in threads:
            thread.join()
    check("everything in the queue is answered", results == [200] * 3, results)
    check("exit code 0", daemon.wait() == 0, daemon.log()[-2000:])
    daemon = Daemon(BUILD, FOLDER, *BOTH, "--drain-delay-ms", "60000")
    daemon.signal(signal.SIGTERM)
    check("draining is logged", until(lambda: any(e["message"] == "draining" for e in daemon.events())))
    daemon.signal(signal.SIGINT)
    check("an interrupt while draining ends at once", daemon.wait(5) == 130, daemon.log())
    daemon = Daemon(BUILD, FOLDER, *BOTH, "--drain-delay-ms", "60000")
    daemon.signal(signal.SIGINT)
    check("the first interrupt drains without the delay", daemon.wait(10) == 0, daemon.log())


def reload():
    path, model = fixture("reload.json"), fixture("live.hwgq")

    def configure(**keys):
        with open(path, "w") as stream:
            json.dump(keys, stream)

    def reloaded(daemon, message):
        before = len([e for e in daemon.events() if e["message"].startswith(message)])
        daemon.signal(signal.SIGHUP)
        return until(lambda: len([e for e in daemon.events() if e["message"].startswith(message)]) > before)
    shutil.copy(COLOR, model)
    configure(models={"live": model})
    with Daemon(BUILD, FOLDER, "--config", path) as daemon:
        first = predictions_of(daemon, JPEG)
        check("a reload without change", reloaded(daemon, "reloaded") and daemon.get("/v1/models/live").json["version"] == "1" and
              predictions_of(daemon, JPEG) == first)
        shutil.copy(fixture("other.hwgq"), model)
        stop, codes = threading.Event(), []

        def hammer():
            while not stop.is_set():
                codes.append(daemon.post("/classify", JPEG).status)
        thread = threading.Thread(target=hammer)
        thread.start()
        check("a new file is taken", reloaded(daemon, "reloaded"))
        one = daemon.get("/v1/models/live").json
        second = predictions_of(daemon, JPEG)
        check("with a new version", one["version"] == "2" and second != first and daemon.post("/classify", JPEG).json["version"] == "2", one)
        with open(model, "wb") as stream:
            stream.write(b"rubbish")
        check("a bad file is reported", reloaded(daemon, "reload failed"))
        one = daemon.get("/v1/models/live").json
        check("and the old network goes on", predictions_of(daemon, JPEG) == second and one["version"] == "2" and
              "live.hwgq" in one["reload_error"], one)
        configure(models={"live": COLOR, "more": GRAY}, default_model="more", workers=7)
        check("another list", reloaded(daemon, "reloaded"))
        check("is served", [(m["name"], m["default"]) for m in daemon.get("/v1/models").json["models"]] ==
              [("live", False), ("more", True)])
        check("and its error is gone", "reload_error" not in daemon.get("/v1/models/live").json)
        check("what needs a restart is named", [e for e in daemon.events() if e.get("needs_restart") == "workers"])
        stop.set()
        thread.join()
        check("no request failed meanwhile", set(codes) == {200} and len(codes) > 3, set(codes))
        with open(path, "w") as stream:
            stream.write("{ nonsense")
        check("a bad configuration is reported", reloaded(daemon, "reload failed, everything stays"))
        configure(models={"live": COLOR}, default_model="gone")
        check("an unknown default is reported", reloaded(daemon, "reload failed, everything stays"))
        check("and everything stays", daemon.post("/v1/models/more/classify", JPEG).status == 200)
        configure(models={"live": COLOR, "fresh": model}, default_model="fresh")
        check("a default that cannot be loaded is reported", reloaded(daemon, "reload failed, everything stays"))
        check("and the default stays", [m["name"] for m in daemon.get("/v1/models").json["models"] if m["default"]] == ["more"])
        configure(models={"live": COLOR})
        check("a network is taken away", reloaded(daemon, "reloaded") and daemon.post("/v1/models/more/classify", JPEG).status == 404)
        for what, path_of_more, version in (("the same", GRAY, "1"), ("another", COLOR, "2")):
            configure(models={"live": COLOR, "more": path_of_more})
            check("it comes back as %s network" % what, reloaded(daemon, "reloaded") and
                  daemon.get("/v1/models/more").json["version"] == version, daemon.get("/v1/models/more").body[:300])
            configure(models={"live": COLOR})
            check("and goes", reloaded(daemon, "reloaded"))
        check("the memory ceiling is logged after a reload", len([e for e in daemon.events() if e["message"].startswith("memory ceiling")])
              > 5)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def too_many_names():
    """The counts of a name are kept, so a daemon knows only so many names; the reload that brings one more changes nothing."""
    path = fixture("names.json")
    for models in ({"name-%d" % i: GRAY for i in range(256)}, {"one-more": GRAY}):
        with open(path, "w") as stream:
            json.dump({"models": models}, stream)
        if len(models) > 1:
            daemon = Daemon(BUILD, FOLDER, "--config", path)
    with daemon:
        daemon.signal(signal.SIGHUP)
        check("one name too many is refused", until(lambda: any("restart to forget" in e.get("error", "") for e in daemon.events())),
              daemon.log()[-600:])
        check("and everything stays", len(daemon.get("/v1/models").json["models"]) == 256 and
              daemon.post("/classify", JPEG).json["model"] == "name-0")
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def main():
    for group in (command_line, configuration_file, terminal, endpoints, loading, classification, idle_workers, curl, same_as_the_tool, images_in_the_repository,
                  client_errors, body_limits, framing, slow_clients, full_queue, deadline, gone_client, gone_while_running, unread_replies, counts_agree,
                  drain_under_load, drain_finishes, reload, too_many_names):
        start = time.monotonic()
        try:
            group()
        except Exception:  # noqa: BLE001: one group that breaks must not hide the others
            check(group.__name__, False, traceback.format_exc()[-600:])
        print("%-28s %5.1f s" % (group.__name__, time.monotonic() - start), flush=True)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped) if skipped else "%d passed, %d failed" % (passed, failed))
    return failed != 0


socket.setdefaulttimeout(60)
sys.exit(main())
