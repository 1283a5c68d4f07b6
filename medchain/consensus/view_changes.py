"""View changes: the newest of each validator, what they support together, and which q of them a new primary may carry.

A view change for w supports every view v <= w, and only the newest of each validator is kept: so a lost quorum grows nothing, a huge
number does nothing without f others, and dropped messages wedge nothing (protocol.md, "View synchronisation"). Signs and sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from medchain.chain.validators import ValidatorSet
from medchain.chain.vote import ViewChange


@dataclass(frozen=True, slots=True)
class Choice:
    """q view changes for exactly one view, in validator order, and what they oblige the primary to propose."""

    digest: bytes | None
    """The block prepared in the highest view among them; None = nobody of them prepared, a fresh block is due."""
    view_changes: tuple[ViewChange, ...]
    """Only the one that decides carries its proof."""
    prover: bytes | None
    """Who showed the proof, hence pinned the block."""


def is_well_formed(change: ViewChange, quorum: int) -> bool:
    """Answer whether the fields of a view change agree with each other (as a decoder checks, but values may come from anywhere)."""
    if change.view < 1 or (change.prepared_view is None) != (change.digest is None):
        return False
    if change.prepared_view is not None and not 0 <= change.prepared_view < change.view:
        return False
    if change.proof is None:
        return True
    shown = (change.proof.height, change.proof.view, change.proof.digest)
    return shown == (change.height, change.prepared_view, change.digest) and len(change.proof.prepares) == quorum


def says_the_same(first: ViewChange, second: ViewChange) -> bool:
    """Answer whether two view changes of one signer have the same signed content."""
    one = (first.height, first.view, first.prepared_view, first.digest)
    return one == (second.height, second.view, second.prepared_view, second.digest)


class ViewChanges:
    """The newest view change of each validator of one height."""

    def __init__(self, validators: ValidatorSet) -> None:
        self._validators = validators
        self._newest: dict[bytes, ViewChange] = {}

    def __len__(self) -> int:
        return len(self._newest)

    def add(self, change: ViewChange) -> ViewChange | None:
        """Keep a view change if it is its signer's newest; return the one it contradicts (then nothing changed), or None.

        One that comes again with its proof replaces the same without. Those of strangers are ignored.
        """
        if not self._validators.is_voter(change.signer) or not is_well_formed(change, self._validators.quorum):
            return None
        held = self._newest.get(change.signer)
        if held is not None and held.view == change.view:
            if not says_the_same(held, change):
                return held
            if held.proof is not None or change.proof is None:
                return None
        if held is None or held.view <= change.view:
            self._newest[change.signer] = change
        return None

    def is_news(self, change: ViewChange) -> bool:
        """Answer whether a view change is not held as it is; an older one than its signer's newest is none, and would not be kept."""
        held = self._newest.get(change.signer)
        return held is None or (held != change and held.view <= change.view)

    def newest_of(self, signer: bytes) -> ViewChange | None:
        """Return the newest view change held of a validator."""
        return self._newest.get(signer)

    def supported_by(self, count: int) -> int:
        """Return the highest view that at least `count` validators support; 0 when fewer sent any view change."""
        if not self._newest:  # nearly always: views change when something is wrong
            return 0
        views = sorted((change.view for change in self._newest.values()), reverse=True)
        return views[count - 1] if 0 < count <= len(views) else 0

    def support_of(self, view: int) -> int:
        """Return how many validators support this view."""
        return sum(change.view >= view for change in self._newest.values())

    def for_exactly(self, view: int) -> tuple[ViewChange, ...]:
        """Return the view changes for exactly this view in validator order."""
        newest = (self._newest.get(key) for key in self._validators.keys)
        return tuple(change for change in newest if change is not None and change.view == view)

    def choices(self, view: int) -> tuple[Choice, ...]:
        """Return the sets of q for exactly this view that the primary may carry, highest prepared view first.

        One liar's genuine proof of a block that nobody can give must not wedge the primary, so lower sets are offered as well: each is q
        statements that nothing higher was prepared, which is all that safety asks for (DESIGN.md, "Choosing").
        """
        held = self.for_exactly(view)
        provers: dict[tuple[int, bytes], ViewChange] = {}
        for change in held:
            if change.proof is not None:
                provers.setdefault((change.proof.view, change.proof.digest), change)
        found = [self._with_highest(held, provers[highest]) for highest in sorted(provers, reverse=True)]
        empty = tuple(change for change in held if change.prepared_view is None)
        if len(empty) >= self._validators.quorum:
            found.append(Choice(None, empty[: self._validators.quorum], None))
        return tuple(choice for choice in found if choice is not None)

    def _with_highest(self, held: Iterable[ViewChange], prover: ViewChange) -> Choice | None:
        """Return q view changes among which the prover's block is the highest prepared one, None if there are not so many."""
        others = [change for change in held if change.signer != prover.signer and is_below(change, prover)]
        needed = self._validators.quorum - 1
        if len(others) < needed:
            return None
        chosen = [prover, *(change.without_proof() for change in others[:needed])]
        chosen.sort(key=lambda change: change.signer)
        return Choice(prover.digest, tuple(chosen), prover.signer)


def is_below(change: ViewChange, highest: ViewChange) -> bool:
    """Answer whether what a view change says it prepared does not outrank or contradict the highest one."""
    if change.prepared_view is None or highest.prepared_view is None:
        return change.prepared_view is None
    if change.prepared_view == highest.prepared_view:
        return change.digest == highest.digest
    return change.prepared_view < highest.prepared_view
