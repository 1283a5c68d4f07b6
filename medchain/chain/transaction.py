"""Transactions: a body of operations and the authentication of its sender.

A transaction is the pair [body bytes, authentication]. Its id is a digest of the *received* body bytes, so nothing re-encodes. The same
body under another authentication has the same id and another authentication digest; blocks and caches name both (protocol.md, "Nouns").
One signature may stand under many transactions of one sender: it signs the root over their ids, and each carries its path to that root.
Knows nothing about what operations mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from medchain import codec
from medchain.chain import domain, limits
from medchain.chain.domain import Domain
from medchain.crypto.hashing import tagged_digest
from medchain.crypto.merkle import MerkleTree, merkle_root, root_above
from medchain.crypto.signing import SigningKey
from medchain.errors import Malformed

SINGLE_SIGNATURE: Final = 1
"""Authentication [1, signature]: the sender's signature of the id."""
BATCH_SIGNATURE: Final = 2
"""Authentication [2, signature, count, index, [path]]: the sender's signature of the Merkle root over 2 to 64 ids, and this id's place
and path under it, lowest sibling first. Each transaction stands for itself: whoever holds one needs none of the others."""
BATCH_IDS_MIN: Final = 2
"""One alone is signed as one: there is one way to say it."""

REMEMBERED_MAX: Final = 4_096
REMEMBERED_BYTES_MAX: Final = 1_024
"""What takes some 5 KiB once it is read; so 20 MiB at most are remembered."""

TRANSACTIONS_TAG: Final = "medchain/transactions"
BATCH_TAG: Final = "medchain/batch"
BATCH_PATH_MAX: Final = (limits.BATCH_SIGNATURE_IDS_MAX - 1).bit_length()


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
    entry: tuple[bytes, bytes]
    """What proposals list: (id, authentication digest)."""
    batch_root: bytes | None = None
    """What is signed in the id's place: the root over a batch of ids that this one is under."""
    work: Any = field(default=None, init=False, repr=False, compare=False)
    """What the rule book read out of the operations when it first looked (ledger/kinds.py): they are looked at three times. No part of what
    a transaction is; only `keep_work` writes it."""

    def keep_work(self, work: Any) -> None:
        """Remember what the operations were read as; the same operations are always read alike."""
        object.__setattr__(self, "work", work)

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
            batch_root = _read_batch_root(authentication, transaction_id(body_bytes))
        elif authentication[0] == SINGLE_SIGNATURE:
            codec.as_fields(authentication, 2, "authentication")
            batch_root = None
        else:
            raise Malformed("unknown kind of authentication")
        codec.as_bytes(authentication[1], "signature", length=limits.SIGNATURE_BYTES)
        return cls._assemble(raw, body_bytes, TransactionBody.decode(body_bytes), authentication, batch_root)

    @classmethod
    def sign(cls, body: TransactionBody, key: SigningKey, network: Domain) -> Transaction:
        """Sign a body with its sender's key. Raises Malformed when the body breaks a limit or names another sender."""
        body_bytes = _encode_own(body, key)
        signature = key.sign(network.signed_bytes(domain.TRANSACTION, transaction_id(body_bytes)))
        return cls._signed(body_bytes, [SINGLE_SIGNATURE, signature], None)

    @classmethod
    def sign_batch(cls, bodies: Sequence[TransactionBody], key: SigningKey, network: Domain) -> tuple[Transaction, ...]:
        """Sign 2 to 64 bodies with one signature; in the order given. Raises Malformed as `sign` does, and for another number."""
        if not BATCH_IDS_MIN <= len(bodies) <= limits.BATCH_SIGNATURE_IDS_MAX:
            raise Malformed(f"a batch signature covers {BATCH_IDS_MIN} to {limits.BATCH_SIGNATURE_IDS_MAX} transactions")
        encoded = [_encode_own(body, key) for body in bodies]
        tree = MerkleTree.over(BATCH_TAG, [transaction_id(body_bytes) for body_bytes in encoded])
        signature = key.sign(network.signed_bytes(domain.TRANSACTION_BATCH, tree.root))
        return tuple(
            cls._signed(body_bytes, [BATCH_SIGNATURE, signature, tree.count, index, list(tree.inclusion_path(index))], tree.root)
            for index, body_bytes in enumerate(encoded)
        )

    @classmethod
    def _signed(cls, body_bytes: bytes, authentication: list[Any], batch_root: bytes | None) -> Transaction:
        raw = codec.encode([body_bytes, authentication])
        if len(raw) > limits.TRANSACTION_BYTES_MAX:
            raise Malformed(f"a transaction may have at most {limits.TRANSACTION_BYTES_MAX} bytes")
        body = TransactionBody.decode(body_bytes)  # what every other node will read: lists where the caller had tuples
        return cls._assemble(raw, body_bytes, body, authentication, batch_root)

    @classmethod
    def _assemble(
        cls, raw: bytes, body_bytes: bytes, body: TransactionBody, authentication: list[Any], batch_root: bytes | None
    ) -> Transaction:
        entry = identity, authentication_digest = _entry_of(body_bytes, authentication)
        return cls(
            raw=raw,
            body_bytes=body_bytes,
            body=body,
            signature=authentication[1],
            id=identity,
            authentication_digest=authentication_digest,
            entry=entry,
            batch_root=batch_root,
        )

    def verification(self, network: Domain) -> tuple[bytes, bytes, bytes]:
        """Return (public key, message, signature) for `verify_many`: the same for all transactions of a batch, so one check serves all."""
        if self.batch_root is not None:
            return (self.body.sender, network.signed_bytes(domain.TRANSACTION_BATCH, self.batch_root), self.signature)
        return (self.body.sender, network.signed_bytes(domain.TRANSACTION, self.id), self.signature)


