"""train.py against `hwgq train`: options, networks, changes of images, and whole runs step by step. In these a batch is all
images, so that an epoch is one step and the log tells each step's rate and loss; images are not changed, and both begin with
the same weights: nothing is left to chance."""
import contextlib
import io
import json
import math
import os
import re
import shlex
import sys
import tarfile

import numpy
import torch

from support import FOLDER, HWGQ, image, path, run, striped, test, write_idx
import augment
import checkpoint
import hwgq_torch
import options
import recipe
import train
import weights

AUGMENT = os.path.join(FOLDER, "augment")
ALIKE = ["--mirror", "no", "--pad", "0"]


def data():
    return write_idx(path("few"), (18, 9), lambda label, i: striped(label, i, 1, 28)[:, :, 0])


def color_data():
    """CIFAR-10's binary batches, of 20 and 10 images."""
    os.makedirs(path("color"), exist_ok=True)
    for number in range(6):
        name = "test_batch.bin" if number == 5 else f"data_batch_{number + 1}.bin"
        with open(os.path.join(path("color"), name), "wb") as file:
            for i in range(10 if number == 5 else 4):
                label = (4 * number + i) % 10
                file.write(bytes([label]) + striped(label / 3, 10 * number + i, 3, 32).transpose(2, 0, 1).tobytes())
    return path("color")


def images(name, **counts):
    """A folder of 28x28 images, so many of each split and class: images("some", train={"a": 2}). None without Pillow."""
    try:
        from PIL import Image
    except ImportError:
        print("SKIPPED: images in files: python3-pil is not installed")
        return None
    for split, classes in counts.items():
        for label, count in classes.items():
            os.makedirs(path(f"{name}/{split}/{label}"))
            for i in range(count):
                pixels = striped(len(label), i, 1, 28)[:, :, 0]
                Image.fromarray(pixels).save(path(f"{name}/{split}/{label}/{i}.jpg"))
    return path(name)


def engine(*arguments):
    """`hwgq train`, in float32."""
    return run(HWGQ, "train", *arguments, "--threads", "1", "--precision", "float32")


def twin(*arguments):
    """train.py. Returns the session."""
    with contextlib.redirect_stdout(io.StringIO()):
        return train.main(["--hwgq", HWGQ, "--device", "cpu", *arguments])


def refused(*arguments):
    """What train.py says against it."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            twin(*arguments)
        except (ValueError, OSError) as error:
            return str(error)
        except SystemExit:
            return said.getvalue()
    raise AssertionError(f"not refused: {arguments}")


def log(name):
    with open(path(name)) as file:
        return [json.loads(line) for line in file]


# ---- options and networks --------------------------------------------------------------------------------------------


@test
def options_of_the_trainer():
    """Every option that `hwgq train --help` names, with the default that it names."""
    entries = {}
    for entry in run(HWGQ, "train", "--help").split("\n  --")[1:]:
        name, said = re.split("[ ,\n]", entry, maxsplit=1)
        entries[name] = " ".join(said.split())
    only_there = {"precision", "report", "threads", "blas-core", "export-only"}
    parser, compared = options.make_parser(""), 0
    known = {action.dest for action in parser._actions}
    for name, said in entries.items():
        assert name in only_there or options.field(name) in known, f"--{name} is missing"
        default = re.findall(r"\(?default ([a-z0-9./-]+)", said)[-1:]
        own = options.RECIPE.get(name, (None, None))[1]
        if default and own is not None:
            own = own[0] if name == "scale" else own
            wanted = default[0] if isinstance(own, str) else options.fraction(default[0])
            assert own == wanted, f"--{name}: default {own}, `hwgq train` has {wanted}"
            compared += 1
    assert compared > 25, compared


@test
def presets():
    """A checkpoint of `hwgq train` names the preset's options."""
    for name, expected in options.PRESETS.items():
        few = ["--width", "0.001", "--no-test", "--limit", "3"] + ([] if "epochs" in expected else ["--epochs", "1"])
        engine("vgg-small", data(), "--checkpoint", path("preset"), "--preset", name, *few)
        metadata, _ = checkpoint.read_tensors(path("preset"))
        found = json.loads(metadata["recipe"])["options"]
        assert found.pop("preset") == name
        for key in ["network", "data", "precision", "width", "no-test", "limit"] + ["epochs", "mean"]:
            if key not in expected:  # the mean is that of the images
                found.pop(key)
        assert found == expected, f"preset {name}: {found}, not {expected}"


@test
def networks_of_the_trainer():
    cases = [["--zero", zero, "--levels", levels, *count] for zero in ("0", "half") for levels in ("uniform", "free")
             for count in (["--bits", "1"], [], ["--bits", "3"], ["--level-count", "2"])]
    cases += [["--levels", "relu"], ["--levels", "sign", "--affine", "yes"], ["--weights", "float", "--bits", "4"],
              ["--step", "0.4", "--affine", "yes"], ["--levels", "relu", "--weights", "float", "--affine", "yes"]]
    for case in cases:
        common = ["lenet", data(), "--width", "0.1", "--limit", "3", "--epochs", "1", *case]
        engine(*common, "--checkpoint", path("net"))
        metadata, _ = checkpoint.read_tensors(path("net"))
        chosen, _, _ = options.parse([*common, "-o", path("out"), "--hwgq", HWGQ], "", None)
        assert train.describe(chosen, 3) == json.loads(metadata["network"]), case


