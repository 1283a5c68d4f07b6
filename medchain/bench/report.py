"""Results as one page to read: what was to be reached and was, curves with their explanations, where processor time goes, every case.

The page is one HTML file without scripts and without anything to fetch; everything that comes out of a result is escaped. It holds the same
bytes for the same results: what it says of time, the results say. Knows results, not how they were measured.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from medchain.bench import figures, table
from medchain.bench.plots import Line, Plots, Point
from medchain.bench.results import CLUSTER, HIGHER, LOWER, Case, Curve, Measure, Result

CPU_PARTS: Final = {
    "cpu_verify": "verify",
    "cpu_execute": "execute",
    "cpu_state": "state tree",
    "cpu_leveldb": "LevelDB",
    "cpu_network": "network",
    "cpu_consensus": "consensus",
    "cpu_rest": "rest",
}
"""Measures of a cluster's case: microseconds of processor time, a transaction and node."""
PERCENTILES: Final = {"latency_p50": "p50", "latency_p95": "p95", "latency_p99": "p99", "latency_max": "max"}
"""Measures of a cluster's case: milliseconds from handing in to decision."""
BETTER: Final = {HIGHER: "higher", LOWER: "lower"}
SERIES: Final = "series"
"""The setting that names the line of a curve a case belongs to."""
ALT_POINTS_MAX: Final = 40
"""Of one plot, told in its alternative text; the tables have all."""


@dataclass(frozen=True, slots=True)
class Named:
    """A result and what it is called on the page: its kind, with a number and the commit where there are several."""

    name: str
    result: Result


def page(results: Sequence[Result]) -> str:
    """Return the page. Raises Rejected `bench.no-plots` when plots cannot be drawn."""
    plots = Plots()
    named = [Named(_name(results, number), result) for number, result in enumerate(results)]
    sections = [
        ("reached", "What was to be reached", _reached(named)),
        ("growth", "Costs that grow", "".join(_curves(named, plots))),
        ("cpu", "Where processor time goes", "".join(_stacks(named, plots))),
        ("latency", "How long a transaction takes", "".join(_spans(named, plots))),
        ("facts", "What was measured, and on what", _facts(named)),
        ("cases", "Everything measured", "".join(_cases(named))),
    ]
    shown = [(key, title, content) for key, title, content in sections if content]
    contents = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in shown)
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>{content}</section>'
        for key, title, content in shown
    )
    return _PAGE.format(style=_CSS, lead="".join(_lead(named)), contents=contents, body=body)


def _name(results: Sequence[Result], number: int) -> str:
    result = results[number]
    alike = [index for index, other in enumerate(results) if other.kind == result.kind]
    if len(alike) == 1:
        return result.kind
    return f"{result.kind} {alike.index(number) + 1}" + (f" ({result.facts.commit})" if result.facts.commit else "")


def _lead(named: Sequence[Named]) -> Iterator[str]:
    """Yield what a reader must know before any figure."""
    for one in named:
        facts = one.result.facts
        commit = f" at commit {facts.commit}" if facts.commit else ""
        yield _paragraph(
            f"{one.name}: medchain {facts.version}{commit}, measured on {facts.measured_at}, {facts.machine}, {facts.cores} cores, "
            f"Python {facts.python}."
        )
        if facts.load_before > facts.cores / 2:
            busy = f"the machine was busy with other things (load {facts.load_before} on {facts.cores} cores)"
            yield _paragraph(f"{one.name}: {busy}; times are longer than on a quiet one.", "warning")
        if facts.commit.endswith("+"):
            yield _paragraph(f"{one.name}: the program held changes that are not committed.", "warning")


# ---- what was to be reached ----------------------------------------------------------------------------------------------------


def _reached(named: Sequence[Named]) -> str:
    rows, states = [], []
    for one in named:
        for case in one.result.cases:
            for target, measure in table.targets(case):
                must, goal = case.is_met(target, target.must), target.goal is not None and case.is_met(target, target.goal)
                states.append((must, goal, target.goal is not None))
                word, style = ("goal reached", "good") if must and goal else ("reached", "good") if must else ("MISSED", "bad")
                if must and target.goal is not None and not goal:
                    word = "must reached, goal not"
                cells = [
                    _cell(table.bound(measure, target.must)),
                    _cell("–" if target.goal is None else table.bound(measure, target.goal)),
                    _cell(_quoted(measure), "number"),
                    _cell(word, style),
                ]
                what = f"{_text(case.title)} <small>{_text(one.name)}, {_text(case.name)}: {_text(_words(target.measure))}</small>"
                rows.append(f'<tr><th scope="row">{what}</th>{"".join(cells)}</tr>')
    if not rows:
        return _paragraph("No target was set for what was measured.")
    musts, goals, wanted = (sum(state[place] for state in states) for place in range(3))
    said = f"{musts} of {len(states)} targets that must be reached are, and {goals} of {wanted} goals."
    head = ("What", "Must be", "Goal", "Measured", "Reached")
    return _paragraph(said) + _table("Targets", head, [rows])


