"""The phases of a view as seen by one replica, and every legal move between them, in one table.

A phase is read off the state (it is no second truth); the table is what the tests hold every run against. After PBFT's log predicates
pre-prepared, prepared, committed-local (Castro & Liskov 1999, section 4.2).
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Phase(Enum):
    """Where a height stands here."""

    AWAITING = "awaiting a proposal"
    CHECKING = "checking a proposal"
    REFUSED = "the proposal was refused"
    ACCEPTED = "the proposal is valid, no own prepare yet"
    PREPARING = "prepare sent, awaiting a quorum of prepares"
    COMMITTING = "commit sent, awaiting a quorum of commits"
    DECIDED = "decided"


_FORWARD: Final[dict[Phase, tuple[Phase, ...]]] = {
    Phase.AWAITING: (Phase.CHECKING, Phase.ACCEPTED, Phase.PREPARING, Phase.COMMITTING),
    Phase.CHECKING: (Phase.REFUSED, Phase.ACCEPTED, Phase.PREPARING, Phase.COMMITTING),
    Phase.REFUSED: (Phase.COMMITTING,),
    Phase.ACCEPTED: (Phase.PREPARING, Phase.COMMITTING),
    Phase.PREPARING: (Phase.COMMITTING,),
    Phase.COMMITTING: (),
    Phase.DECIDED: (),
}
"""Moves within one view: never backwards."""


def is_legal_move(old: Phase, new: Phase, *, is_view_higher: bool) -> bool:
    """Answer whether one event may lead from a phase to another at one height.

    Any phase may end in DECIDED, since a certificate of any view is accepted; DECIDED is never left. A higher view begins anywhere, as one
    event may carry the view change and the proposal.
    """
    if old is Phase.DECIDED:
        return new is Phase.DECIDED
    return new is old or new is Phase.DECIDED or is_view_higher or new in _FORWARD[old]
