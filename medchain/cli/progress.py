"""A progress bar for long work: on a terminal only, on standard error, redrawn a few times a second.

`Progress` is called with the bytes done so far, as the callbacks of the SDK and of sealed streams do. It never fails the work it shows.
"""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType
from typing import Final, TextIO

REDRAW_SECONDS: Final = 0.1
SPEED_AFTER_SECONDS: Final = 0.25
"""Before it, a speed would be that of the first piece alone."""
BAR_CELLS: Final = 24
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def amount(count: float) -> str:
    """Return a number of bytes as people read it, in steps of a thousand: `1.2 GB`."""
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f}"


class Progress:
    """Shows how far a piece of work is. A context manager; call it with the bytes done so far.

    `total` in bytes, 0 when unknown. Nothing is drawn when `stream` (standard error by default) is no terminal or `is_shown` is False.
    """

    def __init__(self, label: str, total: int, *, stream: TextIO | None = None, is_shown: bool = True) -> None:
        self._label = label
        self._total = total
        self._stream = stream if stream is not None else sys.stderr
        self._is_shown = is_shown and self._stream.isatty()
        self._started = time.monotonic()
        self._drawn_at = 0.0
        self._done = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._is_shown and self._drawn_at:
            self._draw()
            self._write("\n")

    def __call__(self, done: int) -> None:
        """Take over the bytes done so far."""
        self._done = done
        now = time.monotonic()
        if self._is_shown and (now - self._drawn_at >= REDRAW_SECONDS or done == self._total):
            self._drawn_at = now
            self._draw()

    def line(self) -> str:
        """Return the line as it would be drawn now."""
        elapsed = time.monotonic() - self._started
        speed = f"{amount(self._done / elapsed)}/s" if elapsed >= SPEED_AFTER_SECONDS else ""
        if self._total <= 0:
            return f"{self._label} {amount(self._done)} {speed}"
        share = min(self._done / self._total, 1.0)
        cells = int(share * BAR_CELLS)
        bar = "#" * cells + "." * (BAR_CELLS - cells)
        return f"{self._label} [{bar}] {share:4.0%} {amount(self._done)} of {amount(self._total)} {speed}"

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns - 1
        self._write("\r" + self.line()[:width].ljust(width))

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._is_shown = False  # the terminal went away; the work goes on
