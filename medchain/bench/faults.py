"""The faults, each on a real network under load: what is broken, for how long, and what is measured of it.

Every fault has a network of its own, and a healthy window on it just before, because machines drift; where a hospital was dead or replaced,
another one when it is back, because a young network slows down while its state grows. The load does not use a hospital that
is about to lie or stand still, before or under the fault: its clients are not what is measured. Afterwards everything that was accepted is
compared with the chain, whatever the fault was. Knows processes and lines, not how they are built.
"""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from medchain.bench.load import Shape
from medchain.bench.network import Network
from medchain.bench.rows import Row, Size
from medchain.bench.session import Rate, Session, percentile
from medchain.errors import Unavailable
from medchain.testnet.launch import poll

RATIO_MIN: Final = 0.8
PRIMARY_P99_MS: Final = 2_000.0
HEALED_MS: Final = 5_000.0
"""The figures that must hold (issue 3, figures.md)."""

SETTLE_ROUNDS: Final = 4
"""Turns of every primary between a blow and the steady rate: by then the rotation has left out who is silent (protocol.md, K = 2n)."""
SHORT_FREEZE_S: Final = 1.0
CUT_EVERY_S: Final = 1.0
DELAY_MS: Final = 50
STORM_PAUSE_S: Final = 0.5
"""At most between the moment when all answer again, not yet caught up, and the next blow."""
STORM_DOUBLE_OF: Final = 5
"""Every so many blows, by chance, hit two hospitals at once: more than f of four, so that agreement has to wait for them."""
NEAR_CLOCK_MS: Final = 3_000
FAR_CLOCK_MS: Final = 3_600_000
END_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how much is measured."""

    folder: Path
    size: Size
    hospitals: int
    rate: float
    """Transactions a second of a paced fault."""
    dice: random.Random

    @contextmanager
    def session(self, row: Row, *, has_relays: bool = False, left_out: int = 0) -> Iterator[Session]:
        """Give a fault its network; `left_out` of the last hospitals are not used by the load. Afterwards nothing may be lost."""
        folder = Path(tempfile.mkdtemp(prefix=f"{row.name}-", dir=self.folder)) / "net"
        names = _last(self.hospitals, left_out)
        network = Network(folder, self.hospitals, has_relays=has_relays)
        with Session(network, Shape(rate=self.rate), left_out=names) as session:
            yield session
            row.checked = checked = session.finish()
        row.expect("nothing accepted lost", checked.lost == 0)
        row.expect("nothing decided twice", checked.doubled == 0)


def _last(hospitals: int, count: int) -> list[str]:
    names = [chr(ord("a") + number) for number in range(hospitals)]
    return names[len(names) - count :]


def _settle(session: Session, rounds: int = SETTLE_ROUNDS, seconds: float = END_SECONDS) -> None:
    """Let every hospital's turn as primary pass a few times, for so long at most."""
    session.watch.wait_height(session.watch.height + rounds * len(session.network.names), seconds)


def _round(session: Session) -> int:
    """Return after how many blocks each hospital has been primary once more, the one that is broken among them."""
    return len(session.network.names) + 1


def _mean(rates: Sequence[Rate]) -> Rate:
    """Return the mean of rates over spans of equal length."""
    count = len(rates)
    return Rate(
        per_second=sum(rate.per_second for rate in rates) / count,
        cpu_us=sum(rate.cpu_us for rate in rates) / count,
        latency_p50_ms=percentile([rate.latency_p50_ms for rate in rates if not math.isnan(rate.latency_p50_ms)], 0.5),
        latency_p99_ms=percentile([rate.latency_p99_ms for rate in rates if not math.isnan(rate.latency_p99_ms)], 1.0),
        longest_pause_ms=max(rate.longest_pause_ms for rate in rates),
    )


