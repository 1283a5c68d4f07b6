"""What outlives a height: time, resending, own votes that were never sent, heights, and the facts told to the engine."""

from __future__ import annotations

import pytest

from medchain.chain.vote import COMMIT, PREPARE, ViewChange, Vote
from medchain.consensus.events import (
    Broadcast,
    CertificateLearned,
    Decided,
    HeightStarted,
    Persist,
    PrePrepareReceived,
    ProposalBuilt,
    SawUnknownOwnVote,
    Ticked,
    ViewChangeReceived,
    VoteReceived,
    VotingAllowed,
)
from medchain.consensus.messages import PrePrepare
from medchain.consensus.replica import Replica
from medchain.errors import InvariantBroken
from tests.consensus.conftest import (
    GENESIS_DIGEST,
    GENESIS_TIME_MS,
    KEYS,
    NETWORK,
    Bench,
    Parameters,
    certificate_of,
    make_proposal,
    of,
    sent,
    validators_of,
    view_change,
    vote,
)

V4 = validators_of(4)
BLOCK = make_proposal(V4)
OTHER = make_proposal(V4, salt=b"other")
CERTIFICATE = certificate_of(BLOCK, 0, (1, 2, 3))


def test_replica_without_a_height_takes_anything_and_says_nothing():
    replica = Replica(NETWORK, KEYS[0])
    events = (VoteReceived(vote(1, PREPARE, BLOCK)), ViewChangeReceived(view_change(1, 1)), Ticked(5_000, 0), VotingAllowed(True))
    proposals = (ProposalBuilt(0, BLOCK), PrePrepareReceived(PrePrepare(BLOCK, vote(1, PREPARE, BLOCK))))
    for event in (*events, *proposals, CertificateLearned(CERTIFICATE)):
        assert replica.handle(event) == []
    assert (replica.height, replica.view, replica.decided, replica.primary_key(), replica.own_messages()) == (0, 0, None, b"", ())
    assert replica.explain()["height"] == 0
    assert not replica.is_voting()


def test_observer_follows_and_decides_without_a_key():
    replica = Replica(NETWORK, None)
    replica.handle(VotingAllowed(True))
    replica.handle(HeightStarted(1, V4, V4.voters, Parameters(), GENESIS_TIME_MS, GENESIS_DIGEST))
    outputs = [output for i in (1, 2, 3) for output in replica.handle(VoteReceived(vote(i, COMMIT, BLOCK)))]
    assert len(of(outputs, Decided)) == 1
    assert of(outputs, Persist) == of(outputs, Broadcast) == []


def test_height_that_does_not_ascend_is_our_bug():
    bench = Bench()
    with pytest.raises(InvariantBroken):
        bench.start(1)


def test_messages_of_other_heights_are_ignored():
    bench = Bench()
    for height in (7, 9):
        block = make_proposal(V4, height=height)
        bench.propose(block)
        bench.feed(CertificateLearned(certificate_of(block, 0, (1, 2, 3))))
        bench.votes(COMMIT, block, (1, 2, 3))
        bench.feed(*(ViewChangeReceived(view_change(i, 3, height=height)) for i in (1, 2, 3)))
    assert bench.outputs == []
    assert (bench.replica.view, bench.replica.decided) == (0, None)


def test_own_messages_of_the_undecided_height_are_sent_again_every_second():
    bench = Bench(parameters=Parameters(view_timeout_base_ms=9_000))
    bench.accept(BLOCK)
    assert bench.wait(999) == []
    (prepare,) = sent(bench.outputs, PREPARE)
    assert sent(bench.feed(Ticked(1_000, GENESIS_TIME_MS)), PREPARE) == [prepare]
    assert sent(bench.feed(Ticked(1_500, GENESIS_TIME_MS)), PREPARE) == []
    assert sent(bench.feed(Ticked(2_000, GENESIS_TIME_MS)), PREPARE) == [prepare]


