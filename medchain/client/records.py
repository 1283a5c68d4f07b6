"""Stories about records: sealing a file into custody and reading one under a permit. Constant memory, whatever the size.

The plaintext is read here and appears here, never at a node: what is sent is ciphertext, and a data key sealed to one reader. What a
record is (root, epoch, custodian) is taken from the state under a certificate, so a node cannot hand out another one.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from medchain.actions.custody import make_put_request, make_release_request, open_release
from medchain.actions.records import coarse_date_of, size_class_of, sorted_tokens
from medchain.chain import limits
from medchain.client.files import (
    FHIR_BUNDLE,
    Output,
    check_fhir,
    check_output,
    kind_of_file,
    scratch_file,
    scratch_folder,
    size_of,
    unreadable,
)
from medchain.client.node import NodeClient, all_pages, bytes_of, digest_of, list_of, uint_of
from medchain.client.people import find_hospital, patient_hospital
from medchain.client.permits import StandingPermit, confirm_reading, find_permit
from medchain.client.transfer import download_into, upload_from
from medchain.client.wallet import RUN_TIMEOUT_MS, Wallet, rule_refusal
from medchain.crypto.sealing import OpeningKey
from medchain.crypto.streams import LENGTH_BYTES, SEGMENTS_MAX, TAG_BYTES, SealedStream, generate_data_key, open_stream, seal_stream
from medchain.errors import Malformed, Rejected, Unavailable
from medchain.ledger import rows
from medchain.ledger.records import RecordRow, VersionRow
from medchain.ledger.rows import decode_row, uint32
from medchain.wire.custody import REQUEST_BYTES_MAX, PutRequest, Release, ReleaseInfo, reader_key_digest

Progress = Callable[[str, int, int], None]
"""Told (step, bytes done, bytes in all) during long work, perhaps from a worker thread; steps are SEAL, UPLOAD, FETCH, DOWNLOAD, OPEN."""

SEAL: Final = "seal"
UPLOAD: Final = "upload"
FETCH: Final = "fetch"
DOWNLOAD: Final = "download"
OPEN: Final = "open"

FETCH_IDLE_MS: Final = 120_000
"""The hospital's vault gets nothing of a record for so long: whoever holds it is away."""
_FETCH_PAUSE_S: Final = 0.1
_FETCH_PAUSE_MAX_S: Final = 1.0
_SEALED_EXTRA_BYTES: Final = LENGTH_BYTES + 128
"""Header and its length, the most there can be."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record version that is registered and in custody."""

    record: bytes
    version: int
    root: bytes
    height: int
    kind: str
    plaintext_bytes: int


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """A record version that was opened."""

    record: bytes
    version: int
    root: bytes
    kind: str
    plaintext_bytes: int
    permit: bytes
    receipt_height: int | None
    """Height of the read receipt; None when this reading was confirmed under the permit before."""


@dataclass(frozen=True, slots=True)
class RecordFacts:
    """A record and one of its versions, proven under a certificate."""

    record: bytes
    row: RecordRow
    version: int
    version_row: VersionRow
    height: int


def _silent(step: str, done: int, total: int) -> None:
    """Show nothing."""


# ---- putting ----------------------------------------------------------------------------------------------------------------


async def put_record(
    author: Wallet,
    path: Path,
    *,
    pseudonym: bytes,
    category: str,
    kind: str | None = None,
    record: bytes | None = None,
    coarse_date: int | None = None,
    label_tokens: tuple[bytes, ...] = (),
    progress: Progress = _silent,
) -> StoredRecord:
    """Seal a file and put it into the custody of the patient's hospital, at whose node the author's wallet is.

    The author is the hospital itself or a clinician it credentialed. `kind` None = told by the file's name; `fhir-bundle` is checked to be
    FHIR JSON. With `record` a new version of it is put, else a new record with a random id. `coarse_date` is year * 100 + month, this month
    by default. Raises Rejected, Unavailable or Malformed; then nothing is registered, and what was uploaded is of no use to anybody.
    """
    plaintext_bytes = await asyncio.to_thread(size_of, path)
    kind = kind or kind_of_file(path)
    if kind == FHIR_BUNDLE:
        await asyncio.to_thread(check_fhir, path)
    client = author.client
    custodian = await find_hospital(client, await patient_hospital(client, pseudonym))
    version = 1 if record is None else (await proven_record(client, record)).version + 1
    identity = record or secrets.token_bytes(limits.DIGEST_BYTES)
    data_key = generate_data_key()
    with scratch_file(scratch_folder(path)) as sealed:
        stream = await _seal(path, plaintext_bytes, data_key, identity, sealed, progress)
        await upload_from(client, stream.root, sealed, stream.sealed_bytes, lambda done: progress(UPLOAD, done, stream.sealed_bytes))
    request = PutRequest(
        record=identity,
        version=version,
        pseudonym=pseudonym,
        category=category,
        kind=kind,
        size_class=size_class_of(plaintext_bytes),
        root=stream.root,
        segment_count=stream.segment_count,
        author=author.public,
        coarse_date=_this_month() if coarse_date is None else coarse_date,
        label_tokens=sorted_tokens(label_tokens),
        sealed_key=b"",
    )
    network = (await client.facts()).network
    signed = make_put_request(network, request, author.identity.signing, data_key, custodian.opening_suite, custodian.opening_key)
    answer = await client.call("records.put", request=signed.encode())
    height = uint_of(answer, "height")
    facts = await proven_record(client, identity, version, from_height=height)
    if facts.version_row.root != stream.root or facts.row.pseudonym != pseudonym:
        raise Rejected("client.false-answer", "the chain holds another record than the one that was put: do not use this node")
    return StoredRecord(identity, version, stream.root, height, kind, plaintext_bytes)


