"""Reaching other hospitals: pinned TLS clients for the WebSocket and for bulk transfers.

A connector belongs to one hospital and gives out a connection only after the other end has shown exactly that hospital's certificate, so
not even a request line goes to anybody else. Knows addresses and certificates, no handshake and no messages.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from aiohttp.client import ClientTimeout
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection as PooledConnection
from aiohttp.tracing import Trace

from medchain.errors import InvariantBroken, Unavailable
from medchain.network.connection import tune
from medchain.network.limits import SOCKET_FRAME_BYTES_MAX, NetworkLimits
from medchain.network.tls import Credentials, peer_certificate, tls_reason

PEER_PATH: Final = "/peer"
REFUSAL_HEADER: Final = "Medchain-Refusal"
DNS_SECONDS: Final = 10


class PinnedConnector(aiohttp.TCPConnector):
    """A connection pool to one hospital."""

    def __init__(self, context: ssl.SSLContext, certificate: bytes, connections_max: int, *, is_for_messages: bool) -> None:
        super().__init__(ssl=context, limit=connections_max, ttl_dns_cache=DNS_SECONDS)
        self._certificate = certificate
        self._is_for_messages = is_for_messages
        self.last: PooledConnection | None = None

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> PooledConnection:
        """Return a connection whose other end is the hospital, byte for byte. Raises aiohttp.ClientConnectionError otherwise."""
        connection = await super().connect(req, traces, timeout)
        if peer_certificate(connection.transport) != self._certificate:
            connection.close()
            raise aiohttp.ClientConnectionError("the other end showed another certificate than the hospital's")
        if self._is_for_messages:
            tune(connection.transport)
            self.last = connection
        return connection


@dataclass(frozen=True, slots=True)
class Dialled:
    """An open WebSocket that we dialled."""

    ws: aiohttp.ClientWebSocketResponse
    pooled: PooledConnection
    """Must be closed at the end: aiohttp forgets to when the line broke, and the next dial would wait for it."""

    @property
    def transport(self) -> asyncio.BaseTransport | None:
        """The transport, None once it is gone."""
        return self.pooled.transport


class PeerClient:
    """How to reach one hospital."""

    def __init__(self, certificate: bytes, endpoints: Callable[[], Sequence[str]], credentials: Credentials, limits: NetworkLimits) -> None:
        """`endpoints` returns `host:port` texts; it is asked each time, for they may change."""
        self._certificate = certificate
        self._endpoints = endpoints
        self._credentials = credentials
        self._limits = limits
        self._opening = asyncio.Lock()
        self._messages: tuple[aiohttp.ClientSession, PinnedConnector] | None = None
        self._bulk: aiohttp.ClientSession | None = None
        self._next = 0

    @property
    def endpoint(self) -> str:
        """The endpoint to try now; "none" when the hospital has none."""
        endpoints = self._endpoints()
        return endpoints[self._next % len(endpoints)] if endpoints else "none"

    def turn(self) -> None:
        """Try the hospital's next endpoint from now on."""
        self._next += 1

    async def _open_sessions(self) -> tuple[aiohttp.ClientSession, PinnedConnector, aiohttp.ClientSession]:
        async with self._opening:
            if self._messages is None or self._bulk is None:
                # Opening the key takes milliseconds by design (its passphrase is stretched), so it happens beside the loop.
                context = await asyncio.to_thread(self._credentials.client_context, self._certificate)
                limits = self._limits
                connector = PinnedConnector(context, self._certificate, 2, is_for_messages=True)
                self._messages = (self._session(connector, ClientTimeout(total=None)), connector)
                patience = ClientTimeout(
                    total=None,
                    connect=limits.bulk_connect_ms / 1000,
                    sock_connect=limits.bulk_connect_ms / 1000,
                    sock_read=limits.bulk_silence_ms / 1000,
                )
                pool = PinnedConnector(context, self._certificate, limits.bulk_connections_per_peer, is_for_messages=False)
                self._bulk = self._session(pool, patience)
            return *self._messages, self._bulk

    @staticmethod
    def _session(connector: PinnedConnector, timeout: ClientTimeout) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
        )

    async def dial(self) -> Dialled:
        """Open the WebSocket. Raises Unavailable whose message is a stable word (see `dial_reason`)."""
        if not self._endpoints():
            raise Unavailable("no-endpoint")
        session, connector, _ = await self._open_sessions()
        try:
            async with asyncio.timeout(self._limits.handshake_ms / 1000):
                ws = await session.ws_connect(
                    f"https://{self.endpoint}{PEER_PATH}",
                    max_msg_size=SOCKET_FRAME_BYTES_MAX,
                    autoping=False,
                    timeout=aiohttp.ClientWSTimeout(ws_close=self._limits.close_ms / 1000),
                )
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            raise Unavailable(dial_reason(error)) from error
        if connector.last is None:
            raise InvariantBroken("a WebSocket was opened without a connection")
        return Dialled(ws, connector.last)

    async def request(self, method: str, path: str, *, data: Any, headers: Mapping[str, str] | None) -> aiohttp.ClientResponse:
        """Send one bulk request, to the next endpoint when one cannot be reached. Raises Unavailable."""
        _, _, session = await self._open_sessions()
        reason = "no-endpoint"
        for _ in self._endpoints():
            try:
                return await session.request(
                    method,
                    f"https://{self.endpoint}{path}",
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                    skip_auto_headers=("Accept",),
                )
            except aiohttp.ClientConnectorError as error:  # nothing was sent yet
                reason = dial_reason(error)
                self.turn()
            except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
                raise Unavailable(f"the hospital did not answer ({dial_reason(error)}): try again", 1_000) from error
        raise Unavailable(f"the hospital cannot be reached ({reason}): try again", 1_000)

    async def close(self) -> None:
        """Close all connections."""
        async with self._opening:
            if self._messages is not None:
                await self._messages[0].close()
            if self._bulk is not None:
                await self._bulk.close()


def dial_reason(error: BaseException) -> str:
    """Return a stable word for why a hospital could not be reached."""
    if isinstance(error, aiohttp.WSServerHandshakeError):
        code = error.headers.get(REFUSAL_HEADER) if error.headers is not None else None
        return code if code is not None and len(code) <= 64 else f"http-{error.status}"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return tls_reason(error.certificate_error)
    if isinstance(error, aiohttp.InvalidURL | ValueError) and not isinstance(error, ssl.SSLError):
        return "bad-endpoint"
    return tls_reason(error)
