"""The commands that make, start, watch and stop real processes, as their users type them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from medchain.errors import Unavailable
from medchain.testnet.launch import Testnet, poll

pytestmark = pytest.mark.cluster


@pytest.fixture
def medchain(repository, tmp_path):
    """Runs `medchain ...` in an empty folder, to its end."""

    def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "medchain", *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(repository), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    return run


def check_sentence(ended: subprocess.CompletedProcess[str], exit_code: int, code: str) -> None:
    """A typed error: its exit code, one sentence with its code, and no traceback."""
    assert ended.returncode == exit_code, ended.stderr
    assert f"[{code}]" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_testnet_goes_up_detached_tells_how_it_is_and_goes_down(medchain, tmp_path):
    up = medchain("testnet", "up", "--hospitals", 4, "--home", "./net", "--base-port", 0, "--detach", "--json")
    try:
        assert up.returncode == 0, up.stderr
        facts = json.loads(up.stdout)
        assert [row["name"] for row in facts["hospitals"]] == ["a", "b", "c", "d"]
        assert all(row["rpc"].startswith("http://127.0.0.1:") for row in facts["hospitals"])
        status = medchain("testnet", "status", "--home", "./net", "--json")
        rows = json.loads(status.stdout)["hospitals"]
        assert all(row["may_vote"] and len(row["peers"]) == 3 for row in rows)
        killed = medchain("testnet", "kill", "b", "--home", "./net", "--json")
        assert json.loads(killed.stdout)["process"] == facts["hospitals"][1]["process"]
        check_sentence(medchain("testnet", "kill", "b", "--home", "./net"), 2, "testnet.not-running")
        restarted = medchain("testnet", "restart", "b", "--home", "./net", "--json")
        assert restarted.returncode == 0, restarted.stderr
        again = medchain("testnet", "up", "--home", "./net", "--detach")
        check_sentence(again, 2, "testnet.running")
        node = medchain("node", "status", "--at", "./net/a", "--json")
        assert json.loads(node.stdout)["height"] >= 0
        assert "take turns      4 of 4 hospitals" in medchain("node", "status", "--at", "./net/a").stdout
        asked = medchain("node", "status", "--json", MEDCHAIN_AT=facts["hospitals"][0]["rpc"])
        assert json.loads(asked.stdout)["consensus_key"] == json.loads(node.stdout)["consensus_key"]
    finally:
        down = medchain("testnet", "down", "--home", "./net", "--json")
    assert json.loads(down.stdout)["stopped"] == ["a", "b", "c", "d"]
    assert not list(tmp_path.glob("net/*/node.pid"))
    unreachable = medchain("node", "status", "--at", "./net/a")
    assert unreachable.returncode == 3
    assert "Traceback" not in unreachable.stderr
    assert medchain("testnet", "status", "--home", "./net").returncode == 3


def test_network_in_the_foreground_ends_with_its_command(repository, tmp_path):
    command = [sys.executable, "-m", "medchain", "testnet", "up", "--home", "net", "--base-port", "0"]
    running = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(repository)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        assert "4 hospitals are ready" in running.stdout.readline()
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=30)
        assert running.returncode == 0, errors
        assert "Traceback" not in errors
    finally:
        running.kill()
        running.wait()
        network = Testnet.open(tmp_path / "net")
        still = [seat.name for seat in network.plan.seats if network.process_of(seat.name) is not None]
        network.stop()
    assert still == []


def test_second_start_of_a_running_node_is_refused_and_the_first_goes_on(cluster, medchain):
    home = cluster.plan.seat("a").home.path
    first = cluster.testnet.process_of("a")
    second = medchain("node", "start", "--home", home)
    check_sentence(second, 4, "store.locked")
    assert cluster.testnet.process_of("a") == first
    assert cluster.status("a")["may_vote"]


def test_node_asked_to_stop_ends_within_seconds_and_continues_where_it_was(cluster):
    identity = cluster.submit("a", cluster.registration("a"))
    height = cluster.ask("a", "tx.wait", id=identity, timeout_ms=20_000)["height"]
    cluster.wait_agreed()
    process = cluster.testnet.process_of("a")
    os.kill(process, signal.SIGTERM)
    assert poll(lambda: cluster.testnet.process_of("a") is None, 5.0)
    assert not cluster.plan.seat("a").home.pid_file.exists()
    assert "node.stopped" in cluster.plan.seat("a").home.log_file.read_text()
    cluster.testnet.stop(["a"])
    cluster.testnet.start(["a"])
    cluster.testnet.wait_ready(["a"])
    assert cluster.ask("a", "tx.status", id=identity)["height"] == height
    cluster.wait_agreed()


@pytest.mark.parametrize(("listener", "code"), [("rpc_port", "rpc.port-taken"), ("peer_port", "network.port-taken")])
def test_node_whose_port_is_taken_stops_with_a_sentence(make_cluster, medchain, listener, code):
    cluster = make_cluster(is_started=False)
    seat = cluster.plan.seat("a")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", getattr(seat, listener)))
        taken.listen()
        check_sentence(medchain("node", "start", "--home", seat.home.path), 4, code)
        check_sentence(medchain("testnet", "up", "--home", cluster.plan.folder, "--detach"), 2, "testnet.port-taken")
    assert not seat.home.pid_file.exists()


def test_proof_of_a_transaction_verifies_offline_and_any_changed_byte_makes_it_fail(cluster, medchain, tmp_path):
    identity = cluster.submit("a", cluster.registration("a"))
    at = ("--at", cluster.plan.seat("a").home.path)
    waited = medchain("tx", "wait", identity, *at, "--json")
    assert (waited.returncode, json.loads(waited.stdout)["status"]) == (0, "decided")
    assert json.loads(medchain("tx", "show", identity, *at, "--json").stdout)["code"] == ""
    proof = tmp_path / "proof.bin"
    assert medchain("tx", "proof", identity, *at, "--out", proof).returncode == 0
    genesis = tmp_path / "genesis.json"
    genesis.write_bytes(cluster.plan.genesis_file.read_bytes())
    cluster.testnet.stop()
    verified = medchain("verify", proof, "--genesis", genesis, "--json")
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["transaction"] == identity
    content = proof.read_bytes()
    changed = tmp_path / "changed.bin"
    for place in (0, len(content) // 3, len(content) // 2, len(content) - 1):
        changed.write_bytes(content[:place] + bytes((content[place] ^ 1,)) + content[place + 1 :])
        failed = medchain("verify", changed, "--genesis", genesis)
        assert failed.returncode == 2, place
        assert "Traceback" not in failed.stderr
    assert medchain("verify", tmp_path / "absent.bin", "--genesis", genesis).returncode == 2


def test_transaction_nobody_knows_is_told_from_one_that_waits(cluster, medchain):
    at = ("--at", cluster.plan.seat("a").home.path)
    shown = medchain("tx", "show", "00" * 32, *at, "--json")
    assert (shown.returncode, json.loads(shown.stdout)["status"]) == (0, "unknown")
    assert medchain("tx", "wait", "00" * 32, *at, "--timeout", 0).returncode == 3
    check_sentence(medchain("tx", "proof", "00" * 32, *at, "--out", "none.bin"), 1, "transaction.not-decided")
    assert medchain("tx", "show", "xyz", *at).returncode == 2


def get(cluster, name: str, path: str) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", cluster.plan.seat(name).rpc_port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_readiness_names_what_fails_and_an_idle_chain_is_ready(cluster):
    assert get(cluster, "a", "/healthz")[0] == 200
    status, answer = get(cluster, "a", "/readyz")
    assert (status, answer["failed"]) == (200, [])
    assert set(answer["checks"]) == {"loop", "peers", "height", "voting", "clock", "disk"}
    cluster.testnet.stop(["c", "d"])
    cluster.wait("a misses its peers", lambda: get(cluster, "a", "/readyz")[1]["failed"] == ["peers"])
    assert get(cluster, "a", "/readyz")[0] == 503
    assert get(cluster, "a", "/healthz")[0] == 200


def test_full_disk_stops_the_node_with_a_sentence_and_loses_nothing(cluster, repository):
    """No file may grow beyond a bound, as on a full disk; the node must end rather than promise what is not written."""
    identity = cluster.submit("a", cluster.registration("a"))
    cluster.ask("a", "tx.wait", id=identity, timeout_ms=20_000)
    cluster.testnet.stop(["a"])
    home = cluster.plan.seat("a").home
    command = [sys.executable, "-m", "medchain", "node", "start", "--home", str(home.path)]
    output = home.path / "bounded.out"
    with output.open("wb") as stream:
        node = subprocess.Popen(
            ["bash", "-c", 'ulimit -f 64; exec "$@"', "bounded", *command],
            cwd=home.path,
            env={**os.environ, "PYTHONPATH": str(repository)},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        cluster.wait("the bounded node answers", lambda: cluster.status("a") is not None or node.poll() is not None)
        accepted = []
        while node.poll() is None:
            batch = [cluster.registration("a") for _ in range(16)]
            try:
                answer = cluster.ask("a", "tx.submit_batch", transactions=[transaction.raw.hex() for transaction in batch])
            except Unavailable:
                break
            accepted += [row["id"] for row in answer["results"] if row["result"] == "accepted"]
        assert node.wait(30) == 4
        said = output.read_text()
        assert "could not write" in said
        assert "Traceback" not in said
    finally:
        node.kill()
        node.wait()
    cluster.testnet.start(["a"])
    cluster.testnet.wait_ready(["a"])
    cluster.wait_agreed()
    assert all(cluster.ask("b", "tx.status", id=identity)["status"] == "decided" for identity in [identity, *accepted])


@pytest.fixture(scope="module")
def stopped_network(tmp_path_factory):
    """A network whose files tests damage, each in a copy."""
    folder = tmp_path_factory.mktemp("stopped") / "net"
    Testnet.open_or_make(folder, 4, 0)
    return folder


@pytest.mark.parametrize(
    ("file", "content", "exit_code", "words"),
    [
        ("node.toml", b"[rpc", 2, "config.unreadable"),
        ("node.toml", b"[rpc]\nlistn = 1\n", 2, "config.unknown-key"),
        ("node.toml", b'[rpc]\nlisten = "0.0.0.0:7100"\n', 4, "rpc.not-loopback"),
        ("genesis.json", b"{", 2, "genesis.json"),
        ("genesis.json", b"", 2, "genesis.json"),
        ("consensus.key", b"{}", 2, "key file"),
        ("org.key", b"\xff" * 100, 2, "key file"),
        ("tls.cert.pem", b"", 2, "tls.cert.pem"),
        ("tls.key.pem", b"", 4, "network.key-unreadable"),
        ("data/CURRENT", b"nonsense", 4, "store.damaged"),
    ],
)
def test_damaged_file_stops_the_start_with_a_sentence(stopped_network, tmp_path, medchain, file, content, exit_code, words):
    folder = tmp_path / "net"
    shutil.copytree(stopped_network, folder)
    (folder / "a" / file).write_bytes(content)
    ended = medchain("node", "start", "--home", folder / "a")
    assert ended.returncode == exit_code, ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (folder / "a" / "node.pid").exists()


def test_vault_that_is_no_folder_stops_the_start_with_a_sentence(stopped_network, tmp_path, medchain):
    folder = tmp_path / "net"
    shutil.copytree(stopped_network, folder)
    shutil.rmtree(folder / "a" / "vault", ignore_errors=True)
    (folder / "a" / "vault").write_bytes(b"")
    check_sentence(medchain("node", "start", "--home", folder / "a"), 2, "home.unusable")


def test_wrong_passphrase_stops_the_start_with_a_sentence(stopped_network, tmp_path, medchain):
    folder = tmp_path / "net"
    shutil.copytree(stopped_network, folder)
    check_sentence(medchain("node", "start", "--home", folder / "a", MEDCHAIN_PASSPHRASE="wrong"), 2, "keyfile.wrong-passphrase")
    (folder / "passphrase").unlink()
    check_sentence(medchain("node", "start", "--home", folder / "a"), 2, "passphrase.missing")
