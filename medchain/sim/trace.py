"""The trace: a running digest of everything that happened, and its text when somebody wants to read it.

Two runs of one seed must give one digest, in any process and under any PYTHONHASHSEED: that is how the simulator's own determinism is
tested (house.md, "Determinism is itself tested"). Knows no meaning of what it records.
"""

from __future__ import annotations

import hashlib
from typing import Final

LINES_MAX: Final = 2_000_000
"""Lines of text kept at most: a run that long is no run to read."""


class Trace:
    """Records one line a happening; only the digest is kept unless `is_text_kept`."""

    __slots__ = ("_hash", "_is_text_kept", "lines")

    def __init__(self, is_text_kept: bool = False) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._is_text_kept = is_text_kept
        self.lines: list[str] = []

    def note(self, time_us: int, line: str, data: bytes = b"") -> None:
        """Record that `line` happened at `time_us`; `data` (a message, a batch) goes into the digest only."""
        self._hash.update(b"%d %s\n%s" % (time_us, line.encode(), data))
        if self._is_text_kept and len(self.lines) < LINES_MAX:
            self.lines.append(f"{time_us / 1000:12.3f}  {line}")

    def digest(self) -> str:
        """Return the digest of everything so far, as text."""
        return self._hash.hexdigest()
