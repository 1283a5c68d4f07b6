"""Frames and lanes: what goes in comes out, in order within a lane, and hostile frames give Malformed and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain.errors import Malformed
from medchain.network.framing import Assembler, part_head
from medchain.network.limits import PART_BYTES, SOCKET_FRAME_BYTES_MAX, LaneLimits
from medchain.network.outbox import Outbox
from medchain.wire.peer import CONSENSUS_LANE, FRAME_BYTES_MAX, GOSSIP_LANE, QUERY_LANE

WIDE = LaneLimits(64 * 1024 * 1024, 10_000)


def outbox(gossip: LaneLimits = WIDE, consensus: LaneLimits = WIDE, query: LaneLimits = WIDE) -> Outbox:
    return Outbox(consensus, gossip, query)


def drain(box: Outbox) -> list[bytes]:
    frames = []
    while (frame := box.take()) is not None:
        assert 0 < len(frame) <= SOCKET_FRAME_BYTES_MAX
        frames.append(frame)
    return frames


sizes = st.one_of(st.integers(1, 300), st.integers(PART_BYTES - 2, PART_BYTES + 2), st.integers(2 * PART_BYTES - 2, 5 * PART_BYTES))


@given(st.lists(st.tuples(st.integers(0, 2), sizes), max_size=30))
def test_messages_come_out_whole_and_in_order_within_their_lane(puts):
    box = outbox()
    sent: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    for number, (lane, size) in enumerate(puts):
        message = bytes([lane]) + number.to_bytes(4, "big") + bytes(size)
        assert box.put(lane, message)
        sent[lane].append(message)
    assembler = Assembler()
    received = [message for frame in drain(box) for message in assembler.feed(frame)]
    assert len(box) == 0 and box.bytes_waiting == 0
    for lane in range(3):
        assert [message for message in received if message[0] == lane] == sent[lane]


def test_consensus_overtakes_a_long_message_in_its_middle():
    box = outbox()
    long = bytes(8 * PART_BYTES)
    box.put(QUERY_LANE, long)
    first = box.take()
    box.put(CONSENSUS_LANE, b"vote")
    assembler = Assembler()
    assert assembler.feed(first) == []
    assert assembler.feed(box.take()) == [b"vote"]
    assert [message for frame in drain(box) for message in assembler.feed(frame)] == [long]


def test_full_gossip_lane_drops_its_oldest_and_counts():
    box = outbox(gossip=LaneLimits(100, 10))
    for number in range(15):
        assert box.put(GOSSIP_LANE, bytes([number]) * 20)
    assert box.take_drops() == {"gossip-overflow": 10}
    assert box.take_drops() == {}
    assert Assembler().feed(box.take()) == [bytes([number]) * 20 for number in range(10, 15)]


def test_full_lane_is_also_bounded_by_count():
    box = outbox(query=LaneLimits(1_000, 3))
    for number in range(5):
        box.put(QUERY_LANE, bytes([number]))
    assert box.take_drops() == {"query-overflow": 2}
    assert Assembler().feed(box.take()) == [b"\x02", b"\x03", b"\x04"]


def test_message_half_sent_is_not_dropped():
    box = outbox(gossip=LaneLimits(5 * PART_BYTES, 10))
    long = b"\x01" * (4 * PART_BYTES)
    box.put(GOSSIP_LANE, long)
    assembler = Assembler()
    assert assembler.feed(box.take()) == []
    box.put(GOSSIP_LANE, b"\x02" * PART_BYTES)
    box.put(GOSSIP_LANE, b"\x03" * PART_BYTES)
    box.put(GOSSIP_LANE, b"\x04" * (3 * PART_BYTES))
    received = [message for frame in drain(box) for message in assembler.feed(frame)]
    assert received == [long]
    assert box.take_drops() == {"gossip-overflow": 3}  # the second by the third, the third by the fourth, which still found no room


def test_full_consensus_lane_drops_nothing_and_says_so():
    box = outbox(consensus=LaneLimits(100, 10))
    for _ in range(10):
        assert box.put(CONSENSUS_LANE, b"0123456789")
    assert not box.put(CONSENSUS_LANE, b"x")
    assert box.take_drops() == {}
    assert len(box) == 10


def test_lanes_do_not_take_each_others_room():
    box = outbox(gossip=LaneLimits(100, 10))
    for _ in range(50):
        box.put(GOSSIP_LANE, bytes(50))
    assert box.put(CONSENSUS_LANE, b"vote")
    assert box.put(QUERY_LANE, b"question")
    assert box.take_drops() == {"gossip-overflow": 48}


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x00",
        b"\x00\x00\x00",
        part_head(0, 0, is_last=True),
        part_head(0, 1, is_last=True),
        part_head(3, 1, is_last=True) + b"x",
        part_head(0, 1, is_last=False) + b"x",
        part_head(0, PART_BYTES + 1, is_last=True) + bytes(PART_BYTES + 1),
        part_head(0, 1, is_last=True) + b"x" + b"rest",
        bytes(SOCKET_FRAME_BYTES_MAX + 1),
    ],
)
def test_malformed_frame_is_refused(frame):
    with pytest.raises(Malformed):
        Assembler().feed(frame)


def test_endless_message_is_refused_at_its_bound():
    assembler = Assembler()
    frame = part_head(1, PART_BYTES, is_last=False) + bytes(PART_BYTES)
    with pytest.raises(Malformed, match="longer"):
        for _ in range(FRAME_BYTES_MAX // PART_BYTES + 1):
            assembler.feed(frame)


def test_message_of_the_greatest_length_passes_and_one_byte_more_does_not():
    for extra, passes in ((0, True), (1, False)):
        box = outbox()
        box.put(QUERY_LANE, bytes(FRAME_BYTES_MAX + extra))
        assembler = Assembler()
        if passes:
            assert [len(m) for frame in drain(box) for m in assembler.feed(frame)] == [FRAME_BYTES_MAX]
        else:
            with pytest.raises(Malformed):
                for frame in drain(box):
                    assembler.feed(frame)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_arbitrary_frames_give_messages_or_malformed(frames):
    assembler = Assembler()
    for frame in frames:
        try:
            messages = assembler.feed(frame)
        except Malformed:
            break
        assert sum(len(message) + 4 for message in messages) <= len(frame)
