"""Files that survive: written whole beside their place, synced, renamed, and the folder synced as well. Knows no content.

A power cut leaves the old file, the new file or none, never a half one; what a cut left beside the place is removed at the next start.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from medchain.errors import Rejected, Unavailable

REFUSALS: Final[dict[str, str]] = {
    "vault.disk-low": "The disk of the vault has too little free space.",
}

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
"""Sealed or not, what lies here is nobody else's business on a shared machine."""


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn the system's errors into typed ones: no room is Rejected vault.disk-low, anything else Unavailable; neither names a path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise disk_low() from None
        name = errno.errorcode.get(error.errno or 0, "unknown error")
        raise Unavailable(f"{what} failed on this hospital's disk ({name}): its operator has to look at it") from None


def disk_low() -> Rejected:
    """Return the refusal for want of space."""
    return Rejected("vault.disk-low", "the disk of the vault has too little free space: its operator has to make room, then send it again")


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, readable by its owner only; its own mode is set even when it is there already."""
    path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    path.chmod(FOLDER_MODE)


def write_whole(path: Path, data: bytes, beside: Path) -> None:
    """Write a small file, mode 0600, durable and whole when this returns; until then it is in the folder `beside` on the same disk.

    Raises OSError.
    """
    temporary = beside / secrets.token_hex(16)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Make the content of a file durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: a rename is not, before this. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def overwrite_and_remove(path: Path) -> None:
    """Overwrite a file with zeros, sync, remove it. Does nothing when it is not there. Raises OSError.

    Flash and copy-on-write disks may keep the old blocks for a while; so what lies in these files is sealed in the first place.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        os.write(descriptor, bytes(os.fstat(descriptor).st_size))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def remove_leftovers(beside: Path) -> None:
    """Remove what a cut left half-written in the folder for it."""
    for path in beside.iterdir():
        path.unlink(missing_ok=True)
