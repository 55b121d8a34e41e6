#!/usr/bin/env python3
"""Times whole networks on this project's engine and on its peers, side by side; README.md says what is compared with what.

usage: compare.py PROGRAMS [options]        (make bench-peers BENCH_PEERS="options")

PROGRAMS is the folder of the programs that `make peers` builds. Every engine is a child process that waits for requests; all
are pinned to one core, and they take turns: one burst of inferences each, round after round. A ratio is made within a round."""
import argparse
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
WORK = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(HERE))), "build", "peers")
NETWORKS = {"vgg-small": 32, "alexnet": 227, "resnet-18": 224, "resnet-50": 224, "googlenet": 224}
OURS = "hwgq"
# name: (program, its mode, what a ratio is reported against)
ENGINES = {
    "hwgq": ("hwgq", "", None),
    "hwgq, paper's thresholds": ("hwgq", "paper", None),
    "oneDNN int8": ("onednn", "int8", "int8"),
    "ONNX Runtime int8": ("ort", "int8", "int8"),
    "oneDNN float32": ("onednn", "float32", "float32"),
    "ONNX Runtime float32": ("ort", "float32", "float32"),
    "ONNX Runtime float32, ReLU": ("ort", "relu", None),
    "OpenBLAS im2col": ("blas", "", "float32"),
}
# not timed: peers whose answers must be ours, because nothing in them is approximated but float rounding
EXACT = {
    "oneDNN float32": ("onednn", "float32"),
    "oneDNN int8, float first layer": ("onednn", "int8-float-first"),
    "ONNX Runtime float32": ("ort", "float32"),
    "ONNX Runtime int8, float first layer": ("ort", "int8-float-first"),
    "OpenBLAS im2col": ("blas", ""),
}
CHECKED_IMAGES = 4


class Child:
    def __init__(self, command, core, environment):
        def pin():
            os.sched_setaffinity(0, {core})

        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=pin,
                                        env=environment)
        self.ready = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.process.args)} ended with status {self.process.wait()}")
        return json.loads(line)

    def ask(self, request):
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return self.answer()

    def probabilities(self, image):
        scores = self.ask(f"check {image}")["scores"]
        if self.ready["softmax"]:
            return scores
        powers = [math.exp(score - max(scores)) for score in scores]
        return [power / sum(powers) for power in powers]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def say(text):
    print(text, file=sys.stderr, flush=True)


def older(path, *sources):
    return not os.path.exists(path) or any(os.path.getmtime(path) < os.path.getmtime(source) for source in sources)


def install_node_modules():
    modules = os.path.join(WORK, "node_modules")
    if os.path.isdir(os.path.join(modules, "onnxruntime-node")):
        return modules
    if not shutil.which("npm"):
        say("no npm here: leaving ONNX Runtime out (install nodejs and npm)")
        return None
    say("installing onnxruntime-node with npm into build/peers")
    shutil.copy(os.path.join(HERE, "package.json"), WORK)
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=WORK, check=True,
                   stdout=subprocess.DEVNULL)
    return modules


