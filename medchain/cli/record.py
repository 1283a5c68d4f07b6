"""`medchain record`: sealing a file into custody, reading one under a permit, and what the chain says of a record."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medchain.cli import address, output, signing, words
from medchain.cli.happenings import Namer, line_of, summary_of
from medchain.cli.progress import Progress, amount

if TYPE_CHECKING:
    from medchain.client.node import NodeClient
    from medchain.client.records import ReadRecord, StoredRecord
    from medchain.client.wallet import Wallet


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    put = verbs.add_parser("put", help="seal a file and put it into the custody of the patient's hospital")
    put.add_argument("file", metavar="FILE", help="the file; it is sealed here, so no plaintext leaves this machine")
    put.add_argument("--patient", required=True, metavar="PSEUDONYM", help="whose record it is, 64 hexadecimal digits")
    put.add_argument("--category", required=True, help="what consents speak of, a short code such as general")
    put.add_argument("--kind", help="a short code (default: fhir-bundle for .json, which is checked to be FHIR; else file)")
    amend = verbs.add_parser("amend", help="put a new version of a record")
    amend.add_argument("record", metavar="RECORD", help="record id, 64 hexadecimal digits")
    amend.add_argument("file", metavar="FILE", help="the file with the new version")
    for verb in (put, amend):
        verb.add_argument("--date", metavar="YYYY-MM", help="month the content is about (default: this month)")
        signing.add_options(verb, "the author: the hospital or a clinician it credentialed", is_hospital=True)
    get = verbs.add_parser("get", help="read a record under a permit into a new file, and confirm the reading")
    get.add_argument("--out", required=True, metavar="FILE", help="where to write it: it appears whole or not at all, never over another")
    get.add_argument("--permit", metavar="PERMIT", help="the permit to read under (default: the newest that stands)")
    signing.add_options(get, "the clinician")
    show = verbs.add_parser("show", help="what the chain says of a record: versions, custodian, holders")
    history = verbs.add_parser("history", help="what happened to a record")
    for verb in (get, show, history):
        verb.add_argument("record", metavar="RECORD", help="record id, 64 hexadecimal digits")
    listing = verbs.add_parser("list", help="all records of a patient")
    listing.add_argument("patient", metavar="PSEUDONYM", help="64 hexadecimal digits")
    for verb in (show, history, listing):
        address.add_option(verb)


def run(arguments: argparse.Namespace) -> int:
    """Run a verb and return the exit code."""
    match arguments.verb:
        case "put" | "amend":
            return _put(arguments)
        case "get":
            return _get(arguments)
        case "show":
            return _show(arguments)
        case "history":
            return _history(arguments)
        case _:
            return _list(arguments)


# ---- putting and getting -----------------------------------------------------------------------------------------------------


def _put(arguments: argparse.Namespace) -> int:
    from medchain.actions.records import coarse_date_of
    from medchain.client import records

    file = Path(arguments.file)
    date = coarse_date_of(*words.month(arguments.date, "--date")) if arguments.date else None

    async def put(wallet: Wallet) -> StoredRecord:
        pseudonym = words.identity(arguments.patient, "a pseudonym")
        with _bars() as bars:
            return await records.put_record(
                wallet, file, pseudonym=pseudonym, category=arguments.category, kind=arguments.kind, coarse_date=date, progress=bars
            )

    async def amend(wallet: Wallet) -> StoredRecord:
        record = words.identity(arguments.record, "a record id")
        row = (await records.proven_record(wallet.client, record)).row
        with _bars() as bars:
            return await records.put_record(
                wallet, file, pseudonym=row.pseudonym, category=row.category, kind=row.kind, record=record, coarse_date=date, progress=bars
            )

    stored = signing.signed(arguments, put if arguments.verb == "put" else amend)
    facts = {
        "record": stored.record, "version": stored.version, "root": stored.root, "height": stored.height, "kind": stored.kind,
        "bytes": stored.plaintext_bytes,
    }  # fmt: skip
    lines = [
        f"record          {stored.record.hex()}",
        f"version         {stored.version} ({stored.kind}, {amount(stored.plaintext_bytes)})",
        f"root            {stored.root.hex()}",
        f"height          {stored.height}",
    ]
    output.answer(arguments, facts, lines)
    return output.DONE


def _get(arguments: argparse.Namespace) -> int:
    from medchain.client import records

    record = words.identity(arguments.record, "a record id")
    permit = words.identity(arguments.permit, "a permit's id") if arguments.permit else None

    async def get(wallet: Wallet) -> ReadRecord:
        with _bars() as bars:
            return await records.get_record(wallet, record, Path(arguments.out), permit=permit, progress=bars)

    found = signing.signed(arguments, get)
    facts = {
        "record": found.record, "version": found.version, "root": found.root, "kind": found.kind, "bytes": found.plaintext_bytes,
        "permit": found.permit, "receipt_height": found.receipt_height, "file": arguments.out,
    }  # fmt: skip
    receipt = "confirmed before" if found.receipt_height is None else f"confirmed in block {found.receipt_height}"
    lines = [
        f"{arguments.out} written: version {found.version} ({found.kind}, {amount(found.plaintext_bytes)})",
        f"root            {found.root.hex()}, checked",
        f"reading         {receipt}",
    ]
    output.answer(arguments, facts, lines)
    return output.DONE


class _Bars:
    """Draws one bar after the other, each for a step of long work."""

    def __init__(self) -> None:
        self._step = ""
        self._bar: Progress | None = None

    def __call__(self, step: str, done: int, total: int) -> None:
        if step != self._step:
            self.end()
            self._step, self._bar = step, Progress(f"{step:<8}", total)
        if self._bar is not None:
            self._bar(done)

    def end(self) -> None:
        """End the bar that is drawn."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


