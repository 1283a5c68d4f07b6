"""Two results, case by case and measure by measure: what became better or worse, and what cannot be told from noise.

The method. A verdict rests on all samples, never on two medians. interval.py gives the factor between before and after, and an interval for
it that is exact for few samples of any shape. That alone would not do: samples of one run share the state its machine was in, and the
machines these figures come from drift by 15 to 20 % from one run to the next (design/figures.md), which no number of samples within a run
can show. So each measure has a margin, what its value may change by before anyone should care or believe:

- **5 %** (`relevant`) for what does not depend on the pace of the machine of the moment: processor time a transaction (names with `cpu`),
  ratios such as the one to the verification limit measured in the same run, bytes, memory. It drifts less than the clock, not never.
- **20 %** (`drift`) for what the clock measured: rates and times. They are shown because they are what is felt, not because they are firm.

And four verdicts follow, the two-sided test against a margin (its second half is D. J. Schuirmann's two one-sided tests, Journal of
Pharmacokinetics and Biopharmaceutics 15, 1987):

- *better*, *worse*: the whole interval with 1 % error lies beyond the margin. Of a measure whose true change, drift included, stays within
  the margin, at most one in 200 is called worse. With 5 samples on either side this takes ranges that lie apart by more than the margin.
- *same*: the whole interval with 10 % error lies within the margin (an error of 5 % on the side that counts); 3 samples may do.
- *cannot tell*: everything else, with the reason. It is no verdict of innocence; more samples narrow the interval.

On a busy machine drift knows no margin: of one commit measured against itself under a load of 2 to 14 on two cores, far more was called
better or worse than that, processor time too (DESIGN.md has the figures). So where either machine was busy when its run began, no time,
rate, processor time or ratio is called better or worse. A load that began later is not seen: whoever measures keeps the machine quiet.

Knows results, not how they were measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any, Final

from medchain.bench import figures
from medchain.bench.facts import Facts
from medchain.bench.interval import Interval, estimate, interval
from medchain.bench.results import HIGHER, NEITHER, Case, Measure, Result
from medchain.errors import Rejected

REFUSALS: Final[dict[str, str]] = {
    "bench.other-kind": "The two results are of different kinds (micro, cluster) and have no case in common.",
}

RELEVANT: Final = 0.05
DRIFT: Final = 0.20

BETTER: Final = "better"
WORSE: Final = "worse"
SAME: Final = "same"
CANNOT_TELL: Final = "cannot tell"
NOT_JUDGED: Final = "not judged"
"""Of a measure that is neither better high nor low."""
VERDICTS: Final = (WORSE, BETTER, CANNOT_TELL, SAME, NOT_JUDGED)
"""In the order they are shown."""

ERROR_OF_CHANGE: Final = Fraction(1, 100)
ERROR_OF_SAMENESS: Final = Fraction(1, 10)

CLOCK_UNITS: Final = frozenset({"ns", "us", "ms", "s"})
CPU: Final = "cpu"
RATIO: Final = "x"
"""Mostly of two times, such as the gain by a second thread, which a busy machine does not leave alone either."""


@dataclass(frozen=True, slots=True)
class Margins:
    """By how much of itself a measure may change before it counts."""

    relevant: float = RELEVANT
    """Of what does not depend on the pace of the machine."""
    drift: float = DRIFT
    """Of what the clock measured."""

    def of(self, name: str, unit: str) -> float:
        """Return the margin of a measure; that of the drift is never the smaller one."""
        return max(self.drift, self.relevant) if is_timed(name, unit) else self.relevant


def is_timed(name: str, unit: str) -> bool:
    """Whether the clock measured it, so that it drifts with the machine: a rate or a time that is not processor time."""
    return is_paced(unit) and CPU not in name.split("_")


def is_paced(unit: str) -> bool:
    """Whether it is a time or a rate, processor time included: what a busy machine changes."""
    return unit in CLOCK_UNITS or unit.endswith("/s")


def is_busy(facts: Facts) -> bool:
    """Whether others wanted the machine's processors just before the measuring."""
    return facts.load_before > facts.cores / 2


