"""Trains a network with PyTorch, on CUDA when there is one, by the recipe of `hwgq train`, and writes a state_dict:

    /usr/bin/python3 train.py vgg-small cifar10.tar.xz -o cifar10.safetensors
    hwgq import safetensors cifar10.safetensors -o cifar10.hwgq
"""
import contextlib
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import sys
import tempfile
import time

PACKAGES = {"numpy": "python3-numpy", "torch": "python3-torch", "PIL": "python3-pil"}


def without(error):
    """What to do about a module that is not there."""
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    return f"train.py: {sys.executable}: {error}: apt-get install {' '.join(missing or PACKAGES.values())}, which " \
           "Debian's /usr/bin/python3 finds"


try:
    import numpy
    import torch
except ModuleNotFoundError as error:
    sys.exit(without(error))

import checkpoint
import hwgq_torch
import options as option_table
import recipe
import weights
from augment import Augmentation
from data import read_images
from teacher import Teacher

# ---- network and data ------------------------------------------------------------------------------------------------


def find_hwgq(given):
    build = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../build/release/hwgq")
    return given or shutil.which("hwgq") or build


def describe(options, classes):
    """By `hwgq describe`, whose steps for --zero half are those that others round with; `hwgq train` has the best ones."""
    chosen = {option_table.field(name): getattr(options, option_table.field(name)) for name in option_table.NETWORK}
    program, levels = find_hwgq(options.hwgq), options.levels or "uniform"
    if levels == "sign":
        chosen.update(levels=None, sign=True)
    if levels == "uniform" and options.zero == "half" and not options.step:
        chosen["step"] = hwgq_torch.best_step(options.level_count or 2 ** (options.bits or 2) - 1, "half", program)
    return hwgq_torch.describe(options.network, program, classes=classes, **chosen)


def known_description(options, given, resumed):
    """Of a checkpoint or a file, which options of the command line cannot change; None: to be asked for by name."""
    if not resumed and not os.path.isfile(options.network):
        return None
    for name in option_table.NETWORK:
        if option_table.field(name) in given:
            raise ValueError(f"--{name}: the network is that of {options.resume or options.network}, and stays as it is")
    return resumed[0] if resumed else hwgq_torch.read_description(options.network)


