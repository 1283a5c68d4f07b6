"""Requests and releases of a custodian: one encoding, hostile bytes refused, and every field under the signature."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain import codec
from medchain.chain import domain, limits
from medchain.chain.domain import Domain
from medchain.crypto.signing import SigningKey
from medchain.errors import Malformed
from medchain.wire.custody import (
    LABEL_TOKENS_MAX,
    REQUEST_BYTES_MAX,
    SEALED_KEY_BYTES_MAX,
    VERSION_MAX,
    PutRequest,
    Release,
    ReleaseInfo,
    ReleaseRequest,
    put_info,
    reader_key_digest,
)
from tests.chain.conftest import FOREIGN, NETWORK, check_hostile, digest, hostile, signing_key, single_changes

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "custody.json").read_text())
AUTHOR, READER, CUSTODIAN = signing_key("author"), signing_key("reader"), signing_key("custodian")
ELSEWHERE = (Domain(digest("another network")), Domain(NETWORK.genesis, 1))

PUT = PutRequest(
    record=digest("record"), version=3, pseudonym=digest("patient"), category="general", kind="fhir-bundle", size_class=20,
    root=digest("root"), segment_count=4, author=AUTHOR.public, coarse_date=202611, label_tokens=(digest("token 1"), digest("token 2")),
    sealed_key=bytes(range(200)),
).signed(NETWORK, AUTHOR)  # fmt: skip
ASK = ReleaseRequest(digest("permit"), READER.public, digest("challenge")).signed(NETWORK, READER)
INFO = ReleaseInfo(
    genesis=NETWORK.genesis, suite=1, custodian=CUSTODIAN.public, pseudonym=digest("patient"), category="general", epoch=2,
    record=digest("record"), version=3, permit=digest("permit"), reader_key_digest=reader_key_digest(b"reader's opening key"),
)  # fmt: skip
RELEASE = Release(INFO, bytes(range(150)), bytes(range(40))).signed(NETWORK, CUSTODIAN)

NOUNS = {"put request": PUT, "release request": ASK, "release": RELEASE}
every_noun = pytest.mark.parametrize("noun", NOUNS.values(), ids=NOUNS)


def other_than(value: Any) -> Any:
    """Another valid value of the same kind."""
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    return value[:-1] if isinstance(value, tuple) else value[:-1] + bytes((value[-1] ^ 1,))


@every_noun
def test_requests_and_releases_come_back_from_their_bytes(noun: Any) -> None:
    assert type(noun).decode(noun.encode()) == noun
    assert len(noun.encode()) <= REQUEST_BYTES_MAX


@every_noun
def test_every_turned_bit_cut_and_extension_is_refused_or_is_another_noun(noun: Any) -> None:
    for data in single_changes(noun.encode()):
        try:
            found = type(noun).decode(data)
        except Malformed:
            continue
        assert found != noun and found.encode() == data


@every_noun
@given(data=st.data())
def test_damaged_bytes_are_malformed_or_canonical(noun: Any, data: st.DataObject) -> None:
    check_hostile(data.draw(hostile(noun.encode())), type(noun).decode, type(noun).encode)


@given(st.sampled_from(list(NOUNS.values())), st.binary(max_size=200) | FOREIGN.map(codec.encode))
def test_foreign_bytes_are_malformed_or_canonical(noun: Any, data: bytes) -> None:
    check_hostile(data, type(noun).decode, type(noun).encode)


@every_noun
def test_the_bytes_of_another_noun_are_refused(noun: Any) -> None:
    for other in NOUNS.values():
        if other is not noun:
            with pytest.raises(Malformed):
                type(noun).decode(other.encode())


@every_noun
def test_bytes_above_the_bound_are_refused(noun: Any) -> None:
    with pytest.raises(Malformed, match=f"more than the {REQUEST_BYTES_MAX} allowed"):
        type(noun).decode(bytes(REQUEST_BYTES_MAX + 1))


def test_the_largest_of_each_fits_the_bound() -> None:
    tokens = tuple(digest(f"token {number}") for number in range(LABEL_TOKENS_MAX))
    long = "x" * limits.NAME_BYTES_MAX
    put = replace(PUT, category=long, kind=long, label_tokens=tokens, sealed_key=bytes(SEALED_KEY_BYTES_MAX), version=VERSION_MAX)
    release = replace(RELEASE, info=replace(INFO, category=long, version=VERSION_MAX), sealed_permit_key=bytes(SEALED_KEY_BYTES_MAX))
    assert PutRequest.decode(put.encode()) == put
    assert Release.decode(release.encode()) == release


# ------------------------------------------------------------------------------------------------------------------------ signatures


def is_signed(noun: Any, network: Domain = NETWORK) -> bool:
    if not isinstance(noun, Release):
        return bool(noun.is_signed(network))
    try:
        noun.check(network)
    except Malformed:
        return False
    return True


@every_noun
def test_a_signature_holds_in_its_network_and_history_only(noun: Any) -> None:
    assert is_signed(noun)
    assert not any(is_signed(noun, network) for network in ELSEWHERE)
    assert not is_signed(replace(noun, signature=bytes(64)))


COVERED = [(name, field.name) for name, noun in NOUNS.items() for field in fields(noun) if field.name != "info"]


@pytest.mark.parametrize(("name", "field"), COVERED)
def test_the_signature_covers_each_field(name: str, field: str) -> None:
    noun: Any = NOUNS[name]
    assert not is_signed(replace(noun, **{field: other_than(getattr(noun, field))}))


@pytest.mark.parametrize("field", [field.name for field in fields(ReleaseInfo)])
def test_a_release_signs_and_seals_to_each_field_of_its_info(field: str) -> None:
    """ledger.md, "Sealing and sharing" 4: a wrap opens for exactly this and nothing else."""
    changed = replace(INFO, **{field: other_than(getattr(INFO, field))})
    assert not is_signed(replace(RELEASE, info=changed))
    assert changed.encode() != INFO.encode()


def test_a_release_of_another_network_is_named_as_such() -> None:
    with pytest.raises(Malformed, match="another network"):
        RELEASE.check(ELSEWHERE[0])
    with pytest.raises(Malformed, match="not signed by the custodian"):
        RELEASE.check(ELSEWHERE[1])  # the same network after a recovery


def test_only_the_one_named_signs() -> None:
    """lessons.md: "identity taken from an argument": who asks is the key that signed."""
    liar = SigningKey(digest("liar"))
    assert not PUT.signed(NETWORK, liar).is_signed(NETWORK)
    assert not ASK.signed(NETWORK, liar).is_signed(NETWORK)
    assert not is_signed(RELEASE.signed(NETWORK, liar))


def test_a_request_to_put_is_no_request_to_release_nor_a_release() -> None:
    content = [digest("permit"), READER.public, digest("challenge")]
    signed = {
        ASK.signed_bytes(NETWORK), PUT.signed_bytes(NETWORK), RELEASE.signed_bytes(NETWORK),
        NETWORK.signed_bytes(domain.REQUEST, codec.encode(["put", *content])),
        NETWORK.signed_bytes(domain.RELEASE, codec.encode(["release", *content])),
    }  # fmt: skip
    assert len(signed) == 5


def test_a_key_on_its_way_to_the_custodian_is_bound_to_record_version_root_author_and_history() -> None:
    good = (NETWORK, PUT.record, PUT.version, PUT.root, PUT.author)
    others = [(network, *good[1:]) for network in ELSEWHERE]
    others += [(*good[:place], other_than(good[place]), *good[place + 1 :]) for place in range(1, 5)]
    made = {put_info(*arguments) for arguments in (good, *others)}
    assert len(made) == len(others) + 1
    assert INFO.encode() not in made


# -------------------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "change",
    [
        {"record": bytes(31)}, {"version": 0}, {"version": VERSION_MAX + 1}, {"version": True}, {"pseudonym": b""}, {"category": "x" * 65},
        {"category": "a\nb"}, {"category": b"general"}, {"kind": None}, {"size_class": 65}, {"size_class": -1}, {"root": bytes(33)},
        {"segment_count": 2**32 + 1}, {"author": bytes(31)}, {"coarse_date": 1_000_000}, {"label_tokens": (digest("t"),) * 17},
        {"label_tokens": (bytes(31),)}, {"label_tokens": ("text",)}, {"sealed_key": bytes(SEALED_KEY_BYTES_MAX + 1)}, {"sealed_key": "x"},
        {"signature": bytes(63)}, {"signature": bytes(65)},
    ],
)  # fmt: skip
def test_put_requests_out_of_bounds_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        PutRequest.decode(replace(PUT, **change).encode())


@pytest.mark.parametrize(
    "change", [{"permit": bytes(31)}, {"reader": bytes(33)}, {"challenge": b""}, {"signature": b""}, {"permit": "x" * 32}]
)
def test_release_requests_out_of_bounds_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        ReleaseRequest.decode(replace(ASK, **change).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"genesis": bytes(31)}, {"suite": 256}, {"custodian": b""}, {"pseudonym": None}, {"category": "x" * 65}, {"epoch": 2**32 + 1},
        {"epoch": -1}, {"record": bytes(33)}, {"version": 0}, {"version": VERSION_MAX + 1}, {"permit": 1}, {"reader_key_digest": bytes(16)},
    ],
)  # fmt: skip
def test_releases_of_an_info_out_of_bounds_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        Release.decode(replace(RELEASE, info=replace(INFO, **change)).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"sealed_permit_key": bytes(SEALED_KEY_BYTES_MAX + 1)},
        {"wrapped_data_key": bytes(39)},
        {"wrapped_data_key": bytes(41)},
        {"signature": b""},
    ],
)
def test_releases_out_of_bounds_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        Release.decode(replace(RELEASE, **change).encode())


@pytest.mark.parametrize("name", NOUNS)
def test_frozen_requests_and_releases_do_not_change(name: str) -> None:
    vector = VECTORS["nouns"][name]
    assert NOUNS[name].encode().hex() == vector["encoded"]
    assert NOUNS[name].signed_bytes(NETWORK).hex() == vector["signed"]


def test_frozen_infos_of_sealed_keys_do_not_change() -> None:
    assert put_info(NETWORK, PUT.record, PUT.version, PUT.root, PUT.author).hex() == VECTORS["put_info"]
    assert INFO.encode().hex() == VECTORS["release_info"]
    assert reader_key_digest(b"reader's opening key").hex() == VECTORS["reader_key_digest"]
