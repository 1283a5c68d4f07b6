"""The authenticated state: one root over every key and value, and proofs of what is there and what is not.

Key digests are spread over a fixed, genesis-chosen number of buckets (bucket.py); above the buckets stands a perfect binary tree whose
inner nodes live in memory. A block's changes are previewed (several proposals may be previewed on one base) and the decided one is
adopted. The tree holds digests only: it is rebuilt from the state rows at start, and never written to disk (DESIGN.md says why).

Rules: protocol.md, "State and proofs". This module knows no database, no overlay and no meaning of a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from medchain.crypto.hashing import DIGEST_BYTES, prefix_state, tagged_digest
from medchain.errors import InvariantBroken
from medchain.store.bucket import (
    EMPTY_LEAF_DIGEST,
    ENTRY_BYTES,
    INNER_TAG,
    Branch,
    Bucket,
    bit_of,
    build,
    count_of,
    digest_of,
    update,
)
from medchain.store.proof import KEY_TAG, VALUE_TAG, StateProof, key_digest_of, root_of, verify_state

__all__ = ["BUCKETS_MAX", "BUCKETS_MIN", "StateProof", "StateTree", "TreeUpdate", "is_bucket_count", "verify_state"]

BUCKETS_MIN: Final = 16
BUCKETS_MAX: Final = 2**20
"""Bounds of the genesis parameter: below, small networks would prove long leaves; above, inner nodes alone would take 150 MB and more."""


@dataclass(frozen=True, slots=True)
class TreeUpdate:
    """What a preview computed: the new root, and the touched parts to adopt."""

    base_root: bytes
    """Root of the tree the preview was made on; the update fits no other."""
    root: bytes
    count: int
    """Entries after the update."""
    buckets: dict[int, Bucket]
    nodes: dict[int, bytes]
    """Changed nodes of the upper tree by heap position (1 = top, children of i at 2i and 2i+1)."""


class StateTree:
    """The digests of the whole state at one height."""

    __slots__ = ("_bucket_count", "_buckets", "_count", "_depth", "_nodes", "_root")

    def __init__(self, bucket_count: int) -> None:
        """Make the tree of an empty state. Raises InvariantBroken unless `bucket_count` is a power of two from 16 to 2**20."""
        if not is_bucket_count(bucket_count):
            raise InvariantBroken(f"state_buckets must be a power of two from {BUCKETS_MIN} to {BUCKETS_MAX}, not {bucket_count}")
        self._bucket_count = bucket_count
        self._depth = bucket_count.bit_length() - 1
        self._count = 0
        self._buckets: list[Bucket] = [b""] * bucket_count
        self._nodes: list[bytes] = [b""] * (2 * bucket_count)
        self._fill_nodes([EMPTY_LEAF_DIGEST] * bucket_count)
        self._root = root_of(bucket_count, self._nodes[1])

    @classmethod
    def rebuild(cls, bucket_count: int, items: Iterable[tuple[bytes, bytes]]) -> StateTree:
        """Return the tree over `items` (state key, value), whose keys are distinct. About 2 s a million items; see DESIGN.md.

        Raises InvariantBroken when a key comes twice.
        """
        tree = cls(bucket_count)
        shift = 32 - tree._depth  # the first four bytes hold the bucket's bits: at most 20
        gathered = [bytearray() for _ in range(bucket_count)]
        copy_key_state, copy_value_state = prefix_state(KEY_TAG).copy, prefix_state(VALUE_TAG).copy
        for key, value in items:  # key_digest_of and value_digest_of written out: a million items come through here at every start
            state = copy_key_state()
            state.update(key)
            key_digest = state.digest()
            state = copy_value_state()
            state.update(value)
            gathered[int.from_bytes(key_digest[:4], "big") >> shift] += key_digest + state.digest()
        digests = [EMPTY_LEAF_DIGEST] * bucket_count
        for index, packed in enumerate(gathered):
            if not packed:
                continue
            bucket = _sorted_bucket(bytes(packed), tree._depth)
            packed.clear()
            tree._buckets[index] = bucket
            tree._count += count_of(bucket)
            digests[index] = digest_of(bucket)
        tree._fill_nodes(digests)
        tree._root = root_of(bucket_count, tree._nodes[1])
        return tree

    @property
    def root(self) -> bytes:
        """The 32 byte state root."""
        return self._root

    @property
    def bucket_count(self) -> int:
        """How many buckets the state is spread over; fixed by the genesis document."""
        return self._bucket_count

    @property
    def count(self) -> int:
        """How many keys the state has."""
        return self._count

    def preview(self, changes: Mapping[bytes, bytes | None]) -> TreeUpdate:
        """Return what the tree becomes by `changes` (state key → value, None deletes), without changing it.

        Several previews of the same tree may be held at once; at most one of them can be adopted. Deleting an absent key and writing the
        value that is there already leave the root as it is.
        """
        shift = 32 - self._depth
        by_bucket: dict[int, dict[bytes, bytes | None]] = {}
        copy_key_state, copy_value_state = prefix_state(KEY_TAG).copy, prefix_state(VALUE_TAG).copy
        for key, value in changes.items():  # as in rebuild: thousands of keys a block
            state = copy_key_state()
            state.update(key)
            key_digest = state.digest()
            value_digest: bytes | None = None
            if value is not None:
                state = copy_value_state()
                state.update(value)
                value_digest = state.digest()
            index = int.from_bytes(key_digest[:4], "big") >> shift
            if index in by_bucket:
                by_bucket[index][key_digest] = value_digest
            else:
                by_bucket[index] = {key_digest: value_digest}
        count = self._count
        buckets: dict[int, Bucket] = {}
        level: dict[int, bytes] = {}
        for index, bucket_changes in by_bucket.items():
            before = self._buckets[index]
            after = update(before, bucket_changes, self._depth)
            if after is before or after == before:
                continue
            buckets[index] = after
            count += count_of(after) - count_of(before)
            level[self._bucket_count + index] = digest_of(after)
        nodes = self._dirty_nodes(level)
        root = root_of(self._bucket_count, nodes[1]) if nodes else self._root
        return TreeUpdate(base_root=self._root, root=root, count=count, buckets=buckets, nodes=nodes)

    def adopt(self, update: TreeUpdate) -> None:
        """Make the previewed content the tree's own. Raises InvariantBroken when the preview was made on another base."""
        if update.base_root != self._root:
            raise InvariantBroken("a state update was adopted on another base than it was previewed on")
        for index, bucket in update.buckets.items():
            self._buckets[index] = bucket
        nodes = self._nodes
        for position, digest in update.nodes.items():
            nodes[position] = digest
        self._count = update.count
        self._root = update.root

    def prove(self, key: bytes) -> StateProof:
        """Return the proof of what the tree says about `key`: its value's digest, or that it is absent."""
        key_digest = key_digest_of(key)
        index = int.from_bytes(key_digest[:4], "big") >> (32 - self._depth)
        bucket = self._buckets[index]
        downward: list[bytes] = []
        depth = self._depth
        while isinstance(bucket, Branch):
            if bit_of(key_digest, depth):
                downward.append(bucket.left_digest)
                bucket = bucket.right
            else:
                downward.append(bucket.right_digest)
                bucket = bucket.left
            depth += 1
        path = downward[::-1]
        position = self._bucket_count + index
        while position > 1:
            path.append(self._nodes[position ^ 1])
            position >>= 1
        return StateProof(leaf=bucket, path=tuple(path))

    def bucket_digests(self) -> Iterator[bytes]:
        """Yield the digest of each bucket in order: what two nodes compare to find where their states differ."""
        for index in range(self._bucket_count):
            yield self._nodes[self._bucket_count + index]

    def _fill_nodes(self, bucket_digests: list[bytes]) -> None:
        """Compute the whole upper tree; equal pairs are hashed once, which makes an empty tree cheap."""
        known: dict[bytes, bytes] = {}
        level = bucket_digests
        while True:
            self._nodes[len(level) : 2 * len(level)] = level
            if len(level) == 1:
                return
            above: list[bytes] = []
            for index in range(0, len(level), 2):
                pair = level[index] + level[index + 1]
                digest = known.get(pair)
                if digest is None:
                    digest = known[pair] = tagged_digest(INNER_TAG, pair)
                above.append(digest)
            level = above
            known.clear()

    def _dirty_nodes(self, level: dict[int, bytes]) -> dict[int, bytes]:
        """Return every node that changes when the nodes of `level` (heap position → digest) do, level by level up to the top."""
        nodes = self._nodes
        copy_state = prefix_state(INNER_TAG).copy
        dirty = dict(level)
        while level and 1 not in level:
            above: dict[int, bytes] = {}
            for position, digest in level.items():  # tagged_digest written out: most of what a block does to the state happens here
                parent = position >> 1
                if parent in above:
                    continue
                sibling_position = position ^ 1
                sibling = level[sibling_position] if sibling_position in level else nodes[sibling_position]
                state = copy_state()
                state.update(sibling + digest if position & 1 else digest + sibling)
                above[parent] = state.digest()
            dirty.update(above)
            level = above
        return dirty


def is_bucket_count(number: int) -> bool:
    """Answer whether `number` may be the genesis parameter `state_buckets`."""
    return BUCKETS_MIN <= number <= BUCKETS_MAX and number & (number - 1) == 0


def _sorted_bucket(packed: bytes, depth: int) -> Bucket:
    """Return the bucket of entries gathered in any order. Raises InvariantBroken when a key digest is there twice."""
    entries = sorted(packed[offset : offset + ENTRY_BYTES] for offset in range(0, len(packed), ENTRY_BYTES))
    if len({entry[:DIGEST_BYTES] for entry in entries}) != len(entries):
        raise InvariantBroken("a state key came twice while the state tree was rebuilt")
    return build(entries, depth)
