"""A process that rebuilds the state tree from a store and tells what that took: how a node starts.

    python -m medchain.bench.micro.rebuild STORE BUCKETS
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from medchain.bench.micro.child import peak_bytes, resident_bytes
from medchain.bench.micro.stopwatch import Lap
from medchain.store.leveldb import LevelDB
from medchain.store.overlay import StoredState
from medchain.store.tree import StateTree


def main(words: Sequence[str]) -> int:
    """Rebuild and print."""
    path, buckets = words
    store = LevelDB(Path(path), create=False)
    before, lap = resident_bytes(), Lap()
    with lap:
        tree = StateTree.rebuild(int(buckets), StoredState(store).iterate(b""))
    answer = {
        "keys": tree.count,
        "seconds": lap.wall_seconds,
        "cpu_seconds": lap.cpu_seconds,
        "grown_bytes": resident_bytes() - before,
        "peak_bytes": peak_bytes(),
    }
    store.close()
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
