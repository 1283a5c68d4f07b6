"""People: clinicians credentialed by their hospital, patients registered under a pseudonym.

A key plays one part for ever: a hospital's, a clinician's of one hospital, or a patient's at one hospital; so no credential by another
hospital can redirect what is sealed to a clinician, and no pseudonym is linkable to another. Which hospital and which opening key that is,
the clinician's or patient's key signs itself: nobody can take a key that it merely saw. Credentials are rows with an end row, never
overwritten. This module knows no record and no consent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final

from medchain import codec
from medchain.chain import limits
from medchain.chain.domain import Domain
from medchain.crypto.hashing import tagged_digest
from medchain.crypto.signing import is_signature_valid
from medchain.errors import InvariantBroken, Rejected
from medchain.ledger import rows
from medchain.ledger.execution import URGENT_LANE, Execution, Handler
from medchain.ledger.hospitals import check_hospital, organisation_of
from medchain.ledger.payload import as_code, as_key, as_opening_key, as_time_ms
from medchain.ledger.rows import decode_row, encode_row, uint32
from medchain.store.overlay import StateView

PATIENT_REGISTRATION: Final = "patient-registration"
"""Purpose under which a patient's key signs its registration (see `chain.domain`)."""
CLINICIAN_CREDENTIAL: Final = "clinician-credential"
"""Purpose under which a clinician's key agrees to be credentialed."""

PROOFS_CACHED_MAX: Final = 1024
"""Proofs of possession remembered: those of the blocks being decided, at 200 bytes each."""

REVOKED: Final = "revoked"
RENEWED: Final = "renewed"


def pseudonym_of(patient_key: bytes) -> bytes:
    """Return the pseudonym of a patient's Ed25519 public key (32 bytes): what stands on the chain for the patient."""
    return tagged_digest("medchain/pseudonym", patient_key)


def registration_bytes(network: Domain, hospital: bytes, opening_suite: int, opening_key: bytes) -> bytes:
    """Return the 32 bytes that a patient's key signs to be registered at a hospital (its organisation key) with an opening key."""
    return network.signed_bytes(PATIENT_REGISTRATION, codec.encode([hospital, opening_suite, opening_key]))


@lru_cache(maxsize=PROOFS_CACHED_MAX)
def _is_signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Check a proof of possession once: its block is executed again in each later view, and by the proposer before."""
    return is_signature_valid(public, message, signature)


def credential_bytes(network: Domain, hospital: bytes, opening_suite: int, opening_key: bytes) -> bytes:
    """Return the 32 bytes that a clinician's key signs to be credentialed by a hospital (its organisation key) with an opening key."""
    return network.signed_bytes(CLINICIAN_CREDENTIAL, codec.encode([hospital, opening_suite, opening_key]))


@dataclass(frozen=True, slots=True)
class ClinicianRow:
    """Which hospital a clinician's key belongs to, and how many credentials it had."""

    hospital: bytes
    """Organisation key."""
    number: int
    """Of the newest credential, from 1 on."""
    revoked: int
    """Number of the newest revoked credential, 0 = none: what was permitted under it or an older one is dead for good."""


@dataclass(frozen=True, slots=True)
class CredentialRow:
    """One credential of a clinician, in force from its height until its end row or its expiry."""

    hospital: bytes
    opening_suite: int
    opening_key: bytes
    """HPKE public key to which permitted data keys are sealed."""
    role: str
    specialty: str
    expires_ms: int
    """First millisecond at which it is no longer valid."""
    from_height: int


@dataclass(frozen=True, slots=True)
class CredentialEnd:
    """The end of a credential before its expiry."""

    to_height: int
    """First height at which it is no longer in force."""
    time_ms: int
    cause: str
    """`revoked`, or `renewed` when the hospital gave another one."""


@dataclass(frozen=True, slots=True)
class PatientRow:
    """A registered patient; the state key holds the pseudonym."""

    key: bytes
    """Ed25519 public key that signs consents."""
    hospital: bytes
    """Organisation key of the hospital: the custodian of everything under this pseudonym."""
    opening_suite: int
    opening_key: bytes
    from_height: int


def clinician_of(view: StateView, key: bytes) -> ClinicianRow | None:
    """Return the clinician with this key, None if no hospital ever credentialed it."""
    stored = view.get(rows.CLINICIAN + key)
    return None if stored is None else decode_row(ClinicianRow, stored)


def credential_of(view: StateView, key: bytes, number: int) -> CredentialRow:
    """Return a clinician's credential by its number. Raises InvariantBroken when there is none."""
    stored = view.get(rows.CREDENTIAL + key + uint32(number))
    if stored is None:
        raise InvariantBroken("a clinician's credential is missing from the state")
    return decode_row(CredentialRow, stored)


