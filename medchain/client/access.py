"""Stories about access: asking for a record, breaking the glass, reviewing, and reading a trail that is proven complete.

A denial is an answer, not an error: it is final and on the trail like a permit. Knows no file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from medchain.actions import access as actions
from medchain.chain.limits import EVENT_BYTES_MAX
from medchain.chain.receipt import Event
from medchain.client.node import NodeClient, bytes_of, digest_of, list_of, uint_of
from medchain.client.people import clinician_role
from medchain.client.wallet import RUN_TIMEOUT_MS, Outcome, Wallet, event_field
from medchain.errors import Rejected, Unavailable
from medchain.ledger.rows import decode_row
from medchain.ledger.trail import TrailHead, event_names, trail_after, trail_key, trail_start
from medchain.wire.methods import PAGE_MAX

TRAIL_EVENTS_MAX: Final = 1_000_000
"""Events of one trail that a client takes in: a hundred a day for a lifetime."""
_ATTEMPTS_MAX: Final = 20
"""Times the node is asked whether its head has reached what it answered before."""
_LAG_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the network answered to a request or an emergency."""

    is_permit: bool
    code: str
    """Empty for a permit, else why not."""
    permit: bytes
    """Id of the permit; empty for a denial."""
    consent: bytes
    """Id of the consent that permits; empty for a denial and an emergency."""
    versions: tuple[int, ...]
    expires_ms: int
    """When the permit ends; 0 for a denial."""
    height: int
    transaction_id: bytes


async def request_access(
    clinician: Wallet, record: bytes, purpose: str, role: str | None = None, *, timeout_ms: int = RUN_TIMEOUT_MS
) -> Verdict:
    """Ask for the newest version of a record; `role` None = that of the clinician's credential.

    Raises Rejected when nothing is decided on: the key was never credentialed, the record is unknown.
    """
    asked_under = role or await clinician_role(clinician.client, clinician.public)
    outcome = await clinician.run([actions.request_access(record, purpose, asked_under)], timeout_ms=timeout_ms)
    return _verdict(outcome, "access.permit")


async def declare_emergency(clinician: Wallet, record: bytes, reason: str, *, timeout_ms: int = RUN_TIMEOUT_MS) -> Verdict:
    """Break the glass; a review opens by itself. `reason` is one of ledger.emergencies.REASONS."""
    outcome = await clinician.run([actions.declare_emergency(record, reason)], timeout_ms=timeout_ms)
    return _verdict(outcome, "access.emergency")


def _verdict(outcome: Outcome, kind: str) -> Verdict:
    """Read the proven events of a request."""
    denial = outcome.first("access.denial")
    if denial is not None:
        return Verdict(False, str(event_field(denial, "code")), b"", b"", (), 0, outcome.height, outcome.transaction_id)
    event = outcome.first(kind)
    if event is None:
        raise Rejected("client.not-a-node", "the network's answer is of another version than this client: update the client")
    names = event_names(event)
    return Verdict(
        is_permit=True,
        code="",
        permit=names["permit"],
        consent=names.get("consent", b""),
        versions=tuple(names["versions"]),
        expires_ms=names["expires_ms"],
        height=outcome.height,
        transaction_id=outcome.transaction_id,
    )


async def review(custodian: Wallet, permit: bytes, outcome: str, *, timeout_ms: int = RUN_TIMEOUT_MS) -> Outcome:
    """Judge an emergency `justified` or `unjustified`; the latter ends its permit. Raises Rejected, e.g. `access.not-reviewer`."""
    return await custodian.run([actions.review_emergency(permit, outcome)], timeout_ms=timeout_ms)


# ---- the trail ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrailEvent:
    """One event of a trail; everything but its time is under the proven digest."""

    index: int
    height: int
    time_ms: int
    """Of the block, as the node tells it; 0 when the node does not keep the block any more."""
    event: Event

    @property
    def kind(self) -> str:
        """Kind of the event."""
        return self.event.kind

    @property
    def fields(self) -> dict[str, Any]:
        """Field name → value."""
        return event_names(self.event)


@dataclass(frozen=True, slots=True)
class Trail:
    """A whole trail up to a certified height: nothing in it is missing, changed or moved."""

    subject: bytes
    count: int
    digest: bytes
    height: int
    """Of the certified block whose state proves count and digest."""
    block: bytes
    """Digest of that block."""
    events: tuple[TrailEvent, ...]


async def read_trail(reader: Wallet, subject: bytes, *, timeout_ms: int = RUN_TIMEOUT_MS) -> Trail:
    """Put this reading on the trail, then return the whole trail of a pseudonym or record id, checked against the proven state.

    The running digest over the exact event bytes must end at the trail head that the state proves under a certificate, at or after the
    reading itself. Raises Rejected: `access.not-entitled`, `client.false-answer` when the node's events are not those of the chain.
    """
    outcome = await reader.run([actions.read_trail(subject)], timeout_ms=timeout_ms)
    return await prove_trail(reader.client, subject, outcome.height)


async def prove_trail(client: NodeClient, subject: bytes, from_height: int = 0) -> Trail:
    """Return the whole trail as of a certified block of height `from_height` or later; else like `read_trail`, but writes nothing."""
    for _ in range(_ATTEMPTS_MAX):
        proven = await client.proven_state(trail_key(subject))
        if proven.height < from_height:
            await asyncio.sleep(_LAG_S)
            continue
        head = trail_start() if proven.value is None else decode_row(TrailHead, proven.value)
        if head.count > TRAIL_EVENTS_MAX:
            raise Unavailable(f"the trail has {head.count} events, more than this client takes in at once")
        events, raw = await _events(client, subject, head.count)
        if trail_after(trail_start(), raw) != head:
            raise Rejected("client.false-answer", "the events are not all those of the trail the chain proves: do not use this node")
        return Trail(subject, head.count, head.digest, proven.height, proven.block, events)
    raise Unavailable("the node's head lies before what it has answered itself: look at its status")


async def _events(client: NodeClient, subject: bytes, count: int) -> tuple[tuple[TrailEvent, ...], list[tuple[int, bytes]]]:
    """Return the first `count` events of a trail as the node has them, and (height, exact bytes) of each."""
    events: list[TrailEvent] = []
    raw: list[tuple[int, bytes]] = []
    while len(events) < count:
        page = await client.call("access.trail", subject=subject, first=len(events), count=min(PAGE_MAX, count - len(events)))
        rows = list_of(page, "events")[: count - len(events)]
        if digest_of(page, "subject") != subject or not rows:
            raise Rejected("client.false-answer", "the node withholds events of the trail: do not use this node")
        _read_rows(rows, events, raw)
    return tuple(events), raw


def _read_rows(rows: Sequence[Any], events: list[TrailEvent], raw: list[tuple[int, bytes]]) -> None:
    for row in rows:
        data, height = bytes_of(row, "event", EVENT_BYTES_MAX), uint_of(row, "height")
        if uint_of(row, "index") != len(events):
            raise Rejected("client.false-answer", "the node's events are not in the order of the trail: do not use this node")
        events.append(TrailEvent(len(events), height, row.get("time_ms") or 0, Event.decode(data)))
        raw.append((height, data))
