"""Consents: what a patient allows, to whom, for what, on which records and until when.

Only permits so far; general denies and the nested exceptions of FHIR consents come with a later issue. A consent is a row written once, its
revocation another, so that past verdicts can be explained. Sender is always the patient: identity is the signing key. How consents become a
verdict is in verdicts.py; this module knows no permit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from medchain import codec
from medchain.errors import InvariantBroken, Malformed, Rejected
from medchain.ledger import rows
from medchain.ledger.epochs import raise_floor
from medchain.ledger.execution import URGENT_LANE, Execution, Handler, made_id
from medchain.ledger.hospitals import is_hospital
from medchain.ledger.lists import CONSENTS, append_item
from medchain.ledger.payload import PURPOSES, as_code, as_digest, as_key, as_time_ms, as_word
from medchain.ledger.people import clinician_of, patient_of, pseudonym_of
from medchain.ledger.rows import decode_row, encode_row
from medchain.store.overlay import StateView

CLINICIAN: Final = "clinician"
HOSPITAL: Final = "hospital"
"""Kinds of grantee; a grant to a hospital covers the clinicians that it credentialed."""

CONSENTS_PER_GRANTEE_MAX: Final = 32
"""Consents of one patient to one grantee that a verdict looks at: bounds its work. Ended ones make room for new ones, oldest first."""

ACTIVE: Final = "active"
NOT_BEGUN: Final = "not-begun"
ENDED: Final = "ended"
REVOKED: Final = "revoked"


@dataclass(frozen=True, slots=True)
class ConsentRow:
    """One consent as it was granted."""

    pseudonym: bytes
    grantee_kind: str
    grantee: bytes
    purpose: str
    category: str
    from_ms: int
    until_ms: int
    """First millisecond at which it no longer permits."""
    from_height: int


@dataclass(frozen=True, slots=True)
class ConsentEnd:
    """The revocation of a consent."""

    to_height: int
    """First height at which it no longer permits."""
    time_ms: int


@dataclass(frozen=True, slots=True)
class GranteeRow:
    """Ids of a patient's consents to one grantee, oldest first: the ones a verdict looks at."""

    consents: tuple[bytes, ...]


def consent_id(transaction_id: bytes, operation_index: int) -> bytes:
    """Return the id of the consent that an operation grants."""
    return made_id("consent", transaction_id, operation_index)


def consent_of(view: StateView, consent: bytes) -> ConsentRow | None:
    """Return a consent, None if none is known under the id."""
    stored = view.get(rows.CONSENT + consent)
    return None if stored is None else decode_row(ConsentRow, stored)


def consent_end_of(view: StateView, consent: bytes) -> ConsentEnd | None:
    """Return the revocation of a consent, None while it is not revoked."""
    stored = view.get(rows.CONSENT_END + consent)
    return None if stored is None else decode_row(ConsentEnd, stored)


def consent_status(view: StateView, consent: bytes, row: ConsentRow, time_ms: int) -> str:
    """Return REVOKED, ENDED, NOT_BEGUN or ACTIVE: the one state machine of consents; every list and verdict asks here."""
    if view.get(rows.CONSENT_END + consent) is not None:
        return REVOKED
    if time_ms >= row.until_ms:
        return ENDED
    return NOT_BEGUN if time_ms < row.from_ms else ACTIVE


def consents_to(view: StateView, pseudonym: bytes, grantee: bytes) -> tuple[bytes, ...]:
    """Return the ids of a patient's consents to one grantee key that a verdict looks at, oldest first."""
    stored = view.get(rows.CONSENT_TO + pseudonym + grantee)
    return () if stored is None else decode_row(GranteeRow, stored).consents


def _consents_with_room(view: StateView, pseudonym: bytes, grantee: bytes, time_ms: int) -> tuple[bytes, ...] | None:
    """Return the looked-at consents with room for one more: when full, less the oldest over; None if none is over."""
    consents = consents_to(view, pseudonym, grantee)
    if len(consents) < CONSENTS_PER_GRANTEE_MAX:
        return consents
    for index, consent in enumerate(consents):
        if consent_status(view, consent, _known(view, consent), time_ms) in (REVOKED, ENDED):
            return consents[:index] + consents[index + 1 :]
    return None


def _known(view: StateView, consent: bytes) -> ConsentRow:
    row = consent_of(view, consent)
    if row is None:
        raise InvariantBroken("a consent named by another row is missing from the state")
    return row


