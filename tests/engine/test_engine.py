"""Whole engines together: deciding, restarting, catching up, and what clients may do to them."""

from __future__ import annotations

import itertools

import pytest

from medchain import codec
from medchain.chain.transaction import Operation, Transaction, TransactionBody
from medchain.chain.vote import COMMIT, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.crypto.sealing import SUITE_X25519
from medchain.engine.engine import Engine
from medchain.engine.proposer import BUILDING_MS_MAX
from medchain.engine.ready import (
    Accepted,
    Alarm,
    BlockDecided,
    Ready,
    Received,
    Refused,
    Submitted,
    TransactionsExpired,
)
from medchain.engine.verification import Verifier
from medchain.errors import Rejected
from medchain.ledger.people import Credential
from medchain.store import layout
from medchain.store.memory import MemoryKeyValue


def refused(answer, code: str) -> bool:
    return isinstance(answer, Refused) and answer.code == code and answer.message


# ---- deciding -------------------------------------------------------------------------------------------------------------------


def test_four_engines_decide_a_transaction_and_agree_on_the_state(cluster):
    cluster.warm()
    transaction = cluster.credential()
    answer = cluster.submit(cluster.nodes[0], transaction)
    assert answer == Accepted(7, transaction.id, False)
    cluster.run_until(lambda: cluster.is_decided(transaction))
    cluster.check_agreement()
    decided = cluster.nodes[2].replies_of(BlockDecided)
    assert [receipt.transaction_id for receipt in decided[-1].receipts] == [transaction.id]
    assert decided[-1].receipts[0].is_accepted
    assert cluster.nodes[1].ask("tx.status", id=transaction.id)["status"] == "decided"


@pytest.mark.parametrize("count", [4, 5, 7])
def test_networks_of_several_sizes_decide_many_transactions(make_cluster, count):
    cluster = make_cluster(count)
    cluster.warm()
    transactions = [cluster.patient(index % count, f"patient {index}") for index in range(60)]
    for index, transaction in enumerate(transactions):
        cluster.submit(cluster.nodes[index % count], transaction)
        if index % 7 == 0:
            cluster.tick()
    cluster.run_until(lambda: all(cluster.is_decided(transaction) for transaction in transactions))
    cluster.check_agreement()
    assert all(node.engine.status()["view"] == 0 for node in cluster.nodes)
    assert all(len(node.engine._pool) == 0 for node in cluster.nodes)


def test_nothing_is_sent_before_the_turn_that_promises_it_is_written(cluster):
    """A Ready that sends a vote also writes it: durable before said (protocol.md)."""
    cluster.warm()
    promised: list[tuple[bytes, bool]] = []
    for node in cluster.nodes:
        original = node.handle

        def watch(*events, node=node, original=original):
            ready = original(*events)
            for envelope in ready.send:
                message = envelope.message
                vote = message.prepare if isinstance(message, PrePrepare) else message
                if isinstance(vote, Vote) and vote.signer == node.key.public:
                    prefix = layout.hard_state_key(vote.height, b"a", bytes((vote.kind,)) + layout.uint64(vote.view))
                    promised.append((vote.signature, node.store.get(prefix) is not None or node.height >= vote.height))
            return ready

        node.handle = watch
    cluster.settle(cluster.nodes[0], cluster.credential())
    assert len(promised) >= 8
    assert all(is_written for _, is_written in promised)


def test_an_idle_network_decides_an_empty_block_each_heartbeat(make_cluster):
    cluster = make_cluster(heartbeat_ms=1_000)
    cluster.warm()
    cluster.run(5_000)
    cluster.check_agreement()
    assert all(3 <= node.height <= 6 for node in cluster.nodes)
    assert all(node.engine.status()["view"] == 0 for node in cluster.nodes)


def test_blocks_keep_their_distance(make_cluster):
    cluster = make_cluster(block_interval_min_ms=500)
    cluster.warm()
    transactions = [cluster.patient(0, f"patient {index}") for index in range(20)]
    for transaction in transactions:
        cluster.submit(cluster.nodes[0], transaction)
        cluster.run(100)
    cluster.run_until(lambda: all(cluster.is_decided(transaction) for transaction in transactions))
    chain = cluster.nodes[0].engine.chain
    times = [chain.header_of(height).time_ms for height in range(1, chain.height + 1)]
    assert all(later - earlier >= 480 for earlier, later in itertools.pairwise(times))


