"""The handshake on a real connection: hostile or confused peers on either side, and what the other side learns."""

from __future__ import annotations

import random
from dataclasses import replace

import aiohttp
import pytest

from medchain.network.handshake import (
    DIALLER,
    Hello,
    Proof,
    Refusal,
    Transcript,
    decode_handshake,
    encode_handshake,
    make_proof,
)

pytestmark = [pytest.mark.asyncio, pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")]


def hello_of(peer, **change) -> bytes:
    network = peer.genesis.domain()
    return encode_handshake(replace(Hello.make(network, peer.member.key.public, 0, b"\x42" * 32), **change))


async def refusal_of(peer) -> str:
    message = await peer.heard()
    assert message.type is aiohttp.WSMsgType.BINARY
    refusal = decode_handshake(message.data)
    assert isinstance(refusal, Refusal)
    await peer.ended()
    return refusal.code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"genesis": b"\x08" * 32}, "handshake.another-network"),
        ({"recovery": 3}, "handshake.another-history"),
        ({"oldest_version": 7, "newest_version": 8}, "handshake.other-version"),
        ({"consensus_key": b"\x09" * 32}, "handshake.unknown-hospital"),
    ],
)
async def test_listener_says_why_it_refuses_and_delivers_nothing(cluster, change, code):
    node = await cluster.start(0)
    peer = await cluster.by_hand(1).connect(node)
    await peer.ws.send_bytes(hello_of(peer, **change))
    assert await refusal_of(peer) == code
    assert node.network.counters.value("network_refusals", code) == 1
    assert node.events == [] and node.network.connected == ()
    assert node.network.counters.value("network_bans") == 0


async def test_own_challenge_sent_back_is_refused_by_its_signature_or_code(cluster):
    """The listener hears the hello before it makes its own challenge, so nothing can be sent back; the dialler checks the code."""
    node = await cluster.start(0)
    peer = await cluster.by_hand(1).connect(node)
    await peer.ws.send_bytes(hello_of(peer))
    theirs = decode_handshake((await peer.heard()).data)
    assert isinstance(theirs, Hello) and theirs.challenge != b"\x42" * 32


@pytest.mark.parametrize("network", ["same", "other"])
async def test_wrong_signature_is_refused(cluster, network):
    node = await cluster.start(0)
    peer = await cluster.by_hand(1).connect(node)
    own = hello_of(peer)
    await peer.ws.send_bytes(own)
    theirs = (await peer.heard()).data
    transcript = Transcript(own, theirs, peer.member.certificate, node.network._hospitals[node.public].certificate)
    key = cluster.world.members[2].key if network == "same" else peer.member.key
    domain = peer.genesis.domain() if network == "same" else replace(peer.genesis.domain(), recovery=9)
    await peer.ws.send_bytes(encode_handshake(make_proof(transcript, domain, DIALLER, key)))
    assert await refusal_of(peer) == "handshake.bad-signature"
    assert node.events == []


async def test_replayed_proof_of_an_earlier_connection_is_refused(cluster, until):
    node = await cluster.start(0)
    first = await cluster.by_hand(1).connect(node)
    own = hello_of(first)
    await first.ws.send_bytes(own)
    theirs = (await first.heard()).data
    transcript = Transcript(own, theirs, first.member.certificate, node.network._hospitals[node.public].certificate)
    proof = encode_handshake(make_proof(transcript, first.genesis.domain(), DIALLER, first.member.key))
    await first.ws.send_bytes(proof)
    assert isinstance(decode_handshake((await first.heard()).data), Proof)
    await first.close()
    await until(lambda: not node.network.connected)
    second = await cluster.by_hand(1).connect(node)
    await second.ws.send_bytes(own)
    await second.heard()
    await second.ws.send_bytes(proof)
    assert await refusal_of(second) == "handshake.bad-signature"


async def test_message_out_of_turn_is_unreadable(cluster):
    node = await cluster.start(0)
    peer = await cluster.by_hand(1).connect(node)
    await peer.ws.send_bytes(encode_handshake(Proof(bytes(64))))
    assert await refusal_of(peer) == "handshake.unreadable"


async def test_node_about_to_stop_welcomes_nobody(cluster):
    node = await cluster.start(0)
    peer = await cluster.by_hand(1).connect(node)
    own = hello_of(peer)
    await peer.ws.send_bytes(own)
    theirs = (await peer.heard()).data
    transcript = Transcript(own, theirs, peer.member.certificate, node.network._hospitals[node.public].certificate)
    node.network._is_stopping = True
    await peer.ws.send_bytes(encode_handshake(make_proof(transcript, peer.genesis.domain(), DIALLER, peer.member.key)))
    assert await refusal_of(peer) == "handshake.stopping"
    node.network._is_stopping = False


async def test_peer_banned_during_its_handshake_is_not_welcome(cluster):
    node = await cluster.start(0)
    peer = await cluster.by_hand(1).connect(node)
    own = hello_of(peer)
    await peer.ws.send_bytes(own)
    theirs = (await peer.heard()).data
    transcript = Transcript(own, theirs, peer.member.certificate, node.network._hospitals[node.public].certificate)
    node.network.accuse(peer.member.key.public, "one")
    node.network.accuse(peer.member.key.public, "two")
    await peer.ws.send_bytes(encode_handshake(make_proof(transcript, peer.genesis.domain(), DIALLER, peer.member.key)))
    assert await refusal_of(peer) == "handshake.banned"
    assert node.events == []


async def test_fuzzed_handshakes_leave_the_node_able_to_greet(cluster, until, quick):
    node = await cluster.start(0, limits=replace(quick, ban_score=10**9, handshake_ms=3_000))
    dice = random.Random(5)
    for _ in range(60):
        peer = await cluster.by_hand(1).connect(node)
        data = bytearray(hello_of(peer))
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        await peer.ws.send_bytes(bytes(data[: dice.randrange(1, len(data) + 1)]))
        await peer.ws.send_bytes(dice.randbytes(dice.randrange(1, 200)))
        await peer.ended()
        await peer.close()
    assert node.events == [] and node.failures == []
    honest = await cluster.by_hand(1).connect(node)
    await honest.greet(node)
    await until(lambda: node.network.connected)