async def _seal(path: Path, plaintext_bytes: int, data_key: bytes, record: bytes, sealed: BinaryIO, progress: Progress) -> SealedStream:
    """Seal the file into the scratch file, in a worker thread."""

    def work() -> SealedStream:
        with path.open("rb", buffering=0) as source:
            stream = seal_stream(
                source, plaintext_bytes, data_key, record, sealed, lambda done: progress(SEAL, done, plaintext_bytes), workers=_workers()
            )
        sealed.flush()
        return stream

    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise unreadable(path, error) from None


def _workers() -> int:
    """Threads that seal or open: as many as there are cores, up to four; each holds a few MiB."""
    return max(1, min(4, os.cpu_count() or 1))


def _this_month() -> int:
    today = datetime.now(UTC)
    return coarse_date_of(today.year, today.month)


# ---- facts ------------------------------------------------------------------------------------------------------------------


async def proven_record(client: NodeClient, record: bytes, version: int | None = None, *, from_height: int = 0) -> RecordFacts:
    """Return a record and a version of it (None = the newest) from the state under a certificate, of `from_height` or later.

    Raises Rejected `records.unknown`, `records.version-unknown`, or `client.false-answer` when the node's head lies below `from_height`.
    """
    proven = await client.proven_state(rows.RECORD + record)
    if proven.height < from_height:
        raise Rejected("client.false-answer", "the node's head lies below the height it answered with: do not use this node")
    if proven.value is None:
        raise rule_refusal("records.unknown")
    row = decode_row(RecordRow, proven.value)
    wanted = version or row.version
    stored = (await client.proven_state(rows.VERSION + record + uint32(wanted))).value
    if stored is None:
        raise rule_refusal("records.version-unknown")
    return RecordFacts(record, row, wanted, decode_row(VersionRow, stored), proven.height)


async def list_records(client: NodeClient, pseudonym: bytes) -> list[dict[str, Any]]:
    """Return all records of a patient, oldest first (rows of records.list)."""
    return await all_pages(client, "records.list", "records", pseudonym=pseudonym)


async def record_history(client: NodeClient, record: bytes) -> list[dict[str, Any]]:
    """Return what happened to a record, oldest first (rows of records.history), as the node tells it; `read_trail` proves it."""
    events: list[dict[str, Any]] = []
    while True:
        page = await client.call("records.history", record=record, first=len(events))
        found = list_of(page, "events")
        events += found
        if not found or page.get("next") is None:
            return events


# ---- getting ----------------------------------------------------------------------------------------------------------------


async def get_record(
    reader: Wallet,
    record: bytes,
    output: Path,
    *,
    permit: bytes | None = None,
    progress: Progress = _silent,
    timeout_ms: int = RUN_TIMEOUT_MS,
) -> ReadRecord:
    """Read a record into a new file under a permit of the reader's, and confirm the reading on the chain.

    `permit` None = the newest one of the reader's that still stands. The ciphertext is brought to the hospital's vault and here, then the
    key is released and the stream opened; root, commitment and every segment are checked. The file appears whole, after the receipt is
    final, or not at all. Raises Rejected (`client.no-permit`, `client.output-exists`, a code of the release rule), Unavailable, Malformed.
    """
    check_output(output)
    client = reader.client
    standing = await find_permit(client, reader.public, record, permit)
    facts = await proven_record(client, record, standing.version)
    sealed_bytes = await _fetch(client, facts, progress)
    with scratch_file(scratch_folder(output)) as sealed, Output(output) as opened:
        plaintext_bytes = await _open(reader, facts, standing, sealed_bytes, sealed, opened.file, progress)
        receipt_height = await confirm_reading(reader, standing, timeout_ms=timeout_ms)
        await asyncio.to_thread(opened.publish)
    return ReadRecord(record, facts.version, facts.version_row.root, facts.row.kind, plaintext_bytes, standing.permit, receipt_height)


