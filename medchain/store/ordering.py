"""Keys kept in order for the memory store, and the merge of writes held in memory over what lies beneath them.

Knows neither stores nor state: only byte strings in order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Final

FRESH_INSERTED_MAX: Final = 32
"""Up to so many new keys are inserted one by one; more are sorted in together, which is cheaper."""


class SortedKeys:
    """A set of keys that can be listed in order; adding is cheap because sorting waits until somebody asks for a range."""

    __slots__ = ("_fresh", "_members", "_ordered")

    def __init__(self) -> None:
        self._members: set[bytes] = set()
        self._ordered: list[bytes] = []
        self._fresh: list[bytes] = []

    def __len__(self) -> int:
        return len(self._members)

    def add(self, key: bytes) -> None:
        """Add `key`; adding it again changes nothing."""
        if key not in self._members:
            self._members.add(key)
            self._fresh.append(key)

    def discard(self, key: bytes) -> None:
        """Remove `key` if it is there."""
        if key in self._members:
            self._settle()
            self._members.remove(key)
            del self._ordered[bisect_left(self._ordered, key)]

    def clear(self) -> None:
        """Remove every key."""
        self._members.clear()
        self._ordered.clear()
        self._fresh.clear()

    def all(self) -> list[bytes]:
        """Return every key in order, as a copy."""
        self._settle()
        return self._ordered.copy()

    def between(self, start: bytes, stop: bytes) -> list[bytes]:
        """Return the keys from `start` (inclusive) to `stop` (exclusive) in order, as a copy."""
        self._settle()
        return self._ordered[bisect_left(self._ordered, start) : bisect_left(self._ordered, stop)]

    def _settle(self) -> None:
        """Bring the keys added since the last look into order."""
        fresh = self._fresh
        if not fresh:
            return
        if len(fresh) <= FRESH_INSERTED_MAX:
            for key in fresh:
                self._ordered.insert(bisect_left(self._ordered, key), key)
        else:
            self._ordered.extend(fresh)
            self._ordered.sort()
        self._fresh = []


def merged(
    beneath: Iterator[tuple[bytes, bytes]], keys: list[bytes], changes: Mapping[bytes, bytes | None], *, reverse: bool = False
) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pairs of `beneath` with `changes` laid over them, in the one order both have.

    `keys` are the changed keys of the range in that order, `changes` their values (None hides the key beneath). Neither may change
    meanwhile.
    """
    position = 0
    for key, value in beneath:
        while position < len(keys) and (keys[position] > key if reverse else keys[position] < key):
            changed = changes[keys[position]]
            if changed is not None:
                yield keys[position], changed
            position += 1
        if position < len(keys) and keys[position] == key:
            changed = changes[key]
            position += 1
            if changed is not None:
                yield key, changed
        else:
            yield key, value
    for later in keys[position:]:
        changed = changes[later]
        if changed is not None:
            yield later, changed
