"""Late commits: what a block may carry, and that whoever is alive stays in the rotation, however slow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medchain.chain.block import Block, LastCommit
from medchain.chain.vote import COMMIT, PREPARE, Vote
from medchain.consensus.messages import PrePrepare
from medchain.consensus.rotation import primary
from medchain.engine.executor import Executor
from medchain.engine.late import LateCommits
from medchain.engine.ready import Received
from medchain.engine.verification import Verifier
from medchain.errors import Rejected
from medchain.ledger.rotation import standings_of
from medchain.wire.peer import PeerStatus, RangeSent, RangeWanted

K = 8
"""Window of four hospitals."""


class Bench:
    """One engine's chain at height 12: every certificate is by the same three, the fourth signs nothing in time."""

    def __init__(self, cluster) -> None:
        self.cluster = cluster
        cluster.warm()
        keys = sorted((node.key for node in cluster.nodes), key=lambda key: key.public)
        self.keys = {key.public: key for key in keys}
        self.slow = next(node for node in cluster.nodes if node.key is keys[0])
        for height in range(1, 13):
            if height == 5:
                cluster.drop = lambda source, target, message: self.slow in (source, target)
            cluster.settle(self.witness, cluster.credential(1, f"dr {height}"), among=self.others)
        self.chain = self.witness.engine.chain
        self.verifier = Verifier(cluster.network)

    @property
    def others(self):
        return [node for node in self.cluster.nodes if node is not self.slow]

    @property
    def witness(self):
        return self.others[0]

    def commit(self, height: int, *, key=None, kind: int = COMMIT, digest: bytes | None = None, view: int = 0) -> Vote:
        digest = digest or self.chain.archive.digest_of(height) or bytes(32)
        return Vote.sign(self.cluster.network, key or self.slow.key, kind, height, view, digest)

    def block(self, *late: Vote) -> Block:
        proposer = primary(self.chain.rotation, self.chain.height + 1, 0)
        executor = Executor(self.chain, self.verifier)
        return executor.build(0, self.chain.header.time_ms + 1, proposer, [], late).block

    def code_of(self, *late: Vote) -> str:
        block, before = self.block(), (self.chain.head, self.chain.tree.root)
        last_commit = LastCommit(self.chain.certificate, late)
        wrong = replace(block, last_commit=last_commit, header=replace(block.header, last_commit_digest=last_commit.digest()))
        with pytest.raises(Rejected) as refusal:
            Executor(self.chain, self.verifier).execute(wrong)
        assert (self.chain.head, self.chain.tree.root) == before
        return refusal.value.code

    def newest_of(self, state, key: bytes) -> int:
        return next(standing.newest_signed for standing in standings_of(state) if standing.consensus_key == key)


@pytest.fixture
def bench(cluster) -> Bench:
    return Bench(cluster)


def test_late_commit_of_any_recent_height_and_view_is_accepted_and_counts(bench):
    head = bench.chain.height
    for height, view in ((head, 0), (head, 7), (head - K + 1, 0)):
        block = bench.block(bench.commit(height, view=view))
        executed = Executor(bench.chain, bench.verifier).execute(block)
        rows = dict(bench.chain.state.iterate(b"")) | {key: value for key, value in executed.applied.changes.items() if value is not None}
        assert bench.newest_of(rows, bench.slow.key.public) == height
        assert Block.decode(executed.block_bytes) == block


def test_late_commits_that_are_old_forged_no_news_or_of_another_block_are_refused(bench):
    head = bench.chain.height
    good, swift = bench.commit(head), next(bench.keys[key] for key in bench.chain.validators.keys if key != bench.slow.key.public)
    newest = bench.newest_of(bench.chain.state, bench.slow.key.public)
    for wrong in (
        bench.commit(head - K),
        bench.commit(head + 1),
        bench.commit(newest),
        bench.commit(head, digest=bytes(32)),
        bench.commit(head, kind=PREPARE),
        bench.commit(head, key=swift),
        replace(good, signature=bytes(64)),
        replace(good, view=1),
        replace(good, signer=bytes(32)),
    ):
        assert bench.code_of(wrong) == "block.late-commits"


