"""What broke in other systems and concerns one node among its peers: a scenario a failure, named after it (list: tests/LESSONS.md)."""

from __future__ import annotations

import itertools
import random
import shutil
import sys
from dataclasses import replace

import pytest

from medchain.chain.receipt import decode_receipts
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.engine.engine import Engine
from medchain.engine.ready import Alarm, PeerAccused, Received, Submitted
from medchain.engine.verification import Verifier
from medchain.errors import Malformed
from medchain.ledger.epochs import Interim
from medchain.ledger.people import pseudonym_of
from medchain.ledger.records import Content, Register
from medchain.sim.disk import Disk
from medchain.store.leveldb import LevelDB
from medchain.wire.peer import PoolListed, RangeSent, TransactionsOffered, TransactionsWanted, decode_message, encode_message


def leader_of(cluster, view: int = 0):
    """The node that leads this view of the present height, as a living replica computes it."""
    chain = cluster.living[0].engine.chain
    return next(node for node in cluster.nodes if node.key.public == primary_key(chain, view))


def primary_key(chain, view: int) -> bytes:
    from medchain.consensus.rotation import primary

    return primary(chain.rotation, chain.height + 1, view)


def may_vote(node) -> bool:
    return node.engine.status()["may_vote"]


# ---- torn logs --------------------------------------------------------------------------------------------------------------


class LoggedNode:
    """A node of a cluster on a disk that keeps a log, stopped in the middle of a height: it has prepared, nothing is decided."""

    def __init__(self, cluster, store) -> None:
        self.cluster = cluster
        self.node = cluster.nodes[3]
        cluster.warm()
        cluster.settle(cluster.nodes[0], cluster.credential())
        cluster.kill(self.node)
        store.write(_everything(self.node.store))
        self.node.store = store
        cluster.restart(self.node)
        cluster.run_until(lambda: may_vote(self.node))
        cluster.settle(cluster.nodes[0], cluster.credential(1, name="park"))
        cluster.drop = lambda source, target, message: isinstance(message, Vote) and message.kind == COMMIT
        cluster.submit(cluster.nodes[0], cluster.credential(name="kim"))
        cluster.run(200)
        cluster.kill(self.node)

    def start(self, store, is_damaged: bool):
        self.node.store = store
        self.node.replies.clear()
        self.cluster.restart(self.node, is_store_damaged=is_damaged)
        return self.node


def _everything(store):
    from medchain.store.keyvalue import WriteBatch

    return WriteBatch(tuple(store.iterate(b"", b"\xff" * 8)))


def test_a_torn_log_tail_keeps_the_node_from_starting_tendermint_3295(make_cluster):
    """The log cut at every byte of the last write and many before: it starts by itself; forgotten votes make it observe, not vote again."""
    disk = Disk()
    logged = LoggedNode(make_cluster(), disk.open())
    whole = bytes(disk._log)
    starts = record_starts(whole)
    outcomes = set()
    for cut in [*range(starts[-6], starts[-1], 23), *range(starts[-1], len(whole) + 1)]:
        disk._log = bytearray(whole[:cut])
        store = disk.open()
        assert not disk.is_damaged, cut
        engine = Engine(
            genesis=logged.cluster.genesis, store=store, consensus_key=logged.node.key, verifier=Verifier(logged.cluster.network),
            challenge=bytes(32),
        )  # fmt: skip
        assert engine.head.height >= 1
    for cut in starts[-4:] + [len(whole)]:
        disk._log = bytearray(whole[:cut])
        node = logged.start(disk.open(), disk.is_damaged)
        first = len(logged.cluster.sent)
        logged.cluster.run(1_500)
        is_forgetful = [alarm.code for alarm in node.replies_of(Alarm)] == ["amnesia.votes-forgotten"]
        outcomes.add(is_forgetful)
        assert may_vote(node) != is_forgetful
        before, after = votes_sent(logged.cluster.sent[:first], node), votes_sent(logged.cluster.sent[first:], node)
        assert not (is_forgetful and [vote for vote in after if vote not in before]), "it made new votes"
        logged.cluster.kill(node)
    assert outcomes == {True, False}, "no cut forgot a vote, or every one did"


def votes_sent(messages, node) -> list[Vote | ViewChange]:
    found = [message.prepare if isinstance(message, PrePrepare) else message for source, _, message, _ in messages if source == node.index]
    return [message for message in found if isinstance(message, Vote | ViewChange) and message.signer == node.key.public]


def record_starts(log: bytes) -> list[int]:
    places, place = [], 0
    while place < len(log):
        places.append(place)
        place += 8 + int.from_bytes(log[place : place + 4], "big")
    return places


