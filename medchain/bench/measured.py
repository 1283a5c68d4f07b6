"""A node that can be measured: a whole node as `medchain node start` makes it, which tells what it counted when it is asked.

    python -m medchain.bench.measured --home NET/a --passphrase-file NET/passphrase [--delay-ms N]

SIGUSR1 writes its counters to counted.json in the home folder; until then nothing differs from any other node. --delay-ms holds each frame
to other hospitals back for so long (distance.py), half of an emulated round-trip time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from medchain.bench.distance import DistantSocket
from medchain.network.connection import Line
from medchain.node.assemble import Node
from medchain.node.home import NodeHome
from medchain.node.privacy import keep_private
from medchain.telemetry import PROCESS_COUNTERS

FILE_NAME: Final = "counted.json"
PROGRAM: Final = ("medchain.bench.measured",)


def _write(file: Path) -> None:
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps(PROCESS_COUNTERS.snapshot()), encoding="utf-8")
    beside.replace(file)


async def _run(home: NodeHome, secret: str, delay_ms: float) -> None:
    line: Line | None = partial(DistantSocket, delay_ms=delay_ms) if delay_ms else None
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _write, home.path / FILE_NAME)
    await Node(home, lambda: secret, line=line).run_until_stopped()


def main(words: Sequence[str] | None = None) -> int:
    """Run a measured node until SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(prog="medchain.bench.measured", description="A node that tells what it counted.")
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--passphrase-file", required=True, type=Path)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    arguments = parser.parse_args(words)
    keep_private()
    secret = arguments.passphrase_file.read_text(encoding="utf-8").strip()
    asyncio.run(_run(NodeHome(arguments.home.resolve()), secret, arguments.delay_ms))
    return 0


if __name__ == "__main__":
    sys.exit(main())
