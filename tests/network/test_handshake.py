"""The handshake's messages and checks, without a socket: each refusal by its code, and bytes that nobody can make sense of."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain import codec
from medchain.chain.domain import Domain
from medchain.errors import InvariantBroken, Malformed, Rejected
from medchain.network.handshake import (
    DIALLER,
    LISTENER,
    REFUSALS,
    Hello,
    Proof,
    Refusal,
    Transcript,
    check_hello,
    check_proof,
    decode_handshake,
    encode_handshake,
    make_proof,
)
from medchain.network.limits import HANDSHAKE_BYTES_MAX

GENESIS = b"\x07" * 32


@pytest.fixture
def hospitals(world):
    return {hospital.consensus_key: hospital for hospital in world.genesis.hospitals}


@pytest.fixture
def hellos(world):
    network = Domain(GENESIS, 0)
    return [Hello.make(network, member.key.public, 5, bytes([number]) * 32) for number, member in enumerate(world.members)]


def refusal(work, *arguments) -> str:
    with pytest.raises(Rejected) as caught:
        work(*arguments)
    return caught.value.code


def test_messages_read_back_as_themselves(hellos):
    for message in (hellos[0], Proof(b"\x01" * 64), *[Refusal(code) for code in REFUSALS]):
        data = encode_handshake(message)
        assert len(data) <= HANDSHAKE_BYTES_MAX
        assert decode_handshake(data) == message


def test_member_is_welcome(world, hospitals, hellos):
    assert check_hello(hellos[1], hellos[0], hospitals, world.members[1].certificate) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"genesis": b"\x08" * 32}, "handshake.another-network"),
        ({"recovery": 1}, "handshake.another-history"),
        ({"oldest_version": 2, "newest_version": 3}, "handshake.other-version"),
        ({"oldest_version": 0, "newest_version": 0}, "handshake.other-version"),
        ({"consensus_key": b"\x09" * 32}, "handshake.unknown-hospital"),
        ({"challenge": b"\x00" * 32}, "handshake.stale-challenge"),
    ],
)
def test_hello_is_refused_with_its_code(world, hospitals, hellos, change, code):
    assert refusal(check_hello, replace(hellos[1], **change), hellos[0], hospitals, world.members[1].certificate) == code


def test_key_of_another_hospital_than_the_certificate_is_refused(world, hospitals, hellos):
    assert refusal(check_hello, hellos[1], hellos[0], hospitals, world.members[2].certificate) == "handshake.wrong-key"


def test_own_key_is_refused(world, hospitals, hellos):
    echo = replace(hellos[0], challenge=b"\x77" * 32)
    assert refusal(check_hello, echo, hellos[0], hospitals, world.members[0].certificate) == "handshake.own-key"


def test_newest_common_version_is_used(world, hospitals, hellos):
    wide = replace(hellos[1], oldest_version=1, newest_version=9)
    assert check_hello(wide, hellos[0], hospitals, world.members[1].certificate) == 1


def test_other_version_of_the_handshake_itself_is_named_and_not_malformed():
    assert refusal(decode_handshake, codec.encode([2, 1, [b"anything"]])) == "handshake.other-version"


def test_proof_is_worth_nothing_in_any_other_handshake(world, hellos):
    network = Domain(GENESIS, 0)
    key = world.members[0].key
    said = Transcript(encode_handshake(hellos[0]), encode_handshake(hellos[1]), world.members[0].certificate, world.members[1].certificate)
    proof = make_proof(said, network, DIALLER, key)
    check_proof(proof, said, network, DIALLER, key.public)
    others = [
        (said, network, LISTENER, key.public),
        (said, Domain(GENESIS, 1), DIALLER, key.public),
        (said, Domain(b"\x08" * 32, 0), DIALLER, key.public),
        (said, network, DIALLER, world.members[1].key.public),
        (replace(said, dialler_hello=encode_handshake(replace(hellos[0], challenge=b"\x55" * 32))), network, DIALLER, key.public),
        (replace(said, listener_hello=encode_handshake(replace(hellos[1], challenge=b"\x55" * 32))), network, DIALLER, key.public),
        (replace(said, listener_hello=encode_handshake(replace(hellos[1], height=6))), network, DIALLER, key.public),
        (replace(said, dialler_certificate=b"other"), network, DIALLER, key.public),
        (replace(said, listener_certificate=b"other"), network, DIALLER, key.public),
    ]
    for transcript, domain, role, public in others:
        assert refusal(check_proof, proof, transcript, domain, role, public) == "handshake.bad-signature"
    assert refusal(check_proof, Proof(bytes(64)), said, network, DIALLER, key.public) == "handshake.bad-signature"


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [1],
        [1, 1, []],
        [1, 9, []],
        [1, True, [b"\x00" * 64]],
        [1, 2, [b"\x00" * 63]],
        [1, 2, [b"\x00" * 64, 0]],
        [1, 3, ["no.such-code"]],
        [1, 3, [b"handshake.banned"]],
        [1, 3, [["handshake.banned"]]],
        ["1", 3, ["handshake.banned"]],
        [1, 1, [2, 1, bytes(32), 0, 0, bytes(32), bytes(32)]],
        [1, 1, [1, 1, bytes(31), 0, 0, bytes(32), bytes(32)]],
        [1, 1, [1, 1, bytes(32), -1, 0, bytes(32), bytes(32)]],
        [1, 1, [1, 1, bytes(32), 0, 2**60, bytes(32), bytes(32)]],
        [1, 1, [1, 1, bytes(32), 0, 0, bytes(32), bytes(33)]],
    ],
)
def test_odd_values_are_malformed(value):
    with pytest.raises(Malformed):
        decode_handshake(codec.encode(value))


def test_long_message_is_malformed():
    with pytest.raises(Malformed):
        decode_handshake(codec.encode([1, 2, [bytes(HANDSHAKE_BYTES_MAX)]]))


def only_typed_errors(data: bytes) -> None:
    try:
        message = decode_handshake(data)
    except Malformed:
        return
    except Rejected as error:
        assert error.code == "handshake.other-version"
        return
    assert encode_handshake(message) == data


@given(st.binary(max_size=300))
def test_arbitrary_bytes_give_a_message_or_a_typed_error(data):
    only_typed_errors(data)


@given(st.data())
def test_changed_bytes_of_a_real_hello_give_a_message_or_a_typed_error(data):
    original = encode_handshake(Hello(1, 1, GENESIS, 0, 5, b"\x01" * 32, b"\x02" * 32))
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(changed) - 1))
        changed[position] = data.draw(st.integers(0, 255))
    only_typed_errors(bytes(changed[: data.draw(st.integers(0, len(changed)))]))
    only_typed_errors(bytes(changed))


def test_what_is_no_handshake_message_is_our_bug():
    with pytest.raises(InvariantBroken):
        encode_handshake("hello")  # type: ignore[arg-type]
