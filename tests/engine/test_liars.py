"""One authenticated hospital that lies: what it may cost the others, and whom it may bring into discredit."""

from __future__ import annotations

import pytest

from medchain.chain.transaction import Transaction
from medchain.chain.vote import COMMIT, PREPARE, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.consensus.rotation import primary
from medchain.crypto.signing import verify_many
from medchain.engine.executor import Executor
from medchain.engine.ready import Accepted, PeerAccused, Received
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
        return Transaction.decode(good.raw.replace(good.signature, other.signature))

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


@pytest.fixture
def verified(monkeypatch) -> list[int]:
    """How many signatures each check of any node really computed."""
    computed: list[int] = []
    monkeypatch.setattr("medchain.engine.verification.verify_many", lambda items: computed.append(len(items)) or verify_many(items))
    return computed


def votes_for_ever_new_views(liar: Liar, count: int) -> list[Vote]:
    key, network = liar.node.key, liar.cluster.network
    return [Vote.sign(network, key, COMMIT, 1, 100 + view, bytes(32)) for view in range(count)]


def contradicting_votes(liar: Liar, count: int) -> list[Vote]:
    key, network = liar.node.key, liar.cluster.network
    return [Vote.sign(network, key, PREPARE, 1, 3, number.to_bytes(32, "big")) for number in range(count)]


def early_votes(liar: Liar, count: int) -> list[Vote]:
    key, network = liar.node.key, liar.cluster.network
    return [Vote.sign(network, key, PREPARE, 2, 1, number.to_bytes(32, "big")) for number in range(count)]


def view_changes_for_ever_new_views(liar: Liar, count: int) -> list[ViewChange]:
    return [ViewChange.sign(liar.cluster.network, liar.node.key, 1, view, None) for view in range(5, 5 + count)]


def view_changes_of_the_past(liar: Liar, count: int) -> list[ViewChange]:
    return view_changes_for_ever_new_views(liar, count)[::-1]


@pytest.mark.parametrize(
    "flood", [votes_for_ever_new_views, contradicting_votes, early_votes, view_changes_for_ever_new_views, view_changes_of_the_past]
)
def test_validly_signed_floods_cost_few_verifications_a_second_and_honest_votes_still_count(liar, verified, flood):
    """At 56 us each, twenty thousand genuine votes a second for views that nobody is in would take a whole core."""
    messages = flood(liar, 600)
    for node in liar.honest:
        del verified[:]
        liar.say(node, *messages)
        assert 1 <= sum(verified) <= 70
    transaction = liar.cluster.credential()
    liar.cluster.submit(liar.honest[0], transaction)
    liar.cluster.run_until(lambda: liar.cluster.is_decided(transaction, liar.honest), 10_000)


def test_votes_of_a_far_view_decide_for_a_node_that_fell_behind(liar):
    """What is expected of nobody is looked at all the same, only not without end."""
    late, (first, second) = liar.honest[0], liar.honest[1:]
    block = liar.proposal([])
    for key in (liar.node.key, first.key, second.key):
        late.handle(Received(key.public, Vote.sign(liar.cluster.network, key, COMMIT, 1, 40, block.digest)))
    assert late.engine._agreement.replica.decided is not None


def test_gossip_that_would_be_refused_anyway_costs_no_verification(make_cluster, verified, signer):
    """Strangers' transactions, expired and far ones, those of another network, and any at all while the pool has no room for them."""
    cluster = make_cluster()
    liar = Liar(cluster)
    node = liar.honest[0]
    hospital = signer("0 organisation")
    payload = cluster.credential().body.operations[0]
    stranger = cluster.sign(signer("stranger"), Raw(payload))
    useless = [stranger, cluster.credential(valid_until=0), cluster.credential(valid_until=2**30), cluster.credential(chain_id="elsewhere")]
    node.engine._pool.bytes_max = 20_000
    while node.engine.is_admissible(good := cluster.patient(0, f"patient {cluster._nonce}")):
        assert isinstance(cluster.submit(node, good), Accepted)
    known = next(node.engine._pool.entries()).transaction
    useless += [cluster.sign(hospital, Raw(payload)) for _ in range(20)]
    assert not any(node.engine.is_admissible(transaction) for transaction in [*useless, known])
    del verified[:]
    ready = liar.say(node, TransactionsOffered((*useless, known)))
    assert verified == [] and not any(isinstance(reply, PeerAccused) for reply in ready.replies)


class Raw:
    """An operation as it is."""

    def __init__(self, operation) -> None:
        self._operation = operation

    def operation(self):
        return self._operation
