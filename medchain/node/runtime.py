"""The loop around the engine: events in, one Ready out, obeyed in order (house.md, "The heart").

Everything that happens to a node goes through one bounded inbox. Signatures of transactions are checked in worker threads before their
event enters it; a batch that is not empty is written, synced, by a worker thread before anything of its turn is sent or answered; a failed
write ends the process. Votes never wait behind transactions. This module knows no socket and no rule.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from medchain.chain.domain import Domain
from medchain.chain.transaction import Transaction
from medchain.chain.vote import ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.engine.ready import (
    Envelope,
    Event,
    PeerConnected,
    PeerDisconnected,
    Queried,
    Ready,
    Received,
    ReleaseAsked,
    Reply,
    Submitted,
)
from medchain.engine.verification import Item, Verifier, verifications_of
from medchain.errors import InvariantBroken, MedchainError
from medchain.node.clock import Clock
from medchain.store.keyvalue import WriteBatch
from medchain.wire.peer import (
    CONSENSUS_LANE,
    BlockSent,
    PastVotesSent,
    PeerStatus,
    PoolListed,
    RangeSent,
    TransactionsOffered,
    TransactionsWanted,
    lane_of,
)

TURN_EVENTS_MAX: Final = 1_024
"""Events of one turn, by weight: a turn stays short enough that a vote arriving meanwhile waits for milliseconds."""
WEIGHT_SHARE: Final = 8
"""No event counts for more than an eighth of the inbox, so that the largest message does not close it to everybody else."""
ENTRIES_PER_WEIGHT: Final = 16
BYTES_PER_WEIGHT: Final = 1_024
WARM_ITEMS_MIN: Final = 4
"""Fewer signatures than this are checked inline: a thread's answer takes longer than the 56 us of each."""
WARM_CHUNK_ITEMS: Final = 32
"""Signatures a thread takes at once."""
WARM_ROUND_ITEMS: Final = 4_096
"""Signatures of one round of the warmer, about 0.1 s on two cores: what arrives later is not held up for longer."""
ACTIVE_MS: Final = 1_500
"""So long after the last work the clock is looked at often: longer than the second after which messages are sent again."""
VERIFYING_THREADS_MAX: Final = 4


class Core(Protocol):
    """What the loop needs of the engine."""

    def handle_all(self, events: Sequence[Event]) -> Ready:
        """Handle the events, pure and to completion."""
        ...


class Disk(Protocol):
    """What the loop needs of the store."""

    def begin_write(self, batch: WriteBatch) -> Callable[[], None]:
        """Take a batch over; what is returned writes it atomically and synced in whatever thread, or raises InvariantBroken."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """Bounds of the loop, from the configuration."""

    tick_ms: int = 20
    idle_tick_ms: int = 100
    inbox_events_max: int = 20_000
    """By weight: a message counts for the transactions in it, or a liar's largest messages would fill the memory before the inbox."""
    verifying_threads: int = 0
    """0 = one for each processor, at most four."""


@dataclass(slots=True)
class Tally:
    """What the loop did since the start."""

    turns: int = 0
    events: int = 0
    batches: int = 0
    dropped: int = 0
    """Peers' messages that found the inbox full; they are sent again."""
    longest_turn_ms: int = 0
    longest_write_ms: int = 0


