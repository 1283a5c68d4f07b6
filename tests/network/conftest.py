"""Hospitals with real keys and certificates, nodes on ephemeral ports, and a peer made by hand that may misbehave."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from medchain import telemetry
from medchain.chain.genesis import VALIDATOR, Genesis, Hospital
from medchain.chain.parameters import Parameters
from medchain.crypto.certificates import certificate_pem, make_certificate
from medchain.crypto.signing import SigningKey
from medchain.engine.ready import Envelope, Event, PeerConnected, PeerDisconnected, Received
from medchain.network.greeting import Greeter
from medchain.network.limits import NetworkLimits
from medchain.network.peers import PeerNetwork
from medchain.network.tls import Credentials

PASSPHRASE = "correct horse battery staple"
QUICK = NetworkLimits(
    heartbeat_ms=100, silence_max_ms=600, dial_pause_first_ms=20, dial_pause_max_ms=200, fallback_dial_after_ms=60_000, ban_first_ms=400
)
"""Limits with short times, so that nothing here waits for long."""


async def poll(condition: Callable[[], object], seconds: float = 15.0, what: str = "") -> None:
    """Poll a condition until it holds; fail after a deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        if loop.time() > deadline:
            pytest.fail(f"not within {seconds} seconds: {what or condition}")
        await asyncio.sleep(0.005)


@pytest.fixture
def until():
    """`await until(lambda: condition)`: poll with a deadline."""
    return poll


@dataclass
class Member:
    """A hospital's secrets and files."""

    key: SigningKey
    certificate: bytes
    certificate_path: Path
    key_path: Path


def make_member(folder: Path, name: str, key: SigningKey, *, now: datetime | None = None, days: int = 365) -> Member:
    begin = datetime.now(UTC) if now is None else now
    # Each opening of a protected key costs a stretched passphrase; one member with one is enough.
    passphrase = PASSPHRASE.encode() if name == "a" else None
    key_pem, der = make_certificate(f"Hospital {name}", ["localhost", "127.0.0.1"], valid_days=days, now=begin, passphrase=passphrase)
    key_path, certificate_path = folder / f"{name}.key.pem", folder / f"{name}.cert.pem"
    key_path.write_bytes(key_pem)
    certificate_path.write_bytes(certificate_pem(der))
    return Member(key, der, certificate_path, key_path)


def make_genesis(members: list[Member], chain_id: str = "test") -> Genesis:
    hospitals = [
        Hospital(
            name=f"Hospital {number}",
            role=VALIDATOR,
            consensus_key=member.key.public,
            officer_key=bytes([1]) * 31 + bytes([number]),
            organisation_key=bytes([2]) * 31 + bytes([number]),
            opening_suite=1,
            opening_key=b"\x03" * 32,
            certificate=member.certificate,
            endpoints=("127.0.0.1:1",),
        )
        for number, member in enumerate(members)
    ]
    return Genesis(chain_id=chain_id, time_ms=1, parameters=Parameters(), hospitals=tuple(hospitals))


@dataclass
class World:
    """Four hospitals in ascending order of their keys, one genesis document."""

    folder: Path
    members: list[Member]
    genesis: Genesis

    def renewed(self, index: int, name: str, *, days_ago: int = 0, days: int = 365) -> Member:
        """The same hospital with a fresh certificate that began `days_ago` days ago and was made for `days` days."""
        return make_member(self.folder, name, self.members[index].key, now=datetime.now(UTC) - timedelta(days=days_ago), days=days)

    def with_member(self, index: int, member: Member) -> Genesis:
        """The genesis document with another certificate for one hospital."""
        hospitals = list(self.genesis.hospitals)
        hospitals[index] = replace(hospitals[index], certificate=member.certificate)
        return replace(self.genesis, hospitals=tuple(hospitals))

    def stranger(self, seed: int = 99) -> Member:
        """A hospital of no network."""
        return make_member(self.folder, f"stranger{seed}", SigningKey(bytes([seed]) * 32))


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("hospitals")
    keys = sorted((SigningKey(bytes([seed]) * 32) for seed in range(1, 5)), key=lambda key: key.public)
    members = [make_member(folder, name, key) for name, key in zip("abcd", keys, strict=True)]
    return World(folder, members, make_genesis(members))


@dataclass
class Node:
    """A PeerNetwork and what it delivered."""

    network: PeerNetwork
    public: bytes
    events: list[Event] = field(default_factory=list)
    frames: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def messages(self) -> list[object]:
        return [event.message for event in self.events if isinstance(event, Received)]

    def connections(self) -> list[Event]:
        return [event for event in self.events if isinstance(event, PeerConnected | PeerDisconnected)]

    def send(self, *messages: object, to: bytes | None = None) -> None:
        self.network.send([Envelope(to, message) for message in messages])

    def is_connected(self, *others: Node) -> bool:
        return set(self.network.connected) >= {other.public for other in others}


