"""One replica as hypothesis plays with it: any verified inputs in any order, restarts, new heights; a short story is left when it errs.

test_fuzz.py throws more dice; here every step is a rule, so that a failure reads as a list of steps.
"""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from medchain.chain.certificate import Certificate
from medchain.chain.parameters import Parameters
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.consensus import instance
from medchain.consensus.events import (
    BlockHeld,
    Broadcast,
    BuildProposal,
    CertificateLearned,
    CheckProposal,
    DecisionAdopted,
    HardState,
    HeightStarted,
    Input,
    Output,
    OwnPreparedProof,
    OwnViewChange,
    OwnVote,
    Persist,
    PinnedProposal,
    PrePrepareReceived,
    ProposalBuilt,
    ProposalChecked,
    SawUnknownOwnVote,
    SituationChanged,
    Ticked,
    ViewChangeReceived,
    VoteReceived,
    VotingAllowed,
)
from medchain.consensus.instance import Instance
from medchain.consensus.messages import PrePrepare
from medchain.consensus.phases import is_legal_move
from medchain.consensus.promises import Promises
from medchain.consensus.proposals import Proposals
from medchain.consensus.replica import Replica
from medchain.consensus.rotation import primary
from medchain.errors import InvariantBroken
from tests.consensus.conftest import GENESIS_DIGEST, GENESIS_TIME_MS, KEYS, NETWORK, make_proposal, validators_of

V4 = validators_of(4)
VIEWS = st.sampled_from([0, 0, 1, 1, 2, 3, 9, 2**32])
OTHERS = st.sampled_from([1, 2, 3])
KINDS = st.sampled_from([PREPARE, COMMIT])
MARK = bytes(64)
"""A replica is handed verified statements and looks at no signature; unsigned ones save the time."""


