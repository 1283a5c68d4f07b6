"""A node that knows where its processor time goes: a whole node as `medchain node start` makes it, with a sampler beside it.

    python -m medchain.bench.sampled --home NET/a --passphrase-file NET/passphrase

SIGUSR1 writes what was seen so far to sampled.json in the home folder. Sampling costs some percent; rates are measured without it.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from medchain.bench.sampler import Sampler
from medchain.node.assemble import Node
from medchain.node.home import NodeHome
from medchain.node.privacy import keep_private

FILE_NAME: Final = "sampled.json"
PROGRAM: Final = ("medchain.bench.sampled",)


async def _run(node: Node, sampler: Sampler, file: Path) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, sampler.write, file)
    sampler.start()
    await node.run_until_stopped()


def main(words: Sequence[str] | None = None) -> int:
    """Run a sampled node until SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(prog="medchain.bench.sampled", description="A node whose processor time is sampled.")
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--passphrase-file", required=True, type=Path)
    arguments = parser.parse_args(words)
    keep_private()
    home = arguments.home.resolve()
    secret = arguments.passphrase_file.read_text(encoding="utf-8").strip()
    asyncio.run(_run(Node(NodeHome(home), lambda: secret), Sampler(), home / FILE_NAME))
    return 0


if __name__ == "__main__":
    sys.exit(main())
