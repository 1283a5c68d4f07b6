"""The history mountain range: the Merkle tree of RFC 6962 over header digests, appended to one by one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain.crypto.hashing import tagged_digest
from medchain.crypto.merkle import MerkleTree
from medchain.errors import InvariantBroken, Malformed, Unavailable
from medchain.store.history import (
    HISTORY_TAG,
    History,
    HistoryNodes,
    history_append_ops,
    history_start_ops,
    load_history,
    verify_history,
)
from medchain.store.keyvalue import WriteBatch
from medchain.store.memory import MemoryKeyValue

VECTORS = Path(__file__).parents[1] / "vectors" / "history.json"


def digest(number: int) -> bytes:
    return tagged_digest("test/header", b"%d" % number)


def grown(count: int) -> tuple[History, MemoryKeyValue]:
    history, store = History(), MemoryKeyValue()
    for number in range(count):
        store.write(WriteBatch(history_append_ops(history, digest(number))))
    return history, store


def test_root_at_every_count_is_the_merkle_root_over_the_digests() -> None:
    history, store = History(), MemoryKeyValue()
    for count in range(70):
        tree = MerkleTree.over(HISTORY_TAG, [digest(number) for number in range(count)])
        assert history.root == tree.root and history.count == count
        assert len(history.peaks) == count.bit_count()
        store.write(WriteBatch(history_append_ops(history, digest(count))))
    nodes = HistoryNodes(store)
    for count in range(71):
        assert nodes.root_at(count) == MerkleTree.over(HISTORY_TAG, [digest(number) for number in range(count)]).root


def test_every_header_is_proven_under_every_later_root() -> None:
    _, store = grown(41)
    nodes = HistoryNodes(store)
    for count in range(1, 42):
        tree = MerkleTree.over(HISTORY_TAG, [digest(number) for number in range(count)])
        for index in range(count):
            path = nodes.prove(index, count)
            assert path == tree.inclusion_path(index)
            assert verify_history(tree.root, count, index, digest(index), path)


def test_wrong_index_count_digest_or_path_is_refused() -> None:
    history, store = grown(21)
    path = HistoryNodes(store).prove(5, 21)
    good = (history.root, 21, 5, digest(5), path)
    assert verify_history(*good)
    assert not verify_history(history.root, 21, 4, digest(5), path)
    assert not verify_history(history.root, 20, 5, digest(5), path)
    assert not verify_history(history.root, 21, 5, digest(6), path)
    assert not verify_history(digest(1), 21, 5, digest(5), path)
    assert not verify_history(history.root, 21, 5, digest(5), path[:-1])
    assert not verify_history(history.root, 21, 5, digest(5), path + (digest(0),))
    assert not verify_history(history.root, 21, -1, digest(5), path)
    for position in range(len(path)):
        for byte in range(32):
            damaged = bytearray(path[position])
            damaged[byte] ^= 1
            assert not verify_history(history.root, 21, 5, digest(5), path[:position] + (bytes(damaged),) + path[position + 1 :])


def test_history_is_loaded_as_it_was_stored_and_goes_on() -> None:
    assert load_history(MemoryKeyValue()).count == 0
    history, store = grown(13)
    loaded = load_history(store)
    assert (loaded.count, loaded.peaks, loaded.root) == (history.count, history.peaks, history.root)
    history.append(digest(13))
    copied = loaded.copy()
    loaded.append(digest(13))
    assert loaded.root == history.root and copied.count == 13


def test_node_started_from_peaks_proves_what_came_after_and_says_what_it_lacks() -> None:
    whole, store_of_whole = grown(29)
    snapshot = MemoryKeyValue()
    history = grown(22)[0]
    snapshot.write(WriteBatch(history_start_ops(History.decode(history.encode()))))
    joined = load_history(snapshot)
    for number in range(22, 29):
        snapshot.write(WriteBatch(history_append_ops(joined, digest(number))))
    assert joined.root == whole.root
    nodes = HistoryNodes(snapshot)
    for index in range(22, 29):
        assert nodes.prove(index, 29) == HistoryNodes(store_of_whole).prove(index, 29)
    assert nodes.root_at(22) == history.root
    with pytest.raises(Unavailable):
        nodes.prove(3, 29)
    with pytest.raises(Unavailable):
        nodes.prove(28, 30)
    with pytest.raises(InvariantBroken):
        nodes.prove(29, 29)


def test_digest_of_another_length_is_our_bug() -> None:
    history = History()
    with pytest.raises(InvariantBroken):
        history.append(b"short")
    assert history.count == 0


@given(data=st.binary(max_size=120))
def test_hostile_bytes_are_malformed_and_nothing_else(data: bytes) -> None:
    try:
        history = History.decode(data)
    except Malformed:
        return
    assert history.encode() == data


def test_every_cut_and_peaks_that_do_not_fit_the_count_are_malformed() -> None:
    encoded = grown(7)[0].encode()
    assert History.decode(encoded).encode() == encoded
    for length in range(len(encoded)):
        with pytest.raises(Malformed):
            History.decode(encoded[:length])
    damaged = bytearray(encoded)
    damaged[1] = 3  # the count: three peaks stay
    with pytest.raises(Malformed):
        History.decode(bytes(damaged))


def vectors() -> dict[str, object]:
    """What tests/vectors/history.json holds; a change of it is a change of the protocol."""
    _, store = grown(100)
    nodes = HistoryNodes(store)
    return {
        "about": "history roots and paths over digests tagged_digest('test/header', decimal index); hex",
        "roots": [{"count": count, "root": nodes.root_at(count).hex()} for count in (0, 1, 2, 3, 4, 7, 64, 100)],
        "encoded": [{"count": count, "history": grown(count)[0].encode().hex()} for count in (0, 1, 7, 100)],
        "proofs": [
            {"count": count, "index": index, "path": [node.hex() for node in nodes.prove(index, count)]}
            for count, index in ((1, 0), (7, 0), (7, 6), (64, 33), (100, 99), (100, 50))
        ],
    }


def test_roots_and_paths_are_the_frozen_ones() -> None:
    frozen = json.loads(VECTORS.read_text())
    assert vectors() == frozen
    roots = {entry["count"]: bytes.fromhex(entry["root"]) for entry in frozen["roots"]}
    for entry in frozen["proofs"]:
        path = [bytes.fromhex(node) for node in entry["path"]]
        assert verify_history(roots[entry["count"]], entry["count"], entry["index"], digest(entry["index"]), path)
