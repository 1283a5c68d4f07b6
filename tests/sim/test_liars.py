"""Liars: up to f of any kind change nothing for the honest; f + 1 break agreement, and the judges see it."""

from __future__ import annotations

import pytest

from medchain.sim.faults import Partition, quiet_plan
from medchain.sim.liars import LIAR_KINDS
from medchain.sim.network import links_between
from medchain.sim.report import describe, summarise
from medchain.sim.run import SeedOptions, run_plan, run_seed

pytestmark = pytest.mark.sim


def test_seeds_with_up_to_f_liars_break_no_promise() -> None:
    summary = summarise(run_seed(seed, SeedOptions(has_liars=True)) for seed in range(40))
    assert not summary.failures, "\n".join(describe(summary, 1.0))
    assert {f"liar: {kind}" for kind in LIAR_KINDS} <= set(summary.faults)


@pytest.mark.parametrize("kind", LIAR_KINDS)
@pytest.mark.parametrize("node", [0, 1, 2, 3])
def test_one_liar_of_four_stops_nothing(kind: str, node: int) -> None:
    report = run_plan(quiet_plan(node), liars={node: kind})
    assert not report.violations, report.violations[0]
    assert report.heights >= 20 and report.decided == report.accepted


def test_double_voter_is_seen_when_it_counts_as_honest() -> None:
    """The judge of promises looks at everyone who is not excused."""
    from medchain.sim.liars import DoubleVoter
    from medchain.sim.node import EngineBuilder, EngineLike, Start

    def wrap(builder: EngineBuilder) -> EngineBuilder:
        def build(start: Start) -> EngineLike:
            return DoubleVoter(start, builder(start)) if start.node == 1 else builder(start)

        return build

    report = run_plan(quiet_plan(3), wrap=wrap)
    assert report.violations and report.violations[0].checker == "promises"


def test_two_twins_of_four_break_agreement_and_are_seen() -> None:
    """f + 1: each side of a cut has a quorum with the copies on its side. If nobody saw this, the judges would be blind."""
    broken = []
    for seed in range(12):
        cut = Partition(500, 1_500, "pair", links_between((2,), (3,)), is_holding=False)
        report = run_plan(quiet_plan(seed).with_actions(cut), liars={0: "twins", 1: "twins"})
        broken += [violation.checker for violation in report.violations]
    assert "agreement" in broken, broken
