"""Agreement on one height: what is known, and the rules that act on it.

Inputs only add to what is known; `advance` then applies the rules of one table, in order, until none applies. A rule looks at the state
alone, so a message that came before it could be used, a vote allowed late and a restart need no code of their own. Sources: protocol.md
("Agreement", "View change", "View synchronisation", "Timers"); Castro & Liskov 1999, section 4; the names of the rules are theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from medchain.chain.block import Proposal
from medchain.chain.certificate import Certificate
from medchain.chain.domain import Domain
from medchain.chain.evidence import EQUIVOCATION, is_equivocation
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.consensus.events import (
    Broadcast,
    BuildProposal,
    CheckProposal,
    Decided,
    EvidenceFound,
    FetchBlock,
    HandOver,
    HeightStarted,
    Output,
    SituationChanged,
)
from medchain.consensus.evidence import Reports
from medchain.consensus.justification import why_header_refused, why_unjustified
from medchain.consensus.messages import PrePrepare
from medchain.consensus.phases import Phase
from medchain.consensus.promises import Promises
from medchain.consensus.proposals import Proposals
from medchain.consensus.rotation import primary
from medchain.consensus.tally import Tally
from medchain.consensus.timers import Timer, view_timeout_ms
from medchain.consensus.view_changes import Choice, ViewChanges
from medchain.crypto.signing import SigningKey
from medchain.errors import InvariantBroken

STEPS_MAX: Final = 512
"""Rules applied for one input: a dozen, and two questions for each block that view changes show; more means they do not settle."""
IDLE: Final = SituationChanged(is_work_known_to_primary=False, is_work_waiting=False, is_primary_connected=True, is_heartbeat_due=False)


@dataclass(slots=True)
class Surroundings:
    """What outlives a height: the time handed in, the engine's view of its pool and peers, and whether this node may sign."""

    monotonic_ms: int = 0
    wall_ms: int = 0
    situation: SituationChanged = IDLE
    is_voting_allowed: bool = False


