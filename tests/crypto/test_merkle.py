"""Merkle trees: the shape of RFC 6962 under tags, proofs of every leaf and run, and no proof of anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medchain.crypto.hashing import tagged_digest
from medchain.crypto.merkle import (
    MerkleTree,
    leaf_digest,
    merkle_root,
    verify_inclusion,
    verify_inclusion_digest,
    verify_range,
    verify_range_digests,
)
from medchain.errors import InvariantBroken

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "merkle.json").read_text())
TAG = "medchain/test"
COUNTS = range(1, 20)


def leaves_of(count: int) -> list[bytes]:
    return [b"leaf %d" % index for index in range(count)]


def top_by_definition(digests: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word: split at the largest power of two smaller than n."""
    if len(digests) == 1:
        return digests[0]
    split = 1
    while split * 2 < len(digests):
        split *= 2
    return tagged_digest(TAG + "/inner", top_by_definition(digests[:split]) + top_by_definition(digests[split:]))


@pytest.mark.parametrize("vector", VECTORS["roots"], ids=lambda vector: f"{vector['tag']}-{len(vector['leaves'])}")
def test_frozen_roots_do_not_change(vector: dict[str, Any]) -> None:
    leaves = [bytes.fromhex(leaf) for leaf in vector["leaves"]]
    assert merkle_root(vector["tag"], leaves).hex() == vector["root"]
    assert MerkleTree.over(vector["tag"], leaves).root.hex() == vector["root"]


@pytest.mark.parametrize("vector", VECTORS["ranges"], ids=lambda vector: f"{vector['start']}-{vector['stop']}-of-{vector['count']}")
def test_frozen_paths_do_not_change(vector: dict[str, Any]) -> None:
    leaves = [bytes((index,)) for index in range(vector["count"])]
    start, stop, path = vector["start"], vector["stop"], tuple(bytes.fromhex(node) for node in vector["path"])
    tree = MerkleTree.over(vector["tag"], leaves)
    assert tree.root.hex() == vector["root"]
    assert tree.range_path(start, stop) == path
    assert verify_range(vector["tag"], tree.root, leaves[start:stop], start, vector["count"], path)


@pytest.mark.parametrize("count", [*COUNTS, 31, 32, 33, 64, 100])
def test_the_root_is_that_of_rfc6962_with_the_count_bound(count: int) -> None:
    leaves = leaves_of(count)
    top = top_by_definition([leaf_digest(TAG, leaf) for leaf in leaves])
    root = tagged_digest(TAG + "/root", count.to_bytes(8, "big") + top)
    assert merkle_root(TAG, leaves) == root
    tree = MerkleTree.over(TAG, leaves)
    assert (tree.root, tree.count) == (root, count)
    assert MerkleTree(TAG, [leaf_digest(TAG, leaf) for leaf in leaves]).root == root


def test_the_empty_tree_has_a_root_of_its_own_and_proves_nothing() -> None:
    tree = MerkleTree(TAG, [])
    assert tree.root == merkle_root(TAG, []) == tagged_digest(TAG + "/root", bytes(8) + bytes(32))
    assert not verify_range(TAG, tree.root, [], 0, 0, [])
    assert not verify_range_digests(TAG, tree.root, [bytes(32)], 0, 0, [])
    assert not verify_range_digests(TAG, tree.root, [bytes(32)], 0, 1, [])
    with pytest.raises(InvariantBroken):
        tree.inclusion_path(0)


@pytest.mark.parametrize("count", COUNTS)
def test_every_leaf_is_proven_at_its_index_and_nowhere_else(count: int) -> None:
    leaves = leaves_of(count)
    tree = MerkleTree.over(TAG, leaves)
    for index, leaf in enumerate(leaves):
        path = tree.inclusion_path(index)
        assert len(path) <= (count - 1).bit_length()
        for other in range(-1, count + 2):
            assert verify_inclusion(TAG, tree.root, leaf, other, count, path) is (other == index)
        assert verify_inclusion_digest(TAG, tree.root, leaf_digest(TAG, leaf), index, count, path)
        assert not verify_inclusion(TAG, tree.root, leaf + b"x", index, count, path)
        assert not verify_inclusion_digest(TAG, tree.root, leaf_digest(TAG, leaf + b"x"), index, count, path)
        assert not verify_inclusion("medchain/other", tree.root, leaf, index, count, path)


@pytest.mark.parametrize("count", COUNTS)
def test_every_run_is_proven_at_its_place_and_nowhere_else(count: int) -> None:
    leaves = leaves_of(count)
    digests = [leaf_digest(TAG, leaf) for leaf in leaves]
    tree = MerkleTree.over(TAG, leaves)
    for start in range(count):
        for stop in range(start + 1, count + 1):
            path = tree.range_path(start, stop)
            assert verify_range(TAG, tree.root, leaves[start:stop], start, count, path)
            assert verify_range_digests(TAG, tree.root, digests[start:stop], start, count, path)
            for other in (start - 1, start + 1):
                assert not verify_range_digests(TAG, tree.root, digests[start:stop], other, count, path)
            if stop - start > 1:
                swapped = [digests[start + 1], digests[start], *digests[start + 2 : stop]]
                assert not verify_range_digests(TAG, tree.root, swapped, start, count, path)
                assert not verify_range_digests(TAG, tree.root, digests[start : stop - 1], start, count, path)