class Runtime:
    """Drives one engine. `post` may be called from the event loop's thread only."""

    def __init__(
        self,
        *,
        core: Core,
        disk: Disk,
        verifier: Verifier,
        network: Domain,
        send: Callable[[Sequence[Envelope]], None],
        answer: Callable[[Sequence[Reply]], None],
        clock: Clock,
        pace: Pace,
        is_admissible: Callable[[Transaction], bool],
    ) -> None:
        """Wire the loop; `is_admissible` says of which new transactions the signatures are worth checking before the core sees them."""
        self._core = core
        self._is_admissible = is_admissible
        self._disk = disk
        self._verifier = verifier
        self._network = network
        self._send = send
        self._answer = answer
        self._clock = clock
        self._pace = pace
        self._inbox: deque[Event] = deque()
        self._cold: deque[tuple[Event, list[Item]]] = deque()
        self._waiting = 0
        self._connected: dict[bytes, int] = {}
        self._waker: asyncio.Future[None] | None = None
        self._cold_waker: asyncio.Future[None] | None = None
        self._emptied: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._is_stopping = False
        self._due_ms: int | None = None
        """When the core wants to be turned again, whatever happens until then."""
        self._ticked_ms = 0
        self._active_ms = 0
        self.tally = Tally()

    # ---- in ------------------------------------------------------------------------------------------------------------------

    def post(self, event: Event) -> bool:
        """Put an event into the inbox; False when there is no room for it or the node is stopping.

        Connections' beginnings and ends are always taken; consensus messages have twice the room of others.
        """
        match event:
            case PeerConnected():
                self._connected[event.peer] = self._connected.get(event.peer, 0) + 1
            case PeerDisconnected():
                self._connected[event.peer] = self._connected.get(event.peer, 1) - 1
            case _:
                if not self._has_room(event):
                    self.tally.dropped += isinstance(event, Received)
                    return False
        self._waiting += self._weight(event)
        items = verifications_of(event, self._network, is_admissible=self._is_admissible) if _may_need_warming(event) else []
        if items:  # a moment later, when all that is posted together is there: one call's transactions stay together
            self._cold.append((event, items))
            self._cold_waker = _woken(self._cold_waker)
        else:
            self._take_in(event)
        return True

    async def room(self) -> None:
        """Wait while the inbox is more than half full: whoever reads from peers stops reading meanwhile."""
        while self._waiting > self._pace.inbox_events_max // 2 and not self._is_stopping:
            if self._emptied is None or self._emptied.done():
                self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._emptied)

    def _has_room(self, event: Event) -> bool:
        if self._is_stopping:
            return False
        room = self._pace.inbox_events_max
        if isinstance(event, Received) and lane_of(event.message) == CONSENSUS_LANE:
            room *= 2
        return self._waiting < room

    def _weight(self, event: Event) -> int:
        return min(_weight_of(event), max(1, self._pace.inbox_events_max // WEIGHT_SHARE))

    def _take_in(self, event: Event) -> None:
        self._inbox.append(event)
        self._waker = _woken(self._waker)

    # ---- the loop ------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Turn until `stop`. Raises InvariantBroken when the engine or the disk fails: the process must end then."""
        threads = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        warmer = asyncio.create_task(self._warm(), name="warm signatures")
        try:
            while not self._is_stopping:
                await self._turn(await self._drain(), threads)
                if warmer.done():
                    await warmer
            if self._failure is not None:
                raise self._failure
        except MedchainError:
            raise
        except Exception as error:
            raise InvariantBroken(f"the loop of the node failed ({type(error).__name__} in {_place(error)})") from error
        finally:
            self._is_stopping = True
            self._emptied = _woken(self._emptied)
            warmer.cancel()
            await asyncio.gather(warmer, return_exceptions=True)
            threads.shutdown(wait=True)

    def stop(self) -> None:
        """End the loop after the present turn; what waits in the inbox was promised to nobody."""
        self._is_stopping = True
        self._waker = _woken(self._waker)

    def fail(self, error: Exception) -> None:
        """End the loop because another part of the node met a bug of ours; `run` then raises it."""
        self._failure = self._failure or error
        self.stop()

    def idle_ms(self) -> int:
        """Return how long ago the loop last looked at the clock."""
        return self._clock.monotonic_ms() - self._ticked_ms

    async def _turn(self, events: list[Event], threads: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        ready = self._core.handle_all(events)
        self._due_ms = None if ready.again_ms is None else self._ticked_ms + ready.again_ms
        handled = loop.time()
        if ready.batch:
            await loop.run_in_executor(threads, self._disk.begin_write(ready.batch))
            self.tally.batches += 1
            self.tally.longest_write_ms = max(self.tally.longest_write_ms, int((loop.time() - handled) * 1_000))
        else:
            await asyncio.sleep(0)  # sockets must be served however full the inbox is
        self._send(ready.send)
        self._answer(ready.replies)
        self.tally.turns += 1
        self.tally.events += len(events)
        self.tally.longest_turn_ms = max(self.tally.longest_turn_ms, int((handled - began) * 1_000))
        if ready.batch or any(_is_work(event) for event in events):
            self._active_ms = self._ticked_ms

    async def _drain(self) -> list[Event]:
        """Wait for events or for the time to look at the clock; return a turn's events, a tick first when one is due."""
        if not self._inbox and not self._is_stopping and (pause_ms := self._pause_ms()) > 0:
            loop = asyncio.get_running_loop()
            self._waker = loop.create_future()
            alarm = loop.call_later(pause_ms / 1_000, self._wake)
            try:
                await self._waker
            finally:
                alarm.cancel()
                self._waker = None
        events: list[Event] = []
        tick = self._clock.tick()
        is_due = self._due_ms is not None and tick.monotonic_ms >= self._due_ms
        if not self._inbox or is_due or tick.monotonic_ms - self._ticked_ms >= self._pace.tick_ms // 2:
            self._ticked_ms = tick.monotonic_ms
            events.append(tick)
        taken = 0
        while self._inbox and taken < TURN_EVENTS_MAX:
            event = self._inbox.popleft()
            taken += self._weight(event)
            events.append(event)
        self._waiting -= taken
        self._emptied = _woken(self._emptied)
        return events

    def _wake(self) -> None:
        self._waker = _woken(self._waker)

    def _pause_ms(self) -> int:
        """Return how long to wait when nothing happens, 0 when the core wants its turn now."""
        now_ms = self._clock.monotonic_ms()
        interval_ms = self._pace.tick_ms if now_ms - self._active_ms < ACTIVE_MS else self._pace.idle_tick_ms
        pause_ms = max(1, interval_ms - (now_ms - self._ticked_ms))
        return pause_ms if self._due_ms is None else max(0, min(pause_ms, self._due_ms - now_ms))

    # ---- signatures before the inbox -----------------------------------------------------------------------------------------

    async def _warm(self) -> None:
        """Check the signatures of waiting events in threads, many events at once, and pass the events on in their order."""
        count = self._pace.verifying_threads or min(VERIFYING_THREADS_MAX, os.cpu_count() or 1)
        threads = ThreadPoolExecutor(count, thread_name_prefix="verify")
        loop = asyncio.get_running_loop()
        try:
            while True:
                if not self._cold:
                    self._cold_waker = loop.create_future()
                    await self._cold_waker
                    self._cold_waker = None
                events, items = self._next_round()
                if len(items) < WARM_ITEMS_MIN:
                    self._verifier.check_all(items)
                else:
                    chunks = [items[start : start + WARM_CHUNK_ITEMS] for start in range(0, len(items), WARM_CHUNK_ITEMS)]
                    await asyncio.gather(*(loop.run_in_executor(threads, self._verifier.check_all, chunk) for chunk in chunks))
                for event in events:
                    if not isinstance(event, Received) or self._connected.get(event.peer, 0) > 0:
                        self._take_in(event)
                    else:
                        self._waiting -= self._weight(event)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _next_round(self) -> tuple[list[Event], list[Item]]:
        """Return the next events and their checks, each once: the transactions of a batch share one, and must not meet in two threads."""
        events: list[Event] = []
        items: dict[Item, None] = {}
        while self._cold and len(items) < WARM_ROUND_ITEMS:
            event, its_items = self._cold.popleft()
            events.append(event)
            items.update(dict.fromkeys(its_items))
        return events, list(items)


def _woken(waker: asyncio.Future[None] | None) -> asyncio.Future[None] | None:
    """Wake whoever waits on `waker`."""
    if waker is not None and not waker.done():
        waker.set_result(None)
    return waker


def _may_need_warming(event: Event) -> bool:
    """Votes, view changes and proposals go straight in: they have few signatures and must not wait behind transactions."""
    if isinstance(event, Received):
        return not isinstance(event.message, Vote | ViewChange | PrePrepare)
    return isinstance(event, Submitted)


def _weight_of(event: Event) -> int:
    """Return how much room and work an event takes, about that of so many transactions."""
    match event:
        case Submitted():
            return _weight_of_all((event.transaction,))
        case Received(_, TransactionsOffered(transactions)):
            return 1 + _weight_of_all(transactions)
        case Received(_, BlockSent(block)):
            return 1 + _weight_of_all(block.transactions)
        case Received(_, RangeSent(blocks)):
            return 1 + sum(1 + _weight_of_all(block.transactions) for block, _ in blocks)
        case Received(_, PoolListed(entries) | TransactionsWanted(entries)):
            return 1 + len(entries) // ENTRIES_PER_WEIGHT
        case Received(_, PastVotesSent() as answer):
            return 1 + len(answer.votes) + len(answer.view_changes)
        case Received(_, PrePrepare() as message):
            return 1 + len(message.view_changes) + len(message.proposal.entries) // ENTRIES_PER_WEIGHT
        case _:
            return 1


def _weight_of_all(transactions: Sequence[Transaction]) -> int:
    return sum(1 + len(transaction.raw) // BYTES_PER_WEIGHT for transaction in transactions)


def _is_work(event: Event) -> bool:
    """Whether more is likely to happen soon after this event; statuses pass even in an idle network."""
    if isinstance(event, Received):
        return not isinstance(event.message, PeerStatus)
    return isinstance(event, Submitted | Queried | ReleaseAsked | PeerConnected | PeerDisconnected)


def _place(error: BaseException) -> str:
    """Return file and line where `error` was raised, for the operator's report; never a value."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "an unknown place" if trace is None else f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
