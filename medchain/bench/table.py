"""A result as a terminal shows it: a line for each case, then the targets that were missed. Knows no command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from medchain.bench import figures
from medchain.bench.results import HIGHER, Case, Measure, Result, Target

MEASURES_SHOWN: Final = 4
"""Of each case: those with a target, then the first ones; all of them are in the JSON and in the report."""


def lines(result: Result) -> list[str]:
    """Return the table, then what was missed."""
    rows = [("case", "what was measured (median, and by how much samples differ)", "targets"), *map(_row, result.cases)]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    table = [f"{name:<{first}}  {measures:<{second}}  {targets}".rstrip() for name, measures, targets in rows]
    return [*table, "", *(missed(result) or [verdict(result)])]


def verdict(result: Result) -> str:
    """Return what there is to say when nothing was missed."""
    count = sum(len(case.targets) for case in result.cases)
    return f"All {count} targets that must be reached are." if count else "No target was set for what was measured."


def missed(result: Result) -> list[str]:
    """Return a line for each target whose must was not reached; empty when all were."""
    return [
        f"MISSED: {case.title}: {target.measure} is {figures.quantity(measure.median, measure.unit)}, must be {bound(measure, target.must)}"
        for case in result.cases
        for target, measure in targets(case)
        if not case.is_met(target, target.must)
    ]


def targets(case: Case) -> Iterator[tuple[Target, Measure]]:
    """Yield each target of a case with its measure."""
    for target in case.targets:
        yield target, case.measures[target.measure]


def bound(measure: Measure, wanted: float) -> str:
    """Return in words from which side a value is reached: `at least 5,000 1/s`."""
    side = "at least" if measure.better == HIGHER else "at most"
    return f"{side} {figures.quantity(wanted, measure.unit)}"


def _row(case: Case) -> tuple[str, str, str]:
    wanted = [target.measure for target in case.targets]
    names = list(dict.fromkeys([*wanted, *case.measures]))[:MEASURES_SHOWN]
    measures = ", ".join(f"{name} {_value(case.measures[name])}" for name in case.measures if name in names)
    states = [_state(case, target) for target in case.targets]
    return case.name, measures, ", ".join(dict.fromkeys(states))


def _value(measure: Measure) -> str:
    spread = f" ±{figures.share(measure.spread)}" if len(measure.samples) > 1 else ""
    return figures.quantity(measure.median, measure.unit) + spread


def _state(case: Case, target: Target) -> str:
    if not case.is_met(target, target.must):
        return "MISSED"
    return "reached" if target.goal is None or not case.is_met(target, target.goal) else "goal reached"
