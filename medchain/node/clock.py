"""The two clocks of a node: one that only goes forward, for timers, and the one people share, for times on the chain."""

from __future__ import annotations

import time

from medchain.engine.ready import Ticked


class Clock:
    """Reads the machine's clocks, in whole milliseconds."""

    def monotonic_ms(self) -> int:
        """Return milliseconds since some moment of the past; never goes back."""
        return time.monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        """Return milliseconds since 1970 UTC, as the machine believes."""
        return time.time_ns() // 1_000_000

    def tick(self) -> Ticked:
        """Return the present moment as the engine takes it."""
        return Ticked(self.monotonic_ms(), self.wall_ms())
