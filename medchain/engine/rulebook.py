"""Reads of the rule book: hospitals, people, records, consents, access, trails and evidence, shaped as wire/methods.py says.

The rows and rules are the ledger's; here answers are paged and events are found in the archive. Cursors are bytes: the index, or the id,
after which the next page begins, so they stay right while the lists grow. This module changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from medchain.chain.evidence import Contradiction
from medchain.chain.receipt import Event
from medchain.engine.decided import DecidedChain
from medchain.errors import Malformed, Rejected
from medchain.ledger import lists, queries, rows
from medchain.ledger.evidence import evidence_key
from medchain.ledger.execution import BlockContext
from medchain.ledger.hospitals import organisation_of
from medchain.ledger.refusals import REFUSALS as LEDGER_REFUSALS
from medchain.ledger.trail import event_names, trail_of
from medchain.ledger.verdicts import verdict
from medchain.store import layout
from medchain.store.keyvalue import prefix_end
from medchain.store.overlay import StateView
from medchain.store.staged import Staged

REFUSALS: Final[dict[str, str]] = {
    "evidence.unknown": "No evidence is known under this id.",
}

PAGE_MAX: Final = 256
VERSIONS_MAX: Final = 1_000
"""Versions shown of one record: the newest; a record amended more often is read with its history."""
SCANNED_MAX: Final = 2_048
"""Rows looked at for one page of a filtered list; the cursor goes on from there."""
EVENTS_MAX: Final = 1_000_000
"""Events of one trail that are ever walked through to find a page."""

Params = dict[str, Any]
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Book:
    """The decided chain and its store, for reads."""

    chain: DecidedChain
    staged: Staged

    @property
    def state(self) -> StateView:
        """The state after the head."""
        return self.chain.state

    @property
    def context(self) -> BlockContext:
        """The head's height and time: what statuses are told for."""
        head = self.chain.head
        return BlockContext(head.height, head.time_ms, self.chain.network, self.chain.parameters)

    def ids(self, prefix: bytes, after: bytes | None, length: int) -> Iterator[bytes]:
        """Yield the ids under a range of the state that come after a cursor; only keys of prefix and `length` bytes count."""
        start = layout.state_key(prefix) + (b"" if after is None else after + b"\x00")
        cut = len(layout.STATE) + len(prefix)
        for key, _ in self.staged.iterate(start, prefix_end(layout.state_key(prefix))):
            if len(key) == cut + length:
                yield key[cut:]


def hospitals_by_consensus_key(view: StateView) -> dict[bytes, tuple[str, bytes]]:
    """Return consensus key → (name, organisation key)."""
    return {row["consensus_key"]: (row["name"], row["organisation_key"]) for row in queries.hospitals(view)}


# ---- hospitals, people, epochs --------------------------------------------------------------------------------------------------


def _hospitals_list(book: Book, params: Params) -> Answer:
    shown = ("organisation_key", "name", "role", "consensus_key", "officer_key", "opening_suite", "opening_key", "endpoints", "from_height")
    return {"hospitals": [{name: row[name] for name in shown} for row in queries.hospitals(book.state)]}


def _people_clinician(book: Book, params: Params) -> Answer:
    found = queries.clinician(book.state, book.context, params["clinician"])
    if found is None:
        raise _unknown("people.clinician-unknown")
    status = found.pop("status")
    return found | {"code": "" if status == "valid" else status}


def _people_patient(book: Book, params: Params) -> Answer:
    found = queries.patient(book.state, params["pseudonym"])
    if found is None:
        raise _unknown("people.patient-unknown")
    return found


def _epochs_head(book: Book, params: Params) -> Answer:
    found = queries.epoch(book.state, params["pseudonym"], params["category"])
    return {"pseudonym": params["pseudonym"], "category": params["category"], **found}


# ---- records --------------------------------------------------------------------------------------------------------------------


def _records_get(book: Book, params: Params) -> Answer:
    found = queries.record(book.state, params["record"])
    if found is None:
        raise _unknown("records.unknown")
    newest = found["version"]
    found.pop("newest")
    numbers = range(max(1, newest - VERSIONS_MAX + 1), newest + 1)
    return found | {"versions": [_version(book, params["record"], number) for number in numbers]}