@pytest.mark.parametrize("count", COUNTS)
def test_another_count_is_never_proven(count: int) -> None:
    leaves = leaves_of(count)
    tree = MerkleTree.over(TAG, leaves)
    for index, leaf in enumerate(leaves):
        path = tree.inclusion_path(index)
        for other in (*range(2 * count + 2), 2**32, 2**64 - 1, 2**64, -count):
            assert verify_inclusion(TAG, tree.root, leaf, index, other, path) is (other == count)


def test_a_whole_tree_is_proven_with_an_empty_path() -> None:
    leaves = leaves_of(13)
    tree = MerkleTree.over(TAG, leaves)
    assert tree.range_path(0, 13) == ()
    assert verify_range(TAG, tree.root, leaves, 0, 13, ())


def test_path_must_have_exactly_its_length_and_every_node_counts() -> None:
    leaves = leaves_of(13)
    tree = MerkleTree.over(TAG, leaves)
    for start, stop in ((0, 1), (3, 9), (5, 6), (12, 13), (11, 13)):
        path = tree.range_path(start, stop)
        run = leaves[start:stop]
        assert not verify_range(TAG, tree.root, run, start, 13, (*path, bytes(32)))
        assert not verify_range(TAG, tree.root, run, start, 13, (bytes(32), *path))
        for index in range(len(path)):
            assert not verify_range(TAG, tree.root, run, start, 13, path[:index] + path[index + 1 :])
            assert not verify_range(TAG, tree.root, run, start, 13, (*path[:index], bytes(32), *path[index + 1 :]))


def test_an_inner_node_is_not_a_leaf_and_a_subtree_is_not_a_tree() -> None:
    leaves = leaves_of(4)
    digests = [leaf_digest(TAG, leaf) for leaf in leaves]
    tree = MerkleTree.over(TAG, leaves)
    left = tagged_digest(TAG + "/inner", digests[0] + digests[1])
    right = tagged_digest(TAG + "/inner", digests[2] + digests[3])
    assert merkle_root(TAG, [left, right]) != tree.root
    assert merkle_root(TAG, [digests[0] + digests[1], digests[2] + digests[3]]) != tree.root
    # A digest that is an inner node proves only under the count of another tree, which the root does not have.
    assert not verify_inclusion_digest(TAG, tree.root, left, 0, 2, (right,))


def test_doubling_the_last_leaf_changes_the_root() -> None:
    for count in COUNTS:
        leaves = leaves_of(count)
        assert merkle_root(TAG, leaves) != merkle_root(TAG, [*leaves, leaves[-1]])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.binary(max_size=5), min_size=1, max_size=70), st.data())
def test_random_runs_are_proven_and_random_changes_are_not(leaves: list[bytes], data: Any) -> None:
    tree = MerkleTree.over(TAG, leaves)
    start = data.draw(st.integers(0, len(leaves) - 1))
    stop = data.draw(st.integers(start + 1, len(leaves)))
    path = tree.range_path(start, stop)
    assert verify_range(TAG, tree.root, leaves[start:stop], start, len(leaves), path)
    changed = list(leaves[start:stop])
    position = data.draw(st.integers(0, len(changed) - 1))
    changed[position] = changed[position] + b"\x00"
    assert not verify_range(TAG, tree.root, changed, start, len(leaves), path)


ODD: tuple[Any, ...] = (None, 1, "x", b"", b"x" * 31, b"x" * 33, [], True, 2**70, -1, 1.0)


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(ODD),
    st.sampled_from(ODD) | st.binary(min_size=32, max_size=32),
    st.sampled_from(ODD) | st.integers(0, 40),
    st.sampled_from(ODD) | st.integers(0, 40) | st.integers(0, 2**64),
    st.lists(st.sampled_from(ODD) | st.binary(min_size=32, max_size=32), max_size=70),
)
def test_oddities_give_false_and_never_raise(root: Any, leaf: Any, index: Any, count: Any, path: Any) -> None:
    assert verify_inclusion(TAG, root, leaf, index, count, path) is False
    assert verify_inclusion_digest(TAG, root, leaf, index, count, path) is False
    assert verify_range(TAG, root, [leaf, leaf], index, count, path) is False
    assert verify_range_digests(TAG, root, [leaf], index, count, path) is False


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (-1, 1), (2, 1), (0, 6), (5, 6)])
def test_a_path_for_leaves_that_are_not_there_is_our_bug(start: int, stop: int) -> None:
    with pytest.raises(InvariantBroken, match="no leaves"):
        MerkleTree.over(TAG, leaves_of(5)).range_path(start, stop)


def test_a_leaf_digest_of_another_length_is_our_bug() -> None:
    with pytest.raises(InvariantBroken, match="32 bytes"):
        MerkleTree(TAG, [b"x" * 31])


def test_a_tree_keeps_its_own_copy_of_the_digests() -> None:
    digests = [leaf_digest(TAG, leaf) for leaf in leaves_of(5)]
    tree = MerkleTree(TAG, digests)
    path = tree.inclusion_path(0)
    digests[1] = bytes(32)
    assert tree.inclusion_path(0) == path
