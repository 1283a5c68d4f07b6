"""The amnesia check: who must answer, what is compared, and what a forgotten vote leads to (protocol.md, "Amnesia")."""

from __future__ import annotations

import pytest

from medchain.chain.certificate import Certificate
from medchain.chain.vote import COMMIT, PREPARE, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.engine.engine import Engine
from medchain.engine.ready import Alarm, PeerAccused, Received
from medchain.engine.recovery import UNCONFIRMED_KEY
from medchain.store import layout
from medchain.store.memory import MemoryKeyValue
from medchain.wire.peer import PastVotesSent, PastVotesWanted, RangeSent


def may_vote(node) -> bool:
    return node.engine.status()["may_vote"]


def votes_of(cluster, node, first: int = 0) -> list[Vote]:
    """Votes that a node itself sent, from message number `first` on."""
    sent = [message for source, _, message, _ in cluster.sent[first:] if source == node.index]
    return [message for message in sent if isinstance(message, Vote | ViewChange) and message.signer == node.key.public]


def test_no_vote_before_the_check_is_passed(cluster):
    """Three nodes of four are the quorum that an intact store needs, itself included: with one peer alone nobody votes."""
    cluster.warm()
    for node in cluster.nodes[1:]:
        cluster.kill(node)
    node = cluster.nodes[0]
    cluster.restart(node)
    cluster.restart(cluster.nodes[1])
    cluster.run(3_000)
    assert not may_vote(node)
    assert "1 of 2 other validators" in node.engine.status()["waits_for"]
    cluster.restart(cluster.nodes[2])
    cluster.run_until(lambda: may_vote(node), 3_000)


def test_nodes_answer_before_their_own_check_is_done(cluster):
    node, peer = cluster.nodes[0], cluster.nodes[1]
    assert not may_vote(node)
    sent = node.handle(Received(peer.key.public, PastVotesWanted(bytes(32)))).send
    answers = [envelope.message for envelope in sent if isinstance(envelope.message, PastVotesSent)]
    assert answers == [PastVotesSent(bytes(32), 0, None, (), ())]


def wipe(cluster, node) -> None:
    cluster.kill(node)
    node.store = MemoryKeyValue()


def test_a_wiped_store_needs_a_quorum_of_others_also_after_another_restart(cluster):
    cluster.warm()
    cluster.settle(cluster.nodes[0], cluster.credential())
    node = cluster.nodes[3]
    wipe(cluster, node)
    cluster.kill(cluster.nodes[2])
    cluster.restart(node)
    cluster.run(2_000)
    assert node.height == cluster.nodes[0].height      # it follows
    assert not may_vote(node)                          # and waits for the third
    assert node.store.get(UNCONFIRMED_KEY) is not None
    cluster.restart(node)
    cluster.run(2_000)
    assert not may_vote(node)
    cluster.restart(cluster.nodes[2])
    cluster.run_until(lambda: may_vote(node), 5_000)
    assert node.store.get(UNCONFIRMED_KEY) is None


def test_a_wiped_store_of_a_new_network_is_simply_new(cluster):
    node = cluster.nodes[3]
    wipe(cluster, node)
    cluster.restart(node)
    cluster.run_until(lambda: may_vote(node), 3_000)
    assert node.engine.head.height == 0
    cluster.settle(node, cluster.credential())


def test_a_store_that_the_world_found_damaged_needs_a_quorum_of_others(cluster):
    cluster.warm()
    node = cluster.nodes[3]
    cluster.kill(cluster.nodes[2])
    cluster.restart(node, is_store_damaged=True)
    cluster.run(2_000)
    assert not may_vote(node)
    cluster.restart(cluster.nodes[2])
    cluster.run_until(lambda: may_vote(node), 5_000)


