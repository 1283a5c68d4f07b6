"""A file of a gigabyte is sealed, stored, copied, fetched and opened in constant memory, and a terminal shows how far it is."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import re
import secrets
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

GIGABYTE = 1024**3
MEMORY_BYTES_MAX = 200 * 1024**2
DISK_BYTES_NEEDED = 10 * GIGABYTE
"""The file, its sealed form while it travels, three copies, the reader's, and room to spare."""
PATIENCE_S = 300.0


@pytest.fixture(scope="module")
def large_file(tmp_path_factory) -> Iterator[Path]:
    """Bytes that do not repeat by segment: no two pieces of 1 MiB are the same."""
    folder = tmp_path_factory.mktemp("large")
    if shutil.disk_usage(folder).free < DISK_BYTES_NEEDED:
        pytest.skip("there are not 10 GB free for the copies of a large file")
    piece = secrets.token_bytes(1024 * 1024)
    path = folder / "scan.dcm"
    with path.open("wb") as file:
        for number in range(1024):
            file.write(number.to_bytes(8, "big") + piece[8:])
    yield path
    path.unlink()


MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""Runs a command and says how much memory it took. A small process in between, because Linux counts the memory of whoever starts a process
as the child's own until it executes: the test's process may have read gigabytes before."""


@pytest.fixture
def cleared_folder(tmp_path) -> Iterator[Path]:
    """A folder emptied at the end: pytest keeps the folders of its last runs, and these would be gigabytes."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def run_on_terminal(*words: object) -> tuple[int, int, str]:
    """Run a command with a terminal as its standard error; return (exit code, most memory it took in bytes, what the terminal showed)."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # the other side is closed
            while piece := os.read(ours, 65_536):
                shown.append(piece)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    command = [sys.executable, "-c", MEASURED, sys.executable, "-m", "medchain", *map(str, words), "--json"]
    answers, answer = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, theirs, 2), (os.POSIX_SPAWN_DUP2, answer, 1)]
    process = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions)
    os.close(answer)
    with open(answers, "rb") as told:
        memory = int(told.read())
    _, status = os.waitpid(process, 0)
    os.close(theirs)
    reader.join(10)
    os.close(ours)
    return os.waitstatus_to_exitcode(status), memory * 1024, b"".join(shown).decode(errors="replace")


def most_memory_bytes(process: int) -> int:
    """The most memory a process ever took."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_bars(shown: str, steps: tuple[str, ...]) -> None:
    for step in steps:
        assert re.search(rf"\r{step} +\[#+\] 100% ", shown), f"no full bar for {step}: {shown[-2000:]!r}"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory of processes is read from /proc")
def test_gigabyte_takes_less_than_two_hundred_megabytes_of_memory_anywhere(cleared_folder, make_sharing, large_file, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    sharing = make_sharing()
    words = ("--at", sharing.home("a"), "--patient", sharing.patient, "--category", "imaging")
    code, memory, shown = run_on_terminal("record", "put", large_file, *words)
    assert code == 0, shown
    assert memory < MEMORY_BYTES_MAX, f"putting took {memory >> 20} MiB"
    check_bars(shown, ("seal", "upload"))

    (row,) = sharing.medchain("record", "list", sharing.patient, "--at", sharing.home("a"))["records"]
    record = row["record"]
    sharing.grant(sharing.lee_id, category="imaging")
    sharing.request(record)
    copy = cleared_folder / "copy.dcm"
    code, memory, shown = run_on_terminal("record", "get", record, "--as", sharing.lee, "--at", sharing.home("b"), "--out", copy)
    assert code == 0, shown
    assert memory < MEMORY_BYTES_MAX, f"getting took {memory >> 20} MiB"
    check_bars(shown, ("download", "open"))
    assert copy.stat().st_size == GIGABYTE
    assert digest_of(copy) == digest_of(large_file)

    sharing.cluster.wait("two further hospitals hold it", lambda: _holders(sharing, record) == 3, PATIENCE_S)
    for name in sharing.cluster.names:
        taken = most_memory_bytes(sharing.cluster.testnet.process_of(name))
        assert taken < MEMORY_BYTES_MAX, f"hospital {name} took {taken >> 20} MiB"
    left = [path for path in cleared_folder.iterdir() if path.name not in ("net", "copy.dcm") and path.suffix != ".key"]
    assert left == []


def _holders(sharing, record: str) -> int:
    return len(sharing.medchain("record", "show", record, "--at", sharing.home("a"))["versions"][-1]["holders"])
