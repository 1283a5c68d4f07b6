"""Receipts: what became of a transaction, and the root over a block's receipts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from medchain import codec
from medchain.chain import limits
from medchain.chain.receipt import RECEIPTS_TAG, Event, Receipt, decode_receipts, encode_receipts, receipts_root
from medchain.crypto.merkle import MerkleTree, verify_inclusion
from medchain.errors import Malformed
from tests.chain.conftest import RECEIPTS, digest

ACCEPTED, REFUSED = RECEIPTS
EVENT = ACCEPTED.events[0]


def test_a_receipt_says_whether_it_changed_anything():
    assert ACCEPTED.is_accepted
    assert not REFUSED.is_accepted


def test_an_accepted_receipt_names_no_refused_operation():
    with pytest.raises(Malformed, match="names no refused operation"):
        Receipt.decode(replace(ACCEPTED, operation_index=1).encode())


@pytest.mark.parametrize(
    "change",
    [{"operation_index": 64}, {"operation_index": -1}, {"code": "x" * 65}, {"code": "a\nb"}, {"transaction_id": bytes(31)}],
)
def test_receipts_out_of_bounds_are_refused(change: dict[str, Any]):
    assert Receipt.decode(replace(REFUSED, operation_index=63).encode()).operation_index == 63
    with pytest.raises(Malformed):
        Receipt.decode(replace(REFUSED, **change).encode())


@pytest.mark.parametrize(
    "event",
    [
        replace(EVENT, kind="k" * 49), replace(EVENT, subjects=(digest("a"),) * 5), replace(EVENT, subjects=(bytes(31),)),
        replace(EVENT, fields=[None] * 33), replace(EVENT, fields=[bytes(limits.EVENT_BYTES_MAX)]),
    ],
    ids=["kind", "subjects", "subject", "fields", "bytes"],
)  # fmt: skip
def test_events_out_of_bounds_are_refused(event: Event):
    with pytest.raises(Malformed):
        Event.decode(event.encode())


def test_more_events_than_the_most_are_refused():
    assert len(Receipt.decode(replace(ACCEPTED, events=(EVENT,) * limits.EVENTS_MAX).encode()).events) == limits.EVENTS_MAX
    with pytest.raises(Malformed):
        Receipt.decode(replace(ACCEPTED, events=(EVENT,) * (limits.EVENTS_MAX + 1)).encode())


def test_a_receipt_is_a_leaf_under_the_root():
    tree = MerkleTree.over(RECEIPTS_TAG, [receipt.encode() for receipt in RECEIPTS])
    assert receipts_root(RECEIPTS) == tree.root
    assert verify_inclusion(RECEIPTS_TAG, tree.root, REFUSED.encode(), 1, 2, tree.inclusion_path(1))
    assert not verify_inclusion(RECEIPTS_TAG, tree.root, replace(REFUSED, code="").encode(), 1, 2, tree.inclusion_path(1))


def test_the_root_covers_every_field_the_order_and_the_count():
    others = [
        RECEIPTS[::-1], RECEIPTS[:1], (*RECEIPTS, REFUSED), (replace(ACCEPTED, transaction_id=digest("x")), REFUSED),
        (ACCEPTED, replace(REFUSED, code="consents.other")), (ACCEPTED, replace(REFUSED, operation_index=0)),
        (replace(ACCEPTED, events=()), REFUSED), (replace(ACCEPTED, events=(replace(EVENT, fields=[]),)), REFUSED),
        (replace(ACCEPTED, events=(replace(EVENT, subjects=()),)), REFUSED),
    ]  # fmt: skip
    roots = [receipts_root(receipts) for receipts in ((), RECEIPTS, *others)]
    assert len(set(roots)) == len(roots)


def test_the_receipts_of_the_largest_block_with_one_for_what_was_due_are_read_back():
    """A block of ten thousand transactions begins with due items: its receipts are one more than its transactions."""
    rows = [REFUSED.to_value()] * (limits.BLOCK_TRANSACTIONS_HARD_MAX + 1)
    assert len(decode_receipts(codec.encode(rows))) == limits.BLOCK_TRANSACTIONS_HARD_MAX + 1
    with pytest.raises(Malformed):
        decode_receipts(codec.encode([*rows, rows[0]]))


def test_a_node_reads_back_receipts_of_more_values_than_a_message_may_hold():
    busy = replace(ACCEPTED, events=(replace(EVENT, fields=list(range(32))),) * limits.EVENTS_MAX)
    receipts = (busy,) * (codec.ITEMS_MAX // (limits.EVENTS_MAX * 32) + 1)
    stored = encode_receipts(receipts)
    with pytest.raises(Malformed, match="values"):
        codec.decode(stored)
    assert decode_receipts(stored) == receipts
