"""The table of operations: known kinds, their form, weight and lane."""

from __future__ import annotations

from dataclasses import is_dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain.chain.transaction import Operation, Transaction, TransactionBody
from medchain.errors import Malformed, Rejected
from medchain.ledger.access import Request
from medchain.ledger.apply import ORDINARY_LANE, URGENT_LANE, check_form, lane_of, weight_of
from medchain.ledger.consents import Revoke
from medchain.ledger.emergencies import Emergency
from medchain.ledger.kinds import KINDS, TRANSACTION_WEIGHT, read_operation
from medchain.ledger.people import RevokeCredential

ID = bytes(32)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=33) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def raw(world, *operations: Operation) -> Transaction:
    signer = world.key("anyone")
    return Transaction.sign(TransactionBody("test", signer.public, 9, operations, bytes(8)), signer, world.network)


def test_kinds_are_those_of_the_protocol_version():
    assert sorted(KINDS) == [
        "access.emergency", "access.read_trail", "access.receipt", "access.release", "access.request", "access.review", "consents.grant",
        "consents.revoke", "epochs.interim", "people.credential", "people.register_patient", "people.revoke_credential", "records.amend",
        "records.confirm_custody", "records.register",
    ]  # fmt: skip
    for kind, handler in KINDS.items():
        assert kind == handler.KIND and handler.WEIGHT > 0 and is_dataclass(handler)


def test_unknown_kind_is_refused_before_it_needs_a_state(world):
    with pytest.raises(Rejected) as refusal:
        check_form(raw(world, Operation("records.erase", [])))
    assert refusal.value.code == "operation.unknown"


def test_damaged_payload_is_refused_before_it_needs_a_state(world):
    with pytest.raises(Rejected) as refusal:
        check_form(raw(world, Revoke(ID).operation(), Operation("consents.revoke", [b"short"])))
    assert refusal.value.code == "operation.malformed"


def test_well_formed_transaction_passes(world):
    check_form(raw(world, Revoke(ID).operation(), Request(ID, "TREAT", "physician").operation()))


@given(st.sampled_from(sorted(KINDS)), st.lists(ANYTHING, max_size=12))
def test_hostile_payloads_are_malformed_and_nothing_else(kind, payload):
    try:
        handler = KINDS[kind].from_payload(payload)
    except Malformed:
        with pytest.raises(Rejected) as refusal:
            read_operation(Operation(kind, payload))
        assert refusal.value.code == "operation.malformed"
    else:
        assert handler.to_payload() == payload


def test_weight_is_the_sum_of_the_operations(world):
    one = weight_of(raw(world, Revoke(ID).operation()))
    assert one == TRANSACTION_WEIGHT + Revoke.WEIGHT
    assert weight_of(raw(world, *[Revoke(ID).operation()] * 50)) == TRANSACTION_WEIGHT + 50 * Revoke.WEIGHT
    assert weight_of(raw(world, Operation("no.such", []))) == TRANSACTION_WEIGHT


def test_full_transaction_of_the_heaviest_kind_fits_into_a_block(world):
    heaviest = max(handler.WEIGHT for handler in KINDS.values())
    assert TRANSACTION_WEIGHT + 64 * heaviest <= world.genesis.parameters.block_weight_max


@pytest.mark.parametrize("urgent", [Revoke(ID), RevokeCredential(ID), Emergency(ID, "DISASTER")])
def test_revocations_and_emergencies_are_urgent_but_pull_nothing_along(world, urgent):
    ordinary = Request(ID, "TREAT", "physician")
    assert lane_of(raw(world, urgent.operation())) == URGENT_LANE
    assert lane_of(raw(world, ordinary.operation())) == ORDINARY_LANE
    assert lane_of(raw(world, urgent.operation(), ordinary.operation())) == ORDINARY_LANE
    assert lane_of(raw(world, Operation("no.such", []))) == ORDINARY_LANE
