"""The PyTorch twin of libhwgq: builds any network from the engine's own description, computes what the engine computes,
trains it, and writes a state_dict that `hwgq import safetensors` turns into a model.

    description = hwgq_torch.describe("resnet-18", classes=10)      # or read_description("net.json" or "model.hwgq")
    network = hwgq_torch.Network(description)                       # an nn.Module; scores = network(images)
    ...                                                             # train: hwgq_torch.loss, hwgq_torch.clamp_latent
    hwgq_torch.export(network, "state.safetensors")

Needs torch and numpy only. One module per layer of the description (format: engine/network_json.c), under the layer's name,
so the names of a state_dict are the names that the importer looks for. All tensors are N,C,H,W; a linear layer makes C,1,1.
"""
import json
import struct
import subprocess

import numpy
import torch
import torch.nn.functional as F
from torch import nn

BACKWARDS = ("clipped", "vanilla", "log-tailed")


def float32(value):
    """The description's numbers are float32; JSON has their shortest decimal forms."""
    return float(numpy.float32(value))


def pair(value):
    return tuple(value) if isinstance(value, list) else (value, value)


# ---- forward and backward of the quantized functions -----------------------------------------------------------------


class QuantizeFunction(torch.autograd.Function):
    """The level is the number of thresholds that x is above (equality goes to the lower level). Backward: the derivative of
    what q(x) resembles, with q_m the highest center:
      vanilla      1 for x > 0
      clipped      1 for 0 < x <= q_m
      log-tailed   1 for 0 < x <= q_m, 1 / (x - tau) beyond, tau = q_m - 1"""

    @staticmethod
    def forward(ctx, x, thresholds, values, highest, backward):
        ctx.save_for_backward(x)
        ctx.highest, ctx.backward_kind = highest, backward
        y = torch.zeros_like(x)
        for threshold, value in zip(thresholds, values[1:]):
            y = torch.where(x > threshold, value, y)
        return y

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        highest = ctx.highest
        slope = (x > 0).to(gradient.dtype)
        if ctx.backward_kind == "clipped":
            slope = slope * (x <= highest)
        elif ctx.backward_kind == "log-tailed":
            slope = torch.where(x > highest, 1 / (x - (highest - 1)).clamp(min=1), slope)
        return gradient * slope, None, None, None, None


