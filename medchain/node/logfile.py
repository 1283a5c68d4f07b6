"""The file node.log, bounded: when it is full it becomes node.log.old, and a new one is begun. Knows no event and no field.

A node writes for years and nobody watches its disk for it: two files of `log.bytes_max` each are the most it ever takes. The newest lines
are always in node.log, at least `bytes_max` of history in the two together once there is so much.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

OLD_SUFFIX: Final = ".old"


class LogFile(io.TextIOBase):
    """Appends whole lines. One writer; a line that cannot be written raises OSError, as for any file, and the next one tries again."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        """Open `path` for appending. Raises OSError."""
        super().__init__()
        self._path = path
        self._bytes_max = bytes_max
        self._file = self._open()
        self._size = path.stat().st_size

    def write(self, line: str) -> int:
        """Append a line, in a new file when this one has no room for it; a line longer than the bound has a file of its own."""
        data = line.encode("utf-8", "replace")
        if self._size and self._size + len(data) > self._bytes_max:
            self._begin_anew()
        self._size += self._file.write(data) or 0
        return len(line)

    def _begin_anew(self) -> None:
        """Rename first, so that a failure leaves the present file open and whole."""
        self._path.replace(self._path.with_name(self._path.name + OLD_SUFFIX))
        full, self._file = self._file, self._open()
        self._size = 0
        full.close()

    def _open(self) -> io.FileIO:
        return self._path.open("ab", buffering=0)

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
