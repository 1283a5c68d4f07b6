"""Running a test network, as far as no process is needed for it; the rest is in tests/cluster."""

from __future__ import annotations

import http.server
import json
import sys
import threading

import pytest

from medchain.chain.parameters import Parameters
from medchain.errors import Rejected, Unavailable
from medchain.node.home import load_genesis
from medchain.testnet.launch import Testnet, ask, poll


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("testnet") / "net"
    Testnet.open_or_make(folder, 4, 0, Parameters(state_buckets=64))
    return folder


def refused(code: str, call, *arguments) -> Rejected:
    with pytest.raises(Rejected) as caught:
        call(*arguments)
    assert caught.value.code == code
    return caught.value


def test_network_made_before_is_used_again(folder):
    again = Testnet.open_or_make(folder)
    assert again.plan == Testnet.open(folder).plan == Testnet.open_or_make(folder, 4).plan


def test_network_of_another_size_is_not_made_over_it(folder):
    refused("testnet.other-size", Testnet.open_or_make, folder, 5)


def test_options_that_a_network_made_before_cannot_follow_are_not_silently_ignored(folder):
    refused("testnet.other-options", Testnet.open_or_make, folder, None, 50_000)
    refused("testnet.other-options", Testnet.open_or_make, folder, None, None, Parameters.from_names({"heartbeat_ms": 4_321}))
    made = Testnet.open(folder).plan
    same = load_genesis(made.genesis_file).parameters
    assert Testnet.open_or_make(folder, 4, made.seats[0].rpc_port, same).plan == made


def test_network_that_does_not_run_is_told_so(folder):
    network = Testnet.open(folder)
    assert network.not_running() == ["a", "b", "c", "d"]
    refused("testnet.not-running", network.kill, "a")
    refused("testnet.unknown-hospital", network.start, ["z"])
    network.stop()
    rows = [row.to_value() for row in network.status()]
    assert all(row["process"] is None and row["height"] is None for row in rows)


def test_running_hospital_is_not_started_twice(folder, monkeypatch):
    network = Testnet.open(folder)
    monkeypatch.setattr(network, "process_of", lambda name: 1 if name == "b" else None)
    refused("testnet.running", network.start)
    monkeypatch.setattr(network, "process_of", lambda name: 1)
    refused("testnet.running", network.start_missing)


def test_node_that_ends_at_its_start_is_told_with_its_own_sentence(folder):
    network = Testnet.open(folder)
    settings = network.plan.seat("a").home.config_file
    before = settings.read_text()
    settings.write_text("[nothing]\n")
    try:
        network.start(["a"])
        refusal = refused("testnet.node-ended", network.wait_ready, ["a"])
        assert "config.unknown-key" in refusal.message
    finally:
        settings.write_text(before)
        network.stop()


def test_program_that_is_no_python_is_a_fault_and_leaves_nothing(folder, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    network = Testnet.open(folder)
    with pytest.raises(OSError):
        network.start()
    assert network.not_running() == ["a", "b", "c", "d"]


@pytest.fixture
def answering():
    """An HTTP server that gives every POST the same answer."""
    content = {"body": b""}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content["body"])

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, lambda body: content.update(body=body)
    server.shutdown()
    server.server_close()


def test_answers_and_refusals_of_a_node_are_told_apart(answering):
    port, give = answering
    give(json.dumps({"result": {"height": 5}}).encode())
    assert ask(port, "node.status") == {"height": 5}
    give(json.dumps({"error": {"message": "no", "data": {"code": "records.unknown"}}}).encode())
    refused("records.unknown", ask, port, "records.get")


@pytest.mark.parametrize("body", [b"", b"hello", b"[" * 50_000, b"[]", b"{}", b'{"error": 5}'])
def test_what_is_no_node_is_unavailable(answering, body):
    port, give = answering
    give(body)
    with pytest.raises(Unavailable):
        ask(port, "node.status")


def test_polling_stops_at_its_deadline():
    assert poll(lambda: True, 0)
    assert not poll(lambda: False, 0.01)
