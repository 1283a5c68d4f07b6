"""The state tree: a function of the content only, with proofs of presence and absence."""

from __future__ import annotations

import itertools
import json
import tracemalloc
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


class Definition:
    """What DESIGN.md says of the root and of paths, written a second time as plainly as possible: recursively, from the sorted rows."""

    def __init__(self, bucket_count: int, content: dict[bytes, bytes]) -> None:
        self.bucket_count = bucket_count
        self.depth = bucket_count.bit_length() - 1
        self.rows = sorted(
            (bits_of(tagged_digest("medchain/state/key", key)), tagged_digest("medchain/state/key", key) + value_digest)
            for key, value_digest in ((key, tagged_digest("medchain/state/value", value)) for key, value in content.items())
        )
        self.empty: dict[int, bytes] = {}

    def root(self) -> bytes:
        return tagged_digest("medchain/state/root", self.bucket_count.to_bytes(8, "big") + self.node("", self.rows))

    def node(self, prefix: str, rows: list[tuple[str, bytes]]) -> bytes:
        if not rows and len(prefix) in self.empty:
            return self.empty[len(prefix)]
        children = self.children(prefix, rows)
        if not children:
            digest = tagged_digest("medchain/state/leaf", b"".join(entry for _, entry in rows))
        else:
            tag = "medchain/state/node" if len(prefix) < self.depth else "medchain/state/inner"
            digest = tagged_digest(tag, b"".join(self.node(child, inside) for child, inside in children))
        if not rows:
            self.empty[len(prefix)] = digest
        return digest

    def children(self, prefix: str, rows: list[tuple[str, bytes]]) -> list[tuple[str, list[tuple[str, bytes]]]]:
        """The prefixes that a node joins, each with its rows: three bits more in the upper tree, the rest at its top; one in a bucket."""
        if len(prefix) >= self.depth:
            if len(rows) <= 64:
                return []
            bits = 1
        else:
            bits = 3 if prefix else self.depth % 3 or 3
        found = [prefix + format(number, f"0{bits}b") for number in range(2**bits)]
        return [(child, [row for row in rows if row[0].startswith(child)]) for child in found]

    def path(self, key: bytes) -> list[list[bytes]]:
        """The digests beside the way to a key, for each node on it, the lowest first."""
        bits, prefix, rows = bits_of(tagged_digest("medchain/state/key", key)), "", self.rows
        downward = []
        while children := self.children(prefix, rows):
            downward.append([self.node(child, inside) for child, inside in children if not bits.startswith(child)])
            ((prefix, rows),) = [(child, inside) for child, inside in children if bits.startswith(child)]
        return downward[::-1]


def bits_of(digest: bytes) -> str:
    return format(int.from_bytes(digest, "big"), "0256b")


def plain_root(bucket_count: int, content: dict[bytes, bytes]) -> bytes:
    return Definition(bucket_count, content).root()


EVERY_COUNT = [2**bits for bits in range(4, 21)]


def test_root_is_the_one_of_the_definition() -> None:
    for size in (0, 1, 40, 1500):
        content = pairs(0, size)
        assert tree_of(content).root == plain_root(16, content)


@pytest.mark.parametrize("buckets", EVERY_COUNT)
def test_root_updates_and_proofs_are_those_of_the_definition_with_any_number_of_buckets(buckets: int) -> None:
    assert is_bucket_count(buckets)
    content = pairs(0, 300)
    tree = tree_of(content, buckets)
    assert tree.root == plain_root(buckets, content)
    content |= {b"key/7": b"other"} | pairs(300, 420)
    del content[b"key/8"]
    tree.adopt(tree.preview(content | {b"key/8": None}))
    definition = Definition(buckets, content)
    assert tree.root == definition.root() and tree.count == 419
    for key in (b"key/7", b"key/8", b"key/9", b"absent"):
        proof = tree.prove(key)
        assert proof.path == b"".join(itertools.chain.from_iterable(definition.path(key)))
        assert verify_state(tree.root, buckets, key, content.get(key), proof)
        assert StateProof.decode(proof.encode()) == proof


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
    assert tree.root == tree_of(dict(reversed(content.items()))).root == plain_root(16, content)
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
    assert list(tree.bucket_digests()) == list(tree_of(pairs(0, 500)).bucket_digests())
    assert len({before, first.root, second.root}) == 3
    tree.adopt(second)
    assert tree.root == second.root and tree.count == 499
    with pytest.raises(InvariantBroken):
        tree.adopt(first)
    assert tree.root == second.root
    expected = pairs(0, 500)
    del expected[b"key/2"]
    assert tree.root == tree_of(expected).root
    for key in (b"key/1", b"key/2", b"new"):
        assert tree.prove(key) == tree_of(expected).prove(key)
    again = tree.preview({b"key/1": b"other", b"new": b"1"})  # on the base it was adopted on, nothing of the first is left
    assert again.root == tree_of(expected | {b"key/1": b"other", b"new": b"1"}).root != first.root


