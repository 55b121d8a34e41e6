"""What the tests of the twin share. Arguments of the program: BUILD_DIR FOLDER."""
import os
import subprocess
import sys

import numpy
import torch

TWIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/train/torch")
sys.path.insert(0, TWIN)
import hwgq_torch  # noqa: E402

BUILD, FOLDER = sys.argv[1:3]
HWGQ = os.path.join(BUILD, "hwgq")
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def path(name):
    return os.path.join(FOLDER, name)


def run(*arguments, fails=False):
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert (done.returncode != 0) == fails, f"{' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stderr if fails else done.stdout


def describe(name, **options):
    return hwgq_torch.describe(name, HWGQ, **options)


def image(shape, seed):
    """HWC pixels with structure, so that activations differ between places."""
    random = numpy.random.default_rng(seed)
    c, h, w = shape
    waves = sum(numpy.sin(numpy.outer(numpy.arange(h), numpy.ones(w)) * random.uniform(0, 1)
                          + numpy.outer(numpy.ones(h), numpy.arange(w)) * random.uniform(0, 1)) for _ in range(3))
    pixels = 128 + 30 * waves[:, :, None] + random.normal(0, 25, (h, w, c))
    return pixels.clip(0, 255).astype(numpy.uint8)


def write_idx(folder, counts, make, classes=3):
    """A folder of IDX files; make(label, number): a gray image. counts: of training and test images."""
    os.makedirs(folder, exist_ok=True)
    for start, count, first in (("train", counts[0], 0), ("t10k", counts[1], 1000)):
        labels = numpy.arange(count) % classes
        pixels = numpy.stack([make(label, first + i) for i, label in enumerate(labels)])
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels.astype(numpy.uint8))):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            with open(os.path.join(folder, f"{start}-{kind}-ubyte"), "wb") as file:
                file.write(head + array.tobytes())
    return folder


def striped(label, seed, channels, size):
    """An image whose class is how wide its stripes are."""
    random = numpy.random.default_rng(seed)
    wave = numpy.sin((numpy.arange(size) + random.uniform(0, 9)) * (0.3 + 0.5 * label))
    pixels = 128 + 70 * wave[None, :, None] + random.normal(0, 20, (size, size, channels))
    return pixels.clip(0, 255).astype(numpy.uint8)


def main():
    torch.set_num_threads(1)
    failed = 0
    for function in TESTS:
        try:
            function()
            print("ok    ", function.__name__)
        except (Exception, SystemExit) as error:  # every test is tried
            failed += 1
            print("FAILED", function.__name__, "-", type(error).__name__, error)
    print(f"{len(TESTS) - failed} passed, {failed} failed")
    return 1 if failed else 0
