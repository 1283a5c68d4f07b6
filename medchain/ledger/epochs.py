"""Epochs: which key of a (patient, custodian, category) wraps data keys at rest, by number and check value; never the key itself.

In this protocol version the custodian opens epochs alone and they are marked interim; jointly made ones come with a later issue (ledger.md,
"Sealing and sharing", 3). A pseudonym is one patient at one hospital, so (pseudonym, category) says (patient, custodian, category). The
floor keeps sealing away from epochs older than the last revocation. This module knows no consent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from medchain import codec
from medchain.errors import Rejected
from medchain.ledger import rows
from medchain.ledger.execution import Execution, Handler
from medchain.ledger.hospitals import check_hospital
from medchain.ledger.payload import as_code, as_digest, as_number
from medchain.ledger.people import check_patient
from medchain.ledger.rows import decode_row, encode_row, uint32
from medchain.store.overlay import Overlay, StateView


@dataclass(frozen=True, slots=True)
class EpochHead:
    """How many epochs there are, and the smallest that may still seal."""

    number: int
    """Of the newest epoch, 0 before the first."""
    floor: int
    """Sealing under a smaller number is refused: a revocation came after it."""


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One epoch."""

    category: str
    is_interim: bool
    """Made by the custodian alone, to be re-keyed with the patient at the next contact."""
    check_value: bytes
    from_height: int


def epoch_head(view: StateView, pseudonym: bytes, category: str) -> EpochHead:
    """Return where the epochs of a patient and category stand."""
    stored = view.get(_head_key(pseudonym, category))
    return EpochHead(0, 1) if stored is None else decode_row(EpochHead, stored)


def epoch_of(view: StateView, pseudonym: bytes, category: str, number: int) -> EpochRow | None:
    """Return one epoch, None if it was never opened."""
    stored = view.get(_epoch_key(pseudonym, category, number))
    return None if stored is None else decode_row(EpochRow, stored)


def raise_floor(state: Overlay, pseudonym: bytes, category: str) -> None:
    """Bar every epoch opened so far from sealing: a consent that touched this category was revoked."""
    head = epoch_head(state, pseudonym, category)
    state.put(_head_key(pseudonym, category), encode_row(EpochHead(head.number, head.number + 1)))


def check_epoch(view: StateView, pseudonym: bytes, category: str, number: int) -> None:
    """Raise Rejected unless content may be sealed under this epoch now ("Sealing never uses an epoch older than the last revocation")."""
    head = epoch_head(view, pseudonym, category)
    if number > head.number:
        raise Rejected("records.epoch-unknown", "open the epoch before sealing a record under it")
    if number < head.floor:
        raise Rejected("records.epoch-too-old", "a consent was revoked after this epoch was opened: open a new epoch and seal again")


def _head_key(pseudonym: bytes, category: str) -> bytes:
    return rows.EPOCH_HEAD + pseudonym + category.encode()


def _epoch_key(pseudonym: bytes, category: str, number: int) -> bytes:
    return rows.EPOCH + pseudonym + uint32(number) + category.encode()


@dataclass(frozen=True, slots=True)
class Interim(Handler):
    """The custodian opens the next epoch alone. Sender: the patient's hospital. Event on the pseudonym's trail."""

    KIND: ClassVar[str] = "epochs.interim"
    WEIGHT: ClassVar[int] = 12

    pseudonym: bytes
    category: str
    number: int
    check_value: bytes
    """32 bytes by which holders of the epoch key recognise it; says nothing about the key."""

    @classmethod
    def from_payload(cls, payload: list[Any]) -> Interim:
        """Read a positional payload. Raises Malformed."""
        pseudonym, category, number, check_value = codec.as_fields(payload, 4, "interim epoch")
        return cls(
            pseudonym=as_digest(pseudonym, "pseudonym"),
            category=as_code(category, "category"),
            number=as_number(number, "epoch"),
            check_value=as_digest(check_value, "check value"),
        )

    def check(self, execution: Execution) -> None:
        """Raise Rejected unless the patient's hospital opens the next epoch in line."""
        check_hospital(execution)
        if check_patient(execution.state, self.pseudonym).hospital != execution.sender:
            raise Rejected("epochs.not-custodian", "only the hospital that registered this patient opens epochs for the patient")
        if self.number != epoch_head(execution.state, self.pseudonym, self.category).number + 1:
            raise Rejected("epochs.number", "epochs are opened in order: read the newest number and take the one after it")

    def apply(self, execution: Execution) -> None:
        """Write the epoch and count it."""
        state = execution.state
        head = epoch_head(state, self.pseudonym, self.category)
        state.put(_head_key(self.pseudonym, self.category), encode_row(EpochHead(self.number, head.floor)))
        row = EpochRow(self.category, True, self.check_value, execution.context.height)
        execution.insert(_epoch_key(self.pseudonym, self.category, self.number), encode_row(row))
        execution.emit(self.KIND, (self.pseudonym,), [execution.sender, self.category, self.number, self.check_value])
