"""Times: the time of a block, by which consents and credentials end, is later than its parent's and not later than honest clocks allow.

A fresh block is prepared by nodes whose clocks are within the bound of its time, one of them honest with a clock that is not off; so no
decided block is later than the latest such clock was, plus the bound (protocol.md, "Agreement"). Nothing limits how old it may become.
"""

from __future__ import annotations

from medchain.chain.block import Block
from medchain.errors import Malformed
from medchain.sim.checkers.case import Case, Ending
from medchain.sim.clocks import EPOCH_MS
from medchain.sim.node import Turn
from medchain.store import layout

NAME = "times"


class Times:
    """Reads the time of each block once, when its first node decides it."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._times: dict[int, int] = {}

    def on_turn(self, turn: Turn) -> None:
        """Look at blocks that become decided."""
        if turn.node in self._case.liars:
            return
        for key, digest in turn.puts(layout.BLOCK):
            height = int.from_bytes(key[len(layout.BLOCK) :], "big")
            data = turn.store.get(layout.body_key(digest)) if height and height not in self._times else None
            if data is not None:
                self._look(height, data)

    def on_end(self, ending: Ending) -> None:
        """Compare neighbours."""
        for height in sorted(self._times):
            before = self._times.get(height - 1)
            if before is not None and self._times[height] <= before:
                self._case.find(NAME, f"block {height} is not later than block {height - 1}")

    def _look(self, height: int, data: bytes) -> None:
        try:
            time_ms = Block.decode(data).header.time_ms
        except Malformed:
            return  # the judge of certificates says so
        self._times[height] = time_ms
        ahead_ms = time_ms - EPOCH_MS - self._case.now_us // 1000
        if ahead_ms > self._case.latest_clock_ms:
            allowed_ms = self._case.latest_clock_ms
            self._case.find(NAME, f"block {height} is {ahead_ms} ms ahead of the true time: honest clocks allow {allowed_ms}")
