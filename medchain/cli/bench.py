"""`medchain bench`: measure on this machine, compare and show what was measured. The measuring itself is in medchain/bench/."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from medchain.cli import output
from medchain.cli.interrupts import interruptible
from medchain.errors import Malformed, Rejected

if TYPE_CHECKING:
    from medchain.bench.page import Measurement
    from medchain.bench.results import Result
    from medchain.bench.rows import Row, Size

REFUSALS: Final[dict[str, str]] = {
    "cli.bench-fault": "There is no fault of this name; the sentence lists them.",
    "cli.bench-group": "There is no group of measurements of this name; the sentence lists them.",
    "cli.bench-range": "A number given to the benchmark is outside what it can do; the sentence names the range.",
    "cli.bench-file": "A result or report cannot be read or written where the command says; the sentence says why.",
}

HOSPITALS_DEFAULT: Final = 4
HOSPITALS_MAX: Final = 10
RATE_DEFAULT: Final = 200.0
"""Transactions a second of paced faults: a fraction of what two cores take, so that there is room to recover."""
RATE_MAX: Final = 100_000.0
PERCENT_MAX: Final = 1_000.0
RESULTS_MAX: Final = 20
"""Of one report: a page of more is not read."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    faults = verbs.add_parser(
        "faults",
        help="throughput and times of recovery while hospitals die, lie, stand still or are cut off",
        description="Starts real networks on this machine, breaks them in every way the page medchain/bench/FAULTS.md lists, and measures. "
        "Takes 25 to 30 minutes, five with --quick. Exit code 1 when something that must hold did not.",
    )
    _add_measuring(faults, "fault")
    faults.add_argument("--page", metavar="FILE", help="write the page there, Markdown")
    faults.add_argument("--hospitals", type=int, default=HOSPITALS_DEFAULT, metavar="N", help="4 (the default) to 10")
    faults.add_argument("--rate", type=float, default=RATE_DEFAULT, metavar="N", help="transactions a second where recovery is measured")
    faults.add_argument("--seed", type=int, default=0, help="of the choice whom a storm kills (default 0)")
    for name, text in (
        ("micro", "single costs in one process: verification, codec, hashing, execution, state, LevelDB, sealing, proofs"),
        ("cluster", "whole networks under load: rate, latency and processor time, each circumstance varied alone"),
    ):
        suite = verbs.add_parser(
            name, help=text, description=f"Measures {text}. Exit code 1 when a target that must be reached was missed."
        )
        _add_measuring(suite, "group")
        suite.add_argument("--out", metavar="FILE", help="write the result there, JSON, after every group: an interruption loses one group")
    compare = verbs.add_parser(
        "compare",
        help="two results of the same kind: what became better or worse, and what cannot be told",
        description="Compares two results measure by measure, with all their samples. Exit code 1 when something is worse.",
    )
    compare.add_argument("before", metavar="BEFORE", help="the older result, a file that --out wrote")
    compare.add_argument("after", metavar="AFTER", help="the newer result")
    compare.add_argument("--relevant", type=float, default=5.0, metavar="PERCENT", help="smaller changes do not count (default 5)")
    compare.add_argument(
        "--drift",
        type=float,
        default=20.0,
        metavar="PERCENT",
        help="the same for rates and times, which drift with the machine (default 20)",
    )
    report = verbs.add_parser(
        "report",
        help="results as one page to read, HTML with plots: targets, curves, where processor time goes, every case",
        description="Writes one HTML file that needs nothing else, from one or several results. Plots need matplotlib: "
        "`scripts/bench report` installs it, or `pip install 'medchain[bench]'`.",
    )
    report.add_argument("results", nargs="+", metavar="FILE", help="a result, a file that --out wrote")
    report.add_argument("--out", default="report.html", metavar="FILE", help="the page (default: report.html here)")


