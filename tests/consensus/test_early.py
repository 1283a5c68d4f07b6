"""Messages of the next height that come before this one is decided here."""

from __future__ import annotations

from medchain.chain.vote import COMMIT, PREPARE
from medchain.consensus.early import EarlyMessages
from medchain.consensus.events import CertificateLearned, CheckProposal, Decided
from tests.consensus.conftest import KEYS, Bench, certificate_of, make_proposal, of, validators_of, vote

V4 = validators_of(4)
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
    assert early.take(2) == (None, (vote(1, PREPARE, SECOND),))
    assert early.take(2) == (None, ())


def test_messages_of_a_height_that_was_skipped_are_forgotten():
    early = EarlyMessages()
    early.expect(2)
    early.add_vote(vote(1, PREPARE, SECOND), V4)
    assert early.take(3) == (None, ())
    early.expect(4)
    assert early.votes_of(KEYS[1].public) == ()
