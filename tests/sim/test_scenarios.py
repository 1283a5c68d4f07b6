"""Scenarios by name: single faults placed by hand in an otherwise quiet network."""

from __future__ import annotations

import pytest

from medchain.sim.faults import Backup, Crash, CrashPoint, DiskFate, quiet_plan
from medchain.sim.report import SeedReport
from medchain.sim.run import run_plan

pytestmark = pytest.mark.sim


def said(report: SeedReport) -> str:
    return "\n".join(str(violation) for violation in report.violations)


def test_quiet_network_changes_no_view_and_decides_everything() -> None:
    report = run_plan(quiet_plan(1))
    assert not report.violations, said(report)
    assert report.view_changes == 0 and report.decided == report.accepted and report.expired == 0 and report.alarms == {}


@pytest.mark.parametrize("point", list(CrashPoint))
@pytest.mark.parametrize("share", [0, 500, 1000])
def test_crash_at_every_durability_point_of_every_node_breaks_no_promise(point: CrashPoint, share: int) -> None:
    for node in range(4):
        crashes = [Crash(at_ms, node, point, 40, share) for at_ms in range(400 + node, 2_800, 160)]
        report = run_plan(quiet_plan(node).with_actions(*crashes))
        assert not report.violations, said(report)
        assert sum(report.crashes.values()) >= 8


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