def _add_measuring(parser: argparse.ArgumentParser, noun: str) -> None:
    """Add what every verb that measures takes."""
    parser.add_argument("--quick", action="store_true", help="few and short repetitions: whether everything works, not figures to quote")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"measure only this {noun}; may be given again")
    parser.add_argument("--list", action="store_true", help=f"list the {noun}s and measure nothing")
    parser.add_argument(
        "--home",
        default=".",
        metavar="FOLDER",
        help="where networks and stores are made, on the disk to measure (default: here); made when there is none",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen verb; return its exit code."""
    match arguments.verb:
        case "faults":
            return _faults(arguments)
        case "compare":
            return _compare(arguments)
        case "report":
            return _report(arguments)
        case _:
            return run_suite(single_costs() if arguments.verb == "micro" else whole_networks(), arguments)


# ---- faults --------------------------------------------------------------------------------------------------------------------


def _faults(arguments: argparse.Namespace) -> int:
    from medchain.bench.faults import FAULTS, title_of
    from medchain.bench.rows import FULL, QUICK

    if arguments.list:
        return _list(arguments, {name: title_of(name, FULL) for name in FAULTS})
    names = _chosen(arguments, FAULTS, "cli.bench-fault", "fault")
    if not HOSPITALS_DEFAULT <= arguments.hospitals <= HOSPITALS_MAX:
        raise Rejected("cli.bench-range", f"--hospitals must be from {HOSPITALS_DEFAULT} to {HOSPITALS_MAX}, not {arguments.hospitals}.")
    if not 0 < arguments.rate <= RATE_MAX:
        raise Rejected("cli.bench-range", f"--rate must be above 0 and at most {RATE_MAX:.0f}, not {arguments.rate}.")
    size = QUICK if arguments.quick else FULL
    with interruptible():
        measurement = _measure_faults(arguments, names, size)
    if arguments.page:
        Path(arguments.page).write_text(measurement.page(), encoding="utf-8")
    output.answer(arguments, measurement.to_value(), measurement.summary())
    return output.DONE if measurement.are_targets_met else output.DENIED


def _measure_faults(arguments: argparse.Namespace, names: list[str], size: Size) -> Measurement:
    from medchain.bench.facts import Facts
    from medchain.bench.faults import Bench, measure
    from medchain.bench.page import Measurement, brief

    facts = Facts.collect()
    rows: list[Row] = []
    with _folder(arguments) as folder:
        for number, name in enumerate(names, 1):
            began = time.monotonic()
            rows.append(measure(name, Bench(folder, size, arguments.hospitals, arguments.rate, random.Random(arguments.seed))))
            output.say(f"{number}/{len(names)} {name} ({time.monotonic() - began:.0f} s): {brief(rows[-1])}")
    return Measurement(facts, size, arguments.hospitals, arguments.rate, tuple(rows))


# ---- micro, cluster ------------------------------------------------------------------------------------------------------------


class Measuring(Protocol):
    """How a suite measures some of its groups."""

    def __call__(self, *, is_quick: bool, only: Sequence[str], folder: Path, say: Callable[[str], None]) -> Result:
        """Measure the groups named in `only`, all when it is empty."""
        ...


@dataclass(frozen=True, slots=True)
class Suite:
    """What measures one kind of result."""

    groups: Mapping[str, str]
    """Name → title of everything it can measure."""
    measure: Measuring


def single_costs() -> Suite:
    """Return the suite of single costs; it is loaded only when it is asked for."""
    from medchain.bench import micro

    return Suite(micro.GROUPS, micro.measure)


def whole_networks() -> Suite:
    """Return the suite of networks under load; it is loaded only when it is asked for."""
    from medchain.bench import cluster

    return Suite(cluster.AXES, cluster.measure)


def run_suite(suite: Suite, arguments: argparse.Namespace) -> int:
    """Measure the chosen groups of a suite; return the exit code."""
    from medchain.bench import table

    if arguments.list:
        return _list(arguments, suite.groups)
    names = _chosen(arguments, suite.groups, "cli.bench-group", "group of measurements")
    out = _writable(arguments.out) if arguments.out else None
    with interruptible():
        result = _measure_suite(suite, names, arguments, out)
    output.answer(arguments, result.to_value(), table.lines(result))
    return output.DENIED if table.missed(result) else output.DONE


def _measure_suite(suite: Suite, names: Sequence[str], arguments: argparse.Namespace, out: Path | None) -> Result:
    """Measure group after group.

    What is complete stands in `out` after each of them, so that whatever ends the command early (Ctrl-C, a network that does not start)
    costs one group and not the hour before it. Without a complete group the file is not touched.
    """
    whole: Result | None = None
    with _folder(arguments) as folder:
        for number, name in enumerate(names, 1):
            began = time.monotonic()
            part = suite.measure(is_quick=arguments.quick, only=[name], folder=folder, say=output.say)
            whole = part if whole is None else _joined(whole, part)
            if out is not None:
                _save(whole, out)
            place = f", in {out}" if out is not None else ""
            output.say(f"{number}/{len(names)} {name}: {len(part.cases)} cases ({time.monotonic() - began:.0f} s){place}")
    if whole is None:
        raise Rejected("cli.bench-group", "There is no group to measure.")
    return whole


def _joined(whole: Result, part: Result) -> Result:
    """Return both results as one: the facts of the first, which saw the machine before any load; each case and curve once."""
    cases = {case.name for case in whole.cases}
    curves = {curve.name for curve in whole.curves}
    return replace(
        whole,
        cases=(*whole.cases, *(case for case in part.cases if case.name not in cases)),
        curves=(*whole.curves, *(curve for curve in part.curves if curve.name not in curves)),
    )


def _save(result: Result, out: Path) -> None:
    """Write the file so that it is whole at every moment."""
    beside = out.with_name(f".{out.name}.new")
    result.save(beside)
    os.replace(beside, out)


# ---- compare, report -----------------------------------------------------------------------------------------------------------


def _compare(arguments: argparse.Namespace) -> int:
    from medchain.bench.compare import Margins, compare

    for option, percent in (("--relevant", arguments.relevant), ("--drift", arguments.drift)):
        if not 0 <= percent <= PERCENT_MAX:
            raise Rejected("cli.bench-range", f"{option} must be from 0 to {PERCENT_MAX:.0f} percent, not {percent}.")
    margins = Margins(arguments.relevant / 100, arguments.drift / 100)
    comparison = compare(_load(arguments.before), _load(arguments.after), margins)
    output.answer(arguments, comparison.to_value(), comparison.lines())
    return output.DENIED if comparison.is_worse else output.DONE


def _report(arguments: argparse.Namespace) -> int:
    from medchain.bench.report import page

    if len(arguments.results) > RESULTS_MAX:
        raise Rejected("cli.bench-range", f"One page takes at most {RESULTS_MAX} results, not {len(arguments.results)}.")
    out = _writable(arguments.out)
    results = [_load(name) for name in arguments.results]
    out.write_text(page(results), encoding="utf-8")
    value = {"page": out, "results": len(results), "cases": sum(len(result.cases) for result in results)}
    output.answer(arguments, value, f"The page is in {out}.")
    return output.DONE


# ---- what several verbs need ---------------------------------------------------------------------------------------------------


def _list(arguments: argparse.Namespace, titles: Mapping[str, str]) -> int:
    output.answer(arguments, titles, [f"{name:<24}{title}" for name, title in titles.items()])
    return output.DONE


def _chosen(arguments: argparse.Namespace, known: Mapping[str, object], code: str, noun: str) -> list[str]:
    """Return the names to measure in the order they are known. Raises Rejected `code` for one that is not."""
    for name in arguments.only:
        if name not in known:
            raise Rejected(code, f"There is no {noun} {name!r}; there are: {', '.join(known)}.")
    return [name for name in known if not arguments.only or name in arguments.only]


@contextmanager
def _folder(arguments: argparse.Namespace) -> Iterator[Path]:
    """Give a folder for networks and stores, gone afterwards; after a fault it stays, for the logs in it."""
    home = Path(arguments.home).resolve()
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="medchain-bench-", dir=home))
    try:
        yield folder
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        output.say(f"medchain: what was made, logs of hospitals too, is kept in {folder}")
        raise
    shutil.rmtree(folder)


def _load(name: str) -> Result:
    """Read a result. Raises Rejected `cli.bench-file` when there is no such file, Malformed when it is none, both with its name."""
    from medchain.bench.results import Result

    try:
        return Result.load(Path(name))
    except Malformed as error:
        raise Malformed(f"{name}: {error.message}") from None
    except OSError as error:
        raise Rejected("cli.bench-file", f"{name} cannot be read: {error.strerror or type(error).__name__}.") from None


def _writable(name: str) -> Path:
    """Return the file to write, before minutes are spent on what goes into it. Raises Rejected `cli.bench-file`."""
    file = Path(name)
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise Rejected("cli.bench-file", f"{name} cannot be written: name a file in a folder that is there.")
    return file
