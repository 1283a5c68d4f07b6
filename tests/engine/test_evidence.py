"""Evidence on its way: found, kept before it is told, passed on once, put into a block soon, forgotten when recorded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medchain.chain.block import Block, evidence_digest
from medchain.chain.evidence import EQUIVOCATION, Contradiction, evidence_id
from medchain.chain.limits import EVIDENCE_BYTES_MAX, EVIDENCE_MAX
from medchain.chain.vote import COMMIT, PREPARE, ViewChange, Vote
from medchain.consensus.rotation import primary
from medchain.engine.admission import BLOCK_OVERHEAD_BYTES
from medchain.engine.evidence import OWN_KEY
from medchain.engine.executor import Executor
from medchain.engine.ready import Alarm, PeerAccused, Received
from medchain.engine.verification import Verifier
from medchain.errors import Rejected
from medchain.ledger import lists
from medchain.ledger.evidence import RECORDED, EvidenceRow, evidence_of
from medchain.store import layout
from medchain.store.keyvalue import WriteBatch, prefix_end
from medchain.wire.peer import EvidenceSent


def votes_of(cluster, node, height: int = 1, kind: int = COMMIT, view: int = 0) -> list[Vote]:
    return [Vote.sign(cluster.network, node.key, kind, height, view, digest) for digest in (b"1" * 32, b"2" * 32)]


def double_vote(cluster, node, height: int = 1, kind: int = COMMIT, view: int = 0) -> Contradiction:
    return Contradiction.of(*votes_of(cluster, node, height, kind, view))


def lie(cluster, node, height: int = 1) -> Contradiction:
    return Contradiction.of(votes_of(cluster, node, height)[0], ViewChange.sign(cluster.network, node.key, height, 1, None))


def stored(node) -> list[bytes]:
    return [value for _, value in node.store.iterate(layout.EVIDENCE, prefix_end(layout.EVIDENCE))]


def recorded(node) -> list[EvidenceRow]:
    identities, _ = lists.read_page(node.engine.state, lists.EVIDENCE, b"", 0, 100)
    return [evidence_of(node.engine.state, identity) for identity in identities]


def isolate(cluster) -> None:
    """Nobody hears anybody, so that nothing is decided while a test looks."""
    cluster.drop = lambda source, target, message: True


def test_equivocation_is_kept_as_evidence_and_named_before_it_is_told(cluster):
    cluster.warm()
    isolate(cluster)
    node, liar = cluster.nodes[0], cluster.nodes[1]
    for vote in votes_of(cluster, liar, kind=PREPARE):
        ready = node.handle(Received(liar.key.public, vote))
    found = double_vote(cluster, liar, kind=PREPARE)
    assert PeerAccused(liar.key.public, "it signed two contradicting statements (equivocation)") in ready.replies
    assert (layout.evidence_key(found.digest()), found.encode()) in ready.batch.operations
    assert [envelope.message for envelope in ready.send if isinstance(envelope.message, EvidenceSent)] == [EvidenceSent((found,))]


def test_evidence_that_one_node_found_is_recorded_everywhere_within_seconds_of_an_idle_network(cluster):
    cluster.warm()
    liar, finder = cluster.nodes[2], cluster.nodes[0]
    for vote in votes_of(cluster, liar, cluster.nodes[0].height + 1, PREPARE):
        finder.handle(Received(liar.key.public, vote))
    started_ms = cluster.now_ms
    cluster.run_until(lambda: all(len(recorded(node)) == 1 for node in cluster.nodes))
    assert cluster.now_ms - started_ms < 2_000 < cluster.genesis.parameters.heartbeat_ms
    assert {(row.offence, row.offender) for node in cluster.nodes for row in recorded(node)} == {(EQUIVOCATION, liar.key.public)}
    cluster.check_agreement()
    for node in cluster.nodes:
        alarms = [alarm for alarm in node.replies_of(Alarm) if alarm.code == RECORDED]
        assert len(alarms) == 1 and evidence_id(recorded(node)[0].evidence).hex() in alarms[0].message, "every operator is told"
    height = cluster.nodes[0].height
    cluster.run(5_000)
    assert [node.height for node in cluster.nodes] == [height] * 4, "nothing is left to decide, so no further block is made"
    assert all(stored(node) == [] for node in cluster.nodes)


def test_evidence_is_passed_on_once_by_everybody(cluster):
    cluster.warm()
    liar = cluster.nodes[2]
    evidence = EvidenceSent((double_vote(cluster, liar), lie(cluster, liar)))
    for _ in range(3):
        cluster.nodes[0].handle(Received(liar.key.public, evidence))
    cluster.deliver()
    said = [(source, target) for source, target, message, _ in cluster.sent if isinstance(message, EvidenceSent)]
    assert len(said) == 2 * 4 * 3, "two items, four nodes, three peers each"


def test_evidence_reaches_the_primary_though_its_message_was_lost(cluster):
    cluster.warm()
    liar = cluster.nodes[2]
    cluster.drop = lambda source, target, message: isinstance(message, EvidenceSent)
    cluster.nodes[0].handle(Received(liar.key.public, EvidenceSent((double_vote(cluster, liar),))))
    cluster.deliver()
    cluster.drop = lambda source, target, message: False
    cluster.run_until(lambda: all(len(recorded(node)) == 1 for node in cluster.nodes), 8_000)
    assert cluster.nodes[0].engine.chain.certificate.view == 0, "the primary was handed it, not replaced"


def test_a_primary_that_proposes_without_the_evidence_is_replaced_in_an_idle_network(cluster):
    cluster.warm()
    validators = cluster.genesis.validators()
    liar = next(node for node in cluster.nodes if node.key.public == primary(validators.voters, 1, 0))
    honest = [node for node in cluster.nodes if node is not liar]
    cluster.drop = lambda source, target, message: source is liar
    for vote in votes_of(cluster, liar, kind=PREPARE):
        honest[0].handle(Received(liar.key.public, vote))
    cluster.run_until(lambda: all(len(recorded(node)) == 1 for node in honest), 10_000)
    assert honest[0].engine.chain.certificate_of(recorded(honest[0])[0].from_height).view > 0


def test_pending_evidence_survives_a_restart_and_is_told_to_who_connects(cluster):
    cluster.warm()
    node, other, liar = cluster.nodes[0], cluster.nodes[1], cluster.nodes[2]
    isolate(cluster)
    evidence = double_vote(cluster, liar)
    node.handle(Received(other.key.public, EvidenceSent((evidence,))))
    cluster.restart(node)
    assert stored(node) == [evidence.encode()]
    cluster.drop = lambda source, target, message: False
    cluster.disconnect(node, other)
    cluster.sent.clear()
    cluster.connect(node, other)
    assert [message for source, _, message, _ in cluster.sent if source == node.index and isinstance(message, EvidenceSent)] == [
        EvidenceSent((evidence,))
    ]
    cluster.run_until(lambda: all(len(recorded(node)) == 1 for node in cluster.nodes))


def test_what_no_longer_counts_is_gone_after_a_restart(cluster):
    cluster.warm()
    node, liar = cluster.nodes[0], cluster.nodes[2]
    early = double_vote(cluster, liar, height=9)
    node.store.write(WriteBatch(((layout.evidence_key(early.digest()), early.encode()),)))
    cluster.restart(node)
    node.tick()
    assert stored(node) == []


@pytest.mark.parametrize("damage", ["bytes", "signature", "id"])
def test_damaged_evidence_in_the_store_is_refused_at_start(cluster, damage):
    cluster.warm()
    node, liar = cluster.nodes[0], cluster.nodes[2]
    evidence = double_vote(cluster, liar)
    if damage == "signature":
        evidence = replace(evidence, first=replace(evidence.first, signature=bytes(64)))
    data = b"\x90" if damage == "bytes" else evidence.encode()
    identity = bytes(32) if damage == "id" else evidence.digest()
    node.store.write(WriteBatch(((layout.evidence_key(identity), data),)))
    with pytest.raises(Rejected) as refusal:
        cluster.restart(node)
    assert refusal.value.code == "store.inconsistent"


def test_who_sends_forged_evidence_is_accused_and_nothing_is_kept(cluster):
    cluster.warm()
    isolate(cluster)
    node, liar, victim = cluster.nodes[0], cluster.nodes[2], cluster.nodes[1]
    honest = double_vote(cluster, victim)
    forged = replace(honest, second=replace(honest.second, signature=bytes(64)))
    elsewhere = [Vote.sign(replace(cluster.network, recovery=1), victim.key, COMMIT, 1, 0, digest) for digest in (b"1" * 32, b"2" * 32)]
    for message in (EvidenceSent((forged,)), EvidenceSent((Contradiction.of(*elsewhere),))):
        node.replies.clear()
        ready = node.handle(Received(liar.key.public, message))
        assert node.replies_of(PeerAccused) == [PeerAccused(liar.key.public, "it sent evidence with a forged signature")]
        assert ready.send == () and not ready.batch
    assert stored(node) == []


def test_nobody_is_blamed_for_evidence_that_does_not_count_here(cluster, signer):
    """Heights and records differ between honest nodes for a moment, so these say nothing about who sent them."""
    cluster.warm()
    isolate(cluster)
    node, liar = cluster.nodes[0], cluster.nodes[2]
    stranger = [Vote.sign(cluster.network, signer("stranger"), COMMIT, 1, 0, digest) for digest in (b"1" * 32, b"2" * 32)]
    no_validator = [Vote.sign(cluster.network, signer("1 organisation"), COMMIT, 1, 0, digest) for digest in (b"1" * 32, b"2" * 32)]
    node.replies.clear()
    for evidence in (double_vote(cluster, liar, height=2), Contradiction.of(*stranger), Contradiction.of(*no_validator)):
        ready = node.handle(Received(liar.key.public, EvidenceSent((evidence,))))
        assert ready.send == () and not ready.batch
    assert node.replies_of(PeerAccused) == [] and stored(node) == []


def test_memory_holds_one_contradiction_of_each_offence_of_each_validator(cluster):
    cluster.warm()
    isolate(cluster)
    node, liar = cluster.nodes[0], cluster.nodes[2]
    for view in range(5):
        node.tick()
        node.handle(Received(liar.key.public, EvidenceSent((double_vote(cluster, liar, view=view), lie(cluster, liar)))))
    assert len(stored(node)) == 2


def test_a_flood_of_evidence_is_left_unread_beyond_an_allowance(cluster):
    cluster.warm()
    isolate(cluster)
    node, liar = cluster.nodes[0], cluster.nodes[2]
    honest = double_vote(cluster, cluster.nodes[1])
    forged = EvidenceSent((replace(honest, second=replace(honest.second, signature=bytes(64))),))
    node.replies.clear()
    for _ in range(200):
        node.handle(Received(liar.key.public, forged))
    assert 1 <= len(node.replies_of(PeerAccused)) <= 8


def test_evidence_about_this_node_itself_is_kept_like_any_and_the_operator_is_told(cluster):
    cluster.warm()
    isolate(cluster)
    node, other = cluster.nodes[0], cluster.nodes[1]
    node.handle(Received(other.key.public, EvidenceSent((double_vote(cluster, node),))))
    assert [alarm.code for alarm in node.replies_of(Alarm)] == [OWN_KEY]
    assert len(stored(node)) == 1


# ---- blocks ---------------------------------------------------------------------------------------------------------------------


class Bench:
    """One engine's chain at height 2, and executors of its own."""

    def __init__(self, cluster) -> None:
        cluster.warm()
        self.cluster = cluster
        for name in ("lee", "kim"):
            cluster.settle(cluster.nodes[0], cluster.credential(name=name))
        self.chain = cluster.nodes[0].engine.chain

    def block(self, *evidence: Contradiction | bytes) -> Block:
        """A block of the next height with this evidence, as a liar would write it: nothing is sorted or checked."""
        executor = Executor(self.chain, Verifier(self.cluster.network))
        proposer = primary(self.chain.rotation, self.chain.height + 1, 0)
        block = executor.build(0, self.chain.header.time_ms + 10, proposer, ()).block
        items = tuple(item if isinstance(item, bytes) else item.encode() for item in evidence)
        return replace(block, evidence=items, header=replace(block.header, evidence_digest=evidence_digest(items)))

    def built(self, *evidence: Contradiction) -> Block:
        """An honest block."""
        executor = Executor(self.chain, Verifier(self.cluster.network))
        proposer = primary(self.chain.rotation, self.chain.height + 1, 0)
        items = tuple(item.encode() for item in sorted(evidence, key=Contradiction.digest))
        return executor.build(0, self.chain.header.time_ms + 10, proposer, (), (), items).block

    def code_of(self, block: Block) -> str:
        executor = Executor(self.chain, Verifier(self.cluster.network))
        before = (self.chain.head, self.chain.tree.root, self.chain.history.root)
        with pytest.raises(Rejected) as refusal:
            executor.execute(block)
        assert (self.chain.head, self.chain.tree.root, self.chain.history.root) == before
        assert executor.result(block.header.digest()) is None
        return refusal.value.code


