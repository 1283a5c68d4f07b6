"""Seeds that once broke a promise, each with its story; a history changes with the protocol, so the story says what to look for."""

from __future__ import annotations

import pytest

from medchain.sim.run import SeedOptions, run_seed

REGRESSIONS: list[tuple[int, int | None, str]] = [
    (6, 7, "judge: a node that catches up may accept a transaction and let it expire in the same turn; that is no loss"),
    (2_021_451, 10, "liars: two usurpers answered each other's proposals, and those answers, until the world was nothing else"),
    (1_000_726, 4, "engine: a liar alone decided a height, showed its certificate and gave no block; a restarted node waited for ever"),
]
"""(seed, nodes, story): where it was (judge, world, engine, ...) and what it was."""


@pytest.mark.sim
@pytest.mark.parametrize(("seed", "nodes", "story"), REGRESSIONS)
def test_seed_that_once_failed(seed: int, nodes: int | None, story: str) -> None:
    report = run_seed(seed, SeedOptions(nodes=nodes))
    assert not report.violations, f"{story}: {report.violations[0]}"
    assert report.is_counted, story