def test_two_late_commits_of_one_validator_are_refused(bench):
    head = bench.chain.height
    assert bench.code_of(bench.commit(head - 1), bench.commit(head)) == "block.late-commits"
    assert bench.code_of(bench.commit(head), bench.commit(head, view=1)) == "block.late-commits"


def test_block_1_carries_no_late_commits(cluster):
    cluster.warm()
    chain = cluster.nodes[0].engine.chain
    executor = Executor(chain, Verifier(cluster.network))
    vote = Vote.sign(cluster.network, cluster.nodes[0].key, COMMIT, 0, 0, chain.digest)
    block = executor.build(0, chain.header.time_ms + 1, primary(chain.rotation, 1, 0), [], (vote,)).block
    with pytest.raises(Rejected, match="block 1") as refusal:
        Executor(chain, Verifier(cluster.network)).execute(block)
    assert refusal.value.code == "block.late-commits"


# ---- collecting -------------------------------------------------------------------------------------------------------------


def test_newest_commit_of_a_silent_validator_is_kept_and_one_a_validator(bench):
    late, head = LateCommits(bench.chain, bench.verifier), bench.chain.height
    for height in (head - 2, head, head - 1, head - K - 1):
        assert late.take(bench.commit(height))
    assert late.select() == (bench.commit(head),)


def test_commits_of_validators_that_certificates_name_are_neither_verified_nor_carried(bench):
    late, head = LateCommits(bench.chain, bench.verifier), bench.chain.height
    swift = bench.keys[bench.chain.validators.keys[bench.chain.certificate.commits[0][0]]]
    forged = replace(bench.commit(head, key=swift), signature=bytes(64))
    assert late.take(forged) and late.select() == ()


def test_forged_commit_of_a_silent_validator_is_told_from_a_stale_one(bench):
    late, head = LateCommits(bench.chain, bench.verifier), bench.chain.height
    assert not late.take(replace(bench.commit(head), signature=bytes(64)))
    assert late.take(replace(bench.commit(head - K), signature=bytes(64)))
    assert late.take(bench.commit(head, digest=bytes(32))) and late.take(bench.commit(head, kind=PREPARE))
    assert late.select() == ()


def test_sender_of_a_forged_late_commit_is_named(bench):
    witness, peer = bench.others[:2]
    forged = replace(bench.commit(bench.chain.height), signature=bytes(64))
    replies = witness.handle(Received(peer.key.public, forged)).replies
    assert [(reply.peer, reply.reason) for reply in replies] == [(peer.key.public, "it sent a forged signature")]


# ---- slow is not dead -------------------------------------------------------------------------------------------------------


def newest_signed(node, of) -> int:
    return next(item.newest_signed for item in standings_of(node.engine.state) if item.consensus_key == of.key.public)


def grow(cluster, heights: int, among) -> None:
    for number in range(heights):
        cluster.settle(among[0], cluster.credential(1, f"dr {cluster.now_ms} {number}"), 30_000, among)


def test_validator_whose_commits_always_come_after_the_decision_counts_as_alive(cluster):
    """It never leads in time (else its own certificates, which name it, would be carried), so late commits are all there is of it."""
    cluster.warm()
    slow, others = cluster.nodes[3], cluster.nodes[:3]
    held = []

    def hold(source, target, message) -> bool:
        is_early = source is slow and isinstance(message, Vote) and target.height < message.height
        if is_early:
            held.append((target, message))
        return is_early or (source is slow and isinstance(message, PrePrepare))

    cluster.drop = hold
    for _ in range(3 * K):
        grow(cluster, 1, others)
        while held:
            target, message = held.pop(0)
            target.handle(Received(slow.key.public, message))
    for node in others:
        assert newest_signed(node, slow) >= node.height - K
    carried = [vote for height in range(1, others[0].height + 1) for vote in others[0].engine.chain.block_of(height).last_commit.late]
    assert carried and {vote.signer for vote in carried} == {slow.key.public}
    assert len(carried) <= 3 * K // (K // 2) + 1, "once in half a window is enough"


