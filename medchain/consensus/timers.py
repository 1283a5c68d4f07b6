"""How long a view lasts, in whole milliseconds, and the one timer of a height.

Length: base * 1.5^view up to the cap, then one base more for each further view without end; a cap alone would kill liveness on a slow
network, doubling without a cap waits for hours (protocol.md, "Timers"; besu #7642). When the timer runs is a rule of the instance.
"""

from __future__ import annotations

from medchain.chain.parameters import Parameters


def view_timeout_ms(parameters: Parameters, view: int) -> int:
    """Return how long view `view` lasts before the next is wanted, in milliseconds."""
    base, cap = parameters.view_timeout_base_ms, parameters.view_timeout_cap_ms
    length = base
    for step in range(view):
        if length >= cap:
            return cap + base * (view - step)
        length = base * 3 ** (step + 1) // 2 ** (step + 1)
    return min(length, cap)


class Timer:
    """Runs from a moment to a deadline, both in monotonic milliseconds; stopped = neither."""

    def __init__(self) -> None:
        self.deadline_ms: int | None = None

    @property
    def is_running(self) -> bool:
        """Answer whether a deadline is set."""
        return self.deadline_ms is not None

    def start(self, now_ms: int, length_ms: int) -> None:
        """Set the deadline `length_ms` from now."""
        self.deadline_ms = now_ms + length_ms

    def stop(self) -> None:
        """Forget the deadline."""
        self.deadline_ms = None

    def is_within(self, now_ms: int, length_ms: int) -> bool:
        """Answer whether the timer runs and its deadline is at most `length_ms` away."""
        return self.deadline_ms is not None and self.deadline_ms - now_ms <= length_ms

    def is_expired(self, now_ms: int) -> bool:
        """Answer whether the timer runs and its deadline is reached."""
        return self.deadline_ms is not None and now_ms >= self.deadline_ms
