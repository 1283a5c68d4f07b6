"""What the groups are measured with: how much of everything, where stores are made, how to tell what is going on; and what they return.

Knows no group.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from medchain.bench.micro.stopwatch import Sampling
from medchain.bench.results import Case, Curve
from medchain.store.leveldb import LevelDB

MEGABYTE: Final = 10**6
GIGABYTE: Final = 10**9


@dataclass(frozen=True, slots=True)
class Size:
    """How often and how much of everything. The real two are below; tests have one of their own."""

    sampling: Sampling
    signatures: int
    """Of one list to verify."""
    validators: tuple[int, ...]
    distinct: int
    """Transactions that are decoded in turn: more than `Transaction.decode` remembers, so that each is met for the first time."""
    gossiped: int
    """Transactions of one message."""
    block_transactions: int
    operations: tuple[tuple[int, int], ...]
    """(operations, label tokens of each) of ever longer transactions."""
    patients: int
    """Population of the state that operations execute on: some thirteen keys each."""
    block_weight: int
    """What a block full of one kind of operation weighs at most, and `block_operations` how many it has at most."""
    block_operations: int
    blocks: int
    """Of the chain that proofs are made from: more transactions than are remembered, more blocks than are kept at hand."""
    buckets: int
    keys: tuple[int, ...]
    """Keys of the state under which updates, rebuilding and proofs are measured."""
    changed_keys: int
    rows: int
    """Of the store that is read from."""
    body_bytes: int
    """Bodies of blocks written to learn by how much LevelDB multiplies them."""
    body_runs: int
    sealed_bytes: int
    sealed_runs: int
    headers: tuple[int, ...]


_SHAPES: Final = ((1, 0), (6, 0), (16, 0), (64, 0), (64, 16))
"""From 350 bytes to 49 kB: one record's registration, up to as many as a transaction may have, with as many tokens as they may have."""

QUICK: Final = Size(
    sampling=Sampling(5, 0.05), signatures=256, validators=(4, 7, 10, 16, 31), distinct=4_500, gossiped=256, block_transactions=500,
    operations=_SHAPES, patients=1_000, block_weight=20_000, block_operations=2_000, blocks=10, buckets=65_536, keys=(0, 10_000, 100_000),
    changed_keys=500, rows=50_000, body_bytes=160 * MEGABYTE, body_runs=1, sealed_bytes=64 * MEGABYTE, sealed_runs=5,
    headers=(100, 1_000, 10_000),
)  # fmt: skip
"""Under a minute: whether everything works and roughly how fast."""
FULL: Final = Size(
    sampling=Sampling(5, 0.1), signatures=1_024, validators=(4, 7, 10, 16, 31), distinct=4_500, gossiped=256, block_transactions=500,
    operations=_SHAPES, patients=10_000, block_weight=20_000, block_operations=2_000, blocks=10, buckets=65_536,
    keys=(0, 10_000, 100_000, 1_000_000), changed_keys=500, rows=1_000_000, body_bytes=512 * MEGABYTE, body_runs=3,
    sealed_bytes=4 * GIGABYTE, sealed_runs=5, headers=(100, 1_000, 10_000, 100_000),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how a group measures."""

    size: Size
    folder: Path
    """On the disk to measure."""
    say: Callable[[str], None]

    @property
    def sampling(self) -> Sampling:
        """How often and how long."""
        return self.size.sampling

    @contextmanager
    def place(self) -> Iterator[Path]:
        """Give a fresh folder, and remove it afterwards."""
        with tempfile.TemporaryDirectory(prefix="micro-", dir=self.folder) as place:
            yield Path(place)

    @contextmanager
    def store(self) -> Iterator[LevelDB]:
        """Give a fresh LevelDB store with the options of a node, and remove it afterwards."""
        with self.place() as place:
            store = LevelDB(place / "store", create=True)
            try:
                yield store
            finally:
                store.close()


@dataclass(slots=True)
class Findings:
    """What a group found."""

    cases: list[Case] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)


def memory_disk(folder: Path, room_bytes: int) -> Path:
    """Return a folder in memory if this system has one with so much room, else `folder`."""
    shared = Path("/dev/shm")  # where Linux has it; what is put there has a random name and is removed
    if shared.is_dir() and shutil.disk_usage(shared).free >= 2 * room_bytes:
        return shared
    return folder
