"""Judging and building blocks: one accepted case, and each refusal by its code with the state unchanged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medchain import codec
from medchain.chain.block import Block, LastCommit
from medchain.chain.certificate import Certificate
from medchain.chain.transaction import Operation, Transaction, TransactionBody, transactions_root
from medchain.chain.vote import COMMIT, Vote
from medchain.consensus.rotation import primary
from medchain.crypto.sealing import PUBLIC_KEY_BYTES, SUITE_HYBRID
from medchain.engine.executor import RESULTS_MAX, Executor
from medchain.engine.verification import Verifier
from medchain.errors import InvariantBroken, Rejected
from medchain.ledger.people import Credential


class Bench:
    """One engine's chain at height 2, with an executor of its own."""

    def __init__(self, cluster) -> None:
        cluster.warm()
        self.cluster = cluster
        self.decided = cluster.credential()
        cluster.settle(cluster.nodes[0], self.decided)
        cluster.settle(cluster.nodes[0], cluster.credential(name="kim"))
        self.chain = cluster.nodes[0].engine.chain
        self.executor = self.fresh()

    def fresh(self) -> Executor:
        return Executor(self.chain, Verifier(self.cluster.network))

    def block(self, *transactions: Transaction, **changes) -> Block:
        """A valid block of the next height, with header fields changed afterwards."""
        proposer = primary(self.chain.rotation, self.chain.height + 1, 0)
        block = self.fresh().build(0, self.chain.header.time_ms + 10, proposer, transactions).block
        return replace(block, header=replace(block.header, **changes))

    def code_of(self, block: Block) -> str:
        before = (self.chain.head, self.chain.tree.root, self.chain.history.root)
        with pytest.raises(Rejected) as refusal:
            self.executor.execute(block)
        assert (self.chain.head, self.chain.tree.root, self.chain.history.root) == before
        assert self.executor.result(block.header.digest()) is None
        return refusal.value.code


@pytest.fixture
def bench(cluster) -> Bench:
    return Bench(cluster)


def test_a_block_built_by_one_node_executes_alike_on_another(bench):
    block = bench.block(bench.cluster.patient(), bench.cluster.patient(1, "li"))
    executed = bench.executor.execute(block)
    assert executed.update.root == block.header.state_root
    assert bench.executor.execute(block) is executed
    assert bench.executor.result(executed.digest) is executed
    assert Block.decode(executed.block_bytes) == block


def test_executing_leaves_the_decided_state_alone_until_it_is_adopted(bench):
    root = bench.chain.tree.root
    bench.executor.execute(bench.block(bench.cluster.patient()))
    assert bench.chain.tree.root == root
    assert bench.chain.tree.root == bench.chain.header.state_root


@pytest.mark.parametrize(
    "code, changes",
    [
        ("block.network", {"chain_id": "elsewhere"}),
        ("block.network", {"version": 2}),
        ("block.parent", {"parent": bytes(32)}),
        ("block.parent", {"height": 9}),
        ("block.time", {"time_ms": 1}),
        ("block.proposer", {"proposer": bytes(32)}),
        ("block.proposer", {"view": 1}),
        ("block.validators", {"validators_digest": bytes(32)}),
        ("block.history", {"history_root": bytes(32)}),
        ("block.result", {"state_root": bytes(32)}),
        ("block.result", {"receipts_root": bytes(32)}),
        ("block.result", {"next_validators_digest": bytes(32)}),
    ],
)
def test_a_header_that_contradicts_the_chain_is_refused(bench, code, changes):
    assert bench.code_of(bench.block(bench.cluster.patient(), **changes)) == code


def test_the_time_must_be_after_the_parents(bench):
    assert bench.code_of(bench.block(time_ms=bench.chain.header.time_ms)) == "block.time"
    bench.executor.execute(bench.block())


def with_last_commit(block: Block, last_commit: LastCommit) -> Block:
    return replace(block, last_commit=last_commit, header=replace(block.header, last_commit_digest=last_commit.digest()))


def test_a_block_must_carry_a_valid_certificate_of_its_parent(bench):
    block, certificate = bench.block(), bench.chain.certificate
    older = bench.chain.certificate_of(1)
    forged = replace(certificate, commits=tuple((index, bytes(64)) for index, _ in certificate.commits))
    short = replace(certificate, commits=certificate.commits[:2])
    for wrong in (None, older, forged, short, replace(certificate, view=certificate.view + 1)):
        assert bench.code_of(with_last_commit(block, LastCommit(wrong))) == "block.last-commit"


def test_another_valid_certificate_of_the_parent_is_accepted(bench):
    """Nodes may hold different certificates of one block; the proposer's is the one that counts."""
    keys = sorted((node.key for node in bench.cluster.nodes), key=lambda key: key.public)
    head, held = bench.chain.head, bench.chain.certificate
    votes = [(index, Vote.sign(bench.cluster.network, key, COMMIT, head.height, 5, head.digest)) for index, key in enumerate(keys)][1:]
    other = Certificate(head.height, 5, head.digest, tuple((index, vote.signature) for index, vote in votes))
    assert bench.code_of(with_last_commit(bench.block(), LastCommit(other))) == "block.result", "the certificate says who skipped"
    bench.chain.certificate = other
    block = bench.block()
    bench.chain.certificate = held
    assert bench.executor.execute(block).block.last_commit.certificate == other


