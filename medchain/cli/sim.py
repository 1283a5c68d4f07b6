"""`medchain sim`: whole networks in the deterministic simulator, by seed; failing ones made smaller; and mutants of our own rules.

Here are the processes, the clock and the progress bars; the worlds themselves are pure.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from medchain.cli import explore, output
from medchain.errors import InvariantBroken, Malformed, Rejected
from medchain.sim.faults import NODES_MAX, NODES_MIN, Plan
from medchain.sim.mutants.hunt import Catch, describe_catches, hunt, run_under
from medchain.sim.mutants.roster import MUTANTS, mutant_called
from medchain.sim.plantext import TEXT_CHARACTERS_MAX, decode_plan, encode_plan
from medchain.sim.report import SeedReport, Summary, describe, describe_seed
from medchain.sim.run import SeedOptions, plan_of, run_seed
from medchain.sim.shrink import Shrinking, describe_plan

REFUSALS: Final[dict[str, str]] = {
    "cli.sim-range": "A number given to the simulator is outside what it can do; the sentence names the range.",
    "cli.sim-plan": "The plan given to the simulator is none, or its file cannot be read.",
    "cli.sim-mutant": "There is no mutant of this name; `medchain sim mutants --list` names them.",
    "cli.sim-sound": "What was to be made smaller breaks no promise.",
}

SEEDS_DEFAULT: Final = 100
SEEDS_MAX: Final = 10_000_000
JOBS_MAX: Final = 256
MUTANT_SEEDS_DEFAULT: Final = 20
SHRINK_SECONDS_DEFAULT: Final = 120
SHRINK_SECONDS_MAX: Final = 86_400
REDRAW_SECONDS: Final = 0.2
BAR_CELLS: Final = 24
Task = TypeVar("Task")
Result = TypeVar("Result")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of this noun."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    run_parser = verbs.add_parser(
        "run",
        help="run seeds and judge them",
        description="Run simulated networks: every seed is one whole history of faults, clients and agreement, always the same. "
        "Exit code 4 when a promise was broken; then the seed is made smaller, and the line that runs what is left is printed.",
    )
    _add_choice(run_parser)
    run_parser.add_argument("--seeds", type=int, default=SEEDS_DEFAULT, help=f"run so many seeds (default {SEEDS_DEFAULT})")
    run_parser.add_argument("--start", type=int, default=0, help="the first of the seeds (default 0)")
    run_parser.add_argument("--jobs", type=int, default=0, help="processes (default: one a core)")
    run_parser.add_argument("--trace", action="store_true", help="with --seed or --plan: print everything that happened")
    run_parser.add_argument("--keep-going", action="store_true", help="go on after a violation (default: stop at the first)")
    run_parser.add_argument("--no-shrink", action="store_true", help="do not make the first failing seed smaller")
    run_parser.add_argument("--ledger", type=Path, help="add one line of JSON about this run to a file, to be summed up over many runs")
    _add_seconds(run_parser)
    shrink_parser = verbs.add_parser(
        "shrink",
        help="make a failing seed as small as it gets",
        description="Leave out faults, liars, weather, nodes and time while the same judge still speaks; print one command.",
    )
    _add_choice(shrink_parser)
    _add_seconds(shrink_parser)
    mutants_parser = verbs.add_parser(
        "mutants",
        help="drop one of our own rules at a time and see which judge notices",
        description="Run the node with one rule dropped through seeds in which that rule matters. Exit code 4 when nobody noticed one.",
    )
    mutants_parser.add_argument("--list", action="store_true", help="only name them")
    mutants_parser.add_argument("--only", help="this one alone")
    mutants_parser.add_argument(
        "--seeds", type=int, default=MUTANT_SEEDS_DEFAULT, help=f"worlds for each mutant (default {MUTANT_SEEDS_DEFAULT})"
    )
    mutants_parser.add_argument("--jobs", type=int, default=0, help="processes (default: one a core)")
    explore.configure(
        verbs.add_parser(
            "explore",
            help="explore agreement exhaustively within bounds",
            description="Explore every history of agreement on one height among four nodes within the bounds: real replicas, any order, "
            "loss and repetition of messages, a timer or a crash at any moment, a liar that says anything. Exit code 4 when a promise "
            "was broken; the shortest story that breaks it is told.",
        )
    )


def _add_choice(parser: argparse.ArgumentParser) -> None:
    """Add what says which world is meant."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=int, help="this one seed")
    which.add_argument("--plan", help="this one world, as another run printed it: a line of JSON, or a file that holds it")
    parser.add_argument("--nodes", type=int, help=f"hospitals in every world (default: each seed decides, {NODES_MIN} to {NODES_MAX})")
    parser.add_argument("--liars", action="store_true", help="let some hospitals of every world lie (default: each seed decides)")
    parser.add_argument("--mutant", help="with one of our own rules dropped: see medchain sim mutants --list")


