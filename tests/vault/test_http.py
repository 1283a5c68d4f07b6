"""Blobs over HTTP, on real sockets: ranges, resumable uploads, typed errors, hostile requests."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web

from medchain.errors import InvariantBroken, Malformed, Rejected, Unavailable
from medchain.vault.blobs import BlobLimits, BlobStore
from medchain.vault.http import blob_routes, error_response, read_content_range, read_error

pytestmark = pytest.mark.asyncio


async def allow(request, root):
    return None


async def deny(request, root):
    raise Rejected("custody.not-permitted", "no permit of this hospital covers the blob: ask for access first")


class Server:
    """A vault behind a real listener."""

    def __init__(self, store, port, session):
        self.store, self.port, self.session = store, port, session

    def url(self, root) -> str:
        return f"http://127.0.0.1:{self.port}/blobs/{root if isinstance(root, str) else root.hex()}"

    async def put(self, blob, first, last, total=None, body=None):
        total = len(blob.sealed) if total is None else total
        body = blob.sealed[first : last + 1] if body is None else body
        return await self.session.put(self.url(blob.root), data=body, headers={"Content-Range": f"bytes {first}-{last}/{total}"})

    async def error(self, response) -> tuple[int, str]:
        return response.status, (await response.json())["error"]["code"]


@asynccontextmanager
async def serving(store, may_read=allow, may_write=allow):
    application = web.Application()
    application.add_routes(blob_routes(store, may_read, may_write))
    runner = web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        yield Server(store, runner.addresses[0][1], session)
    await runner.cleanup()


async def stored(store, blob):
    await store.write_range(blob.root, 0, blob.chunks())
    await store.finish(blob.root)


async def test_upload_in_ranges_then_download_is_byte_for_byte_the_same(store, blob):
    async with serving(store) as server:
        half, end = 40_000, len(blob.sealed) - 1
        answer = await server.put(blob, 0, half - 1)
        assert answer.status == 200 and await answer.json() == {"root": blob.root.hex(), "received_bytes": half, "is_complete": False}
        told = await server.session.head(server.url(blob.root))
        assert (told.headers["Upload-Offset"], told.headers["Upload-Complete"]) == (str(half), "?0")
        answer = await server.put(blob, half, end)
        assert answer.status == 201 and (await answer.json())["is_complete"]
        told = await server.session.head(server.url(blob.root))
        assert (told.headers["Upload-Offset"], told.headers["Content-Length"]) == (str(end + 1), str(end + 1))
        answer = await server.session.get(server.url(blob.root))
        assert answer.status == 200 and await answer.read() == blob.sealed


async def test_head_of_an_unknown_blob_says_that_nothing_was_received(store, blob):
    async with serving(store) as server:
        told = await server.session.head(server.url(blob.root))
        assert told.status == 200 and told.headers["Upload-Offset"] == "0"


async def test_head_publishes_an_upload_whose_last_bytes_came_before_a_stop(store, blob):
    await store.write_range(blob.root, 0, blob.chunks())
    async with serving(store) as server:
        told = await server.session.head(server.url(blob.root))
        assert told.headers["Upload-Complete"] == "?1" and store.has(blob.root)


async def test_request_without_a_body_verifies_what_is_there(store, blob):
    await store.write_range(blob.root, 0, blob.chunks())
    async with serving(store) as server:
        answer = await server.session.put(server.url(blob.root), headers={"Content-Range": f"bytes */{len(blob.sealed)}"})
        assert answer.status == 201 and store.has(blob.root)


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0), ("bytes=100-199", 100, 199), ("bytes=100000-", 100_000, None), ("bytes=-5", -5, None),
        ("bytes=9-9999999", 9, None),
    ],
)
async def test_range_is_answered_exactly(store, blob, header, first, last):
    await stored(store, blob)
    async with serving(store) as server:
        answer = await server.session.get(server.url(blob.root), headers={"Range": header})
        size = len(blob.sealed)
        start = first % size
        stop = size if last is None else last + 1
        assert answer.status == 206 and await answer.read() == blob.sealed[start:stop]
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{size}"


@pytest.mark.parametrize("header", ["bytes=200-100", "bytes=a-b", "chunks=1-2", "bytes=1-2,5-6", "bytes=-", "bytes=1-" + "9" * 400])
async def test_range_that_is_none_is_ignored(store, blob, header):
    await stored(store, blob)
    async with serving(store) as server:
        answer = await server.session.get(server.url(blob.root), headers={"Range": header})
        assert answer.status == 200 and await answer.read() == blob.sealed


@pytest.mark.parametrize("header", ["bytes=999999999-", "bytes=-0"])
async def test_range_beyond_the_blob_cannot_be_satisfied(store, blob, header):
    await stored(store, blob)
    async with serving(store) as server:
        answer = await server.session.get(server.url(blob.root), headers={"Range": header})
        assert answer.status == 416 and answer.headers["Content-Range"] == f"bytes */{len(blob.sealed)}"


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "ab", "AB" * 32, "zz" * 32, "ab" * 33, "ab" * 32 + "%00", "%2e%2e"])
async def test_hostile_name_is_malformed(store, name):
    async with serving(store) as server:
        for method in ("GET", "HEAD", "PUT"):
            answer = await server.session.request(method, server.url(name), headers={"Content-Range": "bytes 0-0/1"})
            assert answer.status in (400, 404)
            if method == "GET" and answer.status == 400:
                assert (await server.error(answer))[1] == "malformed"
    assert store.used_bytes() == 0


async def test_missing_blob_is_told_by_code(store, blob):
    async with serving(store) as server:
        assert await server.error(await server.session.get(server.url(blob.root))) == (404, "vault.blob-missing")


async def test_rule_decides_who_reads_and_writes(store, blob):
    await stored(store, blob)
    async with serving(store, deny, deny) as server:
        assert await server.error(await server.session.get(server.url(blob.root))) == (403, "custody.not-permitted")
        assert await server.error(await server.put(blob, 0, 9)) == (403, "custody.not-permitted")


async def test_listener_without_a_rule_for_writing_takes_nothing(store, blob):
    await stored(store, blob)
    async with serving(store, deny, None) as server:
        assert (await server.put(blob, 0, 9)).status == 405
        assert (await server.session.head(server.url(blob.root))).status == 403


async def test_range_at_the_wrong_place_is_a_conflict(store, blob):
    async with serving(store) as server:
        await server.put(blob, 0, 99)
        assert await server.error(await server.put(blob, 50, 149)) == (409, "vault.offset")
        assert store.received(blob.root) == 100


async def test_wrong_bytes_are_refused_and_the_upload_starts_anew(store, blob):
    damaged = blob.sealed[:-1] + bytes([blob.sealed[-1] ^ 1])
    async with serving(store) as server:
        assert await server.error(await server.put(blob, 0, len(damaged) - 1, body=damaged)) == (400, "malformed")
        assert store.received(blob.root) == 0
        assert (await server.put(blob, 0, len(blob.sealed) - 1)).status == 201


async def test_full_vault_answers_507(folder, blob):
    async with serving(BlobStore(folder, BlobLimits(bytes_max=1000, disk_free_bytes_min=0))) as server:
        assert await server.error(await server.put(blob, 0, len(blob.sealed) - 1)) == (507, "vault.full")


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes", "bytes 0-9", "bytes 9-0/10", "bytes 0-10/10", "bytes 0-9/*", "bytes -1-9/10", "bytes 0-9/" + "9" * 99,
     "bytes ０-9/10"],
)  # fmt: skip
async def test_unreadable_content_range_is_malformed(store, blob, header):
    with pytest.raises(Malformed):
        read_content_range(header)
    async with serving(store) as server:
        if header is None or header.isascii():
            headers = {} if header is None else {"Content-Range": header}
            answer = await server.session.put(server.url(blob.root), data=b"x" * 10, headers=headers)
            assert await server.error(answer) == (400, "malformed")
    assert store.used_bytes() == 0


async def test_blob_beyond_every_stream_is_refused(store, blob):
    async with serving(store) as server:
        answer = await server.put(blob, 0, 9, total=10**14)
        assert await server.error(answer) == (413, "vault.too-large")
        answer = await server.session.put(server.url(blob.root), headers={"Content-Range": "bytes */0"})
        assert await server.error(answer) == (413, "vault.too-large")


async def test_body_of_another_length_than_its_range_is_malformed(store, blob):
    async with serving(store) as server:
        assert await server.error(await server.put(blob, 0, 99, body=blob.sealed[:200])) == (400, "malformed")
        received = store.received(blob.root)
        assert await server.error(await server.put(blob, received, received + 99, body=b"")) == (400, "malformed")


async def test_upload_cut_off_in_the_middle_goes_on(store, blob):
    async with serving(store) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        size = len(blob.sealed)
        headers = f"Host: a\r\nContent-Length: {size}\r\nContent-Range: bytes 0-{size - 1}/{size}\r\n\r\n"
        writer.write(f"PUT /blobs/{blob.root.hex()} HTTP/1.1\r\n{headers}".encode() + blob.sealed[:60_000])
        await writer.drain()
        while store.received(blob.root) == 0 and blob.root not in store._busy:
            await asyncio.sleep(0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()
        while blob.root in store._busy:
            await asyncio.sleep(0)
        received = store.received(blob.root)
        assert received <= 60_000
        assert (await server.put(blob, received, size - 1)).status == 201


async def test_upload_of_a_published_blob_is_done_at_once(store, blob):
    await stored(store, blob)
    async with serving(store) as server:
        assert (await server.put(blob, 0, len(blob.sealed) - 1)).status == 201
        assert (await server.session.get(server.url(blob.root))).status == 200


async def test_slow_reader_does_not_fill_memory(store, make_blob):
    big = make_blob("big", 8_000_000, segment_bytes=1024 * 1024)
    await stored(store, big)
    async with serving(store) as server:
        answer = await server.session.get(server.url(big.root))
        digest = b""
        async for chunk in answer.content.iter_chunked(100_000):
            digest = digest + chunk
        assert digest == big.sealed


@pytest.mark.parametrize(
    "error",
    [Rejected("custody.not-permitted", "no permit covers it"), Malformed("a blob is named by its root"), Unavailable("come again", 1500)],
)
async def test_errors_travel_typed(error):
    answer = error_response(error)
    found = read_error(answer.status, answer.body)
    assert type(found) is type(error) and found.code == error.code and found.message == error.message
    if isinstance(error, Unavailable):
        assert found.retry_after_ms == 1500 and answer.headers["Retry-After"] == "2"


async def test_code_of_something_that_passes_with_time_survives():
    later = Unavailable("the node catches up", 500)
    later.code = "node.catching-up"
    answer = error_response(later)
    assert read_error(answer.status, answer.body).code == "node.catching-up"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"[]", b"{}", b'{"error": 5}', b'{"error": {"code": 5, "message": "x"}}',
        b'{"error": {"code": "A B", "message": ""}}',
        b"[]]", b'{"error": {"code": "' + b"a" * 65 + b'", "message": "x"}}', b"[" * 100_000, b"\xff",
    ],
)  # fmt: skip
async def test_unreadable_answer_of_another_hospital_is_unavailable(body):
    assert isinstance(read_error(500, body), Unavailable)


async def test_sentence_of_another_hospital_is_bounded_and_printable():
    body = json.dumps({"error": {"code": "custody.x", "message": "a\x1b[2Jb\n" + "c" * 9_000, "retry_after_ms": "soon"}}).encode()
    assert read_error(403, body).message == "a[2Jb" + "c" * 493
    assert read_error(503, body).retry_after_ms == 0


async def test_broken_invariant_is_not_answered_away(store, blob):
    async def broken(request, root):
        raise InvariantBroken("our own bug")

    (get, _) = blob_routes(store, broken)

    request = SimpleNamespace(match_info={"root": blob.root.hex()})
    with pytest.raises(InvariantBroken):
        await get.handler(request)
