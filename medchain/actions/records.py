"""Operations about records: registering and amending sealed content, confirming custody, opening epochs.

What goes on the chain is coarse on purpose: a size class instead of a size, a month instead of a date (ledger.md). Knows no vault and no
key of a patient.
"""

from __future__ import annotations

from collections.abc import Sequence

from medchain.actions.transactions import operation_of
from medchain.chain.transaction import Operation
from medchain.errors import Malformed
from medchain.ledger.epochs import Interim
from medchain.ledger.records import SIZE_CLASS_MAX, YEAR_MAX, YEAR_MIN, Amend, ConfirmCustody, Content, Register


def size_class_of(plaintext_bytes: int) -> int:
    """Return the size class of a content: the exponent of the power of two at or above its bytes. Raises Malformed when too large."""
    size_class = max(0, plaintext_bytes - 1).bit_length()
    if plaintext_bytes < 0 or size_class > SIZE_CLASS_MAX:
        raise Malformed(f"a content has 0 to 2^{SIZE_CLASS_MAX} bytes")
    return size_class


def coarse_date_of(year: int, month: int) -> int:
    """Return the date that stands on the chain, year * 100 + month. Raises Malformed for what is no month."""
    if not YEAR_MIN <= year <= YEAR_MAX or not 1 <= month <= 12:
        raise Malformed(f"a coarse date has a year from {YEAR_MIN} to {YEAR_MAX} and a month from 1 to 12")
    return year * 100 + month


def sorted_tokens(tokens: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return label tokens in the only order the rule book takes, without repetitions."""
    return tuple(sorted(set(tokens)))


def register_record(record: bytes, pseudonym: bytes, category: str, kind: str, content: Content) -> Operation:
    """Return the operation that registers version 1 of a record. Sender: the custodian. Raises Malformed."""
    return operation_of(Register(record, pseudonym, category, kind, content))


def amend_record(record: bytes, version: int, content: Content) -> Operation:
    """Return the operation that adds `version`, the newest plus one, to a record. Sender: the custodian. Raises Malformed."""
    return operation_of(Amend(record, version, content))


def confirm_custody(record: bytes, version: int) -> Operation:
    """Return the operation with which a hospital says that it holds a version's ciphertext. Sender: that hospital."""
    return operation_of(ConfirmCustody(record, version))


def open_interim_epoch(pseudonym: bytes, category: str, number: int, check_value: bytes) -> Operation:
    """Return the operation with which the custodian alone opens epoch `number`, the newest plus one. Sender: the custodian."""
    return operation_of(Interim(pseudonym, category, number, check_value))
