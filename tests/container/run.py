"""Builds the container image, looks into it, starts it with a read-only root, classifies a photograph, scrapes it and stops it; with
buildah also the image for the other architecture, in an emulator. Uses Docker where a daemon answers, else buildah (as root).
    usage: run.py [IMAGE.jpg]      ends with 'N passed, N failed, N skipped'      ARCHITECTURES="amd64" only those"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request

import checks
from checks import ROOT, check, skip
from engines import Buildah, Docker, native

PICTURE = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "tests/images/baseline.jpg")


def ask(url, body=None):
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "image/jpeg"} if body else {})
    with urllib.request.urlopen(request, timeout=120) as reply:
        return reply.read().decode()


def serve(engine, tag, architecture):
    config = engine.config(tag)
    emulated = architecture != native()
    start = time.monotonic()
    server = engine.start(tag, architecture)
    try:
        if not check("starts with a read-only root and is ready", server.ready(), server.log()):
            return
        print("       ready after %.0f ms" % (1000 * (time.monotonic() - start)))
        check("its root is read-only", server.root_is_read_only())
        check("runs as 65532:65532", server.status("Uid") == server.status("Gid") == ["65532"] * 4)
        check("has no capabilities and cannot get any", server.status("CapEff") == ["0" * 16] and server.status("NoNewPrivs") == ["1"])
        with open(PICTURE, "rb") as stream:
            reply = json.loads(ask(server.url + "/classify", stream.read()))
        best = reply["predictions"][0]
        print("       %s: %s, %.4f" % (os.path.basename(PICTURE), best["label"], best["probability"]))
        check("classifies a photograph", reply["model"] == "cifar10" and len(reply["predictions"]) == 5 and 0.1 < best["probability"] <= 1, reply)
        models = json.loads(ask(server.url + "/v1/models"))
        check("serves the shipped networks", {model["name"] for model in models["models"]} == {"cifar10", "fashion-mnist", "tiny-imagenet"},
              models)
        check("metrics count the request", re.search(r'^hwgqd_requests_total\{.*code="200".*\} 1$', ask(server.url + "/metrics"), re.M))
        check("health check", server.health(config["Healthcheck"]["Test"][1:]) == 0)
        if not emulated:
            print("       resident: %.1f MB" % (int(server.status("VmRSS")[0]) / 1024))
        check("stops with 0 on SIGTERM", server.stop() == 0, server.log())
    finally:
        server.remove()
    return reply["predictions"]


def one(engine, tag, architecture):
    print("-- %s, %s" % (engine.name, architecture), flush=True)
    engine.build(tag, architecture)
    checks.image(engine.root(tag), engine.config(tag), architecture)
    if architecture != native() and engine.name == "docker":
        skip("starting it: an emulator in Docker is the administrator's to install")
        return None
    return serve(engine, tag, architecture)


def with_buildah(engine, tags):
    result = engine.run_itself("hwgqd", "--check", "--config", checks.SHARE + "/config/hwgqd.json")
    check("buildah run hwgqd --check", result.returncode == 0, result)
    result = engine.run_itself("hwgqd", "--health", "--listen", "127.0.0.1:9")
    check("buildah run hwgqd --health, without a daemon", result.returncode != 0 and "no daemon answers" in result.stderr, result)
    folder = engine.index(tags.values())
    with open(os.path.join(folder, "index.json")) as stream:
        blob = json.load(stream)["manifests"][0]["digest"]

    def read(digest):
        with open(os.path.join(folder, "blobs", digest.replace(":", "/"))) as stream:
            return json.load(stream)

    found = {entry["platform"]["architecture"]: read(entry["digest"]) for entry in read(blob)["manifests"]}
    check("one name for %s" % " and ".join(sorted(found)), found.keys() == tags.keys(), found)
    for architecture, manifest in found.items():
        print("       %s, packed as registries keep it: %.1f MB" % (architecture, sum(layer["size"] for layer in manifest["layers"]) / 1e6))


def main():
    os.environ.setdefault("DOCKER_BUILDKIT", "1")
    answers = shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True).returncode == 0
    architectures = os.environ.get("ARCHITECTURES", "amd64 arm64").split()
    tags = {architecture: "hwgqd" if architecture == native() else "hwgqd-" + architecture for architecture in architectures}
    with tempfile.TemporaryDirectory() as folder:
        engine = (Docker if answers else Buildah)(folder)
        try:
            scores = {architecture: one(engine, tag, architecture) for architecture, tag in tags.items()}
            if len([1 for found in scores.values() if found]) == 2:
                check("both give the same bits", scores["amd64"] == scores["arm64"], scores)
            if engine.name == "buildah":
                with_buildah(engine, tags)
        except Exception:  # noqa: BLE001: counted, with what happened
            check("the rest of it", False, traceback.format_exc())
        finally:
            if engine.name == "buildah":
                engine.remove()
    print("%d passed, %d failed, %d skipped" % (checks.Counts.passed, checks.Counts.failed, checks.Counts.skipped))
    return checks.Counts.failed != 0


if __name__ == "__main__":
    sys.exit(main())
