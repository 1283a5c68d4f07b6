"""What every key-value store must do, run against each implementer in conftest.KEY_VALUE_MAKERS."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medchain.errors import InvariantBroken
from medchain.store.keyvalue import EMPTY_BATCH, KEY_BYTES_MAX, KeyValue, WriteBatch, prefix_end
from medchain.store.staged import Staged

EVERYTHING = (b"", b"\xff" * 1100)


def content(store: Any) -> dict[bytes, bytes]:
    return dict(store.iterate(*EVERYTHING))


def test_missing_key_has_no_value(store: KeyValue) -> None:
    assert store.get(b"nothing") is None
    assert list(store.iterate(*EVERYTHING)) == []


def test_batch_writes_and_deletes_together(store: KeyValue) -> None:
    store.write(WriteBatch.of((b"a", b"1"), (b"b", b"2")))
    store.write(WriteBatch.of((b"a", None), (b"c", b"3"), (b"never", None)))
    assert content(store) == {b"b": b"2", b"c": b"3"}
    assert store.get(b"a") is None and store.get(b"c") == b"3"


def test_last_operation_on_a_key_wins(store: KeyValue) -> None:
    store.write(WriteBatch.of((b"a", b"1"), (b"a", None), (b"a", b"2"), (b"b", b"1"), (b"b", None)))
    assert content(store) == {b"a": b"2"}


def test_empty_value_is_a_value_and_empty_batch_is_nothing(store: KeyValue) -> None:
    store.write(WriteBatch.of((b"a", b"")))
    store.write(EMPTY_BATCH)
    assert store.get(b"a") == b""


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("key", [b"", b"\x00", b"a"])
def test_only_row_at_the_start_of_a_range_is_found_in_both_directions(store: KeyValue, key: bytes, reverse: bool) -> None:
    """plyvel loses it when it goes backwards."""
    store.write(WriteBatch.of((key, b"1"), (b"b", b"2")))
    assert list(store.iterate(key, b"b", reverse=reverse)) == [(key, b"1")]


def test_longest_key_and_a_value_of_a_full_block_are_kept(store: KeyValue) -> None:
    key, value = b"k" * KEY_BYTES_MAX, bytes(range(256)) * (4 * 1024 * 4)
    store.write(WriteBatch.of((key, value)))
    assert store.get(key) == value


def test_iteration_is_in_byte_order_start_included_stop_excluded(store: KeyValue) -> None:
    keys = [b"", b"\x00", b"a", b"a\x00", b"ab", b"b", b"\xff", b"\xff\xff"]
    store.write(WriteBatch(tuple((key, key + b"!") for key in reversed(keys))))
    assert [key for key, _ in store.iterate(*EVERYTHING)] == keys
    assert [key for key, _ in store.iterate(b"a", b"b")] == [b"a", b"a\x00", b"ab"]
    assert [key for key, _ in store.iterate(b"a", b"b", reverse=True)] == [b"ab", b"a\x00", b"a"]
    assert list(store.iterate(b"a\x00", b"a\x01")) == [(b"a\x00", b"a\x00!")]
    assert list(store.iterate(b"b", b"b")) == []
    assert list(store.iterate(b"b", b"a")) == [] and list(store.iterate(b"b", b"a", reverse=True)) == []


def test_prefix_end_bounds_exactly_the_prefix(store: KeyValue) -> None:
    store.write(WriteBatch(tuple((key, b"") for key in (b"a/", b"a/\xff\xff", b"a0", b"b", b"\xff\xff", b"\xff"))))
    assert [key for key, _ in store.iterate(b"a/", prefix_end(b"a/"))] == [b"a/", b"a/\xff\xff"]
    assert [key for key, _ in store.iterate(b"\xff", prefix_end(b"\xff"))] == [b"\xff", b"\xff\xff"]
    assert len(list(store.iterate(b"", prefix_end(b"")))) == 6
    assert prefix_end(b"a\xff\xff") == b"b"


@pytest.mark.parametrize("reverse", [False, True])
def test_iteration_shows_the_moment_of_the_call_whatever_is_written_meanwhile(store: KeyValue, reverse: bool) -> None:
    before = [(b"%02d" % number, b"old") for number in range(20)]
    store.write(WriteBatch(tuple(before)))
    untouched = store.iterate(*EVERYTHING, reverse=reverse)
    begun = store.iterate(*EVERYTHING, reverse=reverse)
    seen = [next(begun), next(begun)]
    changes: list[tuple[bytes, bytes | None]] = [(b"%02d" % number, None if number % 2 else b"new") for number in range(20)]
    store.write(WriteBatch(tuple(changes)).merged(WriteBatch.of((b"00x", b"new"), (b"99", b"new"))))
    seen += list(begun)
    expected = before[::-1] if reverse else before
    assert seen == expected
    assert list(untouched) == expected
    assert len(content(store)) == 12


def test_closing_twice_is_allowed_and_use_afterwards_is_our_bug(store: KeyValue) -> None:
    store.close()
    store.close()
    with pytest.raises(InvariantBroken):
        store.get(b"a")
    with pytest.raises(InvariantBroken):
        store.iterate(b"a", b"b")
    with pytest.raises(InvariantBroken):
        store.write(WriteBatch.of((b"a", b"1")))


def test_what_was_written_is_there_after_opening_again(durable_maker: Any, tmp_path: Path) -> None:
    store = durable_maker.open(tmp_path)
    store.write(WriteBatch.of((b"a", b"1"), (b"b", b"2")))
    store.write(WriteBatch.of((b"a", None)))
    store.close()
    again = durable_maker.open(tmp_path)
    assert content(again) == {b"b": b"2"}
    again.close()


KEYS = st.binary(max_size=3)
BATCHES = st.lists(st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=4)), max_size=12), max_size=8)


@given(batches=BATCHES, start=KEYS, stop=KEYS, reverse=st.booleans())
@settings(max_examples=60, deadline=None)
def test_store_behaves_like_a_dict(
    maker: Any, batches: list[list[tuple[bytes, bytes | None]]], start: bytes, stop: bytes, reverse: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = maker.open(Path(directory))
        model: dict[bytes, bytes] = {}
        for operations in batches:
            store.write(WriteBatch(tuple(operations)))
            _apply(model, operations)
        expected = sorted(((key, value) for key, value in model.items() if start <= key < stop), reverse=reverse)
        assert list(store.iterate(start, stop, reverse=reverse)) == expected
        assert content(store) == model
        store.close()


@given(batches=BATCHES, start=KEYS, stop=KEYS, reverse=st.booleans())
@settings(max_examples=60, deadline=None)
def test_staged_writes_read_like_written_ones(
    maker: Any, batches: list[list[tuple[bytes, bytes | None]]], start: bytes, stop: bytes, reverse: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = maker.open(Path(directory))
        staged = Staged(store)
        model: dict[bytes, bytes] = {}
        for turn, operations in enumerate(batches):
            staged.stage(operations)
            _apply(model, operations)
            expected = sorted(((key, value) for key, value in model.items() if start <= key < stop), reverse=reverse)
            assert list(staged.iterate(start, stop, reverse=reverse)) == expected
            assert all(staged.get(key) == model.get(key) for key, _ in operations)
            if turn % 2:
                store.write(staged.take_batch())
        store.write(staged.take_batch())
        assert content(store) == model
        store.close()


def _apply(model: dict[bytes, bytes], operations: list[tuple[bytes, bytes | None]]) -> None:
    for key, value in operations:
        if value is None:
            model.pop(key, None)
        else:
            model[key] = value
