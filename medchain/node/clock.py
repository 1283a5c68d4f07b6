"""The two clocks of a node: one that only goes forward, for timers, and the one people share, for times on the chain.

`ClockWatch` compares the second with those of the other hospitals. It reads no clock: what it compares is handed in.
"""

from __future__ import annotations

import time

from medchain.engine.ready import Ticked


class Clock:
    """Reads the machine's clocks, in whole milliseconds."""

    def __init__(self, offset_ms: int = 0) -> None:
        """`offset_ms` is added to the wall clock: a drill of a clock that is wrong (`debug.clock_offset_ms`)."""
        self._offset_ms = offset_ms

    def monotonic_ms(self) -> int:
        """Return milliseconds since some moment of the past; never goes back."""
        return time.monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        """Return milliseconds since 1970 UTC, as the machine believes."""
        return time.time_ns() // 1_000_000 + self._offset_ms

    def tick(self) -> Ticked:
        """Return the present moment as the engine takes it."""
        return Ticked(self.monotonic_ms(), self.wall_ms())


class ClockWatch:
    """Finds out that this node's wall clock is wrong, from the times in other hospitals' fresh proposals.

    A proposal's time is its primary's clock a few milliseconds ago; protocol.md bounds how far it may be from a backup's ("Numbers",
    clock_bound_ms), and beyond half of that bound an operator must know. A late line or one hospital's wrong clock say nothing: more
    hospitals than may be faulty have to agree, on the same side.
    """

    def __init__(self, own: bytes, faults: int, limit_ms: int) -> None:
        """`own` is this node's consensus key, `faults` how many hospitals may be faulty, `limit_ms` how far the clock may be off."""
        self._own = own
        self._faults = faults
        self._limit_ms = limit_ms
        self._seen: dict[bytes, tuple[int, int]] = {}
        """Consensus key → (height, how far this clock was ahead) of its newest proposal; one row a member."""

    def observe(self, proposer: bytes, height: int, time_ms: int, wall_ms: int) -> None:
        """Take the time of a fresh proposal that came from its proposer just now; the first of a height counts, it is sent again."""
        if proposer != self._own and self._seen.get(proposer, (0, 0))[0] < height:
            self._seen[proposer] = (height, wall_ms - time_ms)

    def offset_ms(self) -> int:
        """Return how far this clock is off, as at least one honest hospital sees it; 0 while it is within the limit, positive = ahead."""
        offsets = sorted([offset for _, offset in self._seen.values()])
        if len(offsets) <= self._faults:
            return 0
        behind, ahead = offsets[self._faults], offsets[-1 - self._faults]
        if behind < -self._limit_ms:
            return behind
        return ahead if ahead > self._limit_ms else 0
