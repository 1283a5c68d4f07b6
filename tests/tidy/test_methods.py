"""One table of RPC methods: each is served by its stated part, can be called with the SDK, and stands in the documentation."""

from __future__ import annotations

import re

import aiohttp
import pytest

from medchain.client.node import NodeClient
from medchain.engine.queries import READS
from medchain.node import custodian, desk
from medchain.rpc.documentation import methods_page
from medchain.rpc.server import RpcServer
from medchain.wire import methods
from medchain.wire.methods import METHODS, served_by

GIVEN = {
    "digest": bytes(range(32)), "key": bytes(range(32)), "bytes": b"\x01", "bytes_list": [b"\x01", b"\x02"], "uint": 1, "text": "TREAT",
    "boolean": True,
}  # fmt: skip


def test_the_engine_reads_exactly_what_the_table_says_it_serves():
    assert sorted(READS) == sorted(served_by(methods.ENGINE))


def test_the_desk_and_the_custodian_serve_exactly_what_the_table_says(sources):
    text = {source.path: source.text for source in sources}
    at_desk = set(re.findall(r'case "([a-z_.]+)"', text["medchain/node/desk.py"]))
    assert at_desk == set(served_by(methods.DESK)), desk.__name__
    at_custodian = set(re.findall(r'"(records\.[a-z_]+)": [a-z]+', text["medchain/node/custodian.py"]))
    assert at_custodian == set(served_by(methods.CUSTODIAN)), custodian.__name__


def test_the_documentation_is_what_the_table_says(repository):
    page = (repository / "medchain" / "rpc" / "METHODS.md").read_text(encoding="utf-8")
    assert page == methods_page(), "run: python -m medchain.rpc.documentation > medchain/rpc/METHODS.md"
    for method in METHODS.values():
        assert f"### {method.name}\n" in page
        assert all(f"`{param.name}`" in page for param in method.params)


@pytest.mark.asyncio
async def test_every_method_can_be_called_with_the_sdk_and_arrives_as_it_was_meant():
    heard = []

    async def call(method, params):
        heard.append((method, params))
        return {"method": method}

    server = RpcServer(listen=("127.0.0.1", 0), call=call, health=dict)
    await server.start()
    try:
        async with NodeClient(server.url) as client:
            for method in METHODS.values():
                given = {param.name: GIVEN[param.kind] for param in method.params}
                assert await client.call(method.name, **given) == {"method": method.name}
                expected = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
                assert heard.pop() == (method.name, expected)
    finally:
        await server.stop()


@pytest.mark.asyncio
async def test_a_method_beside_the_table_cannot_be_called():
    async def call(method, params):
        raise AssertionError("nothing beside the table is called")

    server = RpcServer(listen=("127.0.0.1", 0), call=call, health=dict)
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            for name in ("engine.stop", "node.__init__", "rpc.discover"):
                body = {"jsonrpc": "2.0", "id": 1, "method": name}
                async with session.post(server.url, json=body) as response:
                    assert (await response.json())["error"]["code"] == methods.METHOD_NOT_FOUND
    finally:
        await server.stop()
