"""`medchain evidence`: which validators contradicted themselves, a report about it for others, and checking one offline."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medchain.cli import address, output, signing, words
from medchain.errors import Malformed, Rejected

if TYPE_CHECKING:
    from medchain.chain.genesis import Genesis
    from medchain.client.evidence import EvidenceListed
    from medchain.client.node import NodeClient
    from medchain.wire.evidence import ReportFacts


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verbs."""
    parser.description = (
        "A validator that signs two statements which contradict each other convicts itself. Nodes keep such evidence and record it on the "
        "chain, which proposes the hospital for suspension; suspending it is a vote of the others."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="all evidence: recorded on the chain, or waiting for a block at this node")
    address.add_option(listing)
    show = verbs.add_parser("show", help="one contradiction in words; with --out a report that others check offline")
    show.add_argument("id", metavar="EVIDENCE", help="id of the evidence, 64 hexadecimal digits")
    show.add_argument("--out", metavar="FILE", help="write the report (JSON); the file must not exist yet")
    address.add_option(show)
    verify = verbs.add_parser(
        "verify",
        help="check a report offline, with the genesis document alone",
        description="Checks both signatures, that the statements contradict each other, whose key signed them and, if the report says so, "
        "that the chain recorded it. A genesis document from the same stranger as the report proves nothing.",
    )
    verify.add_argument("file", metavar="REPORT", help="the report, of `medchain evidence show --out`")
    verify.add_argument("--genesis", required=True, metavar="FILE", help="the genesis document of the network")


def run(arguments: argparse.Namespace) -> int:
    """Run a verb and return the exit code."""
    match arguments.verb:
        case "list":
            return _list(arguments)
        case "show":
            return _show(arguments)
        case _:
            return _verify(arguments)


# ---- list -----------------------------------------------------------------------------------------------------------------------


def _list(arguments: argparse.Namespace) -> int:
    from medchain.client import evidence, people

    async def story(client: NodeClient) -> tuple[EvidenceListed, dict[str, str]]:
        names = {hospital.organisation_key.hex(): hospital.name for hospital in await people.list_hospitals(client)}
        return await evidence.list_evidence(client), names

    listed, names = signing.asked(arguments, story)
    lines = [f"{_row(row, names)}  recorded in block {row['from_height']}, {words.moment_text(row['time_ms'])}" for row in listed.recorded]
    lines += [f"{_row(row, names)}  waits for a block" for row in listed.pending]
    facts = {"evidence": listed.recorded, "pending": listed.pending}
    output.answer(arguments, facts, lines or "There is none: no validator was found to contradict itself.")
    return output.DONE


def _row(row: Mapping[str, Any], names: Mapping[str, str]) -> str:
    return f"{row['id']}  {row['offence']:<15}  hospital {names.get(row['hospital'], row['hospital'])} at height {row['height']}"


# ---- show -----------------------------------------------------------------------------------------------------------------------


def _show(arguments: argparse.Namespace) -> int:
    from medchain.client import evidence
    from medchain.wire.evidence import verify_report

    identity = words.identity(arguments.id, "the id of evidence")
    path = None if arguments.out is None else Path(arguments.out)
    if path is not None and path.exists():
        raise Rejected("cli.file", f"{path} exists already: choose another name.")

    async def story(client: NodeClient) -> tuple[bytes, Genesis]:
        return await evidence.evidence_report(client, identity), (await client.facts()).genesis

    report, genesis = signing.asked(arguments, story)
    facts = verify_report(report, genesis)
    if path is not None:
        _write(path, report)
    value = _value(facts) | ({} if path is None else {"file": str(path), "bytes": len(report)})
    lines = _lines(facts, genesis)
    if path is not None:
        lines.append(f"report          {path}, {len(report)} bytes; others check it with: medchain evidence verify")
    output.answer(arguments, value, lines)
    return output.DONE


def _write(path: Path, report: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(report)
    except FileExistsError:
        raise Rejected("cli.file", f"{path} exists already: choose another name.") from None
    except OSError as error:
        raise Rejected("cli.file", f"{path} cannot be written: {error.strerror}.") from None


# ---- verify ---------------------------------------------------------------------------------------------------------------------


def _verify(arguments: argparse.Namespace) -> int:
    from medchain.node.home import load_genesis
    from medchain.wire.evidence import verify_report

    genesis = load_genesis(Path(arguments.genesis))
    data = _read(Path(arguments.file))
    try:
        facts = verify_report(data, genesis)
    except Malformed as error:
        raise Malformed(f"{arguments.file} is no evidence report, or was damaged: get it again ({error.message})") from None
    output.answer(arguments, {"verified": True, **_value(facts)}, ["The report holds.", *_lines(facts, genesis)])
    return output.DONE


def _read(path: Path) -> bytes:
    from medchain.wire.evidence import REPORT_BYTES_MAX

    try:
        with path.open("rb") as file:
            return file.read(REPORT_BYTES_MAX + 1)
    except OSError as error:
        raise Rejected("cli.file", f"{path} cannot be read: {error.strerror}.") from None


# ---- words ----------------------------------------------------------------------------------------------------------------------


def _value(facts: ReportFacts) -> dict[str, Any]:
    from medchain.wire.evidence import rule_of, says

    contradiction, recorded = facts.contradiction, facts.recorded
    return {
        "id": contradiction.digest(),
        "offence": contradiction.offence,
        "hospital": facts.hospital,
        "organisation_key": facts.organisation_key,
        "consensus_key": contradiction.offender,
        "height": contradiction.height,
        "rule": rule_of(contradiction),
        "statements": [says(contradiction.first), says(contradiction.second)],
        "is_recorded": recorded is not None,
        "from_height": None if recorded is None else recorded.from_height,
        "time_ms": None if recorded is None else recorded.time_ms,
        "proven_height": None if recorded is None else recorded.proven_height,
    }


def _lines(facts: ReportFacts, genesis: Genesis) -> list[str]:
    from medchain.wire.evidence import rule_of, says

    contradiction, recorded = facts.contradiction, facts.recorded
    lines = [
        f"evidence        {contradiction.digest().hex()}",
        f"network         {genesis.chain_id}, genesis {genesis.digest().hex()}",
        f"hospital        {facts.hospital}, consensus key {contradiction.offender.hex()}",
        f"offence         {contradiction.offence} at height {contradiction.height}",
        f"signed          {says(contradiction.first)}",
        f"and signed      {says(contradiction.second)}",
        f"rule            {rule_of(contradiction)}",
    ]
    if recorded is None:
        return [*lines, "on the chain    not yet, or not asked for: the signatures convict without it"]
    moment = words.moment_text(recorded.time_ms)
    return [*lines, f"on the chain    block {recorded.from_height} of {moment}, proven by block {recorded.proven_height}"]
