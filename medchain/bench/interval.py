"""By what factor one set of samples lies above another, with an interval that holds it: exact for few samples of any shape.

Samples of benchmarks are few, skewed and full of outliers, so nothing here supposes that they are normal. Two samples that differ by a
factor differ by a shift of their logarithms. The interval for that shift is the inversion of the exact rank test (H. B. Mann and D. R.
Whitney, "On a test of whether one of two random variables is stochastically larger than the other", Annals of Mathematical Statistics 18,
1947), the estimate is the median of all pairwise factors (J. L. Hodges and E. L. Lehmann, "Estimates of location based on rank tests",
ibid. 34, 1963); both as in M. Hollander, D. A. Wolfe and E. Chicken, "Nonparametric Statistical Methods", chapter 4. With ties the interval
is wider than it need be, never narrower. Knows numbers, not what they measure.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Final

SAMPLES_MAX: Final = 50
"""Of more samples every so manieth is taken, in the order they came: pairs and the exact count grow with their square."""


@dataclass(frozen=True, slots=True)
class Interval:
    """From where to where a factor lies."""

    low: float
    high: float


def factors(before: Sequence[float], after: Sequence[float]) -> list[float]:
    """Return by what factor each sample of `after` lies above each of `before`, in order of size; no sample may be NaN or infinite.

    Where a sample is not above 0 no factor is defined: then it is 1 + the difference in units of the greater median's size.
    """
    first, second = _thin(before), _thin(after)
    if min(*first, *second) > 0:
        return sorted(later / earlier for earlier in first for later in second)
    scale = max(abs(statistics.median(first)), abs(statistics.median(second))) or max(map(abs, (*first, *second))) or 1.0
    return sorted(1 + (later - earlier) / scale for earlier in first for later in second)


def estimate(before: Sequence[float], after: Sequence[float]) -> float:
    """Return the factor between two sets of samples: the median over all pairs."""
    return statistics.median(factors(before, after))


def interval(before: Sequence[float], after: Sequence[float], error: Fraction) -> Interval | None:
    """Return the interval that misses the factor with a chance of at most `error`, half of it on either side.

    None where so few samples cannot carry that: 5 and 5 carry an error of 1 %, 3 and 3 one of 10 %.
    """
    outside = _pairs_outside(len(_thin(before)), len(_thin(after)), error)
    if not outside:
        return None
    found = factors(before, after)
    return Interval(found[outside - 1], found[-outside])


def _thin(samples: Sequence[float]) -> Sequence[float]:
    count = len(samples)
    return samples if count <= SAMPLES_MAX else [samples[number * count // SAMPLES_MAX] for number in range(SAMPLES_MAX)]


@cache
def _pairs_outside(first: int, second: int, error: Fraction) -> int:
    """Return which pair from either end bounds the interval: the greatest k with 2 P(U < k) <= error, 0 for none."""
    counts = arrangements(first, second)
    limit = error * sum(counts) / 2
    below = 0
    for number, count in enumerate(counts):
        below += count
        if below > limit:
            return number
    return len(counts) // 2


def arrangements(first: int, second: int) -> list[int]:
    """Return for each value of Mann and Whitney's U how many of all arrangements of so many samples have it, samples being alike.

    They are the coefficients of the Gaussian binomial, the product of (1 - x^(second + i)) / (1 - x^i) for i = 1 to first.
    """
    size = first * second + 1
    counts = [1] + [0] * (size - 1)
    for step in range(1, first + 1):
        for power in range(size - 1, second + step - 1, -1):
            counts[power] -= counts[power - second - step]
        for power in range(step, size):
            counts[power] += counts[power - step]
    return counts