def _version(book: Book, record: bytes, number: int) -> Answer:
    found = queries.version(book.state, record, number) or {}
    found.pop("record", None)
    return found | {"holders": [holder["hospital"] for holder in found.get("holders", ())]}


def _records_list(book: Book, params: Params) -> Answer:
    def row(found: Answer) -> Answer:
        return {name: found[name] for name in ("record", "category", "kind", "version", "custodian", "from_height")}

    page = queries.records_of(book.state, params["pseudonym"], _index(params), _count(params))
    return {"records": [row(found) for found in page["items"] if found is not None], "next": _cursor(page["next"])}


def _records_scan(book: Book, params: Params) -> Answer:
    limit = _count(params)
    ids = list(islice(book.ids(rows.RECORD, params["after"], 32), limit))
    found: list[Answer] = []
    for identity in ids:
        record = queries.record(book.state, identity) or {}
        version = _version(book, identity, record["version"])
        shown = {name: version[name] for name in ("version", "root", "segments", "size_class", "holders")}
        found.append({"record": identity, "custodian": record["custodian"], **shown})
    return {"records": found, "next": ids[-1] if len(ids) == limit else None}


def _records_history(book: Book, params: Params) -> Answer:
    page = _trail_page(book, params["record"], params["first"], _count(params))
    events = []
    for row in page["events"]:
        event = Event.decode(row.pop("event"))
        events.append({**row, "kind": event.kind, "fields": event_names(event)})
    return {"record": params["record"], "count": page["count"], "events": events, "next": page["next"]}


# ---- consents and access --------------------------------------------------------------------------------------------------------


def _consents_list(book: Book, params: Params) -> Answer:
    page = queries.consents_of(book.state, book.context, params["pseudonym"], _index(params), _count(params))
    return {"consents": page["items"], "next": _cursor(page["next"])}


def _consents_explain(book: Book, params: Params) -> Answer:
    answer = verdict(book.state, book.context, params["clinician"], params["record"], params["purpose"], params["role"])
    trace = [
        {"consent": step.consent, "code": step.code, "from_height": step.from_height, "to_height": step.to_height} for step in answer.trace
    ]
    return {
        "height": book.chain.height,
        "permit": answer.permit,
        "code": answer.code,
        "consent": answer.consent or None,
        "until_ms": answer.until_ms or None,
        "trace": trace,
    }


def _access_permit(book: Book, params: Params) -> Answer:
    found = queries.permit(book.state, book.context, params["permit"])
    if found is None:
        raise _unknown("access.permit-unknown")
    standing = found.pop("standing")
    return found | {"code": "" if standing == "open" else standing}


def _access_trail(book: Book, params: Params) -> Answer:
    return _trail_page(book, params["subject"], params["first"], _count(params))


def _trail_page(book: Book, subject: bytes, first: int, count: int) -> Answer:
    """Return events number `first` and following of a trail, with its head: what is needed to check the running digest."""
    height, head = book.chain.height, trail_of(book.state, subject)
    shown: list[Answer] = []
    if first < min(head.count, EVENTS_MAX):
        prefix = layout.event_prefix(subject)
        stored = book.staged.iterate(prefix, prefix_end(prefix))
        times: dict[int, int | None] = {}
        for index, (key, event) in enumerate(islice(stored, first, first + count), start=first):
            at = int.from_bytes(key[len(prefix) : len(prefix) + 8], "big")
            if at not in times:
                header = book.chain.header_of(at)
                times[at] = None if header is None else header.time_ms
            shown.append({"index": index, "height": at, "time_ms": times[at], "event": event})
    following = first + len(shown)
    return {
        "subject": subject,
        "height": height,
        "count": head.count,
        "digest": head.digest,
        "events": shown,
        "next": following if shown and following < head.count else None,
    }


