"""The base case while hospitals die or lie, against the same network before and after. All kinds of faults stand in faults.py and its page.

The load does not use the hospital that is about to die or lie: its clients are not what is measured. Knows no axis.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from medchain.bench import rounds
from medchain.bench.network import AGREE_SECONDS
from medchain.bench.results import HIGHER, LOWER, Case, Measure, Target
from medchain.bench.rounds import Bench, Limit, Setting, Window
from medchain.bench.session import Session, percentile
from medchain.errors import Unavailable
from medchain.testnet.launch import poll

LIAR: Final = "two-blocks"
"""The liar of textbooks: a primary that proposes two blocks to two halves."""
LIAR_WINDOWS: Final = 2.0
"""Times as long as others: a turn that it wastes costs a second or two, and does not come in every few."""
SETTLE_TURNS: Final = 4
"""Of each hospital, until the rotation leaves out who is silent (protocol.md, K = 2n)."""
RATE: Final = 200
"""Transactions a second while recovery is measured: on a full machine a node catches up with what the others leave it."""
RATIO: Final = Target("ratio_to_healthy", 0.8, 0.95)


def dead(bench: Bench, base: Setting) -> Case:
    """Measure with f hospitals dead."""
    setting = replace(base, name="faults-dead", title="f hospitals dead", targets=(RATIO,))
    size, bound = bench.size, Limit(setting.hospitals)
    bound.time()
    with bench.session(setting, seconds=3 * size.windows * size.window_s, left_out=1, is_watched=True) as session:
        network = session.network
        victims = network.names[-network.faults :]
        healthy = _windows(bench, session)
        for victim in victims:
            network.kill(victim)
        _settle(session)
        under = _windows(bench, session)
        moment = time.monotonic()
        network.start(victims)
        session.equal_since(moment)
        again = _windows(bench, session)
    return _case(setting, healthy, under, again, bound)


def lying(bench: Bench, base: Setting) -> Case:
    """Measure with a liar in one hospital's place; processor time is that of the honest ones."""
    setting = replace(base, name="faults-liar", title="one hospital proposes two blocks to two halves", targets=(RATIO,))
    size, bound = bench.size, Limit(setting.hospitals)
    bound.time()
    with bench.session(setting, seconds=4 * size.windows * size.window_s, left_out=1, is_watched=True) as session:
        network = session.network
        *honest, name = network.names
        healthy = _windows(bench, session)
        network.stop([name])
        network.start([name], liar=LIAR)
        if not poll(lambda: network.height(name) >= 0, AGREE_SECONDS):  # to be ready is not asked: the others may ban a liar
            raise Unavailable(f"hospital {name} does not answer within {AGREE_SECONDS:.0f} s")
        _settle(session)
        under = [rounds.window(session, LIAR_WINDOWS * size.window_s, honest) for _ in range(size.windows)]
        network.stop([name])
        moment = time.monotonic()
        network.start([name])
        session.equal_since(moment)
        again = _windows(bench, session)
    return _case(setting, healthy, under, again, bound)


def killed(bench: Bench, base: Setting) -> Case:
    """Kill whoever leads, at a rate that leaves room; when it is back and caught up, the next."""
    size = bench.size
    target = Target("next_block_p99", 2_000, 1_200)
    setting = replace(
        base, name="faults-primary-killed", title=f"the primary killed every {size.kill_every_s:.0f} s, 200 transactions a second",
        shape=replace(base.shape, rate=RATE), targets=(target,),
    )  # fmt: skip
    waits, returns, decided = [], [], []
    with bench.session(setting, seconds=size.kills * size.kill_every_s, is_watched=True) as session:
        network = session.network
        began = time.monotonic()
        for number in range(size.kills):
            victim = network.primary(session.watch.name) or session.watch.name
            session.watch.follow(next(name for name in network.names if name != victim))
            moment = network.kill(victim)
            waits.append(session.pause_since(moment, len(network.names) + 1))
            restarted = time.monotonic()
            network.start([victim])
            network.wait_ready([victim])
            returns.append(session.equal_since(restarted))
            session.watch.wait_until(began + (number + 1) * size.kill_every_s)
        ended = time.monotonic()
        decided = rounds.decided(session, began, ended)
    latencies = [batch.latency_ms for batch in decided]
    if not latencies:
        raise Unavailable("nothing was decided while primaries were killed")
    measures = {
        "next_block_p99": Measure("ms", LOWER, (percentile(waits, 0.99),)),
        "next_block": Measure("ms", LOWER, tuple(waits)),
        "all_equal": Measure("ms", LOWER, tuple(returns)),
        "rate": Measure("1/s", HIGHER, (sum(batch.transactions for batch in decided) / (ended - began),)),
        **{f"latency_p{share}": Measure("ms", LOWER, (percentile(latencies, share / 100),)) for share in (50, 95, 99)},
        "latency_max": Measure("ms", LOWER, (max(latencies),)),
    }
    return rounds.case_of(setting, measures)


def _windows(bench: Bench, session: Session) -> list[Window]:
    return [rounds.window(session, bench.size.window_s) for _ in range(bench.size.windows)]


def _settle(session: Session) -> None:
    """Let every hospital's turn as primary pass a few times."""
    session.watch.wait_height(session.watch.height + SETTLE_TURNS * len(session.network.names), AGREE_SECONDS)


def _case(setting: Setting, before: list[Window], under: list[Window], after: list[Window], bound: Limit) -> Case:
    """Return the case under a fault, and how its rate stands to the mean of just before and of after: a young network slows down."""
    whole = [Measure("1/s", HIGHER, tuple(window.rate for window in windows)) for windows in (before, after)]
    healthy = (whole[0].median + whole[1].median) / 2
    ratio = Measure("x", HIGHER, tuple(window.rate / healthy for window in under))
    measures = {"ratio_to_healthy": ratio, **rounds.measures_of(setting, under, bound)}
    return rounds.case_of(setting, {**measures, "rate_before": whole[0], "rate_after": whole[1]})