class Bench:
    def __init__(self, options):
        self.options = options
        self.models = os.path.join(WORK, "models" if options.first_bits == 8 else "models-16")
        os.makedirs(self.models, exist_ok=True)
        self.modules = install_node_modules()
        self.environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        self.environment.pop("OPENBLAS_CORETYPE", None)  # engine_blas chooses, and may be told by PEERS_BLAS_CORE
        self.avx2 = options.isa == "avx2"
        if self.avx2:
            self.environment.update(ONEDNN_MAX_CPU_ISA="AVX2", DNNL_MAX_CPU_ISA="AVX2", HWGQ_CPU="avx2", PEERS_BLAS_CORE="Haswell")

    def program(self, name):
        return os.path.join(self.options.programs, name)

    def make(self, network):
        prefix = os.path.join(self.models, network)
        if older(prefix + ".input", self.program("make_model")):
            say(f"{network}: making a random model")
            subprocess.run([self.program("make_model"), network, self.models, str(self.options.first_bits)],
                           check=True)
        return prefix

    def start(self, network, program, mode):
        prefix = os.path.join(self.models, network)
        if program == "ort":
            if not self.modules:
                raise RuntimeError("ONNX Runtime is not installed")
            onnx = f"{prefix}.{mode}.onnx"
            if older(onnx, prefix + ".hwgq", self.program("write_onnx")):
                subprocess.run([self.program("write_onnx"), prefix + ".hwgq", onnx, mode], check=True)
            size = str(NETWORKS[network])
            command = ["node", os.path.join(HERE, "engine_ort.js"), self.modules, onnx, prefix, "3", size, size]
        else:
            model = prefix + ("-paper.hwgq" if mode == "paper" else ".hwgq")
            command = [self.program("engine_" + program), model, prefix] + ([mode] if program == "onednn" else [])
        return Child(command, self.options.core, self.environment)

    def check(self, network):
        """How far the probabilities of engines that should agree are from ours."""
        ours = self.start(network, "hwgq", "")
        expected = [ours.probabilities(image) for image in range(CHECKED_IMAGES)]
        ours.close()
        results = {}
        for name, (program, mode) in EXACT.items():
            if program == "ort" and (self.avx2 or not self.modules):
                continue
            child = self.start(network, program, mode)
            same, worst = 0, 0
            for image, ours_here in enumerate(expected):
                theirs = child.probabilities(image)
                same += theirs.index(max(theirs)) == ours_here.index(max(ours_here))
                worst = max(worst, max(abs(a - b) for a, b in zip(theirs, ours_here)))
            child.close()
            results[name] = {"images": CHECKED_IMAGES, "same_top_1": same, "max_probability_difference": worst}
        return results

    def time(self, network):
        children = {}
        for name, (program, mode, _) in ENGINES.items():
            if program == "ort" and (self.avx2 or not self.modules):
                continue
            children[name] = self.start(network, program, mode)
        counts = {}
        for name, child in children.items():
            child.ask("go 2")
            fastest = min(child.ask("go 3")["us"])
            counts[name] = max(self.options.least, min(400, int(self.options.burst * 1000 / fastest)))
        runs = {name: [] for name in children}
        for number in range(self.options.rounds):
            names = list(children)
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                runs[name].append(children[name].ask(f"go {counts[name]}")["us"])
        ready = {name: child.ready["ready"] for name, child in children.items()}
        for child in children.values():
            child.close()
        return {name: summary(ready[name], runs[name], runs[OURS]) for name in runs}


def summary(ready, rounds, ours):
    medians = [statistics.median(times) for times in rounds]
    ratios = [median / statistics.median(base) for median, base in zip(medians, ours)]
    every = [time_us for times in rounds for time_us in times]
    return {
        "engine": ready, "runs": len(every),
        "us": {"median": statistics.median(every), "min": min(every), "max_of_round_medians": max(medians),
               "min_of_round_medians": min(medians)},
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios),
                  "of_minima": min(every) / min(time_us for times in ours for time_us in times)},
    }


def cpu_model():
    fields = {}
    with open("/proc/cpuinfo") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() and key.strip() not in fields:
                fields[key.strip()] = value.strip()
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"


def is_noisy(engines):
    """A quiet core repeats its medians from round to round."""
    times = [engine["us"] for engine in engines.values()]
    return statistics.median(us["max_of_round_medians"] / us["min_of_round_medians"] for us in times) > 1.1


def print_network(network, result):
    print(f"\n{network}")
    print(f"{'':30} {'us median':>10} {'min':>10} {'round medians':>21} {'times hwgq':>11} {'min..max':>15} "
          f"{'of minima':>10}")
    for name, engine in result["engines"].items():
        us, ratio = engine["us"], engine["ratio"]
        spread = f"{us['min_of_round_medians']:.0f}..{us['max_of_round_medians']:.0f}"
        print(f"{name:30} {us['median']:10.0f} {us['min']:10.0f} {spread:>21} {ratio['median']:11.2f} "
              f"{format(ratio['min'], '.2f') + '..' + format(ratio['max'], '.2f'):>15} {ratio['of_minima']:10.2f}")
    for kind in ("int8", "float32"):
        name, ratio = fastest_peer(result, kind)
        if name is None:
            continue
        print(f"fastest {kind} peer: {name}, {ratio['median']:.2f} times our time ({ratio['min']:.2f} to {ratio['max']:.2f})")
    for name, check in result.get("check", {}).items():
        print(f"same answers: {name}: top-1 of {check['same_top_1']}/{check['images']} images, probabilities within "
              f"{check['max_probability_difference']:.1e}")
    if result["noisy"]:
        print("warning: round medians differ by more than 10 %: the machine was too noisy, do not trust these times")


