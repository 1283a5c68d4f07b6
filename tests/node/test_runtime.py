"""The loop: what is written comes before what is said, signatures are checked beforehand, and nothing is taken in without bound."""

from __future__ import annotations

import asyncio
import threading

import pytest
import pytest_asyncio

from medchain.chain.domain import Domain
from medchain.chain.transaction import Operation, Transaction, TransactionBody
from medchain.chain.vote import Vote
from medchain.crypto.signing import SigningKey
from medchain.engine.ready import (
    Answered,
    Envelope,
    PeerConnected,
    PeerDisconnected,
    Queried,
    Ready,
    Received,
    Submitted,
    Ticked,
)
from medchain.engine.verification import Verifier
from medchain.errors import InvariantBroken
from medchain.node.clock import Clock
from medchain.node.runtime import Pace, Runtime
from medchain.store.keyvalue import WriteBatch
from medchain.wire.peer import PeerStatus, PoolListed, TransactionsOffered

pytestmark = pytest.mark.asyncio

NETWORK = Domain(bytes(32))
PEER = b"p" * 32


def transaction(number: int) -> Transaction:
    key = SigningKey(bytes(32))
    body = TransactionBody("test", key.public, 10, (Operation("people.revoke_credential", [bytes(32)]),), number.to_bytes(8, "big"))
    return Transaction.sign(body, key, NETWORK)


class World:
    """A loop between a scripted core and a disk, writing down what happens in which order."""

    def __init__(self, **pace) -> None:
        self.happened = []
        self.events = []
        self.threads = []
        self.make_ready = lambda events: Ready()
        self.fail_write = False
        self.inadmissible: set[bytes] = set()
        self.verifier = Verifier(NETWORK)
        self.runtime = Runtime(
            core=self,
            disk=self,
            verifier=self.verifier,
            network=NETWORK,
            send=self.send,
            answer=self.answer,
            clock=Clock(),
            pace=Pace(**pace),
            is_admissible=lambda transaction: transaction.id not in self.inadmissible,
        )
        self.task: asyncio.Task | None = None

    def handle_all(self, events) -> Ready:
        self.happened.append("handle")
        self.events += events
        return self.make_ready(events)

    def begin_write(self, batch):
        self.threads.append(threading.current_thread())
        self.happened.append("take over")
        return self.write

    def write(self) -> None:
        self.threads.append(threading.current_thread())
        self.happened.append("write")
        if self.fail_write:
            raise InvariantBroken("the disk is full")

    def send(self, envelopes) -> None:
        if envelopes:
            self.happened.append("send")

    def answer(self, replies) -> None:
        if replies:
            self.happened.append("answer")

    def seen(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, condition) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    async def stop(self) -> None:
        self.runtime.stop()
        await self.task


@pytest_asyncio.fixture
async def make_world():
    worlds = []

    def make(**pace) -> World:
        world = World(**pace)
        world.task = asyncio.create_task(world.runtime.run())
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.runtime.stop()
        await asyncio.gather(world.task, return_exceptions=True)


async def test_batch_is_taken_over_by_the_loop_and_written_in_another_thread_before_anything_is_sent_or_answered(make_world):
    world = make_world()
    full = Ready(WriteBatch.of((b"k", b"v")), (Envelope(None, PeerStatus(0, bytes(32))),), (Answered(1, None),))
    world.make_ready = lambda events: full if any(isinstance(event, Queried) for event in events) else Ready()
    world.runtime.post(Queried(1, "chain.head", {}))
    await world.until(lambda: "answer" in world.happened)
    index = world.happened.index("take over")
    assert world.happened[index - 1 : index + 4] == ["handle", "take over", "write", "send", "answer"]
    assert world.threads[0] is threading.current_thread() is not world.threads[1]


async def test_empty_batch_is_not_written(make_world):
    world = make_world()
    world.make_ready = lambda events: Ready(replies=(Answered(1, None),))
    await world.until(lambda: world.happened.count("answer") > 2)
    assert "write" not in world.happened and "take over" not in world.happened


