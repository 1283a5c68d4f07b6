"""Operations about people: credentialing clinicians, registering patients.

A key is made fresh for its one part at one hospital (ledger/people.py). Knows no chain state and no name of anybody.
"""

from __future__ import annotations

from medchain.actions.transactions import operation_of
from medchain.chain.domain import Domain
from medchain.chain.transaction import Operation
from medchain.crypto.keyfile import Identity
from medchain.ledger.people import Credential, RegisterPatient, RevokeCredential, credential_bytes, registration_bytes


def credential_clinician(
    network: Domain, hospital: bytes, clinician: Identity, role: str, specialty: str, expires_ms: int
) -> Operation:
    """Return the operation with which a hospital (its organisation key) credentials a clinician, or renews that. Sender: the hospital.

    The clinician's key signs it here, for this hospital of this network and its own opening key only: proof of possession and of agreement.
    `role` and `specialty` are short codes, `expires_ms` the first millisecond at which it no longer holds. Raises Malformed.
    """
    public = clinician.public_identity()
    proof = clinician.signing.sign(credential_bytes(network, hospital, public.opening_suite, public.opening_public))
    return operation_of(Credential(public.public, public.opening_suite, public.opening_public, role, specialty, expires_ms, proof))


def revoke_credential(clinician: bytes) -> Operation:
    """Return the operation with which a hospital ends a clinician's credential at once. Sender: the hospital that gave it."""
    return operation_of(RevokeCredential(clinician))


def register_patient(network: Domain, hospital: bytes, patient: Identity) -> Operation:
    """Return the operation that registers a patient at a hospital (its organisation key). Sender: the hospital.

    The patient's key signs it here, for this hospital of this network only: proof of possession and of agreement.
    """
    public = patient.public_identity()
    proof = patient.signing.sign(registration_bytes(network, hospital, public.opening_suite, public.opening_public))
    return operation_of(RegisterPatient(public.public, public.opening_suite, public.opening_public, proof))
