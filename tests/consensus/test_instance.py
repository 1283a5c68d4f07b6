"""The rules of one height, one by one, on one replica fed by hand (validator 0 of 4; view v of height 1 is led by validator 1 + v)."""

from __future__ import annotations

import pytest

from medchain.chain.vote import COMMIT, PREPARE, ViewChange
from medchain.consensus.events import (
    BlockHeld,
    Broadcast,
    BuildProposal,
    CertificateLearned,
    CheckProposal,
    Decided,
    FetchBlock,
    HandOver,
    OwnPreparedProof,
    OwnViewChange,
    OwnVote,
    Persist,
    PinnedProposal,
    PrePrepareReceived,
    ProposalBuilt,
    SituationChanged,
    VotingAllowed,
)
from medchain.consensus.messages import PrePrepare
from medchain.consensus.phases import Phase
from medchain.errors import InvariantBroken
from tests.consensus.conftest import (
    BUSY,
    GENESIS_TIME_MS,
    KEYS,
    Bench,
    certificate_of,
    make_proposal,
    of,
    proof_of,
    sent,
    validators_of,
    view_change,
    vote,
)

V4 = validators_of(4)
BLOCK = make_proposal(V4)
OTHER = make_proposal(V4, salt=b"other")
DIGEST = BLOCK.header.digest()
PROOF = proof_of(BLOCK, 0, (1, 2, 3))


def phase(bench):
    return bench.replica._instance.phase


def prepared(bench=None):
    bench = bench or Bench()
    bench.accept(BLOCK)
    bench.votes(PREPARE, BLOCK, (2, 3))
    return bench


def kinds(outputs):
    return [type(output.record if isinstance(output, Persist) else output) for output in outputs]


# ---- the normal case --------------------------------------------------------------------------------------------------------------


def test_primary_asks_for_a_block_once_and_proposes_it_durably():
    bench = Bench(me=1)
    assert bench.outputs == [BuildProposal(1, 0, is_urgent=False)]
    assert bench.wait(10) == []
    outputs = bench.feed(ProposalBuilt(0, BLOCK))
    assert kinds(outputs) == [PinnedProposal, OwnVote, Broadcast]
    assert sent(outputs, PrePrepare)[0].proposal == BLOCK
    assert bench.feed(ProposalBuilt(0, OTHER)) == []


def test_block_built_for_another_height_or_view_is_dropped():
    bench = Bench(me=1)
    assert bench.feed(ProposalBuilt(1, BLOCK), ProposalBuilt(0, make_proposal(V4, height=5))) == []


def test_block_built_here_that_breaks_our_own_rules_is_our_bug():
    bench = Bench(me=1)
    with pytest.raises(InvariantBroken):
        bench.feed(ProposalBuilt(0, make_proposal(V4, parent=bytes(32))))


def test_backup_prepares_only_after_the_block_was_executed():
    bench = Bench()
    assert bench.propose(BLOCK) == [CheckProposal(BLOCK, KEYS[1].public)]
    assert phase(bench) is Phase.CHECKING
    outputs = bench.check(BLOCK)
    assert kinds(outputs) == [PinnedProposal, OwnVote, Broadcast]
    assert sent(outputs, PREPARE)[0].digest == DIGEST


def test_backup_does_not_prepare_a_block_that_gives_other_roots():
    bench = Bench()
    bench.propose(BLOCK)
    assert bench.check(BLOCK, is_valid=False) == []
    assert phase(bench) is Phase.REFUSED


def test_backup_refuses_second_preprepare_for_same_view_and_height():
    bench = Bench()
    bench.accept(BLOCK)
    outputs = bench.propose(OTHER)
    assert of(outputs, CheckProposal) == []
    assert sent(bench.check(OTHER), PREPARE) == []


def test_pre_prepare_by_another_than_the_primary_is_not_accepted():
    bench = Bench()
    assert bench.feed(PrePrepareReceived(PrePrepare(BLOCK, vote(2, PREPARE, BLOCK)))) == []
    assert phase(bench) is Phase.AWAITING


