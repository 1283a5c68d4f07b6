"""The peer network over real sockets and real TLS on loopback. Nothing sleeps: conditions are polled with deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

import aiohttp
import pytest

from medchain.chain.vote import COMMIT, Vote
from medchain.engine.ready import PeerConnected, PeerDisconnected
from medchain.errors import InvariantBroken, Rejected, Unavailable
from medchain.network.framing import part_head
from medchain.network.limits import SOCKET_FRAME_BYTES_MAX, LaneLimits
from medchain.wire.peer import CONSENSUS_LANE, PastVotesWanted, PeerStatus, PoolListed, RangeWanted, encode_message

pytestmark = [pytest.mark.asyncio, pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")]

STATUS = PeerStatus(3, b"\x05" * 32)
MANY = PoolListed(tuple((number.to_bytes(32, "big"), b"\x01" * 32) for number in range(9_000)))
"""About 600 kB: ten parts."""


def vote(number: int) -> Vote:
    return Vote(COMMIT, number, 0, b"\x01" * 32, b"\x02" * 32, b"\x03" * 64)


async def pair(cluster, until, **options):
    """Two connected nodes; the first has the smaller key, so it dials."""
    second = await cluster.start(1, **options)
    first = await cluster.start(0, **options)
    await until(lambda: first.is_connected(second) and second.is_connected(first), what="two nodes connect")
    return first, second


async def test_two_nodes_connect_and_exchange_messages_both_ways(cluster, until):
    first, second = await pair(cluster, until)
    first.send(STATUS, vote(1))
    second.send(vote(2), to=first.public)
    await until(lambda: len(second.messages()) == 2 and len(first.messages()) == 1)
    assert sorted(second.messages(), key=repr) == sorted([STATUS, vote(1)], key=repr)
    assert first.messages() == [vote(2)]
    facts = first.network.facts()
    assert [row.is_connected for row in facts] == [True, False, False]
    assert facts[0].height_at_handshake == 7 and facts[0].number == 1


async def test_four_nodes_connect_all_pairs_with_one_connection_each(cluster, until):
    nodes = [await cluster.start(index) for index in range(4)]
    await until(lambda: all(len(node.network.connected) == 3 for node in nodes))
    for node in nodes:
        node.send(vote(1))
    await until(lambda: all(len(node.messages()) == 3 for node in nodes))
    assert all(node.network.counters.value("network_connections") == 3 for node in nodes)


async def test_long_message_arrives_whole(cluster, until):
    first, second = await pair(cluster, until)
    first.send(MANY, STATUS)
    await until(lambda: len(second.messages()) == 2)
    assert second.messages() == [MANY, STATUS]
    assert first.network.counters.value("network_frames_sent") > 3


async def test_both_dialling_ends_with_the_connection_that_the_smaller_key_dialled(cluster, until, quick):
    eager = replace(quick, fallback_dial_after_ms=1)
    # The larger one alone first: nobody dials it, so it dials.
    first = await cluster.start(0, limits=eager)
    cluster.endpoints[first.public] = ()
    second = cluster.make(1, limits=eager, endpoints={first.public: (f"127.0.0.1:{first.network.port}",)})
    await second.network.start()
    await until(lambda: first.is_connected(second) and second.is_connected(first), what="the larger key dials in the end")
    # Now the smaller finds the way as well, and its connection takes the place of the other.
    peer = first.network._peers[second.public]
    assert peer.connection is not None and not peer.connection.is_dialled_by_smaller
    cluster.endpoints[second.public] = (f"127.0.0.1:{second.network.port}",)
    dialling = asyncio.create_task(first.network._dial_once(second.public, peer, 0))
    await until(lambda: peer.connection is not None and peer.connection.is_dialled_by_smaller)
    other = second.network._peers[first.public]
    await until(lambda: other.connection is not None and other.connection.is_dialled_by_smaller)
    first.send(vote(1))
    second.send(vote(2))
    await until(lambda: vote(1) in second.messages() and vote(2) in first.messages())
    kinds = [type(event) for event in first.connections()]
    assert kinds == [PeerConnected, PeerDisconnected, PeerConnected]
    # A further attempt of the larger key is refused, without a ban and without an event.
    assert await second.network._dial_once(first.public, other, 0) == "handshake.already-connected"
    assert [type(event) for event in first.connections()] == kinds
    dialling.cancel()


async def test_simultaneous_dials_of_both_sides_settle_on_one_connection(cluster, until, quick):
    eager = replace(quick, fallback_dial_after_ms=0, dial_pause_first_ms=1)
    nodes = [await cluster.start(index, limits=eager) for index in range(4)]
    await until(lambda: all(len(node.network.connected) == 3 for node in nodes))

    def is_settled() -> bool:
        transports = [[t for t in node.network._listener._open_transports() if not t.is_closing()] for node in nodes]
        return sum(map(len, transports)) == 6 and all(len(node.network.connected) == 3 for node in nodes)

    await until(is_settled, what="six connections for six pairs")
    for node in nodes:
        node.send(vote(1))
    await until(lambda: all(len(node.messages()) == 3 for node in nodes))


async def test_peer_of_another_network_is_refused_with_its_code(cluster, until):
    first = await cluster.start(0)
    second = await cluster.start(1, genesis=replace(cluster.world.genesis, chain_id="other"))
    await until(lambda: first.network.counters.value("network_refusals", "handshake.another-network"))
    await until(lambda: second.network.counters.value("network_refusals", "handshake.another-network"))
    assert not first.events and not second.events
    assert first.network.facts()[0].last_failure == "handshake.another-network"


async def test_peer_with_another_recovery_number_is_refused_with_its_code(cluster, until):
    genesis = cluster.world.genesis
    await cluster.start(1, network=replace(genesis.domain(), recovery=1))
    first = await cluster.start(0)
    await until(lambda: first.network.counters.value("network_refusals", "handshake.another-history"))
    assert not first.events


async def test_key_of_another_hospital_than_the_certificate_is_refused(cluster, until):
    """The thief of one hospital's TLS key cannot speak for another whose consensus key he has."""
    node = await cluster.start(0)
    thief = await cluster.by_hand(2, member=replace(cluster.world.members[2], key=cluster.world.members[1].key)).connect(node)
    with pytest.raises(Rejected) as caught:
        await thief.greet(node)
    assert caught.value.code == "handshake.wrong-key"
    assert not node.events


