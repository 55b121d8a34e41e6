"""Predicts latency from load, service times, workers and machines.

Two models of one daemon: requests come at random (a Poisson process), `workers` of them are classified at a time, the others wait in
their order.
  formula      M/G/k by Allen and Cunneen: Erlang's C for the chance to wait, scaled by the variation of the service times
  simulation   one I/O thread reads requests and writes replies, workers classify, and all threads that have work share the cores
Several machines: a balancer gives each its share at random, so each has its part of the load. (One that knows who is free does better.)

    usage: queueing.py --service MS[,MS...] --rate REQUESTS_PER_SECOND [--workers 2] [--cores WORKERS] [--io MS] [--machines 1]
                       [--queue 256] [--p99 MS]      --p99: how much load that many machines take, and how many the load needs
tests/bench/capacity.py compares the models with measurements."""
import argparse
import heapq
import math
import random


def erlang_c(workers, load):
    """The chance that all workers are busy; load: their mean number that is busy, below `workers`."""
    term, total = 1.0, 1.0
    for i in range(1, workers):
        term *= load / i
        total += term
    term *= load / workers * workers / (workers - load)
    return term / (total + term)


def formula(services, rate, workers, overhead=0.0):
    """Mean time in the system, seconds; infinite from the capacity on."""
    mean = sum(services) / len(services)
    load = rate * mean
    if load >= workers:
        return math.inf
    variation = sum((s - mean) ** 2 for s in services) / len(services) / mean**2
    return overhead + mean + erlang_c(workers, load) * mean / (workers - load) * (1 + variation) / 2


class Simulation:
    """Times in seconds. services: of workers; io: of the I/O thread per request, half before and half after; overhead: what a
    request takes beside, without a core; client: of a load generator's core, if that runs on the same machine."""

    def __init__(self, services, workers, cores, io=0.0, overhead=0.0, client=0.0, queue=256, seed=1):
        self.services, self.workers, self.cores, self.queue = services, workers, cores, queue
        self.io, self.overhead, self.client = io, overhead, client
        self.random = random.Random(seed)

    def run(self, rate, count=20000):
        """(latencies in rising order, share that was refused) of so many requests at random times, the first tenth not counted."""
        requests, now = [], 0.0
        for _ in range(count):
            now += self.random.expovariate(rate)
            requests.append((now, self.random.choice(self.services)))
        return self.replay(requests, count // 10)

    def replay(self, requests, warm=0):
        """The same of requests that are given: (when, a worker's time)."""
        # Stations in the order of a request: client, I/O thread, workers, I/O thread, client. 'io' and 'client' serve one at a time.
        limits = {"client": 1, "io": 1, "worker": self.workers}
        steps = ["client", "io", "worker", "io", "client"]
        waiting = {name: [] for name in limits}  # heaps: who came first
        active = []  # [work left, station, request, step]
        latencies, refused, now, order, arrived = [], 0, 0.0, 0, 0
        shares = {"client": self.client / 2, "io": self.io / 2}

        def enter(request, step):
            nonlocal order, refused
            order += 1
            if step == 2 and len(waiting["worker"]) >= self.queue:
                refused += 1
                return
            heapq.heappush(waiting[steps[step]], (order, request, step))
            start(steps[step])

        def start(station):
            while waiting[station] and sum(job[1] == station for job in active) < limits[station]:
                _, request, step = heapq.heappop(waiting[station])
                active.append([shares[station] if station in shares else requests[request][1], station, request, step])

        while arrived < len(requests) or active:
            speed = min(1.0, self.cores / len(active)) if active else 1.0
            first = min(active, key=lambda job: job[0]) if active else None
            done = now + first[0] / speed if first else math.inf
            next_arrival = requests[arrived][0] if arrived < len(requests) else math.inf
            then = min(done, next_arrival)
            for job in active:
                job[0] -= (then - now) * speed
            now = then
            if done <= next_arrival:
                active.remove(first)
                _, station, request, step = first
                if step + 1 < len(steps):
                    enter(request, step + 1)
                elif request >= warm:
                    latencies.append(now - requests[request][0] + self.overhead)
                start(station)
            else:
                enter(arrived, 0)
                arrived += 1
        return sorted(latencies), refused / len(requests)

    def capacity(self):
        """Requests per second that the busiest part can do."""
        mean = sum(self.services) / len(self.services)
        parts = [self.workers / mean, self.cores / (mean + self.io + self.client)]
        return min(parts + [1 / self.io] if self.io else parts)

    def rate_for(self, p99):
        """The highest load with such a 99th percentile."""
        low, high = 0.0, self.capacity()
        for _ in range(9):
            middle = (low + high) / 2
            latencies, refused = self.run(middle, 6000)
            low, high = (middle, high) if not refused and quantile(latencies, 0.99) <= p99 else (low, middle)
        return low


def quantile(values, share):
    return values[min(len(values) - 1, int(share * len(values)))] if values else math.nan


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\ntests/")[0])
    parser.add_argument("--service", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cores", type=int)
    parser.add_argument("--io", type=float, default=0.05)
    parser.add_argument("--machines", type=int, default=1)
    parser.add_argument("--queue", type=int, default=256)
    parser.add_argument("--p99", type=float)
    options = parser.parse_args()
    services = [float(word) / 1e3 for word in options.service.split(",")]
    model = Simulation(services, options.workers, options.cores or options.workers, options.io / 1e3, queue=options.queue)
    rate = options.rate / options.machines
    print("capacity: %.0f requests/s (%d machines)" % (model.capacity() * options.machines, options.machines))
    latencies, refused = model.run(rate)
    print("at %.0f/s: mean %.2f ms (M/G/k: %.2f), p50 %.2f, p90 %.2f, p99 %.2f ms, refused %.2f %%" % (
        options.rate, 1e3 * sum(latencies) / max(1, len(latencies)), 1e3 * formula(services, rate, options.workers),
        *(1e3 * quantile(latencies, share) for share in (0.5, 0.9, 0.99)), 100 * refused))
    if options.p99:
        each = model.rate_for(options.p99 / 1e3)
        print("p99 within %g ms: up to %.0f/s" % (options.p99, each * options.machines) +
              (", %.0f/s need %d machines" % (options.rate, math.ceil(options.rate / each)) if each else ": not even without load"))


if __name__ == "__main__":
    main()