def _add_seconds(parser: argparse.ArgumentParser) -> None:
    default = SHRINK_SECONDS_DEFAULT
    parser.add_argument("--seconds", type=int, default=default, help=f"time for making a seed smaller (default {default})")


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen verb; return its exit code."""
    if arguments.verb == "explore":
        return explore.run(arguments)
    _check_range("--nodes", getattr(arguments, "nodes", None), NODES_MIN, NODES_MAX)
    _check_range("--seeds", getattr(arguments, "seeds", None), 1, SEEDS_MAX)
    _check_range("--jobs", getattr(arguments, "jobs", None), 0, JOBS_MAX)
    _check_range("--seconds", getattr(arguments, "seconds", None), 1, SHRINK_SECONDS_MAX)
    if arguments.verb == "mutants":
        return _hunt(arguments)
    _check_mutant(arguments.mutant)
    if arguments.verb == "shrink":
        return _shrink(arguments)
    if arguments.seed is not None or arguments.plan is not None:
        return _run_one(arguments)
    return _run_many(arguments)


def _check_range(name: str, value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise Rejected("cli.sim-range", f"{name} must be from {low} to {high}, not {value}")


def _check_mutant(name: str | None) -> None:
    if name is None:
        return
    try:
        mutant_called(name)
    except Malformed as error:
        raise Rejected("cli.sim-mutant", error.message) from None


# ---- one world ----------------------------------------------------------------------------------------------------------------


def _options(arguments: argparse.Namespace) -> SeedOptions:
    return SeedOptions(nodes=arguments.nodes, has_liars=True if arguments.liars else None)


def _plan_from(text: str) -> Plan:
    """Read a plan, or the file that holds one."""
    try:
        if not text.lstrip().startswith("{"):
            with Path(text).open(encoding="utf-8") as file:
                text = file.read(TEXT_CHARACTERS_MAX + 1)
        return decode_plan(text)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise Rejected("cli.sim-plan", f"the plan cannot be read: {error}") from None
    except Malformed as error:
        raise Rejected("cli.sim-plan", error.message) from None


def _chosen_plan(arguments: argparse.Namespace) -> Plan:
    if arguments.plan is not None:
        return _plan_from(arguments.plan)
    return plan_of(arguments.seed if arguments.seed is not None else 0, _options(arguments))


def _run_one(arguments: argparse.Namespace) -> int:
    if arguments.plan is None:
        report = _SeedRun(replace(_options(arguments), is_text_kept=arguments.trace), arguments.mutant)(arguments.seed)
    else:
        plan = _plan_from(arguments.plan)
        report = replace(run_under(arguments.mutant, plan, is_text_kept=arguments.trace), replay=_command(plan, arguments.mutant))
    lines = [*report.trace, *describe_seed(report)]
    value = {**_as_value(report), "trace": list(report.trace)}
    if report.violations and arguments.plan is None and not arguments.no_shrink:
        value["shrunk"], told = _smallest(arguments, plan_of(arguments.seed, _options(arguments)), report)
        lines += told
    output.answer(arguments, value, lines)
    return output.LOCAL_FAULT if report.violations else output.DONE


def _command(plan: Plan, mutant: str | None) -> str:
    """Return the line to paste that runs a plan."""
    words = ["medchain", "sim", "run", "--plan", encode_plan(plan)]
    return shlex.join([*words, "--mutant", mutant] if mutant else words)


# ---- making it smaller ----------------------------------------------------------------------------------------------------------


def _shrink(arguments: argparse.Namespace) -> int:
    plan = _chosen_plan(arguments)
    report = run_under(arguments.mutant, plan)
    if not report.violations:
        raise Rejected("cli.sim-sound", "this world breaks no promise: name a seed or a plan that does")
    value, lines = _smallest(arguments, plan, report)
    output.answer(arguments, value, lines)
    return output.DONE


def _smallest(arguments: argparse.Namespace, plan: Plan, report: SeedReport) -> tuple[dict[str, Any], list[str]]:
    """Make a failing plan smaller within the time given; return it as JSON values and in words."""
    deadline = time.monotonic() + arguments.seconds
    bar = _Bar(is_shown=not output.is_json(arguments))

    def tell(runs: int, now: Plan) -> None:
        bar.draw(f"making it smaller: {runs} runs, {len(now.actions)} faults, {len(now.liars)} liars left ")

    def judge_of(candidate: Plan) -> str:
        found = run_under(arguments.mutant, candidate).violations
        return found[0].checker if found else ""

    shrinking = Shrinking(plan, report.violations[0].checker, judge_of, lambda: time.monotonic() >= deadline, tell)
    small = shrinking.run()
    bar.clear()
    small_report = run_under(arguments.mutant, small)
    if not small_report.violations:
        raise InvariantBroken("a world that broke a promise does not break it again: the simulator is not deterministic")
    violation = small_report.violations[0]
    command = _command(small, arguments.mutant)
    how = "nothing more can be left out" if shrinking.is_minimal else "the time was up: --seconds gives it more"
    value = {
        "command": command,
        "plan": encode_plan(small),
        "violation": str(violation),
        "faults": len(small.actions),
        "liars": len(small.liars),
        "runs": shrinking.runs,
        "is_minimal": shrinking.is_minimal,
    }
    lines = [
        f"smallest world found in {shrinking.runs} runs ({how}): {len(plan.actions)} faults and {len(plan.liars)} liars became "
        f"{len(small.actions)} and {len(small.liars)}",
        *describe_plan(small),
        f"  VIOLATION {violation}",
        f"  replay: {command}",
    ]
    return value, lines


# ---- many worlds ----------------------------------------------------------------------------------------------------------------


def _run_many(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    summary = Summary()
    bar = _Bar(is_shown=not output.is_json(arguments))
    seeds = range(arguments.start, arguments.start + arguments.seeds)
    cpu_seconds = 0.0
    for report, cost in _results(_SeedRun(_options(arguments), arguments.mutant).timed, seeds, arguments.jobs):
        summary.add(report)
        cpu_seconds += cost
        speed = summary.seeds / max(time.monotonic() - started, 0.001)
        bar.draw(_cells(summary.seeds, len(seeds)) + f" seeds, {speed:.1f}/s, {len(summary.failures)} violations ")
        if report.violations:
            bar.clear()
            output.say(f"VIOLATION in seed {report.seed}: {report.violations[0]}\n  replay: {report.replay}")
            if not arguments.keep_going:
                break
    bar.clear()
    seconds = time.monotonic() - started
    value: dict[str, Any] = {**asdict(summary), "seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds, 3)}
    value["failures"] = [_as_value(report) for report in summary.failures]
    lines = describe(summary, seconds, cpu_seconds)
    if arguments.ledger is not None:
        _add_to_ledger(arguments, summary, cpu_seconds)
    if summary.failures and not arguments.no_shrink:
        report = summary.failures[0]
        value["shrunk"], told = _smallest(arguments, plan_of(report.seed, _options(arguments)), report)
        lines += told
    output.answer(arguments, value, lines)
    return output.LOCAL_FAULT if summary.failures else output.DONE


class _SeedRun:
    """Runs seeds under the same options; crosses to other processes."""

    def __init__(self, options: SeedOptions, mutant: str | None) -> None:
        self._options = options
        self._mutant = mutant

    def __call__(self, seed: int) -> SeedReport:
        if self._mutant is None:
            return run_seed(seed, self._options)
        report = run_under(self._mutant, plan_of(seed, self._options), is_text_kept=self._options.is_text_kept)
        return replace(report, replay=f"medchain sim run --seed {seed}{self._options.words()} --mutant {shlex.quote(self._mutant)} --trace")

    def timed(self, seed: int) -> tuple[SeedReport, float]:
        """Run a seed; return its report and its CPU seconds, which a busy machine changes less than the time on the wall."""
        started = time.process_time()
        report = self(seed)
        return report, time.process_time() - started


def _add_to_ledger(arguments: argparse.Namespace, summary: Summary, cpu_seconds: float) -> None:
    """Add one line about a run to a file; sums over files of such lines are sums over runs."""
    asked = {"start": arguments.start, "nodes_asked": arguments.nodes, "liars_forced": arguments.liars}
    line = {**asked, "cpu_seconds": round(cpu_seconds, 1), **asdict(summary), "failures": [report.replay for report in summary.failures]}
    with arguments.ledger.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _results(work: Callable[[Task], Result], tasks: Sequence[Task], jobs_asked: int) -> Iterator[Result]:
    """Yield results as they come, from one process or many."""
    jobs = min(jobs_asked or _cores(), len(tasks))
    if jobs <= 1:
        yield from map(work, tasks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        waiting = iter(tasks)
        running: set[Future[Result]] = set()
        try:
            while True:
                for upcoming in waiting:
                    running.add(pool.submit(work, upcoming))
                    if len(running) >= 2 * jobs:
                        break
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


# ---- mutants --------------------------------------------------------------------------------------------------------------------


def _hunt(arguments: argparse.Namespace) -> int:
    _check_mutant(arguments.only)
    chosen = [mutant for mutant in MUTANTS if arguments.only in (None, mutant.name)]
    if arguments.list:
        rows = [{"name": mutant.name, "lost": mutant.lost, "harmless": mutant.harmless} for mutant in chosen]
        output.answer(arguments, {"mutants": rows}, [f"{mutant.name}: {mutant.lost}" for mutant in chosen])
        return output.DONE
    bar = _Bar(is_shown=not output.is_json(arguments))
    catches: list[Catch] = []
    for catch in _results(_Hunt(arguments.seeds), [mutant.name for mutant in chosen], arguments.jobs):
        catches.append(catch)
        bar.draw(_cells(len(catches), len(chosen)) + " mutants ")
    bar.clear()
    names = [mutant.name for mutant in chosen]
    catches.sort(key=lambda catch: names.index(catch.name))
    output.answer(arguments, {"mutants": [asdict(catch) for catch in catches]}, describe_catches(catches))
    return output.DONE if all(catch.is_as_expected for catch in catches) else output.LOCAL_FAULT


class _Hunt:
    """Hunts mutants by name; crosses to other processes, which mutants themselves cannot."""

    def __init__(self, seeds: int) -> None:
        self._seeds = seeds

    def __call__(self, name: str) -> Catch:
        return hunt(mutant_called(name), self._seeds)


# ---- bars -----------------------------------------------------------------------------------------------------------------------


def _cells(done: int, total: int) -> str:
    cells = BAR_CELLS * done // total
    return f"[{'#' * cells}{'.' * (BAR_CELLS - cells)}] {done}/{total}"


class _Bar:
    """Draws how far it is, on a terminal only, a few times a second."""

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown and sys.stderr.isatty()
        self._drawn_at = 0.0

    def draw(self, text: str) -> None:
        """Draw, unless it was drawn just now."""
        now = time.monotonic()
        if self._is_shown and now - self._drawn_at >= REDRAW_SECONDS:
            self._drawn_at = now
            sys.stderr.write("\r" + text)
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the bar away."""
        if self._is_shown and self._drawn_at:
            sys.stderr.write("\r" + " " * 100 + "\r")
            sys.stderr.flush()
