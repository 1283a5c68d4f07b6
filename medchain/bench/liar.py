"""A hospital that lies, as a real process: the liars of the simulator around the real engine of an otherwise whole node.

    python -m medchain.bench.liar --home NET/d --passphrase-file NET/passphrase --kind double-voter

Speaks over real TLS with real keys, from a real store. For drills in test networks only; `medchain node start` knows nothing of it.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from medchain.engine.engine import Engine
from medchain.node.assemble import Node
from medchain.node.home import NodeHome, OpenedHome
from medchain.node.privacy import keep_private
from medchain.node.runtime import Core
from medchain.sim.liars.liar import Liar
from medchain.sim.liars.roster import PLAIN
from medchain.sim.node import Start

KINDS: Final[dict[str, type[Liar]]] = {name.replace(" ", "-"): kind for name, kind in PLAIN.items()}
"""Name on the command line → what it does."""


def disguise_of(kind: str) -> Callable[[Engine, OpenedHome], Core]:
    """Return what puts a liar of a kind (a name of KINDS) in an engine's place."""

    def disguise(engine: Engine, opened: OpenedHome) -> Core:
        start = Start(
            node=opened.genesis.hospitals.index(opened.hospital),
            genesis=opened.genesis,
            store=opened.store,
            key=opened.keys.consensus.signing,
            challenge=secrets.token_bytes(32),
            is_store_damaged=False,
        )
        return KINDS[kind](start, engine)

    return disguise


def main(words: Sequence[str] | None = None) -> int:
    """Run a lying node until SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(prog="medchain.bench.liar", description="A hospital that lies. For test networks only.")
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--passphrase-file", required=True, type=Path)
    parser.add_argument("--kind", required=True, choices=list(KINDS))
    arguments = parser.parse_args(words)
    keep_private()
    secret = arguments.passphrase_file.read_text(encoding="utf-8").strip()
    node = Node(NodeHome(arguments.home.resolve()), lambda: secret, disguise=disguise_of(arguments.kind))
    asyncio.run(node.run_until_stopped())
    return 0


if __name__ == "__main__":
    sys.exit(main())
