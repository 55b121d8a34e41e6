"""Networks that come, go and are replaced: suite_manage.py BUILD_DIR FIXTURES (see run.sh)."""
import json
import os
import shutil
import signal
import subprocess
import threading
import time

from harness import *

HUP = signal.SIGHUP


def keys():
    path = fixture("manage-keys-%d" % len(os.listdir(FOLDER)))
    return path, add_key(path, "boss", "admin")


def post(daemon, path, key, body=b""):
    return daemon.request("POST", path, body, bearer(key))


def listed(daemon, key):
    return {m["name"]: m for m in daemon.get("/v1/models", bearer(key)).json["models"]}


def load_and_unload():
    path, admin = keys()
    folder = fixture("repository")
    os.makedirs(folder, exist_ok=True)
    shutil.copy(COLOR, os.path.join(folder, "color.hwgq"))
    shutil.copy(GRAY, os.path.join(folder, "gray.hwgq"))
    with Daemon(BUILD, FOLDER, "--models", folder, "--keys-file", path) as daemon:
        gray = daemon.post("/v1/models/gray/classify", JPEG, headers=bearer(admin)).json["predictions"]
        reply = post(daemon, "/v1/models/gray/unload", admin)
        check("unload", reply.status == 200 and reply.json["state"] == "unloaded" and reply.json["version"] is None, reply.body)
        check("it is listed as unloaded", listed(daemon, admin)["gray"]["state"] == "unloaded", listed(daemon, admin))
        for what in ("", "/stats", "/versions/1"):
            error("it is not served: " + what, daemon.get("/v1/models/gray" + what, bearer(admin)), 404, "model_not_loaded")
        error("nor classifies", daemon.post("/v1/models/gray/classify", JPEG, headers=bearer(admin)), 404, "model_not_loaded")
        check("nor is it ready under /v2", daemon.get("/v2/models/gray/ready", bearer(admin)).status == 404)
        index = post(daemon, "/v2/repository/index", admin).json
        check("the index says why", [(r["name"], r["state"], r["reason"]) for r in index] ==
              [("color", "READY", ""), ("gray", "UNAVAILABLE", "unloaded")], index)
        index = post(daemon, "/v2/repository/index", admin, b'{"ready":true}').json
        check("the index of what is ready", [r["name"] for r in index] == ["color"], index)
        error("reload of what is not loaded", post(daemon, "/v1/models/gray/reload", admin), 409, "not_possible_now")
        check("unload twice", post(daemon, "/v1/models/gray/unload", admin).status == 200)
        reply = post(daemon, "/v1/models/gray/load", admin)
        check("load", reply.status == 200 and reply.json["state"] == "ready" and reply.json["version"] == "1", reply.body)
        check("it classifies as before", daemon.post("/v1/models/gray/classify", JPEG, headers=bearer(admin)).json["predictions"] ==
              gray)
        check("load twice", post(daemon, "/v1/models/gray/load", admin).status == 200)
        check("unload and load under /v2", post(daemon, "/v2/repository/models/gray/unload", admin).status == 200 and
              listed(daemon, admin)["gray"]["state"] == "unloaded" and
              post(daemon, "/v2/repository/models/gray/load", admin).status == 200 and
              listed(daemon, admin)["gray"]["state"] == "ready")
        error("unload of the default network", post(daemon, "/v1/models/color/unload", admin), 409, "not_possible_now")
        for what in ("load", "unload", "reload"):
            error(what + " of an unknown network", post(daemon, "/v1/models/nobody/" + what, admin), 404, "unknown_model")
            error(what + " takes POST only", daemon.get("/v1/models/gray/" + what, bearer(admin)), 405, "method_not_allowed")
        shutil.copy(OTHER, os.path.join(folder, "late.hwgq"))
        check("a file that has come since", post(daemon, "/v1/models/late/load", admin).status == 200 and
              daemon.post("/v1/models/late/classify", JPEG, headers=bearer(admin)).status == 200)
        write(os.path.join(folder, "late.hwgq"), read(GRAY))
        reply = post(daemon, "/v1/models/late/reload", admin)
        check("reload takes the new file as a new version", reply.status == 200 and reply.json["version"] == "2", reply.body)
        write(os.path.join(folder, "late.hwgq"), read(OTHER)[:-50])
        before = daemon.post("/v1/models/late/classify", JPEG, headers=bearer(admin)).json
        reply = post(daemon, "/v1/models/late/reload", admin)
        error("a damaged file is refused", reply, 422, "unusable_model")
        check("and says what goes on", "goes on serving" in reply.json["error"]["message"], reply.body)
        one = listed(daemon, admin)["late"]
        check("the old one is ready, with the reason", one["state"] == "ready" and one["version"] == "2" and
              "late.hwgq" in one["reload_error"], one)
        after = daemon.post("/v1/models/late/classify", JPEG, headers=bearer(admin)).json
        check("and gives the same bits", after["predictions"] == before["predictions"])
        os.remove(os.path.join(folder, "late.hwgq"))
        error("a file that is gone", post(daemon, "/v1/models/late/reload", admin), 422, "unusable_model")
        check("its network stays", daemon.post("/v1/models/late/classify", JPEG, headers=bearer(admin)).status == 200)
        check("until it is unloaded", post(daemon, "/v1/models/late/unload", admin).status == 200)
        reply = post(daemon, "/v1/models/late/load", admin)
        check("and cannot be loaded", reply.status == 422 and "late" in reply.json["error"]["message"], reply.body)
        check("it is listed as what it is", listed(daemon, admin)["late"]["state"] == "failed")
        write(os.path.join(folder, "late.hwgq"), read(OTHER))
        check("a SIGHUP loads it then", reloaded(daemon, HUP) and listed(daemon, admin)["late"]["state"] == "ready" and
              "reload_error" not in listed(daemon, admin)["late"], listed(daemon, admin))
        many = in_threads(24, lambda i: post(daemon, "/v1/models/%s/reload" % ("gray", "color")[i % 2], admin).status)
        check("many at once: done, or told to come again", set(many) <= {200, 503} and many.count(200) >= 16, many)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def versions():
    path, admin = keys()
    folder = fixture("versions")
    os.makedirs(os.path.join(folder, "net", "3"))
    os.makedirs(os.path.join(folder, "net", "notes"))
    shutil.copy(COLOR, os.path.join(folder, "net", "1.hwgq"))
    shutil.copy(GRAY, os.path.join(folder, "net", "3", "any.hwgq"))
    shutil.copy(COLOR, os.path.join(folder, "flat@2.hwgq"))
    shutil.copy(GRAY, os.path.join(folder, "flat@10.hwgq"))
    shutil.copy(GRAY, os.path.join(folder, "plain.hwgq"))
    with Daemon(BUILD, FOLDER, "--models", folder, "--keys-file", path, "--default-model", "net") as daemon:
        def classify(where):
            return daemon.post(where, JPEG, headers=bearer(admin)).json
        models = listed(daemon, admin)
        check("numbered folders, files and suffixes", {n: m["versions"] for n, m in models.items()} ==
              {"flat": ["10", "2"], "net": ["3", "1"], "plain": ["1"]}, models)
        check("the newest is served", classify("/classify")["version"] == "3" and
              classify("/v1/models/flat/classify")["version"] == "10" and models["net"]["input"]["order"] == "gray")
        old = classify("/v1/models/net/versions/1/classify")
        check("unless another is asked for", old["version"] == "1" and
              old["predictions"] == classify("/v1/models/flat/versions/2/classify")["predictions"] and
              old["predictions"] != classify("/classify")["predictions"], old)
        one = daemon.get("/v1/models/net/versions/1", bearer(admin)).json
        check("its description", one["version"] == "1" and one["input"]["order"] == "rgb", one)
        check("and under /v2", daemon.get("/v2/models/net/versions/1/ready", bearer(admin)).status == 200 and
              daemon.get("/v2/models/net", bearer(admin)).json["versions"] == ["3", "1"])
        for version in ("2", "01", "x", "-1", "99999999999999999999", "1.0", "%31%00"):
            reply = daemon.get("/v1/models/net/versions/" + version, bearer(admin))
            check("no version " + version, reply.status == 404, reply.body)
        error("classify with no such version", daemon.post("/v1/models/net/versions/2/classify", JPEG, headers=bearer(admin)), 404,
              "unknown_version")
        shutil.copy(OTHER, os.path.join(folder, "net", "4.hwgq"))
        reply = post(daemon, "/v1/models/net/reload", admin)
        check("a new version comes with a reload", reply.json["version"] == "4" and
              listed(daemon, admin)["net"]["versions"] == ["4", "3", "1"], reply.body)
        write(os.path.join(folder, "net", "5.hwgq"), b"rubbish")
        error("a bad newest version", post(daemon, "/v1/models/net/reload", admin), 422, "unusable_model")
        check("leaves the others", classify("/classify")["version"] == "4" and
              "5.hwgq" in listed(daemon, admin)["net"]["reload_error"], listed(daemon, admin)["net"])
        os.remove(os.path.join(folder, "net", "5.hwgq"))
        for version in (6, 7, 8):
            shutil.copy(GRAY, os.path.join(folder, "net", "%d.hwgq" % version))
        check("four versions are kept", reloaded(daemon, HUP) and listed(daemon, admin)["net"]["versions"] == ["8", "7", "6", "4"],
              listed(daemon, admin)["net"])
        settled(daemon)
        check("and counted as one network", daemon.get("/stats").json["models"]["net"]["requests"]["ok"] == 4,
              daemon.get("/stats").json["models"]["net"])
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])
    named = os.path.join(folder, "net")
    result = run(HWGQD, "--check", "--models", "other=" + named, "--model-versions", "1")
    check("a folder of versions with a name", result.returncode == 0 and "other (default)" in result.stdout, result)
    for what, files, message in [
            ("one version twice", {"a/1.hwgq": COLOR, "a/1/x.hwgq": COLOR}, "two files for version 1"),
            ("with and without a version", {"a.hwgq": COLOR, "a@1.hwgq": COLOR}, "two files for version 1"),
            ("two files in a version", {"a/1/x.hwgq": COLOR, "a/1/y.hwgq": COLOR}, "has 2 files for version 1"),
            ("a version without a file", {"a.hwgq": COLOR, "a/2/x": COLOR}, "this folder has no .hwgq file"),
            ("no number after the @", {"a@b.hwgq": COLOR}, "no network name"),
            ("no versions", {"a/x/y.hwgq": COLOR}, "no .hwgq file in the folder")]:
        folder = fixture("versions-" + what.replace(" ", "-"))
        for name, source in files.items():
            os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
            shutil.copy(source, os.path.join(folder, name))
        result = run(HWGQD, "--check", "--models", folder)
        check("refused: " + what, result.returncode == 1 and message in result.stderr, result)


