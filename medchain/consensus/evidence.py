"""Contradictions between signed statements of one validator, each reported once a height.

What contradicts what is chain/evidence.py's rule; here is what was told already. Punishes nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

from medchain.chain.evidence import VIEW_CHANGE_LIE, Statement, is_lie
from medchain.chain.vote import ViewChange, Vote
from medchain.consensus.events import EvidenceFound


class Reports:
    """What was reported at one height: at most one piece of evidence of each kind for each validator."""

    def __init__(self) -> None:
        self._done: dict[tuple[bytes, str], None] = {}

    def report(self, kind: str, first: Statement, second: Statement) -> list[EvidenceFound]:
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
