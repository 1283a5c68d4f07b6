"""Whole engines together: what peers may do to one, and what it asks of them."""

from __future__ import annotations

from medchain import codec
from medchain.chain.certificate import Certificate
from medchain.chain.transaction import Transaction
from medchain.chain.vote import COMMIT, PREPARE, ViewChange, Vote
from medchain.engine import verification
from medchain.engine.allowance import POINTS_PER_SECOND, PROPOSAL_POINTS
from medchain.engine.engine import Engine
from medchain.engine.ready import (
    Accepted,
    PeerAccused,
    Received,
    Refused,
)
from medchain.store.memory import MemoryKeyValue
from medchain.wire.peer import BlockSent, BlockWanted, PoolListed, ProposalWanted, RangeSent, TransactionsOffered, TransactionsWanted


def test_a_proposed_transaction_that_a_backup_lacks_is_fetched(cluster):
    cluster.warm()
    primary = cluster.primary
    cluster.drop = lambda source, target, message: isinstance(message, TransactionsOffered) and not fetched
    fetched: list[bool] = []
    original = cluster.drop

    def drop(source, target, message):
        if isinstance(message, TransactionsWanted):
            fetched.append(True)
        return original(source, target, message)

    cluster.drop = drop
    cluster.settle(primary, cluster.credential(), 3_000)
    assert fetched
    assert all(node.engine.status()["view"] == 0 for node in cluster.nodes)


def test_a_backup_that_holds_the_body_with_another_authentication_fetches_the_proposed_one(cluster, signer):
    """A sender signs a body alone and once more in a batch: two genuine authentications, and blocks name one of them."""
    cluster.warm()
    primary = cluster.primary
    backup, silent, _ = (node for node in cluster.nodes if node is not primary)
    transaction = cluster.credential()
    other = cluster.credential(name="kim")
    twin, _ = Transaction.sign_batch([transaction.body, other.body], signer("0 organisation"), cluster.network)
    assert (twin.id, twin.authentication_digest != transaction.authentication_digest) == (transaction.id, True)
    placement = backup.engine._admission.place(transaction)
    backup.engine._pool.add(twin, placement, is_local=False, now_ms=0)
    wanted: list[TransactionsWanted] = []

    def watch(source, target, message):
        if isinstance(message, TransactionsWanted) and source is backup:
            wanted.append(message)
        if target is backup and isinstance(message, TransactionsOffered):
            return not wanted
        return source is silent and isinstance(message, Vote)  # the others need this backup, or they are done before it asks

    cluster.drop = watch
    cluster.settle(primary, transaction, 5_000)
    assert wanted[0].entries == (transaction.entry,)
    assert backup.engine.chain.block_of(1).transactions[0].entry == transaction.entry


def test_a_batch_is_verified_once_a_node_and_each_of_it_is_decided(cluster, signer, monkeypatch):
    cluster.warm()
    bodies = [cluster.credential(name=f"person {number}").body for number in range(16)]
    batch = Transaction.sign_batch(bodies, signer("0 organisation"), cluster.network)
    checked: list[tuple[bytes, bytes, bytes]] = []
    real = verification.verify_many
    monkeypatch.setattr(verification, "verify_many", lambda items: checked.extend(items) or real(items))
    for transaction in batch:
        assert isinstance(cluster.submit(cluster.nodes[0], transaction), Accepted)
    cluster.run_until(lambda: all(cluster.is_decided(transaction) for transaction in batch))
    assert checked.count(batch[0].verification(cluster.network)) == len(cluster.nodes)
    cluster.check_agreement()


def test_a_path_that_does_not_lead_to_what_was_signed_is_refused_and_blamed(cluster, signer):
    """The signature is genuine and of a batch that this body was never in."""
    cluster.warm()
    bodies = [cluster.credential(name=f"person {number}").body for number in range(3)]
    genuine = Transaction.sign_batch(bodies[:2], signer("0 organisation"), cluster.network)[0]
    authentication = codec.decode(genuine.raw)[1]
    smuggled = Transaction.decode(codec.encode([bodies[2].encode(), authentication]))
    node, peer = cluster.nodes[0], cluster.nodes[1]
    answer = cluster.submit(node, smuggled)
    assert isinstance(answer, Refused) and answer.code == "transaction.signature"
    ready = node.handle(Received(peer.key.public, TransactionsOffered((smuggled,))))
    assert [reply.peer for reply in ready.replies if isinstance(reply, PeerAccused)] == [peer.key.public]
    assert not ready.batch and node.engine.status()["pool_transactions"] == 0


