"""`medchain bench cluster`: whole networks under load, one circumstance varied at a time.

Axes are measured one by one; what several need (the base case above all) is measured once for a folder and kept. A case that cannot be
measured does not end the run: it stands in the result as one that failed. Knows which axis is measured how; rounds, faults and all else
stand in their own files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from medchain.bench import axes, blows, cores, idle, recovery, rounds, secured
from medchain.bench.axes import AXES, BASE, CURVES, SETTINGS
from medchain.bench.facts import Facts
from medchain.bench.results import CLUSTER, HIGHER, LOWER, Case, Measure, Result, Target
from medchain.bench.rounds import FULL, QUICK, Bench, Setting
from medchain.errors import MedchainError, Rejected

__all__ = ["AXES", "measure"]

REFUSALS: Final[dict[str, str]] = {
    "bench.axis": "There is no axis of this name.",
}

_KEPT: Final[dict[tuple[Path, bool], dict[str, Case]]] = {}
"""(folder, quick) → cases that further axes are compared with: the command asks for axis after axis, each a call."""
FAILED: Final = "failed"
"""The one measure of a case that could not be measured, with a target that it misses: no report can overlook it."""

Job = tuple[str, Callable[[], Sequence[Case]]]
"""The name of a case and what measures it, and others with it. One that fails takes no other with it."""


class Suite:
    """Measures axes, and each case once."""

    def __init__(self, bench: Bench, kept: dict[str, Case], *, is_quick: bool) -> None:
        self.bench = bench
        self._kept = kept
        self._is_quick = is_quick

    def jobs(self, axis: str) -> Iterator[Job]:
        """Yield what there is to measure of an axis; the base case comes first when it is compared with it."""
        return _AXES[axis](self)

    def case(self, setting: Setting) -> Case:
        """Return the case of a steady setting, measured when it was not yet, where its time goes included."""
        found = self._kept.get(setting.name)
        if found is None:
            setting = self._likely(setting)
            found = rounds.steady(self.bench, setting)
            self._kept[setting.name] = found  # before its time is divided: a round with samplers may fail on its own
            if setting.name in axes.SAMPLED and (setting.name == BASE.name or not self._is_quick):
                found = replace(found, measures={**found.measures, **rounds.breakdown(self.bench, setting)})
                self._kept[setting.name] = found
        return found

    def _likely(self, setting: Setting) -> Setting:
        """Return a setting with as many transactions to be signed beforehand as the base case makes likely on this machine."""
        base = self._kept.get(BASE.name)
        share = 1.0 if base is None else min(1.0, ROOM * base.measures["rate"].median / BASE.expected)
        return replace(setting, expected=setting.expected * share)

    @property
    def base(self) -> Case:
        """The base case."""
        return self.case(BASE)

    def _settings(self, axis: str) -> Sequence[Setting]:
        """The settings of an axis; quickly only as many as show that it works."""
        found = SETTINGS[axis]
        return found[: QUICK_SETTINGS[axis]] if self._is_quick else found

    def base_alone(self) -> Iterator[Job]:
        """Yield the base case."""
        yield BASE.name, lambda: [self.base]

    def steady(self, axis: str) -> Iterator[Job]:
        """Yield the settings of an axis that stay as they are."""
        for setting in self._settings(axis):
            yield setting.name, partial(self._alone, setting)

    def _alone(self, setting: Setting) -> list[Case]:
        return [self.case(setting)]

    def shape(self) -> Iterator[Job]:
        """Yield batch signatures and more operations, and an operation's cost over how many stand in a transaction."""
        yield BASE.name, lambda: [self.base, _operation(self.base)]
        for setting in self._settings("shape"):
            yield setting.name, partial(self._shape, setting)

    def _shape(self, setting: Setting) -> list[Case]:
        case = self.case(setting)
        return [case] if setting.shape.operations == 1 else [case, _operation(case)]

    def load(self) -> Iterator[Job]:
        """Yield loads that come at a rate."""
        yield BASE.name, lambda: [self.base]
        yield "load-half", lambda: [self.case(axes.half(self.base.measures["rate"].median))]
        yield axes.FEW.name, lambda: [self.case(axes.FEW)]

    def validators(self) -> Iterator[Job]:
        """Yield more validators, their cost against that of four; in units of a verification, for the machine drifts."""
        four, *more = self._settings("validators")
        yield four.name, partial(self._alone, four)
        for setting in more:
            yield setting.name, partial(self._more_validators, setting, four)

    def _more_validators(self, setting: Setting, four: Setting) -> list[Case]:
        case = self.case(setting)
        cost = Measure("x", LOWER, rounds.ratio_of_cost(case, self.case(four)))
        targets = (Target("cpu_to_four", 1.5, 1.2),) if setting.hospitals == axes.VALIDATORS_MOST else ()
        return [replace(case, measures={**case.measures, "cpu_to_four": cost}, targets=targets)]

    def distance(self) -> Iterator[Job]:
        """Yield longer lines; the base case is the one without."""
        yield BASE.name, lambda: [self.base, _on_curve("distance", 0, self.base)]
        yield from self.steady("distance")

    def keys(self) -> Iterator[Job]:
        """Yield the base case over larger and larger states, its rate against that over an empty one."""
        yield BASE.name, lambda: [self.base, _on_curve("keys", 1, self.base)]
        for keys in self.bench.size.keys:
            yield f"keys-{keys}", partial(self._grown, keys)

    def _grown(self, keys: int) -> list[Case]:
        case = self.case(axes.grown(keys))
        ratio = Measure("x", HIGHER, rounds.ratio_of_rate(case, self.base))
        targets = (Target("ratio_to_empty", 0.85, 0.95),) if keys >= MILLION else ()
        return [replace(case, measures={**case.measures, "ratio_to_empty": ratio}, targets=targets)]

    def faults(self) -> Iterator[Job]:
        """Yield hospitals that die or lie."""
        yield "faults-dead", lambda: [blows.dead(self.bench, self._likely(BASE))]
        yield "faults-primary-killed", lambda: [blows.killed(self.bench, BASE)]
        yield "faults-liar", lambda: [blows.lying(self.bench, self._likely(BASE))]

    def catch_up(self) -> Iterator[Job]:
        """Yield nodes that catch up with chains of different transactions."""
        for setting, must, goal in ((BASE, 4, 6), (axes.BATCH, 2, 3), (axes.FIFTY, 2, 3))[: 1 if self._is_quick else None]:
            yield f"catch-up-{setting.name}", partial(self._caught_up, setting, must, goal)

    def _caught_up(self, setting: Setting, must: float, goal: float) -> list[Case]:
        return [recovery.catch_up(self.bench, self._likely(setting), must, goal)]

    def restart(self) -> Iterator[Job]:
        """Yield starts over larger states and longer chains."""
        for keys in self.bench.size.restart_keys:
            yield f"restart-keys-{keys}", partial(self._start_with_keys, keys)
        for blocks in self.bench.size.lengths:
            yield f"restart-length-{blocks}", partial(self._start_with_blocks, blocks)

    def _start_with_keys(self, keys: int) -> list[Case]:
        target = Target("seconds", 10) if keys == MILLION else None
        return [recovery.start_with(self.bench, keys=keys, target=target)]

    def _start_with_blocks(self, blocks: int) -> list[Case]:
        return [recovery.start_with(self.bench, blocks=blocks)]

    def idle(self) -> Iterator[Job]:
        """Yield a network without work."""
        yield "idle", lambda: [idle.measure(self.bench)]

    def cores(self) -> Iterator[Job]:
        """Yield one node with one verifying thread and with several."""
        yield "cores", lambda: cores.cases(self.bench)

    def tls(self) -> Iterator[Job]:
        """Yield what TLS costs by itself, and of the base case when that was measured."""
        yield "tls", lambda: secured.cases(self.bench, self._kept.get(BASE.name))


