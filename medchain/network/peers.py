"""The other hospitals: who is connected, what goes out to them, what came in, and who is kept away.

`PeerNetwork` owns one listener, one connection per hospital and the pauses between attempts. It turns connections into events of the engine
(PeerConnected and PeerDisconnected come in pairs, Received in between) and envelopes into queued bytes, without ever making the engine's
loop wait. It knows no rule of agreement: what a message means, whether it is late or a lie, is the engine's to say, through `accuse`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from medchain.chain.domain import Domain
from medchain.chain.genesis import Genesis, Hospital
from medchain.crypto.signing import SigningKey
from medchain.engine.ready import Envelope, Event, PeerConnected, PeerDisconnected, Received
from medchain.errors import Malformed, Rejected, Unavailable
from medchain.network.connection import Connection, Hooks, Line, Socket, Tap
from medchain.network.dialling import PeerClient
from medchain.network.greeting import Greeter, Greeting
from medchain.network.limits import SOCKET_FRAME_BYTES_MAX, NetworkLimits
from medchain.network.listener import PeerListener
from medchain.network.outbox import LANE_NAMES
from medchain.network.standing import POINTS, Standings
from medchain.network.tls import Credentials, days_left, load_certificate, peer_certificate
from medchain.telemetry import Counters, log_event
from medchain.wire.peer import FRAME_BYTES_MAX, PeerMessage, encode_message, lane_of

REFUSALS: Final[dict[str, str]] = {
    "network.not-a-member": "this node's consensus key is not that of a hospital in the genesis document",
    "network.certificate-damaged": "the genesis document holds an unreadable TLS certificate, or one twice",
    "network.unknown-hospital": "the named consensus key is not that of a hospital of this network",
}
CERTIFICATE_CHECK_SECONDS: Final = 6 * 3600
SHORT_LIFE_SECONDS: Final = 1.0
"""A connection that ends sooner counts as a failed attempt, so that a pair that disagrees does not spin."""
DEFAULT_LIMITS: Final = NetworkLimits()


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """What `node.peers` and metrics show of one hospital."""

    peer: bytes
    number: int
    """Place in the genesis document."""
    is_connected: bool
    endpoint: str
    connected_ms: int
    """How long the connection lasts already."""
    height_at_handshake: int
    bytes_waiting: int
    messages_waiting: int
    score: int
    banned_ms: int
    last_failure: str
    """Stable word for why the last attempt or connection ended, empty when none did."""


class _Peer:
    """What is remembered of one hospital between connections."""

    def __init__(self, hospital: Hospital, number: int) -> None:
        self.hospital = hospital
        self.number = number
        self.connection: Connection | None = None
        self.connected = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()
        self.height = 0
        self.last_failure = ""
        self.client: PeerClient | None = None


class PeerNetwork:
    """The peers of one node. Make it inside a running loop; every method belongs to that loop's thread."""

    def __init__(
        self,
        *,
        genesis: Genesis,
        network: Domain,
        consensus_key: SigningKey,
        certificate_path: Path,
        key_path: Path,
        passphrase: str | None,
        listen: tuple[str, int],
        deliver: Callable[[Event], None],
        height: Callable[[], int],
        routes: Sequence[web.RouteDef] = (),
        tap: Tap | None = None,
        line: Line | None = None,
        limits: NetworkLimits = DEFAULT_LIMITS,
        endpoints: Mapping[bytes, Sequence[str]] | None = None,
        counters: Counters | None = None,
        room: Callable[[], Awaitable[None]] | None = None,
        failed: Callable[[Exception], None] | None = None,
        wall_clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`deliver` takes each event at once (the node's inbox); `height` is the decided height for handshakes.

        `routes` are served to hospitals beside the WebSocket, with request["peer"] = consensus key. `tap` sees every frame before TLS.
        `line` is for drills only: it puts something of its own around each WebSocket, above TLS, to hold frames back.
        `endpoints` overrides where to dial a hospital (by consensus key). `room` waits while the inbox is full: readers then stop reading.
        `failed` is told when the network met a bug of our own; without it the loop's exception handler is. Raises
        Rejected(network.not-a-member).
        """
        self._own = consensus_key.public
        self._hospitals = {hospital.consensus_key: hospital for hospital in genesis.hospitals}
        if self._own not in self._hospitals:
            message = "this node's consensus key is not in the genesis document: use the key and the genesis that belong together"
            raise Rejected("network.not-a-member", message)
        self._network = network
        self._key = consensus_key
        self._certificate_path = certificate_path
        self._credentials = Credentials(certificate_path, key_path, passphrase)
        self._listen = listen
        self._deliver = deliver
        self._height = height
        self._routes = tuple(routes)
        self._tap = tap
        self._line = line
        self._limits = limits
        self._endpoints: Mapping[bytes, Sequence[str]] = {} if endpoints is None else endpoints
        self.counters = Counters() if counters is None else counters
        self._failed = failed
        self._wall_clock_ms = wall_clock_ms
        self._hooks = Hooks(received=self._receive, accuse=self._accuse, room=room, tap=tap)
        self._standings = Standings(limits)
        self.number = list(self._hospitals).index(self._own)
        """This hospital's place in the genesis document: how log lines name it."""
        self._peers = {key: _Peer(hospital, number) for number, (key, hospital) in enumerate(self._hospitals.items()) if key != self._own}
        self._of_certificate = {hospital.certificate: key for key, hospital in self._hospitals.items() if key != self._own}
        self._greeter: Greeter | None = None
        self._listener: PeerListener | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False

    # ---- life ---------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Check the certificate, listen, and begin to dial. Raises Rejected (codes of tls.py and listener.py); nothing then runs."""
        own = self._hospitals[self._own]
        self._check_listed_certificates()
        certificate = load_certificate(self._certificate_path, own.certificate, self._wall_clock_ms())
        trusted = [peer.hospital.certificate for peer in self._peers.values()]
        context = await asyncio.to_thread(self._credentials.server_context, trusted)
        listener = PeerListener(
            context=context,
            peer_of=self._of_certificate.get,
            number_of=lambda peer: self._peers[peer].number,
            banned_for=lambda peer: self._standings.banned_for(peer, self._now()),
            serve=self._serve_listener,
            routes=self._routes,
            limits=self._limits,
            counters=self.counters,
            failed=self._report,
        )
        self._greeter = Greeter(self._network, self._key, certificate, self._hospitals, self._height, self._tap)
        await listener.start(self._listen)
        self._listener = listener
        for key, peer in self._peers.items():
            peer.client = PeerClient(peer.hospital.certificate, partial(self._endpoints_of, peer.hospital), self._credentials, self._limits)
            self._begin(self._dial_forever(key, peer), f"dial peer {peer.number}")
        self._begin(self._watch_certificates(), "certificates")
        log_event("network.listening", port=listener.port)

    async def stop(self) -> None:
        """Close everything within about a second; every connected peer is delivered as disconnected."""
        if self._is_stopping:
            return
        self._is_stopping = True
        if self._listener is not None:
            self._listener.stop_accepting()
        for peer in self._peers.values():
            if peer.connection is not None:
                self._unregister(peer, peer.connection, "stopping")
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        closing: list[asyncio.Future[Any]] = [*tasks]
        if self._listener is not None:
            closing.append(asyncio.create_task(self._listener.stop()))
        if closing:
            _, late = await asyncio.wait(closing, timeout=2.5 * self._limits.close_ms / 1000)
            for waiting in late:
                waiting.cancel()
        clients = [peer.client.close() for peer in self._peers.values() if peer.client is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.close_ms / 1000):
                await asyncio.gather(*clients)
        log_event("network.stopped")

    @property
    def port(self) -> int:
        """The port in use once started (`listen` may say 0)."""
        return 0 if self._listener is None else self._listener.port

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._report(error)

    def _report(self, error: Exception) -> None:
        """Hand a bug of our own to whoever stops the node."""
        if self._failed is not None:
            self._failed(error)
            return
        asyncio.get_running_loop().call_exception_handler({"message": "the peer network failed", "exception": error})

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _endpoints_of(self, hospital: Hospital) -> Sequence[str]:
        return self._endpoints.get(hospital.consensus_key) or hospital.endpoints

    # ---- messages -----------------------------------------------------------------------------------------------------------

    def send(self, envelopes: Sequence[Envelope]) -> None:
        """Queue messages for connected peers and return at once. What finds no room or no connection is dropped and counted."""
        encoded: dict[int, bytes] = {}
        for envelope in envelopes:
            connections = self._addressees(envelope.to)
            if not connections:
                self.counters.increment("network_drops", label="not-connected")
                continue
            message = envelope.message
            data = encoded.get(id(message))  # the envelopes keep the messages alive, so an id names one of them
            if data is None:
                data = encoded[id(message)] = encode_message(message)
                if len(data) > FRAME_BYTES_MAX:
                    log_event("network.oversized", level="error", kind=type(message).__name__, bytes=len(data))
            if len(data) > FRAME_BYTES_MAX:
                self.counters.increment("network_drops", len(connections), label="oversized")
                continue
            lane = lane_of(message)
            self.counters.increment("network_messages_sent", len(connections), label=LANE_NAMES[lane])
            for connection in connections:
                connection.send(lane, data)

    def _addressees(self, to: bytes | None) -> list[Connection]:
        if to is None:
            return [peer.connection for peer in self._peers.values() if peer.connection is not None]
        addressee = self._peers.get(to)
        return [] if addressee is None or addressee.connection is None else [addressee.connection]

    def _receive(self, peer: bytes, message: PeerMessage) -> None:
        self._emit(Received(peer, message))

    def _emit(self, event: Event) -> None:
        """Deliver an event. What the inbox raises is a bug of our own: it goes to whoever stops the node, and connections stay in order."""
        try:
            self._deliver(event)
        except Exception as error:
            self._report(error)

    @property
    def connected(self) -> tuple[bytes, ...]:
        """Consensus keys of the connected hospitals, ascending."""
        return tuple(sorted(key for key, peer in self._peers.items() if peer.connection is not None))

    def facts(self) -> tuple[PeerFacts, ...]:
        """Return what can be said of every other hospital, in the order of the genesis document."""
        now = self._now()
        rows = []
        for key, peer in self._peers.items():
            connection = peer.connection
            rows.append(
                PeerFacts(
                    peer=key,
                    number=peer.number,
                    is_connected=connection is not None,
                    endpoint="none" if peer.client is None else peer.client.endpoint,
                    connected_ms=0 if connection is None else int((now - connection.since) * 1000),
                    height_at_handshake=peer.height,
                    bytes_waiting=0 if connection is None else connection.bytes_waiting,
                    messages_waiting=0 if connection is None else connection.messages_waiting,
                    score=self._standings.score(key, now),
                    banned_ms=int(self._standings.banned_for(key, now) * 1000),
                    last_failure=peer.last_failure,
                )
            )
        return tuple(rows)

    # ---- standing -----------------------------------------------------------------------------------------------------------

    def accuse(self, peer: bytes, reason: str) -> None:
        """Score a peer for what the engine found; `reason` is a sentence. The second time within a while it is banned."""
        self._accuse(peer, "engine", 1, reason)

    def _accuse(self, key: bytes, kind: str, times: float, sentence: str) -> None:
        peer = self._peers.get(key)
        self.counters.increment("network_accusations", label=kind)
        if peer is None:
            return
        now = self._now()
        is_banned = self._standings.accuse(key, POINTS[kind] * times, now)
        score = self._standings.score(key, now)
        log_event("network.accused", level="warning", peer=peer.number, reason=kind, score=score, sentence=sentence)
        if not is_banned:
            return
        self.counters.increment("network_bans")
        milliseconds = int(self._standings.banned_for(key, now) * 1000)
        log_event("network.banned", level="warning", peer=peer.number, reason=kind, milliseconds=milliseconds)
        peer.last_failure = "banned"
        if peer.connection is not None:
            peer.connection.close("banned")

    # ---- connections --------------------------------------------------------------------------------------------------------

    def _check_admissible(self, key: bytes, *, is_dialled_by_smaller: bool) -> None:
        """Raise Rejected when a proven peer is not welcome now: the double rule of protocol.md, "Gossip", a ban, or our own end."""
        if self._is_stopping:
            raise Rejected("handshake.stopping", "this node is about to stop: come again when it is back")
        if self._standings.banned_for(key, self._now()) > 0:
            raise Rejected("handshake.banned", "the peer broke rules and is kept away for a while")
        present = self._peers[key].connection
        if present is not None and present.is_dialled_by_smaller and not is_dialled_by_smaller:
            raise Rejected("handshake.already-connected", "the connection that the smaller key dialled stays")

    async def _serve_listener(self, request: web.Request, peer: bytes) -> web.StreamResponse:
        ws = web.WebSocketResponse(
            max_msg_size=SOCKET_FRAME_BYTES_MAX, autoping=False, compress=False, timeout=self._limits.close_ms / 1000
        )
        try:
            await ws.prepare(request)
        except ConnectionError:  # it was gone before it was here
            return web.Response(status=503)
        try:
            await self._serve(ws, request.transport, peer, is_dialler=False)
        except Exception as error:  # aiohttp would log it and go on; a bug of our own must reach whoever stops the node
            self._report(error)
        return ws

    async def _serve(self, ws: Socket, transport: asyncio.BaseTransport | None, key: bytes, *, is_dialler: bool) -> str:
        """Do the handshake and serve the connection until it ends; return why, as a stable word."""
        peer = self._peers[key]
        if self._line is not None:
            ws = self._line(ws)
        is_dialled_by_smaller = is_dialler == (self._own < key)
        greeting = await self._greet(ws, transport, peer, is_dialler=is_dialler, is_dialled_by_smaller=is_dialled_by_smaller)
        if isinstance(greeting, str):
            await Connection.shut(ws, transport, self._limits.close_ms / 1000)
            return greeting
        connection = Connection(
            peer=key,
            number=peer.number,
            is_dialled_by_smaller=is_dialled_by_smaller,
            ws=ws,
            transport=transport,
            limits=self._limits,
            counters=self.counters,
            hooks=self._hooks,
        )
        self._register(peer, connection, greeting)
        reason = "failed"
        try:
            reason = await connection.run()
        finally:
            self._unregister(peer, connection, reason)
        return reason

    async def _greet(
        self, ws: Socket, transport: asyncio.BaseTransport | None, peer: _Peer, *, is_dialler: bool, is_dialled_by_smaller: bool
    ) -> Greeting | str:
        """Return the greeting, or a stable word when there is none."""
        key = peer.hospital.consensus_key
        certificate = peer_certificate(transport)
        if self._greeter is None or certificate is None:
            return "lost"
        try:
            async with asyncio.timeout(self._limits.handshake_ms / 1000):
                return await self._greeter.greet(
                    ws,
                    peer=key,
                    certificate=certificate,
                    is_dialler=is_dialler,
                    admit=lambda: self._check_admissible(key, is_dialled_by_smaller=is_dialled_by_smaller),
                )
        except Rejected as error:
            self.counters.increment("network_refusals", label=error.code)
            if peer.last_failure != error.code:  # said once, not at every attempt
                log_event("network.refused", level="warning", peer=peer.number, code=error.code, sentence=error.message)
            reason = error.code
        except Malformed as error:
            self._accuse(key, "malformed", 1, error.message)
            reason = "handshake.unreadable"
        except Unavailable:
            reason = "lost"
        except TimeoutError:
            reason = "timeout"
        if reason != "handshake.already-connected":
            peer.last_failure = reason
        return reason

    def _register(self, peer: _Peer, connection: Connection, greeting: Greeting) -> None:
        if peer.connection is not None:
            log_event("network.replaced", peer=peer.number)
            self._unregister(peer, peer.connection, "replaced")
        peer.connection = connection
        peer.height = greeting.height
        peer.connected.set()
        peer.free.clear()
        connection.is_registered = True
        self.counters.increment("network_connections")
        log_event("network.connected", peer=peer.number, version=greeting.version, height=greeting.height)
        self._emit(PeerConnected(connection.peer))

    def _unregister(self, peer: _Peer, connection: Connection, reason: str) -> None:
        """End the life of a connection towards the engine, once; the socket follows by itself."""
        connection.close(reason)
        if not connection.is_registered:
            return
        connection.is_registered = False
        peer.connection = None
        peer.last_failure = reason
        peer.connected.clear()
        peer.free.set()
        self.counters.increment("network_disconnections", label=reason)
        log_event("network.disconnected", peer=peer.number, reason=reason)
        self._emit(PeerDisconnected(connection.peer))

    # ---- dialling -----------------------------------------------------------------------------------------------------------

    async def _dial_forever(self, key: bytes, peer: _Peer) -> None:
        """Keep one hospital connected. The smaller key dials at once; the larger one only when nobody came for a while."""
        attempt = 0
        while not self._is_stopping:
            await peer.free.wait()
            if peer.connection is not None:
                continue  # it was free for an instant only, while one connection replaced another
            if self._own > key and await self._comes_by_itself(peer, self._limits.fallback_dial_after_ms / 1000):
                attempt = 0
                continue
            banned = self._standings.banned_for(key, self._now())
            if banned > 0:
                await asyncio.sleep(banned)
                continue
            begin = self._now()
            reason = await self._dial_once(key, peer, attempt)
            if reason == "handshake.already-connected" or self._now() - begin > SHORT_LIFE_SECONDS + self._limits.handshake_ms / 1000:
                attempt = 0
            pause_ms = min(self._limits.dial_pause_max_ms, self._limits.dial_pause_first_ms * 1.6 ** min(attempt, 32))
            attempt += 1
            if await self._comes_by_itself(peer, pause_ms / 1000 * random.uniform(0.5, 1.0)):
                attempt = 0

    @staticmethod
    async def _comes_by_itself(peer: _Peer, seconds: float) -> bool:
        """Wait; return early and true when the peer has connected meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await peer.connected.wait()
        except TimeoutError:
            return False
        return True

    async def _dial_once(self, key: bytes, peer: _Peer, attempt: int) -> str:
        """Dial, and serve the connection until it ends; return why it ended or was not made, as a stable word."""
        client = peer.client
        if client is None:
            return "not-started"
        try:
            dialled = await client.dial()
        except Unavailable as error:
            reason = error.message
            self.counters.increment("network_dials_failed", label=reason)
            if reason != peer.last_failure or attempt == 0:
                log_event("network.dial.failed", peer=peer.number, endpoint=client.endpoint, reason=reason, attempt=attempt)
            peer.last_failure = reason
            client.turn()
            return reason
        try:
            return await self._serve(dialled.ws, dialled.transport, key, is_dialler=True)
        finally:
            dialled.pooled.close()

    # ---- bulk ---------------------------------------------------------------------------------------------------------------

    async def open(
        self, peer: bytes, method: str, path: str, *, data: Any = None, headers: Mapping[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        """Send an HTTPS request to a hospital's routes, mutual TLS and pinned; the caller reads the response and releases it.

        `path` begins with a slash. A transfer that passes no byte for `bulk_silence_ms` fails; resume it by range. Raises
        Rejected(network.unknown-hospital), Unavailable when it cannot be reached now.
        """
        target = self._peers.get(peer)
        if target is None:
            raise Rejected("network.unknown-hospital", "the named key is not that of another hospital of this network")
        if target.client is None or self._is_stopping:
            raise Unavailable("the peer network does not run")
        return await target.client.request(method, path, data=data, headers=headers)

    # ---- certificates -------------------------------------------------------------------------------------------------------

    def _check_listed_certificates(self) -> None:
        """Raise Rejected when the genesis document's certificates cannot tell the hospitals apart."""
        if len({hospital.certificate for hospital in self._hospitals.values()}) != len(self._hospitals):
            message = "two hospitals of the genesis document have the same TLS certificate: the network must be founded with one for each"
            raise Rejected("network.certificate-damaged", message)
        for number, hospital in enumerate(self._hospitals.values()):
            try:
                days_left(hospital.certificate, 0)
            except Malformed as error:
                message = f"the genesis document's TLS certificate of hospital {number} is of no use: {error.message}"
                raise Rejected("network.certificate-damaged", message) from None

    async def _watch_certificates(self) -> None:
        """Warn weeks before a certificate ends, ours or another's (lessons.md: fabric-ca #360)."""
        while True:
            self.check_certificates()
            await asyncio.sleep(CERTIFICATE_CHECK_SECONDS)

    def check_certificates(self) -> dict[bytes, int]:
        """Return the whole days left of each hospital's certificate by consensus key, negative once it has ended, and log what ends."""
        left = {}
        for number, (key, hospital) in enumerate(self._hospitals.items()):
            left[key] = days = days_left(hospital.certificate, self._wall_clock_ms())
            if days < 0:
                log_event("network.certificate.ended", level="error", peer=number, days=days)
            elif days < self._limits.certificate_warning_days:
                log_event("network.certificate.ending", level="warning", peer=number, days=days)
        return left
