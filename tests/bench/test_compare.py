"""A verdict is given when the samples carry it, and only then."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain.bench.compare import BETTER, CANNOT_TELL, NOT_JUDGED, SAME, WORSE, Margins, compare, is_timed
from medchain.bench.facts import Facts
from medchain.bench.results import CLUSTER, HIGHER, LOWER, MICRO, NEITHER, Case, Measure, Result
from medchain.errors import Rejected

FACTS = Facts("1", "abc", "2026-01-01", "a machine", 2, 0.1, "3.12", "Linux")
LATER = replace(FACTS, commit="def")


def result(samples, *, name: str = "cpu", unit: str = "us", better: str = LOWER, facts: Facts = FACTS, settings=()) -> Result:
    case = Case("base", "The base case", {name: Measure(unit, better, tuple(samples))}, dict(settings))
    return Result(CLUSTER, facts, (case,))


def verdict(before, after, **measure) -> str:
    (change,) = compare(result(before, **measure), result(after, facts=LATER, **measure)).changes
    return change.verdict


STEADY = (100.0, 101.0, 102.0, 99.0, 98.0)


def times(factor: float, samples=STEADY) -> list[float]:
    return [sample * factor for sample in samples]


@pytest.mark.parametrize(
    ("factor", "better", "expected"),
    [
        (1.00, LOWER, SAME),
        (1.005, HIGHER, SAME),
        (1.30, LOWER, WORSE),
        (1.30, HIGHER, BETTER),
        (0.70, LOWER, BETTER),
        (0.70, HIGHER, WORSE),
        (1.05, LOWER, CANNOT_TELL),
        (0.95, LOWER, CANNOT_TELL),
        (1.30, NEITHER, NOT_JUDGED),
    ],
)
def test_verdict_follows_the_factor_and_the_side_that_is_better(factor, better, expected):
    assert verdict(STEADY, times(factor), better=better) == expected


def test_rates_and_times_may_drift_further_than_processor_time_and_ratios():
    assert verdict(STEADY, times(0.85), name="rate", unit="1/s", better=HIGHER) == CANNOT_TELL
    assert verdict(STEADY, times(0.85), name="limit_ratio", unit="x", better=HIGHER) == WORSE
    assert verdict(STEADY, times(1.15), name="latency_p50", unit="ms") == SAME
    assert verdict(STEADY, times(1.15), name="cpu_execute", unit="us") == WORSE
    assert verdict(STEADY, times(1.6), name="latency_p50", unit="ms") == WORSE


@pytest.mark.parametrize(
    ("name", "unit", "timed"),
    [("rate", "1/s", True), ("speed", "GB/s", True), ("latency_p99", "ms", True), ("verify", "us", True), ("cpu_rest", "us", False),
     ("verify_cpu", "us", False), ("memory", "MB", False), ("ratio", "x", False), ("cpus", "s", True)],
)  # fmt: skip
def test_what_the_clock_measured_is_known_by_unit_and_name(name, unit, timed):
    assert is_timed(name, unit) == timed


def test_few_samples_can_show_sameness_before_they_can_show_a_change():
    assert verdict((100.0, 101.0, 102.0), (101.0, 102.0, 100.0)) == SAME
    (change,) = compare(result((100.0, 101.0, 102.0)), result((200.0, 201.0, 202.0), facts=LATER)).changes
    assert change.verdict == CANNOT_TELL
    assert "too few samples (3 and 3)" in change.reason
    assert change.interval is None


def test_one_sample_says_nothing_unless_it_is_the_very_same():
    assert verdict((100.0,), (150.0,)) == CANNOT_TELL
    assert verdict((4_212.0,), (4_212.0,), name="proof", unit="bytes") == SAME
    assert verdict((0.0, 0.0), (0.0,), name="lost", unit="") == SAME


def test_one_outlier_is_no_change_and_does_not_hide_one():
    (change,) = compare(result(STEADY), result((*STEADY[:4], 900.0), facts=LATER)).changes
    assert (change.verdict, change.reason) == (CANNOT_TELL, "ranges overlap")
    many = STEADY + STEADY
    assert verdict(many, [*times(1.5, many)[:9], 100.0]) == WORSE


def test_change_that_is_real_but_may_be_within_the_margin_is_not_told():
    (change,) = compare(result(STEADY), result(times(1.09), facts=LATER)).changes
    assert (change.verdict, change.reason) == (CANNOT_TELL, "not surely beyond 5%")


def test_margins_are_the_callers():
    before, after = result(STEADY), result(times(1.15), facts=LATER)
    assert compare(before, after, Margins(relevant=0.5)).changes[0].verdict == SAME
    before, after = (replace(side, cases=result(side.cases[0].measures["cpu"].samples, name="p50").cases) for side in (before, after))
    assert compare(before, after, Margins(drift=0.05)).changes[0].verdict == WORSE
    assert Margins(relevant=0.5, drift=0.1).of("rate", "1/s") == 0.5


def test_two_runs_of_one_program_seldom_look_worse():
    """The docstring's bound: at most one in 200 when nothing changed, even with the machine at the edge of what it may drift by."""
    dice = random.Random(4)
    for noise, drift, name in ((0.02, 1.0, "cpu"), (0.3, 1.0, "cpu"), (0.3, 1.05, "cpu"), (0.1, 1.20, "latency"), (0.02, 1.20, "latency")):
        runs = 2_000
        found = [
            verdict(
                [dice.lognormvariate(5.0, noise) for _ in range(5)], [drift * dice.lognormvariate(5.0, noise) for _ in range(5)], name=name
            )
            for _ in range(runs)
        ]
        assert found.count(WORSE) <= runs * 0.005 + 3 * math.sqrt(runs * 0.005), (noise, drift)


