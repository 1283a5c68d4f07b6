"""The interval is that of the exact rank test: against counting by hand, published values, and its own promise."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain.bench.interval import SAMPLES_MAX, Interval, arrangements, estimate, factors, interval

PERCENT = Fraction(1, 100)
PATIENTS = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
OTHERS = [1.15, 0.88, 0.90, 0.74, 1.21]
"""Permeability of the placenta, the example of Hollander and Wolfe that every statistics program repeats."""


@pytest.mark.parametrize("first", range(1, 6))
@pytest.mark.parametrize("second", range(1, 6))
def test_arrangements_are_those_counted_one_by_one(first, second):
    counted = [0] * (first * second + 1)
    for places in combinations(range(first + second), first):
        counted[sum(place - number for number, place in enumerate(places))] += 1
    assert arrangements(first, second) == counted


def test_chance_of_the_published_example_is_the_published_one():
    """W = 35, p = 0.1272."""
    assert sum(earlier > later for earlier in PATIENTS for later in OTHERS) == 35
    counts = arrangements(len(PATIENTS), len(OTHERS))
    assert sum(counts) == comb(15, 5)
    assert sum(counts[35:]) / sum(counts) == pytest.approx(0.1272, abs=5e-5)


@pytest.mark.parametrize(
    ("size", "error", "critical"),
    [(5, 1, 0), (6, 1, 2), (8, 1, 7), (10, 1, 16), (20, 1, 105), (4, 5, 0), (8, 5, 13), (10, 5, 23), (20, 5, 127)],
)
def test_interval_leaves_out_as_many_pairs_as_the_tables_of_mann_and_whitney_say(size, error, critical):
    before, after = [1.0] * size, [float(number) for number in range(1, size + 1)]
    pairs = factors(before, after)
    assert interval(before, after, error * PERCENT) == Interval(pairs[critical], pairs[-critical - 1])


@pytest.mark.parametrize(
    ("first", "second", "is_enough"), [(5, 5, True), (4, 5, False), (4, 6, True), (3, 9, True), (3, 8, False), (1, 50, False)]
)
def test_too_few_samples_carry_no_interval_with_an_error_of_one_percent(first, second, is_enough):
    assert (interval([1.0] * first, [2.0] * second, PERCENT) is not None) == is_enough


def test_three_and_three_samples_carry_an_error_of_ten_percent():
    assert interval([1.0, 1.1, 1.2], [2.0, 2.2, 2.4], 10 * PERCENT) == Interval(2.0 / 1.2, 2.4 / 1.0)
    assert interval([1.0, 1.1], [2.0, 2.2], 10 * PERCENT) is None


def test_interval_misses_the_true_factor_as_seldom_as_it_promises():
    """Skewed samples with a factor of 1.3: of 3,000 intervals with an error of 10 % at most 10 % miss it, and it is no idle promise."""
    dice = random.Random(4)
    missed = 0
    for _ in range(3_000):
        before = [dice.lognormvariate(0.0, 0.4) for _ in range(6)]
        after = [1.3 * dice.lognormvariate(0.0, 0.4) for _ in range(5)]
        found = interval(before, after, 10 * PERCENT)
        missed += not found.low <= 1.3 <= found.high
    assert 0.05 < missed / 3_000 < 0.115


def test_estimate_is_not_moved_by_one_outlier():
    assert estimate([10.0, 10.0, 10.0, 10.0, 10.0], [11.0, 11.0, 11.0, 11.0, 900.0]) == pytest.approx(1.1)


samples = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=8)


@given(samples, samples, st.sampled_from([1, 5, 10, 50]))
def test_estimate_lies_in_the_interval_and_turning_the_sides_round_turns_it_over(before, after, error):
    found, other = interval(before, after, error * PERCENT), interval(after, before, error * PERCENT)
    assert (found is None) == (other is None)
    if found is not None:
        assert found.low <= estimate(before, after) <= found.high
        assert other.low == pytest.approx(1 / found.high) and other.high == pytest.approx(1 / found.low)


@given(samples, st.randoms())
def test_order_of_the_samples_means_nothing(before, dice):
    shuffled = sorted(before, key=lambda _: dice.random())
    assert factors(before, [1.0, 2.0]) == factors(shuffled, [1.0, 2.0])


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=6), st.lists(st.floats(-10, 10), min_size=1, max_size=6))
def test_samples_at_and_below_zero_have_a_factor_too(before, after):
    assert len(factors(before, after)) == len(before) * len(after)


def test_where_all_is_zero_nothing_changed():
    assert factors([0.0, 0.0], [0.0]) == [1.0, 1.0]


def test_of_many_samples_so_many_are_taken_from_beginning_to_end():
    many = [float(number) for number in range(1, 1_001)]
    assert len(factors(many, [1.0])) == SAMPLES_MAX
    assert min(1 / factor for factor in factors(many, [1.0])) == 1.0
    assert max(1 / factor for factor in factors(many, [1.0])) > 950
