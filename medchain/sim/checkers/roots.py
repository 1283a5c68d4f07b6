"""Roots: the state a node holds is the one its newest block names, and executing the chain anew from genesis gives every root again."""

from __future__ import annotations

from medchain.chain.block import ZERO_DIGEST
from medchain.chain.receipt import decode_receipts, receipts_root
from medchain.errors import Malformed
from medchain.ledger.apply import BlockContext, Carried, apply_block, genesis_changes, parameters_of
from medchain.sim.checkers.case import Case, Ending
from medchain.sim.node import Turn
from medchain.store import layout
from medchain.store.keyvalue import KeyValue, WriteBatch, prefix_end
from medchain.store.memory import MemoryKeyValue
from medchain.store.overlay import StoredState
from medchain.store.tree import StateTree

NAME = "roots"


class Roots:
    """Works at the end only: recomputes from what the stores hold."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._known_roots: list[tuple[list[tuple[bytes, bytes]], bytes]] = []

    def on_turn(self, turn: Turn) -> None:
        """Nothing to see while it runs."""

    def on_end(self, ending: Ending) -> None:
        """Rebuild every node's tree from its rows; execute the longest chain anew."""
        longest: tuple[int, KeyValue | None] = (0, None)
        for node, store in enumerate(ending.stores):
            head = store.get(layout.HEAD)
            height = 0 if head is None else int.from_bytes(head[:8], "big")
            if node in self._case.liars or not height:
                continue
            self._check_node(node, store, height)
            if height > longest[0]:
                longest = (height, store)
        if longest[1] is not None:
            self._replay(longest[1], longest[0])

    def _rows(self, store: KeyValue) -> list[tuple[bytes, bytes]]:
        start = layout.STATE
        return [(key[len(start) :], value) for key, value in store.iterate(start, prefix_end(start))]

    def _check_node(self, node: int, store: KeyValue, height: int) -> None:
        digest = store.get(layout.block_key(height))
        data = None if digest is None else store.get(layout.body_key(digest))
        if data is None:
            return  # the certificates checker tells of missing blocks
        try:
            header = self._case.block(data).header
        except Malformed:
            return
        root = self._root_of(self._rows(store))
        if root != header.state_root:
            self._case.find(NAME, f"node {node}'s state at height {height} has root {root[:6].hex()}, not {header.state_root[:6].hex()}")
        receipts = store.get(layout.receipts_key(height))
        if receipts is None or receipts_root(decode_receipts(receipts)) != header.receipts_root:
            self._case.find(NAME, f"node {node}'s receipts of height {height} are not those of its header")

    def _root_of(self, rows: list[tuple[bytes, bytes]]) -> bytes:
        """Return the root over rows; of nodes that hold the same rows it is computed once."""
        for known, root in self._known_roots:
            if known == rows:
                return root
        root = StateTree.rebuild(self._case.genesis.parameters.state_buckets, rows).root
        self._known_roots.append((rows, root))
        return root

    def _replay(self, store: KeyValue, head: int) -> None:
        """Execute the chain from genesis on a fresh state and compare both roots at every height."""
        fresh = MemoryKeyValue()
        tree = StateTree(self._case.genesis.parameters.state_buckets)
        self._adopt(fresh, tree, dict(genesis_changes(self._case.genesis)))
        proposer = ZERO_DIGEST
        for height in range(1, head + 1):
            digest = store.get(layout.block_key(height))
            data = None if digest is None else store.get(layout.body_key(digest))
            if data is None:
                return
            try:
                block = self._case.block(data)
            except Malformed:
                return  # the judge of certificates says so
            view = StoredState(fresh)
            context = BlockContext(height, block.header.time_ms, self._case.network, parameters_of(view))
            carried = Carried(block.last_commit, block.evidence, proposer)
            applied = apply_block(view, context, block.transactions, carried)
            proposer = block.header.proposer
            self._adopt(fresh, tree, applied.changes)
            if tree.root != block.header.state_root or receipts_root(applied.receipts) != block.header.receipts_root:
                self._case.find(NAME, f"executing block {height} anew gives other roots than its header names")
                return

    def _adopt(self, fresh: MemoryKeyValue, tree: StateTree, changes: dict[bytes, bytes | None]) -> None:
        tree.adopt(tree.preview(changes))
        fresh.write(WriteBatch(tuple([(layout.state_key(key), value) for key, value in changes.items()])))
