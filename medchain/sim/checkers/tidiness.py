"""Tidiness: decided and expired transactions leave the pool, hard state of decided heights leaves the disk: nothing grows for ever."""

from __future__ import annotations

from medchain.sim.checkers.case import Case, Ending
from medchain.sim.node import Turn
from medchain.store import layout
from medchain.store.keyvalue import KeyValue, prefix_end

NAME = "tidiness"


class Tidiness:
    """Looks at the stores of a world at rest."""

    def __init__(self, case: Case) -> None:
        self._case = case

    def on_turn(self, turn: Turn) -> None:
        """Nothing to see while it runs."""

    def on_end(self, ending: Ending) -> None:
        """Count what should be gone."""
        if ending.is_at_rest:
            for node, store in enumerate(ending.stores):
                if node not in self._case.liars:
                    self._check(node, store)

    def _check(self, node: int, store: KeyValue) -> None:
        decided = [
            key
            for key, _ in store.iterate(layout.POOL, prefix_end(layout.POOL))
            if store.get(layout.transaction_key(key[len(layout.POOL) :])) is not None
        ]
        if decided:
            self._case.find(NAME, f"node {node}'s pool still holds {len(decided)} decided transactions")
        head = store.get(layout.HEAD)
        height = 0 if head is None else int.from_bytes(head[:8], "big")
        stale = list(store.iterate(*layout.hard_state_range(0, height)))
        if stale:
            self._case.find(NAME, f"node {node} still holds {len(stale)} rows of hard state of decided heights")
        bodies = sum(1 for _ in store.iterate(layout.BODY, prefix_end(layout.BODY)))
        pinned = sum(1 for _ in store.iterate(*layout.hard_state_range(height + 1, height + 1)))
        if bodies > height + 1 + pinned:
            self._case.find(NAME, f"node {node} still holds {bodies - height} bodies of blocks that lost")
