"""The PyTorch twin against the engine: suite.py BUILD_DIR FOLDER. Ends with 'N passed, N failed'."""
import copy
import json
import os
import re
import sys

import numpy
import torch

from support import FOLDER, HWGQ, TWIN, describe, image, main, path, run, striped, test, write_idx
import hwgq_torch  # from TWIN

LAYERS = os.path.join(FOLDER, "layers")
PIXELS = ["--mean", "104,117,123.5", "--scale", "1/64,1/32,1/64", "--order", "bgr"]  # PREPROCESS[3]
PREPROCESS = {1: {"order": "gray", "mean": [33.5], "scale": [1 / 64]},
              3: {"order": "bgr", "mean": [104.0, 117.0, 123.5], "scale": [1 / 64, 1 / 32, 1 / 64]}}


def prepared(pixels, preprocess):
    """As hwgq_preprocess_to_float: float32 arithmetic. [1, C, H, W]."""
    mean, scale = (numpy.array(preprocess[key], numpy.float32) for key in ("mean", "scale"))
    return torch.from_numpy(((pixels.astype(numpy.float32) - mean) * scale).transpose(2, 0, 1)[None].copy())


def randomize(network, seed):
    """Random weights, and batch norms that fit: statistics of one random image each, with noise; gammas of both signs."""
    torch.manual_seed(seed)
    channels = network.description["input"][0]
    pixels = [image(network.description["input"], seed + i) for i in range(2)]
    x = torch.cat([prepared(p, PREPROCESS[channels]) for p in pixels])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("weight") and parameter.dim() > 1:
                parameter.normal_(0, 0.5).clamp_(-1, 1)
                parameter.view(-1)[:2] = torch.tensor([0.0, -0.0])  # both are +1
            else:
                parameter.normal_(0, 0.5)
        values = {"input": x}
        for name, inputs in network.steps:
            module = network.get_submodule(name)
            if isinstance(module, hwgq_torch.BatchNorm):
                seen = values[inputs[0]].transpose(0, 1).flatten(1)
                module.running_mean.copy_(seen.mean(1) + 0.1 * torch.randn(seen.shape[0]))
                module.running_var.copy_(seen.var(1) * (0.5 + torch.rand(seen.shape[0])) + 1e-3)
            values[name] = module.eval()(*[values[key] for key in inputs])
    network.train()


def read(file):
    header, start = hwgq_torch.read_header(file)
    data = numpy.fromfile(file, dtype=numpy.uint8)[start:]
    return {name: data[slice(*entry["data_offsets"])].view({"F64": "<f8", "F32": "<f4"}[entry["dtype"]])
            for name, entry in header.items() if name != "__metadata__"}


def import_model(state, model, *options):
    return run(HWGQ, "import", "safetensors", state, "-o", model, "--quiet", *options)


def compare(network, model, preprocess, seeds=(1, 2, 3)):
    """Reference executor and engine against the twin in double precision, layer by layer. Returns the largest difference of a
    score."""
    twin, worst = copy.deepcopy(network).double().eval(), 0.0
    quantizers = [layer["name"] for layer in network.description["layers"] if layer["op"] == "quantize"]
    compared = 0
    for seed in seeds:
        pixels = image(network.description["input"], seed)
        pixels.tofile(path("pixels"))
        run(LAYERS, model, path("pixels"), path("out"))
        out = read(path("out"))
        with torch.no_grad():
            values = {k: v.numpy().ravel() for k, v in twin.activations(prepared(pixels, preprocess).double()).items()}
            scores = twin(prepared(pixels, preprocess).double()).numpy().ravel()
            single = copy.deepcopy(network).eval()(prepared(pixels, preprocess)).numpy().ravel()
        for layer in network.description["layers"]:
            name = layer["name"]
            difference = numpy.abs(values[name] - out["reference." + name]).max()
            limit = 0 if layer["op"] == "quantize" else 1e-9 * (1 + numpy.abs(values[name]).max())
            assert difference <= limit, f"layer {name}: reference and twin differ by {difference}"
        for name in quantizers:
            if "engine." + name not in out:
                continue
            assert (values[name].astype(numpy.float32) == out["engine." + name]).all(), f"layer {name}: levels differ"
            assert len(set(values[name])) > 1 or len(values[name]) < 64, f"layer {name}: one level only, tests nothing"
            compared += 1
        worst = max(worst, numpy.abs(scores - out["scores"]).max())
        assert worst <= (1e-5 if quantizers else 1e-4), f"scores differ by {worst}"  # float32 throughout without levels
        assert numpy.abs(single - scores).max() < 0.2, "the twin in single precision is far off"
    assert compared > 0 or not quantizers, "no layer of levels was compared"
    return worst


