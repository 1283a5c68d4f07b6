"""Long runs of real processes: hundreds of kills, half-minute partitions, hospitals that stand still, a full disk, all under load.

Each is a fault of `medchain bench faults`, asked for what must hold; never in CI. `scripts/test --long` runs them.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from medchain.bench.faults import Bench, measure
from medchain.bench.rows import FULL

pytestmark = [pytest.mark.cluster, pytest.mark.long]

RATE = 150.0
"""Transactions a second: something is always under way, and a machine that does other things as well keeps up."""


@pytest.mark.parametrize(
    "name",
    [
        "storm", "primary-killed", "partition-half", "partition-half-refused", "partition-one", "freeze-primary", "freeze-primary-long",
        "freeze-backup-long", "disk-full", "lines-cut", "lines-silent", "lines-one-way",
    ],
)  # fmt: skip
def test_network_recovers_and_loses_nothing_under(name, tmp_path):
    size = replace(FULL, kills=20)
    row = measure(name, Bench(tmp_path, size, 4, RATE, random.Random(0)))
    assert row.checked is not None and row.checked.accepted > 500
    assert [target.text for target in row.targets if not target.is_met] == []
    assert row.checked.refused == 0
