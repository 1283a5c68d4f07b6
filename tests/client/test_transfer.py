"""Uploads and downloads against a real vault behind a real listener: resume, interruption, damage, refusals."""

from __future__ import annotations

import io
import os
import secrets
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from medchain.client import transfer
from medchain.client.node import NodeClient
from medchain.client.transfer import download, download_into, upload, upload_from
from medchain.crypto.streams import generate_data_key, open_stream, seal_stream
from medchain.errors import Malformed, Rejected, Unavailable
from medchain.rpc.server import RpcServer
from medchain.vault.blobs import BlobLimits, BlobStore
from medchain.vault.http import blob_routes

pytestmark = pytest.mark.asyncio
RECORD = bytes(range(32))


async def unused(method, params):
    raise AssertionError("no call is made")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Attempts follow at once."""
    monkeypatch.setattr(transfer, "_RETRY_MS", 1)


@pytest.fixture
def sealed(tmp_path):
    """(path of a sealed file of a few segments, root, data key, plaintext)."""
    plaintext = secrets.token_bytes(3 * 1024 * 1024 + 17)
    data_key = generate_data_key()
    path = tmp_path / "sealed"
    with path.open("wb") as sink:
        stream = seal_stream(io.BytesIO(plaintext), len(plaintext), data_key, RECORD, sink)
    return path, stream.root, data_key, plaintext


@asynccontextmanager
async def vault(folder, rule=None, wrap=lambda route: route, limits=None):
    """A vault behind a listener, and a client for it."""

    async def allow(request, root):
        if rule is not None:
            rule(request, root)

    store = BlobStore(folder / "vault", limits)
    routes = [wrap(route) for route in blob_routes(store, allow, allow)]
    server = RpcServer(listen=("127.0.0.1", 0), call=unused, routes=routes, health=dict)
    await server.start()
    try:
        async with NodeClient(server.url) as client:
            yield store, client
    finally:
        await server.stop()


async def test_a_sealed_file_goes_up_comes_down_and_opens(tmp_path, sealed):
    path, root, data_key, plaintext = sealed
    up, down = [], []
    async with vault(tmp_path) as (store, client):
        await upload(client, root, path, up.append)
        assert store.has(root)
        assert await download(client, root, tmp_path / "copy", path.stat().st_size, down.append) == path.stat().st_size
    assert up[-1] == down[-1] == path.stat().st_size
    assert up == sorted(up) and down == sorted(down)
    opened = io.BytesIO()
    with (tmp_path / "copy").open("rb") as source:
        open_stream(source, data_key, root, opened)
    assert opened.getvalue() == plaintext


async def test_what_is_there_already_is_not_sent_again(tmp_path, sealed):
    path, root, *_ = sealed
    async with vault(tmp_path) as (_, client):
        await upload(client, root, path)
        steps = []
        await upload(client, root, path, steps.append)
        assert steps == [path.stat().st_size]


async def test_an_upload_goes_on_where_it_stopped_also_after_a_restart(tmp_path, sealed):
    path, root, *_ = sealed
    size = path.stat().st_size
    async with vault(tmp_path) as (store, client):
        with path.open("rb") as source:
            head = source.read(1024 * 1024)

        async def first():
            yield head

        await store.write_range(root, 0, first(), total=size)
    async with vault(tmp_path) as (store, client):
        steps = []
        await upload(client, root, path, steps.append)
        assert store.has(root)
    assert steps[0] == 1024 * 1024


class Fragile:
    """Breaks the connection of the first uploads after some bytes of their body."""

    def __init__(self, times: int, after: int) -> None:
        self.times, self.after = times, after

    def __call__(self, route):
        async def broken(request):
            if request.method == "PUT" and self.times > 0:
                self.times -= 1
                await request.content.readexactly(self.after)
                request.transport.abort()
            return await route.handler(request)

        return web.RouteDef(route.method, route.path, broken, route.kwargs)


async def test_an_upload_survives_broken_connections_and_no_traceback_is_logged(tmp_path, sealed, caplog):
    path, root, *_ = sealed
    async with vault(tmp_path, wrap=Fragile(3, 100_000)) as (store, client):
        await upload(client, root, path)
        assert store.has(root)
    assert [record for record in caplog.records if record.name.startswith("aiohttp")] == []


async def test_a_download_survives_broken_connections_and_repeats_nothing(tmp_path, sealed):
    path, root, *_ = sealed
    data = path.read_bytes()
    asked = []

    async def get(request):
        first = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        asked.append(first)
        headers = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}", "Content-Length": str(len(data) - first)}
        response = web.StreamResponse(status=206, headers=headers)
        await response.prepare(request)
        if len(asked) < 4:
            await response.write(data[first : first + 500_000])
            request.transport.close()
            return response
        await response.write(data[first:])
        return response

    server = RpcServer(listen=("127.0.0.1", 0), call=unused, routes=[web.get("/blobs/{root}", get)], health=dict)
    await server.start()
    try:
        async with NodeClient(server.url) as client:
            await download(client, root, tmp_path / "copy", len(data))
    finally:
        await server.stop()
    assert (tmp_path / "copy").read_bytes() == data
    assert asked[0] == 0 and len(asked) == 4 and asked == sorted(asked) and asked[-1] > 0


async def test_a_download_goes_on_after_the_bytes_that_are_there(tmp_path, sealed):
    path, root, *_ = sealed
    data = path.read_bytes()
    async with vault(tmp_path) as (_, client):
        await upload(client, root, path)
        (tmp_path / "copy").write_bytes(data[:1_000_000])
        await download(client, root, tmp_path / "copy", len(data))
        assert (tmp_path / "copy").read_bytes() == data
        assert await download(client, root, tmp_path / "copy", len(data)) == len(data)


async def test_a_damaged_upload_is_refused_and_leaves_nothing(tmp_path, sealed):
    path, root, *_ = sealed
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    async with vault(tmp_path) as (store, client):
        with pytest.raises(Malformed):
            await upload_from_bytes(client, root, bytes(data), tmp_path)
        assert not store.has(root) and store.received(root) == 0
        await upload(client, root, path)
        assert store.has(root)


async def upload_from_bytes(client, root, data, folder):
    wrong = folder / "wrong"
    wrong.write_bytes(data)
    await upload(client, root, wrong)


@pytest.mark.parametrize("verb", ["GET", "PUT"])
async def test_a_refusal_of_the_vault_comes_back_with_its_code(tmp_path, sealed, verb):
    path, root, *_ = sealed

    def refuse(request, root):
        if request.method == verb:
            raise Rejected("custody.not-entitled", "there is no permit")

    async with vault(tmp_path, refuse) as (_, client):
        with pytest.raises(Rejected) as refused:
            if verb == "GET":
                await download(client, root, tmp_path / "copy", 1_000_000)
            else:
                await upload(client, root, path)
    assert refused.value.code == "custody.not-entitled"


async def test_a_full_vault_and_an_unknown_blob_are_told(tmp_path, sealed):
    path, root, *_ = sealed
    async with vault(tmp_path, limits=BlobLimits(bytes_max=1_000_000)) as (_, client):
        with pytest.raises(Rejected) as refused:
            await upload(client, root, path)
        assert refused.value.code == "vault.full"
        with pytest.raises(Rejected) as refused:
            await download(client, bytes(32), tmp_path / "copy", 1_000_000)
        assert refused.value.code == "vault.blob-missing"


async def test_a_busy_vault_is_asked_again_and_given_up_after_a_while(tmp_path, sealed):
    path, root, *_ = sealed
    asked = []

    def busy(request, root):
        asked.append(request.method)
        if len(asked) < 3:
            raise Unavailable("busy", 1)

    async with vault(tmp_path, busy) as (store, client):
        await upload(client, root, path)
        assert store.has(root)

    def always_busy(request, root):
        raise Unavailable("busy", 1)

    async with vault(tmp_path / "other", always_busy) as (_, client):
        with pytest.raises(Unavailable, match="busy"):
            await upload(client, root, path)
        with pytest.raises(Unavailable, match="busy"):
            await download(client, root, tmp_path / "copy", 1_000_000)


async def test_more_bytes_than_the_record_can_have_are_not_taken(tmp_path, sealed):
    path, root, *_ = sealed
    async with vault(tmp_path) as (_, client):
        await upload(client, root, path)
        with pytest.raises(Malformed, match="at most"):
            await download(client, root, tmp_path / "copy", 1_000)
        assert os.path.getsize(tmp_path / "copy") == 0


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (206, {}),
        (206, {"Content-Range": "bytes 0-3/100"}),
        (206, {"Content-Range": "bytes 1-3/4"}),
        (206, {"Content-Range": "bytes 0-3/x"}),
        (416, {"Content-Range": "bytes */50"}),
        (416, {}),
        (204, {}),
        (302, {"Location": "http://evil.example/"}),
    ],
)
async def test_an_answer_that_is_not_the_range_asked_for_is_malformed(status, headers):
    async def get(request):
        return web.Response(status=status, headers=headers, body=b"1234" if status == 206 else None)

    server = RpcServer(listen=("127.0.0.1", 0), call=unused, routes=[web.get("/blobs/{root}", get)], health=dict)
    await server.start()
    try:
        async with NodeClient(server.url) as client:
            with pytest.raises(Malformed):
                await download_into(client, bytes(32), io.BytesIO(), 1_000)
    finally:
        await server.stop()


async def test_nothing_listening_is_unavailable(tmp_path, sealed):
    path, root, *_ = sealed
    async with NodeClient("http://127.0.0.1:1") as client:
        with pytest.raises(Unavailable):
            await upload(client, root, path)
        with pytest.raises(Unavailable):
            await download(client, root, tmp_path / "copy", 1_000)


async def test_a_file_that_shrinks_while_it_is_sent_is_told(tmp_path, sealed):
    path, root, *_ = sealed
    size = path.stat().st_size
    os.truncate(path, size // 2)
    async with vault(tmp_path) as (store, client):
        with path.open("rb") as source, pytest.raises(Malformed, match="shorter"):
            await upload_from(client, root, source, size)
        assert not store.has(root)
