"""The axes along which circumstances vary, each alone: one base case, and beside it one thing changed at a time. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from medchain.bench.load import Shape
from medchain.bench.results import Curve, Target
from medchain.bench.rounds import IN_FLIGHT, Setting
from medchain.bench.workload import KINDS

AXES: Final[dict[str, str]] = {
    "base": "the base case: 4 validators, one record a transaction, handed in 64 at a time, mutual TLS, everything on",
    "kind": "what a transaction does: custody, consent, request, patient",
    "shape": "batch signatures of 16; 10 and 50 operations a transaction",
    "submission": "one POST a transaction",
    "load": "half of what the base case reaches, and 100 transactions a second",
    "validators": "4, 7, 10 and 16 validators, blocks of some hundred transactions",
    "distance": "round-trip times of 50 and 150 ms, held back above TLS",
    "idle": "a network without work",
    "faults": "f validators dead, the primary killed again and again, one liar",
    "restart": "a start with many keys in the state, and with a long chain",
    "catch-up": "a node that catches up, against the live rate",
    "keys": "keys in the state before the load begins",
    "cores": "one node alone under replayed traffic: one thread that verifies, and one for each core",
    "tls": "what mutual TLS costs: handshakes, and frames with and without it",
}
"""Name → title, in the order they are measured."""

BASE: Final = Setting(
    "base", "base case: a record a transaction, as many as the network takes", Shape("record", in_flight=IN_FLIGHT),
    targets=(Target("rate", 5_000, None), Target("ratio_to_limit", 0.6, 0.75)),
)  # fmt: skip


def _varied(name: str, title: str, expected: float = BASE.expected, targets: tuple[Target, ...] = (), **shape: str | int) -> Setting:
    """Return the base case with another shape of the load."""
    varied = replace(BASE.shape, **shape)  # type: ignore[arg-type]  # names and types are those of Shape
    return replace(BASE, name=name, title=title, shape=varied, expected=expected, targets=targets)


VALIDATORS_MOST: Final = 16
VALIDATORS_IN_FLIGHT: Final = 6
"""Less than in the base case, so that blocks are of the same size whatever the number of validators: two cores execute the largest block
sixteen times in seconds, longer than a primary is waited for."""
BATCH: Final = _varied("batch-16", "one signature under 16 transactions", 10_000, (Target("rate", 9_000, 12_000),), batch=16)
# Where transactions hold more operations, fewer are under way: thousands of operations fill the largest block while the next waits.
TEN: Final = _varied("operations-10", "10 operations a transaction", 2_500, operations=10, in_flight=24)
FIFTY: Final = _varied(
    "operations-50", "50 operations a transaction", 600, (Target("operations", 20_000, 30_000),), operations=50, in_flight=24
)  # fmt: skip
POST: Final = _varied("post", "one POST a transaction", 3_000, submit=1)

SETTINGS: Final[Mapping[str, tuple[Setting, ...]]] = {
    "kind": tuple(_varied(f"kind-{kind}", made.title, 5_000, kind=kind) for kind, made in KINDS.items() if kind != BASE.shape.kind),
    "shape": (BATCH, TEN, FIFTY),
    "submission": (POST,),
    "validators": tuple(
        replace(BASE, name=f"validators-{count}", title=f"{count} validators", hospitals=count, expected=BASE.expected * 4 / count,
                shape=replace(BASE.shape, in_flight=VALIDATORS_IN_FLIGHT), targets=(), curve="validators", x=float(count))
        for count in (4, 7, 10, VALIDATORS_MOST)
    ),
    "distance": tuple(
        replace(BASE, name=f"distance-{milliseconds}", title=f"round-trip time of {milliseconds} ms", round_trip_ms=milliseconds,
                targets=(), curve="distance", x=float(milliseconds))
        for milliseconds in (50, 150)
    ),
}  # fmt: skip
"""Axis → what is measured as it stands here; the other axes depend on what was measured before, or are no steady load."""

SAMPLED: Final = ("base", "batch-16", "operations-10", "operations-50", "post")
"""Settings of which a round with samplers shows where processor time goes."""


FEW: Final = replace(BASE, name="load-100", title="100 transactions a second", shape=replace(BASE.shape, rate=100), targets=())


def half(base_rate: float) -> Setting:
    """Return the load that comes at half the rate that the base case reached."""
    return replace(
        BASE, name="load-half", title="half of what the base case reaches", shape=replace(BASE.shape, rate=round(base_rate / 2)),
        targets=(Target("latency_p50", 60, 45), Target("latency_p99", 120, 80)),
    )  # fmt: skip


def grown(keys: int) -> Setting:
    """Return the base case over a state that holds so many keys already."""
    return replace(BASE, name=f"keys-{keys}", title=f"{keys:,} keys in the state", keys=keys, targets=(), curve="keys", x=float(keys))


CURVES: Final[Mapping[str, Curve]] = {
    "validators": Curve(
        "validators", "Cost of more validators", "validators", "cpu",
        "A transaction is verified, executed and written once at each node however many there are, so most of its cost stays. What grows "
        "is what a block costs: each node receives and checks about 2n votes for it, spread over the transactions that it holds.",
    ),
    "operations": Curve(
        "operations", "Cost of larger transactions", "operations a transaction", "cpu_operation",
        "The signature, the id and the way through pool and gossip are paid once a transaction, so an operation costs less the more of "
        "them stand under one signature. What remains with fifty is the rule book, the state tree and the bytes.",
        is_log_x=True,
    ),
    "keys": Curve(
        "keys", "Cost of a larger state", "keys in the state before the load", "cpu",
        "An update hashes one bucket of the state and its path: the path is as long as ever, the bucket has some 15 entries at a million "
        "keys and never more than 64. Reads find their rows in a larger LevelDB, whose index and pages are less often in memory.",
        is_log_x=True,
    ),
    "distance": Curve(
        "distance", "Rate over distance", "round-trip time (ms)", "rate",
        "A block takes three one-way trips: proposal, prepare, commit. So long lines make blocks rarer and larger, until the largest block "
        "or what clients keep under way is the limit and not the processors.",
    ),
    "restart-keys": Curve(
        "restart-keys", "Start over a larger state", "keys in the state", "seconds",
        "A start reads all of the state and builds its tree anew, so it takes as long as there are keys. Nothing is executed again.",
        is_log_x=True,
    ),
    "restart-length": Curve(
        "restart-length", "Start over a longer chain", "blocks", "seconds",
        "A start reads the newest block, its certificate and a few peaks of the history, whatever the chain's length. What little grows is "
        "the state that those blocks left.",
        is_log_x=True,
    ),
}  # fmt: skip
