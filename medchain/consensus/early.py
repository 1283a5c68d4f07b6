"""Messages of the next height that arrive while this one is still undecided here: kept, so that one late commit costs no resend interval.

Who leads the next height is known only once this one is decided; the present rotation is a good guess, and where a validator was left out
or came back a few others are kept as well. One vote of each kind per validator; anything further ahead is healed by resending and catching
up. Knows no rule but these bounds.
"""

from __future__ import annotations

from typing import Final

from medchain.chain.validators import ValidatorSet
from medchain.chain.vote import Vote
from medchain.consensus.messages import PrePrepare
from medchain.consensus.rotation import primary
from medchain.consensus.tally import VIEWS_KEPT

OTHERS_MAX: Final = 3
"""Pre-prepares kept besides the likely primary's: lists of up to a megabyte, and a rotation changes by few places at once."""


class EarlyMessages:
    """What is held for one height to come."""

    def __init__(self) -> None:
        self.height = 0
        self._likely: PrePrepare | None = None
        self._others: dict[bytes, PrePrepare] = {}
        self._votes: dict[tuple[int, bytes], Vote] = {}

    def expect(self, height: int) -> None:
        """Hold messages of this height from now on, and none of another."""
        if height != self.height:
            self.height = height
            self._forget()

    def _forget(self) -> None:
        self._likely, self._others, self._votes = None, {}, {}

    def add_pre_prepare(self, message: PrePrepare, validators: ValidatorSet, rotation: tuple[bytes, ...]) -> None:
        """Keep the first pre-prepare of view 0 by the primary as the present rotation tells, and the first of a few other validators."""
        if message.height != self.height or message.view != 0 or message.view_changes:
            return
        signer = message.prepare.signer
        if signer == primary(rotation, self.height, 0):
            self._likely = self._likely or message
        elif validators.is_voter(signer) and len(self._others) < OTHERS_MAX:
            self._others.setdefault(signer, message)

    def add_vote(self, vote: Vote, validators: ValidatorSet) -> None:
        """Keep the vote of the lowest view of each validator and kind: the height will begin in view 0."""
        if vote.height != self.height or not validators.is_voter(vote.signer):
            return
        held = self._votes.get((vote.kind, vote.signer))
        if held is None or vote.view < held.view:
            self._votes[vote.kind, vote.signer] = vote

    def is_expected(self, vote: Vote) -> bool:
        """Answer whether a vote would be kept, or is the one that is."""
        held = self._votes.get((vote.kind, vote.signer))
        return vote.view < VIEWS_KEPT if held is None else vote.view < held.view or vote == held

    def votes_of(self, signer: bytes) -> tuple[Vote, ...]:
        """Return the votes held of one signer."""
        return tuple(vote for (_, key), vote in self._votes.items() if key == signer)

    def take(self, height: int) -> tuple[tuple[PrePrepare, ...], tuple[Vote, ...]]:
        """Return the pre-prepares and votes held for this height, and forget everything."""
        likely = () if self._likely is None else (self._likely,)
        found = ((*likely, *self._others.values()), tuple(self._votes.values())) if height == self.height else ((), ())
        self._forget()
        return found
