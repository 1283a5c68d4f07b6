"""`medchain testnet`: a network of hospitals on this machine, each a real process."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

from medchain.chain.parameters import Parameters
from medchain.cli import output
from medchain.errors import Malformed, Unavailable
from medchain.node.home import load_genesis
from medchain.testnet.launch import SeatStatus, Testnet

DEFAULT_HOME: Final = "./net"
WATCH_SECONDS: Final = 0.2


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser(
        "up",
        help="make the network if there is none, start it, and wait until it is ready",
        description="Makes the network if the folder has none, starts every hospital as a process and waits until all are ready. Without "
        "--detach it stays in the foreground and stops everything at Ctrl-C.",
    )
    _add_home(up)
    up.add_argument("--hospitals", type=int, metavar="N", help="how many hospitals a new network has, 4 to 16 (default 4)")
    up.add_argument("--base-port", type=int, metavar="PORT", help="clients at PORT.., peers at PORT+100.. (default 7100; 0 = any free)")
    up.add_argument("--parameter", action="append", default=[], metavar="NAME=NUMBER", help="an on-chain parameter of a new network")
    up.add_argument("--detach", action="store_true", help="leave the network running and return")
    _add_home(verbs.add_parser("status", help="how every hospital is"))
    _add_home(verbs.add_parser("down", help="stop all processes; what they stored stays"))
    for name, meaning in (
        ("kill", "end one hospital's process at once, as a power cut would"),
        ("restart", "stop one hospital and start it"),
    ):
        verb = verbs.add_parser(name, help=meaning, description=meaning[0].upper() + meaning[1:] + ".")
        verb.add_argument("name", metavar="HOSPITAL", help="its name in the network, for example a")
        _add_home(verb)


def run(arguments: argparse.Namespace) -> int:
    """Run a verb and return the exit code."""
    verbs: dict[str, Callable[[argparse.Namespace], int]] = {
        "up": _up, "status": _status, "down": _down, "kill": _kill, "restart": _restart,
    }  # fmt: skip
    return verbs[arguments.verb](arguments)


def _add_home(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", default=DEFAULT_HOME, metavar="FOLDER", help=f"the network's folder (default {DEFAULT_HOME})")


def _up(arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    parameters = _parameters(arguments.parameter)
    stopped = _Stopped()
    network = Testnet.open_or_make(Path(arguments.home), arguments.hospitals, arguments.base_port, parameters)
    started = network.start_missing()
    try:
        network.wait_ready()
        stopped.raises = False
    except BaseException:
        network.stop(started)
        raise
    genesis = load_genesis(network.plan.genesis_file)
    rows = [f"  {seat.name}  {seat.rpc_url}  {seat.home.path}" for seat in network.plan.seats]
    ready = f"{len(rows)} hospitals are ready after {time.monotonic() - began:.1f} s:"
    stop_hint = f"Stop them with: medchain testnet down --home {arguments.home}" if arguments.detach else "Stop them with Ctrl-C."
    output.answer(arguments, network.facts(genesis.digest()), [ready, *rows, stop_hint])
    if not arguments.detach:
        _watch(network, stopped)
    return output.DONE


class _Stopped:
    """Notes SIGINT, SIGTERM and a closed terminal, so that a network in the foreground is stopped in good order, not left behind.

    Ends the waiting for its start at once. What `nohup` ignores stays ignored.
    """

    def __init__(self) -> None:
        self.is_set = False
        self.raises = True
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_first, self.is_set = not self.is_set, True
        if is_first and self.raises:
            raise KeyboardInterrupt


def _watch(network: Testnet, stopped: _Stopped) -> None:
    """Stay until a signal comes, telling of hospitals that end meanwhile; then stop all."""
    gone: set[str] = set()
    while not stopped.is_set:
        time.sleep(WATCH_SECONDS)
        ended = set(network.not_running())
        for name in sorted(ended - gone):
            output.say(f"Hospital {name} does not run any more; see {network.plan.seat(name).home.log_file}")
        gone = ended
    output.say("Stopping ...")
    network.stop()


def _status(arguments: argparse.Namespace) -> int:
    network = Testnet.open(Path(arguments.home))
    rows = network.status()
    answering = [row for row in rows if row.status is not None]
    output.answer(arguments, {"hospitals": [row.to_value() for row in rows]}, [_line(row) for row in rows])
    if not answering:
        raise Unavailable(
            f"no hospital of {arguments.home} answers: start them with `medchain testnet up --home {arguments.home} --detach`"
        )
    return output.DONE


def _line(row: SeatStatus) -> str:
    if row.process is None:
        return f"{row.name}  does not run"
    if row.status is None:
        return f"{row.name}  process {row.process}  does not answer"
    status = row.status
    votes = "votes" if status["may_vote"] else "observes"
    return (
        f"{row.name}  {row.rpc}  process {row.process}  height {status['height']}  state {status['state_root'][:16]}  "
        f"{len(status['peers'])} peers  {votes}"
    )


def _down(arguments: argparse.Namespace) -> int:
    network = Testnet.open(Path(arguments.home))
    missing = network.not_running()
    running = [seat.name for seat in network.plan.seats if seat.name not in missing]
    network.stop()
    text = f"Stopped {', '.join(running)}; their data stays in {arguments.home}." if running else "Nothing was running."
    output.answer(arguments, {"stopped": running}, text)
    return output.DONE


def _kill(arguments: argparse.Namespace) -> int:
    network = Testnet.open(Path(arguments.home))
    process = network.kill(arguments.name)
    output.answer(arguments, {"name": arguments.name, "process": process}, f"Killed hospital {arguments.name} (process {process}).")
    return output.DONE


def _restart(arguments: argparse.Namespace) -> int:
    network = Testnet.open(Path(arguments.home))
    network.restart(arguments.name)
    network.wait_ready([arguments.name])
    seat = network.plan.seat(arguments.name)
    facts = {"name": seat.name, "rpc": seat.rpc_url, "process": network.process_of(seat.name)}
    output.answer(arguments, facts, f"Hospital {seat.name} is ready again at {seat.rpc_url}.")
    return output.DONE


def _parameters(words: list[str]) -> Parameters | None:
    """Read --parameter NAME=NUMBER options. Raises Malformed."""
    values = {}
    for word in words:
        name, _, number = word.partition("=")
        if not number.isascii() or not number.replace("_", "").isdigit():
            raise Malformed(f"--parameter takes NAME=NUMBER, not {word!r}")
        values[name] = int(number)
    return Parameters.from_names(values) if values else None
