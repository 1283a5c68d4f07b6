"""Arbitrary inputs, verified or not, in any order: never an exception, never two promises, never a word before it is durable.

lessons.md: a fuzzed view-change message killed a node (SmartBFT-Go/fabric #279).
"""

from __future__ import annotations

import random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medchain.chain.block import Proposal
from medchain.chain.certificate import Certificate
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.consensus.events import (
    BlockHeld,
    Broadcast,
    BuildProposal,
    CertificateLearned,
    CheckProposal,
    DecisionAdopted,
    FetchBlock,
    HardState,
    Output,
    OwnViewChange,
    OwnVote,
    Persist,
    PrePrepareReceived,
    ProposalBuilt,
    ProposalChecked,
    SituationChanged,
    ViewChangeReceived,
    VoteReceived,
    VotingAllowed,
)
from medchain.consensus.messages import PrePrepare
from medchain.consensus.phases import is_legal_move
from medchain.consensus.rotation import primary
from tests.consensus.conftest import KEYS, Bench, make_proposal, validators_of

V4 = validators_of(4)
BLOCKS = [make_proposal(V4, height, view, salt=bytes([salt])) for height in (1, 2) for view in (0, 1, 2, 3) for salt in (0, 1)]
BLOCKS += [make_proposal(V4, parent=bytes(32)), make_proposal(V4, time_ms=5), make_proposal(V4, proposer=KEYS[3].public)]
DIGESTS = [block.header.digest() for block in BLOCKS]
VIEWS = (0, 0, 0, 1, 1, 2, 3, 4, 100, 2**32)


class Dice:
    """Arbitrary statements, mostly plausible ones about the view the replica is in."""

    def __init__(self, seed: int, me: int, *, is_own_included: bool = False) -> None:
        self.random = random.Random(seed)
        self.me = me
        others = [i for i in range(4) if i != me]
        self.signers = [*others * 4, 7, me if is_own_included else 7]
        self.now = 0

    def is_odd(self, share: float) -> bool:
        return self.random.random() < share

    def signer(self) -> bytes:
        return KEYS[self.random.choice(self.signers)].public

    def view(self) -> int:
        return self.random.choice(VIEWS) if self.is_odd(0.2) else self.now

    def block(self, view: int = 0) -> Proposal:
        plausible = [block for block in BLOCKS if block.header.height == 1 and block.header.view == max(0, min(view, 3))]
        return self.random.choice(BLOCKS if self.is_odd(0.1) else plausible[:1])

    def vote(self) -> Vote:
        view = self.view()
        kind = COMMIT if self.is_odd(0.1) else PREPARE
        digest = DIGESTS[BLOCKS.index(self.block(self.random.choice((view, 0))))]
        return Vote(kind, 1 if self.is_odd(0.95) else 2, view, digest, self.signer(), bytes(64))

    def proof(self, view: int, block: Proposal) -> PreparedProof:
        count = 2 if self.is_odd(0.05) else 3
        return PreparedProof(1, view, block.header.digest(), tuple((i, bytes(64)) for i in range(count)))

    def view_change(self, view: int | None = None) -> ViewChange:
        view = self.random.choice((self.now, self.now + 1, self.view())) if view is None else view
        prepared = self.random.choice((0, view - 1, self.view()))
        proof = self.proof(prepared, self.block(prepared)) if self.is_odd(0.3) else None
        shown = (None, None) if proof is None else (proof.view, proof.digest)
        if self.is_odd(0.05):
            shown = (self.random.choice((None, -1, 0, 5)), self.random.choice((None, bytes(32))))
        return ViewChange(1, view, *shown, self.signer(), bytes(64), proof if self.is_odd(0.9) else None)

    def pre_prepare(self) -> PrePrepare:
        view = self.random.choice((self.now, self.now, self.now + 1))
        if view == 0 or self.is_odd(0.2):
            count = self.random.choice((0, 3, 3)) if view else 0
            return self.envelope(self.block(view), view, [self.view_change(view) for _ in range(count)])
        block = self.random.choice((BLOCKS[0], make_proposal(V4, view=view)))
        shown = None if block.header.view == view else self.proof(self.random.randrange(view), block)
        quorum = self.random.sample(range(4), 3)
        changes = [ViewChange(1, view, None, None, KEYS[i].public, bytes(64)) for i in quorum if i != quorum[0] or shown is None]
        if shown is not None:
            changes.append(ViewChange(1, view, shown.view, shown.digest, KEYS[quorum[0]].public, bytes(64), shown))
        return self.envelope(block, view, changes)

    def envelope(self, block: Proposal, view: int, changes: list[ViewChange]) -> PrePrepare:
        signer = primary(V4.voters, block.header.height, view)
        if signer == KEYS[self.me].public or self.is_odd(0.05):
            signer = self.signer()
        prepare = Vote(PREPARE, block.header.height, view, block.header.digest(), signer, bytes(64))
        own = KEYS[self.me].public
        others = {change.signer: change for change in changes if change.signer != own or self.me in self.signers}
        return PrePrepare(block, prepare, tuple(others[key] for key in sorted(others)))

    def flags(self) -> list[bool]:
        return [self.is_odd(0.5) for _ in range(4)]

    def event(self, asked: list[bytes]):
        checked = self.random.choice(asked) if asked and self.is_odd(0.9) else self.random.choice(DIGESTS)
        makers = (
            (30, lambda: VoteReceived(self.vote())),
            (15, lambda: PrePrepareReceived(self.pre_prepare())),
            (15, lambda: ViewChangeReceived(self.view_change())),
            (25, lambda: ProposalChecked(checked, self.is_odd(0.95))),
            (8, lambda: BlockHeld(self.block())),
            (1, lambda: VotingAllowed(False)),
            (6, lambda: VotingAllowed(True)),
            (3, lambda: SituationChanged(*self.flags())),
            (1, DecisionAdopted),
            (0.1, lambda: CertificateLearned(Certificate(1, self.view(), self.random.choice(DIGESTS), ((0, bytes(64)),) * 3))),
        )
        return self.random.choices([make for _, make in makers], [weight for weight, _ in makers])[0]()


