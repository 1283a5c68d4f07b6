"""What validators sign while they agree: prepares, commits and view changes, and the proof that a block was prepared.

Commit, Prepare and ViewChange are signed over fixed tuples (protocol.md, "Agreement"); a view change's proof is attached unsigned. Knows no
counting: whether votes suffice is consensus' business, except that a proof or certificate checks itself against a validator set.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from medchain import codec
from medchain.chain import domain, limits
from medchain.chain.domain import Domain
from medchain.chain.validators import ValidatorSet
from medchain.crypto.signing import SigningKey, verify_many
from medchain.errors import Malformed

PREPARE: Final = 1
COMMIT: Final = 2
_PURPOSES: Final = {PREPARE: domain.PREPARE, COMMIT: domain.COMMIT}

VOTE_BYTES_CACHED_MAX: Final = 1024
"""All votes of a kind for one block cover the same bytes: those of a few hundred blocks are remembered, about 300 KB."""

Signatures = tuple[tuple[int, bytes], ...]
"""(validator index, signature) in ascending order of the index."""


@lru_cache(maxsize=VOTE_BYTES_CACHED_MAX)
def vote_bytes(network: Domain, kind: int, height: int, view: int, digest: bytes) -> bytes:
    """Return the bytes a validator signs for a prepare or commit."""
    return network.signed_bytes(_PURPOSES[kind], codec.encode([height, view, digest]))


@dataclass(frozen=True, slots=True)
class Vote:
    """A signed Prepare or Commit of one block digest at (height, view)."""

    kind: int
    height: int
    view: int
    digest: bytes
    signer: bytes
    """Consensus key."""
    signature: bytes

    @classmethod
    def sign(cls, network: Domain, key: SigningKey, kind: int, height: int, view: int, digest: bytes) -> Vote:
        """Make a vote. Whether it may be made is the caller's burden: durable before said, never two."""
        return cls(kind, height, view, digest, key.public, key.sign(vote_bytes(network, kind, height, view, digest)))

    def verification(self, network: Domain) -> tuple[bytes, bytes, bytes]:
        """Return (public key, message, signature) for `verify_many`."""
        return (self.signer, vote_bytes(network, self.kind, self.height, self.view, self.digest), self.signature)

    def to_value(self) -> list[Any]:
        """Return the codec value."""
        return [self.kind, self.height, self.view, self.digest, self.signer, self.signature]

    @classmethod
    def from_value(cls, value: Any) -> Vote:
        """Read a codec value. Raises Malformed."""
        kind, height, view, digest, signer, signature = codec.as_fields(value, 6, "vote")
        if type(kind) is not int or kind not in (PREPARE, COMMIT):
            raise Malformed("unknown kind of vote")
        return cls(
            kind=kind,
            height=codec.as_uint(height, "height", limits.HEIGHT_MAX),
            view=codec.as_uint(view, "view", limits.VIEW_MAX),
            digest=codec.as_bytes(digest, "block digest", length=limits.DIGEST_BYTES),
            signer=codec.as_bytes(signer, "signer", length=limits.KEY_BYTES),
            signature=codec.as_bytes(signature, "signature", length=limits.SIGNATURE_BYTES),
        )


def signatures_to_value(signatures: Signatures) -> list[Any]:
    """Return the codec value of indexed signatures."""
    return [[index, signature] for index, signature in signatures]


def signatures_from_value(value: Any) -> Signatures:
    """Read indexed signatures: indexes strictly ascending. Raises Malformed."""
    rows = codec.as_items(value, limits.VALIDATORS_MAX, "signatures", _read_indexed)
    _check_ascending(rows)
    return rows


def _check_ascending(signatures: Signatures) -> None:
    """Refuse a validator that stands twice. Reading and counting both ask: a quorum need not come from bytes."""
    if any(left[0] >= right[0] for left, right in itertools.pairwise(signatures)):
        raise Malformed("signatures must be in ascending order of distinct validators")


def _read_indexed(value: Any) -> tuple[int, bytes]:
    index, signature = codec.as_fields(value, 2, "indexed signature")
    return (
        codec.as_uint(index, "validator index", limits.VALIDATORS_MAX - 1),
        codec.as_bytes(signature, "signature", length=limits.SIGNATURE_BYTES),
    )


def quorum_verifications(
    network: Domain, validators: ValidatorSet, kind: int, height: int, view: int, digest: bytes, signatures: Signatures
) -> list[tuple[bytes, bytes, bytes]]:
    """Return what `verify_many` must find valid for a quorum of one kind of vote.

    Raises Malformed unless the signatures are exactly q of distinct validators of the set that may vote.
    """
    if len(signatures) != validators.quorum:
        raise Malformed(f"exactly {validators.quorum} signatures are needed, not {len(signatures)}")
    _check_ascending(signatures)
    message = vote_bytes(network, kind, height, view, digest)
    items = []
    for index, signature in signatures:
        if not 0 <= index < len(validators) or not validators.validators[index].may_vote:
            raise Malformed("a signature is by no voting validator of this height")
        items.append((validators.validators[index].consensus_key, message, signature))
    return items