def test_first_repetitions_come_before_the_shortest_timer_ends_so_that_a_lost_message_costs_no_view():
    bench = Bench(parameters=Parameters(view_timeout_base_ms=1_000))
    bench.accept(BLOCK)

    def repeated(until_ms: int) -> list[int]:
        return [bench.now_ms for _ in range(bench.now_ms + 50, until_ms + 1, 50) if sent(bench.wait(50), PREPARE)]

    assert repeated(950) == [250, 750]
    bench.feed(CertificateLearned(certificate_of(BLOCK, 0, (1, 2, 3))))
    assert repeated(4_000) == [1_750, 2_750, 3_750]
    bench.start(2, BLOCK.header.digest())
    bench.accept(make_proposal(V4, height=2, parent=BLOCK.header.digest(), time_ms=BLOCK.header.time_ms + 1))
    assert repeated(4_950) == [4_250, 4_750], "a new height begins again"


def test_repetitions_begin_again_in_each_view():
    bench = Bench(parameters=Parameters(view_timeout_base_ms=1_000))
    bench.wait(10_000)
    bench.change_views(1, (2, 3))
    assert [time for time in range(50, 1_000, 50) if sent(bench.wait(50), ViewChange)] == [250, 750]


def test_primary_sends_its_pre_prepare_again_and_not_its_bare_prepare():
    bench = Bench(me=1)
    bench.feed(ProposalBuilt(0, BLOCK))
    assert [type(message) for message in bench.replica.own_messages()] == [PrePrepare]


def test_votes_of_others_show_who_holds_a_proposal_that_did_not_come():
    bench = Bench()
    leader, (first, second) = bench.leader(0), [i for i in (1, 2, 3) if i != bench.leader(0)]
    assert bench.replica.proposal_holders() == ()
    bench.votes(PREPARE, BLOCK, (leader,))
    assert bench.replica.proposal_holders() == (), "the primary would have sent it"
    bench.votes(PREPARE, BLOCK, (first, second))
    assert bench.replica.proposal_holders() == (KEYS[first].public, KEYS[second].public)
    assert bench.replica.preparers_of(BLOCK.header.digest()) == tuple(KEYS[i].public for i in (1, 2, 3))
    assert bench.replica.proposal_of(1, 0) is None
    bench.propose(BLOCK)
    assert bench.replica.proposal_holders() == ()
    shown = bench.replica.proposal_of(1, 0)
    assert (shown.digest, shown.prepare.signer) == (BLOCK.header.digest(), KEYS[leader].public)
    assert (bench.replica.proposal_of(1, 1), bench.replica.proposal_of(2, 0)) == (None, None)
    bench.change_views(1, (first, second))
    assert (bench.replica.proposal_of(1, 0), bench.replica.proposal_of(1, 1)) == (None, None)


def test_a_decided_height_lacks_no_proposal():
    bench = Bench()
    bench.votes(PREPARE, BLOCK, (2, 3))
    bench.feed(CertificateLearned(certificate_of(BLOCK, 0, (1, 2, 3))))
    assert bench.replica.proposal_holders() == ()


def test_own_messages_are_the_newest_of_each_sort():
    bench = Bench()
    bench.accept(BLOCK)
    bench.votes(PREPARE, BLOCK, (2, 3))
    bench.change_views(1, (1, 2))
    bench.change_views(2, (1, 2))
    messages = bench.replica.own_messages()
    assert [type(message) for message in messages] == [ViewChange, Vote]
    assert (messages[0].view, messages[1].kind) == (2, COMMIT)


def test_votes_are_sent_again_until_the_next_height_starts():
    bench = Bench()
    bench.accept(BLOCK)
    bench.feed(CertificateLearned(CERTIFICATE))
    assert sent(bench.wait(1_000), COMMIT) != []
    bench.start(2, BLOCK.header.digest())
    assert sent(bench.wait(1_000), COMMIT) == []