def test_a_primary_whose_block_is_due_later_wants_its_turn_just_then(make_cluster):
    """Bug: it waited for the next look at the clock, up to 20 ms after the interval had passed."""
    cluster = make_cluster(block_interval_min_ms=500)
    cluster.warm()
    cluster.settle(cluster.nodes[0], cluster.patient(0, "the first"))
    primary = cluster.primary
    ready = primary.handle(Submitted(7, cluster.patient(0, "the second")))
    assert 0 < ready.again_ms <= 500
    assert not any(isinstance(envelope.message, PrePrepare) for envelope in ready.send)
    cluster.now_ms += ready.again_ms - 1
    early = primary.tick()
    assert early.again_ms == 1 and not any(isinstance(envelope.message, PrePrepare) for envelope in early.send)
    cluster.now_ms += 1
    due = primary.tick()
    assert due.again_ms is None and any(isinstance(envelope.message, PrePrepare) for envelope in due.send)


def test_interval_runs_from_when_the_last_block_was_made_whatever_the_clocks_say(make_cluster):
    cluster = make_cluster(block_interval_min_ms=500)
    cluster.warm()
    cluster.settle(cluster.nodes[0], cluster.patient(0, "the first"))
    primary = cluster.primary
    assert primary.handle(Submitted(7, cluster.patient(0, "the second"))).again_ms
    proposer, wall_ms = primary.engine._agreement.proposer, primary.engine._turn.wall_ms
    for made_ms, left_ms in ((wall_ms, 500), (wall_ms - 14, 486), (wall_ms - 10_000, 500 - BUILDING_MS_MAX), (wall_ms + 10_000, 500)):
        proposer.saw_proposal(made_ms)
        assert proposer.due_in_ms() == left_ms
    proposer.saw_proposal()
    assert proposer.due_in_ms() == 500


# ---- faults ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", range(4))
def test_one_dead_hospital_stops_nobody(cluster, dead):
    cluster.warm()
    cluster.kill(cluster.nodes[dead])
    for round_number in range(5):
        cluster.settle(cluster.living[round_number % 3], cluster.patient(0, f"patient {round_number}"))
    cluster.check_agreement()


def test_a_dead_primary_is_replaced_and_returns_by_catching_up(cluster):
    cluster.warm()
    primary = cluster.primary
    cluster.kill(primary)
    transaction = cluster.credential()
    cluster.settle(cluster.living[0], transaction)
    block = cluster.living[0].engine.chain.block_of(1)
    assert block.header.view >= 1
    cluster.restart(primary)
    cluster.run_until(lambda: primary.height == cluster.nodes[0].height or primary.height == max(n.height for n in cluster.living))
    cluster.settle(primary, cluster.credential(name="kim"))
    cluster.check_agreement()


def test_two_dead_stop_the_chain_and_one_coming_back_lets_it_go_on(cluster):
    cluster.warm()
    cluster.settle(cluster.nodes[0], cluster.credential())
    height = cluster.nodes[0].height
    cluster.kill(cluster.nodes[2])
    cluster.kill(cluster.nodes[3])
    transaction = cluster.credential(name="kim")
    cluster.submit(cluster.nodes[0], transaction)
    cluster.run(15_000)
    assert [node.height for node in cluster.living] == [height, height]
    cluster.restart(cluster.nodes[2])
    cluster.run_until(lambda: cluster.is_decided(transaction), 30_000)
    cluster.check_agreement()


def test_a_lagging_node_catches_up_over_many_blocks(cluster):
    cluster.warm()
    lagging = cluster.nodes[3]
    for other in cluster.nodes[:3]:
        cluster.disconnect(lagging, other)
    for index in range(90):
        cluster.settle(cluster.nodes[index % 3], cluster.patient(0, f"patient {index}"), among=cluster.nodes[:3])
    assert lagging.height == 0
    for other in cluster.nodes[:3]:
        cluster.connect(lagging, other)
    cluster.run_until(lambda: lagging.height == cluster.nodes[0].height, 5_000)
    cluster.check_agreement()
    cluster.settle(lagging, cluster.credential())


def test_messages_lost_at_random_delay_but_do_not_stop(cluster):
    cluster.warm()
    counter = [0]

    def drop(source, target, message):
        counter[0] += 1
        return counter[0] * 7919 % 10 < 3

    cluster.drop = drop
    for index in range(10):
        cluster.settle(cluster.nodes[index % 4], cluster.patient(0, f"patient {index}"), 120_000)
    cluster.drop = lambda *_: False
    cluster.run(3_000)
    cluster.check_agreement()