def _access_emergencies(book: Book, params: Params) -> Answer:
    """Emergencies of one custodian in order, or all by id; at most SCANNED_MAX are looked at for a page, `next` goes on from there."""
    custodian, limit = params["custodian"], _count(params)
    cursors: Iterator[tuple[bytes, bytes]]
    if custodian is None:
        cursors = ((identity, identity) for identity in book.ids(rows.REVIEW, params["after"], 32))
    else:
        cursors = _listed(book, lists.REVIEWS, custodian, _index(params))
    found: list[Answer] = []
    for looked, (identity, cursor) in enumerate(cursors, start=1):
        row = queries.review(book.state, identity)
        if row is not None and not (params["is_open"] and row["outcome"] is not None):
            row["is_overdue"] = row.pop("escalated_height") is not None
            row["outcome"] = row["outcome"] or ""
            found.append(row)
        if len(found) == limit or looked == SCANNED_MAX:
            return {"emergencies": found, "next": cursor}
    return {"emergencies": found, "next": None}


# ---- evidence -------------------------------------------------------------------------------------------------------------------


def _evidence_list(book: Book, params: Params) -> Answer:
    """Recorded evidence in the order it was recorded; what waits for a block is told with every page, it is one row a liar and offence."""
    limit, cursor = _count(params), None
    found: list[Answer] = []
    for identity, following in islice(_listed(book, lists.EVIDENCE, b"", _index(params)), limit + 1):
        if len(found) == limit:
            return {"evidence": found, "pending": _pending(book), "next": cursor}
        row = queries.evidence(book.state, identity)
        if row is not None:
            del row["evidence"]
            found.append(row)
        cursor = following
    return {"evidence": found, "pending": _pending(book), "next": None}


def _pending(book: Book) -> list[Answer]:
    return [_waiting(book, Contradiction.decode(value)) for _, value in book.staged.iterate(layout.EVIDENCE, prefix_end(layout.EVIDENCE))]


def _waiting(book: Book, contradiction: Contradiction) -> Answer:
    return {
        "id": contradiction.digest(),
        "offence": contradiction.offence,
        "offender": contradiction.offender,
        "hospital": organisation_of(book.state, contradiction.offender),
        "height": contradiction.height,
    }


def _evidence_get(book: Book, params: Params) -> Answer:
    identity: bytes = params["id"]
    found = queries.evidence(book.state, identity)
    if found is None:
        stored = book.staged.get(layout.evidence_key(identity))
        if stored is None:
            raise Rejected("evidence.unknown", REFUSALS["evidence.unknown"])
        found = {**_waiting(book, Contradiction.decode(stored)), "from_height": None, "time_ms": None, "evidence": stored}
    return {**found, "key": evidence_key(identity)}


def _listed(book: Book, name: bytes, owner: bytes, start: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield (item, cursor after it) of a list from an index on."""
    following: int | None = start
    while following is not None:
        first = following
        items, following = lists.read_page(book.state, name, owner, first, lists.PAGE_MAX)
        for offset, item in enumerate(items):
            yield item, layout.uint64(first + offset + 1)


# ---- pages ----------------------------------------------------------------------------------------------------------------------


def _unknown(code: str) -> Rejected:
    """Return the ledger's refusal for an id that nothing is known under."""
    return Rejected(code, LEDGER_REFUSALS[code])


def _count(params: Params) -> int:
    count: int = params["count"]
    return max(1, min(count, PAGE_MAX))


def _index(params: Params) -> int:
    """Return the index that a cursor stands for. Raises Malformed for a cursor of another list."""
    after: bytes | None = params["after"]
    if after is None:
        return 0
    if len(after) != 8:
        raise Malformed("the cursor is not one of this list")
    return int.from_bytes(after, "big")


def _cursor(index: int | None) -> bytes | None:
    return None if index is None else layout.uint64(index)


READS: Final[dict[str, Callable[[Book, Params], Any]]] = {
    "hospitals.list": _hospitals_list,
    "people.clinician": _people_clinician,
    "people.patient": _people_patient,
    "epochs.head": _epochs_head,
    "records.get": _records_get,
    "records.list": _records_list,
    "records.scan": _records_scan,
    "records.history": _records_history,
    "consents.list": _consents_list,
    "consents.explain": _consents_explain,
    "access.permit": _access_permit,
    "access.trail": _access_trail,
    "access.emergencies": _access_emergencies,
    "evidence.list": _evidence_list,
    "evidence.get": _evidence_get,
}