@pytest.mark.parametrize("step", [97, pytest.param(1, marks=pytest.mark.long)])
def test_a_torn_log_tail_keeps_a_node_on_leveldb_from_starting_tendermint_5422(make_cluster, tmp_path, step):
    living = LevelDB(tmp_path / "store", create=True)
    logged = LoggedNode(make_cluster(), living)
    shutil.copytree(tmp_path / "store", tmp_path / "crashed")
    living.close()
    (log,) = (tmp_path / "crashed").glob("*.log")
    size = log.stat().st_size
    heights = set()
    for cut in range(size, max(0, size - 3_000), -step):
        shutil.rmtree(tmp_path / "cut", ignore_errors=True)
        shutil.copytree(tmp_path / "crashed", tmp_path / "cut")
        with open(tmp_path / "cut" / log.name, "r+b") as file:
            file.truncate(cut)
        store = LevelDB(tmp_path / "cut", create=False)
        engine = Engine(
            genesis=logged.cluster.genesis, store=store, consensus_key=logged.node.key, verifier=Verifier(logged.cluster.network),
            challenge=bytes(32),
        )  # fmt: skip
        heights.add(engine.head.height)
        store.close()
    assert heights <= {0, 1, 2} and 2 in heights


# ---- view changes that lie --------------------------------------------------------------------------------------------------


def prepared_everywhere(cluster):
    """Bring height 1 to where everyone prepared and nobody heard a commit; return (digest, the prepares by key)."""
    cluster.warm()
    heard: dict[bytes, Vote] = {}

    def drop(source, target, message):
        vote = message.prepare if isinstance(message, PrePrepare) else message
        if isinstance(vote, Vote) and vote.kind == PREPARE:
            heard[vote.signer] = vote
        return isinstance(vote, Vote) and vote.kind == COMMIT

    cluster.drop = drop
    cluster.submit(leader_of(cluster), cluster.credential())
    cluster.run_until(lambda: len(heard) == len(cluster.nodes), 500)
    (digest,) = {vote.digest for vote in heard.values()}
    return digest, heard


def rows(cluster, votes: dict[bytes, Vote]) -> tuple[tuple[int, bytes], ...]:
    validators = cluster.genesis.validators()
    held = sorted((validators.index_of(key), vote.signature) for key, vote in votes.items())
    return tuple(held[: validators.quorum])


def test_the_digest_is_not_recomputed_when_a_view_change_is_decoded_fisco_bcos_2448(cluster):
    """A proof of one block under the digest of another, in every place that names a digest: refused or named, and the block stands."""
    digest, prepares = prepared_everywhere(cluster)
    other = bytes(31) + b"\x01"
    liar = leader_of(cluster, 1)
    target = next(node for node in cluster.nodes if node is not liar)
    genuine = PreparedProof(1, 0, digest, rows(cluster, prepares))
    borrowed = replace(genuine, digest=other)
    signed = liar.key.sign(ViewChange.message(cluster.network, 1, 1, 0, other))
    with pytest.raises(Malformed):  # signed for one block, proven for another
        decode_message(encode_message(ViewChange(1, 1, 0, other, liar.key.public, signed, genuine)))
    lies = [
        ViewChange(1, 1, 0, other, liar.key.public, signed, borrowed),  # the prepares are of another block
        ViewChange(1, 1, 0, other, liar.key.public, ViewChange.sign(cluster.network, liar.key, 1, 1, genuine).signature, borrowed),
    ]
    for lie in lies:
        ready = target.handle(Received(liar.key.public, decode_message(encode_message(lie))))
        assert [reply.peer for reply in ready.replies if isinstance(reply, PeerAccused)] == [liar.key.public]
        assert not ready.batch and not ready.send
    block = target.engine._agreement._find(digest)
    header = replace(block.header, state_root=other)
    prepare = Vote.sign(cluster.network, liar.key, PREPARE, 1, 1, digest)
    with pytest.raises(Malformed):  # another header in an envelope that names the prepared block
        decode_message(encode_message(PrePrepare(replace(block.proposal(), header=header), prepare, ())))
    cluster.drop = lambda *_: False
    cluster.run_until(lambda: all(node.height == 1 for node in cluster.nodes), 5_000)
    assert {node.engine.head.digest for node in cluster.nodes} == {digest}


