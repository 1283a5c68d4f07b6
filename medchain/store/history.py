"""The history: one root over the digests of all headers, growing by one with every block.

A Merkle mountain range: the peaks (one perfect tree for each set bit of the count) are all that is needed to append and to make the root;
the nodes, kept in the store, make proofs. Peaks bagged from the right give exactly the tree of RFC 6962, so the root equals
`crypto.merkle.merkle_root` over the digests and a proof is checked by `crypto.merkle.verify_inclusion`: one shape of Merkle tree in the
whole project. Because nodes never change, a header can be proven under the root at any earlier count as well.

Header index i is the i-th digest appended; block heights and what a header is are known elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from medchain import codec
from medchain.crypto.hashing import DIGEST_BYTES, tagged_digest
from medchain.crypto.merkle import EMPTY_TOP, leaf_digest, verify_inclusion
from medchain.errors import InvariantBroken, Malformed, Unavailable
from medchain.store.keyvalue import Operation, Reader
from medchain.store.layout import HISTORY_PEAKS, history_node_key

HISTORY_TAG: Final = "medchain/history"
COUNT_MAX: Final = 2**63
"""More headers than will ever be; bounds the peaks that are read from a stranger."""


class History:
    """Count and peaks: what it takes to append a header digest and to tell the root."""

    __slots__ = ("_count", "_peaks")

    def __init__(self) -> None:
        self._count = 0
        self._peaks: list[bytes] = []

    @property
    def count(self) -> int:
        """How many digests were appended."""
        return self._count

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """Tops of the perfect trees, the largest first; one for each set bit of the count."""
        return tuple(self._peaks)

    @property
    def root(self) -> bytes:
        """The 32 byte root; it binds the count."""
        return _root_of(self._count, self._peaks)

    def append(self, digest: bytes) -> None:
        """Append the next header digest. In a node use `history_append_ops`, which also says what to store."""
        self._append(digest)

    def copy(self) -> History:
        """Return an independent history with the same content, to try an append on."""
        twin = History()
        twin._count = self._count
        twin._peaks = self._peaks.copy()
        return twin

    def encode(self) -> bytes:
        """Return the canonical bytes: [count, peaks joined]."""
        return codec.encode([self._count, b"".join(self._peaks)])

    @classmethod
    def decode(cls, data: bytes) -> History:
        """Read count and peaks. Raises Malformed. Believe a stranger's peaks only after comparing `root` with a certified header."""
        count_field, peaks_field = codec.as_fields(codec.decode(data, bytes_max=64 * DIGEST_BYTES + 16), 2, "a history")
        history = cls()
        history._count = codec.as_uint(count_field, "the count of a history", COUNT_MAX)
        packed = codec.as_bytes(peaks_field, "the peaks of a history")
        if len(packed) != history._count.bit_count() * DIGEST_BYTES:
            raise Malformed("a history must have one peak of 32 bytes for each set bit of its count")
        history._peaks = [packed[offset : offset + DIGEST_BYTES] for offset in range(0, len(packed), DIGEST_BYTES)]
        return history

    def _append(self, digest: bytes) -> list[tuple[int, int, bytes]]:
        """Append and return the new nodes as (level, index, digest)."""
        if len(digest) != DIGEST_BYTES:
            raise InvariantBroken(f"a header digest has {DIGEST_BYTES} bytes, not {len(digest)}")
        node = leaf_digest(HISTORY_TAG, digest)
        level, index = 0, self._count
        nodes = [(level, index, node)]
        while index & 1:
            node = _inner(self._peaks.pop(), node)
            level, index = level + 1, index >> 1
            nodes.append((level, index, node))
        self._peaks.append(node)
        self._count += 1
        return nodes


def history_append_ops(history: History, digest: bytes) -> tuple[Operation, ...]:
    """Append `digest` to `history` and return the operations that make the step durable: its new nodes (two on average) and the peaks."""
    nodes = history._append(digest)
    operations: list[Operation] = [(history_node_key(level, index), node) for level, index, node in nodes]
    operations.append((HISTORY_PEAKS, history.encode()))
    return tuple(operations)


def history_start_ops(history: History) -> tuple[Operation, ...]:
    """Return the operations that store peaks learnt from a snapshot: from then on new headers can be proven, not older ones."""
    operations: list[Operation] = [(HISTORY_PEAKS, history.encode())]
    start = 0
    for peak, level in zip(history.peaks, _levels(history.count), strict=True):
        operations.append((history_node_key(level, start >> level), peak))
        start += 1 << level
    return tuple(operations)


def load_history(reader: Reader) -> History:
    """Return the history as stored; empty when nothing was stored. Raises Malformed when the stored bytes are damaged."""
    stored = reader.get(HISTORY_PEAKS)
    return History() if stored is None else History.decode(stored)


class HistoryNodes:
    """Proofs from the stored nodes."""

    __slots__ = ("_reader",)

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def root_at(self, count: int) -> bytes:
        """Return the root as it was after `count` digests. Raises Unavailable when this store does not hold the nodes for it."""
        start = 0
        peaks = []
        for level in _levels(count):
            peaks.append(self._node(level, start >> level))
            start += 1 << level
        return _root_of(count, peaks)

    def prove(self, index: int, count: int) -> tuple[bytes, ...]:
        """Return the path from header `index` to the root at `count` digests, lowest sibling first, for `verify_history`.

        Raises InvariantBroken unless 0 <= index < count, Unavailable when this store does not hold a node of the path (it joined by a
        snapshot, or `count` lies ahead of it).
        """
        if not 0 <= index < count:
            raise InvariantBroken(f"there is no header {index} among {count}")
        downward: list[bytes] = []
        start, size = 0, count
        while size > 1:
            half = 1 << ((size - 1).bit_length() - 1)  # the largest power of two below size (RFC 6962, section 2.1)
            if index < start + half:
                downward.append(self._top(start + half, size - half))
                size = half
            else:
                downward.append(self._top(start, half))
                start, size = start + half, size - half
        return tuple(reversed(downward))

    def _top(self, start: int, size: int) -> bytes:
        """Return the top over `size` headers from `start`, which is a multiple of every power of two up to `size`."""
        tops = []
        for level in _levels(size):
            tops.append(self._node(level, start >> level))
            start += 1 << level
        return _bagged(tops)

    def _node(self, level: int, index: int) -> bytes:
        node = self._reader.get(history_node_key(level, index))
        if node is None:
            raise Unavailable(f"this store does not hold the history of headers {index << level} to {((index + 1) << level) - 1}")
        return node


def verify_history(root: bytes, count: int, index: int, digest: bytes, path: Sequence[bytes]) -> bool:
    """Answer whether `digest` is header digest number `index` of the `count` under the history root. Never raises on hostile input."""
    return verify_inclusion(HISTORY_TAG, root, digest, index, count, path)


def _levels(count: int) -> list[int]:
    """Return the levels of the peaks for `count` leaves, the highest first."""
    return [level for level in range(count.bit_length() - 1, -1, -1) if count >> level & 1]


def _root_of(count: int, peaks: Sequence[bytes]) -> bytes:
    return tagged_digest(HISTORY_TAG + "/root", count.to_bytes(8, "big") + (_bagged(peaks) if peaks else EMPTY_TOP))


def _bagged(tops: Sequence[bytes]) -> bytes:
    """Join tops from the right, the smallest first."""
    node = tops[-1]
    for top in reversed(tops[:-1]):
        node = _inner(top, node)
    return node


def _inner(left: bytes, right: bytes) -> bytes:
    return tagged_digest(HISTORY_TAG + "/inner", left + right)
