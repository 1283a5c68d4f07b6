"""Bulk HTTPS between hospitals: only members, named by their certificates, within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from medchain.errors import InvariantBroken, Malformed, Rejected, Unavailable

pytestmark = [pytest.mark.asyncio, pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")]


def routes(gate: asyncio.Event | None = None) -> list[web.RouteDef]:
    async def whoami(request: web.Request) -> web.Response:
        return web.Response(body=request["peer"])

    async def echo(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Range-Was": request.headers.get("Range", "none")})
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response

    async def wait(request: web.Request) -> web.Response:
        await gate.wait()
        return web.Response(text="done")

    async def fail(request: web.Request) -> web.Response:
        errors = {
            "malformed": Malformed("these bytes are nothing"),
            "rejected": Rejected("blob.denied", "ask the custodian"),
            "unavailable": Unavailable("come again", 3_000),
            "secret": ValueError("Mrs Jane Doe"),
            "bug": InvariantBroken("two roots"),
        }
        raise errors[request.match_info["kind"]]

    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "2000"})
        await response.prepare(request)
        await response.write(bytes(1_000))
        raise Malformed("the blob is damaged in its middle")

    return [
        web.get("/break", break_off),
        web.get("/whoami", whoami),
        web.post("/echo", echo),
        web.get("/wait", wait),
        web.get("/fail/{kind}", fail),
    ]


async def test_handler_knows_which_hospital_asks(cluster):
    first = await cluster.start(0, routes=routes())
    second = await cluster.start(1, routes=routes())
    async with await second.network.open(first.public, "GET", "/whoami") as response:
        assert response.status == 200
        assert await response.read() == second.public
    async with await first.network.open(second.public, "GET", "/whoami") as response:
        assert await response.read() == first.public


async def test_body_streams_both_ways_with_headers(cluster):
    first = await cluster.start(0, routes=routes())
    second = await cluster.start(1)

    async def chunks():
        for number in range(64):
            yield bytes([number]) * 65_536

    async with await second.network.open(first.public, "POST", "/echo", data=chunks(), headers={"Range": "bytes=5-"}) as response:
        assert response.headers["Range-Was"] == "bytes=5-"
        assert await response.read() == b"".join(bytes([number]) * 65_536 for number in range(64))


async def test_bulk_without_a_member_certificate_is_turned_away(cluster, until):
    node = await cluster.start(0, routes=routes())
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.check_hostname = False
    plain.verify_mode = ssl.CERT_NONE
    stranger = cluster.by_hand(1, member=cluster.world.stranger()).context()
    for context in (plain, stranger):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            with pytest.raises((aiohttp.ClientError, OSError)):
                await session.get(f"https://127.0.0.1:{node.network.port}/whoami")
    async with aiohttp.ClientSession() as session:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await session.get(f"http://127.0.0.1:{node.network.port}/whoami")
    await until(lambda: node.network.counters.value("network_strangers") >= 3)
    assert node.network.counters.value("network_strangers", "certificate-missing")


async def test_tls_below_version_three_is_turned_away(cluster):
    node = await cluster.start(0, routes=routes())
    context = cluster.by_hand(1).context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await session.get(f"https://127.0.0.1:{node.network.port}/whoami")


async def test_request_goes_to_nobody_but_the_named_hospital(cluster):
    """Another member listens at the address: nothing is sent to it, not even the path."""
    asked = []

    async def note(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    first = await cluster.start(0)
    other = await cluster.start(2, routes=[web.get("/{path:.*}", note)])
    second = cluster.world.members[1].key.public
    cluster.endpoints[second] = (f"127.0.0.1:{other.network.port}",)
    with pytest.raises(Unavailable, match="certificate-untrusted"):
        await first.network.open(second, "GET", "/whoami")
    assert asked == []


async def test_next_endpoint_is_tried_when_one_cannot_be_reached(cluster):
    first = await cluster.start(0, routes=routes())
    second = await cluster.start(1)
    cluster.endpoints[first.public] = ("127.0.0.1:1", f"127.0.0.1:{first.network.port}")
    async with await second.network.open(first.public, "POST", "/echo", data=b"bytes") as response:
        assert await response.read() == b"bytes"


async def test_errors_of_a_handler_are_answers_without_detail(cluster):
    first = await cluster.start(0, routes=routes())
    second = await cluster.start(1)
    expected = {
        "malformed": (400, "malformed"),
        "rejected": (403, "blob.denied"),
        "unavailable": (503, "unavailable"),
        "secret": (500, "internal"),
        "bug": (500, "internal"),
    }
    for kind, (status, code) in expected.items():
        async with await second.network.open(first.public, "GET", f"/fail/{kind}") as response:
            text = await response.text()
            assert (response.status, response.headers["Medchain-Refusal"]) == (status, code)
            assert "Jane" not in text and "two roots" not in text
            assert kind != "unavailable" or response.headers["Retry-After"] == "3"
    assert [str(error) for error in first.failures] == ["two roots"]
    first.failures.clear()
    async with await second.network.open(first.public, "GET", "/absent") as response:
        assert response.status == 404


async def test_error_amid_an_answer_breaks_it_off_and_is_not_taken_for_a_part_of_it(cluster):
    first = await cluster.start(0, routes=routes())
    second = await cluster.start(1)
    async with await second.network.open(first.public, "GET", "/break") as response:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await response.read()
    async with await second.network.open(first.public, "GET", "/whoami") as response:
        assert response.status == 200


async def test_requests_of_one_peer_under_way_are_bounded(cluster, until, quick):
    gate = asyncio.Event()
    first = await cluster.start(0, routes=routes(gate), limits=replace(quick, requests_per_peer_max=2))
    second = await cluster.start(1)
    waiting = [asyncio.create_task(second.network.open(first.public, "GET", "/wait")) for _ in range(2)]
    await until(lambda: sum(first.network._listener._requests.values()) == 2)
    async with await second.network.open(first.public, "GET", "/whoami") as response:
        assert response.status == 503
        assert response.headers["Medchain-Refusal"] == "network.busy"
    gate.set()
    for task in waiting:
        async with await task as response:
            assert await response.text() == "done"
    async with await second.network.open(first.public, "GET", "/whoami") as response:
        assert response.status == 200


async def test_connections_of_one_peer_are_bounded(cluster, until, quick):
    node = await cluster.start(0, routes=routes(), limits=replace(quick, connections_per_peer_max=2))
    for _ in range(2):
        await cluster.by_hand(1).connect(node)
    with pytest.raises((aiohttp.ClientError, OSError)):
        await cluster.by_hand(1).connect(node)
    assert node.network.counters.value("network_strangers", "too-many-of-peer")
    await cluster.by_hand(2).connect(node)  # another hospital still comes through


async def test_unproven_connections_of_one_address_are_bounded(cluster, until, quick):
    node = await cluster.start(0, limits=replace(quick, unproven_per_address_max=2, handshake_ms=60_000))
    opened = [await asyncio.open_connection("127.0.0.1", node.network.port) for _ in range(3)]
    await until(lambda: node.network.counters.value("network_strangers", "too-many-of-address") == 1)
    for _, writer in opened:
        writer.close()
    await until(lambda: not node.network._listener._unproven)
    await cluster.by_hand(1).connect(node)


async def test_connection_that_never_begins_tls_is_left(cluster, until, quick):
    node = await cluster.start(0, limits=replace(quick, handshake_ms=100))
    reader, writer = await asyncio.open_connection("127.0.0.1", node.network.port)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()
    await until(lambda: node.network.counters.value("network_strangers", "handshake-broken") == 1)


async def test_nonsense_instead_of_tls_is_left(cluster, until):
    node = await cluster.start(0)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.network.port)
    writer.write(b"\x00\x01\x02" * 1_000)
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):  # cut without courtesy is as good
            await reader.read()
    writer.close()
    await until(lambda: node.network.counters.value("network_strangers") == 1)


async def test_unknown_hospital_cannot_be_asked(cluster):
    node = await cluster.start(0)
    for key in (b"\x00" * 32, node.public):
        with pytest.raises(Rejected) as caught:
            await node.network.open(key, "GET", "/whoami")
        assert caught.value.code == "network.unknown-hospital"


async def test_absent_hospital_is_unavailable(cluster):
    node = await cluster.start(0)
    with pytest.raises(Unavailable, match="unreachable"):
        await node.network.open(cluster.world.members[1].key.public, "GET", "/whoami")
    cluster.endpoints[cluster.world.members[1].key.public] = ("not an endpoint",)
    with pytest.raises(Unavailable):
        await node.network.open(cluster.world.members[1].key.public, "GET", "/whoami")


async def test_silent_transfer_fails_and_does_not_hang(cluster, quick):
    gate = asyncio.Event()
    first = await cluster.start(0, routes=routes(gate))
    second = await cluster.start(1, limits=replace(quick, bulk_silence_ms=100))
    with pytest.raises(Unavailable, match="timeout"):
        await second.network.open(first.public, "GET", "/wait")
    gate.set()
