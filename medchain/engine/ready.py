"""The boundary of the engine: what may come in, and the one struct that says what the world must do, in the order it must be done.

(The shape of etcd-io/raft's Ready.) Values only: a Ready compares with ==, replays from a file and has no hidden frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from medchain.chain.receipt import Receipt
from medchain.chain.transaction import Transaction
from medchain.store.keyvalue import EMPTY_BATCH, WriteBatch
from medchain.wire.peer import PeerMessage

# ---- events in --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passes: monotonic milliseconds of this process and wall-clock milliseconds since 1970."""

    monotonic_ms: int
    wall_ms: int


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A handshake with the hospital of this consensus key succeeded."""

    peer: bytes


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """The connection to this hospital ended."""

    peer: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """A decoded message from a connected peer. Signatures are *not* trusted: the engine checks them through its verifier."""

    peer: bytes
    message: PeerMessage


@dataclass(frozen=True, slots=True)
class Submitted:
    """A local client hands in a transaction (decoded); `request` ties the answer to the question."""

    request: int
    transaction: Transaction


@dataclass(frozen=True, slots=True)
class Queried:
    """A local client asks; `method` is a read method of wire/methods.py, `params` its checked parameters by name."""

    request: int
    method: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReleaseAsked:
    """The custodian asks whether the keys of a permit may go out now (engine/release.py); counted durably before the answer."""

    request: int
    permit: bytes


Event = Ticked | PeerConnected | PeerDisconnected | Received | Submitted | Queried | ReleaseAsked

# ---- what comes out ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message to one peer, or to every connected peer when `to` is None."""

    to: bytes | None
    message: PeerMessage


@dataclass(frozen=True, slots=True)
class Accepted:
    """The transaction is in the durable pool: it survives a restart and ends in a receipt or as expired."""

    request: int
    transaction_id: bytes
    is_duplicate: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """The result of a query: JSON-friendly values (bytes allowed, the RPC writes them as hex)."""

    request: int
    result: Any


@dataclass(frozen=True, slots=True)
class Refused:
    """A typed no: stable code, a sentence, and for overload when to come again."""

    request: int
    code: str
    message: str
    retry_after_ms: int = 0


@dataclass(frozen=True, slots=True)
class BlockDecided:
    """A block became final and durable: subscribers wake. Answers no request."""

    height: int
    digest: bytes
    time_ms: int
    receipts: tuple[Receipt, ...]


@dataclass(frozen=True, slots=True)
class TransactionsExpired:
    """Accepted transactions whose valid-until height passed without them."""

    transaction_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PeerAccused:
    """A peer broke a rule: the network scores, throttles and names it."""

    peer: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something an operator must know: a stable code and a sentence."""

    code: str
    message: str


Reply = Accepted | Answered | Refused | BlockDecided | TransactionsExpired | PeerAccused | Alarm


@dataclass(frozen=True, slots=True)
class Ready:
    """What the world must now do, in field order; nothing skipped, nothing swapped."""

    batch: WriteBatch = EMPTY_BATCH
    """1. Make durable before anything below."""
    send: tuple[Envelope, ...] = ()
    """2. Tell peers: losing one is allowed, altering one is not."""
    replies: tuple[Reply, ...] = ()
    """3. Answer local clients and subscribers."""
    again_ms: int | None = None
    """4. Turn again so many milliseconds after this turn's tick, though nothing happens until then: 0 when fetched blocks are left, more
    when a block is due. A world that waits for its next tick is slower and as right."""


NOTHING_TO_DO: Final = Ready()
"""What most ticks lead to."""
