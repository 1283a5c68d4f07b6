"""What a custodian is asked and what it answers: registering a sealed record, and releasing the keys of a permit.

Each noun is signed over its network, so that who asks is the signing key and never an argument. Nothing here is plaintext: data keys
travel sealed to one reader (ledger.md, "Sealing and sharing" 3 and 4). Whether a request is granted is decided elsewhere (ledger,
engine/release.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from medchain import codec
from medchain.chain import domain, limits
from medchain.chain.domain import Domain
from medchain.crypto.hashing import tagged_digest
from medchain.crypto.signing import SigningKey, is_signature_valid
from medchain.errors import Malformed

SEALED_KEY_BYTES_MAX: Final = 4 * 1024
"""A data key sealed with the hybrid suite takes 1,168 bytes."""
LABEL_TOKENS_MAX: Final = 16
REQUEST_BYTES_MAX: Final = 16 * 1024
"""The largest noun here: a sealed key, sixteen tokens and a dozen short fields, twice over."""
VERSION_MAX: Final = 1_000_000
"""Versions of one record: an amendment a minute for two years."""
_SIGNATURE_MISSING: Final = bytes(limits.SIGNATURE_BYTES)


def _digest(value: Any, what: str) -> bytes:
    return codec.as_bytes(value, what, length=limits.DIGEST_BYTES)


def _version(value: Any) -> int:
    if codec.as_uint(value, "version", VERSION_MAX) < 1:
        raise Malformed("versions of a record count from 1")
    return int(value)


@dataclass(frozen=True, slots=True)
class PutRequest:
    """An author asks the custodian to register a version of a record whose ciphertext it uploaded."""

    record: bytes
    version: int
    """1 registers, the next ones amend."""
    pseudonym: bytes
    category: str
    kind: str
    size_class: int
    root: bytes
    segment_count: int
    author: bytes
    """Signing key of the hospital itself or of a clinician it credentialed."""
    coarse_date: int
    """Year and month as yyyymm."""
    label_tokens: tuple[bytes, ...]
    sealed_key: bytes
    """The version's data key, HPKE-sealed to the custodian; `put_info` binds what it is for."""
    signature: bytes = _SIGNATURE_MISSING

    def _fields(self) -> list[Any]:
        return [
            self.record, self.version, self.pseudonym, self.category, self.kind, self.size_class, self.root, self.segment_count,
            self.author, self.coarse_date, list(self.label_tokens), self.sealed_key,
        ]  # fmt: skip

    def signed_bytes(self, network: Domain) -> bytes:
        """Return what the author signs."""
        return network.signed_bytes(domain.REQUEST, codec.encode(["put", self._fields()]))

    def signed(self, network: Domain, key: SigningKey) -> PutRequest:
        """Return the request with the author's signature."""
        return replace(self, signature=key.sign(self.signed_bytes(network)))

    def is_signed(self, network: Domain) -> bool:
        """Answer whether the author signed exactly this."""
        return is_signature_valid(self.author, self.signed_bytes(network), self.signature)

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode([*self._fields(), self.signature])

    @classmethod
    def decode(cls, data: bytes) -> PutRequest:
        """Read canonical bytes; the signature is not checked. Raises Malformed."""
        values = codec.as_fields(codec.decode(data, bytes_max=REQUEST_BYTES_MAX, depth_max=3), 13, "put request")
        return cls(
            record=_digest(values[0], "record"),
            version=_version(values[1]),
            pseudonym=_digest(values[2], "pseudonym"),
            category=codec.as_text(values[3], "category", limits.NAME_BYTES_MAX),
            kind=codec.as_text(values[4], "kind", limits.NAME_BYTES_MAX),
            size_class=codec.as_uint(values[5], "size class", 64),
            root=_digest(values[6], "root"),
            segment_count=codec.as_uint(values[7], "segment count", 2**32),
            author=codec.as_bytes(values[8], "author", length=limits.KEY_BYTES),
            coarse_date=codec.as_uint(values[9], "coarse date", 999_912),
            label_tokens=codec.as_items(values[10], LABEL_TOKENS_MAX, "label tokens", lambda item: _digest(item, "label token")),
            sealed_key=codec.as_bytes(values[11], "sealed key", maximum=SEALED_KEY_BYTES_MAX),
            signature=codec.as_bytes(values[12], "signature", length=limits.SIGNATURE_BYTES),
        )


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """The reader of a permit asks a releaser for the keys. Signed, so that nobody else uses up its releases."""

    permit: bytes
    reader: bytes
    """Signing key of the permit's reader."""
    challenge: bytes
    """32 fresh bytes of the reader."""
    signature: bytes = _SIGNATURE_MISSING

    def signed_bytes(self, network: Domain) -> bytes:
        """Return what the reader signs."""
        return network.signed_bytes(domain.REQUEST, codec.encode(["release", self.permit, self.reader, self.challenge]))

    def signed(self, network: Domain, key: SigningKey) -> ReleaseRequest:
        """Return the request with the reader's signature."""
        return replace(self, signature=key.sign(self.signed_bytes(network)))

    def is_signed(self, network: Domain) -> bool:
        """Answer whether the reader signed exactly this."""
        return is_signature_valid(self.reader, self.signed_bytes(network), self.signature)

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode([self.permit, self.reader, self.challenge, self.signature])

    @classmethod
    def decode(cls, data: bytes) -> ReleaseRequest:
        """Read canonical bytes; the signature is not checked. Raises Malformed."""
        permit, reader, challenge, signature = codec.as_fields(
            codec.decode(data, bytes_max=REQUEST_BYTES_MAX, depth_max=2), 4, "release request"
        )
        return cls(
            permit=_digest(permit, "permit"),
            reader=codec.as_bytes(reader, "reader", length=limits.KEY_BYTES),
            challenge=_digest(challenge, "challenge"),
            signature=codec.as_bytes(signature, "signature", length=limits.SIGNATURE_BYTES),
        )


