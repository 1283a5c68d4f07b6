"""One question to a node from a command: the SDK's client, opened for the question and closed again."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from medchain.cli import address


def ask_node(arguments: argparse.Namespace, method: str, **params: Any) -> Any:
    """Return the answer of the node that --at names. Raises Rejected, Unavailable or Malformed as the node's error says."""
    return asyncio.run(_ask(address.rpc_url(arguments), method, params))


async def _ask(url: str, method: str, params: dict[str, Any]) -> Any:
    from medchain.client.node import NodeClient

    async with NodeClient(url) as client:
        return await client.call(method, **params)