def _bracket(session: Session, row: Row, window_s: float) -> None:
    """Measure the network once more when it is whole again: what it is compared with is the mean of before and after."""
    if row.healthy is not None:
        row.healthy = _mean([row.healthy, session.rate_for(window_s)])


def _expect_ratio(row: Row) -> None:
    row.expect(f"at least {RATIO_MIN:.0%} of healthy", row.ratio >= RATIO_MIN)


# ---- processes -----------------------------------------------------------------------------------------------------------------


def healthy(bench: Bench, row: Row) -> None:
    """Two windows of the same network: how far figures differ without any fault."""
    with bench.session(row) as session:
        row.healthy = session.rate_for(bench.size.window_s)
        row.under = session.rate_for(bench.size.window_s)
        row.next_block_ms.append(row.under.longest_pause_ms)


def dead(bench: Bench, row: Row) -> None:
    """Kill f hospitals and leave them dead."""
    count = (bench.hospitals - 1) // 3
    with bench.session(row, left_out=count) as session:
        network = session.network
        victims = _last(bench.hospitals, count)
        row.healthy = session.rate_for(bench.size.window_s)
        moment = min([network.kill(victim) for victim in victims])
        row.next_block_ms.append(session.pause_since(moment, _round(session)))
        _settle(session)
        row.under = session.rate_for(bench.size.window_s)
        moment = time.monotonic()
        network.start(victims)
        row.equal_ms.append(session.equal_since(moment))
        _bracket(session, row, bench.size.window_s)
        _expect_ratio(row)


def primary_killed(bench: Bench, row: Row) -> None:
    """Kill the hospital that leads the height being decided; when it is back and caught up, the next."""
    with bench.session(row) as session:
        network, rates = session.network, []
        row.healthy = session.rate_for(bench.size.window_s)
        for _ in range(bench.size.kills):
            victim = _leader(session)
            began = network.kill(victim)
            row.next_block_ms.append(session.pause_since(began, _round(session)))
            restarted = time.monotonic()
            network.start([victim])
            network.wait_ready([victim])
            row.equal_ms.append(session.equal_since(restarted))
            rates.append(session.rate_between(began, time.monotonic()))
        row.under = _mean(rates)
        worst = percentile(row.next_block_ms, 0.99)
        row.expect(f"next block p99 within {PRIMARY_P99_MS / 1_000:.0f} s", worst <= PRIMARY_P99_MS)


def _leader(session: Session) -> str:
    """Return the present primary, and see to it that another hospital is watched."""
    network = session.network
    leader = network.primary(session.watch.name) or session.watch.name
    _watch_other(session, leader)
    return leader


def _watch_other(session: Session, name: str) -> None:
    """Watch a living hospital that is not `name`."""
    network = session.network
    if session.watch.name == name or network.testnet.process_of(session.watch.name) is None:
        session.watch.follow(next(other for other in network.names if other != name and network.height(other) >= 0))


def storm(bench: Bench, row: Row) -> None:
    """Kill random hospitals again and again, now and then two at once. Each is started at once.

    The next blow comes after one new block, when all answer again; nobody waits until they have caught up or vote.
    """
    with bench.session(row) as session:
        network = session.network
        row.healthy = session.rate_for(bench.size.window_s)
        began = time.monotonic()
        kills = 0
        while kills < bench.size.storm_kills:
            victims = bench.dice.sample(network.names, 1 if bench.dice.randrange(STORM_DOUBLE_OF) else 2)
            kills += len(victims)
            session.watch.follow(next(name for name in network.names if name not in victims))
            moment = min([network.kill(victim) for victim in victims])
            network.start(victims)
            row.next_block_ms.append(session.pause_since(moment, 1))
            if not poll(lambda: all(network.height(name) >= 0 for name in network.names), END_SECONDS):
                raise Unavailable(f"hospitals killed in the storm do not come back within {END_SECONDS:.0f} s")
            session.watch.wait_until(time.monotonic() + bench.dice.uniform(0.0, STORM_PAUSE_S))
        row.under = session.rate_between(began, time.monotonic())
        ended = time.monotonic()
        network.wait_ready()
        row.equal_ms.append(session.equal_since(ended))
        row.repetitions = kills