def test_a_partition_heals(cluster):
    cluster.warm()
    for left in cluster.nodes[:2]:
        for right in cluster.nodes[2:]:
            cluster.disconnect(left, right)
    transactions = [cluster.credential(name="lee"), cluster.credential(1, name="kim")]
    cluster.submit(cluster.nodes[0], transactions[0])
    cluster.submit(cluster.nodes[3], transactions[1])
    cluster.run(20_000)
    assert {node.height for node in cluster.nodes} == {0}
    for left in cluster.nodes[:2]:
        for right in cluster.nodes[2:]:
            cluster.connect(left, right)
    cluster.run_until(lambda: all(cluster.is_decided(transaction) for transaction in transactions), 30_000)
    cluster.check_agreement()


# ---- restarting -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", range(4))
def test_restart_after_every_durable_write_of_a_block_never_promises_twice(make_cluster, victim):
    """Whenever a node dies after a write, it returns from what was written, and the network decides the same block everywhere."""
    point = 0
    while True:
        cluster = make_cluster()
        cluster.warm()
        node = cluster.nodes[victim]
        signed: dict[tuple, bytes] = {}
        writes = [0]
        original = node.handle

        def watch(*events, node=node, original=original, writes=writes, signed=signed, cluster=cluster, point=point):
            if not node.is_alive:
                return Ready()
            ready = original(*events)
            for envelope in ready.send:
                message = envelope.message
                vote = message.prepare if isinstance(message, PrePrepare) else message
                if isinstance(vote, Vote | ViewChange) and vote.signer == node.key.public:
                    kind = vote.kind if isinstance(vote, Vote) else 0
                    assert signed.setdefault((kind, vote.height, vote.view), vote.digest) == vote.digest
            if ready.batch:
                writes[0] += 1
                if writes[0] == point + 1:
                    cluster.kill(node)
            return ready

        transactions = [cluster.credential(), cluster.credential(1, name="kim")]
        node.handle = watch
        cluster.submit(node, transactions[0])
        if node.is_alive:
            cluster.submit(cluster.nodes[(victim + 1) % 4], transactions[1])
        for _ in range(200):
            if not node.is_alive or writes[0] > 12:
                break
            cluster.tick()
        if node.is_alive:
            break
        cluster.run(200)
        cluster.restart(node)
        cluster.run_until(lambda cluster=cluster, first=transactions[0]: cluster.is_decided(first), 30_000)
        cluster.settle(cluster.nodes[victim], cluster.credential(2, name="park"), 30_000)
        cluster.check_agreement()
        point += 1
    assert point >= 4


def test_restart_of_everybody_at_once_goes_on_without_help(cluster):
    cluster.warm()
    cluster.settle(cluster.nodes[0], cluster.credential())
    transaction = cluster.credential(name="kim")
    cluster.submit(cluster.nodes[1], transaction)
    for node in cluster.nodes:
        cluster.kill(node)
    for node in cluster.nodes:
        cluster.restart(node)
    cluster.run_until(lambda: cluster.is_decided(transaction))
    cluster.check_agreement()


def test_an_accepted_transaction_survives_the_kill_of_the_only_node_that_holds_it(cluster):
    cluster.warm()
    node = cluster.nodes[2]
    for other in cluster.nodes:
        if other is not node:
            cluster.disconnect(node, other)
    transaction = cluster.credential()
    assert isinstance(cluster.submit(node, transaction), Accepted)
    cluster.kill(node)
    cluster.run(1_000)
    cluster.restart(node)
    cluster.run_until(lambda: cluster.is_decided(transaction))


def test_a_restart_finds_head_state_pool_and_indexes_as_they_were(cluster):
    cluster.warm()
    transaction = cluster.patient()
    cluster.settle(cluster.nodes[0], transaction)
    node = cluster.nodes[0]
    head, peaks = node.engine.head, node.engine.chain.history.root
    again = Engine(
        genesis=cluster.genesis, store=node.store, consensus_key=node.key, verifier=Verifier(cluster.network), challenge=bytes(32)
    )
    assert again.head == head
    assert again.chain.history.root == peaks
    assert again.chain.archive.locate(transaction.id) == (head.height, 0)
    assert again.chain.certificate == node.engine.chain.certificate


# ---- what clients may do --------------------------------------------------------------------------------------------------------


