"""Reading the rule book's state for people: plain dictionaries of text, numbers and bytes, bounded pages, statuses from the chain itself.

Every function reads one view, so its answer is of one height. Bytes stay bytes; whoever writes JSON chooses their text form. Unknown ids
give None. What must stay secret from whom is not decided here: nothing in the state is content. This module changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from medchain.ledger import lists, rows
from medchain.ledger.consents import consent_end_of, consent_of, consent_status
from medchain.ledger.emergencies import review_end_of, review_late_of, review_of
from medchain.ledger.epochs import epoch_head, epoch_of
from medchain.ledger.evidence import evidence_of
from medchain.ledger.execution import BlockContext
from medchain.ledger.hospitals import HospitalRow, hospital_of
from medchain.ledger.people import clinician_of, credential_end_of, credential_standing, patient_of
from medchain.ledger.permits import permit_end_of, permit_of, permit_standing, permit_use_of
from medchain.ledger.records import CustodyRow, record_of, version_of
from medchain.ledger.rows import decode_row, uint32
from medchain.ledger.verdicts import verdict
from medchain.store.overlay import StateView

Answer = dict[str, Any]


def _named(row: Any) -> Answer:
    """Return field name → value of a row; tuples become lists."""
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    return {name: list(value) if type(value) is tuple else value for name, value in values.items()}


def _page(
    view: StateView, name: bytes, owner: bytes, start: int, limit: int, read: Callable[[bytes], Answer | None]
) -> Answer:
    """Return {"items": [...], "next": index or None, "count": all items} of a list."""
    identities, following = lists.read_page(view, name, owner, start, limit)
    return {"items": [read(identity) for identity in identities], "next": following, "count": lists.count_of(view, name, owner)}


def hospital(view: StateView, organisation_key: bytes) -> Answer | None:
    """Return a member hospital."""
    row = hospital_of(view, organisation_key)
    return None if row is None else _hospital(organisation_key, row)


def hospitals(view: StateView) -> list[Answer]:
    """Return all member hospitals, in the order of their organisation keys; at most as many as a network may have."""
    cut = len(rows.HOSPITAL)
    return [_hospital(key[cut:], decode_row(HospitalRow, value)) for key, value in view.iterate(rows.HOSPITAL)]


def _hospital(organisation_key: bytes, row: HospitalRow) -> Answer:
    return {"organisation_key": organisation_key, **_named(row)}


def clinician(view: StateView, context: BlockContext, key: bytes) -> Answer | None:
    """Return a clinician with the newest credential; `status` is `valid` or the code a request would be denied with now."""
    row = clinician_of(view, key)
    if row is None:
        return None
    credential, code = credential_standing(view, context.time_ms, key, row)
    end = credential_end_of(view, key, row.number)
    return {
        "clinician": key,
        **_named(credential),
        "number": row.number,
        "status": code or "valid",
        "to_height": None if end is None else end.to_height,
    }


def patient(view: StateView, pseudonym: bytes) -> Answer | None:
    """Return a registered patient: hospital and keys, nothing else is known."""
    row = patient_of(view, pseudonym)
    return None if row is None else {"pseudonym": pseudonym, **_named(row)}


def epoch(view: StateView, pseudonym: bytes, category: str) -> Answer:
    """Return where the epochs of a patient and category stand: `number` of the newest (0 = none), whether it `may_seal`, and the epoch."""
    head = epoch_head(view, pseudonym, category)
    row = epoch_of(view, pseudonym, category, head.number)
    return {
        "number": head.number,
        "floor": head.floor,
        "may_seal": head.number >= head.floor,
        "check_value": None if row is None else row.check_value,
        "is_interim": row is not None and row.is_interim,
        "from_height": None if row is None else row.from_height,
    }


def record(view: StateView, record_id: bytes) -> Answer | None:
    """Return a record with its newest version under `newest`."""
    row = record_of(view, record_id)
    if row is None:
        return None
    return {"record": record_id, **_named(row), "newest": version(view, record_id, row.version)}


def version(view: StateView, record_id: bytes, number: int) -> Answer | None:
    """Return one version of a record with the hospitals that confirmed custody of it."""
    row = record_of(view, record_id)
    found = version_of(view, record_id, number)
    if row is None or found is None:
        return None
    return {"record": record_id, "version": number, **_named(found), "holders": _holders(view, record_id, number)}


def _holders(view: StateView, record_id: bytes, number: int) -> list[Answer]:
    """Return the confirmations of custody of a version, in the order of the organisation keys; at most one a hospital."""
    prefix = rows.CUSTODY + record_id + uint32(number)
    return [
        {"hospital": key[len(prefix) :], "from_height": decode_row(CustodyRow, value).from_height}
        for key, value in view.iterate(prefix)
    ]


def versions(view: StateView, record_id: bytes, start: int = 1, limit: int = lists.PAGE_MAX) -> Answer | None:
    """Return a page of a record's versions from number `start` on, oldest first."""
    row = record_of(view, record_id)
    if row is None:
        return None
    stop = min(row.version, max(start, 1) + min(max(limit, 1), lists.PAGE_MAX) - 1)
    items = [version(view, record_id, number) for number in range(max(start, 1), stop + 1)]
    return {"items": items, "next": stop + 1 if stop < row.version else None, "count": row.version}


