"""`medchain bench`: measure real networks on this machine. The measuring itself is in medchain/bench/."""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from medchain.cli import output
from medchain.cli.interrupts import interruptible
from medchain.errors import Rejected

if TYPE_CHECKING:
    from medchain.bench.page import Measurement
    from medchain.bench.rows import Row, Size

REFUSALS: Final[dict[str, str]] = {
    "cli.bench-fault": "There is no fault of this name; the sentence lists them.",
    "cli.bench-range": "A number given to the benchmark is outside what it can do; the sentence names the range.",
}

HOSPITALS_DEFAULT: Final = 4
HOSPITALS_MAX: Final = 10
RATE_DEFAULT: Final = 200.0
"""Transactions a second of paced faults: a fraction of what two cores take, so that there is room to recover."""
RATE_MAX: Final = 100_000.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    faults = verbs.add_parser(
        "faults",
        help="throughput and times of recovery while hospitals die, lie, stand still or are cut off",
        description="Starts real networks on this machine, breaks them in every way the page medchain/bench/FAULTS.md lists, and measures. "
        "Takes 20 to 25 minutes, four with --quick. Exit code 1 when something that must hold did not.",
    )
    faults.add_argument("--quick", action="store_true", help="few and short repetitions: whether everything works, not figures to quote")
    faults.add_argument("--only", action="append", default=[], metavar="NAME", help="measure only this fault; may be given again")
    faults.add_argument("--list", action="store_true", help="list the faults and measure nothing")
    faults.add_argument("--page", metavar="FILE", help="write the page there, Markdown")
    faults.add_argument("--hospitals", type=int, default=HOSPITALS_DEFAULT, metavar="N", help="4 (the default) to 10")
    faults.add_argument("--rate", type=float, default=RATE_DEFAULT, metavar="N", help="transactions a second where recovery is measured")
    faults.add_argument("--seed", type=int, default=0, help="of the choice whom a storm kills (default 0)")
    faults.add_argument("--home", default=".", metavar="FOLDER", help="where the networks are made, on the disk to measure (default: here)")


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen verb; return its exit code."""
    from medchain.bench.faults import FAULTS, title_of
    from medchain.bench.rows import FULL, QUICK

    if arguments.list:
        titles = {name: title_of(name, FULL) for name in FAULTS}
        output.answer(arguments, titles, [f"{name:<24}{title}" for name, title in titles.items()])
        return output.DONE
    for name in arguments.only:
        if name not in FAULTS:
            raise Rejected("cli.bench-fault", f"There is no fault {name!r}; there are: {', '.join(FAULTS)}.")
    if not HOSPITALS_DEFAULT <= arguments.hospitals <= HOSPITALS_MAX:
        raise Rejected("cli.bench-range", f"--hospitals must be from {HOSPITALS_DEFAULT} to {HOSPITALS_MAX}, not {arguments.hospitals}.")
    if not 0 < arguments.rate <= RATE_MAX:
        raise Rejected("cli.bench-range", f"--rate must be above 0 and at most {RATE_MAX:.0f}, not {arguments.rate}.")
    size = QUICK if arguments.quick else FULL
    with interruptible():
        measurement = _measure(arguments, [name for name in FAULTS if not arguments.only or name in arguments.only], size)
    if arguments.page:
        Path(arguments.page).write_text(measurement.page(), encoding="utf-8")
    output.answer(arguments, measurement.to_value(), measurement.summary())
    return output.DONE if measurement.are_targets_met else output.DENIED


def _measure(arguments: argparse.Namespace, names: list[str], size: Size) -> Measurement:
    from medchain.bench.facts import Facts
    from medchain.bench.faults import Bench, measure
    from medchain.bench.page import Measurement, brief

    facts = Facts.collect()
    folder = Path(tempfile.mkdtemp(prefix="medchain-bench-", dir=Path(arguments.home).resolve()))
    rows: list[Row] = []
    try:
        for number, name in enumerate(names, 1):
            began = time.monotonic()
            rows.append(measure(name, Bench(folder, size, arguments.hospitals, arguments.rate, random.Random(arguments.seed))))
            output.say(f"{number}/{len(names)} {name} ({time.monotonic() - began:.0f} s): {brief(rows[-1])}")
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        output.say(f"medchain: the logs of the hospitals are kept in {folder}")
        raise
    shutil.rmtree(folder)
    return Measurement(facts, size, arguments.hospitals, arguments.rate, tuple(rows))
