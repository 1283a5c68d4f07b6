"""One test per claim of the paper and of protocol.md, named by the claim; each docstring cites its section.

Castro & Liskov, "Practical Byzantine Fault Tolerance", OSDI 1999 (C&L below). Where the protocol departs from the paper (q for any n, one
instance a height, exactly q view changes in the pre-prepare), the docstring says so and DESIGN.md says why.
"""

from __future__ import annotations

import ast
import itertools
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain.chain.validators import faults_tolerated, quorum
from medchain.chain.vote import COMMIT, PREPARE, ViewChange, Vote
from medchain.consensus.events import BuildProposal, CertificateLearned, CheckProposal, Decided, HandOver, PrePrepareReceived, ProposalBuilt
from medchain.consensus.justification import why_unjustified
from medchain.consensus.messages import PrePrepare
from medchain.consensus.view_changes import ViewChanges
from tests.consensus import claims
from tests.consensus.conftest import (
    BUSY,
    KEYS,
    Bench,
    Net,
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
PROOF = proof_of(BLOCK, 0, (1, 2, 3))


FOLDERS = {"scenario": "consensus/scenarios", "engine scenario": "engine/scenarios"}


@cache
def names_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("claim", [*claims.PROTOCOL, *claims.SOURCES])
def test_every_claim_has_its_tests(claim):
    """The list of protocol.md, "Agreement", sentence by sentence, and of the sources stands in claims.py."""
    here = Path(__file__).parent
    held = (claims.PROTOCOL | claims.SOURCES)[claim]
    assert held
    for place, name in held:
        if place in FOLDERS:
            assert (here.parent / FOLDERS[place] / f"{name}.txt").is_file(), name
        else:
            assert name in names_in(here.parent / place), (place, name)


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_scenario_holds_a_claim(kind):
    held = {name for rows in (claims.PROTOCOL | claims.SOURCES).values() for place, name in rows if place == kind}
    assert held == {path.stem for path in (Path(__file__).parents[1] / FOLDERS[kind]).glob("*.txt")}


def test_quorum_and_faults_of_every_size():
    """protocol.md, "Numbers": f = floor((n-1)/3), q = floor((n+f)/2) + 1."""
    expected = {4: (1, 3), 5: (1, 4), 6: (1, 4), 7: (2, 5), 8: (2, 6), 9: (2, 6), 10: (3, 7), 11: (3, 8), 12: (3, 8), 13: (4, 9)}
    assert {n: (faults_tolerated(n), quorum(n)) for n in range(4, 14)} == expected


@pytest.mark.parametrize("n", range(4, 129))
def test_any_two_quorums_share_an_honest_validator(n):
    """C&L 4.2, 4.5.1, for any n: two quorums overlap in at least 2q - n > f validators. 2f+1 would not do at n = 5, 6, 8, 9."""
    assert 2 * quorum(n) - n > faults_tolerated(n)
    assert quorum(n) == -(-2 * n // 3), "IBFT 2.0 writes the same number as 2n/3, rounded up"


@pytest.mark.parametrize("n", range(4, 129))
def test_the_honest_alone_reach_a_quorum(n):
    """C&L 4.5.2: liveness needs n - f >= q."""
    assert n - faults_tolerated(n) >= quorum(n)


def test_pre_prepare_is_accepted_only_if_no_other_was_accepted_in_the_same_view():
    """C&L 4.2: "it has not accepted a pre-prepare message for view v and sequence number n containing a different digest"."""
    bench = Bench()
    bench.accept(BLOCK)
    assert of(bench.propose(OTHER), CheckProposal) == []


def test_pre_prepare_of_another_view_is_not_accepted():
    """C&L 4.2: "it is in view v"."""
    bench = Bench()
    bench.change_views(1, (2, 3))
    assert bench.propose(BLOCK) == []


def test_primarys_pre_prepare_counts_as_its_prepare():
    """protocol.md, "Agreement": an unsigned envelope around an ordinary signed Prepare, which counts."""
    bench = Bench()
    bench.accept(BLOCK)
    assert sent(bench.votes(PREPARE, BLOCK, (2,)), COMMIT) != [], "own, the primary's and one more are q = 3"


def test_commit_is_multicast_when_prepared_becomes_true():
    """C&L 4.2: "Replica i multicasts a COMMIT to the other replicas when prepared(m, v, n, i) becomes true"."""
    bench = Bench()
    bench.accept(BLOCK)
    assert sent(bench.outputs, COMMIT) == []
    assert len(sent(bench.votes(PREPARE, BLOCK, (3,)), COMMIT)) == 1
    assert sent(bench.votes(PREPARE, BLOCK, (2,)), COMMIT) == []


def test_prepares_of_different_views_do_not_add_up():
    """C&L 4.2: prepared needs matching view, sequence number and digest."""
    bench = Bench()
    bench.accept(BLOCK)
    bench.votes(PREPARE, BLOCK, (2,), view=1)
    bench.votes(PREPARE, BLOCK, (3,), view=2)
    assert sent(bench.outputs, COMMIT) == []


def test_the_same_prepare_from_one_validator_many_times_is_one():
    """C&L 4.2: 2f prepares "from different backups"."""
    bench = Bench(n=7)
    block = make_proposal(bench.validators)
    bench.accept(block)
    bench.votes(PREPARE, block, (2, 2, 2, 3, 3, 2, 1))
    assert sent(bench.outputs, COMMIT) == []
    assert len(sent(bench.votes(PREPARE, block, (4,)), COMMIT)) == 1


def test_prepare_in_an_unjustified_envelope_still_counts():
    """protocol.md, "Agreement": the envelope is unsigned, so a wrong one is its sender's fault; the signed Prepare in it counts."""
    bench = Bench()
    bench.accept(BLOCK)
    wrong = PrePrepare(BLOCK, vote(2, PREPARE, BLOCK), (view_change(1, 1),))
    assert why_unjustified(wrong, 1, V4, V4.voters) is not None
    assert sent(bench.feed(PrePrepareReceived(wrong)), COMMIT) != []


def test_pre_prepare_of_a_far_height_is_not_kept():
    """C&L 4.2: the sequence number lies "between a low water mark h and a high water mark H": this height, and the next for a while."""
    bench = Bench()
    for height in (3, 4, 2**40):
        bench.propose(make_proposal(V4, height=height))
    bench.feed(CertificateLearned(certificate_of(BLOCK, 0, (1, 2, 3))))
    assert bench.start(3, bytes(32)) == []


def test_votes_of_a_decided_height_are_forgotten_with_the_next():
    """C&L 4.3: messages at or below a stable checkpoint are discarded; each decided height is one."""
    bench = Bench()
    bench.accept(BLOCK)
    bench.votes(PREPARE, BLOCK, (2, 3))
    bench.votes(COMMIT, BLOCK, (2, 3))
    assert bench.replica.messages_signed_by(KEYS[2].public)[0] != ()
    bench.start(2, BLOCK.header.digest())
    assert bench.replica.messages_signed_by(KEYS[2].public) == ((), ())
    assert bench.replica.own_messages() == ()


def test_decision_needs_q_commits_of_one_view_and_digest():
    """C&L 4.2, committed-local; a certificate has one deciding view."""
    bench = Bench()
    bench.votes(COMMIT, BLOCK, (1,), view=0)
    bench.votes(COMMIT, BLOCK, (2,), view=1)
    bench.votes(COMMIT, OTHER, (3,), view=0)
    assert of(bench.outputs, Decided) == []


@pytest.mark.parametrize("n", range(4, 8))
def test_what_was_committed_is_what_every_possible_quorum_of_view_changes_obliges_to(n):
    """C&L 4.5.1: replicas agree even if they commit in different views. Exhaustive over who prepared, who lies and what the liars show.

    A block committed in view 1 was prepared by q validators, of whom f may deny it or show an older proof; all others show it or nothing.
    Whatever q view changes for view 2 a primary chooses, it must propose that block.
    """
    validators, f, q = validators_of(n), faults_tolerated(n), quorum(n)
    committed, older = make_proposal(validators, view=1, salt=b"committed"), make_proposal(validators)
    digest = committed.header.digest()
    new, old = proof_of(committed, 1, tuple(range(q))), proof_of(older, 0, tuple(range(q)))
    shows = {i: {p: ViewChange(1, 2, *shown, KEYS[i].public, bytes(64), p) for p, shown in SHOWN(new, old)} for i in range(n)}
    for liars in itertools.combinations(range(q), f):
        for lies in itertools.product((None, old, new), repeat=f):
            for rest in (None, old):
                said = [new if i < q else rest for i in range(n)]
                for i, lie in zip(liars, lies, strict=True):
                    said[i] = lie
                for absent in itertools.combinations(range(n), n - q):
                    store = ViewChanges(validators)
                    for i in range(n):
                        if i not in absent:
                            store.add(shows[i][said[i]])
                    assert {choice.digest for choice in store.choices(2)} == {digest}


def SHOWN(*proofs):
    return [(None, (None, None)), *((proof, (proof.view, proof.digest)) for proof in proofs)]


@pytest.mark.parametrize("n", range(4, 8))
def test_view_changes_of_the_honest_alone_are_always_a_choice(n):
    """protocol.md, "View change": with n-f honest nodes one set of q exists whose highest prepared block can be had.

    Whatever f liars add, with genuine proofs of higher blocks that only they can give or with none, a choice without them is offered.
    """
    validators, f, q = validators_of(n), faults_tolerated(n), quorum(n)
    blocks = [make_proposal(validators, view=view, salt=b"%d" % view) for view in range(3)]
    proofs = [proof_of(block, view, tuple(range(q))) for view, block in enumerate(blocks)]
    shows = {i: {p: ViewChange(1, 4, *shown, KEYS[i].public, bytes(64), p) for p, shown in SHOWN(*proofs)} for i in range(n)}
    for liars in itertools.combinations(range(n), f):
        for lies in itertools.product((None, *proofs), repeat=f):
            for honest in (None, proofs[0], proofs[1]):
                store = ViewChanges(validators)
                for i in range(n):
                    said = lies[liars.index(i)] if i in liars else honest if i % 2 else None
                    store.add(shows[i][said])
                obtainable = {None, honest and honest.digest}
                assert any(choice.digest in obtainable for choice in store.choices(4)), (liars, lies)


def test_view_change_carries_what_was_prepared():
    """C&L 4.4: the view-change message contains the set P of what prepared at its sender."""
    bench = Bench()
    bench.accept(BLOCK)
    bench.votes(PREPARE, BLOCK, (2, 3))
    (change,) = sent(bench.change_views(1, (2, 3)), ViewChange)
    assert change.proof is not None
    assert (change.prepared_view, change.digest) == (0, BLOCK.header.digest())


def test_validator_that_changed_views_stops_accepting_messages_of_the_old_view():
    """C&L 4.4: "it stops accepting messages (other than checkpoint, view-change, and new-view messages)"; certificates are accepted."""
    bench = Bench()
    bench.change_views(1, (2, 3))
    bench.accept(BLOCK)
    bench.votes(PREPARE, BLOCK, (1, 2, 3))
    assert sent(bench.outputs, PREPARE) == sent(bench.outputs, COMMIT) == []
    assert of(bench.votes(COMMIT, BLOCK, (1, 2, 3)), Decided) != []


def test_new_primary_picks_the_pre_prepare_of_the_highest_view():
    """C&L 4.4: the new-view's O is "the digest in the pre-prepare with the highest view number"."""
    store = ViewChanges(V4)
    for change in (view_change(0, 3, proof_of(BLOCK, 0, (0, 1, 2))), view_change(1, 3, proof_of(OTHER, 2, (0, 1, 2))), view_change(2, 3)):
        store.add(change)
    assert [choice.digest for choice in store.choices(3)] == [OTHER.header.digest()]


def test_backup_verifies_the_new_primarys_choice_by_making_it_again():
    """C&L 4.4: a backup "verifies the correctness of O by performing a computation similar to the one used by the primary"."""
    changes = (view_change(0, 1), view_change(1, 1, PROOF), view_change(2, 1))
    for proposal, is_right in ((BLOCK, True), (OTHER, False), (make_proposal(V4, view=1), False)):
        message = PrePrepare(proposal, vote(2, PREPARE, proposal, 1), changes)
        assert (why_unjustified(message, 1, V4, V4.voters) is None) == is_right
        bench = Bench()
        assert (of(bench.feed(PrePrepareReceived(message)), CheckProposal) != []) == is_right


def test_timer_of_a_new_view_starts_when_a_quorum_wants_it():
    """C&L 4.5.2, first: a replica that multicast a view change waits for 2f+1 before it starts its timer, lest it races ahead alone."""
    bench = Bench()
    bench.change_views(1, (2,))
    bench.wait(1_000)
    assert bench.replica.explain()["timer_left_ms"] is None
    bench.change_views(1, (3,))
    assert bench.replica.explain()["timer_left_ms"] == 1_500


def test_validator_joins_a_view_that_f_plus_one_want_before_its_own_timer_ends():
    """C&L 4.5.2, second; here the highest view that f+1 support (the paper: the smallest above the own), so nobody climbs step by step."""
    bench = Bench(n=7)
    bench.change_views(2, (1,))
    bench.change_views(9, (2,))
    assert bench.replica.view == 0
    bench.change_views(5, (3,))
    assert bench.replica.view == 2
    bench.change_views(5, (1,))
    assert bench.replica.view == 5


def test_faulty_validators_alone_cannot_force_a_view_change():
    """C&L 4.5.2, third: at most f faulty ones cannot make anybody follow."""
    bench = Bench(n=7)
    bench.change_views(2**32, (1, 2))
    assert bench.replica.view == 0


def test_new_primary_proposes_once_in_a_view():
    """C&L 4.4: one new-view message for a view; further view changes that come later change nothing, whatever they show."""
    bench = Bench(me=2)
    bench.change_views(1, (0, 1))
    bench.feed(ProposalBuilt(1, make_proposal(V4, view=1)))
    assert len(sent(bench.outputs, PrePrepare)) == 1
    outputs = bench.change_views(1, (3,), PROOF) + bench.feed(ProposalBuilt(1, make_proposal(V4, view=1, salt=b"second")))
    assert sent(outputs, PrePrepare) == of(outputs, BuildProposal) == []


def test_block_accepted_in_an_old_view_is_not_voted_for_in_a_new_one_unproposed():
    """QBFT, new round: nothing is accepted yet; C&L 4.4: only what the new primary proposes is prepared."""
    bench = Bench()
    bench.propose(BLOCK)
    bench.change_views(1, (2, 3))
    bench.check(BLOCK)
    bench.votes(PREPARE, BLOCK, (2, 3), view=1)
    assert sent(bench.outputs, PREPARE) == []


def test_view_change_stays_as_it_was_whatever_is_learnt_later():
    """protocol.md, "Agreement": its proof is attached unsigned and its bytes are frozen once durable."""
    bench = Bench()
    bench.accept(BLOCK)
    (change,) = sent(bench.change_views(1, (2, 3)), ViewChange)
    assert change.proof is None
    bench.votes(PREPARE, BLOCK, (1, 2, 3))
    again = Bench(hard_state=bench.records())
    assert sent(bench.wait(1_000), ViewChange)[0] == sent(again.wait(0), ViewChange)[0] == change


def test_transactions_are_handed_over_once_a_height():
    """protocol.md, "Timers": on expiry over a transaction it is first handed to the connected primary with one base more, once each."""
    bench = Bench()
    bench.feed(BUSY)
    assert of(bench.wait(1_000), HandOver) == [HandOver()]
    outputs = [output for _ in range(30) for output in bench.wait(1_000)]
    assert of(outputs, HandOver) == []
    assert bench.replica.view == 1


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), max_size=30))
def test_view_followed_is_the_highest_with_support_of_one_honest_validator(rows):
    """protocol.md, "View synchronisation": a view change for w counts for every v <= w, only the newest counts."""
    store, newest = ViewChanges(validators_of(7)), {}
    for i, view in rows:
        store.add(view_change(i, view))
        newest[i] = max(view, newest.get(i, 0))
    supported = [view for view in range(1, 10) if sum(w >= view for w in newest.values()) >= 3]
    assert store.supported_by(3) == max(supported, default=0)


def test_three_round_trips_and_no_more_in_the_normal_case():
    """C&L 4.2: pre-prepare, prepare, commit. Messages of one height at n = 4: 3 + 3*3 + 4*3."""
    net = Net(4)
    transmit, heard = net.transmit, []

    def listen(sender, receiver, message):
        heard.append(message)
        transmit(sender, receiver, message)

    net.transmit = listen
    net.run_for(10_000, lambda: all(node.height == 1 for node in net.nodes))
    assert sum(isinstance(message, PrePrepare | Vote | ViewChange) for message in heard) == 24