def test_a_transaction_handed_in_twice_is_one_transaction(cluster):
    cluster.warm()
    transaction = cluster.credential()
    assert cluster.submit(cluster.nodes[0], transaction) == Accepted(7, transaction.id, False)
    assert cluster.submit(cluster.nodes[0], transaction) == Accepted(7, transaction.id, True)
    cluster.run_until(lambda: cluster.is_decided(transaction))
    assert refused(cluster.submit(cluster.nodes[0], transaction), "transaction.decided")
    assert refused(cluster.submit(cluster.nodes[3], transaction), "transaction.decided")


def test_expired_and_far_transactions_are_refused_by_code(cluster):
    cluster.warm()
    node = cluster.nodes[0]
    assert refused(cluster.submit(node, cluster.credential(valid_until=0)), "transaction.expired")
    assert isinstance(cluster.submit(node, cluster.credential(valid_until=51)), Accepted)
    assert refused(cluster.submit(node, cluster.credential(valid_until=52)), "transaction.too-far")


def test_forged_foreign_and_unknown_transactions_are_refused_by_code_and_change_nothing(cluster, signer, other_genesis):
    cluster.warm()
    node = cluster.nodes[0]
    good = cluster.credential()
    payload = Credential(signer("lee").public, SUITE_X25519, bytes(32), "physician", "general", 2**40, bytes(64))
    hospital = signer("0 organisation")
    unsound = TransactionBody(cluster.genesis.chain_id, hospital.public, 40, (Operation("people.credential", [1]),), bytes(8))
    wrong = {
        "transaction.signature": Transaction.decode(codec.encode([good.body_bytes, [1, bytes(64)]])),
        "transaction.other-network": cluster.credential(chain_id="elsewhere"),
        "transaction.sender-unknown": cluster.sign(signer("stranger"), payload),
        "operation.malformed": Transaction.sign(unsound, hospital, cluster.network),
    }
    before = list(node.store.iterate(b"", b"\xff" * 8))
    for code, transaction in wrong.items():
        assert refused(cluster.submit(node, transaction), code), code
    replayed = cluster.sign(hospital, payload, network=other_genesis.domain())
    assert refused(cluster.submit(node, replayed), "transaction.signature")
    assert list(node.store.iterate(b"", b"\xff" * 8)) == before
    cluster.run(2_000)
    assert {node.height for node in cluster.nodes} == {0}


def test_a_transaction_nobody_includes_ends_as_expired_and_its_submitter_is_told(cluster):
    cluster.warm()
    node = cluster.nodes[3]
    for other in cluster.nodes[:3]:
        cluster.disconnect(node, other)
    transaction = cluster.credential(name="kim", valid_until=2)
    assert isinstance(cluster.submit(node, transaction), Accepted)
    for index in range(3):
        cluster.settle(cluster.nodes[0], cluster.patient(0, f"patient {index}"), among=cluster.nodes[:3])
    for other in cluster.nodes[:3]:
        cluster.connect(node, other)
    cluster.run_until(lambda: node.height == cluster.nodes[0].height)
    assert node.replies_of(TransactionsExpired) == [TransactionsExpired((transaction.id,))]
    assert node.ask("tx.status", id=transaction.id)["status"] == "expired"
    assert node.store.get(layout.pool_key(transaction.id)) is None


# ---- stores ---------------------------------------------------------------------------------------------------------------------


def start(cluster, store: MemoryKeyValue, genesis=None) -> Engine:
    return Engine(
        genesis=genesis or cluster.genesis,
        store=store,
        consensus_key=cluster.nodes[0].key,
        verifier=Verifier(cluster.network),
        challenge=bytes(32),
    )


def test_a_store_of_another_network_is_refused(cluster, other_genesis):
    with pytest.raises(Rejected) as refusal:
        start(cluster, cluster.nodes[0].store, other_genesis)
    assert refusal.value.code == "store.other-network"


def test_a_store_of_another_version_is_refused(cluster):
    store = cluster.nodes[0].store.copy()
    store.write(store_batch((layout.meta_key("version"), layout.uint64(99))))
    with pytest.raises(Rejected) as refusal:
        start(cluster, store)
    assert refusal.value.code == "store.version"


def store_batch(*operations):
    from medchain.store.keyvalue import WriteBatch

    return WriteBatch(operations)


