"""Four hospitals in one process: real engines on memory stores, real desks, real listeners on loopback, real vaults. Time is virtual.

Between the hospitals messages travel encoded through queues, and bulk requests over plain HTTP on loopback; everything a client meets is
the real thing: listener, desk, engine, custodian, vault.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from medchain.chain.genesis import Genesis, Hospital
from medchain.chain.parameters import Parameters
from medchain.client.node import NodeClient
from medchain.client.wallet import Wallet
from medchain.crypto.keyfile import Identity
from medchain.crypto.sealing import SUITE_X25519
from medchain.crypto.signing import SigningKey
from medchain.engine.engine import Engine
from medchain.engine.ready import BlockDecided, PeerConnected, PeerDisconnected, Received, Ticked
from medchain.engine.verification import Verifier
from medchain.errors import Unavailable
from medchain.node.custodian import Custodian
from medchain.node.desk import Desk
from medchain.rpc.server import RpcServer
from medchain.store.memory import MemoryKeyValue
from medchain.vault.blobs import BlobStore
from medchain.vault.wraps import WrapStore
from medchain.wire.peer import decode_message, encode_message

START_MS = 1_800_000_000_000
DAY_MS = 86_400_000
TICK_MS = 20


def fixed(name: str) -> bytes:
    return sha256(name.encode()).digest()


class VirtualClock:
    """The clock of the harness."""

    def __init__(self, net: Net) -> None:
        self._net = net

    def wall_ms(self) -> int:
        return START_MS + self._net.now_ms


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
        self.peer_url = ""

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
        self.custodian = Custodian(
            identity=self.identity, genesis=genesis, network=genesis.domain(), desk=self.desk, blobs=self.blobs,
            wraps=WrapStore(self.folder, self.identity.opening, genesis.domain()), clock=VirtualClock(self.net), open_peer=self._open_peer,
        )  # fmt: skip
        self.desk.servers.update(self.custodian.servers)
        self.server = RpcServer(
            listen=("127.0.0.1", 0), call=self.desk.call, routes=self.custodian.client_routes(), health=dict,
            tap=lambda _, body: self.bodies.append(body),
        )  # fmt: skip

    async def start(self, stack: AsyncExitStack) -> None:
        """Open the listeners for clients and for the other hospitals."""
        await self.server.start()
        stack.push_async_callback(self.server.stop)

        @web.middleware
        async def name_peer(request: web.Request, handler: Any) -> web.StreamResponse:
            request["peer"] = bytes.fromhex(request.headers["X-Peer"])
            return await handler(request)

        app = web.Application(middlewares=[name_peer])
        app.router.add_routes(self.custodian.peer_routes())
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.peer_url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        self.session = await stack.enter_async_context(aiohttp.ClientSession())
        await self.custodian.start()
        stack.push_async_callback(self.custodian.stop)

    async def _open_peer(self, peer: bytes, method: str, path: str, *, data: Any = None, headers: Any = None) -> aiohttp.ClientResponse:
        other = next(member for member in self.net.members.values() if member.consensus.public == peer)
        if not (self.is_connected and other.is_connected):
            raise Unavailable("the hospital is not connected")
        named = {**(headers or {}), "X-Peer": self.consensus.public.hex()}
        return await self.session.request(method, other.peer_url + path, data=data, headers=named)

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
        for reply in ready.replies:
            if isinstance(reply, BlockDecided):
                self.custodian.observe(reply)


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
            pump = asyncio.ensure_future(net.pump())
            stack.push_async_callback(_end, net, pump)
            for name, member in net.members.items():
                await member.start(stack)
                net.clients[name] = await stack.enter_async_context(NodeClient(member.server.url, genesis=net.genesis))
            yield net

    return _network


async def _end(net: Net, pump: asyncio.Future[None]) -> None:
    """Stop the engines; what broke one of them fails the test."""
    for member in net.members.values():
        member.desk.close()
    pump.cancel()
    await asyncio.wait((pump,))
    if not pump.cancelled():
        pump.result()