def test_changes_without_effect_leave_the_root() -> None:
    tree = tree_of(pairs(0, 100))
    update = tree.preview({b"key/1": b"value 1", b"absent": None})
    assert update.root == tree.root and not update.buckets and not update.nodes
    tree.adopt(update)
    assert tree.preview({}).root == tree.root


def test_touched_parts_are_only_those_that_change() -> None:
    content = pairs(0, 1500)  # most buckets are split, and each is given many changes
    tree = tree_of(content)
    update = tree.preview(content | dict.fromkeys(pairs(2000, 3000)))
    assert update.root == tree.root and not update.buckets and not update.nodes
    few = pairs(0, 60)
    sparse = tree_of(few)
    assert not sparse.preview(few | dict.fromkeys(pairs(2000, 3000))).buckets
    wide = tree_of(content, 65_536)
    update = wide.preview(content | {b"key/9": b"other", b"absent": None})
    assert len(update.buckets) == 1 and [len(row) for row in update.nodes] == [1, 1, 1, 1, 1, 1]
    assert update.root == plain_root(65_536, content | {b"key/9": b"other"})


def test_an_empty_tree_is_small() -> None:
    StateTree(65_536)
    tracemalloc.start()
    try:
        tree = StateTree(65_536)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000 and tree.count == 0  # the buckets' list is half of it; equal nodes are one object


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
    for path in (proof.path[:-32], proof.path[32:], proof.path + EMPTY_LEAF_DIGEST, b"", proof.path[:-1], proof.path + b"short"):
        assert not verify_state(tree.root, 16, b"key/1", b"value 1", StateProof(proof.leaf, path))
    assert not verify_state(tree.root, 0, b"key/1", b"value 1", proof)
    with pytest.raises(Malformed):
        StateProof.decode(b"\x00" * (PROOF_BYTES_MAX + 1))


@pytest.mark.parametrize("buckets", EVERY_COUNT)
def test_any_other_sibling_and_any_other_length_is_refused_with_any_number_of_buckets(buckets: int) -> None:
    tree = tree_of(pairs(0, 1500 if buckets < 64 else 20), buckets)  # of the fewest buckets the proofs hold a split as well
    for key, value in ((b"key/1", b"value 1"), (b"absent", None)):
        proof = tree.prove(key)

        def is_accepted(path: bytes, key: bytes = key, value: bytes | None = value, leaf: bytes = proof.leaf) -> bool:
            return verify_state(tree.root, buckets, key, value, StateProof(leaf, path))

        assert is_accepted(proof.path)
        count = len(proof.path) // 32
        for place in range(0, len(proof.path), 32):
            before, sibling, after = proof.path[:place], proof.path[place : place + 32], proof.path[place + 32 :]
            assert not is_accepted(before + bytes([sibling[0] ^ 1]) + sibling[1:] + after)
            assert not is_accepted(before + after)
            assert not is_accepted(before + sibling + sibling + after)
        for other in EVERY_COUNT:
            assert other == buckets or not verify_state(tree.root, other, key, value, proof)
        for odd in (proof.path[:-1], proof.path + b"\x00", proof.path[: 32 * (count - 7)], proof.path + bytes(7 * 32), bytes(32 * 300)):
            assert not is_accepted(odd)


@pytest.mark.parametrize("buckets", EVERY_COUNT)
def test_no_path_is_longer_than_a_split_for_each_bit_allows(buckets: int) -> None:
    """Nobody can make such keys, but whoever made them would be proven right, and one digest more is no path."""
    depth = buckets.bit_length() - 1
    key_digest = tagged_digest("medchain/state/key", b"key")
    leaf = key_digest + tagged_digest("medchain/state/value", b"value")
    digest = tagged_digest("medchain/state/leaf", leaf)
    for bit in bits_of(key_digest)[:depth - 1 : -1]:
        digest = tagged_digest("medchain/state/inner", bytes(32) + digest if bit == "1" else digest + bytes(32))
    position, row, upper = int(bits_of(key_digest)[:depth], 2), buckets, 0
    while row > 1:
        children = min(8, row)
        place = position % children
        digest = tagged_digest("medchain/state/node", bytes(32 * place) + digest + bytes(32 * (children - 1 - place)))
        position, row, upper = position // children, row // children, upper + children - 1
    root = tagged_digest("medchain/state/root", buckets.to_bytes(8, "big") + digest)
    deepest = 256 - depth + upper
    proof = StateProof(leaf, bytes(32 * deepest))
    assert StateProof.decode(proof.encode()) == proof and len(proof.encode()) <= PROOF_BYTES_MAX
    assert verify_state(root, buckets, b"key", b"value", proof)
    assert not verify_state(root, buckets, b"key", b"value", StateProof(leaf, bytes(32 * (deepest + 1))))


