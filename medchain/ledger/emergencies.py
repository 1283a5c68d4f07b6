"""Breaking the glass: a clinician declares an emergency and reads without consent; a review opens by itself and escalates.

What an emergency overrides is the absence of a consent, never a missing credential. Reviews that fall due are done at the begin of each
block, a bounded number at a time. Source: ledger.md, "Sealing and sharing", 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from medchain import codec
from medchain.errors import InvariantBroken, Rejected
from medchain.ledger import rows
from medchain.ledger.access import deny
from medchain.ledger.execution import URGENT_LANE, Execution, Handler
from medchain.ledger.hospitals import check_hospital
from medchain.ledger.lists import REVIEWS, append_item
from medchain.ledger.payload import EMERGENCY, as_digest, as_word
from medchain.ledger.permits import EMERGENCY_MS, PermitEnd, write_permit
from medchain.ledger.records import check_record
from medchain.ledger.rows import decode_row, encode_row, uint64
from medchain.ledger.verdicts import check_clinician, standing_of
from medchain.store.overlay import StateView

REASONS: Final = ("UNCONSCIOUS", "LIFE-THREAT", "INCAPABLE", "UNACCOMPANIED-MINOR", "DISASTER")
"""Why the patient could not be asked: cannot respond, no time to ask, cannot decide, nobody to decide, mass casualties."""
JUSTIFIED: Final = "justified"
UNJUSTIFIED: Final = "unjustified"
REVIEW_DUE_MS: Final = 72 * 60 * 60 * 1000
"""Three days, so that a weekend does not escalate by itself."""
DUE_ITEMS_MAX: Final = 64
"""Due items of one block: bounded work; the rest follows in the next blocks, oldest first."""


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """An emergency that must be reviewed; its id is the permit's."""

    record: bytes
    pseudonym: bytes
    custodian: bytes
    """Organisation key of the hospital that reviews."""
    clinician: bytes
    hospital: bytes
    """Organisation key of the clinician's hospital."""
    reason: str
    from_height: int
    time_ms: int
    due_ms: int


@dataclass(frozen=True, slots=True)
class ReviewEnd:
    """What the review found."""

    outcome: str
    to_height: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class ReviewLate:
    """The review was not done in time and has been escalated."""

    from_height: int
    time_ms: int


def review_of(view: StateView, permit: bytes) -> ReviewRow | None:
    """Return the review of an emergency permit, None if the permit is none of an emergency."""
    stored = view.get(rows.REVIEW + permit)
    return None if stored is None else decode_row(ReviewRow, stored)


def review_late_of(view: StateView, permit: bytes) -> ReviewLate | None:
    """Return the escalation of a review that was not done in time, None if there was none."""
    stored = view.get(rows.REVIEW_LATE + permit)
    return None if stored is None else decode_row(ReviewLate, stored)


def review_end_of(view: StateView, permit: bytes) -> ReviewEnd | None:
    """Return the outcome of a review, None while it is open."""
    stored = view.get(rows.REVIEW_END + permit)
    return None if stored is None else decode_row(ReviewEnd, stored)


def _due_key(due_ms: int, permit: bytes) -> bytes:
    return rows.DUE + uint64(due_ms) + permit


def apply_due(execution: Execution) -> None:
    """Escalate, once each, the reviews that are due at the block's time and not done; at most DUE_ITEMS_MAX, oldest first."""
    state, context = execution.state, execution.context
    due: list[bytes] = []
    start = len(rows.DUE)
    for key, _ in state.iterate(rows.DUE):
        if len(due) >= DUE_ITEMS_MAX or int.from_bytes(key[start : start + 8], "big") > context.time_ms:
            break
        due.append(key)
    for key in due:
        permit = key[start + 8 :]
        review = review_of(state, permit)
        if review is None:
            raise InvariantBroken("a review that falls due is missing from the state")
        state.delete(key)
        execution.insert(rows.REVIEW_LATE + permit, encode_row(ReviewLate(context.height, context.time_ms)))
        subjects = (review.pseudonym, review.record)
        execution.emit("access.review_overdue", subjects, [review.clinician, review.hospital, permit, review.due_ms])


