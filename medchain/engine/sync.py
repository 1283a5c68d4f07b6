"""Catching up by certificates: whom to ask for which decided blocks, and answering those who ask.

Blocks are applied one height after the other; each is believed for its certificate alone, never for who sent it, so one lying peer is
found, named and left aside for a while (protocol.md, "Catching up"; lessons.md: FISCO-BCOS #3307). What peers say about their height is
a hint for whom to ask and nothing more. This module keeps order and bounds; the engine verifies and applies.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from medchain.chain.block import Block
from medchain.chain.certificate import Certificate
from medchain.engine.decided import DecidedChain
from medchain.engine.turn import Turn
from medchain.wire.peer import RANGE_BLOCKS_MAX, PeerStatus, RangeSent, RangeWanted

STATUS_EVERY_MS: Final = 1_000
BEHIND_GRACE_MS: Final = 300
"""A peer one block ahead is the usual case for a moment; only if it lasts the block is asked for."""
ANSWER_TIMEOUT_MS: Final = 2_000
"""Time for a range of 8 MiB on a slow line; then another peer is asked."""
SLOW_MS: Final = 5_000
"""A peer that did not answer is left aside this long."""
LIAR_MS: Final = 60_000
"""A peer that sent a block that is not certified is left aside this long."""
LATE_ANSWER_EVERY_MS: Final = 250
"""Answers to a peer that still speaks about a decided height: at most so often."""
LATE_BLOCKS_MAX: Final = 8
LATE_BYTES_MAX: Final = 1024 * 1024
STRAGGLER_MS: Final = 500
"""Messages of a height decided so recently are the normal stragglers of a vote; whoever still needs the block repeats itself
soon after (replica.py, resending)."""
RANGES_PER_SECOND_MAX: Final = 4
SERVED_BYTES_MAX: Final = 1024 * 1024
"""Of one answer: reading so much takes some 60 ms, for which votes wait here. With the bound above a peer can have a quarter of a second of
this node's time a second, and a peer that follows 14,000 transactions; it asks for the rest when it has applied what it got."""
UNASKED_BLOCKS_MAX: Final = 2_048
UNASKED_FORGIVEN_PER_SECOND: Final = LATE_BLOCKS_MAX * 1_000 // LATE_ANSWER_EVERY_MS
"""Blocks of no use that a peer may send without being asked, and how many are forgiven in a second: just what late answers of an honest
peer may hold, so those never add up; what a broken line held back for a minute comes at once and is still within."""
WAITING_BLOCKS_MAX: Final = 2 * RANGE_BLOCKS_MAX


@dataclass(slots=True)
class _Request:
    peer: bytes
    first: int
    deadline_ms: int


@dataclass(slots=True)
class _PeerRecord:
    """What is remembered of a connected peer."""

    height: int = 0
    """The highest decided height it claims."""
    aside_until_ms: int = -1
    late_answer_ms: int = -LATE_ANSWER_EVERY_MS
    ranges_served: int = 0
    unasked_blocks: int = 0
    unasked_ms: int = 0


