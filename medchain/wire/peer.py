"""Messages between hospitals: one closed union, one encoding, bounded.

A frame is canonical msgpack [version, kind, fields]. Whatever bytes a peer sends, `decode_message` returns a message or raises
Malformed. Knows no connection; lanes say which messages overtake which (consensus, then gossip, then queries; protocol.md, "Gossip").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from medchain import codec
from medchain.chain import limits
from medchain.chain.block import Block
from medchain.chain.certificate import Certificate
from medchain.chain.evidence import Contradiction
from medchain.chain.transaction import Transaction
from medchain.chain.vote import ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.errors import InvariantBroken, Malformed

WIRE_VERSION: Final = 1
FRAME_BYTES_MAX: Final = 10 * 1024 * 1024
"""A whole block of the hard limit with its certificate, and a margin."""
GOSSIP_TRANSACTIONS_MAX: Final = 256
"""Coalescing bound of protocol.md."""
IDS_MAX: Final = 10_000
RANGE_BLOCKS_MAX: Final = 64
RANGE_BYTES_MAX: Final = 8 * 1024 * 1024
PAST_VOTES_MAX: Final = 4 * 1024

CONSENSUS_LANE: Final = 0
GOSSIP_LANE: Final = 1
QUERY_LANE: Final = 2

Entry = tuple[bytes, bytes]
"""(transaction id, authentication digest)."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """Sent on connecting, after each decision (coalesced) and every second: where the sender stands."""

    height: int
    """Highest decided height."""
    digest: bytes


@dataclass(frozen=True, slots=True)
class TransactionsOffered:
    """Transactions, bytes unchanged: gossip, handing over, or an answer to TransactionsWanted."""

    transactions: tuple[Transaction, ...]


@dataclass(frozen=True, slots=True)
class PoolListed:
    """Ids of pool entries older than a second: pools converge."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class TransactionsWanted:
    """Please send these transactions, with exactly these authentications."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class BlockWanted:
    """Please send the (perhaps undecided, pinned) block with this digest."""

    height: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class BlockSent:
    """A pinned block, answer to BlockWanted; nothing says that it is decided."""

    block: Block


@dataclass(frozen=True, slots=True)
class ProposalWanted:
    """Please send the pre-prepare accepted in this view: votes for it are here, it is not. The answer is the PrePrepare itself."""

    height: int
    view: int


@dataclass(frozen=True, slots=True)
class RangeWanted:
    """Please send decided blocks from `first` on, at most `count`."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class RangeSent:
    """Decided blocks with certificates, heights ascending without gaps; also the answer to any message of a height decided here."""

    blocks: tuple[tuple[Block, Certificate], ...]


@dataclass(frozen=True, slots=True)
class PastVotesWanted:
    """Amnesia check: after a start, which votes signed by the asker do you hold (protocol.md, "Amnesia")?"""

    challenge: bytes
    """32 bytes that tie the answer to this start."""


@dataclass(frozen=True, slots=True)
class PastVotesSent:
    """Answer: the answerer's highest certified height with certificate and the asker's votes above it that it holds."""

    challenge: bytes
    height: int
    certificate: Certificate | None
    """None only at height 0."""
    votes: tuple[Vote, ...]
    view_changes: tuple[ViewChange, ...]


@dataclass(frozen=True, slots=True)
class EvidenceSent:
    """Contradictions that no block carries yet: each is passed on once, and handed to a primary that proposes without them."""

    contradictions: tuple[Contradiction, ...]
    """At most EVIDENCE_MAX, as many as a block may carry."""


ConsensusMessage = PrePrepare | Vote | ViewChange
PeerMessage = (
    ConsensusMessage
    | PeerStatus
    | TransactionsOffered
    | PoolListed
    | TransactionsWanted
    | BlockWanted
    | BlockSent
    | ProposalWanted
    | RangeWanted
    | RangeSent
    | PastVotesWanted
    | PastVotesSent
    | EvidenceSent
)


