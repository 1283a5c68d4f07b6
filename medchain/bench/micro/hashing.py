"""Digests: tagged SHA-256 of something short and something long, Merkle roots, trees and paths."""

from __future__ import annotations

from functools import partial
from typing import Final

from medchain.bench.micro.clinic import digest_of
from medchain.bench.micro.setting import GIGABYTE, Bench, Findings
from medchain.bench.micro.stopwatch import quiet
from medchain.bench.results import HIGHER, Case, Measure
from medchain.chain.transaction import TRANSACTIONS_TAG
from medchain.crypto.hashing import tagged_digest
from medchain.crypto.merkle import MerkleTree, merkle_root, verify_inclusion

SHORT_BYTES: Final = 64
"""Two digests: an inner node."""
LONG_BYTES: Final = 1024 * 1024
"""A segment of a sealed stream."""
TAG: Final = "medchain/bench/hashing"


def measure(bench: Bench) -> Findings:
    """Measure the group."""
    count = bench.size.block_transactions
    leaves = [digest_of("id", number) + digest_of("authentication", number) for number in range(count)]
    tree = MerkleTree.over(TRANSACTIONS_TAG, leaves)
    path = tree.inclusion_path(count // 2)
    short, long = bytes(SHORT_BYTES), bytes(LONG_BYTES)
    settings = {"leaves": count}
    with quiet():
        of_short = bench.sampling.repeat(partial(tagged_digest, TAG, short))
        of_long = bench.sampling.repeat(partial(tagged_digest, TAG, long))
        root = bench.sampling.repeat(partial(merkle_root, TRANSACTIONS_TAG, leaves), count)
        whole = bench.sampling.repeat(partial(MerkleTree.over, TRANSACTIONS_TAG, leaves), count)
        checked = bench.sampling.repeat(
            partial(verify_inclusion, TRANSACTIONS_TAG, tree.root, leaves[count // 2], count // 2, count, path)
        )
    pace = Measure("GB/s", HIGHER, tuple([LONG_BYTES / GIGABYTE / sample for sample in of_long.cpu]))
    return Findings(
        [
            Case("hashing-short", f"tagged_digest of {SHORT_BYTES} bytes", {"cpu": of_short.cpu_us()}),
            Case("hashing-long", "tagged_digest of 1 MiB", {"cpu": of_long.cpu_us(), "cpu_pace": pace}),
            Case("hashing-root", f"Merkle root over {count} transactions, per transaction", {"cpu": root.cpu_us()}, settings),
            Case("hashing-tree", f"Whole Merkle tree over {count} transactions, per transaction", {"cpu": whole.cpu_us()}, settings),
            Case("hashing-path", f"Checking one path among {count}", {"cpu": checked.cpu_us()}, settings),
        ]
    )