def test_a_fuzzed_view_change_message_kills_a_node_smartbft_go_279(cluster):
    """Every byte of a real one changed, cut or doubled, and genuine signatures under any content: nothing but refusals."""
    digest, prepares = prepared_everywhere(cluster)
    liar, target = cluster.nodes[1], cluster.nodes[2]
    proof = PreparedProof(1, 0, digest, rows(cluster, prepares))
    real = encode_message(ViewChange.sign(cluster.network, liar.key, 1, 1, proof))
    dice = random.Random(279)
    mutants = [real[:place] + bytes((real[place] ^ dice.randint(1, 255),)) + real[place + 1 :] for place in range(len(real))]
    mutants += [real[:cut] for cut in range(0, len(real), 3)]
    mutants += [real[:cut] + real[cut - 9 :] for cut in range(9, len(real), 7)]
    read = 0
    for data in mutants:
        try:
            message = decode_message(data)
        except Malformed:
            continue
        read += 1
        target.handle(Received(liar.key.public, message))
    assert read > 50, "hardly anything got through to the engine"
    views, digests = (1, 2, 7, 2**31, 2**32), (None, digest, bytes(32))
    for view, prepared, shown, attached in itertools.product(views, (None, 0, 1, 2**31), digests, (None, proof, replace(proof, view=1))):
        signature = liar.key.sign(ViewChange.message(cluster.network, 1, view, prepared, shown))
        target.handle(Received(liar.key.public, ViewChange(1, view, prepared, shown, liar.key.public, signature, attached)))
    cluster.drop = lambda *_: False
    cluster.run_until(lambda: all(node.height >= 1 for node in cluster.nodes), 10_000)
    assert {node.engine.chain.archive.digest_of(1) for node in cluster.nodes} == {digest}


# ---- pools ------------------------------------------------------------------------------------------------------------------


def without_gossip(cluster) -> None:
    """Let transactions travel only to those who ask for them because a proposal lists them."""
    wanted = set()

    def drop(source, target, message):
        if isinstance(message, TransactionsWanted):
            wanted.update((source.index, entry) for entry in message.entries)
        if isinstance(message, TransactionsOffered):
            return any((target.index, transaction.entry) not in wanted for transaction in message.transactions)
        return isinstance(message, PoolListed)

    cluster.drop = drop


@pytest.mark.parametrize("restarted", range(4))
def test_one_node_restarts_and_a_conflicting_transaction_freezes_all_fisco_bcos_4417(cluster, signer, restarted):
    """Four pools with four claims to one record, no gossip, one restart: all decide the same, and one claim alone is accepted."""
    cluster.warm()
    hospitals = [signer(f"{index} organisation") for index in range(4)]
    cluster.settle(cluster.nodes[0], cluster.patient(0, "wang"))
    pseudonym = pseudonym_of(signer("wang").public)
    cluster.settle(cluster.nodes[0], cluster.sign(hospitals[0], Interim(pseudonym, "general", 1, bytes(32))))
    without_gossip(cluster)
    claims = []
    for index, node in enumerate(cluster.nodes):
        content = Content(14, bytes([index]) * 32, 1, 1, hospitals[0].public, 202_701, (), bytes(32))
        claims.append(cluster.sign(hospitals[0], Register(bytes(32), pseudonym, "general", "bundle", content)))
        cluster.submit(node, claims[-1])
    cluster.restart(cluster.nodes[restarted])
    cluster.run(6_000)
    cluster.drop = lambda *_: False
    cluster.run_until(lambda: all(cluster.is_decided(claim) for claim in claims), 10_000)
    cluster.check_agreement()
    chain = cluster.nodes[restarted].engine.chain
    codes = []
    for claim in claims:
        height, index = chain.archive.locate(claim.id)
        codes.append(decode_receipts(chain.archive.receipts(height))[index].code)
    assert codes.count("") == 1 and len(set(codes)) == 2
    assert all(len(node.engine._pool) == 0 for node in cluster.nodes)
    cluster.settle(cluster.nodes[restarted], cluster.credential())


def test_all_pending_transactions_are_checked_again_on_the_commit_path_left_curve_2200(make_cluster):
    """The work of the turn that decides a block is counted, in calls: with a thousand pending it is what it is with forty."""
    few, many = (calls_of_a_decision(make_cluster(block_transactions_max=8), pending) for pending in (40, 1_000))
    assert few > 100
    assert many < few * 5 // 4, (few, many)


def calls_of_a_decision(cluster, pending: int) -> int:
    """Fill the pools, let one block be decided, and return how many Python calls the fullest deciding turn of one node made."""
    cluster.warm()
    node = cluster.nodes[0]
    cluster.drop = lambda source, target, message: isinstance(message, TransactionsOffered | PoolListed)
    for index in range(pending):
        transaction = cluster.patient(index % 4, f"patient {index}")
        for each in cluster.nodes:
            each.handle(Submitted(1, transaction))
    counts = []
    original = node.engine.handle_all

    def counted(events):
        calls, height = [0], node.height

        def note(frame, event, argument) -> None:
            calls[0] += event == "call"

        sys.setprofile(note)
        try:
            ready = original(events)
        finally:
            sys.setprofile(None)
        if node.height > height:
            counts.append(calls[0])
        return ready

    node.engine.handle_all = counted
    cluster.run_until(lambda: len(counts) >= 3, 5_000)
    return max(counts)


