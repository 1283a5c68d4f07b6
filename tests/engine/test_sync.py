"""Catching up: whom to ask, what to believe, and how often to answer."""

from __future__ import annotations

import pytest

from medchain.chain.vote import Vote
from medchain.engine.ready import PeerAccused, PeerConnected, PeerDisconnected, Received, Ticked
from medchain.engine.sync import ANSWER_TIMEOUT_MS, BEHIND_GRACE_MS, LATE_BLOCKS_MAX, RANGES_PER_SECOND_MAX
from medchain.wire.peer import RANGE_BLOCKS_MAX, PeerStatus, RangeSent, RangeWanted


class Lagging:
    """A node alone with its three peers' words; the others are ahead by some blocks."""

    def __init__(self, cluster, blocks: int = 5) -> None:
        self.cluster = cluster
        cluster.warm()
        self.node = cluster.nodes[3]
        for other in cluster.nodes[:3]:
            cluster.disconnect(self.node, other)
        for index in range(blocks):
            cluster.settle(cluster.nodes[0], cluster.patient(0, f"patient {index}"), among=cluster.nodes[:3])
        self.peers = [node.key.public for node in cluster.nodes[:3]]
        self.chain = cluster.nodes[0].engine.chain
        self.now_ms = 96_000
        for _ in range(40):  # a jump would be a long turn, in which nobody's silence is counted
            self.tick(100)
        for peer in self.peers:
            self.node.handle(PeerConnected(peer))

    def tick(self, milliseconds: int):
        self.now_ms += milliseconds
        return self.asked(self.node.handle(Ticked(self.now_ms, 1_800_000_000_000 + self.now_ms)))

    def status(self, peer: int, height: int):
        known = self.chain.archive.digest_of(height) or bytes(32)
        return self.asked(self.node.handle(Received(self.peers[peer], PeerStatus(height, known))))

    def asked(self, ready):
        return [(self.peers.index(e.to), e.message) for e in ready.send if isinstance(e.message, RangeWanted)]

    def blocks(self, first: int, last: int):
        return tuple((self.chain.block_of(height), self.chain.certificate_of(height)) for height in range(first, last + 1))


@pytest.fixture
def lagging(cluster) -> Lagging:
    return Lagging(cluster)


def test_a_peer_ahead_is_asked_for_a_whole_range(lagging):
    lagging.status(0, 5)
    assert lagging.tick(20) == [(0, RangeWanted(1, RANGE_BLOCKS_MAX))]
    lagging.node.handle(Received(lagging.peers[0], RangeSent(lagging.blocks(1, 5))))
    assert lagging.node.engine.head == lagging.chain.head
    assert lagging.tick(20) == []


def test_a_gap_of_one_block_is_left_to_consensus_for_a_moment(lagging):
    lagging.status(0, 1)
    assert lagging.tick(20) == []
    assert lagging.tick(BEHIND_GRACE_MS) == [(0, RangeWanted(1, RANGE_BLOCKS_MAX))]


def test_silence_is_answered_by_asking_another_peer(lagging):
    for peer in range(3):
        lagging.status(peer, 5)
    asked = {peer for peer, _ in lagging.tick(20)}
    for _ in range(2):
        assert lagging.tick(ANSWER_TIMEOUT_MS - 20) == []
        (again,) = lagging.tick(20)
        asked.add(again[0])
    assert asked == {0, 1, 2}


def test_a_lost_peer_is_replaced_at_once(lagging):
    for peer in range(3):
        lagging.status(peer, 5)
    ((first, _),) = lagging.tick(20)
    lagging.node.handle(PeerDisconnected(lagging.peers[first]))
    ((second, _),) = lagging.tick(20)
    assert second != first


def test_a_boaster_with_nothing_to_show_is_left_aside(lagging):
    lagging.status(0, 2**40)
    lagging.tick(20)
    lagging.node.handle(Received(lagging.peers[0], RangeSent(())))
    assert lagging.tick(20) == []
    assert lagging.node.engine.status()["best_height"] == 0
    lagging.status(1, 5)
    assert [peer for peer, _ in lagging.tick(20)] == [1]