class Sync:
    """Who is ahead, what was asked, what waits to be applied."""

    def __init__(self, chain: DecidedChain, turn: Turn) -> None:
        self._chain = chain
        self._turn = turn
        self._peers: dict[bytes, _PeerRecord] = {}
        self._asides: dict[bytes, int] = {}
        self._request: _Request | None = None
        self._waiting: deque[tuple[bytes, Block, Certificate]] = deque()
        self._behind_since_ms: int | None = None
        self._last_asked = b""
        self._next_status_ms = 0
        self._decided_ms = 0

    # ---- what peers say ---------------------------------------------------------------------------------------------------------

    def connect(self, peer: bytes) -> None:
        """A peer connected: tell it where this node stands. One that was left aside stays so."""
        record = self._peers[peer] = _PeerRecord()
        record.aside_until_ms = self._asides.get(peer, -1)
        self._turn.send(peer, self._status())

    def disconnect(self, peer: bytes) -> None:
        """A peer is gone; what it was asked for is asked of another at once."""
        record = self._peers.pop(peer, None)
        if record is not None and record.aside_until_ms > self._turn.monotonic_ms:
            self._asides[peer] = record.aside_until_ms
        if self._request is not None and self._request.peer == peer:
            self._request = None

    def hint(self, peer: bytes, height: int) -> None:
        """A peer's messages suggest that it decided `height`."""
        record = self._peers.get(peer)
        if record is not None:
            record.height = max(record.height, height)

    def take_status(self, peer: bytes, status: PeerStatus) -> None:
        """A peer says where it stands; another block than the one decided here is misbehaviour of somebody."""
        record = self._peers.get(peer)
        if record is not None:
            record.height = status.height
        known = self._chain.archive.digest_of(status.height) if status.height <= self._chain.height else None
        if known is not None and known != status.digest:
            self._turn.accuse(peer, "it names another block at a height decided here")

    def best_height(self) -> int:
        """Return the highest height that a peer in good standing claims, or the own one."""
        best, now_ms = self._chain.height, self._turn.monotonic_ms
        for record in self._peers.values():
            if record.height > best and record.aside_until_ms <= now_ms:
                best = record.height
        return best

    def has_decided(self, peer: bytes, height: int) -> bool:
        """Answer whether a peer says that it has decided this height."""
        record = self._peers.get(peer)
        return record is not None and record.height >= height

    def credible_height(self) -> int:
        """Return the greatest height that f + 1 peers in good standing claim to have decided, so an honest one did, or the own one."""
        claims = sorted((record.height for peer, record in self._peers.items() if not self._is_aside(peer)), reverse=True)
        faults = self._chain.validators.faults_tolerated
        return max(self._chain.height, claims[faults] if faults < len(claims) else 0)

    def is_catching_up(self) -> bool:
        """Answer whether blocks are being fetched."""
        return self._request is not None or bool(self._waiting)

    def has_blocks(self) -> bool:
        """Answer whether fetched blocks wait to be applied."""
        return bool(self._waiting)

    # ---- asking -----------------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Give up on answers that did not come, tell peers the own height every second, ask when behind."""
        now_ms = self._turn.monotonic_ms
        if self._request is not None and now_ms >= self._request.deadline_ms:
            self._set_aside(self._request.peer, SLOW_MS)
        if now_ms >= self._next_status_ms:
            self.announce()
            self._asides = {peer: until for peer, until in self._asides.items() if until > now_ms}
            for record in self._peers.values():
                record.ranges_served = 0
        self.ask()

    def announce(self) -> None:
        """Tell all peers where this node stands."""
        self._next_status_ms = self._turn.monotonic_ms + STATUS_EVERY_MS
        self._turn.broadcast(self._status())

    def ask(self) -> None:
        """Ask one peer that is ahead for the next range, unless that is under way or the gap is one block and young.

        The next range is asked for while the last one is being applied: reading it there, the way here, and checking its signatures take as
        long again.
        """
        now_ms, best = self._turn.monotonic_ms, self.best_height()
        if best <= self._chain.height:
            self._behind_since_ms = None
            return
        if self._behind_since_ms is None:
            self._behind_since_ms = now_ms
        first = self._next_height()
        is_young = best == self._chain.height + 1 and now_ms - self._behind_since_ms < BEHIND_GRACE_MS
        if self._request is not None or first > best or len(self._waiting) > WAITING_BLOCKS_MAX - RANGE_BLOCKS_MAX or is_young:
            return
        peer = self._next_peer()
        if peer is not None:
            self._request = _Request(peer, first, now_ms + ANSWER_TIMEOUT_MS)
            self._last_asked = peer
            self._turn.send(peer, RangeWanted(first, RANGE_BLOCKS_MAX))

    def _next_height(self) -> int:
        """Return the height after the last block that is here, applied or not."""
        return (self._waiting[-1][1].header.height if self._waiting else self._chain.height) + 1

    def _next_peer(self) -> bytes | None:
        """Return the next peer that is ahead, going round in the order of keys."""
        ahead = sorted(peer for peer, record in self._peers.items() if record.height > self._chain.height and not self._is_aside(peer))
        return next((peer for peer in ahead if peer > self._last_asked), ahead[0]) if ahead else None

    def _is_aside(self, peer: bytes) -> bool:
        record = self._peers.get(peer)
        return record is None or record.aside_until_ms > self._turn.monotonic_ms

    def _set_aside(self, peer: bytes, length_ms: int) -> None:
        record = self._peers.get(peer)
        if record is not None:
            record.aside_until_ms = self._turn.monotonic_ms + length_ms
        if self._request is not None and self._request.peer == peer:
            self._request = None

    # ---- what comes -------------------------------------------------------------------------------------------------------------

    def take_range(self, peer: bytes, message: RangeSent) -> None:
        """Keep certified blocks that may be next; they are verified when their turn comes. A peer left aside is not heard."""
        is_answer = self._request is not None and self._request.peer == peer
        if is_answer:
            self._request = None
        if self._is_aside(peer):
            return
        useful = [(peer, block, certificate) for block, certificate in message.blocks if block.header.height > self._chain.height]
        if is_answer and not useful:
            self._set_aside(peer, SLOW_MS)  # it claimed to be ahead and has nothing to show
        expected = first = self._next_height()
        for item in useful:
            if item[1].header.height == expected and len(self._waiting) < WAITING_BLOCKS_MAX:
                self._waiting.append(item)
                expected += 1
        if expected == first and not is_answer:
            self._charge(peer, max(1, len(message.blocks)))

    def _charge(self, peer: bytes, blocks: int) -> None:
        """Count blocks that nobody asked for and that help nobody; each was read all the same. Who sends them without end is named."""
        record, now_ms = self._peers[peer], self._turn.monotonic_ms
        forgiven = (now_ms - record.unasked_ms) * UNASKED_FORGIVEN_PER_SECOND // 1_000
        record.unasked_blocks = max(0, record.unasked_blocks - forgiven) + blocks
        record.unasked_ms = now_ms
        if record.unasked_blocks > UNASKED_BLOCKS_MAX:
            record.unasked_blocks = 0
            self._turn.accuse(peer, "it sends blocks without end that nobody asked for")

    def next_block(self) -> tuple[bytes, Block, Certificate] | None:
        """Return the block to verify and apply next, with who sent it."""
        while self._waiting:
            item = self._waiting.popleft()
            if item[1].header.height == self._chain.height + 1:
                return item
            if item[1].header.height > self._chain.height + 1:
                self._waiting.clear()
        return None

    def condemn(self, peer: bytes, reason: str) -> None:
        """A peer sent a block that is not certified: name it, and do without it and what it sent."""
        self._turn.accuse(peer, reason)
        self._set_aside(peer, LIAR_MS)
        self._waiting.clear()

    # ---- answering --------------------------------------------------------------------------------------------------------------

    def saw_decision(self) -> None:
        """A height was decided just now."""
        self._decided_ms = self._turn.monotonic_ms
        self._behind_since_ms = None

    def answer_range(self, peer: bytes, wanted: RangeWanted) -> None:
        """Send decided blocks from `first` on, within the bounds of a message and of what a peer may ask for a second."""
        record = self._peers.get(peer)
        if record is None or record.ranges_served >= RANGES_PER_SECOND_MAX:
            return
        record.ranges_served += 1
        self._turn.send(peer, RangeSent(self._blocks(wanted.first, wanted.count, SERVED_BYTES_MAX)))

    def answer_late(self, peer: bytes, height: int, *, is_asked: bool = False) -> None:
        """A peer speaks about a decided height: send the block with its certificate (protocol.md, "Resending"), not too often.

        A straggling vote is no reason to send a block; one that `is_asked` for it is.
        """
        record, now_ms = self._peers.get(peer), self._turn.monotonic_ms
        if record is None or now_ms - record.late_answer_ms < LATE_ANSWER_EVERY_MS:
            return
        if not is_asked and height == self._chain.height and now_ms - self._decided_ms < STRAGGLER_MS:
            return
        blocks = self._blocks(height, LATE_BLOCKS_MAX, LATE_BYTES_MAX)
        if blocks:
            record.late_answer_ms = now_ms
            self._turn.send(peer, RangeSent(blocks))

    def _blocks(self, first: int, count: int, bytes_max: int) -> tuple[tuple[Block, Certificate], ...]:
        found: list[tuple[Block, Certificate]] = []
        size = 0
        for height in range(max(1, first), min(first + count - 1, self._chain.height) + 1):
            stored, certificate = self._chain.archive.block(height), self._chain.certificate_of(height)
            size += len(stored or b"")
            if found and size > bytes_max:
                break
            block = self._chain.block_of(height)
            if block is None or certificate is None:
                break
            found.append((block, certificate))
        return tuple(found)

    def _status(self) -> PeerStatus:
        return PeerStatus(self._chain.height, self._chain.digest)