def unloaded_stays():
    """A reload does not undo an unload, unless the network's entry in the configuration changed."""
    path, admin = keys()
    folder, config = fixture("stays"), fixture("stays.json")
    os.makedirs(folder)
    shutil.copy(COLOR, os.path.join(folder, "a.hwgq"))
    shutil.copy(GRAY, os.path.join(folder, "b.hwgq"))

    def configure(models, **more):
        write(config, json.dumps(dict({"models": models, "keys_file": path}, **more)))

    def states():
        return {name: model["state"] for name, model in listed(daemon, admin).items()}
    configure({"color": COLOR, "one": GRAY, "two": OTHER})
    with Daemon(BUILD, FOLDER, "--config", config) as daemon:
        for name in ("one", "two"):
            post(daemon, "/v1/models/%s/unload" % name, admin)
        check("a reload keeps them unloaded", reloaded(daemon, HUP) and
              states() == {"color": "ready", "one": "unloaded", "two": "unloaded"}, states())
        configure({"color": COLOR, "one": GRAY, "two": OTHER, "three": GRAY})
        check("also when another entry comes", reloaded(daemon, HUP) and
              states() == {"color": "ready", "one": "unloaded", "two": "unloaded", "three": "ready"}, states())
        check("the log says so", len([e for e in daemon.events() if "stays unloaded" in e["message"] and e["model"] == "one"]) == 2)
        configure({"color": COLOR, "one": OTHER, "two": OTHER})
        check("a changed entry is loaded", reloaded(daemon, HUP) and
              states() == {"color": "ready", "one": "ready", "two": "unloaded"}, states())
        configure({"color": COLOR, "two": OTHER}, default_model="two")
        check("so is what has become the default", reloaded(daemon, HUP) and states() == {"color": "ready", "two": "ready"}, states())
        post(daemon, "/v1/models/color/unload", admin)
        configure({"two": OTHER})
        gone = reloaded(daemon, HUP) and states() == {"two": "ready"}
        configure({"two": OTHER, "color": COLOR})
        check("so is what was gone meanwhile", gone and reloaded(daemon, HUP) and states() == {"two": "ready", "color": "ready"}, states())
        check("loading ends it", post(daemon, "/v1/models/color/unload", admin).status == 200 and
              post(daemon, "/v1/models/color/load", admin).status == 200 and reloaded(daemon, HUP) and
              states() == {"two": "ready", "color": "ready"}, states())
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])
    with Daemon(BUILD, FOLDER, "--models", folder, "--keys-file", path) as daemon:
        post(daemon, "/v1/models/b/unload", admin)
        shutil.copy(OTHER, os.path.join(folder, "c.hwgq"))
        check("in a folder, beside a new file", reloaded(daemon, HUP) and states() == {"a": "ready", "b": "unloaded", "c": "ready"}, states())
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def passed_over():
    """What makes no sense in a folder, or cannot be read there, does not keep the rest from being served."""
    path, admin = keys()
    folder = fixture("odd-folder")
    for name in ("good.hwgq", "closed/1.hwgq", "open/1.hwgq", "open/2/x.hwgq"):
        os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
        shutil.copy(COLOR, os.path.join(folder, name))
    for name in ("a@b.hwgq", "-.hwgq", "sp ace.hwgq", "\u00e4.hwgq"):
        shutil.copy(COLOR, os.path.join(folder, name))
    # root reads everything, unless it gives that up
    prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    unreadable = not prefix or subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    if not unreadable:
        skip("setpriv cannot drop the right to read everything: unreadable folders are not tested")
    closed = [os.path.join(folder, "closed"), os.path.join(folder, "open", "2")] if unreadable else []
    for name in closed:
        os.chmod(name, 0)
    result = run(*prefix, HWGQD, "--check", "--models", folder, "--default-model", "good")
    check("--check passes and tells", result.returncode == 0 and "good (default)" in result.stdout and "a@b.hwgq" in result.stderr and
          (not closed or "cannot read the folder" in result.stderr), result)
    if closed:
        other = os.path.join(FOLDER, "closed-first")
        os.makedirs(os.path.join(other, "closed"), mode=0)
        shutil.copy(COLOR, os.path.join(other, "good.hwgq"))
        result = run(*prefix, HWGQD, "--check", "--models", other)
        check("the default is one that can be read", result.returncode == 0 and "good (default)" in result.stdout, result)
    with Daemon(BUILD, FOLDER, "--models", folder, "--keys-file", path, "--default-model", "good", prefix=prefix if closed else ()) as daemon:
        def states():
            return {name: (model["state"], model["versions"]) for name, model in listed(daemon, admin).items()}
        names = "a@b.hwgq", "sp ace.hwgq", "\u00e4.hwgq"
        warned = [e["reason"] for e in daemon.events() if e["message"] == "passed over"]
        check("each is warned of", len(warned) >= len(names) and all(any(name in w for w in warned) for name in names), warned)
        check("the others are served", states()["good"] == ("ready", ["1"]) and states()["open"][0] == "ready" and
              daemon.post("/v1/models/open/classify", JPEG, headers=bearer(admin)).status == 200, states())
        if closed:
            check("the folder that cannot be read is listed", states()["closed"] == ("failed", []) and states()["open"][1] == ["1"], states())
            check("with the reason", "cannot read" in listed(daemon, admin)["closed"]["reload_error"], listed(daemon, admin)["closed"])
            for name in closed:
                os.chmod(name, 0o700)
            check("a reload finds it", reloaded(daemon, HUP) and states()["closed"] == ("ready", ["1"]) and
                  states()["open"] == ("ready", ["2", "1"]), states())
            for name in closed:
                os.chmod(name, 0)
            check("and keeps it when it cannot be read again", reloaded(daemon, HUP) and states()["closed"] == ("ready", ["1"]) and
                  states()["open"] == ("ready", ["2", "1"]), states())
            check("as a request does", post(daemon, "/v1/models/closed/reload", admin).status == 422 and
                  states()["closed"] == ("ready", ["1"]), states())
        check("another one is loaded by request", post(daemon, "/v1/models/good/reload", admin).status == 200)
    for name in closed:
        os.chmod(name, 0o700)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def with_and_without_number():
    """A file without a number is version 1 beside others; two files for one version trouble that network only."""
    path, admin = keys()
    folder = fixture("beside")
    os.makedirs(folder)

    def put(name, source):
        os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
        shutil.copy(source, os.path.join(folder, name))

    def remove(*names):
        for name in names:
            os.remove(os.path.join(folder, name))
    put("net.hwgq", COLOR)
    put("other.hwgq", COLOR)
    with Daemon(BUILD, FOLDER, "--models", folder, "--keys-file", path, "--default-model", "other") as daemon:
        def versions_of(name):
            return listed(daemon, admin)[name].get("versions")

        def answer(where):
            return daemon.post(where, JPEG, headers=bearer(admin)).json.get("predictions")
        first = answer("/v1/models/net/classify")
        put("net@2.hwgq", GRAY)
        check("NAME@2 beside NAME", post(daemon, "/v1/models/net/reload", admin).status == 200 and versions_of("net") == ["2", "1"],
              listed(daemon, admin)["net"])
        check("NAME is its version 1", answer("/v1/models/net/versions/1/classify") == first and
              answer("/v1/models/net/classify") not in (first, None))
        remove("net@2.hwgq")
        put("net/2.hwgq", GRAY)
        check("and so with a folder of versions", reloaded(daemon, HUP) and versions_of("net") == ["2", "1"], listed(daemon, admin))
        put("net@1.hwgq", OTHER)
        put("other@2.hwgq", GRAY)
        reply = post(daemon, "/v1/models/net/reload", admin)
        error("two files for version 1", reply, 422, "unusable_model")
        check("both are named, and what to do", all(part in reply.json["error"]["message"] for part in (
            "/net.hwgq", "/net@1.hwgq", "two files for version 1", "rename one")), reply.body)
        check("both versions go on serving", versions_of("net") == ["2", "1"] and answer("/v1/models/net/versions/1/classify") == first)
        check("another network is reloaded", post(daemon, "/v1/models/other/reload", admin).status == 200 and
              versions_of("other") == ["2", "1"])
        put("late/1/a.hwgq", COLOR)
        put("late/1/b.hwgq", COLOR)
        put("empty/3/notes", COLOR)
        put("last.hwgq", COLOR)
        check("SIGHUP takes the others", reloaded(daemon, HUP) and versions_of("last") == ["1"] and
              [listed(daemon, admin)[n]["state"] for n in ("late", "empty")] == ["failed"] * 2 and
              "a.hwgq and b.hwgq" in listed(daemon, admin)["late"]["reload_error"] and
              versions_of("net") == ["2", "1"], listed(daemon, admin))
        remove("net@1.hwgq", "late/1/b.hwgq")
        check("once one is gone all is well", post(daemon, "/v1/models/net/reload", admin).status == 200 and
              "reload_error" not in listed(daemon, admin)["net"] and post(daemon, "/v1/models/late/load", admin).status == 200)
        put("net@2.hwgq", OTHER)
        remove("net/2.hwgq")
        remove("net.hwgq")
        put("net@3.hwgq", GRAY)
        check("what has no file any more is not served", reloaded(daemon, HUP) and versions_of("net") == ["3", "2"])
        write(os.path.join(folder, "last.hwgq"), b"rubbish")
        put("last@2.hwgq", GRAY)
        error("a bad file without a number", post(daemon, "/v1/models/last/reload", admin), 422, "unusable_model")
        check("leaves what was loaded from it as version 1", versions_of("last") == ["2", "1"] and
              answer("/v1/models/last/versions/1/classify") == first)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def paths():
    """Nothing that a request says becomes a path, and links do not lead out of a folder of networks."""
    path, admin = keys()
    folder, outside = fixture("inside"), fixture("outside")
    os.makedirs(os.path.join(folder, "sub"))
    os.makedirs(outside)
    shutil.copy(COLOR, os.path.join(folder, "good.hwgq"))
    shutil.copy(GRAY, os.path.join(outside, "secret.hwgq"))
    long_name = "n" * 64
    shutil.copy(GRAY, os.path.join(folder, long_name + ".hwgq"))
    os.symlink("good.hwgq", os.path.join(folder, "link.hwgq"))
    with Daemon(BUILD, FOLDER, "--models", os.path.join(folder, "sub", "..", ".", ""), "--keys-file", path,
                "--default-model", "good") as daemon:
        models = listed(daemon, admin)
        real = os.path.realpath(os.path.join(folder, "good.hwgq"))
        check("paths are shown without links and dots", models["good"]["path"] == real == models["link"]["path"], models)
        os.symlink(os.path.join(outside, "secret.hwgq"), os.path.join(folder, "escape.hwgq"))
        os.symlink(outside, os.path.join(folder, "sub", "1"))
        os.mkfifo(os.path.join(folder, "pipe.hwgq"))
        for name, reason in (("escape", "leads out of the folder"), ("sub", "leads out of the folder"), ("pipe", "no regular file")):
            reply = post(daemon, "/v1/models/%s/load" % name, admin)
            check("not loaded: " + name, reply.status == 422 and reason in reply.json["error"]["message"], reply.body)
            check("listed as failed: " + name, listed(daemon, admin)[name]["state"] == "failed")
        check("a SIGHUP keeps the good ones", reloaded(daemon, HUP) and listed(daemon, admin)["good"]["state"] == "ready" and
              listed(daemon, admin)["escape"]["state"] == "failed", listed(daemon, admin))
        tried = 0
        for name in ("../outside/secret", "..%2Foutside%2Fsecret", "%2e%2e/outside/secret", "..", ".", "%2Fetc%2Fpasswd", "//etc/passwd",
                     outside + "/secret", "good%00", "good.hwgq", "good/", "./good", "..\\outside\\secret", "%252e%252e%252foutside",
                     "good%0d%0aX: y", "sub%2F1", long_name + "n", "n" * 5000, "*", "$(id)", "\u00e4"):
            for template in ("/v1/models/%s/load", "/v1/models/%s/unload", "/v2/repository/models/%s/load", "/v1/models/%s"):
                method = "GET" if template.endswith("%s") else "POST"
                target = (template % name).encode("utf-8").decode("latin-1").replace(" ", "%20")
                reply = daemon.raw(("%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\nX-API-Key: %s\r\n\r\n" %
                                    (method, target, admin)).encode("latin-1"))
                tried += reply[9:12] in (b"404", b"400", b"405", b"414", b"431")
                if reply[9:12] not in (b"404", b"400", b"405", b"414", b"431"):
                    check("refused: %s %s" % (method, target[:60]), False, reply[:300])
        check("21 names in 4 places are refused", tried == 84, tried)
        models = listed(daemon, admin)
        check("and nothing has changed", {n for n, m in models.items() if m["state"] == "ready"} == {"good", "link", long_name} and
              "secret" not in json.dumps([m.get("path") for m in models.values()]), models)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])
    result = run(HWGQD, "--check", "--models", folder)
    check("a start with a link that leads out is refused", result.returncode == 1 and "leads out" in result.stderr, result)