def records_of(view: StateView, pseudonym: bytes, start: int = 0, limit: int = lists.PAGE_MAX) -> Answer:
    """Return a page of a patient's records, oldest first."""
    return _page(view, lists.RECORDS, pseudonym, start, limit, lambda identity: record(view, identity))


def consent(view: StateView, context: BlockContext, consent_id: bytes) -> Answer | None:
    """Return a consent with its `status` at the context's time: active, not-begun, ended or revoked."""
    row = consent_of(view, consent_id)
    if row is None:
        return None
    end = consent_end_of(view, consent_id)
    return {
        "consent": consent_id,
        **_named(row),
        "status": consent_status(view, consent_id, row, context.time_ms),
        "to_height": None if end is None else end.to_height,
    }


def consents_of(view: StateView, context: BlockContext, pseudonym: bytes, start: int = 0, limit: int = lists.PAGE_MAX) -> Answer:
    """Return a page of a patient's consents, oldest first, each with its status at the context's time."""
    return _page(view, lists.CONSENTS, pseudonym, start, limit, lambda identity: consent(view, context, identity))


def permit(view: StateView, context: BlockContext, permit_id: bytes) -> Answer | None:
    """Return a permit with what was done with it; `standing` is `open` or the code with which a release would be refused now."""
    row = permit_of(view, permit_id)
    if row is None:
        return None
    end = permit_end_of(view, permit_id)
    return {
        "permit": permit_id,
        **_named(row),
        **_named(permit_use_of(view, permit_id)),
        "standing": permit_standing(view, context, permit_id, row) or "open",
        "to_height": None if end is None else end.to_height,
    }


def review(view: StateView, permit_id: bytes) -> Answer | None:
    """Return the review of an emergency; `outcome` is None while it is open, `escalated_height` tells that it was not done in time."""
    row = review_of(view, permit_id)
    if row is None:
        return None
    end, late = review_end_of(view, permit_id), review_late_of(view, permit_id)
    return {
        "permit": permit_id,
        **_named(row),
        "outcome": None if end is None else end.outcome,
        "to_height": None if end is None else end.to_height,
        "escalated_height": None if late is None else late.from_height,
    }


def evidence(view: StateView, identity: bytes) -> Answer | None:
    """Return recorded evidence with its encoded bytes."""
    row = evidence_of(view, identity)
    return None if row is None else {"id": identity, **_named(row)}


def explain(view: StateView, context: BlockContext, clinician_key: bytes, record_id: bytes, purpose: str) -> Answer:
    """Return what a request would be answered now, with the trace: each consent looked at, what it says, since and until which height.

    Raises Rejected when the clinician or the record is unknown.
    """
    answer = verdict(view, context, clinician_key, record_id, purpose)
    return {
        "result": "permit" if answer.permit else "deny",
        "code": answer.code,
        "consent": answer.consent or None,
        "until_ms": answer.until_ms or None,
        "trace": [_named(step) for step in answer.trace],
    }
