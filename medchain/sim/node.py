"""A pretend hospital: a disk, a clock, an inbox and, while its process lives, an engine. And what the judges are told of its turns.

Knows the engine by its one method; who builds it is handed in, so liars and mutants can take its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol, runtime_checkable

from medchain.chain.genesis import Genesis
from medchain.crypto.signing import SigningKey
from medchain.engine.ready import Event, Ready, Reply
from medchain.sim.clocks import Clock
from medchain.sim.disk import Disk, DiskImage, DiskStore
from medchain.sim.faults import Crash
from medchain.store.keyvalue import KeyValue, WriteBatch
from medchain.wire.peer import PeerMessage

RANGE_BYTES: Final = 2
"""Every key range of store/layout.py is named by a letter and a stroke."""


class NodeState(Enum):
    """What a process does."""

    UP = "up"
    PAUSED = "paused"
    DOWN = "down"


class EngineLike(Protocol):
    """All that the world asks of an engine."""

    def handle_all(self, events: Sequence[Event]) -> Ready:
        """Take events, return what to do."""
        ...


@runtime_checkable
class Worker(Protocol):
    """An engine that tells how much it has executed since it was made; of any other none of it takes time."""

    @property
    def executed_weight(self) -> int:
        """Units of `block_weight_max`."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """What a process is started with."""

    node: int
    genesis: Genesis
    store: KeyValue
    key: SigningKey
    challenge: bytes
    """Fresh in every start."""
    is_store_damaged: bool


EngineBuilder = Callable[[Start], EngineLike]


@dataclass(slots=True)
class Node:
    """One hospital."""

    index: int
    disk: Disk
    clock: Clock
    sync_us: int
    state: NodeState = NodeState.DOWN
    incarnation: int = 0
    """Number of the running process; what was meant for an earlier one is lost."""
    engine: EngineLike | None = None
    store: DiskStore | None = None
    inbox: list[Event] = field(default_factory=list)
    writing: Ready | None = None
    """The turn whose batch is being written."""
    is_turn_due: bool = False
    is_finish_due: bool = False
    """A write ended while the process stood still."""
    armed: list[Crash] = field(default_factory=list)
    backup: DiskImage | None = None
    full_until_us: int = 0
    """The disk takes no write before."""
    height: int = 0
    """Newest durably decided height."""
    is_tick_owed: bool = False
    """Time passed in a long turn: the next one begins with a look at the clock, whatever waits, as the real loop's does."""
    inbox_longest: int = 0
    unit_us: int = 0
    """How long it takes to execute one unit of weight."""
    executed_weight: int = 0
    """What the running process had executed when its last turn ended."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a node really did in a turn, a crash in its middle included: all that judges may look at while the world runs."""

    now_us: int
    node: int
    store: KeyValue
    batch: WriteBatch
    """Durable now."""
    sent: tuple[PeerMessage, ...]
    """Messages that left the process, each once however many peers they went to."""
    replies: tuple[Reply, ...]
    """Answers that left the process."""
    _puts: dict[bytes, list[tuple[bytes, bytes]]] = field(init=False, repr=False, compare=False)
    """What the batch writes, by key range: looked through once for all judges."""

    def __post_init__(self) -> None:
        """Sort the batch by key range."""
        puts: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for key, value in self.batch.operations:
            if value is not None:
                puts.setdefault(key[:RANGE_BYTES], []).append((key, value))
        object.__setattr__(self, "_puts", puts)

    def puts(self, key_range: bytes) -> Sequence[tuple[bytes, bytes]]:
        """Return the (key, value) that the batch writes in one of the key ranges of store/layout.py, in order."""
        return self._puts.get(key_range, ())


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must never happen, happened."""

    checker: str
    message: str
    now_us: int = 0

    def __str__(self) -> str:
        return f"{self.checker}: {self.message} (at {self.now_us / 1_000_000:.3f} s)"
