"""Contradictions between signed statements of one validator, each reported once a height.

Two kinds (protocol.md, "Equivocation"): same kind, height and view with other content; and a view change to w that shows prepared view p
(or none) although its signer committed in a view c with p < c < w. Anything looser convicts honest validators: a commit in c = p is what
honest ones do, and one in c >= w may be a late commit that follows a certificate. Punishes nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from medchain.chain.vote import COMMIT, ViewChange, Vote
from medchain.consensus.events import EvidenceFound

EQUIVOCATION: Final = "equivocation"
VIEW_CHANGE_LIE: Final = "view-change-lie"


def is_lie(change: ViewChange, commit: Vote) -> bool:
    """Answer whether a view change hides what its signer's commit shows to have been prepared."""
    prepared = -1 if change.prepared_view is None else change.prepared_view
    same = commit.kind == COMMIT and (commit.signer, commit.height) == (change.signer, change.height)
    return same and prepared < commit.view < change.view


class Reports:
    """What was reported at one height: at most one piece of evidence of each kind for each validator."""

    def __init__(self) -> None:
        self._done: dict[tuple[bytes, str], None] = {}

    def report(self, kind: str, first: Vote | ViewChange, second: Vote | ViewChange) -> list[EvidenceFound]:
        """Return the evidence unless this validator was reported for this kind already."""
        if (first.signer, kind) in self._done:
            return []
        self._done[first.signer, kind] = None
        return [EvidenceFound(first.signer, kind, first, second)]

    def report_lies(self, change: ViewChange, commits: Iterable[Vote]) -> list[EvidenceFound]:
        """Return evidence if a view change contradicts one of its signer's commits."""
        for commit in commits:
            if is_lie(change, commit):
                return self.report(VIEW_CHANGE_LIE, commit, change)
        return []
