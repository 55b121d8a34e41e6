"""Trains a network with PyTorch, on CUDA when there is one, as `hwgq train` does on the CPU, and writes a state_dict:

    python3 train.py vgg-small cifar10.tar.xz -o cifar10.safetensors
    hwgq import safetensors cifar10.safetensors -o cifar10.hwgq
"""
import argparse
import copy
import math
import os
import shutil
import sys
import time

import numpy
import torch
import torch.nn.functional as F

import hwgq_torch
from augment import augment
from data import read_images

# The options of models/tool/train_presets.c that differ from the defaults.
PAPER = {"optimizer": "sgd", "momentum": 0.9, "warmup": 0, "classifier_rate": 1, "scale": [1]}
IMAGENET = {**PAPER, "order": "bgr", "mean": [104, 117, 123], "resize": 256, "pad": 16, "batch": 256, "epochs": 64}
PRESETS = {
    "plain": {},
    "shipped": {"zero": "half", "affine": "yes", "zoom": 0.1},
    "paper-cifar": {**PAPER, "lr": 0.01, "weight_decay": 0.0005, "epochs": 200},
    "paper-alexnet": {**IMAGENET, "lr": 0.02, "weight_decay": 0.0005},
    "paper-vgg": {**IMAGENET, "lr": 0.01, "weight_decay": 0.0005},
    "paper-resnet": {**IMAGENET, "lr": 0.1, "weight_decay": 0.00005},
}


def numbers(text):
    """"1/64" or "125.3,123,113.9"."""
    values = []
    for part in text.split(","):
        above, _, below = part.partition("/")
        values.append(float(above) / float(below or 1))
    return values


def parse(arguments):
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                epilog="Options of the network: see `hwgq describe`; of the recipe: `hwgq train`.")
    p.add_argument("network", help="a name, such as vgg-small, or a file with a description: JSON, .hwgq or .safetensors")
    p.add_argument("data", help="folder or archive with train/CLASS/IMAGE, IDX files, or CIFAR-10 binary batches")
    p.add_argument("-o", "--output", required=True, metavar="STATE.safetensors")
    p.add_argument("--hwgq", help="the hwgq program (default: on the path, else of this repository's build)")
    p.add_argument("--preset", choices=PRESETS, default="plain", help="options to start from, which others change")
    for name, kind in (("width", float), ("bits", int), ("level-count", int), ("levels", str), ("zero", str), ("step", float),
                       ("weights", str), ("affine", str), ("input", str)):
        p.add_argument("--" + name, type=kind)
    p.add_argument("--sign", action="store_true", help="activations are -1 and +1")
    p.add_argument("--backward", choices=hwgq_torch.BACKWARDS, default="clipped", help="the quantizer's derivative")
    p.add_argument("--epochs", type=int, default=30)
    p.add_argument("--batch", type=int, default=100)
    p.add_argument("--optimizer", choices=("adam", "sgd"), default="adam")
    p.add_argument("--lr", type=float, default=0.003)
    p.add_argument("--classifier-rate", type=float, default=0.1, help="factor on it in float linear layers")
    p.add_argument("--momentum", type=float, default=0.9)
    p.add_argument("--weight-decay", type=float, default=0)
    p.add_argument("--schedule", choices=("poly", "cosine", "constant"), default="poly")
    p.add_argument("--power", type=float, default=1, help="of poly: rate * (1 - progress)^power after the warm-up")
    p.add_argument("--warmup", type=float, default=0.05, help="share of all steps in which the rate rises from 0")
    p.add_argument("--label-smoothing", type=float, default=0, help="share of a label that goes to all classes alike")
    p.add_argument("--teacher", metavar="STATE.safetensors", help="learn from this network's answers too (see export)")
    p.add_argument("--distill-weight", type=float, default=0.5, help="share of the loss that is the teacher's")
    p.add_argument("--distill-temperature", type=float, default=2, help="divides both networks' class scores there")
    p.add_argument("--average", type=float, default=0, help="share of the average of the weights that each step keeps")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--mirror", choices=("yes", "no"), default="yes")
    p.add_argument("--pad", type=int, default=4, help="shift by up to so many pixels each way")
    p.add_argument("--zoom", type=float, default=0, help="enlarge or shrink by a factor of up to 1 + Z")
    p.add_argument("--aspect", type=float, default=0, help="stretch one side by a factor of up to 1 + A")
    p.add_argument("--crop", type=float, default=0, help="cut away up to this share of each side, enlarge the rest")
    p.add_argument("--cutout", type=int, default=0, help="set a square of N pixels a side to the mean")
    p.add_argument("--mean", type=numbers, help="default: that of the training images, in whole numbers")
    p.add_argument("--scale", type=numbers, default=[1 / 64])
    p.add_argument("--order", choices=("rgb", "bgr", "gray"))
    p.add_argument("--resize", type=int, default=0)
    p.add_argument("--invert", action="store_true", help="255 - pixel first")
    p.add_argument("--limit", type=int, default=0, help="use the first N images only, spread over the classes")
    p.add_argument("--start", metavar="STATE.safetensors", help="weights to begin with")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen, _ = p.parse_known_args(arguments)
    p.set_defaults(**PRESETS[chosen.preset])
    return p.parse_args(arguments)