def credential_end_of(view: StateView, key: bytes, number: int) -> CredentialEnd | None:
    """Return the end of a credential, None while it was neither revoked nor renewed."""
    stored = view.get(rows.CREDENTIAL_END + key + uint32(number))
    return None if stored is None else decode_row(CredentialEnd, stored)


def credential_standing(view: StateView, time_ms: int, key: bytes, clinician: ClinicianRow) -> tuple[CredentialRow, str]:
    """Return a clinician's newest credential and "" if it is valid at `time_ms`, else the code of why it is not."""
    credential = credential_of(view, key, clinician.number)
    if credential_end_of(view, key, clinician.number) is not None:
        return credential, "credential.revoked"
    return credential, "credential.expired" if time_ms >= credential.expires_ms else ""


def patient_of(view: StateView, pseudonym: bytes) -> PatientRow | None:
    """Return the patient under a pseudonym, None if none is registered."""
    stored = view.get(rows.PATIENT + pseudonym)
    return None if stored is None else decode_row(PatientRow, stored)


def check_patient(view: StateView, pseudonym: bytes) -> PatientRow:
    """Return the patient under a pseudonym. Raises Rejected when none is registered."""
    patient = patient_of(view, pseudonym)
    if patient is None:
        raise Rejected("people.patient-unknown", "no patient is registered under this pseudonym: register the patient first")
    return patient


def _is_patient_key(view: StateView, key: bytes) -> bool:
    return view.get(rows.PATIENT + pseudonym_of(key)) is not None


@dataclass(frozen=True, slots=True)
class Credential(Handler):
    """A hospital credentials a clinician's key, or renews the credential. Sender: the hospital. Event without subjects."""

    KIND: ClassVar[str] = "people.credential"
    WEIGHT: ClassVar[int] = 20
    """One signature check above an ordinary write."""

    clinician: bytes
    """Ed25519 public key."""
    opening_suite: int
    opening_key: bytes
    role: str
    specialty: str
    expires_ms: int
    proof: bytes
    """The clinician key's signature of `credential_bytes`: proof of possession, for this hospital, network and opening key only.

    A renewal carries it, too. It says nothing of role, specialty and end: those are the hospital's word, and it may give them again."""

    @classmethod
    def from_payload(cls, payload: list[Any]) -> Credential:
        """Read a positional payload. Raises Malformed."""
        clinician, suite, opening, role, specialty, expires_ms, proof = codec.as_fields(payload, 7, "credential")
        opening_suite, opening_key = as_opening_key(suite, opening)
        return cls(
            clinician=as_key(clinician, "clinician key"),
            opening_suite=opening_suite,
            opening_key=opening_key,
            role=as_code(role, "role"),
            specialty=as_code(specialty, "specialty"),
            expires_ms=as_time_ms(expires_ms, "end of the credential"),
            proof=codec.as_bytes(proof, "proof of possession", length=limits.SIGNATURE_BYTES),
        )

    def check(self, execution: Execution) -> None:
        """Raise Rejected unless a hospital credentials a fresh key, or one of its own, whose owner agreed, for a time to come."""
        check_hospital(execution)
        state = execution.state
        clinician = clinician_of(state, self.clinician)
        if clinician is None:
            if organisation_of(state, self.clinician) is not None or _is_patient_key(state, self.clinician):
                raise Rejected("people.key-in-use", "this key is a hospital's or a patient's: make a fresh key for the clinician")
        elif clinician.hospital != execution.sender:
            raise Rejected("people.other-hospital", "another hospital credentialed this key: make a fresh key for this hospital")
        if self.expires_ms <= execution.context.time_ms:
            raise Rejected("people.expiry-past", "the credential would already be past its end: choose a later one")
        signed = credential_bytes(execution.context.network, execution.sender, self.opening_suite, self.opening_key)
        if not _is_signed(self.clinician, signed, self.proof):
            raise Rejected(
                "people.credential-proof-invalid", "the clinician's key must sign the credential by this hospital with this opening key"
            )

    def apply(self, execution: Execution) -> None:
        """Write the new credential; one that still stands ends as renewed."""
        state, height = execution.state, execution.context.height
        clinician = clinician_of(state, self.clinician)
        number, revoked = 1, 0
        if clinician is not None:
            number, revoked = clinician.number + 1, clinician.revoked
            if credential_end_of(state, self.clinician, clinician.number) is None:
                end = CredentialEnd(height, execution.context.time_ms, RENEWED)
                execution.insert(rows.CREDENTIAL_END + self.clinician + uint32(clinician.number), encode_row(end))
        state.put(rows.CLINICIAN + self.clinician, encode_row(ClinicianRow(execution.sender, number, revoked)))
        credential = CredentialRow(
            execution.sender, self.opening_suite, self.opening_key, self.role, self.specialty, self.expires_ms, height
        )
        execution.insert(rows.CREDENTIAL + self.clinician + uint32(number), encode_row(credential))
        execution.emit(self.KIND, (), [execution.sender, self.clinician, number, self.role, self.specialty, self.expires_ms])


