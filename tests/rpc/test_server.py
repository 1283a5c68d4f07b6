"""The client listener over real sockets: calls, refusals, hostile bodies and connections, health, stopping."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import socket

import pytest
from aiohttp import web

from medchain import telemetry
from medchain.errors import InvariantBroken, Malformed, Rejected, Unavailable
from medchain.rpc.limits import RpcLimits
from medchain.rpc.server import RpcServer
from medchain.telemetry import Counters

ID = bytes(range(32))
EXPLAIN = {"clinician": ID.hex(), "record": ID.hex()}

pytestmark = pytest.mark.asyncio


async def unused(method, params):
    raise AssertionError("the call must not be made")


# ---- calls ------------------------------------------------------------------------------------------------------------------


async def test_a_call_gets_checked_parameters_and_bytes_come_back_as_hexadecimal_text(serve):
    async with serve() as asker:
        answer = await asker.ask("tx.status", {"id": ID.hex()}, "seven")
    assert answer == {"jsonrpc": "2.0", "id": "seven", "result": {"method": "tx.status", "params": {"id": ID.hex()}}}


async def test_a_batch_is_answered_call_by_call(serve):
    calls = [
        {"jsonrpc": "2.0", "id": 1, "method": "node.status"},
        {"jsonrpc": "2.0", "id": 2, "method": "no.such"},
        {"jsonrpc": "2.0", "id": 3, "method": "tx.status", "params": {}},
        7,
        {"jsonrpc": "2.0", "id": 4, "method": "consents.explain", "params": {**EXPLAIN, "purpose": "reject"}},
    ]
    async with serve() as asker:
        status, answers = await asker.post(json.dumps(calls))
    assert status == 200
    assert [answer["id"] for answer in answers] == [1, 2, 3, None, 4]
    assert answers[0]["result"]["method"] == "node.status"
    assert [answer["error"]["code"] for answer in answers[1:]] == [-32601, -32602, -32600, -32000]


@pytest.mark.parametrize(
    ("purpose", "number", "data"),
    [
        ("reject", -32000, {"code": "consent.none", "retry_after_ms": 0}),
        ("busy", -32001, {"code": "unavailable", "retry_after_ms": 1500}),
        ("malformed", -32602, {"code": "malformed", "retry_after_ms": 0}),
    ],
)
async def test_typed_errors_become_numbers_and_codes(serve, purpose, number, data):
    async with serve() as asker:
        answer = await asker.ask("consents.explain", {**EXPLAIN, "purpose": purpose})
    assert (answer["error"]["code"], answer["error"]["data"]) == (number, data)
    assert answer["error"]["message"]


@pytest.mark.parametrize("purpose", ["bug", "broken", "no-json"])
async def test_our_own_failures_tell_the_client_nothing_and_the_log_only_their_type(serve, purpose):
    log = io.StringIO()
    telemetry.configure(log, is_human=False)
    try:
        async with serve() as asker:
            answer = await asker.ask("consents.explain", {**EXPLAIN, "purpose": purpose})
            assert await asker.ask("node.status")
    finally:
        telemetry.configure(None)
    assert answer["error"] == {"code": -32603, "message": "the node failed to answer; its log says more"}
    assert "rpc.failed" in log.getvalue()
    assert "Jane" not in log.getvalue() and "Traceback" not in log.getvalue()


async def test_a_broken_invariant_is_handed_to_the_node_which_has_to_stop(serve):
    told = []
    async with serve(broken=told.append) as asker:
        await asker.ask("consents.explain", {**EXPLAIN, "purpose": "bug"})
        assert told == []
        await asker.ask("consents.explain", {**EXPLAIN, "purpose": "broken"})
    assert [type(error) for error in told] == [InvariantBroken]


async def test_calls_are_counted_by_method_and_errors_by_number(serve):
    counters = Counters()
    async with serve(counters=counters) as asker:
        await asker.ask("node.status")
        await asker.ask("no.such")
        await asker.ask("also.unknown")
    assert counters.snapshot() == {"rpc_calls:node.status": 1, "rpc_calls:unknown": 2, "rpc_errors:-32601": 2}


async def test_bodies_are_shown_to_the_tap_as_they_travel(serve):
    seen = []
    async with serve(tap=lambda direction, body: seen.append((direction, body))) as asker:
        body = b'{"jsonrpc":"2.0","id":1,"method":"node.version"}'
        await asker.post(body)
    assert seen[0] == ("in", body)
    assert seen[1][0] == "out" and json.loads(seen[1][1])["id"] == 1


# ---- hostile bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "number"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"node.sta', -32700),
        (b"\x00\xff\xfe", -32700),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"node.status"}', -32700),
        (b'{"jsonrpc":"2.0","id":NaN,"method":"node.status"}', -32700),
        (b'{"jsonrpc":"2.0","id":1' + b"0" * 5000 + b',"method":"node.status"}', -32700),
        (b"[" * 100_000, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"node.status","params":' + b"[" * 20 + b"]" * 20 + b"}", -32700),
        (b"[" + b"1," * 20_000 + b"1]", -32700),
        (b"[]", -32600),
        (b"[" + b",".join([b'{"jsonrpc":"2.0","id":1,"method":"node.status"}'] * 65) + b"]", -32600),
        (b"null", -32600),
        (b'"text"', -32600),
        (b'{"jsonrpc":"2.0","method":"node.status"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"node.status","surprise":1}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"node.stop"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"__class__"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"tx.status","params":{"id":"zz"}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"tx.status","params":{"id":12}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"tx.status","params":["00"]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"node.status","params":{"x":1}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"chain.block","params":{"height":1e400}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"chain.block","params":{"height":-1}}', -32602),
    ],
)
async def test_a_hostile_body_is_answered_with_its_number_and_the_listener_goes_on(serve, body, number):
    async with serve(unused) as asker:
        status, answer = await asker.post(body)
        assert status == 200
        assert answer["error"]["code"] == number
        assert answer["error"]["message"]
        assert (await asker.ask("node.stop"))["error"]["code"] == -32601


async def test_a_body_beyond_the_bound_is_refused_without_being_read(serve):
    async with serve(unused, limits={"body_bytes_max": 1000}) as asker:
        status, answer = await asker.post(b"x" * 1001)
        assert (status, answer["error"]["data"]["code"]) == (413, "rpc.too-large")
        head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n"
        assert b"413" in (await asker.raw(head)).split(b"\r\n")[0]


async def test_a_body_without_a_length_is_bounded_too(serve):
    async def endless():
        for _ in range(1000):
            yield b"x" * 1000

    async with serve(unused, limits={"body_bytes_max": 10_000}) as asker:
        headers = {"Content-Type": "application/json"}
        async with asker.session.post(asker.server.url + "/", data=endless(), headers=headers) as response:
            assert response.status == 413


async def test_a_body_that_never_ends_is_given_up(serve):
    async with serve(unused, limits={"body_timeout_ms": 100}) as asker:
        head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
        answer = await asker.raw(head)
    assert answer.startswith(b"HTTP/1.1 408") and b"rpc.too-slow" in answer


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_only_json_is_taken_so_that_no_form_of_a_web_page_can_submit(serve, kind):
    async with serve(unused) as asker:
        status, answer = await asker.post(b'{"jsonrpc":"2.0","id":1,"method":"node.status"}', Content_Type=kind)
    assert (status, answer["error"]["data"]["code"]) == (415, "rpc.media-type")


async def test_compressed_bodies_are_refused(serve):
    async with serve(unused) as asker:
        status, answer = await asker.post(gzip.compress(b" " * 1000), Content_Encoding="gzip")
    assert (status, answer["error"]["data"]["code"]) == (415, "rpc.media-type")


async def test_a_web_page_and_a_rebound_name_are_refused_on_every_route(serve):
    body = b'{"jsonrpc":"2.0","id":1,"method":"node.status"}'
    async with serve(unused) as asker:
        for headers, code in (({"Origin": "http://evil.example"}, "rpc.web-page"), ({"Host": "evil.example"}, "rpc.host")):
            status, answer = await asker.post(body, **headers)
            assert (status, answer["error"]["data"]["code"]) == (403, code)
            async with asker.session.get(asker.server.url + "/readyz", headers=headers) as response:
                assert response.status == 403


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"A" * 100_000,
        b"\r\n\r\n\r\n",
    ],
)
async def test_bytes_that_are_no_http_close_their_connection_only(serve, data):
    async with serve(limits={"head_timeout_ms": 300}) as asker:
        answer = await asker.raw(data)
        assert b"200 OK" not in answer and b"Traceback" not in answer
        assert (await asker.ask("node.status"))["result"]


async def test_other_paths_and_verbs_get_an_error_object(serve):
    async with serve(unused) as asker:
        for verb, path, status in (("GET", "/", 405), ("DELETE", "/", 405), ("GET", "/../etc/passwd", 404), ("POST", "/healthz", 405)):
            async with asker.session.request(verb, asker.server.url + path) as response:
                assert response.status == status
                assert (await response.json())["error"]["code"] == -32600
                assert response.headers["Server"] == "medchain"


# ---- how much -----------------------------------------------------------------------------------------------------------------


async def test_calls_beyond_the_rate_are_told_when_to_come_again(serve):
    async with serve(limits={"calls_per_second": 0.5, "calls_burst": 3}) as asker:
        answers = [await asker.ask("node.status") for _ in range(5)]
    assert ["result" in answer for answer in answers] == [True, True, True, False, False]
    assert answers[3]["error"]["code"] == -32001
    assert 0 < answers[3]["error"]["data"]["retry_after_ms"] <= 2001


async def test_calls_beyond_those_in_flight_are_told_to_come_again(serve):
    begun, end = asyncio.Semaphore(0), asyncio.Event()

    async def slow(method, params):
        begun.release()
        await end.wait()
        return 1

    async with serve(slow, limits={"in_flight_max": 2}) as asker:
        running = [asyncio.ensure_future(asker.ask("node.status")) for _ in range(2)]
        for _ in running:
            await asyncio.wait_for(begun.acquire(), 10)
        assert (await asker.ask("node.status"))["error"]["code"] == -32001
        end.set()
        assert [(await answer)["result"] for answer in running] == [1, 1]
        assert (await asker.ask("node.status"))["result"] == 1


async def test_waiting_for_decisions_leaves_room_for_submitting(serve):
    begun, end = asyncio.Semaphore(0), asyncio.Event()

    async def slow(method, params):
        if method == "tx.wait":
            begun.release()
            await end.wait()
        return method

    async with serve(slow, limits={"in_flight_max": 4, "waiting_max": 1}) as asker:
        waiting = asyncio.ensure_future(asker.ask("tx.wait", {"id": ID.hex()}))
        await asyncio.wait_for(begun.acquire(), 10)
        assert (await asker.ask("tx.wait", {"id": ID.hex()}))["error"]["code"] == -32001
        assert (await asker.ask("tx.submit", {"transaction": "00"}))["result"] == "tx.submit"
        end.set()
        assert (await waiting)["result"] == "tx.wait"


async def test_connections_beyond_the_bound_are_turned_away_and_room_comes_back(serve):
    async with serve(limits={"connections_max": 2}) as asker:
        streams = [await asyncio.open_connection(*asker.server.address) for _ in range(2)]
        await asyncio.sleep(0)
        assert (await asker.raw(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")).startswith(b"HTTP/1.1 503")
        for _, writer in streams:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(10):
            while not (await asker.raw(b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")).startswith(b"HTTP/1.0 200"):
                await asyncio.sleep(0.01)


async def test_a_connection_that_says_nothing_is_closed(serve):
    async with serve(limits={"head_timeout_ms": 100}) as asker:
        assert await asker.raw(b"") == b""
        assert await asker.raw(b"POST / HTTP/1.1\r\nHost: 127.") == b""


async def test_a_connection_that_asked_may_stay_open_for_more_calls(serve):
    async with serve() as asker:
        for _ in range(3):
            assert (await asker.ask("node.status"))["result"]
            assert (asker.server._door.connections, asker.server._door._silent) == (1, {})


# ---- health and routes ----------------------------------------------------------------------------------------------------------


async def test_health_says_alive_and_ready_and_names_failed_checks(serve):
    checks = {"peers": True, "disk": True}
    async with serve(health=lambda: checks) as asker:
        async with asker.session.get(asker.server.url + "/healthz") as response:
            assert (response.status, await response.json()) == (200, {"alive": True})
        async with asker.session.get(asker.server.url + "/readyz") as response:
            assert (response.status, (await response.json())["ready"]) == (200, True)
        checks["peers"] = False
        async with asker.session.get(asker.server.url + "/readyz") as response:
            assert response.status == 503
            assert await response.json() == {"ready": False, "failed": ["peers"], "checks": {"peers": False, "disk": True}}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Rejected("vault.unknown", "no such blob"), 403, "vault.unknown"),
        (Malformed("no root"), 400, "malformed"),
        (Unavailable("disk busy", 2500), 503, "unavailable"),
        (ZeroDivisionError("secret"), 500, None),
    ],
)
async def test_errors_of_handed_in_routes_are_typed_answers(serve, error, status, code):
    async def fail(request):
        raise error

    async with serve(routes=[web.get("/blobs/{root}", fail)]) as asker:
        async with asker.session.get(asker.server.url + "/blobs/00") as response:
            answer = await response.json()
            assert response.status == status
            assert answer["error"].get("data", {}).get("code") == code
            assert "secret" not in json.dumps(answer)
            assert response.headers.get("Retry-After") == ("3" if status == 503 else None)


async def test_bodies_of_handed_in_routes_stream_beyond_the_bound_of_calls(serve):
    async def count(request):
        return web.Response(text=str(sum([len(chunk) async for chunk in request.content.iter_chunked(1000)])))

    async with serve(routes=[web.put("/blobs/{root}", count)], limits={"body_bytes_max": 1000}) as asker:
        async with asker.session.put(asker.server.url + "/blobs/00", data=b"x" * 100_000) as response:
            assert await response.text() == "100000"


# ---- listening and stopping -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
async def test_without_client_keys_only_loopback_is_listened_on(host):
    with pytest.raises(Rejected) as refused:
        RpcServer(listen=(host, 0), call=unused, health=dict)
    assert refused.value.code == "rpc.not-loopback"


async def test_a_taken_port_is_told_with_a_sentence(serve):
    async with serve() as asker:
        second = RpcServer(listen=asker.server.address, call=unused, health=dict)
        with pytest.raises(Rejected) as refused:
            await second.start()
        await second.stop()
        assert refused.value.code == "rpc.port-taken"
        assert str(asker.server.address[1]) in refused.value.message


@pytest.mark.parametrize("listen", [("127.0.0.1", 99_999), ("127.0.0.1", -1)])
async def test_a_port_that_cannot_be_listened_on_is_told_with_a_sentence(listen):
    server = RpcServer(listen=listen, call=unused, health=dict)
    with pytest.raises(Rejected) as refused:
        await server.start()
    assert refused.value.code == "rpc.cannot-listen"


async def test_localhost_and_ipv6_loopback_are_listened_on(serve):
    server = RpcServer(listen=("localhost", 0), call=unused, health=dict)
    await server.start()
    assert server.url.startswith("http://127.0.0.1:")
    await server.stop()
    if socket.has_ipv6:
        server = RpcServer(listen=("::1", 0), call=unused, health=dict)
        try:
            await server.start()
        except Rejected:
            pytest.skip("this machine has no IPv6 loopback")
        assert server.url.startswith("http://[::1]:")
        await server.stop()


async def test_stopping_ends_calls_that_can_end_and_tells_the_others(serve):
    begun = asyncio.Semaphore(0)
    end = asyncio.Event()

    async def slow(method, params):
        begun.release()
        if method == "tx.wait":
            await asyncio.Event().wait()
        await end.wait()
        return "done"

    async with serve(slow) as asker:
        quick = asyncio.ensure_future(asker.ask("node.status"))
        endless = asyncio.ensure_future(asker.ask("tx.wait", {"id": ID.hex()}))
        for _ in range(2):
            await asyncio.wait_for(begun.acquire(), 10)
        stopping = asyncio.ensure_future(asker.server.stop())
        await asyncio.sleep(0)
        end.set()
        assert (await quick)["result"] == "done"
        assert (await endless)["error"]["code"] == -32001
        await asyncio.wait_for(stopping, 10)
        with pytest.raises(OSError):
            await asyncio.open_connection(*asker.server.address)
        await asker.server.stop()


async def test_the_port_can_be_opened_again_after_a_stop(serve):
    async with serve() as asker:
        address = asker.server.address
        await asker.ask("node.status")
    again = RpcServer(listen=address, call=unused, health=dict)
    await again.start()
    await again.stop()


async def test_default_limits_fit_the_largest_submission():
    limits = RpcLimits()
    assert limits.body_bytes_max > 64 * 64 * 1024 * 2 + 64 * 4 + 200
