"""The state as the rules see it: a view of stored state, and overlays that take writes without touching it.

A block executes on an overlay; an operation that is refused is rolled back to a mark, so a refused call changes nothing. State keys here
are without the database's prefix (layout.STATE). This module knows no rule and no digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from medchain.errors import InvariantBroken
from medchain.store.keyvalue import Reader, prefix_end
from medchain.store.layout import STATE
from medchain.store.ordering import merged

ROWS_REMEMBERED_MAX: Final = 30_000
"""Rows of one generation: some five full blocks; a row takes about 300 bytes, so both take 18 MB at most."""


class StateView(Protocol):
    """The state, read only."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of the state key, None when there is none."""
        ...

    def iterate(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) of all state keys that begin with `prefix`, in key order, as they are at the moment of the call."""
        ...


class StoredRows:
    """The state as the database's state range has it, each row read anew."""

    __slots__ = ("_reader",)

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def get(self, key: bytes) -> bytes | None:
        """Return the stored value of the state key."""
        return self._reader.get(STATE + key)

    def iterate(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (state key, value) in key order."""
        start = STATE + prefix
        cut = len(STATE)
        rows = self._reader.iterate(start, prefix_end(start))
        return ((key[cut:], value) for key, value in rows)


class StoredState(StoredRows):
    """The state after the decided head, for the engine alone and within its turns: between a turn and the write of its batch the database
    is behind, and what is read then must not be remembered.

    Rows read or written lately are remembered, in two generations of which the older is dropped whole: every block asks for the same
    hospitals, patients and trail heads.
    """

    __slots__ = ("_lacks", "_newer", "_older", "_remembered_max")

    def __init__(self, reader: Reader, remembered_max: int = ROWS_REMEMBERED_MAX) -> None:
        """`remembered_max`: rows of one generation."""
        super().__init__(reader)
        self._remembered_max = remembered_max
        self._lacks: Callable[[bytes], bool] = lambda key: False
        self._newer: dict[bytes, bytes | None] = {}
        self._older: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """Return the stored value of the state key."""
        if key in self._newer:
            return self._newer[key]
        if key in self._older:
            value = self._older[key]
        elif self._lacks(key):
            return None
        else:
            value = super().get(key)
        if len(self._newer) >= self._remembered_max:
            self._older, self._newer = self._newer, {}
        self._newer[key] = value
        return value

    def ask_before_reading(self, lacks: Callable[[bytes], bool]) -> None:
        """Let `lacks` say of which state keys there surely is none: the store is not searched for them.

        It must know of every change that `adopt` is told of, before the next row is read.
        """
        self._lacks = lacks

    def adopt(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Follow the store, where `changes` (state key → value, None deletes) are being written: what is remembered changes with it."""
        if len(self._newer) + len(changes) > self._remembered_max:
            self._older, self._newer = self._newer, {}
        if len(changes) > self._remembered_max:
            self._older = {}
            return
        self._newer.update(changes)


_ABSENT: Final = object()
"""Marks, in the journal, a key that this overlay had not written before."""


class Overlay:
    """Writes over a base view, with marks to roll back to. Overlays stack: the base may be another overlay.

    The base must not change while the overlay is in use (what was read from it is remembered). Writes are put into order only when somebody
    asks for a range: every operation writes, and hardly one iterates.
    """

    __slots__ = ("_base", "_changes", "_journal", "_read")

    def __init__(self, base: StateView) -> None:
        self._base = base
        self._changes: dict[bytes, bytes | None] = {}
        self._journal: list[tuple[bytes, object]] = []
        self._read: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key` as the writes so far left it."""
        if key in self._changes:
            return self._changes[key]
        if key in self._read:
            return self._read[key]
        value = self._read[key] = self._base.get(key)
        return value

    def iterate(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) under `prefix` in key order as they are at the moment of the call; writing meanwhile is allowed."""
        beneath = self._base.iterate(prefix)
        keys = sorted([key for key in self._changes if key.startswith(prefix)])
        if not keys:
            return beneath
        return merged(beneath, keys, {key: self._changes[key] for key in keys})

    def put(self, key: bytes, value: bytes) -> None:
        """Write `value` under `key`."""
        self._write(key, value)

    def delete(self, key: bytes) -> None:
        """Delete `key`; it need not exist."""
        self._write(key, None)

    def mark(self) -> int:
        """Return a mark of this moment for `rollback`."""
        return len(self._journal)

    def rollback(self, mark: int) -> None:
        """Undo every write since `mark`; later marks become void. Raises InvariantBroken for a mark that was never given."""
        journal, changes = self._journal, self._changes
        if not 0 <= mark <= len(journal):
            raise InvariantBroken(f"there is no mark {mark} to roll back to, the journal has {len(journal)} entries")
        while len(journal) > mark:
            key, previous = journal.pop()
            if previous is _ABSENT:
                del changes[key]
            else:
                changes[key] = previous  # type: ignore[assignment]  # bytes or None: only _write fills the journal

    def changes(self) -> dict[bytes, bytes | None]:
        """Return the net changes in key order; None deletes. A write that repeats what was read from the base is left out."""
        changes, read = self._changes, self._read
        return {key: changes[key] for key in sorted(changes) if key not in read or read[key] != changes[key]}

    def _write(self, key: bytes, value: bytes | None) -> None:
        changes = self._changes
        self._journal.append((key, changes.get(key, _ABSENT)))
        changes[key] = value
