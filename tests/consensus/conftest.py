"""Replicas in memory: keys, blocks without transactions, and a small network with virtual time, faults, crashes and liars.

The executor is a fake (every block is valid unless a test says otherwise) because what a block means is the engine's business; votes,
signatures and certificates are real. All randomness comes from the seed, so a failing seed replays.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from medchain.chain.block import Header, LastCommit, Proposal, evidence_digest
from medchain.chain.certificate import Certificate
from medchain.chain.domain import Domain
from medchain.chain.parameters import Parameters
from medchain.chain.transaction import transactions_root
from medchain.chain.validators import Validator, ValidatorSet
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.consensus.events import (
    BlockHeld,
    Broadcast,
    BuildProposal,
    CertificateLearned,
    CheckProposal,
    Decided,
    EvidenceFound,
    FetchBlock,
    HandOver,
    HardState,
    HeightStarted,
    Input,
    Output,
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
from medchain.consensus.messages import PrePrepare
from medchain.consensus.phases import is_legal_move
from medchain.consensus.replica import Replica
from medchain.consensus.rotation import primary
from medchain.crypto.hashing import tagged_digest
from medchain.crypto.signing import SigningKey

NETWORK = Domain(tagged_digest("medchain/genesis", b"tests/consensus"), 0)
GENESIS_DIGEST = tagged_digest("medchain/block", b"genesis")
GENESIS_TIME_MS = 1_700_000_000_000
EMPTY = LastCommit(None)
KEYS = sorted((SigningKey(bytes([number]) * 32) for number in range(1, 14)), key=lambda key: key.public)
BUSY = SituationChanged(is_work_known_to_primary=True, is_work_waiting=True, is_primary_connected=True, is_heartbeat_due=False)


def validators_of(n: int, suspended: tuple[int, ...] = ()) -> ValidatorSet:
    return ValidatorSet(0, tuple(Validator(KEYS[i].public, bytes(32), i not in suspended) for i in range(n)))


def make_proposal(
    validators: ValidatorSet,
    height: int = 1,
    view: int = 0,
    *,
    parent: bytes = GENESIS_DIGEST,
    time_ms: int = GENESIS_TIME_MS + 1_000,
    salt: bytes = b"",
    proposer: bytes | None = None,
) -> Proposal:
    """An empty block; `salt` makes blocks differ through their state root."""
    header = Header(
        version=1,
        chain_id="tests",
        height=height,
        view=view,
        time_ms=time_ms,
        parent=parent,
        proposer=primary(validators.voters, height, view) if proposer is None else proposer,
        transactions_root=transactions_root(()),
        receipts_root=bytes(32),
        state_root=tagged_digest("medchain/state", salt),
        validators_digest=validators.digest(),
        next_validators_digest=validators.digest(),
        last_commit_digest=EMPTY.digest(),
        history_root=bytes(32),
        evidence_digest=evidence_digest(()),
    )
    return Proposal(header, (), EMPTY)


def vote(i: int, kind: int, proposal: Proposal, view: int = 0) -> Vote:
    return Vote.sign(NETWORK, KEYS[i], kind, proposal.header.height, view, proposal.header.digest())


def proof_of(proposal: Proposal, view: int, signers: tuple[int, ...]) -> PreparedProof:
    rows = tuple((i, vote(i, PREPARE, proposal, view).signature) for i in sorted(signers))
    return PreparedProof(proposal.header.height, view, proposal.header.digest(), rows)


def view_change(i: int, view: int, proof: PreparedProof | None = None, height: int = 1) -> ViewChange:
    return ViewChange.sign(NETWORK, KEYS[i], height, view, proof)


def certificate_of(proposal: Proposal, view: int, signers: tuple[int, ...]) -> Certificate:
    rows = tuple((i, vote(i, COMMIT, proposal, view).signature) for i in sorted(signers))
    return Certificate(proposal.header.height, view, proposal.header.digest(), rows)


# ---- one replica, fed by hand -----------------------------------------------------------------------------------------------------


class Bench:
    """One replica of `n` at height 1 (whose view 0 is led by validator 1), and what it answers."""

    def __init__(
        self,
        n: int = 4,
        me: int = 0,
        *,
        hard_state: tuple[HardState, ...] = (),
        is_voting: bool = True,
        suspended: tuple[int, ...] = (),
        parameters: Parameters | None = None,
    ) -> None:
        self.validators = validators_of(n, suspended)
        self.me = me
        self.parameters = parameters or Parameters()
        self.replica = Replica(NETWORK, KEYS[me])
        self.now_ms = 0
        self.outputs: list[Output] = []
        self.feed(Ticked(0, GENESIS_TIME_MS + 1_000))
        self.feed(VotingAllowed(is_voting))
        self.start(hard_state=hard_state)

    def start(self, height: int = 1, parent: bytes = GENESIS_DIGEST, hard_state: tuple[HardState, ...] = ()) -> list[Output]:
        rotation = self.validators.voters
        return self.feed(HeightStarted(height, self.validators, rotation, self.parameters, GENESIS_TIME_MS, parent, hard_state))

    def feed(self, *events: Input) -> list[Output]:
        """Feed events; return the outputs of these alone."""
        found: list[Output] = []
        for event in events:
            found += self.replica.handle(event)
        self.outputs += found
        return found

    def wait(self, duration_ms: int) -> list[Output]:
        self.now_ms += duration_ms
        return self.feed(Ticked(self.now_ms, GENESIS_TIME_MS + 1_000 + self.now_ms))

    def propose(self, proposal: Proposal, view: int = 0, view_changes: tuple[ViewChange, ...] = ()) -> list[Output]:
        """Feed the pre-prepare of the primary of `view`."""
        leader = self.leader(view, proposal.header.height)
        return self.feed(PrePrepareReceived(PrePrepare(proposal, vote(leader, PREPARE, proposal, view), view_changes)))

    def accept(self, proposal: Proposal, view: int = 0, view_changes: tuple[ViewChange, ...] = ()) -> list[Output]:
        """Feed the pre-prepare and the executor's yes."""
        return self.propose(proposal, view, view_changes) + self.check(proposal)

    def check(self, proposal: Proposal, is_valid: bool = True) -> list[Output]:
        return self.feed(ProposalChecked(proposal.header.digest(), is_valid))

    def votes(self, kind: int, proposal: Proposal, signers: tuple[int, ...], view: int = 0) -> list[Output]:
        return self.feed(*(VoteReceived(vote(i, kind, proposal, view)) for i in signers))

    def change_views(self, view: int, signers: tuple[int, ...], proof: PreparedProof | None = None) -> list[Output]:
        return self.feed(*(ViewChangeReceived(view_change(i, view, proof)) for i in signers))

    def leader(self, view: int, height: int = 1) -> int:
        return self.validators.keys.index(primary(self.validators.voters, height, view))

    def records(self) -> tuple[HardState, ...]:
        """What a crash now would leave on disk."""
        return tuple(output.record for output in self.outputs if isinstance(output, Persist))