@dataclass(frozen=True, slots=True)
class RevokeCredential(Handler):
    """The hospital ends a clinician's credential at once. Sender: the hospital that gave it. Event without subjects."""

    KIND: ClassVar[str] = "people.revoke_credential"
    WEIGHT: ClassVar[int] = 9
    LANE: ClassVar[int] = URGENT_LANE

    clinician: bytes

    @classmethod
    def from_payload(cls, payload: list[Any]) -> RevokeCredential:
        """Read a positional payload. Raises Malformed."""
        (clinician,) = codec.as_fields(payload, 1, "revocation of a credential")
        return cls(as_key(clinician, "clinician key"))

    def check(self, execution: Execution) -> None:
        """Raise Rejected unless the hospital ends a credential of its own that still stands."""
        check_hospital(execution)
        clinician = clinician_of(execution.state, self.clinician)
        if clinician is None:
            raise Rejected("people.clinician-unknown", "no hospital has credentialed this key")
        if clinician.hospital != execution.sender:
            raise Rejected("people.other-hospital", "another hospital credentialed this key: only that one can revoke it")
        if credential_end_of(execution.state, self.clinician, clinician.number) is not None:
            raise Rejected("people.credential-ended", "this credential is already revoked")

    def apply(self, execution: Execution) -> None:
        """Write the end of the newest credential."""
        clinician = clinician_of(execution.state, self.clinician)
        if clinician is None:
            raise InvariantBroken("the clinician of a checked revocation is missing")
        end = CredentialEnd(execution.context.height, execution.context.time_ms, REVOKED)
        execution.insert(rows.CREDENTIAL_END + self.clinician + uint32(clinician.number), encode_row(end))
        row = ClinicianRow(clinician.hospital, clinician.number, clinician.number)
        execution.state.put(rows.CLINICIAN + self.clinician, encode_row(row))
        execution.emit(self.KIND, (), [execution.sender, self.clinician, clinician.number])


@dataclass(frozen=True, slots=True)
class RegisterPatient(Handler):
    """A hospital registers a patient's fresh key. Sender: the hospital. Event on the new pseudonym's trail."""

    KIND: ClassVar[str] = "people.register_patient"
    WEIGHT: ClassVar[int] = 20
    """One signature check above an ordinary write."""

    patient: bytes
    """Ed25519 public key, fresh for this hospital."""
    opening_suite: int
    opening_key: bytes
    proof: bytes
    """The patient key's signature of `registration_bytes`: proof of possession, valid at this hospital of this network only."""

    @classmethod
    def from_payload(cls, payload: list[Any]) -> RegisterPatient:
        """Read a positional payload. Raises Malformed."""
        patient, suite, opening, proof = codec.as_fields(payload, 4, "registration of a patient")
        opening_suite, opening_key = as_opening_key(suite, opening)
        return cls(
            patient=as_key(patient, "patient key"),
            opening_suite=opening_suite,
            opening_key=opening_key,
            proof=codec.as_bytes(proof, "proof of possession", length=limits.SIGNATURE_BYTES),
        )

    def check(self, execution: Execution) -> None:
        """Raise Rejected unless a hospital registers a fresh key whose owner agreed."""
        check_hospital(execution)
        state = execution.state
        if _is_patient_key(state, self.patient):
            raise Rejected("people.patient-known", "this patient key is already registered: a patient has a fresh key at each hospital")
        if organisation_of(state, self.patient) is not None or clinician_of(state, self.patient) is not None:
            raise Rejected("people.key-in-use", "this key is a hospital's or a clinician's: make a fresh key for the patient")
        if state.get(rows.RECORD + pseudonym_of(self.patient)) is not None:
            raise Rejected("people.pseudonym-in-use", "a record stands under this pseudonym: register with a fresh patient key")
        signed = registration_bytes(execution.context.network, execution.sender, self.opening_suite, self.opening_key)
        if not _is_signed(self.patient, signed, self.proof):
            raise Rejected("people.proof-invalid", "the patient's key must sign the registration at this hospital with this opening key")

    def apply(self, execution: Execution) -> None:
        """Write the patient's row."""
        pseudonym = pseudonym_of(self.patient)
        patient = PatientRow(self.patient, execution.sender, self.opening_suite, self.opening_key, execution.context.height)
        execution.insert(rows.PATIENT + pseudonym, encode_row(patient))
        execution.emit(self.KIND, (pseudonym,), [execution.sender])
