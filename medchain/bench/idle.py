"""A network without work: what its nodes cost while nobody wants anything of them."""

from __future__ import annotations

import time
from typing import Final

from medchain.bench import usage
from medchain.bench.network import Network
from medchain.bench.results import LOWER, Case, Measure, Target
from medchain.bench.rounds import MEGABYTE, Bench

SETTLE_SECONDS: Final = 2.0
"""After the start, until connections and caches are what they will be."""


def measure(bench: Bench) -> Case:
    """Let four nodes do nothing, window by window."""
    share, memory = [], []
    with bench.place("idle") as folder, Network(folder) as network:
        network.start()
        network.wait_ready()
        time.sleep(SETTLE_SECONDS)
        for _ in range(bench.size.windows):
            cpu, began = network.cpu_seconds(), time.monotonic()
            time.sleep(bench.size.idle_s / bench.size.windows)
            share.append((network.cpu_seconds() - cpu) / (time.monotonic() - began) / len(network.names) * 100)
            memory.append(max(usage.memory_bytes(network.process(name)) for name in network.names) / MEGABYTE)
    measures = {"cpu_share": Measure("%", LOWER, tuple(share)), "rss": Measure("MB", LOWER, tuple(memory))}
    targets = (Target("cpu_share", 1.0, 0.2), Target("rss", 80, 60))
    return Case("idle", "a network without work", measures, {"validators": 4}, targets)