async def test_unknown_consensus_key_is_refused(cluster):
    node = await cluster.start(0)
    stranger = await cluster.by_hand(2, member=replace(cluster.world.members[2], key=cluster.world.stranger().key)).connect(node)
    with pytest.raises(Rejected) as caught:
        await stranger.greet(node)
    assert caught.value.code == "handshake.unknown-hospital"
    assert not node.events


async def test_certificate_of_no_member_does_not_pass_tls(cluster, until):
    node = await cluster.start(0)
    stranger = cluster.by_hand(1, member=cluster.world.stranger())
    with pytest.raises((aiohttp.ClientError, OSError)):
        await stranger.connect(node)
    await until(lambda: node.network.counters.value("network_strangers", "certificate-untrusted"))
    assert not node.events


async def test_dialler_refuses_a_listener_with_another_certificate(cluster, until):
    """Another member listens where the dialled one should: pinned means exactly that hospital, not any member."""
    node = await cluster.start(0)
    other = await cluster.start(2)
    cluster.endpoints[cluster.world.members[1].key.public] = (f"127.0.0.1:{other.network.port}",)
    await until(lambda: node.network.counters.value("network_dials_failed", "certificate-untrusted"))
    assert cluster.world.members[1].key.public not in node.network.connected


@pytest.mark.parametrize("ended_index", [0, 1])
async def test_ended_certificate_of_a_peer_is_named_by_the_other_side(cluster, until, ended_index):
    """The hospital whose certificate ended has a clock that is behind, so it starts; the smaller key, 0, dials."""
    ended = cluster.world.renewed(ended_index, f"ended{ended_index}", days_ago=40, days=10)
    genesis = cluster.world.with_member(ended_index, ended)
    past = int(time.time() * 1000) - 35 * 86_400_000
    await cluster.start(ended_index, genesis=genesis, member=ended, wall_clock_ms=lambda: past)
    node = await cluster.start(1 - ended_index, genesis=genesis)
    counter = "network_dials_failed" if ended_index == 1 else "network_strangers"
    await until(lambda: node.network.counters.value(counter, "certificate-ended"))
    assert node.network.check_certificates()[ended.key.public] < 0
    assert not node.events


