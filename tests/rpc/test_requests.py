"""Hostile JSON gives Malformed and nothing else, in bounded time and memory."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain.errors import Malformed
from medchain.rpc.requests import Request, id_of, read_json, read_request

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def read(data: bytes):
    return read_json(data, depth_max=8, values_max=1_000)


@given(JSON)
def test_json_is_read_back(value):
    text = json.dumps(value)
    if text.count("[") + text.count("{") < 8:
        assert read(text.encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_malformed(data):
    with contextlib.suppress(Malformed):
        read(data)


@given(JSON, st.data())
def test_damaged_json_gives_a_value_or_malformed(value, data):
    text = bytearray(json.dumps(value).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Malformed):
        read(bytes(text))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b'{"a":1',
        b'{"a":1}}',
        b'{"a":1} x',
        b'{"a":1,"a":2}',
        b'{"x":{"a":1,"\\u0061":2}}',
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"[1" + b"0" * 40 + b"]",
        b"[1." + b"0" * 40 + b"]",
        b"[1" + b"0" * 5000 + b"]",
        b"[1,]",
        b"{'a':1}",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'["\xff"]',
        b'["\n"]',
        b"[" * 9 + b"]" * 9,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" + b"1," * 2_000 + b"1]",
        b"[" + b"[]," * 2_000 + b"[]]",
    ],
)
def test_what_is_no_plain_json_is_malformed(data):
    with pytest.raises(Malformed):
        read(data)


def test_marks_inside_text_do_not_count():
    value = {"text": '[[[[[[[[[[{{{{,,,,,,"\\' * 200, "more": ["\\", '"', "\\\\\""]}
    assert read(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "data",
    [
        b'"' + b'\\"' * 2_000_000, b'\\"' * 2_000_000, b'"\\' * 2_000_000, b'""' * 2_000_000, b"[" + b'"",' * 1_500_000,
        b'"' + b"\\" * 4_000_000,
    ],
)  # fmt: skip
def test_a_large_hostile_body_is_refused_quickly(data):
    began = time.monotonic()
    with pytest.raises(Malformed):
        read(data)
    assert time.monotonic() - began < 5, "reading is not linear"


def test_a_call_is_read():
    assert read_request({"jsonrpc": "2.0", "id": "a", "method": "node.status"}) == Request("a", "node.status", None)
    assert read_request({"jsonrpc": "2.0", "id": 0, "method": "m", "params": [1]}) == Request(0, "m", [1])


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "x",
        [],
        {},
        {"id": 1, "method": "m"},
        {"jsonrpc": "1.0", "id": 1, "method": "m"},
        {"jsonrpc": 2.0, "id": 1, "method": "m"},
        {"jsonrpc": "2.0", "id": 1},
        {"jsonrpc": "2.0", "id": 1, "method": 5},
        {"jsonrpc": "2.0", "id": 1, "method": ""},
        {"jsonrpc": "2.0", "id": 1, "method": "m" * 65},
        {"jsonrpc": "2.0", "id": 1, "method": "m", "extra": 1},
        {"jsonrpc": "2.0", "method": "m"},
        {"jsonrpc": "2.0", "id": None, "method": "m"},
        {"jsonrpc": "2.0", "id": True, "method": "m"},
        {"jsonrpc": "2.0", "id": 1.0, "method": "m"},
        {"jsonrpc": "2.0", "id": 2**53, "method": "m"},
        {"jsonrpc": "2.0", "id": "i" * 65, "method": "m"},
        {"jsonrpc": "2.0", "id": [1], "method": "m"},
    ],
)
def test_what_is_no_call_is_malformed(value):
    with pytest.raises(Malformed):
        read_request(value)


def test_an_answer_to_no_call_repeats_the_id_where_there_is_one():
    assert id_of({"id": 7, "nonsense": 1}) == 7
    assert id_of({"id": {"a": 1}}) is None
    assert id_of([7]) is None


@given(JSON)
def test_any_value_is_a_call_or_malformed(value):
    with contextlib.suppress(Malformed):
        assert isinstance(read_request(value), Request)