@dataclass(frozen=True, slots=True)
class Emergency(Handler):
    """A clinician breaks the glass. Sender: the clinician. Emergency (or denial) on the trails of patient and record, and a review."""

    KIND: ClassVar[str] = "access.emergency"
    WEIGHT: ClassVar[int] = 30
    LANE: ClassVar[int] = URGENT_LANE

    record: bytes
    reason: str

    @classmethod
    def from_payload(cls, payload: list[Any]) -> Emergency:
        """Read a positional payload. Raises Malformed."""
        record, reason = codec.as_fields(payload, 2, "emergency")
        return cls(as_digest(record, "record id"), as_word(reason, "reason", REASONS))

    def check(self, execution: Execution) -> None:
        """Raise Rejected unless a known clinician declares it for a known record; an invalid credential is a denial, not a refusal."""
        check_clinician(execution.state, execution.sender)
        check_record(execution.state, self.record)

    def apply(self, execution: Execution) -> None:
        """Write permit and review, or only the denial's event when the credential is not valid."""
        state, context, sender = execution.state, execution.context, execution.sender
        record = check_record(state, self.record)
        credential, code = standing_of(state, context, sender, None)
        if code:
            deny(execution, self.record, record, credential.hospital, EMERGENCY, credential.role, code)
            return
        identity, permit = write_permit(
            execution, self.record, record, credential.hospital, EMERGENCY, credential.role, b"", self.reason,
            context.time_ms + EMERGENCY_MS,
        )  # fmt: skip
        due_ms = context.time_ms + REVIEW_DUE_MS
        review = ReviewRow(
            self.record, record.pseudonym, record.custodian, sender, credential.hospital, self.reason, context.height, context.time_ms,
            due_ms,
        )  # fmt: skip
        execution.insert(rows.REVIEW + identity, encode_row(review))
        append_item(execution, REVIEWS, record.custodian, identity)
        state.put(_due_key(due_ms, identity), rows.INDEX)
        execution.emit(
            self.KIND,
            (record.pseudonym, self.record),
            [
                sender, credential.hospital, self.reason, credential.role, identity, list(permit.versions), permit.expires_height,
                permit.expires_ms, due_ms,
            ],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Review(Handler):
    """The custodian judges an emergency; unjustified ends its permit. Sender: the custodian. Event on the trails of patient and record."""

    KIND: ClassVar[str] = "access.review"
    WEIGHT: ClassVar[int] = 16

    permit: bytes
    """Id of the emergency's permit."""
    outcome: str

    @classmethod
    def from_payload(cls, payload: list[Any]) -> Review:
        """Read a positional payload. Raises Malformed."""
        permit, outcome = codec.as_fields(payload, 2, "review")
        return cls(as_digest(permit, "permit id"), as_word(outcome, "outcome", (JUSTIFIED, UNJUSTIFIED)))

    def check(self, execution: Execution) -> None:
        """Raise Rejected unless the record's custodian judges an emergency for the first time; late is better than never."""
        check_hospital(execution)
        review = review_of(execution.state, self.permit)
        if review is None:
            raise Rejected("access.review-unknown", "no emergency is known under this id: take the permit's id from the trail")
        if review.custodian != execution.sender:
            raise Rejected("access.not-reviewer", "only the record's custodian reviews this emergency")
        if review_end_of(execution.state, self.permit) is not None:
            raise Rejected("access.reviewed", "this emergency has already been reviewed")

    def apply(self, execution: Execution) -> None:
        """Write the outcome; an unjustified emergency's permit ends now."""
        state, context = execution.state, execution.context
        review = review_of(state, self.permit)
        if review is None:
            raise InvariantBroken("the review of a checked operation is missing from the state")
        end = ReviewEnd(self.outcome, context.height, context.time_ms)
        execution.insert(rows.REVIEW_END + self.permit, encode_row(end))
        if state.get(_due_key(review.due_ms, self.permit)) is not None:
            state.delete(_due_key(review.due_ms, self.permit))
        if self.outcome == UNJUSTIFIED:
            execution.insert(rows.PERMIT_END + self.permit, encode_row(PermitEnd(context.height, context.time_ms)))
        execution.emit(self.KIND, (review.pseudonym, review.record), [execution.sender, self.permit, self.outcome])