def _entries_value(entries: tuple[Entry, ...]) -> list[Any]:
    return [list(entry) for entry in entries]


def _fields_of(message: PeerMessage) -> tuple[int, list[Any]]:
    """Return (kind, fields) of a message."""
    match message:
        case PrePrepare():
            return 1, message.to_value()
        case Vote():
            return 2, message.to_value()
        case ViewChange():
            return 3, message.to_value()
        case PeerStatus():
            return 4, [message.height, message.digest]
        case TransactionsOffered():
            return 5, [[transaction.raw for transaction in message.transactions]]
        case PoolListed():
            return 6, [_entries_value(message.entries)]
        case TransactionsWanted():
            return 7, [_entries_value(message.entries)]
        case BlockWanted():
            return 8, [message.height, message.digest]
        case BlockSent():
            return 9, [message.block.encode()]
        case RangeWanted():
            return 10, [message.first, message.count]
        case RangeSent():
            return 11, [[[block.encode(), certificate.encode()] for block, certificate in message.blocks]]
        case PastVotesWanted():
            return 12, [message.challenge]
        case PastVotesSent():
            certificate = None if message.certificate is None else message.certificate.to_value()
            votes = [vote.to_value() for vote in message.votes]
            return 13, [message.challenge, message.height, certificate, votes, [c.to_value() for c in message.view_changes]]
        case EvidenceSent():
            return 14, [[contradiction.encode() for contradiction in message.contradictions]]
        case ProposalWanted():
            return 15, [message.height, message.view]
    raise InvariantBroken(f"{type(message).__name__} is no peer message")


def encode_message(message: PeerMessage) -> bytes:
    """Return the bytes of a frame."""
    kind, fields = _fields_of(message)
    return codec.encode([WIRE_VERSION, kind, fields])


def lane_of(message: PeerMessage) -> int:
    """Return the lane a message travels in."""
    match message:
        case PrePrepare() | Vote() | ViewChange() | BlockWanted() | BlockSent():
            return CONSENSUS_LANE
        case TransactionsWanted() | ProposalWanted() | PastVotesWanted() | PastVotesSent():
            return CONSENSUS_LANE
        case TransactionsOffered() | PoolListed() | PeerStatus() | EvidenceSent():
            return GOSSIP_LANE
        case _:
            return QUERY_LANE


def decode_message(data: bytes) -> PeerMessage:
    """Read the bytes of a frame. Raises Malformed for anything that is not exactly one message."""
    version, kind, fields = codec.as_fields(codec.decode(data, bytes_max=FRAME_BYTES_MAX), 3, "peer message")
    if type(version) is not int or version != WIRE_VERSION:
        raise Malformed(f"peer messages have version {WIRE_VERSION}")
    reader = _READERS.get(kind) if type(kind) is int else None
    if reader is None:
        raise Malformed("unknown kind of peer message")
    return reader(fields)


def _digest(value: Any, what: str = "digest") -> bytes:
    return codec.as_bytes(value, what, length=limits.DIGEST_BYTES)


def _height(value: Any) -> int:
    return codec.as_uint(value, "height", limits.HEIGHT_MAX)


def _entries(fields: Any) -> tuple[Entry, ...]:
    (rows,) = codec.as_fields(fields, 1, "ids")
    return codec.as_items(rows, IDS_MAX, "ids", _entry)


def _entry(value: Any) -> Entry:
    identity, authentication = codec.as_fields(value, 2, "entry")
    return (_digest(identity), _digest(authentication))


def _read_transaction(value: Any) -> Transaction:
    return Transaction.decode(codec.as_bytes(value, "transaction", maximum=limits.TRANSACTION_BYTES_MAX))


def _read_status(fields: Any) -> PeerStatus:
    height, digest = codec.as_fields(fields, 2, "status")
    return PeerStatus(_height(height), _digest(digest))


