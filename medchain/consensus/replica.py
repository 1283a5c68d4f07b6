"""The replica: one event in, a list of outputs to be obeyed in order.

Owns what outlives a height (time, the engine's situation, whether voting is allowed, messages of the next height) and hands everything else
to the instance of the current height. Pure: equal inputs give equal outputs, nothing is read from outside. Whatever the engine feeds it,
it raises InvariantBroken for our own bugs only.
"""

from __future__ import annotations

from typing import Any, Final, assert_never

from medchain.chain.block import Proposal
from medchain.chain.certificate import Certificate
from medchain.chain.domain import Domain
from medchain.chain.vote import COMMIT, PREPARE, ViewChange, Vote
from medchain.consensus.early import EarlyMessages
from medchain.consensus.events import (
    BlockHeld,
    Broadcast,
    CertificateLearned,
    DecisionAdopted,
    HeightStarted,
    Input,
    Output,
    PrePrepareReceived,
    ProposalBuilt,
    ProposalChecked,
    SawUnknownOwnVote,
    SituationChanged,
    Ticked,
    ViewChangeReceived,
    VoteReceived,
    VotingAllowed,
)
from medchain.consensus.instance import Instance, Surroundings
from medchain.consensus.justification import why_unjustified
from medchain.consensus.messages import PrePrepare
from medchain.crypto.signing import SigningKey
from medchain.errors import InvariantBroken

RESEND_MS: Final = 1_000
"""Own messages of the undecided height are sent again this often (protocol.md, "Resending")."""
RESENDS_BEFORE_TIMEOUT: Final = 4
"""The first time, in each view, after this part of the shortest view timeout: a lost message must not cost a view (DESIGN.md)."""