@dataclass(frozen=True, slots=True)
class Grant(Handler):
    """The patient permits a grantee one purpose on one category for a time. Sender: the patient. Event on the pseudonym's trail."""

    KIND: ClassVar[str] = "consents.grant"
    WEIGHT: ClassVar[int] = 16

    grantee_kind: str
    """`clinician` or `hospital`."""
    grantee: bytes
    """Clinician key or organisation key."""
    purpose: str
    category: str
    from_ms: int
    """First millisecond at which it permits; 0 = at once."""
    until_ms: int

    @classmethod
    def from_payload(cls, payload: list[Any]) -> Grant:
        """Read a positional payload. Raises Malformed."""
        grantee_kind, grantee, purpose, category, from_ms, until_ms = codec.as_fields(payload, 6, "consent")
        consent = cls(
            grantee_kind=as_word(grantee_kind, "grantee kind", (CLINICIAN, HOSPITAL)),
            grantee=as_key(grantee, "grantee key"),
            purpose=as_word(purpose, "purpose", PURPOSES),
            category=as_code(category, "category"),
            from_ms=as_time_ms(from_ms, "begin of the consent"),
            until_ms=as_time_ms(until_ms, "end of the consent"),
        )
        if consent.from_ms >= consent.until_ms:
            raise Malformed("a consent must begin before it ends")
        return consent

    def check(self, execution: Execution) -> None:
        """Raise Rejected unless a registered patient permits something to a known grantee, in time to be used."""
        state, time_ms = execution.state, execution.context.time_ms
        pseudonym = pseudonym_of(execution.sender)
        if patient_of(state, pseudonym) is None:
            raise Rejected("people.patient-unknown", "a consent has to be signed with the key of a registered patient")
        known = is_hospital(state, self.grantee) if self.grantee_kind == HOSPITAL else clinician_of(state, self.grantee) is not None
        if not known:
            raise Rejected("consents.grantee-unknown", "the grantee is not known to the network: check its key and its kind")
        if self.until_ms <= time_ms:
            raise Rejected("consents.period", "the consent would already be over: choose a later end")
        if _consents_with_room(state, pseudonym, self.grantee, time_ms) is None:
            raise Rejected(
                "consents.too-many", f"{CONSENTS_PER_GRANTEE_MAX} consents to this grantee are in force: revoke one that is not needed"
            )

    def apply(self, execution: Execution) -> None:
        """Write the consent and let verdicts look at it."""
        state, height = execution.state, execution.context.height
        pseudonym = pseudonym_of(execution.sender)
        identity = execution.new_id("consent")
        row = ConsentRow(
            pseudonym, self.grantee_kind, self.grantee, self.purpose, self.category, self.from_ms, self.until_ms, height
        )
        execution.insert(rows.CONSENT + identity, encode_row(row))
        append_item(execution, CONSENTS, pseudonym, identity)
        standing = _consents_with_room(state, pseudonym, self.grantee, execution.context.time_ms) or ()
        state.put(rows.CONSENT_TO + pseudonym + self.grantee, encode_row(GranteeRow((*standing, identity))))
        execution.emit(
            self.KIND,
            (pseudonym,),
            [execution.sender, identity, self.grantee_kind, self.grantee, self.purpose, self.category, self.from_ms, self.until_ms],
        )


@dataclass(frozen=True, slots=True)
class Revoke(Handler):
    """The patient ends a consent; from the next transaction on it permits nothing. Sender: the patient. Event on the pseudonym's trail."""

    KIND: ClassVar[str] = "consents.revoke"
    WEIGHT: ClassVar[int] = 14
    LANE: ClassVar[int] = URGENT_LANE

    consent: bytes

    @classmethod
    def from_payload(cls, payload: list[Any]) -> Revoke:
        """Read a positional payload. Raises Malformed."""
        (consent,) = codec.as_fields(payload, 1, "revocation of a consent")
        return cls(as_digest(consent, "consent id"))

    def check(self, execution: Execution) -> None:
        """Raise Rejected unless the patient who granted a consent revokes it for the first time."""
        consent = consent_of(execution.state, self.consent)
        if consent is None:
            raise Rejected("consents.unknown", "no consent is known under this id: list the consents and take the id from there")
        if consent.pseudonym != pseudonym_of(execution.sender):
            raise Rejected("consents.not-yours", "only the patient who granted this consent may revoke it")
        if consent_end_of(execution.state, self.consent) is not None:
            raise Rejected("consents.revoked", "this consent is already revoked: nothing is left to do")

    def apply(self, execution: Execution) -> None:
        """Write the end, and bar the epochs opened so far from sealing new content of the category."""
        consent = _known(execution.state, self.consent)
        end = ConsentEnd(execution.context.height, execution.context.time_ms)
        execution.insert(rows.CONSENT_END + self.consent, encode_row(end))
        raise_floor(execution.state, consent.pseudonym, consent.category)
        execution.emit(self.KIND, (consent.pseudonym,), [execution.sender, self.consent])
