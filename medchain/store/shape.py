"""The shape of the upper tree: which numbers of buckets there are, and how the tree over them joins their digests.

The buckets are the lowest row. Eight neighbours of a row are the children of one node of the row above; the topmost node joins what is
left, which is 2, 4 or 8 children. The shape follows from the number of buckets alone, which the root binds. DESIGN.md, "State root,
exactly", says why no two shapes have one root, and why eight. This module knows no keys, no entries and no tree in memory.
"""

from __future__ import annotations

from typing import Final

from medchain.crypto.hashing import DIGEST_BYTES, tagged_digest

NODE_TAG: Final = "medchain/state/node"
ROOT_TAG: Final = "medchain/state/root"

BUCKETS_MIN: Final = 16
BUCKETS_MAX: Final = 2**20
"""Bounds of the genesis parameter: below, small networks would prove long leaves; above, an empty tree alone would take 12 MB and more."""

NODE_BITS: Final = 3
"""Bits of the key digest that a node of the upper tree decides."""
NODE_CHILDREN_MAX: Final = 1 << NODE_BITS
CHILD_MASK: Final = NODE_CHILDREN_MAX - 1
"""What of a position in a row says which child of its node it is."""


def is_bucket_count(number: int) -> bool:
    """Answer whether `number` may be the genesis parameter `state_buckets`."""
    return BUCKETS_MIN <= number <= BUCKETS_MAX and number & (number - 1) == 0


def bucket_bits(bucket_count: int) -> int:
    """Return how many first bits of a key digest number its bucket; `bucket_count` is a power of two."""
    return bucket_count.bit_length() - 1


def children_counts(bucket_count: int) -> tuple[int, ...]:
    """Return how many children a node has in each row above the buckets, the topmost node's last."""
    counts = []
    remaining = bucket_bits(bucket_count)
    while remaining:
        bits = min(NODE_BITS, remaining)
        counts.append(1 << bits)
        remaining -= bits
    return tuple(counts)


def siblings_count(bucket_count: int) -> int:
    """Return how many digests lead from a bucket to the top: all children of each node on the way but the one that is known."""
    return sum([children - 1 for children in children_counts(bucket_count)])


def node_digest_of(joined: bytes) -> bytes:
    """Return the digest of an upper node whose children's digests are `joined` in order."""
    return tagged_digest(NODE_TAG, joined)


def root_of(bucket_count: int, top: bytes) -> bytes:
    """Return the state root: it binds the number of buckets (8 bytes, big-endian) and the topmost node of the tree over them."""
    return tagged_digest(ROOT_TAG, bucket_count.to_bytes(8, "big") + top)


def split_digests(joined: bytes) -> list[bytes]:
    """Return the digests that are joined in `joined`."""
    return [joined[offset : offset + DIGEST_BYTES] for offset in range(0, len(joined), DIGEST_BYTES)]
