"""What an operation may do while it executes, and what would be our own bug."""

from __future__ import annotations

import pytest

from medchain.chain import limits
from medchain.errors import InvariantBroken
from medchain.ledger.consents import consent_id
from medchain.ledger.execution import Execution
from medchain.ledger.permits import permit_id
from medchain.store.overlay import Overlay


@pytest.fixture
def execution(world):
    return Execution(world.context(), Overlay(world.state), world.key("anyone").public, bytes(32))


def test_row_written_once_is_not_overwritten(execution):
    execution.insert(b"row", b"one")
    with pytest.raises(InvariantBroken):
        execution.insert(b"row", b"two")
    assert execution.state.get(b"row") == b"one"


def test_event_has_the_documented_fields(execution):
    execution.emit("access.read_trail", (bytes(32),), [b"reader"])
    with pytest.raises(InvariantBroken):
        execution.emit("access.read_trail", (bytes(32),), [])
    assert len(execution.events) == 1


def test_events_of_a_receipt_are_bounded(execution):
    for _ in range(limits.EVENTS_MAX):
        execution.emit("access.read_trail", (), [b""])
    with pytest.raises(InvariantBroken):
        execution.emit("access.read_trail", (), [b""])


def test_ids_differ_by_what_they_name_transaction_and_operation():
    ids = {consent_id(bytes(32), 0), permit_id(bytes(32), 0), consent_id(bytes(32), 1), consent_id(b"\x01" * 32, 0)}
    assert len(ids) == 4
