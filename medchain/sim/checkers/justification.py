"""Justification: above view 0 honest nodes prepare only what q view changes oblige its primary to propose (protocol.md, "View change").

Judged by the words of the protocol on the pre-prepares that were sent, by whomever: exactly q view changes of distinct validators for
exactly this view; if one of them shows a prepared block, the highest shown is proven and is the block; if none does, the block is fresh.
"""

from __future__ import annotations

from medchain.chain.vote import PREPARE, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.errors import Malformed
from medchain.sim.checkers.case import Case, Ending
from medchain.sim.node import Turn

NAME = "justification"
Place = tuple[int, int, bytes]
"""(height, view, digest)."""


class Justification:
    """Remembers what was justified, and who prepared what was not."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._justified: set[Place] = set()
        self._unjustified: dict[Place, set[bytes]] = {}

    def on_turn(self, turn: Turn) -> None:
        """Look at pre-prepares, then at prepares."""
        for message in turn.sent:
            if isinstance(message, PrePrepare):
                place = (message.height, message.view, message.digest)
                if message.view > 0 and place not in self._justified and self._is_justified(message):
                    self._justified.add(place)
                self._prepare(message.prepare)
            elif isinstance(message, Vote):
                self._prepare(message)

    def on_end(self, ending: Ending) -> None:
        """Nothing is left to ask."""

    def _prepare(self, vote: Vote) -> None:
        """Two honest prepares of what nobody justified are a fault; one alone may be a primary's that died before it could say why."""
        place = (vote.height, vote.view, vote.digest)
        if vote.kind != PREPARE or vote.view == 0 or place in self._justified or not self._case.is_honest(vote.signer):
            return
        signers = self._unjustified.setdefault(place, set())
        if vote.signer in signers or not self._case.are_valid([vote.verification(self._case.network)]):
            return
        signers.add(vote.signer)
        if len(signers) == 2:
            what = f"a block of height {vote.height} in view {vote.view}"
            self._case.find(NAME, f"{self._case.name(vote.signer)} and another honest node prepared {what} that no q view changes justify")

    def _is_justified(self, message: PrePrepare) -> bool:
        changes, validators = message.view_changes, self._case.validators
        if len({change.signer for change in changes}) != validators.quorum or len(changes) != validators.quorum:
            return False
        if any((change.height, change.view) != (message.height, message.view) for change in changes):
            return False
        if not all(validators.is_voter(change.signer) for change in changes):
            return False
        if not self._case.are_valid([change.verification(self._case.network) for change in changes]):
            return False
        shown = [change for change in changes if change.prepared_view is not None]
        if not shown:
            return message.proposal.header.view == message.view
        highest = max(change.prepared_view for change in shown if change.prepared_view is not None)
        blocks = {change.digest for change in shown if change.prepared_view == highest}
        return blocks == {message.digest} and any(self._is_proven(change) for change in shown if change.prepared_view == highest)

    def _is_proven(self, change: ViewChange) -> bool:
        proof = change.proof
        if proof is None or (proof.height, proof.view, proof.digest) != (change.height, change.prepared_view, change.digest):
            return False
        try:
            return self._case.are_valid(proof.verifications(self._case.network, self._case.validators))
        except Malformed:
            return False
