"""Plots as SVG text to stand inside a page: curves, stacked bars, percentiles. Drawn by matplotlib, the same bytes for the same input.

matplotlib is an extra (`bench`), so it is loaded when something is drawn. Text stays text: a reader, a search and a screen reader find it.
Knows numbers and labels, no result.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from medchain.bench import figures
from medchain.errors import Rejected

REFUSALS: Final[dict[str, str]] = {
    "bench.no-plots": "The package that draws plots is not installed; the sentence says how to install it.",
}

LABEL_MAX: Final = 60
"""Characters of a label in a plot: more would leave no room for what it labels."""
BARS_MAX: Final = 60
"""Of one chart: more do not fit a page."""

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a7a7a", "#1a1a1a")
"""Told apart by the colour-blind too (M. Okabe and K. Ito, "Color universal design", 2008), with two greys for the yellow."""
MARKERS: Final = "osD^vPX*"
DASHES: Final = ("-", "--", "-.", ":")

_STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "medchain",
    "text.parse_math": False,  # labels come out of files: a dollar sign is one
    "axes.unicode_minus": False,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same layout on every machine
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}
_WIDTH_INCHES: Final = 7.6


@dataclass(frozen=True, slots=True)
class Point:
    """A median at a place of a curve, and the smallest and greatest sample."""

    x: float
    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True)
class Line:
    """Points that belong together, by x."""

    label: str
    points: tuple[Point, ...]


class Plots:
    """Draws the plots of one page: each has names of its own within it."""

    def __init__(self) -> None:
        """Raises Rejected `bench.no-plots` when matplotlib is not installed."""
        try:
            import matplotlib
            from matplotlib.figure import Figure
        except ImportError:
            raise Rejected(
                "bench.no-plots",
                "Plots are drawn with matplotlib, which is not installed: run `scripts/bench report`, which installs it, "
                "or `pip install 'medchain[bench]'`.",
            ) from None
        self._matplotlib: Any = matplotlib
        self._figure: Any = Figure
        self._count = 0

    def curve(self, lines: Sequence[Line], *, x_label: str, y_label: str, is_log_x: bool, alt: str) -> str:
        """Draw lines over something that grows; thin bars show from the smallest to the greatest sample."""
        with self._drawing(3.4) as (figure, axes, drawn):
            for number, line in enumerate(lines):
                points = [point for point in line.points if all(map(math.isfinite, (point.x, point.low, point.middle, point.high)))]
                axes.errorbar(
                    [point.x for point in points],
                    [point.middle for point in points],
                    yerr=[[point.middle - point.low for point in points], [point.high - point.middle for point in points]],
                    label=_label(line.label),
                    color=COLOURS[number % len(COLOURS)],
                    marker=MARKERS[number % len(MARKERS)],
                    linestyle=DASHES[number % len(DASHES)],
                    markersize=5,
                    capsize=3,
                    elinewidth=1,
                )
            if is_log_x:
                self._scale(axes, [point.x for line in lines for point in line.points])
            axes.set_ylim(bottom=0)
            axes.set_xlabel(_label(x_label))
            axes.set_ylabel(_label(y_label))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(lambda value, _: figures.number(value))
            if len(lines) > 1:
                axes.legend(frameon=False)
            drawn.append(self._svg(figure, alt))
        return drawn[0]

    def stack(self, labels: Sequence[str], parts: Mapping[str, Sequence[float]], *, x_label: str, alt: str) -> str:
        """Draw one bar for each label, made of parts; a part that is no number has no length."""
        rows = list(range(min(len(labels), BARS_MAX)))
        ends = [0.0 for _ in rows]
        with self._drawing(0.9 + 0.32 * len(rows)) as (figure, axes, drawn):
            for number, (name, values) in enumerate(parts.items()):
                widths = [max(0.0, values[row]) if math.isfinite(values[row]) else 0.0 for row in rows]
                axes.barh(rows, widths, left=ends, height=0.7, label=_label(name), color=COLOURS[number % len(COLOURS)])
                ends = [end + width for end, width in zip(ends, widths, strict=True)]
            for row in rows:
                axes.annotate(figures.number(ends[row]), (ends[row], row), (4, 0), textcoords="offset points", va="center")
            axes.set_xlim(0, 1.12 * max(ends, default=0.0) or 1.0)
            self._rows(axes, [labels[row] for row in rows])
            axes.set_xlabel(_label(x_label))
            figure.legend(loc="outside upper center", ncols=4, frameon=False)
            drawn.append(self._svg(figure, alt))
        return drawn[0]

    def spans(self, labels: Sequence[str], marks: Mapping[str, Sequence[float]], *, x_label: str, alt: str) -> str:
        """Draw for each label its marks on one line, from the least to the greatest; the scale is logarithmic."""
        rows = list(range(min(len(labels), BARS_MAX)))
        with self._drawing(0.9 + 0.32 * len(rows)) as (figure, axes, drawn):
            for row in rows:
                found = [values[row] for values in marks.values() if math.isfinite(values[row]) and values[row] > 0]
                if found:
                    axes.hlines(row, min(found), max(found), color="#999999", linewidth=1.5)
            for number, (name, values) in enumerate(marks.items()):
                places = [row for row in rows if math.isfinite(values[row]) and values[row] > 0]
                axes.plot(
                    [values[row] for row in places],
                    places,
                    linestyle="",
                    label=_label(name),
                    marker=MARKERS[number % len(MARKERS)],
                    color=COLOURS[number % len(COLOURS)],
                )
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: figures.number(value))
            axes.xaxis.set_minor_formatter(lambda value, _: figures.number(value) if f"{value:e}"[0] in "25" else "")
            self._rows(axes, [labels[row] for row in rows])
            axes.set_xlabel(_label(x_label))
            figure.legend(loc="outside upper center", ncols=4, frameon=False)
            drawn.append(self._svg(figure, alt))
        return drawn[0]

    @staticmethod
    def _scale(axes: Any, places: Sequence[float]) -> None:
        """Make the scale of x logarithmic; where curves begin at 0, linear up to the first place above it."""
        above = [place for place in places if place > 0]
        if above and min(places) == 0:
            axes.set_xscale("symlog", linthresh=min(above))
        elif len(above) == len(places):
            axes.set_xscale("log")

    @staticmethod
    def _rows(axes: Any, labels: Sequence[str]) -> None:
        axes.set_yticks(range(len(labels)), [_label(label) for label in labels])
        axes.set_ylim(len(labels) - 0.4, -0.6)  # the first on top
        axes.grid(visible=False, axis="y")

    @contextmanager
    def _drawing(self, height_inches: float) -> Iterator[tuple[Any, Any, list[str]]]:
        """Give a figure, its axes, and a place for what is drawn: the style holds until it is written."""
        with self._matplotlib.rc_context({**self._matplotlib.rcParamsDefault, **_STYLE, "backend": "svg"}):
            figure = self._figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
            yield figure, figure.subplots(), []

    def _svg(self, figure: Any, alt: str) -> str:
        """Return the figure as an element of a page, with the alternative text and with names that no other plot of the page has."""
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        self._count += 1
        text = stream.getvalue()
        text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
        text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>plot{self._count}-", text)
        return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(figures.plain(alt))}"', 1).strip()


def _label(text: str) -> str:
    """Return a text as it fits a plot: one line, no sign that cannot be drawn, not too long."""
    line = figures.plain(text)
    line = line if len(line) <= LABEL_MAX else line[: LABEL_MAX - 1] + "…"
    return f" {line}" if line.startswith("_") else line  # matplotlib hides what begins with an underscore