@pytest.fixture
def bench(cluster) -> Bench:
    return Bench(cluster)


def test_a_block_with_genuine_evidence_of_this_or_an_earlier_height_executes_alike_elsewhere(bench):
    one, other = bench.cluster.nodes[1], bench.cluster.nodes[2]
    block = bench.built(double_vote(bench.cluster, one), lie(bench.cluster, one, 3), double_vote(bench.cluster, other, 2))
    executed = Executor(bench.chain, Verifier(bench.cluster.network)).execute(block)
    assert executed.update.root == block.header.state_root
    assert len(executed.applied.due_events) == 3
    assert Block.decode(executed.block_bytes) == block


def test_a_block_with_false_evidence_is_refused(bench, signer):
    cluster = bench.cluster
    good = double_vote(cluster, cluster.nodes[1])
    stranger = [Vote.sign(cluster.network, signer("stranger"), COMMIT, 1, 0, digest) for digest in (b"1" * 32, b"2" * 32)]
    no_validator = [Vote.sign(cluster.network, signer("1 organisation"), COMMIT, 1, 0, digest) for digest in (b"1" * 32, b"2" * 32)]
    for wrong in (
        b"evidence",
        replace(good, first=replace(good.first, signature=good.second.signature)),
        double_vote(cluster, cluster.nodes[1], height=4),
        Contradiction.of(*stranger),
        Contradiction.of(*no_validator),
    ):
        assert bench.code_of(bench.block(wrong)) == "block.evidence"


