"""Hard state on disk: what must never be forgotten while its height is undecided, as key-value pairs.

One key a record: own votes by kind and view, own view changes and pinned proposals by view, the highest prepared proof. A pinned block's
bytes are stored once, by the archive. This module keeps and returns; consensus decides what must be kept.
"""

from __future__ import annotations

from typing import Final

from medchain import codec
from medchain.chain.block import Block
from medchain.chain.vote import PreparedProof, ViewChange, Vote
from medchain.consensus.events import HardState, OwnPreparedProof, OwnViewChange, OwnVote, PinnedProposal
from medchain.errors import InvariantBroken, Malformed
from medchain.store import layout
from medchain.store.archive import BlockArchive
from medchain.store.keyvalue import prefix_end
from medchain.store.staged import Staged

_VOTE: Final = b"a"
_VIEW_CHANGE: Final = b"w"
_PIN_VIEW: Final = b"q"
_PROOF: Final = b"x"


def height_of(record: HardState) -> int:
    """Return the height a record belongs to."""
    match record:
        case OwnVote():
            return record.vote.height
        case OwnViewChange():
            return record.view_change.height
        case PinnedProposal():
            return record.proposal.header.height
        case OwnPreparedProof():
            return record.proof.height


def save(staged: Staged, archive: BlockArchive, record: HardState, block: Block | None) -> None:
    """Write a record into this turn's batch. `block`: the whole block of a PinnedProposal. Raises InvariantBroken without it."""
    height = height_of(record)
    match record:
        case OwnVote(vote):
            detail = bytes((vote.kind,)) + layout.uint64(vote.view)
            staged.put(layout.hard_state_key(height, _VOTE, detail), codec.encode(vote.to_value()))
        case OwnViewChange(change):
            staged.put(layout.hard_state_key(height, _VIEW_CHANGE, layout.uint64(change.view)), codec.encode(change.to_value()))
        case PinnedProposal(proposal, view):
            digest = proposal.header.digest()
            if not archive.is_pinned(height, digest):
                if block is None:
                    raise InvariantBroken("a block was to be prepared whose bytes are not here")
                archive.pin_block(height, digest, block.encode())
            staged.put(layout.hard_state_key(height, _PIN_VIEW, layout.uint64(view)), digest)
        case OwnPreparedProof(proof):
            staged.put(layout.hard_state_key(height, _PROOF), codec.encode(proof.to_value()))


def load(staged: Staged, archive: BlockArchive, height: int) -> tuple[HardState, ...]:
    """Return the records of an undecided height, pins first. Raises Malformed when they are damaged."""
    pins: list[HardState] = []
    others: list[HardState] = []
    prefix = layout.HARD_STATE + layout.uint64(height)
    for key, value in staged.iterate(prefix, prefix_end(prefix)):
        kind, detail = key[len(prefix) : len(prefix) + 1], key[len(prefix) + 1 :]
        if kind == _VOTE:
            others.append(OwnVote(Vote.from_value(codec.decode(value))))
        elif kind == _VIEW_CHANGE:
            others.append(OwnViewChange(ViewChange.from_value(codec.decode(value))))
        elif kind == _PROOF:
            others.append(OwnPreparedProof(PreparedProof.from_value(codec.decode(value))))
        elif kind == _PIN_VIEW:
            pins.append(PinnedProposal(pinned_block(archive, value).proposal(), int.from_bytes(detail, "big")))
        elif kind != layout.PIN:
            raise Malformed("an unknown kind of hard state")
    return (*pins, *others)


def pinned_block(archive: BlockArchive, digest: bytes) -> Block:
    """Return a pinned block. Raises Malformed when its bytes are missing or damaged."""
    stored = archive.body(digest)
    if stored is None:
        raise Malformed("the bytes of a pinned block are missing")
    return Block.decode(stored)
