"""The one table kind → handler: every operation of this protocol version, and how a transaction's operations are read.

Knows the form of operations; what they do is in the subjects' files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from medchain.chain.transaction import Operation, Transaction
from medchain.errors import Malformed, Rejected
from medchain.ledger import access, consents, emergencies, epochs, people, records
from medchain.ledger.execution import ORDINARY_LANE, URGENT_LANE, Handler

KINDS: Final[dict[str, type[Handler]]] = {
    handler.KIND: handler
    for handler in (
        people.Credential,
        people.RevokeCredential,
        people.RegisterPatient,
        epochs.Interim,
        records.Register,
        records.Amend,
        records.ConfirmCustody,
        consents.Grant,
        consents.Revoke,
        access.Request,
        access.Release,
        access.ReadReceipt,
        access.ReadTrail,
        emergencies.Emergency,
        emergencies.Review,
    )
}
"""Operation kind → its payload class with the three questions."""

TRANSACTION_WEIGHT: Final = 3
"""Work of a transaction besides its operations: marks, receipt and its leaf."""


def read_operation(operation: Operation) -> Handler:
    """Return the payload of an operation. Raises Rejected (`operation.unknown`, `operation.malformed`)."""
    kind = KINDS.get(operation.kind)
    if kind is None:
        raise Rejected("operation.unknown", "the network knows no operation of this kind: see the list in the README or update the client")
    try:
        return kind.from_payload(operation.payload)
    except Malformed as error:
        raise Rejected("operation.malformed", f"the payload of {kind.KIND} is not well-formed: {error.message}") from None


@dataclass(frozen=True, slots=True)
class Work:
    """A well-formed transaction's operations, read."""

    handlers: tuple[Handler, ...]
    weight: int
    lane: int


def check_form(transaction: Transaction) -> Work:
    """Return the operations, read once. Raises Rejected unless every one is of a known kind and well-formed; needs no state."""
    work: Work | None = transaction.work
    if work is None:
        handlers = tuple(map(read_operation, transaction.body.operations))
        work = Work(handlers, weight_of(transaction), lane_of(transaction))
        transaction.keep_work(work)
    return work


def weight_of(transaction: Transaction) -> int:
    """Return the work of executing a transaction, in units of the parameter `block_weight_max`. Unknown kinds cost nothing more."""
    work: Work | None = transaction.work
    if work is not None:
        return work.weight
    known = (KINDS.get(operation.kind) for operation in transaction.body.operations)
    return TRANSACTION_WEIGHT + sum(kind.WEIGHT for kind in known if kind is not None)


def lane_of(transaction: Transaction) -> int:
    """Return URGENT_LANE if every operation is urgent, else ORDINARY_LANE: one revocation does not pull bulk work ahead."""
    work: Work | None = transaction.work
    if work is not None:
        return work.lane
    kinds = [KINDS.get(operation.kind) for operation in transaction.body.operations]
    return URGENT_LANE if all(kind is not None and kind.LANE == URGENT_LANE for kind in kinds) else ORDINARY_LANE
