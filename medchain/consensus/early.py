"""Messages of the next height that arrive while this one is still undecided here: kept, so that one late commit costs no resend interval.

One pre-prepare in all and one vote of each kind per validator; anything further ahead is healed by resending and catching up. Knows no
rule but these bounds.
"""

from __future__ import annotations

from medchain.chain.validators import ValidatorSet
from medchain.chain.vote import Vote
from medchain.consensus.messages import PrePrepare
from medchain.consensus.rotation import primary


class EarlyMessages:
    """What is held for one height to come."""

    def __init__(self) -> None:
        self.height = 0
        self._pre_prepare: PrePrepare | None = None
        self._votes: dict[tuple[int, bytes], Vote] = {}

    def expect(self, height: int) -> None:
        """Hold messages of this height from now on, and none of another."""
        if height != self.height:
            self.height, self._pre_prepare, self._votes = height, None, {}

    def add_pre_prepare(self, message: PrePrepare, validators: ValidatorSet) -> None:
        """Keep the first pre-prepare by the primary of view 0, as the present set tells."""
        if message.height == self.height and message.view == 0 and not message.view_changes and self._pre_prepare is None:
            if message.prepare.signer == primary(validators, self.height, 0):
                self._pre_prepare = message

    def add_vote(self, vote: Vote, validators: ValidatorSet) -> None:
        """Keep the vote of the lowest view of each validator and kind: the height will begin in view 0."""
        if vote.height != self.height or not validators.is_voter(vote.signer):
            return
        held = self._votes.get((vote.kind, vote.signer))
        if held is None or vote.view < held.view:
            self._votes[vote.kind, vote.signer] = vote

    def votes_of(self, signer: bytes) -> tuple[Vote, ...]:
        """Return the votes held of one signer."""
        return tuple(vote for (_, key), vote in self._votes.items() if key == signer)

    def take(self, height: int) -> tuple[PrePrepare | None, tuple[Vote, ...]]:
        """Return what is held for this height, and forget everything."""
        found = (self._pre_prepare, tuple(self._votes.values())) if height == self.height else (None, ())
        self._pre_prepare, self._votes = None, {}
        return found