@pytest.mark.parametrize("prefix", [layout.HEAD, layout.BODY, layout.CERTIFICATE, layout.STATE, layout.HISTORY, layout.POOL, b"m/set/"])
def test_a_damaged_store_is_refused_with_a_sentence(cluster, prefix):
    cluster.warm()
    cluster.settle(cluster.nodes[0], cluster.credential())
    for other in cluster.nodes[1:]:
        cluster.disconnect(cluster.nodes[0], other)
    cluster.submit(cluster.nodes[0], cluster.credential(name="kim"))
    intact = cluster.nodes[0].store
    rows = list(intact.iterate(prefix, prefix[:-1] + bytes((prefix[-1] + 1,))))
    assert rows
    store = intact.copy()
    for key, value in rows:
        store.write(store_batch((key, value[:-1] + bytes((value[-1] ^ 1,)) if value else b"x")))
    with pytest.raises(Rejected) as refusal:
        start(cluster, store)
    assert refusal.value.code == "store.inconsistent"
    assert "move the data folder" in refusal.value.message


def test_damaged_hard_state_is_refused_with_a_sentence(cluster):
    cluster.warm()
    cluster.drop = lambda source, target, message: isinstance(message, Vote) and message.kind == COMMIT
    cluster.submit(cluster.nodes[0], cluster.credential())
    cluster.run(300)
    store = cluster.nodes[0].store.copy()
    key, value = next((key, value) for key, value in store.iterate(layout.HARD_STATE, b"v0") if key[10:11] == b"a")
    store.write(store_batch((key, value[:-1])))
    with pytest.raises(Rejected) as refusal:
        start(cluster, store)
    assert refusal.value.code == "store.inconsistent"


def test_an_alarm_is_raised_when_a_second_holder_of_the_key_votes(cluster):
    cluster.warm()
    node, other = cluster.nodes[0], cluster.nodes[1]
    ready = node.handle(Received(other.key.public, Vote.sign(cluster.network, node.key, COMMIT, 1, 0, b"9" * 32)))
    assert [reply.code for reply in ready.replies if isinstance(reply, Alarm)] == ["amnesia.unknown-vote"]
    assert not node.engine.status()["may_vote"]
    cluster.settle(other, cluster.credential(), 30_000)
    assert not any(
        isinstance(message, Vote) and message.signer == node.key.public and source == node.index for source, _, message, _ in cluster.sent
    )


def test_events_of_clients_and_peers_share_one_turn_and_one_batch(cluster):
    cluster.warm()
    node = cluster.nodes[0]
    transactions = [cluster.patient(0, f"patient {index}") for index in range(5)]
    ready = node.handle(*(Submitted(index, transaction) for index, transaction in enumerate(transactions)))
    assert [reply.request for reply in ready.replies if isinstance(reply, Accepted)] == [0, 1, 2, 3, 4]
    assert sum(1 for key, _ in ready.batch.operations if key.startswith(layout.POOL)) == 5


def test_time_that_passed_in_a_long_turn_is_no_silence_of_the_others(cluster):
    """What they said meanwhile waits in the inbox: a view lasts until there was time to hear it."""
    cluster.warm()
    cluster.drop = lambda source, target, message: isinstance(message, PrePrepare)
    cluster.submit(cluster.nodes[0], cluster.credential())
    cluster.run(100)
    node = cluster.nodes[1]
    before = node.engine.status()["agreement"]
    cluster.now_ms += 5_000
    node.tick()
    after = node.engine.status()["agreement"]
    assert (before["view"], after["view"]) == (0, 0)
    assert after["timer_left_ms"] == before["timer_left_ms"] - 100
    cluster.run_until(lambda: node.engine.status()["agreement"]["view"] > 0, 4_000)


def test_a_primary_whose_views_are_lost_proposes_less(make_cluster):
    """In view 0 all that waits, in view 1 half of what a block may hold; and the height is decided with that."""
    cluster = make_cluster(block_weight_max=200)
    cluster.warm()
    proposed = {}

    def drop(source, target, message) -> bool:
        if isinstance(message, PrePrepare):
            proposed.setdefault(message.view, len(message.proposal.entries))
        return isinstance(message, PrePrepare) and message.view == 0

    cluster.drop = drop
    for number in range(12):
        cluster.submit(cluster.nodes[0], cluster.credential(name=f"clinician {number}"))
    height = cluster.nodes[0].height
    cluster.run_until(lambda: all(node.height > height for node in cluster.nodes))
    assert proposed[1] <= proposed[0] // 2 + 1 < proposed[0]
