"""Votes counted by (kind, view, digest), in a room that knows no rules.

One vote per signer for each (kind, view): the first counts, a second with other content is handed back as a contradiction. Memory is
bounded for every signer: votes of views near the current one, and the newest of each kind wherever it is. What is forgotten comes again,
because honest validators resend what they said in their current view (DESIGN.md, "Memory").

Shape: malachite's votekeeper, etcd-io/raft's quorum/.
"""

from __future__ import annotations

from typing import Final

from medchain.chain.validators import ValidatorSet
from medchain.chain.vote import Signatures, Vote

VIEWS_KEPT: Final = 8
"""Views on either side of the current one whose votes are kept: views last a second and more, messages are late by less."""


class Tally:
    """The votes of one height by validators that may vote."""

    def __init__(self, validators: ValidatorSet) -> None:
        self._validators = validators
        self._centre = 0
        self._of_signer: dict[tuple[int, bytes], dict[int, Vote]] = {}
        self._groups: dict[tuple[int, int, bytes], dict[bytes, Vote]] = {}
        self._full: dict[tuple[int, int], bytes] = {}

    def add(self, vote: Vote) -> Vote | None:
        """Count a vote; return the vote it contradicts (then nothing was counted), or None. Votes of strangers are ignored."""
        if not self._validators.is_voter(vote.signer):
            return None
        kept = self._of_signer.setdefault((vote.kind, vote.signer), {})
        earlier = kept.get(vote.view)
        if earlier is not None:
            return None if earlier.digest == vote.digest else earlier
        if not self._is_near(vote.view) and kept and vote.view < max(kept):
            return None
        kept[vote.view] = vote
        group = self._groups.setdefault((vote.kind, vote.view, vote.digest), {})
        group[vote.signer] = vote
        if len(group) >= self._validators.quorum:
            self._full.setdefault((vote.kind, vote.view), vote.digest)
        self._trim(vote.kind, vote.signer)
        return None

    def is_expected(self, vote: Vote) -> bool:
        """Answer whether an honest validator would cast this vote now: near the current view, and not against one held of it."""
        earlier = self._of_signer.get((vote.kind, vote.signer), {}).get(vote.view)
        return self._is_near(vote.view) if earlier is None else earlier.digest == vote.digest

    def centre_on(self, view: int) -> None:
        """Keep the votes around this view from now on."""
        self._centre = view
        for kind, signer in list(self._of_signer):
            self._trim(kind, signer)

    def count(self, kind: int, view: int, digest: bytes) -> int:
        """Return how many validators cast exactly this vote."""
        return len(self._groups.get((kind, view, digest), ()))

    def signers(self, kind: int, view: int) -> tuple[bytes, ...]:
        """Return who voted with this kind in this view, whatever for, in key order."""
        return tuple(key for key in self._validators.keys if view in self._of_signer.get((kind, key), ()))

    def digest_with_quorum(self, kind: int, view: int) -> bytes | None:
        """Return the digest for which q votes of this kind and view are held."""
        return self._full.get((kind, view))

    def newest_quorum(self, kind: int) -> tuple[int, bytes] | None:
        """Return (view, digest) of the newest view in which q votes of this kind agree."""
        views = [view for held, view in self._full if held == kind]
        return (max(views), self._full[kind, max(views)]) if views else None

    def signatures(self, kind: int, view: int, digest: bytes) -> Signatures:
        """Return the q signatures with the lowest validator indexes, so that everybody picks alike from the same votes."""
        group = self._groups.get((kind, view, digest), {})
        rows = [(index, group[key].signature) for index, key in enumerate(self._validators.keys) if key in group]
        return tuple(rows[: self._validators.quorum])

    def newest_of(self, kind: int, digest: bytes) -> tuple[Vote, ...]:
        """Return the newest vote of this kind for this digest of each validator that cast one, in key order."""
        found = (self._of_signer.get((kind, key), {}).values() for key in self._validators.keys)
        fitting = ([vote for vote in votes if vote.digest == digest] for votes in found)
        return tuple(max(votes, key=lambda vote: vote.view) for votes in fitting if votes)

    def votes_of(self, signer: bytes, kind: int | None = None) -> tuple[Vote, ...]:
        """Return the votes held of one signer, by kind and view."""
        found = [vote for (held, key), kept in self._of_signer.items() if key == signer and kind in (None, held) for vote in kept.values()]
        return tuple(sorted(found, key=lambda vote: (vote.kind, vote.view)))

    def _is_near(self, view: int) -> bool:
        return abs(view - self._centre) <= VIEWS_KEPT

    def _trim(self, kind: int, signer: bytes) -> None:
        """Forget what is neither near nor the signer's newest of this kind."""
        kept = self._of_signer[kind, signer]
        if len(kept) == 1:
            return
        newest = max(kept, default=0)
        for view in [view for view in kept if view != newest and not self._is_near(view)]:
            vote = kept.pop(view)
            group = self._groups[kind, view, vote.digest]
            del group[signer]
            if len(group) < self._validators.quorum and self._full.get((kind, view)) == vote.digest:
                del self._full[kind, view]
            if not group:
                del self._groups[kind, view, vote.digest]