# ---- amnesia ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        VoteReceived(vote(0, PREPARE, BLOCK)),
        VoteReceived(vote(0, COMMIT, make_proposal(V4, height=9))),
        ViewChangeReceived(view_change(0, 1)),
        PrePrepareReceived(PrePrepare(make_proposal(V4, view=3), vote(0, PREPARE, make_proposal(V4, view=3), 3))),
        PrePrepareReceived(PrePrepare(BLOCK, vote(1, PREPARE, BLOCK), (view_change(0, 1),))),
    ],
)
def test_own_vote_that_was_never_sent_stops_voting_with_an_alarm(event):
    bench = Bench()
    assert len(of(bench.feed(event), SawUnknownOwnVote)) == 1
    bench.accept(BLOCK)
    assert sent(bench.outputs, PREPARE) == []
    assert of(bench.feed(event), SawUnknownOwnVote) == []
    assert len(of(bench.feed(VotingAllowed(True)), SawUnknownOwnVote)) == 1
    assert not bench.replica.is_voting()


def test_echo_of_an_own_vote_is_no_alarm():
    bench = Bench()
    bench.accept(BLOCK)
    bench.change_views(1, (1, 2))
    own = (*sent(bench.outputs, PREPARE), *sent(bench.outputs, ViewChange))
    assert bench.feed(VoteReceived(own[0]), ViewChangeReceived(own[1].without_proof())) == []


def test_own_votes_of_decided_heights_are_ignored():
    bench = Bench()
    bench.feed(CertificateLearned(CERTIFICATE), VoteReceived(vote(0, PREPARE, OTHER)))
    bench.start(2, BLOCK.header.digest())
    bench.feed(VoteReceived(vote(0, PREPARE, OTHER)))
    assert of(bench.outputs, SawUnknownOwnVote) == []


def test_observer_mark_outlasts_old_own_votes_without_an_alarm():
    """A restored backup sees its forgotten votes while it only watches; once their height is past it votes."""
    bench = Bench(is_voting=False)
    bench.feed(VoteReceived(vote(0, PREPARE, BLOCK)), CertificateLearned(CERTIFICATE))
    bench.start(2, BLOCK.header.digest())
    assert of(bench.feed(VotingAllowed(True)), SawUnknownOwnVote) == []
    assert bench.replica.is_voting()


def test_votes_of_another_validator_are_told_for_its_amnesia_check():
    bench = Bench()
    bench.votes(PREPARE, BLOCK, (2,))
    bench.votes(COMMIT, BLOCK, (2,))
    bench.change_views(1, (2,))
    ahead = make_proposal(V4, height=2)
    bench.votes(PREPARE, ahead, (2,))
    votes, changes = bench.replica.messages_signed_by(KEYS[2].public)
    assert [(vote.kind, vote.height) for vote in votes] == [(PREPARE, 1), (COMMIT, 1), (PREPARE, 2)]
    assert changes == (view_change(2, 1),)


# ---- facts ------------------------------------------------------------------------------------------------------------------------


def test_explanation_says_what_is_missing():
    bench = Bench()
    bench.accept(BLOCK)
    told = bench.replica.explain()
    assert told["phase"] == "prepare sent, awaiting a quorum of prepares"
    assert told["prepared_by"] == [KEYS[0].public.hex(), KEYS[1].public.hex()]
    assert (told["height"], told["view"], told["quorum"], told["timer_left_ms"]) == (1, 0, 3, 1_000)
    assert (told["takes_turns"], told["left_out"]) == ([key.hex() for key in V4.keys], [])
    bench.feed(CertificateLearned(certificate_of(BLOCK, 0, (1, 2, 3))))
    bench.feed(HeightStarted(2, V4, V4.keys[:3], bench.parameters, BLOCK.header.time_ms, BLOCK.header.digest()))
    assert bench.replica.explain()["left_out"] == [V4.keys[3].hex()]


def test_sender_of_an_unjustified_pre_prepare_can_be_blamed():
    bench = Bench()
    assert "exactly 3" in bench.replica.why_unjustified(PrePrepare(BLOCK, vote(2, PREPARE, BLOCK, 1)))
    assert bench.replica.why_unjustified(PrePrepare(BLOCK, vote(1, PREPARE, BLOCK))) is None
    ahead = make_proposal(V4, height=5)
    assert bench.replica.why_unjustified(PrePrepare(ahead, vote(3, PREPARE, ahead))) is None
