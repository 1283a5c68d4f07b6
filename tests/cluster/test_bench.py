"""The suite of whole networks on a real one: the smallest case, and a network with a past."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medchain.bench import founded, recovery, rounds
from medchain.bench.axes import BASE
from medchain.bench.rounds import QUICK, Bench

pytestmark = pytest.mark.cluster
SMALL = replace(QUICK, window_s=0.5, windows=1, repetitions=1)


def test_base_case_gives_all_its_measures(tmp_path):
    setting = replace(BASE, expected=200.0, shape=replace(BASE.shape, in_flight=4))
    case = rounds.steady(Bench(tmp_path, SMALL, lambda words: None), setting)
    assert case.measures["rate"].median > 0
    assert case.measures["cpu"].median > 0
    assert case.measures["bytes_sent"].median > 100
    assert case.measures["bytes_written"].median > 100
    assert 0 < case.measures["ratio_to_limit"].median < 1
    assert not list(tmp_path.iterdir()), "a network that did what it should leaves nothing behind"


def test_node_starts_on_a_past_that_it_never_lived(tmp_path):
    bench = Bench(tmp_path, SMALL, lambda words: None)
    case = recovery.start_with(bench, keys=400)
    assert case.measures["seconds"].median < 60
    assert int(case.settings["blocks"]) > 0
    assert founded.network_with(tmp_path, keys=400).is_dir()
