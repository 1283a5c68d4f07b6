"""The amnesia check: before its first vote after any start, a node asks others what they hold signed by it (protocol.md, "Amnesia").

A restored backup or a wiped disk may have forgotten votes; voting again could then contradict them. An intact store asks q validators
including itself; an empty, damaged or not yet confirmed one needs q others. The node first catches up to the highest certified height
shown; a vote above the height it started from that its store lacks makes it an observer for a while, marked durably. This module votes
nothing and compares with the store as it was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from medchain.chain.certificate import Certificate
from medchain.chain.limits import HEIGHT_MAX
from medchain.chain.vote import ViewChange, Vote
from medchain.consensus.events import HardState, OwnViewChange, OwnVote
from medchain.engine.decided import DecidedChain
from medchain.engine.turn import Turn
from medchain.engine.verification import Verifier
from medchain.errors import Malformed
from medchain.store import layout
from medchain.store.staged import Staged
from medchain.wire.peer import PastVotesSent, PastVotesWanted

ASK_EVERY_MS: Final = 1_000
OBSERVED_HEIGHTS: Final = 2
"""Up to and including m+2: votes of a forgotten height m+1 can matter until m+2 is decided (protocol.md)."""
UNCONFIRMED_KEY: Final = layout.meta_key("unconfirmed")
"""There while a store that was empty or damaged has not passed the check; survives restarts."""


def mark_unconfirmed(staged: Staged) -> None:
    """Note durably that this store may have forgotten votes, so that it needs q others also after the next restart."""
    staged.put(UNCONFIRMED_KEY, b"")


def is_unconfirmed(staged: Staged) -> bool:
    """Answer whether the store may have forgotten votes."""
    return staged.get(UNCONFIRMED_KEY) is not None


class AmnesiaCheck:
    """Answers gathered since the start, and what follows from them."""

    def __init__(
        self,
        chain: DecidedChain,
        staged: Staged,
        turn: Turn,
        verifier: Verifier,
        *,
        own: bytes,
        challenge: bytes,
        records: Sequence[HardState],
    ) -> None:
        """Begin the check. `own` is the node's consensus key (empty: it never votes), `records` its hard state as found at the start."""
        self._chain = chain
        self._staged = staged
        self._turn = turn
        self._verifier = verifier
        self._own = own
        self._challenge = challenge
        self._start_height = chain.height
        self._known = {_statement(record) for record in records if isinstance(record, OwnVote | OwnViewChange)}
        self._answers: dict[bytes, int] = {}
        self._highest: Certificate | None = None
        self._is_forgetful = False
        self._next_ask_ms = 0
        mark = staged.get(layout.OBSERVER_MARK)
        self.observer_until = 0 if mark is None else int.from_bytes(mark, "big")
        """Last height at which this node does not vote because of what it forgot; 0 = none."""
        self.is_passed = not own
        """Whether the check is done."""

    def needed(self) -> int:
        """Return how many other validators must answer: q with this node when the store is intact, else q others."""
        return self._chain.validators.quorum - (0 if is_unconfirmed(self._staged) else 1)

    def answered(self) -> int:
        """Return how many validators have answered."""
        return sum(1 for peer in self._answers if self._chain.validators.is_voter(peer))

    def ask(self, peer: bytes) -> None:
        """Ask a peer that just connected."""
        if not self.is_passed and peer not in self._answers:
            self._turn.send(peer, PastVotesWanted(self._challenge))

    def tick(self, peers: Sequence[bytes]) -> None:
        """Ask again those who have not answered."""
        if self.is_passed or self._turn.monotonic_ms < self._next_ask_ms:
            return
        self._next_ask_ms = self._turn.monotonic_ms + ASK_EVERY_MS
        for peer in peers:
            self.ask(peer)

    def take(self, peer: bytes, answer: PastVotesSent) -> tuple[Vote | ViewChange, ...]:
        """Take an answer; return the statements it shows, genuine and above the decided height, for agreement to look at.

        An answer with a forged part counts for nothing.
        """
        if answer.challenge != self._challenge or not self._own or not self._is_certified(peer, answer):
            return ()
        shown: tuple[Vote | ViewChange, ...] = (*answer.votes, *answer.view_changes)
        if any(statement.signer != self._own for statement in shown) or not all(
            self._verifier.check_all([statement.verification(self._chain.network) for statement in shown])
        ):
            self._turn.accuse(peer, "it shows votes of this node that this node never signed")
            return ()
        if not self.is_passed:
            self._answers[peer] = max(answer.height, self._answers.get(peer, 0))
            if self._highest is None or answer.height > self._highest.height:
                self._highest = answer.certificate
            unknown = [statement for statement in shown if statement.height > self._start_height and _key(statement) not in self._known]
            self._is_forgetful = self._is_forgetful or bool(unknown)
            return ()
        return tuple(statement for statement in shown if statement.height > self._chain.height)

    def next_certificate(self) -> Certificate | None:
        """Return the certificate of the height after the head if an answer showed it and the check waits for that height.

        Who shows it may be the only one that decided and may never give the block: f + 1 honest validators of it pinned the block, so the
        certificate is enough, and without it the check could wait for ever (DESIGN.md, "A certificate without its block").
        """
        certificate = self._highest
        is_next = certificate is not None and certificate.height == self._chain.height + 1
        return certificate if is_next and not self.is_passed else None

    def _is_certified(self, peer: bytes, answer: PastVotesSent) -> bool:
        """Answer whether the height shown is certified. One beyond a change of validators cannot be judged yet and is asked for again."""
        if answer.height == 0:
            return True
        certificate = answer.certificate
        if certificate is None or certificate.height != answer.height:
            self._turn.accuse(peer, "it shows a height without its certificate")
            return False
        if self._holds(certificate):
            return True
        if answer.height <= self._chain.height + 1:
            self._turn.accuse(peer, "it shows a certificate that does not hold")
        return False

    def _holds(self, certificate: Certificate) -> bool:
        header = self._chain.header_of(certificate.height) if certificate.height <= self._chain.height else None
        known = self._chain.validators if header is None else self._chain.validator_set(header.validators_digest)
        if known is None:
            return False
        try:
            return all(self._verifier.check_all(certificate.verifications(self._chain.network, known)))
        except Malformed:
            return False

    def settle(self) -> bool:
        """End the check when enough validators have answered and their highest certified height is reached; return whether it ended now."""
        if self.is_passed or self.answered() < self.needed():
            return False
        highest = max([self._start_height, *(height for peer, height in self._answers.items() if self._chain.validators.is_voter(peer))])
        if self._chain.height < highest:
            return False
        self.is_passed = True
        if self._is_forgetful:
            self.observe_until(highest + OBSERVED_HEIGHTS)
            self._turn.alarm(
                "amnesia.votes-forgotten",
                f"other hospitals hold votes of this node that its store lacks: it observes up to height {self.observer_until}; if its "
                "store was restored from a backup this is expected",
            )
        if is_unconfirmed(self._staged):
            self._staged.delete(UNCONFIRMED_KEY)
        return True

    def observe_until(self, height: int) -> None:
        """Mark durably that this node does not vote up to and including a height."""
        self.observer_until = min(max(self.observer_until, height), HEIGHT_MAX)
        self._staged.put(layout.OBSERVER_MARK, layout.uint64(self.observer_until))

    def may_vote(self) -> bool:
        """Answer whether the check lets this node vote at the height after the head."""
        return self.is_passed and self._chain.height + 1 > self.observer_until


def _key(statement: Vote | ViewChange) -> tuple[int | bytes | None, ...]:
    """Return what a vote says, without its signature."""
    if isinstance(statement, Vote):
        return (statement.kind, statement.height, statement.view, statement.digest)
    return (0, statement.height, statement.view, statement.prepared_view, statement.digest)


def _statement(record: OwnVote | OwnViewChange) -> tuple[int | bytes | None, ...]:
    return _key(record.vote if isinstance(record, OwnVote) else record.view_change)