@dataclass(frozen=True, slots=True)
class Change:
    """One measure of one case, before and after."""

    case: str
    measure: str
    unit: str
    before: float
    after: float
    """Medians: what is shown, not what is judged."""
    counts: tuple[int, int]
    """Samples before and after."""
    factor: float
    """After by before, the median over all pairs of samples; NaN when a sample is no number."""
    interval: Interval | None
    """Of the factor, with an error of 1 %; None with too few samples."""
    margin: float
    verdict: str
    reason: str
    """Why it cannot be told, empty otherwise."""

    def line(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        span = "" if self.interval is None else f"{figures.change(self.interval.low)} to {figures.change(self.interval.high)}"
        numbers = (figures.quantity(self.before, self.unit), figures.quantity(self.after, self.unit), figures.change(self.factor))
        return (self.verdict, self.case, self.measure, *numbers, span, self.reason)


HEAD: Final = ("verdict", "case", "measure", "before", "after", "change", "with 1 % error", "why")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that can be said of two results."""

    before: Facts
    after: Facts
    margins: Margins
    warnings: tuple[str, ...]
    """What makes the figures less comparable than they look."""
    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    """Cases, or measures of cases that both have, that stand in one result alone."""
    only_after: tuple[str, ...]

    @property
    def is_worse(self) -> bool:
        """Whether anything is worse."""
        return any(change.verdict == WORSE for change in self.changes)

    def to_value(self) -> dict[str, Any]:
        """Return the JSON form; a factor that is no number is null."""
        value = asdict(self) | {"is_worse": self.is_worse, "counts": self._counts()}
        for row in value["changes"]:
            for key in ("before", "after", "factor"):
                row[key] = row[key] if math.isfinite(row[key]) else None
        return value

    def lines(self) -> list[str]:
        """Return what a terminal shows: warnings, the changes that say something, and how many there are of each verdict."""
        shown = [change for verdict in (WORSE, BETTER, CANNOT_TELL) for change in self.changes if change.verdict == verdict]
        lines = [f"WARNING: {warning}" for warning in self.warnings]
        if shown:
            cells = [HEAD, *(change.line() for change in shown)]
            widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
            lines += ["", *("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells), ""]
        for title, names in (("only before", self.only_before), ("only after", self.only_after)):
            lines += [f"{title}: {', '.join(names)}"] if names else []
        lines.append(", ".join(f"{count} {verdict}" for verdict, count in self._counts().items() if count) or "nothing to compare")
        judged = sum(change.verdict != NOT_JUDGED for change in self.changes)
        return [*lines, _READING.format(margins=self.margins, chance=float(ERROR_OF_CHANGE / 2) * judged)]

    def _counts(self) -> dict[str, int]:
        return {verdict: sum(change.verdict == verdict for change in self.changes) for verdict in VERDICTS}


_READING: Final = (
    "A change counts beyond {margins.relevant:.0%}, of rates and times beyond {margins.drift:.0%}, which the machine drifts by; "
    "if no measure drifted further than that, chance calls at most {chance:.1f} worse. "
    "Processor time and ratios drift least, on a quiet machine."
)


def compare(before: Result, after: Result, margins: Margins = Margins()) -> Comparison:
    """Compare two results. Raises Rejected `bench.other-kind` when they are of different kinds."""
    if before.kind != after.kind:
        raise Rejected("bench.other-kind", f"A {before.kind} result cannot be compared with a {after.kind} result: give two of one kind.")
    has_load = is_busy(before.facts) or is_busy(after.facts)
    pairs = [(case, other) for case in before.cases if (other := after.case(case.name)) is not None]
    return Comparison(
        before=before.facts,
        after=after.facts,
        margins=margins,
        warnings=tuple(_warnings(before.facts, after.facts)),
        changes=tuple(change for case, other in pairs for change in _changes(case, other, margins, has_load)),
        only_before=tuple(_missing(before.cases, after)),
        only_after=tuple(_missing(after.cases, before)),
    )


def _missing(cases: Sequence[Case], other: Result) -> Iterator[str]:
    for case in cases:
        partner = other.case(case.name)
        if partner is None:
            yield case.name
        else:
            yield from (f"{case.name} {name}" for name in case.measures if name not in partner.measures)


def _changes(case: Case, other: Case, margins: Margins, has_load: bool) -> Iterator[Change]:
    keys = sorted({*case.settings, *other.settings})
    differing = [key for key in keys if case.settings.get(key) != other.settings.get(key)]
    circumstances = ", ".join(f"{key} {case.settings.get(key, 'unset')} and {other.settings.get(key, 'unset')}" for key in differing)
    for name, measure in case.measures.items():
        if name in other.measures:
            change = _judge(case.name, name, measure, other.measures[name], margins.of(name, measure.unit), circumstances)
            if has_load and change.verdict in (BETTER, WORSE) and (is_paced(measure.unit) or measure.unit == RATIO):
                change = replace(change, verdict=CANNOT_TELL, reason="the machine was busy")
            yield change


def _judge(case: str, name: str, before: Measure, after: Measure, margin: float, circumstances: str) -> Change:
    counts = (len(before.samples), len(after.samples))
    are_numbers = all(math.isfinite(sample) for sample in (*before.samples, *after.samples))
    are_alike = (before.unit, before.better) == (after.unit, after.better)
    factor, found, verdict, reason = math.nan, None, CANNOT_TELL, ""
    if not are_numbers:
        reason = "a sample is no number"
    elif not are_alike:
        reason = f"measured otherwise: {before.unit} {before.better} and {after.unit} {after.better}"
    else:
        factor = estimate(before.samples, after.samples)
        found = interval(before.samples, after.samples, ERROR_OF_CHANGE)
        if before.better == NEITHER:
            verdict = NOT_JUDGED
        elif circumstances:
            reason = f"other circumstances: {circumstances}"
        else:
            verdict, reason = _verdict(before, after, margin, found)
    return Change(case, name, before.unit, before.median, after.median, counts, factor, found, margin, verdict, reason)


def _verdict(before: Measure, after: Measure, margin: float, found: Interval | None) -> tuple[str, str]:
    """Return the verdict, and why when it is none."""
    least, most = 1 / (1 + margin), 1 + margin
    if set(before.samples) == set(after.samples) and len(set(before.samples)) == 1:
        return SAME, ""  # a count that never varies needs no statistics
    if found is not None and (found.high < least or found.low > most):
        return BETTER if (found.low > most) == (before.better == HIGHER) else WORSE, ""
    narrow = interval(before.samples, after.samples, ERROR_OF_SAMENESS)
    if narrow is not None and least <= narrow.low and narrow.high <= most:
        return SAME, ""
    if found is None:
        return CANNOT_TELL, f"too few samples ({len(before.samples)} and {len(after.samples)}): 5 and 5 may do"
    if found.low <= 1 <= found.high:
        return CANNOT_TELL, "ranges overlap"
    return CANNOT_TELL, f"not surely beyond {margin:.0%}"


def _warnings(before: Facts, after: Facts) -> Iterator[str]:
    """Yield what makes the figures less comparable than they look."""
    for title, earlier, later in (
        ("machine", before.machine, after.machine),
        ("number of cores", before.cores, after.cores),
        ("Python", before.python, after.python),
        ("system", before.system, after.system),
    ):
        if earlier != later:
            yield f"the {title} differs: {earlier} before, {later} after"
    for word, facts in (("before", before), ("after", after)):
        if is_busy(facts):
            load = f"load {facts.load_before} on {facts.cores} cores"
            yield f"the machine was busy when the result {word} was measured ({load}): no time, rate or ratio is judged"
        if facts.commit.endswith("+"):
            yield f"the result {word} was measured with changes that are not committed ({facts.commit})"
        elif not facts.commit:
            yield f"which program the result {word} was measured with is not known: it was no checkout"
    if before.commit and before.commit == after.commit and not before.commit.endswith("+"):
        yield f"both results are of the commit {before.commit}: what differs is the machine, or chance"
