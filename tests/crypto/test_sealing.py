"""HPKE and key wrap: frozen bytes, an independent reading of the RFC, hostile bytes, and Project Wycheproof for the primitives beneath."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from medchain.crypto.sealing import (
    ENCAPSULATION_BYTES,
    PLAINTEXT_MAX,
    PRIVATE_KEY_BYTES,
    PUBLIC_KEY_BYTES,
    SUITE_HYBRID,
    SUITE_X25519,
    SUITES,
    TAG_BYTES,
    OpeningKey,
    check_public_key,
    check_suite,
    seal,
    unwrap_key,
    wrap_key,
)
from medchain.errors import InvariantBroken, Malformed

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "sealing.json").read_text())
KEYS = {suite: OpeningKey.from_private_bytes(suite, bytes(range(32))) for suite in SUITES}
OTHER_KEYS = {suite: OpeningKey.from_private_bytes(suite, bytes(range(1, 33))) for suite in SUITES}
INFO = b"medchain/test/purpose"
SECRET = bytes(range(200, 232))
EACH_SUITE = pytest.mark.parametrize("suite", SUITES)


# --- an independent reading of RFC 9180, used only to judge ours ---


def labeled_extract(suite_id: bytes, salt: bytes, label: bytes, key: bytes) -> bytes:
    """RFC 9180, section 4."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite_id + label + key, "sha256")


