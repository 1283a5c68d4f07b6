"""`medchain sim explore`: every short history of agreement among four real replicas, within bounds.

Here are the clock and the progress line; the search is pure (`medchain.sim.explore`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Final

from medchain.cli import output
from medchain.errors import Rejected
from medchain.sim.explore.recovery import Recovered, Recovery
from medchain.sim.explore.search import STATES_MAX_DEFAULT, Progress, Search
from medchain.sim.explore.story import describe_bounds, describe_result, describe_story
from medchain.sim.explore.universe import Bounds

REFUSALS: Final[dict[str, str]] = {
    "cli.explore-range": "A bound given to the explorer is outside what it can do; the sentence names the range.",
}

NODES: Final = 4
VIEWS_MAX: Final = 3
STATES_MAX: Final = 50_000_000
RECOVER_DEFAULT: Final = 1_000
RECOVER_MAX: Final = 10_000_000
REDRAW_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Recoveries:
    """What became of the states that were left alone with a working network."""

    states: int = 0
    slowest_ms: int = 0
    views: tuple[tuple[int, int], ...] = ()
    """(view of the certificate, states)."""
    failures: int = 0
    first_failure: tuple[int, ...] | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verb."""
    parser.add_argument("--views", type=int, default=1, help="the highest view an honest node enters (default 1; 2 takes half an hour)")
    parser.add_argument(
        "--liar",
        type=int,
        action="append",
        metavar="VIEW",
        help="let the leader of this view lie; may be repeated: with two of four, agreement breaks and is seen to break "
        "(default: one search for each place a liar can have)",
    )
    parser.add_argument("--no-liar", action="store_true", help="let nobody lie: crashes, losses and timers only")
    parser.add_argument("--states-max", type=int, default=STATES_MAX_DEFAULT, help=f"stop a search there (default {STATES_MAX_DEFAULT:,})")
    parser.add_argument(
        "--recover",
        type=int,
        default=RECOVER_DEFAULT,
        help=f"from so many states, evenly chosen, let the network work again and demand a decision (default {RECOVER_DEFAULT:,})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Search each configuration; return the exit code."""
    _check_range("--views", arguments.views, 0, VIEWS_MAX)
    _check_range("--states-max", arguments.states_max, 1, STATES_MAX)
    _check_range("--recover", arguments.recover, 0, RECOVER_MAX)
    lines: list[str] = []
    values: list[dict[str, Any]] = []
    is_sound = True
    for liars in _configurations(arguments):
        started = time.monotonic()
        search = Search(Bounds(arguments.views, NODES, liars), states_max=arguments.states_max)
        line = _ProgressLine(describe_bounds(search.result), is_shown=not output.is_json(arguments))
        for progress in search.run():
            line.show(progress)
        seconds = time.monotonic() - started
        recoveries = _recover(search, arguments.recover) if search.result.violation is None else Recoveries()
        line.clear()
        is_sound = is_sound and search.result.violation is None and recoveries.failures == 0
        lines += [*describe_result(search.universe, search.result), *_describe_rest(search, recoveries, seconds), ""]
        values.append(_as_value(search, recoveries, seconds))
    output.answer(arguments, {"searches": values}, lines[:-1])
    return output.DONE if is_sound else output.LOCAL_FAULT


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise Rejected("cli.explore-range", f"{name} must be from {low} to {high}, not {value}")


def _configurations(arguments: argparse.Namespace) -> list[tuple[int, ...]]:
    """Return who lies in each search: a leader within the bound or, all alike, one that never leads."""
    if arguments.no_liar:
        return [()]
    if arguments.liar:
        for view in arguments.liar:
            _check_range("--liar", view, 0, NODES - 1)
        return [tuple(sorted(set(arguments.liar)))]
    return [(view,) for view in range(min(arguments.views + 2, NODES))]


def _recover(search: Search, count: int) -> Recoveries:
    """Ask so many states, evenly spread over the search, whether they recover."""
    step = max(1, search.result.states // count) if count else 0
    views: Counter[int] = Counter()
    failed: list[tuple[int, ...]] = []
    slowest_ms = 0
    chosen = [state for place, state in enumerate(search.states()) if step and place % step == 0]
    for state in chosen:
        found: Recovered = Recovery(search.universe, search.retrace(state)).run()
        views[found.view] += 1
        slowest_ms = max(slowest_ms, found.duration_ms)
        if not found.is_decided or found.has_disagreement:
            failed.append(state)
    return Recoveries(len(chosen), slowest_ms, tuple(sorted(views.items())), len(failed), failed[0] if failed else None)


def _describe_rest(search: Search, recoveries: Recoveries, seconds: float) -> list[str]:
    lines = [f"  {seconds:.1f} s, {search.result.states / max(seconds, 0.001):,.0f} states/s"]
    if recoveries.states:
        views = ", ".join(f"{count:,} in view {view}" for view, count in recoveries.views)
        lines.append(
            f"  {recoveries.states:,} states left alone with a network that works: {recoveries.states - recoveries.failures:,} decided "
            f"({views}), the slowest after {recoveries.slowest_ms / 1000:g} s"
        )
    if recoveries.first_failure is not None:
        lines.append("VIOLATION: a state from which the height does not end, and the shortest way there:")
        lines += describe_story(search.universe, search.story(recoveries.first_failure))
    return lines


def _as_value(search: Search, recoveries: Recoveries, seconds: float) -> dict[str, Any]:
    result = search.result
    violation = result.violation
    return {
        "bounds": asdict(result.bounds),
        "states": result.states,
        "transitions": result.transitions,
        "depth": result.depth,
        "is_complete": result.is_complete,
        "standings": result.standings,
        "evaluations": result.evaluations,
        "decisions": list(result.decisions),
        "violation": None if violation is None else violation.message,
        "story": [] if violation is None else describe_story(search.universe, violation.story),
        "recoveries": asdict(recoveries),
        "seconds": round(seconds, 3),
    }


class _ProgressLine:
    """Says how far a search is, on a terminal only."""

    def __init__(self, title: str, *, is_shown: bool) -> None:
        self._title = title
        self._is_shown = is_shown and sys.stderr.isatty()
        self._started = time.monotonic()
        self._drawn_at = 0.0

    def show(self, progress: Progress) -> None:
        """Draw, now and then."""
        now = time.monotonic()
        if not self._is_shown or now - self._drawn_at < REDRAW_SECONDS:
            return
        self._drawn_at = now
        speed = progress.states / max(now - self._started, 0.001)
        sys.stderr.write(f"\r{self._title}: {progress.states:,} states, depth {progress.depth}, {speed:,.0f}/s ")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._is_shown and self._drawn_at:
            sys.stderr.write("\r" + " " * 120 + "\r")
            sys.stderr.flush()
