"""Hospitals far apart: a WebSocket that holds every frame back before it goes out, as a long line would, in order and above TLS.

Each side holds what it sends for half the round-trip time, so both directions have it. Sockets, TLS and their work stay real; what a long
line does to TCP itself (slow start, loss) is not pretended. Knows frames, no message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

import aiohttp

from medchain.errors import InvariantBroken
from medchain.network.connection import Socket

HELD_BYTES_MAX: Final = 64 * 1024 * 1024
"""On the way at once: a gigabit line of 300 ms holds 37 MB. Beyond it the sender feels the line as full."""

_Work = Callable[[], Coroutine[Any, Any, None]]


class DistantSocket:
    """A WebSocket at whose other end everything arrives `delay_ms` later. Make it inside the loop."""

    def __init__(self, socket: Socket, delay_ms: float) -> None:
        self._socket = socket
        self._delay_s = delay_ms / 1_000
        self._loop = asyncio.get_running_loop()
        self._held: deque[tuple[float, int, _Work]] = deque()
        """(when it arrives, its bytes, what sends it), oldest first."""
        self._held_bytes = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._failure: Exception | None = None
        self._carrier = asyncio.create_task(self._carry(), name="distant line")
        self._carrier.add_done_callback(self._ended)

    async def receive(self) -> aiohttp.WSMessage:
        """Return the next frame: the other side has held it back already."""
        return await self._socket.receive()

    async def send_bytes(self, data: bytes) -> None:
        """Send a frame; it leaves later. Raises what an earlier frame met that could not be sent."""
        await self._hold(len(data), lambda: self._socket.send_bytes(data))

    async def pong(self, message: bytes = b"") -> None:
        """Send a pong; it leaves later. Raises like `send_bytes`."""
        await self._hold(len(message), lambda: self._socket.pong(message))

    async def close(self, *, code: int) -> bool:
        """Close when everything held has left; whoever cancels this closes at once."""
        try:
            while self._held and not self._carrier.done():
                self._room.clear()
                await self._room.wait()
        finally:
            self._carrier.cancel()
        return await self._socket.close(code=code)

    async def _hold(self, size: int, send: _Work) -> None:
        while self._held_bytes > HELD_BYTES_MAX and self._failure is None:
            self._room.clear()
            await self._room.wait()
        if self._failure is not None:
            raise self._failure
        self._held.append((self._loop.time() + self._delay_s, size, send))
        self._held_bytes += size
        self._changed.set()

    async def _carry(self) -> None:
        while True:
            while not self._held:
                self._changed.clear()
                await self._changed.wait()
            due, size, send = self._held[0]
            pause = due - self._loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
            try:
                await send()
            finally:
                self._held.popleft()
                self._held_bytes -= size
                self._room.set()

    def _ended(self, carrier: asyncio.Task[None]) -> None:
        """Remember why nothing goes out any more, and let nobody wait for it."""
        error = None if carrier.cancelled() else carrier.exception()
        broken = OSError("the line is closed") if error is None else error
        self._failure = broken if isinstance(broken, Exception) else InvariantBroken("a distant line ended without a reason")
        self._room.set()
