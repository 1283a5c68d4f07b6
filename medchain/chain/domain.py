"""What every signature covers besides its content: a purpose, the network and its recovery number.

Nothing signed for one purpose, network or history is valid in another (protocol.md, "Nouns"). This module signs nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from medchain import codec
from medchain.crypto.hashing import tagged_digest

TRANSACTION: Final = "transaction"
TRANSACTION_BATCH: Final = "transaction-batch"
PREPARE: Final = "prepare"
COMMIT: Final = "commit"
VIEW_CHANGE: Final = "view-change"
HANDSHAKE: Final = "handshake"
RELEASE: Final = "release"
REQUEST: Final = "request"


REMEMBERED_MAX: Final = 8_192
REMEMBERED_CONTENT_BYTES_MAX: Final = 64
"""A transaction's signature covers the same bytes at admission, in each proposal and in the block: ids fit, and 4 MiB hold them all."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One network and one history of it."""

    genesis: bytes
    """Digest of the genesis document (32 bytes)."""
    recovery: int = 0
    """Number of the recovery documents applied so far."""

    def signed_bytes(self, purpose: str, content: bytes) -> bytes:
        """Return the 32 bytes that a key signs for `content` under `purpose` (one of this module's names)."""
        if len(content) > REMEMBERED_CONTENT_BYTES_MAX:
            return _signed_bytes(self.genesis, self.recovery, purpose, content)
        return _remembered_signed_bytes(self.genesis, self.recovery, purpose, content)


def _signed_bytes(genesis: bytes, recovery: int, purpose: str, content: bytes) -> bytes:
    return tagged_digest(f"medchain/sign/{purpose}", codec.encode([genesis, recovery, content]))


_remembered_signed_bytes: Final = lru_cache(maxsize=REMEMBERED_MAX)(_signed_bytes)
