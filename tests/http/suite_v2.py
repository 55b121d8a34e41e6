"""The Open Inference Protocol v2 and its extensions, as clients of KServe and Triton speak it: suite_v2.py BUILD_DIR FIXTURES.
The wire format is written here byte by byte, after the published specification."""
import base64
import json
import struct
import threading
import time

from harness import *

INFER = "/v2/models/color/infer"
LABELS = ['class "%d" \u00e9' % i for i in range(10)]


def refused(what, reply, status, words):
    """An error of the protocol: an object with one string and nothing else."""
    try:
        body = reply.json
        good = reply.status == status and list(body) == ["error"] and words in body["error"]
    except (ValueError, TypeError):
        good = False
    check("refused: " + what, good, "%s %s" % (reply.status, reply.body[:300]))


def tensor(datatype, shape, data=None, name=None, **parameters):
    made = {"name": name or {"BYTES": "image", "UINT8": "pixels", "FP32": "tensor"}.get(datatype, "image"), "shape": shape,
            "datatype": datatype}
    if data is not None:
        made["data"] = data
    if parameters:
        made["parameters"] = parameters
    return made


def b64(content):
    return base64.b64encode(content).decode()


def ask(daemon, body, path=INFER):
    return daemon.post(path, json.dumps(body).encode(), "application/json")


def files(daemon, images, path=INFER, **more):
    """One BYTES tensor of image files as JSON."""
    return ask(daemon, dict({"inputs": [tensor("BYTES", [len(images)], [{"b64": b64(i)} for i in images])]}, **more), path)


def binary(daemon, header, *tensors, path=INFER, **headers):
    """JSON with tensors behind it."""
    text = json.dumps(header).encode()
    headers = {"Inference-Header-Content-Length": str(len(text)), **headers}
    return daemon.post(path, text + b"".join(tensors), "application/octet-stream", headers)