def frozen(bench: Bench, row: Row, *, is_primary: bool, is_long: bool) -> None:
    """Let a hospital stand still with all its connections."""
    seconds = bench.size.long_freeze_s if is_long else SHORT_FREEZE_S
    with bench.session(row) as session:
        network, rates = session.network, []
        row.healthy = session.rate_for(bench.size.window_s)
        for _ in range(bench.size.long_freezes if is_long else bench.size.short_freezes):
            leader = _leader(session)
            victim = leader if is_primary else next(name for name in network.names if name not in (leader, session.watch.name))
            began = network.freeze(victim)
            session.watch.wait_until(began + seconds)
            ended = network.thaw(victim)
            row.next_block_ms.append(session.pause_since(began, _round(session)))
            row.equal_ms.append(session.equal_since(ended))
            rates.append(session.rate_between(began, ended))
        row.under = _mean(rates) if is_long else None


def disk_full(bench: Bench, row: Row) -> None:
    """Let no file of one hospital grow: it must end rather than promise what is not written, and the others go on."""
    with bench.session(row, left_out=1) as session:
        network, victim = session.network, session.network.names[-1]
        row.healthy = session.rate_for(bench.size.window_s)
        began = network.fill_disk(victim)
        if not poll(lambda: network.testnet.process_of(victim) is None, END_SECONDS):
            raise Unavailable("the hospital with the full disk goes on: it cannot have written what it promised")
        row.next_block_ms.append(session.pause_since(began, _round(session)))
        _settle(session)
        row.under = session.rate_for(bench.size.window_s)
        moment = time.monotonic()
        network.start([victim])
        row.equal_ms.append(session.equal_since(moment))


def clock_off(bench: Bench, row: Row, *, offset_ms: int) -> None:
    """Start one hospital with a clock that is wrong; afterwards again with the right one."""
    _replace_last(bench, row, lambda session, name: _start_with_clock(session, name, offset_ms))
    if abs(offset_ms) <= NEAR_CLOCK_MS:
        _expect_ratio(row)


def _start_with_clock(session: Session, name: str, offset_ms: int) -> None:
    session.network.set(name, {("debug", "clock_offset_ms"): offset_ms})
    session.network.start([name])


def liar(bench: Bench, row: Row, *, kind: str) -> None:
    """Put a liar in one hospital's place; afterwards the honest node again, which finds its own lies in the others' memory."""
    size = bench.size
    begin = partial(_start_liar, kind=kind)
    _replace_last(bench, row, begin, rounds=size.liar_rounds, settle_s=size.liar_settle_s, window_s=size.liar_window_s)
    _expect_ratio(row)


def _start_liar(session: Session, name: str, *, kind: str) -> None:
    session.network.start([name], liar=kind)


def _replace_last(
    bench: Bench,
    row: Row,
    begin: Callable[[Session, str], None],
    *,
    rounds: int = SETTLE_ROUNDS,
    settle_s: float = END_SECONDS,
    window_s: float = 0.0,
) -> None:
    """Measure with the last hospital started otherwise, then as before; `window_s` 0 = the size's own."""
    window_s = window_s or bench.size.window_s
    with bench.session(row, left_out=1) as session:
        network, name = session.network, session.network.names[-1]
        row.healthy = session.rate_for(window_s)
        network.stop([name])
        began = time.monotonic()
        begin(session, name)
        if not poll(lambda: network.height(name) >= 0, END_SECONDS):  # to be ready is not asked: the others may ban a liar
            raise Unavailable(f"hospital {name} does not answer within {END_SECONDS:.0f} s")
        row.next_block_ms.append(session.pause_since(began, _round(session)))
        _settle(session, rounds, settle_s)
        if settle_s > END_SECONDS:
            row.at_first = session.rate_between(began, time.monotonic())
        row.under = session.rate_for(window_s)
        network.stop([name])
        network.set(name)
        moment = time.monotonic()
        network.start([name])
        row.equal_ms.append(session.equal_since(moment))
        _bracket(session, row, window_s)


