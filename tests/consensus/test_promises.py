"""The one place that signs."""

from __future__ import annotations

import pytest

from medchain.chain.vote import COMMIT, PREPARE
from medchain.consensus.events import OwnPreparedProof, OwnViewChange, OwnVote, PinnedProposal
from medchain.consensus.promises import Promises
from medchain.crypto.signing import verify_many
from medchain.errors import InvariantBroken
from tests.consensus.conftest import KEYS, NETWORK, make_proposal, proof_of, validators_of, view_change, vote

V4 = validators_of(4)
BLOCK = make_proposal(V4)
DIGEST = BLOCK.header.digest()
OTHER = make_proposal(V4, salt=b"other")


def promises(*records):
    return Promises(NETWORK, KEYS[0], 1, records)


def state(made):
    return made.votes(), made.view_changes(), made.pinned_proposals(), made.proof


def test_prepare_is_signed_after_proposal_and_vote_are_durable():
    made, records = promises().prepare(0, DIGEST, BLOCK)
    assert [record.record for record in records] == [PinnedProposal(BLOCK, 0), OwnVote(made)]
    assert verify_many([made.verification(NETWORK)]) == [True]


def test_commit_is_signed_after_its_prepared_proof_is_durable():
    own = promises()
    own.prepare(0, DIGEST, BLOCK)
    proof = proof_of(BLOCK, 0, (0, 1, 2))
    made, records = own.commit(proof, BLOCK)
    assert [record.record for record in records] == [OwnPreparedProof(proof), OwnVote(made)]
    assert own.proof == proof


def test_commit_of_a_block_not_prepared_here_pins_it_first():
    _, records = promises().commit(proof_of(BLOCK, 0, (1, 2, 3)), BLOCK)
    assert records[0].record == PinnedProposal(BLOCK, 0)


def test_view_change_shows_the_prepared_proof_and_is_durable():
    own = promises()
    proof = proof_of(BLOCK, 0, (0, 1, 2))
    own.commit(proof, BLOCK)
    change, records = own.change_view(2)
    assert (change.prepared_view, change.digest, change.proof) == (0, DIGEST, proof)
    assert [record.record for record in records] == [OwnViewChange(change)]


@pytest.mark.parametrize("view", [0, 1])
def test_nothing_is_signed_twice_or_below_an_own_view_change(view):
    own = promises()
    own.prepare(0, DIGEST, BLOCK)
    if view:
        own.change_view(2)
    before = state(own)
    with pytest.raises(InvariantBroken):
        own.prepare(view, OTHER.header.digest(), OTHER)
    assert state(own)[0] == before[0]
    with pytest.raises(InvariantBroken):
        own.change_view(view)
    assert state(own)[1] == before[1]


def test_commit_below_an_own_view_change_is_refused():
    own = promises(OwnViewChange(view_change(0, 3)))
    with pytest.raises(InvariantBroken):
        own.commit_late(2, DIGEST)
    assert own.votes() == ()


def test_commit_after_a_higher_prepared_proof_is_refused():
    own = promises(OwnPreparedProof(proof_of(BLOCK, 2, (0, 1, 2))))
    with pytest.raises(InvariantBroken):
        own.commit(proof_of(OTHER, 1, (0, 1, 2)), OTHER)
    assert own.proof.view == 2


def test_restart_restores_every_promise():
    own = promises()
    records = own.prepare(0, DIGEST, BLOCK)[1] + own.commit(proof_of(BLOCK, 0, (0, 1, 2)), BLOCK)[1] + own.change_view(1)[1]
    again = promises(*(record.record for record in records))
    assert state(again) == state(own)
    assert (again.joined_view, again.highest_view) == (1, 1)
    assert all(again.knows(message) for message in (*own.votes(), *own.view_changes()))


def test_votes_of_a_replaced_key_bind_nobody():
    again = promises(OwnVote(vote(3, PREPARE, BLOCK)), OwnViewChange(view_change(3, 1)), PinnedProposal(BLOCK, 0))
    assert (again.votes(), again.view_changes()) == ((), ())
    assert again.pinned(DIGEST) == BLOCK


def test_late_commit_forbids_view_changes_that_would_deny_it():
    own = promises(OwnVote(vote(0, COMMIT, BLOCK)))
    assert own.is_bound_to_certificate
    with pytest.raises(InvariantBroken):
        own.change_view(1)
    assert own.view_changes() == ()


def test_foreign_content_under_the_own_key_is_not_known():
    own = promises()
    own.prepare(0, DIGEST, BLOCK)
    assert not own.knows(vote(0, PREPARE, OTHER))
    assert not own.knows(vote(0, COMMIT, BLOCK))
    assert not own.knows(vote(0, PREPARE, make_proposal(V4, height=2)))
    assert not own.knows(view_change(0, 1))


def test_observer_signs_nothing():
    with pytest.raises(InvariantBroken):
        Promises(NETWORK, None, 1).prepare(0, DIGEST, BLOCK)
