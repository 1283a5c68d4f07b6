"""Frames of the WebSocket: many small messages in one, one long message over many. Pure; knows bytes and lanes, no message.

A frame is one part after another. A part is a head of four bytes, big endian (bit 31: more of this message follows in the same lane;
bits 30 and 29: lane; the rest: length), and so many bytes. A part that is not the last of its message has exactly PART_BYTES, so a message
has few parts whatever the sender wants. Messages of different lanes may be interleaved part by part; within a lane they are not.
"""

from __future__ import annotations

from typing import Final

from medchain.errors import Malformed
from medchain.network.limits import PART_BYTES, SOCKET_FRAME_BYTES_MAX
from medchain.wire.peer import FRAME_BYTES_MAX

LANES: Final = 3
HEAD_BYTES: Final = 4
_MORE: Final = 1 << 31
_LANE_SHIFT: Final = 29
_LENGTH_MASK: Final = (1 << _LANE_SHIFT) - 1


def part_head(lane: int, length: int, *, is_last: bool) -> bytes:
    """Return the head of a part."""
    return ((0 if is_last else _MORE) | lane << _LANE_SHIFT | length).to_bytes(HEAD_BYTES, "big")


class Assembler:
    """Takes the frames of one connection apart and joins the parts of long messages. Holds at most one unfinished message per lane."""

    def __init__(self, message_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._message_bytes_max = message_bytes_max
        self._unfinished: list[list[bytes]] = [[] for _ in range(LANES)]

    def feed(self, frame: bytes) -> list[bytes]:
        """Return the messages that this frame completes, in order. Raises Malformed, after which the connection is of no use."""
        size = len(frame)
        if not 0 < size <= SOCKET_FRAME_BYTES_MAX:
            raise Malformed(f"a frame has 1 to {SOCKET_FRAME_BYTES_MAX} bytes")
        messages: list[bytes] = []
        position = 0
        while position < size:
            body = position + HEAD_BYTES
            head = int.from_bytes(frame[position:body], "big")
            position = body + (head & _LENGTH_MASK)
            if body > size or position > size:
                raise Malformed("a frame ends before its last part does")
            message = self._join(head, frame[body:position])
            if message is not None:
                messages.append(message)
        return messages

    def _join(self, head: int, part: bytes) -> bytes | None:
        lane = (head & ~_MORE) >> _LANE_SHIFT
        if lane >= LANES or not 0 < len(part) <= PART_BYTES:
            raise Malformed(f"a part has 1 to {PART_BYTES} bytes and one of {LANES} lanes")
        parts = self._unfinished[lane]
        if head & _MORE:
            if len(part) != PART_BYTES:
                raise Malformed(f"a part that is not the last must have {PART_BYTES} bytes")
            if (len(parts) + 1) * PART_BYTES >= self._message_bytes_max:
                raise Malformed(f"a message is longer than {self._message_bytes_max} bytes")
            parts.append(part)
            return None
        if not parts:
            return part
        if len(parts) * PART_BYTES + len(part) > self._message_bytes_max:
            raise Malformed(f"a message is longer than {self._message_bytes_max} bytes")
        parts.append(part)
        message = b"".join(parts)
        parts.clear()
        return message
