"""The table of a result shows every case and what was missed."""

from __future__ import annotations

from dataclasses import replace

from medchain.bench import table
from medchain.bench.facts import Facts
from medchain.bench.results import CLUSTER, HIGHER, LOWER, Case, Measure, Result, Target

FACTS = Facts("1", "abc", "2026-01-01", "a machine", 2, 0.1, "3.12", "Linux")
MEASURES = {
    "rate": Measure("1/s", HIGHER, (5_000.0, 5_100.0, 5_200.0)),
    "blocks": Measure("", "", (100.0,)),
    "one": Measure("us", LOWER, (1.0,)),
    "two": Measure("us", LOWER, (2.0,)),
    "latency_p99": Measure("ms", LOWER, (90.0,)),
}
BASE = Case("base", "The base case", MEASURES, targets=(Target("rate", 5_000.0, 5_050.0), Target("latency_p99", 120.0, 80.0)))


def test_measures_with_a_target_are_shown_first_of_all():
    head, base, *rest = table.lines(Result(CLUSTER, FACTS, (BASE,)))
    assert head.startswith("case  ")
    assert base == "base  rate 5,100 1/s ±2.0 %, blocks 100, one 1 us, latency_p99 90 ms  goal reached, reached"
    assert rest == ["", "All 2 targets that must be reached are."]


def test_missed_target_is_told_with_what_must_be():
    slow = replace(BASE, targets=(Target("rate", 6_000.0), Target("latency_p99", 60.0)))
    lines = table.lines(Result(CLUSTER, FACTS, (slow,)))
    assert lines[1].endswith("  MISSED")
    assert lines[3:] == [
        "MISSED: The base case: rate is 5,100 1/s, must be at least 6,000 1/s",
        "MISSED: The base case: latency_p99 is 90 ms, must be at most 60 ms",
    ]


def test_result_without_targets_says_so():
    assert table.lines(Result(CLUSTER, FACTS, (replace(BASE, targets=()),)))[-1] == "No target was set for what was measured."
