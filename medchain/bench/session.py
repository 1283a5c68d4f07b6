"""One measurement: a network, its load and a watch on it, and the questions every fault is asked. Knows no fault."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from medchain.bench.load import Shape
from medchain.bench.network import AGREE_SECONDS, Network
from medchain.bench.watch import Watch
from medchain.bench.worker import Checked, Worker
from medchain.errors import InvariantBroken, Unavailable

WARM_HEIGHTS: Final = 10
"""Decided before anything is measured: connections are up, caches are warm."""
FULL_HEIGHTS: Final = 4
"""The same where blocks are as large as they get, and so rare."""
PAUSE_SECONDS: Final = 0.5
"""Between two looks at the whole chain."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What the network did in a span."""

    per_second: float
    """Transactions whose decision the load learned in the span, a second."""
    cpu_us: float
    """Processor time of all running nodes, a transaction and node, in microseconds; 0 when nothing was decided."""
    latency_p50_ms: float
    latency_p99_ms: float
    longest_pause_ms: float
    """Longest time without a new block."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` (0..1) of the values do not exceed (nearest rank); NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


class Session(AbstractContextManager["Session"]):
    """A running network under load. On leaving, everything is stopped."""

    def __init__(self, network: Network, shape: Shape, *, left_out: Iterable[str] = (), is_watched: bool = True) -> None:
        """`left_out`: hospitals that the load does not use. `is_watched`: see when blocks are decided, for some processor time of one."""
        self.network = network
        self._is_watched = is_watched
        self._shape = shape
        self._left_out = tuple(left_out)
        self._stack = ExitStack()
        self._worker: Worker | None = None
        self._watch: Watch | None = None

    def __enter__(self) -> Self:
        try:
            network = self._stack.enter_context(self.network)
            network.start()
            network.wait_ready()
            self._worker = self._stack.enter_context(Worker(network, self._shape, left_out=self._left_out))
            height = network.highest()
            if self._is_watched:
                self._watch = self._stack.enter_context(Watch(network, network.names[0]))
                self.watch.wait_height(height + WARM_HEIGHTS, AGREE_SECONDS)
            else:
                network.wait_height(network.names, height + FULL_HEIGHTS)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    @property
    def watch(self) -> Watch:
        """The watch on one hospital."""
        if self._watch is None:
            raise InvariantBroken("a measurement was used outside its context, or is not watched")
        return self._watch

    @property
    def worker(self) -> Worker:
        """The load."""
        if self._worker is None:
            raise InvariantBroken("a measurement was used outside its context")
        return self._worker

    def rate_for(self, seconds: float) -> Rate:
        """Let the network work for so long and return what it did."""
        self.worker.report()
        alive = [name for name in self.network.names if self.network.testnet.process_of(name) is not None]
        if not alive:
            raise Unavailable(f"no hospital runs any more: see node.out in the folders of {self.network.testnet.plan.folder}")
        cpu, begin = self.network.cpu_seconds(alive), time.monotonic()
        self.watch.wait_until(begin + seconds)
        end = time.monotonic()
        cpu = self.network.cpu_seconds(alive) - cpu
        return self.rate_between(begin, end, cpu / len(alive))

    def rate_between(self, begin: float, end: float, cpu_seconds_each: float = 0.0) -> Rate:
        """Return what the network did between two monotonic moments of the past."""
        done = [batch for batch in self.worker.report() if begin < batch.decided <= end]
        count = sum(batch.transactions for batch in done)
        latencies = [batch.latency_ms for batch in done]
        return Rate(
            per_second=count / (end - begin),
            cpu_us=cpu_seconds_each * 1e6 / count if count else 0.0,
            latency_p50_ms=percentile(latencies, 0.5),
            latency_p99_ms=percentile(latencies, 0.99),
            longest_pause_ms=self.watch.longest_pause_ms(begin, end),
        )

    def pause_since(self, moment: float, blocks: int) -> float:
        """Return the longest time without a new block from `moment` until so many more were decided, in milliseconds.

        Raises Unavailable when they are not decided within a minute.
        """
        height = self.watch.height
        if not self.watch.wait_height(height + blocks, AGREE_SECONDS):
            raise Unavailable(f"no {blocks} blocks within {AGREE_SECONDS:.0f} s after height {height}")
        return self.watch.longest_pause_ms(moment, time.monotonic())

    def equal_since(self, moment: float) -> float:
        """Return how long after `moment` every hospital had the same new block, in milliseconds.

        New = above everything decided when this is asked: so agreement goes on, and everybody has caught up with it. Raises Unavailable
        when they do not get there within a minute, InvariantBroken when they have different blocks.
        """
        names = self.network.names
        height = self.network.highest() + 1
        if not self.network.wait_height(names, height):
            heights = {name: self.network.height(name) for name in names}
            raise Unavailable(f"not all at height {height} within {AGREE_SECONDS:.0f} s: {heights}")
        took = (time.monotonic() - moment) * 1_000
        if not self.network.is_same_block(names, height):
            raise InvariantBroken(f"hospitals decided different blocks at height {height}")
        return took

    def finish(self) -> Checked:
        """Stop the load, let everything be decided and compare it with the chain. Raises Unavailable, InvariantBroken.

        What the nodes go on with by themselves (custodians confirm the custody of what the load registered) is not waited for.
        """
        self.worker.stop()
        network, deadline = self.network, time.monotonic() + AGREE_SECONDS
        height = network.highest()
        if not network.wait_height(network.names, height):
            raise Unavailable(f"not all hospitals are at height {height} within {AGREE_SECONDS:.0f} s")
        if not network.is_same_block(network.names, height):
            raise InvariantBroken(f"hospitals decided different blocks at height {height}")
        url = network.seat(network.names[0]).rpc_url
        while (checked := self.worker.check(url)).lost and time.monotonic() < deadline:  # what is not on the chain may wait in a pool yet
            time.sleep(PAUSE_SECONDS)
        return checked
