"""The durable pool: caps, shares, lanes and turns, ends, and what a restart finds."""

from __future__ import annotations

import pytest

from medchain import codec
from medchain.chain.domain import Domain
from medchain.chain.transaction import Operation, Transaction, TransactionBody
from medchain.engine.mempool import ENTRY_OVERHEAD_BYTES, BlockRoom, Mempool, Placement
from medchain.errors import Malformed, Rejected
from medchain.store import layout
from medchain.store.keyvalue import WriteBatch
from medchain.store.memory import MemoryKeyValue
from medchain.store.staged import Staged

NETWORK = Domain(bytes(32))
WIDE = BlockRoom(2**22, 2_000, 20_000)


class Pool:
    """A pool over a memory store, with transactions of any sender made on demand."""

    def __init__(self, signer, bytes_max: int = 2**20) -> None:
        self.signer = signer
        self.store = MemoryKeyValue()
        self.staged = Staged(self.store)
        self.pool = Mempool(self.staged, bytes_max)
        self.count = 0

    def transaction(self, sender: str = "a", valid_until: int = 100, size: int = 0) -> Transaction:
        self.count += 1
        key = self.signer(sender)
        body = TransactionBody("test", key.public, valid_until, (Operation("k", [bytes(size)]),), self.count.to_bytes(8, "big"))
        return Transaction.sign(body, key, NETWORK)

    def add(self, sender: str = "a", group: str = "", *, is_urgent: bool = False, weight: int = 10, is_local: bool = True, **options):
        transaction = self.transaction(sender, **options)
        place = Placement((group or sender).encode(), is_urgent, weight)
        self.pool.add(transaction, place, is_local=is_local, now_ms=self.count)
        return transaction

    def commit(self) -> None:
        self.store.write(self.staged.take_batch())

    def again(self, height: int = 0) -> tuple[Mempool, list]:
        """Open the pool as after a restart."""
        pool = Mempool(Staged(self.store))
        return pool, pool.load(height, lambda transaction: Placement(b"g", False, 1))


@pytest.fixture
def pool(signer) -> Pool:
    return Pool(signer)


def test_an_entry_is_in_the_batch_of_its_turn_and_leaves_with_its_block(pool):
    transaction = pool.add()
    pool.commit()
    assert pool.store.get(layout.pool_key(transaction.id)) is not None
    assert pool.pool.find(transaction.entry) == transaction
    assert pool.pool.find((transaction.id, bytes(32))) is None
    assert pool.pool.settle([transaction.id], 1) == []
    pool.commit()
    assert pool.store.get(layout.pool_key(transaction.id)) is None
    assert (len(pool.pool), pool.pool.bytes_used) == (0, 0)


def test_a_restart_finds_the_entries_in_order_of_arrival_and_whose_they_were(pool):
    transactions = [pool.add(is_local=index % 2 == 0) for index in range(20)]
    pool.commit()
    found, ended = pool.again()
    assert [entry.transaction for entry in found.entries()] == transactions
    assert [entry.is_local for entry in found.entries()] == [index % 2 == 0 for index in range(20)]
    assert ended == []
    assert found.select(WIDE) == transactions


def test_entries_that_ended_while_the_node_was_away_are_dropped_and_told(pool):
    early, late = pool.add(valid_until=5), pool.add(valid_until=6)
    pool.commit()
    found, ended = pool.again(height=5)
    assert [entry.transaction.id for entry in ended] == [early.id]
    assert late.id in found
    assert found.has_expired(early.id)


def test_a_damaged_entry_is_malformed(pool):
    transaction = pool.add()
    pool.commit()
    key = layout.pool_key(transaction.id)
    for value in (b"", codec.encode([1, True]), codec.encode([1, True, b"x"]), codec.encode([1, True, pool.transaction().raw])):
        pool.store.write(WriteBatch.of((key, value)))
        with pytest.raises(Malformed):
            pool.again()


def test_an_entry_ends_at_its_height_exactly(pool):
    transaction = pool.add(valid_until=7)
    assert pool.pool.settle([], 6) == []
    assert [entry.transaction.id for entry in pool.pool.settle([], 7)] == [transaction.id]
    assert transaction.id not in pool.pool
    assert pool.pool.has_expired(transaction.id)


def test_gossip_becomes_local_when_a_client_hands_it_in_too(pool):
    transaction = pool.add(is_local=False)
    pool.pool.adopt(transaction.id)
    pool.commit()
    found, _ = pool.again()
    assert found.get(transaction.id).is_local


def refusal(function, *arguments, **options) -> str:
    with pytest.raises(Rejected) as refused:
        function(*arguments, **options)
    return refused.value.code


def fill(pool: Pool, name: str, *, is_urgent: bool = False) -> int:
    """Let a hospital with many gateways add until it is refused; return how many bytes of the pool it then holds."""
    before = pool.pool.bytes_used
    for index in range(1_000):
        try:
            pool.add(f"{name} gateway {index % 8}", name, is_urgent=is_urgent)
        except Rejected:
            return pool.pool.bytes_used - before
    pytest.fail("nothing was refused")


def test_a_full_pool_refuses_and_changes_nothing_but_takes_urgent_entries(signer):
    pool = Pool(signer, bytes_max=16 * 1024)
    added = []
    for index in range(1_000):
        try:
            added.append(pool.add(f"sender {index}", f"group {index}"))
        except Rejected:
            break
    before = (len(pool.pool), pool.pool.bytes_used)
    assert refusal(pool.add, "another", size=5_000) == "pool.full"
    assert (len(pool.pool), pool.pool.bytes_used) == before
    assert before[1] <= 16 * 1024 * 7 // 8
    urgent = pool.add("revoker", is_urgent=True)
    assert pool.pool.select(WIDE)[0] == urgent
    pool.pool.settle([transaction.id for transaction in added], 1)
    pool.add("another", size=2_000)


