"""The disk: synced writes, reads and iteration with a node's own options, and how often LevelDB writes the bytes of a block's body."""

from __future__ import annotations

import random
import time
from functools import partial
from pathlib import Path
from typing import Final

from medchain.bench.micro.clinic import Clinic, digest_of
from medchain.bench.micro.setting import MEGABYTE, Bench, Findings
from medchain.bench.micro.solo import SEED, Solo
from medchain.bench.micro.state import fill, key_of
from medchain.bench.micro.stopwatch import MILLISECONDS, Timing, quiet
from medchain.bench.results import HIGHER, LOWER, NEITHER, Case, Measure
from medchain.store.keyvalue import WriteBatch, prefix_end
from medchain.store.layout import STATE, body_key, meta_key, state_key
from medchain.store.leveldb import LevelDB

SMALL_BYTES: Final = 100
"""A vote."""
BODY_BYTES: Final = 150_000
"""A block of 500 transactions of 300 bytes."""
READS: Final = 2_000
ITERATED_MAX: Final = 50_000
POLL_SECONDS: Final = 0.1
CALM_SECONDS: Final = 1.0
"""Without a byte written for so long, compaction has ended."""
CALM_SECONDS_MAX: Final = 120.0


def measure(bench: Bench) -> Findings:
    """Measure the group."""
    findings = Findings()
    with bench.store() as store:
        findings.cases += _writes(bench, store)
    with bench.store() as store:
        findings.cases += _reads(bench, store)
    bench.say(f"leveldb: bodies of {bench.size.body_bytes // MEGABYTE} MB")
    findings.cases.append(_amplification(bench))
    return findings


def _writes(bench: Bench, store: LevelDB) -> list[Case]:
    solo = Solo(store)
    clinic = Clinic(solo, 0)
    count = bench.size.block_transactions
    executed = solo.build(clinic.register_patients(count))
    block = solo.adopt(executed, solo.certificate_of(executed))
    small = WriteBatch.of((meta_key("bench"), bytes(SMALL_BYTES)))
    with quiet():
        of_small = bench.sampling.repeat(partial(store.write, small))
        of_block = bench.sampling.repeat(partial(store.write, block))
    return [
        _write_case("leveldb-write", "A small synced write", of_small, small, {}),
        _write_case("leveldb-write-block", f"The synced batch of {count} decided registrations", of_block, block, {"transactions": count}),
    ]


def _write_case(name: str, title: str, timing: Timing, batch: WriteBatch, settings: dict[str, str | int | float]) -> Case:
    size = sum(len(key) + len(value or b"") for key, value in batch.operations)
    measures = {
        "time": timing.wall_ms(),
        "cpu": timing.cpu_us(),
        "size": Measure("bytes", NEITHER, (float(size),)),
        "rows": Measure("", NEITHER, (float(len(batch.operations)),)),
    }
    return Case(name, title, measures, settings)


def _reads(bench: Bench, store: LevelDB) -> list[Case]:
    """One row after the other in no order, as the rules read them; in order, as a start reads them."""
    rows = bench.size.rows
    fill(store, rows)
    dice = random.Random(SEED)
    present = [state_key(key_of(dice.randrange(rows))) for _ in range(READS)]
    absent = [state_key(key_of(rows + dice.randrange(rows))) for _ in range(READS)]
    iterated = min(rows, ITERATED_MAX)

    def read_all(keys: list[bytes]) -> None:
        for key in keys:
            store.get(key)

    def iterate() -> None:
        for _, _ in zip(range(iterated), store.iterate(STATE, prefix_end(STATE)), strict=False):
            pass

    with quiet():
        hit = bench.sampling.repeat(partial(read_all, present), len(present))
        miss = bench.sampling.repeat(partial(read_all, absent), len(absent))
        row = bench.sampling.repeat(iterate, iterated)
    found = {
        "leveldb-read-present": (f"Reading a key that is there, any of {rows}", hit),
        "leveldb-read-absent": (f"Reading a key that is not there, {rows} others are", miss),
        "leveldb-iterate": ("Reading in order, per row", row),
    }
    return [
        Case(name, title, {"cpu": timing.cpu_us(), "time": timing.wall_us()}, {"rows": rows}) for name, (title, timing) in found.items()
    ]


def _amplification(bench: Bench) -> Case:
    """Bodies under their digests, hence in no order, one synced batch each; LevelDB writes them to its log, then to tables, then again."""
    written: list[float] = []
    pace: list[float] = []
    longest: list[float] = []
    count = max(1, bench.size.body_bytes // BODY_BYTES)
    dice = random.Random(SEED)
    body = dice.randbytes(2 * BODY_BYTES)
    for _ in range(bench.size.body_runs):
        with bench.store() as store:
            before, started, worst = written_bytes(), time.perf_counter(), 0.0
            for number in range(count):
                offset = dice.randrange(BODY_BYTES)
                batch = WriteBatch.of((body_key(digest_of("body", number)), body[offset : offset + BODY_BYTES]))
                begin = time.perf_counter()
                store.write(batch)
                worst = max(worst, time.perf_counter() - begin)
            pace.append(count * BODY_BYTES / MEGABYTE / (time.perf_counter() - started))
            longest.append(worst * MILLISECONDS)
            written.append((_calm_bytes() - before) / (count * BODY_BYTES))
    measures = {
        "amplification": Measure("x", LOWER, tuple(written)),
        "pace": Measure("MB/s", HIGHER, tuple(pace)),
        "longest_write": Measure("ms", LOWER, tuple(longest)),
    }
    settings = {"bodies": count, "body_bytes": BODY_BYTES}
    title = "Bytes written for each byte of a block's body, log and compactions together; how fast, and the longest wait for one"
    return Case("leveldb-bodies", title, measures, settings)


def written_bytes() -> int:
    """Return how many bytes this process has handed to the system for writing (`wchar`): the same on any disk, a memory disk too."""
    for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines():
        name, _, count = line.partition(":")
        if name == "wchar":
            return int(count)
    return 0


def _calm_bytes() -> int:
    """Wait until nothing more is written, and return how much it was."""
    deadline = time.monotonic() + CALM_SECONDS_MAX
    last, since = written_bytes(), time.monotonic()
    while time.monotonic() - since < CALM_SECONDS and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        now = written_bytes()
        if now != last:
            last, since = now, time.monotonic()
    return last
