"""Seeds that once broke a promise, each with its story; a history changes with the protocol, so the story says what to look for.

It changes with what seeds draw as well: then the line pins what the story was without.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from medchain.sim.run import SeedOptions, plan_of, run_plan

ALONE: Final = {"batch_permille": 0}
"""Found before clients signed in batches."""
REGRESSIONS: Final[list[tuple[int, int | None, dict[str, Any], str]]] = [
    (6, 7, ALONE, "judge: a node that catches up may accept a transaction and let it expire in the same turn; that is no loss"),
    (2_021_451, 10, ALONE, "liars: two usurpers answered each other's proposals, and those answers, until the world was nothing else"),
    (1_000_726, 4, ALONE, "engine: a liar alone decided a height, showed its certificate, gave no block; a restarted node waited for ever"),
]
"""(seed, nodes, fields of the plan that are pinned, story): where it was (judge, world, engine, ...) and what it was."""


@pytest.mark.sim
@pytest.mark.parametrize(("seed", "nodes", "pinned", "story"), REGRESSIONS)
def test_seed_that_once_failed(seed: int, nodes: int | None, pinned: dict[str, Any], story: str) -> None:
    report = run_plan(replace(plan_of(seed, SeedOptions(nodes=nodes)), **pinned))
    assert not report.violations, f"{story}: {report.violations[0]}"
    assert report.is_counted, story