class Replica:
    """PBFT for one node; `key` None = an observer, which follows, counts and decides but signs nothing."""

    def __init__(self, network: Domain, key: SigningKey | None) -> None:
        self._network = network
        self._key = key
        self._own = b"" if key is None else key.public
        self._around = Surroundings()
        self._early = EarlyMessages()
        self._instance: Instance | None = None
        self._unknown_own: Vote | ViewChange | None = None
        self._resend_at_ms = 0
        self._resend_in_ms = 0
        self._resend_view = 0

    # ---- facts for the engine ---------------------------------------------------------------------------------------------------

    @property
    def height(self) -> int:
        """The height being agreed on; 0 before the first HeightStarted."""
        return 0 if self._instance is None else self._instance.height

    @property
    def view(self) -> int:
        """The current view of this height."""
        return 0 if self._instance is None else self._instance.view

    @property
    def decided(self) -> Certificate | None:
        """The certificate of this height once it is decided; the engine then owes the next HeightStarted."""
        return None if self._instance is None else self._instance.certificate

    def is_voting(self) -> bool:
        """Answer whether this node signs at this height now."""
        return self._instance is not None and self._instance.may_sign

    def primary_key(self) -> bytes:
        """Return the consensus key of the primary of the current height and view; empty before the first HeightStarted."""
        return b"" if self._instance is None else self._instance.primary_key

    def is_pressed(self) -> bool:
        """Answer whether half a base is left, or less, until the timer of this view runs out: a primary proposes now or loses its turn."""
        instance = self._instance
        if instance is None:
            return False
        return instance.timer.is_within(self._around.monotonic_ms, instance.parameters.view_timeout_base_ms // 2)

    def own_messages(self) -> tuple[PrePrepare | Vote | ViewChange, ...]:
        """Return the own messages of the undecided height, for a peer that just connected."""
        return () if self._instance is None else self._instance.own_messages()

    def proposal_holders(self) -> tuple[bytes, ...]:
        """Return who prepared a proposal of the current view that this node has not seen, in key order; nobody when all is well."""
        return () if self._instance is None else self._instance.proposal_holders()

    def preparers_of(self, digest: bytes) -> tuple[bytes, ...]:
        """Return the others who prepared this block at this height, in key order: they hold all of it."""
        if self._instance is None:
            return ()
        return tuple(vote.signer for vote in self._instance.tally.newest_of(PREPARE, digest) if vote.signer != self._own)

    def proposal_of(self, height: int, view: int) -> PrePrepare | None:
        """Return the pre-prepare accepted or made here in this view, if it is the current one, for a peer that the primary left out."""
        instance = self._instance
        if instance is None or (height, view) != (instance.height, instance.view):
            return None
        return instance.pre_prepare or instance.heard

    def commits_of(self, digest: bytes) -> tuple[Vote, ...]:
        """Return the commits of this height counted for a block, the newest of each validator, in key order."""
        return () if self._instance is None else self._instance.tally.newest_of(COMMIT, digest)

    def messages_signed_by(self, key: bytes) -> tuple[tuple[Vote, ...], tuple[ViewChange, ...]]:
        """Return the votes and view changes held of `key` above the decided height (the answer to its amnesia check)."""
        if self._instance is None:
            return (), ()
        votes = (*self._instance.tally.votes_of(key), *self._early.votes_of(key))
        change = self._instance.view_changes.newest_of(key)
        return votes, () if change is None else (change,)

    def is_expected(self, vote: Vote) -> bool:
        """Answer whether an honest validator would cast this vote now; others are worth few verifications a second, and no more."""
        if self._instance is None or vote.height > self._instance.height:
            return self._early.is_expected(vote)
        return self._instance.tally.is_expected(vote)

    def is_news(self, change: ViewChange) -> bool:
        """Answer whether a view change of this height is not held already and not older than the newest held of its signer."""
        return self._instance is not None and self._instance.view_changes.is_news(change)

    def why_unjustified(self, message: PrePrepare) -> str | None:
        """Return why whoever sent this pre-prepare of the current height is to blame, None if nobody is."""
        if self._instance is None or message.height != self._instance.height:
            return None
        return why_unjustified(message, self._instance.height, self._instance.validators, self._instance.rotation)

    # ---- events -----------------------------------------------------------------------------------------------------------------

    def handle(self, event: Input) -> list[Output]:
        """Take one event; return what must be done, in order.

        Everything after a `Persist` must wait until it is durable. Raises InvariantBroken for our own bugs only.
        """
        alarms = self._find_unknown_own(event)
        outputs = self._take(event)
        is_tick = isinstance(event, Ticked)
        if self._instance is not None:
            outputs += self._instance.pass_time() if is_tick else self._instance.advance()
            if self._resend_view != self._instance.view:
                self._plan_resend(self._instance.parameters.view_timeout_base_ms)
        if is_tick:
            outputs += self._resend()
        return [*alarms, *outputs] if alarms else outputs

    def _take(self, event: Input) -> list[Output]:
        """Dispatch one event."""
        match event:
            case HeightStarted():
                return self._start(event)
            case Ticked(monotonic_ms, wall_ms):
                self._around.monotonic_ms = max(self._around.monotonic_ms, monotonic_ms)
                self._around.wall_ms = wall_ms
            case SituationChanged():
                self._around.situation = event
            case VotingAllowed(is_allowed):
                return self._allow(is_allowed)
            case PrePrepareReceived(message):
                return self._take_pre_prepare(message)
            case VoteReceived(vote):
                return self._take_vote(vote)
            case ViewChangeReceived(change):
                return [] if self._instance is None else self._instance.add_view_change(change)
            case ProposalBuilt(view, proposal):
                return [] if self._instance is None else self._instance.add_built(view, proposal)
            case ProposalChecked(digest, is_valid):
                if self._instance is not None:
                    self._instance.add_checked(digest, is_valid)
            case BlockHeld(proposal):
                self._take_held(proposal)
            case CertificateLearned(certificate):
                return [] if self._instance is None else self._instance.add_certificate(certificate)
            case DecisionAdopted():
                return [] if self._instance is None else self._instance.commit_late()
            case _:
                assert_never(event)
        return []

    def _start(self, event: HeightStarted) -> list[Output]:
        """Begin a height; messages for it that came early count at once."""
        if event.height <= self.height:
            raise InvariantBroken(f"height {event.height} was started after height {self.height}")
        self._instance = Instance(event, self._network, self._key, self._around)
        if self._unknown_own is not None and self._unknown_own.height < event.height:
            self._unknown_own = None
        has_past = bool(event.hard_state)
        self._plan_resend(event.parameters.view_timeout_base_ms)
        if has_past:
            self._resend_at_ms = self._around.monotonic_ms
        pre_prepares, votes = self._early.take(event.height)
        self._early.expect(event.height + 1)
        outputs: list[Output] = []
        for pre_prepare in pre_prepares:
            outputs += self._instance.add_pre_prepare(pre_prepare)
        for vote in votes:
            outputs += self._instance.add_vote(vote)
        return outputs

    def _take_pre_prepare(self, message: PrePrepare) -> list[Output]:
        if self._instance is None:
            return []
        self._early.add_pre_prepare(message, self._instance.validators, self._instance.rotation)
        return self._instance.add_pre_prepare(message)

    def _take_vote(self, vote: Vote) -> list[Output]:
        if self._instance is None:
            return []
        self._early.add_vote(vote, self._instance.validators)
        return self._instance.add_vote(vote)

    def _take_held(self, proposal: Proposal) -> None:
        if self._instance is not None and proposal.header.height == self._instance.height:
            self._instance.add_held(proposal)

    def _allow(self, is_allowed: bool) -> list[Output]:
        """Voting starts or stops; with a vote of one's own around that was never sent, it does not start (protocol.md, "Amnesia")."""
        if is_allowed and self._unknown_own is not None:
            return [SawUnknownOwnVote(self._unknown_own)]
        self._around.is_voting_allowed = is_allowed
        if not is_allowed and self._instance is not None:
            self._instance.forget_build()
        return []

    def _find_unknown_own(self, event: Input) -> list[Output]:
        """Look for statements signed with the own key that were never made here; the first one stops voting."""
        if self._instance is None or not self._own:
            return []
        for message in _signed_parts(event):
            is_open = message.height > self.height or (message.height == self.height and self.decided is None)
            if message.signer != self._own or not is_open or self._instance.promises.knows(message):
                continue
            self._unknown_own = message
            if self._around.is_voting_allowed:
                self._around.is_voting_allowed = False
                self._instance.forget_build()
                return [SawUnknownOwnVote(message)]
        return []

    def _resend(self) -> list[Output]:
        """Send own messages of this height again, soon and then every second; also while a decided block is still being fetched."""
        if self._instance is None or self._around.monotonic_ms < self._resend_at_ms:
            return []
        self._resend_in_ms = min(RESEND_MS, 2 * self._resend_in_ms)
        self._resend_at_ms = self._around.monotonic_ms + self._resend_in_ms
        return [Broadcast(message) for message in self._instance.own_messages()]

    def _plan_resend(self, view_timeout_base_ms: int) -> None:
        """A view began: what is said in it is repeated after a part of its timeout, then after twice as long, up to a second."""
        self._resend_view = self.view
        self._resend_in_ms = min(RESEND_MS, view_timeout_base_ms // RESENDS_BEFORE_TIMEOUT)
        self._resend_at_ms = self._around.monotonic_ms + self._resend_in_ms

    def explain(self) -> dict[str, Any]:
        """Return what this node waits for, in words and numbers (JSON-friendly; keys in hexadecimal)."""
        instance = self._instance
        if instance is None:
            return {"height": 0, "phase": "no height started"}
        view, deadline_ms = instance.view, instance.timer.deadline_ms
        return {
            "height": instance.height,
            "view": view,
            "phase": instance.phase.value,
            "primary": instance.primary_key.hex(),
            "takes_turns": [key.hex() for key in instance.rotation],
            "left_out": [key.hex() for key in instance.validators.voters if key not in instance.rotation],
            "is_voting": instance.may_sign,
            "quorum": instance.validators.quorum,
            "prepared_by": [key.hex() for key in instance.tally.signers(PREPARE, view)],
            "committed_by": [key.hex() for key in instance.tally.signers(COMMIT, view)],
            "view_supported_by": instance.view_changes.support_of(view) if view else len(instance.validators),
            "timer_runs_because": list(instance.timer_reasons()),
            "timer_left_ms": None if deadline_ms is None else max(0, deadline_ms - self._around.monotonic_ms),
        }


def _signed_parts(event: Input) -> tuple[Vote | ViewChange, ...]:
    """Return the signed statements inside a message from the network."""
    match event:
        case PrePrepareReceived(message):
            return (message.prepare, *message.view_changes)
        case VoteReceived(vote):
            return (vote,)
        case ViewChangeReceived(change):
            return (change,)
        case _:
            return ()
