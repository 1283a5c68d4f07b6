"""Proof files: that a transaction was decided and what became of it, or what the state says about a key; checked with genesis alone.

A proof is canonical msgpack: [format, kind, header, certificate, content]. Whoever holds the genesis document verifies it without a node:
path → root → header → certificate → founding validators (protocol.md, "State and proofs"). Every byte is under a digest or a signature,
or has one possible value, so changing any byte makes it fail. A proof says how things stood at its header's time; how old that may be is
the reader's decision. This module knows no store and asks nobody.

Misuse: a genesis document from the same stranger as the proof proves nothing; pin its digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from medchain import codec
from medchain.chain import limits
from medchain.chain.block import Header
from medchain.chain.certificate import Certificate
from medchain.chain.genesis import Genesis
from medchain.chain.receipt import RECEIPTS_TAG, Receipt
from medchain.chain.transaction import TRANSACTIONS_TAG, Transaction
from medchain.crypto.merkle import verify_inclusion
from medchain.crypto.signing import is_signature_valid
from medchain.errors import Malformed, Rejected
from medchain.store.proof import PROOF_BYTES_MAX, StateProof, verify_state

REFUSALS: Final[dict[str, str]] = {
    "proof.other-network": "The proof is of another network than the genesis document.",
    "proof.validators": "The proof's validators are not those of the genesis document; it needs their history.",
    "proof.certificate": "The proof's certificate does not make its block final.",
    "proof.transaction": "The transaction is not the one at this place of the block, or its signature is forged.",
    "proof.receipt": "The receipt is not the transaction's in this block.",
    "proof.state": "The state of the block says something else about this key.",
}

FORMAT: Final = 1
TRANSACTION_KIND: Final = 1
STATE_KIND: Final = 2
PROOF_FILE_BYTES_MAX: Final = 2 * 1024 * 1024
"""A transaction (64 KiB), its receipt (256 events of 4 KiB), paths, header and a certificate of 128 validators."""
PATH_MAX: Final = 64
"""Siblings of a path: no tree has 2**64 leaves."""
VALUE_BYTES_MAX: Final = 64 * 1024
KEY_BYTES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a leaf stands among the leaves of a tree, and the path that shows it."""

    index: int
    count: int
    path: tuple[bytes, ...]

    def to_value(self) -> list[Any]:
        """Return the codec value."""
        return [self.index, self.count, b"".join(self.path)]

    @classmethod
    def from_value(cls, value: Any) -> Place:
        """Read a codec value. Raises Malformed."""
        index, count, packed = codec.as_fields(value, 3, "place")
        joined = codec.as_bytes(packed, "path", maximum=PATH_MAX * limits.DIGEST_BYTES)
        if len(joined) % limits.DIGEST_BYTES:
            raise Malformed("a path must be digests of 32 bytes")
        steps = range(0, len(joined), limits.DIGEST_BYTES)
        path = tuple(joined[offset : offset + limits.DIGEST_BYTES] for offset in steps)
        return cls(codec.as_uint(index, "index"), codec.as_uint(count, "count"), path)


@dataclass(frozen=True, slots=True)
class TransactionProof:
    """That a transaction stands in a decided block, and its receipt."""

    header: Header
    certificate: Certificate
    transaction: Transaction
    place: Place
    """Under the transactions root."""
    receipt: Receipt
    receipt_place: Place
    """Under the receipts root."""

    def encode(self) -> bytes:
        """Return the bytes of the proof file."""
        content = [self.transaction.raw, self.place.to_value(), self.receipt.encode(), self.receipt_place.to_value()]
        return _encode(TRANSACTION_KIND, self.header, self.certificate, content)

    @classmethod
    def decode(cls, data: bytes) -> TransactionProof:
        """Read the bytes of a proof file. Raises Malformed."""
        header, certificate, content = _decode(data, TRANSACTION_KIND)
        raw, place, receipt, receipt_place = codec.as_fields(content, 4, "proof of a transaction")
        return cls(
            header=header,
            certificate=certificate,
            transaction=Transaction.decode(codec.as_bytes(raw, "transaction", maximum=limits.TRANSACTION_BYTES_MAX)),
            place=Place.from_value(place),
            receipt=Receipt.decode(codec.as_bytes(receipt, "receipt", maximum=PROOF_FILE_BYTES_MAX)),
            receipt_place=Place.from_value(receipt_place),
        )


@dataclass(frozen=True, slots=True)
class StateFileProof:
    """What the state after a decided block says about a key: a value, or that there is none."""

    header: Header
    certificate: Certificate
    key: bytes
    value: bytes | None
    proof: StateProof

    def encode(self) -> bytes:
        """Return the bytes of the proof file."""
        return _encode(STATE_KIND, self.header, self.certificate, [self.key, self.value, self.proof.encode()])

    @classmethod
    def decode(cls, data: bytes) -> StateFileProof:
        """Read the bytes of a proof file. Raises Malformed."""
        header, certificate, content = _decode(data, STATE_KIND)
        key, value, proof = codec.as_fields(content, 3, "proof of state")
        return cls(
            header=header,
            certificate=certificate,
            key=codec.as_bytes(key, "state key", maximum=KEY_BYTES_MAX),
            value=codec.as_optional(value, lambda item: codec.as_bytes(item, "state value", maximum=VALUE_BYTES_MAX)),
            proof=StateProof.decode(codec.as_bytes(proof, "state proof", maximum=PROOF_BYTES_MAX)),
        )