def test_ranges_that_come_twice_out_of_order_or_unasked_do_no_harm(lagging):
    node, peers = lagging.node, lagging.peers
    node.handle(Received(peers[0], RangeSent(lagging.blocks(3, 5))))
    assert node.height == 0
    node.handle(Received(peers[0], RangeSent(lagging.blocks(1, 3))))
    assert node.height == 3
    node.handle(Received(peers[1], RangeSent(lagging.blocks(1, 4))), Received(peers[2], RangeSent(lagging.blocks(2, 5))))
    assert node.height == 5
    assert not any(isinstance(reply, PeerAccused) for reply in node.replies)


def test_a_condemned_peer_is_not_heard_even_after_it_connects_again(lagging):
    node, liar = lagging.node, lagging.peers[0]
    (block, certificate), *_ = lagging.blocks(1, 1)
    forged = type(certificate)(1, 0, certificate.digest, tuple((index, bytes(64)) for index, _ in certificate.commits))
    ready = node.handle(Received(liar, RangeSent(((block, forged),))))
    assert [reply.peer for reply in ready.replies if isinstance(reply, PeerAccused)] == [liar]
    node.handle(PeerDisconnected(liar))
    node.handle(PeerConnected(liar))
    lagging.status(0, 5)
    assert lagging.tick(20) == []
    node.handle(Received(liar, RangeSent(lagging.blocks(1, 5))))
    assert node.height == 0
    assert [peer for peer, _ in lagging.tick(61_000)] == [0]


def test_many_blocks_are_applied_over_several_turns(make_cluster):
    lagging = Lagging(make_cluster(), 40)
    ready = lagging.node.handle(Received(lagging.peers[0], RangeSent(lagging.blocks(1, 40))))
    assert lagging.node.height == 16
    assert ready.batch
    lagging.tick(20)
    lagging.tick(20)
    assert lagging.node.height == 40


def test_the_next_range_is_asked_for_while_the_last_one_is_applied(make_cluster):
    lagging = Lagging(make_cluster(), 40)
    lagging.status(0, 40)
    assert lagging.tick(20) == [(0, RangeWanted(1, RANGE_BLOCKS_MAX))]
    ready = lagging.node.handle(Received(lagging.peers[0], RangeSent(lagging.blocks(1, 30))))
    assert lagging.node.height == 16 and ready.again_ms == 0
    assert lagging.asked(ready) == [(0, RangeWanted(31, RANGE_BLOCKS_MAX))]
    lagging.node.handle(Received(lagging.peers[0], RangeSent(lagging.blocks(31, 40))))
    assert lagging.node.height == 32
    ready = lagging.node.handle()
    assert lagging.asked(ready) == [] and ready.again_ms is None
    assert lagging.node.height == 40


def test_what_was_asked_for_ahead_is_asked_again_when_the_blocks_before_it_were_a_lie(make_cluster):
    lagging = Lagging(make_cluster(), 40)
    liar, honest = lagging.peers[0], lagging.peers[1]
    lagging.status(0, 40)
    lagging.tick(20)
    block, certificate = lagging.blocks(17, 17)[0]
    forged = type(certificate)(17, 0, certificate.digest, tuple((index, bytes(64)) for index, _ in certificate.commits))
    lagging.node.handle(Received(liar, RangeSent((*lagging.blocks(1, 16), (block, forged), *lagging.blocks(18, 30)))))
    ready = lagging.node.handle()
    assert lagging.node.height == 16 and ready.again_ms is None
    lagging.status(1, 40)
    assert lagging.tick(20) == [(1, RangeWanted(17, RANGE_BLOCKS_MAX))]
    lagging.node.handle(Received(liar, RangeSent(lagging.blocks(31, 40))), Received(honest, RangeSent(lagging.blocks(17, 32))))
    assert lagging.node.height == 32


def test_a_peer_that_names_another_block_of_a_decided_height_is_named(cluster):
    cluster.warm()
    cluster.settle(cluster.nodes[0], cluster.credential())
    node, peer = cluster.nodes[0], cluster.nodes[1]
    ready = node.handle(Received(peer.key.public, PeerStatus(1, bytes(32))))
    assert [reply.peer for reply in ready.replies if isinstance(reply, PeerAccused)] == [peer.key.public]


