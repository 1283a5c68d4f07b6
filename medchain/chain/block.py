"""Blocks: a header that commits to every byte, a proposal that lists ids, and the body with its transactions.

Bytes are fixed at the first proposal: a re-proposal in a later view repeats them, header view included (protocol.md, "Block"). Whether
the roots are right is found by executing; whether the block is final by its certificate. This module checks form and body digests only.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from medchain import codec
from medchain.chain import limits
from medchain.chain.certificate import Certificate
from medchain.chain.transaction import Transaction, transactions_root
from medchain.chain.vote import COMMIT, Vote
from medchain.crypto.hashing import tagged_digest
from medchain.errors import Malformed

ZERO_DIGEST: Final = bytes(limits.DIGEST_BYTES)


@dataclass(frozen=True, slots=True)
class Header:
    """What validators vote on: its digest is the block's."""

    version: int
    chain_id: str
    height: int
    view: int
    """View of the first proposal; a re-proposal keeps it."""
    time_ms: int
    """Wall-clock milliseconds by the proposer, greater than the parent's."""
    parent: bytes
    """Digest of the header one height below."""
    proposer: bytes
    """Consensus key of primary(height, view)."""
    transactions_root: bytes
    receipts_root: bytes
    state_root: bytes
    """After this block."""
    validators_digest: bytes
    next_validators_digest: bytes
    last_commit_digest: bytes
    """Over the parent's certificate and the late commits in the body."""
    history_root: bytes
    """Merkle mountain range over all earlier headers' digests."""
    evidence_digest: bytes
    _encoded: bytes | None = field(init=False, repr=False, compare=False, default=None)
    _digest: bytes | None = field(init=False, repr=False, compare=False, default=None)
    """Both computed when first asked for: votes, pins, results and archive all go by the digest."""

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        encoded = self._encoded
        if encoded is None:
            encoded = codec.encode([getattr(self, name) for name in _HEADER_FIELDS])
            object.__setattr__(self, "_encoded", encoded)
        return encoded

    def digest(self) -> bytes:
        """Return the block's digest (32 bytes)."""
        digest = self._digest
        if digest is None:
            digest = tagged_digest("medchain/block", self.encode())
            object.__setattr__(self, "_digest", digest)
        return digest

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Read canonical bytes. Raises Malformed."""
        values = codec.as_fields(codec.decode(data, bytes_max=1024, depth_max=1), len(_HEADER_FIELDS), "header")
        if type(values[0]) is not int or values[0] != limits.PROTOCOL_VERSION:
            raise Malformed(f"block version must be {limits.PROTOCOL_VERSION}")
        header = cls(
            version=values[0],
            chain_id=codec.as_text(values[1], "chain id", limits.CHAIN_ID_BYTES_MAX),
            height=codec.as_uint(values[2], "height", limits.HEIGHT_MAX),
            view=codec.as_uint(values[3], "view", limits.VIEW_MAX),
            time_ms=codec.as_uint(values[4], "time", limits.TIME_MS_MAX),
            **{name: codec.as_bytes(value, name, length=32) for name, value in zip(_HEADER_FIELDS[5:], values[5:], strict=True)},
        )
        object.__setattr__(header, "_encoded", data)
        return header


_HEADER_FIELDS: Final = tuple(entry.name for entry in fields(Header) if entry.init)


@dataclass(frozen=True, slots=True)
class LastCommit:
    """Who signed: the parent's certificate (None only in block 1, whose parent is genesis) and late commits of the last K heights."""

    certificate: Certificate | None
    late: tuple[Vote, ...] = ()
    _digest: bytes | None = field(init=False, repr=False, compare=False, default=None)

    def to_value(self) -> list[Any]:
        """Return the codec value."""
        return [None if self.certificate is None else self.certificate.to_value(), [vote.to_value() for vote in self.late]]

    @classmethod
    def from_value(cls, value: Any) -> LastCommit:
        """Read a codec value. Raises Malformed."""
        certificate, votes = codec.as_fields(value, 2, "last commit")
        late = codec.as_items(votes, limits.LATE_COMMITS_MAX, "late commits", Vote.from_value)
        if any(vote.kind != COMMIT for vote in late):
            raise Malformed("late commits must be commits")
        # The order by validator index, said without the set: within a height the index follows the keys.
        if any((left.height, left.signer) >= (right.height, right.signer) for left, right in itertools.pairwise(late)):
            raise Malformed("late commits must stand in ascending order of height and validator, each once")
        return cls(codec.as_optional(certificate, Certificate.from_value), late)

    def digest(self) -> bytes:
        """Return the digest that the header carries."""
        digest = self._digest
        if digest is None:
            digest = tagged_digest("medchain/last-commit", codec.encode(self.to_value()))
            object.__setattr__(self, "_digest", digest)
        return digest


Evidence = tuple[bytes, ...]
"""Encoded evidence items; their inside is read by the rules that judge them."""