@test
def options_that_do_not_go_together():
    common = ["lenet", data(), "-o", path("out"), "--width", "0.1"]
    for case, said in ((["--bits", "2", "--level-count", "2"], "one of --bits"),
                       (["--levels", "relu", "--zero", "half"], "--zero goes with"),
                       (["--levels", "free", "--step", "0.5"], "--step goes with"),
                       (["--distill-weight", "0.5"], "--teacher MODEL"),
                       (["--average", "0.9", "--average-epochs", "2"], "not both"),
                       (["--crop", "0.99"], "does not lie in"),
                       (["--pad", "65"], "argument --pad: 65 does not lie in 0 to 64"),
                       (["--lr", "1/0"], "argument --lr: '1/0' is not a number"),
                       (["--lr", "1/"], "argument --lr: '1/' is not a number"),
                       (["--lr", "much"], "argument --lr: 'much' is not a number"),
                       (["--lr", "1e999"], "argument --lr: '1e999' is not a number"),
                       (["--mean", "1,2/0,3"], "argument --mean: '2/0' is not a number"),
                       (["--scale", "0"], "scale of 0")):
        message = refused(*common, *case)
        assert said in message, message
    with open(path("net.json"), "w") as file:
        json.dump(hwgq_torch.describe("lenet", HWGQ, classes=3, width=0.1), file)
    message = refused(path("net.json"), data(), "-o", path("out"), "--zero", "half")
    assert "--zero: the network is that of" in message, message


# ---- what is refused before it costs time ----------------------------------------------------------------------------


@test
def classes_in_a_list():
    """Tiny ImageNet: val/images with val_annotations.txt, and test/images, which have no classes."""
    folder = images("tiny", train={"a": 2, "bb": 2}, val={"images": 3}, test={"images": 2})
    if not folder:
        return
    listed = path("tiny/val/val_annotations.txt")
    with open(listed, "w") as file:
        file.write("0.jpg\tbb\t0\t0\t9\t9\n1.jpg\ta\t0\t0\t9\t9\n2.jpg\tbb\t0\t0\t9\t9\n")
    session = twin("lenet", folder, "-o", path("out"), "--epochs", "1", "--batch", "2", "--width", "0.1")
    assert session.labels == ["a", "bb"] and session.test.labels.tolist() == [1, 0, 1], session.test.labels
    with open(listed, "w") as file:
        file.write("0.jpg\tbb\n")
    message = refused("lenet", folder, "-o", path("out"))
    assert "val_annotations.txt has no class for" in message, message