def labeled_expand(suite_id: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """RFC 9180, section 4; one block is enough here."""
    assert length <= 32
    return hmac.digest(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info + b"\x01", "sha256")[:length]


def x25519_shared_secret(private: bytes, encapsulation: bytes) -> bytes:
    """RFC 9180, section 4.1, Decap of DHKEM(X25519, HKDF-SHA256)."""
    key = X25519PrivateKey.from_private_bytes(private)
    agreed = key.exchange(X25519PublicKey.from_public_bytes(encapsulation))
    suite_id = b"KEM" + (0x0020).to_bytes(2, "big")
    extracted = labeled_extract(suite_id, b"", b"eae_prk", agreed)
    return labeled_expand(suite_id, extracted, b"shared_secret", encapsulation + key.public_key().public_bytes_raw(), 32)


def x_wing_shared_secret(private: bytes, encapsulation: bytes) -> bytes:
    """draft-connolly-cfrg-xwing-kem, section 5.5."""
    stretched = hashlib.shake_256(private).digest(96)
    of_lattice = MLKEM768PrivateKey.from_seed_bytes(stretched[:64]).decapsulate(encapsulation[:1088])
    scalar = X25519PrivateKey.from_private_bytes(stretched[64:])
    of_curve = scalar.exchange(X25519PublicKey.from_public_bytes(encapsulation[1088:]))
    public = scalar.public_key().public_bytes_raw()
    return hashlib.sha3_256(of_lattice + of_curve + encapsulation[1088:] + public + b"\\.//^\\").digest()


def open_base(suite_id: bytes, key_length: int, shared: bytes, ciphertext: bytes, info: bytes, associated: bytes) -> bytes:
    """RFC 9180, sections 5.1 and 5.2: the key schedule of base mode and the first message."""
    context = b"\x00" + labeled_extract(suite_id, b"", b"psk_id_hash", b"") + labeled_extract(suite_id, b"", b"info_hash", info)
    secret = labeled_extract(suite_id, shared, b"secret", b"")
    key = labeled_expand(suite_id, secret, b"key", context, key_length)
    return AESGCM(key).decrypt(labeled_expand(suite_id, secret, b"base_nonce", context, 12), ciphertext, associated)


def test_the_independent_reading_opens_the_example_of_rfc_9180_appendix_a_1() -> None:
    """Appendix A.1.1.1, sequence number 0 (AES-128-GCM, so not a suite of ours): the judge itself is judged here."""
    private = bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8")
    encapsulation = bytes.fromhex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431")
    shared = x25519_shared_secret(private, encapsulation)
    assert shared.hex() == "fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc"
    ciphertext = bytes.fromhex("f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a")
    suite_id = b"HPKE" + bytes.fromhex("002000010001")
    opened = open_base(suite_id, 16, shared, ciphertext, bytes.fromhex("4f6465206f6e2061204772656369616e2055726e"), b"Count-0")
    assert opened == b"Beauty is truth, truth beauty"


@EACH_SUITE
@pytest.mark.parametrize("length", [0, 1, 32, 1000])
def test_what_we_seal_opens_by_an_independent_reading_of_the_rfc(suite: int, length: int) -> None:
    key, plaintext = KEYS[suite], bytes(length)
    sealed = seal(suite, key.public, plaintext, info=INFO)
    encapsulation, ciphertext = sealed[: ENCAPSULATION_BYTES[suite]], sealed[ENCAPSULATION_BYTES[suite] :]
    secret_of, kem = (x_wing_shared_secret, "647a") if suite == SUITE_HYBRID else (x25519_shared_secret, "0020")
    suite_id = b"HPKE" + bytes.fromhex(kem + "0001" + "0002")
    assert open_base(suite_id, 32, secret_of(key.private_bytes(), encapsulation), ciphertext, INFO, b"") == plaintext


# --- frozen bytes ---


@pytest.mark.parametrize("vector", VECTORS["opens"], ids=lambda vector: f"suite-{vector['suite']}")
def test_frozen_messages_still_open(vector: dict[str, Any]) -> None:
    key = OpeningKey.from_private_bytes(vector["suite"], bytes.fromhex(vector["private"]))
    assert key.public.hex() == vector["public"]
    assert key.open(bytes.fromhex(vector["sealed"]), info=bytes.fromhex(vector["info"])).hex() == vector["plaintext"]


@pytest.mark.parametrize("vector", VECTORS["wraps"], ids=["rfc-3394-section-4.6"])
def test_key_wrap_makes_the_bytes_of_rfc_3394(vector: dict[str, str]) -> None:
    wrapping_key, key, wrapped = (bytes.fromhex(vector[name]) for name in ("wrapping_key", "key", "wrapped"))
    assert wrap_key(wrapping_key, key) == wrapped
    assert unwrap_key(wrapping_key, wrapped) == key


# --- sealing and opening ---


@EACH_SUITE
@settings(max_examples=20)
@given(plaintext=st.binary(max_size=300), info=st.binary(max_size=100))
def test_what_is_sealed_opens_with_its_key_and_purpose(suite: int, plaintext: bytes, info: bytes) -> None:
    sealed = seal(suite, KEYS[suite].public, plaintext, info=info)
    assert len(sealed) == ENCAPSULATION_BYTES[suite] + len(plaintext) + TAG_BYTES
    assert KEYS[suite].open(sealed, info=info) == plaintext


def test_a_sealed_key_has_the_length_that_wraps_on_the_chain_are_planned_for() -> None:
    assert [len(seal(suite, KEYS[suite].public, SECRET, info=INFO)) for suite in (SUITE_HYBRID, SUITE_X25519)] == [1168, 80]


@EACH_SUITE
def test_sealing_twice_gives_different_bytes(suite: int) -> None:
    assert seal(suite, KEYS[suite].public, SECRET, info=INFO) != seal(suite, KEYS[suite].public, SECRET, info=INFO)


@EACH_SUITE
def test_another_key_does_not_open(suite: int) -> None:
    with pytest.raises(Malformed, match="does not open"):
        OTHER_KEYS[suite].open(seal(suite, KEYS[suite].public, SECRET, info=INFO), info=INFO)


@EACH_SUITE
@pytest.mark.parametrize("info", [b"", INFO[:-1], INFO + b"\x00"])
def test_another_purpose_does_not_open(suite: int, info: bytes) -> None:
    with pytest.raises(Malformed, match="does not open"):
        KEYS[suite].open(seal(suite, KEYS[suite].public, SECRET, info=INFO), info=info)


@EACH_SUITE
def test_a_flipped_bit_in_any_byte_does_not_open(suite: int) -> None:
    sealed = seal(suite, KEYS[suite].public, SECRET, info=INFO)
    for index in range(len(sealed)):
        altered = bytearray(sealed)
        altered[index] ^= 1
        with pytest.raises(Malformed):
            KEYS[suite].open(bytes(altered), info=INFO)


@EACH_SUITE
def test_lengths_that_no_sealed_message_has_are_malformed(suite: int) -> None:
    sealed = seal(suite, KEYS[suite].public, b"", info=INFO)
    for altered in (b"", sealed[:-1], sealed[:1], sealed + b"\x00", sealed[1:], bytes(len(sealed) + PLAINTEXT_MAX + 1)):
        with pytest.raises(Malformed):
            KEYS[suite].open(altered, info=INFO)


@EACH_SUITE
@settings(max_examples=50)
@given(data=st.data())
def test_hostile_sealed_bytes_are_malformed_and_nothing_else(suite: int, data: st.DataObject) -> None:
    length = ENCAPSULATION_BYTES[suite] + TAG_BYTES + data.draw(st.integers(-20, 40))
    seed = data.draw(st.binary(min_size=8, max_size=8))
    with pytest.raises(Malformed):
        KEYS[suite].open(hashlib.shake_128(seed).digest(length), info=INFO)


def test_a_message_of_one_suite_does_not_open_under_the_other() -> None:
    """The X25519 half of a hybrid key is a key of its own suite only by number; the suite is bound in the key schedule."""
    hybrid = seal(SUITE_HYBRID, KEYS[SUITE_HYBRID].public, SECRET, info=INFO)
    with pytest.raises(Malformed):
        KEYS[SUITE_X25519].open(hybrid, info=INFO)
    with pytest.raises(Malformed):
        KEYS[SUITE_HYBRID].open(seal(SUITE_X25519, KEYS[SUITE_HYBRID].public[-32:], bytes(1200), info=INFO), info=INFO)


@EACH_SUITE
def test_the_longest_message_is_sealed_and_one_byte_more_is_our_own_mistake(suite: int) -> None:
    longest = bytes(PLAINTEXT_MAX)
    assert KEYS[suite].open(seal(suite, KEYS[suite].public, longest, info=INFO), info=INFO) == longest
    with pytest.raises(InvariantBroken, match="stream"):
        seal(suite, KEYS[suite].public, longest + b"\x00", info=INFO)


# --- keys ---


@EACH_SUITE
def test_private_bytes_give_the_key_back(suite: int) -> None:
    key = OpeningKey.generate(suite)
    again = OpeningKey.from_private_bytes(suite, key.private_bytes())
    assert (again.suite, again.public, len(key.private_bytes())) == (suite, key.public, PRIVATE_KEY_BYTES)
    assert again.open(seal(suite, key.public, SECRET, info=INFO), info=INFO) == SECRET
    assert len(key.public) == PUBLIC_KEY_BYTES[suite]


def test_generated_keys_are_hybrid_unless_asked_and_differ() -> None:
    assert OpeningKey.generate().suite == SUITE_HYBRID
    assert OpeningKey.generate().public != OpeningKey.generate().public


@EACH_SUITE
def test_an_opening_key_shows_its_secret_nowhere(suite: int) -> None:
    secret = bytes.fromhex("5e" * 32)
    key = OpeningKey.from_private_bytes(suite, secret)
    for shown in (repr(key), str(key), f"{key}", repr([key])):
        assert "5e5e" not in shown and repr(secret)[2:-1] not in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InvariantBroken):
            leak(key)


