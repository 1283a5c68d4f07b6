"""A listener on a free port of loopback with a handler that the test hands in, and ways to speak to it down to raw bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from medchain.errors import InvariantBroken, Malformed, Rejected, Unavailable
from medchain.rpc.limits import RpcLimits
from medchain.rpc.server import RpcServer

ID = bytes(range(32))


async def answer(method: str, params: dict[str, Any]) -> Any:
    """A handler for every method: echoes, except where its parameters ask for trouble."""
    match method, params:
        case "consents.explain", {"purpose": "reject"}:
            raise Rejected("consent.none", "the patient has given no consent")
        case "consents.explain", {"purpose": "busy"}:
            raise Unavailable("come again", 1500)
        case "consents.explain", {"purpose": "malformed"}:
            raise Malformed("the transaction is not one")
        case "consents.explain", {"purpose": "bug"}:
            raise KeyError("secret detail: Jane Doe")
        case "consents.explain", {"purpose": "broken"}:
            raise InvariantBroken("secret detail: Jane Doe")
        case "consents.explain", {"purpose": "no-json"}:
            return {"value": object()}
        case _:
            return {"method": method, "params": params}


class Asker:
    """Speaks to one listener."""

    def __init__(self, server: RpcServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session

    async def post(self, body: bytes | str, **headers: str) -> tuple[int, Any]:
        """Send a body as JSON-RPC; return the HTTP status and the answer."""
        sent = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.session.post(self.server.url + "/", data=body, headers=sent) as response:
            return response.status, json.loads(await response.read())

    async def ask(self, method: str, params: Any = None, identity: Any = 1) -> Any:
        """One well-formed call; returns the answer object."""
        body = {"jsonrpc": "2.0", "id": identity, "method": method}
        if params is not None:
            body["params"] = params
        status, answered = await self.post(json.dumps(body))
        assert status == 200
        return answered

    async def raw(self, data: bytes) -> bytes:
        """Send bytes over a connection of its own and return all that comes until the listener closes it."""
        reader, writer = await asyncio.open_connection(*self.server.address)
        try:
            writer.write(data)
            await writer.drain()
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()


Serve = Callable[..., Any]


@pytest.fixture
def serve() -> Serve:
    """An async context manager: a started listener and an Asker for it."""

    @asynccontextmanager
    async def _serve(call: Callable[[str, dict[str, Any]], Awaitable[Any]] = answer, **options: Any):
        limits = RpcLimits(**{"stop_grace_ms": 200, **options.pop("limits", {})})
        server = RpcServer(listen=("127.0.0.1", 0), call=call, health=options.pop("health", dict), limits=limits, **options)
        await server.start()
        try:
            async with aiohttp.ClientSession() as session:
                yield Asker(server, session)
        finally:
            await server.stop()

    return _serve
