"""Hard state on disk: every record comes back after a restart, and damage is told."""

from __future__ import annotations

import pytest

from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.consensus.events import OwnPreparedProof, OwnViewChange, OwnVote, PinnedProposal
from medchain.engine import hardstate
from medchain.engine.executor import Executor
from medchain.engine.verification import Verifier
from medchain.errors import InvariantBroken, Malformed
from medchain.store import layout
from medchain.store.archive import BlockArchive
from medchain.store.staged import Staged


@pytest.fixture
def kept(cluster):
    """A store after height 0 with all kinds of records of height 1 written; returns (store, records, block)."""
    node = cluster.nodes[0]
    executor = Executor(node.engine.chain, Verifier(cluster.network))
    block = executor.build(0, 1_900_000_000_000, node.key.public, [cluster.credential()]).block
    digest = block.header.digest()
    keys = sorted((other.key for other in cluster.nodes), key=lambda key: key.public)
    prepares = tuple((index, Vote.sign(cluster.network, key, PREPARE, 1, 0, digest).signature) for index, key in enumerate(keys[:3]))
    proof = PreparedProof(1, 0, digest, prepares)
    records = [
        PinnedProposal(block.proposal(), 0),
        PinnedProposal(block.proposal(), 3),
        OwnVote(Vote.sign(cluster.network, node.key, PREPARE, 1, 0, digest)),
        OwnVote(Vote.sign(cluster.network, node.key, COMMIT, 1, 0, digest)),
        OwnVote(Vote.sign(cluster.network, node.key, PREPARE, 1, 3, digest)),
        OwnViewChange(ViewChange.sign(cluster.network, node.key, 1, 3, proof)),
        OwnPreparedProof(proof),
    ]
    staged = Staged(node.store)
    for record in records:
        hardstate.save(staged, BlockArchive(staged), record, block if isinstance(record, PinnedProposal) else None)
    node.store.write(staged.take_batch())
    return node.store, records, block


def load(store, height: int = 1):
    staged = Staged(store)
    return hardstate.load(staged, BlockArchive(staged), height)


def test_every_record_comes_back(kept):
    store, records, _ = kept
    found = load(store)
    assert sorted(map(repr, found)) == sorted(map(repr, records))
    assert [type(record) for record in found[:2]] == [PinnedProposal, PinnedProposal]
    assert load(store, 2) == ()
    assert {hardstate.height_of(record) for record in records} == {1}


def test_the_block_of_a_pin_is_written_once(kept):
    store, _, block = kept
    digest = block.header.digest()
    assert store.get(layout.body_key(digest)) == block.encode()
    staged = Staged(store)
    hardstate.save(staged, BlockArchive(staged), PinnedProposal(block.proposal(), 5), None)
    assert not any(key.startswith(layout.BODY) for key, _ in staged.take_batch().operations)


def test_a_pin_without_its_block_is_our_own_bug(cluster, kept):
    _, records, _ = kept
    other = cluster.nodes[1].store
    staged = Staged(other)
    with pytest.raises(InvariantBroken):
        hardstate.save(staged, BlockArchive(staged), records[0], None)


def test_damaged_or_unknown_records_are_malformed(kept):
    store, _, block = kept
    prefix = layout.HARD_STATE + layout.uint64(1)
    for key, value in list(store.iterate(prefix, prefix + b"\xff")):
        if value:
            copy = store.copy()
            staged = Staged(copy)
            staged.put(key, value[:-1])
            with pytest.raises(Malformed):
                hardstate.load(staged, BlockArchive(staged), 1)
    staged = Staged(store)
    staged.put(layout.hard_state_key(1, b"?"), b"")
    with pytest.raises(Malformed):
        hardstate.load(staged, BlockArchive(staged), 1)
    staged = Staged(store)
    staged.delete(layout.body_key(block.header.digest()))
    with pytest.raises(Malformed):
        hardstate.load(staged, BlockArchive(staged), 1)
