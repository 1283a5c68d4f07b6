"""Stories about consents: granting, revoking, listing, and why a request would be answered as it would. The patient's wallet signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medchain.actions import consents as actions
from medchain.client.node import NodeClient, all_pages
from medchain.client.people import list_hospitals
from medchain.client.wallet import RUN_TIMEOUT_MS, Outcome, Wallet
from medchain.ledger.consents import consent_id


@dataclass(frozen=True, slots=True)
class Granted:
    """A consent that is on the chain."""

    consent: bytes
    grantee_kind: str
    height: int
    transaction_id: bytes


async def grant(
    patient: Wallet,
    grantee: bytes,
    *,
    purpose: str,
    category: str,
    until_ms: int,
    from_ms: int = 0,
    timeout_ms: int = RUN_TIMEOUT_MS,
) -> Granted:
    """Permit a clinician, or every clinician of a hospital, one purpose on one category of the patient's records until `until_ms`.

    `grantee` is a clinician's key or a hospital's organisation key; which of them, the list of hospitals tells. Raises Rejected.
    """
    hospitals = {hospital.organisation_key for hospital in await list_hospitals(patient.client)}
    kind, action = ("hospital", actions.grant_to_hospital) if grantee in hospitals else ("clinician", actions.grant_to_clinician)
    outcome = await patient.run([action(grantee, purpose, category, until_ms, from_ms)], timeout_ms=timeout_ms)
    return Granted(consent_id(outcome.transaction_id, 0), kind, outcome.height, outcome.transaction_id)


async def revoke(patient: Wallet, consent: bytes, *, timeout_ms: int = RUN_TIMEOUT_MS) -> Outcome:
    """End a consent; it permits nothing from the next transaction on. Raises Rejected, e.g. `consents.not-yours`."""
    return await patient.run([actions.revoke_consent(consent)], timeout_ms=timeout_ms)


async def list_consents(client: NodeClient, pseudonym: bytes) -> list[dict[str, Any]]:
    """Return all consents of a patient, oldest first, with their status at the node's head (rows of consents.list)."""
    return await all_pages(client, "consents.list", "consents", pseudonym=pseudonym)


async def explain(client: NodeClient, clinician: bytes, record: bytes, purpose: str, role: str | None = None) -> dict[str, Any]:
    """Return what a request would be answered now, and why; writes nothing (the answer of consents.explain)."""
    answer: dict[str, Any] = await client.call("consents.explain", clinician=clinician, record=record, purpose=purpose, role=role)
    return answer
