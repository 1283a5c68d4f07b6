"""Tagged SHA-256, HMAC and HKDF.

Every digest in medchain is made under a tag that says what it is a digest of, so a digest of one thing is never a digest of another
(BIP-340, "Tagged Hashes"). This module knows no structure that is hashed and no Merkle tree.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from medchain.errors import InvariantBroken

if TYPE_CHECKING:
    from hashlib import _Hash

DIGEST_BYTES: Final = 32
"""Length of every digest: SHA-256."""
TAGS_CACHED_MAX: Final = 512
"""Prefix states kept: tags are constants of the program, a few dozen; the bound only guards against a caller that makes tags from data."""
HKDF_BYTES_MAX: Final = 255 * DIGEST_BYTES
"""Longest output of HKDF-SHA256 (RFC 5869, section 2.3)."""


@lru_cache(maxsize=TAGS_CACHED_MAX)
def prefix_state(tag: str) -> _Hash:
    """Return the SHA-256 state after SHA-256(tag) twice, which fills exactly one block. It is shared: `copy()` it, never `update()` it."""
    tag_digest = hashlib.sha256(tag.encode()).digest()
    return hashlib.sha256(tag_digest + tag_digest)


def tagged_digest(tag: str, data: bytes | memoryview) -> bytes:
    """Return the 32 byte digest SHA-256(SHA-256(tag) || SHA-256(tag) || data), the tagged hash of BIP-340.

    `tag` is a constant of the program such as "medchain/transaction"; `data` is hashed as it is, so whoever joins several fields into it
    must do so without ambiguity (fixed lengths or `codec.encode`).
    """
    state = prefix_state(tag).copy()
    state.update(data)
    return state.digest()


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """Return the 32 byte HMAC-SHA256 of `data` (RFC 2104).

    Compare it with `hmac.compare_digest`, never with `==`, where the key is secret.
    """
    return hmac.digest(key, data, "sha256")


def hkdf_sha256(key: bytes, *, salt: bytes, info: bytes, length_bytes: int) -> bytes:
    """Return `length_bytes` bytes derived from `key` by HKDF-SHA256, extract and expand (RFC 5869).

    `key` must be key material of full strength, never a password. `salt` may be empty (then 32 zero bytes, RFC 5869 section 2.2). `info`
    names the one use of the output: two uses of a key have two infos. Raises InvariantBroken when `length_bytes` is not from 1 to 8160.
    """
    if not 1 <= length_bytes <= HKDF_BYTES_MAX:
        raise InvariantBroken(f"HKDF-SHA256 yields 1 to {HKDF_BYTES_MAX} bytes, not {length_bytes}")
    pseudorandom_key = hmac.digest(salt or bytes(DIGEST_BYTES), key, "sha256")
    output = b""
    block = b""
    for counter in range(1, -(-length_bytes // DIGEST_BYTES) + 1):
        block = hmac.digest(pseudorandom_key, block + info + bytes((counter,)), "sha256")
        output += block
    return output[:length_bytes]