def find_device(name):
    """Tried here: torch says only when it is used what it lacks."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name).item()
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"--device {name}: torch {torch.__version__} cannot use it here ({str(error).splitlines()[0]}): leave "
                         "--device out to train on what there is, or install a torch and a driver for it")
    return torch.device(name)


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


def check_classes(options, names, images, test):
    """Classes that are in one part of the data only are most often misspelt names."""
    if len(names) < 2:
        raise ValueError(f"{options.data} has one class only, training needs at least 2 classes: put the images of each into a "
                         "folder of its own")
    if 0 < options.limit < len(names):
        return
    for part, what in ((images, "to train on"), (test, "to test")):
        missing = [names[i] for i in numpy.setdiff1d(numpy.arange(len(names)), part.labels)] if part else []
        if missing:
            print(f"train.py: classes without images {what}: {', '.join(missing)}", file=sys.stderr)


class Session:
    """Everything that a run needs, ready for its next epoch."""

    def __init__(self, options, chosen, given):
        self.options, self.chosen = options, chosen
        self.device = find_device(options.device)
        torch.manual_seed(options.seed)
        resumed = checkpoint.read(options.resume) if options.resume else None
        description = known_description(options, given, resumed)
        # The input's shape decides how images are read; the number of classes is known after that.
        self._read_data((description or describe(options, None))["input"])
        network = hwgq_torch.Network(description or describe(options, len(self.labels)), options.backward)
        recipe.initialize(options, network)
        if options.initial and not resumed:
            taken, beyond = weights.begin(network, options.initial)
            print(f"begins with {taken} layers of {options.initial}")
            if beyond:
                print(f"{beyond} weights of binary layers lay beyond -1 to 1, where they are kept, and were cut to it")
        self.network = network.to(self.device)
        self.optimizer = recipe.make_optimizer(options, network)
        averages = options.average > 0 or options.average_epochs > 0 or options.statistics_batches > 0
        self.average = recipe.Average(options, network) if averages else None
        self.augmentation = Augmentation(options, self.preprocess, network.description["input"], self.device)
        self.teacher = None
        if options.teacher:
            self.teacher = Teacher(options.teacher, network.description, self.preprocess, self.labels, self.device)
        self.epoch, self.result, self.seconds = 0, None, 0.0
        self.changed = False  # since the checkpoint, in a way that may make another model
        if resumed:
            checkpoint.restore(self, *resumed[1:])

    def _read_data(self, shape):
        options, channels = self.options, shape[0]
        self.preprocess = {"order": options.order or ("gray" if channels == 1 else "rgb"), "resize": options.resize,
                           "invert": options.invert == "yes"}
        images = read_images(options.data, "train", shape, self.preprocess, options.limit)
        if images.undivided and not options.no_test:
            raise ValueError(f"{options.data} has no train/ and test/: put some images of every class into test/CLASS and the "
                             "others into train/CLASS, or train on all with --no-test")
        test = None if options.no_test else read_images(options.data, "test", shape, self.preprocess, options.limit)
        self.labels = max(images.classes, test.classes if test else [], key=len)
        classes = len(self.labels)
        check_classes(options, self.labels, images, test)
        if options.labels:
            with open(options.labels, encoding="utf-8") as file:
                self.labels = file.read().splitlines()
        if len(self.labels) != classes:
            raise ValueError(f"{options.labels} has {len(self.labels)} labels, the images have {classes} classes")
        if options.mean is None:  # in whole numbers: padding is exact in first convolutions of integers
            mean = numpy.floor(images.pixels.reshape(-1, channels).mean(0, dtype=numpy.float64) + 0.5)
            options.mean = self.chosen["mean"] = (mean.tolist() * 3)[:3]
        for key, values in (("mean", options.mean), ("scale", options.scale)):
            self.preprocess[key] = [hwgq_torch.float32(value) for value in values[:channels]]
        if 0 in self.preprocess["scale"]:
            raise ValueError("a scale of 0 leaves nothing of an image")
        self.training = Batches(images, self.preprocess, self.device)
        self.test = Batches(test, self.preprocess, self.device) if test else None
        self.batch = min(options.batch, len(self.training))
        self.per_epoch = len(self.training) // self.batch  # what is left over is another part of the images each epoch

    def save(self):
        """The state_dict, of the average if there is one."""
        recipe_said = {key.replace("_", "-"): value for key, value in self.chosen.items()}
        for key in ("initial", "teacher"):  # files by their names: where they lay is nobody's business
            if key in recipe_said:
                recipe_said[key] = os.path.basename(recipe_said[key])
        recipe_said.pop("labels", None)
        provenance = {"trainer": "torch " + torch.__version__, "data": os.path.basename(self.options.data.rstrip("/")),
                      "recipe": recipe_said, "epochs": self.epoch, "training_seconds": int(self.seconds),
                      "test_accuracy": self.result}
        averaged = self.average is not None and self.average.measured
        if averaged:
            self.average.swap()
        hwgq_torch.export(self.network, self.options.output + ".new", self.preprocess, self.labels, provenance)
        if averaged:
            self.average.swap()
        os.replace(self.options.output + ".new", self.options.output)


# ---- the epochs: everything random follows from (seed, epoch), so that a run goes on as if it had not been stopped ------


def generator(device, *numbers):
    """Random numbers that follow from these numbers alone."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def epoch_batches(session, count):
    """The first `count` batches of this epoch: the images shuffled, and changed at random."""
    seed, epoch, size = session.options.seed, session.epoch, session.batch
    order = torch.randperm(len(session.training), generator=generator("cpu", seed, epoch, "order")).to(session.device)
    random = generator(session.device, seed, epoch, "images")
    for i in range(count):
        x, labels = session.training.get(order[i * size:(i + 1) * size])
        yield session.augmentation(x, random), labels


