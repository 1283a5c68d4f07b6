"""Micro benchmarks: what single things cost, in one process, by the very code that a node runs; nothing is copied for measuring.

Figures of a busy machine are worth little: nothing else should run meanwhile. One module a group; `setting.py` says how much of what.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from medchain.bench.facts import Facts
from medchain.bench.micro import codecs, execute, hashing, leveldb, proofs, sealing, state, verify
from medchain.bench.micro.setting import FULL, QUICK, Bench, Findings, Size
from medchain.bench.results import MICRO, Case, Curve, Result
from medchain.errors import Rejected

REFUSALS: Final[dict[str, str]] = {"bench.micro-group": "There is no group of micro benchmarks of this name; the sentence lists them."}

GROUPS: Final[dict[str, str]] = {
    "verify": "signatures: one by one, on two threads, shared by many transactions, certificates of more and more validators",
    "codec": "reading and writing transactions, blocks, votes and gossip; longer and longer transactions",
    "hashing": "digests, Merkle roots, trees and paths",
    "execute": "each frequent operation by rules and state tree, and a whole block from building to disk",
    "state": "updating the state, in memory and with LevelDB, and rebuilding it at a start, over more and more keys",
    "leveldb": "synced writes, reads, iteration, and how often the bytes of blocks are written",
    "sealing": "large content sealed and opened on two threads, and keys sealed to readers",
    "proofs": "proofs of a record and of a transaction, over more and more keys and headers",
}
"""Name → title, in the order they are measured."""

_MEASURES: Final[dict[str, Callable[[Bench], Findings]]] = {
    "verify": verify.measure,
    "codec": codecs.measure,
    "hashing": hashing.measure,
    "execute": execute.measure,
    "state": state.measure,
    "leveldb": leveldb.measure,
    "sealing": sealing.measure,
    "proofs": proofs.measure,
}


def measure(*, is_quick: bool, only: Sequence[str], folder: Path, say: Callable[[str], None]) -> Result:
    """Measure the groups named in `only`, or all; stores are made in `folder` and removed, `say` is told what is going on.

    Takes some six minutes of two idle cores, quick ones one. Raises Rejected bench.micro-group for a name that is none.
    """
    return measure_size(QUICK if is_quick else FULL, only=only, folder=folder, say=say)


def measure_size(size: Size, *, only: Sequence[str], folder: Path, say: Callable[[str], None]) -> Result:
    """Like `measure`, with a size of one's own."""
    for name in only:
        if name not in GROUPS:
            raise Rejected("bench.micro-group", f"there is no group {name!r} of micro benchmarks; there are: {', '.join(GROUPS)}")
    facts = Facts.collect()
    cases: list[Case] = []
    curves: list[Curve] = []
    for name, title in GROUPS.items():
        if not only or name in only:
            say(f"{name}: {title}")
            findings = _MEASURES[name](Bench(size, folder, say))
            cases += findings.cases
            curves += findings.curves
    return Result(MICRO, facts, tuple(cases), tuple(curves))
