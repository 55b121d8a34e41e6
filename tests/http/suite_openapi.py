"""GET /openapi.json against the daemon, and the page's files: suite_openapi.py BUILD_DIR FIXTURES (see run.sh). Every documented
curl line and body is sent and every reply validated; every route that the daemon knows is documented and the other way round."""
import glob
import json
import os
import re
import shutil
import signal
import zlib

import jsonschema

from harness import *

PAGE = "server/page"
DOC = json.loads(read(os.path.join(PAGE, "openapi.json")))
METHODS = ("get", "put", "post", "delete", "patch")
ZOO = ("--models", "models/zoo/cifar10.hwgq", "--models", "models/zoo/fashion-mnist.hwgq")


def resolve(value):
    while "$ref" in value:
        place = DOC
        for name in value["$ref"][2:].split("/"):
            place = place[name]
        value = place
    return value


def problem(schema, value):
    """Why the value does not fit the schema, or None."""
    validator = jsonschema.Draft202012Validator(dict(schema, components=DOC["components"]))
    found = sorted(validator.iter_errors(value), key=lambda e: len(list(e.absolute_path)))
    return "%s at %s" % (found[0].message[:300], list(found[0].absolute_path)) if found else None


def operations():
    for path, item in DOC["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def validate(what, operation, status, headers, body):
    """One reply against what the document says of it."""
    reply = operation["responses"].get(str(status))
    if reply is None:
        check(what, False, "status %d is not documented: %s" % (status, body[:200]))
        return
    reply = resolve(reply)
    missing = [name for name in reply.get("headers", {}) if name not in headers and name not in ("Inference-Header-Content-Length",
                                                                                               "Server-Timing")]
    check(what + ": headers", not missing, missing)
    if "content" not in reply:
        check(what + ": no body", body == b"", body[:200])
        return
    kind = headers["Content-Type"]
    media = reply["content"].get(kind)
    if media is None:
        check(what, False, "type %s is not documented" % kind)
        return
    value = json.loads(body) if kind == "application/json" else body.decode("utf-8", "replace")
    why = problem(media["schema"], value)
    check(what, why is None, "%s: %s" % (why, body[:200]))


# ---- the document -------------------------------------------------------------------------------------------------------


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from references(one)


def document():
    check("version", DOC["openapi"] == "3.1.0" and run(HWGQD, "--version").stdout == "hwgqd %s\n" % DOC["info"]["version"])
    used = set(references(DOC))
    for reference in used:
        check("is there: " + reference, resolve({"$ref": reference}) is not None)
    have = {"#/components/%s/%s" % (group, name) for group in ("schemas", "responses", "parameters", "headers")
            for name in DOC["components"][group]}
    check("nothing is left over", not have - used, have - used)
    names = [operation["operationId"] for _, _, operation in operations()]
    check("operation ids are unique", len(set(names)) == len(names))
    for name, schema in DOC["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
    for path, method, operation in operations():
        what = "%s %s" % (method.upper(), path)
        wanted = set(re.findall(r"{(\w+)}", path))
        given = {resolve(p)["name"] for p in DOC["paths"][path].get("parameters", [])}
        check(what + ": path parameters", wanted == given, given)
        check(what + ": a curl line", len(operation["x-codeSamples"]) > 0)
        check(what + ": its tag", operation["tags"][0] in [tag["name"] for tag in DOC["tags"]])
        for status, reply in operation["responses"].items():
            for kind, media in resolve(reply).get("content", {}).items():
                if "example" in media:
                    why = problem(media["schema"], media["example"])
                    check("%s: example of %s %s" % (what, status, kind), why is None, why)


def codes():
    """Every error code in the source is documented, and no other."""
    source = "".join(read(path).decode() for path in glob.glob("server/*.c"))
    pattern = r'(?:reply_error\([^"]*?(?:\d+|code), |refuse\(request, \d+, |\bname = |\(struct problem\)\{\d+, )"([a-z_]+)"'
    found = set(re.findall(pattern, source)) - {"inference_failed"}  # only under /v2, whose errors have no code
    code = DOC["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]
    check("error codes", len(found) > 30 and found == set(code["enum"]) == set(code["x-meanings"]), found ^ set(code["enum"]))


def routes():
    known = set(re.findall(r'^    \{"(/[^"]*)", ROUTE_', read("server/routes.c").decode(), re.MULTILINE))
    check("every route is documented, and no other", len(known) > 30 and known == set(DOC["paths"]), known ^ set(DOC["paths"]))
    with Daemon(BUILD, FOLDER, *ZOO) as daemon:
        for path, item in DOC["paths"].items():
            methods = {m.upper() for m in METHODS if m in item}
            methods |= {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
            reply = daemon.request("OPTIONS", path.replace("{name}", "cifar10").replace("{version}", "1"))
            check("OPTIONS " + path, reply.status == 204 and set(reply.headers["Allow"].split(", ")) == methods,
                  (reply.status, reply.headers["Allow"]))
        check("nothing elsewhere", daemon.request("OPTIONS", "/v1").status == 404)
        check("/openapi.json is the file", daemon.get("/openapi.json").body == read(os.path.join(PAGE, "openapi.json")))


# ---- the examples -------------------------------------------------------------------------------------------------------


def send_line(daemon, line, key, folder):
    """Runs a documented curl line in a folder with cat.jpg and dog.jpg; its last reply as status, headers, body."""
    line = line.replace("http://localhost:8080", daemon.url(""))
    script = 'curl() { command curl -sS -D headers -o body "$@"; }\n' + line
    result = run("bash", "-c", script, cwd=folder, env=dict(os.environ, KEY=key))
    text = read(os.path.join(folder, "headers")).decode("latin-1").strip()
    last = text.split("\r\n\r\n")[-1].split("\r\n")
    headers = dict(h.split(": ", 1) for h in last[1:])
    return result, int(last[0].split()[1]), headers, read(os.path.join(folder, "body"))


def examples():
    folder = fixture("lines")
    os.makedirs(folder)
    for name, source in (("cat.jpg", "image-0.jpg"), ("dog.jpg", "image-1.jpg")):
        shutil.copy(fixture(source), os.path.join(folder, name))
    path = fixture("openapi-keys")
    admin = add_key(path, "boss", "admin")
    sent = 0
    with Daemon(BUILD, FOLDER, *ZOO) as daemon, Daemon(BUILD, FOLDER, *ZOO, "--keys-file", path) as locked:
        for where, method, operation in operations():
            for sample in operation["x-codeSamples"]:
                line = sample["source"]
                result, status, headers, body = send_line(locked if "$KEY" in line else daemon, line, admin, folder)
                check("works: " + line[:100], result.returncode == 0 and not result.stderr and status == 200, (result, status, body[:200]))
                validate(line[:100], operation, status, headers, body)
                sent += 1
            for kind, media in operation.get("requestBody", {}).get("content", {}).items():
                bodies = [media["example"]] if "example" in media else [e["value"] for e in media.get("examples", {}).values()]
                for value in bodies:
                    what = "%s %s as documented" % (method.upper(), where)
                    why = problem(media["schema"], value)
                    check(what + ": the body", why is None, why)
                    reply = daemon.post(where.replace("{name}", "cifar10").replace("{version}", "1"), json.dumps(value), kind)
                    check(what, reply.status == 200, reply.body)
                    validate(what, operation, reply.status, reply.headers, reply.body)
                    sent += 1
    print("    %d examples sent" % sent)
    check("there are many examples", sent > 40, sent)


def refusals():
    """Replies that are no success, too, are as documented."""
    def expect(daemon, method, target, status, code=None, body=None, headers=None):
        where = target.split("?")[0].replace("/cifar10", "/{name}").replace("/nobody", "/{name}").replace("/versions/1", "/versions/{version}")
        where = re.sub("/versions/9.*?(?=/|$)", "/versions/{version}", re.sub("/a{9,}", "/{name}", where)).replace("/page/none", "/page/{name}")
        reply = daemon.request(method.upper(), target, body, headers or {})
        what = "%s %s: %d %s" % (method, target[:60], status, code or "")
        check(what, reply.status == status and (code is None or reply.code == code), "%s %s" % (reply.status, reply.body[:300]))
        validate(what, DOC["paths"][where][method if method in DOC["paths"][where] else next(m for m in METHODS if m in DOC["paths"][where])],
                 reply.status, reply.headers, reply.body)
    path = fixture("openapi-keys-2")
    admin, plain = bearer(add_key(path, "boss", "admin")), bearer(add_key(path, "user"))
    image = {"Content-Type": "image/jpeg"}
    with Daemon(BUILD, FOLDER, *ZOO, "--max-body-bytes", "100000") as daemon:
        expect(daemon, "post", "/classify?top_k=0", 400, "bad_top_k", JPEG, image)
        expect(daemon, "post", "/classify", 400, "empty_body", b"", image)
        expect(daemon, "post", "/classify", 400, "no_image", *form([("text", b"x")])[:1], {"Content-Type": form([("text", b"x")])[1]})
        expect(daemon, "post", "/classify", 400, "bad_timeout", JPEG, dict(image, **{"X-Request-Timeout": "soon"}))
        expect(daemon, "post", "/v1/models/cifar10/classify?model=other", 400, "two_models", JPEG, image)
        expect(daemon, "get", "/stats?window=0", 400, "bad_window")
        expect(daemon, "post", "/v1/models/nobody/classify", 404, "unknown_model", JPEG, image)
        expect(daemon, "get", "/v1/models/cifar10/versions/99", 404, "unknown_version")
        expect(daemon, "get", "/page/none", 404, "not_found")
        expect(daemon, "delete", "/classify", 405, "method_not_allowed")
        expect(daemon, "post", "/stats", 405, "method_not_allowed", b"")
        expect(daemon, "post", "/classify", 413, "body_too_large", b"\0" * 100001, image)
        expect(daemon, "get", "/v1/models/" + "a" * 9000, 414, "uri_too_long")
        expect(daemon, "post", "/classify", 415, "unsupported_media_type", b"x", {"Content-Type": "text/plain"})
        expect(daemon, "post", "/classify", 415, "unsupported_image", b"no image at all", image)
        expect(daemon, "put", "/classify", 422, "undecodable_image", JPEG[:len(JPEG) // 2][:200], image)
        expect(daemon, "post", "/classify", 504, "deadline_exceeded", JPEG, dict(image, **{"X-Request-Timeout": "0.000001ms"}))
        expect(daemon, "post", "/v1/models/cifar10/reload", 403, "admin_disabled", b"")
        for body, status in ((b"{}", 400), (b"nonsense", 400), (b'{"inputs":[{"name":"image","datatype":"BYTES","shape":[1],"data":["AAAA"]}]}', 415)):
            expect(daemon, "post", "/v2/models/cifar10/infer", status, None, body)
        expect(daemon, "post", "/v2/models/nobody/infer", 404, None, b"{}")
        expect(daemon, "get", "/v2/models/cifar10/versions/99", 404)
        expect(daemon, "post", "/v2/repository/index", 400, None, b"[")
        several = daemon.form("/classify", [("image", JPEG), ("image", b"no image")])
        validate("several, one of them bad", DOC["paths"]["/classify"]["post"], several.status, several.headers, several.body)
        check("it is an error inside of a good reply", several.status == 200 and "error" in several.json["results"][1], several.body)
        reply = daemon.raw(b"POST /classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: image/jpeg\r\nContent-Length: 5\r\n"
                           b"Content-Length: 6\r\n\r\nabcde")
        check("bad framing is 400", reply.startswith(b"HTTP/1.1 400"), reply[:100])
    with Daemon(BUILD, FOLDER, *ZOO, "--keys-file", path, "--metrics-access", "admin", "--client-requests-per-minute", "1",
                "--drain-delay-ms", "3000") as daemon:
        expect(daemon, "get", "/v1/models", 401, "key_missing")
        expect(daemon, "get", "/v1/models", 401, "key_unknown", None, bearer("hwgqd_" + "0" * 64))
        expect(daemon, "get", "/metrics", 403, "key_without_rights", None, plain)
        expect(daemon, "get", "/v2/models/stats", 403, None, None, plain)
        expect(daemon, "post", "/v1/models/cifar10/unload", 409, "not_possible_now", b"", admin)
        expect(daemon, "post", "/classify", 200, None, JPEG, dict(plain, **image))
        expect(daemon, "post", "/classify", 429, "too_many_requests", JPEG, dict(plain, **image))
        daemon.signal(signal.SIGTERM)
        until(lambda: daemon.get("/readyz").status == 503)
        expect(daemon, "get", "/readyz", 503, "draining")
        expect(daemon, "get", "/v2/health/ready", 503)


# ---- the page -----------------------------------------------------------------------------------------------------------


def page():
    with Daemon(BUILD, FOLDER, *ZOO) as daemon:
        packed = 0
        for name in sorted(os.listdir(PAGE)):
            where = "/page/" + name
            content = read(os.path.join(PAGE, name))
            plain = daemon.get(where)
            validate(where, DOC["paths"]["/page/{name}"]["get"], plain.status, plain.headers, plain.body)
            check(where + " is the file", plain.status == 200 and plain.body == content and "Content-Encoding" not in plain.headers)
            reply = daemon.get(where, {"Accept-Encoding": "br, gzip;q=0.8"})
            check(where + " packed", reply.headers["Content-Encoding"] == "gzip" and reply.headers["Vary"] == "Accept-Encoding" and
                  zlib.decompress(reply.body, 31) == content and reply.headers["ETag"] != plain.headers["ETag"])
            packed += len(reply.body)
            again = daemon.get(where, {"Accept-Encoding": "gzip", "If-None-Match": '"x", ' + reply.headers["ETag"]})
            check(where + " not again", again.status == 304 and again.body == b"" and again.headers["ETag"] == reply.headers["ETag"])
            other = daemon.get(where, {"If-None-Match": '"0123456789abcdef"'})
            check(where + " again when it changed", other.status == 200 and other.body == content)
            check(where + ": policy", plain.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; ") and
                  "unsafe" not in plain.headers["Content-Security-Policy"] and plain.headers["X-Content-Type-Options"] == "nosniff")
            loads = re.findall(rb"""(?:src|href|action)="([^"]*)"|from "([^"]*)"|url\(([^)]*)\)|@import""", content)
            outside = [one for one in loads if re.match(rb"(https?:)?//", b"".join(one))]
            check(where + " loads nothing from outside", not outside, outside)
            check(where + " has no script or style in it", not name.endswith(".html") or not re.search(rb"<style|<script>| style=| on[a-z]+=", content))
        print("    %d bytes in gzip form" % packed)
        check("the page is smaller than 60 kB in gzip form", 5000 < packed < 60000, packed)
        for coding in ("gzip;q=0", "gzip; q=0.000", "identity", "x-gzip", "br"):
            check("not packed for " + coding, "Content-Encoding" not in daemon.get("/", {"Accept-Encoding": coding}).headers)
        for coding in ("gzip", "deflate,gzip", "gzip; q=0.001"):
            check("packed for " + coding, daemon.get("/", {"Accept-Encoding": coding}).headers["Content-Encoding"] == "gzip")
        check("/ and /docs are pages", daemon.get("/").body == read(os.path.join(PAGE, "index.html")) and
              daemon.get("/docs").body == read(os.path.join(PAGE, "docs.html")))
        # What a browser without JavaScript sends.
        text = daemon.get("/").body.decode()
        tag = re.search(r'<form id="form"[^>]*>', text).group(0)
        check("a form without JavaScript", 'action="classify"' in tag and 'method="post"' in tag and 'enctype="multipart/form-data"' in tag and
              re.search(r'<noscript><button type="submit">', text) and re.search(r'<input id="file" type="file" name="image"', text) and
              len(re.findall(r' name="', text.split("<main")[1])) == 1)
        check("classifies", daemon.form("/classify", [("image", JPEG)]).json["predictions"])
        one = daemon.get("/v1/models/cifar10").json
        check("layers have times", sum(stage["time_ns"] for stage in one["stages"]) > 1000 and one["memory_bytes"] > one["bytes"] / 2, one["stages"])


def opened():
    """--open prints the address, and gives it to xdg-open when it is served: from outside of the sandbox."""
    folder = fixture("bin")
    os.makedirs(folder)
    seen, script = fixture("opened"), os.path.join(folder, "xdg-open")
    write(script, '#!/bin/sh\n/usr/bin/curl -sS "$1readyz" >"%s.new"; echo " $1" >>"%s.new"; /bin/mv "%s.new" "%s"\n' % (seen, seen, seen, seen))
    os.chmod(script, 0o755)
    for what, path, flags in (("a browser", folder, ("--sandbox", "try")), ("none", fixture("nowhere"), ())):
        with open(fixture("stdout"), "wb") as stdout:
            with Daemon(BUILD, FOLDER, *ZOO, "--open", *flags, stdout=stdout, env=dict(os.environ, PATH=path)) as daemon:
                line = (daemon.url("/") + "\n").encode()
                check("--open prints the address, with " + what, until(lambda: read(fixture("stdout")) == line), read(fixture("stdout")))
                if path == folder:
                    check("the browser gets it when it is served", until(lambda: os.path.exists(seen)) and
                          read(seen).decode() == '{"status":"ready"}\n %s\n' % daemon.url("/"), os.path.exists(seen) and read(seen))
                check("and it serves", daemon.post("/classify", JPEG).status == 200)
        check("exit code with " + what, daemon.exit_code == 0, daemon.log()[-1000:])
    result = run(HWGQD, "--open", "--models", fixture("none.hwgq"), "--listen", "127.0.0.1:0")
    check("a start that fails opens nothing", result.returncode == 1 and result.stdout == "", result)


main(document, codes, routes, examples, refusals, page, opened)
