"""Merkle trees: roots, and proofs that a leaf or a run of neighbouring leaves is under a root.

The shape is that of RFC 6962, section 2.1: n leaves are split at the largest power of two below n, which is the same as pairing neighbours
level by level and moving an odd last node up unchanged (never doubling it: CVE-2012-2459). Leaf, inner node and root have tags of their
own, so none can pass for another, and the root binds the number of leaves, so a tree never equals a longer one. This module knows no
structure that is put into a tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from medchain.crypto.hashing import DIGEST_BYTES, prefix_state, tagged_digest
from medchain.errors import InvariantBroken

EMPTY_TOP: Final = bytes(DIGEST_BYTES)
"""Stands in for the top node of a tree without leaves."""
COUNT_MAX: Final = 2**64 - 1
"""The root binds the count as eight bytes."""


def leaf_digest(tag: str, data: bytes | memoryview) -> bytes:
    """Return the 32 byte digest of one leaf of a tree under `tag`."""
    return tagged_digest(tag + "/leaf", data)


def leaf_digests(tag: str, leaves: Sequence[bytes]) -> list[bytes]:
    """Return the digests of many leaves, each as `leaf_digest` makes it."""
    copy_state = prefix_state(tag + "/leaf").copy
    digests: list[bytes] = []
    for leaf in leaves:
        state = copy_state()
        state.update(leaf)
        digests.append(state.digest())
    return digests


def merkle_root(tag: str, leaves: Sequence[bytes]) -> bytes:
    """Return the root over the bytes of `leaves`, keeping one level of the tree at a time."""
    level = leaf_digests(tag, leaves)
    while len(level) > 1:
        level = _level_above(tag, level)
    return _root(tag, len(leaves), level[0] if level else EMPTY_TOP)


def _root(tag: str, count: int, top: bytes) -> bytes:
    return tagged_digest(tag + "/root", count.to_bytes(8, "big") + top)


def _level_above(tag: str, level: Sequence[bytes]) -> list[bytes]:
    """Pair neighbours; an odd last node moves up as it is."""
    copy_state = prefix_state(tag + "/inner").copy
    above: list[bytes] = []
    for index in range(0, len(level) - 1, 2):
        state = copy_state()
        state.update(level[index] + level[index + 1])
        above.append(state.digest())
    if len(level) % 2:
        above.append(level[-1])
    return above


class MerkleTree:
    """A whole tree in memory (about two digests a leaf), to make proofs from."""

    __slots__ = ("_levels", "count", "root")

    count: int
    """Number of leaves."""
    root: bytes
    """The 32 byte root; equal to `merkle_root` over the same leaves."""

    def __init__(self, tag: str, leaf_digests: Sequence[bytes]) -> None:
        """Build the tree over leaf digests made by `leaf_digest` under the same tag."""
        level = list(leaf_digests)
        if any(len(digest) != DIGEST_BYTES for digest in level):
            raise InvariantBroken(f"a leaf digest is not {DIGEST_BYTES} bytes long")
        self._levels = [level]
        while len(level) > 1:
            level = _level_above(tag, level)
            self._levels.append(level)
        self.count = len(leaf_digests)
        self.root = _root(tag, self.count, level[0] if level else EMPTY_TOP)

    @classmethod
    def over(cls, tag: str, leaves: Sequence[bytes]) -> MerkleTree:
        """Build the tree over the bytes of the leaves themselves."""
        return cls(tag, leaf_digests(tag, leaves))

    def inclusion_path(self, index: int) -> tuple[bytes, ...]:
        """Return the siblings from leaf `index` to the top, lowest first. Raises InvariantBroken when there is no such leaf."""
        return self.range_path(index, index + 1)

    def range_path(self, start: int, stop: int) -> tuple[bytes, ...]:
        """Return the nodes that complete leaves `start` to `stop` - 1 to the top.

        They come level by level from the leaves, on each level the left one before the right one. Raises InvariantBroken unless
        0 <= start < stop <= count.
        """
        if not 0 <= start < stop <= self.count:
            raise InvariantBroken(f"there are no leaves {start} to {stop} in a tree of {self.count}")
        path: list[bytes] = []
        for level in self._levels[:-1]:
            if start % 2:
                path.append(level[start - 1])
            if stop % 2 and stop < len(level):
                path.append(level[stop])
            start, stop = start // 2, (stop + 1) // 2
        return tuple(path)


def verify_inclusion(tag: str, root: bytes, leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bool:
    """Return whether the bytes `leaf` are leaf `index` of the `count` leaves under `root`.

    The index and the count are bound: the same path verifies nowhere else. A path that is too short or too long, and any other oddity,
    gives False; never raises.
    """
    return verify_range(tag, root, (leaf,), index, count, path)


def verify_inclusion_digest(tag: str, root: bytes, digest: bytes, index: int, count: int, path: Sequence[bytes]) -> bool:
    """Like `verify_inclusion`, for a leaf digest made by `leaf_digest` under the same tag.

    Misuse: a digest handed over by a stranger proves nothing about any bytes; compute it from the bytes, or use `verify_inclusion`.
    """
    return verify_range_digests(tag, root, (digest,), index, count, path)


def verify_range(tag: str, root: bytes, leaves: Sequence[bytes], start: int, count: int, path: Sequence[bytes]) -> bool:
    """Return whether `leaves` are the leaves from `start` on, in order and without a gap, of the `count` leaves under `root`.

    An empty run is never proven. Any oddity gives False; never raises.
    """
    if any(type(leaf) is not bytes for leaf in leaves):
        return False
    return verify_range_digests(tag, root, [leaf_digest(tag, leaf) for leaf in leaves], start, count, path)


def verify_range_digests(tag: str, root: bytes, digests: Sequence[bytes], start: int, count: int, path: Sequence[bytes]) -> bool:
    """Like `verify_range`, for leaf digests made by `leaf_digest` under the same tag.

    The misuse warning of `verify_inclusion_digest` applies.
    """
    found = _climb(tag, digests, start, count, path)
    return found is not None and found == root


def root_above(tag: str, leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root under which the bytes `leaf` are leaf `index` of `count`, as this path says; None for a path that fits no tree.

    Proves nothing by itself: it tells what root somebody must have meant. Whether they did, a signature of the root shows.
    """
    return _climb(tag, (leaf_digest(tag, leaf),), index, count, path)


def _climb(tag: str, digests: Sequence[bytes], start: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root above a run of leaf digests, None unless the path is exactly what is missing to it."""
    if type(start) is not int or type(count) is not int or not 0 <= start < start + len(digests) <= count <= COUNT_MAX:
        return None
    if not _are_digests(digests) or not _are_digests(path):
        return None
    prefix = prefix_state(tag + "/inner")
    run = list(digests)
    taken = 0
    width = count
    while width > 1:
        stop = start + len(run)
        needed = start % 2 + (stop % 2 if stop < width else 0)
        if taken + needed > len(path):
            return None
        if start % 2:
            run.insert(0, path[taken])
            taken += 1
            start -= 1
        if stop % 2 and stop < width:
            run.append(path[taken])
            taken += 1
        above: list[bytes] = []
        for index in range(0, len(run) - 1, 2):
            state = prefix.copy()
            state.update(run[index] + run[index + 1])
            above.append(state.digest())
        if len(run) % 2:
            above.append(run[-1])  # the odd last node of its level moves up
        run = above
        start //= 2
        width = (width + 1) // 2
    return _root(tag, count, run[0]) if taken == len(path) else None


def _are_digests(values: Sequence[bytes]) -> bool:
    return all(type(value) is bytes and len(value) == DIGEST_BYTES for value in values)
