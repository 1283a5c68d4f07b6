"""One bucket of the state tree: a leaf of sorted entries that splits when it grows and merges when it shrinks.

An entry is key digest || value digest, 64 bytes. A leaf of at most 64 entries is the bytes of its entries in order; above that the bucket
splits by the next bit of the key digests, one bit at a time, and is a leaf again at 64 or fewer (protocol.md, "State and proofs"). The
shape is a function of the content only, whatever the order of insertions and deletions was. This module knows no keys, no values and no
bucket count: only digests and depths.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from medchain.crypto.hashing import DIGEST_BYTES, prefix_state, tagged_digest
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

_LEAF_STATE: Final = prefix_state(LEAF_TAG)
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
Change = tuple[bytes, bytes | None]
"""Key digest and value digest; None removes the entry."""


def bit_of(key_digest: bytes, depth: int) -> int:
    """Return bit `depth` of the digest, the most significant bit of its first byte being bit 0."""
    return (key_digest[depth >> 3] >> (7 - (depth & 7))) & 1


def digest_of(bucket: Bucket) -> bytes:
    """Return the digest of a leaf or a split."""
    if isinstance(bucket, Branch):
        return bucket.digest
    if not bucket:
        return EMPTY_LEAF_DIGEST
    state = _LEAF_STATE.copy()  # tagged_digest written out: one or two leaves for each transaction of each block
    state.update(bucket)
    return state.digest()


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


def update(bucket: Bucket, changes: Sequence[Change], depth: int) -> Bucket:
    """Return the bucket after `changes`, whose key digests are distinct; the given bucket, which is not altered, if they change nothing."""
    if isinstance(bucket, Branch):
        return _update_branch(bucket, changes, depth)
    leaf = _cut_in(bucket, changes) if len(changes) <= CUT_CHANGES_MAX else _sort_in(bucket, changes)
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


def _cut_in(leaf: bytes, changes: Sequence[Change]) -> bytes:
    for key_digest, value_digest in changes:
        offset = find_entry(leaf, key_digest)
        end = offset + ENTRY_BYTES
        if leaf[offset : offset + DIGEST_BYTES] != key_digest:
            if value_digest is not None:
                leaf = leaf[:offset] + key_digest + value_digest + leaf[offset:]
        elif value_digest is None:
            leaf = leaf[:offset] + leaf[end:]
        elif leaf[offset + DIGEST_BYTES : end] != value_digest:
            leaf = leaf[:offset] + key_digest + value_digest + leaf[end:]
    return leaf


def _sort_in(leaf: bytes, changes: Sequence[Change]) -> bytes:
    contents = {entry[:DIGEST_BYTES]: entry for entry in entries_of(leaf)}
    for key_digest, value_digest in changes:
        if value_digest is None:
            contents.pop(key_digest, None)
        else:
            contents[key_digest] = key_digest + value_digest
    changed = b"".join(sorted(contents.values()))
    return leaf if changed == leaf else changed


def _update_branch(branch: Branch, changes: Sequence[Change], depth: int) -> Bucket:
    byte, mask = depth >> 3, 0x80 >> (depth & 7)
    to_left: list[Change] = []
    to_right: list[Change] = []
    for change in changes:
        (to_right if change[0][byte] & mask else to_left).append(change)
    left = update(branch.left, to_left, depth + 1) if to_left else branch.left
    right = update(branch.right, to_right, depth + 1) if to_right else branch.right
    if left is branch.left and right is branch.right:
        return branch
    if count_of(left) + count_of(right) <= LEAF_ENTRIES_MAX:
        return b"".join(entries_of(left)) + b"".join(entries_of(right))
    left_digest = branch.left_digest if left is branch.left else digest_of(left)
    right_digest = branch.right_digest if right is branch.right else digest_of(right)
    return _branch(left, right, left_digest, right_digest)


def _branch(left: Bucket, right: Bucket, left_digest: bytes | None = None, right_digest: bytes | None = None) -> Branch:
    left_digest = left_digest or digest_of(left)
    right_digest = right_digest or digest_of(right)
    digest = tagged_digest(INNER_TAG, left_digest + right_digest)
    return Branch(count_of(left) + count_of(right), left, right, left_digest, right_digest, digest)
