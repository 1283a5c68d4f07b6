"""The authenticated state: one root over every key and value, and proofs of what is there and what is not.

Key digests are spread over a fixed, genesis-chosen number of buckets (bucket.py); above the buckets stands a tree of nodes of eight
children (shape.py), which lives in memory. A block's changes are previewed (several proposals may be previewed on one base) and the
decided one is adopted. The tree holds digests only: it is rebuilt from the state rows at start, and never written to disk (DESIGN.md
says why).

Rules: protocol.md, "State and proofs". This module knows no database, no overlay and no meaning of a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from medchain.crypto.hashing import DIGEST_BYTES, prefix_state
from medchain.errors import InvariantBroken
from medchain.store.bucket import (
    EMPTY_LEAF_DIGEST,
    ENTRY_BYTES,
    Branch,
    Bucket,
    Change,
    bit_of,
    build,
    count_of,
    digest_of,
    update,
)
from medchain.store.proof import KEY_TAG, VALUE_TAG, StateProof, key_digest_of, verify_state
from medchain.store.shape import (
    BUCKETS_MAX,
    BUCKETS_MIN,
    CHILD_MASK,
    NODE_BITS,
    NODE_CHILDREN_MAX,
    NODE_TAG,
    bucket_bits,
    is_bucket_count,
    node_digest_of,
    root_of,
    split_digests,
)

__all__ = ["BUCKETS_MAX", "BUCKETS_MIN", "StateProof", "StateTree", "TreeUpdate", "is_bucket_count", "verify_state"]


@dataclass(frozen=True, slots=True)
class TreeUpdate:
    """What a preview computed: the new root, and the touched parts to adopt."""

    base_root: bytes
    """Root of the tree the preview was made on; the update fits no other."""
    root: bytes
    count: int
    """Entries after the update."""
    buckets: dict[int, Bucket]
    nodes: tuple[dict[int, bytes], ...]
    """For each row of the upper tree, the lowest first: position of a changed node → its children's digests, joined. Empty when nothing
    changed."""


class StateTree:
    """The digests of the whole state at one height."""

    __slots__ = ("_bucket_count", "_buckets", "_count", "_depth", "_root", "_rows")

    _root: bytes
    _rows: list[list[bytes]]
    """For each row of the upper tree, the lowest first, the joined digests of each node's children: in the lowest those of the buckets."""

    def __init__(self, bucket_count: int) -> None:
        """Make the tree of an empty state. Raises InvariantBroken unless `bucket_count` is a power of two from 16 to 2**20."""
        if not is_bucket_count(bucket_count):
            raise InvariantBroken(f"state_buckets must be a power of two from {BUCKETS_MIN} to {BUCKETS_MAX}, not {bucket_count}")
        self._bucket_count = bucket_count
        self._depth = bucket_bits(bucket_count)
        self._count = 0
        self._buckets: list[Bucket] = [b""] * bucket_count
        self._fill_rows([EMPTY_LEAF_DIGEST] * bucket_count)

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
        tree._fill_rows(digests)
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
        depth, held, row = self._depth, self._buckets, self._rows[0]
        buckets: dict[int, Bucket] = {}
        nodes: dict[int, bytes] = {}
        count = self._count
        for index, bucket_changes in self._by_bucket(changes).items():
            before = held[index]
            after = update(before, bucket_changes, depth)
            if after is before:
                continue
            buckets[index] = after
            count += count_of(after) - count_of(before)
            position, offset = index >> NODE_BITS, (index & CHILD_MASK) * DIGEST_BYTES
            joined = nodes[position] if position in nodes else row[position]
            nodes[position] = joined[:offset] + digest_of(after) + joined[offset + DIGEST_BYTES :]
        if not buckets:
            return TreeUpdate(base_root=self._root, root=self._root, count=count, buckets={}, nodes=())
        rows, top = self._rows_above(nodes)
        return TreeUpdate(base_root=self._root, root=root_of(self._bucket_count, top), count=count, buckets=buckets, nodes=rows)

    def adopt(self, update: TreeUpdate) -> None:
        """Make the previewed content the tree's own. Raises InvariantBroken when the preview was made on another base."""
        if update.base_root != self._root:
            raise InvariantBroken("a state update was adopted on another base than it was previewed on")
        held = self._buckets
        for index, bucket in update.buckets.items():
            held[index] = bucket
        for row, changed in zip(self._rows, update.nodes, strict=False):  # of an update without effect there are no rows
            for position, joined in changed.items():
                row[position] = joined
        self._count = update.count
        self._root = update.root

    def lacks(self, key: bytes) -> bool:
        """Answer whether the state surely has no such key. False says nothing: the store knows."""
        key_digest = key_digest_of(key)
        bucket = self._buckets[int.from_bytes(key_digest[:4], "big") >> (32 - self._depth)]
        depth = self._depth
        while isinstance(bucket, Branch):
            bucket = bucket.right if bit_of(key_digest, depth) else bucket.left
            depth += 1
        return key_digest not in bucket  # wherever it stands: a value's digest that equals it would only cost a look into the store

    def prove(self, key: bytes) -> StateProof:
        """Return the proof of what the tree says about `key`: its value's digest, or that it is absent."""
        key_digest = key_digest_of(key)
        position = int.from_bytes(key_digest[:4], "big") >> (32 - self._depth)
        bucket = self._buckets[position]
        path: list[bytes] = []
        depth = self._depth
        while isinstance(bucket, Branch):
            if bit_of(key_digest, depth):
                path.append(bucket.left_digest)
                bucket = bucket.right
            else:
                path.append(bucket.right_digest)
                bucket = bucket.left
            depth += 1
        path.reverse()  # the leaf's own sibling first
        for row in self._rows:
            joined = row[position >> NODE_BITS]
            offset = (position & CHILD_MASK) * DIGEST_BYTES
            path.append(joined[:offset])
            path.append(joined[offset + DIGEST_BYTES :])
            position >>= NODE_BITS
        return StateProof(leaf=bucket, path=b"".join(path))

    def bucket_digests(self) -> Iterator[bytes]:
        """Yield the digest of each bucket in order: what two nodes compare to find where their states differ."""
        for joined in self._rows[0]:
            yield from split_digests(joined)

    def _by_bucket(self, changes: Mapping[bytes, bytes | None]) -> dict[int, list[Change]]:
        """Return the digests of keys and values that change, by the bucket they belong to."""
        shift = 32 - self._depth
        by_bucket: dict[int, list[Change]] = {}
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
                by_bucket[index].append((key_digest, value_digest))
            else:
                by_bucket[index] = [(key_digest, value_digest)]
        return by_bucket

    def _fill_rows(self, digests: list[bytes]) -> None:
        """Compute the whole upper tree and the root; equal nodes are hashed once and are one object, which makes an empty tree cheap."""
        self._rows = []
        while len(digests) > 1:
            known: dict[bytes, tuple[bytes, bytes]] = {}
            row: list[bytes] = []
            above: list[bytes] = []
            for first in range(0, len(digests), NODE_CHILDREN_MAX):
                joined = b"".join(digests[first : first + NODE_CHILDREN_MAX])
                node = known.get(joined)
                if node is None:
                    node = known[joined] = (joined, node_digest_of(joined))
                row.append(node[0])
                above.append(node[1])
            self._rows.append(row)
            digests = above
        self._root = root_of(self._bucket_count, digests[0])

    def _rows_above(self, lowest: dict[int, bytes]) -> tuple[tuple[dict[int, bytes], ...], bytes]:
        """Return the changed nodes of each row when those of the lowest are `lowest`, which comes first, and the digest of the topmost."""
        copy_state = prefix_state(NODE_TAG).copy
        below = lowest
        rows = [below]
        for row in self._rows[1:]:
            nodes: dict[int, bytes] = {}
            for index, children in below.items():  # node_digest_of written out: much of what a block does to the state happens here
                state = copy_state()
                state.update(children)
                position, offset = index >> NODE_BITS, (index & CHILD_MASK) * DIGEST_BYTES
                joined = nodes[position] if position in nodes else row[position]
                nodes[position] = joined[:offset] + state.digest() + joined[offset + DIGEST_BYTES :]
            rows.append(nodes)
            below = nodes
        return tuple(rows), node_digest_of(below[0])


def _sorted_bucket(packed: bytes, depth: int) -> Bucket:
    """Return the bucket of entries gathered in any order. Raises InvariantBroken when a key digest is there twice."""
    entries = sorted(packed[offset : offset + ENTRY_BYTES] for offset in range(0, len(packed), ENTRY_BYTES))
    if len({entry[:DIGEST_BYTES] for entry in entries}) != len(entries):
        raise InvariantBroken("a state key came twice while the state tree was rebuilt")
    return build(entries, depth)
