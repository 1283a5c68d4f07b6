"""Keys on their way to the custodian and to a reader: they open for exactly what they name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medchain.actions.custody import make_put_request, make_release, make_release_request, open_put_request, open_release
from medchain.chain.domain import Domain
from medchain.crypto.sealing import SUITE_HYBRID, OpeningKey
from medchain.crypto.signing import SigningKey
from medchain.errors import Malformed
from medchain.wire.custody import PutRequest, Release, ReleaseInfo, ReleaseRequest, reader_key_digest

NETWORK = Domain(b"\x01" * 32)
AUTHOR = SigningKey(b"\x02" * 32)
CUSTODIAN = SigningKey(b"\x03" * 32)
CUSTODIAN_OPENING = OpeningKey.from_private_bytes(SUITE_HYBRID, b"\x04" * 32)
READER = SigningKey(b"\x05" * 32)
READER_OPENING = OpeningKey.from_private_bytes(SUITE_HYBRID, b"\x06" * 32)
DATA_KEY = b"\x07" * 32

BLANK = PutRequest(
    record=b"\x11" * 32, version=1, pseudonym=b"\x12" * 32, category="general", kind="bundle", size_class=20, root=b"\x13" * 32,
    segment_count=3, author=AUTHOR.public, coarse_date=202611, label_tokens=(), sealed_key=b"",
)  # fmt: skip
INFO = ReleaseInfo(
    genesis=NETWORK.genesis, suite=SUITE_HYBRID, custodian=CUSTODIAN.public, pseudonym=b"\x12" * 32, category="general", epoch=1,
    record=b"\x11" * 32, version=1, permit=b"\x14" * 32, reader_key_digest=reader_key_digest(READER_OPENING.public),
)  # fmt: skip


def put() -> PutRequest:
    return make_put_request(NETWORK, BLANK, AUTHOR, DATA_KEY, SUITE_HYBRID, CUSTODIAN_OPENING.public)


def release() -> Release:
    return make_release(NETWORK, INFO, CUSTODIAN, READER_OPENING.public, b"\x08" * 32, DATA_KEY)


def test_custodian_opens_the_data_key_of_a_signed_put_request() -> None:
    request = PutRequest.decode(put().encode())
    assert open_put_request(NETWORK, request, CUSTODIAN_OPENING) == DATA_KEY
    assert DATA_KEY not in request.encode()


OTHER = b"\x99" * 32


@pytest.mark.parametrize(
    "change",
    [{"record": OTHER}, {"root": OTHER}, {"pseudonym": OTHER}, {"category": "psy"}, {"version": 2}, {"author": READER.public}],
)
def test_put_request_with_an_altered_field_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        open_put_request(NETWORK, replace(put(), **change), CUSTODIAN_OPENING)


def test_data_key_sealed_for_one_record_does_not_open_in_a_request_for_another() -> None:
    stolen = replace(put(), record=b"\x99" * 32, author=READER.public).signed(NETWORK, READER)
    with pytest.raises(Malformed):
        open_put_request(NETWORK, stolen, CUSTODIAN_OPENING)


def test_put_request_of_another_network_is_refused() -> None:
    with pytest.raises(Malformed):
        open_put_request(Domain(b"\x77" * 32), put(), CUSTODIAN_OPENING)


def test_author_cannot_be_an_argument() -> None:
    with pytest.raises(Malformed):
        make_put_request(NETWORK, BLANK, READER, DATA_KEY, SUITE_HYBRID, CUSTODIAN_OPENING.public)


def test_reader_opens_exactly_the_released_version() -> None:
    received = Release.decode(release().encode())
    assert open_release(NETWORK, received, INFO, READER_OPENING) == DATA_KEY


@pytest.mark.parametrize("change", [{"version": 2}, {"record": b"\x99" * 32}, {"permit": b"\x99" * 32}, {"custodian": AUTHOR.public}])
def test_release_of_anything_else_than_the_permit_names_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        open_release(NETWORK, release(), replace(INFO, **change), READER_OPENING)


def test_release_altered_in_any_byte_does_not_open() -> None:
    data = release().encode()
    for position in range(0, len(data), 7):
        broken = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        with pytest.raises(Malformed):
            open_release(NETWORK, Release.decode(broken), INFO, READER_OPENING)


def test_release_does_not_open_for_another_reader() -> None:
    with pytest.raises(Malformed):
        open_release(NETWORK, release(), INFO, OpeningKey.from_private_bytes(SUITE_HYBRID, b"\x55" * 32))


def test_release_names_the_custodian_and_reader_that_it_is_made_with() -> None:
    with pytest.raises(Malformed):
        make_release(NETWORK, INFO, AUTHOR, READER_OPENING.public, b"\x08" * 32, DATA_KEY)
    with pytest.raises(Malformed):
        make_release(NETWORK, INFO, CUSTODIAN, CUSTODIAN_OPENING.public, b"\x08" * 32, DATA_KEY)


def test_release_request_is_signed_by_its_reader() -> None:
    request = ReleaseRequest.decode(make_release_request(NETWORK, b"\x14" * 32, READER, b"\x15" * 32).encode())
    assert request.is_signed(NETWORK)
    assert not replace(request, reader=AUTHOR.public).is_signed(NETWORK)
    assert not replace(request, permit=b"\x16" * 32).is_signed(NETWORK)
    assert not request.is_signed(Domain(b"\x77" * 32))


@pytest.mark.parametrize("noun", [PutRequest, ReleaseRequest, Release])
def test_truncated_custody_bytes_are_malformed(noun: type) -> None:
    whole = {PutRequest: put(), Release: release(), ReleaseRequest: make_release_request(NETWORK, b"\x14" * 32, READER, b"\x15" * 32)}[noun]
    data = whole.encode()
    for end in range(0, len(data), 11):
        with pytest.raises(Malformed):
            noun.decode(data[:end])
    with pytest.raises(Malformed):
        noun.decode(data + b"\x00")
