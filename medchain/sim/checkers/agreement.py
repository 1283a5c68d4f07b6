"""Agreement: no two different blocks are decided or certified at one height, whatever else happens (protocol.md, "Agreement")."""

from __future__ import annotations

from medchain.chain.certificate import Certificate
from medchain.chain.vote import COMMIT, Vote
from medchain.sim.checkers.case import Case, Ending
from medchain.sim.node import Turn
from medchain.store import layout
from medchain.store.keyvalue import prefix_end
from medchain.wire.peer import PastVotesSent, RangeSent

NAME = "agreement"


class Agreement:
    """Keeps the one digest of each height, and who committed to what."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._decided: dict[int, tuple[bytes, str]] = {}
        self._commits: dict[tuple[int, int, bytes], set[bytes]] = {}

    @property
    def heights(self) -> int:
        """How many heights were decided or certified."""
        return len(self._decided)

    def digest_of(self, height: int) -> bytes | None:
        """Return the digest decided at a height."""
        known = self._decided.get(height)
        return None if known is None else known[0]

    def on_turn(self, turn: Turn) -> None:
        """Take decisions from what became durable, and certificates from commits on the wire."""
        for key, value in turn.puts(layout.BLOCK):
            if turn.node not in self._case.liars:
                self._one(int.from_bytes(key[len(layout.BLOCK) :], "big"), value, f"node {turn.node} decided")
        for message in turn.sent:
            if isinstance(message, Vote):
                self._commit(message)
            elif isinstance(message, RangeSent):
                for _, certificate in message.blocks:
                    self._certified(certificate)
            elif isinstance(message, PastVotesSent) and message.certificate is not None:
                self._certified(message.certificate)

    def on_end(self, ending: Ending) -> None:
        """Compare every height in every store, those too that became durable in a crash and were never told."""
        for node, store in enumerate(ending.stores):
            if node in self._case.liars:
                continue
            for key, digest in store.iterate(layout.BLOCK, prefix_end(layout.BLOCK)):
                self._one(int.from_bytes(key[len(layout.BLOCK) :], "big"), digest, f"node {node} keeps")

    def _commit(self, vote: Vote) -> None:
        if vote.kind != COMMIT or not self._case.validators.is_voter(vote.signer):
            return
        signers = self._commits.setdefault((vote.height, vote.view, vote.digest), set())
        if vote.signer in signers or not self._case.are_valid([vote.verification(self._case.network)]):
            return
        signers.add(vote.signer)
        if len(signers) == self._case.validators.quorum:
            self._one(vote.height, vote.digest, f"a quorum committed in view {vote.view}")

    def _certified(self, certificate: Certificate) -> None:
        for vote in self._case.votes_of(certificate.height, certificate.view, certificate.digest, certificate.commits, COMMIT):
            self._commit(vote)

    def _one(self, height: int, digest: bytes, how: str) -> None:
        first = self._decided.setdefault(height, (digest, how))
        if first[0] != digest:
            self._case.find(NAME, f"height {height} is {first[0][:6].hex()} ({first[1]}) and {digest[:6].hex()} ({how})")
