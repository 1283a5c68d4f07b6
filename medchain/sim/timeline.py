"""Virtual time: what happens when, in one queue, until somebody finds a violation. Knows no node."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

from medchain.sim.node import Violation
from medchain.sim.trace import Trace

STEPS_MAX: Final = 5_000_000
"""A world with more happenings is stuck in a loop that takes no time."""


class Timeline:
    """An event queue; happenings at one moment keep the order in which they were asked for."""

    __slots__ = ("_queue", "_sequence", "now_us", "trace", "violations")

    def __init__(self, trace: Trace, violations: list[Violation]) -> None:
        """Start at 0; time stands still as soon as `violations` holds one."""
        self.trace = trace
        self.violations = violations
        self.now_us = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0

    def at(self, time_us: int, callback: Callable[[], None]) -> None:
        """Let `callback` happen at a moment; equal moments keep the order of these calls."""
        self._sequence += 1
        heapq.heappush(self._queue, (max(time_us, self.now_us), self._sequence, callback))

    def after(self, delay_us: int, callback: Callable[[], None]) -> None:
        """Let `callback` happen a while from now."""
        self._sequence += 1
        heapq.heappush(self._queue, (self.now_us + delay_us, self._sequence, callback))

    def run_until(self, time_us: int) -> None:
        """Let time pass up to `time_us`, or until a violation."""
        queue = self._queue
        while queue and queue[0][0] <= time_us and not self.violations:
            if self._sequence > STEPS_MAX:
                self.violate("steps", f"more than {STEPS_MAX} happenings: something loops without taking time")
                return
            self.now_us, _, callback = heapq.heappop(queue)
            callback()
        if not self.violations:
            self.now_us = max(self.now_us, time_us)

    def violate(self, checker: str, message: str) -> None:
        """Note a violation; the world stops at the next happening."""
        self.violations.append(Violation(checker, message, self.now_us))
        self.trace.note(self.now_us, f"VIOLATION {checker}: {message}")

    def note(self, line: str, data: bytes = b"") -> None:
        """Write a line into the trace, at this moment."""
        self.trace.note(self.now_us, line, data)