ROOM: Final = 2.5
"""By how much a case may be faster than the base case lets expect before it signs on the way."""
MILLION: Final = 1_000_000
QUICK_SETTINGS: Final = {"kind": 1, "shape": 2, "submission": 1, "validators": 2, "distance": 1}

_AXES: Final[dict[str, Callable[[Suite], Iterator[Job]]]] = {
    "base": Suite.base_alone,
    "kind": lambda suite: suite.steady("kind"),
    "shape": Suite.shape,
    "submission": lambda suite: suite.steady("submission"),
    "load": Suite.load,
    "validators": Suite.validators,
    "distance": Suite.distance,
    "idle": Suite.idle,
    "faults": Suite.faults,
    "restart": Suite.restart,
    "catch-up": Suite.catch_up,
    "keys": Suite.keys,
    "cores": Suite.cores,
    "tls": Suite.tls,
}


def _on_curve(curve: str, x: float, case: Case) -> Case:
    """Return a case once more as a point of a curve: the base case is one of several."""
    return replace(case, name=f"{curve}-{x:.0f}", curve=curve, x=x, targets=())


def _operation(case: Case) -> Case:
    """Return what one of a transaction's operations costs."""
    operations = int(case.settings["operations"])
    cost = Measure("us", LOWER, tuple(sample / operations for sample in case.measures["cpu"].samples))
    return Case(
        f"operation-of-{operations}", f"one operation of {operations} in a transaction", {"cpu_operation": cost}, case.settings,
        curve="operations", x=float(operations),
    )  # fmt: skip


def _failure(name: str, error: Exception) -> Case:
    """Return what stands in the result for a case that could not be measured."""
    sentence = str(error) if isinstance(error, MedchainError) else f"{type(error).__name__}: {error}"
    target = Target(FAILED, 0)
    return Case(f"failed-{name}", f"{name} could not be measured: {sentence}", {FAILED: Measure("", LOWER, (1.0,))}, targets=(target,))


def measure(*, is_quick: bool, only: Sequence[str], folder: Path, say: Callable[[str], None]) -> Result:
    """Measure axes (all when `only` is empty) and return what came of it. `folder`: on the disk to measure.

    Raises Rejected bench.axis. A case whose network fails is told, and stands in the result with the measure `failed`.
    """
    unknown = [name for name in only if name not in AXES]
    if unknown:
        raise Rejected("bench.axis", f"There is no axis {unknown[0]!r}; there are: {', '.join(AXES)}.")
    facts = Facts.collect()
    bench = Bench(folder, QUICK if is_quick else FULL, say)
    suite = Suite(bench, _KEPT.setdefault((folder.resolve(), is_quick), {}), is_quick=is_quick)
    found: dict[str, Case] = {}
    for axis in AXES:
        if not only or axis in only:
            for name, work in suite.jobs(axis):
                for case in _measured(name, work, say):
                    found.setdefault(case.name, case)
    drawn = {case.curve for case in found.values()}
    return Result(CLUSTER, facts, tuple(found.values()), tuple(curve for name, curve in CURVES.items() if name in drawn))


def _measured(name: str, work: Callable[[], Sequence[Case]], say: Callable[[str], None]) -> Sequence[Case]:
    """Return the cases of one job, or the one that says why there are none: the other cases of an hour's run are worth something."""
    began = time.monotonic()
    try:
        cases = work()
        say(f"  {rounds.line(cases[0])} ({time.monotonic() - began:.0f} s)")
        return cases
    except Exception as error:
        failure = _failure(name, error)
        say(failure.title)
        return [failure]