def _read_offered(fields: Any) -> TransactionsOffered:
    (rows,) = codec.as_fields(fields, 1, "transactions")
    return TransactionsOffered(codec.as_items(rows, limits.BLOCK_TRANSACTIONS_HARD_MAX, "transactions", _read_transaction))


def _read_block(value: Any) -> Block:
    return Block.decode(codec.as_bytes(value, "block", maximum=FRAME_BYTES_MAX))


def _read_block_wanted(fields: Any) -> BlockWanted:
    height, digest = codec.as_fields(fields, 2, "block request")
    return BlockWanted(_height(height), _digest(digest))


def _read_block_sent(fields: Any) -> BlockSent:
    (block,) = codec.as_fields(fields, 1, "block answer")
    return BlockSent(_read_block(block))


def _read_proposal_wanted(fields: Any) -> ProposalWanted:
    height, view = codec.as_fields(fields, 2, "proposal request")
    return ProposalWanted(_height(height), codec.as_uint(view, "view", limits.VIEW_MAX))


def _read_range_wanted(fields: Any) -> RangeWanted:
    first, count = codec.as_fields(fields, 2, "range request")
    return RangeWanted(_height(first), codec.as_uint(count, "count", RANGE_BLOCKS_MAX))


def _read_certified(value: Any) -> tuple[Block, Certificate]:
    block_bytes, certificate_bytes = codec.as_fields(value, 2, "certified block")
    block = _read_block(block_bytes)
    certificate = Certificate.decode(codec.as_bytes(certificate_bytes, "certificate", maximum=64 * 1024))
    if certificate.height != block.header.height or certificate.digest != block.header.digest():
        raise Malformed("a certificate is of another block")
    return block, certificate


def _read_range_sent(fields: Any) -> RangeSent:
    (rows,) = codec.as_fields(fields, 1, "range answer")
    blocks = codec.as_items(rows, RANGE_BLOCKS_MAX, "blocks", _read_certified)
    if any(block.header.height != blocks[0][0].header.height + index for index, (block, _) in enumerate(blocks)):
        raise Malformed("the heights of a range must ascend without gaps")
    return RangeSent(blocks)


def _read_past_wanted(fields: Any) -> PastVotesWanted:
    (challenge,) = codec.as_fields(fields, 1, "past votes request")
    return PastVotesWanted(_digest(challenge, "challenge"))


def _read_past_sent(fields: Any) -> PastVotesSent:
    challenge, height, certificate, votes, changes = codec.as_fields(fields, 5, "past votes answer")
    return PastVotesSent(
        challenge=_digest(challenge, "challenge"),
        height=_height(height),
        certificate=codec.as_optional(certificate, Certificate.from_value),
        votes=codec.as_items(votes, PAST_VOTES_MAX, "votes", Vote.from_value),
        view_changes=codec.as_items(changes, PAST_VOTES_MAX, "view changes", ViewChange.from_value),
    )


def _read_evidence(fields: Any) -> EvidenceSent:
    (rows,) = codec.as_fields(fields, 1, "evidence")
    return EvidenceSent(codec.as_items(rows, limits.EVIDENCE_MAX, "evidence", _read_contradiction))


def _read_contradiction(value: Any) -> Contradiction:
    return Contradiction.decode(codec.as_bytes(value, "evidence", maximum=limits.EVIDENCE_BYTES_MAX))


_READERS: Final[dict[int, Callable[[Any], PeerMessage]]] = {
    1: PrePrepare.from_value,
    2: Vote.from_value,
    3: ViewChange.from_value,
    4: _read_status,
    5: _read_offered,
    6: lambda fields: PoolListed(_entries(fields)),
    7: lambda fields: TransactionsWanted(_entries(fields)),
    8: _read_block_wanted,
    9: _read_block_sent,
    10: _read_range_wanted,
    11: _read_range_sent,
    12: _read_past_wanted,
    13: _read_past_sent,
    14: _read_evidence,
    15: _read_proposal_wanted,
}
