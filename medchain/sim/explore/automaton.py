"""One honest node as an automaton: a real replica, and what each thing handed to it makes of it.

Between steps a node has no memory of what others said: every message has to be shown again when it is needed, together with all that a rule
needs besides it. Messages stay available for ever, so nothing becomes impossible by that; but a liar may tell the same node two things, and
a node cannot be talked out of anything. What holds here holds for nodes that remember (sim/DESIGN.md, "The explorer"). What is left is
what the node promised and where it stands: few enough to explore all of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from medchain.chain.evidence import is_lie
from medchain.chain.vote import COMMIT, ViewChange, Vote
from medchain.consensus.events import (
    Broadcast,
    CheckProposal,
    Decided,
    EvidenceFound,
    HardState,
    HeightStarted,
    Input,
    Output,
    OwnViewChange,
    OwnVote,
    Persist,
    ProposalChecked,
    SawUnknownOwnVote,
    SituationChanged,
    Ticked,
    VotingAllowed,
)
from medchain.consensus.instance import Instance, Surroundings
from medchain.consensus.messages import PrePrepare
from medchain.consensus.replica import Replica
from medchain.consensus.tally import Tally
from medchain.consensus.view_changes import ViewChanges
from medchain.crypto.signing import SigningKey
from medchain.sim.explore.copying import copy_of, fingerprint, part
from medchain.sim.explore.universe import HEIGHT, NETWORK, PARENT, WALL_MS, Said, SaidViewChange, SaidVote, Universe

WORKING = SituationChanged(is_work_known_to_primary=True, is_work_waiting=True, is_primary_connected=True, is_heartbeat_due=True)
"""There is work and the heartbeat is due: the timer of view 0 runs from the beginning and nothing is handed over first.
Saying so again starts a timer that was stopped between steps."""
Move = tuple[Any, ...]
"""What is handed to a node, by name (`menu`)."""


@dataclass(slots=True)
class Standing:
    """A node between two steps: everything that decides what it can still do."""

    number: int
    node: int
    replica: Replica
    records: tuple[HardState, ...]
    """What its disk holds."""
    said: int
    """Bits of all it ever said."""
    view: int
    decided: tuple[int, int] | None = None
    """(view, block) once it has a certificate; then all it may still do is to adopt the block, with a late commit.

    A crash before that forgets the certificate, which is how the node stood before it learned it: a state of its own already."""
    problem: str | None = None
    """A promise that was broken on the way here."""
    considered: int = 0
    """Bits of the others' statements for which the moves were tried."""
    moves: list[tuple[int, int, Move]] = field(default_factory=list)
    """(bits that must have been said by others, number of the standing it leads to, what was handed over)."""
    tried: set[Move] = field(default_factory=set)
    is_cut: bool = False
    """Whether a move was left out because it leads beyond the highest view."""


def instance_of(replica: Replica) -> Instance:
    """Return what a replica knows of its height."""
    found: Instance = part(replica, Instance)
    return found


class Automaton:
    """All standings of the honest nodes that were met, each with its moves."""

    def __init__(self, universe: Universe, is_kept: Callable[[HardState], bool] = lambda record: True) -> None:
        """`is_kept` says which records a disk really keeps: all of them, unless a test wants to see a forgetful one caught."""
        self.universe = universe
        self.standings: list[Standing] = []
        self.evaluations = 0
        self._is_kept = is_kept
        self._numbers: dict[Any, int] = {}
        self._first = {node: self._intern(self._boot(node, ())) for node in universe.honest}

    def first(self, node: int) -> Standing:
        """Return how a node stands when the height begins."""
        return self.standings[self._first[node]]

    # ---- steps ------------------------------------------------------------------------------------------------------------------

    def step(self, standing: Standing, events: Iterable[Input] | None) -> Standing | None:
        """Hand events to a copy of the replica, None = crash and start again with what the disk keeps.

        Returns how the node stands then, None when it stands as before or went beyond the highest view.
        """
        self.evaluations += 1
        turn = self._turn(standing, events)
        if instance_of(turn.replica).view > self.universe.bounds.views and turn.problem is None:
            standing.is_cut = True
            return None
        number = self._intern(turn)
        return None if number == standing.number else self.standings[number]

    def go_on(self, standing: Standing, events: Iterable[Input] | None) -> Standing:
        """Return how the node stands after these events, as it came about and not as another that behaves alike."""
        turn = self._turn(standing, events)
        forget(turn.replica)
        view = instance_of(turn.replica).view
        return Standing(-1, turn.node, turn.replica, turn.records, turn.said, view, turn.decided, turn.problem)

    def _turn(self, standing: Standing, events: Iterable[Input] | None) -> _Turn:
        if events is None:
            return self._boot(standing.node, standing.records, standing.said)
        turn = _Turn(self.universe, standing.node, copy_of(standing.replica), standing.records, standing.said, standing.decided)
        turn.feed(events)
        return turn

    def _boot(self, node: int, records: tuple[HardState, ...], said: int = 0) -> _Turn:
        kept = tuple(record for record in records if self._is_kept(record))
        turn = _Turn(self.universe, node, start_replica(self.universe.keys[node]), kept, said)
        turn.feed([height_started(self.universe, kept)])
        return turn

    def _intern(self, turn: _Turn) -> int:
        forget(turn.replica)
        problem = turn.problem or _broken_promise(self.universe.statements(turn.said), self.universe)
        if problem is None and turn.decided is not None:
            key: Any = (turn.node, turn.decided, turn.said)
        else:
            key = (turn.node, fingerprint(turn.replica), turn.said, problem)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.standings)
            view = instance_of(turn.replica).view
            self.standings.append(Standing(number, turn.node, turn.replica, turn.records, turn.said, view, turn.decided, problem))
        return number


