"""One WebSocket to one hospital after its handshake: reads, writes, gives signs of life, and ends with a reason.

Reading stops while the peer is over its allowance or the node has no room: TCP then holds the peer back. Writing takes frames from the
outbox whenever the socket takes them, so a vote queued now overtakes what is still queued. Knows one peer and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiohttp

from medchain.errors import Malformed
from medchain.network.framing import Assembler
from medchain.network.limits import PART_BYTES, NetworkLimits
from medchain.network.outbox import Outbox
from medchain.network.standing import TokenBucket
from medchain.telemetry import Counters, log_event
from medchain.wire.peer import PeerMessage, decode_message


class Socket(Protocol):
    """What a connection needs of a WebSocket: aiohttp's of either side, or a drill's around one."""

    async def receive(self) -> aiohttp.WSMessage:
        """Return the next frame, or what ended the connection."""
        ...

    async def send_bytes(self, data: bytes) -> None:
        """Send a frame, waiting while the line takes none. Raises OSError, RuntimeError or aiohttp.ClientError when it is gone."""
        ...

    async def pong(self, message: bytes = b"") -> None:
        """Send a pong; raises like `send_bytes`."""
        ...

    async def close(self, *, code: int) -> bool:
        """Say goodbye and close."""
        ...


Line = Callable[[Socket], Socket]
Tap = Callable[[str, bytes, bytes], None]
"""Called with the direction (`in` or `out`), the peer's consensus key and a frame as it is before TLS."""

WRITE_BUFFER_BYTES: Final = 128 * 1024
"""How much may wait below the outbox, in our process and again in the kernel: what is there can no longer be overtaken."""
YIELD_AFTER_FRAMES: Final = 32
"""Frames read before others get a turn, when they come without a pause."""
PAUSE_SECONDS_MIN: Final = 0.01
"""Shorter pauses are not worth a timer; the allowance remembers them."""


@dataclass(slots=True)
class Hooks:
    """What a connection tells its owner."""

    received: Callable[[bytes, PeerMessage], None]
    accuse: Callable[[bytes, str, float, str], None]
    """Peer, kind of offence (standing.POINTS), how often, sentence."""
    room: Callable[[], Awaitable[None]] | None
    """Waits while the node has no room for more events."""
    tap: Tap | None


def tune(transport: asyncio.BaseTransport | None) -> None:
    """Keep little below the outbox, so that consensus can overtake, and send small frames at once."""
    if not isinstance(transport, asyncio.WriteTransport):
        return
    transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
    connected = transport.get_extra_info("socket")
    if connected is None:
        return
    with contextlib.suppress(OSError):  # not every platform knows these; they only make it faster
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, WRITE_BUFFER_BYTES)


