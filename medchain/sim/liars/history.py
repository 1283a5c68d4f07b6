"""Liars about the past: to those who catch up, and to those who ask which of their votes one holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from medchain.chain.limits import HEIGHT_MAX
from medchain.chain.vote import COMMIT, PREPARE, Vote
from medchain.engine.ready import Envelope, Event, Ready, Received
from medchain.sim.liars.liar import Liar
from medchain.sim.node import EngineLike, Start
from medchain.wire.peer import (
    BlockSent,
    BlockWanted,
    PastVotesSent,
    PastVotesWanted,
    PeerMessage,
    PeerStatus,
    PoolListed,
    RangeSent,
    RangeWanted,
    TransactionsWanted,
)

PAST_KEPT: Final = 200
"""Old votes of others that an amnesia liar keeps."""


class SyncLiar(Liar):
    """Lies to those who catch up: certificates that do not hold, other blocks than asked for, heights nobody reached, ranges without end
    or content, ids of transactions that do not exist.

    Tests that a block is believed for its certificate alone, that a liar in sync is found and left aside (lessons.md: FISCO-BCOS #3307),
    and that a hint is no more than a hint.
    """

    def __init__(self, start: Start, engine: EngineLike) -> None:
        super().__init__(start, engine)
        self._answers: list[RangeSent] = []

    def lie(self, events: Sequence[Event]) -> Ready:
        """Repeat old ranges unasked, besides."""
        ready = super().lie(events)
        self._answers += [envelope.message for envelope in ready.send if isinstance(envelope.message, RangeSent)]
        del self._answers[:-8]
        if not self._answers or self.dice.randrange(8):
            return ready
        again = [Envelope(self.dice.choice(self.peers), self.dice.choice(self._answers)) for _ in range(3)]
        return replace(ready, send=(*ready.send, *again))

    def spoil(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Swap answers for false ones."""
        said: list[Envelope] = []
        for envelope in envelopes:
            message = self._false(envelope.message)
            if message is not None:
                said.append(replace(envelope, message=message))
        return said

    def _false(self, message: PeerMessage) -> PeerMessage | None:
        roll = self.dice.randrange(4)
        if isinstance(message, PeerStatus) and roll == 0:
            far = self.dice.choice((1, 5, 1_000, HEIGHT_MAX - message.height))
            return PeerStatus(message.height + far, self.other_digest(message.digest))
        if isinstance(message, PoolListed) and roll == 0:
            return PoolListed(tuple([(self.dice.randbytes(32), self.dice.randbytes(32)) for _ in range(50)]))
        if isinstance(message, BlockSent) and roll:
            return self._other_block(message)
        if isinstance(message, RangeSent) and message.blocks:
            return self._false_range(message, roll)
        return message

    def _other_block(self, message: BlockSent) -> BlockSent:
        header = replace(message.block.header, state_root=self.other_digest(message.block.header.state_root))
        return BlockSent(replace(message.block, header=header))

    def _false_range(self, message: RangeSent, roll: int) -> PeerMessage | None:
        if roll == 0:
            return self.dice.choice((RangeSent(()), None))
        if roll == 1:
            return message
        block, certificate = message.blocks[-1]
        if roll == 2:
            swapped = tuple([(index, certificate.commits[-1][1]) for index, _ in certificate.commits])
            return RangeSent((*message.blocks[:-1], (block, replace(certificate, commits=swapped))))
        false = replace(block, header=replace(block.header, time_ms=block.header.time_ms + 1))
        digest = false.header.digest()
        own = self.vote(COMMIT, certificate.height, certificate.view, digest).signature
        commits = tuple([(index, own) for index, _ in certificate.commits])
        return RangeSent((*message.blocks[:-1], (false, replace(certificate, digest=digest, commits=commits))))


class AmnesiaLiar(Liar):
    """Answers those who ask for their past votes with less, with more, with old ones, or as somebody who knows of no height at all.

    Tests that pruned votes of decided heights make nobody an observer for ever, that a forged vote counts for nothing, that q answers are
    awaited, and that a height is believed for its certificate.
    """

    def __init__(self, start: Start, engine: EngineLike) -> None:
        super().__init__(start, engine)
        self._past: list[Vote] = []

    def lie(self, events: Sequence[Event]) -> Ready:
        """Collect votes, then lie."""
        self._past += [event.message for event in events if isinstance(event, Received) and isinstance(event.message, Vote)]
        del self._past[:-PAST_KEPT]
        return super().lie(events)

    def spoil(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Swap answers for false ones."""
        said: list[Envelope] = []
        for envelope in envelopes:
            message = envelope.message
            said.append(replace(envelope, message=self._false(envelope.to, message)) if isinstance(message, PastVotesSent) else envelope)
        return said

    def _false(self, asker: bytes | None, message: PastVotesSent) -> PastVotesSent:
        kind = self.dice.randrange(6)
        if kind == 0:
            return message
        if kind == 1:
            return replace(message, votes=(), view_changes=())
        if kind == 2:
            return PastVotesSent(message.challenge, 0, None, (), ())
        if kind == 3:
            return replace(message, height=message.height + 1_000)
        if kind == 4 and asker is not None:
            forged = Vote(PREPARE, message.height + 1, 0, self.other_digest(asker), asker, bytes(64))
            return replace(message, votes=(*message.votes, forged))
        return replace(message, votes=tuple([vote for vote in self._past if vote.signer == asker]))


class Spammer(Liar):
    """Asks everybody for everything all the time, and lists, offers and votes without end; what it says is well formed.

    Tests that questions cost the asker its allowance, that memory per peer is bounded, and that answers to others do not wait for it.
    """

    def lie(self, events: Sequence[Event]) -> Ready:
        """Add a flood."""
        ready = self.engine.handle_all(events)
        if self.dice.randrange(3):
            return ready
        peer = self.dice.choice(self.peers)
        return replace(ready, send=(*ready.send, *[Envelope(peer, self._noise()) for _ in range(12)]))

    def _noise(self) -> PeerMessage:
        dice = self.dice
        digest = dice.randbytes(32)
        kind = dice.randrange(7)
        height = dice.choice((1, 2, 10, 10**9))
        if kind == 0:
            return BlockWanted(height, digest)
        if kind == 1:
            return RangeWanted(height, 64)
        if kind == 2:
            return PastVotesWanted(digest)
        if kind == 3:
            return TransactionsWanted(tuple([(dice.randbytes(32), digest) for _ in range(30)]))
        if kind == 4:
            return PoolListed(tuple([(dice.randbytes(32), digest) for _ in range(30)]))
        if kind == 5:
            return PeerStatus(height, digest)
        return self.vote(dice.choice((PREPARE, COMMIT)), height, dice.randrange(3), digest)
