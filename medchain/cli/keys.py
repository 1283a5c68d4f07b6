"""`medchain keys`: make a key file, show what everyone may know of one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from medchain.cli import output, passphrase
from medchain.crypto import keyfile
from medchain.crypto.keyfile import Identity, PublicIdentity


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    new = verbs.add_parser(
        "new", help="make a key file with fresh keys", description="Makes a signing key and an opening key in one file, 0600."
    )
    new.add_argument("--role", required=True, choices=keyfile.ROLES, help="whose keys they are")
    new.add_argument("--out", required=True, metavar="FILE", help="the key file; it must not exist yet")
    passphrase.add_new_key_options(new)
    show = verbs.add_parser(
        "show", help="show role and public keys", description="Shows the public part of a key file; needs no passphrase."
    )
    show.add_argument("file", metavar="FILE", help="a key file")
    show.add_argument("--check", action="store_true", help="also unlock it, which proves that the public part is its own")
    passphrase.add_option(show)


def run(arguments: argparse.Namespace) -> int:
    """Run a verb and return the exit code."""
    if arguments.verb == "new":
        return _new(arguments)
    return _show(arguments)


def _new(arguments: argparse.Namespace) -> int:
    path = Path(arguments.out)
    secret = passphrase.new_passphrase(arguments, (path.parent,))
    identity = Identity.generate(arguments.role)
    keyfile.save_identity(path, identity, secret)
    facts = {"file": str(path), **_facts(identity.public_identity()), "is_protected": secret is not None}
    output.answer(arguments, facts, [f"{path} written", *_lines(identity.public_identity())])
    return output.DONE


def _show(arguments: argparse.Namespace) -> int:
    path = Path(arguments.file)
    public = passphrase.open_key(arguments, path).public_identity() if arguments.check else keyfile.load_public(path)
    output.answer(arguments, {"file": str(path), **_facts(public)}, _lines(public))
    return output.DONE


def _facts(public: PublicIdentity) -> dict[str, Any]:
    return {
        "role": public.role, "public": public.public, "opening_suite": public.opening_suite, "opening_public": public.opening_public,
    }  # fmt: skip


def _lines(public: PublicIdentity) -> list[str]:
    return [f"role            {public.role}", f"public key      {public.public.hex()}", f"opening suite   {public.opening_suite}"]
