"""Spreading transactions: who is told what, how often, and what is remembered of a peer."""

from __future__ import annotations

import pytest

from medchain.chain.domain import Domain
from medchain.chain.transaction import Operation, Transaction, TransactionBody
from medchain.engine.gossip import (
    ANSWER_BYTES_PER_SECOND_MAX,
    FLUSH_TOGETHER_MIN,
    HAND_OVER_MAX,
    LIST_ENTRIES_MAX,
    OFFER_BYTES_MAX,
    WANTED_ENTRIES_MAX,
    Gossip,
)
from medchain.engine.mempool import Mempool, Placement
from medchain.engine.turn import Turn
from medchain.store.memory import MemoryKeyValue
from medchain.store.staged import Staged
from medchain.wire.peer import GOSSIP_TRANSACTIONS_MAX, PoolListed, TransactionsOffered, TransactionsWanted

NETWORK = Domain(bytes(32))
A, B = b"a" * 32, b"b" * 32


class Desk:
    """Gossip over a real pool and turn, with two connected peers."""

    def __init__(self, signer) -> None:
        self.key = signer("sender")
        self.turn = Turn()
        self.turn.set_time(0, 0)
        self.pool = Mempool(Staged(MemoryKeyValue()), 2**30)
        self.gossip = Gossip(self.pool, self.turn)
        self.gossip.connect(A)
        self.gossip.connect(B)
        self.gossip.tick()
        self.count = 0

    def add(self, size: int = 0) -> Transaction:
        self.count += 1
        operations = (Operation("k", [bytes(size)]),)
        body = TransactionBody("test", self.key.public, 100, operations, self.count.to_bytes(8, "big"))
        transaction = Transaction.sign(body, self.key, NETWORK)
        self.pool.add(transaction, Placement(b"g", False, 1), is_local=True, now_ms=self.turn.monotonic_ms)
        return transaction

    def tick(self, milliseconds: int) -> list:
        self.turn.set_time(self.turn.monotonic_ms + milliseconds, 0)
        self.gossip.tick()
        return self.said()

    def said(self) -> list:
        return [(envelope.to, envelope.message) for envelope in self.turn.take()[0]]


@pytest.fixture
def desk(signer) -> Desk:
    return Desk(signer)


def offered(said: list, peer: bytes) -> list[Transaction]:
    return [entry for to, message in said if to == peer and isinstance(message, TransactionsOffered) for entry in message.transactions]


def test_what_is_accepted_is_forwarded_with_the_next_tick_in_one_message_to_each_peer(desk):
    transactions = [desk.add() for _ in range(10)]
    for transaction in transactions:
        desk.gossip.forward(transaction)
    assert desk.said() == []
    said = desk.tick(10)
    assert said == [(peer, TransactionsOffered(tuple(transactions))) for peer in (A, B)]
    assert offered(said, A)[0].raw is transactions[0].raw
    assert desk.tick(10) == []


def test_a_full_message_does_not_wait_for_the_tick(desk):
    for _ in range(GOSSIP_TRANSACTIONS_MAX):
        desk.gossip.forward(desk.add())
    said = desk.said()
    assert [len(message.transactions) for _, message in said] == [GOSSIP_TRANSACTIONS_MAX] * 2


def test_many_accepted_in_one_turn_do_not_wait_for_the_tick(desk):
    transactions = [desk.add() for _ in range(FLUSH_TOGETHER_MIN)]
    for transaction in transactions[1:]:
        desk.gossip.forward(transaction)
    desk.gossip.end_turn()
    assert desk.said() == []
    desk.gossip.forward(transactions[0])
    desk.gossip.end_turn()
    assert desk.said() == [(peer, TransactionsOffered((*transactions[1:], transactions[0]))) for peer in (A, B)]
    assert desk.tick(10) == []


def test_nobody_is_sent_what_it_has_shown(desk):
    transaction = desk.add()
    desk.gossip.confirm(A, [transaction.id, bytes(32)])
    desk.gossip.forward(transaction)
    assert [to for to, _ in desk.tick(10)] == [B]
    assert desk.gossip.knows(A, transaction.id)
    assert not desk.gossip.knows(A, bytes(32))


def test_messages_keep_below_their_bytes(desk):
    for _ in range(100):
        desk.gossip.forward(desk.add(60_000))
    sizes = [sum(len(entry.raw) for entry in message.transactions) for _, message in desk.tick(10)]
    assert len(sizes) == 4
    assert max(sizes) <= OFFER_BYTES_MAX


def test_older_entries_are_listed_each_second_to_those_that_have_not_shown_them(desk):
    shown, other = desk.add(), desk.add()
    desk.gossip.confirm(A, [shown.id])
    assert desk.tick(900) == []
    said = desk.tick(100)
    assert said == [(A, PoolListed((other.entry,))), (B, PoolListed((shown.entry, other.entry)))]
    assert desk.tick(500) == []
    assert len(desk.tick(500)) == 2
    desk.tick(990)
    young = desk.add()
    listed = desk.tick(10)
    assert len(listed) == 2
    assert all(young.entry not in message.entries for _, message in listed)


def test_lists_requests_and_handing_over_are_bounded(desk):
    transactions = [desk.add() for _ in range(LIST_ENTRIES_MAX + 5)]
    entries = tuple(transaction.entry for transaction in transactions)
    assert desk.tick(2_000)[0] == (A, PoolListed(entries[:LIST_ENTRIES_MAX]))
    desk.gossip.take_list(A, (), entries)
    assert desk.said() == [(A, TransactionsWanted(entries[:WANTED_ENTRIES_MAX]))]
    desk.gossip.hand_over(B)
    assert offered(desk.said(), B) == transactions[:HAND_OVER_MAX]


def test_handing_over_repeats_what_was_sent_but_never_shown(desk):
    sent, shown = desk.add(), desk.add()
    desk.gossip.forward(sent)
    desk.tick(10)
    desk.gossip.confirm(A, [shown.id])
    desk.gossip.hand_over(A)
    assert offered(desk.said(), A) == [sent]
    desk.gossip.hand_over(b"c" * 32)
    assert desk.said() == []


def test_what_leaves_the_pool_or_the_network_is_forgotten(desk):
    transaction = desk.add()
    desk.gossip.forward(transaction)
    desk.tick(10)
    assert desk.gossip.knows_any(A)
    desk.pool.settle([transaction.id], 1)
    desk.gossip.forget([transaction.id])
    assert not desk.gossip.knows_any(A)
    other = desk.add()
    desk.gossip.confirm(A, [other.id])
    desk.gossip.disconnect(A)
    assert not desk.gossip.is_connected(A)
    desk.gossip.connect(A)
    assert not desk.gossip.knows(A, other.id)


def test_a_peer_can_make_this_node_send_so_much_a_second_and_no_more(desk):
    transactions = [desk.add(60_000) for _ in range(100)]
    for _ in range(10):
        desk.gossip.answer(A, transactions)
    sent = sum(len(entry.raw) for entry in offered(desk.said(), A))
    assert ANSWER_BYTES_PER_SECOND_MAX - 70_000 <= sent <= ANSWER_BYTES_PER_SECOND_MAX
    desk.gossip.answer(A, transactions[:1])
    assert desk.said() == []
    desk.tick(1_000)
    desk.gossip.answer(A, transactions[:1])
    assert len(offered(desk.said(), A)) == 1
