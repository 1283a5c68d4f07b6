"""How much one peer may ask of this node in a second, whatever its questions cost it.

A question of a hundred bytes can make this node look up thousands of ids or read a block. Honest peers ask a few times a second; what goes
beyond the allowance is left unanswered, and whoever needs it asks again. Counts per peer, so nobody uses up the allowance of another.
Agreement has one of its own, for statements that no honest validator makes often: each costs a verification (agreement.py).
"""

from __future__ import annotations

from typing import Final

from medchain.engine.turn import Turn

POINTS_PER_SECOND: Final = 64
"""An honest peer uses about twenty: a list a second (LIST_POINTS), what proposals lack every 250 ms, one question about past votes."""
LIST_POINTS: Final = 16
"""Each id of a list is looked up on disk, so lists come a few times a second at most; honest peers send one."""
PAST_VOTES_POINTS: Final = 8
PROPOSAL_POINTS: Final = 8
"""An answer lists up to ten thousand ids; an honest peer asks once in a view that began badly, and again every 250 ms."""
EVIDENCE_POINTS: Final = 8
"""A message of evidence costs up to 32 signature checks; honest peers send each item once."""
ENTRIES_PER_POINT: Final = 256


class Allowance:
    """Points used by each peer in the present second."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._used: dict[bytes, int] = {}
        self._second = -1

    def take(self, peer: bytes, points: int) -> bool:
        """Use up `points`; answer whether the peer still had any left (so the largest single question is always possible)."""
        second = self._turn.monotonic_ms // 1_000
        if second != self._second:
            self._second = second
            self._used.clear()
        used = self._used.get(peer, 0)
        if used >= POINTS_PER_SECOND:
            return False
        self._used[peer] = used + points
        return True