def test_validator_that_gets_every_block_only_when_it_is_decided_signs_it_late(cluster):
    """Its link is too slow for proposals and votes; then its commit comes with the decision, in the same turn (DESIGN.md)."""
    cluster.warm()
    slow, others = cluster.nodes[3], cluster.nodes[:3]
    cluster.drop = lambda source, target, message: target is slow and not isinstance(message, RangeSent | PeerStatus)
    grow(cluster, 3 * K, others)
    cluster.run(1_000)
    assert all(newest_signed(node, slow) >= node.height - K for node in others)
    commits = [item[2] for item in cluster.sent if item[0] == slow.index and isinstance(item[2], Vote) and item[2].kind == COMMIT]
    assert len({vote.height for vote in commits}) >= 2 * K


def test_validator_far_behind_signs_no_height_that_others_left_long_ago(cluster):
    cluster.warm()
    slow, others = cluster.nodes[3], cluster.nodes[:3]
    cluster.drop = lambda source, target, message: slow in (source, target)
    grow(cluster, 4 * K, others)
    before = len(cluster.sent)
    cluster.drop = lambda source, target, message: False
    cluster.run_until(lambda: slow.height == others[0].height)
    said = [item[2] for item in cluster.sent[before:] if item[0] == slow.index and isinstance(item[2], Vote)]
    assert all(vote.height > others[0].height - 2 * K for vote in said)
    assert len([item for item in cluster.sent[before:] if isinstance(item[2], RangeWanted)]) < 8


def test_late_commit_is_no_question_and_gets_no_block_for_an_answer(cluster):
    cluster.warm()
    slow, others = cluster.nodes[3], cluster.nodes[:3]
    cluster.drop = lambda source, target, message: target is slow and not isinstance(message, RangeSent | PeerStatus)
    grow(cluster, 1, others)
    cluster.run_until(lambda: slow.height == others[0].height)
    before = len(cluster.sent)
    cluster.run(400)
    assert not [item for item in cluster.sent[before:] if isinstance(item[2], RangeSent)]


def test_dead_validator_leaves_the_rotation_and_then_no_view_changes_any_more(cluster):
    cluster.warm()
    dead, others = cluster.nodes[2], [node for node in cluster.nodes if node.index != 2]
    cluster.kill(dead)
    grow(cluster, 2 * K, others)
    chain = others[0].engine.chain
    assert dead.key.public not in chain.rotation and len(chain.rotation) == 3
    assert [chain.certificate_of(height).view for height in range(K + 3, chain.height + 1)] == [0] * (chain.height - K - 2)
    cluster.restart(dead)
    cluster.run_until(lambda: dead.engine.status()["may_vote"] and dead.height == others[0].height)
    grow(cluster, 3, others)
    assert newest_signed(others[0], dead) > chain.height - K


def test_all_nodes_name_the_same_rotation_at_the_same_height_whatever_certificates_they_hold(cluster):
    cluster.warm()
    found: dict[int, set[tuple[bytes, ...]]] = {}
    certificates: dict[int, set[bytes]] = {}
    order = [0, 1, 2, 3]
    for _ in range(2 * K):
        order = order[1:] + order[:1]
        cluster.drop = lambda source, target, message, late=order[0]: (
            source.index == late and target.index % 2 == 0 and isinstance(message, Vote) and message.kind == COMMIT
        )
        grow(cluster, 1, cluster.nodes)
        for node in cluster.nodes:
            found.setdefault(node.height, set()).add(node.engine.chain.rotation)
            certificates.setdefault(node.height, set()).add(node.engine.chain.certificate.encode())
    assert all(len(rotations) == 1 for rotations in found.values())
    assert any(len(held) > 1 for held in certificates.values()), "the nodes held the same certificates, so this showed nothing"
