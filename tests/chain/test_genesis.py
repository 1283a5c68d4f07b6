"""The genesis document: one network, however it is laid out, and nothing else in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain.chain import limits
from medchain.chain.genesis import OBSERVER, Genesis, Hospital
from medchain.chain.parameters import BOUNDS, Parameters
from medchain.crypto.hashing import tagged_digest
from medchain.errors import Malformed
from tests.chain.conftest import genesis, hospital, signing_key

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "genesis.json").read_text())
GENESIS = genesis()
TEXT = GENESIS.to_json()
Document = dict[str, Any]


def edited(change: Callable[[Document], Any]) -> str:
    document = json.loads(TEXT)
    change(document)
    return json.dumps(document)


def setting(*path: str | int, value: Any) -> str:
    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return edited(change)


def without(*path: str | int) -> str:
    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        del document[path[-1]]

    return edited(change)


def test_the_document_comes_back() -> None:
    assert Genesis.from_json(TEXT) == GENESIS
    assert Genesis.from_json(TEXT.encode()) == GENESIS
    assert Genesis.from_json(TEXT).to_json() == TEXT
    assert GENESIS.domain().genesis == GENESIS.digest() and GENESIS.domain().recovery == 0


def backwards(value: Any) -> Any:
    """The same JSON with the names of every object in another order."""
    if isinstance(value, dict):
        return {name: backwards(value[name]) for name in reversed(value)}
    return [backwards(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(json.loads(TEXT), separators=(",", ":")),
        json.dumps(json.loads(TEXT), indent=8, ensure_ascii=True),
        json.dumps(backwards(json.loads(TEXT))),
        json.dumps(json.loads(TEXT), sort_keys=True, ensure_ascii=False),
        "\r\n\t " + TEXT.replace("\n", "\r\n") + "\n\n",
        TEXT.replace("chain_id", "\\u0063hain_id"),
    ],
    ids=["dense", "escaped", "backwards", "sorted", "crlf", "escaped name"],
)
def test_the_layout_of_the_document_does_not_matter_to_the_digest(text: str) -> None:
    assert text != TEXT
    assert Genesis.from_json(text) == GENESIS
    assert Genesis.from_json(text).digest() == GENESIS.digest()


def test_the_founding_validators_are_the_hospitals_with_that_role() -> None:
    validators = GENESIS.validators()
    assert validators.changed_at == 0
    assert validators.keys == tuple(member.consensus_key for member in GENESIS.hospitals if member.role != OBSERVER)
    assert all(member.may_vote for member in validators.validators)


# ------------------------------------------------------------------------------------------------------------------- what it covers

HOSPITAL_CHANGES: dict[str, Any] = {
    "name": "Other", "role": OBSERVER, "consensus_key": b"\0" * 31 + b"\1", "officer_key": signing_key("x").public,
    "organisation_key": signing_key("y").public, "opening_suite": 1, "opening_key": b"other", "certificate": b"other",
    "endpoints": ("elsewhere:7000",),
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(Hospital)])
def test_the_digest_covers_each_field_of_a_hospital(name: str) -> None:
    hospitals = (replace(hospital(0), **{name: HOSPITAL_CHANGES[name]}), *(hospital(number) for number in range(1, 5)))
    changed = replace(GENESIS, hospitals=hospitals, parameters=GENESIS.parameters)
    plain = replace(GENESIS, hospitals=tuple(hospital(number) for number in range(5)))
    assert changed.digest() != plain.digest()
    assert Genesis.from_json(changed.to_json()) == changed


@pytest.mark.parametrize("name", BOUNDS)
def test_the_digest_covers_each_parameter(name: str) -> None:
    values = GENESIS.parameters.as_names()
    values[name] = values[name] * 2 if name == "state_buckets" else values[name] + 1
    assert replace(GENESIS, parameters=Parameters.from_names(values)).digest() != GENESIS.digest()


def test_the_digest_covers_chain_id_and_time_and_is_tagged() -> None:
    assert replace(GENESIS, chain_id="tesu").digest() != GENESIS.digest()
    assert replace(GENESIS, time_ms=GENESIS.time_ms + 1).digest() != GENESIS.digest()
    assert GENESIS.digest() == tagged_digest("medchain/genesis", GENESIS.encode())


# -------------------------------------------------------------------------------------------------------------------------- refusals

NAMES = ["medchain_genesis", "chain_id", "time_ms", "parameters", "hospitals"]
HOSPITAL_NAMES = [field.name for field in fields(Hospital)]


@pytest.mark.parametrize("name", NAMES)
def test_a_document_that_lacks_a_name_is_refused(name: str) -> None:
    with pytest.raises(Malformed, match="must hold exactly"):
        Genesis.from_json(without(name))


@pytest.mark.parametrize("name", HOSPITAL_NAMES)
def test_a_hospital_that_lacks_a_name_is_refused(name: str) -> None:
    with pytest.raises(Malformed, match="a hospital must hold exactly"):
        Genesis.from_json(without("hospitals", 1, name))


@pytest.mark.parametrize("name", BOUNDS)
def test_a_document_that_lacks_a_parameter_is_refused(name: str) -> None:
    """Defaults differ between versions of the program; a network's parameters must not."""
    with pytest.raises(Malformed, match="every parameter"):
        Genesis.from_json(without("parameters", name))


