"""`medchain clinician`: a hospital vouches for its clinicians' keys, and takes that back."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from medchain.cli import address, newkey, output, signing, words

if TYPE_CHECKING:
    from medchain.client.node import NodeClient
    from medchain.client.wallet import Outcome, Wallet

EXPIRES_DEFAULT: Final = "365d"
SPECIALTY_DEFAULT: Final = "general"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    credential = verbs.add_parser(
        "credential",
        help="vouch for a clinician's key, fresh or given, or renew the credential",
        description="With --out: makes a key file for the clinician and credentials it. With --key: credentials the key in that file, or "
        "renews its credential. The clinician's key signs, too, for this hospital and its own opening key, so the file is unlocked.",
    )
    signing.add_options(credential, "the hospital", is_hospital=True)
    credential.add_argument("--role", required=True, help="the clinician's role, a short code such as physician")
    credential.add_argument("--specialty", default=SPECIALTY_DEFAULT, help=f"a short code (default {SPECIALTY_DEFAULT})")
    credential.add_argument(
        "--expires", default=EXPIRES_DEFAULT, metavar="WHEN", help=f"{words.MOMENT_FORMS}; no longer valid then (default {EXPIRES_DEFAULT})"
    )
    newkey.add_options(credential, "the clinician")
    revoke = verbs.add_parser("revoke", help="end a clinician's credential at once")
    signing.add_options(revoke, "the hospital that gave it", is_hospital=True)
    show = verbs.add_parser("show", help="a clinician's newest credential")
    address.add_option(show)
    for verb in (revoke, show):
        verb.add_argument("clinician", metavar="CLINICIAN", help="the clinician's key, 64 hexadecimal digits")


def run(arguments: argparse.Namespace) -> int:
    """Run a verb and return the exit code."""
    match arguments.verb:
        case "credential":
            return _credential(arguments)
        case "revoke":
            return _revoke(arguments)
        case _:
            return _show(arguments)


def _credential(arguments: argparse.Namespace) -> int:
    from medchain.client import people

    expires_ms = words.moment_ms(arguments.expires, "--expires", datetime.now(UTC))
    hospital = signing.open_identity(arguments)
    with newkey.subject(arguments, "clinician", (address.home_of(arguments),)) as clinician:

        async def story(wallet: Wallet) -> Outcome:
            return await people.credential_clinician(wallet, clinician.identity, arguments.role, arguments.specialty, expires_ms)

        outcome = signing.signed_as(arguments, hospital, story)
    facts = {
        "clinician": clinician.public, "hospital": hospital.signing.public, "role": arguments.role, "specialty": arguments.specialty,
        "expires_ms": expires_ms, "file": str(clinician.file), "transaction": outcome.transaction_id, "height": outcome.height,
    }  # fmt: skip
    lines = [
        f"clinician       {clinician.public.hex()}",
        f"role            {arguments.role} ({arguments.specialty}) until {words.moment_text(expires_ms)}",
        f"height          {outcome.height}",
    ]
    if clinician.is_new:
        lines.append(f"{clinician.file} is the clinician's key file: hand it over and keep no copy.")
    output.answer(arguments, facts, lines)
    return output.DONE


def _revoke(arguments: argparse.Namespace) -> int:
    from medchain.client import people

    clinician = words.identity(arguments.clinician, "a clinician's key")
    outcome = signing.signed(arguments, lambda wallet: people.revoke_credential(wallet, clinician))
    facts = {"clinician": clinician, "transaction": outcome.transaction_id, "height": outcome.height}
    output.answer(arguments, facts, f"The credential is revoked from block {outcome.height} on.")
    return output.DONE


def _show(arguments: argparse.Namespace) -> int:
    clinician = words.identity(arguments.clinician, "a clinician's key")

    async def story(client: NodeClient) -> dict[str, Any]:
        found: dict[str, Any] = await client.call("people.clinician", clinician=clinician)
        return found

    found = signing.asked(arguments, story)
    lines = [
        f"hospital        {found['hospital']}",
        f"role            {found['role']} ({found['specialty']}), credential {found['number']}",
        f"until           {words.moment_text(found['expires_ms'])}",
        f"valid           {'no: ' + found['code'] if found['code'] else 'yes'}",
    ]
    output.answer(arguments, found, lines)
    return output.DONE
