"""A node's folder for tests, made once: four hospitals' keys are slow to make, so one network is copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from medchain.chain.parameters import Parameters
from medchain.node.home import NodeHome
from medchain.testnet.plan import Plan, load_plan, new_plan, write_network


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