def test_great_change_is_found_through_noise():
    dice = random.Random(4)
    found = [
        verdict([dice.lognormvariate(5.0, 0.05) for _ in range(7)], [1.3 * dice.lognormvariate(5.0, 0.05) for _ in range(7)])
        for _ in range(200)
    ]
    assert found.count(WORSE) > 190
    assert BETTER not in found and SAME not in found


numbers = st.lists(st.floats(0.01, 1e5), min_size=1, max_size=7)


@given(numbers, numbers, st.sampled_from([HIGHER, LOWER]))
def test_turning_the_results_round_turns_the_verdict_round(before, after, better):
    turned = {WORSE: BETTER, BETTER: WORSE, SAME: SAME, CANNOT_TELL: CANNOT_TELL}
    assert verdict(after, before, better=better) == turned[verdict(before, after, better=better)]


@given(numbers, numbers, st.randoms())
def test_order_of_samples_does_not_change_the_verdict(before, after, dice):
    assert verdict(sorted(before, key=lambda _: dice.random()), after) == verdict(before, after)


@given(numbers)
def test_result_compared_with_itself_is_never_worse(samples):
    assert verdict(samples, samples) in (SAME, CANNOT_TELL)


def test_results_of_other_kinds_are_refused():
    with pytest.raises(Rejected) as refused:
        compare(result(STEADY), replace(result(STEADY), kind=MICRO))
    assert refused.value.code == "bench.other-kind"


def test_cases_of_other_circumstances_or_units_are_not_judged_by_their_figures():
    (change,) = compare(
        result(STEADY, settings={"validators": 4}), result(times(2), facts=LATER, settings={"validators": 7, "tls": 1})
    ).changes
    assert change.verdict == CANNOT_TELL
    assert change.reason == "other circumstances: tls unset and 1, validators 4 and 7"
    (change,) = compare(result(STEADY), result(times(2), facts=LATER, unit="ms")).changes
    assert change.verdict == CANNOT_TELL and "measured otherwise" in change.reason


def test_sample_that_is_no_number_is_told_and_stays_out_of_the_json():
    comparison = compare(result((*STEADY, math.nan)), result(STEADY, facts=LATER))
    assert comparison.changes[0].reason == "a sample is no number"
    json.dumps(comparison.to_value(), allow_nan=False)


def test_what_stands_in_one_result_alone_is_named():
    before, after = result(STEADY), result(STEADY, name="rate")
    extra = Case("v7", "Seven", {})
    comparison = compare(before, replace(after, cases=(*after.cases, extra), facts=LATER))
    assert comparison.only_before == ("base cpu",)
    assert comparison.only_after == ("base rate", "v7")
    assert not comparison.changes
    assert "only after: base rate, v7" in comparison.lines()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"machine": "another"}, "the machine differs: a machine before, another after"),
        ({"cores": 8}, "the number of cores differs: 2 before, 8 after"),
        ({"python": "3.11"}, "the Python differs"),
        ({"system": "Linux 7"}, "the system differs"),
        (
            {"load_before": 1.5},
            "the machine was busy when the result after was measured (load 1.5 on 2 cores): no time, rate or ratio is judged",
        ),
        ({"commit": "def+"}, "the result after was measured with changes that are not committed (def+)"),
        ({"commit": ""}, "which program the result after was measured with is not known"),
        ({"commit": "abc"}, "both results are of the commit abc"),
    ],
)
def test_what_makes_figures_less_comparable_is_a_warning(change, words):
    comparison = compare(result(STEADY), result(STEADY, facts=replace(LATER, **change)))
    (warning,) = comparison.warnings
    assert words in warning
    assert f"WARNING: {warning}" in comparison.lines()


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize(
    ("name", "unit", "expected"),
    [("cpu", "us", CANNOT_TELL), ("rate", "1/s", CANNOT_TELL), ("speedup", "x", CANNOT_TELL), ("size", "bytes", WORSE)],
)
def test_busy_machine_calls_no_time_rate_or_ratio_worse(side, name, unit, expected):
    """Of one commit measured against itself under load, far more was called better or worse than the margins promise."""
    loads = {"before": 0.1, "after": 0.1, side: 1.1}
    before = result(STEADY, name=name, unit=unit, facts=replace(FACTS, load_before=loads["before"]))
    after = result(times(2), name=name, unit=unit, facts=replace(LATER, load_before=loads["after"]))
    comparison = compare(before, after)
    assert comparison.changes[0].verdict == expected
    assert comparison.is_worse == (expected == WORSE)
    assert comparison.changes[0].reason == ("the machine was busy" if expected == CANNOT_TELL else "")


def test_comparable_results_have_no_warning():
    assert compare(result(STEADY), result(STEADY, facts=LATER)).warnings == ()


def test_lines_show_what_is_worse_and_count_the_rest():
    measures = {
        "cpu": Measure("us", LOWER, STEADY), "cpu_verify": Measure("us", LOWER, STEADY), "height": Measure("", NEITHER, STEADY),
    }  # fmt: skip
    before = Result(CLUSTER, FACTS, (Case("base", "The base case", measures),))
    worse = measures | {"cpu": Measure("us", LOWER, tuple(times(1.5)))}
    comparison = compare(before, Result(CLUSTER, LATER, (Case("base", "The base case", worse),)))
    assert comparison.is_worse
    lines = comparison.lines()
    assert "worse    base  cpu      100 us  150 us  +50 %   +44 % to +56 %" in lines
    assert "1 worse, 1 same, 1 not judged" in lines
    assert "chance calls at most 0.0 worse" in lines[-1]
    value = json.loads(json.dumps(comparison.to_value(), allow_nan=False))
    assert value["is_worse"] and value["counts"]["worse"] == 1
    assert value["changes"][0]["counts"] == [5, 5]
