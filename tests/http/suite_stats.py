"""Statistics from outside: what clients counted, /stats, /metrics and the v2 statistics must be equal after a load with every kind of
outcome, and promtool must accept what Prometheus gets. suite_stats.py BUILD_DIR FIXTURES"""
import http.client
import json
import os
import shutil
import subprocess
import threading
import time

from harness import *

PROMTOOL = shutil.which("promtool") or (os.path.exists("build/tools/promtool") and "build/tools/promtool")


def client(daemon, stop, bodies, seen):
    """Sends one body after the other on a connection that is kept, and notes what came back."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE)
    i = 0
    while not stop.is_set():
        path, body, content_type, images = bodies[i % len(bodies)]
        i += 1
        connection.request("POST", path, body, {"Content-Type": content_type})
        reply = connection.getresponse()
        reply.read()
        seen.append((reply.status, images if reply.status == 200 else 0))
    connection.close()


def counts_under_load():
    """One worker, a short queue and a short patience: requests are served, refused, expire and are wrong, and some clients leave."""
    flags = ("--models", "m=" + COLOR, "--workers", "1", "--queue-capacity", "6", "--queue-deadline-ms", "20")
    with Daemon(BUILD, FOLDER, *flags) as daemon:
        many = form([("image", JPEG)] * 40)
        v2 = json.dumps({"inputs": [{"name": "pixels", "shape": [3, 32, 32, 3], "datatype": "UINT8", "data": [7] * 9216}]}).encode()
        bodies = [("/classify", JPEG, "image/jpeg", 1), ("/classify", *many, 40), ("/classify", b"no image", "image/jpeg", 0),
                  ("/v2/models/m/infer", v2, "application/json", 3), ("/v2/models/m/infer", b"{}", "application/json", 0)]
        stop, logs, start = threading.Event(), [[] for _ in range(12)], time.monotonic()
        threads = [threading.Thread(target=client, args=(daemon, stop, bodies[i % 5:] + bodies[:i % 5], logs[i])) for i in range(12)]
        for thread in threads:
            thread.start()
        left = 0
        # until every kind of outcome was there, which is soon
        while (left < 20 or not {200, 400, 503, 504} <= {code for log in logs for code, _ in log[:]}) and time.monotonic() < start + PATIENCE:
            with daemon.connect() as connection:
                connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(JPEG) + JPEG[:-1])
                time.sleep(0.03)
            left += 1
            time.sleep(0.02)
        stop.set()
        for thread in threads:
            thread.join()
        settled(daemon)
        seen = [event for log in logs for event in log]
        codes = {code: sum(1 for c, _ in seen if c == code) for code in sorted({c for c, _ in seen})}
        images = sum(count for _, count in seen)
        check("every kind of outcome", {200, 400, 503, 504} <= set(codes) and left > 3, codes)
        samples = metrics(daemon.get("/metrics").body.decode())
        counted = {int(key.split('code="')[1].split('"')[0]): int(value) for key, value in samples.items()
                   if key.startswith('hwgqd_requests_total{model="m"')}
        check("those who left", counted.pop(499, 0) == left, (counted, left))
        check("/metrics counts by code what clients counted", counted == codes, (counted, codes))
        check("and images", samples['hwgqd_images_total{model="m"}'] == images, images)
        stats = daemon.get("/stats").json["models"]["m"]
        ok, rejected, expired = codes[200], codes[503], codes[504]
        wanted = {"ok": ok, "failed": len(seen) + left - ok - rejected - expired, "rejected": rejected, "expired": expired}
        check("/stats", stats["requests"] == wanted and stats["images"] == images, (stats, wanted))
        for window in (60, 300):
            recent = daemon.get("/stats?window=%d" % window).json["models"]["m"]
            if time.monotonic() - start < window:
                check("the last %d s" % window, recent == stats, (recent, stats))
        v2_stats = daemon.get("/v2/models/m/stats").json["model_stats"][0]
        check("the v2 statistics", v2_stats["inference_count"] == images and v2_stats["inference_stats"]["success"]["count"] == ok and
              v2_stats["inference_stats"]["fail"]["count"] == len(seen) + left - ok, v2_stats)
        for stage in ("decode", "preprocess", "inference"):
            check(stage + " is counted once an image", stats["latency_ms"][stage]["count"] == images ==
                  samples['hwgqd_stage_duration_seconds_count{model="m",stage="%s"}' % stage], stats["latency_ms"][stage])
        print("clients saw %s, %d left" % (codes, left))
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def closed_in_the_middle():
    """A close that comes together with the last bytes is noticed, long before the request's deadline."""
    with Daemon(BUILD, FOLDER, "--models", "m=" + COLOR) as daemon:
        left = 0
        for size in (100, 1000, 2000, 4000, 10000, 20000, 100000):
            for missing in (1, 50):
                for _ in range(10):
                    with daemon.connect() as connection:
                        connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * (size - missing))
                    left += 1
        settled(daemon)  # the deadline is longer than this waits
        samples = metrics(daemon.get("/metrics").body.decode())
        check("no request of theirs is left", samples["hwgqd_requests_in_flight"] == 0 and
              samples['hwgqd_requests_total{model="m",code="499"}'] == left, (left, samples["hwgqd_requests_in_flight"]))
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def formats():
    with Daemon(BUILD, FOLDER, *BOTH) as daemon:
        daemon.post("/classify", JPEG)
        daemon.post("/classify?model=none", JPEG)
        settled(daemon)
        plain = daemon.get("/metrics")
        check("the text format for who says nothing", plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8" and
              b"# EOF" not in plain.body)
        bounds = [float(key.split('le="')[1].split('"')[0]) for key in metrics(plain.body.decode())
                  if key.startswith('hwgqd_stage_duration_seconds_bucket{model="color",stage="total"')]
        check("buckets from below 50 us to beyond 10 s", bounds == sorted(bounds) and bounds[0] <= 50e-6 and bounds[-2] >= 10 and
              max(b / a for a, b in zip(bounds[:-2], bounds[1:-1])) <= 3, bounds)
        accept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5"
        reply = daemon.get("/metrics", {"Accept": accept})
        text = reply.body.decode()
        check("OpenMetrics for Prometheus", reply.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8" and
              text.endswith("\n# EOF\n") and "# TYPE hwgqd_requests counter\n" in text and "# TYPE hwgqd_images counter\n" in text and
              "# TYPE process_cpu_seconds counter\n" in text and "_total counter" not in text and "\n\n" not in text, text[:300])
        check("the same samples", [line.split(" ")[0] for line in text.splitlines() if line[0] != "#"] ==
              [line.split(" ")[0] for line in plain.body.decode().splitlines() if line[0] != "#"])
        if not PROMTOOL:
            skip("promtool is not installed (config/install-packages.sh test fetches it)")
            return
        result = subprocess.run([PROMTOOL, "check", "metrics"], input=plain.body, capture_output=True, timeout=PATIENCE)
        check("promtool check metrics", result.returncode == 0 and not result.stderr, result)
        broken = plain.body.replace(b"# TYPE hwgqd_images_total counter", b"# TYPE hwgqd_images_total gauge")
        result = subprocess.run([PROMTOOL, "check", "metrics"], input=broken, capture_output=True, timeout=PATIENCE)
        check("promtool finds a mistake", result.returncode != 0, result)
        result = subprocess.run([PROMTOOL, "check", "config", "config/prometheus.yml"], capture_output=True, timeout=PATIENCE)
        check("promtool check config", result.returncode == 0, result)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


main(counts_under_load, closed_in_the_middle, formats)
