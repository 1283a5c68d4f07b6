"""`medchain tx`: what became of a transaction, waiting for it, and a proof file of it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from medchain.cli import address, output
from medchain.cli.asking import ask_node
from medchain.errors import Malformed, Rejected

ID_HEX_DIGITS: Final = 64
WAIT_SECONDS: Final = 30

REFUSALS: Final[dict[str, str]] = {
    "cli.file": "A file cannot be read or written.",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    show = verbs.add_parser("show", help="what became of a transaction")
    wait = verbs.add_parser("wait", help="wait until it is decided or expired (exit 3 when it is neither in time)")
    wait.add_argument("--timeout", type=float, default=WAIT_SECONDS, metavar="SECONDS", help=f"how long to wait (default {WAIT_SECONDS})")
    proof = verbs.add_parser("proof", help="write a proof file, which `medchain verify` checks without any node")
    proof.add_argument("--out", required=True, metavar="FILE", help="the proof file; it must not exist yet")
    for verb in (show, wait, proof):
        verb.add_argument("id", metavar="TXID", help="transaction id, 64 hexadecimal digits")
        address.add_option(verb)


def run(arguments: argparse.Namespace) -> int:
    """Run a verb and return the exit code."""
    identity = _identity(arguments.id)
    match arguments.verb:
        case "proof":
            return _proof(arguments, identity)
        case "wait":
            return _wait(arguments, identity)
        case _:
            status = ask_node(arguments, "tx.status", id=identity)
            output.answer(arguments, status, _lines(status))
            return output.DONE


def _wait(arguments: argparse.Namespace, identity: bytes) -> int:
    """Answer how it ended: 0 accepted, 1 refused or expired, 3 still open."""
    from medchain.wire.methods import WAIT_MS_MAX

    if not 0 <= arguments.timeout <= WAIT_MS_MAX / 1_000:  # false for what is no number, too
        raise Malformed(f"--timeout is a number of seconds from 0 to {WAIT_MS_MAX // 1_000}, not {arguments.timeout:g}")
    status = ask_node(arguments, "tx.wait", id=identity, timeout_ms=round(arguments.timeout * 1_000))
    output.answer(arguments, status, _lines(status))
    if status["status"] == "decided":
        return output.DENIED if status["code"] else output.DONE
    if status["status"] == "expired":
        return output.DENIED
    output.say(f"medchain: The transaction was not decided within {arguments.timeout:g} s; it is {status['status']}.")
    return output.NOT_REACHABLE


def _proof(arguments: argparse.Namespace, identity: bytes) -> int:
    answer = ask_node(arguments, "tx.proof", id=identity)
    content = bytes.fromhex(answer["proof"]) if isinstance(answer["proof"], str) else answer["proof"]
    path = Path(arguments.out)
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise Rejected("cli.file", f"{path} exists already: choose another name.") from None
    except OSError as error:
        raise Rejected("cli.file", f"{path} cannot be written: {error.strerror}.") from None
    facts = {"file": str(path), "id": identity, "height": answer["height"], "bytes": len(content)}
    output.answer(arguments, facts, f"{path}: proof of a transaction in block {answer['height']}, {len(content)} bytes")
    return output.DONE


def _identity(text: str) -> bytes:
    try:
        identity = bytes.fromhex(text)
    except ValueError:
        identity = b""
    if len(identity) != ID_HEX_DIGITS // 2 or len(text) != ID_HEX_DIGITS:
        raise Malformed(f"a transaction id is {ID_HEX_DIGITS} hexadecimal digits")
    return identity


def _lines(status: Mapping[str, Any]) -> list[str]:
    lines = [f"status          {status['status']}"]
    if status["status"] == "decided":
        moment = datetime.fromtimestamp(status["time_ms"] / 1_000, UTC)
        lines += [f"height          {status['height']}", f"time            {moment:%Y-%m-%d %H:%M:%S} UTC"]
        lines.append("outcome         " + (f"refused: {status['code']}" if status["code"] else "accepted"))
        lines += [f"event           {event['kind']}" for event in status["events"]]
    return lines