def _encode_own(body: TransactionBody, key: SigningKey) -> bytes:
    if key.public != body.sender:
        raise Malformed("the signing key is not the sender's")
    return body.encode()


def _read_batch_root(authentication: list[Any], identity: bytes) -> bytes:
    """Return the root that a batch signature must be of, given the id it is to cover. Raises Malformed."""
    _, _, count, index, path = codec.as_fields(authentication, 5, "authentication")
    codec.as_uint(count, "number of transactions in a batch", limits.BATCH_SIGNATURE_IDS_MAX)
    codec.as_uint(index, "index in a batch", limits.BATCH_SIGNATURE_IDS_MAX)
    siblings = codec.as_items(path, BATCH_PATH_MAX, "path in a batch", _read_digest)
    root = root_above(BATCH_TAG, identity, index, count, siblings) if count >= BATCH_IDS_MIN else None
    if root is None:
        raise Malformed("the place of a transaction in its batch and the path to the root do not fit")
    return root


def _read_digest(value: Any) -> bytes:
    return codec.as_bytes(value, "digest", length=limits.DIGEST_BYTES)


@lru_cache(maxsize=REMEMBERED_MAX)
def _read_small(raw: bytes) -> Transaction:
    return Transaction._read(raw)


def entry_of(raw: bytes) -> tuple[bytes, bytes]:
    """Return (id, authentication digest) of a transaction that was decided: its form is not looked at again. Raises Malformed."""
    body_bytes, authentication = codec.as_fields(codec.decode_own(codec.as_bytes(raw, "transaction")), 2, "transaction")
    return _entry_of(codec.as_bytes(body_bytes, "transaction body"), authentication)


def _entry_of(body_bytes: bytes, authentication: list[Any]) -> tuple[bytes, bytes]:
    return transaction_id(body_bytes), tagged_digest("medchain/authentication", codec.encode(authentication))


def transaction_id(body_bytes: bytes) -> bytes:
    """Return the id of received body bytes (32 bytes)."""
    return tagged_digest("medchain/transaction", body_bytes)


def transactions_root(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the root over (id, authentication digest) pairs in block order."""
    return merkle_root(TRANSACTIONS_TAG, [identity + authentication for identity, authentication in entries])
