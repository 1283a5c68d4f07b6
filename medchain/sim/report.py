"""Reports: what one seed was, what many seeds contained, and both in words. Knows no world."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from medchain.sim.node import Violation

HEIGHTS_MIN: Final = 20
"""A seed counts only if it saw so many heights, a crash and a partition (lessons.md)."""
ADDED_UP: Final = (
    "heights", "view_changes", "submitted", "batches", "batched", "accepted", "decided", "batched_decided", "batches_split", "expired",
    "virtual_ms",
)  # fmt: skip
"""Numbers of a seed of which a summary has the sum."""


@dataclass(frozen=True, slots=True)
class SeedReport:
    """What one seed was."""

    seed: int
    nodes: int
    violations: tuple[Violation, ...]
    heights: int
    crashes: dict[str, int]
    """By durability point."""
    partitions: dict[str, int]
    """By shape."""
    faults: dict[str, int]
    """Everything else that went wrong on purpose."""
    liars: dict[str, int]
    """By kind; one that is two kinds counts for both."""
    lost: dict[str, int]
    """Messages that never arrived or were held, by kind."""
    view_changes: int
    highest_view: int
    submitted: int
    batches: int
    """Signatures of clients over several transactions."""
    batched: int
    """Of those submitted, transactions that share a signature with others."""
    accepted: int
    decided: int
    batched_decided: int
    """Of the decided, transactions that share a signature with others."""
    batches_split: int
    """Batches that ended in more than one block."""
    expired: int
    refusals: dict[str, int]
    recovery_ms: int
    """Virtual time from healing until every node had decided something new."""
    virtual_ms: int
    turns: int
    messages: int
    bytes_sent: int
    alarms: dict[str, int]
    accusations: dict[str, int]
    """Liars named by honest nodes, by reason."""
    digest: str
    """Of the trace."""
    replay: str
    """The command that runs exactly this again."""
    trace: tuple[str, ...] = ()

    @property
    def is_counted(self) -> bool:
        """Whether the seed contained enough to say anything."""
        return self.heights >= HEIGHTS_MIN and bool(self.crashes) and bool(self.partitions)


@dataclass(slots=True)
class Summary:
    """What many seeds contained."""

    seeds: int = 0
    counted: int = 0
    not_counted: list[int] = field(default_factory=list)
    failures: list[SeedReport] = field(default_factory=list)
    nodes: dict[int, int] = field(default_factory=dict)
    crashes: dict[str, int] = field(default_factory=dict)
    partitions: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    liars: dict[str, int] = field(default_factory=dict)
    seeds_with_liars: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    alarms: dict[str, int] = field(default_factory=dict)
    accusations: dict[str, int] = field(default_factory=dict)
    heights: int = 0
    view_changes: int = 0
    seeds_with_view_change: int = 0
    highest_view: int = 0
    submitted: int = 0
    batches: int = 0
    batched: int = 0
    seeds_with_batches: int = 0
    accepted: int = 0
    decided: int = 0
    batched_decided: int = 0
    batches_split: int = 0
    expired: int = 0
    recovery_ms_max: int = 0
    recovery_ms_total: int = 0
    virtual_ms: int = 0

    def add(self, report: SeedReport) -> None:
        """Count one seed."""
        self.seeds += 1
        if report.violations:
            self.failures.append(report)
        elif report.is_counted:
            self.counted += 1
        else:
            self.not_counted.append(report.seed)
        self.nodes[report.nodes] = self.nodes.get(report.nodes, 0) + 1
        for name in ("crashes", "partitions", "faults", "liars", "lost", "refusals", "alarms", "accusations"):
            total: dict[str, int] = getattr(self, name)
            for key, count in getattr(report, name).items():
                total[key] = total.get(key, 0) + count
        for name in ADDED_UP:
            setattr(self, name, getattr(self, name) + getattr(report, name))
        self.seeds_with_liars += bool(report.liars)
        self.seeds_with_batches += bool(report.batches)
        self.seeds_with_view_change += bool(report.view_changes)
        self.highest_view = max(self.highest_view, report.highest_view)
        self.recovery_ms_max = max(self.recovery_ms_max, report.recovery_ms)
        self.recovery_ms_total += report.recovery_ms


def summarise(reports: Iterable[SeedReport]) -> Summary:
    """Count reports."""
    summary = Summary()
    for report in reports:
        summary.add(report)
    return summary


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in sorted(counts)) or "none"


def _batches(report: SeedReport | Summary) -> str:
    return (
        f"{report.batches} batches signed: {report.batched} transactions of them submitted, {report.batched_decided} decided, "
        f"{report.batches_split} batches in more than one block"
    )


def describe_seed(report: SeedReport) -> list[str]:
    """Return the lines that tell one seed to a person."""
    lines = [
        f"seed {report.seed}: {report.nodes} nodes, {report.heights} heights in {report.virtual_ms / 1000:.1f} virtual seconds, "
        f"trace {report.digest}",
        f"  crashes: {_counts(report.crashes)}",
        f"  partitions: {_counts(report.partitions)}",
        f"  other faults: {_counts(report.faults)}",
        f"  liars: {_counts(report.liars)}",
        f"  view changes {report.view_changes}, highest view {report.highest_view}, recovery {report.recovery_ms} ms after healing",
        f"  transactions: {report.submitted} submitted, {report.accepted} accepted, {report.decided} decided, {report.expired} expired; "
        f"refused: {_counts(report.refusals)}",
        f"  {_batches(report)}",
        f"  {report.turns} turns, {report.messages} messages, {report.bytes_sent} bytes; alarms: {_counts(report.alarms)}",
        f"  liars named for: {_counts(report.accusations)}",
    ]
    if not report.is_counted:
        lines.append(f"  not counted: needs {HEIGHTS_MIN} heights, a crash and a partition")
    lines += [f"  VIOLATION {violation}" for violation in report.violations]
    return lines


def describe(summary: Summary, seconds: float, cpu_seconds: float) -> list[str]:
    """Return the lines that tell a summary to a person; `seconds` is how long it took, `cpu_seconds` what the seeds took of all cores."""
    cost = cpu_seconds / max(summary.seeds, 1)
    lines = [
        f"{summary.seeds} seeds: {summary.counted} counted, {len(summary.not_counted)} not counted, {len(summary.failures)} with "
        f"violations; {summary.seeds / max(seconds, 0.001):.2f} seeds/s, {cost:.3f} CPU seconds a seed ({1 / max(cost, 0.001):.1f} seeds/s "
        "and core)",
        f"  nodes: {_counts({str(nodes): count for nodes, count in summary.nodes.items()})}",
        f"  heights {summary.heights}, {summary.virtual_ms / 1000:.0f} virtual seconds",
        f"  crashes by point: {_counts(summary.crashes)}",
        f"  partitions by shape: {_counts(summary.partitions)}",
        f"  other faults: {_counts(summary.faults)}",
        f"  liars in {summary.seeds_with_liars} seeds: {_counts(summary.liars)}",
        f"  messages lost or held, by kind: {_counts(summary.lost)}",
        f"  view changes {summary.view_changes} in {summary.seeds_with_view_change} seeds, highest view {summary.highest_view}",
        f"  transactions: {summary.submitted} submitted, {summary.accepted} accepted, {summary.decided} decided, {summary.expired} expired",
        f"  {_batches(summary)}; in {summary.seeds_with_batches} seeds",
        f"  refused: {_counts(summary.refusals)}",
        f"  alarms: {_counts(summary.alarms)}",
        f"  liars named for: {_counts(summary.accusations)}",
        f"  recovery after healing: mean {summary.recovery_ms_total // max(summary.seeds, 1)} ms, longest {summary.recovery_ms_max} ms",
    ]
    if summary.not_counted:
        lines.append("  not counted: seeds " + ", ".join(str(seed) for seed in summary.not_counted[:20]))
    for report in summary.failures:
        lines += [f"VIOLATION in seed {report.seed}: {report.violations[0]}", f"  replay: {report.replay}"]
    return lines
