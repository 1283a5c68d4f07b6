"""How much work a block proposed here may hold just now: all that the parameters allow, or less while this machine is too busy for that.

A block is built by its primary within the clock bound and executed by everybody else before the timer of its view runs out. Where machines
are too slow for that, every view would end over a largest block and begin another one (DESIGN.md, "Restraint"). This is a choice of the
proposer alone: backups accept any block within the parameters. Knows no vote and no transaction; time is what ticks told.
"""

from __future__ import annotations

from typing import Final

from medchain.chain.parameters import Parameters

BUSY_SHARE: Final = 4
"""A turn of a quarter of the base timeout is a long one: building, executing and deciding in such turns fill a view."""
FLOOR_SHARE: Final = 16
"""Never less than a sixteenth in view 0; what even that is too much for is decided in a later view, in which less is proposed still."""
GROWTH_SHARE: Final = 8
"""What a height decided in view 0 gives back where no turn was long: from a half to the whole in six heights."""
TRIAL_SHARE: Final = 64
"""What it gives back where one was: so, whatever blocks were cut for, larger ones are tried again without end."""


class Restraint:
    """What this node has learnt about its own speed."""

    def __init__(self) -> None:
        self._weight: int | None = None
        """What a block of view 0 may hold; None = all that the parameters allow."""
        self._longest_ms = 0

    def saw_turn(self, length_ms: int) -> None:
        """Note how long this node heard nothing, from one tick to the next."""
        self._longest_ms = max(self._longest_ms, length_ms)

    def saw_decision(self, view: int, parameters: Parameters) -> None:
        """Learn from a height that was decided in `view`.

        Less is proposed only after views that ended while this node had long turns: silent primaries and slow lines make no turn long, and
        smaller blocks would be no help against them.
        """
        is_busy = self._longest_ms * BUSY_SHARE > parameters.view_timeout_base_ms
        self._longest_ms = 0
        weight, full = self.weight(0, parameters), parameters.block_weight_max
        if view > 0 and is_busy:
            self._weight = max(weight >> min(view, FLOOR_SHARE), full // FLOOR_SHARE)
        elif view == 0 and self._weight is not None:
            weight += 1 + weight // (TRIAL_SHARE if is_busy else GROWTH_SHARE)
            self._weight = weight if weight < full else None

    def weight(self, view: int, parameters: Parameters) -> int:
        """Return at what weight a block proposed in `view` should end: half as much in each further view, in the end one transaction."""
        full = parameters.block_weight_max
        return (full if self._weight is None else min(self._weight, full)) >> view
