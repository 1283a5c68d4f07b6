"""The newest view change of each validator, their support, and the choice of q."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medchain.consensus.view_changes import Choice, ViewChanges, is_well_formed
from tests.consensus.conftest import KEYS, make_proposal, proof_of, validators_of, view_change

V4 = validators_of(4)
BLOCK = make_proposal(V4)
OTHER = make_proposal(V4, salt=b"other")
PROOF_0 = proof_of(BLOCK, 0, (0, 1, 2))
PROOF_1 = proof_of(OTHER, 1, (1, 2, 3))


def held(*changes):
    store = ViewChanges(V4)
    for change in changes:
        assert store.add(change) is None
    return store


def test_only_the_newest_view_change_of_a_validator_is_kept():
    store = held(view_change(0, 3), view_change(0, 5), view_change(0, 4))
    assert store.newest_of(KEYS[0].public).view == 5
    assert len(store) == 1


def test_view_change_for_w_supports_every_view_up_to_w():
    store = held(view_change(0, 2), view_change(1, 1))
    assert [store.support_of(view) for view in (1, 2, 3)] == [2, 1, 0]
    assert (store.supported_by(1), store.supported_by(2), store.supported_by(3)) == (2, 1, 0)


def test_one_huge_view_moves_nobody():
    store = held(view_change(0, 2**32), view_change(1, 1), view_change(2, 1))
    assert store.supported_by(2) == 1


def test_view_changes_of_strangers_and_suspended_validators_are_ignored():
    store = ViewChanges(validators_of(4, suspended=(1,)))
    store.add(view_change(1, 2))
    store.add(view_change(9, 2))
    assert len(store) == 0


def test_second_view_change_for_the_same_view_with_other_content_is_handed_back():
    first = view_change(0, 2)
    store = held(first)
    assert store.add(view_change(0, 2, PROOF_0)) == first
    assert store.newest_of(KEYS[0].public) == first


def test_proof_that_comes_later_completes_a_view_change():
    full = view_change(0, 2, PROOF_0)
    store = held(full.without_proof())
    assert store.choices(2) == ()
    assert store.add(full) is None
    assert store.newest_of(KEYS[0].public).proof == PROOF_0
    assert store.add(full.without_proof()) is None
    assert store.newest_of(KEYS[0].public).proof == PROOF_0


@pytest.mark.parametrize(
    "broken",
    [
        replace(view_change(0, 2), view=0),
        replace(view_change(0, 2), prepared_view=1),
        replace(view_change(0, 2), digest=bytes(32)),
        replace(view_change(0, 2, PROOF_0), view=1, prepared_view=1),
        replace(view_change(0, 2, PROOF_0), prepared_view=-1),
        replace(view_change(0, 2, PROOF_0), proof=PROOF_1),
        replace(view_change(0, 2, PROOF_0), proof=replace(PROOF_0, prepares=PROOF_0.prepares[:2])),
        replace(view_change(0, 2), proof=PROOF_0),
    ],
)
def test_view_change_whose_fields_contradict_each_other_is_ignored(broken):
    assert not is_well_formed(broken, 3)
    store = ViewChanges(V4)
    assert store.add(broken) is None
    assert len(store) == 0


def test_no_choice_before_q_view_changes_for_exactly_the_view():
    store = held(view_change(0, 2), view_change(1, 2), view_change(2, 3))
    assert store.choices(2) == ()
    assert [change.view for change in store.for_exactly(2)] == [2, 2]


def test_nobody_prepared_means_a_fresh_block_is_due():
    store = held(*(view_change(i, 2) for i in (3, 1, 0, 2)))
    (choice,) = store.choices(2)
    assert choice == Choice(None, tuple(view_change(i, 2) for i in (0, 1, 2)), None)


def test_highest_prepared_view_decides_and_alone_carries_its_proof():
    store = held(view_change(0, 2, PROOF_0), view_change(1, 2, PROOF_1), view_change(3, 2))
    (choice,) = store.choices(2)
    assert choice.digest == OTHER.header.digest()
    assert [change.proof for change in choice.view_changes] == [None, PROOF_1, None]
    assert choice.prover == KEYS[1].public


def test_lower_sets_are_offered_after_the_highest_so_that_one_proof_cannot_wedge():
    store = held(view_change(0, 2, PROOF_1), *(view_change(i, 2) for i in (1, 2, 3)))
    assert [choice.digest for choice in store.choices(2)] == [OTHER.header.digest(), None]


def test_claim_without_proof_never_decides_but_does_not_block_a_higher_one():
    lower = view_change(0, 2, PROOF_0).without_proof()
    store = held(lower, view_change(1, 2, PROOF_1), view_change(2, 2))
    assert [choice.digest for choice in store.choices(2)] == [OTHER.header.digest()]
    store = held(view_change(1, 2, PROOF_1).without_proof(), view_change(0, 2, PROOF_0), view_change(2, 2))
    assert store.choices(2) == ()


def test_contradicting_claim_of_the_same_prepared_view_is_left_out():
    false = replace(view_change(3, 2, PROOF_0), digest=OTHER.header.digest(), proof=None)
    store = held(view_change(0, 2, PROOF_0), false, view_change(2, 2))
    assert store.choices(2) == ()