@pytest.mark.parametrize("offset_ms", [-5_001, 5_001])
def test_fresh_block_outside_the_clock_bound_is_not_accepted_but_starts_the_timer(offset_ms):
    bench = Bench()
    late = make_proposal(V4, time_ms=max(GENESIS_TIME_MS + 1, GENESIS_TIME_MS + 1_000 + offset_ms))
    if offset_ms < 0:
        bench.wait(6_000)
    assert bench.propose(late) == []
    assert bench.replica.explain()["timer_runs_because"] == ["a proposal is held"]


def test_block_refused_for_its_time_is_accepted_when_it_comes_again_in_time():
    bench = Bench()
    early = make_proposal(V4, time_ms=GENESIS_TIME_MS + 1_000 + 5_300)
    assert bench.propose(early) == []
    bench.wait(400)
    assert of(bench.propose(early), CheckProposal) != []


def test_prepared_means_q_prepares_and_the_proof_is_durable_before_the_commit():
    bench = Bench()
    bench.accept(BLOCK)
    assert bench.votes(PREPARE, BLOCK, (2,)) == [] or sent(bench.outputs, COMMIT)
    outputs = bench.outputs
    assert kinds(outputs)[-3:] == [OwnPreparedProof, OwnVote, Broadcast]
    proof = next(o.record.proof for o in outputs if isinstance(o, Persist) and isinstance(o.record, OwnPreparedProof))
    assert [index for index, _ in proof.prepares] == [0, 1, 2]


def test_q_prepares_without_the_checked_block_are_not_prepared():
    bench = Bench()
    bench.votes(PREPARE, BLOCK, (1, 2, 3))
    assert sent(bench.outputs, COMMIT) == []
    bench.propose(BLOCK)
    assert sent(bench.outputs, COMMIT) == []
    bench.check(BLOCK)
    assert [vote.digest for vote in sent(bench.outputs, COMMIT)] == [DIGEST]


def test_q_commits_decide_with_exactly_the_lowest_q_signatures():
    bench = prepared()
    (decided,) = of(bench.votes(COMMIT, BLOCK, (3, 2)), Decided)
    assert [index for index, _ in decided.certificate.commits] == [0, 2, 3]
    assert bench.replica.decided == decided.certificate


def test_q_commits_decide_even_without_the_block():
    bench = Bench()
    (decided,) = of(bench.votes(COMMIT, BLOCK, (1, 2, 3)), Decided)
    assert decided.certificate.digest == DIGEST
    assert sent(bench.outputs, COMMIT) == []


def test_commits_of_an_earlier_view_still_decide():
    bench = Bench()
    bench.change_views(2, (1, 2))
    assert bench.replica.view == 2
    assert of(bench.votes(COMMIT, BLOCK, (1, 2, 3)), Decided) != []


def test_certificate_of_any_view_is_accepted():
    bench = Bench()
    certificate = certificate_of(BLOCK, 7, (1, 2, 3))
    assert bench.feed(CertificateLearned(certificate)) == [Decided(certificate)]
    assert bench.feed(CertificateLearned(certificate)) == []


def test_slow_validator_signs_a_late_commit_with_the_certificate():
    bench = Bench()
    bench.accept(BLOCK)
    certificate = certificate_of(BLOCK, 0, (1, 2, 3))
    outputs = bench.feed(CertificateLearned(certificate))
    assert kinds(outputs) == [OwnVote, Broadcast, Decided]
    assert sent(outputs, COMMIT)[0].view == 0


def test_late_commit_is_not_signed_below_an_own_view_change():
    bench = Bench()
    bench.accept(BLOCK)
    bench.change_views(1, (2, 3), proof_of(BLOCK, 0, (1, 2, 3)))
    assert sent(bench.outputs, ViewChange)[-1].view == 1
    assert kinds(bench.feed(CertificateLearned(certificate_of(BLOCK, 0, (1, 2, 3))))) == [Decided]


def test_late_commit_needs_the_checked_block_so_that_the_decision_is_durable_with_it():
    assert kinds(Bench().feed(CertificateLearned(certificate_of(BLOCK, 0, (1, 2, 3))))) == [Decided]


# ---- view changes -----------------------------------------------------------------------------------------------------------------


def test_view_change_shows_the_prepared_block_and_is_durable_before_it_is_sent():
    bench = prepared()
    outputs = bench.wait(1_000) + bench.wait(1_000)
    assert bench.replica.view == 1
    (change,) = [m for m in sent(outputs, ViewChange) if m.view == 1][:1]
    assert (change.prepared_view, change.digest) == (0, DIGEST)
    assert kinds(outputs).index(OwnViewChange) < kinds(outputs).index(Broadcast)


