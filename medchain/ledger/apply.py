"""Executing a block: what it carries about its parent and due items first, then each transaction, all or nothing.

Pure: the same view, context and transactions give the same receipts and changes on every node, under every hash seed. Signatures,
valid-until heights and replays are the engine's checks and were done before (protocol.md, "Nouns"); what a transaction *says* never raises
here, it ends in its receipt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medchain.chain.genesis import Genesis
from medchain.chain.receipt import ACCEPTED, Event, Receipt
from medchain.chain.transaction import Transaction
from medchain.chain.validators import ValidatorSet
from medchain.crypto.hashing import tagged_digest
from medchain.errors import Rejected
from medchain.ledger.emergencies import apply_due
from medchain.ledger.evidence import record_evidence
from medchain.ledger.execution import NOTHING_CARRIED, ORDINARY_LANE, URGENT_LANE, BlockContext, Carried, Execution
from medchain.ledger.hospitals import founding_rows, parameters_of, validators_of
from medchain.ledger.kinds import check_form, lane_of, read_operation, weight_of
from medchain.ledger.rotation import founding_row, rotation_of, signed_heights, take_carried
from medchain.ledger.rows import ROTATION, uint64
from medchain.store.overlay import Overlay, StateView

__all__ = [
    "ORDINARY_LANE",
    "URGENT_LANE",
    "Applied",
    "BlockContext",
    "Carried",
    "apply_block",
    "check_form",
    "due_receipt_id",
    "genesis_changes",
    "lane_of",
    "parameters_of",
    "rotation_of",
    "signed_heights",
    "validators_of",
    "weight_of",
]


@dataclass(frozen=True, slots=True)
class Applied:
    """What a block did."""

    receipts: tuple[Receipt, ...]
    """In block order, the leaves under the receipts root. When due items made events, a receipt of theirs stands first, under
    `due_receipt_id(height)`; then receipt i + 1 belongs to transaction i (see `transaction_receipts`)."""
    changes: dict[bytes, bytes | None]
    """Net changes of the state, in key order; None deletes."""
    validators: ValidatorSet
    """Those in force after this block."""
    due_events: tuple[Event, ...]
    """Events of due items and of evidence; empty in most blocks. They are in `receipts` too."""

    @property
    def transaction_receipts(self) -> tuple[Receipt, ...]:
        """The receipts of the transactions alone: receipt i belongs to transaction i."""
        return self.receipts[1:] if self.due_events else self.receipts


def due_receipt_id(height: int) -> bytes:
    """Return the id under which the due items of a block have their receipt (32 bytes, never a transaction's: another tag)."""
    return tagged_digest("medchain/due", uint64(height))


def genesis_changes(genesis: Genesis) -> dict[bytes, bytes]:
    """Return the state after the genesis document, in key order."""
    return dict(sorted({**founding_rows(genesis), ROTATION: founding_row(genesis)}.items()))


def apply_block(
    view: StateView, context: BlockContext, transactions: Sequence[Transaction], carried: Carried = NOTHING_CARRIED
) -> Applied:
    """Execute a block on top of `view`, which stays as it is.

    `context` is the block's height, time, network and the parameters in force before it; `carried` is what the block brings besides its
    transactions, which the engine found genuine. Raises InvariantBroken only, for a state our own
    rules cannot have made.
    """
    state = Overlay(view)
    take_carried(state, context, carried)
    receipts: list[Receipt] = []
    due_events = _apply_due(state, context, carried)
    if due_events:
        receipts.append(Receipt(due_receipt_id(context.height), ACCEPTED, 0, due_events))
    receipts.extend(_apply_transaction(state, context, transaction) for transaction in transactions)
    return Applied(tuple(receipts), state.changes(), validators_of(state), due_events)


def _apply_due(state: Overlay, context: BlockContext, carried: Carried) -> tuple[Event, ...]:
    """Do what falls due at this block's time, bounded per block, record the evidence it carries, and return the events of both."""
    execution = Execution(context, state, b"", due_receipt_id(context.height))
    apply_due(execution)
    record_evidence(execution, carried.evidence)
    return tuple(execution.events)


def _apply_transaction(state: Overlay, context: BlockContext, transaction: Transaction) -> Receipt:
    """Execute all operations of a transaction, or none: the first refusal undoes it and is named in the receipt."""
    mark = state.mark()
    execution = Execution(context, state, transaction.body.sender, transaction.id)
    try:
        known = transaction.work
        for index, operation in enumerate(transaction.body.operations):
            execution.operation_index = index
            handler = read_operation(operation) if known is None else known.handlers[index]
            handler.check(execution)
            handler.apply(execution)
    except Rejected as refusal:
        state.rollback(mark)
        return Receipt(transaction.id, refusal.code, execution.operation_index, ())
    return Receipt(transaction.id, ACCEPTED, 0, tuple(execution.events))
