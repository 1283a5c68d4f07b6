"""What all liars share: dice, peers, a shield against seeing themselves, and silence when their own engine stops.

A liar whose engine stops over its own lies falls silent, which is one more way to be faulty.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from medchain.chain.domain import Domain
from medchain.chain.validators import quorum
from medchain.chain.vote import PREPARE, PreparedProof, ViewChange, Vote
from medchain.crypto.hashing import tagged_digest
from medchain.engine.ready import Envelope, Event, Ready, Received
from medchain.errors import MedchainError
from medchain.sim.node import EngineBuilder, EngineLike, Start
from medchain.wire.peer import PastVotesSent, PeerMessage

LiarMaker = Callable[[Start, EngineBuilder], EngineLike]
"""Builds the liar that takes a node's place; the builder makes the engine (or the other liar) inside it."""


class Liar:
    """A node that lies."""

    def __init__(self, start: Start, engine: EngineLike) -> None:
        self.start = start
        self.network: Domain = start.genesis.domain()
        self.own = start.key.public
        self.dice = random.Random(f"medchain/liar/{type(self).__name__}/{start.genesis.chain_id}/{start.node}")
        self.peers = tuple([hospital.consensus_key for hospital in start.genesis.hospitals if hospital.consensus_key != self.own])
        self.engine = engine
        self.real: EngineLike = engine.real if isinstance(engine, Liar) else engine
        """The engine under all liars."""
        self._is_silent = False

    def handle_all(self, events: Sequence[Event]) -> Ready:
        """Take events, lie."""
        if self._is_silent:
            return Ready()
        try:
            return self.lie([self.shielded(event) for event in events])
        except MedchainError:
            self._is_silent = True
            return Ready()

    def lie(self, events: Sequence[Event]) -> Ready:
        """Take events, return what to do, spoilt."""
        ready = self.engine.handle_all(events)
        return replace(ready, send=tuple(self.spoil(ready.send)))

    def spoil(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Change what is said."""
        return list(envelopes)

    def spread(self, envelope: Envelope) -> list[Envelope]:
        """Return one envelope a receiver."""
        return [envelope] if envelope.to is not None else [Envelope(peer, envelope.message) for peer in self.peers]

    def other_digest(self, digest: bytes) -> bytes:
        """Return the digest of no block."""
        return tagged_digest("medchain/sim/lie", digest)

    def vote(self, kind: int, height: int, view: int, digest: bytes) -> Vote:
        """Sign a vote for anything."""
        return Vote.sign(self.network, self.start.key, kind, height, view, digest)

    def false_proof(self, height: int, view: int, digest: bytes) -> PreparedProof:
        """Return a proof in which one's own signature stands in everybody's place."""
        own = self.vote(PREPARE, height, view, digest).signature
        return PreparedProof(height, view, digest, tuple([(index, own) for index in range(quorum(len(self.peers) + 1))]))

    def shielded(self, event: Event) -> Event:
        """Keep from the own engine what shows it that it said something else: it would stop voting, and lie no more."""
        if not isinstance(event, Received) or not isinstance(event.message, PastVotesSent):
            return event
        message = event.message
        votes = tuple([vote for vote in message.votes if vote.signer != self.own])
        changes = tuple([change for change in message.view_changes if change.signer != self.own])
        return replace(event, message=replace(message, votes=votes, view_changes=changes))

    def is_own(self, message: PeerMessage) -> bool:
        """Answer whether a message is a statement signed with the own key."""
        return isinstance(message, Vote | ViewChange) and message.signer == self.own
