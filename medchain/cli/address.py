"""Where a command finds a node: `--at`, a node's home folder or an RPC address, with MEDCHAIN_AT as its default."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Final

from medchain.errors import Rejected

VARIABLE: Final = "MEDCHAIN_AT"
_URL: Final = re.compile(r"https?://[^\s/]+/?")
_HOST_PORT: Final = re.compile(r"[A-Za-z0-9.\-\[\]:]*:\d{1,5}")

REFUSALS: Final[dict[str, str]] = {
    "cli.no-address": "The command needs a node to talk to and none was named.",
    "cli.bad-address": "What was named is neither a node's home folder nor an RPC address.",
}


def add_option(parser: argparse.ArgumentParser) -> None:
    """Give a command the option --at."""
    explained = f"the node: its home folder or its RPC address (default: ${VARIABLE})"
    parser.add_argument("--at", metavar="NODE", default=os.environ.get(VARIABLE), help=explained)


def home_of(arguments: argparse.Namespace) -> Path | None:
    """Return the home folder when --at names one, else None."""
    at = getattr(arguments, "at", None)
    folder = Path(at) if at else None
    return folder if folder is not None and folder.is_dir() else None


def rpc_url(arguments: argparse.Namespace) -> str:
    """Return the RPC address `http://host:port` of the node that --at names. Raises Rejected: cli.no-address, cli.bad-address, config.*."""
    at: str | None = getattr(arguments, "at", None)
    if not at:
        raise Rejected("cli.no-address", f"Name the node with --at (its home folder or http://127.0.0.1:PORT), or set {VARIABLE}.")
    home = home_of(arguments)
    if home is not None:
        from medchain.node.config import NodeConfig

        return NodeConfig.load(home).rpc_url
    if _URL.fullmatch(at):
        return at.rstrip("/")
    if _HOST_PORT.fullmatch(at):
        return f"http://{at}"
    raise Rejected("cli.bad-address", f"{at} is neither a node's home folder nor an RPC address such as http://127.0.0.1:7100.")
