"""A key file that a command makes for somebody, or takes as given: `--out FILE` or `--key FILE`.

The file is on disk before the network hears of the key, so that no registered key is ever lost; when the network refuses, a fresh file goes
away again, and when it does not answer, the file stays, because it may be registered yet.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medchain.cli import output, passphrase
from medchain.crypto.keyfile import Identity, load_public, save_identity
from medchain.errors import Malformed, Rejected, Unavailable


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose key it is about: the file, and what is in it, unlocked, because its owner signs, too."""

    file: Path
    is_new: bool
    identity: Identity

    @property
    def public(self) -> bytes:
        """The signing key others know."""
        return self.identity.signing.public


def add_options(parser: argparse.ArgumentParser, whose: str) -> None:
    """Give a command --out, --key and --no-passphrase; --passphrase-file it has from elsewhere."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--out", metavar="FILE", help=f"make a key file for {whose}; it must not exist yet")
    which.add_argument("--key", dest="given", metavar="FILE", help=f"the key file {whose} has already")
    parser.add_argument("--no-passphrase", action="store_true", help="write the new key file unprotected, guarded by its mode 0600 alone")


@contextmanager
def subject(arguments: argparse.Namespace, role: str, near: Sequence[Path | None]) -> Iterator[Subject]:
    """Give the key, made or read and unlocked. Raises Rejected (keyfile.*, passphrase.*), Malformed."""
    folders = tuple(folder for folder in near if folder is not None)
    if arguments.given:
        yield _given(arguments, role, folders)
        return
    file = Path(arguments.out)
    identity = Identity.generate(role)
    save_identity(file, identity, passphrase.new_passphrase(arguments, folders or (file.parent,)))
    try:
        yield Subject(file, True, identity)
    except (Rejected, Malformed):
        file.unlink(missing_ok=True)
        raise
    except Unavailable:
        output.say(f"medchain: {file} is kept, because the network may have registered it: try again with --key {file}")
        raise


def _given(arguments: argparse.Namespace, role: str, folders: tuple[Path, ...]) -> Subject:
    file = Path(arguments.given)
    public = load_public(file)
    if public.role != role:
        raise Malformed(f"{file} is a key file for the role {public.role}, not for a {role}: make one with --out")
    return Subject(file, False, passphrase.open_key(arguments, file, folders))
