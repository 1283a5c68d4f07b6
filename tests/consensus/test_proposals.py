"""Blocks heard of at one height."""

from __future__ import annotations

from medchain.consensus.proposals import Proposals
from tests.consensus.conftest import make_proposal, validators_of

V4 = validators_of(4)
PINNED, OTHER = make_proposal(V4), make_proposal(V4, salt=b"other")
PIN, KEY = PINNED.header.digest(), OTHER.header.digest()


def test_pinned_proposal_is_known_and_valid_after_a_restart():
    proposals = Proposals((PINNED,))
    assert proposals.get(PIN) == PINNED
    assert proposals.is_valid(PIN)


def test_answer_about_an_unknown_block_is_forgotten():
    proposals = Proposals(())
    proposals.mark(KEY, True)
    proposals.add(KEY, OTHER)
    assert proposals.is_valid(KEY) is None


def test_first_answer_stays():
    proposals = Proposals(())
    proposals.add(KEY, OTHER)
    proposals.mark(KEY, False)
    proposals.mark(KEY, True)
    assert proposals.is_valid(KEY) is False


def test_questions_are_asked_once_a_view():
    proposals = Proposals(())
    assert [proposals.is_first_check(KEY), proposals.is_first_check(KEY)] == [True, False]
    assert [proposals.is_fetching(KEY), proposals.is_first_fetch(KEY), proposals.is_first_fetch(KEY)] == [False, True, False]
    proposals.keep_only(())
    assert proposals.is_first_check(KEY)
    assert proposals.is_first_fetch(KEY)


def test_end_of_a_view_keeps_the_pinned_alone():
    proposals = Proposals((PINNED,))
    proposals.add(KEY, OTHER)
    proposals.keep_only((PINNED,))
    assert proposals.get(PIN) == PINNED
    assert proposals.get(KEY) is None
