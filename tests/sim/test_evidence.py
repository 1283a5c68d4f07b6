"""Evidence in whole networks: liars end on the chain of every honest node, honest validators never do, and a looser rule is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from medchain.chain import evidence
from medchain.chain.vote import COMMIT, ViewChange, Vote
from medchain.consensus import evidence as reports
from medchain.engine.evidence import EvidencePool
from medchain.sim.checkers import progress
from medchain.sim.faults import draw_plan, quiet_plan
from medchain.sim.run import run_plan

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("kind, seeds", [("double voter", (1,)), ("two blocks", range(8)), ("twins", range(20))])
def test_liar_that_contradicts_itself_is_recorded_by_every_honest_node(kind: str, seeds: Sequence[int]) -> None:
    """That everybody recorded it is the judges' part; here, that there was something to record. Twins meet one witness rarely."""
    for seed in seeds:
        report = run_plan(quiet_plan(seed, liars=((seed % 4, kind),)), heights_min=5)
        assert not report.violations, report.violations[0]
        if "evidence recorded" in report.faults:
            return
    raise AssertionError(f"no node found anything to record in seeds {seeds}")


def test_evidence_survives_faults_of_every_kind() -> None:
    report = run_plan(replace(draw_plan(2, 4, has_liars=False), liars=((2, "double voter"),)))
    assert not report.violations, report.violations[0]
    assert report.faults["evidence recorded"] >= 1


def test_a_looser_rule_that_convicts_honest_validators_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """lessons.md: the evidence rule convicts an honest validator at a normal view change. Mutant: p <= c < w instead of p < c < w."""

    def is_loose(change: ViewChange, commit: Vote) -> bool:
        prepared = -1 if change.prepared_view is None else change.prepared_view
        same = commit.kind == COMMIT and (commit.signer, commit.height) == (change.signer, change.height)
        return same and prepared <= commit.view < change.view

    monkeypatch.setattr(evidence, "is_lie", is_loose)
    monkeypatch.setattr(reports, "is_lie", is_loose)
    for seed in range(40):
        findings = [violation.checker for violation in run_plan(draw_plan(seed, 4, has_liars=False)).violations]
        if findings:
            assert "evidence" in findings or "honesty" in findings
            return
    raise AssertionError("nothing was seen in 40 seeds")


def test_proposers_that_leave_evidence_out_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EvidencePool, "select", lambda self: ())
    monkeypatch.setattr(progress, "REST_MS", 2_000)
    report = run_plan(quiet_plan(1, liars=((1, "double voter"),)), heights_min=5)
    assert next(violation.checker for violation in report.violations) == "progress"
