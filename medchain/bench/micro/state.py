"""The state: updating it, with and without the disk, and rebuilding its tree at a start, over ever more keys."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from medchain.bench.micro.child import run_child
from medchain.bench.micro.clinic import digest_of
from medchain.bench.micro.setting import Bench, Findings
from medchain.bench.micro.solo import SEED
from medchain.bench.micro.stopwatch import Lap, Timing, quiet, timing_of
from medchain.bench.results import LOWER, Case, Curve, Measure
from medchain.ledger.rows import RECORD
from medchain.store.keyvalue import WriteBatch
from medchain.store.layout import state_key
from medchain.store.leveldb import LevelDB
from medchain.store.overlay import StoredState
from medchain.store.staged import Staged
from medchain.store.tree import StateTree

UPDATE: Final = "state-update"
STORE: Final = "state-store"
REBUILD: Final = "state-rebuild"
VALUE_BYTES: Final = 64
"""What rows take on average, keys apart (see the cases of `execute`)."""
ROWS_PER_BATCH: Final = 10_000

Changes = dict[bytes, bytes | None]


def measure(bench: Bench) -> Findings:
    """Measure the group."""
    findings = Findings()
    for keys in bench.size.keys:
        bench.say(f"state: {keys} keys")
        with bench.place() as place:
            store = LevelDB(place / "store", create=True)
            fill(store, keys)
            store.close()  # the processes that rebuild need it for themselves
            if keys:
                findings.cases.append(_rebuild(bench, place / "store", keys))
            store = LevelDB(place / "store", create=False)
            try:
                findings.cases += _updates(bench, store, keys)
            finally:
                store.close()
    findings.curves += _curves(findings.cases)
    return findings


def key_of(number: int) -> bytes:
    """Return one of the state keys that are there: of the usual form and length."""
    return RECORD + digest_of("key", number)


def rows_of(keys: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the state's rows."""
    for number in range(keys):
        digest = digest_of("key", number)
        yield RECORD + digest, (digest + digest)[:VALUE_BYTES]


def fill(store: LevelDB, keys: int) -> None:
    """Write the state's rows into a store."""
    batch: list[tuple[bytes, bytes | None]] = []
    for key, value in rows_of(keys):
        batch.append((state_key(key), value))
        if len(batch) == ROWS_PER_BATCH:
            store.write(WriteBatch(tuple(batch)))
            batch.clear()
    store.write(WriteBatch(tuple(batch)))


def _rebuild(bench: Bench, path: Path, keys: int) -> Case:
    """Rebuild the tree in processes of their own, as nodes do at their start, and see how they grow by it."""
    answers = [run_child("medchain.bench.micro.rebuild", str(path), str(bench.size.buckets)) for _ in range(bench.sampling.samples)]

    def taken(unit: str, name: str) -> Measure:
        return Measure(unit, LOWER, tuple([float(answer[name]) for answer in answers]))

    measures = {
        "time": taken("s", "seconds"),
        "cpu": Measure("us", LOWER, tuple([answer["cpu_seconds"] * 1e6 / keys for answer in answers])),
        "memory": Measure("bytes", LOWER, tuple([answer["grown_bytes"] / keys for answer in answers])),
        "peak_memory": Measure("MB", LOWER, tuple([answer["peak_bytes"] / 1e6 for answer in answers])),
    }
    return Case(
        f"{REBUILD}-{keys}", f"Reading {keys} rows from LevelDB into a new tree; processor time and memory per key", measures,
        {"keys": keys, "buckets": bench.size.buckets}, curve=REBUILD, x=float(keys),
    )  # fmt: skip