def test_a_block_names_each_offence_of_a_validator_once_and_in_the_order_of_ids(bench):
    cluster = bench.cluster
    one, other = sorted((double_vote(cluster, cluster.nodes[1]), lie(cluster, cluster.nodes[1])), key=Contradiction.digest)
    assert bench.code_of(bench.block(other, one)) == "block.evidence"
    assert bench.code_of(bench.block(one, one)) == "block.evidence"
    twice = sorted((double_vote(cluster, cluster.nodes[1]), double_vote(cluster, cluster.nodes[1], view=1)), key=Contradiction.digest)
    assert bench.code_of(bench.block(*twice)) == "block.evidence"
    assert bench.code_of(bench.block(one, other)) == "block.result", "this is in order, and only its roots are those of a block without it"


def test_what_is_recorded_is_not_recorded_again(bench):
    cluster = bench.cluster
    liar = cluster.nodes[2]
    cluster.nodes[0].handle(Received(liar.key.public, EvidenceSent((double_vote(cluster, liar),))))
    cluster.run_until(lambda: all(len(recorded(node)) == 1 for node in cluster.nodes))
    height = bench.chain.height + 1
    for again in (double_vote(cluster, liar), double_vote(cluster, liar, height)):
        assert bench.code_of(bench.block(again)) == "block.evidence"
        ready = cluster.nodes[0].handle(Received(cluster.nodes[1].key.public, EvidenceSent((again,))))
        assert ready.send == () and not ready.batch
    assert bench.built(lie(cluster, liar, height)).evidence


