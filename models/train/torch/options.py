"""The options of train.py. Those of the recipe have the names, defaults, ranges and presets of `hwgq train`, whose help says
what each does; they are decided in models/tool/train_options.c and train_presets.c."""
import argparse
import math

from hwgq_torch import BACKWARDS

# ---- values ----------------------------------------------------------------------------------------------------------


def fraction(text):
    """"0.5" or "1/64"."""
    above, slash, below = text.partition("/")
    try:
        value = float(above) / float(below if slash else 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number, such as 0.5 or 1/64")
    return value


def checked(kind, name, least, most):
    def read(text):
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} does not lie in {least} to {most}")
        return value

    read.__name__ = name  # argparse says "invalid NAME value"
    return read


def number(least, most):
    return checked(fraction, "number", least, most)


def whole(least, most):
    return checked(int, "whole number", least, most)


def three(text):
    """One number for all channels, or three."""
    values = [fraction(part) for part in text.split(",")]
    if len(values) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text} is neither one number nor three")
    return values * (3 // len(values))


# ---- the options -----------------------------------------------------------------------------------------------------

YES = ("yes", "no")
# name: (type, or the words that it takes; default). None: left to `hwgq describe`, or to the data.
NETWORK = {
    "width": (number(0.001, 64), None),
    "weights": (("binary", "float"), None),
    "levels": (("uniform", "free", "sign", "relu"), None),
    "bits": (whole(1, 4), None),
    "level-count": (whole(1, 15), None),
    "zero": (("0", "half"), None),
    "step": (number(1e-6, 1e6), None),
    "affine": (YES, None),
    "input": (str, None),
}
RECIPE = {
    **NETWORK,
    "preset": (str, None),
    "backward": (BACKWARDS, "clipped"),
    "initial": (str, None),
    "initializer": (("uniform", "msra"), "uniform"),
    "epochs": (whole(1, 1000000), 30),
    "batch": (whole(1, 1 << 16), 100),
    "optimizer": (("adam", "sgd"), "adam"),
    "lr": (number(0, 1000), 0.003),
    "classifier-rate": (number(0, 1000), 0.1),
    "momentum": (number(0, 0.999999), 0.9),
    "weight-decay": (number(0, 1), 0.0),
    "schedule": (("poly", "constant", "cosine"), "poly"),
    "power": (number(0, 100), 1.0),
    "warmup": (number(0, 1), 0.05),
    "label-smoothing": (number(0, 1), 0.0),
    "teacher": (str, None),
    "distill-weight": (number(0, 1), 0.5),
    "distill-temperature": (number(0.01, 1000), 2.0),
    "average": (number(0, 0.999999), 0.0),
    "average-epochs": (whole(0, 1000000), 0),
    "statistics-batches": (whole(0, 1000000), 0),
    "seed": (whole(0, 2**63 - 1), 1),
    "mirror": (YES, "yes"),
    "pad": (whole(0, 64), 4),
    "zoom": (number(0, 4), 0.0),
    "crop": (number(0, 0.95), 0.0),
    "aspect": (number(0, 4), 0.0),
    "blur": (number(0, 8), 0.0),
    "soften": (number(0, 4), 0.0),
    "brightness": (number(0, 4), 0.0),
    "contrast": (number(0, 4), 0.0),
    "saturation": (number(0, 4), 0.0),
    "cutout": (whole(0, 65536), 0),
    "mean": (three, None),
    "scale": (three, [1 / 64] * 3),
    "order": (("rgb", "bgr", "gray"), None),
    "resize": (whole(0, 4096), 0),
    "invert": (YES, "no"),
    "limit": (whole(0, 2**31 - 1), 0),
    "labels": (str, None),
}

PAPER = {"optimizer": "sgd", "momentum": "0.9", "schedule": "poly", "power": "1", "warmup": "0", "classifier-rate": "1",
         "initializer": "msra", "scale": "1", "mirror": "yes"}
IMAGENET = {**PAPER, "order": "bgr", "mean": "104,117,123", "resize": "256", "pad": "16", "batch": "256", "epochs": "64"}
PRESETS = {
    "plain": {},
    "shipped": {"zero": "half", "affine": "yes", "zoom": "0.1"},
    "paper-cifar": {**PAPER, "lr": "0.01", "weight-decay": "0.0005", "batch": "100", "epochs": "200", "pad": "4"},
    "paper-alexnet": {**IMAGENET, "lr": "0.02", "weight-decay": "0.0005"},
    "paper-vgg": {**IMAGENET, "lr": "0.01", "weight-decay": "0.0005"},
    "paper-resnet": {**IMAGENET, "lr": "0.1", "weight-decay": "0.00005"},
}


def field(name):
    """An option's name in a Namespace, and in a checkpoint."""
    return name.replace("-", "_")


def make_parser(description):
    p = argparse.ArgumentParser(description=description, argument_default=argparse.SUPPRESS, allow_abbrev=False,
                                epilog="Options without a description: see `hwgq train --help`.")
    p.add_argument("network", nargs="?",
                   help="a name, such as vgg-small, or a file with a description: JSON, .hwgq or .safetensors")
    p.add_argument("data", nargs="?", help="folder or archive with train/CLASS/IMAGE, IDX files, or CIFAR-10 binary batches")
    recipe = p.add_argument_group("the recipe")
    for name, (kind, default) in RECIPE.items():
        words = kind if isinstance(kind, tuple) else sorted(PRESETS) if name == "preset" else None
        shown = ",".join(map(str, default)) if isinstance(default, list) else default
        said = "" if default is None else f"default {shown}"
        metavar = None if words else "FILE" if kind is str and name != "input" else "CxHxW" if name == "input" else "N"
        recipe.add_argument("--" + name, type=str if words else kind, choices=words, help=said, metavar=metavar)
    p.add_argument("--no-test", action="store_true")
    run = p.add_argument_group("running")
    run.add_argument("-o", "--output", metavar="STATE.safetensors",
                     help="written after every epoch (default with --resume OUT.checkpoint: OUT)")
    run.add_argument("--checkpoint", metavar="FILE", help="written after every epoch (default: OUTPUT.checkpoint)")
    run.add_argument("--resume", metavar="FILE",
                     help="continue from a checkpoint, with its recipe; options given beside it change it")
    run.add_argument("--log", metavar="FILE", help="one JSON object a line after every epoch; appended to with --resume")
    run.add_argument("--device", help="default: cuda when there is one, else cpu")
    run.add_argument("--amp", action="store_true",
                     help="convolutions and linear layers in bfloat16 while training (default: float32)")
    run.add_argument("--hwgq", help="the hwgq program (default: on the path, else of this repository's build)")
    return p


def check(parser, options, chosen):
    """chosen: what was given, or is from a preset or a checkpoint. The messages are those of `hwgq train`."""
    levels = options.levels or "uniform"
    unquantized = [name for name in ("bits", "level-count", "zero", "backward") if field(name) in chosen]
    if not options.network or not options.data:
        parser.error("give a network and data, as in train.py lenet DATA -o OUT.safetensors")
    if not options.output:
        parser.error("say where the state_dict goes: -o OUT.safetensors")
    if "bits" in chosen and "level_count" in chosen:
        parser.error("give one of --bits and --level-count")
    if options.step and levels != "uniform":
        parser.error("--step goes with --levels uniform")
    if not options.teacher and ("distill_weight" in chosen or "distill_temperature" in chosen):
        parser.error("--distill-weight and --distill-temperature go with --teacher MODEL")
    if levels in ("sign", "relu") and unquantized:
        parser.error(f"--{unquantized[0]} goes with --levels uniform or free, not with {levels}")
    if options.average and options.average_epochs:
        parser.error("give --average or --average-epochs, not both")


def parse(arguments, description, read_recipe):
    """The options; those of the recipe that were chosen, by a checkpoint, a preset or the command line, of which the last one
    wins; and those of the command line. read_recipe(path): what a checkpoint says."""
    parser = make_parser(description)
    given = vars(parser.parse_args(arguments))
    preset = [word for name, value in PRESETS[given["preset"]].items() for word in ("--" + name, value)] \
        if "preset" in given else []
    resumed = read_recipe(given["resume"]) if "resume" in given else {}
    values = {**resumed, **vars(parser.parse_args(preset)), **given}
    chosen = {key: value for key, value in values.items() if key in {field(name) for name in RECIPE}}
    running = dict.fromkeys(("network", "data", "output", "checkpoint", "resume", "log", "device", "hwgq"))
    options = argparse.Namespace(**{**running, **{field(name): default for name, (_, default) in RECIPE.items()},
                                    "no_test": False, "amp": False, **values})
    if options.resume and not options.output and options.resume.endswith(".checkpoint"):
        options.output = options.resume[:-len(".checkpoint")]
    check(parser, options, chosen)
    options.checkpoint = options.checkpoint or options.resume or options.output + ".checkpoint"
    return options, chosen, given
