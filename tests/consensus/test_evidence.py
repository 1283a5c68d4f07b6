"""Contradictions, each reported once, and honest behaviour that must never be convicted."""

from __future__ import annotations

import pytest

from medchain.chain.evidence import EQUIVOCATION, VIEW_CHANGE_LIE, is_lie
from medchain.chain.vote import COMMIT, PREPARE
from medchain.consensus.events import CertificateLearned, Decided, EvidenceFound, PrePrepareReceived, ViewChangeReceived, VoteReceived
from medchain.consensus.messages import PrePrepare
from tests.consensus.conftest import KEYS, Bench, certificate_of, make_proposal, of, proof_of, validators_of, view_change, vote

V4 = validators_of(4)
BLOCK = make_proposal(V4)
OTHER = make_proposal(V4, salt=b"other")


@pytest.mark.parametrize("kind", [PREPARE, COMMIT])
def test_two_votes_of_one_kind_and_view_are_evidence_once(kind):
    bench = Bench()
    first, second = vote(2, kind, BLOCK), vote(2, kind, OTHER)
    bench.feed(VoteReceived(first))
    assert of(bench.feed(VoteReceived(second)), EvidenceFound) == [EvidenceFound(KEYS[2].public, EQUIVOCATION, first, second)]
    assert of(bench.feed(VoteReceived(second)), EvidenceFound) == []


def test_primary_that_sends_two_pre_prepares_is_convicted_by_its_prepares():
    bench = Bench()
    bench.propose(BLOCK)
    (found,) = of(bench.propose(OTHER), EvidenceFound)
    assert found.offender == KEYS[1].public


def test_two_view_changes_for_one_view_with_other_content_are_evidence():
    bench = Bench()
    bench.change_views(1, (2,))
    (found,) = of(bench.change_views(1, (2,), proof_of(BLOCK, 0, (1, 2, 3))), EvidenceFound)
    assert (found.offender, found.kind) == (KEYS[2].public, EQUIVOCATION)


def test_view_change_that_hides_a_commit_is_evidence_whichever_comes_first():
    commit, lie = vote(2, COMMIT, BLOCK, view=0), view_change(2, 1)
    for events in ((VoteReceived(commit), ViewChangeReceived(lie)), (ViewChangeReceived(lie), VoteReceived(commit))):
        (found,) = of(Bench().feed(*events), EvidenceFound)
        assert (found.offender, found.kind) == (KEYS[2].public, VIEW_CHANGE_LIE)


def test_evidence_rule_convicts_no_honest_validator_at_a_normal_view_change():
    """lessons.md: only p < c < w is a lie; p = c is what an honest committer shows, c >= w a late commit after a certificate."""
    shown = view_change(2, 2, proof_of(BLOCK, 1, (1, 2, 3)))
    assert not is_lie(shown, vote(2, COMMIT, BLOCK, view=1))
    assert not is_lie(shown, vote(2, COMMIT, BLOCK, view=0))
    assert not is_lie(shown, vote(2, COMMIT, BLOCK, view=2))
    assert not is_lie(view_change(2, 2), vote(2, COMMIT, BLOCK, view=5))
    assert not is_lie(view_change(2, 2), vote(2, PREPARE, BLOCK, view=1))
    assert not is_lie(view_change(2, 2), vote(1, COMMIT, BLOCK, view=1))
    assert is_lie(view_change(2, 2), vote(2, COMMIT, BLOCK, view=1))
    assert is_lie(view_change(2, 3, proof_of(BLOCK, 0, (1, 2, 3))), vote(2, COMMIT, BLOCK, view=1))


def test_votes_of_strangers_are_no_evidence():
    bench = Bench()
    assert bench.votes(PREPARE, BLOCK, (7,)) + bench.votes(PREPARE, OTHER, (7,)) == []


def test_commit_in_a_certificate_convicts_who_told_this_node_another_one():
    """A liar may tell every node one vote only: the certificate brings the two together."""
    bench = Bench()
    bench.feed(VoteReceived(vote(2, COMMIT, OTHER)))
    outputs = bench.feed(CertificateLearned(certificate_of(BLOCK, 0, (0, 2, 3))))
    (found,) = of(outputs, EvidenceFound)
    assert (found.offender, found.kind, {found.first.digest, found.second.digest}) == (
        KEYS[2].public, EQUIVOCATION, {BLOCK.header.digest(), OTHER.header.digest()},
    )  # fmt: skip
    assert [decided.certificate.digest for decided in of(outputs, Decided)] == [BLOCK.header.digest()], "the decision stands all the same"


def test_commit_in_a_certificate_convicts_who_hid_it_in_a_view_change():
    bench = Bench()
    bench.feed(ViewChangeReceived(view_change(2, 2)))
    (found,) = of(bench.feed(CertificateLearned(certificate_of(BLOCK, 1, (0, 2, 3)))), EvidenceFound)
    assert (found.offender, found.kind) == (KEYS[2].public, VIEW_CHANGE_LIE)


def test_certificate_of_a_view_that_its_signers_entered_later_convicts_nobody():
    bench = Bench()
    bench.feed(*[ViewChangeReceived(view_change(signer, 1)) for signer in (1, 2, 3)])
    assert of(bench.feed(CertificateLearned(certificate_of(BLOCK, 1, (1, 2, 3)))), EvidenceFound) == []


def test_nothing_is_judged_after_the_decision():
    bench = Bench()
    bench.accept(BLOCK)
    bench.votes(PREPARE, BLOCK, (2, 3))
    bench.votes(COMMIT, BLOCK, (1, 2))
    assert bench.replica.decided.digest == certificate_of(BLOCK, 0, (0, 1, 2)).digest
    assert bench.feed(PrePrepareReceived(PrePrepare(OTHER, vote(1, PREPARE, OTHER)))) == []