class _Turn:
    """A replica being fed, its outputs obeyed at once: records written, proposals executed, statements noted."""

    def __init__(
        self,
        universe: Universe,
        node: int,
        replica: Replica,
        records: tuple[HardState, ...],
        said: int,
        decided: tuple[int, int] | None = None,
    ) -> None:
        self.universe = universe
        self.node = node
        self.replica = replica
        self.records = records
        self.said = said
        self.decided = decided
        self.problem: str | None = None

    def feed(self, events: Iterable[Input]) -> None:
        """Feed events and what follows from them."""
        waiting = deque(events)
        while waiting and self.problem is None:
            try:
                outputs = self.replica.handle(waiting.popleft())
            except Exception as error:
                # a judge: whatever an engine raises is a finding, as in the whole simulator
                self.problem = f"the replica of node {self.node} raised {type(error).__name__}: {error}"
                return
            for output in outputs:
                waiting.extend(self._obey(output))

    def _obey(self, output: Output) -> list[Input]:
        match output:
            case Persist(record):
                self.records = (*self.records, record)
                if isinstance(record, OwnVote):
                    self._check_not_left(record.vote)
                    self.said |= self.universe.bit(self.universe.name_vote(record.vote))
                elif isinstance(record, OwnViewChange):
                    self.said |= self.universe.bit(self.universe.name_change(record.view_change))
            case Broadcast(message):
                self._check_said(message)
            case CheckProposal(proposal):
                block = self.universe.blocks[self.universe.block_of[proposal.header.digest()]]
                return [ProposalChecked(block.digest, block.is_valid)]
            case Decided(certificate):
                self.decided = (certificate.view, self.universe.block_of[certificate.digest])
            case EvidenceFound(offender, kind):
                if not self.universe.is_liar(self.universe.node_of[offender]):
                    self.problem = f"node {self.node} holds evidence of {kind} against honest node {self.universe.node_of[offender]}"
            case SawUnknownOwnVote():
                self.problem = f"node {self.node} was shown a statement of its own that it does not know"
        return []

    def _check_not_left(self, vote: Vote) -> None:
        """Nothing is signed below a view change that was said."""
        for said in self.universe.statements(self.said):
            if isinstance(said, SaidViewChange) and said.view > vote.view:
                self.problem = f"{self.universe.describe(self.universe.name_vote(vote))} comes after its {self.universe.describe(said)}"

    def _check_said(self, message: PrePrepare | Vote | ViewChange) -> None:
        """Durable before said, and a leader's pre-prepare must be one that others accept."""
        statement = message.prepare if isinstance(message, PrePrepare) else message
        record = OwnViewChange(statement) if isinstance(statement, ViewChange) else OwnVote(statement)
        if record not in self.records:
            self.problem = f"node {self.node} says what is not durable"
        if isinstance(message, PrePrepare) and self.replica.why_unjustified(message) is not None:
            self.problem = f"node {self.node} proposes without justification: {self.replica.why_unjustified(message)}"


def start_replica(key: SigningKey | None) -> Replica:
    """Return a replica that may vote and has work, before its first height."""
    replica = Replica(NETWORK, key)
    replica.handle(Ticked(0, WALL_MS))
    replica.handle(VotingAllowed(True))
    replica.handle(WORKING)
    return replica


def height_started(universe: Universe, records: tuple[HardState, ...] = ()) -> HeightStarted:
    """Return the event that begins the explored height."""
    return HeightStarted(HEIGHT, universe.validators, universe.validators.voters, universe.parameters, WALL_MS - 1_000, PARENT, records)


def forget(replica: Replica) -> None:
    """Take from a replica what others said, and the running time."""
    instance = instance_of(replica)
    instance.tally = Tally(instance.validators)
    instance.tally.centre_on(instance.view)
    for vote in instance.promises.votes():
        instance.tally.add(vote)
    instance.view_changes = ViewChanges(instance.validators)
    newest = instance.promises.newest_view_change()
    if newest is not None:
        instance.view_changes.add(newest)
    instance.timer.stop()
    part(replica, Surroundings).monotonic_ms = 0


def _broken_promise(statements: tuple[Said, ...], universe: Universe) -> str | None:
    """Return which rule of one honest node's statements is broken: the judge's own reading of protocol.md, not the replica's."""
    votes = [said for said in statements if isinstance(said, SaidVote)]
    changes = [said for said in statements if isinstance(said, SaidViewChange)]
    kinds = {(vote.kind, vote.view) for vote in votes}
    if len(kinds) != len(votes) or len({change.view for change in changes}) != len(changes):
        return f"{universe.describe_node(statements[0].node)} says two things where it may say one"
    for vote in votes:
        if not universe.blocks[vote.block].is_valid:
            return f"{universe.describe(vote)} is for an invalid block"
        if universe.blocks[vote.block].view > vote.view:
            return f"{universe.describe(vote)} is for a block of a later view"
    commits = [universe.vote(vote) for vote in votes if vote.kind == COMMIT]
    for change in changes:
        if any(is_lie(universe.view_change(change), commit) for commit in commits):
            return f"{universe.describe(change)} hides a commit"
    return None
