"""The engine fed arbitrary messages by any peer, signed and unsigned: it blames the sender or does nothing, and goes on.

lessons.md: a fuzzed view-change message killed a node (SmartBFT-Go/fabric #279). Two sources: frames of a real network, damaged until they
mean something else, and one liar who signs whatever it likes.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from medchain.chain.block import Block, evidence_digest
from medchain.chain.certificate import Certificate
from medchain.chain.transaction import Transaction
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.engine.ready import Accepted, Alarm, PeerAccused, Received, Submitted
from medchain.errors import Malformed
from medchain.store import layout
from medchain.wire.peer import BlockSent, PastVotesSent, PeerStatus, RangeSent, decode_message, encode_message
from tests.decoders.damage import damaged

STEPS = 1_500
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 100))]
NUMBERS = (0, 0, 0, 1, 1, 2, 3, 7, 100, 2**32)


class Storm:
    """Four engines at work; the last one is dead, and its key says what the dice say to the first."""

    def __init__(self, cluster, seed: int) -> None:
        self.cluster, self.dice = cluster, random.Random(seed)
        cluster.warm()
        for index in range(2):
            cluster.settle(cluster.nodes[0], cluster.patient(0, f"patient {index}"))
        self.target, self.liar = cluster.nodes[0], cluster.nodes[3]
        self.frames = [encode_message(message) for _, _, message, _ in cluster.sent]
        self.frames += [encode_message(message) for message in self.larger()]
        cluster.kill(self.liar)
        self.replies: list = []

    def larger(self) -> list:
        """What a quiet network has no need to send. Genuine is only what its signer or a liar would say: else a living node is shown a
        statement of its own that it never made, and stops voting, as it must.
        """
        archive = self.target.engine.chain.archive
        blocks = [(Block.decode(archive.block(height)), Certificate.decode(archive.certificate(height))) for height in (1, 2)]
        change = ViewChange.sign(self.cluster.network, self.liar.key, self.target.height + 1, 1, None)
        return [RangeSent(tuple(blocks)), BlockSent(blocks[0][0]), change]

    def feed(self, peer: bytes, message) -> None:
        before = (self.target.height, self.target.engine.head.state_root)
        ready = self.target.handle(Received(peer, message))
        accused = [reply.peer for reply in ready.replies if isinstance(reply, PeerAccused)]
        assert set(accused) <= {peer}, "somebody else is blamed"
        if accused and not isinstance(message, PrePrepare | RangeSent):
            written = [key for key, _ in ready.batch.operations]
            found = any(key.startswith(layout.EVIDENCE) for key in written)  # evidence is work: a primary may propose it in the same turn
            allowed = (layout.EVIDENCE, layout.HARD_STATE, layout.BODY) if found else (layout.EVIDENCE,)
            assert all(key.startswith(allowed) for key in written), "what was refused is written"
            assert (self.target.height, self.target.engine.head.state_root) == before
        assert not [reply for reply in ready.replies if isinstance(reply, Alarm)]
        self.replies += ready.replies

    # ---- damaged frames, from anybody ----

    def damaged(self) -> None:
        peers = [node.key.public for node in self.cluster.nodes[1:]] + [bytes(32)]
        for data in damaged(self.frames, self.dice, STEPS):
            try:
                message = decode_message(data)
            except Malformed:
                continue
            self.feed(self.dice.choice(peers), message)
            if self.dice.random() < 0.1:
                self.cluster.tick()

    # ---- signed by the liar ----

    def signed(self) -> None:
        for _ in range(STEPS):
            self.feed(self.liar.key.public, self.statement())
            if self.dice.random() < 0.2:
                self.cluster.tick()

    def height(self) -> int:
        return max(0, self.target.height + self.dice.choice((1, 1, 1, 1, 2, 0, -1, 1_000, 2**40)))

    def digest(self) -> bytes:
        return self.dice.choice((self.target.engine.head.digest, bytes(32), self.dice.randbytes(32)))

    def vote(self, kind: int | None = None) -> Vote:
        kind = self.dice.choice((PREPARE, COMMIT)) if kind is None else kind
        view = self.dice.choice(NUMBERS)
        return Vote.sign(self.cluster.network, self.liar.key, kind, self.height(), view, self.digest())

    def proof(self, kind: type = PreparedProof):
        """Genuine signatures by the liar alone, however often, or rubbish."""
        vote = self.vote()
        count = self.dice.choice((0, 1, 3, 3, 4))
        return kind(vote.height, vote.view, vote.digest, tuple((i, self.dice.choice((vote.signature, bytes(64)))) for i in range(count)))

    def view_change(self) -> ViewChange:
        proof = self.proof() if self.dice.random() < 0.5 else None
        view = self.dice.choice(NUMBERS) + 1 + (0 if proof is None else proof.view)
        height = self.height() if proof is None else proof.height
        return ViewChange.sign(self.cluster.network, self.liar.key, height, min(view, 2**32), proof)

    def block(self) -> Block:
        archive = self.target.engine.chain.archive
        block = Block.decode(archive.block(self.dice.choice((1, 2))))
        header = replace(
            block.header,
            height=self.height(),
            view=self.dice.choice((0, 0, 1)),
            parent=self.digest(),
            proposer=self.liar.key.public,
            time_ms=self.target.engine.head.time_ms + self.dice.choice((0, 1, 50, 10**9)),
            evidence_digest=self.dice.choice((evidence_digest(()), bytes(32))),
        )
        return Block(header, block.transactions, block.last_commit, ())

    def statement(self):
        pre_prepare = self.block()
        digest, header = pre_prepare.header.digest(), pre_prepare.header
        view = max(header.view, self.dice.choice(NUMBERS))
        prepare = Vote.sign(self.cluster.network, self.liar.key, PREPARE, header.height, view, digest)
        changes = tuple(self.view_change() for _ in range(self.dice.choice((0, 0, 1, 3))))
        certified = self.block()
        makers = (
            self.vote,
            self.vote,
            self.view_change,
            self.view_change,
            lambda: PrePrepare(pre_prepare.proposal(), prepare, changes),
            lambda: PeerStatus(self.height(), self.digest()),
            lambda: BlockSent(certified),
            lambda: RangeSent(((certified, self.proof(Certificate)),)),
            lambda: PastVotesSent(bytes(32), self.height(), self.proof(Certificate), (self.vote(),), (self.view_change(),)),
        )
        return self.dice.choice(makers)()

    # ---- afterwards ----

    def calm(self) -> None:
        """Everybody goes on: a new transaction is decided by all, also by the one whose key had lied."""
        assert any(isinstance(reply, PeerAccused) for reply in self.replies), "nothing of the storm was even noticed"
        transaction = self.cluster.patient(0, "afterwards")
        self.cluster.settle(self.target, transaction, 60_000)
        self.cluster.check_agreement()


@pytest.mark.parametrize("seed", SEEDS)
def test_engine_survives_damaged_messages_of_anybody(cluster, seed):
    storm = Storm(cluster, seed)
    storm.damaged()
    storm.calm()


@pytest.mark.parametrize("seed", SEEDS)
def test_engine_survives_whatever_one_validator_signs(cluster, seed):
    storm = Storm(cluster, seed)
    storm.signed()
    storm.calm()


@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_transactions_of_clients_are_refused_and_change_nothing(cluster, seed):
    cluster.warm()
    node, dice = cluster.nodes[0], random.Random(seed)
    samples = [cluster.patient(0, "one").raw, cluster.credential(1, "two").raw]
    for data in damaged(samples, dice, STEPS):
        try:
            transaction = Transaction.decode(data)
        except Malformed:
            continue
        ready = node.handle(Submitted(1, transaction))
        answers = [reply for reply in ready.replies if getattr(reply, "request", None) == 1]
        assert len(answers) == 1
        if isinstance(answers[0], Accepted) and not answers[0].is_duplicate:
            assert data in samples, "a damaged transaction was accepted"
        else:  # of a body that is in the pool already, any authentication is answered with what is true: it is there
            assert not ready.batch
    assert node.height == 0
