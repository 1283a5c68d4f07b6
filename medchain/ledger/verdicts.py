"""The verdict: may this clinician have this record for this purpose now? One function for the request, for `explain`, and for a release.

Deterministic over state and block time; the answer comes with its trace. Nothing matches = deny (ledger.md, "Consent"). This module knows
no permit: what follows from a verdict is in access.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from medchain.errors import InvariantBroken, Rejected
from medchain.ledger.consents import ACTIVE, ENDED, NOT_BEGUN, REVOKED, ConsentRow, consent_end_of, consent_of, consent_status, consents_to
from medchain.ledger.execution import BlockContext
from medchain.ledger.people import ClinicianRow, CredentialRow, clinician_of, credential_standing
from medchain.ledger.records import RecordRow, record_of
from medchain.store.overlay import StateView


@dataclass(frozen=True, slots=True)
class Step:
    """What the verdict found about one consent."""

    consent: bytes
    code: str
    """Empty if it permits, else why it does not (a code of `refusals.DENIALS`)."""
    from_height: int
    to_height: int | None
    """Height of its revocation, None while it stands."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer, and where it comes from."""

    permit: bool
    code: str
    """Empty for a permit, else the denial's code."""
    consent: bytes
    """Id of the consent that permits; empty for a denial."""
    until_ms: int
    """End of the consent that permits; 0 for a denial."""
    trace: tuple[Step, ...]
    """Every consent that was looked at, the clinician's own first, each list oldest first. Empty when the credential decided."""


_STATUS_CODES: Final = {REVOKED: "consent.revoked", ENDED: "consent.ended", NOT_BEGUN: "consent.not-begun", ACTIVE: ""}
_PRECEDENCE: Final = ("consent.revoked", "consent.ended", "consent.not-begun", "consent.purpose", "consent.category")
"""Which of several reasons a denial names: the one of the consent that came nearest to permitting."""


def check_clinician(view: StateView, key: bytes) -> ClinicianRow:
    """Return the clinician who asks. Raises Rejected when no hospital ever credentialed the key."""
    clinician = clinician_of(view, key)
    if clinician is None:
        raise Rejected("people.clinician-unknown", "no hospital has credentialed this key: ask your hospital to do so")
    return clinician


def standing_of(view: StateView, context: BlockContext, key: bytes, role: str | None) -> tuple[CredentialRow, str]:
    """Return the clinician's newest credential and "" if it may act (in this role, when one is named), else a `credential.` code.

    Raises Rejected when the clinician is unknown.
    """
    credential, code = credential_standing(view, context.time_ms, key, check_clinician(view, key))
    if not code and role is not None and role != credential.role:
        code = "credential.role"
    return credential, code


def verdict(
    view: StateView, context: BlockContext, clinician_key: bytes, record: bytes, purpose: str, role: str | None = None
) -> Verdict:
    """Return whether the clinician may have the record for the purpose at the context's time, and why.

    Codes are looked for in the order of `refusals.DENIALS`: the credential first (revoked, expired, other role), then the consents to the
    clinician and to the clinician's hospital. Of several permitting consents the one that ends last counts, the older on a tie. Without
    one, the reason of the consent that came nearest is named: same category and purpose (revoked, ended, not begun), else one in force for
    the category (other purpose), else one in force at all (other category), else none.

    Raises Rejected when the clinician or the record is unknown (`people.clinician-unknown`, `records.unknown`).
    """
    credential, code = standing_of(view, context, clinician_key, role)
    row = record_of(view, record)
    if row is None:
        raise Rejected("records.unknown", "no record is registered under this id: check the id")
    if code:
        return Verdict(False, code, b"", 0, ())
    trace: list[Step] = []
    best: tuple[int, bytes] | None = None
    for grantee in (clinician_key, credential.hospital):
        for identity in consents_to(view, row.pseudonym, grantee):
            consent = consent_of(view, identity)
            if consent is None:
                raise InvariantBroken("a consent named by another row is missing from the state")
            reason = _reason(view, identity, consent, row, purpose, context.time_ms)
            end = consent_end_of(view, identity)
            trace.append(Step(identity, reason, consent.from_height, None if end is None else end.to_height))
            if not reason and (best is None or consent.until_ms > best[0]):
                best = (consent.until_ms, identity)
    if best is not None:
        return Verdict(True, "", best[1], best[0], tuple(trace))
    reasons = {step.code for step in trace}
    denial = next((candidate for candidate in _PRECEDENCE if candidate in reasons), "consent.none")
    return Verdict(False, denial, b"", 0, tuple(trace))


def _reason(view: StateView, identity: bytes, consent: ConsentRow, record: RecordRow, purpose: str, time_ms: int) -> str:
    """Return "" if the consent permits, else why it does not; one that is over and about something else says nothing at all."""
    status = consent_status(view, identity, consent, time_ms)
    if consent.category == record.category and consent.purpose == purpose:
        return _STATUS_CODES[status]
    if status in (REVOKED, ENDED):
        return "consent.none"
    return "consent.purpose" if consent.category == record.category else "consent.category"