@pytest.mark.parametrize("private", [b"", bytes(31), bytes(33), bytes(96), "0" * 32, None])
def test_private_keys_of_another_length_or_type_are_malformed(private: Any) -> None:
    for suite in SUITES:
        with pytest.raises(Malformed, match="32 bytes"):
            OpeningKey.from_private_bytes(suite, private)


@pytest.mark.parametrize("suite", [0, 3, -1, 2**70, True, None, "1", 1.0])
def test_unknown_suites_are_malformed(suite: Any) -> None:
    for call in (check_suite, OpeningKey.generate, lambda number: seal(number, bytes(32), b"", info=b"")):
        with pytest.raises(Malformed, match="suite"):
            call(suite)


@EACH_SUITE
def test_public_keys_of_another_length_are_malformed(suite: int) -> None:
    public = KEYS[suite].public
    check_public_key(suite, public)
    for altered in (b"", public[:-1], public + b"\x00", KEYS[3 - suite].public):
        with pytest.raises(Malformed):
            check_public_key(suite, altered)
        with pytest.raises(Malformed):
            seal(suite, altered, SECRET, info=INFO)


def test_unreduced_ml_kem_coefficients_are_malformed() -> None:
    """FIPS 203, section 7.2, the modulus check: twelve bits of ones are no residue modulo 3329."""
    public = bytearray(KEYS[SUITE_HYBRID].public)
    public[:3] = b"\xff\xff\xff"
    with pytest.raises(Malformed):
        check_public_key(SUITE_HYBRID, bytes(public))


SMALL_ORDER_POINTS = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


@EACH_SUITE
@pytest.mark.parametrize("point", SMALL_ORDER_POINTS, ids=lambda point: point.hex()[:8])
def test_nothing_is_sealed_to_or_opened_from_a_point_of_small_order(suite: int, point: bytes) -> None:
    """RFC 7748, section 6.1 and RFC 9180, section 7.1.4: the all-zero shared secret is refused, in the hybrid too."""
    with pytest.raises(Malformed):
        seal(suite, KEYS[suite].public[:-32] + point, SECRET, info=INFO)
    sealed = seal(suite, KEYS[suite].public, SECRET, info=INFO)
    place = ENCAPSULATION_BYTES[suite]
    with pytest.raises(Malformed):
        KEYS[suite].open(sealed[: place - 32] + point + sealed[place:], info=INFO)