@pytest.mark.parametrize("is_wiped", [False, True])
def test_a_forgotten_vote_makes_an_observer_up_to_and_including_m_plus_2(cluster, is_wiped):
    cluster.warm()
    cluster.settle(cluster.nodes[0], cluster.credential())
    cluster.run(200)
    node = cluster.nodes[3]
    height = node.height
    before = node.store.copy()
    cluster.drop = lambda source, target, message: isinstance(message, Vote) and message.kind == COMMIT
    cluster.submit(cluster.nodes[0], cluster.credential(name="kim"))
    cluster.run(200)                                   # everybody prepared height + 1, nobody decided it
    cluster.kill(node)
    node.store = MemoryKeyValue() if is_wiped else before
    first = len(cluster.sent)
    cluster.restart(node)
    cluster.run_until(lambda: node.engine._check.is_passed, 5_000)
    assert node.store.get(layout.OBSERVER_MARK) == layout.uint64(height + 2)
    assert [alarm.code for alarm in node.replies_of(Alarm)] == ["amnesia.votes-forgotten"]
    assert not may_vote(node)
    cluster.drop = lambda source, target, message: False
    cluster.run_until(lambda: node.height == height + 1)
    cluster.restart(node)                              # the mark survives a restart
    assert not may_vote(node)
    cluster.settle(cluster.nodes[0], cluster.patient(0, "early"))
    assert node.height == height + 2
    assert votes_of(cluster, node, first) == []
    cluster.run_until(lambda: may_vote(node), 3_000)
    cluster.settle(node, cluster.patient(0, "late"))
    assert votes_of(cluster, node, first)


def test_votes_of_decided_heights_shown_by_a_liar_are_ignored(cluster):
    """A liar replays pruned own votes at a restart: nobody becomes an observer for it (lessons.md)."""
    cluster.warm()
    cluster.settle(cluster.nodes[0], cluster.credential())
    node, liar = cluster.nodes[3], cluster.nodes[0]
    old = Vote.sign(cluster.network, node.key, PREPARE, 1, 7, bytes(32))
    cluster.restart(node)
    challenge = next(m.challenge for s, t, m, _ in reversed(cluster.sent) if isinstance(m, PastVotesWanted) and s == node.index)
    chain = liar.engine.chain
    node.handle(Received(liar.key.public, PastVotesSent(challenge, chain.height, chain.certificate, (old,), ())))
    cluster.run_until(lambda: may_vote(node), 3_000)
    assert node.store.get(layout.OBSERVER_MARK) is None


def test_forged_answers_and_answers_to_another_start_count_for_nothing(cluster):
    cluster.warm()
    cluster.settle(cluster.nodes[0], cluster.credential())
    node, liar = cluster.nodes[3], cluster.nodes[0]
    cluster.drop = lambda source, target, message: isinstance(message, PastVotesSent)
    cluster.restart(node)
    challenge = next(m.challenge for s, t, m, _ in reversed(cluster.sent) if isinstance(m, PastVotesWanted) and s == node.index)
    chain = liar.engine.chain
    certificate = chain.certificate
    forged_vote = Vote(PREPARE, 9, 0, bytes(32), node.key.public, bytes(64))
    not_own = Vote.sign(cluster.network, liar.key, PREPARE, 9, 0, bytes(32))
    forged = Certificate(9, 0, bytes(32), tuple((index, bytes(64)) for index, _ in certificate.commits))
    short = Certificate(1, 0, chain.digest, certificate.commits[:1])
    for answer in (
        PastVotesSent(challenge, 1, certificate, (forged_vote,), ()),
        PastVotesSent(challenge, 1, certificate, (not_own,), ()),
        PastVotesSent(challenge, 9, None, (), ()),
        PastVotesSent(challenge, 1, short, (), ()),
    ):
        ready = node.handle(Received(liar.key.public, answer))
        assert any(isinstance(reply, PeerAccused) for reply in ready.replies), answer
    for answer in (PastVotesSent(challenge, 9, forged, (), ()), PastVotesSent(bytes(32), 1, certificate, (), ())):
        node.handle(Received(liar.key.public, answer))
    assert node.engine._check.answered() == 0
    cluster.drop = lambda source, target, message: False
    cluster.run_until(lambda: may_vote(node), 3_000)


