"""Determinism is itself tested: a seed's trace is the same again, in another process, and under another PYTHONHASHSEED."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = "import sys; from medchain.sim.run import run_seed; print(run_seed(int(sys.argv[1])).digest)"


def digest_of(seed: int, hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(seed)], capture_output=True, text=True, timeout=300, env=environment, check=True
    )
    return done.stdout.strip()


@pytest.mark.sim
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_same_seed_gives_the_same_trace_under_two_hash_seeds(seed: int) -> None:
    first = digest_of(seed, "1")
    assert len(first) == 32
    assert first == digest_of(seed, "4242")
