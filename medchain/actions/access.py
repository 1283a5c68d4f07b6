"""Operations about access: asking, breaking the glass, announcing a release, confirming a reading, reviewing, reading a trail.

Who asks is the sender of the transaction; no argument names a person. The verdict is every node's own (ledger/verdicts.py).
"""

from __future__ import annotations

from medchain.actions.transactions import operation_of
from medchain.chain.transaction import Operation
from medchain.ledger.access import ReadReceipt, ReadTrail, Release, Request
from medchain.ledger.emergencies import Emergency, Review


def request_access(record: bytes, purpose: str, role: str) -> Operation:
    """Return the operation with which a clinician asks for the newest version of a record. Sender: the clinician. Raises Malformed."""
    return operation_of(Request(record, purpose, role))


def declare_emergency(record: bytes, reason: str) -> Operation:
    """Return the operation with which a clinician breaks the glass; `reason` is a code of ledger/emergencies.py. Sender: the clinician."""
    return operation_of(Emergency(record, reason))


def announce_release(permit: bytes, version: int) -> Operation:
    """Return the operation with which a holder announces that a version's key goes out. Sender: the holder."""
    return operation_of(Release(permit, version))


def confirm_reading(permit: bytes, version: int) -> Operation:
    """Return the operation with which the reader confirms having opened a version. Sender: the permit's reader."""
    return operation_of(ReadReceipt(permit, version))


def review_emergency(permit: bytes, outcome: str) -> Operation:
    """Return the operation with which the custodian judges an emergency `justified` or `unjustified`. Sender: the custodian."""
    return operation_of(Review(permit, outcome))


def read_trail(subject: bytes) -> Operation:
    """Return the operation that puts the reading of a trail (pseudonym or record id) on the trail. Sender: patient or custodian."""
    return operation_of(ReadTrail(subject))
