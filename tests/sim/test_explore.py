"""The explorer: every short history of agreement keeps every promise, every state recovers, and dropped rules are found out."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import pytest

import medchain.chain.validators
import medchain.consensus.instance
import medchain.consensus.justification
import medchain.consensus.replica
from medchain.chain.vote import PREPARE
from medchain.consensus.events import HardState, OwnPreparedProof, OwnVote, PrePrepareReceived, Ticked, VoteReceived
from medchain.consensus.messages import PrePrepare
from medchain.consensus.promises import Promises
from medchain.consensus.proposals import Proposals
from medchain.sim.explore.automaton import Standing, forget, height_started, start_replica
from medchain.sim.explore.copying import copy_of, fingerprint
from medchain.sim.explore.menu import ADOPT, BUILD, EXPIRE, FAR_VIEW, RESTART
from medchain.sim.explore.recovery import Recovery
from medchain.sim.explore.search import Search
from medchain.sim.explore.story import describe_result
from medchain.sim.explore.universe import WALL_MS, Bounds, SaidViewChange, SaidVote, Universe

pytestmark = pytest.mark.sim


def explore(views: int = 1, liars: tuple[int, ...] = (0,), is_kept: Callable[[HardState], bool] = lambda record: True) -> Search:
    search = Search(Bounds(views, 4, liars), is_kept=is_kept)
    for _ in search.run():
        pass
    return search


@functools.cache
def sound(liars: tuple[int, ...]) -> Search:
    """The search of our own rules as they are, shared by the tests that ask it things."""
    return explore(1, liars)


def found(search: Search) -> str:
    """What was broken, with the story for whoever reads a failing test."""
    lines = "\n".join(describe_result(search.universe, search.result))
    assert search.result.violation is not None, lines
    assert search.result.violation.story, lines
    return search.result.violation.message


def recoveries(search: Search, count: int) -> list[Any]:
    step = max(1, search.result.states // count)
    states = [state for place, state in enumerate(search.states()) if place % step == 0]
    return [(state, Recovery(search.universe, search.retrace(state)).run()) for state in states]


# ---- what holds ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("liars", "decided"),
    [
        ((), {"A0 in view 0", "A0 in view 1", "A1 in view 1"}),
        ((0,), {"A0 in view 0", "A0 in view 1", "B0 in view 0", "B0 in view 1", "A1 in view 1"}),
        ((1,), {"A0 in view 0", "A0 in view 1", "A1 in view 1", "B1 in view 1"}),
        ((2,), {"A0 in view 0", "A0 in view 1", "A1 in view 1"}),
    ],
)
def test_every_history_of_two_views_keeps_every_promise_and_every_state_recovers(liars: tuple[int, ...], decided: set[str]) -> None:
    search = sound(liars)
    result = search.result
    assert result.violation is None, "\n".join(describe_result(search.universe, result))
    assert result.is_complete and result.states > 10_000
    assert set(result.decisions) == decided, "each of these is decided in some history, and never two of them in one"
    for state, outcome in recoveries(search, 150):
        assert outcome.is_decided and not outcome.has_disagreement, search.story(state)
        assert outcome.duration_ms <= 10_000 and outcome.view <= 3


@pytest.mark.long
@pytest.mark.parametrize("liar", range(4))
def test_every_history_of_three_views_keeps_every_promise_and_every_state_recovers(liar: int) -> None:
    search = Search(Bounds(2, 4, (liar,)), states_max=30_000_000)
    for _ in search.run():
        pass
    assert search.result.violation is None, "\n".join(describe_result(search.universe, search.result))
    assert search.result.is_complete
    for state, outcome in recoveries(search, 5_000):
        assert outcome.is_decided and not outcome.has_disagreement, search.story(state)


def test_two_liars_of_four_break_agreement_and_are_seen() -> None:
    assert "certified at one height" in found(explore(1, (0, 1)))


def test_two_liars_that_lead_neither_view_break_agreement_and_are_seen() -> None:
    """They vote in both camps of a view change: one node commits A0, the others are told that nothing was prepared."""
    search = explore(1, (2, 3))
    assert "A0 (view 0) and A1 (view 1)" in found(search)


# ---- rules of our own, dropped one at a time ----------------------------------------------------------------------------------------


def test_quorum_one_too_small_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medchain.chain.validators, "quorum", lambda n: n // 2)
    assert "two blocks are" in found(explore())


def test_pre_prepare_without_view_changes_let_through_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = medchain.consensus.justification.why_unjustified

    def trusting(message: PrePrepare, *rest: Any, **named: Any) -> str | None:
        return None if message.view > 0 and not message.view_changes else honest(message, *rest, **named)

    for module in (medchain.consensus.instance, medchain.consensus.replica):
        monkeypatch.setattr(module, "why_unjustified", trusting)
    search = explore(1, (1,))
    assert "two blocks are certified" in found(search)


def test_re_proposal_of_another_block_than_the_highest_prepared_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medchain.consensus.justification, "_why_not_highest", lambda *arguments: None)
    assert "two blocks are certified" in found(explore(1, (1,)))


def test_view_change_that_hides_what_was_prepared_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Promises.change_view

    def forgetful(self: Promises, view: int) -> Any:
        proof, self.proof = self.proof, None
        try:
            return honest(self, view)
        finally:
            self.proof = proof

    monkeypatch.setattr(Promises, "change_view", forgetful)
    monkeypatch.setattr(Promises, "is_bound_to_certificate", property(lambda self: False))
    assert "hides a commit" in found(explore())


def test_votes_that_are_not_durable_are_seen() -> None:
    message = found(explore(is_kept=lambda record: not isinstance(record, OwnVote)))
    assert "says two things" in message or "does not know" in message


def test_prepared_proof_that_is_not_durable_is_seen() -> None:
    """The node that restarts without it has committed and cannot show it: it may neither deny it nor leave the view."""
    search = explore(1, (2,), is_kept=lambda record: not isinstance(record, OwnPreparedProof))
    assert search.result.violation is None, "nothing wrong is said"
    stuck = [search.story(state) for state, outcome in recoveries(search, 200) if not outcome.is_decided]
    assert stuck and all(any(move == RESTART for _, move, _ in story) for story in stuck)


def test_voting_before_executing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Proposals, "is_valid", lambda self, digest: True if digest in self._known else None)
    assert "invalid block" in found(explore())


def test_second_vote_in_a_view_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Promises.vote_in
    monkeypatch.setattr(Promises, "vote_in", lambda self, kind, view: None if kind == PREPARE else honest(self, kind, view))
    assert "InvariantBroken" in found(explore())


# ---- the explorer itself ------------------------------------------------------------------------------------------------------------


def test_copy_is_equal_and_shares_nothing_that_changes() -> None:
    universe = Universe(Bounds(1, 4, (0,)))
    replica = start_replica(universe.keys[1])
    replica.handle(height_started(universe))
    before = fingerprint(replica)
    twin = copy_of(replica)
    assert fingerprint(twin) == before
    vote = universe.vote(SaidVote(0, PREPARE, 0, 0))
    twin.handle(PrePrepareReceived(PrePrepare(universe.blocks[0].proposal, vote)))
    twin.handle(Ticked(99, WALL_MS))
    assert fingerprint(twin) != before and fingerprint(replica) == before


def test_passing_time_makes_no_other_standing() -> None:
    """Else every moment would be a state of its own: a field that tells time belongs to those that are not compared."""
    universe = Universe(Bounds(1, 4, (0,)))
    replica = start_replica(universe.keys[1])
    replica.handle(height_started(universe))
    forget(replica)
    before = fingerprint(replica)
    for now_ms in (1, 300, 700, 999):
        replica.handle(Ticked(now_ms, WALL_MS + now_ms))
        forget(replica)
        assert fingerprint(replica) == before


class Walk:
    """One long random run without any of the explorer's reductions.

    Nodes remember all they heard, messages arrive one at a time, and what a node accepts of a liar first it keeps.
    """

    def __init__(self, search: Search, seed: int) -> None:
        self.search, self.universe = search, search.universe
        self.random = random.Random(f"walk {seed}")
        self.standings: dict[int, Standing] = {}
        for node in self.universe.honest:
            first = search.automaton.first(node)
            self.standings[node] = first

    def said(self) -> tuple[int, ...]:
        return tuple(self.standings[node].said for node in self.universe.honest)

    def step(self) -> bool:
        """Hand one thing to one node; return False when that led beyond the bound."""
        standing = self.standings[self.random.choice(self.universe.honest)]
        turn = self.search.automaton._turn(standing, self.events(standing))
        replica = turn.replica
        assert turn.problem is None, turn.problem
        after = Standing(-1, turn.node, replica, turn.records, turn.said, replica.view, turn.decided)
        self.standings[turn.node] = after
        return replica.view <= self.universe.bounds.views

    def events(self, standing: Standing) -> Any:
        menu, everything = self.search.menu, 0
        if standing.decided is not None:
            return menu.events(standing, ADOPT)
        for other in self.standings.values():
            everything |= other.said
        draw = self.random.random()
        if draw < 0.03:
            return menu.events(standing, EXPIRE)
        if draw < 0.05:
            return menu.events(standing, RESTART)
        if draw < 0.20:
            return menu.events(standing, BUILD) if self.universe.leader(standing.view) == standing.node else []
        if draw < 0.25:
            older = [("held", number) for number, block in enumerate(self.universe.blocks) if block.view < standing.view]
            return menu.events(standing, self.random.choice(older)) if older else []
        if draw < 0.45:
            envelopes = [move for move, masks in menu._pre_prepares(standing, everything) if any(m & ~everything == 0 for m in masks)]
            return menu.events(standing, self.random.choice(envelopes)) if envelopes else []
        if draw < 0.75:
            groups = [vote for group in menu._vote_groups(standing, everything) for vote in group]
            return [VoteReceived(self.universe.vote(self.random.choice(groups)))] if groups else []
        others = [node for node in range(self.universe.bounds.nodes) if node != standing.node]
        changes = [change for node in others for change in menu._view_changes_of(node, everything)]
        possible = [c for c in changes if c.view != FAR_VIEW and any(m & ~everything == 0 for m in menu._masks((c,)))]
        return menu.events(standing, ("view changes", (self.random.choice(possible),))) if possible else []


@pytest.mark.parametrize("liar", [0, 1, 2])
def test_no_run_without_the_reductions_leaves_what_was_explored(liar: int) -> None:
    """Forgetting, handing over in groups and merging alike states may add histories, and must not lose any."""
    search = sound((liar,))
    standings = search.automaton.standings
    explored = {tuple(standings[number].said for number in state) for state in search.states()}
    steps, commits = 0, 0
    for seed in range(150):
        walk = Walk(search, seed)
        for _ in range(120):
            if not walk.step():
                break
            steps += 1
            assert walk.said() in explored, [search.universe.describe(s) for mask in walk.said() for s in search.universe.statements(mask)]
        commits += any(isinstance(s, SaidVote) and s.kind != PREPARE for mask in walk.said() for s in search.universe.statements(mask))
    assert steps > 3_000 and commits > 10


def test_statements_are_told_in_words() -> None:
    universe = Universe(Bounds(1, 4, (0,)))
    assert universe.describe(SaidViewChange(1, 1)) == "view change(view 1, nothing prepared) of node 1"
    assert universe.describe(SaidVote(0, PREPARE, 0, 1)) == "prepare(view 0, B0) of liar 0"
