"""Operations about consents: granting and revoking. The sender is always the patient: identity is the signing key, never an argument."""

from __future__ import annotations

from medchain.actions.transactions import operation_of
from medchain.chain.transaction import Operation
from medchain.ledger.consents import CLINICIAN, HOSPITAL, Grant, Revoke


def grant_to_clinician(clinician: bytes, purpose: str, category: str, until_ms: int, from_ms: int = 0) -> Operation:
    """Return the operation that permits one clinician one purpose on one category, until `until_ms` (no longer at it).

    `from_ms` 0 = at once. Raises Malformed for unknown purposes and empty periods.
    """
    return operation_of(Grant(CLINICIAN, clinician, purpose, category, from_ms, until_ms))


def grant_to_hospital(organisation_key: bytes, purpose: str, category: str, until_ms: int, from_ms: int = 0) -> Operation:
    """Return the operation that permits every clinician credentialed by one hospital; else like `grant_to_clinician`."""
    return operation_of(Grant(HOSPITAL, organisation_key, purpose, category, from_ms, until_ms))


def revoke_consent(consent: bytes) -> Operation:
    """Return the operation that ends a consent; from the next transaction on it permits nothing."""
    return operation_of(Revoke(consent))
