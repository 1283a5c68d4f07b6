"""Liars about votes: two votes, votes for everything, no votes, votes to some, votes of others, votes of long ago, views far away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from medchain.chain.limits import VIEW_MAX
from medchain.chain.vote import COMMIT, PREPARE, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.engine.ready import Envelope, Event, Ready, Received
from medchain.sim.liars.liar import Liar
from medchain.sim.node import EngineLike, Start
from medchain.wire.peer import PeerMessage

REMEMBERED_MAX: Final = 300
"""Messages that a replayer keeps."""


class DoubleVoter(Liar):
    """Signs every vote twice: for the block to some, for another one to the rest.

    Tests that a vote counts for one digest only, that q intersects in an honest node, and that equivocation is found out.
    """

    def spoil(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Give every second receiver the other vote, now and then both."""
        said: list[Envelope] = []
        for envelope in envelopes:
            vote = envelope.message
            if not isinstance(vote, Vote) or vote.signer != self.own:
                said.append(envelope)
                continue
            other = self.vote(vote.kind, vote.height, vote.view, self.other_digest(vote.digest))
            for single in self.spread(envelope):
                roll = self.dice.randrange(3)
                if roll != 1:
                    said.append(single)
                if roll:
                    said.append(Envelope(single.to, other))
        return said


class YesMan(Liar):
    """Prepares and commits whatever anybody proposes or votes for, unread, at once and in every view.

    Tests that votes of f accomplices never make two quorums, and that nobody counts one signer's votes of two kinds or views together.
    """

    def __init__(self, start: Start, engine: EngineLike) -> None:
        super().__init__(start, engine)
        self._said: dict[tuple[int, int, bytes], None] = {}

    def lie(self, events: Sequence[Event]) -> Ready:
        """Listen, agree."""
        agreed: list[Envelope] = []
        for event in events:
            if isinstance(event, Received) and isinstance(event.message, PrePrepare | Vote):
                place = (event.message.height, event.message.view, event.message.digest)
                if place not in self._said:
                    self._said[place] = None
                    agreed += [Envelope(None, self.vote(kind, *place)) for kind in (PREPARE, COMMIT)]
        while len(self._said) > REMEMBERED_MAX:
            del self._said[next(iter(self._said))]
        ready = self.engine.handle_all(events)
        return replace(ready, send=(*ready.send, *agreed))


class HalfDeaf(Liar):
    """Says nothing at all to some, and no votes to others, chosen anew now and then.

    Tests that selective silence wedges nobody: what only another one was told is sent again, asked for, or done without.
    """

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


class Withholder(Liar):
    """Never votes and never changes a view, but proposes, gossips and answers like the best.

    Tests that f missing votes are no reason to wait, and that q of the others suffice everywhere.
    """

    def spoil(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Leave every own statement out."""
        return [envelope for envelope in envelopes if not self.is_own(envelope.message)]


class Replayer(Liar):
    """Says again what it heard and said before, to anyone, at any time.

    Tests that old statements bind nobody to anything new, whoever relays them.
    """

    def __init__(self, start: Start, engine: EngineLike) -> None:
        super().__init__(start, engine)
        self._heard: list[PeerMessage] = []

    def lie(self, events: Sequence[Event]) -> Ready:
        """Remember, then repeat."""
        self._heard += [event.message for event in events if isinstance(event, Received)]
        ready = self.engine.handle_all(events)
        self._heard += [envelope.message for envelope in ready.send]
        del self._heard[:-REMEMBERED_MAX]
        again = [Envelope(self.dice.choice(self.peers), self.dice.choice(self._heard)) for _ in range(3) if self._heard]
        return replace(ready, send=(*ready.send, *again))


class Forger(Liar):
    """Forges votes and view changes of others, and says much that nobody asked for itself.

    Tests that a signature is checked wherever a statement comes in, and that a forger, not its victim, is named.
    """

    def spoil(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Add forgeries beside the truth."""
        said = list(envelopes)
        for envelope in envelopes:
            message = envelope.message
            if not isinstance(message, Vote | ViewChange | PrePrepare) or self.dice.randrange(3):
                continue
            victim, noise = self.dice.choice(self.peers), self.dice.randbytes(64)
            if isinstance(message, Vote | ViewChange):
                said.append(Envelope(None, replace(message, signer=victim, signature=noise)))
            if isinstance(message, Vote):
                said.append(Envelope(None, replace(message, signer=victim)))
            kind = self.dice.choice((PREPARE, COMMIT))
            said.append(Envelope(None, self.vote(kind, message.height, self.dice.randrange(4), self.other_digest(noise))))
        return said


class FarViewer(Liar):
    """Claims to be in views far ahead, up to the last number there is, and votes there.

    Tests that one huge number moves nobody and grows nothing (lessons.md: FISCO-BCOS #2211), and that nothing computes as long as a
    view number is large.
    """

    def spoil(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Add far view changes and votes."""
        said = list(envelopes)
        for envelope in envelopes:
            message = envelope.message
            if isinstance(message, Vote | ViewChange) and self.is_own(message) and self.dice.randrange(2) == 0:
                far = self.dice.choice((message.view + 1, message.view + 2, message.view + 5, 1_000_000, VIEW_MAX))
                said.append(Envelope(None, ViewChange.sign(self.network, self.start.key, message.height, far, None)))
                said.append(Envelope(None, self.vote(PREPARE, message.height, far, self.other_digest(b"far"))))
        return said