class Connection:
    """Runs until either side ends it. All methods belong to the loop's thread and none of the public ones waits, but `run`."""

    def __init__(
        self,
        *,
        peer: bytes,
        number: int,
        is_dialled_by_smaller: bool,
        ws: Socket,
        transport: asyncio.BaseTransport | None,
        limits: NetworkLimits,
        counters: Counters,
        hooks: Hooks,
    ) -> None:
        self.peer = peer
        self.number = number
        self.is_dialled_by_smaller = is_dialled_by_smaller
        self.is_registered = False
        """While true, what arrives is delivered; the owner's mark."""
        self._ws = ws
        self._transport = transport
        self._limits = limits
        self._counters = counters
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self.since = now
        self._outbox = Outbox(limits.consensus_lane, limits.gossip_lane, limits.query_lane)
        self._bytes_allowance = TokenBucket(limits.receive_bytes_per_second, limits.receive_bytes_burst, now)
        self._messages_allowance = TokenBucket(limits.receive_messages_per_second, limits.receive_messages_burst, now)
        self._heard = now
        self._said = now
        self._is_holding_back = False
        self._is_throttled = False
        self._flooded_seconds = 0.0
        self._wake = asyncio.Event()
        self._pong: bytes | None = None
        """A sign of life or an answer to a ping, to be sent by the writer: two who wait for one socket trip over each other in aiohttp."""
        self._end: asyncio.Future[str] = self._loop.create_future()

    @property
    def bytes_waiting(self) -> int:
        """Bytes in the outbox."""
        return self._outbox.bytes_waiting

    @property
    def messages_waiting(self) -> int:
        """Messages in the outbox."""
        return len(self._outbox)

    def send(self, lane: int, message: bytes) -> None:
        """Queue an encoded message. When the consensus lane is full the connection closes: on reconnecting all that matters is resent."""
        if self._end.done():
            self._counters.increment("network_drops", label="closing")
            return
        if not self._outbox.put(lane, message):
            self._counters.increment("network_overflows")
            self._counters.increment("network_drops", len(self._outbox) + 1, label="consensus-overflow")
            log_event("network.overflow", level="warning", peer=self.number, bytes=self._outbox.bytes_waiting)
            self.close("consensus-overflow")
            return
        self._wake.set()

    def close(self, reason: str) -> None:
        """End the connection; `run` returns soon. The first reason counts."""
        if not self._end.done():
            self._end.set_result(reason)

    async def run(self) -> str:
        """Serve the connection until it ends; return why, as a stable word. What `received` raises is raised here: that is our own bug."""
        tasks = [asyncio.create_task(work) for work in (self._read(), self._write(), self._beat())]
        waiting: list[asyncio.Future[Any]] = [*tasks, self._end]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.close("ended")
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self.shut(self._ws, self._transport, self._limits.close_ms / 1000)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return self._end.result()

    @staticmethod
    async def shut(ws: Socket, transport: asyncio.BaseTransport | None, seconds: float) -> None:
        """Close politely, and after `seconds` without courtesy: a frozen peer must not hold our resources."""
        # In a task of its own: a writer that was cancelled while it waited for the socket leaves a cancelled future behind in aiohttp, on
        # which the polite close then stumbles as if it were cancelled itself.
        closing = asyncio.ensure_future(ws.close(code=aiohttp.WSCloseCode.GOING_AWAY))
        try:
            await asyncio.wait([closing], timeout=seconds)
        finally:
            closing.cancel()
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
        await asyncio.gather(closing, return_exceptions=True)  # whatever went wrong, the connection is closed now

    # ---- reading ------------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        assembler = Assembler()
        frames = 0
        while not self._end.done():
            frame = await self._ws.receive()
            self._heard = self._loop.time()
            match frame.type:
                case aiohttp.WSMsgType.BINARY:
                    await self._take(frame.data, assembler)
                case aiohttp.WSMsgType.PONG:  # the sign of life (RFC 6455, section 5.5.3)
                    await self._allow(0, 1)
                case aiohttp.WSMsgType.PING:
                    self._pong = frame.data  # only the newest needs its answer
                    self._wake.set()
                    await self._allow(0, 1)
                case aiohttp.WSMsgType.TEXT:
                    self._offend("malformed", "a peer sent text where only binary frames are allowed")
                case aiohttp.WSMsgType.ERROR if isinstance(frame.data, aiohttp.WebSocketError):
                    is_oversized = frame.data.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
                    self._offend("oversized" if is_oversized else "malformed", "a peer broke the rules of WebSocket frames")
                case aiohttp.WSMsgType.CLOSE | aiohttp.WSMsgType.CLOSING | aiohttp.WSMsgType.CLOSED:
                    self.close("closed-by-peer")
                case _:
                    self.close("lost")
            frames += 1
            if frames % YIELD_AFTER_FRAMES == 0:
                await asyncio.sleep(0)

    def _offend(self, kind: str, sentence: str) -> None:
        self._hooks.accuse(self.peer, kind, 1, sentence)
        self.close(kind)

    async def _take(self, frame: bytes, assembler: Assembler) -> None:
        """Read one frame: deliver its messages, then pause for as long as the peer exceeded its allowance."""
        self._counters.increment("network_frames_received")
        self._counters.increment("network_bytes_received", len(frame))
        if self._hooks.tap is not None:
            self._hooks.tap("in", self.peer, frame)
        try:
            encoded = assembler.feed(frame)
            for data in encoded:
                if len(data) <= PART_BYTES:
                    message = decode_message(data)
                else:  # tens of milliseconds of work; the loop stays free for votes of others meanwhile
                    message = await asyncio.to_thread(decode_message, data)
                if not self.is_registered:
                    return
                self._counters.increment("network_messages_received", label=type(message).__name__)
                self._hooks.received(self.peer, message)
        except Malformed as error:
            self._offend("malformed", error.message)
            return
        await self._allow(len(frame), max(1, len(encoded)))

    async def _allow(self, size: int, count: int) -> None:
        """Pause while the peer is over its allowance or the node has no room."""
        now = self._loop.time()
        by_bytes = self._bytes_allowance.take(size, now)
        by_count = self._messages_allowance.take(count, now)
        pause = max(by_bytes, by_count)
        if pause < PAUSE_SECONDS_MIN and self._hooks.room is None:
            self._is_throttled = False
            return
        self._is_holding_back = True  # what the peer says meanwhile is not heard, so its silence means nothing
        try:
            if pause < PAUSE_SECONDS_MIN:
                self._is_throttled = False
            else:
                self._throttle(by_bytes, by_count)
                await asyncio.sleep(pause)
            if self._hooks.room is not None:
                await self._hooks.room()
        finally:
            self._heard = self._loop.time()
            self._is_holding_back = False

    def _throttle(self, by_bytes: float, by_count: float) -> None:
        reason = "bytes" if by_bytes >= by_count else "messages"
        if not self._is_throttled:
            log_event("network.throttled", peer=self.number, reason=reason)
        self._is_throttled = True
        self._counters.increment("network_throttles", label=reason)
        self._flooded_seconds += by_count  # a swarm of messages is never asked for; many bytes may be the blocks we wanted
        if self._flooded_seconds >= 1:
            seconds, self._flooded_seconds = self._flooded_seconds, 0.0
            self._hooks.accuse(self.peer, "flooding", seconds, "a peer sends more messages than any honest one has to say")

    # ---- writing ------------------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._report_drops()
                if self._pong is not None:
                    pong, self._pong = self._pong, None
                    await self._ws.pong(pong)
                    self._said = self._loop.time()
                while (frame := self._outbox.take()) is not None:
                    if self._hooks.tap is not None:
                        self._hooks.tap("out", self.peer, frame)
                    await self._ws.send_bytes(frame)
                    self._said = self._loop.time()
                    self._counters.increment("network_frames_sent")
                    self._counters.increment("network_bytes_sent", len(frame))
        except (OSError, RuntimeError, aiohttp.ClientError):
            self.close("lost")

    def _report_drops(self) -> None:
        for reason, count in self._outbox.take_drops().items():
            self._counters.increment("network_drops", count, label=reason)
            log_event("network.dropped", peer=self.number, reason=reason, count=count)

    async def _beat(self) -> None:
        """Say something at least every heartbeat, and end the connection when the peer does not.

        Each side speaks up by itself, so nobody has to answer. After a pause of our own process (a long turn, a suspended machine) the
        peer's signs may still lie unread, so it gets its time again.
        """
        interval = self._limits.heartbeat_ms / 1000
        while True:
            before = self._loop.time()
            await asyncio.sleep(interval / 2)
            now = self._loop.time()
            self._report_drops()
            if now - before > interval:
                self._heard = now
            if not self._is_holding_back and now - self._heard > self._limits.silence_max_ms / 1000:
                log_event("network.frozen", level="warning", peer=self.number, milliseconds=int((now - self._heard) * 1000))
                self.close("frozen")
                return
            if now - self._said >= interval:
                self._pong = b""
                self._wake.set()