async def test_own_ended_certificate_is_a_clear_refusal(cluster):
    ended = cluster.world.renewed(1, "own-ended", days_ago=40, days=10)
    node = cluster.make(1, genesis=cluster.world.with_member(1, ended), member=ended)
    with pytest.raises(Rejected, match="make a new one and have it voted in") as caught:
        await node.network.start()
    assert caught.value.code == "network.certificate-ended"


@pytest.mark.parametrize(
    "frame",
    [
        b"\x00",
        part_head(0, 5, is_last=True) + b"hello",
        part_head(0, 5, is_last=True) + b"hell",
        part_head(3, 5, is_last=True) + b"hello",
        part_head(1, 3, is_last=False) + b"abc",
        part_head(0, 0, is_last=True),
        "text",
    ],
)
async def test_malformed_frame_bans(cluster, until, frame):
    node = await cluster.start(0)
    peer = await cluster.by_hand(1).connect(node)
    await peer.greet(node)
    await until(lambda: node.network.connected)
    await (peer.ws.send_str(frame) if isinstance(frame, str) else peer.ws.send_bytes(frame))
    await peer.ended()
    await until(lambda: not node.network.connected)
    assert node.network.counters.value("network_bans") == 1
    assert node.network.facts()[0].banned_ms > 0
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await cluster.by_hand(1).connect(node)
    assert caught.value.status == 403
    assert caught.value.headers["Medchain-Refusal"] == "network.banned"


async def test_ban_ends_by_itself(cluster, until):
    first, second = await pair(cluster, until)
    first.network.accuse(second.public, "it signed two blocks")
    assert first.is_connected(second)
    first.network.accuse(second.public, "it signed two blocks again")
    await until(lambda: not first.is_connected(second) and not second.is_connected(first))
    await until(lambda: first.is_connected(second) and second.is_connected(first), what="after the ban it comes back")


async def test_oversized_frame_bans(cluster, until):
    node = await cluster.start(0)
    peer = await cluster.by_hand(1).connect(node)
    await peer.greet(node)
    await until(lambda: node.network.connected)
    await peer.ws.send_bytes(bytes(SOCKET_FRAME_BYTES_MAX + 1))
    await peer.ended()
    await until(lambda: node.network.counters.value("network_bans"))
    assert node.network.counters.value("network_accusations", "oversized") == 1


async def test_handshake_of_nonsense_bans_and_delivers_nothing(cluster, until):
    node = await cluster.start(0)
    peer = await cluster.by_hand(1).connect(node)
    await peer.ws.send_bytes(b"\xc1 nonsense")
    await peer.ended()
    await until(lambda: node.network.counters.value("network_bans"))
    assert not node.events


async def test_peer_that_says_nothing_in_the_handshake_is_left(cluster, until, quick):
    node = await cluster.start(0, limits=replace(quick, handshake_ms=200))
    peer = await cluster.by_hand(1).connect(node)
    await peer.ended()
    assert not node.events


async def test_frozen_peer_is_noticed(cluster, until):
    node = await cluster.start(0)
    peer = await cluster.by_hand(1).connect(node)
    await peer.greet(node)
    await until(lambda: node.network.connected)
    await until(lambda: not node.network.connected, seconds=5)  # it holds the connection open and gives no sign of life
    assert node.network.counters.value("network_disconnections", "frozen") == 1


async def test_idle_pair_stays_connected(cluster, until, quick):
    first, second = await pair(cluster, until)
    since = asyncio.get_running_loop().time()
    await until(lambda: asyncio.get_running_loop().time() - since > 3 * quick.silence_max_ms / 1000)
    assert len(first.connections()) == len(second.connections()) == 1


async def test_reconnects_after_the_other_side_is_killed_and_back(cluster, until):
    first, second = await pair(cluster, until)
    port = second.network.port
    for transport in second.network._listener._open_transports():
        transport.abort()  # as kill -9 does: no goodbye
    await second.network.stop()
    await until(lambda: not first.is_connected(second))
    again = await cluster.start(1, port=port)
    await until(lambda: first.is_connected(again) and again.is_connected(first), what="the dialler comes back")
    first.send(vote(9))
    await until(lambda: vote(9) in again.messages())


async def test_reconnects_however_often_the_line_breaks(cluster, until):
    first, second = await pair(cluster, until)
    for times in range(2, 7):
        for transport in second.network._listener._open_transports():
            transport.abort()
        await until(lambda: first.network.counters.value("network_connections") == times)  # noqa: B023 - awaited within the turn
        await until(lambda: first.is_connected(second) and second.is_connected(first))
    assert not first.network.counters.value("network_dials_failed", "timeout")


