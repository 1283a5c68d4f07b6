"""The leaves of a decided block: what proofs of single transactions are made from, without reading every transaction and receipt.

A block's own stored bytes are taken apart only as far as its two trees need: ids, authentication digests, encoded receipts. The trees must
have the roots of the header, so rot in the store is found before it is shown. This module knows no store and no proof file.
"""

from __future__ import annotations

from dataclasses import dataclass

from medchain import codec
from medchain.chain.block import Header
from medchain.chain.limits import BLOCK_TRANSACTIONS_HARD_MAX
from medchain.chain.receipt import RECEIPTS_TAG, Receipt
from medchain.chain.transaction import TRANSACTIONS_TAG, Transaction, entry_of
from medchain.crypto.merkle import MerkleTree
from medchain.errors import Malformed


@dataclass(frozen=True, slots=True)
class BlockLeaves:
    """A block's transactions and receipts, encoded, under their trees."""

    header: Header
    transactions: tuple[bytes, ...]
    transactions_tree: MerkleTree
    receipts: tuple[bytes, ...]
    receipts_tree: MerkleTree

    @classmethod
    def of(cls, block_bytes: bytes, receipts_bytes: bytes) -> BlockLeaves:
        """Take apart what this node stored of a decided block. Raises Malformed when it is not what the header says."""
        header_bytes, transactions, _, _ = codec.as_fields(codec.decode_own(block_bytes), 4, "block")
        header = Header.decode(codec.as_bytes(header_bytes, "header"))
        leaves = [b"".join(entry_of(raw)) for raw in codec.as_list(transactions, BLOCK_TRANSACTIONS_HARD_MAX, "transactions")]
        receipts = codec.split(receipts_bytes)
        found = cls(
            header, tuple(transactions), MerkleTree.over(TRANSACTIONS_TAG, leaves), tuple(receipts), MerkleTree.over(RECEIPTS_TAG, receipts)
        )
        if (found.transactions_tree.root, found.receipts_tree.root) != (header.transactions_root, header.receipts_root):
            raise Malformed("the leaves are not those of the header")
        return found

    def transaction(self, index: int) -> Transaction:
        """Return a transaction, in block order."""
        return Transaction.decode(self.transactions[index])

    def receipt_place(self, index: int) -> int:
        """Return which leaf the receipt of a transaction is: one later when something was due at the block's begin."""
        return index + len(self.receipts) - len(self.transactions)

    def receipt(self, place: int) -> Receipt:
        """Return a receipt by its leaf."""
        return Receipt.decode(self.receipts[place])
