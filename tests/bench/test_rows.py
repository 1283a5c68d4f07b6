"""Figures are computed as the page says they are."""

from __future__ import annotations

import json
import math

import pytest

from medchain.bench.rows import Row
from medchain.bench.session import Rate, percentile
from medchain.bench.watch import Seen, Watch
from medchain.bench.worker import Batch, Checked


def rate(per_second: float) -> Rate:
    return Rate(per_second, 100.0, 10.0, 20.0, 30.0)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 5), (0.9, 9), (0.99, 10), (1.0, 10)])
def test_percentile_is_the_smallest_value_that_so_many_do_not_exceed(share, value):
    assert percentile([10, 1, 9, 2, 8, 3, 7, 4, 6, 5], share) == value


def test_percentile_of_nothing_is_no_number():
    assert math.isnan(percentile([], 0.5))


def test_row_compares_with_the_healthy_rate_and_its_json_has_no_nan():
    row = Row("dead", "f dead", healthy=rate(200.0), under=rate(170.0), next_block_ms=[1_000.0], checked=Checked(10, 0, 0, 0))
    assert row.ratio == 0.85
    assert math.isnan(Row("x", "x").ratio)
    row.under = Rate(0.0, 0.0, math.nan, math.nan, 5.0)
    value = json.loads(json.dumps(row.to_value(), allow_nan=False))
    assert value["under"]["latency_p50_ms"] is None
    assert value["next_block_ms"] == {"samples": [1_000.0], "p50": 1_000.0, "p99": 1_000.0, "max": 1_000.0}
    json.dumps(Row("x", "x").to_value(), allow_nan=False)


def test_latency_counts_from_when_a_batch_was_due():
    assert Batch(due=10.0, decided=10.25, transactions=64).latency_ms == 250.0


@pytest.mark.parametrize(
    ("begin", "end", "longest_ms"),
    [
        (0.0, 4.0, 1_500.0),  # 1.0, 1.5, 3.0: the longest is between two blocks
        (1.6, 2.6, 1_000.0),  # no block in the span: it waited throughout
        (2.9, 9.0, 6_000.0),  # the last pause has not ended
    ],
)
def test_longest_pause_counts_from_the_spans_beginning_and_to_its_end(begin, end, longest_ms):
    watch = Watch(None, "a")
    watch._seen = [Seen(1.0, 1), Seen(1.5, 2), Seen(3.0, 3)]
    assert watch.longest_pause_ms(begin, end) == pytest.approx(longest_ms)
