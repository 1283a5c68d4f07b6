"""The suite of whole networks: what its axes are, how cases are compared, and that one that fails takes no other with it."""

from __future__ import annotations

import pytest

from medchain.bench import axes, cluster, rounds
from medchain.bench.axes import AXES, BASE, CURVES, SETTINGS
from medchain.bench.report import page
from medchain.bench.results import CLUSTER, Result
from medchain.bench.rounds import Limit, Setting, Window
from medchain.errors import Rejected, Unavailable


def window(transactions: int = 1_000, cpu: float = 0.4, seconds: float = 2.0) -> Window:
    return Window(
        seconds=seconds, nodes=4, transactions=transactions, latencies=(10.0, 20.0, 30.0), cpu=cpu, load_cpu=0.1, written=4e6, sent=8e6,
        blocks=10, memory=100e6,
    )  # fmt: skip


def bound(seconds: float = 50e-6) -> Limit:
    return Limit(4, [seconds, seconds])


@pytest.fixture
def unmeasured(monkeypatch):
    """Networks that cost nothing; the names in it fail."""
    failing: set[str] = set()
    asked: list[str] = []

    def steady(bench, setting: Setting):
        asked.append(setting.name)
        if setting.name in failing:
            raise Unavailable("no block within 60 s")
        return rounds.case_of(setting, rounds.measures_of(setting, [window(), window(1_100)], bound()))

    monkeypatch.setattr(rounds, "steady", steady)
    monkeypatch.setattr(rounds, "breakdown", lambda bench, setting: {})
    return failing, asked


def measured(tmp_path, *only: str, is_quick: bool = False) -> Result:
    return cluster.measure(is_quick=is_quick, only=only, folder=tmp_path, say=lambda words: None)


def test_every_axis_can_be_measured_and_every_name_is_used_once():
    assert set(cluster._AXES) == set(AXES)
    settings = [BASE, axes.FEW, axes.half(1_000.0), axes.grown(10), *(setting for group in SETTINGS.values() for setting in group)]
    names = [setting.name for setting in settings]
    assert len(set(names)) == len(names)
    assert set(axes.SAMPLED) <= set(names)
    assert {setting.curve for setting in settings} - {""} <= set(CURVES)
    assert all(setting.hospitals >= 4 for setting in settings)


def test_each_axis_differs_from_the_base_case_in_one_thing():
    base = BASE.described()
    for group in SETTINGS.values():
        for setting in group:
            other = {name for name, value in setting.described().items() if base[name] != value}
            assert len(other - {"in_flight"}) <= 1, setting.name
            assert other, setting.name


def test_window_becomes_costs_of_one_transaction_and_node():
    measures = rounds.measures_of(BASE, [window(), window(2_000)], bound())
    assert measures["rate"].samples == (500.0, 1_000.0)
    assert measures["cpu"].samples == (100.0, 50.0)
    assert measures["bytes_sent"].samples == (2_000.0, 1_000.0)
    assert measures["transactions_per_block"].samples == (100.0, 200.0)
    assert measures["latency_max"].samples == (30.0, 30.0)
    limit = measures["verification_limit"].median
    assert measures["ratio_to_limit"].samples == pytest.approx((500.0 / limit, 1_000.0 / limit))


def test_machine_that_became_slower_does_not_change_what_is_compared():
    base = rounds.case_of(BASE, rounds.measures_of(BASE, [window()], bound()))
    slower = rounds.case_of(BASE, rounds.measures_of(BASE, [window(500, 0.4)], bound(100e-6)))
    assert rounds.ratio_of_cost(slower, base) == pytest.approx((1.0,))
    assert rounds.ratio_of_rate(slower, base) == pytest.approx((1.0,))


def test_base_case_is_measured_once_for_all_axes_of_a_folder(tmp_path, unmeasured):
    _, asked = unmeasured
    for axis in ("base", "load", "validators"):
        measured(tmp_path, axis)
    assert asked.count("base") == 1
    assert {"load-half", "load-100", "validators-7", "validators-16"} <= set(asked)


def test_case_that_fails_stands_in_the_result_and_takes_no_other_with_it(tmp_path, unmeasured):
    failing, _ = unmeasured
    failing.add("validators-10")
    result = measured(tmp_path, "validators")
    names = [case.name for case in result.cases]
    assert {"validators-4", "validators-7", "failed-validators-10", "validators-16"} <= set(names)
    failure = result.case("failed-validators-10")
    assert failure is not None
    assert "no block within 60 s" in failure.title
    assert not failure.is_met(failure.targets[0], failure.targets[0].must), "a page that lists missed targets lists it"


def test_result_is_read_by_whoever_compares_and_reports(tmp_path, unmeasured):
    pytest.importorskip("matplotlib")
    result = measured(tmp_path, "base", "shape", "validators", "distance", "load", is_quick=True)
    result.save(tmp_path / "result.json")
    again = Result.load(tmp_path / "result.json")
    assert again.kind == CLUSTER
    assert [case.name for case in again.cases] == [case.name for case in result.cases]
    assert "Cost of more validators" in page([again])


def test_unknown_axis_is_refused(tmp_path):
    with pytest.raises(Rejected) as refused:
        measured(tmp_path, "weather")
    assert refused.value.code == "bench.axis"