async def _open(
    reader: Wallet, facts: RecordFacts, standing: StandingPermit, total: int, sealed: BinaryIO, plain: BinaryIO, progress: Progress
) -> int:
    """Download the ciphertext, have the key released, open the stream; returns the length of the plaintext."""
    client, version = reader.client, facts.version_row
    await download_into(client, version.root, sealed, total, lambda done: progress(DOWNLOAD, done, total))
    data_key = await _released_key(reader, facts, standing)
    sealed.seek(0)

    def work() -> int:
        header = open_stream(sealed, data_key, version.root, plain, lambda done: progress(OPEN, done, total), workers=_workers())
        if header.record != facts.record:
            raise Rejected("client.false-answer", "the custodian anchored another record's content: tell its operator")
        progress(OPEN, total, total)  # what is told meanwhile is plaintext, a little less than the sealed bytes in all
        return header.plaintext_bytes

    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise Rejected("client.output-unwritable", f"the file cannot be written ({error.strerror}): make room and read again") from None


async def _fetch(client: NodeClient, facts: RecordFacts, progress: Progress) -> int:
    """Have the hospital's vault get the ciphertext; returns its length when it is there.

    Raises Unavailable when nothing comes any more, Malformed when it is longer than the record on the chain can be.
    """
    largest = (1 << facts.version_row.size_class) + min(facts.version_row.segments, SEGMENTS_MAX + 1) * TAG_BYTES + _SEALED_EXTRA_BYTES
    received = -1
    moved_at = time.monotonic()
    pause_s = _FETCH_PAUSE_S
    while True:
        answer = await client.call("records.fetch", record=facts.record, version=facts.version)
        if digest_of(answer, "root") != facts.version_row.root:
            raise Rejected("client.false-answer", "the hospital fetches another record than the one on the chain: do not use this node")
        now_bytes = uint_of(answer, "received_bytes")
        sealed_bytes = largest if answer.get("sealed_bytes") is None else uint_of(answer, "sealed_bytes")
        if sealed_bytes > largest:
            raise Malformed(f"the hospital fetches {sealed_bytes} bytes, but the record has at most {largest}: do not use this node")
        progress(FETCH, now_bytes, sealed_bytes)
        if answer.get("is_complete") is True:
            return sealed_bytes
        if now_bytes != received:
            received, moved_at, pause_s = now_bytes, time.monotonic(), _FETCH_PAUSE_S
        elif time.monotonic() - moved_at > FETCH_IDLE_MS / 1000:
            raise Unavailable("no hospital that holds this record sends it: its holders are away; come again later")
        await asyncio.sleep(pause_s)
        pause_s = min(_FETCH_PAUSE_MAX_S, pause_s * 1.5)


async def _released_key(reader: Wallet, facts: RecordFacts, standing: StandingPermit) -> bytes:
    """Ask for the release and return the data key; anything else than what the permit names is refused."""
    network = (await reader.client.facts()).network
    request = make_release_request(network, standing.permit, reader.identity.signing, secrets.token_bytes(limits.DIGEST_BYTES))
    answer = await reader.client.call("records.release", request=request.encode())
    release = Release.decode(bytes_of(answer, "release", REQUEST_BYTES_MAX))
    opening: OpeningKey = reader.identity.opening
    expected = ReleaseInfo(
        genesis=network.genesis,
        suite=opening.suite,
        custodian=facts.row.custodian,
        pseudonym=facts.row.pseudonym,
        category=facts.row.category,
        epoch=facts.version_row.epoch,
        record=facts.record,
        version=facts.version,
        permit=standing.permit,
        reader_key_digest=reader_key_digest(opening.public),
    )
    try:
        return open_release(network, release, expected, opening)
    except Malformed as error:
        raise Rejected("client.false-answer", f"the release does not open: {error.message}; ask the custodian's operator") from None
