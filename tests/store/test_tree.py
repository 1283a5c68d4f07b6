"""The state tree: a function of the content only, with proofs of presence and absence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medchain.crypto.hashing import tagged_digest
from medchain.errors import InvariantBroken, Malformed
from medchain.store.bucket import EMPTY_LEAF_DIGEST, ENTRY_BYTES, LEAF_ENTRIES_MAX
from medchain.store.proof import PROOF_BYTES_MAX
from medchain.store.tree import BUCKETS_MAX, BUCKETS_MIN, StateProof, StateTree, is_bucket_count, verify_state

VECTORS = Path(__file__).parents[1] / "vectors" / "state_tree.json"


def pairs(first: int, last: int) -> dict[bytes, bytes]:
    return {b"key/%d" % number: b"value %d" % number for number in range(first, last)}


def tree_of(content: dict[bytes, bytes], buckets: int = 16) -> StateTree:
    return StateTree.rebuild(buckets, content.items())


def plain_root(bucket_count: int, content: dict[bytes, bytes]) -> bytes:
    """The definition of protocol.md written down a second time, as plainly as possible."""
    entries = sorted((tagged_digest("medchain/state/key", key), tagged_digest("medchain/state/value", content[key])) for key in content)

    def bits(digest: bytes, depth: int) -> str:
        return format(int.from_bytes(digest, "big"), "0256b")[:depth]

    def node(prefix: str, depth: int) -> bytes:
        inside = [entry for entry in entries if bits(entry[0], len(prefix)) == prefix]
        if len(prefix) >= depth and len(inside) <= 64:
            return tagged_digest("medchain/state/leaf", b"".join(key + value for key, value in inside))
        return tagged_digest("medchain/state/inner", node(prefix + "0", depth) + node(prefix + "1", depth))

    return tagged_digest("medchain/state/root", bucket_count.to_bytes(8, "big") + node("", bucket_count.bit_length() - 1))


def test_root_is_the_one_of_the_definition() -> None:
    for size in (0, 1, 40, 1500):
        content = pairs(0, size)
        assert tree_of(content).root == plain_root(16, content)
    assert tree_of(pairs(0, 50), 64).root == plain_root(64, pairs(0, 50))


OPERATIONS = st.lists(st.lists(st.tuples(st.integers(0, 3000), st.none() | st.binary(max_size=3)), max_size=40), max_size=6)


@given(base=st.integers(0, 1400), batches=OPERATIONS)
@settings(max_examples=40, deadline=None)
def test_any_order_of_insertions_and_deletions_gives_the_same_root(base: int, batches: list[list[tuple[int, bytes | None]]]) -> None:
    content = pairs(0, base)
    tree = tree_of(content)
    for batch in batches:
        changes = {b"key/%d" % number: value for number, value in batch}
        for key, value in changes.items():
            if value is None:
                content.pop(key, None)
            else:
                content[key] = value
        tree.adopt(tree.preview(changes))
        assert tree.count == len(content)
    assert tree.root == tree_of(dict(reversed(content.items()))).root
    emptied = tree.preview(dict.fromkeys(content))
    assert emptied.root == StateTree(16).root and emptied.count == 0


def test_one_by_one_equals_all_at_once_through_splits_and_merges() -> None:
    content = pairs(0, 1300)  # 16 buckets of about 81: most of them split
    grown = StateTree(16)
    for key, value in content.items():
        grown.adopt(grown.preview({key: value}))
    assert grown.root == tree_of(content).root
    for number in range(400, 1300):  # and most merge again
        grown.adopt(grown.preview({b"key/%d" % number: None}))
    assert grown.root == tree_of(pairs(0, 400)).root
    assert list(grown.bucket_digests()) == list(tree_of(pairs(0, 400)).bucket_digests())


def test_preview_changes_nothing_and_several_may_coexist() -> None:
    tree = tree_of(pairs(0, 500))
    before = tree.root
    first = tree.preview({b"key/1": b"other", b"new": b"1"})
    second = tree.preview({b"key/2": None})
    assert tree.root == before and tree.count == 500
    assert len({before, first.root, second.root}) == 3
    tree.adopt(second)
    assert tree.root == second.root and tree.count == 499
    with pytest.raises(InvariantBroken):
        tree.adopt(first)
    assert tree.root == second.root
    expected = pairs(0, 500)
    del expected[b"key/2"]
    assert tree.root == tree_of(expected).root


def test_changes_without_effect_leave_the_root() -> None:
    tree = tree_of(pairs(0, 100))
    update = tree.preview({b"key/1": b"value 1", b"absent": None})
    assert update.root == tree.root and not update.buckets and not update.nodes
    tree.adopt(update)
    assert tree.preview({}).root == tree.root


def test_root_binds_the_number_of_buckets() -> None:
    assert len({StateTree(16).root, StateTree(32).root, tree_of(pairs(0, 1)).root}) == 3


@pytest.mark.parametrize("count", [0, -16, 1, 8, 17, 48, 2**21])
def test_bucket_count_must_be_a_power_of_two_within_bounds(count: int) -> None:
    assert not is_bucket_count(count)
    with pytest.raises(InvariantBroken):
        StateTree(count)
    assert is_bucket_count(BUCKETS_MIN) and is_bucket_count(BUCKETS_MAX) and is_bucket_count(65_536)


def test_rebuild_refuses_a_key_that_comes_twice() -> None:
    with pytest.raises(InvariantBroken):
        StateTree.rebuild(16, [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])


@pytest.mark.parametrize("size", [0, 1, 30, 1500])
def test_presence_and_absence_are_proven(size: int) -> None:
    tree = tree_of(pairs(0, size))
    for number in range(min(size, 100)):
        key, value = b"key/%d" % number, b"value %d" % number
        proof = StateProof.decode(tree.prove(key).encode())
        assert verify_state(tree.root, 16, key, value, proof)
        assert not verify_state(tree.root, 16, key, value + b"!", proof)
        assert not verify_state(tree.root, 16, key, None, proof)
        assert not verify_state(tree.root, 32, key, value, proof)
        assert not verify_state(StateTree(16).root, 16, key, value, proof)
    for number in range(50):
        key = b"absent/%d" % number
        proof = StateProof.decode(tree.prove(key).encode())
        assert verify_state(tree.root, 16, key, None, proof)
        assert not verify_state(tree.root, 16, key, b"", proof)


def test_proof_of_one_key_says_nothing_of_a_key_elsewhere() -> None:
    tree = tree_of(pairs(0, 1500))
    accepted = [
        number for number in range(1, 200) if verify_state(tree.root, 16, b"absent/%d" % number, None, tree.prove(b"absent/0"))
    ]  # only absent keys whose bits lead to the same leaf, which does show that they are absent
    leaf = tree.prove(b"absent/0").leaf
    assert accepted == [number for number in range(1, 200) if tree.prove(b"absent/%d" % number).leaf == leaf]
    assert not verify_state(tree.root, 16, b"key/7", None, tree.prove(b"absent/0"))


@pytest.mark.parametrize("size", [0, 5, 1500])
def test_any_changed_byte_of_a_proof_makes_it_fail(size: int) -> None:
    tree = tree_of(pairs(0, size))
    claims = [(b"absent", None)] + ([(b"key/3", b"value 3")] if size else [])
    for key, value in claims:
        encoded = tree.prove(key).encode()
        for position in range(len(encoded)):
            for flip in (0x01, 0x80):
                damaged = bytearray(encoded)
                damaged[position] ^= flip
                assert not _is_accepted(tree.root, key, value, bytes(damaged))
        for cut in (encoded[:-1], encoded + b"\x00", encoded[1:], b""):
            assert not _is_accepted(tree.root, key, value, cut)


def _is_accepted(root: bytes, key: bytes, value: bytes | None, encoded: bytes) -> bool:
    try:
        proof = StateProof.decode(encoded)
    except Malformed:
        return False
    return verify_state(root, 16, key, value, proof)


@given(data=st.binary(max_size=200))
@settings(max_examples=200)
def test_hostile_bytes_are_malformed_and_nothing_else(data: bytes) -> None:
    try:
        StateProof.decode(data)
    except Malformed:
        return
    assert StateProof.decode(data).encode() == data


def test_oversized_unsorted_and_ragged_proofs_are_refused() -> None:
    tree = tree_of(pairs(0, 200))
    proof = tree.prove(b"key/1")
    entries = [proof.leaf[offset : offset + ENTRY_BYTES] for offset in range(0, len(proof.leaf), ENTRY_BYTES)]
    odd = [
        StateProof(b"".join(reversed(entries)), proof.path),
        StateProof(entries[0] + proof.leaf, proof.path),
        StateProof(proof.leaf[:-1], proof.path),
        StateProof(b"\x01" * ENTRY_BYTES * (LEAF_ENTRIES_MAX + 1), proof.path),
    ]
    for bad in odd:
        with pytest.raises(Malformed):
            StateProof.decode(bad.encode())
        assert not verify_state(tree.root, 16, b"key/1", b"value 1", bad)
    for path in (proof.path[:-1], proof.path + (EMPTY_LEAF_DIGEST,), (), proof.path[:-1] + (b"short",), (b"\x00" * 32,) * 257):
        assert not verify_state(tree.root, 16, b"key/1", b"value 1", StateProof(proof.leaf, path))
    assert not verify_state(tree.root, 0, b"key/1", b"value 1", proof)
    with pytest.raises(Malformed):
        StateProof.decode(b"\x00" * (PROOF_BYTES_MAX + 1))


def test_keys_ground_into_one_bucket_cost_nothing_and_proofs_stay_short() -> None:
    ground = {}
    number = 0
    while len(ground) < 4000:  # whoever grinds keys finds such a set in seconds: all in bucket 0 of 16
        key = b"ground/%d" % number
        if tagged_digest("medchain/state/key", key)[0] < 16:
            ground[key] = b"v"
        number += 1
    tree = StateTree(16)
    keys = list(ground)
    for start in range(0, len(keys), 500):
        tree.adopt(tree.preview({key: ground[key] for key in keys[start : start + 500]}))
    assert tree.root == tree_of(ground).root
    assert sum(digest != EMPTY_LEAF_DIGEST for digest in tree.bucket_digests()) == 1
    for key in keys[::97]:
        proof = tree.prove(key)
        assert len(proof.leaf) // ENTRY_BYTES <= LEAF_ENTRIES_MAX and len(proof.path) < 20
        assert verify_state(tree.root, 16, key, b"v", proof)
    tree.adopt(tree.preview(dict.fromkeys(keys[60:])))
    assert len(tree.prove(keys[0]).path) == 4  # a leaf again


def vectors() -> dict[str, object]:
    """What tests/vectors/state_tree.json holds; a change of it is a change of the protocol."""
    made: dict[str, object] = {
        "about": "state roots and proofs; content = key/<i> -> value <i> for i below size; hex",
        "empty_leaf": EMPTY_LEAF_DIGEST.hex(),
        "roots": [],
        "proofs": [],
    }
    for buckets, size in ((16, 0), (64, 0), (65_536, 0), (16, 1), (16, 1000), (64, 1000), (65_536, 1000), (16, 2500)):
        tree = tree_of(pairs(0, size), buckets)
        made["roots"].append({"buckets": buckets, "size": size, "root": tree.root.hex()})  # type: ignore[attr-defined]
    for buckets, size, key in ((64, 1000, b"key/7"), (16, 2500, b"key/7"), (64, 1000, b"absent"), (65_536, 0, b"absent")):
        tree = tree_of(pairs(0, size), buckets)
        proof = {"buckets": buckets, "size": size, "key": key.hex(), "root": tree.root.hex(), "proof": tree.prove(key).encode().hex()}
        made["proofs"].append(proof)  # type: ignore[attr-defined]
    return made


def test_roots_and_proofs_are_the_frozen_ones() -> None:
    frozen = json.loads(VECTORS.read_text())
    assert vectors() == frozen
    for entry in frozen["proofs"]:
        key = bytes.fromhex(entry["key"])
        value = pairs(0, entry["size"]).get(key)
        proof = StateProof.decode(bytes.fromhex(entry["proof"]))
        assert verify_state(bytes.fromhex(entry["root"]), entry["buckets"], key, value, proof)