@torch.no_grad()
def accuracy(session):
    network, test, size = session.network, session.test, session.batch
    network.eval()
    right = sum((network.logits(x).argmax(1) == labels).sum()
                for x, labels in (test.get(slice(first, first + size)) for first in range(0, len(test), size)))
    network.train()
    return right.item() / len(test)


def run_epoch(session):
    """Mean cross-entropy with the labels, accuracy, the last step's rate."""
    options, network, step_rate = session.options, session.network, 0.0
    total = torch.zeros(2, device=session.device, dtype=torch.float64)
    steps = session.per_epoch * options.epochs
    for i, (x, labels) in enumerate(epoch_batches(session, session.per_epoch)):
        step = session.epoch * session.per_epoch + i
        step_rate = recipe.rate(options, step, steps)
        recipe.set_rate(session.optimizer, step_rate)
        recipe.set_statistics_share(network, recipe.statistics_share(step))
        scores = session.teacher.scores(x) if session.teacher else None
        session.optimizer.zero_grad()
        with torch.autocast(session.device.type, torch.bfloat16, enabled=options.amp):
            logits = network.logits(x)
        logits = logits.float()
        recipe.objective(options, logits, labels, scores).backward()
        session.optimizer.step()
        hwgq_torch.clamp_latent(network)
        if session.average:
            session.average.update(session.epoch, i, session.per_epoch)
        logits = logits.detach()
        total += torch.stack([torch.nn.functional.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()])
    loss, right = (total / session.per_epoch).tolist()
    return loss, right, step_rate


def measure(session):
    """Accuracies of the weights in training and of their average, None without test images or average."""
    plain = session.result = accuracy(session) if session.test else None
    if session.average is None:
        return plain, None
    count = min(session.options.statistics_batches or recipe.AVERAGE_BATCHES, session.per_epoch)
    session.average.measure(x for x, _ in epoch_batches(session, count))
    if not session.average.measured or not session.test:
        return plain, None
    session.average.swap()
    session.result = accuracy(session)
    session.average.swap()
    return plain, session.result


def finish(session):
    """A run that was complete is not trained. With other options it makes another model, which is tested as after its last
    epoch."""
    print(f"the run is complete, of {session.epoch} epochs: more than that as --epochs would train on")
    if session.changed:
        session.epoch -= 1
        measure(session)
        session.epoch += 1
        if session.result is not None:
            print(f"tested once more, with the options that changed: {100 * session.result:.2f} %")


def train(session, log):
    options = session.options
    if session.epoch >= options.epochs:
        finish(session)
    while session.epoch < options.epochs:
        start = time.time()
        loss, right, step_rate = run_epoch(session)
        if not numpy.isfinite(loss):
            raise ValueError(f"the loss is no longer a number in epoch {session.epoch + 1}: try a lower --lr")
        spent = time.time() - start
        session.seconds += spent
        speed = session.per_epoch * session.batch / spent
        plain, averaged = measure(session)
        line = {"epoch": session.epoch + 1, "loss": loss, "train_accuracy": right, "images_per_second": speed, "lr": step_rate,
                "seconds": session.seconds}
        text = f"epoch {session.epoch + 1}/{options.epochs}: loss {loss:.4f}, train {100 * right:.2f} %"
        if plain is not None:
            line["test_accuracy"] = session.result
            text += f", test {100 * session.result:.2f} %"
        if averaged is not None:
            line["unaveraged_test_accuracy"] = plain
            text += f", weights in training {100 * plain:.2f} %"
        print(f"{text}, {speed:.0f} images/s", flush=True)
        if log:
            print(json.dumps(line), file=log, flush=True)
        session.epoch += 1
        session.save()
        checkpoint.write(options.checkpoint, session)


