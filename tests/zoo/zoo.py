"""The shipped networks against their cards: zoo.py BUILD_DIR (see run.sh)."""
import glob
import http.client
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

sys.path.insert(0, "tests/http")
from daemon import PATIENCE, Daemon

BUILD = sys.argv[1]
SANITIZED = any(name in BUILD for name in ("asan", "tsan"))  # slow builds see fewer images
SHARED = "../shared"
DATA = {
    "cifar10": SHARED + "/data/cifar10-jpeg.tar.xz",
    "fashion-mnist": "/usr/share/datasets/fashion-mnist",
    "tiny-imagenet": SHARED + "/data/tiny-imagenet-32.tar.xz",
}
passed = failed = skipped = 0


def check(what, good, detail=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print("%-6s %s %s" % ("ok" if good else "FAILED", what, detail), flush=True)


def skip(what):
    global skipped
    skipped += 1
    print("SKIPPED: " + what, flush=True)


def model(name):
    return "models/zoo/%s.hwgq" % name


def evaluate(name, *flags):
    command = [BUILD + "/hwgq", "eval", "--json", *flags, model(name), DATA[name]]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def card_figure(name):
    """Correct answers and images, from the card's line 'top-1  86.12 % (8612 of 10000)'."""
    with open("models/zoo/%s.md" % name) as stream:
        found = re.search(r"top-1\W+[0-9.]+ % \((\d+) of (\d+)\)", stream.read())
    return (int(found[1]), int(found[2])) if found else None


def test_card(name):
    result = evaluate(name)
    figure = card_figure(name)
    measured = (round(result["top1"] * result["images"]), result["images"])
    check("%s: top-1 as on its card" % name, figure == measured, "card %s, measured %s" % (figure, measured))


def test_reference(name):
    result = evaluate(name, "--reference", "--limit", "100")
    check("%s: engine and double-precision reference agree on 100 images" % name,
          result["reference"]["top1_differs"] == 0 and result["reference"]["over_tolerance"] == 0, result["reference"])


def members(archive):
    with tarfile.open(archive) as tar:
        for entry in tar:
            split, _, name = entry.name.partition("/")
            if entry.isfile() and split in ("test", "val"):
                yield name, tar.extractfile(entry).read()


def test_daemon(name, limit):
    """Every test image through HTTP: the same top-1 and probability as `hwgq eval --predictions` wrote."""
    with tempfile.TemporaryDirectory() as folder:
        table = folder + "/predictions"
        evaluate(name, "--predictions", table, "--limit", str(limit))
        with open(table) as stream:
            rows = [line.rstrip("\n").split("\t") for line in stream]
        expected = {row[0].removeprefix("test/").removeprefix("val/"): (int(row[2]), float(row[3])) for row in rows}
        images = [(key, data) for key, data in members(DATA[name]) if key in expected]
        differences = []
        with Daemon(BUILD, folder, "--models", model(name), "--log-level", "warning") as daemon:
            def send(part):
                client = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE)
                for key, data in part:
                    client.request("POST", "/classify?top_k=1", data, {"Content-Type": "image/jpeg"})
                    best = json.loads(client.getresponse().read())["predictions"][0]
                    if best["class"] != expected[key][0] or abs(best["probability"] / expected[key][1] - 1) > 1e-6:
                        differences.append((key, best, expected[key]))
            threads = [threading.Thread(target=send, args=(images[i::4],)) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            # a client has its reply a moment before the server has counted the request as finished
            for _ in range(600):
                metrics = daemon.get("/metrics").body.decode()
                if "\nhwgqd_requests_in_flight 0\n" in metrics:
                    break
                time.sleep(0.1)
        check("%s: %d images through the daemon as `hwgq eval` says" % (name, len(images)),
              len(images) == limit and not differences, differences[:3])
        counted = 'hwgqd_images_total{model="%s"} %d\n' % (name, len(images)) in metrics
        check("%s: the daemon counted them all" % name, counted)


def test_photos(name):
    right = 0
    files = sorted(glob.glob(SHARED + "/photos/*.jpg"))
    for file in files:
        out = subprocess.run([BUILD + "/hwgq", "classify", "--json", model(name), file], check=True, stdout=subprocess.PIPE)
        best = json.loads(out.stdout.splitlines()[0])["predictions"][0]["label"]
        right += best == os.path.basename(file).split("-")[0]
    check("%s: photographs recognised" % name, right >= 5, "%d of %d" % (right, len(files)))


for network in DATA:
    if not os.path.exists(DATA[network]):
        skip("%s: there is no %s to evaluate it on" % (network, DATA[network]))
        continue
    if SANITIZED:
        test_reference(network)
    else:
        test_card(network)
        test_reference(network)
    if DATA[network].endswith(".tar.xz"):
        test_daemon(network, 200 if SANITIZED else 10000)
if os.path.isdir(SHARED + "/photos"):
    test_photos("cifar10")
else:
    skip("cifar10: there are no photographs in %s/photos" % SHARED)
print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
sys.exit(failed > 0)
