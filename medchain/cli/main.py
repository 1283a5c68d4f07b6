"""The `medchain` command: picks the noun, loads its module alone, runs it and turns every ending into an exit code.

Modules are loaded lazily so that a command starts within 0.3 s: one-line helps stand here, a noun's own parser is built only when it was
chosen. A noun module offers `configure(parser: ArgumentParser) -> None` and `run(arguments: Namespace) -> int`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from medchain import __version__
from medchain.cli import output


@dataclass(frozen=True, slots=True)
class Noun:
    """A group of commands: the module below medchain.cli and what it is about, in one line."""

    module: str
    help: str


NOUNS: Final[dict[str, Noun]] = {
    "testnet": Noun("testnet", "a network of hospitals on this machine: up, status, down, kill, restart"),
    "node": Noun("node", "one hospital's node: init, genesis, start, status"),
    "keys": Noun("keys", "key files: new, show"),
    "tx": Noun("tx", "transactions: show, wait, proof"),
    "verify": Noun("verify", "check a proof file offline, with the genesis document alone"),
    "sim": Noun("sim", "the deterministic simulator: run, shrink, mutants, explore"),
    "clinician": Noun("clinician", "clinicians: credential, revoke, show"),
    "patient": Noun("patient", "patients: register, show"),
    "record": Noun("record", "records: put, amend, get, show, history, list"),
    "consent": Noun("consent", "consents: grant, revoke, list, explain"),
    "access": Noun("access", "access: request, emergency, review, emergencies, trail"),
    "bench": Noun("bench", "measure on this machine: faults, micro, cluster, compare, report"),
    "evidence": Noun("evidence", "validators that contradicted themselves: list, show, verify"),
    "demo": Noun("demo", "plays the main story on four hospitals"),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line `words` (the process's own by default) and return its exit code."""
    output.open_standard_streams()
    words = list(sys.argv[1:] if words is None else words)
    with_json = "--json" in words
    return output.guarded(lambda: _run(words), with_json=with_json)


class _Parser(argparse.ArgumentParser):
    """A parser, of which verbs are made too, that keeps what it says of wrong use."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end the command."""
        output.say(f"{self.format_usage()}{self.prog}: error: {message}")
        raise output.WrongUse(message)


def _run(words: list[str]) -> int:
    chosen = next((word for word in words if not word.startswith("-")), None)
    noun = NOUNS.get(chosen) if chosen is not None else None
    if noun is None or chosen is None or words[0] != chosen:
        _overview().parse_args(words)  # --help, --version, an unknown noun: argparse answers and exits
        return output.WRONG_USE
    module: Any = importlib.import_module(f"medchain.cli.{noun.module}")
    parser = _Parser(
        prog=f"medchain {chosen}", description=noun.help, epilog=_exit_codes(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.configure(parser)
    _finish(parser)
    arguments = parser.parse_args(words[1:])
    code: int = module.run(arguments)
    return code


def _overview() -> argparse.ArgumentParser:
    width = max(map(len, NOUNS)) + 2
    table = "\n".join(f"  {name:<{width}}{noun.help}" for name, noun in NOUNS.items())
    parser = _Parser(
        prog="medchain",
        usage="medchain NOUN VERB [options]",
        description="Hospitals share patients' records on a chain of their own.",
        epilog=f"nouns (each explains itself with --help):\n{table}\n\n{_exit_codes()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"medchain {__version__}")
    parser.add_argument("noun", choices=list(NOUNS), metavar="NOUN", help="what the command is about")
    return parser


def _exit_codes() -> str:
    return "exit codes: " + ", ".join(f"{code} {meaning}" for code, meaning in output.EXIT_CODES.items())


def _finish(parser: argparse.ArgumentParser) -> None:
    """Give every command --json and the table of exit codes, whichever noun it belongs to."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for group in nested:
        for verb in dict.fromkeys(group.choices.values()):
            _finish(verb)
    if not nested and "--json" not in parser._option_string_actions:
        parser.add_argument("--json", action="store_true", help="answer with one JSON object on standard output")
    if parser.epilog is None:
        parser.epilog = _exit_codes()


if __name__ == "__main__":
    sys.exit(main())
