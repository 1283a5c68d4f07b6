"""`medchain evidence` as a user meets it: a real engine behind a real listener, and a report checked without either."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest

from medchain.chain.evidence import Contradiction
from medchain.chain.vote import COMMIT, ViewChange, Vote
from medchain.cli import main
from medchain.engine.ready import Received, Refused
from medchain.errors import Rejected
from medchain.rpc.server import RpcServer
from medchain.wire.peer import EvidenceSent
from tests.engine.conftest import Cluster


class Served:
    """Four engines, the first of which answers over HTTP. One contradiction of a liar is recorded, another one waits."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.cluster.warm()
        self.liar = self.cluster.nodes[2]
        self.node = self.cluster.nodes[0]
        self.url = ""
        network = self.cluster.network
        votes = [Vote.sign(network, self.liar.key, COMMIT, 1, 0, digest) for digest in (b"1" * 32, b"2" * 32)]
        self.recorded = Contradiction.of(*votes)
        self.pending = Contradiction.of(votes[0], ViewChange.sign(network, self.liar.key, 1, 1, None))
        self.hospital = next(row.name for row in self.cluster.genesis.hospitals if row.consensus_key == self.liar.key.public)

    def record(self) -> None:
        self.node.handle(Received(self.liar.key.public, EvidenceSent((self.recorded,))))
        self.cluster.run_until(lambda: all(node.height == 1 for node in self.cluster.nodes))
        self.cluster.drop = lambda source, target, message: True
        self.node.handle(Received(self.liar.key.public, EvidenceSent((self.pending,))))

    async def serve(self, method, params):
        return await self.answer(method, params)

    async def answer(self, method, params):
        found = self.node.ask(method, **params)
        if isinstance(found, Refused):
            raise Rejected(found.code, found.message)
        return found


@pytest.fixture
def served() -> Iterator[Served]:
    world = Served()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = RpcServer(listen=("127.0.0.1", 0), call=world.serve, health=dict)
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        world.url = server.url
        yield world
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def run(capsys, *line: object) -> tuple[int, str, str]:
    code = main.main([str(word) for word in line])
    out, said = capsys.readouterr()
    return code, out, said


def test_an_honest_network_has_no_evidence(served, capsys):
    code, out, _ = run(capsys, "evidence", "list", "--at", served.url)
    assert (code, out) == (0, "There is none: no validator was found to contradict itself.\n")


def test_evidence_is_listed_recorded_or_waiting(served, capsys):
    served.record()
    code, out, _ = run(capsys, "evidence", "list", "--at", served.url)
    recorded, pending = out.splitlines()
    assert code == 0
    identity = served.recorded.digest().hex()
    assert recorded.startswith(f"{identity}  equivocation     hospital {served.hospital} at height 1  recorded in block 1, 20")
    assert pending == f"{served.pending.digest().hex()}  view-change-lie  hospital {served.hospital} at height 1  waits for a block"
    code, out, _ = run(capsys, "evidence", "list", "--at", served.url, "--json")
    answer = json.loads(out)
    assert [row["id"] for row in answer["evidence"]] == [served.recorded.digest().hex()]
    assert [row["id"] for row in answer["pending"]] == [served.pending.digest().hex()]


def test_a_report_is_written_and_checked_without_any_node(served, capsys, tmp_path):
    served.record()
    genesis = tmp_path / "genesis.json"
    genesis.write_text(served.cluster.genesis.to_json(), encoding="utf-8")
    for contradiction, told in ((served.recorded, "block 1 of "), (served.pending, "not yet, or not asked for")):
        report = tmp_path / f"{contradiction.offence}.json"
        code, out, _ = run(capsys, "evidence", "show", contradiction.digest().hex(), "--at", served.url, "--out", report)
        assert code == 0
        assert f"hospital        {served.hospital}, consensus key {served.liar.key.public.hex()}" in out
        assert "signed          commit to block 3131" in out and "rule            " in out
        assert f"on the chain    {told}" in out and str(report) in out
        code, out, _ = run(capsys, "evidence", "verify", report, "--genesis", genesis)
        assert code == 0 and out.startswith("The report holds.\n") and f"on the chain    {told}" in out
        code, out, _ = run(capsys, "evidence", "verify", report, "--genesis", genesis, "--json")
        answer = json.loads(out)
        assert answer["verified"] and answer["id"] == contradiction.digest().hex() and len(answer["statements"]) == 2
        assert answer["is_recorded"] == (contradiction is served.recorded)
        code, _, said = run(capsys, "evidence", "show", contradiction.digest().hex(), "--at", served.url, "--out", report)
        assert code == 2 and "exists already" in said
        report.write_text(report.read_text().replace("height 1 ", "height 2 ", 1))
        code, out, said = run(capsys, "evidence", "verify", report, "--genesis", genesis)
        assert code == 2 and "changed after it was written" in said and out == ""


def test_show_without_a_file_says_it_in_words_and_writes_nothing(served, capsys, tmp_path, monkeypatch):
    served.record()
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "evidence", "show", served.recorded.digest().hex(), "--at", served.url)
    assert code == 0 and "A validator signs one commit at a height and view." in out
    assert list(tmp_path.iterdir()) == []


def test_unknown_evidence_and_wrong_words_end_with_a_sentence(served, capsys, tmp_path):
    code, _, said = run(capsys, "evidence", "show", "ab" * 32, "--at", served.url)
    assert code == 1 and "No evidence is known under this id" in said
    code, out, _ = run(capsys, "evidence", "show", "ab" * 32, "--at", served.url, "--json")
    assert json.loads(out)["error"]["code"] == "evidence.unknown"
    code, _, said = run(capsys, "evidence", "show", "ab", "--at", served.url)
    assert code == 2 and "64 hexadecimal digits" in said
    genesis, report = tmp_path / "genesis.json", tmp_path / "report.json"
    genesis.write_text(served.cluster.genesis.to_json(), encoding="utf-8")
    code, _, said = run(capsys, "evidence", "verify", report, "--genesis", genesis)
    assert code == 2 and "cannot be read" in said
    report.write_text("{}")
    code, _, said = run(capsys, "evidence", "verify", report, "--genesis", genesis)
    assert code == 2 and "is no evidence report" in said


def test_a_node_that_shows_other_evidence_is_found_out(served, capsys):
    served.record()
    honest = served.answer

    async def other(method, params):
        answer = await honest(method, params)
        return answer | {"evidence": served.pending.encode()} if method == "evidence.get" else answer

    served.answer = other
    code, _, said = run(capsys, "evidence", "show", served.recorded.digest().hex(), "--at", served.url)
    assert code == 4 and "other evidence than was asked for" in said
