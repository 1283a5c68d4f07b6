"""The files of a test network: complete, private, and refused where they would be wrong."""

from __future__ import annotations

import json
import socket

import pytest

from medchain.chain.parameters import Parameters
from medchain.crypto.keyfile import load_identity
from medchain.errors import Malformed, Rejected
from medchain.node.config import NodeConfig
from medchain.node.home import load_genesis, open_home
from medchain.testnet import plan as plans
from medchain.testnet.plan import load_plan, new_plan, write_network


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    plan = new_plan(tmp_path_factory.mktemp("testnet") / "net", 5, 0)
    return plan, write_network(plan, Parameters(state_buckets=64, heartbeat_ms=5_000))


def refused(code: str, *arguments) -> Rejected:
    with pytest.raises(Rejected) as caught:
        new_plan(*arguments)
    assert caught.value.code == code
    return caught.value


def test_every_hospital_opens_with_the_networks_passphrase(network):
    plan, genesis = network
    passphrase = plan.passphrase_file.read_text().strip()
    assert [seat.name for seat in plan.seats] == list("abcde")
    assert genesis.parameters.heartbeat_ms == 5_000
    for seat in plan.seats:
        opened = open_home(seat.home, lambda: passphrase)
        assert opened.hospital.name == seat.name
        assert opened.hospital.endpoints == (f"127.0.0.1:{seat.peer_port}",)
        assert opened.genesis.digest() == genesis.digest() == load_genesis(plan.genesis_file).digest()
        assert load_identity(plan.officer_key_file(seat.name), passphrase).signing.public == opened.hospital.officer_key
        assert NodeConfig.load(seat.home.path, {}).rpc_url == seat.rpc_url
        opened.store.close()


def test_written_plan_is_read_back(network):
    plan, _ = network
    assert load_plan(plan.folder) == plan


def test_passphrase_and_officers_keys_are_private_and_outside_the_hospitals(network):
    plan, _ = network
    for path in [plan.passphrase_file, *(plan.officer_key_file(seat.name) for seat in plan.seats)]:
        assert path.stat().st_mode & 0o077 == 0
    assert not list(plan.folder.glob("?/passphrase"))
    assert not list(plan.folder.glob("?/*officer*"))


@pytest.mark.parametrize("count", [-1, 0, 3, 17])
def test_network_has_four_to_ten_hospitals(tmp_path, count):
    refused("testnet.hospitals", tmp_path, count, 0)


def test_taken_port_is_refused_and_named(tmp_path):
    """Another program of the machine may hold a port of the same range; then another range is tried."""
    named = []
    for _ in range(20):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            named.append((port, refused("testnet.port-taken", tmp_path, 4, port - 2).message))
        if str(port) in named[-1][1]:
            return
    pytest.fail(f"no refusal named the taken port: {named}")


@pytest.mark.parametrize("port", [-5, 65_500, 10**9])
def test_port_out_of_range_is_refused(tmp_path, port):
    refused("testnet.port-taken", tmp_path, 4, port)


def test_machine_without_free_ports_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "_is_free", lambda port: False)
    refused("testnet.port-taken", tmp_path, 4, 0)


def test_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    plan = new_plan(tmp_path, 4, 0)
    with pytest.raises(Rejected) as caught:
        write_network(plan)
    assert caught.value.code == "testnet.folder-in-use"
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_folder_without_a_network_is_refused(tmp_path):
    with pytest.raises(Rejected) as caught:
        load_plan(tmp_path)
    assert caught.value.code == "testnet.missing"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"hospitals": 5}', '{"chain_id": "x", "hospitals": [{"name": "a"}]}', "[" * 50_000, '{"a": 1e999}']
)
def test_damaged_description_is_malformed(tmp_path, text):
    (tmp_path / "testnet.json").write_text(text)
    with pytest.raises(Malformed, match=r"testnet\.json"):
        load_plan(tmp_path)


@pytest.mark.parametrize(
    "row",
    [
        {"name": "../x", "rpc_port": 1, "peer_port": 2},
        {"name": "a", "rpc_port": 0, "peer_port": 2},
        {"name": "", "rpc_port": 1, "peer_port": 2},
    ],
)
def test_description_that_leads_out_of_the_folder_or_to_no_port_is_malformed(tmp_path, row):
    (tmp_path / "testnet.json").write_text(json.dumps({"medchain_testnet": 1, "chain_id": "x", "hospitals": [row] * 4}))
    with pytest.raises(Malformed):
        load_plan(tmp_path)


def test_unknown_hospital_is_refused_with_the_names_there_are(network):
    plan, _ = network
    with pytest.raises(Rejected, match="a, b, c, d, e") as caught:
        plan.seat("z")
    assert caught.value.code == "testnet.unknown-hospital"


@pytest.mark.parametrize("existed", [False, True])
def test_network_whose_making_is_interrupted_leaves_nothing_in_the_way_of_the_next_try(tmp_path, monkeypatch, existed):
    folder = tmp_path / "net"
    if existed:
        folder.mkdir()
    plan = new_plan(folder, 4, 0)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(plans.homes, "found_store", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_network(plan)
    assert folder.exists() == existed
    assert not existed or not list(folder.iterdir())
    write_network(plan)
    assert load_plan(folder) == plan


def test_network_is_not_made_over_a_file(tmp_path):
    (tmp_path / "net").write_text("mine", encoding="ascii")
    with pytest.raises(Rejected) as caught:
        write_network(new_plan(tmp_path / "net", 4, 0))
    assert caught.value.code == "testnet.folder-in-use"
    assert (tmp_path / "net").read_text(encoding="ascii") == "mine"
