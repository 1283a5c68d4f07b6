"""One bucket of the state tree: a leaf of sorted entries that splits when it grows and merges when it shrinks.

An entry is key digest || value digest, 64 bytes. A leaf of at most 64 entries is the bytes of its entries in order; above that the bucket
splits by the next bit of the key digests, one bit at a time, and is a leaf again at 64 or fewer (protocol.md, "State and proofs"). The
shape is a function of the content only, whatever the order of insertions and deletions was. This module knows no keys, no values and no
bucket count: only digests and depths.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from medchain.crypto.hashing import DIGEST_BYTES, tagged_digest
from medchain.errors import InvariantBroken

LEAF_TAG: Final = "medchain/state/leaf"
INNER_TAG: Final = "medchain/state/inner"

ENTRY_BYTES: Final = 2 * DIGEST_BYTES
LEAF_ENTRIES_MAX: Final = 64
"""Most entries of a leaf, so that a proof holds at most 4 KiB of entries."""
LEAF_BYTES_MAX: Final = LEAF_ENTRIES_MAX * ENTRY_BYTES
DEPTH_MAX: Final = 8 * DIGEST_BYTES
"""A path can be no longer than the key digest has bits."""

CUT_CHANGES_MAX: Final = 4
"""Up to so many changes are cut into a leaf one by one; more are sorted in together, which is cheaper then."""

EMPTY_LEAF_DIGEST: Final = tagged_digest(LEAF_TAG, b"")
"""Digest of a leaf without entries."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A split: the entries whose next bit is 0 on the left, 1 on the right."""

    count: int
    """Entries below: more than LEAF_ENTRIES_MAX, else this would be a leaf."""
    left: Bucket
    right: Bucket
    left_digest: bytes
    right_digest: bytes
    digest: bytes


Bucket = bytes | Branch
"""A leaf's packed entries, or a split."""


def bit_of(key_digest: bytes, depth: int) -> int:
    """Return bit `depth` of the digest, the most significant bit of its first byte being bit 0."""
    return (key_digest[depth >> 3] >> (7 - (depth & 7))) & 1


def digest_of(bucket: Bucket) -> bytes:
    """Return the digest of a leaf or a split."""
    if isinstance(bucket, Branch):
        return bucket.digest
    return tagged_digest(LEAF_TAG, bucket) if bucket else EMPTY_LEAF_DIGEST


def count_of(bucket: Bucket) -> int:
    """Return the number of entries."""
    return bucket.count if isinstance(bucket, Branch) else len(bucket) // ENTRY_BYTES


def build(entries: list[bytes], depth: int) -> Bucket:
    """Return the bucket of `entries`, which are sorted and have distinct key digests; `depth` bits are the same in all of them."""
    if len(entries) <= LEAF_ENTRIES_MAX:
        return b"".join(entries)
    if depth >= DEPTH_MAX:
        raise InvariantBroken("two entries of the state tree have the same key digest")
    byte, mask = depth >> 3, 0x80 >> (depth & 7)
    middle = bisect_left(entries, 1, key=lambda entry: 1 if entry[byte] & mask else 0)
    return _branch(build(entries[:middle], depth + 1), build(entries[middle:], depth + 1))


def update(bucket: Bucket, changes: Mapping[bytes, bytes | None], depth: int) -> Bucket:
    """Return the bucket after `changes` (key digest → value digest, None removes); the given bucket is not altered."""
    if isinstance(bucket, Branch):
        return _update_branch(bucket, changes, depth)
    if len(changes) <= CUT_CHANGES_MAX:
        leaf = bucket
        for key_digest, value_digest in changes.items():
            leaf = _update_leaf(leaf, key_digest, value_digest)
    else:
        contents = {entry[:DIGEST_BYTES]: entry for entry in entries_of(bucket)}
        for key_digest, value_digest in changes.items():
            if value_digest is None:
                contents.pop(key_digest, None)
            else:
                contents[key_digest] = key_digest + value_digest
        leaf = b"".join(sorted(contents.values()))
    return leaf if len(leaf) <= LEAF_BYTES_MAX else build(list(entries_of(leaf)), depth)


def entries_of(bucket: Bucket) -> Iterator[bytes]:
    """Yield all entries in order."""
    if isinstance(bucket, Branch):
        yield from entries_of(bucket.left)
        yield from entries_of(bucket.right)
    else:
        for offset in range(0, len(bucket), ENTRY_BYTES):
            yield bucket[offset : offset + ENTRY_BYTES]


def find_entry(leaf: bytes, key_digest: bytes) -> int:
    """Return the offset of the first entry whose key digest is not below `key_digest`."""
    low, high = 0, len(leaf) // ENTRY_BYTES
    while low < high:
        middle = (low + high) // 2
        offset = middle * ENTRY_BYTES
        if leaf[offset : offset + DIGEST_BYTES] < key_digest:
            low = middle + 1
        else:
            high = middle
    return low * ENTRY_BYTES


def _update_leaf(leaf: bytes, key_digest: bytes, value_digest: bytes | None) -> bytes:
    offset = find_entry(leaf, key_digest)
    found = leaf[offset : offset + DIGEST_BYTES] == key_digest
    rest = leaf[offset + ENTRY_BYTES :] if found else leaf[offset:]
    if value_digest is None:
        return leaf[:offset] + rest
    return leaf[:offset] + key_digest + value_digest + rest


def _update_branch(branch: Branch, changes: Mapping[bytes, bytes | None], depth: int) -> Bucket:
    byte, mask = depth >> 3, 0x80 >> (depth & 7)
    to_left: dict[bytes, bytes | None] = {}
    to_right: dict[bytes, bytes | None] = {}
    for key_digest, value_digest in changes.items():
        (to_right if key_digest[byte] & mask else to_left)[key_digest] = value_digest
    left = update(branch.left, to_left, depth + 1) if to_left else branch.left
    right = update(branch.right, to_right, depth + 1) if to_right else branch.right
    if count_of(left) + count_of(right) <= LEAF_ENTRIES_MAX:
        return b"".join(entries_of(left)) + b"".join(entries_of(right))
    left_digest = digest_of(left) if to_left else branch.left_digest
    right_digest = digest_of(right) if to_right else branch.right_digest
    return _branch(left, right, left_digest, right_digest)


def _branch(left: Bucket, right: Bucket, left_digest: bytes | None = None, right_digest: bytes | None = None) -> Branch:
    left_digest = left_digest or digest_of(left)
    right_digest = right_digest or digest_of(right)
    digest = tagged_digest(INNER_TAG, left_digest + right_digest)
    return Branch(count_of(left) + count_of(right), left, right, left_digest, right_digest, digest)