class Watch:
    """Feeds a replica and judges what it says by its outputs alone."""

    def __init__(self, bench: Bench, dice: Dice) -> None:
        self.bench, self.dice = bench, dice
        self.durable: dict = {}
        self.left = 0
        self.asked: list[bytes] = []

    def step(self) -> None:
        """One arbitrary event, or some time."""
        self.dice.now = self.bench.replica.view
        if self.dice.is_odd(0.05):
            self.judge(self.bench.wait(self.dice.random.randint(0, 3_000)))
        else:
            self.feed(self.dice.event(self.asked))

    def feed(self, event) -> None:
        instance = self.bench.replica._instance
        before = (instance.view, instance.phase)
        outputs = self.bench.feed(event)
        assert instance.view >= before[0]
        assert is_legal_move(before[1], instance.phase, is_view_higher=instance.view > before[0])
        self.judge(outputs)
        for output in outputs:
            if isinstance(output, CheckProposal):
                self.asked.append(output.proposal.header.digest())
            if isinstance(output, FetchBlock) and output.digest in DIGESTS:
                self.feed(BlockHeld(BLOCKS[DIGESTS.index(output.digest)]))
            if isinstance(output, BuildProposal):
                self.feed(ProposalBuilt(output.view, make_proposal(V4, 1, output.view, salt=b"built")))

    def judge(self, outputs) -> None:
        for output in outputs:
            match output:
                case Persist(OwnVote(vote)):
                    assert vote.view >= self.left, "a vote below an own view change"
                    assert self.durable.setdefault((vote.kind, vote.view), vote) == vote, "double promise"
                case Persist(OwnViewChange(change)):
                    assert change.view > self.left
                    self.left = change.view
                    self.durable["view change", change.view] = change
                case Broadcast(Vote() as vote):
                    assert self.durable[vote.kind, vote.view] == vote, "said before durable"
                case Broadcast(PrePrepare() as message):
                    assert self.durable[PREPARE, message.view] == message.prepare
                case Broadcast(ViewChange() as change):
                    assert self.durable["view change", change.view] == change


@pytest.mark.parametrize("me", [0, 1])
@pytest.mark.parametrize("is_own_included", [False, True])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=100)
def test_replica_survives_anything_and_keeps_its_promises(me, is_own_included, seed):
    bench = Bench(me=me)
    watch = Watch(bench, Dice(seed, me, is_own_included=is_own_included))
    watch.judge(bench.outputs)
    for _ in range(150):
        watch.step()


@given(seed=st.integers(0, 2**32), cut=st.integers(0, 12))
@settings(max_examples=100)
def test_promises_hold_across_a_restart_at_any_record(seed, cut):
    """A disk that keeps any beginning of what was written, as a log torn at a record does."""
    first = Watch(Bench(), Dice(seed, 0))
    for _ in range(80):
        first.step()
    records = first.bench.records()[:cut]
    again = Bench(hard_state=records)
    second = Watch(again, Dice(seed + 1, 0))
    second.judge([Persist(record) for record in records])
    second.judge(again.outputs)
    for _ in range(80):
        second.step()


def test_fuzzing_reaches_every_kind_of_output():
    """A fuzzer that never gets anywhere proves nothing."""
    reached: dict[str, int] = {}
    for seed in range(400):
        me = seed % 4
        watch = Watch(Bench(me=me), Dice(seed, me, is_own_included=seed % 5 == 0))
        for _ in range(150):
            watch.step()
        for output in watch.bench.outputs:
            name = type(output.record if isinstance(output, Persist) else output).__name__
            reached[name] = reached.get(name, 0) + 1
    missing = [kind.__name__ for kind in (*get_args(Output), *get_args(HardState)) if kind is not Persist and kind.__name__ not in reached]
    assert missing == [], reached


def test_a_flood_of_far_views_grows_nothing():
    """lessons.md: one node with a huge view number stopped the chain (FISCO-BCOS #2211)."""
    bench = Bench()
    for view in range(1, 2_000):
        bench.feed(VoteReceived(Vote(PREPARE, 1, view, DIGESTS[0], KEYS[2].public, bytes(64))))
        bench.feed(ViewChangeReceived(ViewChange(1, view, None, None, KEYS[2].public, bytes(64))))
    votes, changes = bench.replica.messages_signed_by(KEYS[2].public)
    assert len(votes) <= 20
    assert len(changes) == 1
    assert bench.replica.view == 0