def find_hwgq(given):
    build = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../build/release/hwgq")
    return given or shutil.which("hwgq") or build


def describe(options, classes):
    if os.path.exists(options.network):
        return hwgq_torch.read_description(options.network)
    chosen = {key: getattr(options, key) for key in ("width", "bits", "level_count", "levels", "zero", "step", "weights",
                                                     "affine", "input", "sign")}
    if options.zero == "half" and not options.step and options.levels in (None, "uniform"):
        levels = options.level_count or 2 ** (options.bits or 2) - 1
        chosen["step"] = hwgq_torch.best_step(levels, "half", find_hwgq(options.hwgq))
    return hwgq_torch.describe(options.network, find_hwgq(options.hwgq), classes=classes, **chosen)


# ---- batches ---------------------------------------------------------------------------------------------------------


class Batches:
    """Images on the device, and batches of them as the network's input."""

    def __init__(self, images, preprocess, device):
        self.pixels = torch.from_numpy(images.pixels).permute(0, 3, 1, 2).contiguous().to(device)
        self.labels = torch.from_numpy(images.labels).to(device)
        self.mean, self.scale = (torch.tensor(preprocess[key], device=device).view(1, -1, 1, 1) for key in ("mean", "scale"))

    def __len__(self):
        return len(self.labels)

    def get(self, which):
        return (self.pixels[which].float() - self.mean) * self.scale, self.labels[which]


# ---- the recipe ------------------------------------------------------------------------------------------------------


def rate(options, step, steps):
    """As optimizer_rate of models/train/optimizer.c."""
    warm = options.warmup * steps
    if step < warm:
        return options.lr * (step + 1) / (warm + 1)
    progress = (step - warm) / (steps - warm)
    if options.schedule == "constant":
        return options.lr
    if options.schedule == "cosine":
        return options.lr * (1 + math.cos(math.pi * progress)) / 2
    return options.lr * (1 - progress) ** options.power


def make_optimizer(options, network):
    """Groups whose "factor" multiplies the rate."""
    groups = {}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            classifier = isinstance(module, hwgq_torch.Linear) and not module.binary
            decay = options.weight_decay if isinstance(module, hwgq_torch.Weighted) and name == "weight" else 0
            groups.setdefault((options.classifier_rate if classifier else 1, decay), []).append(parameter)
    groups = [{"params": found, "factor": factor, "weight_decay": decay} for (factor, decay), found in groups.items()]
    if options.optimizer == "adam":
        return torch.optim.Adam(groups, lr=options.lr)
    return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)


def objective(options, logits, labels, teacher):
    """Cross-entropy with smoothed labels; teacher: its logits, or None. The teacher's part is its cross-entropy at the
    temperature, times the temperature's square."""
    value = F.cross_entropy(logits, labels, label_smoothing=options.label_smoothing)
    if teacher is None:
        return value
    t, share = options.distill_temperature, options.distill_weight
    return (1 - share) * value + share * t * t * F.cross_entropy(logits / t, F.softmax(teacher / t, 1))


class Average:
    """A copy of the network whose parameters are the average of those of its steps, which keeps a share `decay` each."""

    def __init__(self, network, decay):
        self.network, self.decay, self.count = copy.deepcopy(network), decay, 0

    @torch.no_grad()
    def add(self, network):
        keep = 0 if self.count < 1 else min(self.decay, (1 + self.count) / (10 + self.count))
        for mine, other in zip(self.network.parameters(), network.parameters()):
            mine.lerp_(other, 1 - keep)
        self.count += 1

    @torch.no_grad()
    def measure(self, batches):
        """Its own batch statistics: the mean over the batches."""
        norms = [m for m in self.network.modules() if isinstance(m, hwgq_torch.BatchNorm)]
        self.network.train()
        for i, (x, _) in enumerate(batches):
            for norm in norms:
                norm.momentum = 1 / (i + 1)
            self.network.logits(x)