# ---- lines ---------------------------------------------------------------------------------------------------------------------


def lines_cut(bench: Bench, row: Row) -> None:
    """End all connections of one hospital every second; new ones are carried."""
    with bench.session(row, has_relays=True, left_out=1) as session:
        relays, name = session.network.relays, session.network.names[-1]
        row.healthy = session.rate_for(bench.size.window_s)
        rates = []
        for _ in range(max(1, int(bench.size.window_s / CUT_EVERY_S))):
            began = time.monotonic()
            relays.cut(relays.between([name]))
            rates.append(session.rate_for(CUT_EVERY_S))
            row.next_block_ms.append(session.watch.longest_pause_ms(began, time.monotonic()))
        row.under = _mean(rates)
        row.equal_ms.append(session.equal_since(time.monotonic()))


def lines_bad(bench: Bench, row: Row, *, spoil: Callable[[Session], None]) -> None:
    """Spoil lines for a while, then heal them."""
    with bench.session(row, has_relays=True, left_out=1) as session:
        row.healthy = session.rate_for(bench.size.window_s)
        began = time.monotonic()
        spoil(session)
        row.next_block_ms.append(session.pause_since(began, _round(session)))
        _settle(session)
        row.under = session.rate_for(bench.size.window_s)
        moment = time.monotonic()
        session.network.relays.heal()
        row.equal_ms.append(session.equal_since(moment))


def _refuse_last(session: Session) -> None:
    relays = session.network.relays
    relays.refuse(relays.between(session.network.names[-1:]))


def _hold_last(session: Session) -> None:
    relays = session.network.relays
    relays.hold(relays.between(session.network.names[-1:]))


def _mute_last(session: Session) -> None:
    relays, last = session.network.relays, session.network.names[-1]
    relays.hold([way for way in relays.ways() if way[0] == last])


def _delay_all(session: Session) -> None:
    relays = session.network.relays
    relays.delay(relays.ways(), DELAY_MS)


def partition(bench: Bench, row: Row, *, alone: Callable[[list[str]], Iterable[str]], is_silent: bool) -> None:
    """Separate some hospitals from the others, then heal: everybody must soon have the same new block.

    Silent: bytes are held, as behind a firewall that drops; else connections end and new ones are refused.
    """
    size = bench.size
    with bench.session(row, has_relays=True) as session:
        relays, rates = session.network.relays, []
        row.healthy = session.rate_for(size.window_s)
        for _ in range(size.partitions):
            ways = relays.between(alone(session.network.names))
            began = time.monotonic()
            (relays.hold if is_silent else relays.refuse)(ways)
            session.watch.wait_until(began + size.partition_s)
            ended = time.monotonic()
            relays.heal()
            row.equal_ms.append(session.equal_since(ended))
            row.next_block_ms.append(session.watch.longest_pause_ms(began, time.monotonic()))
            rates.append(session.rate_between(began, ended))
        row.under = _mean(rates)
        row.expect(f"all equal within {HEALED_MS / 1_000:.0f} s", max(row.equal_ms) <= HEALED_MS)


# ---- the catalogue -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the page."""

    title: str
    measure: Callable[[Bench, Row], None]
    is_paced: bool = False
    """Whether the load comes at the bench's rate: times of recovery are of a network with room to recover, rates of one that is full."""


def _paced(title: str, measure: Callable[[Bench, Row], None]) -> Fault:
    return Fault(title, measure, is_paced=True)