def fastest_peer(result, kind):
    """Name and ratio of the fastest peer of a kind, (None, None) when none of it ran."""
    peers = {name: engine for name, engine in result["engines"].items() if ENGINES[name][2] == kind}
    if not peers:
        return None, None
    name = min(peers, key=lambda peer: peers[peer]["ratio"]["median"])
    return name, peers[name]["ratio"]


def verdict(network, result, kind, goal):
    """By the median of the rounds' ratios and by the fastest runs, whichever is less for any peer: on a busy machine long runs are
    interrupted more often than short ones, and medians alone would flatter the faster engine."""
    least = {name: min(engine["ratio"]["median"], engine["ratio"]["of_minima"]) for name, engine in result["engines"].items()
             if ENGINES[name][2] == kind}
    if not least:
        return {"network": network, "kind": kind, "at_least": goal, "peer": None, "reached": False}
    name = min(least, key=least.get)
    return {"network": network, "kind": kind, "at_least": goal, "peer": name, "ratio": least[name], "noisy": result["noisy"],
            "reached": least[name] >= goal}


def print_verdict(line):
    if line["peer"] is None:
        print(f"{line['network']:12} {line['kind']:8} MISSED: no such peer ran")
        return
    print(f"{line['network']:12} {line['kind']:8} {'reached' if line['reached'] else 'MISSED':8} {line['ratio']:5.2f} "
          f"times our time, {line['at_least']:.2f} wanted ({line['peer']})" + (", but the machine was noisy" if line["noisy"] else ""))


def goals(text):
    wanted = {}
    for part in text.split(","):
        kind, _, ratio = part.partition("=")
        if kind not in ("int8", "float32"):
            raise argparse.ArgumentTypeError(f"'{kind}': there are int8 and float32 peers")
        try:
            wanted[kind] = float(ratio)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{ratio}' is no number") from None
    return wanted


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="comma-separated (default: all)")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--burst", type=float, default=100, help="milliseconds of one engine's turn (default 100)")
    parser.add_argument("--least", type=int, default=3, help="least inferences in a turn (default 3)")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the core that all are pinned to")
    parser.add_argument("--isa", choices=("native", "avx2"), default="native",
                        help="avx2: hold all to AVX2; ONNX Runtime has no switch for that and is left out")
    parser.add_argument("--avx2", dest="isa", action="store_const", const="avx2", help="the same as --isa avx2")
    parser.add_argument("--at-least", type=goals, default={}, metavar="KIND=RATIO,...",
                        help="as in int8=1.2,float32=8: status 1 when the fastest peer of a kind takes less than so many "
                        "times our time")
    parser.add_argument("--first-bits", type=int, choices=(8, 16), default=8,
                        help="of the first convolution's weights; the int8 peers always have 8 (default 8)")
    parser.add_argument("--no-check", action="store_true", help="do not compare answers")
    parser.add_argument("--prepare", action="store_true", help="only make the models")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.networks = options.networks.split(",")
    for network in options.networks:
        if network not in NETWORKS:
            parser.error(f"no network {network}: choose from {', '.join(NETWORKS)}")
    return options


def main():
    options = parse()
    bench = Bench(options)
    for network in options.networks:
        bench.make(network)
    if options.prepare:
        return
    report = {"cpu": cpu_model(), "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "core": options.core, "threads": 1,
              "batch": 1, "isa": options.isa, "first_bits": options.first_bits, "rounds": options.rounds, "load_average": os.getloadavg()[0],
              "networks": {}}
    if not options.json:
        print(f"{report['cpu']}, {report['date']}, core {options.core}, one thread, one image at a time, "
              f"{options.rounds} rounds, load average {report['load_average']:.1f}"
              + (", all held to AVX2 (ONNX Runtime has no switch for that and is left out)" if bench.avx2 else ""))
    for network in options.networks:
        result = {"engines": bench.time(network)}
        if not options.no_check:
            result["check"] = bench.check(network)
        result["noisy"] = is_noisy(result["engines"])
        report["networks"][network] = result
        if not options.json:
            print_network(network, result)
            sys.stdout.flush()
    report["goals"] = [verdict(network, result, kind, goal) for network, result in report["networks"].items()
                       for kind, goal in options.at_least.items()]
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        if report["goals"]:
            print()
        for line in report["goals"]:
            print_verdict(line)
        print("\nengines: " + "; ".join(sorted({engine["engine"] for result in report["networks"].values()
                                                  for engine in result["engines"].values()})))
    if not all(line["reached"] for line in report["goals"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
