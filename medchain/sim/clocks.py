"""Clocks: monotonic time from the start of a process, and wall time that is wrong by a different amount on every node.

Virtual time is whole microseconds since the world began. Knows no node and no rule about time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from medchain.engine.ready import Ticked

EPOCH_MS: Final = 1_750_000_000_000
"""Wall time at which every world begins, in ms since 1970; any moment does."""


@dataclass(slots=True)
class Clock:
    """The two clocks of one node."""

    offset_ms: int = 0
    """How far the wall clock is ahead (or behind, negative)."""
    drift_ppm: int = 0
    """Microseconds that the wall clock gains a second."""
    process_started_us: int = 0
    """Monotonic time counts from here: it starts anew with every process, as on a rebooted machine."""

    def monotonic_ms(self, now_us: int) -> int:
        """Return the process' monotonic milliseconds."""
        return (now_us - self.process_started_us) // 1000

    def wall_ms(self, now_us: int) -> int:
        """Return what the node believes the time is."""
        return EPOCH_MS + self.offset_ms + (now_us + now_us * self.drift_ppm // 1_000_000) // 1000

    def tick(self, now_us: int) -> Ticked:
        """Return what the node sees when it looks at both."""
        return Ticked(self.monotonic_ms(now_us), self.wall_ms(now_us))

    def jump(self, delta_ms: int) -> None:
        """Set the wall clock forward or back, as an administrator or a time server does."""
        self.offset_ms += delta_ms

    def restart(self, now_us: int) -> None:
        """Begin a new process."""
        self.process_started_us = now_us
