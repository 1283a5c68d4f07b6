"""What is measured of a fault, and how much of it: the rows of the page and the two sizes. Knows no network."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from medchain.bench.session import Rate, percentile
from medchain.bench.worker import Checked


@dataclass(frozen=True, slots=True)
class Size:
    """How long and how often. Every time in seconds."""

    window_s: float
    """Of each steady rate."""
    kills: int
    """Of primaries, one after the other."""
    storm_kills: int
    short_freezes: int
    long_freezes: int
    long_freeze_s: float
    partitions: int
    partition_s: float
    liar_rounds: int
    """Turns of every primary before the steady rate under a liar: each turn it wastes bars it for twice as long as the one before, and
    after some 250 blocks that is as long as it gets (protocol.md, "Primary")."""
    liar_settle_s: float
    """At most, for those turns."""
    liar_window_s: float
    """Of both rates of a liar: a turn that it wastes costs a second or two and comes after hundreds of blocks, so that a window which is
    short against that shows none of them or one too many."""


FULL: Final = Size(6.0, 50, 200, 5, 1, 10.0, 2, 30.0, 65, 120.0, 30.0)
QUICK: Final = Size(3.0, 5, 15, 1, 1, 6.0, 1, 6.0, 8, 30.0, 6.0)
"""Shows that everything works and roughly how well; its figures are not for the page."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that must hold."""

    text: str
    is_met: bool


@dataclass(slots=True)
class Row:
    """What happened under one fault."""

    name: str
    title: str
    healthy: Rate | None = None
    """Of the same network just before."""
    under: Rate | None = None
    next_block_ms: list[float] = field(default_factory=list)
    """The longest time without a new block from each blow on."""
    equal_ms: list[float] = field(default_factory=list)
    """From each end of the fault until all hospitals had the same new block."""
    checked: Checked | None = None
    is_paced: bool = False
    """Whether the load came at a fixed rate; else it was as much as the network took."""
    repetitions: int = 0
    at_first: Rate | None = None
    """From the begin of a lasting fault until the network had settled into it; None where that is not told apart."""
    targets: list[Target] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Rate under the fault by healthy rate; NaN when one is missing."""
        return self._ratio(self.under)

    @property
    def ratio_at_first(self) -> float:
        """The same before the network had settled into the fault."""
        return self._ratio(self.at_first)

    def _ratio(self, rate: Rate | None) -> float:
        if self.healthy is None or rate is None or not self.healthy.per_second:
            return math.nan
        return rate.per_second / self.healthy.per_second

    def expect(self, text: str, is_met: bool) -> None:
        """Note a target and whether it is met."""
        self.targets.append(Target(text, is_met))

    def to_value(self) -> dict[str, Any]:
        """Return the JSON form, with the percentiles of the page beside every sample."""
        value = asdict(self)
        for name, ratio in (("ratio", self.ratio), ("ratio_at_first", self.ratio_at_first)):
            value[name] = None if math.isnan(ratio) else round(ratio, 3)
        for name in ("next_block_ms", "equal_ms"):
            samples: list[float] = value[name]
            value[name] = {
                "samples": [round(sample, 1) for sample in samples],
                **{label: round(percentile(samples, share), 1) for label, share in PERCENTILES.items() if samples},
            }
        for name in ("healthy", "at_first", "under"):
            if value[name] is not None:
                value[name] = {key: None if math.isnan(number) else round(number, 1) for key, number in value[name].items()}
        return value


PERCENTILES: Final = {"p50": 0.5, "p99": 0.99, "max": 1.0}
"""Name → share. With fewer than a hundred samples p99 is the greatest of them: it can only be too pessimistic."""