class Instance:
    """One height of one node."""

    def __init__(self, started: HeightStarted, network: Domain, key: SigningKey | None, surroundings: Surroundings) -> None:
        self.height = started.height
        self.validators = started.validators
        self.rotation = started.rotation
        self.parameters = started.parameters
        self._started = started
        self._own = b"" if key is None else key.public
        self._is_voter = self.validators.is_voter(self._own)
        self._around = surroundings
        self.promises = Promises(network, key, started.height, started.hard_state)
        self.tally = Tally(started.validators)
        self.view_changes = ViewChanges(started.validators)
        self.timer = Timer()
        self.view = 0
        self.primary_key = b""
        """Of the primary of the current view."""
        self.certificate: Certificate | None = None
        self.accepted: bytes | None = None
        """Digest of the proposal accepted in the current view."""
        self.pre_prepare: PrePrepare | None = None
        """The own one of the current view."""
        self.heard: PrePrepare | None = None
        """The one accepted in the current view from its primary, for those it left out."""
        self._proposals = Proposals(self.promises.pinned_proposals())
        self._reports = Reports()
        self._is_handed_over = False
        self._is_build_asked = False
        self._justification: tuple[ViewChange, ...] = ()
        self._is_proposal_seen = bool(started.hard_state)
        for vote in self.promises.votes():
            self.tally.add(vote)
        newest = self.promises.newest_view_change()
        if newest is not None:
            self.view_changes.add(newest)
        self._enter_view(self.promises.highest_view)

    # ---- facts ------------------------------------------------------------------------------------------------------------------

    @property
    def may_sign(self) -> bool:
        """Answer whether this node votes at this height now."""
        return self._around.is_voting_allowed and self._is_voter and self.certificate is None

    @property
    def may_sign_in_view(self) -> bool:
        """Answer whether it votes in the current view: for views above 0 its own view change says that it left those below."""
        return self.may_sign and (self.view == 0 or self.promises.joined_view == self.view)

    @property
    def phase(self) -> Phase:
        """Where the height stands here."""
        if self.certificate is not None:
            return Phase.DECIDED
        if self.promises.vote_in(COMMIT, self.view) is not None:
            return Phase.COMMITTING
        if self.promises.vote_in(PREPARE, self.view) is not None:
            return Phase.PREPARING
        if self.accepted is None:
            return Phase.AWAITING
        is_valid = self._proposals.is_valid(self.accepted)
        return Phase.CHECKING if is_valid is None else Phase.ACCEPTED if is_valid else Phase.REFUSED

    def own_messages(self) -> tuple[PrePrepare | Vote | ViewChange, ...]:
        """Return what to send again: what was said in the current view, the newest commit and the newest view change."""
        prepare = self.promises.vote_in(PREPARE, self.view)
        found = (self.promises.newest_view_change(), self.pre_prepare or prepare, self.promises.newest_vote(COMMIT))
        return tuple(message for message in found if message is not None)

    def proposal_holders(self) -> tuple[bytes, ...]:
        """Return the validators whose prepares of this view show that it has a proposal, while none is accepted here; else nothing.

        The primary is left out: it would have sent it.
        """
        if self.accepted is not None or self.certificate is not None:
            return ()
        return tuple(key for key in self.tally.signers(PREPARE, self.view) if key not in (self.primary_key, self._own))

    def timer_reasons(self) -> tuple[str, ...]:
        """Return why the timer of the current view runs, empty when it must not (protocol.md, "Timers")."""
        if not self.may_sign_in_view:
            return ()
        if self.view > 0:
            return ("a quorum supports this view",) if self.view_changes.support_of(self.view) >= self.validators.quorum else ()
        situation = self._around.situation
        reasons: tuple[str, ...] = ()
        if self._is_proposal_seen:
            reasons += ("a proposal is held",)
        if len(self.view_changes) > 0:
            reasons += ("a view change is held",)
        if situation.is_heartbeat_due:
            reasons += ("a heartbeat is due",)
        if situation.is_work_waiting or situation.is_work_known_to_primary:
            reasons += ("transactions wait",)
        return reasons

    # ---- inputs: they only add to what is known ---------------------------------------------------------------------------------

    def add_pre_prepare(self, message: PrePrepare) -> list[Output]:
        """Count the primary's prepare, learn the view changes, and accept the proposal if it is justified and the first of this view."""
        if message.height != self.height or self.certificate is not None:
            return []
        outputs = self.add_vote(message.prepare)
        if message.prepare.signer == self._own or why_unjustified(message, self.height, self.validators, self.rotation) is not None:
            return outputs
        self._is_proposal_seen = True
        for change in message.view_changes:
            outputs += self.add_view_change(change)
        self._follow()
        if message.view == self.view and self.accepted is None and self._is_header_acceptable(message.proposal, message.view):
            self.accepted = message.digest
            self.heard = message
            self._proposals.add(message.digest, message.proposal)
        return outputs

    def add_vote(self, vote: Vote) -> list[Output]:
        """Count a vote of another validator; report it if it contradicts an earlier statement."""
        if vote.height != self.height or vote.signer == self._own or self.certificate is not None:
            return []
        contradicted = self.tally.add(vote)
        if contradicted is not None:
            return [*self._reports.report(EQUIVOCATION, contradicted, vote)]
        change = self.view_changes.newest_of(vote.signer)
        return [] if change is None else [*self._reports.report_lies(change, (vote,))]

    def add_view_change(self, change: ViewChange) -> list[Output]:
        """Keep the newest view change of another validator; report it if it contradicts an earlier statement."""
        if change.height != self.height or change.signer == self._own or self.certificate is not None:
            return []
        contradicted = self.view_changes.add(change)
        if contradicted is not None:
            return [*self._reports.report(EQUIVOCATION, contradicted, change)]
        if self.view_changes.newest_of(change.signer) is not change:
            return []
        return [*self._reports.report_lies(change, self.tally.votes_of(change.signer, COMMIT))]

    def add_built(self, view: int, proposal: Proposal) -> list[Output]:
        """Propose the fresh block the engine built, unless the moment for it has passed."""
        header = proposal.header
        if header.height != self.height or view != self.view or not self._is_build_asked or not self.may_sign_in_view:
            return []
        if self.pre_prepare is not None or self.promises.vote_in(PREPARE, self.view) is not None:
            return []
        parent = (header.view, header.proposer, header.parent)
        if parent != (view, self._own, self._started.parent_digest) or header.time_ms <= self._started.parent_time_ms:
            raise InvariantBroken("the block built here is not one of this height and view")
        digest = header.digest()
        self._proposals.add(digest, proposal)
        self._proposals.mark(digest, True)
        return self._propose(digest, proposal, self._justification)

    def add_checked(self, digest: bytes, is_valid: bool) -> None:
        """Remember what executing a proposal showed."""
        self._proposals.mark(digest, is_valid)

    def add_held(self, proposal: Proposal) -> None:
        """Know the bytes of a block that was asked for."""
        digest = proposal.header.digest()
        if self._proposals.is_fetching(digest):
            self._proposals.add(digest, proposal)

    def add_certificate(self, certificate: Certificate) -> list[Output]:
        """Accept a certificate of any view; report a commit in it that contradicts what its signer said here."""
        if certificate.height != self.height or self.certificate is not None or len(certificate.commits) != self.validators.quorum:
            return []
        found = [evidence for commit in self._commits_of(certificate) for evidence in self._contradictions_of(commit)]
        return [*found, *self._certify(certificate)]

    def _commits_of(self, certificate: Certificate) -> list[Vote]:
        members, place = self.validators.validators, (COMMIT, certificate.height, certificate.view, certificate.digest)
        return [
            Vote(*place, members[index].consensus_key, signature) for index, signature in certificate.commits if 0 <= index < len(members)
        ]

    def _contradictions_of(self, commit: Vote) -> list[EvidenceFound]:
        """Compare a commit that is not counted with what its signer said here."""
        if commit.signer == self._own:
            return []
        for other in self.tally.votes_of(commit.signer, COMMIT):
            if is_equivocation(other, commit):
                return self._reports.report(EQUIVOCATION, other, commit)
        change = self.view_changes.newest_of(commit.signer)
        return [] if change is None else self._reports.report_lies(change, (commit,))

    def commit_late(self) -> list[Output]:
        """Sign a commit in the deciding view, after the fact: slow is not dead. Never below an own promise, nor without the block."""
        certificate = self.certificate
        if certificate is None or not self._around.is_voting_allowed or not self.validators.is_voter(self._own):
            return []
        view, digest = certificate.view, certificate.digest
        if self.promises.vote_in(COMMIT, view) is not None or self.promises.highest_view > view:
            return []
        vote, records = self.promises.commit_late(view, digest)
        self.tally.add(vote)
        return [*records, Broadcast(vote)]

    def forget_build(self) -> None:
        """Voting stopped: a block asked for meanwhile will not be proposed, and is asked for again when voting resumes."""
        self._is_build_asked = False

    # ---- rules ------------------------------------------------------------------------------------------------------------------

    def advance(self) -> list[Output]:
        """Apply the rules until none applies; return what must be done, in order."""
        outputs: list[Output] = []
        for _ in range(STEPS_MAX):
            produced = self._apply_first_rule()
            if produced is None:
                return outputs
            outputs += produced
        raise InvariantBroken("the rules of agreement do not settle")

    def pass_time(self) -> list[Output]:
        """Apply the rules after time alone has passed. Of all rules only the timer's looks at it, so before the deadline none can apply.

        A tick comes every few milliseconds and a decision a few times a second, so nearly every tick ends here.
        """
        return self.advance() if self.timer.is_expired(self._around.monotonic_ms) else []

    def _apply_first_rule(self) -> list[Output] | None:
        if self.certificate is not None:
            return None
        for rule in _RULES:
            produced = rule(self)
            if produced is not None:
                return produced
        return None

    def _decide(self) -> list[Output] | None:
        """q commits of one view and digest: certified, whether or not the block is here (Castro & Liskov, 4.2, committed-local)."""
        found = self.tally.newest_quorum(COMMIT)
        if found is None:
            return None
        view, digest = found
        return self._certify(Certificate(self.height, view, digest, self.tally.signatures(COMMIT, view, digest)))

    def _follow(self) -> list[Output] | None:
        """f+1 support a higher view, so an honest validator does: go there (liveness, 4.5.2)."""
        target = self.view_changes.supported_by(self.validators.faults_tolerated + 1)
        if target <= self.view:
            return None
        self._enter_view(target)
        return []

    def _join(self) -> list[Output] | None:
        """Say durably that views below this one are left, with the highest block prepared (4.4)."""
        if not self.may_sign or self.view <= self.promises.highest_view or self.promises.is_bound_to_certificate:
            return None
        change, records = self.promises.change_view(self.view)
        self.view_changes.add(change)
        return [*records, Broadcast(change)]

    def _lead(self) -> list[Output] | None:
        """The primary proposes: in view 0 what the engine builds, above it what q view changes oblige it to."""
        if not self.may_sign_in_view or self.pre_prepare is not None or self.primary_key != self._own:
            return None
        if self.view == 0:
            return self._lead_fresh(())
        for choice in self.view_changes.choices(self.view):
            produced = self._lead_fresh(choice.view_changes) if choice.digest is None else self._lead_again(choice.digest, choice)
            if produced is not None:
                return produced
        return None

    def _lead_fresh(self, view_changes: tuple[ViewChange, ...]) -> list[Output] | None:
        """Propose a fresh block: after a restart the pinned one, never a second one in this view."""
        own = self.promises.vote_in(PREPARE, self.view)
        if own is not None:
            pinned = self.promises.pinned(own.digest)
            is_fresh = pinned is not None and pinned.header.view == self.view
            return self._propose(own.digest, pinned, view_changes) if pinned is not None and is_fresh else None
        if self._is_build_asked:
            return None
        self._is_build_asked = True
        self._justification = view_changes
        return [BuildProposal(self.height, self.view, is_urgent=self.view > 0)]

    def _lead_again(self, digest: bytes, choice: Choice) -> list[Output] | None:
        """Propose the highest prepared block byte for byte, once its bytes are here and it was executed here."""
        own = self.promises.vote_in(PREPARE, self.view)
        if own is not None and own.digest != digest:
            return None
        proposal = self._proposals.get(digest)
        if proposal is None:
            return [FetchBlock(self.height, digest)] if self._proposals.is_first_fetch(digest) else None
        if self._proposals.is_valid(digest):
            return self._propose(digest, proposal, choice.view_changes)
        if self._proposals.is_valid(digest) is None and self._proposals.is_first_check(digest):
            return [CheckProposal(proposal, choice.prover or self._own)]
        return None

    def _propose(self, digest: bytes, proposal: Proposal, view_changes: tuple[ViewChange, ...]) -> list[Output]:
        """Send the pre-prepare; the prepare inside it is the own one of this view, signed now or before a restart."""
        prepare = self.promises.vote_in(PREPARE, self.view)
        outputs: list[Output] = []
        if prepare is None:
            prepare, records = self.promises.prepare(self.view, digest, proposal)
            outputs += records
            self.tally.add(prepare)
        self.accepted = digest
        self._is_proposal_seen = True
        self.pre_prepare = PrePrepare(proposal, prepare, view_changes)
        return [*outputs, Broadcast(self.pre_prepare)]

    def _check(self) -> list[Output] | None:
        """Backups execute before they vote (lessons.md: FISCO-BCOS #2307)."""
        if self.accepted is None or self._proposals.is_valid(self.accepted) is not None:
            return None
        proposal = self._proposals.get(self.accepted)
        if proposal is None or not self._proposals.is_first_check(self.accepted):
            return None
        return [CheckProposal(proposal, self.primary_key)]

    def _prepare(self) -> list[Output] | None:
        """A backup that executed the proposal and got the same roots prepares it, once in a view (4.2)."""
        if self.accepted is None or not self.may_sign_in_view or self.promises.vote_in(PREPARE, self.view) is not None:
            return None
        proposal = self._proposals.get(self.accepted)
        if proposal is None or not self._proposals.is_valid(self.accepted):
            return None
        vote, records = self.promises.prepare(self.view, self.accepted, proposal)
        self.tally.add(vote)
        return [*records, Broadcast(vote)]

    def _commit(self) -> list[Output] | None:
        """q prepares of a block that is valid here: prepared; the proof is durable before the commit is said (4.2)."""
        if not self.may_sign_in_view or self.promises.vote_in(COMMIT, self.view) is not None:
            return None
        digest = self.tally.digest_with_quorum(PREPARE, self.view)
        proposal = None if digest is None else self._proposals.get(digest)
        if digest is None or proposal is None or not self._proposals.is_valid(digest):
            return None
        proof = PreparedProof(self.height, self.view, digest, self.tally.signatures(PREPARE, self.view, digest))
        vote, records = self.promises.commit(proof, proposal)
        self.tally.add(vote)
        return [*records, Broadcast(vote)]

    def _keep_time(self) -> list[Output] | None:
        """Start, stop and obey the timer of the view."""
        now_ms = self._around.monotonic_ms
        if not self.timer_reasons():
            if not self.timer.is_running:
                return None
            self.timer.stop()
            return []
        if not self.timer.is_running:
            self.timer.start(now_ms, view_timeout_ms(self._started.parameters, self.view))
            return []
        if not self.timer.is_expired(now_ms):
            return None
        if self._is_hand_over_due():
            self._is_handed_over = True
            self.timer.start(now_ms, self._started.parameters.view_timeout_base_ms)
            return [HandOver()]
        self._enter_view(self.view + 1)
        return []

    def _is_hand_over_due(self) -> bool:
        """Over transactions alone, a connected primary first gets them: one that never saw them is not replaced."""
        is_over_work_alone = self.timer_reasons() == ("transactions wait",)
        is_other = self.primary_key != self._own and self._around.situation.is_primary_connected
        return is_over_work_alone and is_other and not self._is_handed_over

    # ---- steps ------------------------------------------------------------------------------------------------------------------

    def _certify(self, certificate: Certificate) -> list[Output]:
        """End the height; one's own late commit goes with it when the decision becomes durable in the same turn (DESIGN.md)."""
        self.certificate = certificate
        self.timer.stop()
        outputs = self.commit_late() if self._proposals.is_valid(certificate.digest) else []
        return [*outputs, Decided(certificate)]

    def _enter_view(self, view: int) -> None:
        """Begin a view: what belonged to the old one alone is forgotten, what was promised stays."""
        self.view = view
        self.primary_key = primary(self.rotation, self.height, view)
        self.timer.stop()
        self.pre_prepare = self.heard = None
        self._is_build_asked = False
        self._justification = ()
        self._proposals.keep_only(self.promises.pinned_proposals())
        self.tally.centre_on(view)
        own = self.promises.vote_in(PREPARE, view)
        self.accepted = own.digest if own is not None and self.promises.pinned(own.digest) is not None else None

    def _is_header_acceptable(self, proposal: Proposal, view: int) -> bool:
        refusal = why_header_refused(
            proposal.header,
            view,
            parent=self._started.parent_digest,
            parent_time_ms=self._started.parent_time_ms,
            wall_ms=self._around.wall_ms,
            parameters=self._started.parameters,
        )
        return refusal is None


_RULES: Final[tuple[Callable[[Instance], list[Output] | None], ...]] = (
    Instance._decide,
    Instance._follow,
    Instance._join,
    Instance._lead,
    Instance._check,
    Instance._prepare,
    Instance._commit,
    Instance._keep_time,
)
"""In this order: a decision ends everything, views are left before anything is said in them, time passes last."""
