"""Permits: what a final verdict lets go out, to whom, until when and how often.

A permit is a row written once; its uses are counted beside it. `permit_standing` is the release rule over state: the operation that
announces a release and the releaser's own check at a later head both ask it. This module decides no request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from medchain.errors import InvariantBroken, Rejected
from medchain.ledger import rows
from medchain.ledger.consents import consent_end_of
from medchain.ledger.execution import BlockContext, Execution, made_id
from medchain.ledger.lists import PERMITS, append_item
from medchain.ledger.people import ClinicianRow, clinician_of, credential_standing
from medchain.ledger.records import RecordRow
from medchain.ledger.rows import decode_row, encode_row
from medchain.store.overlay import StateView

PERMIT_MS: Final = 60 * 60 * 1000
"""An hour to fetch what was asked for; asking again costs one transaction, a forgotten permit costs trust."""
EMERGENCY_MS: Final = 4 * 60 * 60 * 1000
"""The time limit of a broken glass: the first hours of a patient who cannot be asked."""
PERMIT_BLOCKS: Final = 300_000
"""The same bound in blocks, should the clock of the headers stand: four hours at the shortest block interval of 50 ms."""
RELEASES_MAX: Final = 16
"""Announced releases under one permit: a first one and repetitions after lost answers and crashes."""


@dataclass(frozen=True, slots=True)
class PermitRow:
    """One permit as it was given."""

    record: bytes
    pseudonym: bytes
    versions: tuple[int, ...]
    """Exactly these may be released: the newest at the time of the request."""
    reader: bytes
    """The clinician's key."""
    credential: int
    """Number of the credential under which it was given."""
    hospital: bytes
    """Organisation key of the reader's hospital."""
    purpose: str
    role: str
    consent: bytes
    """Id of the consent that permitted; empty for an emergency."""
    reason: str
    """Reason code of an emergency, empty otherwise."""
    from_height: int
    time_ms: int
    expires_height: int
    """Last height at which a release may be announced."""
    expires_ms: int
    """First millisecond at which it no longer may."""
    releases_max: int


@dataclass(frozen=True, slots=True)
class PermitUse:
    """What was done with a permit."""

    releases: int
    released: tuple[int, ...]
    """Versions released at least once, ascending."""
    read: tuple[int, ...]
    """Versions whose reading the reader confirmed, ascending."""


@dataclass(frozen=True, slots=True)
class PermitEnd:
    """A permit ended before its time, by a review that found it unjustified."""

    to_height: int
    time_ms: int


def permit_id(transaction_id: bytes, operation_index: int) -> bytes:
    """Return the id of the permit that an operation may give."""
    return made_id("permit", transaction_id, operation_index)


def permit_of(view: StateView, permit: bytes) -> PermitRow | None:
    """Return a permit, None if none is known under the id."""
    stored = view.get(rows.PERMIT + permit)
    return None if stored is None else decode_row(PermitRow, stored)


def check_permit(view: StateView, permit: bytes) -> PermitRow:
    """Return a permit. Raises Rejected when none is known under the id."""
    row = permit_of(view, permit)
    if row is None:
        raise Rejected("access.permit-unknown", "no permit is known under this id: ask for access first")
    return row


def permit_use_of(view: StateView, permit: bytes) -> PermitUse:
    """Return what was done with a permit so far."""
    stored = view.get(rows.PERMIT_USE + permit)
    return PermitUse(0, (), ()) if stored is None else decode_row(PermitUse, stored)


def permit_end_of(view: StateView, permit: bytes) -> PermitEnd | None:
    """Return the early end of a permit, None if it has none."""
    stored = view.get(rows.PERMIT_END + permit)
    return None if stored is None else decode_row(PermitEnd, stored)


def permit_standing(view: StateView, context: BlockContext, permit: bytes, row: PermitRow) -> str:
    """Return "" if a key may still be released under the permit at the context's height and time, else the code of why not.

    Looked for in this order: ended by review, past its end, a credential revoked since it was given (also one that renewed the first, and
    also when another was given afterwards), the clinician's present credential expired, its own consent revoked, releases used up. The
    count comes last: a releaser may repeat an old answer under a permit that is only used up, never under one that was taken back. Another
    consent does not save a permit: the reader can ask again.
    """
    if permit_end_of(view, permit) is not None:
        return "access.permit-ended"
    if context.height > row.expires_height or context.time_ms >= row.expires_ms:
        return "access.permit-expired"
    reader = _reader(view, row)
    if reader.revoked >= row.credential:
        return "credential.revoked"
    _, code = credential_standing(view, context.time_ms, row.reader, reader)
    if code:
        return code
    if row.consent and consent_end_of(view, row.consent) is not None:
        return "consent.revoked"
    return "access.releases-used-up" if permit_use_of(view, permit).releases >= row.releases_max else ""


def _reader(view: StateView, row: PermitRow) -> ClinicianRow:
    clinician = clinician_of(view, row.reader)
    if clinician is None:
        raise InvariantBroken("the reader of a permit is missing from the state")
    return clinician


def write_permit(
    execution: Execution, record_id: bytes, record: RecordRow, hospital: bytes, purpose: str, role: str, consent: bytes, reason: str,
    expires_ms: int,
) -> tuple[bytes, PermitRow]:  # fmt: skip
    """Write a permit for the sender on the newest version of a record and return (id, row)."""
    clinician = clinician_of(execution.state, execution.sender)
    if clinician is None:
        raise InvariantBroken("the clinician of a checked request is missing from the state")
    context = execution.context
    identity = execution.new_id("permit")
    permit = PermitRow(
        record=record_id,
        pseudonym=record.pseudonym,
        versions=(record.version,),
        reader=execution.sender,
        credential=clinician.number,
        hospital=hospital,
        purpose=purpose,
        role=role,
        consent=consent,
        reason=reason,
        from_height=context.height,
        time_ms=context.time_ms,
        expires_height=context.height + PERMIT_BLOCKS,
        expires_ms=expires_ms,
        releases_max=RELEASES_MAX,
    )
    execution.insert(rows.PERMIT + identity, encode_row(permit))
    append_item(execution, PERMITS, record_id, identity)
    return identity, permit
