"""Micro benchmarks: every group works, on sizes of a second, and finds what it says it finds. No figure is judged here."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from medchain.bench.micro import GROUPS, measure_size
from medchain.bench.micro.child import peak_bytes, resident_bytes, run_child
from medchain.bench.micro.clinic import Clinic, check
from medchain.bench.micro.execute import KINDS
from medchain.bench.micro.leveldb import written_bytes
from medchain.bench.micro.setting import FULL, QUICK, Size, memory_disk
from medchain.bench.micro.solo import Solo
from medchain.bench.micro.stopwatch import Lap, Sampling, quiet, timing_of
from medchain.bench.results import HIGHER, LOWER, MICRO, NEITHER, Result, Target
from medchain.errors import InvariantBroken, Rejected
from medchain.store.memory import MemoryKeyValue

TINY = Size(
    sampling=Sampling(2, 0.0002), signatures=4, validators=(4, 7), distinct=16, gossiped=8, block_transactions=8,
    operations=((1, 0), (6, 0)), patients=8, block_weight=150, block_operations=4, blocks=2, buckets=16, keys=(0, 20, 100), changed_keys=5,
    rows=50, body_bytes=300_000, body_runs=1, sealed_bytes=100_000, sealed_runs=1, headers=(5, 10),
)  # fmt: skip

STREAM_TARGETS = (Target("pace_seal", 1.0, 2.0), Target("pace_open", 1.0, 2.0), Target("peak_memory", 200.0))
PROOF_TARGETS = (Target("size", 5_000.0, 3_000.0), Target("time_build", 5.0, 1.0), Target("time_check", 5.0, 1.0))

WRITE = {"time": "ms", "cpu": "us", "size": "bytes", "rows": ""}
READ = {"cpu": "us", "time": "us"}
CODED = {"cpu_encode": "us", "cpu_decode": "us", "size": "bytes"}
PAYLOAD = {"cpu": "us", "cpu_decode": "us", "size": "bytes"}
OPERATION = {
    "cpu": "us", "cpu_rules": "us", "cpu_tree": "us", "cpu_per_weight": "us", "weight": "", "keys": "", "state_bytes": "bytes",
    "event_bytes": "bytes",
}  # fmt: skip
REBUILT = {"time": "s", "cpu": "us", "memory": "bytes", "peak_memory": "MB"}
SEALED_KEY = {"cpu_seal": "us", "cpu_open": "us", "rate_seal": "1/s", "rate_open": "1/s", "size": "bytes"}
PROOF = {"size": "bytes", "time_build": "ms", "time_check": "ms", "cpu_build": "us", "cpu_check": "us"}
PATH = {"size": "bytes", "cpu_build": "us", "cpu_check": "us"}

FOUND: dict[str, dict[str, dict[str, str]]] = {
    "verify": {
        "verify-one-thread": {"cpu": "us", "time": "us", "rate": "1/s"},
        "verify-two-threads": {"cpu": "us", "time": "us", "rate": "1/s", "speedup": "x"},
        "verify-sign": {"cpu": "us"},
        **{f"verify-shared-{count}": {"cpu": "us"} for count in (1, 16, 64)},
        **{f"verify-certificate-{count}": {"cpu": "us", "signatures": ""} for count in (4, 7)},
    },
    "codec": {
        "codec-values": CODED,
        "codec-transaction": CODED | {"cpu_decode_again": "us"},
        **{f"codec-{name}": CODED for name in ("block", "vote", "gossip")},
        "codec-payload-1x0": PAYLOAD,
        "codec-payload-6x0": PAYLOAD,
    },
    "hashing": {
        **{f"hashing-{name}": {"cpu": "us"} for name in ("short", "root", "tree", "path")},
        "hashing-long": {"cpu": "us", "cpu_pace": "GB/s"},
    },
    "execute": {
        **{f"execute-{kind.name}": OPERATION for kind in KINDS},
        "execute-block": {
            "cpu_build": "us", "cpu_check": "us", "cpu_stage": "us", "cpu_write": "us", "time_write": "ms", "batch_bytes": "bytes",
        },
    },
    "state": {
        "state-update-0": {"cpu_new": "us"},
        **{f"state-update-{keys}": {"cpu_new": "us", "cpu_overwritten": "us"} for keys in (20, 100)},
        **{f"state-store-{keys}": READ for keys in (0, 20, 100)},
        **{f"state-rebuild-{keys}": REBUILT for keys in (20, 100)},
    },
    "leveldb": {
        "leveldb-write": WRITE,
        "leveldb-write-block": WRITE,
        **{f"leveldb-{name}": READ for name in ("read-present", "read-absent", "iterate")},
        "leveldb-bodies": {"amplification": "x", "pace": "MB/s", "longest_write": "ms"},
    },
    "sealing": {
        "sealing-stream": {
            "pace_seal": "GB/s",
            "pace_seal_new_file": "GB/s",
            "pace_write_new_file": "GB/s",
            "pace_open": "GB/s",
            "cpu_seal": "s",
            "cpu_open": "s",
            "peak_memory": "MB",
        },
        "sealing-key-hybrid": SEALED_KEY,
        "sealing-key-x25519": SEALED_KEY,
    },
    "proofs": {
        **{f"proofs-{name}": PROOF for name in ("record", "transaction", "transaction-recent")},
        **{f"proofs-keys-{keys}": PATH for keys in (20, 100)},
        **{f"proofs-history-{headers}": PATH for headers in (5, 10)},
    },
}  # fmt: skip
"""Group → case → measure → unit."""

CURVES = {
    "verify": ["verify-certificate"],
    "codec": ["codec-payload"],
    "state": ["state-update", "state-store", "state-rebuild"],
    "proofs": ["proofs-keys", "proofs-history"],
}


def test_every_group_is_tried_here() -> None:
    assert list(FOUND) == list(GROUPS)


class Found:
    """A group, measured once for all tests."""

    def __init__(self, group: str, folder: Path) -> None:
        self.said: list[str] = []
        self.result = measure_size(TINY, only=[group], folder=folder, say=self.said.append)
        self.left_behind = list(folder.iterdir())
        self.is_collecting = gc.isenabled()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Found]:
    return cache(lambda group: Found(group, tmp_path_factory.mktemp(group)))


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_finds_what_it_says_and_leaves_nothing_behind(group: str, found: Callable[[str], Found]) -> None:
    measured = found(group)
    result = measured.result
    names = {case.name: {name: measure.unit for name, measure in case.measures.items()} for case in result.cases}
    assert names == FOUND[group]
    assert result.kind == MICRO
    assert measured.said[0].startswith(group)
    assert all(name.startswith(group + "-") for name in names)
    assert all(case.title for case in result.cases)
    assert not measured.left_behind
    assert measured.is_collecting
    assert Result.from_value(json.loads(json.dumps(result.to_value()))) == result


@pytest.mark.parametrize("group", CURVES)
def test_curves_have_points_that_rise_and_an_explanation_of_two_sentences(group: str, found: Callable[[str], Found]) -> None:
    result = found(group).result
    assert [curve.name for curve in result.curves] == CURVES[group]
    for curve in result.curves:
        points = [case for case in result.cases if case.curve == curve.name]
        assert len(points) >= 2
        assert [case.x for case in points] == sorted({case.x for case in points})
        assert all(curve.measure in case.measures for case in points)
        assert not curve.is_log_x or points[0].x > 0
        assert curve.explanation.count(". ") == 1
        assert curve.explanation.endswith(".")


def test_targets_are_those_of_the_figures(found: Callable[[str], Found]) -> None:
    targets = {case.name: tuple(case.targets) for group in GROUPS for case in found(group).result.cases if case.targets}
    proofs = {f"proofs-{name}": PROOF_TARGETS for name in ("record", "transaction", "transaction-recent")}
    assert targets == {"sealing-stream": STREAM_TARGETS, **proofs}


@pytest.mark.parametrize("group", GROUPS)
def test_rates_are_better_high_and_costs_low_and_nothing_is_negative(group: str, found: Callable[[str], Found]) -> None:
    for case in found(group).result.cases:
        for name, measure in case.measures.items():
            wanted = HIGHER if measure.unit.endswith("/s") or name == "speedup" else LOWER
            assert measure.better in (wanted, NEITHER), (case.name, name)
            assert all(sample >= 0 for sample in measure.samples), (case.name, name)


def test_a_group_that_is_none_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="verify") as caught:
        measure_size(TINY, only=["verify", "colours"], folder=tmp_path, say=pytest.fail)
    assert caught.value.code == "bench.micro-group"


def test_real_sizes_reach_what_must_be_shown() -> None:
    assert FULL.keys[-1] == 1_000_000
    assert FULL.sealed_bytes == 4 * 10**9
    assert FULL.headers[-1] == 100_000
    assert FULL.sampling.samples >= 5
    assert QUICK.sampling.samples >= 5
    assert min(FULL.sampling.seconds_min, QUICK.sampling.seconds_min) >= 0.05
    assert FULL.validators == QUICK.validators == (4, 7, 10, 16, 31)


def test_operations_of_each_kind_are_accepted_again_and_again() -> None:
    clinic = Clinic(Solo(MemoryKeyValue()), 8)
    for _ in range(3):
        for kind in KINDS:
            block = kind.make(clinic, 5)
            assert len({transaction.id for transaction in block}) == 5
            check(clinic.solo.decide(block).applied.transaction_receipts)


def test_a_refused_operation_is_noticed() -> None:
    clinic = Clinic(Solo(MemoryKeyValue()), 4)
    (once,) = clinic.confirm_custody(1)
    check(clinic.solo.decide([once]).applied.transaction_receipts)
    with pytest.raises(InvariantBroken, match=r"records\.custody-confirmed"):
        check(clinic.solo.decide([once]).applied.transaction_receipts)


def test_a_sample_takes_at_least_its_time_and_counts_its_units() -> None:
    calls = 0

    def work() -> None:
        nonlocal calls
        calls += 1

    timing = Sampling(3, 0.001).repeat(work, units=10)
    assert len(timing.wall) == len(timing.cpu) == 3
    assert calls * 10 * max(timing.wall) >= 3 * 0.001
    assert timing.wall_us().samples[0] == timing.wall[0] * 1e6


def test_laps_add_up_only_what_is_inside() -> None:
    lap, other = Lap(), Lap()
    for _ in range(2):
        with lap:
            sum(range(10_000))
    once = lap.wall_seconds
    sum(range(100_000))
    assert lap.wall_seconds == once > 0
    assert timing_of([lap, other], 2).wall == (once / 2, 0.0)


def test_the_collector_is_away_while_measuring_and_back_afterwards() -> None:
    with pytest.raises(RuntimeError), quiet():
        assert not gc.isenabled()
        raise RuntimeError
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_memory_and_written_bytes_are_counted(tmp_path: Path) -> None:
    assert peak_bytes() >= resident_bytes() > 1_000_000
    before = written_bytes()
    (tmp_path / "file").write_bytes(bytes(50_000))
    assert written_bytes() - before >= 50_000


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(InvariantBroken, match=r"medchain\.bench\.micro\.rebuild ended with 1"):
        run_child("medchain.bench.micro.rebuild", "no-such-store", "16")


def test_sealed_content_goes_where_there_is_room(tmp_path: Path) -> None:
    assert memory_disk(tmp_path, 2**80) == tmp_path
