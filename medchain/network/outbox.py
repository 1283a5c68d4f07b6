"""What waits to be sent to one peer: three bounded lanes, consensus before gossip before queries (protocol.md, "Gossip"). Pure.

Losing a message is allowed, silence about it is not: what is dropped is counted by reason. The consensus lane never drops; when it is full
the connection must be closed, for the engine sends everything that matters again on reconnecting. Knows bytes, no message and no socket.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from medchain.network.framing import HEAD_BYTES, LANES, part_head
from medchain.network.limits import PART_BYTES, SOCKET_FRAME_BYTES_MAX, LaneLimits
from medchain.wire.peer import CONSENSUS_LANE, GOSSIP_LANE, QUERY_LANE

LANE_NAMES: Final = {CONSENSUS_LANE: "consensus", GOSSIP_LANE: "gossip", QUERY_LANE: "query"}


class Outbox:
    """The lanes of one connection."""

    def __init__(self, consensus: LaneLimits, gossip: LaneLimits, query: LaneLimits) -> None:
        self._limits = (consensus, gossip, query)
        self._lanes: tuple[deque[bytes], ...] = tuple(deque() for _ in range(LANES))
        self._bytes = [0] * LANES
        self._sent = [0] * LANES  # bytes of the head message of each lane that are already in earlier frames
        self._drops: dict[str, int] = {}

    def __len__(self) -> int:
        """Messages that wait, the unfinished ones included."""
        return sum(len(lane) for lane in self._lanes)

    @property
    def bytes_waiting(self) -> int:
        """Bytes of all messages that wait."""
        return sum(self._bytes)

    def put(self, lane: int, message: bytes) -> bool:
        """Queue a message; make room in a lane other than consensus by dropping its oldest. False: the consensus lane is full, close."""
        limits, queue = self._limits[lane], self._lanes[lane]
        size = len(message)
        if self._bytes[lane] + size > limits.bytes_max or len(queue) >= limits.count_max:
            if lane == CONSENSUS_LANE:
                return False
            self._make_room(lane, size)
            if self._bytes[lane] + size > limits.bytes_max or len(queue) >= limits.count_max:
                self._drop(lane, 1)  # larger than the lane, or behind a message that is half sent
                return True
        queue.append(message)
        self._bytes[lane] += size
        return True

    def _make_room(self, lane: int, size: int) -> None:
        """Drop the oldest messages of a lane, but not one whose first parts are already on their way."""
        limits, queue = self._limits[lane], self._lanes[lane]
        begun = queue.popleft() if self._sent[lane] else None
        count = 0
        while queue and (self._bytes[lane] + size > limits.bytes_max or len(queue) + (begun is not None) >= limits.count_max):
            self._bytes[lane] -= len(queue.popleft())
            count += 1
        if begun is not None:
            queue.appendleft(begun)
        if count:
            self._drop(lane, count)

    def _drop(self, lane: int, count: int) -> None:
        reason = f"{LANE_NAMES[lane]}-overflow"
        self._drops[reason] = self._drops.get(reason, 0) + count

    def take_drops(self) -> dict[str, int]:
        """Return what was dropped since the last call, by reason."""
        drops, self._drops = self._drops, {}
        return drops

    def take(self) -> bytes | None:
        """Return the next frame, as full as its bound allows, or None when nothing waits. Higher lanes first, in order within a lane."""
        pieces: list[bytes] = []
        room = SOCKET_FRAME_BYTES_MAX
        for lane in range(LANES):
            queue = self._lanes[lane]
            while queue:
                message = queue[0]
                begin = self._sent[lane]
                length = min(len(message) - begin, PART_BYTES)
                if room < HEAD_BYTES + length:
                    return b"".join(pieces)
                is_last = begin + length == len(message)
                pieces.append(part_head(lane, length, is_last=is_last))
                pieces.append(message if length == len(message) else message[begin : begin + length])
                room -= HEAD_BYTES + length
                if is_last:
                    queue.popleft()
                    self._sent[lane] = 0
                    self._bytes[lane] -= len(message)
                else:
                    self._sent[lane] = begin + length
        return b"".join(pieces) if pieces else None
