"""Peers as real processes: frozen, killed without a goodbye, and back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from medchain.chain.vote import COMMIT, Vote

pytestmark = [pytest.mark.asyncio, pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")]

CHILD = """
import asyncio, sys
from pathlib import Path
from medchain.chain.genesis import Genesis
from medchain.crypto.signing import SigningKey
from medchain.network.limits import NetworkLimits
from medchain.network.peers import PeerNetwork

async def main(genesis_path, seed, certificate, key, port):
    genesis = Genesis.from_json(Path(genesis_path).read_text())
    network = PeerNetwork(
        genesis=genesis, network=genesis.domain(), consensus_key=SigningKey(bytes.fromhex(seed)), certificate_path=Path(certificate),
        key_path=Path(key), passphrase=None, listen=("127.0.0.1", int(port)), deliver=lambda event: print(type(event).__name__, flush=True),
        height=lambda: 0, limits=NetworkLimits(heartbeat_ms=100, silence_max_ms=600, fallback_dial_after_ms=600_000),
    )
    await network.start()
    print("port", network.port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def child(world, repository, tmp_path):
    """Start hospital 1 as a process of its own; it listens and dials nobody with a smaller key."""
    genesis = tmp_path / "genesis.json"
    genesis.write_text(world.genesis.to_json(), encoding="utf-8")
    member = world.members[1]
    started: list[subprocess.Popen[str]] = []

    def start(port: int) -> tuple[subprocess.Popen[str], int]:
        arguments = [str(genesis), member.key.seed_bytes().hex(), str(member.certificate_path), str(member.key_path), str(port)]
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments], cwd=repository, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        word, number = process.stdout.readline().split()
        assert word == "port"
        return process, int(number)

    yield start
    for process in started:
        process.kill()
        process.wait(10)
        process.stdout.close()


async def test_frozen_process_is_noticed_and_welcomed_back(cluster, until, child):
    process, port = child(0)
    public = cluster.world.members[1].key.public
    cluster.endpoints[public] = (f"127.0.0.1:{port}",)
    node = await cluster.start(0)
    await until(lambda: public in node.network.connected)
    os.kill(process.pid, signal.SIGSTOP)
    await until(lambda: public not in node.network.connected, seconds=5)
    assert node.network.counters.value("network_disconnections", "frozen") == 1
    os.kill(process.pid, signal.SIGCONT)
    await until(lambda: public in node.network.connected)


async def test_killed_process_is_noticed_at_once_and_welcomed_back(cluster, until, child):
    process, port = child(0)
    public = cluster.world.members[1].key.public
    cluster.endpoints[public] = (f"127.0.0.1:{port}",)
    node = await cluster.start(0)
    await until(lambda: public in node.network.connected)
    process.kill()
    await until(lambda: public not in node.network.connected, seconds=3)
    child(port)
    await until(lambda: public in node.network.connected)
    node.send(Vote(COMMIT, 1, 0, b"\x01" * 32, b"\x02" * 32, b"\x03" * 64))
    await until(lambda: not node.network.facts()[0].messages_waiting)
