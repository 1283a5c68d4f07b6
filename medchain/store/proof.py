"""Proofs of state: what a verifier needs besides the state root, and the check itself.

A proof is one leaf (at most 64 entries) and the path from it to the top; it shows that a key has a value or that it is absent. Verifying
needs no tree, no store and no trust in whoever sent it. Rules: protocol.md, "State and proofs".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from medchain import codec
from medchain.crypto.hashing import DIGEST_BYTES, tagged_digest
from medchain.errors import Malformed
from medchain.store.bucket import DEPTH_MAX, EMPTY_LEAF_DIGEST, ENTRY_BYTES, INNER_TAG, LEAF_BYTES_MAX, LEAF_TAG, bit_of, find_entry

KEY_TAG: Final = "medchain/state/key"
VALUE_TAG: Final = "medchain/state/value"
ROOT_TAG: Final = "medchain/state/root"

PROOF_BYTES_MAX: Final = LEAF_BYTES_MAX + DEPTH_MAX * DIGEST_BYTES + 16
"""Longest encoded proof: a full leaf, the deepest path, and the framing."""


def key_digest_of(key: bytes) -> bytes:
    """Return the digest under which a state key is placed; its first bits are the bucket."""
    return tagged_digest(KEY_TAG, key)


def value_digest_of(value: bytes) -> bytes:
    """Return the digest of a state value."""
    return tagged_digest(VALUE_TAG, value)


def root_of(bucket_count: int, top: bytes) -> bytes:
    """Return the state root: it binds the number of buckets (8 bytes, big-endian) and the top of the tree over them."""
    return tagged_digest(ROOT_TAG, bucket_count.to_bytes(8, "big") + top)


@dataclass(frozen=True, slots=True)
class StateProof:
    """The leaf where a key is or would be, and the path from it to the top."""

    leaf: bytes
    """Entries of 64 bytes (key digest, value digest) in ascending order of key digests."""
    path: tuple[bytes, ...]
    """Sibling digests from the leaf upwards."""

    def encode(self) -> bytes:
        """Return the canonical bytes: [leaf, path joined]."""
        return codec.encode([self.leaf, b"".join(self.path)])

    @classmethod
    def decode(cls, data: bytes) -> StateProof:
        """Read a proof. Raises Malformed for anything `encode` would not have made of a well-formed proof."""
        leaf_field, path_field = codec.as_fields(codec.decode(data, bytes_max=PROOF_BYTES_MAX), 2, "a state proof")
        leaf = codec.as_bytes(leaf_field, "the leaf of a state proof", maximum=LEAF_BYTES_MAX)
        packed = codec.as_bytes(path_field, "the path of a state proof", maximum=DEPTH_MAX * DIGEST_BYTES)
        if not _is_leaf(leaf):
            raise Malformed("the leaf of a state proof must be entries of 64 bytes in ascending order")
        if len(packed) % DIGEST_BYTES:
            raise Malformed("the path of a state proof must be digests of 32 bytes")
        return cls(leaf, tuple(packed[offset : offset + DIGEST_BYTES] for offset in range(0, len(packed), DIGEST_BYTES)))


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
    digest = tagged_digest(LEAF_TAG, proof.leaf) if proof.leaf else EMPTY_LEAF_DIGEST
    for depth, sibling in zip(range(len(proof.path) - 1, -1, -1), proof.path, strict=True):
        digest = tagged_digest(INNER_TAG, sibling + digest if bit_of(key_digest, depth) else digest + sibling)
    return root_of(bucket_count, digest) == root


def _is_path(path: tuple[bytes, ...], bucket_count: int) -> bool:
    """Answer whether the path has a possible length: it ends at or below a bucket, and holds digests."""
    if bucket_count < 2 or bucket_count & (bucket_count - 1):
        return False
    return bucket_count.bit_length() - 1 <= len(path) <= DEPTH_MAX and all(
        type(sibling) is bytes and len(sibling) == DIGEST_BYTES for sibling in path
    )


def _is_leaf(leaf: bytes) -> bool:
    """Answer whether the bytes are at most 64 whole entries with strictly ascending key digests."""
    if len(leaf) > LEAF_BYTES_MAX or len(leaf) % ENTRY_BYTES:
        return False
    keys = [leaf[offset : offset + DIGEST_BYTES] for offset in range(0, len(leaf), ENTRY_BYTES)]
    return all(before < after for before, after in pairwise(keys))