def read_recipe(path):
    _, state, _ = checkpoint.read(path)
    return {**state["recipe"], **state["run"]}


def check_writable(path):
    """A file that os.replace will put there: whether one can be made beside it is tried now, not after hours."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"cannot write {path}: it is there and no regular file")
    try:
        with tempfile.NamedTemporaryFile(dir=os.path.dirname(path) or "."):
            pass
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}")


def same_file(one, other):
    """Also of files that are yet to be made."""
    there = os.path.exists(one), os.path.exists(other)
    if all(there):
        return os.path.samefile(one, other)
    return not any(there) and os.path.realpath(one) == os.path.realpath(other)


def check_apart(options):
    """No output may be another one or something that is read, but for the checkpoint of a run that goes on."""
    outputs = [("state_dict", "--output", options.output), ("checkpoint", "--checkpoint", options.checkpoint),
               ("log", "--log", options.log)]
    inputs = [("checkpoint to resume", "--resume", options.resume), ("weights to begin with", "--initial", options.initial),
              ("teacher", "--teacher", options.teacher), ("labels", "--labels", options.labels), ("data", "DATA", options.data),
              ("network", "NETWORK", options.network)]
    for i, (what, option, path) in enumerate(outputs):
        for other, other_option, other_path in outputs[i + 1:]:
            if path and other_path and same_file(path, other_path):
                raise ValueError(f"the {what} {path} and the {other} {other_path} would be the same file: choose another "
                                 f"{option} or {other_option}")
        for other, other_option, other_path in inputs:
            if option == "--checkpoint" and other_option == "--resume":
                continue
            if path and other_path and os.path.exists(other_path) and same_file(path, other_path):
                raise ValueError(f"the {what} {path} would replace the {other} ({other_option} {other_path}), which is the "
                                 f"same file: choose another {option}")


def keep_checkpoint(options):
    """The checkpoint of an earlier run, perhaps of hours, gets a name that nothing has."""
    if not os.path.exists(options.checkpoint) or (options.resume and same_file(options.resume, options.checkpoint)):
        return
    kept, number = options.checkpoint + ".old", 1
    while os.path.lexists(kept):
        number += 1
        kept = f"{options.checkpoint}.old.{number}"
    os.rename(options.checkpoint, kept)
    print(f"an earlier run's checkpoint is now {kept}")


def open_log(path):
    """An earlier log is not touched yet."""
    try:
        return open(path, "a", encoding="utf-8") if path else contextlib.nullcontext()
    except OSError as error:
        raise ValueError(f"cannot write the log {path}: {error.strerror}")


def main(arguments):
    options, chosen, given = option_table.parse(arguments, __doc__.split("\n")[0], read_recipe)
    check_apart(options)
    check_writable(options.output)
    check_writable(options.checkpoint)
    with open_log(options.log) as log:
        return run(options, chosen, given, log)


def run(options, chosen, given, log):
    session = Session(options, chosen, given)
    if log and not options.resume and os.path.isfile(options.log):
        log.truncate(0)
    if session.epoch < options.epochs:  # a complete run writes none
        keep_checkpoint(options)
    print(f"{session.network.description['name']}: {len(session.training)} images to train on, "
          f"{len(session.test) if session.test else 0} to test, {len(session.labels)} classes, on {session.device}", flush=True)
    try:
        train(session, log)
    except KeyboardInterrupt:
        command = shlex.join([sys.executable, __file__, "--resume", options.checkpoint, "-o", options.output])
        sys.exit(f"\nstopped; to go on after epoch {session.epoch}: {command}")
    session.save()
    print(f"written: {options.output}\nnext:    hwgq import safetensors {shlex.quote(options.output)} -o MODEL.hwgq")
    return session


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ModuleNotFoundError as error:  # Pillow, which only images in files need
        sys.exit(without(error))
    except (ValueError, OSError) as error:
        sys.exit(f"train.py: {error}")
