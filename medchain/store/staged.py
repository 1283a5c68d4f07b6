"""The writes of one turn of the engine, held over the store until the turn ends.

The engine decides many things in one turn and hands out one batch (house.md, "one event in, one Ready out"). Until then it must see its
own writes: `Staged` answers as if they were in the store. It knows no key range and never writes to the store itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Final

from medchain.store.keyvalue import EMPTY_BATCH, Operation, Reader, WriteBatch
from medchain.store.ordering import merged

_KEY_OF: Final = itemgetter(0)


class Staged:
    """A Reader over `base` with the pending writes of the current turn laid over it, in the order and form of keyvalue.Reader.

    The contract with the world: after `take_batch` the caller writes that batch to `base` before the next turn reads here. Between the
    two this object shows `base` without the batch, so nothing may be read in between.
    """

    __slots__ = ("_base", "_pending")

    def __init__(self, base: Reader) -> None:
        self._base = base
        self._pending: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key` as this turn left it, None when there is none."""
        if key in self._pending:
            return self._pending[key]
        return self._base.get(key)

    def iterate(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) for start <= key < stop as they are at the moment of the call; see keyvalue.Reader."""
        beneath = self._base.iterate(start, stop, reverse=reverse)
        keys = sorted([key for key in self._pending if start <= key < stop], reverse=reverse)
        if not keys:
            return beneath
        changes = {key: self._pending[key] for key in keys}
        return merged(beneath, keys, changes, reverse=reverse)

    def put(self, key: bytes, value: bytes) -> None:
        """Write `value` under `key` in this turn's batch."""
        self._pending[key] = value

    def delete(self, key: bytes) -> None:
        """Delete `key` in this turn's batch; it need not exist."""
        self._pending[key] = None

    def stage(self, operations: Iterable[Operation]) -> None:
        """Put and delete what `operations` say, in order."""
        self._pending.update(operations)

    def is_dirty(self) -> bool:
        """Answer whether this turn has written anything yet."""
        return bool(self._pending)

    def take_batch(self) -> WriteBatch:
        """Return this turn's writes in key order, one operation a key (the last), and forget them; see the class for what must follow."""
        if not self._pending:
            return EMPTY_BATCH
        pending = self._pending
        self._pending = {}
        return WriteBatch(tuple(sorted(pending.items(), key=_KEY_OF)))
