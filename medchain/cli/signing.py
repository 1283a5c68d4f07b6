"""Which key signs a command (`--as`) and at which node it speaks: the wallet of every command that changes something.

Identity is the signing key, never an argument: no command takes a person's name.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from medchain.cli import address, passphrase
from medchain.errors import Rejected

if TYPE_CHECKING:
    from medchain.chain.genesis import Genesis
    from medchain.client.node import NodeClient
    from medchain.client.wallet import Wallet
    from medchain.crypto.keyfile import Identity

Result = TypeVar("Result")

REFUSALS: Final[dict[str, str]] = {
    "cli.no-key": "The command must be signed and no key file was named.",
}


def add_options(parser: argparse.ArgumentParser, whose: str, *, is_hospital: bool = False) -> None:
    """Give a command --as, --at and --passphrase-file. `is_hospital`: without --as, the hospital of the node at --at signs."""
    explained = f"key file of {whose}, which signs" + (" (default: org.key of the node's folder)" if is_hospital else "")
    parser.add_argument("--as", dest="key", metavar="KEYFILE", required=not is_hospital, help=explained)
    address.add_option(parser)
    passphrase.add_option(parser)


def key_file(arguments: argparse.Namespace) -> Path:
    """Return the key file that signs. Raises Rejected cli.no-key."""
    if arguments.key:
        return Path(arguments.key)
    home = address.home_of(arguments)
    if home is None:
        raise Rejected("cli.no-key", "Name the key file that signs with --as, or give the node's home folder with --at.")
    return home / "org.key"


def open_identity(arguments: argparse.Namespace) -> Identity:
    """Return the identity that signs; afterwards --at names a node, by default the one in whose folder the key lies.

    Raises Rejected (cli.no-key, keyfile.*, passphrase.*), Malformed.
    """
    file = key_file(arguments)
    if not arguments.at and (file.parent / "node.toml").is_file():
        arguments.at = str(file.parent)
    home = address.home_of(arguments)
    return passphrase.open_key(arguments, file, () if home is None else (home,))


def signed(arguments: argparse.Namespace, story: Callable[[Wallet], Awaitable[Result]]) -> Result:
    """Run a story with the wallet that --as and --at name, and return its result."""
    return signed_as(arguments, open_identity(arguments), story)


def signed_as(arguments: argparse.Namespace, identity: Identity, story: Callable[[Wallet], Awaitable[Result]]) -> Result:
    """Run a story with the wallet of an identity opened before, at the node that --at names."""

    async def play() -> Result:
        from medchain.client.wallet import Wallet

        async with node_client(arguments) as client:
            return await story(Wallet(client, identity))

    return asyncio.run(play())


def asked(arguments: argparse.Namespace, story: Callable[[NodeClient], Awaitable[Result]]) -> Result:
    """Run a story that signs nothing at the node that --at names, and return its result."""

    async def play() -> Result:
        async with node_client(arguments) as client:
            return await story(client)

    return asyncio.run(play())


def node_client(arguments: argparse.Namespace) -> NodeClient:
    """Return a client of the node that --at names; a home folder's own genesis document is what its answers are proven with."""
    from medchain.client.node import NodeClient

    return NodeClient(address.rpc_url(arguments), genesis=_pinned(address.home_of(arguments)))


def _pinned(home: Path | None) -> Genesis | None:
    from medchain.node.home import NodeHome, load_genesis

    file = None if home is None else NodeHome(home).genesis_file
    return None if file is None or not file.is_file() else load_genesis(file)