def round_trip(name, seed=1, **options):
    network = hwgq_torch.Network(describe(name, **options))
    randomize(network, seed)
    preprocess = PREPROCESS[network.description["input"][0]]
    hwgq_torch.export(network, path("state"), preprocess)
    import_model(path("state"), path("model"))
    assert hwgq_torch.read_description(path("model")) == network.description
    worst = compare(network, path("model"), preprocess)
    print(f"    {name} {options}: largest difference of a score {worst:.2g}")
    return network


# ---- networks --------------------------------------------------------------------------------------------------------


@test
def vgg_small():
    round_trip("vgg-small", width=0.125)


@test
def vgg_small_half_step():
    round_trip("vgg-small", width=0.125, zero="half")
    round_trip("vgg-small", width=0.125, zero="half", bits=3, step=0.35)


@test
def vgg_small_sign():
    round_trip("vgg-small", width=0.125, sign=True)


@test
def vgg_small_relu():
    round_trip("vgg-small-relu", width=0.125, levels="free", level_count=2)


@test
def lenet():
    round_trip("lenet")
    round_trip("lenet", bits=1, width=0.5)
    round_trip("lenet", sign=True)


@test
def resnet_18():
    round_trip("resnet-18", width=0.125, classes=10, input="3x64x64")
    round_trip("resnet-18", width=0.125, classes=10, input="3x40x56", zero="half", levels="free", bits=4)


@test
def resnet_18_sign():
    round_trip("resnet-18", width=0.125, classes=10, input="3x64x64", sign=True)


@test
def resnet_50():
    round_trip("resnet-50", width=0.0625, classes=10, input="3x64x64")


@test
def googlenet():
    round_trip("googlenet", width=0.125, classes=10, input="3x64x64")


@test
def alexnet():
    round_trip("alexnet", width=0.0625, classes=10, input="3x99x99", levels="free", level_count=2)


@test
def darknet_and_vgg_variant():
    round_trip("darknet-19", width=0.0625, classes=10, input="3x64x64")
    round_trip("vgg-variant", width=0.0625, classes=10, input="3x64x64")


@test
def float_weights():
    round_trip("vgg-small", width=0.125, weights="float")
    round_trip("lenet", weights="float", levels="relu")


@test
def relu():
    round_trip("vgg-small", width=0.125, levels="relu")
    round_trip("resnet-18-small", width=0.125, classes=10, levels="relu", weights="float", affine="yes")


@test
def affine():
    round_trip("vgg-small", width=0.125, affine="yes", zero="half")
    round_trip("resnet-18-small", width=0.125, classes=10, affine="yes", sign=True)


@test
def every_kind_of_layer():
    """What no network of the paper has: groups, rectangular windows, pooling overhangs, coefficients, names with dots."""
    quantize = {"op": "quantize", "centers": [0.538, 1.076, 1.614], "thresholds": [0, 0.807, 1.345]}
    layers = [
        {"name": "stem.conv", "op": "conv2d", "inputs": ["input"], "out_channels": 12, "kernel": [3, 5], "stride": [1, 2],
         "pad": [2, 1], "bias": True},
        {"name": "stem.pool", "op": "max_pool", "inputs": ["stem.conv"], "kernel": 3, "stride": 2, "pad": 1},
        {"name": "stem", "op": "batch_norm", "inputs": ["stem.pool"], "eps": 0.001},
        {"name": "scale", "op": "scale", "inputs": ["stem"], "bias": True},
        {"name": "q", "inputs": ["scale"], **quantize},
        {"name": "a", "op": "conv2d", "inputs": ["q"], "out_channels": 18, "kernel": 3, "pad": 1, "groups": 3, "binary": True,
         "alpha": True, "bias": True},
        {"name": "b", "op": "conv2d", "inputs": ["q"], "out_channels": 18, "binary": True},
        {"name": "sum", "op": "add", "inputs": ["a", "b"], "coefficients": [1.5, -0.25]},
        {"name": "bn", "op": "batch_norm", "inputs": ["sum"]},
        {"name": "gain", "op": "scale", "inputs": ["bn"]},
        {"name": "relu", "op": "relu", "inputs": ["gain"]},
        {"name": "mean", "op": "avg_pool", "inputs": ["relu"], "kernel": [3, 2], "stride": 2, "pad": 1},
        {"name": "peak", "op": "max_pool", "inputs": ["relu"], "kernel": [3, 2], "stride": 2, "pad": [1, 1]},
        {"name": "both", "op": "concat", "inputs": ["mean", "peak"]},
        {"name": "bn2", "op": "batch_norm", "inputs": ["both"]},
        {"name": "q2", "inputs": ["bn2"], **quantize},
        {"name": "hidden", "op": "linear", "inputs": ["q2"], "out_channels": 40, "binary": True, "alpha": True, "bias": True},
        {"name": "bn3", "op": "batch_norm", "inputs": ["hidden"]},
        {"name": "flat", "op": "flatten", "inputs": ["bn3"]},
        {"name": "q3", "op": "quantize", "inputs": ["flat"], "sign": True},
        {"name": "fc", "op": "linear", "inputs": ["q3"], "out_channels": 7, "bias": True},
        {"name": "prob", "op": "softmax", "inputs": ["fc"]}]
    network = hwgq_torch.Network({"name": "all", "input": [3, 17, 22], "layers": layers})
    randomize(network, 5)
    hwgq_torch.export(network, path("state"), PREPROCESS[3])
    import_model(path("state"), path("model"))
    compare(network, path("model"), PREPROCESS[3])


