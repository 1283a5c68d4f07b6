"""Evidence in whole networks: liars end on the chain of every honest node, honest validators never do, and a looser rule is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from medchain.chain import evidence
from medchain.chain.evidence import Contradiction
from medchain.chain.vote import COMMIT, ViewChange, Vote
from medchain.consensus import evidence as reports
from medchain.engine.evidence import EvidencePool
from medchain.engine.ready import Envelope, Event, Ready, Received
from medchain.sim.checkers import progress
from medchain.sim.faults import draw_plan, quiet_plan
from medchain.sim.liars.liar import Liar
from medchain.sim.node import EngineBuilder, EngineLike, Start
from medchain.sim.run import run_plan
from medchain.wire.peer import EvidenceSent

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


class Framer(Liar):
    """Sends evidence about everybody: genuine votes it heard beside ones it forged, again and again, and now and then about itself."""

    def __init__(self, start: Start, engine: EngineLike) -> None:
        super().__init__(start, engine)
        self._heard: list[Vote] = []

    def lie(self, events: Sequence[Event]) -> Ready:
        """Listen, accuse."""
        heard = [event.message for event in events if isinstance(event, Received) and isinstance(event.message, Vote)]
        self._heard = [*self._heard, *heard][-50:]
        ready = self.engine.handle_all(events)
        return replace(ready, send=(*ready.send, *[self._accuse(vote) for vote in heard[:2]]))

    def _accuse(self, vote: Vote) -> Envelope:
        old = self.dice.choice(self._heard)
        if self.dice.randrange(10) == 0:
            both = [self.vote(vote.kind, vote.height, vote.view, digest) for digest in (vote.digest, self.other_digest(vote.digest))]
            return Envelope(None, EvidenceSent((Contradiction.of(*both),)))
        forged = replace(self.vote(old.kind, old.height, old.view, self.other_digest(old.digest)), signer=old.signer)
        return Envelope(self.dice.choice((None, *self.peers)), EvidenceSent((Contradiction.of(old, forged),)))


def test_a_liar_that_frames_others_convicts_only_itself() -> None:
    """And floods of forgeries stop nobody: the liar is accused, nobody else is, and what it says about itself is recorded."""

    def wrap(builder: EngineBuilder) -> EngineBuilder:
        return lambda start: Framer(start, builder(start)) if start.node == 1 else builder(start)

    report = run_plan(quiet_plan(1), wrap=wrap, faulty=frozenset({1}))
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
