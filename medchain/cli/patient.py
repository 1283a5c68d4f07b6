"""`medchain patient`: a patient's key is registered at one hospital, under a pseudonym."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from medchain.cli import address, newkey, output, signing, words

if TYPE_CHECKING:
    from medchain.client.node import NodeClient
    from medchain.client.people import RegisteredPatient
    from medchain.client.wallet import Wallet


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    register = verbs.add_parser(
        "register",
        help="register a patient's key at a hospital, fresh or given",
        description="Makes a key file for the patient (or takes the one with --key) and registers it at the hospital. A patient has a "
        "fresh key at each hospital, so that no two pseudonyms can be linked.",
    )
    signing.add_options(register, "the hospital", is_hospital=True)
    newkey.add_options(register, "the patient")
    show = verbs.add_parser("show", help="where a pseudonym is registered")
    address.add_option(show)
    show.add_argument("pseudonym", metavar="PSEUDONYM", help="64 hexadecimal digits")


def run(arguments: argparse.Namespace) -> int:
    """Run a verb and return the exit code."""
    return _register(arguments) if arguments.verb == "register" else _show(arguments)


def _register(arguments: argparse.Namespace) -> int:
    from medchain.client import people

    hospital = signing.open_identity(arguments)
    with newkey.subject(arguments, "patient", (address.home_of(arguments),)) as patient:

        async def story(wallet: Wallet) -> RegisteredPatient:
            return await people.register_patient(wallet, patient.identity)

        registered = signing.signed_as(arguments, hospital, story)
    facts = {
        "pseudonym": registered.pseudonym, "hospital": registered.hospital, "file": str(patient.file), "height": registered.height,
    }  # fmt: skip
    lines = [f"pseudonym       {registered.pseudonym.hex()}", f"height          {registered.height}"]
    if patient.is_new:
        lines.append(f"{patient.file} is the patient's key file: it alone can grant and revoke, so it belongs to the patient.")
    output.answer(arguments, facts, lines)
    return output.DONE


def _show(arguments: argparse.Namespace) -> int:
    pseudonym = words.identity(arguments.pseudonym, "a pseudonym")

    async def story(client: NodeClient) -> dict[str, Any]:
        found: dict[str, Any] = await client.call("people.patient", pseudonym=pseudonym)
        return found

    found = signing.asked(arguments, story)
    lines = [f"hospital        {found['hospital']}", f"key             {found['key']}", f"since block     {found['from_height']}"]
    output.answer(arguments, found, lines)
    return output.DONE
