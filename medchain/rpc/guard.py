"""Who may speak to the listener: programs on this machine, not web pages; so many connections, so many calls a second.

A page in a browser on the same machine reaches loopback too, directly or by DNS rebinding (a name of its own that resolves to 127.0.0.1).
It cannot hide what it is: browsers say `Origin` or `Sec-Fetch-Site`, and a rebound request names a foreign host. This module knows no
method.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable
from typing import Final

from aiohttp import web

from medchain.errors import Rejected

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?")
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


def is_loopback(host: str) -> bool:
    """Answer whether a listening or called host is this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_caller(request: web.BaseRequest, port: int) -> None:
    """Raise Rejected for requests of web pages and for hosts that are not this listener on `port`."""
    if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
        raise Rejected("rpc.web-page", "web pages may not speak to a node: use the command line or a program of your own")
    named = request.headers.getall("Host", [])
    match = _HOST.fullmatch(named[0]) if len(named) == 1 else None
    if match is None or not is_loopback(match[1].lower()) or match[2] not in (None, str(port)):
        raise Rejected("rpc.host", f"call this listener by its own address, http://127.0.0.1:{port}")


class Allowance:
    """A token bucket: so many calls a second, so many at once after a quiet time."""

    __slots__ = ("_burst", "_filled_at", "_per_second", "_tokens")

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._filled_at: float | None = None

    def take(self, now_s: float) -> int:
        """Take one call's token and return 0, or take none and return after how many milliseconds there will be one."""
        if self._filled_at is not None:
            self._tokens = min(self._burst, self._tokens + max(0.0, now_s - self._filled_at) * self._per_second)
        self._filled_at = now_s
        if self._tokens < 1:
            return 1 + int(1000 * (1 - self._tokens) / self._per_second)
        self._tokens -= 1
        return 0


class Door:
    """Counts connections, turns away those beyond the bound, and closes those that never ask anything."""

    def __init__(self, connections_max: int, head_timeout_s: float) -> None:
        self._connections_max = connections_max
        self._head_timeout_s = head_timeout_s
        self._silent: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}
        self.connections = 0

    def protocol(self, inner: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        """Return the protocol of a new connection around the HTTP protocol `inner` makes."""
        return _Connection(self, inner)

    def heard(self, inner: asyncio.BaseProtocol | None) -> None:
        """A whole request head came over this connection; from now on the keep-alive time bounds its silence."""
        timer = self._silent.pop(inner, None) if inner is not None else None
        if timer is not None:
            timer.cancel()

    def enter(self, inner: asyncio.BaseProtocol, transport: asyncio.BaseTransport) -> None:
        """Count a connection and start its clock."""
        self.connections += 1
        self._silent[inner] = asyncio.get_running_loop().call_later(self._head_timeout_s, transport.close)

    def leave(self, inner: asyncio.BaseProtocol) -> None:
        """Forget a connection."""
        self.connections -= 1
        self.heard(inner)

    @property
    def is_full(self) -> bool:
        """Whether no further connection is let in."""
        return self.connections >= self._connections_max


class _Connection(asyncio.Protocol):
    """Stands between the transport and aiohttp's protocol; passes everything on once the door let it in."""

    def __init__(self, door: Door, make_inner: Callable[[], asyncio.Protocol]) -> None:
        self._door = door
        self._make_inner = make_inner
        self._inner: asyncio.Protocol | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._door.is_full:
            if isinstance(transport, asyncio.WriteTransport):
                transport.write(_FULL)
            transport.close()
            return
        self._inner = self._make_inner()
        self._door.enter(self._inner, transport)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        if self._inner is not None:
            inner, self._inner = self._inner, None
            self._door.leave(inner)
            inner.connection_lost(error)
