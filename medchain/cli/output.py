"""What a command says and how it ends: one place for JSON and human answers, exit codes, and errors turned into sentences.

Answers go to standard output (with --json exactly one object), messages to standard error. No traceback reaches a user. This module knows
no command.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TextIO

from medchain.errors import InvariantBroken, Malformed, MedchainError, Misbehaviour, Rejected, Unavailable

DONE: Final = 0
DENIED: Final = 1
WRONG_USE: Final = 2
NOT_REACHABLE: Final = 3
LOCAL_FAULT: Final = 4

EXIT_CODES: Final[dict[int, str]] = {
    DONE: "done",
    DENIED: "denied or rejected by the network",
    WRONG_USE: "wrong use or bad input",
    NOT_REACHABLE: "not reachable or timed out",
    LOCAL_FAULT: "a local fault",
}
"""node.md, "How the commands read"; every --help shows them."""

INTERRUPTED: Final = 130
"""What shells report for a command ended by Ctrl-C: 128 + SIGINT."""

TRACEBACK_VARIABLE: Final = "MEDCHAIN_TRACEBACK"
"""Set by developers to see where an unexpected error came from."""

_BAD_INPUT: Final = frozenset({"cli", "bench", "config", "home", "keyfile", "passphrase", "testnet", "proof", "report", "demo", "input"})
_LOCAL: Final = frozenset({"store", "blob", "vault", "wrap", "wraps", "process", "network", "node", "rpc", "port", "tls", "handshake"})
"""Subjects of refusal codes that are said on this machine; every other subject is a rule of the network."""

_OF_CODE: Final[dict[str, int]] = {
    "bench.no-plots": LOCAL_FAULT,
    "client.other-network": WRONG_USE,
    "client.unreadable-file": WRONG_USE,
    "client.not-fhir": WRONG_USE,
    "client.fhir-too-large": WRONG_USE,
    "client.output-exists": WRONG_USE,
    "client.output-unwritable": WRONG_USE,
    "client.unknown-hospital": WRONG_USE,
    "client.not-a-node": NOT_REACHABLE,
    "client.false-answer": LOCAL_FAULT,
}
"""Codes of the SDK, which speaks of both, and what is missing on this machine."""


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of a command that ends with `error`."""
    match error:
        case Rejected():
            subject = error.code.partition(".")[0]
            if error.code in _OF_CODE:
                return _OF_CODE[error.code]
            if subject in _BAD_INPUT:
                return WRONG_USE
            return LOCAL_FAULT if subject in _LOCAL else DENIED
        case Malformed():
            return WRONG_USE
        case Unavailable() | TimeoutError() | ConnectionError():
            return NOT_REACHABLE
        case KeyboardInterrupt():
            return INTERRUPTED
        case _:
            return LOCAL_FAULT


def sentence_of(error: BaseException) -> str:
    """Return what a person reads of `error`: the family's own sentence, or for anything unexpected one that says what to do."""
    match error:
        case Rejected():
            return str(error)
        case InvariantBroken():
            return f"Stopped, to be safe: {error.message}"
        case Misbehaviour():
            return f"A hospital broke a rule: {error.message}"
        case MedchainError():
            return str(error)
        case KeyboardInterrupt():
            return "Interrupted."
        case TimeoutError():
            return "There was no answer in time: check that the node runs (`medchain node status`), then try again."
        case OSError():
            place = f" ({error.filename})" if error.filename else ""
            return f"The operating system refused: {error.strerror or type(error).__name__}{place}."
        case _:
            hint = f"Run the command again with {TRACEBACK_VARIABLE}=1 and report what it shows."
            return f"A fault of medchain itself ({type(error).__name__}). {hint}"


def code_of(error: BaseException) -> str:
    """Return the stable code of `error` for --json."""
    code = getattr(error, "code", None)
    if isinstance(code, str):
        return code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return "timeout" if isinstance(error, TimeoutError) else "local-fault"


class WrongUse(SystemExit):
    """The command line cannot be read; argparse's ending with its own sentence kept, so that --json can answer it."""

    def __init__(self, message: str) -> None:
        super().__init__(WRONG_USE)
        self.message = message


def say(message: str) -> None:
    """Write a message for people to standard error; when nobody can read it, the exit code still tells."""
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        _drop(sys.stderr)


def answer(arguments: argparse.Namespace, value: Mapping[str, Any], text: str | Iterable[str]) -> None:
    """Write the command's answer to standard output: `value` as one JSON object with --json, else `text` (one line or several).

    Bytes within `value` are written as lower-case hexadecimal text.
    """
    if is_json(arguments):
        print(as_json(value), flush=True)
    else:
        print(text if isinstance(text, str) else "\n".join(text), flush=True)


def is_json(arguments: argparse.Namespace) -> bool:
    """Whether a machine reads the answer."""
    return bool(getattr(arguments, "json", False))


def as_json(value: Any) -> str:
    """Return `value` as one line of JSON; bytes become lower-case hexadecimal text."""
    return json.dumps(value, ensure_ascii=False, default=_as_json_value)


def _as_json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def guarded(command: Callable[[], int], *, with_json: bool) -> int:
    """Run `command` and return its exit code; an error becomes a sentence on standard error (and one object on standard output)."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _drop(sys.stdout)
        return DONE
    except WrongUse as ending:
        if with_json:
            _answer_error("cli.usage", f"Wrong use: {ending.message}. See --help.")
        raise
    except SystemExit:
        raise
    except BaseException as error:
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            traceback.print_exc()
        say(f"medchain: {sentence_of(error)}")
        if with_json:
            _answer_error(code_of(error), sentence_of(error))
        return exit_code_of(error)


def open_standard_streams() -> None:
    """Make the three standard streams usable however the process was started.

    A closed one is opened to nowhere, because the next file opened would take its number and receive what was meant for a reader. A path
    that is no UTF-8 is shown with escapes, which JSON reads back.
    """
    for number, mode in ((0, "r"), (1, "w"), (2, "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            name = ("stdin", "stdout", "stderr")[number]
            if getattr(sys, name) is None:
                setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _answer_error(code: str, message: str) -> None:
    try:
        print(as_json({"error": {"code": code, "message": message}}), flush=True)
    except OSError:
        _drop(sys.stdout)


def _drop(stream: TextIO) -> None:
    """Nobody reads this stream any more: keep the interpreter from complaining about it at its end."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