class SignFunction(torch.autograd.Function):
    """+1 for x >= 0, else -1; backward as hard tanh: 1 for |x| <= 1."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() <= 1)


class BinarizeFunction(torch.autograd.Function):
    """+1 for w >= 0 (both zeros too), else -1, times alpha: the mean of |w| over an output channel, as a float32. Backward:
    straight through."""

    @staticmethod
    def forward(ctx, weight, has_alpha):
        sign = torch.where(weight >= 0, torch.ones_like(weight), -torch.ones_like(weight))
        if not has_alpha:
            return sign
        alpha = weight.abs().double().flatten(1).mean(1).float().to(weight.dtype)
        return sign * alpha.view(-1, *[1] * (weight.dim() - 1))

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


# ---- layers ----------------------------------------------------------------------------------------------------------


class Quantize(nn.Module):
    def __init__(self, centers, thresholds, backward="clipped"):
        super().__init__()
        if backward not in BACKWARDS:
            raise ValueError("backward is one of " + ", ".join(BACKWARDS))
        self.highest, self.backward_kind = float32(centers[-1]), backward
        values = [0.0] + [float32(c) for c in centers]
        # Rounded multiples of the first center stand for the multiples, which in double precision are others.
        self.multiples = all(value == float32(k * values[1]) for k, value in enumerate(values))
        # Not part of a state_dict: they belong to the description.
        self.register_buffer("values", torch.tensor(values), persistent=False)
        self.register_buffer("thresholds", torch.tensor([float32(t) for t in thresholds]), persistent=False)

    def forward(self, x):
        values = self.values[1] * torch.arange(len(self.values), device=x.device) if self.multiples else self.values
        return QuantizeFunction.apply(x, self.thresholds, values, self.highest, self.backward_kind)


class Sign(nn.Module):
    def forward(self, x):
        return SignFunction.apply(x)


class Weighted(nn.Module):
    """What convolutions and linear layers share. Weights of a binary layer are latent floats."""

    def __init__(self, shape, binary, has_alpha, has_bias):
        super().__init__()
        self.binary, self.has_alpha = binary, has_alpha
        bound = 1 / numpy.sqrt(numpy.prod(shape[1:]))
        self.weight = nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if has_bias else None

    def effective(self):
        return BinarizeFunction.apply(self.weight, self.has_alpha) if self.binary else self.weight


class Conv2d(Weighted):
    def __init__(self, in_channels, out_channels, kernel, stride, pad, groups, **kind):
        super().__init__((out_channels, in_channels // groups, *kernel), **kind)
        self.stride, self.pad, self.groups = stride, pad, groups

    def forward(self, x):
        return F.conv2d(x, self.effective(), self.bias, self.stride, self.pad, groups=self.groups)


class Linear(Weighted):
    """Takes C,H,W in that order, whatever its shape."""

    def __init__(self, shape, out_channels, **kind):
        super().__init__((out_channels, int(numpy.prod(shape))), **kind)
        self.in_channels = shape[0]

    def forward(self, x):
        return F.linear(x.flatten(1), self.effective(), self.bias)[:, :, None, None]


class BatchNorm(nn.BatchNorm2d):
    """Without weight and bias: those are a scale layer of their own where a network has them."""

    def __init__(self, channels, eps):
        super().__init__(channels, eps=eps, momentum=0.1, affine=False)

    def forward(self, x):
        if self.training:  # what follows compares with thresholds, also where convolutions answer in bfloat16
            return super().forward(x.float() if x.dtype == torch.bfloat16 else x)
        shape = (1, -1, 1, 1)
        return (x - self.running_mean.view(shape)) / torch.sqrt(self.running_var + self.eps).view(shape)


class Scale(nn.Module):
    def __init__(self, channels, has_bias):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if has_bias else None

    def forward(self, x):
        y = x * self.weight.view(1, -1, 1, 1)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)


def pooled_size(size, kernel, stride, pad):
    """Rounds up; a last window that starts at or beyond size + pad is dropped."""
    out = -(-(size + 2 * pad - kernel) // stride) + 1
    return out - 1 if out > 1 and (out - 1) * stride >= size + pad else out


class Pool(nn.Module):
    """max: padding is ignored. avg: the divisor counts a window's cells up to size + pad, padding included."""

    def __init__(self, kind, kernel, stride, pad, whole):
        super().__init__()
        self.kind, self.kernel, self.stride, self.pad, self.whole = kind, kernel, stride, pad, whole

    def forward(self, x):
        size = x.shape[2:]
        kernel, stride, pad = (tuple(size), (1, 1), (0, 0)) if self.whole else (self.kernel, self.stride, self.pad)
        out = [pooled_size(size[i], kernel[i], stride[i], pad[i]) for i in range(2)]
        after = [(out[i] - 1) * stride[i] + kernel[i] - size[i] - pad[i] for i in range(2)]
        padding = (pad[1], after[1], pad[0], after[0])
        if self.kind == "max_pool":
            return F.max_pool2d(F.pad(x, padding, value=float("-inf")), kernel, stride)
        sums = F.avg_pool2d(F.pad(x, padding), kernel, stride, divisor_override=1)
        rows, columns = ([min(kernel[i], size[i] + pad[i] - (o * stride[i] - pad[i])) for o in range(out[i])] for i in range(2))
        return sums / (x.new_tensor(rows)[:, None] * x.new_tensor(columns)[None, :])


class Add(nn.Module):
    def __init__(self, coefficients):
        super().__init__()
        self.coefficients = coefficients

    def forward(self, *inputs):
        return sum(c * x for c, x in zip(self.coefficients, inputs))


class Concat(nn.Module):
    def forward(self, *inputs):
        return torch.cat(inputs, 1)


class Flatten(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :, None, None]


class Softmax(nn.Module):
    def forward(self, x):
        return F.softmax(x, 1)


# ---- a network from its description ----------------------------------------------------------------------------------