@pytest.mark.parametrize("path", [("comment",), ("parameters", "comment"), ("hospitals", 0, "comment")])
def test_unknown_names_are_refused(path: tuple[str | int, ...]) -> None:
    with pytest.raises(Malformed):
        Genesis.from_json(setting(*path, value=1))


def test_an_unknown_parameter_in_the_place_of_a_known_one_is_refused() -> None:
    def change(document: Document) -> None:
        document["parameters"]["clock_skew"] = document["parameters"].pop("clock_bound_ms")

    with pytest.raises(Malformed, match="unknown parameter clock_skew"):
        Genesis.from_json(edited(change))


@pytest.mark.parametrize(
    "path",
    [(name,) for name in NAMES] + [("parameters", name) for name in BOUNDS] + [("hospitals", 1, name) for name in HOSPITAL_NAMES],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_name_that_stands_twice_is_refused_whichever_comes_first(path: tuple[str | int, ...], is_first: bool) -> None:
    """One reader takes the first, another the last: two members would see two networks in one file."""
    document: Any = json.loads(TEXT)
    holder = document
    for step in path[:-1]:
        holder = holder[step]
    members = dict(holder)
    holder.clear()
    holder.update({"@": 1, **members} if is_first else {**members, "@": 1})
    doubled = json.dumps(document).replace('"@":', f'"{path[-1]}":')
    assert isinstance(json.loads(doubled), dict), "other readers take it"
    with pytest.raises(Malformed, match="a name stands twice"):
        Genesis.from_json(doubled)


def test_a_name_that_stands_twice_with_the_same_value_or_escaped_is_refused() -> None:
    line = '"chain_id": "test",'
    for other in (line, '"\\u0063hain_id": "test",'):
        with pytest.raises(Malformed, match="a name stands twice"):
            Genesis.from_json(TEXT.replace(line, line + other))


@pytest.mark.parametrize(
    "path",
    [
        ("medchain_genesis",),
        ("time_ms",),
        ("parameters", "heartbeat_ms"),
        ("parameters", "state_buckets"),
        ("hospitals", 0, "opening_suite"),
    ],
)
@pytest.mark.parametrize("spelling", ["{}.0", "{}e0", "{}E+0", "-0.0", "NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_written_whole_are_refused(path: tuple[str | int, ...], spelling: str) -> None:
    value: Any = json.loads(TEXT)
    for step in path:
        value = value[step]
    text = setting(*path, value="@").replace('"@"', spelling.format(value))
    with pytest.raises(Malformed, match="must be whole"):
        Genesis.from_json(text)


@pytest.mark.parametrize("path", [(name,) for name in NAMES] + [("hospitals", 0, name) for name in HOSPITAL_NAMES] + [("hospitals", 0)])
def test_values_of_another_type_are_refused(path: tuple[str | int, ...]) -> None:
    for wrong in (None, True, False, -1, 2**63, 10**30, "\u0000", "\ud800", "x" * 100_000, ["a"] * 200, [[]], {"a": 1}, [None], [1]):
        with pytest.raises(Malformed):
            Genesis.from_json(setting(*path, value=wrong))


@pytest.mark.parametrize("name", ["consensus_key", "officer_key", "organisation_key", "opening_key", "certificate"])
def test_keys_are_lower_case_hexadecimal_of_the_right_length(name: str) -> None:
    good = json.loads(TEXT)["hospitals"][0][name]
    wrong = [good.upper(), " " + good, good + "\n", "0x" + good, good[:-1], good[:2] + " " + good[2:], "z" * len(good), "é" * len(good)]
    wrong += [] if name in ("opening_key", "certificate") else [good[:-2], good + "00", ""]
    for value in (text for text in wrong if text != good):
        with pytest.raises(Malformed):
            Genesis.from_json(setting("hospitals", 0, name, value=value))


@pytest.mark.parametrize("version", [0, 2, "1", True, None, [1]])
def test_another_version_is_refused(version: Any) -> None:
    with pytest.raises(Malformed, match="not of version 1"):
        Genesis.from_json(setting("medchain_genesis", value=version))


def test_half_a_character_is_refused_where_text_stands() -> None:
    """JSON can spell a lone surrogate; it has no canonical bytes, and must not first fail when the digest is made."""
    for path in (("chain_id",), ("hospitals", 0, "name"), ("hospitals", 0, "endpoints", 0)):
        with pytest.raises(Malformed, match="half a character"):
            Genesis.from_json(setting(*path, value="\ud800"))


def test_fewer_than_four_validators_are_refused() -> None:
    with pytest.raises(Malformed, match="at least four validators"):
        Genesis.from_json(edited(lambda document: document["hospitals"].pop(0)))
    with pytest.raises(Malformed, match="at least four validators"):
        Genesis.from_json(setting("hospitals", 0, "role", value=OBSERVER))
    with pytest.raises(Malformed, match="at least four validators"):
        Genesis.from_json(setting("hospitals", value=[]))


def test_hospitals_out_of_order_are_refused() -> None:
    with pytest.raises(Malformed, match="ascending order"):
        Genesis.from_json(edited(lambda document: document["hospitals"].reverse()))


@pytest.mark.parametrize("role", ["consensus_key", "officer_key", "organisation_key"])
@pytest.mark.parametrize("other", ["consensus_key", "officer_key", "organisation_key"])
def test_a_key_that_two_roles_or_two_hospitals_share_is_refused(role: str, other: str) -> None:
    hospitals = json.loads(TEXT)["hospitals"]
    with pytest.raises(Malformed, match=r"its own|ascending order"):
        Genesis.from_json(setting("hospitals", 1, role, value=hospitals[0][other]))
    if role != other:
        with pytest.raises(Malformed, match=r"its own|ascending order"):
            Genesis.from_json(setting("hospitals", 0, role, value=hospitals[0][other]))


def test_names_must_be_there_and_differ() -> None:
    for name in ("", "Hôpital 1"):
        with pytest.raises(Malformed, match="name of its own"):
            Genesis.from_json(setting("hospitals", 0, "name", value=name))
    with pytest.raises(Malformed, match="needs a chain id"):
        Genesis.from_json(setting("chain_id", value=""))


def test_bounds_are_kept() -> None:
    for path, value in (
        (("chain_id",), "x" * 65), (("time_ms",), limits.TIME_MS_MAX + 1), (("hospitals", 0, "name"), "é" * 33),
        (("hospitals", 0, "endpoints"), ["a:1"] * 5), (("hospitals", 0, "endpoints"), ["a" * 257]),
        (("hospitals", 0, "opening_suite"), 256), (("hospitals", 0, "opening_key"), "00" * 2049),
        (("hospitals", 0, "certificate"), "00" * 8193), (("parameters", "heartbeat_ms"), 99),
    ):  # fmt: skip
        with pytest.raises(Malformed):
            Genesis.from_json(setting(*path, value=value))


def test_a_document_that_could_not_be_read_back_cannot_be_made() -> None:
    for change in ({"time_ms": -1}, {"time_ms": 1.0}, {"chain_id": "x" * 65}, {"chain_id": "\ud800"}, {"hospitals": ()}):
        with pytest.raises(Malformed):
            replace(GENESIS, **change)
    for wrong in (
        {"name": "x" * 65},
        {"opening_suite": 256},
        {"consensus_key": bytes(31)},
        {"endpoints": ("x" * 257,)},
        {"role": "founder"},
    ):
        with pytest.raises(Malformed):
            replace(GENESIS, hospitals=(replace(GENESIS.hospitals[0], **wrong), *GENESIS.hospitals[1:]))


DAMAGED: list[str | bytes] = [
    "", " ", "{", "null", "1", '"text"', "[]", "{}", TEXT + "x", TEXT + TEXT, TEXT.replace(",", "", 1), TEXT.replace('"', "'"),
    "[" * 100_000, '{"a":' * 100_000, "9" * 10_000, b"\xff\xfe", b"\x00", TEXT.encode("utf-16"), TEXT.encode("utf-32"),
    TEXT.encode("latin-1"), b"\xef\xbb\xbf" + TEXT.encode(), "\ufeff" + TEXT, TEXT.replace("[", "// members\n[", 1),
    TEXT.replace("1700000000000", "01700000000000"),
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: "")
def test_damaged_text_is_refused_with_a_sentence(text: str | bytes) -> None:
    with pytest.raises(Malformed) as failure:
        Genesis.from_json(text)
    assert "genesis document" in failure.value.message


def test_a_document_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(Malformed, match="too large"):
        Genesis.from_json(" " * limits.GENESIS_BYTES_MAX + TEXT)


@given(st.data())
def test_text_cut_or_changed_anywhere_is_malformed_or_names_a_network_that_comes_back(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(TEXT) - 1))
    insert = data.draw(st.text(max_size=3))
    cut = data.draw(st.integers(0, 3))
    for text in (TEXT[:place], TEXT[:place] + insert + TEXT[place + cut :]):
        try:
            found = Genesis.from_json(text)
        except Malformed:
            continue
        assert (found.digest() == GENESIS.digest()) == (found == GENESIS)
        assert Genesis.from_json(found.to_json()) == found


@given(st.binary(max_size=100))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        Genesis.from_json(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PLACES = [(name,) for name in NAMES] + [("hospitals", 0, name) for name in HOSPITAL_NAMES] + [("parameters", name) for name in BOUNDS]


@given(st.sampled_from(PLACES), JSON)
def test_any_json_in_any_place_is_malformed_or_comes_back(path: tuple[str | int, ...], value: Any) -> None:
    try:
        found = Genesis.from_json(setting(*path, value=value))
    except Malformed:
        return
    assert Genesis.from_json(found.to_json()).digest() == found.digest()


@pytest.mark.parametrize("vector", VECTORS["documents"], ids=lambda vector: vector["name"].replace(" ", "-"))
def test_frozen_documents_and_digests_do_not_change(vector: dict[str, Any]) -> None:
    found = Genesis.from_json(vector["document"])
    assert found == GENESIS
    assert found.to_json() == TEXT
    assert found.encode().hex() == vector["encoded"]
    assert found.digest().hex() == vector["digest"]
    assert found.validators().digest().hex() == vector["validators_digest"]