@contextmanager
def _bars() -> Iterator[_Bars]:
    bars = _Bars()
    try:
        yield bars
    finally:
        bars.end()


# ---- what the chain says -----------------------------------------------------------------------------------------------------


async def _namer(client: NodeClient) -> Namer:
    from medchain.client import people

    return Namer({hospital.organisation_key: hospital.name for hospital in await people.list_hospitals(client)})


def _show(arguments: argparse.Namespace) -> int:
    record = words.identity(arguments.record, "a record id")

    async def story(client: NodeClient) -> tuple[dict[str, Any], Namer]:
        return await client.call("records.get", record=record), await _namer(client)

    found, namer = signing.asked(arguments, story)
    for version in found["versions"]:
        version["holder_names"] = [namer.of(holder) for holder in version["holders"]]
    lines = [
        f"patient         {found['pseudonym']}",
        f"custodian       {namer.of(found['custodian'])}",
        f"category        {found['category']}, kind {found['kind']}",
    ]
    for version in found["versions"]:
        held = ", ".join(version["holder_names"]) or "nobody yet"
        lines += [f"version {version['version']:<8}root {version['root']}", f"                at most {amount(2 ** version['size_class'])}"]
        lines += [f"                block {version['from_height']}, epoch {version['epoch']}, held by {held}"]
    output.answer(arguments, found, lines)
    return output.DONE


def _history(arguments: argparse.Namespace) -> int:
    from medchain.client import records

    record = words.identity(arguments.record, "a record id")

    async def story(client: NodeClient) -> tuple[list[dict[str, Any]], Namer]:
        await client.call("records.get", record=record)  # an unknown record is no empty history
        return await records.record_history(client, record), await _namer(client)

    events, namer = signing.asked(arguments, story)
    for event in events:
        event["summary"] = summary_of(event["kind"], event["fields"], namer)
    lines = [line_of(event) for event in events]
    output.answer(arguments, {"record": record, "count": len(events), "events": events}, lines)
    return output.DONE


def _list(arguments: argparse.Namespace) -> int:
    from medchain.client import records

    pseudonym = words.identity(arguments.patient, "a pseudonym")

    async def story(client: NodeClient) -> tuple[list[dict[str, Any]], Namer]:
        return await records.list_records(client, pseudonym), await _namer(client)

    found, namer = signing.asked(arguments, story)
    lines = [
        f"{row['record']}  {row['category']} {row['kind']}, version {row['version']}, at {namer.of(row['custodian'])}" for row in found
    ]
    output.answer(arguments, {"pseudonym": pseudonym, "records": found}, lines or "There are no records.")
    return output.DONE