KEYS = {
    "conv2d": {"out_channels", "kernel", "stride", "pad", "groups", "binary", "alpha", "bias"},
    "linear": {"out_channels", "binary", "alpha", "bias"},
    "quantize": {"sign", "centers", "thresholds"},
    "batch_norm": {"eps"},
    "scale": {"bias"},
    "relu": set(),
    "max_pool": {"kernel", "stride", "pad", "global"},
    "avg_pool": {"kernel", "stride", "pad", "global"},
    "add": {"coefficients"},
    "concat": set(),
    "flatten": set(),
    "softmax": set(),
}


def make_layer(layer, shapes, backward):
    """The module of one layer, from its description and the shapes (C,H,W) of its inputs."""
    op, channels = layer["op"], shapes[0][0]
    unknown = layer.keys() - KEYS.get(op, set()) - {"name", "op", "inputs"}
    if op not in KEYS or unknown:
        raise ValueError(f"layer '{layer['name']}': {op} {sorted(unknown)} is not known here")
    kind = dict(binary=layer.get("binary", False), has_alpha=layer.get("alpha", False), has_bias=layer.get("bias", False))
    window = [pair(layer.get("kernel", 1)), pair(layer.get("stride", 1)), pair(layer.get("pad", 0))]
    if op == "conv2d":
        return Conv2d(channels, layer["out_channels"], *window, layer.get("groups", 1), **kind)
    if op == "linear":
        return Linear(shapes[0], layer["out_channels"], **kind)
    if op == "quantize":
        return Sign() if layer.get("sign") else Quantize(layer["centers"], layer["thresholds"], backward)
    if op == "batch_norm":
        return BatchNorm(channels, float32(layer.get("eps", 1e-5)))
    if op == "scale":
        return Scale(channels, kind["has_bias"])
    if op in ("max_pool", "avg_pool"):
        return Pool(op, *window, layer.get("global", False))
    if op == "add":
        return Add([float32(c) for c in layer.get("coefficients", [1] * len(shapes))])
    return {"relu": nn.ReLU, "concat": Concat, "flatten": Flatten, "softmax": Softmax}[op]()


class Network(nn.Module):
    """backward: the quantizer's derivative, one of BACKWARDS."""

    def __init__(self, description, backward="clipped"):
        super().__init__()
        self.description = description
        self.steps = []  # (name, inputs); the modules are found by name, so that copies of this network use their own
        values = {"input": torch.zeros(1, *description["input"])}
        with torch.no_grad():
            for layer in description["layers"]:
                inputs = [values[name] for name in layer["inputs"]]
                module = make_layer(layer, [tuple(x.shape[1:]) for x in inputs], backward).eval()
                self._attach(layer["name"], module)
                self.steps.append((layer["name"], layer["inputs"]))
                values[layer["name"]] = module(*inputs)
        self.last_use = {name: i for i, (_, inputs) in enumerate(self.steps) for name in inputs}
        self.train()

    def _attach(self, name, module):
        """A dot in a layer's name makes a module inside another: the state_dict's names stay the layer's."""
        owner = self
        *path, last = name.split(".")
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner._modules[part]
        before = owner._modules.pop(last, None)  # "stem" after "stem.conv"
        for child, inner in before.named_children() if before is not None else ():
            module.add_module(child, inner)
        owner.add_module(last, module)

    def _run(self, x, count, keep):
        values = {"input": x}
        for i, (name, inputs) in enumerate(self.steps[:count]):
            values[name] = self.get_submodule(name)(*[values[key] for key in inputs])
            for key in inputs:
                if not keep and self.last_use[key] == i:
                    values.pop(key, None)
        return values

    def activations(self, x):
        """Every layer's output by name, "input" included."""
        return self._run(x, len(self.steps), True)

    def logits(self, x):
        """[N, classes]: what the softmax at the end takes."""
        name, inputs = self.steps[-1]
        if self.description["layers"][-1]["op"] != "softmax":
            raise ValueError(f"the last layer, '{name}', is not a softmax")
        return self._run(x, len(self.steps) - 1, False)[inputs[0]].flatten(1)

    def forward(self, x):
        """The scores, [N, classes]."""
        return self._run(x, len(self.steps), False)[self.steps[-1][0]].flatten(1)