@test
def images_that_cannot_be_read():
    folder = images("corrupt", train={"a": 2, "bb": 2}, test={"a": 1, "bb": 1})
    if not folder:
        return
    file = path("corrupt/train/bb/1.jpg")
    with open(file, "rb") as whole:
        content = whole.read()
    archive = path("archive.tar.xz")
    for wrong, cause in ((content[:len(content) // 2], "truncated"), (b"no image", "not an image")):
        with open(file, "wb") as cut:
            cut.write(wrong)
        message = refused("lenet", folder, "-o", path("out"))
        assert message.startswith(file + ": ") and cause in message.lower(), message
        with tarfile.open(archive, "w:xz") as packed:
            packed.add(folder, "photos")
        message = refused("lenet", archive, "-o", path("out"))
        assert message.startswith(archive + "/photos/train/bb/1.jpg: ") and cause in message.lower(), message
    archive = path("archive.tar")
    with tarfile.open(archive, "w") as packed:
        packed.add(folder, "photos")
        last = packed.getmembers()[-1].offset_data
    os.truncate(archive, last + 10)
    message = refused("lenet", archive, "-o", path("out"))
    assert message.startswith(archive + ": cannot be unpacked"), message


@test
def idx_files_that_do_not_fit():
    """As `hwgq train` refuses them."""
    for name, change, said in (("t10k-labels-idx1-ubyte", lambda b: b[:7] + bytes([4]) + b[8:-1], "5 images but 4 labels"),
                               ("train-labels-idx1-ubyte", lambda b: b + b"x", "damaged: 9 bytes of data expected"),
                               ("train-images-idx3-ubyte", lambda b: b + b"x", "more found"),
                               ("train-images-idx3-ubyte", lambda b: b[:-1], "fewer found"),
                               ("train-images-idx3-ubyte", lambda b: b[:10], "not an IDX file of images"),
                               ("train-labels-idx1-ubyte", lambda b: b"", "not an IDX file of labels")):
        folder = write_idx(path("misfit"), (9, 5), lambda label, i: striped(label, i, 1, 28)[:, :, 0])
        with open(os.path.join(folder, name), "rb") as file:
            content = file.read()
        with open(os.path.join(folder, name), "wb") as file:
            file.write(change(content))
        common = ["lenet", folder, "-o", path("out"), "--width", "0.1", "--epochs", "1"]
        assert said in refused(*common), (name, said)
        run(HWGQ, "train", *common, fails=True)


@test
def files_that_are_no_readable_images():
    """BMP and GIF, which Pillow knows and the engine does not; where they are in no split, nobody minds."""
    folder = images("kinds", train={"a": 2, "bb": 2}, test={"a": 1, "bb": 1})
    if not folder:
        return
    from PIL import Image
    common = ["lenet", folder, "-o", path("out"), "--width", "0.1", "--epochs", "1"]
    pixels = Image.fromarray(striped(1, 1, 1, 28)[:, :, 0])
    pixels.save(path("kinds/preview.gif"))
    assert len(twin(*common).training) == 4
    for name, kind in (("x.bmp", "BMP"), ("x.jpg", "BMP"), ("x.GIF", "GIF"), ("x.tif", "TIFF")):
        file = path("kinds/train/a/" + name)
        pixels.save(file, kind)
        message = refused(*common)
        assert message.startswith(file + ": not an image that is read here: convert it"), message
        run(HWGQ, "train", *common, fails=True)
        os.remove(file)


@test
def links():
    """Of folders and images, in folders and in archives; one that leads nowhere is refused."""
    folder = images("linked", train={"a": 3}, test={"a": 1, "bb": 2})
    if not folder:
        return
    common = ["-o", path("out"), "--width", "0.1", "--epochs", "1"]
    os.symlink("../test/bb", path("linked/train/bb"))
    session = twin("lenet", folder, *common)
    assert session.labels == ["a", "bb"] and session.training.labels.tolist() == [0, 0, 0, 1, 1], session.training.labels
    os.symlink("..", path("linked/train/bb/circle"))
    assert "lies deeper than 8 folders" in refused("lenet", folder, *common)
    os.remove(path("linked/train/bb/circle"))

    def packed():
        with tarfile.open(path("linked.tar"), "w") as archive:
            archive.add(folder, "linked")
        return path("linked.tar")

    assert "'linked/train/bb' is a link to '../test/bb', a folder" in refused("lenet", packed(), *common)
    os.remove(path("linked/train/bb"))
    os.makedirs(path("linked/train/bb"))
    os.link(path("linked/test/bb/0.jpg"), path("linked/train/bb/hard.jpg"))
    os.symlink("../../test/bb/1.jpg", path("linked/train/bb/soft.jpg"))
    for source in (folder, packed()):
        session = twin("lenet", source, *common)
        assert session.training.labels.tolist() == [0, 0, 0, 1, 1], session.training.labels
        assert len(session.test) == 3
        run(HWGQ, "train", "lenet", source, "-o", path("c.hwgq"), "--width", "0.1", "--epochs", "1", "--threads", "1")
    os.symlink("nowhere.jpg", path("linked/train/bb/to.jpg"))
    message = refused("lenet", packed(), *common)
    assert "train/bb/to.jpg: " in message and "is a link to 'nowhere.jpg', which is no image of the archive" in message, message


@test
def undivided_images():
    """All are trained on with --no-test, and without it there is something to say."""
    folder = images("undivided", photos={"a": 2, "bb": 3})
    if not folder:
        return
    common = ["-o", path("out"), "--width", "0.1", "--epochs", "1"]
    with tarfile.open(path("undivided.tar"), "w") as archive:
        archive.add(folder, "undivided")
    for source in (folder, path("undivided/photos"), path("undivided.tar")):
        session = twin("lenet", source, "--no-test", *common)
        assert session.labels == ["a", "bb"] and session.training.labels.tolist() == [0, 0, 1, 1, 1], session.labels
        message = refused("lenet", source, *common)
        assert "has no train/ and test/" in message and "--no-test" in message, message
    os.rename(path("undivided/photos/a/0.jpg"), path("undivided/loose.jpg"))
    message = refused("lenet", folder, "--no-test", *common)
    assert "loose.jpg is in no folder that names its class" in message, message


@test
def outputs_that_cannot_be_written():
    """Said before the images are read: here there are none."""
    common = ["lenet", path("no-images"), "--width", "0.1"]
    os.makedirs(path("folder"), exist_ok=True)
    nowhere = path("nowhere/out")
    for case, said in ((["-o", nowhere], f"cannot write {nowhere}: No such file or directory"),
                       (["-o", path("folder")], f"cannot write {path('folder')}: it is there and no regular file"),
                       (["-o", path("out"), "--checkpoint", nowhere], f"cannot write {nowhere}: No such file"),
                       (["-o", path("out"), "--log", nowhere], f"cannot write the log {nowhere}: No such file")):
        message = refused(*common, *case)
        assert message.startswith(said), message
    for name in ("kept", "kept.log"):
        with open(path(name), "w") as file:
            file.write("of an earlier run")
    assert "no-images" in refused(*common, "-o", path("kept"), "--log", path("kept.log"))
    for name in ("kept", "kept.log"):
        with open(path(name)) as file:
            assert file.read() == "of an earlier run", name
    assert not os.path.exists(path("kept.new"))
    twin("lenet", data(), "--width", "0.1", "--epochs", "1", "-o", path("kept"), "--log", path("kept.log"))
    assert [line["epoch"] for line in log("kept.log")] == [1]


@test
def outputs_that_would_replace_something():
    """Data, a teacher, weights to begin with, the checkpoint that is resumed; or one another. By whatever name."""
    common = ["lenet", data(), "--width", "0.1", "--epochs", "1"]
    twin(*common, "-o", path("first"))
    run(HWGQ, "import", "safetensors", path("first"), "-o", path("first.hwgq"), "--quiet")
    with tarfile.open(path("first.tar"), "w") as archive:
        archive.add(data(), "few")
    with open(path("first.txt"), "w") as file:
        file.write("a\nb\nc\n")
    os.symlink("first.hwgq", path("first.alias"))
    os.symlink(FOLDER, path("here"))
    before = {name: os.stat(path(name)).st_mtime_ns for name in os.listdir(FOLDER) if name.startswith("first")}
    for case, said in (
            (["-o", path("first.hwgq"), "--teacher", path("first.hwgq")], "would replace the teacher (--teacher "),
            (["-o", path("first.alias"), "--teacher", path("first.hwgq")], "would replace the teacher (--teacher "),
            (["-o", path("first"), "--initial", path("first")], "would replace the weights to begin with (--initial "),
            (["-o", path("out"), "--checkpoint", path("here/first"), "--initial", path("first")], "would replace the weights"),
            (["-o", path("out"), "--log", path("first.txt"), "--labels", path("first.txt")], "would replace the labels"),
            (["-o", path("new"), "--checkpoint", path("here/new")], "would be the same file: choose another --output or"),
            (["-o", path("new"), "--log", path("here/new")], "would be the same file: choose another --output or --log"),
            (["-o", path("new"), "--log", path("here/new.checkpoint")], "would be the same file: choose another --checkpoint")):
        message = refused(*common, *case)
        assert said in message, message
    message = refused("lenet", path("first.tar"), "-o", path("here/first.tar"))
    assert "would replace the data (DATA " in message, message
    message = refused("--resume", path("first.checkpoint"), "-o", path("first.checkpoint"))
    assert "the same file" in message, message
    assert before == {name: os.stat(path(name)).st_mtime_ns for name in before}, "something was replaced"
    assert not os.path.exists(path("new"))


@test
def devices_that_are_not_there():
    common = ["lenet", data(), "-o", path("out"), "--device"]
    for name in ("cuda:63", "abacus") + (() if torch.cuda.is_available() else ("cuda",)):
        message = refused(*common, name)
        assert message.startswith(f"--device {name}: torch ") and "leave --device out" in message, message
        assert "\n" not in message, message


@test
def packages_that_are_not_installed():
    """Without its site-packages, python has none."""
    said = run(sys.executable, "-ES", train.__file__, fails=True)
    assert said.startswith("train.py: ") and said.count("\n") == 1, said
    assert "No module named 'numpy': apt-get install python3-numpy python3-torch python3-pil" in said, said


@test
def classes_that_are_missing():
    common = ["-o", path("out"), "--width", "0.1", "--epochs", "1"]
    single = write_idx(path("single"), (2, 2), lambda label, i: striped(0, i, 1, 28)[:, :, 0], 1)
    assert "at least 2 classes" in refused("lenet", single, *common)
    # Of 3 classes the last has no training images, or no test images.
    cases = [(write_idx(path("untrained"), (2, 3), lambda label, i: striped(label, i, 1, 28)[:, :, 0]), "2", ""),
             (write_idx(path("untested"), (3, 2), lambda label, i: striped(label, i, 1, 28)[:, :, 0]), "", "2")]
    one = images("one", train={"a": 2}, test={"a": 1})
    if one:
        assert "at least 2 classes" in refused("lenet", one, *common)
        cases.append((images("both", train={"a": 2, "ccc": 1}, test={"bb": 1, "ccc": 1}), "bb", "a"))
    for folder, untrained, untested in cases:
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            session = twin("lenet", folder, *common)
        assert len(session.labels) == 3, session.labels
        for what, names in (("to train on", untrained), ("to test", untested)):
            expected = f"train.py: classes without images {what}: {names}\n"
            assert expected in said.getvalue() if names else what not in said.getvalue(), said.getvalue()
    if one:
        assert session.labels == ["a", "bb", "ccc"] and session.test.labels.tolist() == [1, 2]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        twin("lenet", data(), *common)
    assert said.getvalue() == "", said.getvalue()


# ---- whole runs ------------------------------------------------------------------------------------------------------


def same(case, limit=3e-4, network="lenet", width="0.3", epochs=8):
    """Trains with both. Every step's rate is the same; losses and weights differ by at most `limit`, relative to the largest.
    Rounding alone makes them differ by some 1e-6, and more where a ReLU is cut at 0."""
    network = [network, data() if network == "lenet" else color_data(), "--width", width]
    names = ("weights", "levels", "affine", "zero")
    shape = [word for name in names if "--" + name in case for word in ("--" + name, case[case.index("--" + name) + 1])]
    engine(*network, *shape, "--checkpoint", path("begin"), "--epochs", "1", "--lr", "0")
    common = [*network, *ALIKE, "--initial", path("begin"), "--epochs", str(epochs), *case]
    engine(*common, "-o", path("c.hwgq"), "--log", path("c.log"))
    session = twin(*common, "-o", path("t.safetensors"), "--log", path("t.log"))
    theirs, own = log("c.log"), log("t.log")
    assert len(theirs) == len(own) == epochs
    for a, b in zip(theirs, own):
        assert abs(a["lr"] - b["lr"]) <= 1e-7 * a["lr"], f"step {a['epoch']}: rate {b['lr']}, not {a['lr']}"
        assert abs(a["loss"] - b["loss"]) <= limit * max(a["loss"], 1), f"step {a['epoch']}: loss {b['loss']}, not {a['loss']}"
        assert a.keys() == b.keys(), f"{a.keys()}, {b.keys()}"
    assert abs(theirs[0]["loss"] - theirs[-1]["loss"]) > 3 * limit, "hardly trained: tests little"
    _, theirs, _ = weights.read(path("c.hwgq.checkpoint"))
    _, own, _ = weights.read(session.options.checkpoint)
    _, before, _ = weights.read(path("begin"))
    for name, value in theirs.items():
        difference, moved = (value - own[name]).abs().max().item(), (value - before[name]).abs().max().item()
        assert difference <= limit * max(value.abs().max().item(), 1), f"{name} differs by {difference}"
        assert moved > 0, f"{name} was not trained"
    return session


FLOAT = ["--levels", "relu", "--weights", "float"]


@test
def sgd_with_decay_smoothing_and_cosine():
    same([*FLOAT, "--affine", "yes", "--optimizer", "sgd", "--lr", "0.05", "--momentum", "0.8", "--weight-decay", "0.2",
          "--schedule", "cosine", "--warmup", "0.3", "--label-smoothing", "0.2", "--classifier-rate", "0.5"])


@test
def adam_with_teacher_and_average():
    """The teacher has another preprocessing and another width."""
    engine("lenet", data(), "-o", path("teacher.hwgq"), "--width", "0.2", "--epochs", "10", "--zero", "half")
    same([*FLOAT, "--teacher", path("teacher.hwgq"), "--distill-weight", "0.7", "--distill-temperature", "3", "--average",
          "0.6", "--mean", "100", "--scale", "1/48", "--lr", "0.002"])
    same([*FLOAT, "--teacher", path("teacher.hwgq"), "--average", "0.3", "--weight-decay", "0.01"])


@test
def the_average_of_the_last_epochs():
    same([*FLOAT, "--average-epochs", "3", "--schedule", "constant", "--warmup", "0.2"])


@test
def statistics_of_the_weights_as_they_are():
    same([*FLOAT, "--statistics-batches", "2", "--power", "2.5", "--optimizer", "sgd"])


@test
def quantized():
    """A value that lies within rounding of a threshold may fall on its other side, and the runs part: a wider limit."""
    for case in ([], ["--zero", "half", "--affine", "yes"], ["--levels", "sign"]):
        same([*case, "--optimizer", "sgd", "--lr", "0.01"], 0.03, epochs=4)
    session = twin("lenet", data(), "-o", path("out"), "--width", "0.3", "--epochs", "3", "--lr", "0.5")
    latent = [m.weight.detach() for m in session.network.modules() if isinstance(m, hwgq_torch.Weighted) and m.binary]
    assert latent and all(weight.abs().max() == 1 for weight in latent), "latent weights lie in [-1, 1]"


@test
def a_network_of_many_kinds_of_layers():
    same([*FLOAT, "--optimizer", "sgd", "--lr", "0.01"], 2e-3, "resnet-18-small", "0.05", 2)


@test
def gradients_of_the_objective():
    """Against the formulas of models/train/net_backward.c."""
    torch.manual_seed(5)
    scores, teacher, labels = torch.randn(6, 10, requires_grad=True), torch.randn(6, 10), torch.arange(6)
    chosen = options.parse(["a", "b", "-o", "c", "--label-smoothing", "0.2", "--teacher", "t", "--distill-weight", "0.3",
                            "--distill-temperature", "4"], "", None)[0]
    smooth = scores.detach().softmax(1) - (torch.eye(10)[labels] * 0.8 + 0.02)
    soft = 4 * ((scores.detach() / 4).softmax(1) - (teacher / 4).softmax(1))
    for answers, expected in ((None, smooth), (teacher, 0.7 * smooth + 0.3 * soft)):
        found, = torch.autograd.grad(recipe.objective(chosen, scores, labels, answers), scores)
        assert torch.allclose(found, expected / 6, atol=1e-6), (found - expected / 6).abs().max()


@test
def first_weights():
    """As wide as they shall be: uniform within 1 / sqrt(inputs), or Gaussian of variance 2 / inputs."""
    description = hwgq_torch.describe("vgg-small", HWGQ, width=0.5)
    for kind, variance in (("uniform", 1 / 3), ("msra", 2)):
        torch.manual_seed(1)
        network = hwgq_torch.Network(description)
        recipe.initialize(options.parse(["a", "b", "-o", "c", "--initializer", kind], "", None)[0], network)
        weight = network.get_submodule("conv3").weight.detach().double()
        inputs = weight[0].numel()
        assert abs((weight**2).mean().item() * inputs / variance - 1) < 0.05, kind
        assert (weight.abs().max() * math.sqrt(inputs) > 1.5) == (kind == "msra"), kind


# ---- weights of other files ------------------------------------------------------------------------------------------


@test
def weights_of_models():
    """What is read from a model and imported again is the model."""
    for case in (["--levels", "sign", "--affine", "yes"], ["--weights", "float"]):
        engine("lenet", data(), "-o", path("m.hwgq"), "--width", "0.3", "--epochs", "2", *case)
        description, _, metadata = weights.read(path("m.hwgq"))
        network = hwgq_torch.Network(description)
        taken, beyond = weights.begin(network, path("m.hwgq"))
        assert taken >= 4 and beyond == 0, (taken, beyond)
        hwgq_torch.export(network, path("m"), json.loads(metadata["preprocess"]))
        run(HWGQ, "import", "safetensors", path("m"), "-o", path("again.hwgq"), "--quiet")
        first, second = (checkpoint.read_tensors(path(name))[1] for name in ("m.hwgq", "again.hwgq"))
        assert first.keys() == second.keys()
        for name in first:
            assert (first[name] == second[name]).all(), name


@test
def another_network_to_begin_with():
    engine("lenet", data(), "-o", path("m.hwgq"), "--width", "0.3", "--epochs", "1", *FLOAT)
    twin("lenet", data(), "-o", path("out"), "--width", "0.3", "--epochs", "1", "--affine", "yes", "--initial", path("m.hwgq"))
    message = refused("lenet", data(), "-o", path("out"), "--width", "0.2", "--initial", path("m.hwgq"))
    assert "begin with the same network and width" in message, message
    with open(path("m.hwgq"), "rb") as file:
        whole = file.read()
    with open(path("cut.hwgq"), "wb") as file:
        file.write(whole[:-9])
    message = refused("lenet", data(), "-o", path("out"), "--width", "0.3", "--initial", path("cut.hwgq"))
    assert "not whole" in message, message
    network = hwgq_torch.Network(hwgq_torch.describe("lenet", HWGQ, classes=7, width=0.3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights.begin(network, path("m.hwgq"))
    kept = {name for name, value in network.state_dict().items()
            if torch.equal(value, before[name]) and not name.endswith("num_batches_tracked")}
    last = network.steps[-2][0]
    assert kept == {last + ".weight", last + ".bias"}, kept


@test
def a_teacher_of_other_classes():
    engine("lenet", data(), "-o", path("teacher.hwgq"), "--width", "0.1", "--epochs", "1")
    with open(path("names"), "w") as file:
        file.write("one\ntwo\nthree\n")
    common = ["lenet", data(), "-o", path("out"), "--width", "0.1", "--epochs", "1", "--teacher", path("teacher.hwgq")]
    assert "other classes" in refused(*common, "--labels", path("names"))
    assert "--invert" in refused(*common, "--invert", "yes")
    twin(*common)


# ---- stopped and resumed ---------------------------------------------------------------------------------------------


@test
def resumed():
    """A run that was stopped goes on exactly as one that was not."""
    common = ["lenet", data(), "--width", "0.2", "--epochs", "5", "--batch", "5", "--zoom", "0.2", "--cutout", "6", "--blur",
              "1", "--average", "0.8", "--seed", "7"]
    twin(*common, "-o", path("whole"))
    write = checkpoint.write

    def write_and_stop(file, session):
        write(file, session)
        if session.epoch == 2:
            raise KeyboardInterrupt

    checkpoint.write = write_and_stop
    try:
        twin(*common, "-o", path("two halves"))
        raise AssertionError("was not stopped")
    except SystemExit as stopped:
        said, command = str(stopped).split(" 2: ")
        assert said.endswith("after epoch"), stopped
    finally:
        checkpoint.write = write
    assert "--width: the network is that of" in refused("--resume", path("two halves.checkpoint"), "--width", "0.3")
    python, program, *arguments = shlex.split(command)
    assert (python, program) == (sys.executable, train.__file__), command
    session = twin(*arguments)
    assert session.epoch == 5 and session.options.output == path("two halves")
    for names in (("whole", "two halves"), ("whole.checkpoint", "two halves.checkpoint")):
        one, other = (checkpoint.read_tensors(path(name))[1] for name in names)
        assert one.keys() == other.keys()
        for name in one:
            assert (one[name] == other[name]).all(), f"{names[1]}: {name} differs"
    session = twin("--resume", path("two halves.checkpoint"), "--epochs", "6", "--lr", "0")
    assert session.options.output == path("two halves")
    assert session.epoch == 6 and session.options.lr == 0 and session.options.zoom == 0.2
    twin(*common[:4], "--epochs", "1", "-o", path("two halves"))
    assert checkpoint.read(path("two halves.checkpoint.old"))[1]["epoch"] == 6, "an earlier run's checkpoint is lost"
    for number in (2, 3):
        twin(*common[:4], "--epochs", "1", "--seed", str(number), "-o", path("two halves"))
    names = ["two halves.checkpoint" + ending for ending in (".old", ".old.2", ".old.3", "")]
    found = [checkpoint.read(path(name))[1] for name in names]
    assert [(state["epoch"], state["recipe"].get("seed")) for state in found] == [(6, 7), (1, None), (1, 2), (1, 3)], found
    twin("--resume", path("two halves.checkpoint"), "--epochs", "2", "--checkpoint", path("two halves.checkpoint.old"), "-o",
         path("out"))
    assert checkpoint.read(path("two halves.checkpoint.old.old"))[1]["epoch"] == 6, "another run's checkpoint is lost"


@test
def a_complete_run_with_other_options():
    """Claims what the engine finds, and nothing without a test."""
    folder = write_idx(path("claims"), (120, 60), lambda label, i: striped(label, i, 1, 28)[:, :, 0])
    session = twin("lenet", folder, "-o", path("claimed"), "--width", "0.3", "--epochs", "3", "--batch", "20", "--mirror", "no")
    first, resume = session.result, ["--resume", path("claimed.checkpoint"), "-o", path("other")]
    assert first > 0.5, first
    assert twin(*resume).result == first and not twin(*resume).changed
    for changed in (["--invert", "yes"], ["--mean", "10"], ["--scale", "1/8"], ["--statistics-batches", "3"],
                    ["--limit", "30"], ["--invert", "yes", "--average", "0.5"]):
        session = twin(*resume, *changed)
        assert session.epoch == 3 and session.changed, changed
        run(HWGQ, "import", "safetensors", path("other"), "-o", path("other.hwgq"), "--quiet")
        found = json.loads(run(HWGQ, "eval", "--json", path("other.hwgq"), folder, *changed[:2 * (changed[0] == "--limit")]))
        assert abs(found["top1"] - session.result) < 1e-6, (changed, found["top1"], session.result)
        claimed = json.loads(checkpoint.read_tensors(path("other"))[0]["provenance"])["test_accuracy"]
        assert claimed == session.result, (changed, claimed)
    session = twin(*resume, "--invert", "yes", "--no-test")
    assert session.result is None
    assert json.loads(checkpoint.read_tensors(path("other"))[0]["provenance"])["test_accuracy"] is None
    assert checkpoint.read(path("claimed.checkpoint"))[1]["result"] == first


@test
def what_to_do_next():
    """Can be pasted, even with a space in the name."""
    shown, state = io.StringIO(), path("a state")
    with contextlib.redirect_stdout(shown):
        train.main(["lenet", data(), "-o", state, "--width", "0.1", "--epochs", "1", "--hwgq", HWGQ, "--device", "cpu"])
    command = shown.getvalue().split("next:")[1]
    assert shlex.split(command) == ["hwgq", "import", "safetensors", state, "-o", "MODEL.hwgq"], command


@test
def bfloat16():
    """Learns as well, and what is imported is measured in float32."""
    folder = write_idx(path("more"), (120, 60), lambda label, i: striped(label, i, 1, 28)[:, :, 0])
    session = twin("lenet", folder, "-o", path("amp"), "--width", "0.5", "--epochs", "4", "--batch", "20", "--mirror", "no",
                   "--amp")
    assert session.result > 0.6, session.result
    run(HWGQ, "import", "safetensors", path("amp"), "-o", path("amp.hwgq"), "--quiet")
    measured = json.loads(run(HWGQ, "eval", "--json", path("amp.hwgq"), folder))
    assert abs(measured["top1"] - session.result) < 1e-6, (measured["top1"], session.result)


@test
def every_epoch_has_draws_of_its_own():
    session = twin("lenet", data(), "-o", path("out"), "--width", "0.1", "--epochs", "1", "--batch", "6")
    session.augmentation = lambda x, random: torch.cat([x.sum((1, 2, 3)), torch.rand(6, generator=random)])
    seen = []
    for session.epoch in (0, 0, 1):
        seen.append(torch.stack([x for x, _ in train.epoch_batches(session, 3)]))
    assert torch.equal(seen[0], seen[1])
    images, draws = seen[0][:, :6], seen[0][:, 6:]
    assert torch.equal(images.flatten().sort()[0], seen[2][:, :6].flatten().sort()[0]), "all images, once each"
    assert not torch.equal(images, seen[2][:, :6]), "in the same order again"
    assert len(torch.cat([draws.flatten(), seen[2][:, 6:].flatten()]).unique()) == 36, "the same draws again"


# ---- changes of images -----------------------------------------------------------------------------------------------


class Random:
    """models/train/rng.c: xoshiro256**, seeded by splitmix64."""

    def __init__(self, seed, stream, substream):
        self.mixed = seed
        self.mixed = self.splitmix() ^ stream
        self.mixed = self.splitmix() ^ substream
        self.state = [self.splitmix() for _ in range(4)]

    def splitmix(self):
        self.mixed = (self.mixed + 0x9E3779B97F4A7C15) % 2**64
        z = self.mixed
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) % 2**64
        return z ^ z >> 31

    def next(self):
        def rotated(x, bits):
            return (x << bits | x >> (64 - bits)) % 2**64

        s = self.state
        result = rotated(s[1] * 5 % 2**64, 7) * 9 % 2**64
        t = s[1] << 17 & 2**64 - 1
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = rotated(s[3], 45)
        return result

    def uniform(self):
        return (self.next() >> 40) / 2**24

    def below(self, bound):
        while True:
            product = (self.next() >> 32) * bound
            if product % 2**32 >= 2**32 % bound:
                return product >> 32


def draws_of_the_trainer(chosen, shape, seed, number):
    """In the order in which augment_image draws them."""
    random, drawn = Random(seed, 0, number), {}
    if chosen.mirror == "yes":
        drawn["mirror"] = random.below(2)
    for name in ("left", "top"):
        drawn[name] = random.below(2 * chosen.pad + 1) - chosen.pad
    for name in ("zoom", "aspect"):
        if getattr(chosen, name):
            drawn[name] = random.uniform()
    if chosen.crop:
        drawn.update(crop=random.uniform(), crop_left=random.uniform(), crop_top=random.uniform())
    for name in ("soften", "blur"):
        if getattr(chosen, name):
            drawn[name + "_this"] = random.below(2)
            drawn[name] = random.uniform() if drawn[name + "_this"] else 0.0
    for name in ("brightness", "contrast", "saturation"):
        if getattr(chosen, name):
            drawn[name] = random.uniform()
    if chosen.cutout:
        drawn["cut_left"] = random.below(shape[2]) - chosen.cutout // 2
        drawn["cut_top"] = random.below(shape[1]) - chosen.cutout // 2
    return drawn


NAMES = ("mirror", "pad", "zoom", "crop", "aspect", "blur", "soften", "brightness", "contrast", "saturation", "cutout")


def changed_alike(shape, order, count=16, **changes):
    chosen = options.parse(["a", "b", "-o", "c"], "", None)[0]
    vars(chosen).update({"mirror": "no", "pad": 0, **changes})
    pixels = numpy.stack([image(shape, i) for i in range(count)])
    pixels.tofile(path("pixels"))
    said = ",".join(str({"yes": 1, "no": 0}.get(getattr(chosen, name), getattr(chosen, name))) for name in NAMES)
    run(AUGMENT, "5", *map(str, shape), str(("rgb", "bgr", "gray").index(order)), said, path("pixels"), path("values"))
    theirs = numpy.fromfile(path("values"), numpy.float32).reshape(pixels.shape).transpose(0, 3, 1, 2)
    preprocess = {"order": order, "mean": [104.0, 117.0, 123.5][:shape[0]], "scale": [1 / 64, 1 / 32, 1 / 64][:shape[0]]}
    drawn = [draws_of_the_trainer(chosen, shape, 5, i) for i in range(count)]
    drawn = {name: torch.tensor([one[name] for one in drawn]) for name in drawn[0]}
    mean, scale = (torch.tensor(preprocess[key]).view(-1, 1, 1) for key in ("mean", "scale"))
    x = (torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(numpy.float32)) - mean) * scale
    own = augment.Augmentation(chosen, preprocess, shape, "cpu").apply(x, drawn).numpy()
    difference = numpy.abs(own - theirs).max()
    assert difference < 2e-4, f"{changes}: values differ by {difference}"
    changed = (numpy.abs(own - x.numpy()).reshape(count, -1).max(1) > 0.01).mean()
    assert changed > 0.2, f"{changes}: {changed} of the images were changed"
    own_draws = augment.draw(chosen, shape, count, torch.Generator().manual_seed(1))
    assert own_draws.keys() == drawn.keys(), f"{own_draws.keys()}, {drawn.keys()}"


@test
def images_are_changed_alike():
    color = {"brightness": 0.4, "contrast": 0.6, "saturation": 1.0}
    for change in ({"mirror": "yes"}, {"pad": 4}, {"zoom": 0.3}, {"crop": 0.6}, {"aspect": 0.5}, {"blur": 1.5}, {"soften": 3.0},
                   {"brightness": 0.5}, {"contrast": 0.5}, {"saturation": 1.0}, {"cutout": 9}):
        changed_alike((3, 20, 26), "rgb", **change)
    changed_alike((3, 20, 26), "bgr", **color)
    changed_alike((1, 28, 28), "gray", **color, blur=8.0, soften=4.0, pad=3, cutout=40)
    changed_alike((3, 32, 32), "bgr", count=40, mirror="yes", pad=4, zoom=0.2, crop=0.3, aspect=0.2, blur=1.0, soften=1.5,
                  cutout=8, **color)


@test
def what_is_drawn():
    """Over its whole range, even at its ends, and evenly."""
    chosen = options.parse(["a", "b", "-o", "c", "--pad", "2", "--crop", "0.5", "--blur", "1", "--cutout", "5"], "", None)[0]
    drawn = augment.draw(chosen, (3, 20, 30), 4000, torch.Generator().manual_seed(3))
    for name, least, most in (("mirror", 0, 1), ("left", -2, 2), ("top", -2, 2), ("blur_this", 0, 1), ("cut_left", -2, 27),
                              ("cut_top", -2, 17)):
        values = drawn[name]
        assert (values.min(), values.max()) == (least, most), name
        assert abs(values.double().mean() - (least + most) / 2) < 0.05 * (most - least), name
    for name in ("crop", "crop_left", "crop_top", "blur"):
        values = drawn[name]
        assert 0 <= values.min() < 0.01 and 0.99 < values.max() < 1 and abs(values.mean() - 0.5) < 0.03, name
    apart = numpy.corrcoef(numpy.stack([drawn[name].double().numpy() for name in drawn]))
    assert numpy.abs(apart - numpy.eye(len(apart))).max() < 0.1, "draws hang together"