class Cluster:
    """Makes nodes of the world's hospitals that find each other on ephemeral ports, and stops them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.endpoints: dict[bytes, tuple[str, ...]] = {}
        self.nodes: list[Node] = []
        self.hand_made: list[HandMadePeer] = []

    async def start(self, index: int, *, port: int = 0, genesis: Genesis | None = None, member: Member | None = None, **options) -> Node:
        node = self.make(index, port=port, genesis=genesis, member=member, **options)
        await node.network.start()
        self.endpoints[node.public] = (f"127.0.0.1:{node.network.port}",)
        return node

    def make(self, index: int, *, port: int = 0, genesis: Genesis | None = None, member: Member | None = None, **options) -> Node:
        genesis = genesis or self.world.genesis
        member = member or self.world.members[index]
        events: list[Event] = []
        frames: list[tuple[str, bytes, bytes]] = []
        failures: list[Exception] = []
        settings = {
            "genesis": genesis,
            "network": genesis.domain(),
            "consensus_key": member.key,
            "certificate_path": member.certificate_path,
            "key_path": member.key_path,
            "passphrase": PASSPHRASE,
            "listen": ("127.0.0.1", port),
            "deliver": events.append,
            "height": lambda: 7,
            "tap": lambda direction, peer, frame: frames.append((direction, peer, frame)),
            "limits": QUICK,
            "endpoints": self.endpoints,
            "failed": failures.append,
        }
        node = Node(PeerNetwork(**(settings | options)), member.key.public, events, frames, failures)
        self.nodes.append(node)
        return node

    def by_hand(self, index: int, **options) -> HandMadePeer:
        """A peer made by hand with the keys of a hospital."""
        peer = HandMadePeer(self.world, index, **options)
        self.hand_made.append(peer)
        return peer

    async def stop(self) -> None:
        for node in self.nodes:
            await node.network.stop()
        for node in self.nodes:
            assert node.failures == []
            check_pairs(node)


def check_pairs(node: Node) -> None:
    """Connected and disconnected alternate for each peer, and what is received lies between."""
    open_peers: set[bytes] = set()
    for event in node.events:
        if isinstance(event, PeerConnected):
            assert event.peer not in open_peers
            open_peers.add(event.peer)
        elif isinstance(event, PeerDisconnected):
            open_peers.remove(event.peer)
        elif isinstance(event, Received):
            assert event.peer in open_peers
    assert not open_peers


@pytest_asyncio.fixture
async def cluster(world):
    """A Cluster that is stopped, and checked for paired events, at the end."""
    nodes = Cluster(world)
    yield nodes
    for peer in nodes.hand_made:
        await peer.close()
    await nodes.stop()


class HandMadePeer:
    """Connects to a node as one of the hospitals and does what the test wants."""

    def __init__(self, world: World, index: int, *, member: Member | None = None, genesis: Genesis | None = None) -> None:
        self.world = world
        self.member = member or world.members[index]
        self.genesis = genesis or world.genesis
        self.ws: aiohttp.ClientWebSocketResponse
        self.session: aiohttp.ClientSession | None = None

    def context(self) -> ssl.SSLContext:
        context = Credentials(self.member.certificate_path, self.member.key_path, PASSPHRASE).client_context(self.member.certificate)
        context.verify_mode = ssl.CERT_NONE
        return context

    async def connect(self, node: Node, *, path: str = "/peer") -> HandMadePeer:
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.context()))
        self.ws = await self.session.ws_connect(f"https://127.0.0.1:{node.network.port}{path}", autoping=False, max_msg_size=0)
        return self

    async def greet(self, node: Node) -> None:
        hospitals = {hospital.consensus_key: hospital for hospital in self.genesis.hospitals}
        greeter = Greeter(self.genesis.domain(), self.member.key, self.member.certificate, hospitals, lambda: 0, None)
        own = next(h for h in node.network._hospitals.values() if h.consensus_key == node.public)
        await greeter.greet(self.ws, peer=node.public, certificate=own.certificate, is_dialler=True, admit=lambda: None)

    async def heard(self) -> aiohttp.WSMessage:
        """The next thing that is no sign of life."""
        async with asyncio.timeout(15):
            while True:
                message = await self.ws.receive()
                if message.type is not aiohttp.WSMsgType.PONG:
                    return message

    async def ended(self) -> None:
        """Wait until the node has ended the connection."""
        closing = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.ERROR)
        while (await self.heard()).type not in closing:
            pass

    async def close(self) -> None:
        if self.session is not None:
            if hasattr(self, "ws"):
                self.ws._response.close()  # no goodbye
            await self.session.close()


@pytest.fixture
def quick() -> NetworkLimits:
    return QUICK


@pytest.fixture(autouse=True)
def _silent_log():
    telemetry.configure(None)
    yield
    telemetry.configure(None)