@dataclass(frozen=True, slots=True)
class PreparedProof:
    """q prepares of one block at (height, view), the primary's own among them."""

    height: int
    view: int
    digest: bytes
    prepares: Signatures

    def verifications(self, network: Domain, validators: ValidatorSet) -> list[tuple[bytes, bytes, bytes]]:
        """Return the signatures to check. Raises Malformed when they are not a quorum."""
        return quorum_verifications(network, validators, PREPARE, self.height, self.view, self.digest, self.prepares)

    def check(self, network: Domain, validators: ValidatorSet) -> None:
        """Raise Malformed unless this proves that the block was prepared."""
        if not all(verify_many(self.verifications(network, validators))):
            raise Malformed("a prepared proof holds a forged signature")

    def to_value(self) -> list[Any]:
        """Return the codec value."""
        return [self.height, self.view, self.digest, signatures_to_value(self.prepares)]

    @classmethod
    def from_value(cls, value: Any) -> PreparedProof:
        """Read a codec value. Raises Malformed."""
        height, view, digest, prepares = codec.as_fields(value, 4, "prepared proof")
        return cls(
            height=codec.as_uint(height, "height", limits.HEIGHT_MAX),
            view=codec.as_uint(view, "view", limits.VIEW_MAX),
            digest=codec.as_bytes(digest, "block digest", length=limits.DIGEST_BYTES),
            prepares=signatures_from_value(prepares),
        )


@dataclass(frozen=True, slots=True)
class ViewChange:
    """A signed wish to enter `view` at `height`, telling the highest block its signer prepared; the proof is attached, not signed."""

    height: int
    view: int
    prepared_view: int | None
    digest: bytes | None
    signer: bytes
    signature: bytes
    proof: PreparedProof | None = None

    @staticmethod
    def message(network: Domain, height: int, view: int, prepared_view: int | None, digest: bytes | None) -> bytes:
        """Return the bytes a validator signs."""
        return network.signed_bytes(domain.VIEW_CHANGE, codec.encode([height, view, prepared_view, digest]))

    @classmethod
    def sign(cls, network: Domain, key: SigningKey, height: int, view: int, proof: PreparedProof | None) -> ViewChange:
        """Make a view change that shows `proof` (or that nothing was prepared)."""
        prepared_view, digest = (None, None) if proof is None else (proof.view, proof.digest)
        signature = key.sign(cls.message(network, height, view, prepared_view, digest))
        return cls(height, view, prepared_view, digest, key.public, signature, proof)

    def verification(self, network: Domain) -> tuple[bytes, bytes, bytes]:
        """Return (public key, message, signature) for `verify_many`; the proof is checked separately."""
        return (self.signer, self.message(network, self.height, self.view, self.prepared_view, self.digest), self.signature)

    def without_proof(self) -> ViewChange:
        """Return the signed part alone."""
        return replace(self, proof=None)

    def to_value(self) -> list[Any]:
        """Return the codec value."""
        proof = None if self.proof is None else self.proof.to_value()
        return [self.height, self.view, self.prepared_view, self.digest, self.signer, self.signature, proof]

    @classmethod
    def from_value(cls, value: Any) -> ViewChange:
        """Read a codec value: form only. Raises Malformed when fields contradict each other."""
        height, view, prepared_view, digest, signer, signature, proof = codec.as_fields(value, 7, "view change")
        change = cls(
            height=codec.as_uint(height, "height", limits.HEIGHT_MAX),
            view=codec.as_uint(view, "view", limits.VIEW_MAX),
            prepared_view=codec.as_optional(prepared_view, lambda item: codec.as_uint(item, "prepared view", limits.VIEW_MAX)),
            digest=codec.as_optional(digest, lambda item: codec.as_bytes(item, "block digest", length=limits.DIGEST_BYTES)),
            signer=codec.as_bytes(signer, "signer", length=limits.KEY_BYTES),
            signature=codec.as_bytes(signature, "signature", length=limits.SIGNATURE_BYTES),
            proof=codec.as_optional(proof, PreparedProof.from_value),
        )
        if change.view == 0:
            raise Malformed("a view change leads to view 1 or later")
        if (change.prepared_view is None) != (change.digest is None):
            raise Malformed("a view change names a prepared view and its block together")
        if change.prepared_view is not None and change.prepared_view >= change.view:
            raise Malformed("a view change cannot show a block prepared in its own or a later view")
        if change.proof is not None and (change.proof.height, change.proof.view, change.proof.digest) != (
            change.height,
            change.prepared_view,
            change.digest,
        ):
            raise Malformed("the proof of a view change is of another block")
        return change
