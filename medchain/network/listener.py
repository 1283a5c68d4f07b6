"""The one listener for peers: TCP, TLS with client certificates, then HTTP for the WebSocket and for bulk routes.

Connections are counted before TLS, during it and per hospital after it, so strangers and members alike hold only so much. Every request
knows which hospital it came from. Knows certificates and HTTP, no handshake and no messages.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohttp import web

from medchain.errors import InvariantBroken, Malformed, Rejected, Unavailable
from medchain.network.connection import tune
from medchain.network.dialling import PEER_PATH, REFUSAL_HEADER
from medchain.network.limits import NetworkLimits
from medchain.network.tls import peer_certificate, tls_reason
from medchain.telemetry import Counters, log_event

REFUSALS: Final[dict[str, str]] = {
    "network.port-taken": "another process listens on the port of the peer listener",
    "network.cannot-listen": "the address of the peer listener cannot be used on this machine",
    "network.banned": "the peer broke rules and is kept away for a while",
    "network.busy": "the peer has too many requests under way",
}
# request["peer"] is the name the routes of other rooms know; aiohttp would rather see a key object that all of them import.
warnings.filterwarnings("ignore", category=web.NotAppKeyWarning, module=r"medchain\.network\.listener")
BACKLOG: Final = 128
KEEP_ALIVE_SECONDS: Final = 30
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def open_socket(address: tuple[str, int]) -> socket.socket:
    """Return a listening socket. Raises Rejected with a code of REFUSALS and a sentence that says what to do."""
    host, port = address
    try:
        family, kind, protocol, _, resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Rejected("network.cannot-listen", f"the peer listener's host {host} is not known here: correct it in node.toml") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(resolved)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} of the peer listener is taken: stop the other process, or choose another port in node.toml"
            raise Rejected("network.port-taken", message) from error
        message = f"the peer listener cannot use {host}:{port} ({errno.errorcode.get(error.errno or 0, 'error')}): correct it in node.toml"
        raise Rejected("network.cannot-listen", message) from error
    return listening


class PeerListener:
    """Accepts connections of members only."""

    def __init__(
        self,
        *,
        context: ssl.SSLContext,
        peer_of: Callable[[bytes], bytes | None],
        number_of: Callable[[bytes], int],
        banned_for: Callable[[bytes], float],
        serve: Callable[[web.Request, bytes], Awaitable[web.StreamResponse]],
        routes: Sequence[web.RouteDef],
        limits: NetworkLimits,
        counters: Counters,
        failed: Callable[[Exception], None],
    ) -> None:
        """`peer_of` names the consensus key of a certificate, `serve` handles the WebSocket of a peer, `failed` is told of our own bugs."""
        self._context = context
        self._peer_of = peer_of
        self._number_of = number_of
        self._banned_for = banned_for
        self._serve = serve
        self._limits = limits
        self._counters = counters
        self._failed = failed

        @web.middleware
        async def identify(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._identify(request, handler)

        app = web.Application(middlewares=[identify])
        app.add_routes([web.get(PEER_PATH, self._open_websocket), *routes])
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            shutdown_timeout=limits.close_ms / 1000,
            lingering_time=1.0,
        )
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._unproven: set[asyncio.Task[None]] = set()
        self._unproven_addresses: Counter[str] = Counter()
        self._held: dict[bytes, list[asyncio.Transport]] = {}
        self._requests: Counter[bytes] = Counter()
        self.port = 0

    async def start(self, address: tuple[str, int]) -> None:
        """Begin to listen; `port` is then the port in use. Raises Rejected."""
        self._socket = open_socket(address)
        self.port = int(self._socket.getsockname()[1])
        await self._runner.setup()
        self._accepting = asyncio.create_task(self._accept_forever(self._socket), name="peer listener")

    def stop_accepting(self) -> None:
        """Take no new connections."""
        tasks = [*self._unproven] if self._accepting is None else [self._accepting, *self._unproven]
        for task in tasks:
            task.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def stop(self) -> None:
        """Close everything; open requests get as long as a polite close takes."""
        self.stop_accepting()
        await self._runner.cleanup()
        for transport in self._open_transports():
            transport.abort()
        self._held.clear()

    # ---- connections --------------------------------------------------------------------------------------------------------

    async def _accept_forever(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError as error:
                if listening.fileno() < 0:
                    return
                # Out of descriptors or memory: wait for some to come back instead of spinning.
                self._turn_away(errno.errorcode.get(error.errno or 0, "accept"))
                await asyncio.sleep(0.1)
                continue
            host = str(address[0])
            if len(self._unproven) >= self._limits.unproven_connections_max or len(self._open_transports()) >= self._limits.connections_max:
                accepted.close()
                self._turn_away("too-many-connections")
            elif self._unproven_addresses[host] >= self._limits.unproven_per_address_max:
                accepted.close()
                self._turn_away("too-many-of-address")
            else:
                self._unproven_addresses[host] += 1
                task = asyncio.create_task(self._prove(accepted, host), name="peer TLS")
                self._unproven.add(task)
                task.add_done_callback(self._unproven.discard)

    def _open_transports(self) -> list[asyncio.Transport]:
        return [transport for transports in self._held.values() for transport in transports]

    def _turn_away(self, reason: str) -> None:
        self._counters.increment("network_strangers", label=reason)
        log_event("network.stranger", level="debug", reason=reason)

    async def _prove(self, accepted: socket.socket, host: str) -> None:
        """Do the TLS handshake of one connection and hand it to HTTP, or turn it away."""
        loop = asyncio.get_running_loop()
        factory = self._runner.server
        if factory is None:
            raise InvariantBroken("the peer listener accepts before it is set up")
        try:
            transport, _ = await loop.connect_accepted_socket(
                factory,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=self._limits.handshake_ms / 1000,
                ssl_shutdown_timeout=self._limits.close_ms / 1000,
            )
        except (OSError, TimeoutError) as error:
            accepted.close()
            self._turn_away(tls_reason(error) if isinstance(error, ssl.SSLError) else "handshake-broken")
            return
        except asyncio.CancelledError:
            accepted.close()
            raise
        finally:
            self._unproven_addresses[host] -= 1
            if self._unproven_addresses[host] <= 0:
                del self._unproven_addresses[host]
        certificate = peer_certificate(transport)
        peer = None if certificate is None else self._peer_of(certificate)
        if peer is None:
            transport.abort()
            self._turn_away("certificate-untrusted")
            return
        held = self._held.setdefault(peer, [])
        held[:] = [other for other in held if not other.is_closing()]
        if len(held) >= self._limits.connections_per_peer_max:
            transport.abort()
            self._turn_away("too-many-of-peer")
            return
        held.append(transport)

    # ---- requests -----------------------------------------------------------------------------------------------------------

    async def _identify(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Name the hospital in request["peer"], keep the banned away, bound its requests, and turn errors into answers without detail."""
        certificate = peer_certificate(request.transport)
        peer = None if certificate is None else self._peer_of(certificate)
        if peer is None:
            raise web.HTTPForbidden(text="this listener is for the hospitals of the network only")
        request["peer"] = peer
        seconds = self._banned_for(peer)
        if seconds > 0:
            return refusal_response(403, "network.banned", "you broke rules and are kept away for a while", retry_seconds=int(seconds) + 1)
        if request.path == PEER_PATH:
            return await handler(request)
        if self._requests[peer] >= self._limits.requests_per_peer_max:
            self._counters.increment("network_requests", label="503")
            return refusal_response(503, "network.busy", "too many of your requests are under way: come again", retry_seconds=1)
        self._requests[peer] += 1
        try:
            response = await self._answer(request, handler, peer)
            self._counters.increment("network_requests", label=str(response.status))
            return response
        finally:
            self._requests[peer] -= 1

    async def _answer(self, request: web.Request, handler: Handler, peer: bytes) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            self._counters.increment("network_requests", label=str(error.status))
            raise
        except Malformed as error:
            response = refusal_response(400, error.code, error.message)
        except Rejected as error:
            response = refusal_response(403, error.code, error.message)
        except Unavailable as error:
            response = refusal_response(503, error.code, error.message, retry_seconds=max(1, error.retry_after_ms // 1000))
        except ConnectionError:  # the peer went away; nobody is there to be answered
            response = refusal_response(503, "unavailable", "the connection broke")
        except Exception as error:  # a broken handler must not take agreement down, and its detail is nobody's business
            if isinstance(error, InvariantBroken):
                self._failed(error)
            log_event("network.request.failed", level="error", peer=self._number_of(peer), kind=type(error).__name__)
            response = refusal_response(500, "internal", "the request failed inside the node")
        if request.writer.output_size > 0 and isinstance(request.transport, asyncio.WriteTransport):
            request.transport.abort()  # a second answer amid the first would be taken for a part of it
        return response

    async def _open_websocket(self, request: web.Request) -> web.StreamResponse:
        tune(request.transport)
        return await self._serve(request, request["peer"])


def refusal_response(status: int, code: str, message: str, *, retry_seconds: int | None = None) -> web.Response:
    """Return a JSON answer {code, message} that also names the code in a header."""
    headers = {REFUSAL_HEADER: code}
    if retry_seconds is not None:
        headers["Retry-After"] = str(retry_seconds)
    return web.json_response({"code": code, "message": message}, status=status, headers=headers)
