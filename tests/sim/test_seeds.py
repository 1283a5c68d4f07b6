"""Two hundred seeds: whole networks through crashes, partitions and bad weather; no promise may break."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest

from medchain.sim.liars.kinds import LIAR_KINDS
from medchain.sim.report import SeedReport, describe, summarise
from medchain.sim.run import run_seed

SEEDS = 200
PROCESSES = min(2, os.cpu_count() or 1)


@pytest.fixture(scope="module")
def reports() -> list[SeedReport]:
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(run_seed, range(SEEDS), chunksize=5))


@pytest.mark.sim
def test_no_seed_breaks_a_promise(reports: list[SeedReport]) -> None:
    summary = summarise(reports)
    assert not summary.failures, "\n".join(describe(summary, 1.0))


@pytest.mark.sim
def test_nearly_every_seed_counts_and_together_they_contain_every_fault(reports: list[SeedReport]) -> None:
    summary = summarise(reports)
    assert summary.counted >= SEEDS * 95 // 100, f"not counted: {summary.not_counted}"
    assert sorted(summary.nodes) == [4, 5, 6, 7, 8, 9, 10]
    assert len(summary.crashes) == 7 and min(summary.crashes.values()) >= 5, summary.crashes
    assert len(summary.partitions) == 7, summary.partitions
    assert summary.seeds_with_liars > SEEDS // 4 and set(summary.liars) == set(LIAR_KINDS), summary.liars
    assert summary.seeds_with_view_change > SEEDS // 2 and summary.highest_view >= 3
    assert summary.decided > SEEDS * 10 and summary.expired > 0
    assert summary.seeds_with_batches > SEEDS // 2 and summary.batched_decided > SEEDS * 10 and summary.batches_split > SEEDS // 2
    assert set(summary.faults) >= {
        "pause", "flap", "clock jump", "slow disk", "full disk", "clock off", "messages lost", "messages doubled", "messages reordered",
        "write torn: part kept", "write torn: all kept",
    }  # fmt: skip
