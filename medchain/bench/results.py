"""The form of every result: cases with measures, curves that cases are points of, targets; written as JSON and read again.

A measure keeps all its samples, so that whoever compares two results can tell a difference from noise. Does not know how it was measured.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from medchain.bench.facts import Facts
from medchain.errors import Malformed

FORM: Final = 1
"""Counts changes of the form; a file of another number is not read."""
FILE_BYTES_MAX: Final = 64 * 1024 * 1024

MICRO: Final = "micro"
CLUSTER: Final = "cluster"
KINDS: Final = (MICRO, CLUSTER)

HIGHER: Final = "higher"
LOWER: Final = "lower"
NEITHER: Final = ""
"""Which values of a measure are better."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One quantity, as often as it was measured."""

    unit: str
    """As it is printed: us, ms, 1/s, bytes, MB, %, x (a ratio)."""
    better: str
    """HIGHER, LOWER or NEITHER."""
    samples: tuple[float, ...]
    """At least one; in the order they were taken."""

    @property
    def median(self) -> float:
        """The middle sample: what is quoted."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the distance of the greatest from the smallest sample, as a share of the median; 0 of one sample, inf around 0."""
        half = (max(self.samples) - min(self.samples)) / 2
        if not half:
            return 0.0
        return half / abs(self.median) if self.median else math.inf


@dataclass(frozen=True, slots=True)
class Target:
    """What a measure is to reach (design/figures.md)."""

    measure: str
    """Name of a measure of the same case."""
    must: float
    goal: float | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that was measured under one set of circumstances."""

    name: str
    """Short and stable: what two results are matched by."""
    title: str
    """What it is, for a reader."""
    measures: Mapping[str, Measure]
    """By name (words with underscores, units not in the name), in the order they are shown."""
    settings: Mapping[str, str | int | float] = field(default_factory=dict)
    """The circumstances that were chosen."""
    targets: Sequence[Target] = ()
    curve: str = ""
    """Name of the curve this is a point of, empty for none."""
    x: float = 0.0
    """Where on that curve."""

    def is_met(self, target: Target, wanted: float) -> bool:
        """Answer whether the measure of a target reaches a value (its must or its goal)."""
        measure = self.measures[target.measure]
        return measure.median >= wanted if measure.better == HIGHER else measure.median <= wanted


@dataclass(frozen=True, slots=True)
class Curve:
    """A cost over something that grows."""

    name: str
    title: str
    x_label: str
    measure: str
    """Name of the measure that is drawn, one line for each value of the cases' setting `series`."""
    explanation: str
    """Two sentences: what it shows and why it is so."""
    is_log_x: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """Everything one command measured."""

    kind: str
    """MICRO or CLUSTER."""
    facts: Facts
    cases: Sequence[Case]
    curves: Sequence[Curve] = ()

    def case(self, name: str) -> Case | None:
        """Return the case of this name."""
        return next((case for case in self.cases if case.name == name), None)

    def to_value(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"form": FORM, **asdict(self)}

    @classmethod
    def from_value(cls, value: Any) -> Self:
        """Read the JSON form. Raises Malformed when it is not one."""
        try:
            if value["form"] != FORM or value["kind"] not in KINDS:
                raise Malformed(f"the result is of another form than {FORM}: measure again with this program")
            found = cls(
                kind=value["kind"],
                facts=Facts(**value["facts"]),
                cases=tuple(_read_case(case) for case in value["cases"]),
                curves=tuple(Curve(**curve) for curve in value["curves"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise Malformed(f"the file is no result of medchain bench ({type(error).__name__}: {error})") from None
        names = [case.name for case in found.cases]
        if len(set(names)) != len(names):
            raise Malformed("two cases of the result have the same name")
        return found

    def save(self, file: Path) -> None:
        """Write the JSON form."""
        file.write_text(json.dumps(self.to_value(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a file. Raises Malformed when it holds no result, OSError when it cannot be read."""
        with file.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise Malformed("the file is too large for a result of medchain bench")
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise Malformed("the file is no JSON, hence no result of medchain bench") from None
        return cls.from_value(value)


def _read_case(value: dict[str, Any]) -> Case:
    measures = {
        str(name): Measure(str(row["unit"]), _read_better(row["better"]), tuple(float(sample) for sample in row["samples"]))
        for name, row in value["measures"].items()
    }
    targets = tuple(Target(**row) for row in value["targets"])
    if not all(measure.samples for measure in measures.values()) or not all(target.measure in measures for target in targets):
        raise ValueError("a measure has no samples, or a target has no measure")
    return Case(
        name=str(value["name"]), title=str(value["title"]), measures=measures, settings=dict(value["settings"]), targets=targets,
        curve=str(value["curve"]), x=float(value["x"]),
    )  # fmt: skip


def _read_better(value: Any) -> str:
    if value not in (HIGHER, LOWER, NEITHER):
        raise ValueError("a measure is better when it is higher or lower, or neither")
    return str(value)