@dataclass(frozen=True, slots=True)
class ProofFacts:
    """What a verified proof of a transaction proves."""

    chain_id: str
    genesis: bytes
    """Digest of the genesis document it was verified with."""
    height: int
    block: bytes
    """Digest of the block."""
    time_ms: int
    """The block's time: how old the newest certificate in the proof is."""
    signers: tuple[bytes, ...]
    """Consensus keys of the validators whose commits make it final."""
    transaction: Transaction
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class StateFacts:
    """What a verified proof of state proves."""

    chain_id: str
    genesis: bytes
    height: int
    block: bytes
    time_ms: int
    signers: tuple[bytes, ...]
    key: bytes
    value: bytes | None
    """None: the state has no such key."""


def verify_transaction_proof(data: bytes, genesis: Genesis) -> ProofFacts:
    """Return what the proof file `data` proves in the network of `genesis`.

    Raises Malformed when the bytes are no proof of a transaction, Rejected (`proof.*`) when it does not hold.
    """
    proof = TransactionProof.decode(data)
    header, transaction, receipt = proof.header, proof.transaction, proof.receipt
    signers = _check_final(header, proof.certificate, genesis)
    leaf = transaction.id + transaction.authentication_digest
    place = proof.place
    if not verify_inclusion(TRANSACTIONS_TAG, header.transactions_root, leaf, place.index, place.count, place.path):
        raise Rejected("proof.transaction", "the transaction is not the one that was decided")
    if not is_signature_valid(*transaction.verification(genesis.domain())):
        raise Rejected("proof.transaction", "the transaction's signature is not its sender's")
    place = proof.receipt_place
    if receipt.transaction_id != transaction.id or not verify_inclusion(
        RECEIPTS_TAG, header.receipts_root, receipt.encode(), place.index, place.count, place.path
    ):
        raise Rejected("proof.receipt", "the receipt is not the one that was agreed on for this transaction")
    return ProofFacts(genesis.chain_id, genesis.digest(), header.height, header.digest(), header.time_ms, signers, transaction, receipt)


def verify_state_proof(data: bytes, genesis: Genesis) -> StateFacts:
    """Return what the proof file `data` proves about the state in the network of `genesis`.

    Raises Malformed when the bytes are no proof of state, Rejected (`proof.*`) when it does not hold.
    """
    proof = StateFileProof.decode(data)
    header = proof.header
    signers = _check_final(header, proof.certificate, genesis)
    if not verify_state(header.state_root, genesis.parameters.state_buckets, proof.key, proof.value, proof.proof):
        raise Rejected("proof.state", "the state of this block says something else about the key")
    return StateFacts(genesis.chain_id, genesis.digest(), header.height, header.digest(), header.time_ms, signers, proof.key, proof.value)


def kind_of(data: bytes) -> int:
    """Return which kind of proof the bytes claim to be: TRANSACTION_KIND or STATE_KIND. Raises Malformed."""
    return _outline(data)[0]


def _encode(kind: int, header: Header, certificate: Certificate, content: list[Any]) -> bytes:
    return codec.encode([FORMAT, kind, header.encode(), certificate.encode(), content])


def _outline(data: bytes) -> tuple[int, list[Any]]:
    values = codec.as_fields(codec.decode(data, bytes_max=PROOF_FILE_BYTES_MAX, depth_max=6), 5, "proof file")
    if type(values[0]) is not int or values[0] != FORMAT:
        raise Malformed(f"proof files have format {FORMAT}")
    if type(values[1]) is not int or values[1] not in (TRANSACTION_KIND, STATE_KIND):
        raise Malformed("unknown kind of proof")
    return values[1], values


def _decode(data: bytes, kind: int) -> tuple[Header, Certificate, Any]:
    found, values = _outline(data)
    if found != kind:
        raise Malformed("the proof file is of another kind")
    header = Header.decode(codec.as_bytes(values[2], "header", maximum=1024))
    certificate = Certificate.decode(codec.as_bytes(values[3], "certificate", maximum=64 * 1024))
    return header, certificate, values[4]


def _check_final(header: Header, certificate: Certificate, genesis: Genesis) -> tuple[bytes, ...]:
    """Return the signers whose commits make the header's block final. Raises Rejected unless they are a quorum of the network."""
    if header.chain_id != genesis.chain_id:
        raise Rejected("proof.other-network", "the proof is of another network: check which genesis document belongs to it")
    validators = genesis.validators()
    if header.validators_digest != validators.digest():
        raise Rejected("proof.validators", "the block was decided by other validators than the founding ones")
    if (certificate.height, certificate.digest) != (header.height, header.digest()):
        raise Rejected("proof.certificate", "the certificate is of another block")
    try:
        certificate.check(genesis.domain(), validators)
    except Malformed as error:
        raise Rejected("proof.certificate", f"the certificate does not hold: {error.message}") from None
    return tuple(validators.validators[index].consensus_key for index, _ in certificate.commits)
