"""Lines between hospitals that can be cut: a TCP relay for each directed pair, between the node that dials and the listener it means.

Works without root, because nodes are told to dial the relay (`peers.dial`); TLS goes through it untouched, so a relay can hold bytes back
or end a connection, but change nothing. Knows no message. Runs in a thread with a loop of its own; every public method may be called from
any other thread and returns when it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import threading
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from medchain.errors import Unavailable
from medchain.testnet.plan import HOST

Result = TypeVar("Result")
Way = tuple[str, str]
"""(who speaks or dials, who listens)."""

CHUNK_BYTES: Final = 64 * 1024
CHUNKS_MAX: Final = 64
"""Held back in one direction of one connection: 4 MiB, then the sender feels it as on a slow line."""
ANSWER_SECONDS: Final = 10.0
PORTS: Final = range(12_000, 20_000)
"""Below what systems give to outgoing connections, so that a port stays ours while its listener is closed; testnets are above."""
PORT_TRIES: Final = 1_000


@dataclass(slots=True)
class _Flow:
    """What one direction of a relay does with bytes."""

    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    delay_ms: int = 0


class _Relay:
    """One directed pair: who dials `port` reaches `target`. Belongs to the loop's thread."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.port = 0
        self.forth = _Flow()
        self.back = _Flow()
        self._target = target
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.carry()

    async def open(self) -> None:
        """Listen, on the same port as before when there was one. Raises Unavailable when no port is free."""
        if self._server is not None:
            return
        tries = [self.port] if self.port else random.SystemRandom().sample(PORTS, PORT_TRIES)
        for port in tries:
            try:
                self._server = await asyncio.start_server(self._serve, HOST, port, limit=CHUNK_BYTES)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            self.port = port
            return
        raise Unavailable("no port is free for a relay: end other networks on this machine")

    async def refuse(self) -> None:
        """Close the listener and end every connection: the next dial is refused by the system."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self.cut()

    async def cut(self) -> None:
        """End every connection, without a goodbye."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def carry(self) -> None:
        """Carry everything at once, in both directions."""
        for flow in (self.forth, self.back):
            flow.delay_ms = 0
            flow.is_open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target, limit=CHUNK_BYTES)
            writers.append(far_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, far_writer, self.forth))
                both.create_task(_pump(far_reader, writer, self.back))
        except (OSError, ExceptionGroup):
            pass  # one end is gone: the other learns it below, as it would from the system
        except asyncio.CancelledError:
            pass  # cut: asyncio's server would report the cancelled handler as a fault
        finally:
            for end in writers:
                end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: _Flow) -> None:
    """Carry one direction until its end, each chunk not before its delay and not while the flow is held."""
    loop = asyncio.get_running_loop()
    held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_MAX)

    async def take() -> None:
        while True:
            chunk = await reader.read(CHUNK_BYTES)
            await held.put((loop.time() + flow.delay_ms / 1_000, chunk))
            if not chunk:
                return

    async def give() -> None:
        while True:
            due, chunk = await held.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            await flow.is_open.wait()
            if not chunk:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()

    async with asyncio.TaskGroup() as ends:
        ends.create_task(take())
        ends.create_task(give())


class Relays:
    """The lines between all hospitals of a network. A context manager."""

    def __init__(self, listeners: Mapping[str, tuple[str, int]]) -> None:
        """`listeners`: name of each hospital → (host, port) of its peer listener."""
        self._listeners = dict(listeners)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relays", daemon=True)
        self._relays: dict[Way, _Relay] = {}

    def __enter__(self) -> Relays:
        self._thread.start()
        try:
            self._do(self._open())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._refuse(self.ways()))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    def ways(self) -> list[Way]:
        """Return every directed pair."""
        return [(one, other) for one in self._listeners for other in self._listeners if one != other]

    def between(self, side: Iterable[str], rest: Iterable[str] | None = None) -> list[Way]:
        """Return the directed pairs that join a side to `rest` (everybody else by default), both ways."""
        near = set(side)
        far = set(self._listeners) - near if rest is None else set(rest)
        return [(one, other) for one, other in self.ways() if (one in near and other in far) or (one in far and other in near)]

    def dialled_by(self, name: str) -> str:
        """Return what the setting `peers.dial` of a hospital must be for its connections to go through here."""
        return ", ".join(f"{other} = {HOST}:{relay.port}" for (one, other), relay in self._relays.items() if one == name)

    def address(self, way: Way) -> tuple[str, int]:
        """Return where the relay of a directed pair listens."""
        return HOST, self._relays[way].port

    # ---- what can be done to lines ---------------------------------------------------------------------------------------------

    def cut(self, ways: Iterable[Way]) -> None:
        """End the connections that were dialled these ways; new ones are carried."""
        self._do(self._cut(list(ways)))

    def refuse(self, ways: Iterable[Way]) -> None:
        """End the connections and refuse new ones, as a host that is down does."""
        self._do(self._refuse(list(ways)))

    def hold(self, ways: Iterable[Way]) -> None:
        """Carry no more bytes from the first to the second of each pair, whoever dialled; new connections are taken and carry nothing."""
        self._do(self._hold(list(ways)))

    def delay(self, ways: Iterable[Way], delay_ms: int) -> None:
        """Carry bytes from the first to the second of each pair so much later."""
        self._do(self._delay(list(ways), delay_ms))

    def heal(self) -> None:
        """Carry everything again. What was held comes through; what was cut is dialled anew by the nodes."""
        self._do(self._open())

    # ---- in the loop -----------------------------------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_SECONDS)

    async def _open(self) -> None:
        for way in self.ways():
            relay = self._relays.get(way)
            if relay is None:
                relay = self._relays[way] = _Relay(self._listeners[way[1]])
            await relay.open()
            relay.carry()

    async def _cut(self, ways: list[Way]) -> None:
        await asyncio.gather(*(self._relays[way].cut() for way in ways))

    async def _refuse(self, ways: list[Way]) -> None:
        await asyncio.gather(*(self._relays[way].refuse() for way in ways if way in self._relays))

    async def _hold(self, ways: list[Way]) -> None:
        for flow in self._flows(ways):
            flow.is_open.clear()

    async def _delay(self, ways: list[Way], delay_ms: int) -> None:
        for flow in self._flows(ways):
            flow.delay_ms = delay_ms

    def _flows(self, ways: list[Way]) -> list[_Flow]:
        """Return both flows in which the first of a pair speaks to the second: on the connection it dialled, and on the other's."""
        return [flow for one, other in ways for flow in (self._relays[one, other].forth, self._relays[other, one].back)]
