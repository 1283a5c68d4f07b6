"""Liars: up to f of any kind change nothing for the honest; as many as two quorums share break agreement, and the judges see it."""

from __future__ import annotations

from typing import Any

import pytest

from medchain.chain.validators import faults_tolerated, quorum
from medchain.errors import Malformed
from medchain.sim.faults import ClockJump, FullDisk, Partition, draw_plan, quiet_plan
from medchain.sim.liars.kinds import AND, LIAR_KINDS, PLAIN_KINDS
from medchain.sim.liars.roster import PLAIN, liar_maker
from medchain.sim.liars.votes import DoubleVoter
from medchain.sim.network import links_between
from medchain.sim.node import EngineBuilder, EngineLike, Start
from medchain.sim.report import SeedReport
from medchain.sim.run import run_plan
from medchain.store.keyvalue import EMPTY_BATCH

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("kind", LIAR_KINDS)
def test_one_liar_of_four_stops_nothing(kind: str) -> None:
    for node in range(2):
        report = run_plan(quiet_plan(node, liars=((node, kind),)))
        assert not report.violations, report.violations[0]
        assert report.heights >= 20 and report.decided == report.accepted


@pytest.mark.parametrize("nodes", [7, 10])
def test_f_twins_break_nothing(nodes: int) -> None:
    liars = tuple((node, "twins") for node in range(faults_tolerated(nodes)))
    for seed in range(2):
        report = run_plan(quiet_plan(seed, nodes, liars=liars))
        assert not report.violations, report.violations[0]


def test_f_liars_of_many_kinds_together_break_nothing() -> None:
    for seed, kinds in enumerate((("two blocks + yes-man", "twins"), ("lazy primary", "usurper"))):
        liars = tuple(enumerate(kinds))
        report = run_plan(quiet_plan(seed, 7, liars=liars))
        assert not report.violations, report.violations[0]


def test_every_kind_of_liar_has_a_class_that_says_what_it_tests() -> None:
    assert tuple(PLAIN) == PLAIN_KINDS
    for kind in PLAIN.values():
        assert "Tests that" in (kind.__doc__ or ""), kind
    with pytest.raises(Malformed, match="no liar called 'saint'"):
        liar_maker(f"forger{AND}saint", EMPTY_BATCH, frozenset(), {})


def test_double_voter_is_seen_when_it_counts_as_honest() -> None:
    """The judge of promises looks at everyone who is not excused."""

    def wrap(builder: EngineBuilder) -> EngineBuilder:
        def build(start: Start) -> EngineLike:
            return DoubleVoter(start, builder(start)) if start.node == 1 else builder(start)

        return build

    report = run_plan(quiet_plan(3), wrap=wrap)
    assert report.violations and report.violations[0].checker == "promises"


# ---- more than f ------------------------------------------------------------------------------------------------------------


def run_divided(seed: int, nodes: int, kinds: tuple[str, ...]) -> SeedReport:
    """The first nodes lie, and the honest are cut in two for a while."""
    honest = tuple(range(len(kinds), nodes))
    middle = len(honest) // 2
    cut = Partition(500, 1_500, "split", links_between(honest[:middle], honest[middle:]), is_holding=False)
    return run_plan(quiet_plan(seed, nodes, liars=tuple(enumerate(kinds))).with_actions(cut))


def first_broken(nodes: int, kinds: tuple[str, ...]) -> list[str]:
    for seed in range(60):
        report = run_divided(seed, nodes, kinds)
        if any(violation.checker == "agreement" for violation in report.violations):
            return ["agreement"]
    return []


@pytest.mark.parametrize(("nodes", "liars"), [(4, 2), (5, 3), (6, 2), (7, 3), (10, 4)])
def test_as_many_twins_as_two_quorums_share_break_agreement_and_are_seen(nodes: int, liars: int) -> None:
    """2q - n of n, which is f + 1 at n = 4, 6, 7, 10 and 3 at n = 5: each side of a cut gets a quorum. Not to see it would be blindness."""
    assert liars == 2 * quorum(nodes) - nodes
    assert first_broken(nodes, ("twins",) * liars) == ["agreement"]


@pytest.mark.parametrize(("nodes", "liars"), [(4, 2), (5, 3)])
def test_primary_with_two_blocks_and_accomplices_who_say_yes_to_both_break_agreement_and_are_seen(nodes: int, liars: int) -> None:
    assert first_broken(nodes, ("two blocks + yes-man",) + ("yes-man",) * (liars - 1)) == ["agreement"]


@pytest.mark.parametrize("nodes", [5, 8])
def test_where_n_is_not_3f_plus_1_even_f_plus_1_twins_do_not_break_agreement(nodes: int) -> None:
    """They share q of each side with too many honest: such n cost messages and give safety beyond f, though no progress is owed."""
    liars = faults_tolerated(nodes) + 1
    assert liars < 2 * quorum(nodes) - nodes
    for seed in range(3):
        report = run_divided(seed, nodes, ("twins",) * liars)
        assert [violation for violation in report.violations if violation.checker != "progress"] == []


# ---- other faults that count towards f ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset_ms", [-3_600_000, 1_500, 10 * 365 * 86_400_000])
@pytest.mark.parametrize("is_jump", [False, True])
def test_node_whose_clock_is_far_off_stops_nobody_and_follows_itself(offset_ms: int, is_jump: bool) -> None:
    clocks: dict[str, Any] = {} if is_jump else {"clock_offsets_ms": (offset_ms, 0, 0, 0)}
    actions = [ClockJump(800, 0, offset_ms)] if is_jump else []
    report = run_plan(quiet_plan(2, **clocks).with_actions(*actions))
    assert not report.violations, report.violations[0]
    assert report.decided == report.accepted and report.faults["clock off"] == 1


def test_full_disk_ends_the_process_again_and_again_and_nothing_is_lost() -> None:
    report = run_plan(quiet_plan(1).with_actions(FullDisk(700, 1, 1_500)))
    assert not report.violations, report.violations[0]
    assert report.crashes["disk full"] >= 3 and report.decided == report.accepted


def test_liars_forgetful_disks_and_clocks_that_are_off_are_at_most_f_together() -> None:
    mixed = set()
    for seed in range(400):
        plan = draw_plan(seed)
        faulty = plan.liar_nodes | plan.forgetful | plan.off_clocks
        assert len(faulty) <= faults_tolerated(plan.nodes), plan
        assert len(faulty) == len(plan.liar_nodes) + len(plan.forgetful) + len(plan.off_clocks)
        mixed.add((bool(plan.liars), bool(plan.forgetful), bool(plan.off_clocks)))
        assert draw_plan(seed, has_liars=False).liars == () and draw_plan(seed, has_liars=True).liars != ()
    assert len(mixed) >= 7, "alone, in every pair, and none"