def test_a_transaction_known_only_to_one_node_reaches_the_others_by_their_lists(cluster):
    cluster.warm()
    lost = [True]
    cluster.drop = lambda source, target, message: isinstance(message, TransactionsOffered) and lost[0]
    node = next(node for node in cluster.nodes if node is not cluster.primary)
    transaction = cluster.credential()
    cluster.submit(node, transaction)
    cluster.run(40)
    lost[0] = False
    cluster.run_until(lambda: cluster.is_decided(transaction), 5_000)
    assert any(isinstance(message, PoolListed) for _, _, message, _ in cluster.sent)


def test_forwarding_sends_each_transaction_about_once_to_each_peer(cluster):
    """Bytes of gossip are measured: no flooding (lessons.md: cometbft #1058)."""
    cluster.warm()
    transactions = [cluster.patient(0, f"patient {index}") for index in range(100)]
    for transaction in transactions:
        cluster.submit(cluster.nodes[0], transaction)
    cluster.run_until(lambda: all(cluster.is_decided(transaction) for transaction in transactions))
    offered = sum(len(message.transactions) for _, _, message, _ in cluster.sent if isinstance(message, TransactionsOffered))
    assert 300 <= offered <= 310


def test_a_forged_vote_is_named_and_counts_for_nothing(cluster):
    cluster.warm()
    node, liar, victim = cluster.nodes[0], cluster.nodes[1], cluster.nodes[2]
    vote = Vote(COMMIT, 1, 0, bytes(32), victim.key.public, bytes(64))
    ready = node.handle(Received(liar.key.public, vote))
    assert [reply.peer for reply in ready.replies if isinstance(reply, PeerAccused)] == [liar.key.public]
    change = ViewChange(1, 9, None, None, victim.key.public, bytes(64))
    ready = node.handle(Received(liar.key.public, change))
    assert [reply.peer for reply in ready.replies if isinstance(reply, PeerAccused)] == [liar.key.public]
    assert not ready.batch


def test_a_view_change_without_its_proof_is_named(cluster):
    cluster.warm()
    node, liar = cluster.nodes[0], cluster.nodes[1]
    message = ViewChange.message(cluster.network, 1, 3, 2, bytes(32))
    change = ViewChange(1, 3, 2, bytes(32), liar.key.public, liar.key.sign(message))
    ready = node.handle(Received(liar.key.public, change))
    assert any(isinstance(reply, PeerAccused) and "proof" in reply.reason for reply in ready.replies)


def test_a_huge_view_number_by_one_liar_does_nothing(cluster):
    cluster.warm()
    liar = cluster.nodes[1]
    change = ViewChange.sign(cluster.network, liar.key, 1, 2**31, None)
    for node in cluster.nodes:
        if node is not liar:
            node.handle(Received(liar.key.public, change))
    cluster.settle(cluster.nodes[0], cluster.credential(), 5_000)


def test_a_liar_in_sync_is_named_and_another_peer_is_asked(cluster):
    cluster.warm()
    for index in range(5):
        cluster.settle(cluster.nodes[0], cluster.patient(0, f"patient {index}"))
    lagging, liar = cluster.nodes[3], cluster.nodes[0]
    cluster.kill(lagging)
    lagging.store = MemoryKeyValue()
    lagging.store.write(Engine.founding_batch(cluster.genesis))
    forged = []
    for height in (1, 2):
        block = liar.engine.chain.block_of(height)
        real = liar.engine.chain.certificate_of(height)
        forged.append((block, Certificate(height, real.view, real.digest, tuple((index, bytes(64)) for index, _ in real.commits))))
    cluster.drop = lambda source, target, message: isinstance(message, RangeSent) and source is liar
    cluster.restart(lagging)
    ready = lagging.handle(Received(liar.key.public, RangeSent(tuple(forged))))
    assert [reply.peer for reply in ready.replies if isinstance(reply, PeerAccused)] == [liar.key.public]
    assert lagging.height == 0
    cluster.run_until(lambda: lagging.height == liar.height, 5_000)
    cluster.check_agreement()


def test_a_decided_height_is_answered_with_its_block(cluster):
    cluster.warm()
    cluster.settle(cluster.nodes[0], cluster.credential())
    cluster.run(1_000)
    node, peer = cluster.nodes[0], cluster.nodes[1]
    late = Vote.sign(cluster.network, peer.key, PREPARE, 1, 5, bytes(32))
    sent = node.handle(Received(peer.key.public, late)).send
    assert [type(envelope.message) for envelope in sent] == [RangeSent]
    assert sent[0].message.blocks[0][0].header.height == 1
    assert node.handle(Received(peer.key.public, late)).send == ()


