"""`medchain demo`: the main story, played on real processes with real input. Each step is a command that can be typed by hand.

The story itself is in story.py. This module prepares its folder, starts the hospitals, and leaves nothing behind however it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.resources
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from medchain.cli import output
from medchain.cli.interrupts import interruptible
from medchain.cli.stage import Stage
from medchain.errors import Rejected

if TYPE_CHECKING:
    from medchain.testnet.launch import Testnet

DEFAULT_HOME: Final = "./medchain-demo"
MARK: Final = ".medchain-demo"
"""Lies in a folder that a demo made; only such a folder is ever emptied."""
SAMPLE: Final = "sample_bundle.json"
HOSPITALS_MIN: Final = 4
HOSPITALS_MAX: Final = 10

REFUSALS: Final[dict[str, str]] = {
    "demo.folder-in-use": "The demo's folder holds something that no demo put there.",
    "demo.running": "The hospitals of an earlier demo still run in this folder.",
    "demo.hospitals": "The demo plays with four to ten hospitals.",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.description = (
        "Starts hospitals as real processes on this machine and plays the main story: a record is sealed, registered, asked for, denied, "
        "permitted, read, revoked, opened in an emergency, audited, proven; one hospital is killed and comes back. Then everything stops."
    )
    parser.add_argument("--input", metavar="FILE", help="the record to share: any file, for example a FHIR bundle or a DICOM image")
    parser.add_argument("--hospitals", type=int, default=HOSPITALS_MIN, metavar="N", help="how many hospitals, 4 to 10 (default 4)")
    parser.add_argument("--keep", action="store_true", help="leave the hospitals running at the end, and say how to go on")
    parser.add_argument("--home", default=DEFAULT_HOME, metavar="FOLDER", help=f"the demo's own folder (default {DEFAULT_HOME})")


def run(arguments: argparse.Namespace) -> int:
    """Play the story and return the exit code."""
    began = time.monotonic()
    stage = Stage(sys.stderr if output.is_json(arguments) else sys.stdout)
    if not HOSPITALS_MIN <= arguments.hospitals <= HOSPITALS_MAX:
        raise Rejected("demo.hospitals", f"The demo plays with {HOSPITALS_MIN} to {HOSPITALS_MAX} hospitals, not {arguments.hospitals}.")
    source = None if arguments.input is None else _checked_input(Path(arguments.input).resolve())
    folder = Path(arguments.home).resolve()
    _prepare(folder)
    stage.write(f"The main story of medchain, played in {folder}; the commands are as you would type them there.\n")
    with interruptible(), _inside(folder):
        record = _take_input(folder, source)
        facts = _play(stage, folder, record, arguments)
    seconds = time.monotonic() - began
    if not arguments.keep:
        shutil.rmtree(folder)
    facts |= {"steps": [scene.to_value() for scene in stage.scenes], "seconds": round(seconds, 3), "is_kept": arguments.keep}
    _end(stage, folder, arguments, facts)
    return output.DONE


def _play(stage: Stage, folder: Path, record: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Play on a running network; it is stopped at the end, or at once when something goes wrong."""
    from medchain.cli.story import Story

    story = Story(stage, folder, record)
    is_left = False
    try:
        story.begin(arguments.hospitals)
        facts = story.play()
        is_left = arguments.keep
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):
            output.say(f"medchain: the logs of the hospitals are kept in {folder}")
        raise
    finally:
        if story.network is not None and not is_left:
            _stop(story.network)
    return facts


def _stop(network: Testnet) -> None:
    """Stop all hospitals; a second Ctrl-C does not keep it from finishing."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    network.stop()


def _end(stage: Stage, folder: Path, arguments: argparse.Namespace, facts: dict[str, Any]) -> None:
    lines = [f"All {len(stage.scenes)} steps went as they must, in {facts['seconds']:.1f} s."]
    if arguments.keep:
        lines += ["The hospitals go on running:", *(f"  {row['name']}  {row['rpc']}" for row in facts["hospitals"])]
        lines += [f"Go on with: cd {folder}", *(f"  {name}={identity}" for name, identity in stage.names.items())]
        lines += [f"Stop them with: medchain testnet down --home {folder / 'net'}"]
    else:
        lines += ["Everything is stopped and the demo's folder is removed."]
    output.answer(arguments, facts, lines)


# ---- the folder and the input -------------------------------------------------------------------------------------------------


def _checked_input(path: Path) -> Path:
    """Return the path of the file to share, checked before anything is started. Raises Rejected: client.*."""
    from medchain.client.files import FHIR_BUNDLE, check_fhir, kind_of_file, size_of

    size_of(path)
    if kind_of_file(path) == FHIR_BUNDLE:
        check_fhir(path)
    return path


def _take_input(folder: Path, source: Path | None) -> str:
    """Return the path of the record to share; the one that comes with medchain is written into the folder."""
    if source is not None:
        return os.path.relpath(source, folder) if source.is_relative_to(folder) else str(source)
    sample = importlib.resources.files("medchain.cli").joinpath(SAMPLE).read_bytes()
    (folder / "bundle.json").write_bytes(sample)
    return "bundle.json"


def _prepare(folder: Path) -> None:
    """Make the folder, or empty it when an earlier demo left it. Raises Rejected: demo.folder-in-use, demo.running."""
    if folder.exists():
        if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARK).is_file()):
            raise Rejected("demo.folder-in-use", f"{folder} holds something else than a demo: choose another folder with --home.")
        if _is_running(folder):
            raise Rejected(
                "demo.running", f"An earlier demo runs in {folder}: stop it with `medchain testnet down --home {folder / 'net'}`."
            )
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True)
    (folder / MARK).write_text("Made by `medchain demo`; it is removed by the next one.\n", encoding="utf-8")


def _is_running(folder: Path) -> bool:
    from medchain.node.pidfile import running_process

    return any(running_process(file) is not None for file in sorted((folder / "net").glob("*/node.pid")))


# ---- the process --------------------------------------------------------------------------------------------------------------


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in the folder, so that the commands shown are literally those run, and without variables that would change them."""
    kept = {name: os.environ.pop(name) for name in ("MEDCHAIN_AT", "MEDCHAIN_PASSPHRASE") if name in os.environ}
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        os.environ.update(kept)
