"""Processes of their own, for what must be measured from the start or by its memory: starting them, and what Linux counts of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from medchain.errors import InvariantBroken

KIBIBYTE: Final = 1024
CHILD_SECONDS: Final = 300


def run_child(module: str, *words: str) -> Any:
    """Run a module of ours in a process of its own and return the JSON that it prints. Raises InvariantBroken when it fails."""
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_SECONDS, check=False)
    if done.returncode:
        raise InvariantBroken(f"{module} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def resident_bytes() -> int:
    """Return what this process holds in memory now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Return the most this process ever held.

    Not getrusage's ru_maxrss: that is inherited from whoever started the process, hence never below what a large parent had.
    """
    return _status("VmHWM")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * KIBIBYTE
    return 0