def sent(outputs: list[Output], kind: Any) -> list[Any]:
    """The broadcast messages of a class, or votes of a kind."""
    messages = [output.message for output in outputs if isinstance(output, Broadcast)]
    if isinstance(kind, int):
        return [message for message in messages if isinstance(message, Vote) and message.kind == kind]
    return [message for message in messages if isinstance(message, kind)]


def of(outputs: list[Output], kind: type) -> list[Any]:
    return [output for output in outputs if isinstance(output, kind)]


# ---- a network of replicas --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BlockAsked:
    height: int
    digest: bytes


@dataclass(frozen=True)
class BlockGiven:
    proposal: Proposal


@dataclass(frozen=True)
class FinalAsked:
    height: int


@dataclass(frozen=True)
class Final:
    proposal: Proposal
    certificate: Certificate


@dataclass
class Weather:
    """The faults of a network; all rates per message or turn."""

    delay_ms: tuple[int, int] = (1, 20)
    loss: float = 0.0
    duplication: float = 0.0
    slow: float = 0.0
    """Share of messages that take up to two seconds: reordering."""
    crash: float = 0.0
    """Chance of a crash per turn that persists something, at one of the durability points."""


@dataclass
class Chain:
    """What one node has decided, which survives crashes."""

    blocks: list[Final] = field(default_factory=list)
    records: list[HardState] = field(default_factory=list)
    pinned: dict[bytes, Proposal] = field(default_factory=dict)


