"""Ed25519 under libsodium's acceptance rule: RFC 8032, frozen odd signatures and Project Wycheproof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medchain.crypto.signing import PUBLIC_KEY_BYTES, SEED_BYTES, SIGNATURE_BYTES, SigningKey, is_signature_valid, verify_many
from medchain.errors import Malformed

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "tests" / "vectors" / "signing.json").read_text())
WYCHEPROOF = ROOT.parent / "shared" / "data" / "wycheproof" / "ed25519_test.json"
KEY = SigningKey(bytes(range(32)))
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.parametrize("vector", VECTORS["made"], ids=lambda vector: vector["public"][:8])
def test_frozen_signatures_do_not_change(vector: dict[str, str]) -> None:
    key = SigningKey(bytes.fromhex(vector["seed"]))
    message = bytes.fromhex(vector["message"])
    assert key.public.hex() == vector["public"]
    assert key.sign(message).hex() == vector["signature"]
    assert is_signature_valid(key.public, message, bytes.fromhex(vector["signature"]))


@pytest.mark.parametrize("vector", VECTORS["odd"], ids=lambda vector: vector["name"].replace(" ", "-"))
def test_odd_signatures_are_judged_by_libsodiums_rule(vector: dict[str, Any]) -> None:
    """Small order, torsion, unreduced: the places where implementations differ; the file says why for each."""
    fields = [bytes.fromhex(vector[name]) for name in ("public", "message", "signature")]
    assert is_signature_valid(*fields) is vector["valid"], vector["why"]


def test_ed25519_against_wycheproof() -> None:
    """libsodium and Wycheproof agree on all 151 signatures, so no exception is listed.

    They could part only where Wycheproof has no signature: keys and R of small order, which RFC 8032 lets pass and libsodium refuses, and
    keys with a torsion part, which libsodium judges without the cofactor. Those are frozen in tests/vectors/signing.json, "odd".
    """
    if not WYCHEPROOF.exists():
        pytest.skip("shared/data/wycheproof/ed25519_test.json is absent")
    document: dict[str, Any] = json.loads(WYCHEPROOF.read_text())
    items = []
    expected = []
    for group in document["testGroups"]:
        public = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            items.append((public, bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"])))
            expected.append(case["result"] == "valid")
    assert len(items) == document["numberOfTests"] > 0
    assert verify_many(items) == expected
    assert {True, False} == set(expected)


@settings(deadline=None, max_examples=50)
@given(st.binary(min_size=SEED_BYTES, max_size=SEED_BYTES), st.binary(max_size=300))
def test_a_key_verifies_what_it_signed(seed: bytes, message: bytes) -> None:
    key = SigningKey(seed)
    signature = key.sign(message)
    assert (len(key.public), len(signature)) == (PUBLIC_KEY_BYTES, SIGNATURE_BYTES)
    assert is_signature_valid(key.public, message, signature)
    assert not is_signature_valid(key.public, message + b"\x00", signature)
    assert key.seed_bytes() == seed
    assert SigningKey(seed).sign(message) == signature


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 8 * (PUBLIC_KEY_BYTES + SIGNATURE_BYTES + 10) - 1))
def test_one_flipped_bit_anywhere_makes_a_signature_invalid(position: int) -> None:
    whole = bytearray(KEY.public + KEY.sign(b"a message.") + b"a message.")
    whole[position // 8] ^= 1 << position % 8
    public, signature, message = bytes(whole[:32]), bytes(whole[32:96]), bytes(whole[96:])
    assert not is_signature_valid(public, message, signature)


def test_the_second_form_of_a_signature_is_not_valid() -> None:
    signature = KEY.sign(b"once")
    scalar = int.from_bytes(signature[32:], "little")
    second = signature[:32] + (scalar + GROUP_ORDER).to_bytes(32, "little")
    assert not is_signature_valid(KEY.public, b"once", second)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_keys_and_signatures_of_another_length_are_not_valid(length: int) -> None:
    signature = KEY.sign(b"m")
    assert not is_signature_valid((KEY.public * 2)[:length], b"m", signature)
    assert not is_signature_valid(KEY.public, b"m", (signature * 2)[: length + (length == 64)])


def test_values_that_are_not_bytes_are_not_valid_and_do_not_raise() -> None:
    signature = KEY.sign(b"m")
    hostile: list[Any] = [
        (None, b"m", signature),
        (KEY.public, None, signature),
        (KEY.public, "m", signature),
        (KEY.public, b"m", None),
        ("k" * 32, b"m", signature),
        (KEY.public, b"m", "s" * 64),
        (KEY.public, 7, signature),
    ]
    assert verify_many(hostile) == [False] * len(hostile)


def test_verify_many_answers_each_in_order() -> None:
    other = SigningKey(b"\x07" * 32)
    good = (KEY.public, b"one", KEY.sign(b"one"))
    bad = (other.public, b"one", KEY.sign(b"one"))
    fine = (other.public, b"", other.sign(b""))
    short = (KEY.public, b"one", b"")
    assert verify_many([good, bad, fine, short, good]) == [True, False, True, False, True]
    assert verify_many([]) == []


def test_generated_keys_differ() -> None:
    assert SigningKey.generate().public != SigningKey.generate().public


@pytest.mark.parametrize("seed", [b"", b"x" * 31, b"x" * 33, b"x" * 64, "x" * 32, None])
def test_a_seed_of_another_length_is_malformed(seed: Any) -> None:
    with pytest.raises(Malformed, match="32 bytes"):
        SigningKey(seed)


def test_no_text_form_of_a_key_shows_its_seed() -> None:
    shown = f"{KEY!r} {KEY!s} {[KEY]} {Malformed(str(KEY))}"
    assert KEY.public.hex() in shown
    for secret in (KEY.seed_bytes(), KEY.seed_bytes()[:8]):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
