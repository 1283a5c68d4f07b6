"""Proofs of state: what a verifier needs besides the state root, and the check itself.

A proof is one leaf (at most 64 entries) and the path from it to the top; it shows that a key has a value or that it is absent. Verifying
needs no tree, no store and no trust in whoever sent it. Rules: protocol.md, "State and proofs", and DESIGN.md, "State root, exactly".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from medchain import codec
from medchain.crypto.hashing import DIGEST_BYTES, tagged_digest
from medchain.errors import Malformed
from medchain.store.bucket import DEPTH_MAX, ENTRY_BYTES, INNER_TAG, LEAF_BYTES_MAX, bit_of, digest_of, find_entry
from medchain.store.shape import (
    BUCKETS_MAX,
    bucket_bits,
    children_counts,
    is_bucket_count,
    node_digest_of,
    root_of,
    siblings_count,
    split_digests,
)

KEY_TAG: Final = "medchain/state/key"
VALUE_TAG: Final = "medchain/state/value"

PATH_BYTES_MAX: Final = (DEPTH_MAX - bucket_bits(BUCKETS_MAX) + siblings_count(BUCKETS_MAX)) * DIGEST_BYTES
"""The deepest path: a split for each bit below the buckets and the siblings above them, of which the most buckets have the most by more."""
PROOF_BYTES_MAX: Final = LEAF_BYTES_MAX + PATH_BYTES_MAX + 16
"""Longest encoded proof: a full leaf, the deepest path, and the framing."""


def key_digest_of(key: bytes) -> bytes:
    """Return the digest under which a state key is placed; its first bits are the bucket."""
    return tagged_digest(KEY_TAG, key)


def value_digest_of(value: bytes) -> bytes:
    """Return the digest of a state value."""
    return tagged_digest(VALUE_TAG, value)


@dataclass(frozen=True, slots=True)
class StateProof:
    """The leaf where a key is or would be, and the path from it to the top."""

    leaf: bytes
    """Entries of 64 bytes (key digest, value digest) in ascending order of key digests."""
    path: bytes
    """Digests joined, from the leaf upwards: the sibling at each split of the bucket, then for each node of the upper tree the digests of
    its other children in order."""

    def encode(self) -> bytes:
        """Return the canonical bytes: [leaf, path]."""
        return codec.encode([self.leaf, self.path])

    @classmethod
    def decode(cls, data: bytes) -> StateProof:
        """Read a proof. Raises Malformed for anything `encode` would not have made of a well-formed proof."""
        leaf_field, path_field = codec.as_fields(codec.decode(data, bytes_max=PROOF_BYTES_MAX), 2, "a state proof")
        leaf = codec.as_bytes(leaf_field, "the leaf of a state proof", maximum=LEAF_BYTES_MAX)
        path = codec.as_bytes(path_field, "the path of a state proof", maximum=PATH_BYTES_MAX)
        if not _is_leaf(leaf):
            raise Malformed("the leaf of a state proof must be entries of 64 bytes in ascending order")
        if len(path) % DIGEST_BYTES:
            raise Malformed("the path of a state proof must be digests of 32 bytes")
        return cls(leaf, path)


def verify_state(root: bytes, bucket_count: int, key: bytes, value: bytes | None, proof: StateProof) -> bool:
    """Answer whether `proof` shows that under the state root `key` has `value`, or is absent when `value` is None.

    `bucket_count` is the genesis parameter. Never raises on a hostile proof: whatever is odd about it makes the answer False.
    """
    key_digest = key_digest_of(key)
    if not _is_leaf(proof.leaf) or not _is_path(proof.path, bucket_count):
        return False
    offset = find_entry(proof.leaf, key_digest)
    is_present = proof.leaf[offset : offset + DIGEST_BYTES] == key_digest
    if value is None:
        if is_present:
            return False
    elif not is_present or proof.leaf[offset + DIGEST_BYTES : offset + ENTRY_BYTES] != value_digest_of(value):
        return False
    upper = len(proof.path) - siblings_count(bucket_count) * DIGEST_BYTES
    bucket_digest = _climb_bucket(key_digest, bucket_bits(bucket_count), digest_of(proof.leaf), split_digests(proof.path[:upper]))
    return root_of(bucket_count, _climb_nodes(key_digest, bucket_count, bucket_digest, proof.path[upper:])) == root


def _climb_bucket(key_digest: bytes, bucket_depth: int, digest: bytes, siblings: list[bytes]) -> bytes:
    """Return the bucket's digest from its leaf's and the sibling at each split, the lowest first."""
    depth = bucket_depth + len(siblings)
    for sibling in siblings:
        depth -= 1
        digest = tagged_digest(INNER_TAG, sibling + digest if bit_of(key_digest, depth) else digest + sibling)
    return digest


def _climb_nodes(key_digest: bytes, bucket_count: int, digest: bytes, siblings: bytes) -> bytes:
    """Return the topmost node's digest from the bucket's and the other children of each node on the way, the lowest first."""
    position = int.from_bytes(key_digest, "big") >> (8 * DIGEST_BYTES - bucket_bits(bucket_count))
    start = 0
    for children in children_counts(bucket_count):
        position, place = divmod(position, children)
        middle, end = start + place * DIGEST_BYTES, start + (children - 1) * DIGEST_BYTES
        digest = node_digest_of(siblings[start:middle] + digest + siblings[middle:end])
        start = end
    return digest


def _is_path(path: bytes, bucket_count: int) -> bool:
    """Answer whether the path has a possible length: the upper tree's siblings, and one for each of no more splits than there are bits."""
    if not is_bucket_count(bucket_count) or type(path) is not bytes or len(path) % DIGEST_BYTES:
        return False
    splits = len(path) // DIGEST_BYTES - siblings_count(bucket_count)
    return 0 <= splits <= DEPTH_MAX - bucket_bits(bucket_count)


def _is_leaf(leaf: bytes) -> bool:
    """Answer whether the bytes are at most 64 whole entries with strictly ascending key digests."""
    if type(leaf) is not bytes or len(leaf) > LEAF_BYTES_MAX or len(leaf) % ENTRY_BYTES:
        return False
    keys = [leaf[offset : offset + DIGEST_BYTES] for offset in range(0, len(leaf), ENTRY_BYTES)]
    return all(before < after for before, after in pairwise(keys))
