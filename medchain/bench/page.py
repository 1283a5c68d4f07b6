"""The page of faults: rows as a table, with the machine, the commit, the day and how to read it. Knows how rows look, not how they came.

The page is generated: whoever wants other figures runs the command on another machine, not an editor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from medchain.bench.facts import Facts
from medchain.bench.rows import Row, Size
from medchain.bench.session import Rate, percentile

PAGE_COMMAND: Final = "scripts/bench faults --page medchain/bench/FAULTS.md"


@dataclass(frozen=True, slots=True)
class Measurement:
    """All rows of one run."""

    facts: Facts
    size: Size
    hospitals: int
    rate: float
    rows: tuple[Row, ...]

    @property
    def are_targets_met(self) -> bool:
        """Whether everything held that must."""
        return all(target.is_met for row in self.rows for target in row.targets)

    def to_value(self) -> dict[str, Any]:
        """Return the JSON form, every sample included."""
        return {
            "facts": asdict(self.facts),
            "size": asdict(self.size),
            "hospitals": self.hospitals,
            "paced_rate": self.rate,
            "are_targets_met": self.are_targets_met,
            "rows": [row.to_value() for row in self.rows],
        }

    def summary(self) -> list[str]:
        """Return the table as a terminal shows it, then what was missed."""
        cells = [list(_HEAD), *(_cells(row) for row in self.rows)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
        missed = [f"MISSED: {row.title}: {target.text}" for row in self.rows for target in row.targets if not target.is_met]
        return [*lines, "", *(missed or ["Everything held that must."])]

    def page(self) -> str:
        """Return the page, Markdown."""
        facts = self.facts
        commit = f" at commit {facts.commit}" if facts.commit else ""
        table = "\n".join(_markdown(line) for line in (_HEAD, ("---",) * len(_HEAD), *(_cells(row) for row in self.rows)))
        targets = "\n".join(f"- {line}" for line in _targets(self.rows))
        return _PAGE.format(
            command=PAGE_COMMAND,
            version=facts.version,
            commit=commit,
            facts=facts,
            warning=_BUSY.format(facts=facts) if facts.load_before > facts.cores / 2 else "",
            hospitals=self.hospitals,
            rate=self.rate,
            size=self.size,
            table=table,
            targets=targets,
        )


_HEAD: Final = (
    "Fault", "Times", "Healthy tx/s", "Under it tx/s", "Ratio", "Longest wait for a block: p50 / p99 / max ms",
    "All equal after: p50 / max ms", "CPU us/tx healthy / under it", "Accepted", "Lost", "Doubled",
)  # fmt: skip


def _cells(row: Row) -> list[str]:
    checked = row.checked
    return [
        row.title + (" ¹" if row.is_paced else ""),
        str(row.repetitions),
        _number(row.healthy.per_second if row.healthy else math.nan),
        _number(row.under.per_second if row.under else math.nan),
        _ratios(row),
        _percentiles(row.next_block_ms, (0.5, 0.99, 1.0)),
        _percentiles(row.equal_ms, (0.5, 1.0)),
        f"{_cpu(row.healthy)} / {_cpu(row.under)}",
        "" if checked is None else str(checked.accepted),
        "" if checked is None else str(checked.lost),
        "" if checked is None else str(checked.doubled),
    ]


def brief(row: Row) -> str:
    """Return a row in one line, for whoever watches."""
    parts = []
    if row.healthy is not None and row.under is not None:
        parts.append(f"{row.healthy.per_second:.0f} -> {row.under.per_second:.0f} tx/s")
    if row.next_block_ms:
        parts.append(f"next block within {max(row.next_block_ms):.0f} ms")
    if row.equal_ms:
        parts.append(f"all equal within {max(row.equal_ms):.0f} ms")
    missed = [target.text for target in row.targets if not target.is_met]
    return ", ".join(parts) + (f"; MISSED: {', '.join(missed)}" if missed else "")


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0f}"


def _ratios(row: Row) -> str:
    if math.isnan(row.ratio):
        return ""
    return f"{row.ratio:.0%}" + ("" if math.isnan(row.ratio_at_first) else f" (at first {row.ratio_at_first:.0%})")


def _cpu(rate: Rate | None) -> str:
    return "–" if rate is None or not rate.cpu_us else f"{rate.cpu_us:.0f}"


def _percentiles(samples: Sequence[float], shares: Iterable[float]) -> str:
    return " / ".join(f"{percentile(samples, share):.0f}" for share in shares) if samples else ""


def _markdown(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _targets(rows: Iterable[Row]) -> list[str]:
    """Return each thing that must hold, with the faults under which it was asked and how many missed it."""
    asked: dict[str, list[tuple[str, bool]]] = {}
    for row in rows:
        for target in row.targets:
            asked.setdefault(target.text, []).append((row.title, target.is_met))
    lines = []
    for text, results in asked.items():
        missed = [title for title, is_met in results if not is_met]
        verdict = f"held under {len(results)} of {len(results)} faults" if not missed else "MISSED under: " + "; ".join(missed)
        lines.append(f"{text}: {verdict}")
    return lines


_BUSY: Final = """
**The machine was busy with other things** (load {facts.load_before} on {facts.cores} cores): the times below are several times longer than
on a quiet one and ratios drift. Run the command again when nothing else runs.
"""

_PAGE: Final = """# Under faults

