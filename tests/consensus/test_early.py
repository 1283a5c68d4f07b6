"""Messages of the next height that come before this one is decided here."""

from __future__ import annotations

from medchain.chain.vote import COMMIT, PREPARE
from medchain.consensus.early import EarlyMessages
from medchain.consensus.events import CertificateLearned, CheckProposal, Decided, HeightStarted, PrePrepareReceived
from medchain.consensus.messages import PrePrepare
from tests.consensus.conftest import GENESIS_TIME_MS, KEYS, Bench, certificate_of, make_proposal, of, validators_of, vote

V4, V7 = validators_of(4), validators_of(7)
FIRST = make_proposal(V4)
SECOND = make_proposal(V4, height=2, parent=FIRST.header.digest(), time_ms=FIRST.header.time_ms + 1)
THIRD = make_proposal(V4, height=3)


def test_next_height_goes_on_at_once_with_what_came_early():
    bench = Bench()
    assert bench.propose(SECOND) == []
    bench.votes(PREPARE, SECOND, (1, 3))
    bench.feed(CertificateLearned(certificate_of(FIRST, 0, (1, 2, 3))))
    outputs = bench.start(2, FIRST.header.digest())
    assert [output.proposal for output in of(outputs, CheckProposal)] == [SECOND]
    bench.check(SECOND)
    assert bench.replica._instance.phase.name == "COMMITTING"


def test_early_commits_decide_as_soon_as_the_height_begins():
    bench = Bench()
    bench.votes(COMMIT, SECOND, (1, 2, 3))
    bench.feed(CertificateLearned(certificate_of(FIRST, 0, (1, 2, 3))))
    assert [found.certificate.digest for found in of(bench.start(2, FIRST.header.digest()), Decided)] == [SECOND.header.digest()]


def test_messages_further_ahead_are_not_kept():
    bench = Bench()
    bench.votes(COMMIT, THIRD, (1, 2, 3))
    assert bench.replica.messages_signed_by(KEYS[1].public) == ((), ())


def test_one_vote_of_each_kind_per_validator_is_kept_and_the_lowest_view_wins():
    early = EarlyMessages()
    early.expect(2)
    for view in (5, 0, 9):
        early.add_vote(vote(1, PREPARE, SECOND, view), V4)
    early.add_vote(vote(8, PREPARE, SECOND), V4)
    assert early.votes_of(KEYS[1].public) == (vote(1, PREPARE, SECOND),)
    assert early.take(2) == ((), (vote(1, PREPARE, SECOND),))
    assert early.take(2) == ((), ())


def test_messages_of_a_height_that_was_skipped_are_forgotten():
    early = EarlyMessages()
    early.expect(2)
    early.add_vote(vote(1, PREPARE, SECOND), V4)
    assert early.take(3) == ((), ())
    early.expect(4)
    assert early.votes_of(KEYS[1].public) == ()


def test_likely_primary_keeps_its_place_whoever_else_proposes():
    early = EarlyMessages()
    early.expect(2)
    for signer in (0, 1, 3, 4, 5, 6, 2, 2):
        early.add_pre_prepare(PrePrepare(SECOND, vote(signer, PREPARE, SECOND)), V7, V7.voters)
    kept = [message.prepare.signer for message in early.take(2)[0]]
    assert kept == [KEYS[2].public, KEYS[0].public, KEYS[1].public, KEYS[3].public]


def test_pre_prepares_of_strangers_other_heights_or_later_views_are_not_kept():
    early = EarlyMessages()
    early.expect(2)
    for message in (
        PrePrepare(SECOND, vote(8, PREPARE, SECOND)),
        PrePrepare(THIRD, vote(3, PREPARE, THIRD)),
        PrePrepare(SECOND, vote(3, PREPARE, SECOND, 1)),
    ):
        early.add_pre_prepare(message, V4, V4.voters)
    assert early.take(2) == ((), ())


def test_proposal_of_a_primary_that_only_the_new_rotation_names_is_used_at_once():
    bench = Bench()
    rotation = (V4.keys[0], V4.keys[1], V4.keys[3])  # validator 2, the likely primary of height 2, was left out
    proposal = make_proposal(V4, height=2, parent=FIRST.header.digest(), time_ms=FIRST.header.time_ms + 1, proposer=V4.keys[3])
    assert bench.feed(PrePrepareReceived(PrePrepare(proposal, vote(3, PREPARE, proposal)))) == []
    bench.feed(CertificateLearned(certificate_of(FIRST, 0, (1, 2, 3))))
    outputs = bench.feed(HeightStarted(2, V4, rotation, bench.parameters, GENESIS_TIME_MS, FIRST.header.digest()))
    assert [output.proposal for output in of(outputs, CheckProposal)] == [proposal]