async def test_reconnects_after_the_dialling_side_is_killed_and_back(cluster, until):
    first, second = await pair(cluster, until)
    await first.network.stop()
    again = await cluster.start(0)
    await until(lambda: second.is_connected(again) and again.is_connected(second))
    assert [type(event) for event in second.connections()] == [PeerConnected, PeerDisconnected, PeerConnected]


async def test_restarted_node_with_the_larger_key_comes_by_itself(cluster, until, quick):
    """Others may be in a long pause between attempts; who was away does not wait for them."""
    patient = replace(quick, dial_pause_first_ms=60_000, dial_pause_max_ms=60_000)
    first = await cluster.start(0, limits=patient)
    await until(lambda: first.network.counters.value("network_dials_failed") >= 3)
    second = await cluster.start(1, limits=replace(quick, fallback_dial_after_ms=50))
    await until(lambda: first.is_connected(second) and second.is_connected(first), seconds=5)


async def test_consensus_overtakes_gossip_and_gossip_overtakes_queries(cluster, until):
    """All queued in one call, the long and unimportant first."""
    first, second = await pair(cluster, until)
    first.send(RangeWanted(1, 2), MANY, STATUS, vote(1), PastVotesWanted(b"\x01" * 32))
    await until(lambda: len(second.messages()) == 5)
    assert second.messages() == [vote(1), PastVotesWanted(b"\x01" * 32), MANY, STATUS, RangeWanted(1, 2)]


async def test_small_messages_share_a_frame(cluster, until):
    first, second = await pair(cluster, until)
    before = first.network.counters.value("network_frames_sent")
    first.send(*[vote(number) for number in range(1, 201)])
    await until(lambda: len(second.messages()) == 200)
    assert second.messages() == [vote(number) for number in range(1, 201)]
    assert first.network.counters.value("network_frames_sent") - before == 1


async def stalled(cluster, until, node):
    """A peer that greets, keeps giving signs of life and reads nothing more."""
    peer = await cluster.by_hand(1).connect(node)
    await peer.greet(node)
    await until(lambda: node.network.connected)
    peer.ws._response.connection.transport.pause_reading()

    async def live() -> None:
        with contextlib.suppress(ConnectionError):
            while not peer.ws.closed:
                await peer.ws.pong()
                await asyncio.sleep(0.05)

    return peer, asyncio.create_task(live())


async def test_slow_reader_loses_oldest_gossip_and_it_is_counted(cluster, until, quick):
    small = replace(quick, gossip_lane=LaneLimits(2_000_000, 1_000))
    node = await cluster.start(0, limits=small)
    _, living = await stalled(cluster, until, node)
    for _ in range(40):
        node.send(MANY)
        await asyncio.sleep(0)
    await until(lambda: node.network.counters.value("network_drops", "gossip-overflow") > 0)
    assert node.network.connected
    assert node.network.facts()[0].bytes_waiting <= 2_000_000
    living.cancel()


async def test_slow_reader_of_consensus_is_closed_so_that_resending_heals(cluster, until, quick):
    small = replace(quick, consensus_lane=LaneLimits(200_000, 100_000))
    node = await cluster.start(0, limits=small)
    _, living = await stalled(cluster, until, node)
    for number in range(40_000):
        node.send(vote(number))
        if number % 500 == 0:
            await asyncio.sleep(0)
    await until(lambda: node.network.counters.value("network_overflows") == 1)
    await until(lambda: not node.network.connected)
    assert node.network.counters.value("network_disconnections", "consensus-overflow") == 1
    assert node.network.counters.value("network_drops", "consensus-overflow") > 0
    living.cancel()


async def test_flooding_peer_is_held_back_and_then_banned(cluster, until, quick):
    narrow = replace(quick, receive_messages_per_second=200, receive_messages_burst=100)
    node = await cluster.start(0, limits=narrow)
    peer = await cluster.by_hand(1).connect(node)
    await peer.greet(node)
    data = encode_message(vote(1))
    frame = b"".join(part_head(CONSENSUS_LANE, len(data), is_last=True) + data for _ in range(300))

    async def flood() -> None:
        while not peer.ws.closed:
            await peer.ws.send_bytes(frame)
            await asyncio.sleep(0)

    flooding = asyncio.create_task(flood())
    await until(lambda: node.network.counters.value("network_throttles", "messages"))
    await until(lambda: node.network.counters.value("network_bans") == 1, seconds=30)
    assert node.network.counters.value("network_accusations", "flooding") >= 1
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)


