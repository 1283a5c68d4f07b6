"""Tagged SHA-256, HMAC and HKDF against their definitions, frozen vectors and Project Wycheproof."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medchain.crypto.hashing import DIGEST_BYTES, HKDF_BYTES_MAX, TAGS_CACHED_MAX, hkdf_sha256, hmac_sha256, prefix_state, tagged_digest
from medchain.errors import InvariantBroken

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "tests" / "vectors" / "hashing.json").read_text())
WYCHEPROOF = ROOT.parent / "shared" / "data" / "wycheproof" / "hkdf_sha256_test.json"


@pytest.mark.parametrize("vector", VECTORS["tagged_digest"], ids=lambda vector: vector["tag"])
def test_frozen_tagged_digests_do_not_change(vector: dict[str, str]) -> None:
    assert tagged_digest(vector["tag"], bytes.fromhex(vector["data"])).hex() == vector["digest"]


@pytest.mark.parametrize("vector", VECTORS["hmac_sha256"], ids=lambda vector: vector["source"])
def test_hmac_matches_its_rfc(vector: dict[str, str]) -> None:
    assert hmac_sha256(bytes.fromhex(vector["key"]), bytes.fromhex(vector["data"])).hex() == vector["output"]


@pytest.mark.parametrize("vector", VECTORS["hkdf_sha256"], ids=lambda vector: vector["source"])
def test_hkdf_matches_its_rfc(vector: dict[str, str]) -> None:
    output = bytes.fromhex(vector["output"])
    derived = hkdf_sha256(
        bytes.fromhex(vector["key"]), salt=bytes.fromhex(vector["salt"]), info=bytes.fromhex(vector["info"]), length_bytes=len(output)
    )
    assert derived == output


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=30), st.binary(max_size=500))
def test_tagged_digest_is_the_tagged_hash_of_bip340(tag: str, data: bytes) -> None:
    tag_digest = hashlib.sha256(tag.encode()).digest()
    digest = tagged_digest(tag, data)
    assert digest == hashlib.sha256(tag_digest + tag_digest + data).digest()
    assert len(digest) == DIGEST_BYTES


def test_the_shared_prefix_state_is_not_changed_by_hashing() -> None:
    first = tagged_digest("medchain/test/prefix", b"one")
    tagged_digest("medchain/test/prefix", b"two")
    assert tagged_digest("medchain/test/prefix", b"one") == first
    assert prefix_state("medchain/test/prefix").digest() == tagged_digest("medchain/test/prefix", b"")


def test_a_tag_and_its_data_do_not_run_into_each_other() -> None:
    assert tagged_digest("medchain/a", b"bc") != tagged_digest("medchain/ab", b"c")
    assert tagged_digest("medchain/a", b"x") != tagged_digest("medchain/b", b"x")


def test_many_tags_do_not_grow_the_cache_beyond_its_bound() -> None:
    expected = tagged_digest("medchain/test/first", b"")
    for number in range(TAGS_CACHED_MAX + 10):
        tagged_digest(f"medchain/test/{number}", b"")
    assert prefix_state.cache_info().currsize == TAGS_CACHED_MAX
    assert tagged_digest("medchain/test/first", b"") == expected


@pytest.mark.parametrize("length_bytes", [0, -1, HKDF_BYTES_MAX + 1])
def test_hkdf_refuses_lengths_outside_rfc5869(length_bytes: int) -> None:
    with pytest.raises(InvariantBroken, match="1 to 8160"):
        hkdf_sha256(b"k" * 32, salt=b"", info=b"", length_bytes=length_bytes)


@settings(deadline=None)
@given(st.binary(max_size=64), st.binary(max_size=80), st.integers(1, 200), st.integers(1, 200))
def test_hkdf_outputs_of_two_lengths_agree_in_their_beginning(key: bytes, info: bytes, one: int, other: int) -> None:
    short, long = sorted((one, other))
    assert hkdf_sha256(key, salt=b"s", info=info, length_bytes=long)[:short] == hkdf_sha256(key, salt=b"s", info=info, length_bytes=short)


def test_hkdf_separates_salts_infos_and_keys() -> None:
    outputs = {
        hkdf_sha256(key, salt=salt, info=info, length_bytes=32)
        for key in (b"k" * 32, b"l" * 32)
        for salt in (b"", b"salt")
        for info in (b"", b"one", b"two")
    }
    assert len(outputs) == 12


def test_hkdf_against_wycheproof() -> None:
    if not WYCHEPROOF.exists():
        pytest.skip("shared/data/wycheproof/hkdf_sha256_test.json is absent")
    document: dict[str, Any] = json.loads(WYCHEPROOF.read_text())
    checked = 0
    for group in document["testGroups"]:
        for case in group["tests"]:
            key, salt, info = (bytes.fromhex(case[name]) for name in ("ikm", "salt", "info"))
            if case["result"] == "valid":
                assert hkdf_sha256(key, salt=salt, info=info, length_bytes=case["size"]).hex() == case["okm"], case["tcId"]
            else:  # the only invalid ones ask for more than HKDF yields
                assert case["flags"] == ["SizeTooLarge"]
                with pytest.raises(InvariantBroken):
                    hkdf_sha256(key, salt=salt, info=info, length_bytes=case["size"])
            checked += 1
    assert checked == document["numberOfTests"] > 0
