"""One suite, many implementers: the stores that must keep the key-value contract.

A further implementer (the simulator's disk) adds one `KeyValueMaker` to `KEY_VALUE_MAKERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from medchain.sim.disk import Disk
from medchain.store.keyvalue import KeyValue
from medchain.store.leveldb import LevelDB
from medchain.store.memory import MemoryKeyValue


@dataclass(frozen=True)
class KeyValueMaker:
    name: str
    open: Callable[[Path], KeyValue]
    """Open the store of this directory, making it if there is none."""
    is_durable: bool
    """Whether opening the same directory again shows what was written."""


_DISKS: dict[Path, Disk] = {}


def open_simulated(path: Path) -> KeyValue:
    """The simulated disk of this directory: it outlives the stores opened on it, as a platter does."""
    return _DISKS.setdefault(path, Disk()).open()


KEY_VALUE_MAKERS = [
    KeyValueMaker("memory", lambda path: MemoryKeyValue(), is_durable=False),
    KeyValueMaker("leveldb", lambda path: LevelDB(path / "store", create=True), is_durable=True),
    KeyValueMaker("simulated disk", open_simulated, is_durable=True),
]


@pytest.fixture(params=KEY_VALUE_MAKERS, ids=lambda maker: maker.name, scope="session")
def maker(request: pytest.FixtureRequest) -> KeyValueMaker:
    made: KeyValueMaker = request.param
    return made


@pytest.fixture(params=[maker for maker in KEY_VALUE_MAKERS if maker.is_durable], ids=lambda maker: maker.name, scope="session")
def durable_maker(request: pytest.FixtureRequest) -> KeyValueMaker:
    made: KeyValueMaker = request.param
    return made


@pytest.fixture
def store(maker: KeyValueMaker, tmp_path: Path) -> Iterator[KeyValue]:
    opened = maker.open(tmp_path)
    yield opened
    opened.close()
