"""The reader's side of a permit: finding the one that stands, and confirming that it was used. Knows no file and no stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from medchain.actions import access as actions
from medchain.client.node import NodeClient, digest_of, list_of, text_of, uint_of
from medchain.client.wallet import Wallet, refusal_sentence
from medchain.errors import Malformed, Rejected
from medchain.wire.methods import PAGE_MAX

_PERMITTING: Final = ("access.permit", "access.emergency")
_LOOKED_AT_MAX: Final = 4_096
"""Newest events of a record in which a permit of the reader is looked for; older ones ended long ago."""


@dataclass(frozen=True, slots=True)
class StandingPermit:
    """A permit under which a key may go out now, as the node sees it; the releaser decides again."""

    permit: bytes
    record: bytes
    version: int
    """The version it names."""
    is_read: bool
    """Whether reading of the version is confirmed already."""


async def find_permit(client: NodeClient, reader: bytes, record: bytes, permit: bytes | None = None) -> StandingPermit:
    """Return the given permit, or the reader's newest on the record that still stands.

    Raises Rejected: `client.no-permit`, or the code of why the given one (or the only ones there are) may not be used any more.
    """
    if permit is not None:
        return await _look_at(client, permit, reader, record)
    refusal = Rejected("client.no-permit", "there is no permit for this reader and record: ask for access first")
    async for candidate in _permits_of(client, reader, record):
        try:
            return await _look_at(client, candidate, reader, record)
        except Rejected as ended:
            if refusal.code == "client.no-permit":
                refusal = ended  # why the newest one does not stand says more than that there is none
    raise refusal


async def _look_at(client: NodeClient, permit: bytes, reader: bytes, record: bytes) -> StandingPermit:
    row = await client.call("access.permit", permit=permit)
    if digest_of(row, "reader") != reader or digest_of(row, "record") != record:
        raise Rejected("client.no-permit", "this permit is for another reader or another record: ask for access first")
    code = text_of(row, "code")
    if code:
        raise Rejected(code, f"the permit cannot be used any more: {refusal_sentence(code)}")
    versions = list_of(row, "versions")
    if not versions or any(type(version) is not int or version < 1 for version in versions):
        raise Malformed("the node's answer names no version of the record")
    return StandingPermit(permit, record, max(versions), max(versions) in list_of(row, "read"))


async def _permits_of(client: NodeClient, reader: bytes, record: bytes) -> AsyncIterator[bytes]:
    """Yield the reader's permits on a record from its history, the newest first."""
    end = uint_of(await client.call("records.history", record=record, count=1), "count")
    oldest = max(0, end - _LOOKED_AT_MAX)
    while end > oldest:
        first = max(oldest, end - PAGE_MAX)
        page = await client.call("records.history", record=record, first=first, count=end - first)
        for event in reversed(list_of(page, "events")):
            if text_of(event, "kind") in _PERMITTING:
                names = event.get("fields")
                if digest_of(names, "clinician") == reader:
                    yield digest_of(names, "permit")
        end = first


async def confirm_reading(reader: Wallet, standing: StandingPermit, *, timeout_ms: int) -> int | None:
    """Post the read receipt and return its height; None when the reading is confirmed already."""
    if standing.is_read:
        return None
    try:
        outcome = await reader.run([actions.confirm_reading(standing.permit, standing.version)], timeout_ms=timeout_ms)
    except Rejected as refused:
        if refused.code == "access.read-twice":
            return None
        raise
    return outcome.height
