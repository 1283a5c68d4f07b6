"""`medchain sim`: whole networks in the deterministic simulator, by seed.

Here are the processes, the clock and the progress bar; the worlds themselves are pure.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from typing import Any, Final

from medchain.cli import explore, output
from medchain.errors import Rejected
from medchain.sim.faults import NODES_MAX, NODES_MIN
from medchain.sim.report import SeedReport, Summary, describe, describe_seed
from medchain.sim.run import SeedOptions, run_seed

REFUSALS: Final[dict[str, str]] = {
    "cli.sim-range": "A number given to the simulator is outside what it can do; the sentence names the range.",
}

SEEDS_DEFAULT: Final = 100
SEEDS_MAX: Final = 10_000_000
JOBS_MAX: Final = 256
REDRAW_SECONDS: Final = 0.2
BAR_CELLS: Final = 24


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    run_parser = verbs.add_parser(
        "run",
        help="run seeds and judge them",
        description="Run simulated networks: every seed is one whole history of faults, clients and agreement, always the same. "
        "Exit code 4 when a promise was broken; the line to run that seed again is printed.",
    )
    which = run_parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=int, help="run this one seed and tell everything about it")
    which.add_argument("--seeds", type=int, default=SEEDS_DEFAULT, help=f"run so many seeds (default {SEEDS_DEFAULT})")
    run_parser.add_argument("--start", type=int, default=0, help="the first of the seeds (default 0)")
    run_parser.add_argument("--nodes", type=int, help=f"hospitals in every world (default: each seed decides, {NODES_MIN} to {NODES_MAX})")
    run_parser.add_argument("--liars", action="store_true", help="let some hospitals of every world lie (default: each seed decides)")
    run_parser.add_argument("--jobs", type=int, default=0, help="processes (default: one a core)")
    run_parser.add_argument("--trace", action="store_true", help="with --seed: print everything that happened")
    run_parser.add_argument("--keep-going", action="store_true", help="go on after a violation (default: stop at the first)")
    explore.configure(
        verbs.add_parser(
            "explore",
            help="explore agreement exhaustively within bounds",
            description="Explore every history of agreement on one height among four nodes within the bounds: real replicas, any order, "
            "loss and repetition of messages, a timer or a crash at any moment, a liar that says anything. Exit code 4 when a promise "
            "was broken; the shortest story that breaks it is told.",
        )
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen verb; return its exit code."""
    if arguments.verb == "explore":
        return explore.run(arguments)
    _check_range("--nodes", arguments.nodes, 4, 10)
    _check_range("--seeds", arguments.seeds, 1, SEEDS_MAX)
    _check_range("--jobs", arguments.jobs, 0, JOBS_MAX)
    if arguments.seed is not None:
        return _run_one(arguments)
    return _run_many(arguments)


def _check_range(name: str, value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise Rejected("cli.sim-range", f"{name} must be from {low} to {high}, not {value}")


def _run_one(arguments: argparse.Namespace) -> int:
    options = SeedOptions(nodes=arguments.nodes, is_text_kept=arguments.trace, has_liars=True if arguments.liars else None)
    report = run_seed(arguments.seed, options)
    lines = [*report.trace, *describe_seed(report)]
    output.answer(arguments, {**_as_value(report), "trace": list(report.trace)}, lines)
    return output.LOCAL_FAULT if report.violations else output.DONE


def _run_many(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    summary = Summary()
    bar = _SeedBar(arguments.seeds, is_shown=not output.is_json(arguments))
    cpu_seconds = 0.0
    for report, cost in _reports(arguments):
        summary.add(report)
        cpu_seconds += cost
        bar.show(summary)
        if report.violations:
            bar.clear()
            output.say(f"VIOLATION in seed {report.seed}: {report.violations[0]}\n  replay: {report.replay}")
            if not arguments.keep_going:
                break
    bar.clear()
    seconds = time.monotonic() - started
    value = {**asdict(summary), "failures": [_as_value(report) for report in summary.failures], "seconds": round(seconds, 3)}
    value["cpu_seconds"] = round(cpu_seconds, 3)
    output.answer(arguments, value, describe(summary, seconds, cpu_seconds))
    return output.LOCAL_FAULT if summary.failures else output.DONE


def _timed_seed(seed: int, options: SeedOptions) -> tuple[SeedReport, float]:
    """Run a seed; return its report and the seconds of CPU time it took, which a busy machine changes less than the time on the wall."""
    started = time.process_time()
    report = run_seed(seed, options)
    return report, time.process_time() - started


def _reports(arguments: argparse.Namespace) -> Iterator[tuple[SeedReport, float]]:
    """Yield reports and their cost as they come, from one process or many."""
    options = SeedOptions(nodes=arguments.nodes, has_liars=True if arguments.liars else None)
    seeds = range(arguments.start, arguments.start + arguments.seeds)
    jobs = min(arguments.jobs or _cores(), len(seeds))
    if jobs <= 1:
        for seed in seeds:
            yield _timed_seed(seed, options)
        return
    with ProcessPoolExecutor(jobs) as pool:
        waiting = iter(seeds)
        running: set[Future[tuple[SeedReport, float]]] = set()
        try:
            while True:
                while len(running) < 2 * jobs:
                    upcoming = next(waiting, None)
                    if upcoming is None:
                        break
                    running.add(pool.submit(_timed_seed, upcoming, options))
                if not running:
                    return
                done = next(as_completed(running))
                running.discard(done)
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _as_value(report: SeedReport) -> dict[str, Any]:
    plain = asdict(replace(report, trace=()))
    plain["is_counted"] = report.is_counted
    return plain


class _SeedBar:
    """Draws how far the seeds are, on a terminal only."""

    def __init__(self, total: int, *, is_shown: bool) -> None:
        self._total = total
        self._is_shown = is_shown and sys.stderr.isatty()
        self._started = time.monotonic()
        self._drawn_at = 0.0

    def show(self, summary: Summary) -> None:
        """Draw, a few times a second."""
        now = time.monotonic()
        if not self._is_shown or now - self._drawn_at < REDRAW_SECONDS:
            return
        self._drawn_at = now
        cells = BAR_CELLS * summary.seeds // self._total
        speed = summary.seeds / max(now - self._started, 0.001)
        bar = "#" * cells + "." * (BAR_CELLS - cells)
        sys.stderr.write(f"\r[{bar}] {summary.seeds}/{self._total} seeds, {speed:.1f}/s, {len(summary.failures)} violations ")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the bar away."""
        if self._is_shown and self._drawn_at:
            sys.stderr.write("\r" + " " * 100 + "\r")
            sys.stderr.flush()