def _updates(bench: Bench, store: LevelDB, keys: int) -> list[Case]:
    staged = Staged(store)
    tree = StateTree.rebuild(bench.size.buckets, StoredState(staged).iterate(b""))
    dice = random.Random(SEED)
    count = bench.size.changed_keys
    settings = {"keys": keys, "buckets": bench.size.buckets, "changed_keys": count}
    curve = keys > 0  # an empty state has no place on a scale of powers of ten
    fresh = _FreshKeys()
    with quiet():
        in_tree = {"cpu_new": _sample(bench, lambda lap: _update(tree, fresh.take(count), lap), count).cpu_us()}
        if keys:
            in_tree["cpu_overwritten"] = _sample(bench, lambda lap: _update(tree, _overwrites(dice, keys, count), lap), count).cpu_us()
        stored = _sample(bench, lambda lap: _store(tree, staged, store, fresh.take(count), lap), count)
    titles = (f"Updating the tree over {keys} keys, per key", f"The same with one synced batch of LevelDB, {keys} keys, per new key")
    return [
        Case(f"{UPDATE}-{keys}", titles[0], in_tree, settings, curve=UPDATE if curve else "", x=float(keys)),
        Case(
            f"{STORE}-{keys}", titles[1], {"cpu": stored.cpu_us(), "time": stored.wall_us()}, settings,
            curve=STORE if curve else "", x=float(keys),
        ),
    ]  # fmt: skip


class _FreshKeys:
    """Keys that no state has yet."""

    def __init__(self) -> None:
        self._taken = 0

    def take(self, count: int) -> Changes:
        """Return that many new rows."""
        first, self._taken = self._taken, self._taken + count
        return {RECORD + digest_of("fresh", number): bytes(VALUE_BYTES) for number in range(first, first + count)}


def _overwrites(dice: random.Random, keys: int, count: int) -> Changes:
    chosen = dice.sample(range(keys), min(count, keys))
    return {key_of(number): dice.randbytes(VALUE_BYTES) for number in chosen}


def _sample(bench: Bench, work: Any, units: int) -> Timing:
    """Repeat something that adds to a lap until each lap is a sample; the first warms up."""
    rounds, laps = 0, []
    warm = Lap()
    while warm.wall_seconds < bench.sampling.seconds_min:
        work(warm)
        rounds += 1
    for _ in range(bench.sampling.samples):
        lap = Lap()
        for _ in range(rounds):
            work(lap)
        laps.append(lap)
    return timing_of(laps, rounds * units)


def _update(tree: StateTree, changes: Changes, lap: Lap) -> None:
    """Change the tree; what was new is removed again, so that the tree stays as large as it is said to be."""
    before = tree.count
    with lap:
        tree.adopt(tree.preview(changes))
    if tree.count > before:
        tree.adopt(tree.preview(dict.fromkeys(changes)))


def _store(tree: StateTree, staged: Staged, store: LevelDB, changes: Changes, lap: Lap) -> None:
    with lap:
        tree.adopt(tree.preview(changes))
        staged.stage((state_key(key), value) for key, value in changes.items())
        store.write(staged.take_batch())
    tree.adopt(tree.preview(dict.fromkeys(changes)))
    staged.stage((state_key(key), None) for key in changes)
    store.write(staged.take_batch())


def _curves(cases: Sequence[Case]) -> list[Curve]:
    curves = []
    for name in (UPDATE, STORE, REBUILD):
        points = [case for case in cases if case.curve == name]
        if points:
            curves.append(_curve(name, points[0], points[-1]))
    return curves


def _curve(name: str, first: Case, last: Case) -> Curve:
    if name == REBUILD:
        return Curve(
            name, "Rebuilding the state tree at a start", "keys", "time",
            f"From {first.x:,.0f} to {last.x:,.0f} keys the time grows from {first.measures['time'].median:.2f} to "
            f"{last.measures['time'].median:.2f} seconds, {last.measures['cpu'].median:.1f} us a key at the end. Every row is read once "
            "and hashed into its bucket, and the nodes above are made once, so the time is in proportion to the keys.",
            is_log_x=True,
        )  # fmt: skip
    measure, what = ("cpu_new", "in the tree alone") if name == UPDATE else ("cpu", "with LevelDB")
    costs = [case.measures[measure].median for case in (first, last)]
    return Curve(
        name, f"Writing new keys {what}", "keys", measure,
        f"With {last.x / first.x:,.0f} times as many keys a new key costs {costs[1] / costs[0]:.1f} times as much ({costs[0]:.1f} us, then "
        f"{costs[1]:.1f} us). The path from a bucket to the root is as long at any size; what grows is the content of the bucket, copied "
        "and hashed anew with each change, and with it the misses of the processor's caches.",
        is_log_x=True,
    )  # fmt: skip
