"""The leaves of a decided block: the same trees as from the whole block, and rot is found before anything is proven."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medchain import codec
from medchain.chain.block import Block
from medchain.chain.leaves import BlockLeaves
from medchain.chain.receipt import ACCEPTED, RECEIPTS_TAG, Receipt, encode_receipts, receipts_root
from medchain.chain.transaction import TRANSACTIONS_TAG, transactions_root
from medchain.crypto.merkle import verify_inclusion
from medchain.errors import Malformed
from tests.chain.conftest import batch, block, digest, single_changes, transaction


def decided(*, has_due: bool = False) -> tuple[Block, tuple[Receipt, ...]]:
    """A block of single and batch-signed transactions with its receipts, the due items' before them when there are any."""
    transactions = (transaction(7), *batch(3), transaction(9))
    receipts = tuple(Receipt(each.id, ACCEPTED, 0, ()) for each in transactions)
    if has_due:
        receipts = (Receipt(digest("due"), ACCEPTED, 0, ()), *receipts)
    like = block()
    header = replace(
        like.header, transactions_root=transactions_root([each.entry for each in transactions]), receipts_root=receipts_root(receipts)
    )
    return Block(header, transactions, like.last_commit, like.evidence), receipts


@pytest.mark.parametrize("has_due", [False, True])
def test_leaves_are_those_of_the_whole_block(has_due: bool) -> None:
    whole, receipts = decided(has_due=has_due)
    leaves = BlockLeaves.of(whole.encode(), encode_receipts(receipts))
    assert leaves.header == whole.header
    for index, each in enumerate(whole.transactions):
        place = leaves.receipt_place(index)
        assert leaves.transaction(index) == each
        assert leaves.receipt(place).transaction_id == each.id
        path, count = leaves.transactions_tree.inclusion_path(index), len(whole.transactions)
        assert verify_inclusion(TRANSACTIONS_TAG, whole.header.transactions_root, b"".join(each.entry), index, count, path)
        path = leaves.receipts_tree.inclusion_path(place)
        assert verify_inclusion(RECEIPTS_TAG, whole.header.receipts_root, receipts[place].encode(), place, len(receipts), path)


def test_a_stored_transaction_or_receipt_that_rotted_is_malformed() -> None:
    whole, receipts = decided()
    good, good_receipts = whole.encode(), encode_receipts(receipts)
    begin = len(codec.encode(whole.header.encode())) + 1
    end = begin + len(codec.encode([each.raw for each in whole.transactions]))
    for position in range(begin, end, 7):
        rotten = good[:position] + bytes((good[position] ^ 1,)) + good[position + 1 :]
        with pytest.raises(Malformed):
            BlockLeaves.of(rotten, good_receipts)
    for rotten in single_changes(good_receipts, step=5):
        with pytest.raises(Malformed):
            BlockLeaves.of(good, rotten)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x01", b"\x92\x01", b"\x91\x01\x01", b"\x94\x01\x01\x01\x01"])
def test_bytes_that_are_no_block_are_malformed(data: bytes) -> None:
    whole, receipts = decided()
    with pytest.raises(Malformed):
        BlockLeaves.of(data, encode_receipts(receipts))
    with pytest.raises(Malformed):
        BlockLeaves.of(whole.encode(), data)