def replaced_under_load():
    """A new file every 100 ms, every other time a bad one, by signal and by request: no request fails."""
    path, admin = keys()
    model = fixture("hot.hwgq")
    good = [read(COLOR), read(OTHER)]
    write(model, good[0])
    with Daemon(BUILD, FOLDER, "--models", model, "--keys-file", path) as daemon:
        expected = {}
        for content in good:
            write(model, content)
            post(daemon, "/v1/models/hot/reload", admin)
            one = daemon.post("/classify", JPEG, headers=bearer(admin)).json
            expected[int(one["version"]) % 2] = one["predictions"]
        stop, results = threading.Event(), [[] for _ in range(4)]

        def client(i):
            while not stop.is_set():
                reply = daemon.post("/classify", JPEG, headers=bearer(admin))
                # versions of the two files alternate, so the version tells which predictions are right
                right = reply.status == 200 and reply.json["predictions"] == expected[int(reply.json["version"]) % 2]
                results[i].append(reply.status if right else (reply.status, reply.body[:200]))
        threads = [threading.Thread(target=client, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        replies, states, turns = [], [], 30
        for turn in range(turns):
            next_turn = time.monotonic() + 0.1
            content = good[turn // 2 % 2]
            write(model, content if turn % 2 == 0 else content[:len(content) - 1 - turn * 10])
            if turn % 4 < 2:
                replies.append((turn % 2, post(daemon, "/v1/models/hot/reload", admin).status))
            else:
                reloaded(daemon, HUP, "reload")
            one = listed(daemon, admin)["hot"]
            states.append((one["state"], "reload_error" in one, turn % 2 == 1))
            time.sleep(max(0, next_turn - time.monotonic()))
        stop.set()
        for thread in threads:
            thread.join()
        every = [r for some in results for r in some]
        print("    %d requests while the file changed %d times" % (len(every), turns))
        check("no request failed, each got its version's bits", every.count(200) == len(every) > turns,
              [r for r in every if r != 200][:3])
        check("good files are taken, bad ones refused", set(replies) == {(0, 200), (1, 422)}, replies)
        check("a bad file shows and the network stays ready", all(s == "ready" and shown == bad for s, shown, bad in states), states)
        check("/stats counts them all", until(lambda: daemon.get("/stats").json["models"]["hot"]["requests"] ==
                                              {"ok": len(every) + 2, "failed": 0, "rejected": 0, "expired": 0}),
              daemon.get("/stats").json["models"]["hot"]["requests"])
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


main(load_and_unload, versions, unloaded_stays, passed_over, with_and_without_number, paths, replaced_under_load)
