"""One round: a network under one load, measured window by window, and the case that comes of it. Knows no axis.

At the end of each round everything that was accepted must be decided, once: a rate at which something gets lost is none. Rates come from
nodes that only count (measured.py); where processor time goes is seen in a round of its own, by a sampler that costs some percent.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import string
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from medchain.bench import founded, limit, measured, sampled, usage
from medchain.bench.figures import quantity
from medchain.bench.load import Shape
from medchain.bench.network import AGREE_SECONDS, Network
from medchain.bench.results import HIGHER, LOWER, NEITHER, Case, Measure, Target
from medchain.bench.sampler import PARTS
from medchain.bench.session import Session, percentile
from medchain.bench.usage import memory_bytes
from medchain.bench.worker import Batch
from medchain.errors import InvariantBroken, Unavailable
from medchain.testnet.launch import poll

MEGABYTE: Final = 1e6
IN_FLIGHT: Final = 48
"""Groups of 64 under way when as much as possible is asked: three thousand transactions fill the largest block while the next waits."""
ANSWER_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured. Times in seconds."""

    window_s: float
    windows: int
    """Of each case: its samples."""
    keys: tuple[int, ...]
    """Keys in the state that the load begins with."""
    restart_keys: tuple[int, ...]
    lengths: tuple[int, ...]
    """Blocks of the chains that restarts are compared over."""
    kills: int
    kill_every_s: float
    repetitions: int
    """Of what has no windows: restarts, replayed traffic."""
    away_s: float
    """How long a node is away that catches up afterwards."""
    transactions: int
    """Of replayed traffic."""
    idle_s: float
    margin_s: float
    """Of prepared transactions, for what is used up before the first window and after the last."""
    is_drift_seen: bool
    """Whether the verification limit is timed after each case, too."""