def test_late_commits_are_not_part_of_this_version(bench):
    block = bench.block()
    late = Vote.sign(bench.cluster.network, bench.cluster.nodes[0].key, COMMIT, bench.chain.height, 0, bench.chain.digest)
    assert bench.code_of(with_last_commit(block, LastCommit(bench.chain.certificate, (late,)))) == "block.late-commits"


def with_transactions(block: Block, *transactions: Transaction) -> Block:
    root = transactions_root([transaction.entry for transaction in transactions])
    return replace(block, transactions=transactions, header=replace(block.header, transactions_root=root))


def test_transactions_that_may_not_stand_in_the_block_are_refused(bench, other_genesis):
    cluster, block = bench.cluster, bench.block()
    good = cluster.patient()
    wrong = {
        "decided": bench.decided,
        "expired": cluster.patient(0, "a", valid_until=bench.chain.height),
        "far": cluster.patient(0, "b", valid_until=bench.chain.height + 52),
        "chain id": cluster.credential(chain_id="elsewhere"),
        "forged": Transaction.decode(codec.encode([good.body_bytes, [1, bytes(64)]])),
    }
    for transaction in wrong.values():
        assert bench.code_of(with_transactions(block, good, transaction)) == "block.transaction"
    bench.executor.execute(bench.block(good))


def test_a_malformed_operation_makes_a_block_invalid(bench, signer):
    sender = signer("0 organisation")
    body = TransactionBody("test", sender.public, 9, (Operation("no.such.kind", []),), bytes(8))
    transaction = Transaction.sign(body, sender, bench.cluster.network)
    assert bench.code_of(with_transactions(bench.block(), transaction)) == "block.transaction"


def test_a_block_of_too_many_transactions_is_refused(make_cluster):
    bench = Bench(make_cluster(block_transactions_max=2))
    patients = [bench.cluster.patient(0, f"patient {index}") for index in range(5)]
    assert bench.code_of(bench.block(*patients[:3])) == "block.too-large"
    bench.executor.execute(bench.block(*patients[:2]))


def test_a_block_of_too_much_work_is_refused(make_cluster):
    bench = Bench(make_cluster(block_weight_max=100))
    patients = [bench.cluster.patient(0, f"patient {index}") for index in range(5)]    # 23 each
    assert bench.code_of(bench.block(*patients)) == "block.too-heavy"
    bench.executor.execute(bench.block(*patients[:4]))


def test_a_block_of_too_many_bytes_is_refused(make_cluster, signer):
    bench = Bench(make_cluster(block_bytes_max=64 * 1024))
    opening = bytes(PUBLIC_KEY_BYTES[SUITE_HYBRID])
    doctors = [signer(f"doctor {index}").public for index in range(20)]
    payloads = [Credential(doctor, SUITE_HYBRID, opening, "physician", "general", 2**45, bytes(64)) for doctor in doctors]
    large = [bench.cluster.sign(signer("0 organisation"), *payloads) for _ in range(3)]
    assert len(large[0].raw) > 22 * 1024
    assert bench.code_of(bench.block(*large)) == "block.too-large"


def test_results_are_kept_for_a_few_blocks_only(bench):
    blocks = [bench.block(time_ms=bench.chain.header.time_ms + 20 + index) for index in range(RESULTS_MAX + 1)]
    for block in blocks:
        bench.executor.execute(block)
    assert bench.executor.result(blocks[0].header.digest()) is None
    assert bench.executor.result(blocks[-1].header.digest()) is not None
    bench.executor.forget()
    assert bench.executor.result(blocks[-1].header.digest()) is None


def test_adopting_a_block_of_another_parent_is_our_own_bug(bench):
    executed = bench.executor.execute(bench.block())
    with pytest.raises(InvariantBroken):
        bench.chain.advance(executed, bench.chain.certificate)


def test_what_admission_let_pass_is_not_verified_again_and_what_is_strange_is(bench):
    good, other = bench.cluster.patient(), bench.cluster.patient(1, "li")
    block = bench.block(good, other)
    asked = []

    class Counting(Verifier):
        def check_all(self, items):
            asked.extend(items)
            return super().check_all(items)

    Executor(bench.chain, Counting(bench.cluster.network), lambda transaction: transaction is good).execute(block)
    assert other.verification(bench.cluster.network) in asked
    assert good.verification(bench.cluster.network) not in asked


def test_the_pool_holds_a_transaction_only_with_its_very_authentication(bench):
    node, transaction = bench.cluster.nodes[0], bench.cluster.patient()
    bench.cluster.submit(node, transaction)
    node.engine._settle()
    forged = Transaction.decode(codec.encode([transaction.body_bytes, [1, bytes(64)]]))
    assert node.engine._pool.holds(transaction)
    assert forged.id == transaction.id and not node.engine._pool.holds(forged)