# ---- the functions ---------------------------------------------------------------------------------------------------


@test
def gradients():
    def slope(module, points):
        x = torch.tensor(points, requires_grad=True)
        module(x).sum().backward()
        return [round(float(g), 6) for g in x.grad]

    points = [-1.0, 0.0, 0.1, 1.614, 1.7, 3.614]
    quantize = {kind: hwgq_torch.Quantize([0.538, 1.076, 1.614], [0, 0.807, 1.345], kind) for kind in hwgq_torch.BACKWARDS}
    assert slope(quantize["vanilla"], points) == [0, 0, 1, 1, 1, 1]
    assert slope(quantize["clipped"], points) == [0, 0, 1, 1, 0, 0]
    assert slope(quantize["log-tailed"], points) == [0, 0, 1, 1, round(1 / 1.086, 6), round(1 / 3, 6)]
    assert slope(hwgq_torch.Sign(), [-1.1, -1.0, 0.0, 1.0, 1.1]) == [0, 1, 1, 1, 0]
    centers = quantize["clipped"](torch.tensor([0.0, 1e-7, 0.8, 0.81, 9.0])).tolist()
    assert numpy.allclose(centers, [0, 0.538, 0.538, 1.076, 1.614]), centers
    layer = hwgq_torch.Linear((3, 1, 1), 1, binary=True, has_alpha=True, has_bias=False)
    layer.weight.data = torch.tensor([[0.5, -0.25, -0.0]])
    assert layer.effective().tolist() == [[0.25, -0.25, 0.25]]
    layer(torch.tensor([[1.0, 2.0, 3.0]])).backward()
    assert layer.weight.grad.tolist() == [[1, 2, 3]], "straight through"


