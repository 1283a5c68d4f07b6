"""Promises: no honest key ever says two different things, nor speaks below a view change it has said, restarts included.

Looks at every signature that leaves any node, whoever relays it (protocol.md, "Agreement", "Durable before said", "View change",
"Equivocation"). *When* something was signed is known from the watched keys, so resending an old vote is no new one.
"""

from __future__ import annotations

from collections.abc import Iterator

from medchain.chain.vote import COMMIT, PREPARE, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.sim.checkers.case import Case, Ending
from medchain.sim.node import Turn
from medchain.wire.peer import PastVotesSent, PeerMessage, RangeSent

NAME = "promises"
_WORDS = {PREPARE: "prepare", COMMIT: "commit"}


class Promises:
    """Remembers every vote and view change ever seen."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._votes: dict[tuple[bytes, int, int, int], tuple[bytes, bytes]] = {}
        """(signer, kind, height, view) → (digest, signature)."""
        self._changes: dict[tuple[bytes, int], dict[int, ViewChange]] = {}
        """(signer, height) → view → view change."""
        self._left: dict[tuple[bytes, int], list[tuple[int, int]]] = {}
        """(signer, height) → [(view changed to, signing number when it was sent)]."""
        self._commit_views: dict[tuple[bytes, int], set[int]] = {}
        self.view_changes = 0
        """Distinct view changes seen."""
        self.highest_view = 0

    def on_turn(self, turn: Turn) -> None:
        """Look at every statement in every message."""
        for message in turn.sent:
            for statement in self._statements(message):
                if not self._case.is_honest(statement.signer):
                    continue
                if isinstance(statement, Vote):
                    self._vote(turn.node, statement)
                else:
                    self._change(turn.node, statement)

    def on_end(self, ending: Ending) -> None:
        """Nothing is left to ask."""

    def _is_forged(self, sender: int, statement: Vote | ViewChange, what: str) -> bool:
        """Answer whether a statement is not its signer's; an honest node never passes such a one on."""
        if self._case.are_valid([statement.verification(self._case.network)]):
            return False
        if sender not in self._case.liars:
            self._case.find(NAME, f"node {sender} passed on a forged {what} in the name of {self._case.name(statement.signer)}")
        return True

    def _statements(self, message: PeerMessage) -> Iterator[Vote | ViewChange]:
        """Yield everything signed by validators that a message carries."""
        match message:
            case Vote() | ViewChange():
                yield message
                if isinstance(message, ViewChange):
                    yield from self._proven(message)
            case PrePrepare():
                yield message.prepare
                for change in message.view_changes:
                    yield change
                    yield from self._proven(change)
            case RangeSent():
                for _, certificate in message.blocks:
                    yield from self._case.votes_of(certificate.height, certificate.view, certificate.digest, certificate.commits, COMMIT)
            case PastVotesSent():
                yield from message.votes
                yield from message.view_changes
            case _:
                return

    def _proven(self, change: ViewChange) -> Iterator[Vote]:
        proof = change.proof
        if proof is not None:
            yield from self._case.votes_of(proof.height, proof.view, proof.digest, proof.prepares, PREPARE)

    def _vote(self, sender: int, vote: Vote) -> None:
        key = (vote.signer, vote.kind, vote.height, vote.view)
        known = self._votes.get(key)
        if known is not None:
            if known[0] != vote.digest and not self._is_forged(sender, vote, _WORDS[vote.kind]):
                self._two(vote.signer, f"{_WORDS[vote.kind]}s of height {vote.height} view {vote.view}", known[0], vote.digest)
            return
        if self._is_forged(sender, vote, _WORDS[vote.kind]):
            return
        self._votes[key] = (vote.digest, vote.signature)
        self.highest_view = max(self.highest_view, vote.view)
        if vote.kind == COMMIT:
            self._commit_views.setdefault((vote.signer, vote.height), set()).add(vote.view)
            self._check_shown(vote.signer, vote.height)
        signed = self._case.signing.order.get(vote.signature, 0)
        for view, said in self._left.get((vote.signer, vote.height), ()):
            if vote.view < view and signed > said:
                self._case.find(
                    NAME,
                    f"{self._case.name(vote.signer)} signed a {_WORDS[vote.kind]} of height {vote.height} view {vote.view} after saying "
                    f"that it goes to view {view}",
                )
                return

    def _change(self, sender: int, change: ViewChange) -> None:
        known = self._changes.get((change.signer, change.height), {}).get(change.view)
        if known is not None:
            is_other = (known.prepared_view, known.digest) != (change.prepared_view, change.digest)
            if is_other and not self._is_forged(sender, change, "view change"):
                self._two(change.signer, f"view changes of height {change.height} to view {change.view}", known.digest, change.digest)
            return
        if self._is_forged(sender, change, "view change"):
            return
        self._changes.setdefault((change.signer, change.height), {})[change.view] = change
        self.view_changes += 1
        self.highest_view = max(self.highest_view, change.view)
        if self._case.validators.index_of(change.signer) == sender:
            self._left.setdefault((change.signer, change.height), []).append((change.view, self._case.signing.now()))
        self._check_shown(change.signer, change.height)

    def _check_shown(self, signer: bytes, height: int) -> None:
        """A view change to w that shows p must not stand beside a commit in c with p < c < w."""
        commits = self._commit_views.get((signer, height))
        changes = self._changes.get((signer, height))
        if not commits or not changes:
            return
        for view, change in changes.items():
            shown = -1 if change.prepared_view is None else change.prepared_view
            hidden = sorted(commit for commit in commits if shown < commit < view)
            if hidden:
                self._case.find(
                    NAME,
                    f"{self._case.name(signer)} showed prepared view {change.prepared_view} in its view change of height {height} to view "
                    f"{view} and had committed in view {hidden[0]}",
                )

    def _two(self, signer: bytes, what: str, first: bytes | None, second: bytes | None) -> None:
        named = ["none" if digest is None else digest[:6].hex() for digest in (first, second)]
        self._case.find(NAME, f"{self._case.name(signer)} said two different {what}: {named[0]} and {named[1]}")
