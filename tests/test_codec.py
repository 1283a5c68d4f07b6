"""Canonical msgpack: what goes in comes out, one value has one byte string, and hostile bytes give Malformed and nothing else."""

from __future__ import annotations

import enum
import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medchain import codec
from medchain.errors import InvariantBroken, Malformed

VECTORS = json.loads((Path(__file__).parent / "vectors" / "codec.json").read_text())

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(codec.INT64_MIN, codec.UINT64_MAX)
    | st.integers(-40, 300)
    | st.binary(max_size=300)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
)
KEYS = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=20) | st.dictionaries(KEYS, inner, max_size=20), max_leaves=40)


def from_json(value: Any) -> Any:
    """Vectors write bytes as {"bytes": hex}, lists as {"list": [...]} or {"repeat": [n, value]}, maps as {"map": [[key, value], ...]}."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "bytes":
            return bytes.fromhex(content)
        case "list":
            return [from_json(item) for item in content]
        case "map":
            return {key: from_json(item) for key, item in content}
        case "repeat":
            return [from_json(content[1])] * content[0]
    raise ValueError(kind)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("vector", VECTORS["accepted"], ids=lambda vector: vector["name"])
def test_frozen_encodings_do_not_change(vector: dict[str, Any]) -> None:
    value = from_json(vector["value"])
    assert codec.encode(value).hex() == vector["encoded"]
    assert codec.decode(bytes.fromhex(vector["encoded"])) == value


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_frozen_hostile_bytes_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(Malformed) as caught:
        codec.decode(bytes.fromhex(vector["encoded"]))
    assert vector["message"] in str(caught.value)


@settings(deadline=None)
@given(VALUES)
def test_every_value_comes_back_from_its_bytes(value: Any) -> None:
    encoded = codec.encode(value)
    decoded = codec.decode(encoded)
    assert decoded == value
    assert codec.encode(decoded) == encoded


@settings(deadline=None)
@given(VALUES)
def test_truth_values_and_numbers_keep_their_types(value: Any) -> None:
    def types(item: Any) -> Any:
        if isinstance(item, list):
            return [types(inner) for inner in item]
        if isinstance(item, dict):
            return {key: types(inner) for key, inner in item.items()}
        return type(item)

    assert types(codec.decode(codec.encode(value))) == types(value)


@settings(deadline=None)
@given(st.dictionaries(KEYS, SCALARS, max_size=12), st.randoms(use_true_random=False))
def test_order_of_insertion_does_not_change_the_bytes_of_a_map(value: dict[str, Any], random: Any) -> None:
    pairs = list(value.items())
    random.shuffle(pairs)
    assert codec.encode(dict(pairs)) == codec.encode(value)


def test_map_keys_are_ordered_by_utf8_bytes_not_by_utf16() -> None:
    # U+FFFD sorts after U+1F600 in UTF-16 and before it in UTF-8.
    encoded = codec.encode({"\U0001f600": 1, "\ufffd": 2})
    assert encoded == b"\x82" + b"\xa3" + "\ufffd".encode() + b"\x02" + b"\xa4" + "\U0001f600".encode() + b"\x01"


def test_tuples_encode_as_lists() -> None:
    assert codec.encode((1, (2, b"x"))) == codec.encode([1, [2, b"x"]])


def test_enumerations_encode_as_their_number_or_text() -> None:
    class Number(enum.IntEnum):
        SEVEN = 7

    class Text(enum.StrEnum):
        YES = "yes"

    assert codec.encode([Number.SEVEN, Text.YES]) == codec.encode([7, "yes"])


FOREIGN = (
    *(1.0, {1: 2}, {b"a": 1}, {1, 2}, object(), bytearray(b"x"), memoryview(b"x")),
    *(2**64, -(2**63) - 1, "\ud800", {"\ud800": 1}, [[1.5]], {"a": {"b": 0.5}}),
)


@pytest.mark.parametrize("value", FOREIGN, ids=lambda value: type(value).__name__)
def test_our_own_values_outside_the_format_are_our_bug(value: Any) -> None:
    with pytest.raises(InvariantBroken):
        codec.encode(value)


def test_a_list_that_holds_itself_is_our_bug() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvariantBroken, match="deeper"):
        codec.encode(loop)


@settings(deadline=None, max_examples=60)
@given(VALUES)
def test_bytes_cut_off_anywhere_are_refused(value: Any) -> None:
    encoded = codec.encode(value)
    for length in range(len(encoded)):
        with pytest.raises(Malformed):
            codec.decode(encoded[:length])


@settings(deadline=None)
@given(VALUES, st.binary(min_size=1, max_size=3))
def test_bytes_left_over_are_refused(value: Any, rest: bytes) -> None:
    with pytest.raises(Malformed, match="left over"):
        codec.decode(codec.encode(value) + rest)


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=80))
def test_random_bytes_are_malformed_or_canonical(data: bytes) -> None:
    try:
        value = codec.decode(data)
    except Malformed:
        return
    assert codec.encode(value) == data


HEADS = st.sampled_from([0x80, 0x81, 0x82, 0x90, 0x91, 0x92, 0x93, 0xA0, 0xA1, *range(0xC0, 0xE0)])


@settings(deadline=None, max_examples=1000)
@given(st.lists(HEADS | st.integers(0, 255), max_size=40).map(bytes))
def test_random_heads_are_malformed_or_canonical(data: bytes) -> None:
    try:
        value = codec.decode(data)
    except Malformed:
        return
    assert codec.encode(value) == data


@settings(deadline=None, max_examples=300)
@given(VALUES, st.data())
def test_a_changed_byte_is_malformed_or_another_value(value: Any, data: Any) -> None:
    encoded = bytearray(codec.encode(value))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    try:
        decoded = codec.decode(bytes(encoded))
    except Malformed:
        return
    assert codec.encode(decoded) == encoded != codec.encode(value)


def wider_integers(number: int) -> list[bytes]:
    """Every msgpack form that can hold the number (the specification, "int format family")."""
    forms = []
    if -32 <= number < 128:
        forms.append(struct.pack(">b", number))
    for head, layout in ((0xCC, "B"), (0xCD, "H"), (0xCE, "I"), (0xCF, "Q"), (0xD0, "b"), (0xD1, "h"), (0xD2, "i"), (0xD3, "q")):
        try:
            forms.append(bytes((head,)) + struct.pack(">" + layout, number))
        except struct.error:
            continue
    return forms


def wider_lengths(head_fix: int | None, fix_max: int, heads: tuple[int | None, int, int], length: int) -> list[bytes]:
    forms = []
    if head_fix is not None and length <= fix_max:
        forms.append(bytes((head_fix | length,)))
    for head, layout, maximum in zip(heads, "BHI", (0xFF, 0xFFFF, 0xFFFFFFFF), strict=True):
        if head is not None and length <= maximum:
            forms.append(bytes((head,)) + struct.pack(">" + layout, length))
    return forms


BOUNDARIES = sorted(
    {edge + offset for edge in (0, 127, 128, 255, 256, 2**15, 2**16, 2**31, 2**32, 2**63) for offset in (-1, 0, 1)}
    | {-1, -32, -33, -127, -128, -129, -(2**15), -(2**15) - 1, -(2**31), -(2**31) - 1, -(2**63), 2**64 - 1}
)


@pytest.mark.parametrize("number", BOUNDARIES)
def test_only_one_form_of_an_integer_is_accepted(number: int) -> None:
    forms = wider_integers(number)
    accepted = []
    for form in forms:
        assert msgpack.unpackb(form) == number
        try:
            assert codec.decode(form) == number
        except Malformed:
            continue
        accepted.append(form)
    assert accepted == [codec.encode(number)]
    assert len(accepted[0]) == min(len(form) for form in forms)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536])
@pytest.mark.parametrize("kind", ["text", "bytes", "list", "map"])
def test_only_the_shortest_length_is_accepted(kind: str, length: int) -> None:
    match kind:
        case "text":
            heads, body = wider_lengths(0xA0, 31, (0xD9, 0xDA, 0xDB), length), b"x" * length
        case "bytes":
            heads, body = wider_lengths(None, 0, (0xC4, 0xC5, 0xC6), length), b"x" * length
        case "list":
            heads, body = wider_lengths(0x90, 15, (None, 0xDC, 0xDD), length), b"\xc0" * length
        case _:
            heads, body = wider_lengths(0x80, 15, (None, 0xDE, 0xDF), length), b"".join(b"\xa5%05d\xc0" % index for index in range(length))
    codec.decode(heads[0] + body)
    for head in heads[1:]:
        msgpack.unpackb(head + body)
        with pytest.raises(Malformed, match="canonical"):
            codec.decode(head + body)


@pytest.mark.parametrize(
    "encoded",
    [
        struct.pack(">Bf", 0xCA, 1.0),
        struct.pack(">Bd", 0xCB, float("nan")),
        b"\xc1",
        msgpack.packb(msgpack.ExtType(5, b"")),
        msgpack.packb(msgpack.ExtType(5, b"abc")),
        *(msgpack.packb(msgpack.ExtType(5, bytes(2**power))) for power in range(5)),
        msgpack.packb(msgpack.Timestamp(1, 0)),
        msgpack.packb(msgpack.Timestamp(1, 5)),
    ],
    ids=lambda encoded: encoded[:2].hex(),
)
def test_floats_extensions_and_reserved_heads_are_refused_also_inside(encoded: bytes) -> None:
    for data in (encoded, b"\x91" + encoded, b"\x81\xa1a" + encoded):
        with pytest.raises(Malformed, match="type outside the format"):
            codec.decode(data)


def test_depth_bound_is_the_same_both_ways() -> None:
    deepest = nested(codec.DEPTH_MAX)
    assert codec.decode(codec.encode(deepest)) == deepest
    with pytest.raises(InvariantBroken):
        codec.encode(nested(codec.DEPTH_MAX + 1))
    with pytest.raises(Malformed, match="nested deeper"):
        codec.decode(msgpack.packb(nested(codec.DEPTH_MAX + 1)))
    with pytest.raises(Malformed, match="nested deeper"):
        codec.decode(b"\x91" * codec.DEPTH_MAX + b"\x80")
    assert codec.decode(b"\x91" * codec.DEPTH_MAX + b"\x01", depth_max=codec.DEPTH_MAX) is not None


@pytest.mark.parametrize("head", [b"\x91", b"\x81\xa0", b"\xdc\x00\x01", b"\xdf\x00\x00\x00\x01\xa0"])
def test_a_million_levels_are_refused_without_recursion(head: bytes) -> None:
    with pytest.raises(Malformed, match="nested deeper"):
        codec.decode(head * 1_000_000 + b"\xc0")


def test_a_lower_depth_bound_is_kept() -> None:
    assert codec.decode(b"\x01", depth_max=0) == 1
    with pytest.raises(Malformed, match="nested deeper"):
        codec.decode(b"\x90", depth_max=0)
    assert codec.decode(b"\x91\x90", depth_max=2) == [[]]
    with pytest.raises(Malformed, match="nested deeper"):
        codec.decode(b"\x91\x91\x90", depth_max=2)


def test_items_are_counted_over_all_levels_with_keys_and_values() -> None:
    value = [1, [2, 3], {"a": 4, "b": None}]
    encoded = codec.encode(value)
    items = 1 + 3 + 2 + 4
    assert codec.decode(encoded, items_max=items) == value
    with pytest.raises(Malformed, match=f"more than {items - 1} values"):
        codec.decode(encoded, items_max=items - 1)


def test_size_bound_refuses_one_byte_too_many() -> None:
    encoded = codec.encode(b"x" * 10)
    assert codec.decode(encoded, bytes_max=len(encoded)) == b"x" * 10
    with pytest.raises(Malformed, match="more than the 11 allowed"):
        codec.decode(encoded, bytes_max=len(encoded) - 1)


def test_a_huge_announced_length_takes_no_memory() -> None:
    hostile = [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xdd\x00\x07\xa1\x1f",
        b"\xdd\x00\x07\xa1\x00" * 15,
    ]
    tracemalloc.start()
    for data in hostile:
        with pytest.raises(Malformed):
            codec.decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_a_message_full_of_empty_lists_is_refused_before_they_are_made() -> None:
    inner = b"\xdd" + (400_000).to_bytes(4, "big") + b"\x90" * 400_000
    data = b"\xdc\x00\x05" + inner * 5
    tracemalloc.start()
    with pytest.raises(Malformed, match="more than 500000 values"):
        codec.decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"\x82\xa1b\x01\xa1a\x02", "not in order"),
        (b"\x82\xa1a\x01\xa1a\x02", "there twice"),
        (b"\x81\x01\x02", "not well-formed"),
        (b"\x81\xc4\x01a\x02", "not text"),
        (b"\x81\xc0\x02", "not well-formed"),
        (b"\x81\x90\x02", "not well-formed"),
        (b"\x81\x80\x02", "not well-formed"),
        (b"\x91\x82\xa1b\x01\xa1a\x02", "not in order"),
        (b"\x81\xa1z\x82\xa1b\x01\xa1a\x02", "not in order"),
    ],
)
def test_maps_need_text_keys_in_strict_order(encoded: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        codec.decode(encoded)


@pytest.mark.parametrize("text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"], ids=bytes.hex)
def test_text_that_is_not_utf8_is_refused(text: bytes) -> None:
    head = bytes((0xA0 | len(text),))
    for data in (head + text, b"\x81" + head + text + b"\xc0"):
        with pytest.raises(Malformed):
            codec.decode(data)


def test_empty_bytes_are_refused() -> None:
    with pytest.raises(Malformed, match="end before"):
        codec.decode(b"")


def test_fields_lists_and_items_are_taken_apart_exactly() -> None:
    assert codec.as_fields([1, 2], 2, "a pair") == [1, 2]
    for value in ([1], [1, 2, 3], (1, 2), {"a": 1, "b": 2}, None, b"ab", "ab"):
        with pytest.raises(Malformed, match="a pair must have exactly 2 fields"):
            codec.as_fields(value, 2, "a pair")
    assert codec.as_list([], 0, "the list") == []
    with pytest.raises(Malformed, match="the list must be a list"):
        codec.as_list("ab", 2, "the list")
    with pytest.raises(Malformed, match="the list has 3 items, at most 2 are allowed"):
        codec.as_list([1, 2, 3], 2, "the list")
    assert codec.as_items([1, 2], 2, "numbers", lambda value: codec.as_uint(value, "a number")) == (1, 2)
    with pytest.raises(Malformed, match="a number must be"):
        codec.as_items([1, "2"], 2, "numbers", lambda value: codec.as_uint(value, "a number"))


def test_bytes_reader_checks_type_length_and_maximum() -> None:
    assert codec.as_bytes(b"abc", "the id", length=3) == b"abc"
    assert codec.as_bytes(b"", "the id", maximum=0) == b""
    for value, message in (("abc", "bytes"), (None, "bytes"), (b"ab", "3 bytes long, not 2"), (b"abcd", "3 bytes long, not 4")):
        with pytest.raises(Malformed, match=f"the id must be {message}"):
            codec.as_bytes(value, "the id", length=3)
    with pytest.raises(Malformed, match="at most 2 are allowed"):
        codec.as_bytes(b"abc", "the id", maximum=2)


def test_number_reader_refuses_truth_values_negatives_and_too_large() -> None:
    assert codec.as_uint(0, "the height") == 0
    assert codec.as_uint(codec.UINT64_MAX, "the height") == codec.UINT64_MAX
    for value in (True, False, -1, 11, "1", None, b"1", 1.0, [1]):
        with pytest.raises(Malformed, match="the height must be a whole number from 0 to 10"):
            codec.as_uint(value, "the height", 10)


def test_truth_reader_refuses_numbers() -> None:
    assert codec.as_bool(True, "the flag") is True
    assert codec.as_bool(False, "the flag") is False
    for value in (0, 1, None, "true"):
        with pytest.raises(Malformed, match="the flag must be true or false"):
            codec.as_bool(value, "the flag")


def test_text_reader_counts_utf8_bytes_and_refuses_control_characters() -> None:
    assert codec.as_text("äö", "the name", 4) == "äö"
    with pytest.raises(Malformed, match="the name is longer than 3 bytes"):
        codec.as_text("äö", "the name", 3)
    for value in ("a\nb", "\x00", "\x1b[2J", "\x7f"):
        with pytest.raises(Malformed, match="control character"):
            codec.as_text(value, "the name", 20)
    for value in ("\ud800", "a\udfff"):
        with pytest.raises(Malformed, match="the name holds half a character"):
            codec.as_text(value, "the name", 20)
    for value in (b"a", 1, None):
        with pytest.raises(Malformed, match="the name must be text"):
            codec.as_text(value, "the name", 20)


def test_optional_reader_reads_only_what_is_there() -> None:
    assert codec.as_optional(None, lambda value: codec.as_uint(value, "n")) is None
    assert codec.as_optional(5, lambda value: codec.as_uint(value, "n")) == 5
    with pytest.raises(Malformed):
        codec.as_optional("5", lambda value: codec.as_uint(value, "n"))


@given(st.lists(VALUES, max_size=40))
def test_joined_encodings_are_the_encoding_of_the_list(values: list[Any]) -> None:
    assert codec.join([codec.encode(value) for value in values]) == codec.encode(values)


@pytest.mark.parametrize("count", [0, 15, 16, 65_535, 65_536])
def test_joined_lists_have_the_shortest_head(count: int) -> None:
    assert codec.join([b"\x01"] * count) == codec.encode([1] * count)


@settings(max_examples=300)
@given(VALUES | st.binary(max_size=60), st.integers(0, 5), st.binary(max_size=3))
def test_small_bytes_are_judged_as_large_ones_are(value: Any, depth_max: int, tail: bytes) -> None:
    """Small bytes are decoded before anything is counted, large ones scanned first: whatever is refused by one is refused by the other."""
    for data in (msgpack.packb(value) + tail, value if isinstance(value, bytes) else b"\x91" + tail):
        outcomes = []
        for unscanned_bytes_max in (0, len(data)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(codec, "UNSCANNED_BYTES_MAX", unscanned_bytes_max)
                try:
                    outcomes.append(codec.decode(data, depth_max=depth_max))
                except Malformed:
                    outcomes.append(Malformed)
        assert outcomes[0] == outcomes[1]


@given(VALUES)
def test_own_bytes_are_read_back_without_a_second_look(value: Any) -> None:
    assert codec.decode_own(codec.encode(value)) == codec.decode(codec.encode(value))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\x01", b"\x01\x01"])
def test_own_bytes_that_are_no_msgpack_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        codec.decode_own(data)


@given(st.lists(VALUES, max_size=20))
def test_a_list_is_split_into_what_it_was_joined_from(values: list[Any]) -> None:
    parts = [codec.encode(value) for value in values]
    assert codec.split(codec.join(parts)) == parts


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x01", b"\x92\x01", b"\x91\x01\x01"])
def test_bytes_that_are_no_whole_list_are_not_split(data: bytes) -> None:
    with pytest.raises(Malformed):
        codec.split(data)


def test_value_that_cannot_be_packed_spoils_nothing_after_it() -> None:
    before = codec.encode([1, b"x"])
    for value in (2**64, "\ud800", [b"a", 2**64]):
        with pytest.raises(InvariantBroken):
            codec.encode(value)
        assert codec.encode([1, b"x"]) == before
