"""Blocks written once, found by height, digest and transaction; pins that lose are dropped."""

from __future__ import annotations

import pytest

from medchain.errors import InvariantBroken
from medchain.store import layout
from medchain.store.archive import BlockArchive, Head, StoredEvent
from medchain.store.memory import MemoryKeyValue
from medchain.store.staged import Staged


@pytest.fixture
def store() -> MemoryKeyValue:
    return MemoryKeyValue()


@pytest.fixture
def staged(store: MemoryKeyValue) -> Staged:
    return Staged(store)


@pytest.fixture
def archive(staged: Staged) -> BlockArchive:
    return BlockArchive(staged)


def digest(name: str) -> bytes:
    return name.encode().ljust(32, b".")


def put(archive: BlockArchive, height: int, name: str, transactions: tuple[bytes, ...] = ()) -> None:
    archive.put_block(height, digest(name), b"block " + name.encode(), b"cert " + name.encode(), b"receipts " + name.encode(), transactions)


def test_empty_archive_knows_nothing(archive: BlockArchive) -> None:
    assert archive.head() is None and archive.block(0) is None and archive.certificate(0) is None and archive.receipts(0) is None
    assert archive.height_of(digest("a")) is None and archive.locate(b"t" * 32) is None and archive.body(digest("a")) is None
    assert archive.pinned(1) == [] and archive.digest_of(0) is None


def test_decided_block_is_found_by_height_digest_transaction(archive: BlockArchive, staged: Staged, store: MemoryKeyValue) -> None:
    put(archive, 0, "genesis")
    put(archive, 1, "one", (b"x" * 32, b"y" * 32))
    for _ in range(2):  # in the turn that decided, and from the store after it
        assert archive.head() == Head(1, digest("one"))
        assert (archive.block(1), archive.certificate(1), archive.receipts(1)) == (b"block one", b"cert one", b"receipts one")
        assert archive.height_of(digest("one")) == 1 and archive.digest_of(1) == digest("one")
        assert archive.locate(b"y" * 32) == (1, 1) and archive.locate(b"z" * 32) is None
        assert archive.block(2) is None
        store.write(staged.take_batch())


def test_pinned_bytes_are_written_once_and_the_decision_refers_to_them(
    archive: BlockArchive, staged: Staged, store: MemoryKeyValue
) -> None:
    put(archive, 4, "four")
    archive.pin_block(5, digest("won"), b"block won")
    archive.pin_block(5, digest("lost"), b"block lost")
    archive.pin_block(6, digest("later"), b"block later")
    store.write(staged.take_batch())
    assert archive.pinned(5) == [digest("lost"), digest("won")] and archive.body(digest("won")) == b"block won"
    archive.pin_block(5, digest("won"), b"block won")
    assert not staged.is_dirty()

    put(archive, 5, "won")
    batch = staged.take_batch()
    assert layout.body_key(digest("won")) not in [key for key, _ in batch.operations]
    store.write(batch)
    assert archive.block(5) == b"block won"
    assert archive.body(digest("lost")) is None and archive.pinned(5) == [] and not archive.is_pinned(5, digest("won"))
    assert archive.pinned(6) == [digest("later")] and archive.body(digest("later")) == b"block later"


def test_pin_and_decision_in_one_turn(archive: BlockArchive, staged: Staged, store: MemoryKeyValue) -> None:
    archive.pin_block(1, digest("one"), b"block one")
    archive.pin_block(1, digest("other"), b"block other")
    put(archive, 1, "one")
    store.write(staged.take_batch())
    assert archive.block(1) == b"block one" and archive.body(digest("other")) is None
    assert not any(key.startswith(layout.HARD_STATE) for key, _ in store.iterate(b"", b"\xff"))


def test_decision_does_not_search_among_the_pins_of_all_heights_before(archive, staged, store, monkeypatch):
    """Bug: what was deleted there since the last compaction was walked over at every decision, 4 ms after 6,000 blocks."""
    put(archive, 7, "seven")
    store.write(staged.take_batch())
    searched = []
    iterate = MemoryKeyValue.iterate
    monkeypatch.setattr(MemoryKeyValue, "iterate", lambda *args, **options: searched.append(args[1]) or iterate(*args, **options))
    archive.pin_block(8, digest("lost"), b"block lost")
    put(archive, 8, "eight")
    assert archive.pinned(8) == []
    assert searched and min(searched) >= layout.hard_state_range(7, 8)[0]


def test_hard_state_other_than_pins_is_left_to_its_owner(archive: BlockArchive, staged: Staged) -> None:
    vote = layout.hard_state_key(1, b"o", b"vote")
    staged.put(vote, b"signed")
    put(archive, 1, "one")
    assert staged.get(vote) == b"signed"


def test_block_that_does_not_follow_the_head_is_our_bug(archive: BlockArchive, staged: Staged) -> None:
    put(archive, 7, "seven")
    staged.take_batch()
    staged.put(layout.HEAD, layout.uint64(7) + digest("seven"))
    staged_before = staged.get(layout.HEAD)
    for height in (6, 7, 9):
        with pytest.raises(InvariantBroken):
            put(archive, height, "odd")
    with pytest.raises(InvariantBroken):
        archive.pin_block(7, digest("late"), b"late")
    assert staged.get(layout.HEAD) == staged_before and archive.body(digest("odd")) is None


def test_damaged_or_older_block_is_restored_but_never_another_one(archive: BlockArchive, staged: Staged) -> None:
    put(archive, 7, "seven", (b"t" * 32,))
    staged.delete(layout.body_key(digest("seven")))
    assert archive.block(7) is None
    archive.restore_block(7, digest("seven"), b"block seven", b"c", b"r", (b"t" * 32,))
    archive.restore_block(3, digest("three"), b"block three", b"c3", b"r3", (b"u" * 32,))
    assert archive.block(7) == b"block seven" and archive.block(3) == b"block three" and archive.locate(b"u" * 32) == (3, 0)
    assert archive.head() == Head(7, digest("seven"))
    with pytest.raises(InvariantBroken):
        archive.restore_block(7, digest("forged"), b"forged", b"c", b"r", ())
    with pytest.raises(InvariantBroken):
        archive.restore_block(8, digest("eight"), b"block eight", b"c", b"r", ())
    assert archive.body(digest("forged")) is None


def test_events_are_listed_by_subject_in_order_with_a_stable_cursor(archive: BlockArchive) -> None:
    for height in (2, 3, 300):
        archive.add_events(height, [((b"record",), b"%d/%d" % (height, index)) for index in range(3)])
    archive.add_events(2, [((b"recor", b"record2"), b"other subject")])
    every = archive.events(b"record", 0, 2**64 - 1, 100)
    assert [event.event for event in every] == [b"%d/%d" % (height, index) for height in (2, 3, 300) for index in range(3)]
    assert every[0] == StoredEvent(2, 0, b"2/0")
    assert [event.event for event in archive.events(b"record", 3, 3, 100)] == [b"3/0", b"3/1", b"3/2"]
    paged: list[StoredEvent] = []
    height, index = 0, 0
    while page := archive.events(b"record", height, 2**64 - 1, 2, index):
        paged += page
        height, index = page[-1].height, page[-1].index + 1
    assert paged == every
    assert archive.events(b"record", 0, 10, 0) == [] and archive.events(b"record", 5, 4, 9) == [] and archive.events(b"none", 0, 9, 9) == []