def _quoted(measure: Measure) -> str:
    """Return a median with how far samples lie apart."""
    text = figures.quantity(measure.median, measure.unit)
    return text + (f" ±{figures.share(measure.spread)}" if len(measure.samples) > 1 else "")


# ---- curves --------------------------------------------------------------------------------------------------------------------


def _curves(named: Sequence[Named], plots: Plots) -> Iterator[str]:
    """Yield each curve once, with a line for each series of each result that has it."""
    first: dict[str, Curve] = {}
    for one in named:
        for curve in one.result.curves:
            first.setdefault(curve.name, curve)
    for name, curve in first.items():
        lines, units = [], []
        owners = [one for one in named if any(other.name == name for other in one.result.curves)]
        for one in owners:
            for series, cases in _series(one.result, curve).items():
                label = " ".join(part for part in (one.name if len(owners) > 1 else "", series) if part) or curve.title
                lines.append(Line(label, tuple(_point(case, curve.measure) for case in cases)))
                units += [case.measures[curve.measure].unit for case in cases]
        if not lines:
            continue
        y_label = f"{_words(curve.measure)} ({units[0]})"
        alt = f"{curve.title}. {y_label} over {curve.x_label}: {_told(lines)}"
        drawn = plots.curve(lines, x_label=curve.x_label, y_label=y_label, is_log_x=curve.is_log_x, alt=alt)
        texts = {other.explanation: one.name for one in owners for other in one.result.curves if other.name == name}
        said = [text if len(texts) == 1 else f"{owner}: {text}" for text, owner in texts.items()]
        yield f"<h3>{_text(curve.title)}</h3>{_figure(drawn, said)}"


def _series(result: Result, curve: Curve) -> dict[str, list[Case]]:
    """Return the points of a curve by the line they belong to, each in the order of x."""
    found: dict[str, list[Case]] = {}
    for case in sorted(result.cases, key=lambda case: case.x):
        if case.curve == curve.name and curve.measure in case.measures:
            found.setdefault(str(case.settings.get(SERIES, "")), []).append(case)
    return found


def _point(case: Case, name: str) -> Point:
    measure = case.measures[name]
    return Point(case.x, min(measure.samples), measure.median, max(measure.samples))


def _told(lines: Sequence[Line]) -> str:
    """Return the points of a plot in words."""
    parts = []
    for line in lines:
        points = ", ".join(f"{figures.number(point.middle)} at {figures.number(point.x)}" for point in line.points[:ALT_POINTS_MAX])
        parts.append(f"{line.label}: {points}" if len(lines) > 1 else points)
    return "; ".join(parts)


# ---- processor time and latency --------------------------------------------------------------------------------------------------


def _stacks(named: Sequence[Named], plots: Plots) -> Iterator[str]:
    for one, cases in _clusters(named, CPU_PARTS):
        parts = {title: _medians(cases, name) for name, title in CPU_PARTS.items()}
        said = _told_bars(cases, parts)
        alt = f"Processor time a transaction and node in microseconds, {one.name}. {said}"
        drawn = plots.stack([case.name for case in cases], parts, x_label="microseconds a transaction and node", alt=alt)
        text = (
            "Processor time of one node for one transaction, by what it was spent on; the number is the sum of what is drawn. "
            "It drifts less with the machine than rates do."
        )
        yield _headed(named, one) + _figure(drawn, [text])


def _spans(named: Sequence[Named], plots: Plots) -> Iterator[str]:
    for one, cases in _clusters(named, PERCENTILES):
        marks = {title: _medians(cases, name) for name, title in PERCENTILES.items()}
        alt = f"Latency in milliseconds, {one.name}. {_told_bars(cases, marks)}"
        drawn = plots.spans([case.name for case in cases], marks, x_label="milliseconds from handing in to decision (logarithmic)", alt=alt)
        text = (
            "From when a transaction was due until its client knew the decision. Under a closed load, where as many as go are always under "
            "way, it says how long the queue is; what a ward feels is the case of half the load."
        )
        yield _headed(named, one) + _figure(drawn, [text])


def _clusters(named: Sequence[Named], names: dict[str, str]) -> Iterator[tuple[Named, list[Case]]]:
    """Yield each result of real networks with its cases that have at least two of the measures."""
    for one in named:
        cases = [case for case in one.result.cases if sum(name in case.measures for name in names) > 1]
        if one.result.kind == CLUSTER and cases:
            yield one, cases


def _medians(cases: Sequence[Case], name: str) -> list[float]:
    return [case.measures[name].median if name in case.measures else math.nan for case in cases]


def _told_bars(cases: Sequence[Case], parts: dict[str, list[float]]) -> str:
    told = []
    for row, case in enumerate(cases[:ALT_POINTS_MAX]):
        values = ", ".join(f"{name} {figures.number(values[row])}" for name, values in parts.items() if math.isfinite(values[row]))
        told.append(f"{case.name}: {values}")
    return "; ".join(told)


