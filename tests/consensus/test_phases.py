"""The table of legal moves."""

from __future__ import annotations

import itertools

from medchain.consensus.phases import Phase, is_legal_move


def test_decided_is_never_left_and_always_reachable():
    for phase in Phase:
        assert is_legal_move(phase, Phase.DECIDED, is_view_higher=False)
        assert is_legal_move(Phase.DECIDED, phase, is_view_higher=True) == (phase is Phase.DECIDED)


def test_within_a_view_no_move_leads_back():
    for old, new in itertools.permutations(Phase, 2):
        both = is_legal_move(old, new, is_view_higher=False) and is_legal_move(new, old, is_view_higher=False)
        assert not both, (old, new)


def test_commit_is_never_taken_back_in_its_view():
    assert [new for new in Phase if is_legal_move(Phase.COMMITTING, new, is_view_higher=False)] == [Phase.COMMITTING, Phase.DECIDED]


def test_higher_view_begins_anywhere():
    assert all(is_legal_move(Phase.COMMITTING, new, is_view_higher=True) for new in Phase)