def test_splits_do_not_pass_for_rows_of_the_upper_tree() -> None:
    """With 16 buckets and seven splits a path is as long as with 128 buckets and none: tags and the number of buckets tell them apart."""
    key_digest = tagged_digest("medchain/state/key", b"key")
    leaf = key_digest + tagged_digest("medchain/state/value", b"value")
    siblings = [bytes([number]) * 32 for number in range(15)]
    proof = StateProof(leaf, b"".join(siblings))
    bits = bits_of(key_digest)

    def climbed(buckets: int, splits: int) -> bytes:
        digest, depth = tagged_digest("medchain/state/leaf", leaf), buckets.bit_length() - 1
        for place in range(splits):
            pair = (siblings[place], digest) if bits[depth + splits - 1 - place] == "1" else (digest, siblings[place])
            digest = tagged_digest("medchain/state/inner", b"".join(pair))
        rest, position = siblings[splits:], int(bits[:depth], 2)
        for children in (8, 2) if buckets == 16 else (8, 8, 2):
            row = rest[: children - 1]
            row.insert(position % children, digest)
            digest, rest, position = tagged_digest("medchain/state/node", b"".join(row)), rest[children - 1 :], position // children
        return digest

    def bound(buckets: int, top: bytes) -> bytes:
        return tagged_digest("medchain/state/root", buckets.to_bytes(8, "big") + top)

    for buckets, splits, other, other_splits in ((16, 7, 128, 0), (128, 0, 16, 7)):
        assert verify_state(bound(buckets, climbed(buckets, splits)), buckets, b"key", b"value", proof)
        assert not verify_state(bound(other, climbed(buckets, splits)), buckets, b"key", b"value", proof)
        assert not verify_state(bound(buckets, climbed(other, other_splits)), buckets, b"key", b"value", proof)


def test_a_path_of_another_length_is_refused_even_under_a_root_that_was_made_for_it() -> None:
    key_digest = tagged_digest("medchain/state/key", b"key")
    leaf = key_digest + tagged_digest("medchain/state/value", b"value")
    position = key_digest[0] >> 4

    def root(below: bytes, *, row: int, top: int) -> bytes:
        """The root of 16 buckets whose two nodes hash so many bytes of siblings before and after the child that the key leads to."""
        for size, place in ((row, position % 8 * 32), (top, position // 8 * 32)):
            place = min(place, size)
            below = tagged_digest("medchain/state/node", bytes(place) + below + bytes(size - place))
        return tagged_digest("medchain/state/root", (16).to_bytes(8, "big") + below)

    digest = tagged_digest("medchain/state/leaf", leaf)
    ragged = (bytes(1) + digest) if bits_of(key_digest)[4] == "1" else (digest + bytes(1))
    made = [
        (root(digest, row=224, top=32), 256, True),
        (root(digest, row=0, top=0), 0, False),
        (root(digest, row=224, top=0), 224, False),
        (root(digest, row=192, top=0), 192, False),
        (root(tagged_digest("medchain/state/inner", ragged), row=224, top=32), 257, False),
    ]
    for forged, length, is_right in made:
        assert verify_state(forged, 16, b"key", b"value", StateProof(leaf, bytes(length))) is is_right


def test_a_proof_of_other_types_is_refused_and_raises_nothing() -> None:
    tree = tree_of(pairs(0, 20))
    proof = tree.prove(b"key/1")
    for odd in (None, 7, "text", bytearray(proof.path), [proof.path], ()):
        assert not verify_state(tree.root, 16, b"key/1", b"value 1", StateProof(proof.leaf, odd))  # type: ignore[arg-type]
        assert not verify_state(tree.root, 16, b"key/1", b"value 1", StateProof(odd, proof.path))  # type: ignore[arg-type]
    for count in (0, 1, 2, 8, 17, -16, 2**21, 2**256):
        assert not verify_state(tree.root, count, b"key/1", b"value 1", proof)


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
        assert len(proof.leaf) // ENTRY_BYTES <= LEAF_ENTRIES_MAX and len(proof.path) // 32 < 24
        assert verify_state(tree.root, 16, key, b"v", proof)
    tree.adopt(tree.preview(dict.fromkeys(keys[60:])))
    assert len(tree.prove(keys[0]).path) == 8 * 32  # a leaf again: seven siblings in its row and one at the top


def vectors() -> dict[str, object]:
    """What tests/vectors/state_tree.json holds; a change of it is a change of the protocol."""
    made: dict[str, object] = {
        "about": "state roots and proofs; content = key/<i> -> value <i> for i below size; hex",
        "empty_leaf": EMPTY_LEAF_DIGEST.hex(),
        "roots": [],
        "proofs": [],
    }
    for buckets, size in ((16, 0), (64, 0), (65_536, 0), (16, 1), (16, 1000), (32, 1000), (64, 1000), (65_536, 1000), (16, 2500)):
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
