"""Coming back: a node that catches up, and a node that starts over a large state or a long chain."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from medchain.bench import founded, rounds, usage
from medchain.bench.network import ANSWER_SECONDS, Line, Network
from medchain.bench.results import HIGHER, LOWER, NEITHER, Case, Measure, Target
from medchain.bench.rounds import MEGABYTE, Bench, Setting
from medchain.bench.session import Session
from medchain.errors import InvariantBroken, Unavailable
from medchain.testnet.launch import poll

POLL_SECONDS: Final = 0.05
CATCH_UP_SECONDS: Final = 120.0
START_SECONDS: Final = 120.0


# ---- catching up ---------------------------------------------------------------------------------------------------------------


def catch_up(bench: Bench, setting: Setting, must: float, goal: float) -> Case:
    """Let a network work without its last hospital, then let that one catch up while nobody works.

    One more hospital is stopped meanwhile, so that the others cannot decide anything: that node is alone on the machine but for those who
    send it blocks. The live rate is that of the whole network just before.
    """
    size = bench.size
    name = f"catch-up-{setting.name}"
    ratio = Target("ratio_to_live", must, goal)
    setting = replace(setting, name=name, title=f"a node catches up: {setting.title}", targets=(ratio,), curve="", x=0.0)
    with bench.session(setting, seconds=size.windows * size.window_s + size.away_s, left_out=1) as session:
        network = session.network
        *others, last = network.names
        live = [rounds.window(session, size.window_s).rate for _ in range(size.windows)]
        network.stop([last])
        time.sleep(size.away_s)
        session.worker.stop()
        network.stop(others[1:2])
        rate, cost = _caught_up(session, others[0], last)
        network.start(others[1:2])
        network.wait_ready()
    before = sorted(live)[len(live) // 2]
    measures = {
        "rate": Measure("1/s", HIGHER, (rate,)),
        "operations": Measure("1/s", HIGHER, (rate * setting.shape.operations,)),
        "ratio_to_live": Measure("x", HIGHER, (rate / before,)),
        "rate_live": Measure("1/s", NEITHER, tuple(live)),
        "cpu_to_catch_up": Measure("us", LOWER, (cost,)),
    }
    return rounds.case_of(setting, measures)


def _caught_up(session: Session, source: str, name: str) -> tuple[float, float]:
    """Start a hospital that was away; return how many transactions a second it catches up with, and its processor time for each.

    From the first block that it decided to the last: how long a start takes is another question. Raises Unavailable.
    """
    network = session.network
    goal = network.height(source)
    network.start([name])
    line = Line(network.seat(name).rpc_port)
    seen: list[tuple[float, int, float]] = []
    deadline = time.monotonic() + CATCH_UP_SECONDS
    try:
        while not seen or seen[-1][1] < goal:
            head = line.ask("chain.head")
            process = network.testnet.process_of(name)
            if head is not None and process is not None and (not seen or head["height"] > seen[-1][1]):
                seen.append((time.monotonic(), int(head["height"]), usage.cpu_seconds(process)))
            if time.monotonic() > deadline:
                raise Unavailable(f"hospital {name} does not catch up with block {goal} within {CATCH_UP_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
    finally:
        line.close()
    (first, low, cpu_before), (last, high, cpu_after) = seen[1] if len(seen) > 2 else seen[0], seen[-1]
    transactions = _transactions(network, source, range(low + 1, high + 1))
    if not transactions or last <= first:
        raise Unavailable("there was too little to catch up with")
    return transactions / (last - first), (cpu_after - cpu_before) / transactions * 1e6


def _transactions(network: Network, name: str, heights: range) -> int:
    """Return how many transactions stand in these blocks. Raises Unavailable."""
    line, total = Line(network.seat(name).rpc_port, ANSWER_SECONDS), 0
    try:
        for height in heights:
            block = line.ask("chain.block", height=height)
            if block is None:
                raise Unavailable(f"hospital {name} does not tell what stands in block {height}")
            total += len(block["transactions"])
    finally:
        line.close()
    return total


# ---- starting ------------------------------------------------------------------------------------------------------------------


def start_with(bench: Bench, *, keys: int = 0, blocks: int = 0, target: Target | None = None) -> Case:
    """Start one node of a network with a past, alone, until it answers with its newest block."""
    past = founded.network_with(bench.folder, keys=keys, blocks=blocks)
    curve, x, what = ("restart-keys", keys, "keys in the state") if keys else ("restart-length", blocks, "blocks")
    seconds, cost, memory = [], [], []
    for _ in range(bench.size.repetitions):
        with bench.place("restart") as folder:
            founded.copy(past, folder)
            with Network(folder) as network:
                name = network.names[0]
                began = time.monotonic()
                network.start([name])
                _answers(network, name)
                seconds.append(time.monotonic() - began)
                process = network.process(name)
                cost.append(usage.cpu_seconds(process))
                memory.append(usage.memory_bytes(process) / MEGABYTE)
                height = network.height(name)
    if blocks and height < blocks:
        raise InvariantBroken(f"the node stands at block {height} of a chain of {blocks}")
    measures = {
        "seconds": Measure("s", LOWER, tuple(seconds)),
        "cpu_of_start": Measure("s", LOWER, tuple(cost)),
        "rss": Measure("MB", LOWER, tuple(memory)),
    }
    settings = {"validators": 4, "keys": keys, "blocks": height}
    return Case(
        f"{curve}-{x}", f"a start: {x:,} {what}", measures, settings, () if target is None else (target,), curve=curve, x=float(x)
    )  # fmt: skip


def _answers(network: Network, name: str) -> None:
    """Wait until a node tells where it stands. Raises Unavailable."""
    if not poll(lambda: network.height(name) >= 0, START_SECONDS):
        raise Unavailable(f"hospital {name} does not answer within {START_SECONDS:.0f} s after its start")
