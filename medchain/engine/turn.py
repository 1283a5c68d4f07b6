"""What one turn of the engine says to the world, gathered in order, and the time that turn was told.

Every part of the engine writes here what it wants sent or answered; the engine empties it into the turn's Ready. Time comes in with ticks
and is never read (house.md, "Habits by example"). This module knows no message's meaning.
"""

from __future__ import annotations

from medchain.engine.ready import Alarm, Envelope, PeerAccused, Reply
from medchain.wire.peer import PeerMessage


class Turn:
    """Envelopes and replies of the present turn, and the newest tick."""

    __slots__ = ("_replies", "_sends", "is_timed", "monotonic_ms", "wall_ms")

    def __init__(self) -> None:
        self.is_timed = False
        """Whether a tick has come since the start; before it the two clocks say nothing."""
        self.monotonic_ms = 0
        self.wall_ms = 0
        self._sends: list[Envelope] = []
        self._replies: list[Reply] = []

    def set_time(self, monotonic_ms: int, wall_ms: int) -> None:
        """Take over a tick. A monotonic clock that stands or runs backwards is taken as standing."""
        self.monotonic_ms = max(monotonic_ms, self.monotonic_ms) if self.is_timed else monotonic_ms
        self.wall_ms = wall_ms
        self.is_timed = True

    def send(self, to: bytes, message: PeerMessage) -> None:
        """Tell one peer."""
        self._sends.append(Envelope(to, message))

    def broadcast(self, message: PeerMessage) -> None:
        """Tell every connected peer."""
        self._sends.append(Envelope(None, message))

    def reply(self, reply: Reply) -> None:
        """Answer a local client, or tell subscribers."""
        self._replies.append(reply)

    def accuse(self, peer: bytes, reason: str) -> None:
        """Name a peer that broke a rule; said once a turn for each reason."""
        accusation = PeerAccused(peer, reason)
        if accusation not in self._replies[-64:]:
            self._replies.append(accusation)

    def alarm(self, code: str, message: str) -> None:
        """Tell the operator."""
        self._replies.append(Alarm(code, message))

    def take(self) -> tuple[tuple[Envelope, ...], tuple[Reply, ...]]:
        """Return what was gathered, and begin anew."""
        if not self._sends and not self._replies:
            return (), ()
        sends, replies = tuple(self._sends), tuple(self._replies)
        self._sends.clear()
        self._replies.clear()
        return sends, replies
