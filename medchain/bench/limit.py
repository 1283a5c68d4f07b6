"""What verification alone allows: how long one signature takes while so many processes check signatures at once as a network has nodes.

    python -m medchain.bench.limit

prints the processor time of one check, in seconds. The verification limit is cores / (n * seconds per check): every node checks every
transaction's signature once, and nothing else (figures.md). Knows no node.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Final

from medchain.bench.program import environment
from medchain.crypto.signing import SigningKey, verify_many
from medchain.errors import Unavailable

SIGNATURES: Final = 64
MESSAGE_BYTES: Final = 96
"""What is signed is a tagged id, some ninety bytes."""
SECONDS: Final = 0.2
"""Of processor time, each process."""
PATIENCE_SECONDS: Final = 60.0


def seconds_per_check() -> float:
    """Return the processor time of one check in this process."""
    key = SigningKey.generate()
    messages = [number.to_bytes(MESSAGE_BYTES, "big") for number in range(SIGNATURES)]
    items = [(key.public, message, key.sign(message)) for message in messages]
    verify_many(items)
    count, began = 0, time.process_time()
    while (spent := time.process_time() - began) < SECONDS:
        count += sum(verify_many(items))
    return spent / count


def measure(processes: int) -> float:
    """Return the processor time of one check, in seconds, while so many processes check at once. Raises Unavailable."""
    command = [sys.executable, "-P", "-m", "medchain.bench.limit"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) for _ in range(processes)]
    try:
        return statistics.median(float(process.communicate(timeout=PATIENCE_SECONDS)[0]) for process in running)
    except (ValueError, subprocess.TimeoutExpired):
        raise Unavailable("the check of signatures could not be timed: look at what was said above") from None
    finally:
        for process in running:
            process.kill()
            process.wait()


def per_second(processes: int, seconds: float) -> float:
    """Return the verification limit of a network of so many nodes on this machine, transactions a second."""
    return len(os.sched_getaffinity(0)) / (processes * seconds)


if __name__ == "__main__":
    print(seconds_per_check())