def test_it_catches_up_to_the_highest_certified_height_shown_before_it_votes(cluster):
    cluster.warm()
    node = cluster.nodes[3]
    cluster.kill(node)
    for index in range(5):
        cluster.settle(cluster.nodes[0], cluster.patient(0, f"patient {index}"))
    ranges = [True]
    cluster.drop = lambda source, target, message: isinstance(message, RangeSent) and ranges[0]
    cluster.restart(node)
    cluster.run(1_000)
    assert node.engine._check.answered() >= node.engine._check.needed()
    assert not may_vote(node)
    ranges[0] = False
    cluster.run_until(lambda: may_vote(node), 10_000)
    assert node.height == cluster.nodes[0].height


def test_a_liar_that_shows_a_certificate_and_gives_no_block_holds_nobody_up(cluster):
    """A liar alone decides a height by everybody's commits and withholds the block; the restarted node is needed for the quorum.

    The certificate that it shows is enough: f + 1 honest validators of any certificate pinned its block (found by seed 1000726).
    """
    cluster.warm()
    cluster.settle(cluster.nodes[0], cluster.credential())
    liar, away, peer, node = cluster.nodes
    height = liar.height

    def is_shown(message) -> bool:
        return isinstance(message, PastVotesSent | PrePrepare) or (isinstance(message, Vote) and message.kind == PREPARE)

    cluster.drop = lambda source, target, message: away in (source, target) or (source is liar and not is_shown(message))
    cluster.submit(peer, cluster.patient())
    cluster.run_until(lambda: liar.height == height + 1, 10_000)
    assert {away.height, peer.height, node.height} == {height}
    cluster.drop = lambda source, target, message: source is liar and not isinstance(message, PastVotesSent)
    cluster.restart(node)
    cluster.run_until(lambda: all(honest.height > height and may_vote(honest) for honest in (away, peer, node)), 10_000)


def test_the_way_back_after_a_vote_by_another_holder_of_the_key(cluster):
    """A copy votes once: the node stops voting until it is restarted, observes until that vote is past, and votes again."""
    cluster.warm()
    cluster.settle(cluster.nodes[0], cluster.credential())
    node = cluster.nodes[3]
    height = node.height
    cluster.drop = lambda source, target, message: isinstance(message, Vote) and message.kind == COMMIT
    copied = Vote.sign(cluster.network, node.key, PREPARE, height + 1, 0, bytes(32))
    for other in cluster.nodes[:3]:
        other.handle(Received(cluster.nodes[0].key.public, copied))
    node.handle(Received(cluster.nodes[0].key.public, copied))
    assert [alarm.code for alarm in node.replies_of(Alarm)] == ["amnesia.unknown-vote"]
    cluster.run(2_000)
    assert not may_vote(node) and "an operator" in node.engine.status()["waits_for"]
    node.replies.clear()
    cluster.restart(node)
    cluster.run_until(lambda: node.engine._check.is_passed, 5_000)
    assert [alarm.code for alarm in node.replies_of(Alarm)] == ["amnesia.votes-forgotten"] and not may_vote(node)
    cluster.drop = lambda *_: False
    for name in ("kim", "park", "cho"):
        cluster.settle(cluster.nodes[0], cluster.credential(name=name))
    cluster.run_until(lambda: may_vote(node), 3_000)
    assert not node.replies_of(PeerAccused)


def test_an_observer_follows_and_never_votes(cluster, signer):
    cluster.warm()
    node = cluster.nodes[3]
    cluster.kill(node)
    first = len(cluster.sent)
    node.key = signer("somebody who observes")
    cluster.restart(node)
    cluster.settle(cluster.nodes[0], cluster.credential())
    assert node.height == cluster.nodes[0].height
    assert votes_of(cluster, node, first) == []
    assert not node.engine.status()["is_validator"]


def test_founding_makes_a_store_intact(cluster):
    store = MemoryKeyValue()
    store.write(Engine.founding_batch(cluster.genesis))
    assert store.get(UNCONFIRMED_KEY) is None
    assert store.get(layout.HEAD) is not None