# ---- catching up ------------------------------------------------------------------------------------------------------------


def test_an_orderer_falls_behind_for_good_after_a_same_height_sync_smartbft_663(make_cluster):
    """The block of a height comes by sync before, between and after any two of its messages: always one decision, and it goes on."""
    step, steps = 0, 1
    while step <= steps:
        cluster = make_cluster()
        cluster.warm()
        late = cluster.nodes[3]
        held = []

        def hold(source, target, message, late=late, held=held):
            if target is late:
                held.append((source, message))
            return target is late

        cluster.drop = hold
        cluster.settle(cluster.nodes[0], cluster.credential(), among=cluster.nodes[:3])
        chain = cluster.nodes[0].engine.chain
        block = RangeSent(((chain.block_of(1), chain.certificate_of(1)),))
        cluster.drop = lambda *_: False
        messages = [(source, message) for source, message in held if isinstance(message, PrePrepare | Vote | TransactionsOffered)]
        steps = len(messages)
        messages.insert(step, (cluster.nodes[step % 3], block))
        for source, message in messages:
            late.handle(Received(source.key.public, message))
        assert late.height == 1, step
        first = len(cluster.sent)
        cluster.kill(cluster.nodes[(step + 1) % 3])  # now every one of the other three is needed
        cluster.settle(late, cluster.credential(name="kim"), 5_000)
        assert [m for s, _, m, _ in cluster.sent[first:] if s == 3 and isinstance(m, Vote) and m.height == 2]
        cluster.check_agreement()
        step += 1
    assert steps >= 7


def test_deadlock_until_reboot_when_a_sync_ends_in_the_middle_of_a_view_change_smartbft_622(make_cluster):
    """As above, in a height whose first primary is dead: the block of view 1 comes by sync at any moment of the view change."""
    step, steps = 0, 1
    while step <= steps:
        cluster = make_cluster()
        cluster.warm()
        dead = leader_of(cluster)
        cluster.kill(dead)
        late = cluster.living[-1]
        others = [node for node in cluster.living if node is not late]
        cluster.submit(others[0], cluster.credential())
        held = []

        def hold(source, target, message, late=late, held=held):
            if target is late and isinstance(message, Vote) and message.kind == COMMIT:
                held.append((source, message))
                return True
            return False

        cluster.drop = hold
        cluster.run_until(lambda others=others: all(node.height == 1 for node in others), 10_000)
        assert late.height == 0 and late.engine.status()["view"] == 1
        chain = others[0].engine.chain
        cluster.drop = lambda *_: False
        steps = len(held)
        held.insert(step, (others[step % 2], RangeSent(((chain.block_of(1), chain.certificate_of(1)),))))
        for source, message in held:
            late.handle(Received(source.key.public, message))
        assert late.height == 1
        cluster.settle(late, cluster.credential(name="kim"), 15_000)
        cluster.check_agreement()
        step += 1
    assert steps >= 2


# ---- the vault --------------------------------------------------------------------------------------------------------------


def test_missing_private_data_delays_a_block_up_to_a_minute_fabric_3858(cluster, signer):
    """A record whose sealed bytes nobody has anywhere is registered as fast as anything: agreement asks no vault."""
    cluster.warm()
    custodian = signer("0 organisation")
    cluster.settle(cluster.nodes[0], cluster.patient(0, "wang"))
    pseudonym = pseudonym_of(signer("wang").public)
    cluster.settle(cluster.nodes[0], cluster.sign(custodian, Interim(pseudonym, "general", 1, bytes(32))))

    def decided_in_ms(transaction) -> int:
        began_ms = cluster.now_ms
        cluster.settle(cluster.nodes[1], transaction)
        return cluster.now_ms - began_ms

    usual = max(decided_in_ms(cluster.patient(0, f"patient {number}")) for number in range(4))
    content = Content(14, bytes(32), 1, 1, custodian.public, 202_701, (), bytes(32))
    assert decided_in_ms(cluster.sign(custodian, Register(bytes(32), pseudonym, "general", "bundle", content))) <= usual
    rooms = {name.split(".")[1] for name in sys.modules if name.startswith("medchain.")}
    assert "engine" in rooms and not {"vault", "node"} & rooms_of(Engine), "the engine knows a vault"


def rooms_of(root: type) -> set[str]:
    """Return the rooms of all modules that a class' module imports, directly or not."""
    seen, queue = set(), [root.__module__]
    while queue:
        module = sys.modules[queue.pop()]
        for value in vars(module).values():
            name = getattr(value, "__module__", None) or getattr(value, "__name__", "")
            if isinstance(name, str) and name.startswith("medchain.") and name in sys.modules and name not in seen:
                seen.add(name)
                queue.append(name)
    return {name.split(".")[1] for name in seen}