async def test_reading_stops_while_the_node_has_no_room(cluster, until):
    free = asyncio.Event()
    second = await cluster.start(1, room=free.wait)
    first = await cluster.start(0)
    await until(lambda: first.is_connected(second) and second.is_connected(first))
    for number in range(1, 21):
        first.send(vote(number))
        await until(lambda: not first.network.facts()[0].messages_waiting)
    assert len(second.messages()) < 20
    free.set()
    await until(lambda: len(second.messages()) == 20)


async def test_tap_sees_every_frame_before_tls(cluster, until):
    first, second = await pair(cluster, until)
    first.send(vote(1))
    await until(second.messages)
    data = encode_message(vote(1))
    sent = [frame for direction, peer, frame in first.frames if direction == "out" and peer == second.public]
    received = [frame for direction, peer, frame in second.frames if direction == "in" and peer == first.public]
    assert sent == received
    assert any(data in frame for frame in sent)
    assert len(sent) == 3  # hello, proof, the vote


async def test_message_to_nobody_is_counted(cluster):
    node = await cluster.start(0)
    node.send(vote(1))
    node.send(vote(1), to=cluster.world.members[3].key.public)
    node.send(vote(1), to=b"\x00" * 32)
    assert node.network.counters.value("network_drops", "not-connected") == 3


async def test_accusation_of_nobody_we_know_is_only_counted(cluster):
    node = await cluster.start(0)
    node.network.accuse(b"\x00" * 32, "a sentence")
    assert node.network.counters.value("network_accusations", "engine") == 1


async def test_stop_takes_less_than_a_second_and_tells_the_engine(cluster, until):
    nodes = [await cluster.start(index) for index in range(4)]
    await until(lambda: all(len(node.network.connected) == 3 for node in nodes))
    begin = time.monotonic()
    await nodes[0].network.stop()
    assert time.monotonic() - begin < 1.0
    assert sum(isinstance(event, PeerDisconnected) for event in nodes[0].events) == 3
    assert nodes[0].network.connected == ()
    await nodes[0].network.stop()
    with pytest.raises(Unavailable):
        await nodes[0].network.open(nodes[1].public, "GET", "/x")


async def test_stop_takes_less_than_a_second_beside_a_frozen_peer(cluster, until, quick):
    node = await cluster.start(0, limits=replace(quick, silence_max_ms=60_000))
    await stalled(cluster, until, node)
    node.send(*[MANY] * 10)
    begin = time.monotonic()
    await node.network.stop()
    assert time.monotonic() - begin < 1.0


async def test_bug_in_what_takes_events_reaches_whoever_stops_the_node(cluster, until):
    def broken(event):
        raise InvariantBroken("the inbox is broken")

    second = await cluster.start(1, deliver=broken)
    await cluster.start(0)
    await until(lambda: second.failures)
    assert isinstance(second.failures[0], InvariantBroken)
    second.failures.clear()
    await second.network.stop()
    second.failures.clear()


async def test_taken_port_is_refused_with_a_sentence(cluster):
    node = await cluster.start(0)
    with pytest.raises(Rejected, match="choose another port") as caught:
        await cluster.start(1, port=node.network.port)
    assert caught.value.code == "network.port-taken"


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
async def test_unusable_address_is_refused_with_a_sentence(cluster, host):
    node = cluster.make(0, listen=(host, 0))
    with pytest.raises(Rejected) as caught:
        await node.network.start()
    assert caught.value.code == "network.cannot-listen"


async def test_key_that_is_no_member_is_refused(cluster):
    with pytest.raises(Rejected) as caught:
        cluster.make(0, consensus_key=cluster.world.stranger().key)
    assert caught.value.code == "network.not-a-member"


async def test_genesis_with_a_damaged_or_doubled_certificate_is_refused(cluster):
    for certificate in (b"no certificate", cluster.world.members[0].certificate):
        genesis = cluster.world.with_member(3, replace(cluster.world.members[3], certificate=certificate))
        node = cluster.make(0, genesis=genesis)
        with pytest.raises(Rejected) as caught:
            await node.network.start()
        assert caught.value.code == "network.certificate-damaged"