async def test_failed_write_ends_the_loop_before_anything_is_said(make_world):
    world = make_world()
    world.fail_write = True
    world.make_ready = lambda events: Ready(WriteBatch.of((b"k", b"v")), (Envelope(None, PeerStatus(0, bytes(32))),), (Answered(1, None),))
    with pytest.raises(InvariantBroken, match="disk is full"):
        await world.task
    assert world.happened == ["handle", "take over", "write"]
    assert not world.runtime.post(Queried(1, "chain.head", {}))


async def test_bug_in_the_core_ends_the_loop_naming_its_place(make_world):
    world = make_world()

    def broken(events):
        raise KeyError("of ours")

    world.make_ready = broken
    with pytest.raises(InvariantBroken, match=r"KeyError in test_runtime\.py:\d+"):
        await world.task


async def test_failure_of_another_part_ends_the_loop(make_world):
    world = make_world()
    world.runtime.fail(InvariantBroken("the network broke"))
    with pytest.raises(InvariantBroken, match="network broke"):
        await world.task


async def test_clock_is_looked_at_while_nothing_happens(make_world):
    world = make_world(tick_ms=5, idle_tick_ms=5)
    await world.until(lambda: len(world.seen(Ticked)) >= 5)
    moments = [event.monotonic_ms for event in world.seen(Ticked)]
    assert moments == sorted(moments)
    assert world.runtime.idle_ms() < 5_000


async def test_idle_loop_looks_at_the_clock_less_often_than_a_busy_one(make_world):
    idle, busy = make_world(tick_ms=5, idle_tick_ms=500), make_world(tick_ms=5, idle_tick_ms=500)
    await idle.until(lambda: idle.events)
    busy.make_ready = lambda events: Ready(WriteBatch.of((b"k", b"v")))
    await busy.until(lambda: len(busy.seen(Ticked)) >= 20)
    assert len(idle.seen(Ticked)) <= 3


async def test_core_with_more_to_do_is_turned_again_without_waiting_for_the_clock(make_world):
    world = make_world(tick_ms=10_000, idle_tick_ms=10_000)
    await world.until(lambda: world.events)
    left = [50]

    def work(events):
        left[0] -= 1
        return Ready(again_ms=0 if left[0] > 0 else None)

    world.make_ready = work
    assert world.runtime.post(Queried(1, "node.status", {}))
    await world.until(lambda: not left[0])


async def test_core_is_turned_when_it_wants_to_be_and_not_before(make_world):
    world = make_world(tick_ms=10_000, idle_tick_ms=10_000)
    await world.until(lambda: world.events)
    [first] = world.seen(Ticked)
    world.make_ready = lambda events: Ready(again_ms=30) if any(isinstance(event, Queried) for event in events) else Ready()
    assert world.runtime.post(Queried(1, "node.status", {}))
    await world.until(lambda: len(world.seen(Ticked)) == 2)
    assert world.seen(Ticked)[1].monotonic_ms >= first.monotonic_ms + 30


async def test_many_events_are_one_turn(make_world):
    world = make_world()
    await world.until(lambda: world.events)
    turns = world.runtime.tally.turns
    for number in range(50):
        world.runtime.post(Queried(number, "chain.head", {}))
    await world.until(lambda: len(world.seen(Queried)) == 50)
    assert [event.request for event in world.seen(Queried)] == list(range(50))
    assert world.runtime.tally.turns - turns <= 2


async def test_signatures_of_many_transactions_are_checked_before_the_core_sees_them(make_world):
    world = make_world()
    transactions = tuple(transaction(number) for number in range(70))
    known = []
    world.make_ready = lambda events: known.extend(len(world.verifier._newer) for event in events if isinstance(event, Received)) or Ready()
    world.runtime.post(PeerConnected(PEER))
    world.runtime.post(Received(PEER, TransactionsOffered(transactions)))
    await world.until(lambda: world.seen(Received))
    assert known == [70]


async def test_signatures_of_transactions_that_will_be_refused_anyway_are_not_checked(make_world):
    world = make_world()
    transactions = tuple(transaction(number) for number in range(70))
    world.inadmissible = {item.id for item in transactions[10:]}
    known = []
    world.make_ready = lambda events: known.extend(len(world.verifier._newer) for event in events if isinstance(event, Received)) or Ready()
    world.runtime.post(PeerConnected(PEER))
    world.runtime.post(Received(PEER, TransactionsOffered(transactions)))
    await world.until(lambda: world.seen(Received))
    assert known == [10]


