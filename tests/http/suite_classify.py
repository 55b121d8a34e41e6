"""Classification from outside: replies, ways to send images, the same bits everywhere.
suite_classify.py BUILD_DIR FIXTURES (see run.sh). Every group of checks has a daemon of its own."""
import json
import os
import re

from harness import *


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
        settled(daemon)
        stats = daemon.get("/stats").json["models"]
        check("idle workers sleep when told to", stats["slow"]["images"] == len(IMAGES) and stats["slow"]["shared_images"] == 0 and
              sample(daemon, 'hwgqd_shared_images_total{model="slow"}') == 0, stats["slow"])
    with Daemon(BUILD, FOLDER, *models, "--workers", "3") as daemon:
        def shared():
            same.append(daemon.post(paths[0], IMAGES[0]).json["predictions"] == expected[0][0])
            return daemon.get("/stats").json["models"]["slow"]["shared_images"] > 0
        same = []
        check("idle workers help", until(shared), daemon.get("/stats").json)
        check("the same bits with help", all(same))
        for clients in (1, 2, 3, 8):
            def client(i):
                return all(daemon.post(paths[k % 2], IMAGES[(i + k) % 10]).json["predictions"] == expected[k % 2][(i + k) % 10]
                           for k in range(20))
            check("the same bits with help and %d clients" % clients, in_threads(clients, client) == [True] * clients)
        settled(daemon)
        stats = daemon.get("/stats").json["models"]["slow"]
        check("/metrics counts shared images as /stats does",
              sample(daemon, 'hwgqd_shared_images_total{model="slow"}') == stats["shared_images"] <= stats["images"], stats)


def outcome(result):
    return result.get("predictions") or result["error"]["code"]


def several_on_idle_workers():
    """The images of one request run on all idle workers: in order, each with its own result or error, the same bits; others come in
    between."""
    bodies = IMAGES + [b"no image", JPEG[:150], b"", read("tests/images/rgb.png"), read("tests/images/lossy.webp")]
    models = ("--models", "slow=" + fixture("slow.hwgq"), "--max-images", "4000", "--request-timeout-ms", "600000")
    with Daemon(BUILD, FOLDER, *models, "--workers", "3", "--queue-deadline-ms", "600000") as daemon:
        expected = [outcome(daemon.post("/classify", body).json) if body else "unsupported_image" for body in bodies]
        images = sum(isinstance(e, list) for e in expected)
        before = daemon.get("/stats").json["models"]["slow"]

        def one(i):
            chosen = [(i * 7 + k * (1 + i % 3)) % len(bodies) for k in range(40)]
            body, content_type = form([("image", bodies[k]) for k in chosen])
            results = daemon.post("/classify", body, content_type).json["results"]
            return [outcome(r) for r in results] == [expected[k] for k in chosen] and sum(isinstance(expected[k], list) for k in chosen)
        alone = [one(i) for i in range(3)]
        at_once = in_threads(6, one)
        check("several images, in order", all(type(a) is int and a > 0 for a in alone + at_once), (alone, at_once))
        stats = daemon.get("/stats").json["models"]["slow"]
        check("each image is counted once", stats["images"] - before["images"] == sum(alone) + sum(at_once), (stats, images))
        check("idle workers take whole images", until(
            lambda: one(0) and daemon.get("/stats").json["models"]["slow"]["shared_images"] > before["shared_images"] + 5), stats)
        body, content_type = form([("image", JPEG)] * 3000)
        ended = threading.Event()

        def large():
            reply = daemon.post("/classify?top_k=1", body, content_type)
            ended.set()
            return reply.status
        threads = [threading.Thread(target=large)]
        threads[0].start()
        check("the large one runs", until(lambda: sample(daemon, "hwgqd_workers_busy") >= 1))
        others = 0
        while not ended.is_set() and others < 10:
            others += daemon.post("/classify", JPEG).status == 200
        check("others do not wait for all of its images", others >= 3, others)
        threads[0].join()
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])
    # three large ones against a bound on the pixels of all together, which has room for two
    large, small = read("tests/images/large.jpg"), IMAGES[1]
    chosen = [small, large, small, large, small, large, small, small]
    body, content_type = form([("image", image) for image in chosen])
    seen = set()
    for workers in ("1", "4"):
        with Daemon(BUILD, FOLDER, *ONLY_COLOR, "--workers", workers) as daemon:
            sizes = [daemon.post("/classify", image).json["image"] for image in (large, small)]
            pixels = [size["width"] * size["height"] for size in sizes]
        with Daemon(BUILD, FOLDER, *ONLY_COLOR, "--workers", workers, "--max-pixels", str(2 * pixels[0] + 5 * pixels[1])) as daemon:
            for _ in range(20):
                results = daemon.post("/classify", body, content_type).json["results"]
                seen.add(json.dumps([outcome(r) for r in results]))
        check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])
    codes = [r if isinstance(r, str) else "fine" for r in json.loads(next(iter(seen)))]
    check("the bound on pixels is of all of them, and does not depend on workers", len(seen) == 1 and
          codes == ["fine"] * 5 + ["image_too_large"] + ["fine"] * 2, (len(seen), codes))


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
            result = run("curl", "-sS", "--max-time", str(PATIENCE), "-w", "\n%{http_code}", *flags, url)
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


main(classification, idle_workers, several_on_idle_workers, curl, same_as_the_tool, images_in_the_repository)
