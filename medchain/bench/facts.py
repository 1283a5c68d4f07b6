"""What figures depend on: the program, its commit, the machine and how busy it was. Every result carries it. Measures nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import medchain

GIT_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class Facts:
    """What figures depend on."""

    version: str
    commit: str
    """With a plus sign when the checkout held changes; empty outside a checkout."""
    measured_at: str
    machine: str
    cores: int
    load_before: float
    """Processes that wanted a processor in the minute before: figures of a busy machine are worth little."""
    python: str
    system: str

    @classmethod
    def collect(cls) -> Self:
        """Ask the machine."""
        return cls(
            version=medchain.__version__,
            commit=_commit(),
            measured_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            machine=_processor(),
            cores=len(os.sched_getaffinity(0)),
            load_before=round(os.getloadavg()[0], 2),
            python=platform.python_version(),
            system=f"{platform.system()} {platform.release()}",
        )


def _commit() -> str:
    folder = Path(medchain.__file__).parent
    answers = []
    for words in (("rev-parse", "--short=10", "HEAD"), ("status", "--porcelain", "--untracked-files=no")):
        try:
            command = ["git", "-C", str(folder), *words]
            answers.append(subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True).stdout.strip())
        except (OSError, subprocess.SubprocessError):
            return ""
    return answers[0] + ("+" if answers[1] else "")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
