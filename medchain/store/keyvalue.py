"""The key-value protocol: the only thing the rest of medchain knows about a disk.

Keys and values are bytes; keys are ordered as bytes. One batch is one atomic, synced write. LevelDB, the memory store and the simulator's
disk implement it and pass one contract suite (tests/contracts). This module knows no key range (layout.py) and no implementer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

Operation = tuple[bytes, bytes | None]
"""(key, value) writes, (key, None) deletes; deleting a key that is not there is allowed and does nothing."""


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """Writes that become durable together or not at all."""

    operations: tuple[Operation, ...] = ()
    """Applied in this order: the last operation on a key wins."""

    def __bool__(self) -> bool:
        return bool(self.operations)

    @classmethod
    def of(cls, *operations: Operation) -> WriteBatch:
        """Return the batch of the given operations, in the given order."""
        return cls(operations)

    def merged(self, *others: WriteBatch) -> WriteBatch:
        """Return one batch: the operations of this one, then those of `others`, in order."""
        operations = self.operations
        for other in others:
            operations += other.operations
        return WriteBatch(operations)


EMPTY_BATCH: Final = WriteBatch()
"""The batch that writes nothing; writing it need not touch the disk."""


class Reader(Protocol):
    """What can be read; all that the state view, the archive's queries and the proofs need."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None when there is none."""
        ...

    def iterate(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) for start <= key < stop in key order, backwards when `reverse`.

        What is yielded is the content at the moment of the call: later writes neither show nor disturb. An empty range yields nothing.
        """
        ...


class KeyValue(Reader, Protocol):
    """A store of its own: memory, simulated disk, LevelDB."""

    def write(self, batch: WriteBatch) -> None:
        """Apply the whole batch or nothing of it; when this returns, the batch survives a crash (protocol.md, "Durable before said").

        Raises InvariantBroken when the store cannot write: the process must end (house.md).
        """
        ...

    def close(self) -> None:
        """Release the store. Closing twice is allowed; reading or writing afterwards raises InvariantBroken."""
        ...


def prefix_end(prefix: bytes) -> bytes:
    """Return the first key after all keys that begin with `prefix`, so that [prefix, prefix_end(prefix)) holds exactly those.

    For an empty prefix and one of 0xff only there is no such key; then a key above every key in use (KEY_BYTES_MAX bytes of 0xff and one
    more) is returned.
    """
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return b"\xff" * (KEY_BYTES_MAX + 1)
    return stripped[:-1] + bytes((stripped[-1] + 1,))


KEY_BYTES_MAX: Final = 1024
"""Longest key a store must carry: keys are digests, heights and short names; the longest in use are below 300 bytes."""
