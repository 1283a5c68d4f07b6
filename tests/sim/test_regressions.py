"""Seeds that once broke a promise, each with its story; a history changes with the protocol, so the story says what to look for."""

from __future__ import annotations

import pytest

from medchain.sim.run import SeedOptions, run_seed

REGRESSIONS: list[tuple[int, int, str]] = []
"""(seed, nodes, story)."""


@pytest.mark.sim
@pytest.mark.parametrize(("seed", "nodes", "story"), REGRESSIONS)
def test_seed_that_once_failed(seed: int, nodes: int, story: str) -> None:
    report = run_seed(seed, SeedOptions(nodes=nodes))
    assert not report.violations, f"{story}: {report.violations[0]}"