class Node:
    """A replica with a fake executor and a disk that keeps whole turns."""

    def __init__(self, net: Net, i: int) -> None:
        self.net, self.i = net, i
        self.disk = Chain()
        self.life = 0
        self.is_up = True
        self.wanted: dict[bytes, int] = {}
        self.situation: SituationChanged | None = None
        self._finals: list[Final] = []
        self.replica = Replica(NETWORK, KEYS[i])

    @property
    def height(self) -> int:
        return len(self.disk.blocks)

    def boot(self) -> None:
        self.life += 1
        self.is_up = True
        self.wanted = {}
        self.replica = Replica(NETWORK, KEYS[self.i])
        self.run(Ticked(self.net.now_ms, self.wall_ms()))
        self.run(VotingAllowed(True))
        self.situation = None
        self.run(self.next_height(tuple(self.disk.records)))

    def wall_ms(self) -> int:
        return GENESIS_TIME_MS + 1_000 + self.net.now_ms

    def next_height(self, records: tuple[HardState, ...] = ()) -> HeightStarted:
        parent = self.disk.blocks[-1].proposal.header if self.disk.blocks else None
        digest = GENESIS_DIGEST if parent is None else parent.digest()
        time_ms = GENESIS_TIME_MS if parent is None else parent.time_ms
        return self.net.start_of(self.height + 1, time_ms, digest, records)

    # -- one turn: events in, then durable, then sent

    def run(self, event: Input) -> None:
        """One turn: everything is computed, then written, then sent; a crash may fall between any two of these."""
        if not self.is_up:
            return
        batch: list[HardState] = []
        outgoing: list[tuple[int | None, Any]] = []
        queue: list[Input] = [event]
        self._finals: list[Final] = []
        while queue:
            before = (self.replica.height, self.replica.view, self._phase())
            outputs = self.replica.handle(queue.pop(0))
            self._check_move(before)
            for output in outputs:
                self.obey(output, batch, outgoing, queue)
        self.finish(batch, outgoing)

    def _phase(self):
        return None if self.replica._instance is None else self.replica._instance.phase

    def _check_move(self, before) -> None:
        height, view, phase = before
        if phase is not None and self.replica.height == height:
            is_higher = self.replica.view > view
            assert self.replica.view >= view, "a view went backwards"
            assert is_legal_move(phase, self._phase(), is_view_higher=is_higher), (phase, self._phase())

    def finish(self, batch: list[HardState], outgoing: list[tuple[int | None, Any]]) -> None:
        fate = self.net.fate(bool(batch or self._finals))
        if fate == "before":
            return self.net.crash(self)
        for record in batch:
            if isinstance(record, PinnedProposal):
                self.disk.pinned[record.proposal.header.digest()] = record.proposal
            self.disk.records.append(record)
            self.net.note_written(self.i, record)
        for final in self._finals:
            self.disk.blocks.append(final)
            self.disk.records = [record for record in self.disk.records if height_of(record) > final.certificate.height]
            self.net.note_final(self, final)
        if fate == "unsent":
            return self.net.crash(self)
        for to, message in outgoing[: len(outgoing) // 2] if fate == "half" else outgoing:
            self.net.note_said(self.i, message)
            self.net.send(self.i, to, message)
        if fate == "half":
            self.net.crash(self)

    def obey(self, output: Output, batch: list[HardState], outgoing: list[tuple[int | None, Any]], queue: list[Input]) -> None:
        match output:
            case Persist(record):
                batch.append(record)
            case Broadcast(message):
                outgoing.append((None, message))
            case BuildProposal(height, view, is_urgent):
                self.later(1 if is_urgent else self.net.interval_ms, lambda: self.build(height, view))
            case CheckProposal(proposal):
                self.later(self.net.random.randint(1, 10), lambda: self.execute(proposal))
            case FetchBlock(height, digest):
                self.wanted[digest] = height
                outgoing.append((None, BlockAsked(height, digest)))
            case Decided(certificate):
                self.decide(certificate, batch, outgoing, queue)
            case EvidenceFound():
                self.net.note_evidence(output)
            case HandOver():
                self.net.hand_overs += 1
            case SawUnknownOwnVote():
                assert self.i in self.net.liars, "an own vote is unknown although nothing was forgotten"

    def decide(self, certificate, batch, outgoing, queue) -> None:
        proposal = self.held(certificate.digest, batch)
        if proposal is None:
            self.wanted[certificate.digest] = certificate.height
            outgoing.append((None, BlockAsked(certificate.height, certificate.digest)))
            return
        self._finals.append(Final(proposal, certificate))
        header = proposal.header
        self.wanted = {}
        queue.append(
            self.net.start_of(header.height + 1, header.time_ms, header.digest()),
        )

    def held(self, digest: bytes, batch: list[HardState] = ()) -> Proposal | None:
        for record in batch:
            if isinstance(record, PinnedProposal) and record.proposal.header.digest() == digest:
                return record.proposal
        return self.disk.pinned.get(digest)

    def later(self, delay_ms: int, action: Callable[[], None]) -> None:
        life = self.life
        self.net.at(delay_ms, lambda: action() if life == self.life and self.is_up else None)

    def build(self, height: int, view: int) -> None:
        if height == self.replica.height and self.replica.decided is None:
            started = self.next_height()
            salt = b"%d/%d/%d/%d" % (self.i, height, view, self.net.random.getrandbits(32))
            time_ms = max(self.wall_ms(), started.parent_time_ms + 1)
            proposal = make_proposal(self.net.validators, height, view, parent=started.parent_digest, time_ms=time_ms, salt=salt)
            self.run(ProposalBuilt(view, proposal))

    def execute(self, proposal: Proposal) -> None:
        digest = proposal.header.digest()
        if digest not in self.net.unobtainable:
            self.disk.pinned.setdefault(digest, proposal)
            self.run(ProposalChecked(digest, digest not in self.net.invalid))

    # -- messages

    def receive(self, sender: int, message: Any) -> None:
        match message:
            case BlockAsked(_, digest):
                proposal = self.held(digest)
                if proposal is not None:
                    self.net.send(self.i, sender, BlockGiven(proposal))
            case BlockGiven(proposal):
                self.take_block(proposal)
            case FinalAsked(height):
                if 0 < height <= self.height:
                    self.net.send(self.i, sender, self.disk.blocks[height - 1])
            case Final(proposal, certificate):
                self.disk.pinned.setdefault(certificate.digest, proposal)
                if certificate.height == self.replica.height and self.replica.decided is None:
                    self.run(CertificateLearned(certificate))
                    self.net.send(self.i, sender, FinalAsked(self.height + 1))
                else:
                    self.take_block(proposal)
            case PrePrepare() | Vote() | ViewChange():
                if message.height <= self.height:
                    self.net.send(self.i, sender, self.disk.blocks[message.height - 1])
                else:
                    if message.height > self.height + 1:
                        self.net.send(self.i, sender, FinalAsked(self.height + 1))
                    self.run(as_event(message))

    def take_block(self, proposal: Proposal) -> None:
        digest = proposal.header.digest()
        if digest not in self.wanted:
            return
        self.disk.pinned.setdefault(digest, proposal)
        decided = self.replica.decided
        if decided is not None and decided.digest == digest:
            header = proposal.header
            self._finals = [Final(proposal, decided)]
            self.disk.blocks.append(self._finals[0])
            self.disk.records = []
            self.net.note_final(self, self._finals[0])
            self.wanted = {}
            self.run(self.net.start_of(header.height + 1, header.time_ms, digest))
        else:
            self.run(BlockHeld(proposal))

    def look_around(self) -> None:
        """There is always work, and everybody knows it; the primary is connected if it is up and the link is not cut."""
        key = self.replica.primary_key()
        leader = self.net.validators.index_of(key)
        is_connected = leader == self.i or leader is None or self.net.is_linked(self.i, leader)
        situation = SituationChanged(self.net.is_busy and is_connected, self.net.is_busy, is_connected, False)
        if situation != self.situation:
            self.situation = situation
            self.run(situation)

    def tick(self) -> None:
        if self.is_up:
            self.look_around()
            self.run(Ticked(self.net.now_ms, self.wall_ms()))
            for digest, height in list(self.wanted.items()):
                self.net.send(self.i, None, BlockAsked(height, digest))


def as_event(message: Any) -> Input:
    match message:
        case PrePrepare():
            return PrePrepareReceived(message)
        case Vote():
            return VoteReceived(message)
        case _:
            return ViewChangeReceived(message)


def height_of(record: HardState) -> int:
    for name in ("vote", "view_change", "proof"):
        if hasattr(record, name):
            return getattr(record, name).height
    return record.proposal.header.height


class Net:
    """Virtual time, links and checkers. Liars are honest replicas whose messages are altered on their way out."""

    def __init__(self, n: int, seed: int = 0, weather: Weather | None = None, *, dead: tuple[int, ...] = (), liars=None) -> None:
        self.random = random.Random(seed)
        self.validators = validators_of(n)
        self.parameters = Parameters()
        self.weather = weather or Weather()
        self.interval_ms = 50
        self.now_ms = 0
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.count = 0
        self.cut: dict[tuple[int, int], None] = {}
        self.invalid: dict[bytes, None] = {}
        self.unobtainable: dict[bytes, None] = {}
        self.is_busy = True
        self.hand_overs = 0
        self.crashes = 0
        self.messages = 0
        self.liars: dict[int, Callable[[Net, int, int, Any], list[Any]]] = liars or {}
        self.decided: dict[int, bytes] = {}
        self.said: dict[tuple[Any, ...], Any] = {}
        self.left: dict[tuple[int, int], int] = {}
        self.evidence: list[EvidenceFound] = []
        self.dead = dead
        self.nodes = [Node(self, i) for i in range(n)]
        for node in self.nodes:
            if node.i in dead:
                node.is_up = False
            else:
                node.boot()
                self.keep_ticking(node)

    def start_of(self, height: int, time_ms: int, digest: bytes, records: tuple[HardState, ...] = ()) -> HeightStarted:
        """Everybody takes turns here: what the rotation depends on is a matter of the state, which this network has not."""
        return HeightStarted(height, self.validators, self.validators.voters, self.parameters, time_ms, digest, records)

    # -- time

    def at(self, delay_ms: int, action: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.queue, (self.now_ms + delay_ms, self.count, action))

    def keep_ticking(self, node: Node) -> None:
        def again() -> None:
            node.tick()
            self.at(50, again)

        self.at(self.random.randint(1, 50), again)

    def run_for(self, duration_ms: int, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; return whether `until` became true (then at once)."""
        end_ms = self.now_ms + duration_ms
        while self.queue and self.queue[0][0] <= end_ms:
            self.now_ms, _, action = heapq.heappop(self.queue)
            action()
            if until is not None and until():
                return True
        self.now_ms = end_ms
        return False

    # -- links

    def send(self, sender: int, to: int | None, message: Any) -> None:
        for receiver in range(len(self.nodes)) if to is None else (to,):
            if receiver == sender:
                continue
            mangle = self.liars.get(sender)
            for copy in [message] if mangle is None else mangle(self, sender, receiver, message):
                self.transmit(sender, receiver, copy)

    def transmit(self, sender: int, receiver: int, message: Any) -> None:
        self.messages += 1
        weather, dice = self.weather, self.random
        for _ in range(2 if dice.random() < weather.duplication else 1):
            if (sender, receiver) in self.cut or dice.random() < weather.loss:
                continue
            delay_ms = dice.randint(*weather.delay_ms)
            if dice.random() < weather.slow:
                delay_ms += dice.randint(0, 2_000)
            self.at(delay_ms, lambda: self.nodes[receiver].is_up and self.nodes[receiver].receive(sender, message))

    def partition(self, *groups: tuple[int, ...]) -> None:
        place = {i: g for g, group in enumerate(groups) for i in group}
        n = range(len(self.nodes))
        self.cut = {(a, b): None for a in n for b in n if place.get(a) != place.get(b)}

    def is_linked(self, i: int, j: int) -> bool:
        return self.nodes[j].is_up and (i, j) not in self.cut and (j, i) not in self.cut

    def heal(self) -> None:
        self.cut = {}
        self.weather = Weather()

    # -- crashes

    def fate(self, is_writing: bool) -> str:
        if is_writing and self.random.random() < self.weather.crash:
            return self.random.choice(("before", "unsent", "half"))
        return "well"

    def crash(self, node: Node) -> None:
        self.crashes += 1
        node.is_up = False
        node.life += 1
        self.at(self.random.randint(1, 3_000), node.boot)

    # -- checkers: they see what was said and decided, not how

    def note_said(self, i: int, message: Any) -> None:
        if i in self.liars or not isinstance(message, PrePrepare | Vote | ViewChange):
            return
        parts = (message.prepare,) if isinstance(message, PrePrepare) else (message,)
        for part in parts:
            if isinstance(part, Vote):
                content: Any = part.digest
                place: tuple[Any, ...] = (i, part.kind, part.height, part.view)
            else:
                content = (part.prepared_view, part.digest, part.proof)
                place = (i, "view change", part.height, part.view)
            assert self.said.setdefault(place, content) == content, f"double promise by {i}: {place}"

    def note_written(self, i: int, record: HardState) -> None:
        """Called in the order of the disk: after a view change nothing below it is promised."""
        if hasattr(record, "vote"):
            assert record.vote.view >= self.left.get((i, record.vote.height), 0), "a vote below an own view change"
        if hasattr(record, "view_change"):
            self.left[i, record.view_change.height] = record.view_change.view

    def note_final(self, node: Node, final: Final) -> None:
        if node.i in self.liars:
            return
        certificate, digest = final.certificate, final.proposal.header.digest()
        assert certificate.digest == digest
        assert certificate.height == node.height
        if certificate.height not in self.decided:
            certificate.check(NETWORK, self.validators)
        assert self.decided.setdefault(certificate.height, digest) == digest, f"fork at height {certificate.height}"

    def note_evidence(self, found: EvidenceFound) -> None:
        offender = self.validators.keys.index(found.offender)
        assert offender in self.liars, f"honest validator {offender} convicted of {found.kind}"
        self.evidence.append(found)

    # -- facts

    def honest(self) -> list[Node]:
        return [node for node in self.nodes if node.i not in self.liars and node.i not in self.dead]

    def lowest(self) -> int:
        return min(node.height for node in self.honest())

    def reaches(self, height: int, within_ms: int) -> bool:
        return self.run_for(within_ms, lambda: self.lowest() >= height)


# ---- liars ------------------------------------------------------------------------------------------------------------------------


def silent(net: Net, sender: int, receiver: int, message: Any) -> list[Any]:
    return []


def silent_to_some(net: Net, sender: int, receiver: int, message: Any) -> list[Any]:
    return [message] if (sender + receiver) % 2 else []


def silent_as_primary(net: Net, sender: int, receiver: int, message: Any) -> list[Any]:
    return [] if isinstance(message, PrePrepare) else [message]


def equivocating(net: Net, sender: int, receiver: int, message: Any) -> list[Any]:
    """Two blocks of each own pre-prepare, one to each half; votes for both to everybody."""
    if isinstance(message, PrePrepare):
        other = twin_of(message)
        return [message] if receiver % 2 else [other, message.prepare]
    if isinstance(message, Vote):
        twin = Vote.sign(NETWORK, KEYS[sender], message.kind, message.height, message.view, tagged_digest("medchain/block", message.digest))
        return [message, twin] if receiver % 2 else [twin, message]
    return [message]


def twin_of(message: PrePrepare) -> PrePrepare:
    header = message.proposal.header
    other = Proposal(replace(header, state_root=tagged_digest("medchain/state", header.state_root)), (), EMPTY)
    signer = next(key for key in KEYS if key.public == message.prepare.signer)
    prepare = Vote.sign(NETWORK, signer, PREPARE, message.height, message.view, other.header.digest())
    return PrePrepare(other, prepare, message.view_changes)


def hiding(net: Net, sender: int, receiver: int, message: Any) -> list[Any]:
    """View changes that deny what was prepared, for far views as well; commits to one half only."""
    if isinstance(message, ViewChange):
        lie = ViewChange.sign(NETWORK, KEYS[sender], message.height, message.view, None)
        far = ViewChange.sign(NETWORK, KEYS[sender], message.height, message.view + net.random.choice((1, 7, 2**31)), None)
        return [net.random.choice((message, lie)), far]
    if isinstance(message, Vote) and message.kind == COMMIT:
        far = ViewChange.sign(NETWORK, KEYS[sender], message.height, 1 + net.random.randint(0, 3), None)
        return [message, far] if receiver % 2 else []
    return [message]


def replaying(net: Net, sender: int, receiver: int, message: Any) -> list[Any]:
    """Everything heard so far comes again, in any order."""
    heard = net.__dict__.setdefault("heard", [])
    heard.append(message)
    return [message, *net.random.sample(heard, min(3, len(heard)))]


LIARS = (silent, silent_to_some, silent_as_primary, equivocating, hiding, replaying)