class OneReplica(RuleBasedStateMachine):
    """Validator 0 of 4, or the primary of view 0 (validator 1) with the numbers of the others moved."""

    @initialize(me=st.sampled_from([0, 1]))
    def begin(self, me: int) -> None:
        self.me = me
        self.own = KEYS[me].public
        self.height, self.parent, self.parent_time_ms = 1, GENESIS_DIGEST, GENESIS_TIME_MS
        self.now_ms = 0
        self.disk: list = []
        self.promised: dict = {}
        self.left = 0
        self.blocks: dict[bytes, object] = {}
        self.asked: list[int] = []
        self.rest = 2
        self.is_alarmed = False
        """Whether this height was voted in with a memory that is not here."""
        self.valid: list[bytes] = []
        """What the executor, or the engine that built it, ever called valid."""
        self.boot(is_voting=True)

    def boot(self, *, is_voting: bool) -> None:
        self.replica = Replica(NETWORK, KEYS[self.me])
        self.feed(Ticked(self.now_ms, self.wall_ms()))
        self.feed(VotingAllowed(is_voting))
        self.feed(self.started(tuple(self.disk)))

    def started(self, records: tuple) -> HeightStarted:
        return HeightStarted(self.height, V4, V4.voters, Parameters(), self.parent_time_ms, self.parent, records)

    def wall_ms(self) -> int:
        return GENESIS_TIME_MS + 1_000 + self.now_ms

    def other(self, number: int) -> bytes:
        return KEYS[(self.me + number) % 4].public

    def block(self, view: int, which: int):
        """A block that the primary of `view` could have proposed."""
        view = min(view, 4)
        time_ms = max(self.parent_time_ms + 1, GENESIS_TIME_MS + 1_000)
        block = make_proposal(V4, self.height, view, parent=self.parent, time_ms=time_ms, salt=bytes([which]))
        self.blocks[block.header.digest()] = block
        return block

    # ---- judging ----

    def feed(self, event: Input) -> None:
        if isinstance(event, ProposalChecked) and event.is_valid:
            self.valid.append(event.digest)
        if isinstance(event, ProposalBuilt):
            self.valid.append(event.proposal.header.digest())
        before = self.replica._instance
        past = None if before is None else (before.view, before.phase)
        outputs = self.replica.handle(event)
        after = self.replica._instance
        if past is not None and after is before:
            assert after.view >= past[0]
            assert is_legal_move(past[1], after.phase, is_view_higher=after.view > past[0])
        for output in outputs:
            match output:
                case Persist(record):
                    self.write(record)
                case Broadcast(PrePrepare() as message):
                    assert OwnVote(message.prepare) in self.disk, "said before it is durable"
                    assert PinnedProposal(message.proposal, message.view) in self.disk
                case Broadcast(Vote() as vote):
                    assert OwnVote(vote) in self.disk, "said before it is durable"
                    pinned = [record for record in self.disk if isinstance(record, PinnedProposal)]
                    is_late = vote.kind == COMMIT and self.replica.decided is not None
                    assert is_late or any(record.proposal.header.digest() == vote.digest for record in pinned)
                case Broadcast(ViewChange() as change):
                    assert OwnViewChange(change) in self.disk, "said before it is durable"
                case CheckProposal(proposal):
                    self.blocks[proposal.header.digest()] = proposal
                case BuildProposal(height, view):
                    assert (height, view) == (self.height, self.replica.view)
                    self.asked.append(view)

    def write(self, record) -> None:
        """Hold it against everything this key ever promised, over all restarts."""
        assert not self.is_alarmed, "something is signed at a height whose votes were forgotten"
        self.disk.append(record)
        match record:
            case OwnVote(vote):
                place = (vote.kind, vote.height, vote.view)
                assert self.promised.setdefault(place, vote.digest) == vote.digest, "two promises for one kind and view"
                assert vote.view >= self.left, "a vote below an own view change"
                assert vote.height == self.height
                assert vote.digest in self.valid, "a vote for a block that was not executed"
            case OwnViewChange(change):
                assert change.view > self.left
                self.left = change.view
                committed = [view for kind, height, view in self.promised if (kind, height) == (COMMIT, change.height)]
                assert max(committed, default=-1) <= (-1 if change.prepared_view is None else change.prepared_view), "a lie"
            case OwnPreparedProof(proof):
                assert len(proof.prepares) == V4.quorum

    # ---- steps ----

    @rule(number=OTHERS, kind=KINDS, view=VIEWS, of_view=st.integers(0, 3), which=st.integers(0, 1))
    def vote(self, number, kind, view, of_view, which):
        digest = self.block(min(view, of_view), which).header.digest()
        self.feed(VoteReceived(Vote(kind, self.height, view, digest, self.other(number), MARK)))

    @rule(kind=st.sampled_from([PREPARE, PREPARE, PREPARE, COMMIT]), view=st.integers(0, 2), which=st.integers(0, 1))
    def votes_of_all_others(self, kind, view, which):
        for number in (1, 2, 3):
            digest = self.block(view, which).header.digest()
            self.feed(VoteReceived(Vote(kind, self.height, view, digest, self.other(number), MARK)))

    @rule(which=st.integers(0, 1), primary_view=st.integers(0, 3))
    def fresh_pre_prepare(self, which, primary_view):
        """Of any view; above 0 with a quorum that prepared nothing."""
        block = self.block(primary_view, which)
        changes = () if primary_view == 0 else tuple(self.change(i, primary_view, None) for i in (1, 2, 3))
        self.propose(block, primary_view, changes)

    @rule(which=st.integers(0, 1), view=st.integers(1, 4), prepared=st.integers(0, 3))
    def again_pre_prepare(self, which, view, prepared):
        block = self.block(min(prepared, view - 1), which)
        proof = self.proof(min(prepared, view - 1), block)
        self.propose(block, view, (self.change(1, view, proof), self.change(2, view, None), self.change(3, view, None)))

    @rule(which=st.integers(0, 1), steps=st.integers(2, 4), is_valid=st.sampled_from([True, True, True, False]))
    def a_view_goes_on(self, which, steps, is_valid):
        self.view_goes_on(which, steps, is_valid)

    def view_goes_on(self, which, steps, is_valid) -> None:
        """The present view as it should be, so far: a proposal, the executor's answer, the prepares, the commits."""
        view = min(self.replica.view, 4)
        self.fresh_pre_prepare(which, view)
        digest = self.replica._instance.accepted
        if digest in self.blocks:
            self.feed(ProposalChecked(digest, is_valid))
            for kind in (PREPARE, COMMIT)[: steps - 2]:
                for number in (1, 2, 3):
                    self.feed(VoteReceived(Vote(kind, self.height, view, digest, self.other(number), MARK)))

    def propose(self, block, view, changes) -> None:
        signer = primary(V4.voters, self.height, view)
        if signer == self.own:
            return
        prepare = Vote(PREPARE, self.height, view, block.header.digest(), signer, MARK)
        self.feed(PrePrepareReceived(PrePrepare(block, prepare, tuple(sorted(changes, key=lambda change: change.signer)))))

    def proof(self, view, block) -> PreparedProof:
        return PreparedProof(self.height, view, block.header.digest(), tuple((i, MARK) for i in range(3)))

    def change(self, number, view, proof) -> ViewChange:
        shown = (None, None) if proof is None else (proof.view, proof.digest)
        return ViewChange(self.height, view, *shown, self.other(number), MARK, proof)

    @precondition(lambda self: self.disk)
    @rule(data=st.data())
    def own_statement_comes_back(self, data):
        """What this disk holds is no news, whoever shows it."""
        record = data.draw(st.sampled_from(self.disk))
        is_vote = isinstance(record, OwnVote)
        if is_vote or isinstance(record, OwnViewChange):
            event = VoteReceived(record.vote) if is_vote else ViewChangeReceived(record.view_change)
            assert not [output for output in self.replica.handle(event) if isinstance(output, SawUnknownOwnVote)]

    @rule(kind=KINDS, view=st.integers(0, 3), which=st.integers(0, 1), dice=st.integers(0, 3))
    def unknown_own_statement(self, kind, view, which, dice):
        """A second holder of the key, or a disk that forgot: from now on nothing is signed at this height."""
        digest = self.block(min(view, 3), which).header.digest()
        if dice or self.replica.decided is not None or self.promised.get((kind, self.height, view)) == digest:
            return
        is_allowed = self.replica._around.is_voting_allowed
        outputs = self.replica.handle(VoteReceived(Vote(kind, self.height, view, digest, self.own, MARK)))
        assert not [output for output in outputs if isinstance(output, Persist)]
        assert any(isinstance(output, SawUnknownOwnVote) for output in outputs) == is_allowed, "the alarm is for who votes"
        assert not self.replica.is_voting()
        self.is_alarmed = True

    @rule(data=st.data())
    def backup_comes_back(self, data):
        """The disk forgets its newest records; the engine lets the node vote only when their height is past."""
        self.disk = self.disk[: data.draw(st.integers(0, len(self.disk)))]
        self.is_alarmed, self.asked = True, []
        self.boot(is_voting=False)

    @rule(number=OTHERS, view=VIEWS.filter(bool), prepared=st.none() | st.integers(0, 2), which=st.integers(0, 1))
    def view_change(self, number, view, prepared, which):
        proof = None if prepared is None or prepared >= view else self.proof(prepared, self.block(prepared, which))
        self.feed(ViewChangeReceived(self.change(number, view, proof)))

    @rule(view=st.integers(1, 3))
    def two_others_change_views(self, view):
        for number in (2, 3):
            self.feed(ViewChangeReceived(self.change(number, view, None)))

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), is_valid=st.sampled_from([True, True, True, False]))
    def executor_answers(self, data, is_valid):
        self.feed(ProposalChecked(data.draw(st.sampled_from(sorted(self.blocks))), is_valid))

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def block_arrives(self, data):
        self.feed(BlockHeld(self.blocks[data.draw(st.sampled_from(sorted(self.blocks)))]))

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(2, 3))
    def block_is_built(self, which):
        view = self.asked.pop()
        if primary(V4.voters, self.height, view) == self.own:
            proposal = make_proposal(V4, self.height, view, parent=self.parent, time_ms=self.parent_time_ms + 1, salt=bytes([which]))
            self.blocks[proposal.header.digest()] = proposal
            self.feed(ProposalBuilt(view, proposal))

    @rule(milliseconds=st.sampled_from([1, 500, 1_000, 1_500, 20_000]))
    def time_passes(self, milliseconds):
        self.now_ms += milliseconds
        self.feed(Ticked(self.now_ms, self.wall_ms()))

    @rule(flags=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()))
    def situation(self, flags):
        self.feed(SituationChanged(*flags))

    @rule(is_allowed=st.sampled_from([True, True, False]))
    def voting(self, is_allowed):
        self.feed(VotingAllowed(is_allowed and not self.is_alarmed))

    @rule(view=st.integers(0, 2), which=st.integers(0, 1), dice=st.integers(0, 3))
    def certificate(self, view, which, dice):
        if dice:
            return  # a decided height has little left to tell
        digest = self.block(view, which).header.digest()
        self.feed(CertificateLearned(Certificate(self.height, view, digest, tuple((i, MARK) for i in range(3)))))

    @rule(is_voting=st.sampled_from([True, True, False]), which=st.integers(0, 1), steps=st.integers(1, 4))
    def restart(self, is_voting, which, steps):
        """In the middle of a view, as it may be, that then goes on with another block."""
        if steps > 2:
            self.view_goes_on(which, 2, True)
        self.asked = []
        self.boot(is_voting=is_voting and not self.is_alarmed)
        if steps > 1:
            self.view_goes_on(1 - which, min(steps, 3), True)

    @invariant()
    def decided_heights_end(self):
        """After a few more steps, in which what is late must do no harm."""
        if hasattr(self, "replica") and self.replica.decided is not None:
            self.rest -= 1
            if self.rest < 0 and self.replica.decided.digest in self.blocks:
                self.next_height()

    def next_height(self) -> None:
        self.rest = 2
        if self.now_ms % 2:  # the block came after the certificate, in the same turn as the decision
            self.valid.append(self.replica.decided.digest)
            self.feed(DecisionAdopted())
        block = self.blocks[self.replica.decided.digest]
        self.height, self.parent, self.parent_time_ms = self.height + 1, block.header.digest(), block.header.time_ms
        self.disk, self.left, self.asked, self.blocks, self.is_alarmed = [], 0, [], {}, False
        self.feed(self.started(()))

    # ---- what holds always ----

    @invariant()
    def what_is_said_again_is_durable(self):
        if not hasattr(self, "replica"):
            return
        for message in self.replica.own_messages():
            part = message.prepare if isinstance(message, PrePrepare) else message
            assert (OwnVote(part) if isinstance(part, Vote) else OwnViewChange(part)) in self.disk

    @invariant()
    def explanation_is_whole(self):
        if hasattr(self, "replica"):
            told = self.replica.explain()
            assert told["height"] == self.height
            assert told["timer_left_ms"] is None or told["timer_left_ms"] >= 0