@torch.no_grad()
def accuracy(network, batches, size):
    network.eval()
    right = 0
    for first in range(0, len(batches), size):
        x, labels = batches.get(slice(first, first + size))
        right += (network.logits(x).argmax(1) == labels).sum().item()
    network.train()
    return right / len(batches)


def train(options, network, training, test, save, teacher=None):
    """Calls save(network, accuracy or None) after every epoch."""
    size = min(options.batch, len(training))
    per_epoch = len(training) // size
    steps, step, optimizer = per_epoch * options.epochs, 0, make_optimizer(options, network)
    average = Average(network, options.average) if options.average else None
    changes = {key: getattr(options, key) for key in ("pad", "zoom", "aspect", "crop", "cutout")}

    def batch(i):
        x, labels = training.get(order[i * size:(i + 1) * size])
        return augment(x, options.mirror == "yes", **changes), labels

    for epoch in range(options.epochs):
        start, total, right = time.time(), 0.0, 0
        order = torch.randperm(len(training)).to(training.labels.device)
        for i in range(per_epoch):
            x, labels = batch(i)
            for group in optimizer.param_groups:
                group["lr"] = group["factor"] * rate(options, step, steps)
            optimizer.zero_grad()
            logits = network.logits(x)
            with torch.no_grad():
                answers = teacher.logits(x) if teacher else None
            value = objective(options, logits, labels, answers)
            value.backward()
            optimizer.step()
            hwgq_torch.clamp_latent(network)
            if average:
                average.add(network)
            total, right, step = total + value.detach(), right + (logits.argmax(1) == labels).sum(), step + 1
        seen, seconds = per_epoch * size, time.time() - start
        if average:
            average.measure(batch(i) for i in range(min(100, per_epoch)))
        final = average.network if average else network
        result = accuracy(final, test, size) if test else None
        print(f"epoch {epoch + 1}/{options.epochs}: loss {float(total) / per_epoch:.4f}, training accuracy "
              f"{100 * float(right) / seen:.2f} %" + (f", test accuracy {100 * result:.2f} %" if test else "")
              + f", {seen / seconds:.0f} images/s", flush=True)
        save(final, result)


def main(arguments):
    options = parse(arguments)
    torch.manual_seed(options.seed)
    # The input's shape decides how images are read; the number of classes is known after that.
    shape = describe(options, None)["input"]
    preprocess = {"order": options.order or ("gray" if shape[0] == 1 else "rgb"), "resize": options.resize,
                  "invert": options.invert}
    images = read_images(options.data, "train", shape, preprocess, options.limit)
    test_images = read_images(options.data, "test", shape, preprocess, options.limit)
    if test_images and test_images.classes != images.classes:
        raise ValueError(f"{options.data}: training and test images have different classes")
    classes = len(images.classes) if images.classes else int(images.labels.max()) + 1
    labels = images.classes or [str(i) for i in range(classes)]
    mean = options.mean or images.pixels.reshape(-1, shape[0]).mean(0, dtype=numpy.float64).round().tolist()
    for key, values in (("mean", mean), ("scale", options.scale)):
        preprocess[key] = [hwgq_torch.float32(v) for v in (values * shape[0] if len(values) == 1 else values)]
        if len(preprocess[key]) != shape[0]:
            raise ValueError(f"--{key} takes one number or one per channel")
    network = hwgq_torch.Network(describe(options, classes), options.backward)
    if options.start:
        hwgq_torch.load(network, options.start)
    network.to(options.device)
    training = Batches(images, preprocess, options.device)
    test = Batches(test_images, preprocess, options.device) if test_images else None
    print(f"{network.description['name']}: {len(training)} images of {classes} classes, on {options.device}", flush=True)

    def save(network, result):
        unsaid = ("output", "hwgq", "device", "data", "start", "preset", "teacher")
        recipe = {key: value for key, value in vars(options).items() if key not in unsaid and value is not None}
        provenance = {"trainer": "torch " + torch.__version__, "data": os.path.basename(options.data.rstrip("/")),
                      "recipe": recipe, "test_accuracy": result}
        hwgq_torch.export(network, options.output + ".new", preprocess, labels, provenance)
        os.replace(options.output + ".new", options.output)

    teacher = None
    if options.teacher:
        teacher = hwgq_torch.Network(hwgq_torch.read_description(options.teacher))
        hwgq_torch.load(teacher, options.teacher)
        if teacher.description["input"] != shape or teacher.classes() != classes:
            raise ValueError(f"{options.teacher}: a teacher must take the same images ({shape}) and know the same {classes} classes")
        teacher.to(options.device).eval()
    train(options, network, training, test, save, teacher)
    print(f"written: {options.output}\nnext:    hwgq import safetensors {options.output} -o MODEL.hwgq")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"train.py: {error}")