How fast a network of {hospitals} hospitals works, and how soon it goes on, while something is broken. Written by

    {command}

on {facts.measured_at}, medchain {version}{commit}, {facts.machine}, {facts.cores} cores, {facts.system}, Python {facts.python}; load of
the machine in the minute before: {facts.load_before}.
{warning}
{table}

¹ at {rate:.0f} transactions a second; all others with as many as the network takes.

What must hold:

{targets}

## How to read it
- **Everything is real**: {hospitals} processes as `medchain node start` makes them, LevelDB with a synced write a block, mutual TLS, and
  the load in a process of its own, all on the cores above. A killed hospital gets SIGKILL, one that stands still SIGSTOP, lines are cut in
  TCP relays between the nodes, a full disk is the system's refusal to let a file grow, a liar is the simulator's, around the real engine.
- **One transaction** registers a patient: two signatures that every node verifies. They are handed in 64 at a time.
- **Ratio**: rate under the fault by the rate of the same network just before ({size.window_s:.0f} s each; for liars
  {size.liar_window_s:.0f} s each, since a turn that one wastes costs a second or two and comes only every few hundred blocks). Where a
  hospital was dead or replaced it is the mean of just before and of after its return, because a young network slows down by about a tenth
  in its first minute, while its state grows from nothing, with or without a fault. Machines
  drift by 15 to 20 %: the first row, which has no fault, says by how much here. Where processors are the limit, a dead hospital leaves its
  share of them to the others, so a ratio above 100 % is no miracle. Under repeated blows it is the mean over all repetitions, starts of
  processes included. Steady rates begin when every hospital's turn as primary has passed four times, under a liar {size.liar_rounds} times
  (or {size.liar_settle_s:.0f} s): the rotation bars whoever wastes a turn, each time for twice as long. The mean until then is the ratio
  "at first".
- **Longest wait for a block**: from each blow on, until every hospital has had its turn as primary once more (in the storm: until the next
  block), the longest time without a new block as one of the surviving hospitals shows it, to 10 ms: what a client would have waited at
  worst. p99 of fewer than a hundred samples is their greatest.
- **All equal after**: from the end of the fault (for killed hospitals: from the command that starts them) until *all* hospitals have
  decided the same block above everything that was decided before.
- **CPU us/tx**: processor time of the running nodes, a transaction and node. It includes the watch's hundred questions a second at one.
- **Lost, doubled**: of everything that was answered with *accepted*, what the chain does not hold at the end, and what it holds twice.
"""