@pytest.mark.parametrize("greedy", [1, 2, 3])
def test_hospitals_that_conspire_cannot_keep_the_pool_full(signer, greedy):
    """At n = 7 two hospitals of half the pool each left nothing to five others; now as much as each of them holds is free."""
    pool = Pool(signer, bytes_max=256 * 1024)
    held = [fill(pool, f"greedy {number}") for number in range(greedy)]
    room = 256 * 1024 * 7 // 8
    assert room - sum(held) >= room // 2**greedy
    for number in range(7 - greedy):
        for _ in range(3):
            pool.add(f"honest {number}")
    assert all(refusal(pool.add, f"greedy {number}") == "pool.quota" for number in range(greedy))


def test_a_hospital_that_floods_the_pool_can_still_revoke(signer):
    pool = Pool(signer, bytes_max=64 * 1024)
    fill(pool, "greedy")
    fill(pool, "another")
    assert refusal(pool.add, "greedy") == "pool.quota"
    pool.add("greedy", is_urgent=True)


def test_urgent_entries_too_have_an_end(signer):
    pool = Pool(signer, bytes_max=16 * 1024)
    code = ""
    for index in range(100):
        try:
            pool.add(f"sender {index}", f"group {index}", is_urgent=True)
        except Rejected as refused:
            code = refused.code
            break
    assert code in ("pool.full", "pool.quota") and pool.pool.bytes_used > 8 * 1024


def test_a_sender_and_a_hospital_have_their_share_only(signer):
    pool = Pool(signer, bytes_max=64 * 1024)
    while pool.pool.bytes_used < 64 * 1024 * 7 // 8 // 4 - 2 * ENTRY_OVERHEAD_BYTES:
        pool.add("gateway", "hospital")
    code = ""
    for _ in range(3):
        try:
            pool.add("gateway", "hospital")
        except Rejected as refused:
            code = refused.code
    assert code == "pool.quota"
    pool.add("second gateway", "hospital")
    for index in range(200):
        try:
            pool.add(f"gateway {index}", "hospital")
        except Rejected as refused:
            assert refused.code == "pool.quota"
            break
    else:
        pytest.fail("one hospital filled the pool")
    pool.add("other", "other hospital")


def test_urgent_entries_come_first_and_hospitals_take_turns(pool):
    flood = [pool.add("a", weight=40) for _ in range(10)]
    others = [pool.add("b", weight=40), pool.add("b", weight=40)]
    urgent = pool.add("a", is_urgent=True)
    chosen = pool.pool.select(BlockRoom(2**20, 7, 10_000))
    assert chosen[0] == urgent
    assert [transaction for transaction in chosen if transaction in others] == others
    assert [transaction for transaction in chosen if transaction in flood] == flood[:4]


def test_a_hospital_that_calls_everything_urgent_stops_neither_ordinary_work_nor_the_revocations_of_others(pool):
    for _ in range(50):
        pool.add("liar", is_urgent=True)
    ordinary, revocation = pool.add("a"), pool.add("b", is_urgent=True)
    chosen = pool.pool.select(BlockRoom(2**20, 20, 10_000))
    assert len(chosen) == 11  # half a block of urgent entries, and all the ordinary ones there are
    assert ordinary in chosen
    assert revocation in chosen
    assert [ordinary in pool.pool.select(BlockRoom(2**20, 20, 10_000)) for _ in range(3)] == [True, False, True]
    pool.pool.settle([ordinary.id], 1)
    assert len(pool.pool.select(BlockRoom(2**20, 20, 10_000))) == 20


def test_who_begins_changes_from_block_to_block(pool):
    pool.add("a")
    pool.add("b")
    room = BlockRoom(2**20, 1, 10_000)
    firsts = {pool.pool.select(room)[0].body.sender for _ in range(4)}
    assert len(firsts) == 2


@pytest.mark.parametrize("room, count", [(BlockRoom(2**20, 3, 1_000), 3), (BlockRoom(2**20, 100, 45), 4), (BlockRoom(420, 100, 1_000), 3)])
def test_a_block_is_filled_up_to_its_room(pool, room, count):
    transactions = [pool.add() for _ in range(10)]
    assert {len(transaction.raw) for transaction in transactions} == {130}
    chosen = pool.pool.select(room)
    assert chosen == transactions[:count]
    assert sum(len(transaction.raw) for transaction in chosen) <= room.bytes_max


def test_selecting_takes_nothing_out(pool):
    pool.add()
    assert pool.pool.select(WIDE) == pool.pool.select(WIDE)
    assert len(pool.pool) == 1


@pytest.mark.parametrize("enough, count", [(0, 1), (10, 1), (25, 3), (1_000, 4), (None, 4)])
def test_a_block_ends_with_the_entry_that_reaches_the_weight_that_is_enough(pool, enough, count):
    for _ in range(5):
        pool.add(weight=10)
    assert len(pool.pool.select(BlockRoom(2**20, 100, 45, enough))) == count


def test_an_entry_heavier_than_what_is_enough_has_its_turn_and_one_heavier_than_a_block_may_be_has_not(pool):
    heavy = pool.add(weight=500)
    pool.add(weight=10)
    assert pool.pool.select(BlockRoom(2**20, 100, 1_000, 25)) == [heavy]
    assert pool.pool.select(BlockRoom(2**20, 100, 499, 25)) == []


def test_ordinary_entries_keep_their_part_of_what_is_enough(pool):
    urgent = [pool.add("a", is_urgent=True, weight=30) for _ in range(3)]
    ordinary = pool.add("b", weight=30)
    assert pool.pool.select(BlockRoom(2**20, 100, 1_000, 1)) == [urgent[0], ordinary]