def test_nothing_is_signed_in_a_view_that_was_left():
    bench = Bench()
    bench.propose(BLOCK)
    bench.change_views(1, (2, 3))
    bench.check(BLOCK)
    bench.votes(PREPARE, BLOCK, (2, 3))
    assert sent(bench.outputs, PREPARE) == sent(bench.outputs, COMMIT) == []


def test_node_follows_f_plus_one_and_not_fewer():
    bench = Bench()
    bench.change_views(5, (1,))
    assert bench.replica.view == 0
    bench.change_views(3, (2,))
    assert bench.replica.view == 3
    assert [change.view for change in sent(bench.outputs, ViewChange)] == [3]


def test_new_primary_proposes_afresh_at_once_when_nobody_prepared():
    bench = Bench(me=2)
    outputs = bench.change_views(1, (0, 1))
    assert of(outputs, BuildProposal) == [BuildProposal(1, 1, is_urgent=True)]
    fresh = make_proposal(V4, view=1)
    (message,) = sent(bench.feed(ProposalBuilt(1, fresh)), PrePrepare)
    assert [change.signer for change in message.view_changes] == list(V4.keys[:3])
    assert all(change.view == 1 for change in message.view_changes)


def test_new_primary_keeps_its_q_view_changes_while_the_block_is_built():
    bench = Bench(me=2)
    bench.change_views(1, (0, 1))
    bench.change_views(2, (0,))
    (message,) = sent(bench.feed(ProposalBuilt(1, make_proposal(V4, view=1))), PrePrepare)
    assert all(change.view == 1 for change in message.view_changes)


def test_new_primary_proposes_the_highest_prepared_block_byte_for_byte():
    bench = prepared(Bench(me=2))
    outputs = bench.change_views(1, (0, 1))
    (message,) = sent(outputs, PrePrepare)
    assert message.proposal == BLOCK
    assert message.view == 1
    assert [change.proof is not None for change in message.view_changes] == [False, False, True]


def test_new_primary_fetches_and_executes_a_block_it_lacks_before_it_proposes_it():
    bench = Bench(me=2)
    outputs = bench.change_views(1, (1, 3), PROOF)
    assert of(outputs, FetchBlock) == [FetchBlock(1, DIGEST)]
    assert sent(outputs, PrePrepare) == []
    assert of(bench.feed(BlockHeld(BLOCK)), CheckProposal) == [CheckProposal(BLOCK, KEYS[1].public)]
    (message,) = sent(bench.check(BLOCK), PrePrepare)
    assert message.digest == DIGEST


def test_block_that_nobody_asked_for_is_not_kept():
    bench = Bench(me=2)
    bench.feed(BlockHeld(BLOCK))
    assert of(bench.change_views(1, (1, 3), PROOF), FetchBlock) != []


def test_liars_genuine_proof_of_an_unobtainable_block_does_not_wedge_the_new_primary():
    bench = Bench(me=2)
    bench.change_views(1, (3,), PROOF)
    outputs = bench.change_views(1, (1,))
    assert (of(outputs, FetchBlock), of(outputs, BuildProposal)) == ([FetchBlock(1, DIGEST)], [])
    assert of(bench.change_views(1, (0,)), BuildProposal) == [BuildProposal(1, 1, is_urgent=True)]


def test_backup_enters_a_view_by_its_justified_pre_prepare_alone():
    bench = Bench()
    changes = (view_change(1, 1), view_change(2, 1), view_change(3, 1))
    fresh = make_proposal(V4, view=1)
    outputs = bench.accept(fresh, 1, changes)
    assert bench.replica.view == 1
    assert [change.view for change in sent(outputs, ViewChange)] == [1]
    assert [vote.view for vote in sent(outputs, PREPARE)] == [1]


def test_unjustified_pre_prepare_of_a_later_view_moves_nobody():
    bench = Bench()
    assert bench.accept(make_proposal(V4, view=1), 1, (view_change(1, 1), view_change(2, 1))) == []
    assert bench.replica.view == 0


