"""`medchain access`: asking for a record, breaking the glass, reviewing, and reading the trail of it all."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from medchain.cli import address, output, signing, words
from medchain.cli.happenings import Namer, line_of, summary_of
from medchain.ledger.emergencies import JUSTIFIED, REASONS, UNJUSTIFIED
from medchain.ledger.payload import EMERGENCY, PURPOSES

if TYPE_CHECKING:
    from medchain.client.access import Trail, Verdict
    from medchain.client.node import NodeClient
    from medchain.client.wallet import Wallet


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    purposes = tuple(purpose for purpose in PURPOSES if purpose != EMERGENCY)
    request = verbs.add_parser("request", help="ask for the newest version of a record; exit 1 when the answer is a denial")
    request.add_argument("--purpose", required=True, choices=purposes, help="what for: " + ", ".join(purposes))
    request.add_argument("--role", help="role to ask under (default: that of the credential)")
    emergency = verbs.add_parser("emergency", help="break the glass: read without consent; a review opens by itself")
    emergency.add_argument("--reason", required=True, choices=REASONS, help="why the patient cannot be asked: " + ", ".join(REASONS))
    for verb in (request, emergency):
        verb.add_argument("record", metavar="RECORD", help="record id, 64 hexadecimal digits")
        signing.add_options(verb, "the clinician")
    review = verbs.add_parser("review", help="judge an emergency, as the patient's hospital")
    review.add_argument("permit", metavar="PERMIT", help="the emergency's permit id, 64 hexadecimal digits")
    review.add_argument("--outcome", required=True, choices=(JUSTIFIED, UNJUSTIFIED), help="unjustified ends its permit at once")
    signing.add_options(review, "the hospital", is_hospital=True)
    emergencies = verbs.add_parser("emergencies", help="broken glasses and their reviews")
    emergencies.add_argument("--open", action="store_true", help="only those that await review")
    address.add_option(emergencies)
    trail = verbs.add_parser(
        "trail",
        help="read everything that happened to a patient's records, or to one record, proven complete",
        description="Puts the reading itself on the trail, then checks that the events are all there, unchanged and in order, against the "
        "trail's digest in the certified state.",
    )
    trail.add_argument("subject", metavar="SUBJECT", help="pseudonym or record id, 64 hexadecimal digits")
    signing.add_options(trail, "the patient, or the patient's hospital")


def run(arguments: argparse.Namespace) -> int:
    """Run a verb and return the exit code."""
    match arguments.verb:
        case "request" | "emergency":
            return _decide(arguments)
        case "review":
            return _review(arguments)
        case "emergencies":
            return _emergencies(arguments)
        case _:
            return _trail(arguments)


def _decide(arguments: argparse.Namespace) -> int:
    """Answer with the verdict: exit 0 for a permit, 1 for a denial, which is final and on the trail like a permit."""
    from medchain.client import access

    record = words.identity(arguments.record, "a record id")

    async def story(wallet: Wallet) -> Verdict:
        if arguments.verb == "emergency":
            return await access.declare_emergency(wallet, record, arguments.reason)
        return await access.request_access(wallet, record, arguments.purpose, arguments.role)

    verdict = signing.signed(arguments, story)
    facts = {
        "result": "permit" if verdict.is_permit else "deny",
        "code": verdict.code,
        "consent": verdict.consent or None,
        "permit": verdict.permit or None,
        "versions": list(verdict.versions),
        "expires_ms": verdict.expires_ms or None,
        "transaction": verdict.transaction_id,
        "height": verdict.height,
    }
    if verdict.is_permit:
        lines = [
            f"permit          {verdict.permit.hex()}",
            f"until           {words.moment_text(verdict.expires_ms)}, for version {', '.join(map(str, verdict.versions))}",
        ]
    else:
        lines = [f"denied          {verdict.code}: {_meaning(verdict.code)}"]
    output.answer(arguments, facts, [*lines, f"height          {verdict.height}"])
    return output.DONE if verdict.is_permit else output.DENIED


def _meaning(code: str) -> str:
    from medchain.client.wallet import refusal_sentence

    return refusal_sentence(code)


def _review(arguments: argparse.Namespace) -> int:
    from medchain.client import access

    permit = words.identity(arguments.permit, "a permit's id")
    outcome = signing.signed(arguments, lambda wallet: access.review(wallet, permit, arguments.outcome))
    facts = {"permit": permit, "outcome": arguments.outcome, "transaction": outcome.transaction_id, "height": outcome.height}
    output.answer(arguments, facts, f"The emergency is reviewed as {arguments.outcome} in block {outcome.height}.")
    return output.DONE


def _emergencies(arguments: argparse.Namespace) -> int:
    from medchain.client.node import all_pages

    async def story(client: NodeClient) -> list[dict[str, Any]]:
        return await all_pages(client, "access.emergencies", "emergencies", is_open=bool(arguments.open))

    found = signing.asked(arguments, story)
    lines = [
        f"{row['permit']}  {row['reason']}  {'overdue' if row['is_overdue'] and not row['outcome'] else row['outcome'] or 'open'}, "
        f"due {words.moment_text(row['due_ms'])}"
        for row in found
    ]
    output.answer(arguments, {"emergencies": found}, lines or "There are none.")
    return output.DONE


def _trail(arguments: argparse.Namespace) -> int:
    from medchain.client import access, people

    subject = words.identity(arguments.subject, "a pseudonym or record id")

    async def story(wallet: Wallet) -> tuple[Trail, Namer]:
        trail = await access.read_trail(wallet, subject)
        hospitals = await people.list_hospitals(wallet.client)
        return trail, Namer({hospital.organisation_key: hospital.name for hospital in hospitals})

    trail, namer = signing.signed(arguments, story)
    rows: list[dict[str, Any]] = [
        {
            "index": event.index, "height": event.height, "time_ms": event.time_ms, "kind": event.kind, "fields": event.fields,
            "summary": summary_of(event.kind, event.fields, namer),
        }
        for event in trail.events
    ]  # fmt: skip
    facts = {
        "subject": trail.subject, "count": trail.count, "digest": trail.digest, "height": trail.height, "block": trail.block,
        "is_verified": True, "events": rows,
    }  # fmt: skip
    lines = [line_of(row) for row in rows]
    lines.append(f"{trail.count} events, proven complete up to block {trail.height}")
    output.answer(arguments, facts, lines)
    return output.DONE
