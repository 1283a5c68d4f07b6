"""The connections of a world: pairs connect when they can, and each end notices in its own time that a connection is gone.

The network carries messages and `Wiring` says who believes in which connection; here is when that changes. Knows no message and no crash
point.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from medchain.engine.ready import Event, PeerConnected, PeerDisconnected
from medchain.sim.node import Node, NodeState
from medchain.sim.scene import Scene

WIRING_CHECK_US: Final = 100_000
"""How often ends notice dead connections and pairs try to connect."""


class Connections:
    """Makes and breaks connections, and tells the nodes."""

    def __init__(self, scene: Scene, dice: random.Random, push: Callable[[Node, Event], None]) -> None:
        """`push` puts an event into a living node's inbox."""
        self._identities = scene.identities
        self._timeline = scene.timeline
        self._network = scene.network
        self._wiring = scene.wiring
        self._tally = scene.tally
        self._nodes = scene.nodes
        self._dice = dice
        self._push = push

    def check(self) -> None:
        """Ends notice dead connections, each in its own time; pairs that can, connect."""
        nodes = self._nodes
        for first in range(len(nodes)):
            for second in range(first + 1, len(nodes)):
                self._check_pair(nodes[first], nodes[second])
        self._timeline.after(WIRING_CHECK_US, self.check)

    def _check_pair(self, left: Node, right: Node) -> None:
        wiring = self._wiring
        is_open = not self._network.is_blocked((left.index, right.index)) and not self._network.is_blocked((right.index, left.index))
        both_up = wiring.is_up(left.index, right.index) and wiring.is_up(right.index, left.index)
        if both_up and is_open and left.state is not NodeState.DOWN and right.state is not NodeState.DOWN:
            return
        can_connect = is_open and left.state is NodeState.UP and right.state is NodeState.UP
        if can_connect and not both_up and self._timeline.now_us >= wiring.retry_at(left.index, right.index):
            self._connect(left, right)
            return
        for node, peer in ((left, right), (right, left)):
            if wiring.is_up(node.index, peer.index) and self._dice.randrange(8) == 0:
                self._disconnect(node.index, peer.index)

    def _connect(self, left: Node, right: Node) -> None:
        for node, peer in ((left, right), (right, left)):
            if self._wiring.is_up(node.index, peer.index):
                self._disconnect(node.index, peer.index)
        self._wiring.connect(left.index, right.index)
        self._timeline.note(f"{left.index} and {right.index} connect")
        for node, peer in ((left, right), (right, left)):
            self._push(node, PeerConnected(self._identities.consensus[peer.index].public))

    def _drop_end(self, node: int, peer: int) -> None:
        self._wiring.drop_end(node, peer)
        self._network.forget_held((node, peer))
        self._network.forget_held((peer, node))

    def _disconnect(self, node: int, peer: int) -> None:
        """One end notices that its connection ended."""
        self._drop_end(node, peer)
        self._timeline.note(f"{node} loses {peer}")
        self._push(self._nodes[node], PeerDisconnected(self._identities.consensus[peer].public))

    def _notice(self, node: int, peer: int, epoch: int) -> None:
        if self._wiring.is_up(node, peer) and self._wiring.epoch(node, peer) == epoch:
            self._disconnect(node, peer)

    def flap(self, first: int, second: int) -> None:
        """Break the connection of a pair; each end notices at its own time, and both wait before they try again."""
        self._tally.count("flap")
        self._wiring.postpone(first, second, self._timeline.now_us + self._dice.randint(50_000, 600_000))
        epoch = self._wiring.epoch(first, second)
        for node, peer in ((first, second), (second, first)):
            self._timeline.after(self._dice.randrange(30_000), lambda node=node, peer=peer: self._notice(node, peer, epoch))  # type: ignore[misc]

    def cut_off(self, node: int) -> None:
        """The process of `node` died: its ends are gone, and most peers notice soon."""
        for peer in range(len(self._nodes)):
            if peer == node:
                continue
            self._drop_end(node, peer)
            if self._wiring.is_up(peer, node) and self._dice.randrange(4):
                epoch = self._wiring.epoch(node, peer)
                self._timeline.after(self._dice.randint(500, 20_000), lambda peer=peer, epoch=epoch: self._notice(peer, node, epoch))  # type: ignore[misc]
