"""What this node signed at one height: the one place that signs, and that refuses to sign twice.

Everything here is durable before it is said: each signature comes with the `Persist` outputs that must precede it, and a restart hands the
records back (protocol.md, "Durable before said"; no double promise, lessons.md: besu QBFT, plenum). Whether a vote is right is decided by
the instance; that it contradicts no earlier one is enforced here, and breaking it is our own bug.
"""

from __future__ import annotations

from collections.abc import Iterable

from medchain.chain.block import Proposal
from medchain.chain.domain import Domain
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.consensus.events import HardState, OwnPreparedProof, OwnViewChange, OwnVote, Persist, PinnedProposal
from medchain.consensus.view_changes import says_the_same
from medchain.crypto.signing import SigningKey
from medchain.errors import InvariantBroken


class Promises:
    """Own votes, view changes, pinned proposals and the highest prepared proof of one height."""

    def __init__(self, network: Domain, key: SigningKey | None, height: int, records: Iterable[HardState] = ()) -> None:
        self._network = network
        self._key = key
        self._height = height
        self._votes: dict[tuple[int, int], Vote] = {}
        self._view_changes: dict[int, ViewChange] = {}
        self._pinned: dict[bytes, Proposal] = {}
        self._pinned_views: dict[int, bytes] = {}
        self.proof: PreparedProof | None = None
        """The highest block prepared here."""
        for record in records:
            self._restore(record)

    def _restore(self, record: HardState) -> None:
        """Take back a record; what an earlier key of this hospital signed binds nobody now (a new key has no past)."""
        own = b"" if self._key is None else self._key.public
        match record:
            case OwnVote(vote):
                if vote.signer == own:
                    self._votes[vote.kind, vote.view] = vote
            case OwnViewChange(change):
                if change.signer == own:
                    self._view_changes[change.view] = change
            case PinnedProposal(proposal, view):
                self._pin(proposal, proposal.header.digest(), view)
            case OwnPreparedProof(proof):
                if self.proof is None or proof.view >= self.proof.view:
                    self.proof = proof

    # ---- what was promised ------------------------------------------------------------------------------------------------------

    @property
    def joined_view(self) -> int:
        """The view of the newest own view change: nothing below it is ever signed again."""
        return max(self._view_changes) if self._view_changes else 0

    @property
    def highest_view(self) -> int:
        """The highest view in which anything was signed."""
        highest = self.joined_view
        for _, view in self._votes:
            if view > highest:
                highest = view
        return highest

    @property
    def is_bound_to_certificate(self) -> bool:
        """Answer whether a late commit was signed without a durable decision: no view change may then say that nothing was prepared."""
        committed = [view for kind, view in self._votes if kind == COMMIT]
        return bool(committed) and max(committed) > (-1 if self.proof is None else self.proof.view)

    def vote_in(self, kind: int, view: int) -> Vote | None:
        """Return the own vote of this kind in this view."""
        return self._votes.get((kind, view))

    def newest_vote(self, kind: int) -> Vote | None:
        """Return the own vote of this kind in the highest view."""
        views = [view for held, view in self._votes if held == kind]
        return self._votes[kind, max(views)] if views else None

    def newest_view_change(self) -> ViewChange | None:
        """Return the own view change for the highest view."""
        return self._view_changes.get(self.joined_view)

    def votes(self) -> tuple[Vote, ...]:
        """Return all own votes by kind and view."""
        return tuple(self._votes[place] for place in sorted(self._votes))

    def view_changes(self) -> tuple[ViewChange, ...]:
        """Return all own view changes by view."""
        return tuple(self._view_changes[view] for view in sorted(self._view_changes))

    def pinned(self, digest: bytes) -> Proposal | None:
        """Return a proposal that is pinned here with all its bytes."""
        return self._pinned.get(digest)

    def pinned_proposals(self) -> tuple[Proposal, ...]:
        """Return all pinned proposals in the order they were pinned."""
        return tuple(self._pinned.values())

    def knows(self, message: Vote | ViewChange) -> bool:
        """Answer whether a message signed with the own key is one that was signed here."""
        if message.height != self._height:
            return False
        if isinstance(message, Vote):
            vote = self._votes.get((message.kind, message.view))
            return vote is not None and vote.digest == message.digest
        change = self._view_changes.get(message.view)
        return change is not None and says_the_same(change, message)

    # ---- promising --------------------------------------------------------------------------------------------------------------

    def prepare(self, view: int, digest: bytes, proposal: Proposal) -> tuple[Vote, list[Persist]]:
        """Sign a Prepare; return it with what must be durable before it: the proposal with all its bytes and the vote."""
        records = [self._pin(proposal, digest, view)]
        vote, record = self._sign_vote(PREPARE, view, digest)
        return vote, [*records, record]

    def commit(self, proof: PreparedProof, proposal: Proposal) -> tuple[Vote, list[Persist]]:
        """Sign a Commit of what `proof` shows prepared; return it with what must be durable before it: the proof and the vote."""
        if self.proof is not None and (self.proof.view, self.proof.digest) > (proof.view, proof.digest):
            raise InvariantBroken("a commit would follow an older prepared proof than the one held")
        records: list[Persist] = []
        if self._pinned_views.get(proof.view) != proof.digest:
            records.append(self._pin(proposal, proof.digest, proof.view))
        vote, record = self._sign_vote(COMMIT, proof.view, proof.digest)
        self.proof = proof
        return vote, [*records, Persist(OwnPreparedProof(proof)), record]

    def commit_late(self, view: int, digest: bytes) -> tuple[Vote, list[Persist]]:
        """Sign a Commit of what a certificate shows decided; its decision becomes durable with it."""
        vote, record = self._sign_vote(COMMIT, view, digest)
        return vote, [record]

    def change_view(self, view: int) -> tuple[ViewChange, list[Persist]]:
        """Sign a view change that shows the highest prepared block; its bytes, proof included, are frozen."""
        if self._key is None or view <= self.highest_view or self.is_bound_to_certificate:
            raise InvariantBroken("a view change must be signed here and lead upwards")
        change = ViewChange.sign(self._network, self._key, self._height, view, self.proof)
        self._view_changes[view] = change
        return change, [Persist(OwnViewChange(change))]

    def _sign_vote(self, kind: int, view: int, digest: bytes) -> tuple[Vote, Persist]:
        """Sign a vote that contradicts no earlier promise. Raises InvariantBroken if it would."""
        if self._key is None or (kind, view) in self._votes or view < self.highest_view:
            raise InvariantBroken("a second vote, or one below an own promise, was about to be signed")
        vote = Vote.sign(self._network, self._key, kind, self._height, view, digest)
        self._votes[kind, view] = vote
        return vote, Persist(OwnVote(vote))

    def _pin(self, proposal: Proposal, digest: bytes, view: int) -> Persist:
        self._pinned[digest] = proposal
        self._pinned_views[view] = digest
        return Persist(PinnedProposal(proposal, view))
