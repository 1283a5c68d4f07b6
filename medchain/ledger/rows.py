"""Rows of the state: frozen dataclasses, stored as the positional list of their fields.

A row is written by our own rules and proven by the state root, so one that cannot be read is not a peer's fault but ours: InvariantBroken.
The key ranges of all subjects stand here on one page, because no two may overlap. This module knows no rule.

    range                                                   row                     written
    parameters                                              Parameters              by genesis
    validators                                              ValidatorSet            by genesis
    rotation                                                rotation.RotationRow    with each block
    hospital/ organisation key                              hospitals.HospitalRow   by genesis
    hospital-key/ any key of a hospital                     its organisation key    by genesis
    clinician/ clinician key                                people.ClinicianRow     counts credentials, newest revoked one
    credential/ clinician key, u32 number                   people.CredentialRow    once
    credential-end/ clinician key, u32 number               people.CredentialEnd    once
    patient/ pseudonym                                      people.PatientRow       once
    epoch-head/ pseudonym, category                         epochs.EpochHead        counts epochs, floor of sealing
    epoch/ pseudonym, u32 number, category                  epochs.EpochRow         once
    record/ record id                                       records.RecordRow       counts versions
    version/ record id, u32 version                         records.VersionRow      once
    custody/ record id, u32 version, organisation key       records.CustodyRow      once
    consent/ consent id                                     consents.ConsentRow     once
    consent-end/ consent id                                 consents.ConsentEnd     once
    consent-to/ pseudonym, grantee key                      consents.GranteeRow     ids that a verdict looks at
    permit/ permit id                                       permits.PermitRow       once
    permit-use/ permit id                                   permits.PermitUse       counts releases and reads
    permit-end/ permit id                                   permits.PermitEnd       once
    review/ permit id                                       emergencies.ReviewRow   once
    review-end/ permit id                                   emergencies.ReviewEnd   once
    review-late/ permit id                                  emergencies.ReviewLate  once
    due/ u64 time, permit id                                nothing (an index)      until done or escalated
    evidence/ evidence id                                   evidence.EvidenceRow    once
    evidence-newest/ consensus key, offence                 evidence.NewestEvidence with each recorded one
    suspension-proposed/ organisation key                   evidence.SuspensionProposed  once
    list/ name, owner, u64 index                            an id (lists.py)        once
    list-count/ name, owner                                 u64                     counts a list
    trail/ pseudonym or record id                           trail.TrailHead         with each event
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from medchain import codec
from medchain.errors import InvariantBroken, Malformed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PARAMETERS: Final = b"parameters"
VALIDATORS: Final = b"validators"
ROTATION: Final = b"rotation"
HOSPITAL: Final = b"hospital/"
HOSPITAL_KEY: Final = b"hospital-key/"
CLINICIAN: Final = b"clinician/"
CREDENTIAL: Final = b"credential/"
CREDENTIAL_END: Final = b"credential-end/"
PATIENT: Final = b"patient/"
EPOCH_HEAD: Final = b"epoch-head/"
EPOCH: Final = b"epoch/"
RECORD: Final = b"record/"
VERSION: Final = b"version/"
CUSTODY: Final = b"custody/"
CONSENT: Final = b"consent/"
CONSENT_END: Final = b"consent-end/"
CONSENT_TO: Final = b"consent-to/"
PERMIT: Final = b"permit/"
PERMIT_USE: Final = b"permit-use/"
PERMIT_END: Final = b"permit-end/"
REVIEW: Final = b"review/"
REVIEW_END: Final = b"review-end/"
REVIEW_LATE: Final = b"review-late/"
DUE: Final = b"due/"
EVIDENCE: Final = b"evidence/"
EVIDENCE_NEWEST: Final = b"evidence-newest/"
SUSPENSION_PROPOSED: Final = b"suspension-proposed/"
LIST: Final = b"list/"
LIST_COUNT: Final = b"list-count/"
TRAIL: Final = b"trail/"

WRITTEN_ONCE: Final = (
    HOSPITAL, HOSPITAL_KEY, CREDENTIAL, CREDENTIAL_END, PATIENT, EPOCH, VERSION, CUSTODY, CONSENT, CONSENT_END, PERMIT, PERMIT_END,
    REVIEW, REVIEW_END, REVIEW_LATE, EVIDENCE, SUSPENSION_PROPOSED, LIST,
)  # fmt: skip
"""Ranges whose rows are never overwritten and never deleted: what past verdicts are explained from."""

INDEX: Final = b"\x00"
"""The value of an index row: its key says everything, and an empty value could be mistaken for none."""

ROW_BYTES_MAX: Final = 64 * 1024
"""Far above the largest row (a hospital with its certificate, below 16 kB)."""

ROWS_CACHED_MAX: Final = 4_096
"""Rows remembered as read: usual ones take a few hundred bytes, so about 2 MB, and 64 MB if all were hospitals with the largest
certificates."""

Row = TypeVar("Row", bound="DataclassInstance")


def encode_row(row: DataclassInstance) -> bytes:
    """Return the stored bytes of a row dataclass: its field values in order."""
    return codec.encode(_values_of(type(row))(row))


def decode_row(kind: type[Row], data: bytes) -> Row:
    """Return the row of stored bytes; lists come back as tuples. Raises InvariantBroken when they are not such a row.

    Remembers what it read: a block looks at the same hospitals, people and consents again and again, and rows never change.
    """
    row: Row = _remembered_row(kind, data)
    return row


def decode_changing_row(kind: type[Row], data: bytes) -> Row:
    """Read a row of the own state that is another each time it is read: remembering it would only push out the others.

    The state root covers it, so its form is not looked at again. Raises InvariantBroken when it is no such row.
    """
    return _row_of(kind, codec.decode_own, data)


def _read_row(kind: Any, data: bytes) -> Any:
    return _row_of(kind, _decode_row, data)


def _decode_row(data: bytes) -> Any:
    return codec.decode(data, bytes_max=ROW_BYTES_MAX, depth_max=4)


def _row_of(kind: type[Row], decode: Callable[[bytes], Any], data: bytes) -> Row:
    try:
        values = decode(data)
    except Malformed as error:
        raise InvariantBroken(f"a stored {kind.__name__} cannot be read: {error.message}") from error
    if type(values) is not list or len(values) != len(_names(kind)):
        raise InvariantBroken(f"a stored {kind.__name__} has another number of fields")
    return kind(*[_frozen(value) if type(value) is list else value for value in values])


_remembered_row: Final[Callable[[Any, bytes], Any]] = lru_cache(maxsize=ROWS_CACHED_MAX)(_read_row)


@lru_cache(maxsize=64)
def _names(kind: type[DataclassInstance]) -> tuple[str, ...]:
    """Return the names of the fields, which `dataclasses.fields` gathers anew in each call."""
    return tuple(field.name for field in fields(kind))


@lru_cache(maxsize=64)
def _values_of(kind: type[DataclassInstance]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what takes the field values out of a row; `attrgetter` does it in one step, but gives the value of a single field bare."""
    names = _names(kind)
    getter = attrgetter(*names)
    return getter if len(names) > 1 else lambda row: (getter(row),)


def _frozen(values: list[Any]) -> tuple[Any, ...]:
    return tuple(_frozen(value) if type(value) is list else value for value in values)


def uint32(number: int) -> bytes:
    """Return a version, an epoch or a credential number as 4 bytes, big-endian."""
    return number.to_bytes(4, "big")


def uint64(number: int) -> bytes:
    """Return a height or a time as 8 bytes, big-endian."""
    return number.to_bytes(8, "big")
