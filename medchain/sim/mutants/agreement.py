"""Mutants of agreement: quorums, promises, proposals, views and timers (medchain/consensus)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import medchain.chain.validators
import medchain.consensus.evidence
import medchain.consensus.instance
import medchain.consensus.replica
from medchain import codec
from medchain.chain import limits
from medchain.chain.block import Proposal
from medchain.chain.validators import faults_tolerated
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.consensus.events import Broadcast, Decided, OwnVote, Persist, PrePrepareReceived
from medchain.consensus.instance import Instance
from medchain.consensus.justification import why_header_refused, why_unjustified
from medchain.consensus.messages import PrePrepare
from medchain.consensus.promises import Promises
from medchain.consensus.replica import Replica
from medchain.consensus.tally import Tally
from medchain.consensus.view_changes import Choice, ViewChanges
from medchain.engine.agreement import Agreement
from medchain.sim.faults import Partition, Plan, quiet_plan
from medchain.sim.mutants.mutant import Mutant, cut_short, lying, torn_apart
from medchain.sim.network import Weather

# ---- quorums ------------------------------------------------------------------------------------------------------------------


def _two_f_plus_one(n: int) -> int:
    return 2 * faults_tolerated(n) + 1


def _half(n: int) -> int:
    return n // 2


QUORUMS: Final = (
    *[
        Mutant(
            f"2f+1 as quorum at n = {nodes}",
            "q is 2f+1, so two quorums need not share an honest node (protocol.md, Numbers)",
            ((medchain.chain.validators, "quorum", _two_f_plus_one),),
            plans=torn_apart(nodes),
        )
        for nodes in (5, 6, 8, 9)
    ],
    Mutant("half as quorum", "q is n/2", ((medchain.chain.validators, "quorum", _half),), plans=torn_apart(4)),
)

# ---- promises -----------------------------------------------------------------------------------------------------------------


def _sign_anything(self: Promises, kind: int, view: int, digest: bytes) -> tuple[Vote, Persist]:
    if self._key is None:
        raise TypeError("a mutant that votes has a key")
    vote = Vote.sign(self._network, self._key, kind, self._height, view, digest)
    self._votes[kind, view] = vote
    return vote, Persist(OwnVote(vote))


_honest_add_pre_prepare: Final = Instance.add_pre_prepare
_honest_prepare: Final = Instance._prepare


def _accept_every_proposal(self: Instance, message: PrePrepare) -> Any:
    if message.height == self.height and message.view == self.view and self.accepted not in (None, message.digest):
        self.accepted = None
    return _honest_add_pre_prepare(self, message)


def _prepare_every_proposal(self: Instance) -> Any:
    own = self.promises.vote_in(PREPARE, self.view)
    if own is None or self.accepted in (None, own.digest):
        return _honest_prepare(self)
    kept = self.promises._votes.pop((PREPARE, self.view))
    produced = _honest_prepare(self)
    if produced is None:
        self.promises._votes[PREPARE, self.view] = kept
    return produced


def _rules_with(honest: Any, instead: Any) -> Any:
    """Return the table of rules with another one in the place of one."""
    rules: Any = vars(medchain.consensus.instance)["_RULES"]
    return tuple([instead if rule is honest else rule for rule in rules])


_honest_change_view: Final = Promises.change_view


def _show_nothing_prepared(self: Promises, view: int) -> Any:
    proof, self.proof = self.proof, None
    try:
        return _honest_change_view(self, view)
    finally:
        self.proof = proof


_honest_commit_rule: Final = Instance._commit


def _commit_in_any_view(self: Instance) -> Any:
    """Commit what got a quorum of prepares in a view that was left."""
    produced = _honest_commit_rule(self)
    if produced is not None or not self.may_sign:
        return produced
    for view in range(self.view):
        digest = self.tally.digest_with_quorum(PREPARE, view)
        is_new = digest is not None and self.promises.vote_in(COMMIT, view) is None
        if digest is not None and is_new and self._proposals.is_valid(digest):
            vote, record = _sign_anything(self.promises, COMMIT, view, digest)
            return [record, Broadcast(vote)]
    return None


_honest_commit: Final = Promises.commit


def _keep_first_proof(self: Promises, proof: PreparedProof, proposal: Any) -> Any:
    before, self.proof = self.proof, None
    answer = _honest_commit(self, proof, proposal)
    self.proof = before or proof
    return answer


def _few_prepares_suffice(self: Tally, kind: int, view: int) -> bytes | None:
    found = [
        digest
        for (held, at, digest), group in self._groups.items()
        if (held, at) == (kind, view) and len(group) > self._validators.faults_tolerated
    ]
    return found[0] if found else None


def _certify_late_always(self: Instance, certificate: Any) -> Any:
    view, digest = certificate.view, certificate.digest
    outputs: list[Any] = []
    if self.may_sign and self.promises.vote_in(COMMIT, view) is None and self._proposals.is_valid(digest):
        vote, records = _sign_anything(self.promises, COMMIT, view, digest)
        outputs = [records, Broadcast(vote)]
    self.certificate = certificate
    self.timer.stop()
    return [*outputs, Decided(certificate)]


_free_of_certificate: Final = (Promises, "is_bound_to_certificate", property(lambda self: False))

PROMISES: Final = (
    Mutant(
        "two prepares in a view",
        "a second proposal of one view is prepared as well (Castro & Liskov 1999, 4.2)",
        (
            (Instance, "add_pre_prepare", _accept_every_proposal),
            (medchain.consensus.instance, "_RULES", _rules_with(_honest_prepare, _prepare_every_proposal)),
            (Promises, "_sign_vote", _sign_anything),
        ),
        plans=lying(4, "two blocks"),
    ),
    Mutant(
        "commit on f+1 prepares",
        "a block counts as prepared that fewer than q prepared",
        ((Tally, "digest_with_quorum", _few_prepares_suffice),),
        plans=lying(4, "two blocks", "twins"),
    ),
    Mutant(
        "prepared block hidden",
        "view changes say that nothing was prepared (4.4)",
        ((Promises, "change_view", _show_nothing_prepared), _free_of_certificate),
    ),
    Mutant(
        "first proof shown for ever",
        "view changes show the first prepared block instead of the highest",
        ((Promises, "commit", _keep_first_proof), _free_of_certificate),
    ),
    Mutant(
        "voting in a view one left",
        "a block that gets its quorum of prepares late is committed below the own view change",
        ((medchain.consensus.instance, "_RULES", _rules_with(_honest_commit_rule, _commit_in_any_view)),),
        plans=cut_short(),
    ),
    Mutant(
        "late commit after leaving",
        "a certificate is followed by a late commit even above its view (protocol.md, View change)",
        ((Instance, "_certify", _certify_late_always),),
    ),
)

# ---- proposals and view changes -------------------------------------------------------------------------------------------------


def _justified_by_anything(message: PrePrepare, height: int, *others: Any) -> str | None:
    """Demand nothing of a pre-prepare above view 0 but its height and its prepare."""
    header = message.proposal.header
    if message.prepare.kind != PREPARE or (message.prepare.height, header.height) != (height, height):
        return "another height"
    return None if message.view > 0 else _honest_why_unjustified(message, height, *others)


_honest_why_unjustified: Final = why_unjustified
_JUSTIFIED_BY_ANYTHING: Final = (
    (medchain.consensus.instance, "why_unjustified", _justified_by_anything),
    (medchain.consensus.replica, "why_unjustified", _justified_by_anything),
)


def _justified_whatever_digest(message: PrePrepare, *others: Any) -> str | None:
    prepare = replace(message.prepare, digest=message.proposal.header.digest())
    return _honest_why_unjustified(replace(message, prepare=prepare), *others)


def _choose_any(self: ViewChanges, view: int) -> tuple[Choice, ...]:
    held = self.for_exactly(view)[: self._validators.quorum]
    enough = len(held) >= self._validators.quorum
    return (Choice(None, tuple([change.without_proof() for change in held]), None),) if enough else ()


def _stamp_anew(self: Instance, digest: bytes, choice: Choice) -> Any:
    return self._lead_fresh(choice.view_changes)


def _decode_carelessly(cls: type[PrePrepare], value: Any) -> PrePrepare:
    proposal, prepare, changes = codec.as_fields(value, 3, "pre-prepare")
    read = codec.as_items(changes, limits.VALIDATORS_MAX, "view changes", ViewChange.from_value)
    return cls(Proposal.from_value(proposal), Vote.from_value(prepare), read)


def _unbounded(header: Any, view: int, **named: Any) -> str | None:
    return _honest_header_refused(header, view, **{**named, "wall_ms": header.time_ms})


def _always_bounded(header: Any, view: int, **named: Any) -> str | None:
    return _honest_header_refused(replace(header, view=view), view, **named)


_honest_header_refused: Final = why_header_refused


def _long_stall(seed: int) -> Plan:
    """Everybody is alone again and again, for longer than the clock bound: sooner or later a block is prepared just before."""
    links = tuple((a, b) for a in range(4) for b in range(4) if a != b)
    stalls = [Partition(400 + 2_203 * number + seed * 7, 2_000, "everyone alone", links, False) for number in range(6)]
    return quiet_plan(seed, safety_ms=14_000, submit_interval_ms=20).with_actions(*stalls)


def _check_nothing(self: Agreement, peer: bytes, change: ViewChange) -> bool:
    return self._chain.validators.is_voter(change.signer) and self._are_valid(peer, [change.verification(self._chain.network)])


def _take_unproven(self: Agreement, peer: bytes, message: PrePrepare) -> None:
    items = [message.prepare.verification(self._chain.network)]
    items += [change.verification(self._chain.network) for change in message.view_changes]
    if self._are_valid(peer, items):
        self.feed(PrePrepareReceived(message))


VIEW_CHANGES: Final = (
    Mutant(
        "no view changes demanded",
        "a pre-prepare above view 0 is believed without q view changes (4.4)",
        _JUSTIFIED_BY_ANYTHING,
        plans=cut_short("usurper"),
    ),
    Mutant(
        "any q view changes chosen",
        "the new primary proposes afresh whatever was prepared, and nobody objects",
        ((ViewChanges, "choices", _choose_any), *_JUSTIFIED_BY_ANYTHING),
        plans=cut_short(),
    ),
    Mutant(
        "re-proposal stamped anew",
        "the prepared block is proposed again under a new view and time, and nobody objects (lessons.md)",
        ((Instance, "_lead_again", _stamp_anew), *_JUSTIFIED_BY_ANYTHING),
        plans=cut_short(),
    ),
    Mutant(
        "proofs of preparedness unchecked",
        "what a view change shows is believed without its signatures",
        ((Agreement, "_is_genuine", _check_nothing), (Agreement, "_take_pre_prepare", _take_unproven)),
        plans=cut_short("view liar"),
    ),
    Mutant(
        "digest of a pre-prepare not recomputed",
        "the header and the prepare may name different blocks (lessons.md: FISCO-BCOS #2448)",
        (
            (PrePrepare, "from_value", classmethod(_decode_carelessly)),
            (medchain.consensus.instance, "why_unjustified", _justified_whatever_digest),
            (medchain.consensus.replica, "why_unjustified", _justified_whatever_digest),
        ),
        plans=lying(4, "false blocks"),
        harmless="what executing shows is remembered under the digest of the executed block, so a vote for another one never becomes valid",
    ),
    Mutant(
        "no clock bound",
        "a fresh block of any time is prepared",
        ((medchain.consensus.instance, "why_header_refused", _unbounded),),
        plans=lying(4, "false blocks"),
    ),
    Mutant(
        "clock bound for re-proposals too",
        "a block prepared before a long stall is refused after it, for good (lessons.md)",
        ((medchain.consensus.instance, "why_header_refused", _always_bounded),),
        plans=_long_stall,
    ),
)

# ---- views and time ---------------------------------------------------------------------------------------------------------------


_honest_supported_by: Final = ViewChanges.supported_by
_honest_support_of: Final = ViewChanges.support_of


def _one_suffices(self: ViewChanges, count: int) -> int:
    return _honest_supported_by(self, 1)


def _nobody_suffices(self: ViewChanges, count: int) -> int:
    return 0


def _all_support(self: ViewChanges, view: int) -> int:
    return len(self._validators)


def _one_alone(seed: int) -> Plan:
    """One node is cut off for a while, with work it knows of, while the others decide without it."""
    alone = seed % 4
    links = tuple((a, b) for a in range(4) for b in range(4) if (a == alone) != (b == alone))
    return quiet_plan(seed, safety_ms=4_000).with_actions(Partition(500, 3_000, "alone", links, False))


def _far_views(seed: int) -> Plan:
    """A liar that claims views far ahead, and proposes nothing once everybody followed it there."""
    return quiet_plan(seed, liars=((seed % 4, "lazy primary + far viewer"),))


def _lossy(seed: int) -> Plan:
    """Most messages are lost, and no connection breaks, which would have everything said again."""
    return quiet_plan(seed, weather=Weather(loss_permille=600), safety_ms=20_000)


def _never_resend(self: Replica) -> list[Any]:
    return []


def _convicts_at_once(change: ViewChange, commit: Vote) -> bool:
    prepared = -1 if change.prepared_view is None else change.prepared_view
    same = commit.kind == COMMIT and (commit.signer, commit.height) == (change.signer, change.height)
    return same and prepared <= commit.view < change.view


VIEWS: Final = (
    Mutant(
        "one is enough to follow",
        "a view is followed that one validator supports (lessons.md: FISCO-BCOS #2211)",
        ((ViewChanges, "supported_by", _one_suffices),),
        plans=_far_views,
    ),
    Mutant(
        "nobody is followed",
        "no view is entered but by the own timer",
        ((ViewChanges, "supported_by", _nobody_suffices),),
        harmless="timers of views that q support run by themselves, so a node climbs view by view: slower, and within the bound of healing",
    ),
    Mutant(
        "timers without support",
        "timers above view 0 run although fewer than q support the view (lessons.md: indy-node #1720)",
        ((ViewChanges, "support_of", _all_support),),
        plans=_one_alone,
    ),
    Mutant(
        "nothing resent",
        "own messages of the undecided height are said once (protocol.md, Resending)",
        ((Replica, "_resend", _never_resend),),
        plans=_lossy,
    ),
    Mutant(
        "evidence too loose",
        "a view change that shows p convicts its signer of a commit in p as well (lessons.md)",
        ((medchain.consensus.evidence, "is_lie", _convicts_at_once),),
    ),
)

AGREEMENT: Final = (*QUORUMS, *PROMISES, *VIEW_CHANGES, *VIEWS)