def outputs(reply):
    """The outputs of a reply by name, with their values; binary ones decoded."""
    length = int(reply.headers.get("Inference-Header-Content-Length") or len(reply.body))
    found, at = {}, length
    for output in json.loads(reply.body[:length])["outputs"]:
        if "data" not in output:
            size = output["parameters"]["binary_data_size"]
            piece, at = reply.body[at:at + size], at + size
            if output["datatype"] == "BYTES":
                values = []
                while piece:
                    count = struct.unpack("<I", piece[:4])[0]
                    values.append(piece[4:4 + count].decode())
                    piece = piece[4 + count:]
            else:
                values = list(struct.unpack("<%d%s" % (len(piece) // 4, "f" if output["datatype"] == "FP32" else "i"), piece))
            output["data"] = values
        found[output["name"]] = output
    assert at == len(reply.body), "bytes that belong to no output"
    return found


def f32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def classified(daemon, image, model="color"):
    """Probabilities by class as POST /classify tells them."""
    answer = daemon.post("/v1/models/%s/classify?top_k=10" % model, image).json
    return [f32(p["probability"]) for p in sorted(answer["predictions"], key=lambda p: p["class"])]


# ---- metadata and health --------------------------------------------------------------------------------------------------


def metadata():
    with Daemon(BUILD, FOLDER, *BOTH) as daemon:
        server = daemon.get("/v2").json
        check("server metadata", set(server) == {"name", "version", "extensions"} and server["name"] == "hwgqd" and
              set(server["extensions"]) == {"classification", "statistics", "model_repository", "binary_tensor_data"}, server)
        check("live", daemon.get("/v2/health/live").json == {"live": True})
        check("ready", daemon.get("/v2/health/ready").json == {"ready": True})
        model = daemon.get("/v2/models/color").json
        check("model metadata", model["name"] == "color" and model["versions"] == ["1"] and model["platform"] == "hwgq", model)
        check("one input that every client can send", model["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}])
        check("outputs", model["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
                                              {"name": "class", "datatype": "INT32", "shape": [-1]},
                                              {"name": "label", "datatype": "BYTES", "shape": [-1]}], model)
        check("what may stand in its place", {i["name"]: i["shape"] for i in daemon.get("/v2/models/gray").json["parameters"][
            "instead_of_image"]} == {"pixels": [-1, -1, -1, 3], "tensor": [-1, 1, 28, 28]})
        check("by version", daemon.get("/v2/models/color/versions/1").json == model)
        for path in ("/v2/models/gray/ready", "/v2/models/gray/versions/1/ready"):
            check(path, daemon.get(path).json == {"name": "gray", "ready": True})
        for path in ("/v2/models/none", "/v2/models/none/ready", "/v2/models/none/stats", "/v2/models/none/versions/1"):
            refused(path, daemon.get(path), 404, "no network 'none'")
        for version in ("2", "0", "01", "x", "1" * 50):
            refused("version " + version, daemon.get("/v2/models/color/versions/" + version), 404, "no version")
        refused("inference of a version that is not there", files(daemon, [JPEG], "/v2/models/color/versions/2/infer"), 404,
                "no version")
        for path in ("/v2/", "/v2/models", "/v2/models/", "/v2/models//infer", "/v2/models/color/", "/v2/models/color/versions",
                     "/v2/models/color/versions//infer", "/v2/models/color/infer/x", "/v2/nothing", "/v2?x=%00y/../z/"):
            if "?" not in path:
                refused(path, daemon.get(path), 404, "nothing at this path")
        check("a query is no path", daemon.get("/v2?x=/v1").json == server)
        check("errors beside /v2 keep their form", "request_id" in daemon.get("/v2x").json)
        for method, path, allow in (("POST", "/v2", "GET, HEAD"), ("GET", INFER, "POST"), ("PUT", INFER, "POST"),
                                    ("GET", "/v2/repository/index", "POST"), ("DELETE", "/v2/models/color", "GET, HEAD")):
            reply = daemon.request(method, path)
            refused("%s %s" % (method, path), reply, 405, "not possible here")
            check("Allow", reply.headers["Allow"] == allow, reply.headers["Allow"])
        check("ids are on every reply", daemon.get("/v2/none", {"X-Request-Id": "abc"}).headers["X-Request-Id"] == "abc")
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


# ---- inference ------------------------------------------------------------------------------------------------------------


def inference():
    with Daemon(BUILD, FOLDER, *BOTH) as daemon:
        truth = [classified(daemon, image) for image in IMAGES]
        reply = files(daemon, [JPEG], id="42")
        answer = reply.json
        check("the reply", list(answer) == ["model_name", "model_version", "id", "outputs"] and answer["model_name"] == "color" and
              answer["model_version"] == "1" and answer["id"] == "42" and reply.headers["Content-Type"] == "application/json" and
              "Inference-Header-Content-Length" not in reply.headers, answer)
        check("no id, none back", "id" not in files(daemon, [JPEG]).json)
        for text in ("", "a\"b\\c/\n", "\u00e9\U0001f600", "x" * 256):
            check("id as it was", files(daemon, [JPEG], id=text).json["id"] == text, text)
        got = outputs(reply)
        check("all outputs when none is named", [(n, o["datatype"], o["shape"]) for n, o in got.items()] == [
            ("probabilities", "FP32", [1, 10]), ("class", "INT32", [1]), ("label", "BYTES", [1])], got)
        check("the same bits as /classify", [f32(v) for v in got["probabilities"]["data"]] == truth[0])
        best = max(range(10), key=lambda c: truth[0][c])
        check("class and label are those of the best", got["class"]["data"] == [best] and got["label"]["data"] == [LABELS[best]], got)
        got = outputs(files(daemon, IMAGES))
        check("a batch", got["probabilities"]["shape"] == [10, 10] and
              [f32(v) for v in got["probabilities"]["data"]] == [v for row in truth for v in row] and got["class"]["shape"] == [10] and
              got["label"]["shape"] == [10])
        check("the versioned path", outputs(files(daemon, [JPEG], "/v2/models/color/versions/1/infer")) == outputs(reply))
        check("another network", [f32(v) for v in outputs(files(daemon, [JPEG], "/v2/models/gray/infer"))["probabilities"]["data"]] ==
              classified(daemon, JPEG, "gray"))
        column = [[{"b64": b64(i)}] for i in IMAGES[:2]]
        check("shape [N, 1], nested", outputs(ask(daemon, {"inputs": [tensor("BYTES", [2, 1], column)]}))["class"]["shape"] == [2])
        flat = [b64(i) for i in IMAGES[:2]]
        check("base64 as plain strings, and flat", [f32(v) for v in outputs(ask(daemon, {"inputs": [
            tensor("BYTES", [2, 1], flat)]}))["probabilities"]["data"]] == truth[0] + truth[1])
        escaped = json.dumps({"inputs": [tensor("BYTES", [1], [{"b64": b64(JPEG)}])]}).replace("/", "\\/").replace("+", "\\u002b")
        check("base64 with escapes", outputs(daemon.post(INFER, escaped.encode()))["class"]["data"] == [best])
        two = outputs(files(daemon, [JPEG], outputs=[{"name": "label"}, {"name": "probabilities"}]))
        check("outputs in the order they are asked for", list(two) == ["label", "probabilities"] and two["label"]["data"] == [LABELS[best]])
        odd = {"parameters": {"sequence_id": 5, "priority": 1, "deep": {"er": [1, [2, {"x": None}]]}}, "unknown": [[], {}, -1.5e-3],
               "inputs": [dict(tensor("BYTES", [1], [{"b64": b64(JPEG)}], content_type="base64"), more=True)],
               "outputs": [{"name": "class", "parameters": {"x": 1}, "y": 2}]}
        check("what is not known is passed over", outputs(ask(daemon, odd))["class"]["data"] == [best])
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def pixels_and_tensors():
    with Daemon(BUILD, FOLDER, *BOTH) as daemon:
        images = [[[[(x * 7 + y * 3 * n + c * 50) % 256 for c in range(3)] for x in range(48)] for y in range(36)] for n in range(1, 4)]
        flat = [v for image in images for row in image for pixel in row for v in pixel]
        nested = outputs(ask(daemon, {"inputs": [tensor("UINT8", [3, 36, 48, 3], images)]}))["probabilities"]
        rows = [nested["data"][10 * i:10 * i + 10] for i in range(3)]
        check("three images, three answers", nested["shape"] == [3, 10] and rows[0] != rows[1] != rows[2], nested)
        check("flat data", outputs(ask(daemon, {"inputs": [tensor("UINT8", [3, 36, 48, 3], flat)]}))["probabilities"] == nested)
        got = outputs(binary(daemon, {"inputs": [tensor("UINT8", [3, 36, 48, 3], binary_data_size=len(flat))]}, bytes(flat)))
        check("binary data", got["probabilities"] == nested)
        for i in range(3):
            got = outputs(ask(daemon, {"inputs": [tensor("UINT8", [36, 48, 3], images[i])]}))["probabilities"]
            check("one image without a batch dimension", got["data"] == rows[i] and got["shape"] == [1, 10])
        gray = [v for v in flat[:36 * 48 * 3:3]]
        spread = [v for v in gray for _ in range(3)]
        check("a gray image is one of three equal channels",
              outputs(ask(daemon, {"inputs": [tensor("UINT8", [36, 48, 1], gray)]}))["class"] ==
              outputs(ask(daemon, {"inputs": [tensor("UINT8", [36, 48, 3], spread)]}))["class"])
        # The preprocessed input of a 32x32 image: (pixel - 120) / 64, channel by channel.
        square = [[[(x * 5 + y * 11 + c * 77) % 256 for c in range(3)] for x in range(32)] for y in range(32)]
        wanted = outputs(ask(daemon, {"inputs": [tensor("UINT8", [32, 32, 3], square)]}))["probabilities"]["data"]
        planes = [[[(square[y][x][c] - 120) / 64 for x in range(32)] for y in range(32)] for c in range(3)]
        values = [v for plane in planes for row in plane for v in row]
        for what, shape, data in (("nested", [1, 3, 32, 32], [planes]), ("flat", [1, 3, 32, 32], values), ("one", [3, 32, 32], planes)):
            got = outputs(ask(daemon, {"inputs": [tensor("FP32", shape, data)]}))["probabilities"]["data"]
            check("FP32 " + what, all(abs(a - b) < 1e-4 for a, b in zip(got, wanted)) and len(got) == 10, (got, wanted))
        raw = struct.pack("<%df" % len(values), *values)
        both = outputs(binary(daemon, {"inputs": [tensor("FP32", [2, 3, 32, 32], binary_data_size=2 * len(raw))]}, raw, raw))
        check("FP32 binary, a batch", both["probabilities"]["data"] == got + got, both)
        check("numbers in every spelling", outputs(daemon.post(INFER, json.dumps({"inputs": [
            tensor("FP32", [3, 32, 32], ["@"] * 3072)]}).replace('"@"', "5e-1").replace("5e-1", "0.5", 1000).replace(
                "5e-1", "0.050E+1", 500).replace("5e-1", "0.5000000000000000000000000", 300).encode()))["probabilities"] ==
              outputs(ask(daemon, {"inputs": [tensor("FP32", [3, 32, 32], [0.5] * 3072)]}))["probabilities"])
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def binary_tensors():
    with Daemon(BUILD, FOLDER, *BOTH) as daemon:
        truth = outputs(files(daemon, IMAGES[:3]))
        element = [struct.pack("<I", len(i)) + i for i in IMAGES[:3]]
        size = sum(map(len, element))
        header = {"inputs": [tensor("BYTES", [3], binary_data_size=size)]}
        reply = binary(daemon, header, *element)
        check("binary in, JSON out", outputs(reply) == truth and reply.headers["Content-Type"] == "application/json")
        reply = binary(daemon, dict(header, parameters={"binary_data_output": True}), *element)
        check("binary in and out", {n: o["data"] for n, o in outputs(reply).items()} == {
            n: [f32(v) if n == "probabilities" else v for v in o["data"]] for n, o in truth.items()} and
            reply.headers["Content-Type"] == "application/octet-stream", reply.body[:300])
        reply = files(daemon, IMAGES[:3], parameters={"binary_data_output": True},
                      outputs=[{"name": "class", "parameters": {"binary_data": False}}, {"name": "label"}])
        got = json.loads(reply.body[:int(reply.headers["Inference-Header-Content-Length"])])["outputs"]
        check("an output's own wish wins", got[0]["data"] == truth["class"]["data"] and "data" not in got[1] and
              outputs(reply)["label"]["data"] == truth["label"]["data"])
        reply = files(daemon, IMAGES[:3], outputs=[{"name": "class"}, {"name": "label", "parameters": {"binary_data": True}}])
        check("one output binary", outputs(reply)["label"]["data"] == truth["label"]["data"])
        reply = daemon.post(INFER, JPEG, "application/octet-stream", {"Inference-Header-Content-Length": "0"})
        check("a raw binary request", outputs(reply)["class"]["data"] == truth["class"]["data"][:1])
        for value in ("x", "-1", "", "1e3", str(len(JPEG) + 1), "9" * 30):
            refused("Inference-Header-Content-Length: " + value, daemon.post(INFER, JPEG, "application/octet-stream", {
                "Inference-Header-Content-Length": value}), 400, "Inference-Header-Content-Length")
        refused("more than there is", binary(daemon, header, *element[:2]), 400, "binary_data_size")
        refused("bytes left over", binary(daemon, header, *element, b"x"), 400, "belong to no input")
        for what, pieces, words in (("an element that is too long", struct.pack("<I", 1 << 31) + JPEG, "before their element"),
                                    ("a length cut short", b"\1\0\0", "before the length"),
                                    ("more elements than the shape", element[0] + element[1], "more binary data")):
            refused(what, binary(daemon, {"inputs": [tensor("BYTES", [1], binary_data_size=len(pieces))]}, pieces), 400, words)
        refused("FP32 of the wrong size", binary(daemon, {"inputs": [tensor("FP32", [3, 32, 32], binary_data_size=8)]}, b"\0" * 8), 400,
                "needs 12288 bytes")
        for bits in (0x7fc00000, 0x7f800000, 0xff800000):
            refused("no number", binary(daemon, {"inputs": [tensor("FP32", [3, 32, 32], binary_data_size=12288)]},
                                        b"\0" * 12284 + struct.pack("<I", bits)), 400, "finite")
        huge = struct.pack("<f", 3e38) * 3072
        reply = binary(daemon, {"inputs": [tensor("FP32", [3, 32, 32], binary_data_size=len(huge))]}, huge)
        check("huge numbers: scores or an error", reply.status in (200, 422) and b"null" not in reply.body, reply.body)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def classification():
    with Daemon(BUILD, FOLDER, *BOTH) as daemon:
        for count in (1, 3, 10, 1000):
            got = outputs(files(daemon, IMAGES[:2], outputs=[{"name": "probabilities", "parameters": {"classification": count}}]))
            output, k = got["probabilities"], min(count, 10)
            check("type and shape", output["datatype"] == "BYTES" and output["shape"] == [2, k] and len(output["data"]) == 2 * k, output)
            for i in range(2):
                predictions = daemon.post("/classify?top_k=%d" % k, IMAGES[i]).json["predictions"]
                check("value:index:label", output["data"][k * i:k * i + k] == [
                    "%s:%d:%s" % (s.split(":")[0], p["class"], p["label"]) for s, p in zip(output["data"][k * i:], predictions)] and
                    [float(s.split(":")[0]) for s in output["data"][k * i:k * i + k]] == [p["probability"] for p in predictions], output)
        both = outputs(files(daemon, [JPEG], outputs=[{"name": "probabilities", "parameters": {
            "classification": 2, "binary_data": True}}, {"name": "class"}]))
        check("binary too", both["probabilities"]["data"][0].split(":")[1] == str(both["class"]["data"][0]), both)
        for value in (0, -1, "x", 1.5, None, True):
            refused("classification %s" % value, files(daemon, [JPEG], outputs=[{"name": "probabilities", "parameters": {
                "classification": value}}]), 400, "classification must be" if value in (0, -1) and value is not True else "whole number")
        refused("of another output", files(daemon, [JPEG], outputs=[{"name": "class", "parameters": {"classification": 1}}]), 400,
                "for the output 'probabilities'")
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def bad_requests():
    with Daemon(BUILD, FOLDER, *BOTH, "--max-images", "4", "--max-pixels", "20000", "--max-body-bytes", "400000") as daemon:
        one = tensor("BYTES", [1], [{"b64": b64(JPEG)}])
        good = json.dumps({"inputs": [one]})
        check("good", daemon.post(INFER, good.encode()).status == 200)
        for what, body, words in (
                ("no JSON", "hello", "object was expected"), ("an array", "[]", "object was expected"),
                ("cut", good[:-1], "comma or }"), ("cut in a string", good[:60], "does not end"),
                ("something behind", good + "x", "after the end"), ("a comma too much", good[:-1] + ",}", "string was expected"),
                ("a control character", '{"a\n":1}', "control character"), ("a bad escape", '{"\\x":1}', "escape"),
                ("half a \\u", '{"\\u12":1}', "escape"), ("depth", '{"x":' + "[" * 100 + "]" * 100 + "}", "nested"),
                ("numbers that are none", '{"x":01}', "number"), ("", '{"x":.5}', "value was expected"), ("", '{"x":1.}', "number"),
                ("", '{"x":+1}', "value was expected"), ("", '{"x":1e}', "number"), ("words", '{"x":nul}', "no JSON value"),
                ("too many digits", '{"x":%s}' % ("1" * 500), "too many digits"),
                ("no inputs", "{}", "no inputs"), ("empty inputs", '{"inputs":[]}', "empty"),
                ("inputs twice", '{"inputs":[%s],"inputs":[]}' % json.dumps(one), "twice"),
                ("inputs as an object", '{"inputs":{}}', "array was expected"), ("id as a number", '{"id":5}', "string was expected"),
                ("a zero in id", '{"id":"a\\u0000b"}', "id may"), ("a long id", '{"id":"%s"}' % ("x" * 257), "id may")):
            refused(what or body, daemon.post(INFER, body.encode()), 400, words)
        def without(key):
            return {k: v for k, v in one.items() if k != key}
        for what, given, words in (
                ("two inputs", [one, one], "one input"), ("no name", [without("name")], "needs name"),
                ("no shape", [without("shape")], "needs name"), ("no datatype", [without("datatype")], "needs name"),
                ("no data", [without("data")], "needs data"), ("data and size", [dict(one, parameters={"binary_data_size": 0})], "needs data"),
                ("another name", [dict(one, name="x")], "called 'image'"), ("a name of another type", [dict(one, name="pixels")], "called"),
                ("unknown datatype", [dict(one, datatype="FP16")], "datatype"), ("shared memory", [dict(without("data"), parameters={
                    "shared_memory_region": "r"})], "shared memory"),
                ("shape []", [dict(one, shape=[])], "shape of BYTES"), ("shape [0]", [dict(one, shape=[0])], "dimension"),
                ("shape [-1]", [dict(one, shape=[-1])], "dimension"), ("shape [1.5]", [dict(one, shape=[1.5])], "whole number"),
                ("shape [1,2]", [dict(one, shape=[1, 2])], "shape of BYTES"), ("five dimensions", [dict(one, shape=[1] * 5)], "more than 4"),
                ("shape too large", [dict(one, shape=[1 << 40])], "dimension"), ("shape \"1\"", [dict(one, shape="1")], "array was"),
                ("too few", [dict(one, shape=[2])], "comma or ]|fewer"), ("too many", [dict(one, data=one["data"] * 2)], "more elements"),
                ("data as a string", [dict(one, data="x")], "must be an array"), ("a number as an image", [dict(one, data=[5])], "string was"),
                ("no base64", [dict(one, data=["*"])], "base64"), ("base64 of a bad length", [dict(one, data=["abcde"])], "base64"),
                ("padding inside", [dict(one, data=["ab==cdef"])], "base64"), ("bits over", [dict(one, data=["ab"])], "base64"),
                ("an object without b64", [dict(one, data=[{}])], "b64"), ("with more", [dict(one, data=[{"b64": "", "x": 1}])], "b64"),
                ("nested too deeply", [dict(one, data=[[{"b64": b64(JPEG)}]])], "string was"),
                ("a pixel of 256", [tensor("UINT8", [1, 1, 1], [256])], "0 to 255"), ("a pixel of -1", [tensor("UINT8", [1, 1, 1], [-1])], "0 to 255"),
                ("a pixel of 1.5", [tensor("UINT8", [1, 1, 1], [1.5])], "whole number"), ("two channels", [tensor("UINT8", [2, 2, 2], [0] * 8)], "3 (RGB)"),
                ("a flat image", [tensor("UINT8", [12], [0] * 12)], "shape must be"), ("a wrong nesting", [tensor("UINT8", [2, 2, 1], [
                    [[1], [2], [3]], [[4]]])], "longer"), ("a shorter row", [tensor("UINT8", [2, 2, 1], [[[1]], [[4], [1]]])], "fewer|comma"),
                ("FP32 of another size", [tensor("FP32", [3, 31, 32], [0] * 2976)], "must be [N, 3, 32, 32]"),
                ("null", [tensor("FP32", [3, 32, 32], [None] * 3072)], "number was"), ("a text", [tensor("FP32", [3, 32, 32], ["1"] * 3072)], "number was")):
            reply = ask(daemon, {"inputs": given})
            refused(what, reply, 400, next((w for w in words.split("|") if w.encode() in reply.body), words))
        refused("1e999", daemon.post(INFER, json.dumps({"inputs": [tensor("FP32", [3, 32, 32], [0] * 3072)]}).replace(
            "0, 0]", "0, 1e999]").encode()), 400, "finite")
        for what, wanted, words in (("unknown output", [{"name": "scores"}], "must be called"), ("an output without a name", [{}], "must be called"),
                                    ("nine outputs", [{"name": "class"}] * 9, "more than 8"), ("outputs that are none", [1], "object was"),
                                    ("binary_data as a number", [{"name": "class", "parameters": {"binary_data": 1}}], "true or false")):
            refused(what, ask(daemon, {"inputs": [one], "outputs": wanted}), 400, words)
        check("outputs: [] is all of them", len(outputs(ask(daemon, {"inputs": [one], "outputs": []}))) == 3)
        refused("no image", files(daemon, [b"GIF89a is not read here"]), 415, "")
        refused("a damaged image", files(daemon, [JPEG[:200]]), 422, "")
        refused("the second of two", files(daemon, [JPEG, JPEG[:200]]), 422, "")
        refused("pixels of all images together", files(daemon, [JPEG, JPEG, JPEG]), 422, "pixels")
        refused("pixels of a raw image", ask(daemon, {"inputs": [tensor("UINT8", [200, 101, 1], [1] * 20200)]}), 422, "max_pixels")
        refused("no body", daemon.request("POST", INFER), 400, "no body")
        refused("a compressed body", daemon.post(INFER, b"x", headers={"Content-Encoding": "gzip"}), 415, "Content-Encoding")
        refused("too many images", ask(daemon, {"inputs": [dict(one, shape=[5], data=one["data"] * 5)]}), 413, "may have 4 images")
        refused("a large body", daemon.post(INFER, b"x" * 400001), 413, "larger than 400000")
        refused("a large body, chunked", daemon.request("POST", INFER, iter([b"x" * 50000] * 10)), 413, "larger than 400000")
        check("and it still works", daemon.post(INFER, good.encode()).status == 200)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


# ---- extensions beside inference --------------------------------------------------------------------------------------------


def statistics():
    with Daemon(BUILD, FOLDER, *BOTH) as daemon:
        before = time.time() * 1000
        codes = []

        def client(i):
            for k in range(5):
                codes.append(files(daemon, IMAGES[:1 + (i + k) % 3] if k < 4 else [b"x" * 50]).status)
        threads = [threading.Thread(target=client, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        images = sum(1 + (i + k) % 3 for i in range(4) for k in range(4))
        check("nothing in flight", settled(daemon))
        everything = daemon.get("/v2/models/stats").json["model_stats"]
        check("of all networks", [m["name"] for m in everything] == ["color", "gray"])
        for path in ("/v2/models/color/stats", "/v2/models/color/versions/1/stats"):
            check(path, daemon.get(path).json["model_stats"] == everything[:1])
        color, gray = everything
        stats = color["inference_stats"]
        check("members", set(color) == {"name", "version", "last_inference", "inference_count", "execution_count", "inference_stats",
                                        "batch_stats"} and set(stats) >= {"success", "fail", "queue", "compute_input", "compute_infer",
                                                                          "compute_output", "cache_hit"}, color)
        check("what clients saw", codes.count(200) == 16 and stats["success"]["count"] == 16 and stats["fail"]["count"] == 4 and
              color["inference_count"] == images == stats["compute_infer"]["count"] and stats["queue"]["count"] == 20, (codes, color))
        check("durations add up", stats["success"]["ns"] >= stats["compute_infer"]["ns"] > 0 and stats["compute_input"]["ns"] > 0)
        check("the last inference", before - 1000 <= color["last_inference"] <= time.time() * 1000 + 1000 and gray["last_inference"] == 0)
        check("batches", [b["batch_size"] for b in color["batch_stats"]] == [1] and gray["batch_stats"] == [] and
              color["batch_stats"][0]["compute_infer"] == stats["compute_infer"])
        own = daemon.get("/stats").json["models"]["color"]
        check("as /stats counts", own["requests"] == {"ok": 16, "failed": 4, "rejected": 0, "expired": 0} and own["images"] == images and
              abs(own["latency_ms"]["inference"]["mean"] * images - stats["compute_infer"]["ns"] / 1e6) < 0.01 * images, own)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def repository():
    with Daemon(BUILD, FOLDER, *BOTH) as daemon:
        index = daemon.post("/v2/repository/index", b"", "application/json")
        check("index", [(m["name"], m["version"], m["state"], m["reason"]) for m in index.json] ==
              [("color", "1", "READY", ""), ("gray", "1", "READY", "")], index.body)
        check("ready ones", daemon.post("/v2/repository/index", b'{"ready": true}').json == index.json)
        for body in (b"[]", b'{"ready":1}', b"{", b'{"ready":true} x'):
            refused("index " + body.decode(), daemon.post("/v2/repository/index", body), 400, "no index request")
        for verb in ("load", "unload"):
            for body in (b"", b'{"parameters":{}}'):
                refused(verb + " without a key", daemon.post("/v2/repository/models/color/" + verb, body), 403, "admin key")
        check("and it is still there", files(daemon, [JPEG]).status == 200)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def overload():
    """The refusals that come from the server's state have the protocol's form too."""
    with Daemon(BUILD, FOLDER, *SLOW, "--queue-capacity", "1") as daemon:
        with Busy(daemon):
            patient = Later(lambda: files(daemon, [JPEG]))
            check("one waits", waiting(daemon, 1))
            reply = files(daemon, [JPEG])
            refused("a full queue", reply, 503, "waiting already")
            check("Retry-After", int(reply.headers["Retry-After"]) >= 1)
        check("who waited is served", patient.result().status == 200)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def on_idle_workers():
    """A batch runs on all idle workers: the values in order, and of several bad images the first one is told."""
    with Daemon(BUILD, FOLDER, *ONLY_COLOR, "--workers", "3") as daemon:
        def values(reply):
            return outputs(reply)["probabilities"]["data"] if reply.status == 200 else reply.body
        expected = [values(files(daemon, [image])) for image in IMAGES]
        pixels = [bytes([(i * 37 + k) % 256 for k in range(3 * 32 * 32)]) for i in range(12)]

        def uint8(chosen):
            return binary(daemon, {"inputs": [tensor("UINT8", [len(chosen), 32, 32, 3], binary_data_size=len(chosen) * 3072)]}, *chosen)
        single = [values(uint8([one])) for one in pixels]

        def client(i):
            chosen = [(i + k * 3) % len(IMAGES) for k in range(30)]
            got = values(files(daemon, [IMAGES[k] for k in chosen]))
            return (list(got) == [value for k in chosen for value in expected[k]] and
                    list(values(uint8(pixels[i:] + pixels[:i]))) == [v for one in single[i:] + single[:i] for v in one])
        check("batches, alone and at once", [client(i) for i in range(3)] + in_threads(6, client) == [True] * 9)
        for first, second, status in ((b"no image", JPEG[:150], 415), (JPEG[:150], b"no image", 422)):
            seen = {files(daemon, IMAGES[:5] + [first] + IMAGES[:2] + [second] + IMAGES).status for _ in range(20)}
            check("the first bad image decides", seen == {status}, seen)
        stats = daemon.get("/stats").json["models"]["color"]
        check("images of refused requests are not counted", stats["images"] == len(IMAGES) + len(pixels) + 9 * 42, stats["images"])
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


main(metadata, inference, pixels_and_tensors, binary_tensors, classification, bad_requests, statistics, repository, overload,
     on_idle_workers)
