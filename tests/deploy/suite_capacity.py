"""The models of tests/bench/queueing.py against results of queueing theory, and its program."""
import os
import random
import subprocess
import sys

from deploy import ROOT, check, run_groups

BENCH = os.path.join(ROOT, "tests/bench")
sys.path.insert(0, BENCH)
import queueing  # noqa: E402


def near(value, wanted, share):
    return abs(value - wanted) <= share * wanted


def formulas():
    generator = random.Random(3)
    exponential = [generator.expovariate(1000) for _ in range(20000)]
    mean = sum(exponential) / len(exponential)
    # M/M/1: 1 / (mu - lambda); M/D/1: Pollaczek and Khinchine; two workers, half busy: Erlang's C is 1/3
    check("M/M/1", near(queueing.formula(exponential, 700, 1), 1 / (1 / mean - 700), 0.05))
    check("M/D/1", near(queueing.formula([1e-3], 700, 1), 1e-3 + 700 * 1e-6 / (2 * 0.3), 1e-9))
    check("Erlang's C", near(queueing.erlang_c(2, 1), 1 / 3, 1e-9) and near(queueing.erlang_c(1, 0.7), 0.7, 1e-9))
    check("no end at the capacity", queueing.formula([1e-3], 1000, 1) == float("inf"))


def simulation():
    latencies, refused = queueing.Simulation([1e-3], 1, 1).run(700, 15000)
    check("simulated M/D/1", near(sum(latencies) / len(latencies), queueing.formula([1e-3], 700, 1), 0.15) and not refused,
          sum(latencies) / len(latencies))
    generator = random.Random(3)
    exponential = [generator.expovariate(1000) for _ in range(20000)]
    latencies, _ = queueing.Simulation(exponential, 2, 2).run(1200, 15000)
    check("simulated M/M/2", near(sum(latencies) / len(latencies), queueing.formula(exponential, 1200, 2), 0.15))
    # By hand: one worker of 2 s, arrivals at 0, 1 and 10 s; I/O takes 0.5 s before and after, 0.1 s beside.
    latencies, _ = queueing.Simulation([2], 1, 4, io=1, overhead=0.1).replay([(0, 2), (1, 2), (10, 2)])
    check("three requests by hand", all(near(a, b, 1e-9) for a, b in zip(latencies, [3.1, 3.1, 4.1])), latencies)
    # Two workers on one core: each at half the speed.
    latencies, _ = queueing.Simulation([2], 2, 1).replay([(0, 2), (0, 2)])
    check("a core is shared", all(near(a, 4, 1e-9) for a in latencies), latencies)
    _, refused = queueing.Simulation([2], 1, 1, queue=1).replay([(0, 2), (0, 2), (0, 2), (0, 2)])
    check("a full queue refuses", refused == 0.5, refused)


def program():
    result = subprocess.run([sys.executable, os.path.join(BENCH, "queueing.py"), "--service", "1", "--rate", "1500", "--p99", "5"],
                            capture_output=True, text=True, timeout=120)
    check("program", result.returncode == 0 and "capacity: 1905 requests/s" in result.stdout and "need 2 machines" in result.stdout, result)


run_groups(formulas, simulation, program)
