"""The archive: decided blocks, certificates and receipts, the indexes that find them, and blocks pinned before they are decided.

A block's bytes are written once, under its digest: when it is pinned before Prepare, or when it is decided without having been pinned.
The decision only refers to them (protocol.md, "Durable before said"). The archive deals in bytes: what a block, a certificate or an event
is, others know. It writes into the turn's `Staged`, so everything of one decision leaves in one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from medchain.errors import InvariantBroken
from medchain.store import layout
from medchain.store.keyvalue import prefix_end
from medchain.store.staged import Staged

HEIGHT_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Head:
    """The newest decided block."""

    height: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event about a subject and where it happened."""

    height: int
    index: int
    """Number of the event among its block's events."""
    event: bytes


class BlockArchive:
    """Blocks by height and digest, over the staged writes of the current turn."""

    __slots__ = ("_staged",)

    def __init__(self, staged: Staged) -> None:
        self._staged = staged

    def head(self) -> Head | None:
        """Return the newest decided block's height and digest, None in an empty store."""
        stored = self._staged.get(layout.HEAD)
        return None if stored is None else Head(int.from_bytes(stored[:HEIGHT_BYTES], "big"), stored[HEIGHT_BYTES:])

    def pin_block(self, height: int, digest: bytes, block_bytes: bytes) -> None:
        """Keep the bytes of an undecided block until its height is decided; pinning it again writes nothing.

        Raises InvariantBroken when the height is decided already: there is nothing left to vote on.
        """
        head = self.head()
        if head is not None and height <= head.height:
            raise InvariantBroken(f"a block was pinned for height {height}, which is decided")
        if not self.is_pinned(height, digest):
            self._staged.put(layout.body_key(digest), block_bytes)
            self._staged.put(layout.pin_key(height, digest), b"")

    def is_pinned(self, height: int, digest: bytes) -> bool:
        """Answer whether the undecided block is pinned."""
        return self._staged.get(layout.pin_key(height, digest)) is not None

    def pinned(self, height: int) -> list[bytes]:
        """Return the digests of the blocks pinned for an undecided height, in order of digests."""
        prefix = layout.hard_state_key(height, layout.PIN)
        rows = self._staged.iterate(prefix, prefix_end(prefix))
        return [key[len(prefix) :] for key, _ in rows]

    def body(self, digest: bytes) -> bytes | None:
        """Return the bytes of a block by its digest, decided or pinned."""
        return self._staged.get(layout.body_key(digest))

    def put_block(
        self,
        height: int,
        digest: bytes,
        block_bytes: bytes,
        certificate_bytes: bytes,
        receipts_bytes: bytes,
        transaction_ids: Sequence[bytes],
    ) -> None:
        """Store the decision of `height` and drop what was pinned for it and lost.

        Raises InvariantBroken unless `height` follows the head (in an empty store, e.g. one started from a snapshot, any height may come
        first).
        """
        head = self.head()
        if head is not None and height != head.height + 1:
            raise InvariantBroken(f"block {height} was decided on top of block {head.height}")
        staged = self._staged
        if not self.is_pinned(height, digest):
            staged.put(layout.body_key(digest), block_bytes)
        self._unpin(0 if head is None else head.height, height, digest)
        staged.put(layout.HEAD, layout.uint64(height) + digest)
        self._put_decision(height, digest, certificate_bytes, receipts_bytes, transaction_ids)

    def restore_block(
        self,
        height: int,
        digest: bytes,
        block_bytes: bytes,
        certificate_bytes: bytes,
        receipts_bytes: bytes,
        transaction_ids: Sequence[bytes],
    ) -> None:
        """Write, again or for the first time, a block at or below the head: repair of a damaged range, or history from before a snapshot.

        The caller has checked it against the certified chain. Raises InvariantBroken when it lies above the head or contradicts the
        decided digest.
        """
        head = self.head()
        if head is None or height > head.height:
            raise InvariantBroken(f"block {height} cannot be restored, it is not decided here")
        known = self.digest_of(height)
        if known is not None and known != digest:
            raise InvariantBroken(f"another block was to be restored at height {height} than was decided")
        self._staged.put(layout.body_key(digest), block_bytes)
        self._put_decision(height, digest, certificate_bytes, receipts_bytes, transaction_ids)

    def digest_of(self, height: int) -> bytes | None:
        """Return the digest of the decided block of `height`."""
        return self._staged.get(layout.block_key(height))

    def block(self, height: int) -> bytes | None:
        """Return the bytes of the decided block of `height`, None when it is not decided or not kept here."""
        digest = self.digest_of(height)
        return None if digest is None else self.body(digest)

    def certificate(self, height: int) -> bytes | None:
        """Return the certificate of `height`."""
        return self._staged.get(layout.certificate_key(height))

    def receipts(self, height: int) -> bytes | None:
        """Return the receipts of `height`."""
        return self._staged.get(layout.receipts_key(height))

    def height_of(self, digest: bytes) -> int | None:
        """Return the height of the decided block with this digest."""
        stored = self._staged.get(layout.height_key(digest))
        return None if stored is None else int.from_bytes(stored, "big")

    def locate(self, transaction_id: bytes) -> tuple[int, int] | None:
        """Return (height, index in the block) of a decided transaction."""
        stored = self._staged.get(layout.transaction_key(transaction_id))
        if stored is None:
            return None
        return int.from_bytes(stored[:HEIGHT_BYTES], "big"), int.from_bytes(stored[HEIGHT_BYTES:], "big")

    def add_events(self, height: int, events: Iterable[tuple[Sequence[bytes], bytes]]) -> None:
        """Index all events of a block, in its order: each (its subjects, of 1 to 255 bytes; its exact bytes) under every subject."""
        staged, place = self._staged, layout.uint64(height)
        for index, (subjects, event) in enumerate(events):
            tail = place + layout.uint32(index)
            for subject in subjects:
                staged.put(layout.event_prefix(subject) + tail, event)

    def events(self, subject: bytes, from_height: int, to_height: int, limit: int, from_index: int = 0) -> list[StoredEvent]:
        """Return at most `limit` events about `subject` from `from_height` to `to_height`, both included, oldest first.

        To go on, ask again from the last event's height with `from_index` one above its index: a cursor that stays right while blocks are
        added.
        """
        prefix = layout.event_prefix(subject)
        found: list[StoredEvent] = []
        if limit <= 0 or from_height > to_height:
            return found
        start = layout.event_key(subject, from_height, from_index)
        stop = prefix_end(prefix + layout.uint64(to_height))
        for key, event in self._staged.iterate(start, stop):
            place = key[len(prefix) :]
            found.append(StoredEvent(int.from_bytes(place[:HEIGHT_BYTES], "big"), int.from_bytes(place[HEIGHT_BYTES:], "big"), event))
            if len(found) == limit:
                break
        return found

    def _put_decision(
        self, height: int, digest: bytes, certificate_bytes: bytes, receipts_bytes: bytes, transaction_ids: Sequence[bytes]
    ) -> None:
        staged = self._staged
        place = layout.uint64(height)
        staged.put(layout.block_key(height), digest)
        staged.put(layout.certificate_key(height), certificate_bytes)
        staged.put(layout.receipts_key(height), receipts_bytes)
        staged.put(layout.height_key(digest), place)
        staged.stage([(layout.transaction_key(each), place + layout.uint32(index)) for index, each in enumerate(transaction_ids)])

    def _unpin(self, first: int, height: int, decided: bytes) -> None:
        """Forget every pin from `first` to `height`, and the bytes of all pinned blocks but the decided one.

        Below the head before there are none, and a search from 0 walks over the deleted ones of all blocks since the last compaction:
        4 ms after 6,000 blocks.
        """
        start, stop = layout.hard_state_range(first, height)
        after_height = len(layout.HARD_STATE) + HEIGHT_BYTES
        for key, _ in self._staged.iterate(start, stop):
            if key[after_height : after_height + 1] != layout.PIN:
                continue
            digest = key[after_height + 1 :]
            self._staged.delete(key)
            if digest != decided:
                self._staged.delete(layout.body_key(digest))
