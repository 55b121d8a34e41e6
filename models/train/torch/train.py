"""Trains a network with PyTorch, on CUDA when there is one, as `hwgq train` does on the CPU, and writes a state_dict:

    python3 train.py vgg-small cifar10.tar.xz -o cifar10.safetensors
    hwgq import safetensors cifar10.safetensors -o cifar10.hwgq
"""
import argparse
import os
import shutil
import sys
import time

import numpy
import torch
import torch.nn.functional as F

import hwgq_torch
from data import read_images


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
    for name, kind in (("width", float), ("bits", int), ("level-count", int), ("levels", str), ("zero", str), ("step", float),
                       ("input", str)):
        p.add_argument("--" + name, type=kind)
    p.add_argument("--sign", action="store_true", help="activations are -1 and +1")
    p.add_argument("--backward", choices=hwgq_torch.BACKWARDS, default="clipped", help="the quantizer's derivative")
    p.add_argument("--epochs", type=int, default=30)
    p.add_argument("--batch", type=int, default=100)
    p.add_argument("--optimizer", choices=("adam", "sgd"), default="adam")
    p.add_argument("--lr", type=float, default=0.003)
    p.add_argument("--momentum", type=float, default=0.9)
    p.add_argument("--weight-decay", type=float, default=0)
    p.add_argument("--power", type=float, default=1, help="rate * (1 - progress)^power after the warm-up")
    p.add_argument("--warmup", type=float, default=0.05, help="share of all steps in which the rate rises from 0")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--mirror", choices=("yes", "no"), default="yes")
    p.add_argument("--pad", type=int, default=4, help="shift by up to so many pixels each way")
    p.add_argument("--mean", type=numbers, help="default: the mean of the training images")
    p.add_argument("--scale", type=numbers, default=[1 / 64])
    p.add_argument("--order", choices=("rgb", "bgr", "gray"))
    p.add_argument("--resize", type=int, default=0)
    p.add_argument("--invert", action="store_true", help="255 - pixel first")
    p.add_argument("--limit", type=int, default=0, help="use the first N images only, spread over the classes")
    p.add_argument("--start", metavar="STATE.safetensors", help="weights to begin with")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return p.parse_args(arguments)


def find_hwgq(given):
    build = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../build/release/hwgq")
    return given or shutil.which("hwgq") or build


def describe(options, classes):
    if os.path.exists(options.network):
        return hwgq_torch.read_description(options.network)
    chosen = {key: getattr(options, key) for key in ("width", "bits", "level_count", "levels", "zero", "step", "input", "sign")}
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

    def augmented(self, which, mirror, pad):
        """Mirrored half of the time, and shifted; what comes in at a border is 0, the mean."""
        x, labels = self.get(which)
        count, _, height, width = x.shape
        if mirror:
            x = torch.where(torch.rand(count, 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)
        if pad:
            x = F.pad(x, (pad, pad, pad, pad))
            top, left = torch.randint(0, 2 * pad + 1, (2, count, 1), device=x.device)
            rows, columns = (start + torch.arange(size, device=x.device) for start, size in ((top, height), (left, width)))
            batch = torch.arange(count, device=x.device)[:, None, None]
            x = x.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return x, labels


def rate(options, step, steps):
    warm = options.warmup * steps
    if step < warm:
        return options.lr * (step + 1) / (warm + 1)
    return options.lr * ((steps - step) / (steps - warm)) ** options.power


def make_optimizer(options, network):
    decayed = [m.weight for m in network.modules() if isinstance(m, hwgq_torch.Weighted)]
    others = [p for p in network.parameters() if not any(p is d for d in decayed)]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}] + ([{"params": others}] if others else [])
    if options.optimizer == "adam":
        return torch.optim.Adam(groups, lr=options.lr)
    return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)


@torch.no_grad()
def accuracy(network, batches, size):
    network.eval()
    right = 0
    for first in range(0, len(batches), size):
        x, labels = batches.get(slice(first, first + size))
        right += (network.logits(x).argmax(1) == labels).sum().item()
    network.train()
    return right / len(batches)


def train(options, network, training, test, save):
    """Calls save(accuracy or None) after every epoch."""
    size = min(options.batch, len(training))
    per_epoch = len(training) // size
    steps, step, optimizer = per_epoch * options.epochs, 0, make_optimizer(options, network)
    for epoch in range(options.epochs):
        start, total, right = time.time(), 0.0, 0
        order = torch.randperm(len(training)).to(training.labels.device)
        for i in range(per_epoch):
            x, labels = training.augmented(order[i * size:(i + 1) * size], options.mirror == "yes", options.pad)
            for group in optimizer.param_groups:
                group["lr"] = rate(options, step, steps)
            optimizer.zero_grad()
            logits = network.logits(x)
            value = F.cross_entropy(logits, labels)
            value.backward()
            optimizer.step()
            hwgq_torch.clamp_latent(network)
            total, right, step = total + value.detach(), right + (logits.argmax(1) == labels).sum(), step + 1
        seen = per_epoch * size
        result = accuracy(network, test, size) if test else None
        print(f"epoch {epoch + 1}/{options.epochs}: loss {float(total) / per_epoch:.4f}, training accuracy "
              f"{100 * float(right) / seen:.2f} %" + (f", test accuracy {100 * result:.2f} %" if test else "")
              + f", {seen / (time.time() - start):.0f} images/s", flush=True)
        save(result)


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
    mean = options.mean or images.pixels.reshape(-1, shape[0]).mean(0, dtype=numpy.float64).tolist()
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

    def save(result):
        unsaid = ("output", "hwgq", "device", "data", "start")
        recipe = {key: value for key, value in vars(options).items() if key not in unsaid and value is not None}
        provenance = {"trainer": "torch " + torch.__version__, "data": os.path.basename(options.data.rstrip("/")),
                      "recipe": recipe, "test_accuracy": result}
        hwgq_torch.export(network, options.output + ".new", preprocess, labels, provenance)
        os.replace(options.output + ".new", options.output)

    train(options, network, training, test, save)
    print(f"written: {options.output}\nnext:    hwgq import safetensors {options.output} -o MODEL.hwgq")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"train.py: {error}")
