"""The key-value store on disk: LevelDB by plyvel. The one file of this room above the I/O line.

One synced batch a write, 64 MiB write buffer, no compression (figures.md: the default buffer of 4 MiB stalled for 1.9 s, and what is
stored is mostly digests and ciphertext). A torn end of the log is not damage and is cut by itself; anything else that does not check is
reported, never skipped (protocol.md, "Amnesia"). This module knows no key range.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import plyvel

from medchain.errors import InvariantBroken, Rejected
from medchain.store.keyvalue import WriteBatch
from medchain.store.logtail import has_hole, torn_end

WRITE_BUFFER_BYTES: Final = 64 * 1024 * 1024
BLOCK_CACHE_BYTES: Final = 16 * 1024 * 1024
"""Uncompressed pages kept; most state reads are of keys just written, which the write buffer and the page cache serve."""
OPEN_FILES_MAX: Final = 256
"""LevelDB's default of 1000 leaves too few descriptors for peers where the limit is 1024."""

REFUSALS: Final[dict[str, str]] = {
    "store.missing": "there is no store at this path",
    "store.locked": "another process has the store open",
    "store.damaged": "files of the store are missing or fail their checksums",
    "store.unusable": "the store's directory cannot be read or written",
}
"""Why a store cannot be opened, by code."""

_FILES_OF_A_STORE: Final = re.compile(r"MANIFEST-\d+|\d+\.(log|ldb|sst)")