@test
def trained_for_20_steps():
    """Learns what is easy to learn, is imported, and the engine sees what the twin sees."""
    torch.manual_seed(3)
    network = hwgq_torch.Network(describe("vgg-small", width=0.0625))
    pixels = numpy.stack([image((3, 32, 32), i) // 4 + 18 * (i % 10) for i in range(40)])
    x = torch.cat([prepared(p, PREPROCESS[3]) for p in pixels])
    labels = torch.arange(40) % 10
    optimizer, losses = torch.optim.Adam(network.parameters(), lr=0.003), []
    for _ in range(20):
        optimizer.zero_grad()
        value = hwgq_torch.loss(network, x, labels)
        value.backward()
        optimizer.step()
        hwgq_torch.clamp_latent(network)
        losses.append(value.item())
    assert losses[-1] < 0.6 * losses[0], losses
    hwgq_torch.export(network, path("state"), PREPROCESS[3], [f"class {i}" for i in range(10)], {"steps": 20})
    import_model(path("state"), path("model"))
    compare(network, path("model"), PREPROCESS[3])
    shown = run(HWGQ, "inspect", path("model"))
    assert "class 9" in shown and '"steps"' in shown, shown
    again = hwgq_torch.Network(network.description)
    hwgq_torch.load(again, path("state"))
    with torch.no_grad():
        assert torch.equal(again.eval()(x), network.eval()(x)), "load() does not bring back what export() wrote"


TRAIN = os.path.join(TWIN, "train.py")


def train_and_evaluate(network, data, *options):
    """The engine must be right exactly as often as train.py says that the twin is."""
    shown = run(sys.executable, TRAIN, network, data, "-o", path("state"), "--hwgq", HWGQ, "--device", "cpu", *options)
    import_model(path("state"), path("model"))
    measured = run(HWGQ, "eval", path("model"), data)
    said = re.split(", test ", shown)[-1].split(" %")[0]
    found = measured.split("top-1")[1].split("%")[0].strip()
    assert float(said) == float(found), f"train.py says {said} %, hwgq eval {found} %"
    assert float(said) > 50, f"learned little: {shown}"
    return shown


@test
def training_on_idx_files():
    folder = write_idx(path("idx"), (300, 100), lambda label, i: striped(label, i, 1, 28)[:, :, 0])
    train_and_evaluate("lenet", folder, "--width", "0.5", "--epochs", "3", "--batch", "20", "--mirror", "no")
    os.replace(path("state"), path("begun"))
    train_and_evaluate("lenet", folder, "--width", "0.5", "--epochs", "2", "--batch", "20", "--invert", "yes", "--initial",
                       path("begun"))


@test
def training_on_image_files():
    try:
        from PIL import Image
    except ImportError:
        print("SKIPPED: training on image files: python3-pil is not installed")
        return
    for split, count, seed in (("train", 120, 0), ("test", 60, 1000)):
        for i in range(count):
            folder = path(f"images/{split}/width-{i % 3}")
            os.makedirs(folder, exist_ok=True)
            Image.fromarray(striped(i % 3, seed + i, 3, 32)).save(f"{folder}/{i}.jpg", quality=90)
    shown = train_and_evaluate("vgg-small", path("images"), "--width", "0.0625", "--epochs", "4", "--batch", "20", "--order",
                               "bgr", "--backward", "log-tailed")
    assert "120 images to train on, 60 to test, 3 classes" in shown, shown
    assert "width-2" in run(HWGQ, "inspect", path("model"))
    os.replace(path("model"), path("teacher"))
    train_and_evaluate("vgg-small", path("images"), "--preset", "shipped", "--width", "0.0625", "--epochs", "4", "--batch", "20",
                       "--order", "bgr", "--average", "0.9", "--label-smoothing", "0.1", "--cutout", "6", "--aspect", "0.1",
                       "--teacher", path("teacher"), "--schedule", "cosine")


# ---- state_dicts of other programs -----------------------------------------------------------------------------------


def write_plain(state, file):
    """A safetensors file without a description, as other programs write them."""
    class Plain:
        description = None

        def state_dict(self):
            return state

    hwgq_torch.export(Plain(), path("plain"))
    header, start = hwgq_torch.read_header(path("plain"))
    del header["__metadata__"]["network"]
    text = json.dumps(header).encode()
    with open(path("plain"), "rb") as old, open(file, "wb") as new:
        old.seek(start)
        new.write(len(text).to_bytes(8, "little") + text + old.read())


@test
def by_name():
    network = hwgq_torch.Network(describe("vgg-small", width=0.125, classes=5, bits=3))
    randomize(network, 9)
    write_plain(network.state_dict(), path("state"))
    options = ["--network", "vgg-small", "--width", "0.125", "--classes", "5", "--bits", "3"]
    assert "--network" in run(HWGQ, "import", "safetensors", path("state"), "-o", path("model"), fails=True)
    import_model(path("state"), path("model"), *options, *PIXELS)
    compare(network, path("model"), PREPROCESS[3])
    message = run(HWGQ, "import", "safetensors", path("state"), "-o", path("model"), *options[:4], fails=True)
    assert "fc.weight" in message and "[5," in message and "[10," in message, message
    hwgq_torch.export(network, path("state"))
    message = run(HWGQ, "import", "safetensors", path("state"), "-o", path("model"), *options[:6], fails=True)
    assert "leave --network out" in message, message


@test
def batch_norm_with_weight_and_bias():
    """torch's default batch norm: the importer gives it a scale layer."""
    description = describe("vgg-small", width=0.125)
    layers = []
    for layer in description["layers"]:
        layers.append(dict(layer, inputs=[name + ".scale" if name.startswith("bn") else name for name in layer["inputs"]]))
        if layer["op"] == "batch_norm":
            layers.append({"name": layer["name"] + ".scale", "op": "scale", "inputs": [layer["name"]], "bias": True})
    network = hwgq_torch.Network(dict(description, layers=layers))
    randomize(network, 4)
    write_plain({name.replace(".scale", ""): value for name, value in network.state_dict().items()}, path("state"))
    import_model(path("state"), path("model"), "--network", "vgg-small", "--width", "0.125", *PIXELS)
    compare(network, path("model"), PREPROCESS[3])


import training  # noqa: E402, F401: adds its tests

if __name__ == "__main__":
    sys.exit(main())
