"""A distant line delays every frame by exactly its delay and keeps their order. Time is the loop's own and jumps from timer to timer."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from medchain.bench import distance
from medchain.bench.distance import DistantSocket

DELAY_MS = 75


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop that does not wait: when nothing is ready, its clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._moment = 1_000.0
        waiting = self._selector.select

        def select(timeout=None):
            if timeout:
                self._moment += timeout
            return waiting(0 if timeout is not None else 1)

        self._selector.select = select

    def time(self) -> float:
        return self._moment


class Wire:
    """The WebSocket below: notes what was sent and when."""

    def __init__(self, breaks_at: bytes | None = None) -> None:
        self.sent: list[tuple[float, str, bytes]] = []
        self.closed: int | None = None
        self._breaks_at = breaks_at

    def _note(self, what: str, data: bytes) -> None:
        if data == self._breaks_at:
            raise ConnectionResetError("the line is gone")
        self.sent.append((round(asyncio.get_running_loop().time() - 1_000.0, 6), what, data))

    async def send_bytes(self, data: bytes) -> None:
        self._note("frame", data)

    async def pong(self, message: bytes = b"") -> None:
        self._note("pong", message)

    async def receive(self):
        return "what came"

    async def close(self, *, code: int) -> bool:
        self.closed = code
        return True


def play(story) -> None:
    loop = JumpingLoop()
    try:
        loop.run_until_complete(story)
    finally:
        loop.close()


def test_frames_arrive_in_order_each_after_its_own_delay():
    async def story():
        wire = Wire()
        line = DistantSocket(wire, DELAY_MS)
        await line.send_bytes(b"one")
        await line.send_bytes(b"two")
        await asyncio.sleep(0.05)
        await line.pong(b"sign")
        await line.send_bytes(b"three")
        assert wire.sent == []
        await asyncio.sleep(1)
        assert wire.sent == [
            (0.075, "frame", b"one"), (0.075, "frame", b"two"), (0.125, "pong", b"sign"), (0.125, "frame", b"three"),
        ]  # fmt: skip
        await line.close(code=1000)

    play(story())


def test_a_line_without_delay_holds_nothing():
    async def story():
        wire = Wire()
        line = DistantSocket(wire, 0)
        await line.send_bytes(b"one")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert wire.sent == [(0.0, "frame", b"one")]
        await line.close(code=1000)

    play(story())


def test_close_lets_what_is_on_its_way_arrive_first():
    async def story():
        wire = Wire()
        line = DistantSocket(wire, DELAY_MS)
        await line.send_bytes(b"the reason")
        assert await line.close(code=1001)
        assert wire.sent == [(0.075, "frame", b"the reason")] and wire.closed == 1001

    play(story())


def test_a_close_that_is_given_up_leaves_no_task_behind():
    async def story():
        wire = Wire()
        line = DistantSocket(wire, 3_600_000)
        await line.send_bytes(b"late")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                await line.close(code=1001)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()} and wire.sent == []

    play(story())


def test_a_broken_line_is_told_to_the_next_who_sends():
    async def story():
        line = DistantSocket(Wire(breaks_at=b"one"), DELAY_MS)
        await line.send_bytes(b"one")
        await asyncio.sleep(1)
        with pytest.raises(ConnectionResetError):
            await line.send_bytes(b"two")

    play(story())


def test_a_full_line_lets_the_sender_wait(monkeypatch):
    monkeypatch.setattr(distance, "HELD_BYTES_MAX", 2)

    async def story():
        wire = Wire()
        line = DistantSocket(wire, DELAY_MS)
        await line.send_bytes(b"long")
        await line.send_bytes(b"next")
        assert round(asyncio.get_running_loop().time() - 1_000.0, 6) == 0.075
        assert wire.sent == [(0.075, "frame", b"long")]
        await line.close(code=1000)

    play(story())


def test_receiving_is_not_delayed_twice():
    async def story():
        line = DistantSocket(Wire(), DELAY_MS)
        assert await line.receive() == "what came"
        await line.close(code=1000)

    play(story())
