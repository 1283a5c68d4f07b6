"""The overlay a block executes on, against a dict as the model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medchain.errors import InvariantBroken
from medchain.store.keyvalue import WriteBatch
from medchain.store.layout import state_key
from medchain.store.memory import MemoryKeyValue
from medchain.store.overlay import Overlay, StoredState

KEYS = st.binary(min_size=1, max_size=2)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.binary(max_size=2)),
        st.tuples(st.just("delete"), KEYS, st.just(b"")),
        st.tuples(st.just("get"), KEYS, st.just(b"")),
        st.tuples(st.just("mark"), st.just(b""), st.just(b"")),
        st.tuples(st.just("rollback"), st.just(b""), st.just(b"")),
        st.tuples(st.just("iterate"), st.binary(max_size=1), st.just(b"")),
    ),
    max_size=60,
)


def stored(pairs: dict[bytes, bytes]) -> StoredState:
    store = MemoryKeyValue()
    store.write(WriteBatch(tuple((state_key(key), value) for key, value in pairs.items())).merged(WriteBatch.of((b"t/x", b"other range"))))
    return StoredState(store)


def test_stored_state_shows_only_the_state_range_without_its_prefix() -> None:
    view = stored({b"a/1": b"x", b"a/2": b"y", b"b": b"z"})
    assert view.get(b"a/1") == b"x" and view.get(b"none") is None
    assert list(view.iterate(b"a/")) == [(b"a/1", b"x"), (b"a/2", b"y")]
    assert [key for key, _ in view.iterate(b"")] == [b"a/1", b"a/2", b"b"]


CHANGES = st.lists(st.dictionaries(KEYS, st.one_of(st.none(), st.binary(max_size=2)), max_size=8), max_size=12)


@given(rounds=CHANGES, asked=st.lists(KEYS, max_size=12), remembered=st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_what_stored_state_remembers_is_always_what_the_store_holds(
    rounds: list[dict[bytes, bytes | None]], asked: list[bytes], remembered: int
) -> None:
    store = MemoryKeyValue()
    view = StoredState(store, remembered)
    for changes in rounds:
        view.adopt(changes)
        store.write(WriteBatch(tuple((state_key(key), value) for key, value in changes.items())))
        for key in [*asked, *changes]:
            assert view.get(key) == store.get(state_key(key))


@given(base=st.dictionaries(KEYS, st.binary(max_size=2), max_size=10), steps=STEPS, stack=st.booleans())
@settings(max_examples=150, deadline=None)
def test_overlay_behaves_like_a_dict_with_snapshots(base: dict[bytes, bytes], steps: list[tuple[str, bytes, bytes]], stack: bool) -> None:
    beneath = Overlay(stored(base))
    model = dict(base)
    if stack:
        beneath.put(b"\x01", b"stacked")
        beneath.delete(b"\x02")
        model[b"\x01"] = b"stacked"
        model.pop(b"\x02", None)
    start = dict(model)
    overlay = Overlay(beneath if stack else stored(base))
    marks: list[tuple[int, dict[bytes, bytes]]] = []
    for action, key, value in steps:
        if action == "put":
            overlay.put(key, value)
            model[key] = value
        elif action == "delete":
            overlay.delete(key)
            model.pop(key, None)
        elif action == "get":
            assert overlay.get(key) == model.get(key)
        elif action == "mark":
            marks.append((overlay.mark(), dict(model)))
        elif action == "rollback" and marks:
            mark, model = marks.pop()
            overlay.rollback(mark)
        elif action == "iterate":
            assert list(overlay.iterate(key)) == sorted((known, model[known]) for known in model if known.startswith(key))
    assert list(overlay.iterate(b"")) == sorted(model.items())
    changes = overlay.changes()
    assert list(changes) == sorted(changes)
    after = dict(start)
    for key, change in changes.items():
        if change is None:
            after.pop(key, None)
        else:
            after[key] = change
    assert after == model


def test_writing_back_what_was_read_is_no_change() -> None:
    overlay = Overlay(stored({b"a": b"1"}))
    assert overlay.get(b"a") == b"1" and overlay.get(b"b") is None
    overlay.put(b"a", b"2")
    overlay.put(b"a", b"1")
    overlay.put(b"b", b"x")
    overlay.delete(b"b")
    assert overlay.changes() == {}


def test_rollback_forgets_everything_since_the_mark() -> None:
    overlay = Overlay(stored({b"a": b"1"}))
    overlay.put(b"k", b"kept")
    mark = overlay.mark()
    overlay.put(b"a", b"2")
    overlay.delete(b"k")
    overlay.put(b"new", b"3")
    overlay.rollback(mark)
    assert overlay.changes() == {b"k": b"kept"}
    assert [key for key, _ in overlay.iterate(b"")] == [b"a", b"k"]
    with pytest.raises(InvariantBroken):
        overlay.rollback(mark + 1)


def test_iteration_is_not_disturbed_by_writes_made_meanwhile() -> None:
    overlay = Overlay(stored({b"p/1": b"1", b"p/3": b"3"}))
    overlay.put(b"p/2", b"2")
    seen = []
    for key, value in overlay.iterate(b"p/"):
        seen.append((key, value))
        overlay.delete(key)
        overlay.put(b"p/9" + key, b"new")
    assert seen == [(b"p/1", b"1"), (b"p/2", b"2"), (b"p/3", b"3")]
    assert len(list(overlay.iterate(b"p/"))) == 3