# --- key wrap ---


@given(wrapping_key=st.binary(min_size=32, max_size=32), key=st.binary(min_size=32, max_size=32))
def test_a_wrapped_key_unwraps_under_its_wrapping_key_only(wrapping_key: bytes, key: bytes) -> None:
    wrapped = wrap_key(wrapping_key, key)
    assert len(wrapped) == 40
    assert unwrap_key(wrapping_key, wrapped) == key
    with pytest.raises(Malformed, match="wrapping key"):
        unwrap_key(bytes([wrapping_key[0] ^ 1]) + wrapping_key[1:], wrapped)


def test_a_flipped_bit_in_any_byte_of_a_wrap_does_not_open() -> None:
    wrapped = wrap_key(SECRET, bytes(32))
    for index in range(len(wrapped)):
        altered = bytearray(wrapped)
        altered[index] ^= 128
        with pytest.raises(Malformed):
            unwrap_key(SECRET, bytes(altered))


@pytest.mark.parametrize("length", [0, 8, 16, 24, 31, 33, 39, 41, 48])
def test_wraps_and_keys_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(Malformed):
        unwrap_key(SECRET, bytes(length))
    with pytest.raises(Malformed):
        unwrap_key(bytes(length), bytes(40))
    with pytest.raises(InvariantBroken):
        wrap_key(SECRET, bytes(length))
    with pytest.raises(InvariantBroken):
        wrap_key(bytes(length), SECRET)


# --- the primitives beneath, by Project Wycheproof ---


def wycheproof(shared_data: Path, name: str) -> list[dict[str, Any]]:
    """Return the test groups of a Wycheproof file, or skip the test where a machine does not have it."""
    path = shared_data / "wycheproof" / name
    if not path.is_file():
        pytest.skip(f"the Wycheproof vectors are not here: {name} is absent")
    groups: list[dict[str, Any]] = json.loads(path.read_text())["testGroups"]
    return groups


def test_x25519_against_wycheproof(shared_data: Path) -> None:
    judged = 0
    for group in wycheproof(shared_data, "x25519_test.json"):
        for case in group["tests"]:
            private = X25519PrivateKey.from_private_bytes(bytes.fromhex(case["private"]))
            public = X25519PublicKey.from_public_bytes(bytes.fromhex(case["public"]))
            judged += 1
            if "ZeroSharedSecret" in case["flags"]:
                with pytest.raises(ValueError):
                    private.exchange(public)
            else:
                assert private.exchange(public).hex() == case["shared"], case["tcId"]
    assert judged == 518


def test_ml_kem_768_against_wycheproof(shared_data: Path) -> None:
    judged = 0
    for group in wycheproof(shared_data, "mlkem_768_test.json"):
        for case in group["tests"]:
            judged += 1
            seed, ciphertext = bytes.fromhex(case["seed"]), bytes.fromhex(case["c"])
            if case["result"] == "valid":
                key = MLKEM768PrivateKey.from_seed_bytes(seed)
                assert key.public_key().public_bytes_raw().hex() == case["ek"], case["tcId"]
                assert key.decapsulate(ciphertext).hex() == case["K"], case["tcId"]
            else:
                with pytest.raises(ValueError):
                    MLKEM768PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext)
    assert judged == 193


def test_aes_256_gcm_against_wycheproof(shared_data: Path) -> None:
    judged = 0
    for group in wycheproof(shared_data, "aes_gcm_test.json"):
        if group["keySize"] != 256 or group["ivSize"] != 96:
            continue  # nonces of another length are never made here
        for case in group["tests"]:
            judged += 1
            key, nonce, associated, message, sealed = (bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "msg", "ct"))
            sealed += bytes.fromhex(case["tag"])
            room = bytearray(max(0, len(sealed) - TAG_BYTES))
            if case["result"] == "valid":
                assert AESGCM(key).encrypt(nonce, message, associated) == sealed, case["tcId"]
                AESGCM(key).decrypt_into(nonce, sealed, associated, room)
                assert bytes(room) == message, case["tcId"]
            else:
                with pytest.raises(InvalidTag):
                    AESGCM(key).decrypt_into(nonce, sealed, associated, room)
    assert judged == 66
