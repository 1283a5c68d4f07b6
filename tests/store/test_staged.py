"""The writes of one turn."""

from __future__ import annotations

from medchain.store.keyvalue import EMPTY_BATCH, WriteBatch
from medchain.store.memory import MemoryKeyValue
from medchain.store.staged import Staged


def test_batch_leaves_in_key_order_with_the_last_write_of_each_key() -> None:
    staged = Staged(MemoryKeyValue())
    staged.put(b"b", b"1")
    staged.put(b"a", b"1")
    staged.delete(b"c")
    staged.put(b"b", b"2")
    assert staged.is_dirty()
    assert staged.take_batch() == WriteBatch.of((b"a", b"1"), (b"b", b"2"), (b"c", None))
    assert not staged.is_dirty()
    assert staged.take_batch() is EMPTY_BATCH
    assert not EMPTY_BATCH


def test_base_is_untouched_until_the_world_writes_the_batch() -> None:
    base = MemoryKeyValue()
    base.write(WriteBatch.of((b"a", b"old"), (b"b", b"old")))
    staged = Staged(base)
    staged.put(b"a", b"new")
    staged.delete(b"b")
    assert base.get(b"a") == b"old" and base.get(b"b") == b"old"
    assert staged.get(b"a") == b"new" and staged.get(b"b") is None
    base.write(staged.take_batch())
    assert staged.get(b"a") == b"new" and staged.get(b"b") is None


def test_iteration_is_not_disturbed_by_staging_more() -> None:
    base = MemoryKeyValue()
    base.write(WriteBatch.of((b"a", b"1"), (b"c", b"3")))
    staged = Staged(base)
    staged.put(b"b", b"2")
    rows = staged.iterate(b"a", b"z")
    assert next(rows) == (b"a", b"1")
    staged.put(b"b", b"changed")
    staged.put(b"d", b"4")
    staged.delete(b"c")
    assert list(rows) == [(b"b", b"2"), (b"c", b"3")]


def test_merged_batches_keep_their_order() -> None:
    first, second = WriteBatch.of((b"a", b"1")), WriteBatch.of((b"a", None), (b"b", b"2"))
    assert first.merged(second, EMPTY_BATCH).operations == ((b"a", b"1"), (b"a", None), (b"b", b"2"))


def test_copy_of_a_memory_store_is_independent() -> None:
    store = MemoryKeyValue()
    store.write(WriteBatch.of((b"a", b"1")))
    twin = store.copy()
    store.write(WriteBatch.of((b"a", b"2"), (b"b", b"2")))
    assert twin.get(b"a") == b"1" and len(twin) == 1 and len(store) == 2