def test_a_liar_that_goes_on_lying_makes_no_further_blocks(cluster):
    """Bounded growth: evidence is work, so a contradiction in every height must not keep an idle chain busy."""
    cluster.warm()
    node, liar = cluster.nodes[0], cluster.nodes[2]
    for _ in range(20):
        for vote in votes_of(cluster, liar, node.height + 1):
            node.handle(Received(liar.key.public, vote))
        cluster.run(500)
    assert node.height <= 2
    assert len(recorded(node)) == 1


def test_a_block_has_room_for_all_its_evidence():
    certificate = 86 * (1 + 3 + 66)
    late = 42 * 155
    assert 600 + certificate + late + EVIDENCE_MAX * (EVIDENCE_BYTES_MAX + 3) < BLOCK_OVERHEAD_BYTES


def test_more_evidence_than_a_block_holds_is_carried_by_the_next_ones(make_cluster):
    cluster = make_cluster(10)
    cluster.warm()
    evidence = [make(cluster, node) for node in cluster.nodes for make in (double_vote, lie)]
    assert len(evidence) > EVIDENCE_MAX
    isolate(cluster)
    for node in cluster.nodes:
        node.handle(*[Received(node.key.public, EvidenceSent(tuple(half))) for half in (evidence[:10], evidence[10:])])
    cluster.drop = lambda source, target, message: False
    cluster.run_until(lambda: all(len(recorded(node)) == len(evidence) for node in cluster.nodes))
    heights = [row.from_height for row in recorded(cluster.nodes[0])]
    assert [heights.count(height) for height in (1, 2)] == [EVIDENCE_MAX, len(evidence) - EVIDENCE_MAX]


