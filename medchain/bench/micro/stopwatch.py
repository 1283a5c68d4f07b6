"""Taking samples: how long something takes and how much processor it costs, without the garbage collector in between.

Two clocks run side by side. What figures.md calls a cost is processor time (`process_time`, all threads of this process); the time on
the wall is what somebody waits. Knows nothing of what is measured.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from medchain.bench.results import LOWER, Measure

CALLS_MAX: Final = 10_000_000
"""So many calls of the cheapest thing take seconds: more are never needed to fill a sample."""
MICROSECONDS: Final = 1e6
MILLISECONDS: Final = 1e3


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per unit, sample by sample."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    def cpu_us(self) -> Measure:
        """Processor time of one unit."""
        return Measure("us", LOWER, tuple([sample * MICROSECONDS for sample in self.cpu]))

    def wall_us(self) -> Measure:
        """Time on the wall of one unit."""
        return Measure("us", LOWER, tuple([sample * MICROSECONDS for sample in self.wall]))

    def wall_ms(self) -> Measure:
        """Time on the wall of one unit, for what takes long."""
        return Measure("ms", LOWER, tuple([sample * MILLISECONDS for sample in self.wall]))


class Lap:
    """Adds up what happens inside its `with` blocks: one sample of something that changes what it is done to."""

    __slots__ = ("_cpu", "_wall", "cpu_seconds", "wall_seconds")

    def __init__(self) -> None:
        self.wall_seconds = 0.0
        self.cpu_seconds = 0.0
        self._wall = 0.0
        self._cpu = 0.0

    def __enter__(self) -> Self:
        self._cpu = time.process_time()
        self._wall = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.wall_seconds += time.perf_counter() - self._wall
        self.cpu_seconds += time.process_time() - self._cpu


def timing_of(laps: list[Lap], units: float) -> Timing:
    """Return laps as a timing, each having done `units`."""
    return Timing(tuple([lap.wall_seconds / units for lap in laps]), tuple([lap.cpu_seconds / units for lap in laps]))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How often something is measured, and for how long at least."""

    samples: int
    seconds_min: float
    """Of one sample: long enough that the clock and the loop do not matter."""

    def repeat(self, work: Callable[[], object], units: float = 1) -> Timing:
        """Return the timing of `work`, which does `units` each time it is called and may be called any number of times.

        The first calls warm it up and tell how many fill a sample: the shorter of two runs, since one may have been interrupted.
        """
        calls = 1
        while (elapsed := min(self._run(work, calls).wall_seconds for _ in range(2))) < self.seconds_min and calls < CALLS_MAX:
            calls = min(CALLS_MAX, calls * max(2, min(100, int(1.2 * self.seconds_min / max(elapsed, 1e-6)))))
        return timing_of([self._run(work, calls) for _ in range(self.samples)], calls * units)

    def _run(self, work: Callable[[], object], calls: int) -> Lap:
        lap = Lap()
        rounds = range(calls)
        with lap:
            for _ in rounds:
                work()
        return lap


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the garbage collector away, and what exists so far out of its sight: like a node after its start (`gc.freeze`)."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
