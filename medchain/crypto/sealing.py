"""Sealing small secrets to one reader: HPKE in base mode, and AES key wrap.

Holds the opening keys of organisations, clinicians and patients, `seal` and `OpeningKey.open` (RFC 9180, single shot), and `wrap_key` /
`unwrap_key` (RFC 3394). What the bytes mean, what belongs into `info` and who may receive a key is decided above (ledger.md, "Sealing and
sharing"); this module must not know it. Large content goes through `medchain.crypto.streams`.

Misuse to beware of: HPKE base mode does not authenticate the sender. Anyone can seal to a public key, so a message whose origin matters
carries a signature over `info` and the sealed bytes. `info` must name everything the message is for; two purposes with equal `info` can
be swapped.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from medchain.errors import InvariantBroken, Malformed

SUITE_HYBRID: Final = 1
"""ML-KEM-768 with X25519 (the KEM 0x647a, X-Wing), HKDF-SHA256, AES-256-GCM: stays secret while either of the two problems is hard."""
SUITE_X25519: Final = 2
"""X25519, HKDF-SHA256, AES-256-GCM: for readers whose hardware or software has no ML-KEM yet."""
SUITES: Final = (SUITE_HYBRID, SUITE_X25519)

PRIVATE_KEY_BYTES: Final = 32
"""The serialised private key of either suite: the X-Wing seed, or the X25519 scalar."""
PUBLIC_KEY_BYTES: Final[dict[int, int]] = {SUITE_HYBRID: 1184 + 32, SUITE_X25519: 32}
"""Length of a public key by suite."""
ENCAPSULATION_BYTES: Final[dict[int, int]] = {SUITE_HYBRID: 1088 + 32, SUITE_X25519: 32}
"""Length of the encapsulated key (`enc`) in front of each sealed message, by suite."""
TAG_BYTES: Final = 16
"""What AES-256-GCM adds to the plaintext."""
PLAINTEXT_MAX: Final = 1024 * 1024
"""Largest message sealed in one piece: keys, shares and statements are below a few kB; what is larger is a stream."""
WRAPPED_KEY_BYTES: Final = 40
"""A 32-byte key under AES key wrap: eight bytes of integrity check in front."""
KEY_BYTES: Final = 32
"""AES-256: wrapping keys and wrapped keys."""

_HPKE: Final[dict[int, Suite]] = {
    SUITE_HYBRID: Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
    SUITE_X25519: Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
}
_PrivateKey = MLKEM768X25519PrivateKey | X25519PrivateKey
_PublicKey = MLKEM768X25519PublicKey | X25519PublicKey


class OpeningKey:
    """A private key that opens what was sealed to its public part.

    Keep it in a key file (`medchain.crypto.keyfile`); `private_bytes()` is the secret itself. Neither `repr` nor an exception shows it,
    and it refuses to be pickled or copied by accident.
    """

    __slots__ = ("_key", "_private", "public", "suite")

    suite: int
    public: bytes

    def __init__(self, suite: int, private: bytes) -> None:
        """Build the key from its 32 secret bytes; use `generate` or `from_private_bytes`."""
        check_suite(suite)
        if type(private) is not bytes or len(private) != PRIVATE_KEY_BYTES:
            raise Malformed(f"an opening key is {PRIVATE_KEY_BYTES} bytes long")
        self.suite = suite
        self._private = private
        self._key, self.public = _expand(suite, private)

    @classmethod
    def generate(cls, suite: int = SUITE_HYBRID) -> OpeningKey:
        """Return a fresh key from the system's source of randomness. Raises Malformed for an unknown suite."""
        return cls(suite, secrets.token_bytes(PRIVATE_KEY_BYTES))

    @classmethod
    def from_private_bytes(cls, suite: int, private: bytes) -> OpeningKey:
        """Return the key that `private_bytes` gave out. Raises Malformed for an unknown suite or a wrong length."""
        return cls(suite, private)

    def private_bytes(self) -> bytes:
        """Return the secret: 32 bytes, the private key serialisation of the suite's KEM."""
        return self._private

    def open(self, sealed: bytes, *, info: bytes) -> bytes:
        """Return the plaintext of `sealed` (enc || ciphertext || tag; RFC 9180 section 6.1, OpenBase with empty associated data).

        `info` must equal the one given to `seal`. Raises Malformed when the bytes were not sealed to this key under this `info`, were
        altered, or are shorter or longer than a sealed message can be; which of these it was is not said, on purpose.
        """
        shortest = ENCAPSULATION_BYTES[self.suite] + TAG_BYTES
        if not shortest <= len(sealed) <= shortest + PLAINTEXT_MAX:
            raise Malformed(
                f"a sealed message of suite {self.suite} is {shortest} to {shortest + PLAINTEXT_MAX} bytes long, not {len(sealed)}"
            )
        try:
            return _HPKE[self.suite].decrypt(sealed, self._key, info)
        except (InvalidTag, ValueError):
            raise Malformed("the sealed message does not open with this key and purpose") from None

    def __repr__(self) -> str:
        return f"OpeningKey(suite={self.suite}, public={self.public[:8].hex()}…)"

    def __reduce__(self) -> tuple[object, ...]:
        raise InvariantBroken("an opening key is not serialised by pickling; save it in a key file")


