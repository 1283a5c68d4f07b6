"""Access: asking, announcing a release, confirming that it was read, and reading a trail. Breaking the glass is in emergencies.py.

There is no permit transaction: every node decides the request by the same verdict. A denial is an accepted result: it is on the trail like
a permit (ledger.md, "Transactions"). Only a key no hospital ever credentialed, or a record nobody registered, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from medchain import codec
from medchain.errors import InvariantBroken, Malformed, Rejected
from medchain.ledger import rows
from medchain.ledger.execution import Execution, Handler
from medchain.ledger.hospitals import check_hospital
from medchain.ledger.payload import EMERGENCY, PURPOSES, as_code, as_digest, as_number, as_word
from medchain.ledger.people import PatientRow, patient_of, pseudonym_of
from medchain.ledger.permits import PERMIT_MS, PermitUse, check_permit, permit_standing, permit_use_of, write_permit
from medchain.ledger.records import RecordRow, check_record, record_of
from medchain.ledger.refusals import REFUSALS
from medchain.ledger.rows import encode_row
from medchain.ledger.verdicts import check_clinician, standing_of, verdict


@dataclass(frozen=True, slots=True)
class Request(Handler):
    """A clinician asks for the newest version of a record. Sender: the clinician. Permit or denial on the trails of patient and record."""

    KIND: ClassVar[str] = "access.request"
    WEIGHT: ClassVar[int] = 56
    """The verdict may look at 64 consents."""

    record: bytes
    purpose: str
    role: str

    @classmethod
    def from_payload(cls, payload: list[Any]) -> Request:
        """Read a positional payload. Raises Malformed."""
        record, purpose, role = codec.as_fields(payload, 3, "request")
        request = cls(as_digest(record, "record id"), as_word(purpose, "purpose", PURPOSES), as_code(role, "role"))
        if request.purpose == EMERGENCY:
            raise Malformed("breaking the glass is declared with access.emergency")
        return request

    def check(self, execution: Execution) -> None:
        """Raise Rejected unless a known clinician asks for a known record; everything else is decided and recorded."""
        check_clinician(execution.state, execution.sender)
        check_record(execution.state, self.record)

    def apply(self, execution: Execution) -> None:
        """Decide, and write the permit or only the denial's event."""
        context, sender = execution.context, execution.sender
        record = _known_record(execution, self.record)
        answer = verdict(execution.state, context, sender, self.record, self.purpose, self.role)
        credential, _ = standing_of(execution.state, context, sender, None)
        if not answer.permit:
            deny(execution, self.record, record, credential.hospital, self.purpose, self.role, answer.code)
            return
        expires_ms = min(context.time_ms + PERMIT_MS, answer.until_ms)
        identity, permit = write_permit(
            execution, self.record, record, credential.hospital, self.purpose, self.role, answer.consent, "", expires_ms
        )
        execution.emit(
            "access.permit",
            (record.pseudonym, self.record),
            [
                sender, credential.hospital, self.purpose, self.role, identity, answer.consent, list(permit.versions),
                permit.expires_height, permit.expires_ms,
            ],
        )  # fmt: skip


def deny(execution: Execution, record_id: bytes, record: RecordRow, hospital: bytes, purpose: str, role: str, code: str) -> None:
    """Record that a clinician asked and was denied with `code`."""
    execution.emit("access.denial", (record.pseudonym, record_id), [execution.sender, hospital, purpose, role, code])


def _known_record(execution: Execution, record_id: bytes) -> RecordRow:
    record = record_of(execution.state, record_id)
    if record is None:
        raise InvariantBroken("the record of a checked operation is missing from the state")
    return record


@dataclass(frozen=True, slots=True)
class Release(Handler):
    """The custodian announces that a key goes out; it leaves only after this is final. Sender: the custodian. Event on both trails.

    Only the custodian: it alone has the key in this protocol version, and whoever merely said that it holds ciphertext could use up the
    releases of other hospitals' permits. Holders announce theirs with the shares of keys that they will be dealt.
    """

    KIND: ClassVar[str] = "access.release"
    WEIGHT: ClassVar[int] = 20

    permit: bytes
    version: int

    @classmethod
    def from_payload(cls, payload: list[Any]) -> Release:
        """Read a positional payload. Raises Malformed."""
        permit, version = codec.as_fields(payload, 2, "release")
        return cls(as_digest(permit, "permit id"), as_number(version, "version"))

    def check(self, execution: Execution) -> None:
        """Raise Rejected unless the custodian of a version releases it under a permit that names it and still stands."""
        check_hospital(execution)
        state = execution.state
        permit = check_permit(state, self.permit)
        if self.version not in permit.versions:
            raise Rejected("access.permit-version", "the permit names another version of the record: release only what it names")
        if execution.sender != _known_record(execution, permit.record).custodian:
            raise Rejected("access.not-custodian", "only the record's custodian releases its keys: ask that hospital")
        code = permit_standing(state, execution.context, self.permit, permit)
        if code:
            raise Rejected(code, "the key must not be released: " + REFUSALS[code])

    def apply(self, execution: Execution) -> None:
        """Count the release."""
        permit = check_permit(execution.state, self.permit)
        use = permit_use_of(execution.state, self.permit)
        use = PermitUse(use.releases + 1, _with(use.released, self.version), use.read)
        execution.state.put(rows.PERMIT_USE + self.permit, encode_row(use))
        execution.emit(
            self.KIND,
            (permit.pseudonym, permit.record),
            [execution.sender, self.permit, self.version, permit.reader, use.releases],
        )


