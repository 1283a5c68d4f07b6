"""Twins: two copies of one identity (Bano et al. 2020, "Twins: BFT systems made robust")."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from medchain.crypto.hashing import tagged_digest
from medchain.engine.ready import Envelope, Event, PeerConnected, PeerDisconnected, Ready, Received, Submitted
from medchain.sim.liars.liar import Liar, LiarMaker
from medchain.sim.node import EngineBuilder, EngineLike, Start
from medchain.store.keyvalue import WriteBatch
from medchain.store.memory import MemoryKeyValue


class Twins(Liar):
    """Two copies of one identity with two disks, each talking to its own side.

    All twins of a world cut the honest in the same two sides (one may be in both); accomplices hear both copies. Each copy keeps every
    rule, so what tests here is q itself: whatever a copy may say, two sides never both have a quorum.
    """

    def __init__(
        self, start: Start, engine: EngineLike, twin: EngineLike, twin_store: MemoryKeyValue, accomplices: frozenset[bytes]
    ) -> None:
        super().__init__(start, engine)
        self._twin = twin
        self._twin_store = twin_store
        common = random.Random(f"medchain/twins/{start.genesis.chain_id}")
        honest = [hospital.consensus_key for hospital in start.genesis.hospitals if hospital.consensus_key not in accomplices]
        shuffled = common.sample(honest, len(honest))
        cut = common.randint(1, len(shuffled) - 1)
        overlap = 1 if len(shuffled) > 2 and common.randrange(2) else 0
        self._sides = (accomplices | frozenset(shuffled[: cut + overlap]), accomplices | frozenset(shuffled[cut:]))

    def lie(self, events: Sequence[Event]) -> Ready:
        """Let each copy hear its side and talk to it; the world sees the first one's disk and answers only."""
        first = self.engine.handle_all(self._heard(events, 0))
        second = self._twin.handle_all([event for event in self._heard(events, 1) if not isinstance(event, Submitted)])
        self._twin_store.write(second.batch)
        return Ready(first.batch, (*self._said(first, 0), *self._said(second, 1)), first.replies)

    def _heard(self, events: Sequence[Event], side: int) -> list[Event]:
        return [
            event
            for event in events
            if not isinstance(event, PeerConnected | PeerDisconnected | Received) or event.peer in self._sides[side]
        ]

    def _said(self, ready: Ready, side: int) -> list[Envelope]:
        return [single for envelope in ready.send for single in self.spread(envelope) if single.to in self._sides[side]]


def twins(founding: WriteBatch, accomplices: frozenset[bytes]) -> LiarMaker:
    """Return the maker of Twins; the second copy has a disk of its own, founded like any. `accomplices`: keys of all liars."""
    stores: dict[int, MemoryKeyValue] = {}

    def make(start: Start, builder: EngineBuilder) -> EngineLike:
        if start.node not in stores:
            stores[start.node] = MemoryKeyValue()
            stores[start.node].write(founding)
        store = stores[start.node]
        twin = replace(start, store=store, challenge=tagged_digest("medchain/sim/twin", start.challenge), is_store_damaged=False)
        return Twins(start, builder(start), builder(twin), store, accomplices)

    return make
