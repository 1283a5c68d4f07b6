"""Stories about people and hospitals: registering a patient, credentialing a clinician, finding a hospital. Knows no names of persons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medchain.actions import people as actions
from medchain.chain.genesis import Hospital
from medchain.client.node import NodeClient, digest_of, list_of, text_of, uint_of
from medchain.client.wallet import RUN_TIMEOUT_MS, Outcome, Wallet, rule_refusal
from medchain.crypto.keyfile import Identity
from medchain.errors import Rejected
from medchain.ledger import rows
from medchain.ledger.hospitals import HospitalRow
from medchain.ledger.people import PatientRow, pseudonym_of
from medchain.ledger.rows import decode_row
from medchain.wire.methods import read_hex


@dataclass(frozen=True, slots=True)
class HospitalFacts:
    """A member hospital, as its node or any other tells it."""

    name: str
    organisation_key: bytes
    opening_suite: int
    opening_key: bytes


@dataclass(frozen=True, slots=True)
class RegisteredPatient:
    """A patient at one hospital."""

    pseudonym: bytes
    hospital: bytes
    """Organisation key."""
    height: int


async def register_patient(hospital: Wallet, patient: Identity, *, timeout_ms: int = RUN_TIMEOUT_MS) -> RegisteredPatient:
    """Register a patient's fresh key at the hospital whose wallet this is. Raises Rejected, e.g. `people.patient-known`."""
    facts = await hospital.client.facts()
    outcome = await hospital.run([actions.register_patient(facts.network, hospital.public, patient)], timeout_ms=timeout_ms)
    return RegisteredPatient(pseudonym_of(patient.signing.public), hospital.public, outcome.height)


async def patient_hospital(client: NodeClient, pseudonym: bytes) -> bytes:
    """Return the organisation key of the hospital that registered a patient, proven. Raises Rejected `people.patient-unknown`."""
    stored = (await client.proven_state(rows.PATIENT + pseudonym)).value
    if stored is None:
        raise rule_refusal("people.patient-unknown")
    return decode_row(PatientRow, stored).hospital


async def credential_clinician(
    hospital: Wallet, clinician: Identity, role: str, specialty: str, expires_ms: int, *, timeout_ms: int = RUN_TIMEOUT_MS
) -> Outcome:
    """Credential a clinician until `expires_ms`, or renew the credential; the clinician's key signs its agreement.

    Raises Rejected, e.g. `people.other-hospital`.
    """
    facts = await hospital.client.facts()
    operation = actions.credential_clinician(facts.network, hospital.public, clinician, role, specialty, expires_ms)
    return await hospital.run([operation], timeout_ms=timeout_ms)


async def revoke_credential(hospital: Wallet, clinician: bytes, *, timeout_ms: int = RUN_TIMEOUT_MS) -> Outcome:
    """End a clinician's credential at once."""
    return await hospital.run([actions.revoke_credential(clinician)], timeout_ms=timeout_ms)


async def clinician_role(client: NodeClient, clinician: bytes) -> str:
    """Return the role of a clinician's newest credential. Raises Rejected `people.clinician-unknown`."""
    return text_of(await client.call("people.clinician", clinician=clinician), "role")


async def list_hospitals(client: NodeClient) -> list[HospitalFacts]:
    """Return the member hospitals."""
    return [_hospital(row) for row in list_of(await client.call("hospitals.list"), "hospitals")]


async def find_hospital(client: NodeClient, name_or_key: str | bytes) -> HospitalFacts:
    """Return the hospital with this name or organisation key, proven by the state: consents and data keys are given to what is found here.

    Raises Rejected `client.unknown-hospital`, `client.false-answer` when the node tells other names or keys than the chain, `proof.*`.
    """
    hospitals = await list_hospitals(client)
    for hospital in hospitals:
        if name_or_key in (hospital.name, hospital.organisation_key, hospital.organisation_key.hex()):
            row = await _proven_hospital(client, hospital.organisation_key)
            if row is None or (row.name, row.opening_suite, row.opening_key) != (
                hospital.name, hospital.opening_suite, hospital.opening_key,
            ):  # fmt: skip
                raise Rejected("client.false-answer", "the node tells a hospital's name or key otherwise than the chain: do not use it")
            return hospital
    names = ", ".join(sorted(hospital.name for hospital in hospitals))
    raise Rejected("client.unknown-hospital", f"no member hospital has this name or key; there are: {names}")


async def _proven_hospital(client: NodeClient, organisation_key: bytes) -> HospitalRow | Hospital | None:
    """Return a hospital's row under a certificate; of the genesis document while there is no block that could be certified."""
    if await client.head_height() == 0:
        founding = (await client.facts()).genesis.hospitals
        return next((hospital for hospital in founding if hospital.organisation_key == organisation_key), None)
    stored = (await client.proven_state(rows.HOSPITAL + organisation_key)).value
    return None if stored is None else decode_row(HospitalRow, stored)


def _hospital(row: Any) -> HospitalFacts:
    key = read_hex(text_of(row, "opening_key"), "opening_key", 2048)
    return HospitalFacts(text_of(row, "name"), digest_of(row, "organisation_key"), uint_of(row, "opening_suite"), key)