def _with(versions: tuple[int, ...], version: int) -> tuple[int, ...]:
    return versions if version in versions else tuple(sorted((*versions, version)))


@dataclass(frozen=True, slots=True)
class ReadReceipt(Handler):
    """The reader confirms having opened a version. Sender: the permit's reader. Event on the trails of patient and record.

    Allowed after the permit's end and after the credential's: it tells of the past.
    """

    KIND: ClassVar[str] = "access.receipt"
    WEIGHT: ClassVar[int] = 14

    permit: bytes
    version: int

    @classmethod
    def from_payload(cls, payload: list[Any]) -> ReadReceipt:
        """Read a positional payload. Raises Malformed."""
        permit, version = codec.as_fields(payload, 2, "read receipt")
        return cls(as_digest(permit, "permit id"), as_number(version, "version"))

    def check(self, execution: Execution) -> None:
        """Raise Rejected unless the permit's reader confirms a released version for the first time."""
        permit = check_permit(execution.state, self.permit)
        if permit.reader != execution.sender:
            raise Rejected("access.not-reader", "only the reader whom the permit names can confirm reading")
        use = permit_use_of(execution.state, self.permit)
        if self.version not in use.released:
            raise Rejected("access.not-released", "no key for this version was released under this permit: fetch the record first")
        if self.version in use.read:
            raise Rejected("access.read-twice", "reading of this version is already confirmed: nothing is left to do")

    def apply(self, execution: Execution) -> None:
        """Note the reading."""
        permit = check_permit(execution.state, self.permit)
        use = permit_use_of(execution.state, self.permit)
        use = PermitUse(use.releases, use.released, _with(use.read, self.version))
        execution.state.put(rows.PERMIT_USE + self.permit, encode_row(use))
        execution.emit(self.KIND, (permit.pseudonym, permit.record), [execution.sender, self.permit, self.version])


@dataclass(frozen=True, slots=True)
class ReadTrail(Handler):
    """Somebody entitled is about to read a trail, which is itself on it. Sender: the patient, or the patient's hospital."""

    KIND: ClassVar[str] = "access.read_trail"
    WEIGHT: ClassVar[int] = 12

    subject: bytes
    """A pseudonym, or the id of a record (then the event is on the patient's trail too)."""

    @classmethod
    def from_payload(cls, payload: list[Any]) -> ReadTrail:
        """Read a positional payload. Raises Malformed."""
        (subject,) = codec.as_fields(payload, 1, "reading of a trail")
        return cls(as_digest(subject, "subject"))

    def _subjects(self, execution: Execution) -> tuple[tuple[bytes, ...], PatientRow] | None:
        record = record_of(execution.state, self.subject)
        pseudonym = self.subject if record is None else record.pseudonym
        patient = patient_of(execution.state, pseudonym)
        if patient is None:
            return None
        return ((pseudonym,) if record is None else (pseudonym, self.subject)), patient

    def check(self, execution: Execution) -> None:
        """Raise Rejected unless the patient or the custodian hospital reads a known subject's trail."""
        found = self._subjects(execution)
        if found is None:
            raise Rejected("access.subject-unknown", "no patient and no record is known under this id: check it")
        subjects, patient = found
        if execution.sender != patient.hospital and pseudonym_of(execution.sender) != subjects[0]:
            raise Rejected("access.not-entitled", "only the patient and the custodian hospital may read this trail")

    def apply(self, execution: Execution) -> None:
        """Put the reading on the trail."""
        found = self._subjects(execution)
        if found is None:
            raise InvariantBroken("the subject of a checked reading is missing from the state")
        execution.emit(self.KIND, found[0], [execution.sender])