def loss(network, images, labels):
    """Mean cross-entropy."""
    return F.cross_entropy(network.logits(images), labels)


@torch.no_grad()
def clamp_latent(network):
    """To be called after every step of an optimizer: latent weights stay within [-1, 1]."""
    for module in network.modules():
        if isinstance(module, Weighted) and module.binary:
            module.weight.clamp_(-1, 1)


# ---- descriptions ----------------------------------------------------------------------------------------------------


def answer(command):
    """The JSON that a program prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise ValueError(done.stderr.strip())
    return json.loads(done.stdout)


def describe(name, hwgq="hwgq", **options):
    """The description of a network of the paper, from the `hwgq` program: describe("vgg-small", width=0.5, bits=2).
    Options: `hwgq describe --help`, with _ for -."""
    command = [hwgq, "describe", name]
    for key, value in options.items():
        option = "--" + key.replace("_", "-")
        if value is True:
            command.append(option)
        elif value is not None and value is not False:
            command += [option, str(value)]
    return answer(command)


def best_step(level_count, zero="0", hwgq="hwgq"):
    """The step of the uniform quantizer with the least squared error for N(0,1). zero: "0" or "half"."""
    return answer([hwgq, "quantizer", "--uniform", "--levels", str(level_count), "--zero", zero, "--json"])["centers"][0]


def read_header(path):
    """The header of a safetensors (or .hwgq) file, and where its data starts."""
    with open(path, "rb") as file:
        start = file.read(8)
        (length,) = struct.unpack("<Q", start) if len(start) == 8 else (0,)
        if not 2 <= length <= 16 << 20:
            raise ValueError(f"{path}: not a safetensors file")
        return json.loads(file.read(length)), 8 + length


def read_description(path):
    """From a JSON file (`hwgq describe NETWORK > FILE`), a .hwgq model or a file of export()."""
    with open(path, "rb") as file:
        if file.read(1) == b"{":
            file.seek(0)
            return json.load(file)
    header, _ = read_header(path)
    if "network" not in header.get("__metadata__", {}):
        raise ValueError(f"{path}: its metadata has no network description")
    return json.loads(header["__metadata__"]["network"])


# ---- files -----------------------------------------------------------------------------------------------------------


def export(network, path, preprocess=None, labels=None, provenance=None):
    """Writes what `hwgq import safetensors PATH -o OUT.hwgq` reads: the state_dict as F32 safetensors, with the description
    and, when given, in the forms of a .hwgq file:
      preprocess   {"order": "rgb"|"bgr"|"gray", "mean": [..], "scale": [..]}: the network's input is (pixel - mean) * scale
      labels       one name per class
      provenance   a dictionary: how it was trained"""
    metadata = {"format": "pt", "network": json.dumps(network.description)}
    for key, value in (("preprocess", preprocess), ("labels", labels), ("provenance", provenance)):
        if value is not None:
            metadata[key] = json.dumps(value)
    write_tensors(path, network.state_dict(), metadata)


def write_tensors(path, tensors, metadata):
    """A safetensors file of F32 tensors; those of num_batches_tracked are left out."""
    header, arrays, position = {"__metadata__": metadata}, [], 0
    for name, tensor in tensors.items():
        if name.endswith(".num_batches_tracked"):
            continue
        array = numpy.ascontiguousarray(tensor.detach().cpu().numpy().astype("<f4"))
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [position, position + array.nbytes]}
        position += array.nbytes
        arrays.append(array)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays:
            file.write(array.tobytes())


def load(network, path):
    """Reads the tensors of a file of export() into a network of the same description."""
    header, start = read_header(path)
    data = numpy.fromfile(path, dtype=numpy.uint8)[start:]
    state = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise ValueError(f"{path}: tensor '{name}' is {entry['dtype']}, not F32")
        begin, end = entry["data_offsets"]
        state[name] = torch.from_numpy(data[begin:end].view("<f4").reshape(entry["shape"]).copy())
    load_state(network, state, path)


def load_state(network, state, path):
    """A state_dict from the file `path`."""
    missing, surplus = network.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith(".num_batches_tracked")]
    if missing or surplus:
        raise ValueError(f"{path}: not a file of this network; missing: {missing}, surplus: {surplus}")
