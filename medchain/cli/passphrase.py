"""Where the passphrase of a key file comes from, the same for every command, and opening key files with it.

In this order: --passphrase-file, the variable MEDCHAIN_PASSPHRASE, the file `passphrase` beside a testnet's node folders, a question on the
terminal; else Rejected. A passphrase is never taken from the command line, where every user of the machine could read it.
"""

from __future__ import annotations

import argparse
import getpass
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from medchain.errors import Rejected

if TYPE_CHECKING:
    from medchain.crypto.keyfile import Identity

VARIABLE: Final = "MEDCHAIN_PASSPHRASE"
FILE_NAME: Final = "passphrase"
FILE_BYTES_MAX: Final = 4096

REFUSALS: Final[dict[str, str]] = {
    "passphrase.missing": "A passphrase is needed and none can be found or asked for.",
    "passphrase.unreadable": "The passphrase file is not there, cannot be read, or is not one line of text.",
    "passphrase.permissions": "Others may read or change the passphrase file.",
    "passphrase.mismatch": "The passphrase and its repetition differ.",
}


def add_option(parser: argparse.ArgumentParser) -> None:
    """Give a command the option --passphrase-file."""
    parser.add_argument(
        "--passphrase-file", metavar="FILE", help=f"file with the passphrase of the key files (else {VARIABLE}, else asked on the terminal)"
    )


def add_new_key_options(parser: argparse.ArgumentParser) -> None:
    """Give a command that writes a key file its options: --passphrase-file and --no-passphrase."""
    add_option(parser)
    parser.add_argument("--no-passphrase", action="store_true", help="write the new key file unprotected, guarded by its mode 0600 alone")


def find_passphrase(arguments: argparse.Namespace, near: Iterable[Path] = ()) -> str | None:
    """Return the passphrase without asking anybody, None when there is none.

    `near` are folders of nodes or key files; the file `passphrase` is looked for beside each (a testnet has it there).
    Raises Rejected: passphrase.unreadable, passphrase.permissions.
    """
    named = getattr(arguments, "passphrase_file", None)
    if named:
        return _read(Path(named))
    if VARIABLE in os.environ:
        return os.environ[VARIABLE]
    for folder in near:
        candidate = folder.resolve().parent / FILE_NAME
        if candidate.is_file():
            return _read(candidate)
    return None


def passphrase_of(arguments: argparse.Namespace, near: Iterable[Path] = (), *, purpose: str = "the keys") -> str:
    """Return the passphrase, asking on the terminal when it is nowhere else. Raises Rejected passphrase.missing and as find_passphrase."""
    found = find_passphrase(arguments, near)
    if found is not None:
        return found
    if not sys.stdin.isatty():
        raise Rejected("passphrase.missing", f"The passphrase of {purpose} is needed: give --passphrase-file FILE or set {VARIABLE}.")
    return getpass.getpass(f"Passphrase of {purpose}: ")


def new_passphrase(arguments: argparse.Namespace, near: Iterable[Path] = ()) -> str | None:
    """Return the passphrase for a new key file, None when --no-passphrase was given; on a terminal it is asked twice.

    Raises Rejected: passphrase.missing, passphrase.mismatch and as find_passphrase.
    """
    if getattr(arguments, "no_passphrase", False):
        return None
    found = find_passphrase(arguments, near)
    if found is not None:
        return found
    if not sys.stdin.isatty():
        raise Rejected(
            "passphrase.missing", f"A new key file needs a passphrase: give --passphrase-file FILE, set {VARIABLE}, or add --no-passphrase."
        )
    first = getpass.getpass("Passphrase for the new key file: ")
    if getpass.getpass("The same once more: ") != first:
        raise Rejected("passphrase.mismatch", "The two passphrases differ; nothing was written, try again.")
    return first


def open_key(arguments: argparse.Namespace, path: str | Path, near: Iterable[Path] = ()) -> Identity:
    """Return the identity in the key file `path`; a passphrase is looked for only when the file is protected.

    Raises Rejected (keyfile.*, passphrase.*) and Malformed for a damaged file.
    """
    from medchain.crypto.keyfile import load_identity

    file = Path(path)
    try:
        return load_identity(file, None)
    except Rejected as refusal:
        if refusal.code != "keyfile.locked":
            raise
    return load_identity(file, passphrase_of(arguments, (file.parent, *near), purpose=f"the key file {file}"))


def _read(path: Path) -> str:
    """Return the one line of a passphrase file."""
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise Rejected("passphrase.permissions", f"Others may read {path}: run `chmod 600 {path}`, then try again.")
            content = file.read(FILE_BYTES_MAX + 1)
        text = content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise Rejected("passphrase.unreadable", f"The passphrase file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        text = ""
    if not text or len(content) > FILE_BYTES_MAX or "\n" in text:
        raise Rejected("passphrase.unreadable", f"The passphrase file {path} must hold exactly one line of text.")
    return text