def _half(names: list[str]) -> list[str]:
    return names[len(names) // 2 :]


def _one(names: list[str]) -> list[str]:
    return names[-1:]


FAULTS: Final[dict[str, Fault]] = {
    "healthy": Fault("none (two windows)", healthy),
    "dead": Fault("f hospitals dead", dead),
    "primary-killed": _paced("primary killed (kill -9), again and again", primary_killed),
    "storm": _paced("random hospitals killed (kill -9), one or two at once", storm),
    "freeze-primary": _paced("primary stands still for 1 s (SIGSTOP)", partial(frozen, is_primary=True, is_long=False)),
    "freeze-backup": _paced("another stands still for 1 s", partial(frozen, is_primary=False, is_long=False)),
    "freeze-primary-long": _paced("primary stands still for {long_freeze_s:.0f} s", partial(frozen, is_primary=True, is_long=True)),
    "freeze-backup-long": _paced("another stands still for {long_freeze_s:.0f} s", partial(frozen, is_primary=False, is_long=True)),
    "disk-full": Fault("full disk at one hospital: it ends, the others go on", disk_full),
    "clock-ahead": Fault("clock of one hospital 3 s ahead", partial(clock_off, offset_ms=NEAR_CLOCK_MS)),
    "clock-behind": Fault("clock of one hospital 3 s behind", partial(clock_off, offset_ms=-NEAR_CLOCK_MS)),
    "clock-far-ahead": Fault("clock of one hospital 1 h ahead", partial(clock_off, offset_ms=FAR_CLOCK_MS)),
    "clock-far-behind": Fault("clock of one hospital 1 h behind", partial(clock_off, offset_ms=-FAR_CLOCK_MS)),
    "liar-double-voter": Fault("a hospital signs two votes of everything", partial(liar, kind="double-voter")),
    "liar-half-deaf": Fault("a hospital leaves changing others out", partial(liar, kind="half-deaf")),
    "liar-lazy-primary": Fault("a hospital votes and never proposes", partial(liar, kind="lazy-primary")),
    "liar-two-blocks": Fault("a hospital proposes two blocks to two halves", partial(liar, kind="two-blocks")),
    "liar-spammer": Fault("a hospital sends rubbish without end", partial(liar, kind="spammer")),
    "lines-cut": Fault("connections of one hospital ended every second", lines_cut),
    "lines-refused": Fault("one hospital unreachable (refused)", partial(lines_bad, spoil=_refuse_last)),
    "lines-silent": Fault("one hospital unreachable (connections carry nothing)", partial(lines_bad, spoil=_hold_last)),
    "lines-one-way": Fault("one hospital hears all and is heard by none", partial(lines_bad, spoil=_mute_last)),
    "lines-slow": Fault(f"every line {DELAY_MS} ms slower each way", partial(lines_bad, spoil=_delay_all)),
    "partition-half": _paced("half from half for {partition_s:.0f} s, silent", partial(partition, alone=_half, is_silent=True)),
    "partition-half-refused": _paced(
        "half from half for {partition_s:.0f} s, refused", partial(partition, alone=_half, is_silent=False)
    ),
    "partition-one": _paced("one from the others for {partition_s:.0f} s, silent", partial(partition, alone=_one, is_silent=True)),
}
"""Name → fault, in the order of the page."""


def title_of(name: str, size: Size) -> str:
    """Return what the page calls a fault of FAULTS."""
    return FAULTS[name].title.format(long_freeze_s=size.long_freeze_s, partition_s=size.partition_s)


def measure(name: str, bench: Bench) -> Row:
    """Measure one fault of FAULTS and return its row. Raises what a network raises that does not recover."""
    fault = FAULTS[name]
    row = Row(name, title_of(name, bench.size))
    fault.measure(bench if fault.is_paced else replace(bench, rate=0.0), row)
    row.is_paced = fault.is_paced
    row.repetitions = row.repetitions or len(row.next_block_ms)
    return row
