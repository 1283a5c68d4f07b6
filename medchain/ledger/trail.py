"""Trails: for each pseudonym and each record, a running digest over everything that ever happened to it.

The head of a trail (count, digest) is in the state, hence under every block's state root. Whoever holds the events between two proven heads
can check that none is missing, changed or moved: `trail_next` is the only formula, used by the rules and by clients (ledger.md, "Audit and
provenance"). The events themselves are in the receipts. This module knows no rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from medchain import codec
from medchain.chain.receipt import Event
from medchain.crypto.hashing import tagged_digest
from medchain.ledger import rows
from medchain.ledger.rows import decode_changing_row, encode_row
from medchain.store.overlay import Overlay, StateView


@dataclass(frozen=True, slots=True)
class TrailHead:
    """Where a trail stands."""

    count: int
    """Events so far; the index in the trail of the next one."""
    digest: bytes


_BEGINNING: Final = TrailHead(0, tagged_digest("medchain/trail-start", b""))


def trail_start() -> TrailHead:
    """Return the head of a trail without events."""
    return _BEGINNING


def trail_next(head: TrailHead, height: int, event_bytes: bytes) -> TrailHead:
    """Return the head after one more event, in a block of `height`, whose exact encoded bytes are `event_bytes`.

    The digest covers the previous digest, the height, the index in this trail and the bytes, so a trail cannot be cut, reordered or moved.
    """
    covered = codec.encode([head.digest, height, head.count, event_bytes])
    return TrailHead(head.count + 1, tagged_digest("medchain/trail", covered))


def trail_after(head: TrailHead, events: Iterable[tuple[int, bytes]]) -> TrailHead:
    """Return the head after (height, exact event bytes) in order: what a client compares with the proven newer head."""
    for height, event_bytes in events:
        head = trail_next(head, height, event_bytes)
    return head


def trail_key(subject: bytes) -> bytes:
    """Return the state key of a subject's trail head, for proofs."""
    return rows.TRAIL + subject


def trail_of(view: StateView, subject: bytes) -> TrailHead:
    """Return the trail head of a pseudonym or a record id; the start when nothing ever happened to it."""
    stored = view.get(trail_key(subject))
    return _BEGINNING if stored is None else decode_changing_row(TrailHead, stored)


def write_event(state: Overlay, height: int, event: Event) -> None:
    """Advance the trails of all subjects of an event, each once."""
    event_bytes = event.encode()
    for subject in event.subjects:
        head = trail_next(trail_of(state, subject), height, event_bytes)
        state.put(trail_key(subject), encode_row(head))


EVENT_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "people.credential": ("hospital", "clinician", "number", "role", "specialty", "expires_ms"),
    "people.revoke_credential": ("hospital", "clinician", "number"),
    "people.register_patient": ("hospital",),
    "epochs.interim": ("hospital", "category", "number", "check_value"),
    "records.register": ("hospital", "category", "kind", "version", "root", "epoch", "author", "size_class"),
    "records.amend": ("hospital", "category", "kind", "version", "root", "epoch", "author", "size_class"),
    "records.confirm_custody": ("hospital", "version"),
    "consents.grant": ("patient", "consent", "grantee_kind", "grantee", "purpose", "category", "from_ms", "until_ms"),
    "consents.revoke": ("patient", "consent"),
    "access.permit": ("clinician", "hospital", "purpose", "role", "permit", "consent", "versions", "expires_height", "expires_ms"),
    "access.denial": ("clinician", "hospital", "purpose", "role", "code"),
    "access.release": ("hospital", "permit", "version", "reader", "release"),
    "access.receipt": ("clinician", "permit", "version"),
    "access.emergency": ("clinician", "hospital", "reason", "role", "permit", "versions", "expires_height", "expires_ms", "due_ms"),
    "access.review": ("hospital", "permit", "outcome"),
    "access.review_overdue": ("clinician", "hospital", "permit", "due_ms"),
    "access.read_trail": ("reader",),
    "evidence.recorded": ("hospital", "offence", "height", "evidence"),
}
"""Event kind → what its positional fields mean. The first field is who signed (for a due item: whom it concerns); keys, ids and digests are
bytes, codes are text, the rest whole numbers or lists of them. `hospital` is an organisation key, that of the clinician where one acts."""


def event_names(event: Event) -> dict[str, Any]:
    """Return field name → value of an event of a known kind, {} for one of a kind this version does not know."""
    names = EVENT_FIELDS.get(event.kind, ())
    return dict(zip(names, event.fields, strict=True)) if len(names) == len(event.fields) else {}