async def test_few_signatures_are_checked_without_waking_a_thread(make_world, monkeypatch):
    world = make_world()
    at = []
    check_all = Verifier.check_all
    monkeypatch.setattr(Verifier, "check_all", lambda verifier, items: at.append(threading.get_ident()) or check_all(verifier, items))
    await world.until(lambda: world.events)
    assert world.runtime.post(Submitted(1, transaction(1)))
    await world.until(lambda: world.seen(Submitted))
    assert at == [threading.get_ident()]


async def test_first_transaction_of_a_call_does_not_run_ahead_of_the_others(make_world):
    """Bug: it went straight in while the others were verified, was proposed alone, and they waited for the block after it."""
    world = make_world()
    turns = []
    world.make_ready = lambda events: turns.append(sum(isinstance(event, Submitted) for event in events)) or Ready()
    await world.until(lambda: world.events)
    for number in range(64):
        assert world.runtime.post(Submitted(number, transaction(number)))
    await world.until(lambda: len(world.seen(Submitted)) == 64)
    assert [count for count in turns if count] == [64]


async def test_messages_of_a_peer_that_left_meanwhile_are_dropped(make_world):
    world = make_world()
    world.runtime.post(PeerConnected(PEER))
    world.runtime.post(Received(PEER, TransactionsOffered(tuple(transaction(number) for number in range(8)))))
    world.runtime.post(PeerDisconnected(PEER))
    other = b"q" * 32
    world.runtime.post(PeerConnected(other))
    world.runtime.post(Received(other, TransactionsOffered(tuple(transaction(number) for number in range(8)))))
    await world.until(lambda: world.seen(Received))
    assert [event.peer for event in world.seen(Received)] == [other]


async def test_full_inbox_refuses_clients_and_drops_gossip_but_takes_connections(make_world):
    world = make_world(inbox_events_max=100)
    await world.until(lambda: world.events)
    assert all(world.runtime.post(Queried(number, "chain.head", {})) for number in range(100))
    assert not world.runtime.post(Queried(100, "chain.head", {}))
    assert not world.runtime.post(Received(PEER, PoolListed(())))
    assert world.runtime.tally.dropped == 1
    assert world.runtime.post(PeerConnected(PEER))
    async with asyncio.timeout(10):
        await world.runtime.room()
    await world.until(lambda: world.seen(PeerConnected))
    assert world.runtime.post(Queried(100, "chain.head", {}))


async def test_inbox_counts_the_transactions_in_messages_so_that_large_ones_cannot_fill_the_memory(make_world):
    world = make_world(inbox_events_max=400)
    await world.until(lambda: world.events)
    world.runtime.post(PeerConnected(PEER))
    message = TransactionsOffered(tuple(transaction(number) for number in range(60)))
    taken = sum(world.runtime.post(Received(PEER, message)) for _ in range(100))
    assert taken == 8  # an eighth of the inbox each, however large
    assert world.runtime.post(Received(PEER, Vote(1, 1, 0, bytes(32), PEER, bytes(64))))
    async with asyncio.timeout(10):
        await world.runtime.room()
    await world.until(lambda: len(world.seen(Received)) == 9)
    assert world.runtime._waiting == 0
    assert world.runtime.post(Received(PEER, message))


async def test_turn_holds_so_many_transactions_and_not_so_many_messages_of_them(make_world):
    world = make_world()
    await world.until(lambda: world.events)
    world.runtime.post(PeerConnected(PEER))
    turns = []
    world.make_ready = lambda events: turns.append(sum(isinstance(event, Received) for event in events)) or Ready()
    message = TransactionsOffered(tuple(transaction(number) for number in range(256)))
    for _ in range(12):
        world.runtime.post(Received(PEER, message))
    await world.until(lambda: sum(turns) == 12)
    assert max(turns) <= 4


async def test_stopped_loop_finishes_its_turn_and_takes_nothing_more(make_world):
    world = make_world()
    await world.until(lambda: world.events)
    await world.stop()
    assert not world.runtime.post(Queried(1, "chain.head", {}))
    assert world.happened[-1] == "handle"
