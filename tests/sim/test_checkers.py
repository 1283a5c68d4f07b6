"""Do the judges see? Each promise is broken on purpose, by hand, and its own judge must say so; the lawful neighbour case must pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from medchain.chain.block import Block, Header, LastCommit, evidence_digest
from medchain.chain.evidence import Contradiction
from medchain.chain.receipt import encode_receipts, receipts_root
from medchain.chain.transaction import Transaction, transactions_root
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange
from medchain.consensus.messages import PrePrepare
from medchain.engine.ready import Accepted, Alarm, PeerAccused, Refused, TransactionsExpired
from medchain.ledger.apply import BlockContext, Carried, apply_block, genesis_changes
from medchain.ledger.evidence import EvidenceRow, evidence_key
from medchain.ledger.rows import encode_row
from medchain.sim.checkers.case import Ending
from medchain.sim.clocks import EPOCH_MS
from medchain.store import layout
from medchain.store.keyvalue import WriteBatch
from medchain.store.memory import MemoryKeyValue
from medchain.store.overlay import StoredState
from medchain.store.tree import StateTree
from medchain.wire.peer import PastVotesSent

A, B = b"a" * 32, b"b" * 32


def decide(height: int, digest: bytes, certificate: Any) -> WriteBatch:
    return WriteBatch.of((layout.block_key(height), digest), (layout.certificate_key(height), certificate.encode()))


# ---- agreement --------------------------------------------------------------------------------------------------------------


def test_two_nodes_that_decide_different_blocks_break_agreement(trial: Any) -> None:
    trial.turn(batch=decide(7, A, trial.certificate(7, A)), node=0)
    trial.turn(batch=decide(7, A, trial.certificate(7, A)), node=1)
    assert not trial.case.findings
    trial.turn(batch=decide(7, B, trial.certificate(7, B)), node=2)
    assert trial.found("agreement")


def test_quorums_of_commits_for_two_blocks_break_agreement_before_anyone_decides(trial: Any) -> None:
    for node in (0, 1, 2):
        trial.turn(trial.vote(node, COMMIT, 7, 0, A), node=node)
    for node in (1, 2):
        trial.turn(trial.vote(node, COMMIT, 7, 1, B), node=node)
    assert not trial.found("agreement")
    trial.turn(trial.vote(3, COMMIT, 7, 1, B), node=3)
    assert trial.found("agreement")


def test_block_that_became_durable_in_a_crash_is_compared_at_the_end(trial: Any) -> None:
    trial.turn(batch=decide(1, A, trial.certificate(1, A)))
    other = MemoryKeyValue()
    other.write(decide(1, B, trial.certificate(1, B)))
    trial.panel.on_end(Ending((other,), {}, False))
    assert trial.found("agreement")


# ---- certificates -----------------------------------------------------------------------------------------------------------


def test_certificate_of_too_few_a_stranger_or_another_block_is_found(trial: Any) -> None:
    good = trial.certificate(3, A)
    trial.turn(batch=decide(3, A, good))
    assert not trial.case.findings
    forged = replace(good, commits=(good.commits[0], good.commits[1], (2, bytes(64))))
    for bad in (replace(good, commits=good.commits[:2]), forged, trial.certificate(4, A), trial.certificate(3, B)):
        before = len(trial.found("certificates"))
        trial.turn(batch=decide(3, A, bad))
        assert len(trial.found("certificates")) == before + 1


def test_decision_without_certificate_is_found(trial: Any) -> None:
    store, _, _ = chain_of_two(trial)
    store.write(WriteBatch.of((layout.certificate_key(1), None)))
    trial.panel.on_end(Ending((store,), {}, False))
    assert trial.found("certificates")


# ---- promises ---------------------------------------------------------------------------------------------------------------


def test_two_prepares_or_commits_of_one_view_are_found_whoever_relays_them(trial: Any) -> None:
    for kind in (PREPARE, COMMIT):
        trial.turn(trial.vote(1, kind, 5, 2, A), node=1)
        trial.turn(trial.vote(1, kind, 5, 2, A), trial.vote(1, kind, 5, 3, B), trial.vote(1, kind, 6, 2, B), node=1)
        before = len(trial.found("promises"))
        second = trial.vote(1, kind, 5, 2, B)
        trial.turn(PastVotesSent(bytes(32), 0, None, (second,), ()), node=3)
        assert len(trial.found("promises")) == before + 1


def test_second_commit_hidden_in_a_certificate_is_found(trial: Any) -> None:
    trial.turn(trial.vote(1, COMMIT, 5, 0, B), node=1)
    certificate = trial.certificate(5, A, nodes=(0, 1, 2))
    trial.turn(PastVotesSent(bytes(32), 5, certificate, (), ()))
    assert not trial.found("promises"), "the certificate of a status is agreement's business"
    trial.turn(view_change(trial, 3, 5, 2, PreparedProof(5, 1, A, prepares(trial, 5, 1, A))), node=3)
    trial.turn(trial.vote(0, PREPARE, 5, 1, B), node=0)
    assert trial.found("promises")


def prepares(trial: Any, height: int, view: int, digest: bytes) -> tuple[tuple[int, bytes], ...]:
    return tuple((node, trial.vote(node, PREPARE, height, view, digest).signature) for node in (0, 1, 2))


def view_change(trial: Any, node: int, height: int, view: int, proof: PreparedProof | None = None) -> ViewChange:
    return ViewChange.sign(trial.case.network, trial.identities.consensus[node], height, view, proof)


def test_vote_signed_below_a_sent_view_change_is_found_and_resending_an_older_one_is_not(trial: Any) -> None:
    older = trial.vote(2, PREPARE, 5, 0, A)
    trial.turn(view_change(trial, 2, 5, 3), node=2)
    trial.turn(older, node=2)
    trial.turn(trial.vote(2, PREPARE, 5, 3, A), trial.vote(2, PREPARE, 6, 0, A), node=2)
    assert not trial.found("promises")
    trial.turn(trial.vote(2, PREPARE, 5, 2, A), node=2)
    assert len(trial.found("promises")) == 1


def test_view_change_that_hides_a_commit_is_found(trial: Any) -> None:
    trial.turn(trial.vote(2, COMMIT, 5, 1, A), node=2)
    trial.turn(view_change(trial, 2, 5, 2, PreparedProof(5, 1, A, prepares(trial, 5, 1, A))), node=2)
    assert not trial.found("promises")
    trial.turn(view_change(trial, 2, 5, 3), node=2)
    assert len(trial.found("promises")) == 1


def test_two_view_changes_to_one_view_with_other_content_are_found(trial: Any) -> None:
    trial.turn(view_change(trial, 0, 5, 2), node=0)
    trial.turn(view_change(trial, 0, 5, 2), node=0)
    assert not trial.found("promises")
    trial.turn(view_change(trial, 0, 5, 2, PreparedProof(5, 1, A, prepares(trial, 5, 1, A))), node=0)
    assert trial.found("promises")


def test_nothing_is_promised_for_a_faulty_node(trial: Any) -> None:
    trial.case.faulty = frozenset({1})
    trial.turn(trial.vote(1, PREPARE, 5, 2, A), trial.vote(1, PREPARE, 5, 2, B), node=1)
    assert not trial.case.findings


# ---- evidence ---------------------------------------------------------------------------------------------------------------


def double_vote(trial: Any, node: int, height: int = 5) -> Contradiction:
    return Contradiction.of(trial.vote(node, COMMIT, height, 0, A), trial.vote(node, COMMIT, height, 0, B))


def kept(contradiction: Contradiction) -> WriteBatch:
    return WriteBatch.of((layout.evidence_key(contradiction.digest()), contradiction.encode()))


def recorded(contradiction: Contradiction) -> WriteBatch:
    row = EvidenceRow(contradiction.offence, contradiction.offender, A, contradiction.height, 6, 1, contradiction.encode())
    return WriteBatch.of((layout.state_key(evidence_key(contradiction.digest())), encode_row(row)))


def test_evidence_about_an_honest_validator_is_found_where_it_is_kept_and_where_it_is_recorded(trial: Any) -> None:
    trial.case.faulty = frozenset({3})
    trial.turn(batch=kept(double_vote(trial, 3)))
    trial.turn(batch=recorded(double_vote(trial, 3)))
    assert not trial.case.findings
    trial.turn(batch=kept(double_vote(trial, 1)))
    trial.turn(batch=recorded(double_vote(trial, 2)))
    assert len(trial.found("evidence")) == 2


def test_forged_and_unreadable_evidence_is_found(trial: Any) -> None:
    trial.case.faulty = frozenset({3})
    good = double_vote(trial, 3)
    trial.turn(batch=kept(replace(good, first=replace(good.first, signature=bytes(64)))))
    assert len(trial.found("evidence")) == 1
    trial.turn(batch=WriteBatch.of((layout.evidence_key(A), b"evidence")))
    assert len(trial.found("evidence")) == 2


def test_evidence_that_a_node_never_recorded_is_found_only_at_rest(trial: Any) -> None:
    trial.case.faulty = frozenset({3})
    trial.turn(batch=kept(double_vote(trial, 3)))
    first, second = MemoryKeyValue(), MemoryKeyValue()
    first.write(recorded(double_vote(trial, 3, height=400)))
    trial.panel.on_end(Ending((first, second), {}, False))
    assert not trial.found("evidence")
    trial.panel.on_end(Ending((first, second), {}, True))
    assert len(trial.found("evidence")) == 1, "a newer lie within the interval stands for it on the first node, nothing does on the second"


def test_one_lie_that_is_recorded_again_and_again_is_found(trial: Any) -> None:
    trial.case.faulty = frozenset({3})
    store = MemoryKeyValue()
    for height in (5, 1_005):
        store.write(recorded(double_vote(trial, 3, height)))
    trial.panel.on_end(Ending((store,), {}, True))
    assert not trial.found("evidence")
    store.write(recorded(double_vote(trial, 3, 1_004)))
    trial.panel.on_end(Ending((store,), {}, True))
    assert len(trial.found("evidence")) == 1


# ---- roots, blocks, durability ----------------------------------------------------------------------------------------------


def make_block(
    trial: Any,
    height: int,
    parent: bytes,
    transactions: tuple[Transaction, ...],
    state: MemoryKeyValue,
    tree: StateTree,
    time_ms: int | None = None,
    proposer: int | None = None,
    last: LastCommit | None = None,
) -> Block:
    """Write a block whose roots are right; who proposed it and what it carries of its parent is right unless said otherwise."""
    genesis, keys = trial.case.genesis, trial.case.validators.keys
    last = last or LastCommit(trial.certificate(height - 1, parent) if height > 1 else None)
    time_ms = EPOCH_MS + height if time_ms is None else time_ms
    applied = apply_block(
        StoredState(state), BlockContext(height, time_ms, trial.case.network, genesis.parameters), transactions,
        Carried(last, (), keys[(height - 1) % len(keys)] if height > 1 else bytes(32)),
    )  # fmt: skip
    tree.adopt(tree.preview(applied.changes))
    state.write(WriteBatch(tuple((layout.state_key(key), value) for key, value in applied.changes.items())))
    digest = genesis.validators().digest()
    header = Header(
        version=1, chain_id=genesis.chain_id, height=height, view=0, time_ms=time_ms, parent=parent,
        proposer=keys[height % len(keys) if proposer is None else proposer],
        transactions_root=transactions_root([item.entry for item in transactions]),
        receipts_root=receipts_root(applied.receipts), state_root=tree.root, validators_digest=digest, next_validators_digest=digest,
        last_commit_digest=last.digest(), history_root=bytes(32), evidence_digest=evidence_digest(()),
    )  # fmt: skip
    place = layout.uint64(height)
    rows = [
        (layout.block_key(height), header.digest()),
        (layout.body_key(header.digest()), Block(header, transactions, last).encode()),
        (layout.certificate_key(height), trial.certificate(height, header.digest()).encode()),
        (layout.receipts_key(height), encode_receipts(applied.receipts)),
        (layout.HEAD, place + header.digest()),
    ]
    rows += [(layout.transaction_key(item.id), place + layout.uint32(index)) for index, item in enumerate(transactions)]
    state.write(WriteBatch(tuple(rows)))
    return Block(header, transactions, last)


def chain_of_two(trial: Any) -> tuple[MemoryKeyValue, list[Transaction], StateTree]:
    """A store with two true blocks of two transactions each."""
    store, tree = MemoryKeyValue(), StateTree(64)
    founded = dict(genesis_changes(trial.case.genesis))
    tree.adopt(tree.preview(founded))
    store.write(WriteBatch(tuple((layout.state_key(key), value) for key, value in founded.items())))
    transactions = [trial.workload.next(0, 0)[1] for _ in range(4)]
    first = make_block(trial, 1, bytes(32), tuple(transactions[:2]), store, tree)
    make_block(trial, 2, first.header.digest(), tuple(transactions[2:]), store, tree)
    return store, transactions, tree


def test_a_true_chain_passes_every_judge(trial: Any) -> None:
    store, transactions, _ = chain_of_two(trial)
    trial.panel.on_end(Ending((store, store), {item.id: item for item in transactions}, True))
    assert trial.case.findings == []
    assert trial.panel.durability.decided == 4


@pytest.mark.parametrize(
    "what", ["proposer", "no certificate", "other certificate", "forged certificate", "old news", "late", "late forged"]
)
def test_block_out_of_turn_or_with_a_false_last_commit_is_found(trial: Any, what: str) -> None:
    store, _, tree = chain_of_two(trial)
    first, parent = store.get(layout.block_key(1)), store.get(layout.block_key(2))
    held = trial.certificate(2, parent)
    forged = replace(held, commits=tuple((index, bytes(64)) for index, _ in held.commits))
    slow = trial.vote(3, COMMIT, 2, 0, parent)
    last = {
        "no certificate": LastCommit(None),
        "other certificate": LastCommit(trial.certificate(1, first)),
        "forged certificate": LastCommit(forged),
        "old news": LastCommit(held, (trial.vote(0, COMMIT, 2, 0, parent),)),
        "late": LastCommit(held, (slow,)),
        "late forged": LastCommit(held, (replace(slow, signature=bytes(64)),)),
    }.get(what)
    make_block(trial, 3, parent, (), store, tree, proposer=0 if what == "proposer" else None, last=last)
    trial.panel.on_end(Ending((store,), {}, True))
    assert bool(trial.found("rotation")) == (what != "late")


def test_changed_state_row_is_found(trial: Any) -> None:
    store, _, _ = chain_of_two(trial)
    store.write(WriteBatch.of((layout.state_key(b"stray"), b"1")))
    trial.panel.on_end(Ending((store,), {}, True))
    assert len(trial.found("roots")) == 1


def test_header_with_roots_that_execution_does_not_give_is_found(trial: Any) -> None:
    store, _, tree = chain_of_two(trial)
    false_state = MemoryKeyValue()
    false_state.write(WriteBatch(tuple(store.iterate(layout.STATE, b"s0"))))
    extra = {b"stray": b"1"}
    tree.adopt(tree.preview(extra))
    false_state.write(WriteBatch.of((layout.state_key(b"stray"), b"1")))
    block = make_block(trial, 3, store.get(layout.block_key(2)), (), false_state, tree)
    store.write(WriteBatch(tuple(false_state.iterate(b"", b"\xff"))))
    assert block.header.state_root == tree.root
    trial.panel.on_end(Ending((store,), {}, True))
    assert any("anew" in message for message in trial.found("roots"))


def test_altered_block_bytes_are_found(trial: Any) -> None:
    store, _, _ = chain_of_two(trial)
    digest = store.get(layout.block_key(2))
    store.write(WriteBatch.of((layout.body_key(digest), store.get(layout.body_key(store.get(layout.block_key(1)))))))
    trial.panel.on_end(Ending((store,), {}, True))
    assert trial.found("certificates")


def test_accepted_transaction_that_is_nowhere_is_found_and_an_expired_one_is_not(trial: Any) -> None:
    store, _, _ = chain_of_two(trial)
    late = trial.workload.next(-49, 0)[1]
    assert late.body.valid_until == 1
    trial.panel.on_end(Ending((store,), {late.id: late}, True))
    assert not trial.case.findings and trial.panel.durability.expired == 1
    lost = trial.workload.next(0, 0)[1]
    trial.panel.on_end(Ending((store,), {lost.id: lost}, True))
    assert trial.found("durability")


def test_lost_transaction_is_found_without_rest_when_no_pool_holds_it(trial: Any) -> None:
    store, _, _ = chain_of_two(trial)
    lost = trial.workload.next(0, 0)[1]
    store.write(WriteBatch.of((layout.pool_key(lost.id), lost.raw)))
    trial.panel.on_end(Ending((store,), {lost.id: lost}, False))
    assert not trial.case.findings
    store.write(WriteBatch.of((layout.pool_key(lost.id), None)))
    trial.panel.on_end(Ending((store,), {lost.id: lost}, False))
    assert trial.found("durability")


def test_doubled_transaction_is_found(trial: Any) -> None:
    store, transactions, tree = chain_of_two(trial)
    make_block(trial, 3, store.get(layout.block_key(2)), (transactions[0],), store, tree)
    trial.panel.on_end(Ending((store,), {}, True))
    assert any("and in block" in message for message in trial.found("durability"))


def test_acceptance_that_is_not_durable_yet_is_found(trial: Any) -> None:
    request, transaction = trial.workload.next(0, 0)
    store = MemoryKeyValue()
    trial.turn(replies=(Accepted(request, transaction.id, False),), store=store)
    assert trial.found("durability")
    store.write(WriteBatch.of((layout.pool_key(transaction.id), transaction.raw)))
    trial.turn(replies=(Accepted(request, transaction.id, False),), store=store)
    assert len(trial.found("durability")) == 1


def test_transaction_accepted_and_expired_in_one_turn_is_no_loss(trial: Any) -> None:
    """A node that accepts, catches up in the same turn and finds that the last height has passed says both."""
    request, transaction = trial.workload.next(0, 0)
    trial.turn(replies=(Accepted(request, transaction.id, False), TransactionsExpired((transaction.id,))))
    assert not trial.case.findings


# ---- honesty ----------------------------------------------------------------------------------------------------------------


def test_accusing_an_honest_peer_is_found(trial: Any) -> None:
    trial.turn(replies=(PeerAccused(trial.identities.consensus[2].public, "bad manners"),))
    assert trial.found("honesty")


def test_accepting_a_bad_transaction_is_found(trial: Any) -> None:
    bad = None
    while bad is None:
        request, transaction = trial.workload.next(10, 0)
        bad = transaction if transaction.id in trial.workload._bad else None
    trial.workload.answered(0, Refused(request, "some.code", "no"))
    trial.panel.on_end(Ending((), {}, True))
    assert not trial.case.findings
    trial.workload._requests[request] = transaction
    trial.workload.answered(0, Accepted(request, transaction.id, False))
    trial.panel.on_end(Ending((), {}, True))
    assert trial.found("honesty")


# ---- honesty, times ---------------------------------------------------------------------------------------------------------


def test_alarm_about_forgotten_votes_is_a_fault_only_where_no_disk_forgot(trial: Any) -> None:
    trial.case.forgetful = frozenset({2})
    trial.turn(replies=(Alarm("amnesia.votes-forgotten", "told"),), node=2)
    assert not trial.found("honesty")
    trial.turn(replies=(Alarm("amnesia.votes-forgotten", "told"),), node=1)
    assert len(trial.found("honesty")) == 1


def test_block_later_than_honest_clocks_allow_or_not_later_than_its_parent_is_found(trial: Any) -> None:
    trial.case.latest_clock_ms = 100
    store, _, tree = chain_of_two(trial)
    parent = store.get(layout.block_key(2))
    for height, time_ms in ((3, EPOCH_MS + 100), (4, EPOCH_MS + 101), (5, EPOCH_MS + 101)):
        block = make_block(trial, height, parent, (), store, tree, time_ms)
        trial.turn(batch=decide(height, block.header.digest(), trial.certificate(height, block.header.digest())), store=store)
        parent = block.header.digest()
    assert ["block 4" in message for message in trial.found("times")] == [True, False]
    trial.panel.on_end(Ending((), {}, False))
    assert any("not later than" in message for message in trial.found("times"))


# ---- justification ----------------------------------------------------------------------------------------------------------


def fresh_proposal(trial: Any, view: int, changes: tuple[Any, ...], header_view: int | None = None) -> PrePrepare:
    """Node 1 proposes an empty block of height 5."""
    store, _, tree = chain_of_two(trial)
    block = make_block(trial, 3, A, (), store, tree)
    header = replace(block.header, height=5, view=view if header_view is None else header_view)
    prepare = trial.vote(1, PREPARE, 5, view, header.digest())
    return PrePrepare(replace(block, header=header).proposal(), prepare, changes)


def test_block_prepared_without_q_view_changes_for_exactly_its_view_is_found(trial: Any) -> None:
    lawful = tuple(view_change(trial, node, 5, 2) for node in (0, 1, 2))
    message = fresh_proposal(trial, 2, lawful)
    trial.turn(message, node=1)
    for node in (0, 2):
        trial.turn(trial.vote(node, PREPARE, 5, 2, message.digest), node=node)
    assert not trial.found("justification")
    for view in (3, 4, 5, 6):
        first, second, third = (view_change(trial, node, 5, view) for node in (0, 1, 2))
        changes = {3: (first, second), 4: (first, second, first), 5: (first, second, view_change(trial, 3, 5, 9))}
        message = fresh_proposal(trial, view, changes.get(view, (first, second, replace(third, signature=bytes(64)))))
        trial.turn(message, node=1)
        assert len(trial.found("justification")) == view - 3
        trial.turn(trial.vote(0, PREPARE, 5, view, message.digest), node=0)
        assert len(trial.found("justification")) == view - 2


def test_fresh_block_in_the_place_of_the_highest_prepared_one_is_found(trial: Any) -> None:
    proof = PreparedProof(5, 1, A, prepares(trial, 5, 1, A))
    changes = (view_change(trial, 0, 5, 2), view_change(trial, 1, 5, 2, proof), view_change(trial, 2, 5, 2))
    message = fresh_proposal(trial, 2, changes)
    trial.turn(message, node=1)
    trial.turn(trial.vote(0, PREPARE, 5, 2, message.digest), node=0)
    assert len(trial.found("justification")) == 1


# ---- views ------------------------------------------------------------------------------------------------------------------


def test_node_that_goes_on_alone_is_found_and_one_that_a_quorum_or_an_honest_one_leads_is_not(trial: Any) -> None:
    trial.turn(view_change(trial, 0, 5, 1), node=0)
    assert not trial.found("views"), "from view 0 everybody's own timer counts"
    trial.turn(view_change(trial, 0, 5, 2), node=0)
    assert len(trial.found("views")) == 1
    for node in (0, 1, 2):
        trial.turn(view_change(trial, node, 6, 1), node=node)
    trial.turn(view_change(trial, 0, 6, 2), node=0)
    trial.turn(view_change(trial, 1, 6, 2), node=1)
    trial.turn(view_change(trial, 3, 6, 2), node=3)
    assert len(trial.found("views")) == 1, "q support view 1, and f + 1 view 2"


def test_one_liar_far_ahead_is_no_reason_to_follow(trial: Any) -> None:
    trial.case.faulty = trial.case.liars = frozenset({3})
    trial.turn(view_change(trial, 3, 5, 9), node=3)
    assert not trial.found("views")
    trial.turn(view_change(trial, 0, 5, 9), node=0)
    assert len(trial.found("views")) == 1
    trial.turn(view_change(trial, 1, 5, 9), node=1)
    assert len(trial.found("views")) == 1, "two others went there before it"


def test_what_others_repeat_is_not_a_step_of_their_own(trial: Any) -> None:
    trial.turn(PastVotesSent(bytes(32), 0, None, (), (view_change(trial, 2, 5, 7),)), node=1)
    assert not trial.found("views")
