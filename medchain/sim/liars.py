"""Liars: engines that break the rules on purpose, up to f of them in a world; the honest must neither part nor stop for them.

Each wraps the real engine and spoils what it says, so that its lies are as plausible as lies get. A liar whose engine stops over its own
lies falls silent, which is one more way to be faulty. Knows the messages, not the inside of the engine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from medchain.chain.domain import Domain
from medchain.chain.vote import COMMIT, PREPARE, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.crypto.hashing import tagged_digest
from medchain.engine.ready import Envelope, Event, PeerConnected, PeerDisconnected, Ready, Received, Submitted
from medchain.errors import MedchainError
from medchain.sim.node import EngineBuilder, EngineLike, Start
from medchain.store.keyvalue import WriteBatch
from medchain.store.memory import MemoryKeyValue
from medchain.wire.peer import PastVotesSent, PeerMessage, RangeSent

REMEMBERED_MAX: Final = 300
"""Messages that a replayer keeps."""


class Liar:
    """What all liars share: their dice, their peers, and silence when their own engine stops."""

    def __init__(self, start: Start, engine: EngineLike) -> None:
        self.start = start
        self.network: Domain = start.genesis.domain()
        self.dice = random.Random(f"medchain/liar/{start.genesis.chain_id}/{start.node}")
        self.peers = tuple([hospital.consensus_key for hospital in start.genesis.hospitals if hospital.consensus_key != start.key.public])
        self._engine = engine
        self._is_silent = False

    def handle_all(self, events: Sequence[Event]) -> Ready:
        """Take events, lie."""
        if self._is_silent:
            return Ready()
        try:
            return self.lie(events)
        except MedchainError:
            self._is_silent = True
            return Ready()

    def lie(self, events: Sequence[Event]) -> Ready:
        """Take events, return what to do, spoilt."""
        ready = self._engine.handle_all(events)
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


class DoubleVoter(Liar):
    """Signs every vote twice: for the block to some, for another one to the rest."""

    def spoil(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Give every second receiver the other vote, now and then both."""
        said: list[Envelope] = []
        for envelope in envelopes:
            vote = envelope.message
            if not isinstance(vote, Vote) or vote.signer != self.start.key.public:
                said.append(envelope)
                continue
            other = Vote.sign(self.network, self.start.key, vote.kind, vote.height, vote.view, self.other_digest(vote.digest))
            for single in self.spread(envelope):
                roll = self.dice.randrange(3)
                if roll != 1:
                    said.append(single)
                if roll:
                    said.append(Envelope(single.to, other))
        return said