@dataclass(frozen=True, slots=True)
class ReleaseInfo:
    """What a release is of: the HPKE `info`, so that a wrap opens for exactly this and nothing else (ledger.md 4)."""

    genesis: bytes
    suite: int
    custodian: bytes
    """Organisation key of the releaser."""
    pseudonym: bytes
    category: str
    epoch: int
    record: bytes
    version: int
    permit: bytes
    reader_key_digest: bytes
    """Tagged digest of the reader's HPKE public key."""

    def to_value(self) -> list[Any]:
        """Return the codec value."""
        return [
            self.genesis, self.suite, self.custodian, self.pseudonym, self.category, self.epoch, self.record, self.version,
            self.permit, self.reader_key_digest,
        ]  # fmt: skip

    def encode(self) -> bytes:
        """Return the bytes that HPKE binds."""
        return codec.encode(["medchain/release", *self.to_value()])

    @classmethod
    def from_value(cls, value: Any) -> ReleaseInfo:
        """Read a codec value. Raises Malformed."""
        values = codec.as_fields(value, 10, "release info")
        return cls(
            genesis=_digest(values[0], "genesis"),
            suite=codec.as_uint(values[1], "suite", 255),
            custodian=codec.as_bytes(values[2], "custodian", length=limits.KEY_BYTES),
            pseudonym=_digest(values[3], "pseudonym"),
            category=codec.as_text(values[4], "category", limits.NAME_BYTES_MAX),
            epoch=codec.as_uint(values[5], "epoch", 2**32),
            record=_digest(values[6], "record"),
            version=_version(values[7]),
            permit=_digest(values[8], "permit"),
            reader_key_digest=_digest(values[9], "reader key digest"),
        )


def reader_key_digest(opening_public: bytes) -> bytes:
    """Return the digest by which a release names the reader's HPKE key."""
    return tagged_digest("medchain/reader-key", opening_public)


@dataclass(frozen=True, slots=True)
class Release:
    """A fresh permit key sealed to the reader, and the data key of the permitted version under it; signed by the releaser."""

    info: ReleaseInfo
    sealed_permit_key: bytes
    wrapped_data_key: bytes
    """RFC 3394 wrap under the permit key, 40 bytes."""
    signature: bytes = _SIGNATURE_MISSING

    def signed_bytes(self, network: Domain) -> bytes:
        """Return what the releaser signs: info, enc and ciphertext."""
        content = codec.encode([self.info.to_value(), self.sealed_permit_key, self.wrapped_data_key])
        return network.signed_bytes(domain.RELEASE, content)

    def signed(self, network: Domain, key: SigningKey) -> Release:
        """Return the release with the releaser's signature."""
        return replace(self, signature=key.sign(self.signed_bytes(network)))

    def check(self, network: Domain) -> None:
        """Raise Malformed unless the releaser named in `info` signed exactly this, in this network."""
        if self.info.genesis != network.genesis:
            raise Malformed("the release is of another network")
        if not is_signature_valid(self.info.custodian, self.signed_bytes(network), self.signature):
            raise Malformed("the release is not signed by the custodian it names")

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode([self.info.to_value(), self.sealed_permit_key, self.wrapped_data_key, self.signature])

    @classmethod
    def decode(cls, data: bytes) -> Release:
        """Read canonical bytes; the signature is not checked. Raises Malformed."""
        info, sealed, wrapped, signature = codec.as_fields(codec.decode(data, bytes_max=REQUEST_BYTES_MAX, depth_max=3), 4, "release")
        return cls(
            info=ReleaseInfo.from_value(info),
            sealed_permit_key=codec.as_bytes(sealed, "sealed permit key", maximum=SEALED_KEY_BYTES_MAX),
            wrapped_data_key=codec.as_bytes(wrapped, "wrapped data key", length=40),
            signature=codec.as_bytes(signature, "signature", length=limits.SIGNATURE_BYTES),
        )


def put_info(network: Domain, record: bytes, version: int, root: bytes, author: bytes) -> bytes:
    """Return the HPKE `info` of a data key on its way to the custodian."""
    return codec.encode(["medchain/put", network.genesis, network.recovery, record, version, root, author])
