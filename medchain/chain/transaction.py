"""Transactions: a body of operations and the authentication of its sender.

A transaction is the pair [body bytes, authentication]. Its id is a digest of the *received* body bytes, so nothing re-encodes. The same
body under another authentication has the same id and another authentication digest; blocks and caches name both (protocol.md, "Nouns").
Knows nothing about what operations mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from medchain import codec
from medchain.chain import domain, limits
from medchain.chain.domain import Domain
from medchain.crypto.hashing import tagged_digest
from medchain.crypto.merkle import merkle_root
from medchain.crypto.signing import SigningKey
from medchain.errors import Malformed

SINGLE_SIGNATURE: Final = 1
"""Authentication [1, signature]: the sender's signature of the id."""
BATCH_SIGNATURE: Final = 2
"""Authentication [2, signature, count, index, [path]]: reserved. One signature by the same sender over the Merkle root (tag
`medchain/batch`, at most 64 ids) and this id's path. Refused in protocol version 1."""

REMEMBERED_MAX: Final = 4_096
REMEMBERED_BYTES_MAX: Final = 1_024
"""What takes some 5 KiB once it is read; so 20 MiB at most are remembered."""

TRANSACTIONS_TAG: Final = "medchain/transactions"


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing a transaction does: a kind from the ledger's table and its positional payload (codec values)."""

    kind: str
    payload: list[Any]


@dataclass(frozen=True, slots=True)
class TransactionBody:
    """What the sender signs."""

    chain_id: str
    sender: bytes
    """Ed25519 public key: the only identity there is."""
    valid_until: int
    """Last height whose block may hold it."""
    operations: tuple[Operation, ...]
    """All or nothing, at least one."""
    nonce: bytes
    """Eight bytes that only make bodies differ."""
    version: int = limits.PROTOCOL_VERSION

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode(
            [
                self.version,
                self.chain_id,
                self.sender,
                self.valid_until,
                [[operation.kind, operation.payload] for operation in self.operations],
                self.nonce,
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> TransactionBody:
        """Read canonical bytes. Raises Malformed."""
        values = codec.as_fields(codec.decode(data, bytes_max=limits.TRANSACTION_BYTES_MAX, depth_max=12), 6, "transaction body")
        if values[0] != limits.PROTOCOL_VERSION or type(values[0]) is not int:
            raise Malformed(f"transaction version must be {limits.PROTOCOL_VERSION}")
        operations = codec.as_items(values[4], limits.OPERATIONS_MAX, "operations", _read_operation)
        if not operations:
            raise Malformed("a transaction needs at least one operation")
        return cls(
            version=values[0],
            chain_id=codec.as_text(values[1], "chain id", limits.CHAIN_ID_BYTES_MAX),
            sender=codec.as_bytes(values[2], "sender key", length=limits.KEY_BYTES),
            valid_until=codec.as_uint(values[3], "valid-until height", limits.HEIGHT_MAX),
            operations=operations,
            nonce=codec.as_bytes(values[5], "nonce", length=limits.NONCE_BYTES),
        )


def _read_operation(value: Any) -> Operation:
    kind, payload = codec.as_fields(value, 2, "operation")
    return Operation(
        kind=codec.as_text(kind, "operation kind", limits.OPERATION_KIND_BYTES_MAX),
        payload=codec.as_list(payload, 64, "operation payload"),
    )


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction as it travels. Made by `decode` or `sign` only, which fill the derived fields."""

    raw: bytes
    """The whole transaction, forwarded and stored unchanged."""
    body_bytes: bytes
    body: TransactionBody
    signature: bytes
    id: bytes
    """Tagged digest of the body bytes."""
    authentication_digest: bytes
    """Tagged digest of the encoded authentication."""

    @property
    def entry(self) -> tuple[bytes, bytes]:
        """What proposals list: (id, authentication digest)."""
        return (self.id, self.authentication_digest)

    @classmethod
    def decode(cls, raw: bytes) -> Transaction:
        """Read the bytes of a transaction; its signature is *not* checked. Raises Malformed.

        Small ones are remembered: the same bytes come from a client, from several peers and in blocks.
        """
        return _read_small(raw) if len(raw) <= REMEMBERED_BYTES_MAX else cls._read(raw)

    @classmethod
    def _read(cls, raw: bytes) -> Transaction:
        values = codec.as_fields(codec.decode(raw, bytes_max=limits.TRANSACTION_BYTES_MAX, depth_max=4), 2, "transaction")
        body_bytes = codec.as_bytes(values[0], "transaction body", maximum=limits.TRANSACTION_BYTES_MAX)
        authentication = codec.as_list(values[1], 8, "authentication")
        if not authentication or type(authentication[0]) is not int:
            raise Malformed("an authentication starts with its kind")
        if authentication[0] == BATCH_SIGNATURE:
            raise Malformed("batch signatures are reserved and not part of protocol version 1")
        if authentication[0] != SINGLE_SIGNATURE:
            raise Malformed("unknown kind of authentication")
        signature = codec.as_bytes(codec.as_fields(authentication, 2, "authentication")[1], "signature", length=limits.SIGNATURE_BYTES)
        return cls._assemble(raw, body_bytes, TransactionBody.decode(body_bytes), signature)

    @classmethod
    def sign(cls, body: TransactionBody, key: SigningKey, network: Domain) -> Transaction:
        """Sign a body with its sender's key. Raises Malformed when the body breaks a limit or names another sender."""
        if key.public != body.sender:
            raise Malformed("the signing key is not the sender's")
        body_bytes = body.encode()
        body = TransactionBody.decode(body_bytes)  # what every other node will read: lists where the caller had tuples
        signature = key.sign(network.signed_bytes(domain.TRANSACTION, transaction_id(body_bytes)))
        raw = codec.encode([body_bytes, [SINGLE_SIGNATURE, signature]])
        if len(raw) > limits.TRANSACTION_BYTES_MAX:
            raise Malformed(f"a transaction may have at most {limits.TRANSACTION_BYTES_MAX} bytes")
        return cls._assemble(raw, body_bytes, body, signature)

    @classmethod
    def _assemble(cls, raw: bytes, body_bytes: bytes, body: TransactionBody, signature: bytes) -> Transaction:
        return cls(
            raw=raw,
            body_bytes=body_bytes,
            body=body,
            signature=signature,
            id=transaction_id(body_bytes),
            authentication_digest=tagged_digest("medchain/authentication", codec.encode([SINGLE_SIGNATURE, signature])),
        )

    def verification(self, network: Domain) -> tuple[bytes, bytes, bytes]:
        """Return (public key, message, signature) for `verify_many`."""
        return (self.body.sender, network.signed_bytes(domain.TRANSACTION, self.id), self.signature)


@lru_cache(maxsize=REMEMBERED_MAX)
def _read_small(raw: bytes) -> Transaction:
    return Transaction._read(raw)


def transaction_id(body_bytes: bytes) -> bytes:
    """Return the id of received body bytes (32 bytes)."""
    return tagged_digest("medchain/transaction", body_bytes)


def transactions_root(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the root over (id, authentication digest) pairs in block order."""
    return merkle_root(TRANSACTIONS_TAG, [identity + authentication for identity, authentication in entries])
