"""Ed25519 signatures, under libsodium's acceptance rule everywhere.

Ed25519 implementations differ in which odd signatures they accept (non-canonical points and scalars, points of small order, with or without
cofactor). Every node must answer alike, so there is one verifier, libsodium's `crypto_sign_open`, and no other is ever used for bytes that
nodes agree on (protocol.md, "Nouns"). This module knows no purpose tags: what a signature covers is its caller's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import nacl.bindings
import nacl.exceptions
import nacl.utils

from medchain.errors import Malformed

PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
SEED_BYTES: Final = 32


class SigningKey:
    """An Ed25519 signing key. Its text form shows the public key only; the seed leaves it by `seed_bytes()` alone.

    Misuse: whoever has the seed is the signer, so it belongs in a key file or a custodian, never in a log, a message or a test vector of a
    real network.
    """

    __slots__ = ("_secret", "public")

    public: bytes
    """The 32 byte public key: the signer's identity."""

    def __init__(self, seed: bytes) -> None:
        """Make the key of a 32 byte secret seed (RFC 8032, section 5.1.5). Raises Malformed when it has another length."""
        if type(seed) is not bytes or len(seed) != SEED_BYTES:
            raise Malformed(f"the seed of a signing key must be {SEED_BYTES} bytes long")
        self.public, self._secret = nacl.bindings.crypto_sign_seed_keypair(seed)

    @staticmethod
    def generate() -> SigningKey:
        """Return a fresh key from the system's randomness."""
        return SigningKey(nacl.utils.random(SEED_BYTES))

    def sign(self, message: bytes) -> bytes:
        """Return the 64 byte signature of `message`; it is deterministic (RFC 8032), so signing twice gives the same bytes."""
        return nacl.bindings.crypto_sign(message, self._secret)[:SIGNATURE_BYTES]

    def seed_bytes(self) -> bytes:
        """Return the secret seed, for storing it in a key file."""
        return self._secret[:SEED_BYTES]

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()})"


def verify_many(items: Sequence[tuple[bytes, bytes, bytes]]) -> list[bool]:
    """Return for each (public key, message, signature) whether libsodium accepts it; the order is that of `items`.

    Never raises on hostile bytes: a key or signature of another length is simply not valid. Each check releases the interpreter lock for
    its duration, so lists split over worker threads run on all cores. The signatures are checked one by one: batch verification accepts
    other sets of odd signatures than single verification, and nodes would part over them (Chalkias, Garillot, Nikolaenko 2020, "Taming the
    many EdDSAs").
    """
    verify = nacl.bindings.crypto_sign_open
    refused = (nacl.exceptions.BadSignatureError, TypeError)
    answers: list[bool] = []
    for public, message, signature in items:
        # The lengths are checked here because the binding hands the pointers to C as they are.
        if (
            type(public) is not bytes
            or len(public) != PUBLIC_KEY_BYTES
            or type(signature) is not bytes
            or len(signature) != SIGNATURE_BYTES
        ):
            answers.append(False)
            continue
        try:
            verify(signature + message, public)
        except refused:
            answers.append(False)
        else:
            answers.append(True)
    return answers


def is_signature_valid(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether `signature` is the Ed25519 signature of `message` by `public`, by libsodium's rule. Never raises on hostile bytes."""
    return verify_many(((public, message, signature),))[0]