def test_reproposal_is_prepared_again_in_its_new_view_long_after_its_time():
    bench = prepared()
    bench.wait(1_000_000)
    changes = (view_change(1, 1, PROOF), view_change(2, 1), view_change(3, 1))
    outputs = bench.propose(BLOCK, 1, changes)
    assert [vote.view for vote in sent(outputs, PREPARE)] == [1]


def test_view_change_for_a_later_view_than_the_primarys_helps_it_no_more():
    bench = Bench(me=2)
    bench.change_views(1, (0,))
    bench.change_views(2, (0,))
    assert of(bench.change_views(1, (1,)), BuildProposal) == []
    assert bench.replica.view == 1


# ---- timers -----------------------------------------------------------------------------------------------------------------------


def situation(known=False, waiting=False, connected=True, heartbeat=False):
    return SituationChanged(known, waiting, connected, heartbeat)


def test_idle_network_changes_no_view():
    bench = Bench()
    assert [bench.wait(1_000) for _ in range(100)] == [[]] * 100
    assert bench.replica.view == 0


@pytest.mark.parametrize("reason", ["proposal", "view change", "heartbeat", "disconnected"])
def test_timer_of_view_zero_ends_in_a_view_change(reason):
    bench = Bench()
    if reason == "proposal":
        bench.propose(BLOCK)
    if reason == "view change":
        bench.change_views(1, (3,))
    if reason == "heartbeat":
        bench.feed(situation(heartbeat=True))
    if reason == "disconnected":
        bench.feed(situation(waiting=True, connected=False))
    assert bench.wait(999) == []
    assert sent(bench.wait(1), ViewChange)[0].view == 1


def test_transactions_are_handed_to_a_connected_primary_before_it_is_replaced():
    bench = Bench()
    bench.feed(BUSY)
    assert bench.wait(1_000) == [HandOver()]
    assert bench.wait(999) == []
    assert sent(bench.wait(1), ViewChange)[0].view == 1


def test_primary_that_does_not_propose_replaces_itself():
    bench = Bench(me=1)
    bench.feed(BUSY)
    assert sent(bench.wait(1_000), ViewChange)[0].view == 1


def test_timer_stops_when_its_reason_goes_and_starts_anew():
    bench = Bench()
    bench.feed(situation(heartbeat=True))
    bench.wait(900)
    bench.feed(situation())
    bench.feed(situation(heartbeat=True))
    assert bench.wait(900) == []
    assert sent(bench.wait(100), ViewChange) != []


def test_timer_of_a_later_view_runs_only_once_q_support_it():
    bench = Bench()
    bench.change_views(1, (2,))
    bench.wait(1_000)
    assert bench.replica.view == 1
    for _ in range(50):
        bench.wait(1_000)
    assert bench.replica.view == 1, "two of four support view 1: waiting for the third"
    bench.change_views(4, (3,))
    bench.wait(1_499)
    assert bench.replica.view == 1
    bench.wait(1)
    assert bench.replica.view == 2


def test_views_two_one_zero_and_a_lost_message_wedge_nobody():
    """lessons.md: nobody may follow, no timer runs, if only view changes for exactly a view counted."""
    bench = Bench()
    bench.change_views(2, (1,))
    bench.change_views(1, (2,))
    assert bench.replica.view == 1
    bench.wait(1_500)
    assert bench.replica.view == 2


# ---- voting not allowed -----------------------------------------------------------------------------------------------------------


def test_node_that_may_not_vote_follows_and_decides_but_signs_nothing():
    bench = Bench(is_voting=False)
    bench.accept(BLOCK)
    bench.votes(PREPARE, BLOCK, (1, 2, 3))
    bench.change_views(1, (2, 3))
    bench.wait(60_000)
    assert bench.replica.view == 1
    outputs = bench.outputs + bench.votes(COMMIT, BLOCK, (1, 2, 3))
    assert of(outputs, Persist) == of(outputs, Broadcast) == []
    assert of(outputs, Decided) != []


def test_node_that_may_vote_again_catches_up_with_what_it_could_have_signed():
    bench = Bench(is_voting=False)
    bench.accept(BLOCK)
    bench.votes(PREPARE, BLOCK, (2, 3))
    outputs = bench.feed(VotingAllowed(True))
    assert len(sent(outputs, PREPARE)) == len(sent(outputs, COMMIT)) == 1


