"""One authenticated hospital that lies: what it may cost the others, and whom it may bring into discredit."""

from __future__ import annotations

import pytest

from medchain.chain.transaction import Transaction
from medchain.chain.vote import PREPARE, Vote
from medchain.consensus.messages import PrePrepare
from medchain.consensus.rotation import primary
from medchain.engine.executor import Executor
from medchain.engine.ready import PeerAccused, Received
from medchain.engine.verification import Verifier
from medchain.wire.peer import PastVotesSent, PastVotesWanted, PoolListed, TransactionsOffered, TransactionsWanted


class Liar:
    """The primary of height 1: its own node says and hears nothing more, its key goes on."""

    def __init__(self, cluster) -> None:
        cluster.warm()
        validators = cluster.genesis.validators()
        self.cluster = cluster
        self.node = next(node for node in cluster.nodes if node.key.public == primary(validators.voters, 1, 0))
        self.honest = [node for node in cluster.nodes if node is not self.node]
        cluster.drop = lambda source, target, message: self.node in (source, target)

    def forged(self) -> Transaction:
        good, other = self.cluster.credential(), self.cluster.credential(name="kim")
        return Transaction._assemble(good.raw.replace(good.signature, other.signature), good.body_bytes, good.body, other.signature)

    def proposal(self, transactions: list[Transaction]) -> PrePrepare:
        executor = Executor(self.honest[0].engine.chain, Verifier(self.cluster.network))
        time_ms = self.honest[0].engine.head.time_ms + self.cluster.now_ms
        block = executor.build(0, time_ms, self.node.key.public, transactions).block
        prepare = Vote.sign(self.cluster.network, self.node.key, PREPARE, 1, 0, block.header.digest())
        return PrePrepare(block.proposal(), prepare)

    def say(self, target, *messages):
        return target.handle(*(Received(self.node.key.public, message) for message in messages))


@pytest.fixture
def liar(cluster) -> Liar:
    return Liar(cluster)


def test_a_liar_cannot_have_an_honest_hospital_blamed_for_a_forged_transaction_it_proposed(liar):
    first, second, _ = liar.honest
    forged = liar.forged()
    proposal = liar.proposal([forged])
    liar.say(first, proposal, TransactionsOffered((forged,)))
    assert [reply.peer for reply in first.replies_of(PeerAccused)] == [liar.node.key.public] * 2
    liar.say(second, proposal)
    liar.cluster.run(900)  # it asks the proposer, then everybody else
    assert [message for source, _, message, _ in liar.cluster.sent if source == second.index and isinstance(message, TransactionsWanted)]
    assert second.replies_of(PeerAccused) == []
    liar.cluster.run_until(lambda: all(node.height == 1 for node in liar.honest))


def test_a_proposal_of_more_transactions_than_allowed_is_refused_before_any_is_fetched(make_cluster):
    liar = Liar(make_cluster(block_transactions_max=3))
    target = liar.honest[0]
    ready = liar.say(target, liar.proposal([liar.cluster.patient(0, f"patient {index}") for index in range(4)]))
    assert [reply.peer for reply in ready.replies if isinstance(reply, PeerAccused)] == [liar.node.key.public]
    assert not any(isinstance(envelope.message, TransactionsWanted) for envelope in ready.send)
    liar.cluster.run_until(lambda: all(node.height == 1 for node in liar.honest))


def answers(ready, kind: type, peer: bytes) -> int:
    return sum(isinstance(envelope.message, kind) and envelope.to == peer for envelope in ready.send)


def test_a_flood_of_lists_and_questions_is_answered_a_few_times_a_second_and_others_still_are(liar):
    target, other = liar.honest[:2]
    key = liar.node.key.public
    lists = [PoolListed(((bytes([index]) * 32, bytes(32)),)) for index in range(200)]
    liar.cluster.run(1_000)
    assert 1 <= answers(liar.say(target, *lists), TransactionsWanted, key) <= 8
    liar.cluster.run(1_000)
    assert 1 <= answers(liar.say(target, *[PastVotesWanted(bytes(32))] * 200), PastVotesSent, key) <= 8
    liar.cluster.run(1_000)
    transaction = liar.cluster.patient()
    liar.cluster.submit(target, transaction)
    wanted = TransactionsWanted((transaction.entry,))
    assert 1 <= answers(liar.say(target, *[wanted] * 500), TransactionsOffered, key) <= 64
    ready = target.handle(Received(other.key.public, wanted))
    assert answers(ready, TransactionsOffered, other.key.public) == 1
