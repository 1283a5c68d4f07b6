"""Scenarios by name: single faults placed by hand in an otherwise quiet network."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medchain.sim.faults import Backup, Crash, CrashPoint, DiskFate, Partition, quiet_plan
from medchain.sim.network import links_between
from medchain.sim.report import SeedReport
from medchain.sim.run import run_plan

pytestmark = pytest.mark.sim


def said(report: SeedReport) -> str:
    return "\n".join(str(violation) for violation in report.violations)


def test_quiet_network_changes_no_view_and_decides_everything() -> None:
    report = run_plan(quiet_plan(1))
    assert not report.violations, said(report)
    assert report.view_changes == 0 and report.decided == report.accepted and report.expired == 0 and report.alarms == {}


@pytest.mark.parametrize("nodes", [4, 5, 6, 7])
def test_heights_grow_with_f_nodes_dead_whichever_they_are(nodes: int) -> None:
    faults = (nodes - 1) // 3
    for first in range(nodes):
        dead = [(first + number) % nodes for number in range(faults)]
        plan = quiet_plan(first, nodes).with_actions(*[Crash(500, node, CrashPoint.ANYWHERE, 600_000) for node in dead])
        report = run_plan(plan)
        assert not report.violations, said(report)
        assert report.heights >= 20


@pytest.mark.parametrize("point", list(CrashPoint))
@pytest.mark.parametrize("share", [0, 500, 1000])
def test_crash_at_every_durability_point_of_every_node_breaks_no_promise(point: CrashPoint, share: int) -> None:
    for node in range(4):
        crashes = [Crash(at_ms, node, point, 40, share) for at_ms in range(400 + node, 2_800, 160)]
        report = run_plan(quiet_plan(node).with_actions(*crashes))
        assert not report.violations, said(report)
        assert sum(report.crashes.values()) >= 8


def test_quorum_lost_for_ten_minutes_and_restored_decides_within_ten_seconds_without_restart() -> None:
    split = Partition(1_000, 600_000, "split", links_between((0, 1), (2, 3)), is_holding=False)
    report = run_plan(quiet_plan(1, safety_ms=600_000, submit_interval_ms=5_000, tick_ms=100).with_actions(split))
    assert not report.violations, said(report)
    assert report.recovery_ms < 10_000


CUTS = {
    "halves": links_between((0, 1), (2, 3)),
    "alone": links_between((0,), (1, 2, 3)),
    "one-way": tuple((a, b) for a in (0, 1) for b in (2, 3)),
    "nobody hears 0": tuple((0, b) for b in (1, 2, 3)),
    "0 hears nobody": tuple((b, 0) for b in (1, 2, 3)),
    "ring": ((0, 2), (2, 0), (1, 3), (3, 1)),
    "star": ((1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)),
    "everyone alone": tuple((a, b) for a in range(4) for b in range(4) if a != b),
}


@pytest.mark.parametrize("shape", CUTS)
@pytest.mark.parametrize("is_holding", [False, True])
def test_thirty_seconds_of_partition_of_every_shape_are_caught_up_within_five(shape: str, is_holding: bool) -> None:
    cut = Partition(500, 30_000, shape, CUTS[shape], is_holding)
    report = run_plan(quiet_plan(1, safety_ms=30_500, submit_interval_ms=700, tick_ms=50).with_actions(cut))
    assert not report.violations, said(report)
    assert report.recovery_ms < 5_000


@pytest.mark.parametrize("nodes", [4, 7])
def test_without_heartbeat_a_transaction_known_to_one_node_or_with_the_primary_cut_off_is_decided_all_the_same(nodes: int) -> None:
    parameters = replace(quiet_plan(1).parameters, heartbeat_ms=600_000)
    for node in range(nodes):
        others = tuple(peer for peer in range(nodes) if peer != node)
        cut = Partition(300, 4_000, "alone", links_between((node,), others), is_holding=False)
        plan = quiet_plan(node, nodes, safety_ms=4_000, submit_interval_ms=400, parameters=parameters).with_actions(cut)
        report = run_plan(plan, heights_min=1)
        assert not report.violations, said(report)
        assert report.decided == report.accepted


def test_ids_older_than_the_window_are_not_decided_again() -> None:
    parameters = replace(quiet_plan(1).parameters, expiry_window_blocks=10)
    plan = quiet_plan(1, safety_ms=6_000, submit_interval_ms=40, valid_for_blocks=9, resubmit_permille=500, parameters=parameters)
    report = run_plan(plan)
    assert not report.violations, said(report)
    assert report.heights > 60 and report.refusals["transaction.decided"] > 20


@pytest.mark.parametrize("nodes", [4, 7])
def test_all_nodes_lose_power_at_once_and_go_on_by_themselves(nodes: int) -> None:
    for seed, point in enumerate((CrashPoint.ANYWHERE, CrashPoint.TORN_WRITE, CrashPoint.AFTER_WRITE, CrashPoint.BETWEEN_SENDS)):
        crashes = [Crash(1_000, node, point, 200 + 50 * node) for node in range(nodes)]
        report = run_plan(quiet_plan(seed, nodes).with_actions(*crashes))
        assert not report.violations, said(report)
        assert report.alarms == {}, "a power loss is no amnesia"


# ---- amnesia ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", [DiskFate.WIPED, DiskFate.RESTORED, DiskFate.ROTTED])
@pytest.mark.parametrize("is_marked_damaged", [False, True])
@pytest.mark.parametrize("node", [0, 1, 2, 3])
def test_node_that_forgot_its_votes_says_nothing_that_contradicts_them(fate: DiskFate, is_marked_damaged: bool, node: int) -> None:
    crashes = [
        Crash(at_ms, node, CrashPoint.AFTER_WRITE, 80, 600, fate=fate, is_marked_damaged=is_marked_damaged) for at_ms in (1_000, 1_900)
    ]
    for seed in range(3):
        report = run_plan(quiet_plan(seed).with_actions(Backup(700, node), *crashes), faulty=frozenset())
        assert not report.violations, said(report)
        assert report.faults[f"disk {fate.value}"] == 2
