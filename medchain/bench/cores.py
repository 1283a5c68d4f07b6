"""One node alone under replayed traffic: whether the checks of signatures use every core that a hospital's machine has.

The traffic comes from a process that stands in for all other hospitals (replay.py), over real connections. The node cannot decide anything,
so what it does is what every node does with every transaction: read, check by the rules, verify, keep, write.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from medchain.bench import usage
from medchain.bench.network import AGREE_SECONDS, Network
from medchain.bench.program import environment
from medchain.bench.results import HIGHER, LOWER, Case, Measure
from medchain.bench.rounds import Bench
from medchain.errors import Unavailable
from medchain.testnet.launch import poll

END_SECONDS: Final = 10.0
THREADS_MAX: Final = 4
"""As many as a node starts by itself."""


def cases(bench: Bench) -> list[Case]:
    """Measure one verifying thread, and one for each core; the second says how many times as fast it is."""
    alone = _case(bench, 1)
    cores = min(THREADS_MAX, len(os.sched_getaffinity(0)))
    if cores == 1:
        return [alone]
    several = _case(bench, cores)
    before = alone.measures["rate"].median
    gain = Measure("x", HIGHER, tuple(rate / before for rate in several.measures["rate"].samples))
    return [alone, replace(several, measures={**several.measures, "gain": gain})]


def _case(bench: Bench, threads: int) -> Case:
    count, rates, costs, busy = bench.size.transactions, [], [], []
    for _ in range(bench.size.repetitions):
        seconds, cpu = _taken_in(bench, threads, count)
        rates.append(count / seconds)
        costs.append(cpu / count * 1e6)
        busy.append(cpu / seconds)
    measures = {
        "rate": Measure("1/s", HIGHER, tuple(rates)),
        "cpu": Measure("us", LOWER, tuple(costs)),
        "cores_busy": Measure("", HIGHER, tuple(busy)),
    }
    title = f"one node under replayed traffic: {threads} verifying thread{'s' if threads > 1 else ''}"
    return Case(f"cores-{threads}", title, measures, {"threads": threads, "transactions": count})


def _taken_in(bench: Bench, threads: int, count: int) -> tuple[float, float]:
    """Return the seconds and the processor seconds that a node takes to admit so many transactions. Raises Unavailable."""
    with bench.place("cores") as folder, Network(folder) as network:
        name = network.names[-1]
        network.set(name, {("runtime", "verifying_threads"): threads})
        network.start([name])
        if not poll(lambda: network.height(name) >= 0, AGREE_SECONDS):
            raise Unavailable("the node under replayed traffic does not answer")
        with _traffic(network, name, count) as go:
            process = network.process(name)
            cpu, began = usage.cpu_seconds(process), time.monotonic()
            go()
            if not poll(lambda: _pooled(network, name) >= count, AGREE_SECONDS):
                raise Unavailable(f"of {count} replayed transactions only {_pooled(network, name)} were accepted")
            return time.monotonic() - began, usage.cpu_seconds(process) - cpu


def _pooled(network: Network, name: str) -> int:
    status = network.status(name)
    return 0 if status is None else int(status["pool_transactions"])


@contextmanager
def _traffic(network: Network, name: str, count: int) -> Iterator[Callable[[], None]]:
    """Start what stands in for the other hospitals, and give what lets it send. Raises Unavailable."""
    command = [sys.executable, "-P", "-m", "medchain.bench.replay", "--net", str(network.testnet.plan.folder), "--to", name]
    command += ["--transactions", str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
    orders, answers = process.stdin, process.stdout
    try:
        if orders is None or answers is None or not answers.readline():
            raise Unavailable("what replays the traffic has ended: look at what it said above")

        def go() -> None:
            orders.write(b"go\n")
            orders.flush()

        yield go
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            process.communicate(timeout=END_SECONDS)
        process.kill()
        process.wait()