def _headed(named: Sequence[Named], one: Named) -> str:
    return f"<h3>{_text(one.name)}</h3>" if sum(other.result.kind == CLUSTER for other in named) > 1 else ""


def _figure(drawn: str, said: Sequence[str]) -> str:
    return f"<figure>{drawn}<figcaption>{''.join(map(_paragraph, said))}</figcaption></figure>"


# ---- facts and cases -----------------------------------------------------------------------------------------------------------


def _facts(named: Sequence[Named]) -> str:
    rows = [
        ("measured on", [one.result.facts.measured_at for one in named]),
        ("medchain", [one.result.facts.version for one in named]),
        ("commit", [one.result.facts.commit or "not known" for one in named]),
        ("machine", [one.result.facts.machine for one in named]),
        ("cores", [str(one.result.facts.cores) for one in named]),
        ("load in the minute before", [figures.number(one.result.facts.load_before) for one in named]),
        ("Python", [one.result.facts.python for one in named]),
        ("system", [one.result.facts.system for one in named]),
        ("cases", [str(len(one.result.cases)) for one in named]),
    ]
    lines = [f'<tr><th scope="row">{title}</th>{"".join(map(_cell, cells))}</tr>' for title, cells in rows]
    return _table("What figures depend on", ("", *(one.name for one in named)), [lines])


def _cases(named: Sequence[Named]) -> Iterator[str]:
    """Yield a table for each group of cases: those whose names begin with the same word."""
    for one in named:
        groups: dict[str, list[Case]] = {}
        for case in one.result.cases:
            groups.setdefault(case.name.partition("-")[0], []).append(case)
        for name, cases in groups.items():
            title = f"{one.name}: {name}"
            head = ("Case", "Measure", "Median", "Least to greatest", "Samples", "Better")
            yield f"<h3>{_text(title)}</h3>" + _table(title, head, [list(_case_rows(case)) for case in cases])


def _case_rows(case: Case) -> Iterator[str]:
    settings = ", ".join(f"{name} {value}" for name, value in case.settings.items())
    details = "; ".join(part for part in (case.name, settings) if part)
    head = f'<th scope="rowgroup" rowspan="{len(case.measures)}">{_text(case.title)} <small>{_text(details)}</small></th>'
    for name, measure in case.measures.items():
        ends = f"{figures.number(min(measure.samples))} to {figures.number(max(measure.samples))}" if len(measure.samples) > 1 else "–"
        cells = [
            _cell(_words(name)), _cell(figures.quantity(measure.median, measure.unit), "number"), _cell(ends, "number"),
            _cell(str(len(measure.samples)), "number"), _cell(BETTER.get(measure.better, "–")),
        ]  # fmt: skip
        yield f"<tr>{head}{''.join(cells)}</tr>"
        head = ""


# ---- pieces of a page ----------------------------------------------------------------------------------------------------------


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(text: str) -> str:
    """Return text of a result as it may stand in a page, in an attribute too; what no page may hold becomes a space."""
    return html.escape(figures.plain(text))


def _paragraph(text: str, style: str = "") -> str:
    return f'<p class="{style}">{_text(text)}</p>' if style else f"<p>{_text(text)}</p>"


def _cell(text: str, style: str = "") -> str:
    return f'<td class="{style}">{_text(text)}</td>' if style else f"<td>{_text(text)}</td>"


def _table(caption: str, head: Sequence[str], groups: Sequence[Sequence[str]]) -> str:
    """Return a table; rows of a group belong together."""
    cells = "".join(f'<th scope="col">{_text(title)}</th>' if title else "<td></td>" for title in head)
    bodies = "".join(f"<tbody>{''.join(rows)}</tbody>" for rows in groups if rows)
    return f"<table><caption>{_text(caption)}</caption><thead><tr>{cells}</tr></thead>{bodies}</table>"


_CSS: Final = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem; margin: auto; padding: 1rem 1.5rem; }
h1, h2, h3 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-bottom: 2px solid #0072b2; padding-bottom: .2rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: .9rem; }
caption { text-align: left; color: #555; padding-bottom: .3rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ddd; overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid #888; }
tbody th { font-weight: normal; }
small { display: block; color: #555; }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.good { color: #00614a; font-weight: 600; }
.bad { color: #a30000; font-weight: 700; }
.warning { border-left: 4px solid #d55e00; padding-left: .8rem; font-weight: 600; }
figure { margin: 1rem 0; }
figure svg { max-width: 100%; height: auto; }
figure svg text { font-family: "DejaVu Sans", Verdana, sans-serif !important; }
figcaption p { margin: .3rem 0; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  thead { display: table-header-group; }
}
"""

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>medchain: figures</title>
<style>{style}</style>
</head>
<body>
<header><h1>medchain: figures</h1>{lead}</header>
<nav aria-label="Contents"><ul>{contents}</ul></nav>
<main>
{body}
</main>
</body>
</html>
"""
