"""When blocks are decided, as seen at one hospital's RPC listener: a thread asks for the head a hundred times a second.

A hundred questions cost the node some four percent of a processor and bound the error of every time to ten milliseconds. Knows heights and
moments, no fault.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Final, Self

from medchain.bench.network import Line, Network

INTERVAL_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Seen:
    """A height that was first seen at a monotonic moment."""

    moment: float
    height: int


class Watch:
    """Watches one hospital of a network; `follow` another before that one is broken. A context manager."""

    def __init__(self, network: Network, name: str) -> None:
        self._network = network
        self._name = name
        self._seen: list[Seen] = []
        self._changed = threading.Condition()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_stopping.set()
        self._thread.join()

    @property
    def name(self) -> str:
        """The hospital that is watched."""
        return self._name

    def follow(self, name: str) -> None:
        """Watch another hospital from now on."""
        self._name = name

    @property
    def height(self) -> int:
        """The newest height seen, -1 before the first."""
        with self._changed:
            return self._seen[-1].height if self._seen else -1

    def wait_height(self, height: int, timeout_s: float) -> bool:
        """Wait until a height was seen; return whether it was in time."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._seen or self._seen[-1].height < height:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def wait_until(self, moment: float) -> None:
        """Return at a monotonic moment; meanwhile the watch goes on."""
        self._is_stopping.wait(max(0.0, moment - time.monotonic()))

    def longest_pause_ms(self, begin: float, end: float) -> float:
        """Return the longest time without a new block that overlaps the span: what a client would have waited at worst.

        A pause that had begun before the span counts from the span's beginning; one that has not ended counts to the span's end.
        """
        with self._changed:
            moments = [seen.moment for seen in self._seen if begin < seen.moment <= end]
        edges = [begin, *moments, end]
        return max(later - earlier for earlier, later in pairwise(edges)) * 1_000

    def _run(self) -> None:
        line, watched = Line(self._network.seat(self._name).rpc_port), self._name
        while not self._is_stopping.is_set():
            asked = time.monotonic()
            if watched != self._name:
                line.close()
                line, watched = Line(self._network.seat(self._name).rpc_port), self._name
            head = line.ask("chain.head")
            if head is not None:
                self._note(int(head["height"]))
            self._is_stopping.wait(max(0.0, asked + INTERVAL_SECONDS - time.monotonic()))
        line.close()

    def _note(self, height: int) -> None:
        with self._changed:
            if not self._seen or height > self._seen[-1].height:
                self._seen.append(Seen(time.monotonic(), height))
                self._changed.notify_all()