class HalfDeaf(Liar):
    """Says nothing at all to some, and no votes to others, chosen anew now and then."""

    def spoil(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Leave envelopes out."""
        muted = self.peers[self.dice.randrange(len(self.peers))]
        is_withholding = self.dice.randrange(3) == 0
        return [
            single
            for envelope in envelopes
            for single in self.spread(envelope)
            if single.to != muted and not (is_withholding and isinstance(single.message, Vote))
        ]


class Replayer(Liar):
    """Says again what it heard and said before, to anyone, at any time."""

    def __init__(self, start: Start, engine: EngineLike) -> None:
        super().__init__(start, engine)
        self._heard: list[PeerMessage] = []

    def lie(self, events: Sequence[Event]) -> Ready:
        """Remember, then repeat."""
        self._heard += [event.message for event in events if isinstance(event, Received)]
        ready = self._engine.handle_all(events)
        self._heard += [envelope.message for envelope in ready.send]
        del self._heard[:-REMEMBERED_MAX]
        again = [Envelope(self.dice.choice(self.peers), self.dice.choice(self._heard)) for _ in range(3) if self._heard]
        return replace(ready, send=(*ready.send, *again))


class Forger(Liar):
    """Forges votes and view changes of others, and claims views far ahead for itself."""

    def spoil(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Add forgeries beside the truth."""
        said = list(envelopes)
        for envelope in envelopes:
            message = envelope.message
            if not isinstance(message, Vote | ViewChange | PrePrepare) or self.dice.randrange(3):
                continue
            victim, noise = self.dice.choice(self.peers), self.dice.randbytes(64)
            if isinstance(message, Vote):
                said.append(Envelope(None, replace(message, signer=victim, signature=noise)))
            far = self.dice.choice((1, 2, 5, 1_000_000))
            said.append(Envelope(None, ViewChange.sign(self.network, self.start.key, message.height, far, None)))
            kind = self.dice.choice((PREPARE, COMMIT))
            digest = self.other_digest(noise)
            said.append(Envelope(None, Vote.sign(self.network, self.start.key, kind, message.height, self.dice.randrange(4), digest)))
        return said


class Twins(Liar):
    """Two copies of one identity with two disks, each talking to its own side (Bano et al. 2020, "Twins: BFT systems made robust").

    All twins of a world cut the honest in the same two sides (one may be in both); accomplices hear both copies.
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
        first = self._engine.handle_all(self._heard(events, 0))
        second = self._twin.handle_all([event for event in self._heard(events, 1) if not isinstance(event, Submitted)])
        self._twin_store.write(second.batch)
        return Ready(first.batch, (*self._said(first, 0), *self._said(second, 1)), first.replies)

    def _heard(self, events: Sequence[Event], side: int) -> list[Event]:
        heard: list[Event] = []
        for event in events:
            if isinstance(event, PeerConnected | PeerDisconnected | Received) and event.peer not in self._sides[side]:
                continue
            if isinstance(event, Received):
                event = replace(event, message=self._without_own(event.message))
            heard.append(event)
        return heard

    def _without_own(self, message: PeerMessage) -> PeerMessage:
        """Keep from a copy what shows that there is another."""
        own = self.start.key.public
        if not isinstance(message, PastVotesSent):
            return message
        votes = tuple([vote for vote in message.votes if vote.signer != own])
        return replace(message, votes=votes, view_changes=tuple([change for change in message.view_changes if change.signer != own]))

    def _said(self, ready: Ready, side: int) -> list[Envelope]:
        return [single for envelope in ready.send for single in self.spread(envelope) if single.to in self._sides[side]]


class RangeLiar(Liar):
    """Answers those who catch up with blocks whose certificates do not hold."""

    def spoil(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Swap a certificate's signature for another one of it."""
        return [replace(envelope, message=self._false(envelope.message)) for envelope in envelopes]

    def _false(self, message: PeerMessage) -> PeerMessage:
        if not isinstance(message, RangeSent) or not message.blocks or self.dice.randrange(2):
            return message
        block, certificate = message.blocks[-1]
        swapped = tuple([(index, certificate.commits[-1][1]) for index, _ in certificate.commits])
        return RangeSent((*message.blocks[:-1], (block, replace(certificate, commits=swapped))))


LiarMaker = Callable[[Start, EngineBuilder], EngineLike]


def _plain(kind: type[Liar]) -> LiarMaker:
    return lambda start, builder: kind(start, builder(start))


def twins(founding: WriteBatch, accomplices: frozenset[bytes]) -> LiarMaker:
    """Return the maker of Twins; the second copy starts on a store of its own, founded like any. `accomplices`: keys of all liars."""

    def make(start: Start, builder: EngineBuilder) -> EngineLike:
        store = MemoryKeyValue()
        store.write(founding)
        twin = replace(start, store=store, challenge=tagged_digest("medchain/sim/twin", start.challenge))
        return Twins(start, builder(start), builder(twin), store, accomplices)

    return make


def liar_makers(founding: WriteBatch, accomplices: frozenset[bytes]) -> dict[str, LiarMaker]:
    """Return every kind of liar by name, for worlds in which `accomplices` (consensus keys) are the liars."""
    return {
        "double voter": _plain(DoubleVoter),
        "half deaf": _plain(HalfDeaf),
        "replayer": _plain(Replayer),
        "forger": _plain(Forger),
        "range liar": _plain(RangeLiar),
        "twins": twins(founding, accomplices),
    }


LIAR_KINDS: Final = ("double voter", "half deaf", "replayer", "forger", "range liar", "twins")


def draw_liars(seed: int, nodes: int) -> dict[int, str]:
    """Return which nodes of a seed lie and how: at least one, at most f."""
    dice = random.Random(f"medchain/liars/{seed}")
    count = dice.randint(1, (nodes - 1) // 3)
    return {node: dice.choice(LIAR_KINDS) for node in sorted(dice.sample(range(nodes), count))}


def with_liars(builder: EngineBuilder, makers: dict[int, LiarMaker]) -> EngineBuilder:
    """Return a builder that puts these liars in the place of these nodes."""

    def build(start: Start) -> EngineLike:
        maker = makers.get(start.node)
        return builder(start) if maker is None else maker(start, builder)

    return build
