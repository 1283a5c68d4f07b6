"""The one page of the one database: every key range, and the functions that build its keys.

Blocks, state, hard state, pool and indexes are ranges of one store, written in one batch, so there is no second store to disagree with
(protocol.md, "Amnesia"). A range is a letter and a slash; numbers are big-endian, so key order is number order. Values are bytes that
other rooms define, except where the table says so.

    range                                              value
    m/ name                                            meta: head (u64 height, block digest), recovery number, observer mark, versions
    b/ u64 height                                      digest of the decided block of that height
    k/ digest                                          block bytes, written once: pinned before Prepare or when the block is decided
    c/ u64 height                                      certificate
    r/ u64 height                                      receipts
    h/ digest                                          u64 height of the decided block with that digest
    t/ transaction id                                  u64 height, u32 index in the block
    s/ state key                                       state value (authenticated by tree.StateTree)
    v/ u64 height, kind, ...                           hard state of an undecided height: own votes, view changes, pins, prepared proofs
    p/ transaction id                                  accepted pool entry
    y/ n u8 level u64 index; y/ p                      history mountain range: nodes; count and peaks
    e/ u8 length, subject, u64 height, u32 index       event about the subject
    x/ name                                            release counts, emergency numbers
    d/ digest                                          evidence of misbehaviour

This module knows keys only: no store, no block, no rule.
"""

from __future__ import annotations

from typing import Final

from medchain.errors import InvariantBroken
from medchain.store.keyvalue import prefix_end

META: Final = b"m/"
BLOCK: Final = b"b/"
BODY: Final = b"k/"
CERTIFICATE: Final = b"c/"
RECEIPTS: Final = b"r/"
HEIGHT_BY_DIGEST: Final = b"h/"
TRANSACTION: Final = b"t/"
STATE: Final = b"s/"
HARD_STATE: Final = b"v/"
POOL: Final = b"p/"
HISTORY: Final = b"y/"
EVENT: Final = b"e/"
RELEASE: Final = b"x/"
EVIDENCE: Final = b"d/"

RANGES: Final = (
    META, BLOCK, BODY, CERTIFICATE, RECEIPTS, HEIGHT_BY_DIGEST, TRANSACTION, STATE, HARD_STATE, POOL, HISTORY, EVENT, RELEASE,
    EVIDENCE,
)  # fmt: skip
"""Every range; none is a prefix of another."""

SUBJECT_BYTES_MAX: Final = 255
"""Longest event subject: its length is one byte of the key, so that no subject's range begins with another subject."""

HEAD: Final = META + b"head"
"""Written with every decided block: u64 height and block digest of the newest decided one."""
RECOVERY: Final = META + b"recovery"
"""The recovery number this store lives under and what belongs to it."""
OBSERVER_MARK: Final = META + b"observer"
"""The amnesia check's durable mark: this node does not vote up to and including a height."""
HISTORY_PEAKS: Final = HISTORY + b"p"
"""Count and peaks of the history mountain range, history.History.encode()."""

PIN: Final = b"p"
"""Hard state kind: this digest of this height is pinned, its bytes are in the BODY range."""


def uint64(number: int) -> bytes:
    """Return a height or an index as 8 bytes, big-endian."""
    return number.to_bytes(8, "big")


def uint32(number: int) -> bytes:
    """Return an index within a block as 4 bytes, big-endian."""
    return number.to_bytes(4, "big")


def meta_key(name: str) -> bytes:
    """Return the key of a single value about the store or the node; `name` is a constant of the program."""
    return META + name.encode()


def block_key(height: int) -> bytes:
    """Return the key that holds the digest of the decided block of `height`."""
    return BLOCK + uint64(height)


def body_key(digest: bytes) -> bytes:
    """Return the key that holds the bytes of the block with this digest, decided or pinned."""
    return BODY + digest


def certificate_key(height: int) -> bytes:
    """Return the key of the certificate of `height`."""
    return CERTIFICATE + uint64(height)


def receipts_key(height: int) -> bytes:
    """Return the key of the receipts of `height`."""
    return RECEIPTS + uint64(height)


def height_key(digest: bytes) -> bytes:
    """Return the key that holds the height of the decided block with this digest."""
    return HEIGHT_BY_DIGEST + digest


def transaction_key(transaction_id: bytes) -> bytes:
    """Return the key that holds where a decided transaction is."""
    return TRANSACTION + transaction_id


def state_key(key: bytes) -> bytes:
    """Return the database key of a state key."""
    return STATE + key


def hard_state_key(height: int, kind: bytes, detail: bytes = b"") -> bytes:
    """Return the key of one piece of hard state; `kind` is one byte, `detail` (a view, a digest) tells pieces of one kind apart."""
    if len(kind) != 1:
        raise InvariantBroken("a kind of hard state is one byte")
    return HARD_STATE + uint64(height) + kind + detail


def hard_state_range(first_height: int, last_height: int) -> tuple[bytes, bytes]:
    """Return (start, stop) of all hard state from `first_height` to `last_height`, both included."""
    return HARD_STATE + uint64(first_height), prefix_end(HARD_STATE + uint64(last_height))


def pin_key(height: int, digest: bytes) -> bytes:
    """Return the key that marks the block with this digest as pinned for `height`; the value is empty."""
    return hard_state_key(height, PIN, digest)


def pool_key(transaction_id: bytes) -> bytes:
    """Return the key of an accepted pool entry."""
    return POOL + transaction_id


def history_node_key(level: int, index: int) -> bytes:
    """Return the key of the node over the 2**level headers that begin with header index * 2**level."""
    return HISTORY + b"n" + bytes((level,)) + uint64(index)


def event_key(subject: bytes, height: int, index: int) -> bytes:
    """Return the key of an event about `subject` (a pseudonym or record id of 1 to 255 bytes); `index` counts the events of the block."""
    return event_prefix(subject) + uint64(height) + uint32(index)


def event_prefix(subject: bytes) -> bytes:
    """Return the prefix of all events about `subject`; no other subject's events begin with it."""
    if not 1 <= len(subject) <= SUBJECT_BYTES_MAX:
        raise InvariantBroken(f"an event subject has 1 to {SUBJECT_BYTES_MAX} bytes, not {len(subject)}")
    return EVENT + bytes((len(subject),)) + subject


def release_key(name: bytes) -> bytes:
    """Return the key of a release count or an emergency number."""
    return RELEASE + name


def evidence_key(digest: bytes) -> bytes:
    """Return the key of one piece of evidence."""
    return EVIDENCE + digest
