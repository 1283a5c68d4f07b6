"""Real processes under every kind of fault, briefly: cut lines, a hospital that stands still, one with a wrong clock, one that lies.

The long versions, with load and counts, are in test_storms.py and in `medchain bench faults`.
"""

from __future__ import annotations

import asyncio
import http.client
import json
from pathlib import Path

import pytest

from medchain.bench.load import Load, Shape
from medchain.bench.network import Network
from medchain.bench.watch import Watch
from medchain.bench.worker import Worker
from medchain.cli import main
from medchain.node.home import load_genesis
from medchain.testnet.launch import poll
from medchain.wire.evidence import verify_report

pytestmark = pytest.mark.cluster

HEALED_S = 15.0
"""On a loaded machine; `medchain bench faults` asks for five seconds."""
STANDS_STILL_S = 2.0


def decide(cluster, at: str, timeout_ms: int = 20_000) -> int:
    """Hand in one registration and wait for its decision; returns its height."""
    identity = cluster.submit(at, cluster.registration(at))
    status = cluster.ask(at, "tx.wait", id=identity, timeout_ms=timeout_ms)
    assert status["status"] == "decided", status
    return status["height"]


def failed_checks(cluster, name: str) -> list[str]:
    connection = http.client.HTTPConnection("127.0.0.1", cluster.plan.seat(name).rpc_port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return json.loads(connection.getresponse().read())["failed"]
    finally:
        connection.close()


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Four hospitals whose lines can be cut."""
    with Network(tmp_path_factory.mktemp("faults") / "net", has_relays=True) as made:
        made.start()
        made.wait_ready()
        yield made


@pytest.fixture
def cluster(network, as_cluster):
    """The same, all of them well again whatever the test before did."""
    network.relays.heal()
    cluster = as_cluster(network.testnet)
    cluster.wait_agreed()
    return cluster


def test_half_from_half_decides_nothing_and_healed_everybody_goes_on_by_itself(network, cluster):
    relays = network.relays
    decide(cluster, "a")
    cluster.wait_agreed()
    height = cluster.height("a")
    relays.refuse(relays.between(["a", "b"]))
    cluster.wait("the halves notice", lambda: all(len(cluster.status(name)["peers"]) == 1 for name in cluster.names))
    waiting = [cluster.submit(name, cluster.registration(name)) for name in ("a", "d")]
    assert not poll(lambda: any(cluster.height(name) > height for name in cluster.names), STANDS_STILL_S)
    relays.heal()
    for name, identity in zip(("a", "d"), waiting, strict=True):
        assert cluster.ask(name, "tx.wait", id=identity, timeout_ms=int(HEALED_S * 1_000))["status"] == "decided"
    cluster.wait_agreed()


def test_hospital_that_hears_and_is_not_heard_stops_nobody_and_comes_back(network, cluster):
    relays = network.relays
    relays.hold([way for way in relays.ways() if way[0] == "d"])
    for _ in range(2 * len(cluster.names)):
        decide(cluster, "a")
    relays.heal()
    cluster.wait("d follows again", lambda: cluster.height("d") >= cluster.height("a"), HEALED_S)
    cluster.wait_agreed()


def test_primary_that_stands_still_is_replaced_and_catches_up(network, cluster):
    decide(cluster, "a")
    cluster.wait_agreed()
    victim = next(name for name in (network.primary("a"), "b") if name not in (None, "a"))
    network.freeze(victim)
    try:
        for _ in range(len(cluster.names)):
            decide(cluster, "a")
    finally:
        network.thaw(victim)
    cluster.wait(f"{victim} catches up", lambda: cluster.height(victim) >= cluster.height("a"), HEALED_S)
    cluster.wait_agreed()


def test_load_loses_and_doubles_nothing_while_connections_end_again_and_again(network, cluster):
    with Worker(network, Shape()) as worker, Watch(network, "a") as watch:
        for _ in range(3):
            watch.wait_height(watch.height + 3, HEALED_S)
            network.relays.cut(network.relays.between(["d"]))
        worker.stop()
        cluster.wait_agreed()
        checked = worker.check(cluster.plan.seat("a").rpc_url)
    assert checked.accepted > 0
    assert (checked.lost, checked.doubled, checked.refused) == (0, 0, 0)


def test_check_of_the_load_sees_what_is_lost(network, cluster):
    load = Load(cluster.plan, cluster.genesis, {"a": cluster.organisation("a")}, Shape(in_flight=1))
    identity = cluster.submit("a", cluster.registration("a"))
    cluster.ask("a", "tx.wait", id=identity, timeout_ms=20_000)
    load.accepted = [identity, "00" * 32]
    answer = asyncio.run(load.check(cluster.plan.seat("a").rpc_url))
    assert (answer["accepted"], answer["lost"], answer["doubled"]) == (2, 1, 0)


# ---- d is started otherwise --------------------------------------------------------------------------------------------------------


def log_of(network: Network, name: str) -> str:
    return Path(network.seat(name).home.log_file).read_text(encoding="utf-8")


@pytest.mark.parametrize("offset_ms", [3_600_000, -3_600_000])
def test_hospital_whose_clock_is_an_hour_off_is_carried_and_told_and_stops_nobody(network, cluster, offset_ms):
    network.stop(["d"])
    network.set("d", {("debug", "clock_offset_ms"): offset_ms})
    network.start(["d"])
    network.wait_ready(["d"])
    try:
        for _ in range(2 * len(cluster.names)):
            decide(cluster, "a")
        cluster.wait("d is carried", lambda: cluster.height("d") >= cluster.height("a"))
        cluster.wait("d tells that its clock is wrong", lambda: decide(cluster, "a") > 0 and "clock" in failed_checks(cluster, "d"))
        assert failed_checks(cluster, "a") == []
        assert {"node.clock-shifted", "node.clock-off"} <= {
            json.loads(line).get("code") for line in log_of(network, "d").splitlines() if "node.alarm" in line
        }
    finally:
        network.stop(["d"])
        network.set("d")
        network.start(["d"])
    network.wait_ready(["d"])
    cluster.wait_agreed()
    assert failed_checks(cluster, "d") == []


def check_report(cluster, report: Path) -> None:
    """The report of one hospital convicts the liar, and only it, without any node."""
    listed = cluster.ask("a", "evidence.list")["evidence"]
    home = cluster.plan.seat("a").home.path
    assert main.main(["evidence", "show", listed[0]["id"], "--at", str(home), "--out", str(report)]) == 0
    facts = verify_report(report.read_bytes(), load_genesis(cluster.plan.genesis_file))
    assert facts.hospital == "d" and facts.recorded is not None
    assert {row["hospital"] for row in listed} == {facts.organisation_key.hex()}


def test_liar_in_a_hospitals_place_stops_nobody_parts_nobody_and_is_convicted(network, cluster, tmp_path):
    network.stop(["d"])
    network.start(["d"], liar="double-voter")
    network.wait_ready(["d"])
    for _ in range(2 * len(cluster.names)):
        decide(cluster, "b")
    cluster.wait_agreed(["a", "b", "c"])
    assert len(set(cluster.decided_ids("a").values())) == 1, "something was decided twice"
    cluster.wait("the lie stands on every honest chain", lambda: all(cluster.ask(name, "evidence.list")["evidence"] for name in "abc"))
    check_report(cluster, tmp_path / "evidence.json")
    network.stop(["d"])
    network.start(["d"])
    network.wait_ready(["d"])
    cluster.wait_agreed()
