"""The table of RPC methods: parameters of the stated kinds come through, everything else is Malformed."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain.errors import Malformed
from medchain.wire import methods
from medchain.wire.methods import METHODS, check_params, params_to_json, read_hex, to_json

DIGEST = bytes(range(32))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def example(param: methods.Param) -> object:
    """A well-formed JSON value for a parameter."""
    return {
        "digest": DIGEST.hex(), "key": DIGEST.hex(), "bytes": "00ff", "bytes_list": ["00", "ff"], "uint": 1, "text": "TREAT",
        "boolean": True,
    }[param.kind]  # fmt: skip


def test_every_method_says_what_it_does_and_who_serves_it():
    for name, method in METHODS.items():
        assert name == method.name
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", name)
        assert method.served_by in methods.SERVERS
        assert method.doc.endswith(".") and method.result_doc
        assert len({param.name for param in method.params}) == len(method.params)
        for param in method.params:
            assert param.kind in methods.KINDS
            assert param.doc


@pytest.mark.parametrize("name", METHODS)
def test_well_formed_parameters_come_through_as_bytes_and_numbers(name):
    method = METHODS[name]
    checked = check_params(name, {param.name: example(param) for param in method.params})
    assert list(checked) == [param.name for param in method.params]
    for param in method.params:
        if param.kind in ("digest", "key"):
            assert checked[param.name] == DIGEST
        elif param.kind == "bytes":
            assert checked[param.name] == b"\x00\xff"
        elif param.kind == "bytes_list":
            assert checked[param.name] == (b"\x00", b"\xff")


@pytest.mark.parametrize("name", METHODS)
def test_absent_optional_parameters_take_their_default_and_required_ones_are_missed(name):
    method = METHODS[name]
    required = {param.name: example(param) for param in method.params if param.is_required}
    checked = check_params(name, required or None)
    for param in method.params:
        if not param.is_required:
            assert checked[param.name] == param.default
    for missing in required:
        with pytest.raises(Malformed, match=f"needs the parameter {missing}"):
            check_params(name, {key: value for key, value in required.items() if key != missing})


@pytest.mark.parametrize("name", METHODS)
def test_unknown_names_are_refused(name):
    values = {param.name: example(param) for param in METHODS[name].params}
    with pytest.raises(Malformed, match="parameters"):
        check_params(name, {**values, "surprise": 1})


@pytest.mark.parametrize("params", [[], [1], "x", 7, True, 1.5])
def test_parameters_that_are_no_object_are_refused(params):
    with pytest.raises(Malformed, match="by name"):
        check_params("tx.status", params)


def test_unknown_method_is_refused():
    with pytest.raises(Malformed, match="no method"):
        check_params("node.stop", {})


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("tx.status", "id", DIGEST.hex()[:-2]),
        ("tx.status", "id", DIGEST.hex() + "00"),
        ("tx.status", "id", DIGEST.hex().upper()),
        ("tx.status", "id", "0x" + DIGEST.hex()[2:]),
        ("tx.status", "id", DIGEST.hex() + "\n"),
        ("tx.status", "id", " " * 64),
        ("tx.status", "id", 5),
        ("tx.status", "id", [DIGEST.hex()]),
        ("state.get", "key", "0"),
        ("state.get", "key", "00" * 257),
        ("tx.submit", "transaction", "00" * (64 * 1024 + 1)),
        ("tx.submit_batch", "transactions", "00"),
        ("tx.submit_batch", "transactions", ["00", 1]),
        ("tx.submit_batch", "transactions", ["00"] * 65),
        ("chain.block", "height", -1),
        ("chain.block", "height", True),
        ("chain.block", "height", 1.0),
        ("chain.block", "height", "1"),
        ("chain.block", "height", 2**60),
        ("tx.wait", "timeout_ms", 120_001),
        ("consents.explain", "purpose", "x" * 257),
        ("consents.explain", "purpose", "a\x00b"),
        ("consents.explain", "purpose", "\ud800"),
        ("consents.explain", "purpose", 3),
        ("access.emergencies", "is_open", 1),
        ("access.emergencies", "is_open", "true"),
    ],
)
def test_values_of_another_kind_or_out_of_bounds_are_refused(method, name, value):
    values = {param.name: example(param) for param in METHODS[method].params}
    with pytest.raises(Malformed, match=name):
        check_params(method, {**values, name: value})


@given(st.sampled_from(list(METHODS)), JSON)
def test_whatever_json_holds_gives_parameters_or_malformed(name, params):
    try:
        checked = check_params(name, params)
    except Malformed:
        return
    assert list(checked) == [param.name for param in METHODS[name].params]


@given(st.sampled_from(list(METHODS)), st.data())
def test_whatever_stands_under_a_known_name_gives_parameters_or_malformed(name, data):
    params = {param.name: data.draw(JSON | st.just(example(param))) for param in METHODS[name].params}
    try:
        checked = check_params(name, params)
    except Malformed:
        return
    assert check_params(name, json.loads(json.dumps(params))) == checked


def test_answers_write_bytes_as_lower_case_hexadecimal_text():
    answer = {"id": b"\xab", "rows": ({"key": b""}, [b"\x01", None, 3, True, "text"])}
    assert to_json(answer) == {"id": "ab", "rows": [{"key": ""}, ["01", None, 3, True, "text"]]}


def test_a_client_writes_what_the_server_reads():
    written = params_to_json("consents.explain", {"clinician": DIGEST, "record": DIGEST, "purpose": "TREAT", "role": None})
    assert written == {"clinician": DIGEST.hex(), "record": DIGEST.hex(), "purpose": "TREAT"}
    with pytest.raises(Malformed, match="takes only"):
        params_to_json("tx.status", {"id": DIGEST, "height": 3})


@given(st.binary(max_size=64))
def test_hexadecimal_text_is_read_back_and_has_one_form(data):
    assert read_hex(data.hex(), "bytes", 64) == data
    if data.hex() != data.hex().upper():
        with pytest.raises(Malformed):
            read_hex(data.hex().upper(), "bytes", 64)
