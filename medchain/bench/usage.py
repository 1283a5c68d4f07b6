"""What running processes have used so far, as the system counts it: processor time, bytes written, memory. Linux. Knows no node."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


def cpu_seconds(process: int) -> float:
    """Return the processor time of a process, all its threads, ended ones too. Raises OSError when it is gone."""
    fields = _read(process, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def bytes_written(process: int) -> int:
    """Return the bytes that a process has written to files (what goes through sockets is not counted). Raises OSError when it is gone."""
    rows = dict(line.split(": ") for line in _read(process, "io").splitlines())
    return int(rows["wchar"])


def memory_bytes(process: int) -> int:
    """Return the memory that a process holds now (resident set). Raises OSError."""
    for line in _read(process, "status").splitlines():
        name, _, value = line.partition(":")
        if name == "VmRSS":
            return int(value.split()[0]) * 1024
    raise OSError(f"process {process} has ended")


def read_object(file: Path) -> dict[str, Any]:
    """Return the JSON object that a node wrote into a file. Raises ValueError."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _read(process: int, name: str) -> str:
    return Path(f"/proc/{process}/{name}").read_text(encoding="ascii", errors="replace")