def test_a_pinned_block_is_served_until_its_height_is_decided(cluster):
    cluster.warm()
    primary = cluster.primary
    cluster.drop = lambda source, target, message: isinstance(message, Vote)
    cluster.submit(primary, cluster.credential())
    cluster.run(200)
    backup = next(node for node in cluster.nodes if node is not primary)
    (digest,) = backup.engine.chain.archive.pinned(1)
    cluster.kill(backup)
    cluster.restart(backup)
    sent = backup.handle(Received(primary.key.public, BlockWanted(1, digest))).send
    assert [envelope.message.block.header.digest() for envelope in sent if isinstance(envelope.message, BlockSent)] == [digest]


def test_a_backup_that_the_primary_leaves_out_gets_the_proposal_and_its_transactions_from_a_voter(cluster):
    """The primary proposes to two of three and gives its commit to nobody: without the third there is no quorum, and no turn is lost."""
    cluster.warm()
    primary = cluster.primary
    left_out = next(node for node in cluster.nodes if node is not primary)
    cluster.drop = lambda source, target, message: source is primary and (
        target is left_out or (isinstance(message, Vote) and message.kind == COMMIT)
    )
    transaction = cluster.credential()
    cluster.submit(primary, transaction)
    others = [node for node in cluster.nodes if node is not primary]
    cluster.run_until(lambda: all(node.height == 1 for node in others), 600)
    asked = [(source, target) for source, target, message, _ in cluster.sent if isinstance(message, ProposalWanted)]
    assert asked and {source for source, _ in asked} == {left_out.index} and primary.index not in {target for _, target in asked}
    assert left_out.engine.chain.certificate_of(1).view == 0
    assert not any(isinstance(message, ViewChange) for _, _, message, _ in cluster.sent)
    assert cluster.is_decided(transaction)


def test_a_proposal_is_given_to_a_peer_that_asks_and_a_decided_height_answers_with_its_block(cluster):
    cluster.warm()
    primary = cluster.primary
    holder, asker = [node for node in cluster.nodes if node is not primary][:2]
    cluster.drop = lambda source, target, message: isinstance(message, Vote)
    cluster.submit(primary, cluster.credential())
    cluster.run(200)
    (envelope,) = holder.handle(Received(asker.key.public, ProposalWanted(1, 0))).send
    assert (envelope.to, envelope.message.prepare.signer, envelope.message.view) == (asker.key.public, primary.key.public, 0)
    for height, view in ((1, 1), (2, 0), (3, 0)):
        assert holder.handle(Received(asker.key.public, ProposalWanted(height, view))).send == ()
    cluster.drop = lambda source, target, message: False
    cluster.run_until(lambda: holder.height == 1)
    cluster.run(1_000)
    (envelope,) = holder.handle(Received(asker.key.public, ProposalWanted(1, 0))).send
    assert [block.header.height for block, _ in envelope.message.blocks] == [1]


def test_proposals_are_given_a_few_times_a_second_and_no_more(cluster):
    cluster.warm()
    primary = cluster.primary
    asker = next(node for node in cluster.nodes if node is not primary)
    cluster.drop = lambda source, target, message: isinstance(message, Vote)
    cluster.submit(primary, cluster.credential())
    cluster.run(200)
    answers = [primary.handle(Received(asker.key.public, ProposalWanted(1, 0))).send for _ in range(50)]
    assert 1 <= sum(len(answer) for answer in answers) <= POINTS_PER_SECOND // PROPOSAL_POINTS


def test_a_network_in_view_change_proposes_the_prepared_block_again(cluster):
    """Commits are lost until the primary dies: the block everybody prepared must be the one decided, byte for byte."""
    cluster.warm()
    primary = cluster.primary
    cluster.drop = lambda source, target, message: isinstance(message, Vote) and message.kind == COMMIT
    transaction = cluster.credential()
    cluster.submit(primary, transaction)
    cluster.run(300)
    (digest,) = cluster.living[0].engine.chain.archive.pinned(1)
    cluster.kill(primary)
    cluster.drop = lambda source, target, message: False
    cluster.run_until(lambda: cluster.is_decided(transaction), 30_000)
    chain = cluster.living[0].engine.chain
    assert chain.archive.digest_of(1) == digest
    assert chain.certificate_of(1).view >= 0
    cluster.check_agreement()


def test_the_same_events_give_the_same_ready(cluster):
    """Returned values, not callbacks: a run replays from its events (house.md)."""
    twin = type(cluster)()
    for one in (cluster, twin):
        one.warm()
        one.submit(one.nodes[0], one.credential())
        one.run(500)
    assert [node.replies for node in cluster.nodes] == [node.replies for node in twin.nodes]
    assert cluster.sent == twin.sent
