"""Four hospitals in one process: real engines on memory stores, real desks, real listeners on loopback, real vaults. Time is virtual.

Between the hospitals messages travel encoded through queues instead of sockets; everything a client meets is the real thing.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from medchain.chain.genesis import Genesis, Hospital
from medchain.chain.parameters import Parameters
from medchain.client.node import NodeClient
from medchain.client.wallet import Wallet
from medchain.crypto.keyfile import Identity
from medchain.crypto.sealing import SUITE_X25519
from medchain.crypto.signing import SigningKey
from medchain.engine.engine import Engine
from medchain.engine.ready import PeerConnected, PeerDisconnected, Received, Ticked
from medchain.engine.verification import Verifier
from medchain.node.desk import Desk
from medchain.rpc.server import RpcServer
from medchain.store.memory import MemoryKeyValue
from medchain.vault.blobs import BlobStore
from medchain.vault.http import blob_routes
from medchain.wire.peer import decode_message, encode_message

START_MS = 1_800_000_000_000
DAY_MS = 86_400_000
TICK_MS = 20


def fixed(name: str) -> bytes:
    return sha256(name.encode()).digest()


async def allow(request: Any, root: bytes) -> None:
    """The rule of a vault that lets its own clients read and write."""


class Member:
    """One hospital: engine, desk, listener, vault."""

    def __init__(self, net: Net, name: str, folder: Path) -> None:
        self.net = net
        self.name = name
        self.consensus = SigningKey(fixed(f"{name} consensus"))
        self.officer = SigningKey(fixed(f"{name} officer"))
        self.identity = Identity.generate("hospital", SUITE_X25519)
        self.folder = folder / name
        self.inbox: list[Any] = []
        self.desk = Desk(self._post)
        self.store = MemoryKeyValue()
        self.blobs = BlobStore(self.folder)
        self.is_connected = True
        self.bodies: list[bytes] = []
        self.routes: list[Any] = []

    def _post(self, event: Any) -> bool:
        self.inbox.append(event)
        return True

    def row(self) -> Hospital:
        public = self.identity.public_identity()
        return Hospital(
            name=self.name,
            role="validator",
            consensus_key=self.consensus.public,
            officer_key=self.officer.public,
            organisation_key=public.public,
            opening_suite=public.opening_suite,
            opening_key=public.opening_public,
            certificate=b"certificate of " + self.name.encode(),
            endpoints=(f"{self.name}.example:7000",),
        )

    def begin(self, genesis: Genesis) -> None:
        self.store.write(Engine.founding_batch(genesis))
        self.engine = Engine(
            genesis=genesis, store=self.store, consensus_key=self.consensus, verifier=Verifier(genesis.domain()),
            challenge=fixed(f"{self.name} challenge"),
        )  # fmt: skip
        routes = [*blob_routes(self.blobs, allow, allow), *self.routes]
        self.server = RpcServer(
            listen=("127.0.0.1", 0), call=self.desk.call, routes=routes, health=dict, tap=lambda _, body: self.bodies.append(body)
        )

    def turn(self) -> None:
        """Hand the engine what came in, and do what it says, in order."""
        events, self.inbox = self.inbox, []
        ready = self.engine.handle_all([*events, Ticked(self.net.now_ms, START_MS + self.net.now_ms)])
        self.store.write(ready.batch)
        for envelope in ready.send:
            data = encode_message(envelope.message)
            for other in self.net.members.values():
                if other is not self and self.is_connected and other.is_connected and envelope.to in (None, other.consensus.public):
                    other.inbox.append(Received(self.consensus.public, decode_message(data)))
        self.desk.answer(ready.replies)


class Net:
    """The network, and wallets for its people."""

    def __init__(self, folder: Path, **parameters: int) -> None:
        self.now_ms = 0
        self.members = {name: Member(self, name, folder) for name in "abcd"}
        rows = sorted((member.row() for member in self.members.values()), key=lambda row: row.consensus_key)
        settings = {"state_buckets": 64, "heartbeat_ms": 30_000, "expiry_window_blocks": 200} | parameters
        self.genesis = Genesis("client-test", START_MS, Parameters(**settings), tuple(rows))
        self.clients: dict[str, NodeClient] = {}
        for member in self.members.values():
            member.begin(self.genesis)
        for member in self.members.values():
            member.inbox += [PeerConnected(other.consensus.public) for other in self.members.values() if other is not member]

    async def pump(self) -> None:
        """Turn every engine for ever; virtual time runs while somebody is at work."""
        while True:
            self.now_ms += TICK_MS
            for member in self.members.values():
                member.turn()
            await asyncio.sleep(0.001)

    def disconnect(self, *names: str) -> None:
        """Cut hospitals off from all others."""
        for name in names:
            self.members[name].is_connected = False
            for other in self.members.values():
                if other.name != name:
                    other.inbox.append(PeerDisconnected(self.members[name].consensus.public))
                    self.members[name].inbox.append(PeerDisconnected(other.consensus.public))

    def connect(self, *names: str) -> None:
        for name in names:
            self.members[name].is_connected = True
            for other in self.members.values():
                if other.name != name and other.is_connected:
                    other.inbox.append(PeerConnected(self.members[name].consensus.public))
                    self.members[name].inbox.append(PeerConnected(other.consensus.public))

    def client(self, name: str) -> NodeClient:
        return self.clients[name]

    def hospital(self, name: str) -> Wallet:
        """The hospital's own wallet at its own node."""
        return Wallet(self.clients[name], self.members[name].identity)

    def wallet(self, identity: Identity, at: str) -> Wallet:
        return Wallet(self.clients[at], identity)


@pytest.fixture
def network(tmp_path: Path):
    """An async context manager: a running network."""

    @asynccontextmanager
    async def _network(prepare=lambda net: None, **parameters: int):
        net = Net(tmp_path, **parameters)
        prepare(net)
        async with AsyncExitStack() as stack:
            for name, member in net.members.items():
                await member.server.start()
                stack.push_async_callback(member.server.stop)
                net.clients[name] = await stack.enter_async_context(NodeClient(member.server.url, genesis=net.genesis))
            pump = asyncio.ensure_future(net.pump())

            async def end() -> None:
                for member in net.members.values():
                    member.desk.close()
                pump.cancel()
                await asyncio.wait((pump,))
                if not pump.cancelled():
                    pump.result()

            stack.push_async_callback(end)
            yield net

    return _network