class LevelDB:
    """Implements keyvalue.KeyValue. Reads and writes may come from different threads; `close` may not run beside either."""

    def __init__(self, path: str | Path, *, create: bool) -> None:
        """Open the store in directory `path`; `create` makes it if there is none.

        Raises Rejected: store.missing, store.locked, store.damaged, store.unusable.
        """
        self._path = Path(path)
        self._database: Any = _open(self._path, create)

    @property
    def path(self) -> Path:
        """The store's directory."""
        return self._path

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`. Raises InvariantBroken when the bytes on disk fail their checksum: no node may go on with them."""
        try:
            value: bytes | None = self._opened().get(key, verify_checksums=True)
        except plyvel.Error as error:
            raise self._broken("read", error) from error
        return value

    def iterate(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) for start <= key < stop as they are at the moment of the call. Raises InvariantBroken like `get`."""
        database = self._opened()
        if start >= stop:
            return iter(())
        try:
            first = None if reverse else start
            rows = database.iterator(start=first, stop=stop, include_stop=False, reverse=reverse, verify_checksums=True)
        except plyvel.Error as error:  # it opens files already here
            raise self._broken("read", error) from error
        if reverse:  # plyvel loses a row when going backwards begins at the very key of `start`, so the end of the way is found here
            return itertools.takewhile(lambda row: row[0] >= start, self._checked(rows))
        return self._checked(rows)

    def write(self, batch: WriteBatch) -> None:
        """Write the batch atomically and synced; an empty one touches nothing. Raises InvariantBroken when the disk fails or is full."""
        self.begin_write(batch)()

    def begin_write(self, batch: WriteBatch) -> Callable[[], None]:
        """Take a batch over; what is returned writes it once, may be called in another thread, and raises as `write` does.

        Handing the rows to LevelDB is Python's work, a third of a microsecond each. In a thread of its own that took up to hundreds of
        times as long: plyvel lets go of the interpreter's lock now and then, and whoever computes meanwhile gives it back after 5 ms.
        """
        database = self._opened()
        if not batch:
            return _write_nothing
        staged = database.write_batch(sync=True)
        put, delete = staged.put, staged.delete
        for key, value in batch.operations:
            if value is None:
                delete(key)
            else:
                put(key, value)

        def write() -> None:
            self._opened()
            try:
                staged.write()
            except plyvel.Error as error:
                raise self._broken("write", error) from error

        return write

    def close(self) -> None:
        """Release the store and its lock; closing twice is allowed."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def check(self) -> None:
        """Read the whole store and verify every checksum. Raises Rejected store.damaged."""
        try:
            with self._opened().iterator(verify_checksums=True, fill_cache=False) as rows:
                for _ in rows:
                    pass
        except plyvel.Error as error:
            raise _damaged(self._path, error) from error

    def compact(self, start: bytes, stop: bytes) -> None:
        """Free the disk space of what was deleted in [start, stop); takes long on a large range, other calls go on beside it."""
        self._opened().compact_range(start=start, stop=stop)

    def disk_bytes(self) -> int:
        """Return the size of all files of the store."""
        total = 0
        for entry in os.scandir(self._path):
            try:
                total += entry.stat().st_size
            except FileNotFoundError:
                continue  # a compaction beside us removed it
        return total

    def _checked(self, rows: Any) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from rows
        except plyvel.Error as error:
            raise self._broken("read", error) from error

    def _opened(self) -> Any:
        if self._database is None:
            raise InvariantBroken(f"the store in {self._path} was used after it was closed")
        return self._database

    def _broken(self, what: str, error: Exception) -> InvariantBroken:
        reason = _reason(error)
        return InvariantBroken(f"the store in {self._path} could not {what} ({reason}): check the disk and its space, then start again")


def _write_nothing() -> None:
    """Write an empty batch: it touches no disk."""


def _open(path: Path, create: bool) -> Any:
    """Open or create, cutting a torn end of the log if that is all that is wrong."""
    try:
        _check_directory(path, create)
        _check_logs(path)
        return _open_database(path, create)
    except plyvel.CorruptionError as error:
        return _open_without_torn_end(path, error)
    except plyvel.IOError as error:
        raise _unusable(path, error) from error
    except plyvel.Error as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise _unusable(path, error) from error


def _check_directory(path: Path, create: bool) -> None:
    """Refuse what LevelDB would take for an empty store though it once was one."""
    names = {entry.name for entry in os.scandir(path)} if path.is_dir() else set()
    if "CURRENT" in names:
        return
    if any(_FILES_OF_A_STORE.fullmatch(name) for name in names):
        raise _damaged(path, "its file CURRENT is missing")
    if not create:
        raise Rejected("store.missing", f"There is no store in {path}: run `medchain node init` first, or correct the path.")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _check_logs(path: Path) -> None:
    """Refuse a log with zeros in its middle: LevelDB, even paranoid, takes them for unused space and skips the rest of that block."""
    for log in _logs(path):
        if has_hole(log.read_bytes()):
            raise _damaged(path, f"{log.name} has a hole")


def _logs(path: Path) -> list[Path]:
    """Return the logs, the newest last."""
    return sorted((entry for entry in path.glob("*.log") if entry.stem.isdigit()), key=lambda entry: int(entry.stem))


def _open_database(path: Path, create: bool) -> Any:
    return plyvel.DB(
        str(path),
        create_if_missing=create,
        paranoid_checks=True,  # without it LevelDB drops a bad record in mid-log and silently goes on with those after it
        write_buffer_size=WRITE_BUFFER_BYTES,
        lru_cache_size=BLOCK_CACHE_BYTES,
        max_open_files=OPEN_FILES_MAX,
        bloom_filter_bits=10,
        compression=None,
    )


def _open_without_torn_end(path: Path, error: Exception) -> Any:
    """Cut the last record of the newest log if only that can be bad, and open again; put it back if it was not that.

    Each batch is synced before the next is written, so a crash can spoil only the last record; LevelDB itself forgives a file that ends
    too early but not one whose last pages were never written.
    """
    logs = _logs(path)
    content = logs[-1].read_bytes() if logs else b""
    end = torn_end(content)
    if end is None:
        raise _damaged(path, error) from error
    _replace_tail(logs[-1], end, b"")
    try:
        return _open_database(path, create=False)
    except plyvel.Error as second:
        _replace_tail(logs[-1], end, content[end:])
        raise _damaged(path, second) from second


def _replace_tail(log: Path, offset: int, tail: bytes) -> None:
    with log.open("r+b") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(tail)
        file.flush()
        os.fsync(file.fileno())


def _damaged(path: Path, reason: object) -> Rejected:
    words = _reason(reason)
    return Rejected("store.damaged", f"The store in {path} is damaged ({words}): restore a snapshot, or move it away and join again.")


def _reason(error: object) -> str:
    """Return LevelDB's own words, which plyvel hands on as bytes."""
    words = error.args[0] if isinstance(error, plyvel.Error) and error.args else error
    return words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)


def _unusable(path: Path, error: Exception) -> Rejected:
    """Tell a held lock, a missing file and a disk that says no apart: LevelDB gives one kind of error for all three."""
    text = _reason(error)
    if "LOCK" in text and ("already held" in text or "temporarily unavailable" in text):
        return Rejected("store.locked", f"Another node is running on the store in {path}: stop it, or give this node its own directory.")
    if "No such file" in text:
        return _damaged(path, error)
    return Rejected("store.unusable", f"The store in {path} cannot be opened ({text}): check the directory's owner, rights and free space.")
