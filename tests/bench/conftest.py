"""Results as the suites make them, with figures that are near real ones; nothing is measured for them."""

from __future__ import annotations

import importlib.util
import os
import random

import pytest

from medchain.bench.facts import Facts
from medchain.bench.results import CLUSTER, HIGHER, LOWER, MICRO, Case, Curve, Measure, Result, Target

CPU_US = {"verify": 58.0, "execute": 61.0, "state": 22.0, "leveldb": 9.0, "network": 11.0, "consensus": 4.0, "rest": 14.0}
LATENCY_MS = {"p50": 44.0, "p95": 68.0, "p99": 79.0, "max": 130.0}


class Sampler:
    """Draws samples around a value, always the same ones."""

    def __init__(self, count: int) -> None:
        self._dice = random.Random(4)
        self._count = count

    def measure(self, unit: str, better: str, value: float) -> Measure:
        return Measure(unit, better, tuple(round(value * self._dice.lognormvariate(0, 0.03), 3) for _ in range(self._count)))

    def cluster_case(self, name: str, title: str, factor: float, *, targets=(), **more) -> Case:
        measures = {"rate": self.measure("1/s", HIGHER, 5_100.0 / factor), "limit_ratio": self.measure("x", HIGHER, 0.68 / factor)}
        measures |= {f"cpu_{part}": self.measure("us", LOWER, value * factor) for part, value in CPU_US.items()}
        measures |= {f"latency_{name}": self.measure("ms", LOWER, value * factor) for name, value in LATENCY_MS.items()}
        return Case(name, title, measures, targets=targets, **more)


@pytest.fixture(scope="session")
def cluster_result() -> Result:
    """Real networks: a base case with targets (one missed), validators as a curve, a batch-signed shape."""
    draw = Sampler(5)
    targets = (Target("rate", 5_000.0, 6_600.0), Target("limit_ratio", 0.6, 0.65), Target("latency_p99", 60.0, 40.0))
    cases = [draw.cluster_case("base", "Four hospitals, everything on", 1.0, targets=targets, settings={"validators": 4})]
    for count in (4, 7, 10, 16):
        more = {"settings": {"validators": count}, "curve": "validators", "x": float(count)}
        cases.append(draw.cluster_case(f"validators-{count}", f"{count} hospitals", 1 + count / 40, **more))
    shared = (Target("rate", 9_000.0, 12_000.0),)
    cases.append(draw.cluster_case("shape-batch16", "16 transactions under one signature", 0.5, targets=shared))
    curve = Curve("validators", "Processor time over hospitals", "hospitals", "cpu_consensus", "Each vote is verified once. So it grows.")
    return Result(CLUSTER, Facts("0.1.0", "abcdef1234", "2026-11-21 10:00 UTC", "a machine", 2, 0.2, "3.11.7", "Linux 6"), cases, (curve,))


@pytest.fixture(scope="session")
def micro_result() -> Result:
    """Single costs: two groups, one of them a curve with two series over a logarithmic scale."""
    draw = Sampler(7)
    measures = {"cpu": draw.measure("us", LOWER, 56.0), "rate": draw.measure("1/s", HIGHER, 18_000.0)}
    cases = [Case("verify-one-thread", "Verifying a signature", measures), Case("verify-empty", "A case that was not measured", {})]
    cases += [
        Case(
            f"state-{series.replace(' ', '-')}-{keys}",
            f"Writing a key among {keys}, {series}",
            {"cpu": draw.measure("us", LOWER, cost + (keys + 1) ** 0.2)},
            {"series": series, "keys": keys},
            curve="state",
            x=float(keys),
        )
        for series, cost in (("tree only", 3.0), ("with LevelDB", 9.0))
        for keys in (1_000, 100_000, 1_000_000)
    ]
    curve = Curve("state", "Writing a key", "keys", "cpu", "The path is as long at any size. What grows are buckets.", is_log_x=True)
    return Result(MICRO, Facts("0.1.0", "abcdef1234+", "2026-11-21 11:00 UTC", "a machine", 2, 3.5, "3.11.7", "Linux 6"), cases, (curve,))


@pytest.fixture(scope="session")
def drawing() -> None:
    """Plots can be drawn; elsewhere than in continuous integration a test that needs them is skipped, visibly, where they cannot."""
    if importlib.util.find_spec("matplotlib") is None:
        if os.environ.get("CI"):
            pytest.fail("continuous integration must draw plots: scripts/test installs matplotlib (scripts/bench-requirements.txt)")
        pytest.skip("matplotlib is not installed: scripts/test and `scripts/bench report` install it")
