"""Certificates: q commits that make a block final, checkable by anyone who knows the validator set.

Knows nothing of how commits come about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medchain import codec
from medchain.chain import limits
from medchain.chain.domain import Domain
from medchain.chain.validators import ValidatorSet
from medchain.chain.vote import COMMIT, Signatures, quorum_verifications, signatures_from_value, signatures_to_value
from medchain.crypto.signing import verify_many
from medchain.errors import Malformed


@dataclass(frozen=True, slots=True)
class Certificate:
    """Exactly q commit signatures of one (height, deciding view, block digest)."""

    height: int
    view: int
    digest: bytes
    commits: Signatures

    def verifications(self, network: Domain, validators: ValidatorSet) -> list[tuple[bytes, bytes, bytes]]:
        """Return the signatures to check. Raises Malformed when they are not a quorum."""
        return quorum_verifications(network, validators, COMMIT, self.height, self.view, self.digest, self.commits)

    def check(self, network: Domain, validators: ValidatorSet) -> None:
        """Raise Malformed unless q validators of the set committed this block."""
        if not all(verify_many(self.verifications(network, validators))):
            raise Malformed("a certificate holds a forged signature")

    def to_value(self) -> list[Any]:
        """Return the codec value."""
        return [self.height, self.view, self.digest, signatures_to_value(self.commits)]

    @classmethod
    def from_value(cls, value: Any) -> Certificate:
        """Read a codec value. Raises Malformed."""
        height, view, digest, commits = codec.as_fields(value, 4, "certificate")
        return cls(
            height=codec.as_uint(height, "height", limits.HEIGHT_MAX),
            view=codec.as_uint(view, "view", limits.VIEW_MAX),
            digest=codec.as_bytes(digest, "block digest", length=limits.DIGEST_BYTES),
            commits=signatures_from_value(commits),
        )

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode(self.to_value())

    @classmethod
    def decode(cls, data: bytes) -> Certificate:
        """Read canonical bytes. Raises Malformed."""
        return cls.from_value(codec.decode(data, bytes_max=64 * 1024, depth_max=4))