def check_suite(suite: int) -> None:
    """Raise Malformed unless `suite` is one of the numbers above."""
    if type(suite) is not int or suite not in _HPKE:
        raise Malformed("the sealing suite is unknown; this version knows 1 (ML-KEM-768 with X25519) and 2 (X25519)")


def check_public_key(suite: int, public: bytes) -> None:
    """Raise Malformed unless `public` is a key that `seal` accepts the form of: right length, and for ML-KEM reduced coefficients (FIPS
    203, 7.2)."""
    _read_public(suite, public)


def seal(suite: int, public: bytes, plaintext: bytes, *, info: bytes) -> bytes:
    """Return enc || ciphertext: `plaintext` sealed to the holder of `public` for the purpose `info` (RFC 9180 section 6.1, SealBase).

    Each call draws a fresh ephemeral key, so sealing twice gives different bytes. Raises Malformed when the suite is unknown or the
    public key is not a valid key of it (an X25519 point of small order included), InvariantBroken when the plaintext is longer than
    `PLAINTEXT_MAX`.
    """
    if len(plaintext) > PLAINTEXT_MAX:
        raise InvariantBroken(f"{len(plaintext)} bytes are too long to seal in one piece; seal them as a stream")
    key = _read_public(suite, public)
    try:
        return _HPKE[suite].encrypt(plaintext, key, info)
    except ValueError:
        raise Malformed("the reader's public key is not a valid key of its suite") from None


def wrap_key(wrapping_key: bytes, key: bytes) -> bytes:
    """Return `key` (32 bytes) under `wrapping_key` (32 bytes): 40 bytes, RFC 3394 section 2.2.1.

    Deterministic: equal keys give equal wraps. The wrap says nothing about what the key is for; bind that where the wrap is stored or sent.
    Raises InvariantBroken for other lengths.
    """
    if len(wrapping_key) != KEY_BYTES or len(key) != KEY_BYTES:
        raise InvariantBroken(f"wrapping keys and wrapped keys are {KEY_BYTES} bytes long")
    return aes_key_wrap(wrapping_key, key)


def unwrap_key(wrapping_key: bytes, wrapped: bytes) -> bytes:
    """Return the 32-byte key inside `wrapped` (40 bytes), RFC 3394 section 2.2.2.

    Raises Malformed when the lengths are wrong (the wrapping key may itself have come out of a sealed message), the wrap was altered, or
    it was made under another key.
    """
    if len(wrapping_key) != KEY_BYTES or len(wrapped) != WRAPPED_KEY_BYTES:
        raise Malformed(f"a wrapped key is {WRAPPED_KEY_BYTES} bytes long and its wrapping key {KEY_BYTES}")
    try:
        return aes_key_unwrap(wrapping_key, wrapped)
    except InvalidUnwrap:
        raise Malformed("the wrapped key does not open with this wrapping key") from None


def _expand(suite: int, private: bytes) -> tuple[_PrivateKey, bytes]:
    """Return the private key object and the public bytes of 32 secret bytes."""
    if suite == SUITE_X25519:
        scalar = X25519PrivateKey.from_private_bytes(private)
        return scalar, scalar.public_key().public_bytes_raw()
    # X-Wing, section 5.2 expandDecapsulationKey: the seed is stretched by SHAKE256 to the ML-KEM seed (d || z) and the X25519 scalar.
    stretched = hashlib.shake_256(private).digest(96)
    lattice = MLKEM768PrivateKey.from_seed_bytes(stretched[:64])
    scalar = X25519PrivateKey.from_private_bytes(stretched[64:])
    public = lattice.public_key().public_bytes_raw() + scalar.public_key().public_bytes_raw()
    return MLKEM768X25519PrivateKey(lattice, scalar), public


def _read_public(suite: int, public: bytes) -> _PublicKey:
    """Read a public key that came from outside."""
    check_suite(suite)
    if type(public) is not bytes or len(public) != PUBLIC_KEY_BYTES[suite]:
        raise Malformed(f"a public key of sealing suite {suite} is {PUBLIC_KEY_BYTES[suite]} bytes long")
    try:
        point = X25519PublicKey.from_public_bytes(public[-32:])
        if suite == SUITE_X25519:
            return point
        return MLKEM768X25519PublicKey(MLKEM768PublicKey.from_public_bytes(public[:-32]), point)
    except ValueError:
        raise Malformed("the reader's public key is not a valid key of its suite") from None