# ---- reads ----------------------------------------------------------------------------------------------------------------------


def test_evidence_is_listed_in_pages_with_what_waits_on_each(cluster):
    cluster.warm()
    node = cluster.nodes[0]
    assert node.ask("evidence.list", after=None, count=9) == {"evidence": [], "pending": [], "next": None}
    evidence = [double_vote(cluster, liar) for liar in cluster.nodes[1:]]
    node.handle(Received(cluster.nodes[1].key.public, EvidenceSent(tuple(evidence))))
    cluster.run_until(lambda: all(len(recorded(other)) == 3 for other in cluster.nodes))
    isolate(cluster)
    waiting = lie(cluster, cluster.nodes[1])
    node.handle(Received(cluster.nodes[1].key.public, EvidenceSent((waiting,))))
    first = node.ask("evidence.list", after=None, count=2)
    second = node.ask("evidence.list", after=first["next"], count=2)
    assert [len(first["evidence"]), len(second["evidence"])] == [2, 1] and second["next"] is None
    assert {row["id"] for row in first["evidence"] + second["evidence"]} == {item.digest() for item in evidence}
    assert [row["id"] for row in first["pending"]] == [row["id"] for row in second["pending"]] == [waiting.digest()]
    exact = node.ask("evidence.list", after=None, count=3)
    assert len(exact["evidence"]) == 3 and exact["next"] is None
    assert node.ask("evidence.list", after=b"\x00", count=2).code == "malformed"


def test_one_contradiction_is_shown_recorded_and_waiting_with_the_key_that_proves_it(cluster):
    cluster.warm()
    node, liar = cluster.nodes[0], cluster.nodes[1]
    done, waiting = double_vote(cluster, liar), lie(cluster, liar)
    node.handle(Received(liar.key.public, EvidenceSent((done,))))
    cluster.run_until(lambda: all(len(recorded(other)) == 1 for other in cluster.nodes))
    isolate(cluster)
    node.handle(Received(liar.key.public, EvidenceSent((waiting,))))
    shown = node.ask("evidence.get", id=done.digest())
    assert (shown["evidence"], shown["from_height"], shown["offender"]) == (done.encode(), 1, liar.key.public)
    assert node.ask("state.get", key=shown["key"])["value"] is not None
    shown = node.ask("evidence.get", id=waiting.digest())
    assert (shown["evidence"], shown["from_height"], shown["time_ms"]) == (waiting.encode(), None, None)
    assert shown["hospital"] == node.ask("evidence.get", id=done.digest())["hospital"] is not None
    assert node.ask("evidence.get", id=bytes(32)).code == "evidence.unknown"
