"""Views: nobody runs ahead alone. An honest node goes to view w because q support the one below or f + 1 this one, never for its own timer.

By the words of protocol.md ("View synchronisation", "Timers") on the view changes that were sent, by whomever: a timer above view 0 runs
only in a view that q validators support, and a higher view is followed when f + 1 support it. A node cut off from the others therefore
waits in view 1 however long it lasts, and is there when they come back (lessons.md: indy-node #1720).
"""

from __future__ import annotations

from collections.abc import Iterator

from medchain.chain.vote import ViewChange
from medchain.consensus.messages import PrePrepare
from medchain.sim.checkers.case import Case, Ending
from medchain.sim.node import Turn
from medchain.wire.peer import PastVotesSent, PeerMessage

NAME = "views"


class Views:
    """Remembers the newest view change of every validator at every height."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._newest: dict[int, dict[bytes, int]] = {}
        """Height → signer → greatest view that a view change by it was ever seen for."""

    def on_turn(self, turn: Turn) -> None:
        """Look at every view change that leaves a node; its signer's own first words about a view are judged."""
        for message in turn.sent:
            for change in _changes_in(message):
                if self._case.validators.index_of(change.signer) is None:
                    continue
                newest = self._newest.setdefault(change.height, {})
                if change.view <= newest.get(change.signer, 0):
                    continue
                newest[change.signer] = change.view
                if self._case.is_honest(change.signer) and self._case.validators.index_of(change.signer) == turn.node:
                    self._judge(change, newest)

    def on_end(self, ending: Ending) -> None:
        """Nothing is left to ask."""

    def _judge(self, change: ViewChange, newest: dict[bytes, int]) -> None:
        """Everything ever sent counts as heard, forged and lost messages too: this judge may be too kind and never too hard."""
        validators, views = self._case.validators, newest.values()
        is_due = change.view == 1 or sum(view >= change.view - 1 for view in views) >= validators.quorum
        is_followed = sum(view >= change.view for view in views) > validators.faults_tolerated + 1  # besides itself
        if not is_due and not is_followed:
            where = f"view {change.view} of height {change.height}"
            self._case.find(NAME, f"{self._case.name(change.signer)} went to {where}, where too few others are or were about to go")


def _changes_in(message: PeerMessage) -> Iterator[ViewChange]:
    match message:
        case ViewChange():
            yield message
        case PrePrepare() | PastVotesSent():
            yield from message.view_changes
        case _:
            return
