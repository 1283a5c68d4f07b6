"""What an operation may touch while it executes: the state on an overlay, the block's height and time, its signer, and the events it makes.

Each operation kind is a `Handler`: a frozen payload that answers three questions in one place, well-formed? (`from_payload`) allowed now?
(`check`) what changes? (`apply`), the cut of indy-plenum's request handlers (house.md). This module knows no operation.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, Self

from medchain import codec
from medchain.chain import limits
from medchain.chain.block import Evidence, LastCommit
from medchain.chain.domain import Domain
from medchain.chain.parameters import Parameters
from medchain.chain.receipt import Event
from medchain.chain.transaction import Operation
from medchain.crypto.hashing import tagged_digest
from medchain.errors import InvariantBroken
from medchain.ledger.trail import EVENT_FIELDS, write_event
from medchain.store.overlay import Overlay

URGENT_LANE: Final = 0
"""Revocations and emergencies: they never queue behind a flood (protocol.md, "Lanes and work")."""
ORDINARY_LANE: Final = 1


@dataclass(frozen=True, slots=True)
class BlockContext:
    """What the rules may know about the block that executes."""

    height: int
    time_ms: int
    """Time of the block's header: the only clock of the rule book (protocol.md, "Agreement", last item)."""
    network: Domain
    parameters: Parameters


_NO_COMMIT: Final = LastCommit(None)


@dataclass(frozen=True, slots=True)
class Carried:
    """What a block carries besides its transactions: judged by the engine before execution, acted on by the rules of the state."""

    last_commit: LastCommit = _NO_COMMIT
    """The parent's certificate and late commits, all genuine."""
    evidence: Evidence = ()
    """Encoded evidence items."""
    parent_proposer: bytes = b""
    """Consensus key in the parent's header: what the parent's block itself says, so that the state need not repeat it."""


NOTHING_CARRIED: Final = Carried()


@dataclass(slots=True)
class Execution:
    """One transaction, or the due items of a block, while it executes."""

    context: BlockContext
    state: Overlay
    sender: bytes
    """Key that signed the transaction: the only identity there is. Empty for due items."""
    transaction_id: bytes
    operation_index: int = 0
    events: list[Event] = field(default_factory=list)

    def insert(self, key: bytes, value: bytes) -> None:
        """Write a row that is written once. Raises InvariantBroken if one stands there: a `check` forgot to look."""
        if self.state.get(key) is not None:
            raise InvariantBroken("a row that is written once would be overwritten")
        self.state.put(key, value)

    def emit(self, kind: str, subjects: tuple[bytes, ...], values: list[Any]) -> None:
        """Record an event (fields as `trail.EVENT_FIELDS` names them) and advance the trails of its subjects."""
        if len(EVENT_FIELDS[kind]) != len(values) or len(self.events) >= limits.EVENTS_MAX:
            raise InvariantBroken(f"the event {kind} has other fields than documented, or a receipt has too many events")
        event = Event(kind, subjects, values)
        write_event(self.state, self.context.height, event)
        self.events.append(event)

    def new_id(self, what: str) -> bytes:
        """Return the id of the `what` (a word) that this operation makes: known to the sender as soon as the body is."""
        return made_id(what, self.transaction_id, self.operation_index)


def made_id(what: str, transaction_id: bytes, operation_index: int) -> bytes:
    """Return the id of a consent or a permit: the tagged digest of the transaction's id and the operation's index in it."""
    return tagged_digest(f"medchain/{what}", codec.encode([transaction_id, operation_index]))


class Handler:
    """One operation kind: subclasses are frozen slotted dataclasses whose fields are the payload, in order."""

    __slots__ = ()

    KIND: ClassVar[str]
    WEIGHT: ClassVar[int]
    """Work of executing it at worst, the state tree's updates included, in units of `block_weight_max` (about 7.5 microseconds)."""
    LANE: ClassVar[int] = ORDINARY_LANE

    def to_payload(self) -> list[Any]:
        """Return the positional payload of the operation."""
        values = [getattr(self, entry.name) for entry in fields(self)]  # type: ignore[arg-type]  # every subclass is a dataclass
        return [list(value) if type(value) is tuple else value for value in values]

    def operation(self) -> Operation:
        """Return the operation to put into a transaction body."""
        return Operation(self.KIND, self.to_payload())

    @classmethod
    @abstractmethod
    def from_payload(cls, payload: list[Any]) -> Self:
        """Well-formed? Read a positional payload. Raises Malformed."""

    @abstractmethod
    def check(self, execution: Execution) -> None:
        """Allowed now? Raises Rejected with a code of `refusals.REFUSALS`; changes nothing."""

    @abstractmethod
    def apply(self, execution: Execution) -> None:
        """What changes? Writes rows and emits events; called only after `check` let it pass."""
