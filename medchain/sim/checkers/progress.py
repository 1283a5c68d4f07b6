"""Progress: once all is healed, every node decides new heights within a stated bound, and all come to one height with nothing undecided.

Liveness is promised only when messages arrive again, so this is asked after healing and not before (Dwork, Lynch, Stockmeyer 1988).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from medchain.sim.node import NodeState
from medchain.sim.world import World
from medchain.store import layout
from medchain.store.keyvalue import prefix_end

NAME: Final = "progress"
FIRST_BLOCK_MS: Final = 10_000
"""From healing until every node has decided a height that nobody had (lessons.md: quorum lost and restored, first block < 10 s)."""
REST_MS: Final = 20_000
"""From the last submission until all nodes stand at one height, nothing accepted is undecided (unexpired ones wait for no block) and no
evidence waits for a block."""
SLICE_MS: Final = 50
"""How often it is looked."""


class Progress:
    """Lets a healed world run and watches it come to rest."""

    def __init__(self, world: World, liars: frozenset[int] = frozenset()) -> None:
        self._world = world
        self._nodes = [node for node in world.nodes if node.index not in liars]
        self.recovery_ms = 0
        """From healing until every node decided something new."""

    def demand(self, heights_min: int) -> bool:
        """Run the healed world to `heights_min` heights and to rest; answer whether it came there. A bound passed is a violation."""
        world = self._world
        target = max(node.height for node in self._nodes) + 1
        started_us = world.now_us
        if not self._wait(lambda: min(node.height for node in self._nodes) >= target, FIRST_BLOCK_MS):
            self._fail(f"not every node reached height {target} within {FIRST_BLOCK_MS} ms of healing")
            return False
        self.recovery_ms = (world.now_us - started_us) // 1000
        heights_ms = FIRST_BLOCK_MS + heights_min * (1_000 + 2 * world.plan.submit_interval_ms)
        if not self._wait(lambda: max(node.height for node in self._nodes) >= heights_min, heights_ms):
            self._fail(f"height {heights_min} was not reached within {heights_ms} ms")
            return False
        world.is_workload_over = True
        if not self._wait(self._is_at_rest, REST_MS):
            self._fail(f"the network did not come to rest within {REST_MS} ms of the last submission")
            return False
        return True

    def _wait(self, is_done: Callable[[], bool], for_ms: int) -> bool:
        world = self._world
        deadline_us = world.now_us + for_ms * 1000
        while not is_done():
            if world.violations or world.now_us >= deadline_us:
                return False
            world.run_until(world.now_us + SLICE_MS * 1000)
        return True

    def _is_at_rest(self) -> bool:
        """All at one height, every accepted transaction decided or expired there, and all evidence recorded."""
        nodes = self._nodes
        heights = {node.height for node in nodes}
        stores = [node.store for node in nodes if node.store is not None and node.state is not NodeState.DOWN]
        if len(heights) > 1 or len(stores) < len(nodes):
            return False  # who died after healing (a scripted crash, a full disk just before it) is waited for
        if any(True for store in stores for _ in store.iterate(layout.EVIDENCE, prefix_end(layout.EVIDENCE))):
            return False
        head = nodes[0].height
        for identity, transaction in self._world.workload.book.accepted.items():
            if transaction.body.valid_until > head and stores[0].get(layout.transaction_key(identity)) is None:
                return False
        return True

    def _fail(self, message: str) -> None:
        if not self._world.violations:
            heights = ", ".join(str(node.height) for node in self._world.nodes)
            self._world.violate(NAME, f"{message} (heights: {heights})")
