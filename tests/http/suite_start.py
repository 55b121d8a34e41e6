"""The daemon from outside, its start: command line, configuration file, terminal, endpoints, what it says while it loads.
suite_start.py BUILD_DIR FIXTURES (see run.sh). Every group of checks has a daemon of its own."""
import json
import os
import pty
import re
import shutil

from harness import *


def command_line():
    check("--version", re.fullmatch(r"hwgqd \d+\.\d+\.\d+\n", run(HWGQD, "--version").stdout))
    check("--help", "--queue-capacity" in run(HWGQD, "--help").stdout)
    result = run(HWGQD, *BOTH, "--check")
    check("--check good", result.returncode == 0 and "color (default)" in result.stdout, result)
    for what, flags, message in [
            ("no network", [], "no network to serve"),
            ("missing file", ["--models", fixture("none.hwgq")], "none.hwgq: cannot open"),
            ("not a model", ["--models", "x=" + fixture("image-0.jpg")], "image-0.jpg"),
            ("unknown default", [*BOTH, "--default-model", "nobody"], "no network 'nobody'"),
            ("two of one name", [*BOTH, "--models", "color=" + GRAY], "network 'color' has two files: "),
            ("an empty folder", ["--models", os.path.join(FOLDER, "empty")], "no .hwgq file in the folder")]:
        os.makedirs(os.path.join(FOLDER, "empty"), exist_ok=True)
        result = run(HWGQD, "--check", *flags)
        check("--check: " + what, result.returncode == 1 and message in result.stderr, result)
    for what, flags, message in [
            ("unknown flag", ["--nonsense", "1"], "unknown flag '--nonsense'"),
            ("no flag", ["nonsense"], "unknown argument 'nonsense'"),
            ("no value", ["--models"], "--models needs a value"),
            ("impossible value", [*BOTH, "--workers", "-1"], "--workers: ")]:
        for command in (["--check"], ["--health"], []):
            result = run(HWGQD, *command, *flags)
            check("wrong usage: %s %s" % (what, command), result.returncode == 2 and message in result.stderr, result)
    check("--help whatever else", run(HWGQD, "--help", "--nonsense").returncode == 0)
    path = fixture("bad.json")
    with open(path, "w") as stream:
        stream.write('{\n  "listen": "127.0.0.1:0",\n  "workrs": 2\n}\n')
    for command in (["--check"], []):
        result = run(HWGQD, *command, "--config", path)
        check("a bad configuration is refused with file, line and key",
              result.returncode == 1 and path + ":3: workrs: unknown key" in result.stderr, result)
    result = run(HWGQD, "--check", "--config", fixture("no-such.json"))
    check("so is one that cannot be read", result.returncode == 1 and "no-such.json: cannot read" in result.stderr, result)
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
        for what, flags in (("of a living daemon", ("--config", path, "--listen", "127.0.0.1:%d" % daemon.port)),
                            ("by port file", ("--listen", "127.0.0.1:0", "--port-file", daemon.port_file))):
            check("--health " + what, until(lambda flags=flags: run(HWGQD, *flags, "--health").returncode == 0))
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
        for path in ("/stats", "/v1/models/gray/stats"):
            recent = daemon.get(path + "?window=60").json
            check("?window=60 and what it covers of a short life", 0 < recent["window_s"] <= min(65, recent["uptime_s"] + 0.001) and
                  (recent["uptime_s"] > 60 or recent["window_s"] > recent["uptime_s"] - 1), recent)
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
    port = free_port()
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
        check("ready in the end", until(ask))
        if not seen:
            skip("the networks were loaded before anyone could ask")
        for answers in seen[:1]:
            check("alive, with statistics", all(reply.status == 200 for reply in answers[:3]) and answers[1].json["models"] == {})
            for reply in answers[3:]:
                error("loading", reply, 503, "loading")
                check("Retry-After", reply.headers["Retry-After"] == "1")
        check("then it serves", daemon.post("/v1/models/m2/classify", JPEG).status == 200)


main(command_line, configuration_file, terminal, endpoints, loading)
