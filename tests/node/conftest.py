"""What a test of the node begins with: a node's folder, or a world of hospitals with vaults.

The folder is made once: four hospitals' keys are slow to make, so one network is copied for each test.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from medchain.chain.parameters import Parameters
from medchain.node.home import NodeHome
from medchain.testnet.plan import Plan, load_plan, new_plan, write_network
from tests.node.custody_world import World, making


@pytest.fixture(scope="session")
def made_network(tmp_path_factory) -> Path:
    """A network that no test touches."""
    folder = tmp_path_factory.mktemp("made") / "net"
    write_network(new_plan(folder, 4, 0), Parameters(state_buckets=64))
    return folder


@pytest.fixture
def network(made_network: Path, tmp_path: Path) -> Plan:
    """A copy of the network for one test."""
    folder = tmp_path / "net"
    shutil.copytree(made_network, folder)
    return load_plan(folder)


@pytest.fixture
def home(network: Plan) -> NodeHome:
    """The folder of hospital a."""
    return network.seat("a").home


@pytest.fixture
def passphrase(network: Plan) -> Callable[[], str]:
    """Gives the passphrase as a command would."""
    return lambda: network.passphrase_file.read_text().strip()


@pytest.fixture
def with_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractAsyncContextManager[World]]:
    """A world for the body of one test: `async with with_world() as world`."""
    return lambda: making(tmp_path, monkeypatch)
