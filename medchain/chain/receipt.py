"""Receipts: what became of each transaction of a block; part of what nodes agree on.

A receipt says accepted, or the code of the first refused operation (which undid the whole transaction), and the events that happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from medchain import codec
from medchain.chain import limits
from medchain.crypto.merkle import merkle_root
from medchain.errors import Malformed

ACCEPTED: Final = ""
RECEIPTS_TAG: Final = "medchain/receipts"
SUBJECTS_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for the trails of its subjects. Never holds content, names or keys' secrets."""

    kind: str
    subjects: tuple[bytes, ...]
    """Pseudonyms and record ids whose trail this event advances."""
    fields: list[Any]
    """Positional codec values; their meaning is documented beside the operation that emits them."""
    _encoded: bytes | None = field(init=False, repr=False, compare=False, default=None)
    """Made when first asked for: trails, receipts and the index of events all need it."""

    def to_value(self) -> list[Any]:
        """Return the codec value."""
        return [self.kind, list(self.subjects), self.fields]

    def encode(self) -> bytes:
        """Return the exact bytes that trails chain."""
        encoded = self._encoded
        if encoded is None:
            encoded = codec.encode(self.to_value())
            object.__setattr__(self, "_encoded", encoded)
        return encoded

    @classmethod
    def from_value(cls, value: Any) -> Event:
        """Read a codec value. Raises Malformed."""
        kind, subjects, event_fields = codec.as_fields(value, 3, "event")
        return cls(
            kind=codec.as_text(kind, "event kind", limits.OPERATION_KIND_BYTES_MAX),
            subjects=codec.as_items(
                subjects, SUBJECTS_MAX, "subjects", lambda item: codec.as_bytes(item, "subject", length=limits.DIGEST_BYTES)
            ),
            fields=codec.as_list(event_fields, 32, "event fields"),
        )

    @classmethod
    def decode(cls, data: bytes) -> Event:
        """Read canonical bytes. Raises Malformed."""
        return cls.from_value(codec.decode(data, bytes_max=limits.EVENT_BYTES_MAX, depth_max=8))


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcome of one transaction."""

    transaction_id: bytes
    code: str
    """Empty = accepted, else the stable code of the refusal."""
    operation_index: int
    """Which operation was refused first; 0 when accepted."""
    events: tuple[Event, ...]
    _encoded: bytes | None = field(init=False, repr=False, compare=False, default=None)
    """Made when first asked for: the root and the storage of a block's receipts need it."""

    @property
    def is_accepted(self) -> bool:
        """Whether the transaction changed the state."""
        return self.code == ACCEPTED

    def to_value(self) -> list[Any]:
        """Return the codec value."""
        return [self.transaction_id, self.code, self.operation_index, [event.to_value() for event in self.events]]

    def encode(self) -> bytes:
        """Return the canonical bytes: the leaf under the receipts root."""
        encoded = self._encoded
        if encoded is None:
            encoded = codec.join(
                [
                    codec.encode(self.transaction_id),
                    codec.encode(self.code),
                    codec.encode(self.operation_index),
                    codec.join([event.encode() for event in self.events]),
                ]
            )
            object.__setattr__(self, "_encoded", encoded)
        return encoded

    @classmethod
    def from_value(cls, value: Any) -> Receipt:
        """Read a codec value. Raises Malformed."""
        identity, code, operation_index, events = codec.as_fields(value, 4, "receipt")
        receipt = cls(
            transaction_id=codec.as_bytes(identity, "transaction id", length=limits.DIGEST_BYTES),
            code=codec.as_text(code, "code", limits.NAME_BYTES_MAX),
            operation_index=codec.as_uint(operation_index, "operation index", limits.OPERATIONS_MAX - 1),
            events=codec.as_items(events, limits.EVENTS_MAX, "events", Event.from_value),
        )
        if receipt.is_accepted and receipt.operation_index:
            raise Malformed("an accepted receipt names no refused operation")
        return receipt

    @classmethod
    def decode(cls, data: bytes) -> Receipt:
        """Read canonical bytes. Raises Malformed."""
        return cls.from_value(codec.decode(data, depth_max=10))


def encode_receipts(receipts: Sequence[Receipt]) -> bytes:
    """Return the bytes of a block's receipts, for storage."""
    return codec.join([receipt.encode() for receipt in receipts])


def decode_receipts(data: bytes) -> tuple[Receipt, ...]:
    """Read a block's receipts: one for each transaction, and one before them when something was due. Raises Malformed."""
    values = codec.decode(data, bytes_max=limits.RECEIPTS_BYTES_MAX, depth_max=12, items_max=limits.RECEIPTS_ITEMS_MAX)
    return codec.as_items(values, limits.BLOCK_TRANSACTIONS_HARD_MAX + 1, "receipts", Receipt.from_value)


def receipts_root(receipts: Sequence[Receipt]) -> bytes:
    """Return the root over encoded receipts in block order."""
    return merkle_root(RECEIPTS_TAG, [receipt.encode() for receipt in receipts])
