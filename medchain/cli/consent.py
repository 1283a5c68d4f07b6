"""`medchain consent`: the patient grants and revokes; anybody may ask what a consent says and why a request would be answered so."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medchain.cli import address, output, signing, words
from medchain.crypto.keyfile import load_public
from medchain.ledger.payload import PURPOSES
from medchain.ledger.people import pseudonym_of

if TYPE_CHECKING:
    from medchain.client.consents import Granted
    from medchain.client.node import NodeClient
    from medchain.client.wallet import Wallet


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    grant = verbs.add_parser("grant", help="permit a clinician, or all clinicians of a hospital, one purpose on one category for a time")
    signing.add_options(grant, "the patient")
    grant.add_argument("--to", required=True, metavar="GRANTEE", help="a clinician's key or key file, or a hospital's name or key")
    grant.add_argument("--purpose", required=True, choices=PURPOSES, help="what for: " + ", ".join(PURPOSES))
    grant.add_argument("--category", required=True, help="which records, a short code such as general")
    grant.add_argument("--until", required=True, metavar="WHEN", help=f"no longer permits then: {words.MOMENT_FORMS}")
    grant.add_argument("--from", dest="begin", metavar="WHEN", help="begins to permit then (default: at once)")
    revoke = verbs.add_parser("revoke", help="end a consent; from the next block on it permits nothing")
    signing.add_options(revoke, "the patient")
    revoke.add_argument("consent", metavar="CONSENT", help="the consent's id, 64 hexadecimal digits")
    listing = verbs.add_parser("list", help="all consents of a patient")
    listing.add_argument("patient", metavar="PATIENT", help="pseudonym, 64 hexadecimal digits, or the patient's key file")
    explain = verbs.add_parser("explain", help="what a request would be answered now, and why; writes nothing")
    explain.add_argument("record", metavar="RECORD", help="record id, 64 hexadecimal digits")
    explain.add_argument("--clinician", required=True, metavar="CLINICIAN", help="the clinician's key or key file")
    explain.add_argument("--purpose", required=True, choices=PURPOSES, help="what for")
    explain.add_argument("--role", help="role asked under (default: that of the credential)")
    for verb in (listing, explain):
        address.add_option(verb)


def run(arguments: argparse.Namespace) -> int:
    """Run a verb and return the exit code."""
    match arguments.verb:
        case "grant":
            return _grant(arguments)
        case "revoke":
            return _revoke(arguments)
        case "list":
            return _list(arguments)
        case _:
            return _explain(arguments)


def public_key(text: str, what: str) -> bytes:
    """Return the signing key that `text` names: 64 hexadecimal digits, or a key file. Raises Rejected keyfile.*, Malformed."""
    if not words.is_identity(text) and Path(text).is_file():
        return load_public(text).public
    return words.identity(text, what)


def _grant(arguments: argparse.Namespace) -> int:
    from medchain.client import consents, people

    now = datetime.now(UTC)
    until_ms = words.moment_ms(arguments.until, "--until", now)
    from_ms = words.moment_ms(arguments.begin, "--from", now) if arguments.begin else 0

    async def story(wallet: Wallet) -> tuple[bytes, Granted]:
        if words.is_identity(arguments.to) or Path(arguments.to).is_file():
            grantee = public_key(arguments.to, "the grantee")
        else:
            grantee = (await people.find_hospital(wallet.client, arguments.to)).organisation_key
        granted = await consents.grant(
            wallet, grantee, purpose=arguments.purpose, category=arguments.category, until_ms=until_ms, from_ms=from_ms
        )
        return grantee, granted

    grantee, granted = signing.signed(arguments, story)
    facts = {
        "consent": granted.consent, "grantee_kind": granted.grantee_kind, "grantee": grantee, "purpose": arguments.purpose,
        "category": arguments.category, "from_ms": from_ms, "until_ms": until_ms, "transaction": granted.transaction_id,
        "height": granted.height,
    }  # fmt: skip
    lines = [
        f"consent         {granted.consent.hex()}",
        f"permits         {granted.grantee_kind} {grantee.hex()}",
        f"for             {arguments.purpose} of {arguments.category} until {words.moment_text(until_ms)}",
        f"height          {granted.height}",
    ]
    output.answer(arguments, facts, lines)
    return output.DONE


def _revoke(arguments: argparse.Namespace) -> int:
    from medchain.client import consents

    consent = words.identity(arguments.consent, "a consent's id")
    outcome = signing.signed(arguments, lambda wallet: consents.revoke(wallet, consent))
    facts = {"consent": consent, "transaction": outcome.transaction_id, "height": outcome.height}
    output.answer(arguments, facts, f"The consent is revoked in block {outcome.height}; from now on it permits nothing.")
    return output.DONE


def _list(arguments: argparse.Namespace) -> int:
    from medchain.client import consents

    is_file = not words.is_identity(arguments.patient) and Path(arguments.patient).is_file()
    key = load_public(arguments.patient).public if is_file else b""
    pseudonym = pseudonym_of(key) if is_file else words.identity(arguments.patient, "a pseudonym")

    async def story(client: NodeClient) -> list[dict[str, Any]]:
        return await consents.list_consents(client, pseudonym)

    found = signing.asked(arguments, story)
    lines = [
        f"{row['consent'][:16]}…  {row['status']:<9}  {row['purpose']} of {row['category']} to {row['grantee_kind']} "
        f"{row['grantee'][:16]}… until {words.moment_text(row['until_ms'])}"
        for row in found
    ]
    output.answer(arguments, {"pseudonym": pseudonym, "consents": found}, lines or "There are no consents.")
    return output.DONE


def _explain(arguments: argparse.Namespace) -> int:
    """Answer what would be; exit 1 for a denial, as the request itself would."""
    from medchain.client import consents

    clinician = public_key(arguments.clinician, "a clinician's key")
    record = words.identity(arguments.record, "a record id")

    async def story(client: NodeClient) -> dict[str, Any]:
        return await consents.explain(client, clinician, record, arguments.purpose, arguments.role)

    found = signing.asked(arguments, story)
    lines = [f"{'permit' if found['permit'] else 'deny ' + found['code']} as of block {found['height']}"]
    lines += [f"  consent {step['consent'][:16]}…  {step['code'] or 'permits'}" for step in found["trace"]]
    output.answer(arguments, found, lines)
    return output.DONE if found["permit"] else output.DENIED
