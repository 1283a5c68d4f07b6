"""The key-value store in memory: for the simulator's disk, for tests and for tools that need no disk.

It keeps the contract of keyvalue.KeyValue (atomic batches, iteration over a snapshot) without durability. It knows no key range.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from weakref import ref

from medchain.errors import InvariantBroken
from medchain.store.keyvalue import WriteBatch
from medchain.store.ordering import SortedKeys

SCANS_SWEPT_AT: Final = 64
"""With so many iterations remembered, the finished ones are forgotten before another is added."""


class _Scan:
    """One iteration: reads the store as it goes, and copies what is left of it just before the store changes."""

    __slots__ = ("__weakref__", "_frozen", "_keys", "_values")

    def __init__(self, keys: Iterator[bytes], values: dict[bytes, bytes]) -> None:
        self._keys = keys
        self._values = values
        self._frozen: Iterator[tuple[bytes, bytes]] | None = None

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        if self._frozen is not None:
            return next(self._frozen)
        key = next(self._keys)
        return key, self._values[key]

    def freeze(self) -> None:
        """Copy the pairs that are still to come."""
        if self._frozen is None:
            values = self._values
            self._frozen = iter([(key, values[key]) for key in self._keys])


class MemoryKeyValue:
    """Implements keyvalue.KeyValue on a dict and an ordered list of its keys."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._keys = SortedKeys()
        self._scans: list[ref[_Scan]] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None when there is none."""
        self._check_open()
        return self._values.get(key)

    def iterate(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) for start <= key < stop as they are at the moment of the call; see keyvalue.Reader."""
        self._check_open()
        keys = self._keys.between(start, stop)
        scan = _Scan(reversed(keys) if reverse else iter(keys), self._values)
        if len(self._scans) >= SCANS_SWEPT_AT:
            self._scans = [known for known in self._scans if known() is not None]
        self._scans.append(ref(scan))
        return scan

    def write(self, batch: WriteBatch) -> None:
        """Apply the batch; there is no disk, so nothing of it can fail half way."""
        self._check_open()
        if not batch:
            return
        self._freeze_scans()
        values, keys = self._values, self._keys
        for key, value in batch.operations:
            if value is None:
                if values.pop(key, None) is not None:
                    keys.discard(key)
            else:
                if key not in values:
                    keys.add(key)
                values[key] = value

    def close(self) -> None:
        """Refuse every later call."""
        self._freeze_scans()
        self._closed = True

    def copy(self) -> MemoryKeyValue:
        """Return an independent store with the same content: what a crash leaves, what a test forks."""
        self._check_open()
        twin = MemoryKeyValue()
        twin.write(WriteBatch(tuple(self._values.items())))
        return twin

    def _freeze_scans(self) -> None:
        """Let every iteration under way copy what it still has to show, before the content changes."""
        for known in self._scans:
            scan = known()
            if scan is not None:
                scan.freeze()
        self._scans.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise InvariantBroken("the memory store was used after it was closed")