def test_replica_keeps_its_promises_in_every_story():
    run_state_machine_as_test(OneReplica, settings=settings(max_examples=150, stateful_step_count=40))


@pytest.mark.long
@pytest.mark.parametrize("block", range(20))
def test_replica_keeps_its_promises_in_very_many_long_stories(block):
    stories = hypothesis.seed(block)(type("Stories", (OneReplica,), {}))
    run_state_machine_as_test(stories, settings=settings(max_examples=200, stateful_step_count=80, database=None))


STEADY = settings(max_examples=100, stateful_step_count=30, derandomize=True, database=None, phases=[hypothesis.Phase.generate])
"""The same stories every time, without shrinking."""


def forget_votes(promises: Promises, record: HardState) -> None:
    if not isinstance(record, OwnVote):
        RESTORE(promises, record)


def say_first(instance: Instance) -> list[Output] | None:
    outputs = JOIN(instance)
    return None if outputs is None else outputs[::-1]


def deny_all(promises: Promises, view: int) -> tuple[ViewChange, list[Persist]]:
    promises.proof = None
    return CHANGE_VIEW(promises, view)


RESTORE, JOIN, CHANGE_VIEW = Promises._restore, Instance._join, Promises.change_view
MUTANTS = {
    "votes are forgotten over a restart": (Promises, "_restore", forget_votes),
    "a view change is said before it is written": (Instance, "_join", say_first),
    "a view change denies what was prepared": (Promises, "change_view", deny_all),
    "a second holder of the key is no alarm": (Promises, "knows", lambda promises, message: True),
    "blocks are voted for unexecuted": (Proposals, "is_valid", lambda proposals, digest: proposals.get(digest) is not None),
    "a late commit is signed whatever was left": (Promises, "highest_view", property(lambda promises: 0)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_machine_finds_a_replica_that_breaks_a_rule(name, monkeypatch):
    owner, attribute, broken = MUTANTS[name]
    monkeypatch.setattr(owner, attribute, broken)
    monkeypatch.setattr(instance, "_RULES", tuple(getattr(Instance, rule.__name__) for rule in instance._RULES))
    with pytest.raises((AssertionError, InvariantBroken, ExceptionGroup)):
        run_state_machine_as_test(OneReplica, settings=settings(STEADY, max_examples=1_000))


def test_stories_reach_every_phase_and_every_promise():
    """A machine that never gets anywhere proves nothing."""
    reached: list[str] = []

    class Watched(OneReplica):
        def write(self, record) -> None:
            reached.append(type(record).__name__)
            super().write(record)

        @invariant()
        def look(self):
            if hasattr(self, "replica"):
                reached.append(self.replica._instance.phase.name)

    run_state_machine_as_test(Watched, settings=STEADY)
    assert {"OwnVote", "OwnViewChange", "PinnedProposal", "OwnPreparedProof"} <= set(reached)
    assert {"AWAITING", "CHECKING", "REFUSED", "PREPARING", "COMMITTING", "DECIDED"} <= set(reached)
