"""The blocks a height has heard of: which are held with all their bytes, which were found valid, which questions were asked already.

Bounded: outside the pinned ones, only those of the current view are known. Executes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from medchain.chain.block import Proposal


class Proposals:
    """Proposals by digest."""

    def __init__(self, pinned: Iterable[Proposal]) -> None:
        self._known: dict[bytes, Proposal] = {}
        self._is_valid: dict[bytes, bool] = {}
        self._checking: dict[bytes, None] = {}
        self._fetching: dict[bytes, None] = {}
        for proposal in pinned:
            digest = proposal.header.digest()
            self._known[digest] = proposal
            self._is_valid[digest] = True

    def add(self, digest: bytes, proposal: Proposal) -> None:
        """Know a proposal from now on."""
        self._known.setdefault(digest, proposal)

    def get(self, digest: bytes) -> Proposal | None:
        """Return a known proposal."""
        return self._known.get(digest)

    def is_valid(self, digest: bytes) -> bool | None:
        """Answer whether executing it gave its roots; None = not known yet."""
        return self._is_valid.get(digest)

    def mark(self, digest: bytes, is_valid: bool) -> None:
        """Remember the answer for a known proposal; the first answer stays, since execution is deterministic."""
        if digest in self._known:
            self._is_valid.setdefault(digest, is_valid)

    def is_first_check(self, digest: bytes) -> bool:
        """Answer whether checking was not asked for in this view yet, and note that it is now."""
        is_first = digest not in self._checking
        self._checking[digest] = None
        return is_first

    def is_first_fetch(self, digest: bytes) -> bool:
        """Answer whether fetching was not asked for in this view yet, and note that it is now."""
        is_first = digest not in self._fetching
        self._fetching[digest] = None
        return is_first

    def is_fetching(self, digest: bytes) -> bool:
        """Answer whether fetching this block was asked for in this view."""
        return digest in self._fetching

    def keep_only(self, pinned: Iterable[Proposal]) -> None:
        """Forget everything but these: a view ended."""
        kept = {proposal.header.digest(): proposal for proposal in pinned}
        self._known = kept
        self._is_valid = {digest: True for digest in kept}
        self._checking, self._fetching = {}, {}
