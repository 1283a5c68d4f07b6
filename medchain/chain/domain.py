"""What every signature covers besides its content: a purpose, the network and its recovery number.

Nothing signed for one purpose, network or history is valid in another (protocol.md, "Nouns"). This module signs nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from medchain import codec
from medchain.crypto.hashing import tagged_digest

TRANSACTION: Final = "transaction"
PREPARE: Final = "prepare"
COMMIT: Final = "commit"
VIEW_CHANGE: Final = "view-change"
HANDSHAKE: Final = "handshake"
RELEASE: Final = "release"
REQUEST: Final = "request"


@dataclass(frozen=True, slots=True)
class Domain:
    """One network and one history of it."""

    genesis: bytes
    """Digest of the genesis document (32 bytes)."""
    recovery: int = 0
    """Number of the recovery documents applied so far."""

    def signed_bytes(self, purpose: str, content: bytes) -> bytes:
        """Return the 32 bytes that a key signs for `content` under `purpose` (one of this module's names)."""
        return tagged_digest(f"medchain/sign/{purpose}", codec.encode([self.genesis, self.recovery, content]))
