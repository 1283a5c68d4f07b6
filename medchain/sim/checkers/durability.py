"""Durability: what a client was told is accepted is on the disk, ends in one block on every node or expires, and is never doubled.

(lessons.md: cometbft #1516, "OK" for a transaction that the pool dropped.)
"""

from __future__ import annotations

from medchain.engine.ready import Accepted, TransactionsExpired
from medchain.errors import Malformed
from medchain.sim.checkers.case import Case, Ending
from medchain.sim.node import Turn
from medchain.store import layout
from medchain.store.keyvalue import KeyValue, prefix_end

NAME = "durability"


class Durability:
    """Checks each acceptance when it is said, and all of them at the end."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._blocks: dict[bytes, tuple[bytes, ...]] = {}
        self.decided = 0
        self.expired = 0
        self.batched_decided = 0
        """Of the decided, how many clients had signed together with others."""
        self.batches_split = 0
        """Batches whose transactions stand in more than one block."""

    def on_turn(self, turn: Turn) -> None:
        """Accepted means: in the pool or in a block, durably, before the answer left; or expired in this very turn, and told so."""
        expired = [identity for reply in turn.replies if isinstance(reply, TransactionsExpired) for identity in reply.transaction_ids]
        for reply in turn.replies:
            if isinstance(reply, Accepted) and reply.transaction_id not in expired:
                identity = reply.transaction_id
                if turn.store.get(layout.pool_key(identity)) is None and turn.store.get(layout.transaction_key(identity)) is None:
                    self._case.find(NAME, f"node {turn.node} accepted {identity[:6].hex()} without keeping it")

    def on_end(self, ending: Ending) -> None:
        """Every accepted transaction stands in one block everywhere, or its last height has passed."""
        for node, store in enumerate(ending.stores):
            if node not in self._case.liars:
                self._check_node(node, store, ending)

    def _check_node(self, node: int, store: KeyValue, ending: Ending) -> None:
        places: dict[bytes, int] = {}
        head = 0
        for key, digest in store.iterate(layout.BLOCK, prefix_end(layout.BLOCK)):
            height = int.from_bytes(key[len(layout.BLOCK) :], "big")
            head = max(head, height)
            for identity in self._ids_of(digest, store):
                if identity in places:
                    self._case.find(NAME, f"node {node} holds {identity[:6].hex()} in block {places[identity]} and in block {height}")
                places[identity] = height
        self.decided = self.expired = 0
        for identity, transaction in ending.accepted.items():
            if identity in places:
                self.decided += 1
            elif transaction.body.valid_until <= head:
                self.expired += 1
            elif ending.is_at_rest:
                valid_until = transaction.body.valid_until
                self._case.find(NAME, f"node {node} lost {identity[:6].hex()}: accepted, valid until {valid_until}, not in {head} blocks")
            elif all(other.get(layout.pool_key(identity)) is None for other in ending.stores):
                decided_elsewhere = any(other.get(layout.transaction_key(identity)) is not None for other in ending.stores)
                if not decided_elsewhere:
                    self._case.find(NAME, f"{identity[:6].hex()} was accepted and is in no pool and no block")
        self._count_batches(ending, places)
        self._check_index(node, store, places)

    def _count_batches(self, ending: Ending, places: dict[bytes, int]) -> None:
        """Count what became of batches: to show what a seed contained; no promise is about them, each transaction stands for itself."""
        heights_of: dict[bytes, set[int]] = {}
        self.batched_decided = 0
        for identity, transaction in ending.accepted.items():
            if transaction.batch_root is not None and identity in places:
                self.batched_decided += 1
                heights_of.setdefault(transaction.batch_root, set()).add(places[identity])
        self.batches_split = sum(len(heights) > 1 for heights in heights_of.values())

    def _check_index(self, node: int, store: KeyValue, places: dict[bytes, int]) -> None:
        for identity, height in places.items():
            stored = store.get(layout.transaction_key(identity))
            if stored is None or int.from_bytes(stored[:8], "big") != height:
                self._case.find(NAME, f"node {node}'s index does not lead to {identity[:6].hex()} in block {height}")
                return

    def _ids_of(self, digest: bytes, store: KeyValue) -> tuple[bytes, ...]:
        known = self._blocks.get(digest)
        if known is None:
            data = store.get(layout.body_key(digest))
            try:
                known = () if data is None else tuple([identity for identity, _ in self._case.block(data).entries])
            except Malformed:
                known = ()  # the certificates checker tells of unreadable blocks
            self._blocks[digest] = known
        return known