FULL: Final = Size(5.0, 3, (1_000_000,), (100_000, 1_000_000), (100, 1_000, 5_000), 4, 30.0, 3, 12.0, 24_000, 15.0, 4.0, True)
QUICK: Final = Size(1.0, 2, (10_000,), (10_000,), (20, 100), 1, 4.0, 1, 2.0, 2_000, 2.0, 2.0, False)
"""Shows that everything works; its figures are not to be quoted."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The circumstances of a case."""

    name: str
    title: str
    shape: Shape
    hospitals: int = 4
    round_trip_ms: int = 0
    keys: int = 0
    """In the state before the load begins, besides its own."""
    expected: float = 7_000.0
    """Transactions a second that it will hardly exceed: so many are signed beforehand."""
    targets: Sequence[Target] = ()
    curve: str = ""
    x: float = 0.0

    def described(self) -> dict[str, str | int | float]:
        """Return the settings of the case."""
        shape = self.shape
        return {
            "validators": self.hospitals, "kind": shape.kind, "operations": shape.operations, "batch": shape.batch,
            "submit": shape.submit, "rate": shape.rate, "in_flight": shape.in_flight, "round_trip_ms": self.round_trip_ms,
            "keys": self.keys,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how much is measured, and who is told."""

    folder: Path
    size: Size
    say: Callable[[str], None]

    @contextmanager
    def place(self, name: str) -> Iterator[Path]:
        """Give a round a folder that does not exist yet; it is removed when the round succeeded, its logs are kept when it did not."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        try:
            yield folder / "net"
        except Exception:
            kept = self.folder.parent / f"{self.folder.name}-{folder.name}"
            folder.rename(kept)
            self.say(f"{name}: what was made, logs of hospitals too, is kept in {kept}")
            raise
        shutil.rmtree(folder)

    @contextmanager
    def session(
        self,
        setting: Setting,
        *,
        program: Sequence[str] = measured.PROGRAM,
        seconds: float = 0.0,
        left_out: int = 0,
        is_watched: bool = False,
    ) -> Iterator[Session]:
        """Give a setting its network under load; afterwards nothing may be lost or doubled.

        `seconds`: how long the load will be needed when that is not the windows of a case; `left_out`: of the last hospitals, which it does
        not use.
        """
        delay = ["--delay-ms", str(setting.round_trip_ms / 2)] if setting.round_trip_ms else []
        with self.place(setting.name) as folder:
            if setting.keys:
                founded.copy(founded.network_with(self.folder, keys=setting.keys), folder)
            network = Network(folder, setting.hospitals, program=program, options=delay)
            names = list(string.ascii_lowercase[setting.hospitals - left_out : setting.hospitals])
            shape = self.prepared(setting, seconds or self.size.windows * self.size.window_s)
            with Session(network, shape, left_out=names, is_watched=is_watched) as session:
                yield session
                check(session)

    def prepared(self, setting: Setting, seconds: float) -> Shape:
        """Return the load of a setting with what is signed before it begins."""
        return replace(setting.shape, prepared=int((setting.shape.rate or setting.expected) * (seconds + self.size.margin_s)))


def check(session: Session) -> None:
    """End the load and raise InvariantBroken unless everything accepted was decided exactly once, and Unavailable when nothing was."""
    checked = session.finish()
    if checked.lost or checked.doubled:
        raise InvariantBroken(f"of {checked.accepted} accepted transactions {checked.lost} are lost and {checked.doubled} decided twice")
    if not checked.accepted:
        raise Unavailable("the network accepted nothing")


# ---- windows -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Count:
    """What the processes of a network have used until a moment, all of them together."""

    moment: float
    cpu: float
    load_cpu: float
    written: float
    sent: float
    height: int


@dataclass(frozen=True, slots=True)
class Window:
    """What happened in a span of time."""

    seconds: float
    nodes: int
    transactions: int
    latencies: tuple[float, ...]
    cpu: float
    load_cpu: float
    written: float
    sent: float
    blocks: int
    memory: float
    """Of the node that holds most, at the end."""

    @property
    def rate(self) -> float:
        """Transactions a second."""
        return self.transactions / self.seconds

    def per_node(self, amount: float) -> float:
        """Return what of an amount of all nodes falls on one transaction and node."""
        return amount / self.nodes / self.transactions


def told(network: Network, names: Sequence[str], file_name: str) -> list[dict[str, Any]]:
    """Return what these nodes write into a file of their home when they get SIGUSR1. Raises Unavailable."""
    files = [network.seat(name).home.path / file_name for name in names]
    for name, file in zip(names, files, strict=True):
        file.unlink(missing_ok=True)
        os.kill(network.process(name), signal.SIGUSR1)
    if not poll(lambda: all(file.exists() for file in files), ANSWER_SECONDS):
        raise Unavailable(f"a node does not say within {ANSWER_SECONDS:.0f} s what it counted")
    return [usage.read_object(file) for file in files]


def running(network: Network) -> list[str]:
    """Return the names of the hospitals that run."""
    return [name for name in network.names if network.testnet.process_of(name) is not None]


def count(session: Session, names: Sequence[str]) -> Count:
    """Count now what these hospitals have used."""
    network = session.network
    counters = told(network, names, measured.FILE_NAME)
    processes = [network.process(name) for name in names]
    return Count(
        moment=time.monotonic(),
        cpu=sum(usage.cpu_seconds(process) for process in processes),
        load_cpu=session.worker.cpu_seconds(),
        written=sum(usage.bytes_written(process) for process in processes),
        sent=sum(row.get("network_bytes_sent", 0) for row in counters),
        height=network.height(names[0]),
    )


def window(session: Session, seconds: float, names: Sequence[str] = ()) -> Window:
    """Let the network work for so long and return what happened at these hospitals (all that run by default).

    It begins and ends with a block: where blocks are large and rare, a window that cuts them anywhere measures where it cut. Raises
    Unavailable when nothing was decided.
    """
    names = names or running(session.network)
    _next_block(session.network, names[0])
    before = count(session, names)
    time.sleep(seconds)
    done: list[Batch] = []
    while not done:  # a slow network needs longer until the load knows of anything
        _next_block(session.network, names[0])
        after = count(session, names)
        if after.moment - before.moment > AGREE_SECONDS:
            raise Unavailable(f"nothing was decided within {AGREE_SECONDS:.0f} s")
        done = decided(session, before.moment, after.moment)
    network = session.network
    return Window(
        seconds=after.moment - before.moment,
        nodes=len(names),
        transactions=sum(batch.transactions for batch in done),
        latencies=tuple(batch.latency_ms for batch in done),
        cpu=after.cpu - before.cpu,
        load_cpu=after.load_cpu - before.load_cpu,
        written=after.written - before.written,
        sent=after.sent - before.sent,
        blocks=after.height - before.height,
        memory=max(memory_bytes(network.process(name)) for name in names),
    )


def _next_block(network: Network, name: str) -> None:
    """Wait until a hospital has decided one more block. Raises Unavailable."""
    height = network.height(name)
    if not network.wait_height([name], height + 1):
        raise Unavailable(f"no block after block {height} within {AGREE_SECONDS:.0f} s")


def decided(session: Session, begin: float, end: float) -> list[Batch]:
    """Return the groups whose decision was learned in a span."""
    return [batch for batch in session.worker.report() if begin < batch.decided <= end]


# ---- cases ---------------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Limit:
    """The verification limit beside a case: timed before and after it, for machines drift."""

    processes: int
    seconds: list[float] = field(default_factory=list)

    def time(self) -> None:
        """Time a check now."""
        self.seconds.append(limit.measure(self.processes))

    @property
    def per_second(self) -> float:
        """The limit of the mean."""
        return limit.per_second(self.processes, statistics.mean(self.seconds))


def steady(bench: Bench, setting: Setting) -> Case:
    """Measure a setting that stays as it is."""
    bound = Limit(setting.hospitals)
    bound.time()
    with bench.session(setting) as session:
        windows = [window(session, bench.size.window_s) for _ in range(bench.size.windows)]
    if bench.size.is_drift_seen:
        bound.time()
    return case_of(setting, measures_of(setting, windows, bound))


def case_of(setting: Setting, measures: Mapping[str, Measure]) -> Case:
    """Return the case of a setting."""
    return Case(setting.name, setting.title, measures, setting.described(), tuple(setting.targets), setting.curve, setting.x)


def measures_of(setting: Setting, windows: Sequence[Window], bound: Limit) -> dict[str, Measure]:
    """Return what windows of one setting show."""

    def each(unit: str, better: str, value: Callable[[Window], float]) -> Measure:
        return Measure(unit, better, tuple(value(one) for one in windows))

    latencies = {f"latency_p{share:.0f}": share / 100 for share in (50, 95, 99)} | {"latency_max": 1.0}
    return {
        "rate": each("1/s", HIGHER, lambda one: one.rate),
        "operations": each("1/s", HIGHER, lambda one: one.rate * setting.shape.operations),
        "cpu": each("us", LOWER, lambda one: one.per_node(one.cpu) * 1e6),
        "load_cpu": each("us", LOWER, lambda one: one.load_cpu / one.transactions * 1e6),
        **{name: _latency(windows, share) for name, share in latencies.items()},
        "bytes_sent": each("bytes", LOWER, lambda one: one.per_node(one.sent)),
        "bytes_written": each("bytes", LOWER, lambda one: one.per_node(one.written)),
        "blocks": each("1/s", NEITHER, lambda one: one.blocks / one.seconds),
        "transactions_per_block": each("", NEITHER, lambda one: one.transactions / max(1, one.blocks)),
        "check": Measure("us", NEITHER, tuple(seconds * 1e6 for seconds in bound.seconds)),
        "verification_limit": Measure("1/s", NEITHER, tuple(limit.per_second(bound.processes, seconds) for seconds in bound.seconds)),
        "ratio_to_limit": each("x", HIGHER, lambda one: one.rate / bound.per_second),
        "rss": each("MB", LOWER, lambda one: one.memory / MEGABYTE),
    }


def _latency(windows: Sequence[Window], share: float) -> Measure:
    return Measure("ms", LOWER, tuple(percentile(one.latencies, share) for one in windows))


def breakdown(bench: Bench, setting: Setting) -> dict[str, Measure]:
    """Return where the processor time of a transaction goes at a node, part by part, from a round with samplers."""
    names: Sequence[str] = ()
    with bench.session(setting, program=sampled.PROGRAM) as session:
        network, names = session.network, session.network.names
        before, begin = told(network, names, sampled.FILE_NAME), time.monotonic()
        time.sleep(bench.size.window_s * 2)
        _next_block(network, names[0])
        after, end = told(network, names, sampled.FILE_NAME), time.monotonic()
        transactions = sum(batch.transactions for batch in decided(session, begin, end))
    if not transactions:
        raise Unavailable("nothing was decided while samples were taken")
    spent: Counter[str] = Counter()
    for rows, sign in ((after, 1.0), (before, -1.0)):
        for row in rows:
            for part in PARTS:
                spent[part] += sign * row["parts"][part]
    return {f"cpu_{part}": Measure("us", LOWER, (max(0.0, spent[part]) / len(names) / transactions * 1e6,)) for part in PARTS}


def ratio_of_rate(case: Case, base: Case) -> tuple[float, ...]:
    """Return the rate of a case by that of another, each as a share of the verification limit beside it: the machine's drift cancels."""
    limits = case.measures["verification_limit"].median / base.measures["verification_limit"].median
    return tuple(sample / limits / base.measures["rate"].median for sample in case.measures["rate"].samples)


def ratio_of_cost(case: Case, base: Case) -> tuple[float, ...]:
    """Return the processor time of a transaction and node by that of another case, both in checks of a signature as timed beside each."""
    checks = seconds_per_check(case) / seconds_per_check(base)
    return tuple(sample / checks / base.measures["cpu"].median for sample in case.measures["cpu"].samples)


def seconds_per_check(case: Case) -> float:
    """Return how long one signature took beside a case."""
    return case.measures["check"].median / 1e6


def line(case: Case) -> str:
    """Return what a case found in one line."""
    names = ("rate", "cpu", "latency_p50", "latency_p99", "ratio_to_limit", "seconds")
    shown = [name for name in names if name in case.measures] or list(case.measures)[:3]
    parts = [f"{name} {quantity(case.measures[name].median, case.measures[name].unit)}" for name in shown]
    return f"{case.name}: {', '.join(parts)}"
