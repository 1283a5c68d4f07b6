"""Sealing: large content in processes of their own, with the memory that they take; and keys sealed to readers."""

from __future__ import annotations

from functools import partial
from typing import Final

from medchain.bench.micro.child import run_child
from medchain.bench.micro.clinic import digest_of
from medchain.bench.micro.setting import GIGABYTE, MEGABYTE, Bench, Findings, memory_disk
from medchain.bench.micro.stopwatch import Timing, quiet
from medchain.bench.results import HIGHER, LOWER, NEITHER, Case, Measure, Target
from medchain.crypto.sealing import SUITE_HYBRID, SUITE_X25519, OpeningKey, seal

WORKERS: Final = 2
INFO: Final = b"medchain/bench/sealing"
SUITES: Final = {SUITE_HYBRID: "hybrid", SUITE_X25519: "x25519"}


def measure(bench: Bench) -> Findings:
    """Measure the group."""
    bench.say(f"sealing: {bench.size.sealed_bytes // MEGABYTE} MB")
    cases = [_stream(bench)]
    with quiet():
        cases += [_wrap(bench, suite, name) for suite, name in SUITES.items()]
    return Findings(cases)


def _stream(bench: Bench) -> Case:
    """What is sealed is made in memory and lands in memory if there is room: the disk is another case.

    The target is held against sealing into pages that the memory disk already has; what new pages cost, sealed into and plainly written,
    stands beside it, because that is the machine's figure and not ours.
    """
    size = bench.size.sealed_bytes
    folder = memory_disk(bench.folder, size)
    runs = [run_child("medchain.bench.micro.stream", str(folder), str(size), str(WORKERS)) for _ in range(bench.size.sealed_runs)]
    measures = {
        "pace_seal": Measure("GB/s", HIGHER, tuple([size / GIGABYTE / run["seal_seconds"] for run in runs])),
        "pace_seal_new_file": Measure("GB/s", HIGHER, tuple([size / GIGABYTE / run["seal_anew_seconds"] for run in runs])),
        "pace_write_new_file": Measure("GB/s", NEITHER, tuple([size / GIGABYTE / run["write_seconds"] for run in runs])),
        "pace_open": Measure("GB/s", HIGHER, tuple([size / GIGABYTE / run["open_seconds"] for run in runs])),
        "cpu_seal": Measure("s", LOWER, tuple([run["seal_cpu_seconds"] * GIGABYTE / size for run in runs])),
        "cpu_open": Measure("s", LOWER, tuple([run["open_cpu_seconds"] * GIGABYTE / size for run in runs])),
        "peak_memory": Measure("MB", LOWER, tuple([run["peak_bytes"] / MEGABYTE for run in runs])),
    }
    title = f"Sealing and opening {size // MEGABYTE} MB on {WORKERS} threads; processor time per GB, memory of the whole process"
    settings = {"bytes": size, "threads": WORKERS, "disk": "memory" if folder != bench.folder else "given"}
    targets = (Target("pace_seal", 1.0, 2.0), Target("pace_open", 1.0, 2.0), Target("peak_memory", 200.0))
    return Case("sealing-stream", title, measures, settings, targets)


def _wrap(bench: Bench, suite: int, name: str) -> Case:
    key = OpeningKey.from_private_bytes(suite, digest_of("opening", suite))
    data_key = digest_of("data-key", suite)
    sealed = seal(suite, key.public, data_key, info=INFO)
    to_seal = bench.sampling.repeat(partial(seal, suite, key.public, data_key, info=INFO))
    to_open = bench.sampling.repeat(partial(key.open, sealed, info=INFO))
    measures = {
        "cpu_seal": to_seal.cpu_us(),
        "cpu_open": to_open.cpu_us(),
        "rate_seal": _rate(to_seal),
        "rate_open": _rate(to_open),
        "size": Measure("bytes", NEITHER, (float(len(sealed)),)),
    }
    return Case(f"sealing-key-{name}", f"Sealing a data key to a reader (HPKE, {name}), and opening it", measures)


def _rate(timing: Timing) -> Measure:
    return Measure("1/s", HIGHER, tuple([1 / sample for sample in timing.wall]))
