"""Results: what is written is read again, and what is no result is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medchain.bench.facts import Facts
from medchain.bench.results import CLUSTER, HIGHER, LOWER, Case, Curve, Measure, Result, Target
from medchain.errors import Malformed


def _result() -> Result:
    facts = Facts("1", "abc", "2026-01-01", "a machine", 2, 0.1, "3.12", "Linux")
    measures = {"rate": Measure("1/s", HIGHER, (90.0, 100.0, 120.0)), "latency_p50": Measure("ms", LOWER, (40.0,))}
    base = Case("base", "The base case", measures, {"validators": 4}, (Target("rate", 80.0, 200.0), Target("latency_p50", 60.0)))
    return Result(CLUSTER, facts, (base, Case("v7", "Seven", {}, curve="validators", x=7.0)), (Curve("validators", "t", "n", "rate", "e"),))


def test_a_result_is_written_and_read_again(tmp_path: Path) -> None:
    result = _result()
    result.save(tmp_path / "result.json")
    assert Result.load(tmp_path / "result.json") == result
    assert result.case("v7") is result.cases[1]
    assert result.case("v8") is None


def test_the_median_is_quoted_and_the_spread_tells_how_far_samples_lie_apart() -> None:
    rate = _result().cases[0].measures["rate"]
    assert rate.median == 100.0
    assert rate.spread == pytest.approx(0.15)
    assert Measure("us", LOWER, (3.0,)).spread == 0.0


def test_a_target_is_met_from_the_side_that_is_better() -> None:
    base = _result().cases[0]
    rate, latency = base.targets
    assert base.is_met(rate, rate.must)
    assert not base.is_met(rate, 200.0)
    assert base.is_met(latency, latency.must)
    assert not base.is_met(latency, 39.0)


@pytest.mark.parametrize("spoil", [
    lambda value: value.update(form=2),
    lambda value: value.update(kind="other"),
    lambda value: value.pop("cases"),
    lambda value: value["facts"].pop("cores"),
    lambda value: value["cases"][0]["measures"]["rate"].update(samples=[]),
    lambda value: value["cases"][0]["measures"]["rate"].update(better="sideways"),
    lambda value: value["cases"][0]["measures"].pop("rate"),
    lambda value: value["cases"][1].update(name="base"),
    lambda value: value.update(cases=7),
    lambda value: value["cases"][0].update(x=10**400),
])  # fmt: skip
def test_what_is_no_result_is_refused(spoil, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    value = json.loads(json.dumps(_result().to_value()))
    spoil(value)
    (tmp_path / "spoilt.json").write_text(json.dumps(value))
    with pytest.raises(Malformed):
        Result.load(tmp_path / "spoilt.json")


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{")
    with pytest.raises(Malformed):
        Result.load(tmp_path / "no.json")