def test_ranges_are_served_from_height_1_within_bounds_and_not_without_end(cluster):
    cluster.warm()
    for index in range(3):
        cluster.settle(cluster.nodes[0], cluster.patient(0, f"patient {index}"))
    node, peer = cluster.nodes[0], cluster.nodes[1].key.public

    def served(first: int, count: int) -> list[int] | None:
        sent = [e.message for e in node.handle(Received(peer, RangeWanted(first, count))).send if isinstance(e.message, RangeSent)]
        return [block.header.height for block, _ in sent[0].blocks] if sent else None

    cluster.run(1_000)
    assert served(0, 2) == [1]
    assert served(2, 1) == [2]
    assert served(1, 64) == [1, 2, 3]
    assert served(4, 64) == []
    answers = [served(1, 1) for _ in range(RANGES_PER_SECOND_MAX)]
    assert answers.count(None) == 4
    cluster.run(1_000)
    assert served(1, 1) == [1]


def test_answer_to_a_range_ends_where_reading_it_would_keep_votes_waiting(cluster, monkeypatch):
    """Found with a spammer as a real process: 64 full blocks were read in one turn, and for a second nobody's vote was heard."""
    cluster.warm()
    for index in range(3):
        cluster.settle(cluster.nodes[0], cluster.patient(0, f"patient {index}"))
    node, peer = cluster.nodes[0], cluster.nodes[1].key.public
    size = len(node.engine.chain.archive.block(1)) + len(node.engine.chain.archive.block(2))
    cluster.run(1_000)
    for bound, heights in ((size, [1, 2]), (1, [1])):
        monkeypatch.setattr("medchain.engine.sync.SERVED_BYTES_MAX", bound)
        (answer,) = [e.message for e in node.handle(Received(peer, RangeWanted(1, 64))).send if isinstance(e.message, RangeSent)]
        assert [block.header.height for block, _ in answer.blocks] == heights


def accused(ready) -> list[bytes]:
    return [reply.peer for reply in ready.replies if isinstance(reply, PeerAccused)]


def test_a_peer_that_sends_old_blocks_without_end_is_named(lagging):
    node, liar = lagging.node, lagging.peers[0]
    node.handle(Received(liar, RangeSent(lagging.blocks(1, 5))))
    useless = RangeSent(lagging.blocks(1, 5) * 12)
    rounds = next(number for number in range(100) if accused(node.handle(Received(liar, useless))))
    assert 20 < rounds < 50
    assert not accused(node.handle(Received(liar, useless)))  # and again only after as many more
    assert not accused(node.handle(Received(lagging.peers[1], useless)))


def test_late_answers_of_an_honest_peer_never_add_up(lagging):
    """Four a second of eight blocks each, for ten minutes, and a minute's worth of them at once."""
    node, peer = lagging.node, lagging.peers[0]
    node.handle(Received(peer, RangeSent(lagging.blocks(1, 5))))
    late = RangeSent((lagging.blocks(1, 5) * 2)[:LATE_BLOCKS_MAX])
    for _ in range(2_400):
        lagging.now_ms += 250
        assert not accused(node.handle(Ticked(lagging.now_ms, 1_800_000_000_000 + lagging.now_ms), Received(peer, late)))
    assert not [one for _ in range(240) for one in accused(node.handle(Received(peer, late)))]


@pytest.mark.parametrize("boasters, is_signed", [(1, True), (2, False)])
def test_late_commits_are_signed_for_heights_that_fewer_than_f_plus_one_say_to_be_long_past(lagging, boasters, is_signed):
    """A single liar with a huge height must not make a slow validator look dead; f + 1 hold an honest one, who says the truth."""
    for peer in range(3):
        lagging.status(peer, 2**40 if peer < boasters else 5)
    ready = lagging.node.handle(Received(lagging.peers[2], RangeSent(lagging.blocks(1, 5))))
    assert lagging.node.height == 5
    signed = [envelope.message.height for envelope in ready.send if isinstance(envelope.message, Vote)]
    assert signed == ([2, 3, 4, 5] if is_signed else []), "height 1 it left by a view change while it was alone"
    statuses = [place for place, envelope in enumerate(ready.send) if isinstance(envelope.message, PeerStatus)]
    commits = [place for place, envelope in enumerate(ready.send) if isinstance(envelope.message, Vote)]
    assert not is_signed or min(statuses) < min(commits), "without its status first, its commits would be taken for questions"