def test_node_that_may_vote_again_joins_the_view_it_followed():
    bench = Bench(is_voting=False)
    bench.accept(make_proposal(V4, view=1), 1, (view_change(1, 1), view_change(2, 1), view_change(3, 1)))
    outputs = bench.feed(VotingAllowed(True))
    assert [type(message).__name__ for message in (output.message for output in of(outputs, Broadcast))] == ["ViewChange", "Vote"]


def test_primary_that_may_not_vote_asks_for_no_block_and_asks_when_it_may():
    bench = Bench(me=1, is_voting=False)
    assert bench.outputs == []
    assert of(bench.feed(VotingAllowed(True)), BuildProposal) != []
    bench.feed(VotingAllowed(False))
    assert bench.feed(ProposalBuilt(0, BLOCK)) == []
    assert of(bench.feed(VotingAllowed(True)), BuildProposal) != []


def test_suspended_validator_signs_nothing():
    bench = Bench(n=5, suspended=(0,))
    validators = bench.validators
    block = make_proposal(validators)
    bench.accept(block)
    bench.change_views(1, (1, 2, 3))
    assert of(bench.outputs, Persist) == []


# ---- restart ----------------------------------------------------------------------------------------------------------------------


def restart(bench):
    return Bench(me=bench.me, hard_state=bench.records())


def test_restarted_backup_prepares_no_other_block_in_the_same_view():
    first = Bench()
    first.accept(BLOCK)
    again = restart(first)
    again.propose(OTHER)
    again.check(OTHER)
    assert sent(again.outputs, PREPARE) == []
    assert [vote.digest for vote in sent(again.wait(0), PREPARE)] == [DIGEST]


def test_restarted_backup_goes_on_where_it_was():
    first = Bench()
    first.accept(BLOCK)
    again = restart(first)
    outputs = again.votes(PREPARE, BLOCK, (1, 2))
    assert [vote.digest for vote in sent(outputs, COMMIT)] == [DIGEST]


def test_restarted_primary_of_view_zero_sends_the_same_pre_prepare():
    first = Bench(me=1)
    (message,) = sent(first.feed(ProposalBuilt(0, BLOCK)), PrePrepare)
    again = restart(first)
    assert sent(again.outputs, PrePrepare) == [message]
    assert of(again.outputs, BuildProposal) == []


def test_restarted_primary_of_a_later_view_proposes_the_same_block_or_stays_silent():
    first = Bench(me=2)
    first.change_views(1, (0, 1))
    fresh = make_proposal(V4, view=1)
    (message,) = sent(first.feed(ProposalBuilt(1, fresh)), PrePrepare)
    again = restart(first)
    assert of(again.outputs, Broadcast) == of(again.outputs, BuildProposal) == []
    assert of(again.change_views(1, (1, 3), PROOF), BuildProposal) == []
    again.feed(BlockHeld(BLOCK))
    again.check(BLOCK)
    assert sent(again.outputs, PrePrepare) == []
    assert sent(again.change_views(1, (0,)), PrePrepare) == []
    third = restart(first)
    assert sent(third.change_views(1, (0, 1)), PrePrepare) == [message]


def test_restarted_node_keeps_its_view_and_its_frozen_view_change():
    first = prepared()
    first.change_views(3, (1, 2))
    (change,) = sent(first.outputs, ViewChange)
    again = restart(first)
    assert again.replica.view == 3
    assert sent(again.wait(0), ViewChange) == [change]


def test_restarted_node_still_shows_what_it_prepared():
    again = restart(prepared())
    (change,) = sent(again.change_views(2, (1, 2)), ViewChange)
    assert (change.prepared_view, change.digest) == (0, DIGEST)


def test_node_with_a_late_commit_but_no_decision_denies_nothing_and_waits_for_the_certificate():
    late = vote(0, COMMIT, BLOCK)
    again = Bench(hard_state=(OwnVote(late),))
    fresh = make_proposal(V4, view=2)
    again.accept(fresh, 2, tuple(view_change(i, 2) for i in (1, 2, 3)))
    assert again.replica.view == 2
    assert of(again.outputs, Persist) == []
    assert sent(again.wait(250), COMMIT) == [late]
    assert of(again.feed(CertificateLearned(certificate_of(BLOCK, 0, (1, 2, 3)))), Decided) != []