def evidence_digest(evidence: Sequence[bytes]) -> bytes:
    """Return the digest that the header carries over the evidence in the body."""
    return tagged_digest("medchain/evidence", codec.encode(list(evidence)))


@dataclass(frozen=True, slots=True)
class Proposal:
    """A block by reference: all of it but the bytes of its transactions, which peers hold or fetch."""

    header: Header
    entries: tuple[tuple[bytes, bytes], ...]
    """(id, authentication digest) in block order."""
    last_commit: LastCommit
    evidence: Evidence = ()

    def to_value(self) -> list[Any]:
        """Return the codec value."""
        return [self.header.encode(), [list(entry) for entry in self.entries], self.last_commit.to_value(), list(self.evidence)]

    @classmethod
    def from_value(cls, value: Any) -> Proposal:
        """Read a codec value and check it against its header's digests. Raises Malformed."""
        header, entries, last_commit, evidence = codec.as_fields(value, 4, "proposal")
        proposal = cls(
            header=Header.decode(codec.as_bytes(header, "header", maximum=1024)),
            entries=codec.as_items(entries, limits.BLOCK_TRANSACTIONS_HARD_MAX, "entries", _read_entry),
            last_commit=LastCommit.from_value(last_commit),
            evidence=_read_evidence(evidence),
        )
        check_body(proposal.header, proposal.entries, proposal.last_commit, proposal.evidence)
        return proposal


@dataclass(frozen=True, slots=True)
class Block:
    """A whole block: header, transactions, last commit, evidence. Every byte is under a digest of the header."""

    header: Header
    transactions: tuple[Transaction, ...]
    last_commit: LastCommit
    evidence: Evidence = ()
    _encoded: bytes | None = field(init=False, repr=False, compare=False, default=None)
    """Made when first asked for: a block is measured, pinned, stored and sent as the same bytes."""

    @property
    def entries(self) -> tuple[tuple[bytes, bytes], ...]:
        """(id, authentication digest) in block order."""
        return tuple(transaction.entry for transaction in self.transactions)

    def proposal(self) -> Proposal:
        """Return the block by reference."""
        return Proposal(self.header, self.entries, self.last_commit, self.evidence)

    def encode(self) -> bytes:
        """Return the canonical bytes; transactions keep their received bytes."""
        encoded = self._encoded
        if encoded is None:
            encoded = codec.encode(
                [
                    self.header.encode(),
                    [transaction.raw for transaction in self.transactions],
                    self.last_commit.to_value(),
                    list(self.evidence),
                ]
            )
            object.__setattr__(self, "_encoded", encoded)
        return encoded

    @classmethod
    def decode(cls, data: bytes) -> Block:
        """Read canonical bytes; refuses any byte that no digest of the header covers. Raises Malformed."""
        values = codec.as_fields(codec.decode(data, bytes_max=limits.BLOCK_BYTES_HARD_MAX, depth_max=8), 4, "block")
        block = cls(
            header=Header.decode(codec.as_bytes(values[0], "header", maximum=1024)),
            transactions=codec.as_items(values[1], limits.BLOCK_TRANSACTIONS_HARD_MAX, "transactions", _read_transaction),
            last_commit=LastCommit.from_value(values[2]),
            evidence=_read_evidence(values[3]),
        )
        check_body(block.header, block.entries, block.last_commit, block.evidence)
        object.__setattr__(block, "_encoded", data)
        return block


def check_body(header: Header, entries: Sequence[tuple[bytes, bytes]], last_commit: LastCommit, evidence: Sequence[bytes]) -> None:
    """Raise Malformed unless the digests of a body are those of its header and no transaction stands twice."""
    if header.transactions_root != transactions_root(entries):
        raise Malformed("the transactions are not those of the header")
    if header.last_commit_digest != last_commit.digest():
        raise Malformed("the last commit is not that of the header")
    if header.evidence_digest != evidence_digest(evidence):
        raise Malformed("the evidence is not that of the header")
    if len({identity for identity, _ in entries}) != len(entries):
        raise Malformed("a block holds a transaction twice")


def _read_entry(value: Any) -> tuple[bytes, bytes]:
    identity, authentication = codec.as_fields(value, 2, "entry")
    return (
        codec.as_bytes(identity, "transaction id", length=limits.DIGEST_BYTES),
        codec.as_bytes(authentication, "authentication digest", length=limits.DIGEST_BYTES),
    )


def _read_transaction(value: Any) -> Transaction:
    return Transaction.decode(codec.as_bytes(value, "transaction", maximum=limits.TRANSACTION_BYTES_MAX))


def _read_evidence(value: Any) -> Evidence:
    return codec.as_items(
        value, limits.EVIDENCE_MAX, "evidence", lambda item: codec.as_bytes(item, "evidence", maximum=limits.EVIDENCE_BYTES_MAX)
    )
