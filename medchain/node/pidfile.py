"""The process that runs a home folder: its id in node.pid, held under an advisory lock for as long as it lives.

A lock ends with its process however that ends, so a stale number, or one the system gave to somebody else, is never taken for a node.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from medchain.errors import Rejected

_DIGITS_MAX: Final = 20
LOCK_TRIES: Final = 20
LOCK_RETRY_SECONDS: Final = 0.01
"""A fifth of a second in all: many times what a question holds the lock for."""


class PidFile:
    """The file of the running node; made by `hold`, ended by `release`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def hold(self) -> None:
        """Write this process's id and lock the file. Raises Rejected: store.locked when another process holds it, home.unusable."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if not _lock(descriptor):
                os.close(descriptor)
                raise Rejected("store.locked", f"Another node is running in {self._path.parent}: stop it first.")
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except OSError as error:
            raise Rejected("home.unusable", f"{self._path} cannot be written: {error.strerror}.") from None
        self._descriptor = descriptor

    def release(self) -> None:
        """Remove the file and its lock; releasing twice is allowed."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def _lock(descriptor: int) -> bool:
    """Return whether the lock is ours now. Whoever asks with `running_process` holds it for a moment, so one refusal is no answer."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_RETRY_SECONDS)
        else:
            return True
    return False


def running_process(path: Path) -> int | None:
    """Return the id of the living process that holds the file at `path`, None when there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(descriptor, _DIGITS_MAX).decode("ascii", "replace").strip()
            return int(text) if text.isdigit() else None
        return None
    finally:
        os.close(descriptor)
