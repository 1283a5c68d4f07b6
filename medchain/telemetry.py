"""Log events and counters, every name documented here; never a payload, a key or a person's name.

One event is one JSON object on one line, or a readable line on a terminal. Events and their fields stand in the tables below, and a field
holds a number, a truth value or a short word, so that nothing of a record can reach a log by accident: what does not fit its field is
withheld. Hospitals are named by their number in the genesis document. This module knows no room; it is told everything.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Protocol

from medchain.errors import InvariantBroken

EVENTS: Final[dict[str, str]] = {
    # -- peers
    "network.listening": "the peer listener accepts connections",
    "network.stopped": "the peer listener and all connections are closed",
    "network.connected": "a handshake with this hospital succeeded",
    "network.disconnected": "the connection to this hospital ended",
    "network.replaced": "a second connection to this hospital took the place of the first",
    "network.refused": "a handshake with a peer was refused, by either side",
    "network.stranger": "a connection without the certificate of a hospital of this network was turned away",
    "network.dial.failed": "a hospital could not be reached; it is tried again with growing pauses",
    "network.accused": "a peer broke a rule and is scored",
    "network.banned": "a peer broke too many rules and is kept away for a while",
    "network.frozen": "a peer was silent for too long and is taken for dead",
    "network.overflow": "messages that must not be lost found no room; the connection is closed so that they are sent again",
    "network.dropped": "messages to a peer were dropped for lack of room",
    "network.oversized": "a message of our own was too long for a frame and was not sent",
    "network.throttled": "a peer sends more than its allowance and is read more slowly",
    "network.certificate.ending": "a hospital's TLS certificate ends soon: make a new one and have it voted in",
    "network.certificate.ended": "a hospital's TLS certificate has ended: nobody can connect to it until a new one is voted in",
    "network.request.failed": "a handler of the peer listener failed; the peer was told no detail",
    # -- the node
    "node.starting": "the process begins and reads its folder",
    "node.started": "the node runs: store opened, peers and clients may connect",
    "node.ready": "every check of readiness passed",
    "node.stopping": "the node was asked to stop and finishes what it began",
    "node.stopped": "the node ended in good order",
    "node.failed": "the node ends because something is broken",
    "node.alarm": "something an operator must know",
    "node.slow": "a turn of the loop, a write or a start took unusually long",
    "chain.decided": "a block became final and durable",
    "chain.expired": "accepted transactions passed their valid-until height",
    "chain.view": "the validators work in another view",
    # -- clients
    "rpc.listening": "the client listener accepts connections",
    "rpc.stopped": "the client listener is closed",
    "rpc.refused": "a request of a client was refused",
    "rpc.failed": "a request failed inside the node; the client was told no detail",
    # -- custody
    "vault.stored": "a sealed blob is complete and its root was checked",
    "vault.refused": "a blob was refused or turned out damaged",
    "custodian.put": "a record was taken into custody",
    "custodian.released": "keys were released to the holder of a permit",
    "custodian.refused": "a release or a put was refused",
    "custodian.replicated": "a replica of a blob was fetched and confirmed on chain",
    "custodian.retry": "a step of the custodian failed and is tried again",
    # -- everything else
    "library.logged": "a library logged something; its text is withheld, for it may quote what people sent",
}
"""Event → what it means, one line. An event that is not listed is our own bug."""

FIELDS: Final[dict[str, str]] = {
    "attempt": "how often it was tried",
    "bytes": "size",
    "code": "stable refusal code",
    "count": "how many",
    "days": "days left",
    "digest": "first 16 hexadecimal digits of a block's or root's digest",
    "direction": "in or out",
    "endpoint": "host:port of a listener",
    "height": "height of the chain",
    "kind": "type of an error, a message or an operation",
    "lane": "consensus, gossip or query",
    "library": "name of a library's logger",
    "method": "name of an RPC method or HTTP verb",
    "milliseconds": "duration",
    "node": "number of this hospital in the genesis document",
    "peer": "number of the other hospital in the genesis document",
    "port": "TCP port",
    "process": "id of a process",
    "reason": "stable word that says why",
    "score": "how many points a peer has against it",
    "sentence": "what one of our own errors or alarms says",
    "signal": "name of a signal",
    "status": "HTTP status",
    "step": "step of a procedure",
    "version": "version of the software or a format",
    "view": "view within the height",
    "where": "module and line",
}
"""Field → what it holds. Nothing else is ever written."""

COUNTERS: Final[dict[str, str]] = {
    "network_connections": "handshakes that succeeded",
    "network_disconnections": "connections that ended, by reason",
    "network_refusals": "handshakes refused by either side, by code",
    "network_strangers": "connections turned away before they had proven to be a hospital, by reason",
    "network_dials_failed": "attempts to reach a hospital that failed, by reason",
    "network_frames_sent": "WebSocket frames sent",
    "network_frames_received": "WebSocket frames received",
    "network_bytes_sent": "bytes of frames sent, before TLS",
    "network_bytes_received": "bytes of frames received, after TLS",
    "network_messages_sent": "messages sent, by lane",
    "network_messages_received": "messages received, by kind",
    "network_drops": "messages not sent, by reason",
    "network_overflows": "connections closed because the consensus lane was full",
    "network_accusations": "rules broken by peers, by reason",
    "network_bans": "peers kept away for a while",
    "network_throttles": "times a peer was read more slowly because it exceeded its allowance, by reason",
    "network_requests": "bulk requests of peers, by status",
    "rpc_calls": "calls of clients, by method",
    "rpc_errors": "calls of clients that were answered with an error, by its JSON-RPC number",
    "log_lines_lost": "log lines that could not be written",
}
"""Counter → what it counts. Metrics show them with the prefix `medchain_`."""

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_WORD: Final = re.compile(r"[A-Za-z0-9_.:/\[\]-]{1,64}")
"""Names of codes, errors and endpoints; no spaces, so no prose."""
_KEY_LIKE: Final = re.compile(r"[0-9A-Fa-f]{24,}|[A-Za-z0-9+]{40,}={0,2}")
"""Long runs of hexadecimal or base64: a key, a digest or a seed, whatever it is called."""
_SENTENCE_MAX: Final = 400
_LABELS_MAX: Final = 64
"""Distinct labels of one counter; codes and reasons are few, and a peer must not invent more."""


def fit_field(name: str, value: object) -> int | float | bool | str | None:
    """Return what of `value` may be written under the field `name`: numbers, truth values, None, words; sentences without long hex.

    Anything else becomes "withheld". Raises InvariantBroken when the field is not listed in FIELDS: that is our own bug.
    """
    if name not in FIELDS:
        raise InvariantBroken(f"the log field {name!r} is not in the table of telemetry.py")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if not isinstance(value, str):
        return "withheld"
    if name == "sentence":
        text = "".join(character if character.isprintable() else " " for character in value[:_SENTENCE_MAX])
        return _KEY_LIKE.sub("[withheld]", text)
    if name == "digest":
        return value[:16] if re.fullmatch(r"[0-9a-f]{8,64}", value) else "withheld"
    return value if _WORD.fullmatch(value) and not _KEY_LIKE.search(value) else "withheld"


class LogStream(Protocol):
    """What events are written to: a terminal, a file, a text buffer."""

    def write(self, text: str, /) -> int:
        """Append text."""
        ...

    def flush(self) -> None:
        """Hand what was written to the system."""
        ...

    def isatty(self) -> bool:
        """Return whether a person watches."""
        ...


class EventLog:
    """Writes events to one stream, one line each, from any thread. A line that cannot be written is counted, never raised."""

    def __init__(self, stream: LogStream, *, level: str = "info", node: int | None = None, is_human: bool | None = None) -> None:
        """`node` is this hospital's number; `is_human` None decides by whether the stream is a terminal."""
        self._stream = stream
        self._level = LEVELS[level]
        self._node = node
        self._is_human = stream.isatty() if is_human is None else is_human
        self._lock = threading.Lock()
        self.lines_lost = 0

    def write(self, event: str, level: str, fields: Mapping[str, object]) -> None:
        """Write one event. Raises InvariantBroken for an unlisted event or field."""
        if event not in EVENTS:
            raise InvariantBroken(f"the event {event!r} is not in the table of telemetry.py")
        row: dict[str, object] = {} if self._node is None else {"node": self._node}
        row.update((name, fit_field(name, value)) for name, value in fields.items())
        if LEVELS[level] < self._level:
            return
        now = datetime.now(UTC)
        line = self._human(now, event, level, row) if self._is_human else self._json(now, event, level, row)
        try:
            with self._lock:
                self._stream.write(line)
                self._stream.flush()
        except (OSError, ValueError):  # disk full, pipe closed, stream closed: agreement goes on
            self.lines_lost += 1
            PROCESS_COUNTERS.increment("log_lines_lost")

    @staticmethod
    def _json(now: datetime, event: str, level: str, row: Mapping[str, object]) -> str:
        stamp = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json.dumps({"time": stamp, "level": level, "event": event, **row}) + "\n"

    @staticmethod
    def _human(now: datetime, event: str, level: str, row: Mapping[str, object]) -> str:
        marks = " ".join(f"{name}={value}" for name, value in row.items() if name != "sentence")
        text = row.get("sentence") or EVENTS[event]
        return f"{now:%H:%M:%S}.{now.microsecond // 1000:03d} {level:<7} {event:<26} {marks}  ({text})\n"


class _LibraryHandler(logging.Handler):
    """Turns what libraries log into events without their text: an HTTP library may quote a request, and a request may be a record."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else "none"
        level = "error" if record.levelno >= 40 else "warning" if record.levelno >= 30 else "info"
        log_event("library.logged", level=level, library=record.name, where=f"{record.module}:{record.lineno}", kind=kind)


_log: EventLog | None = None


def configure(stream: LogStream | None, *, level: str = "info", node: int | None = None, is_human: bool | None = None) -> None:
    """Send this process's events to `stream` (None: nowhere, the state before the first call), libraries' warnings among them.

    `level` is one of LEVELS, `node` this hospital's number in the genesis document, `is_human` None: readable on a terminal.
    """
    global _log  # noqa: PLW0603 - a process has one log, as it has one standard error
    _log = None if stream is None else EventLog(stream, level=level, node=node, is_human=is_human)
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _LibraryHandler)]:
        root.removeHandler(handler)
    if _log is not None:
        root.addHandler(_LibraryHandler(level=logging.WARNING))


def log_event(event: str, /, *, level: str = "info", **fields: object) -> None:
    """Write one event of EVENTS with fields of FIELDS; without `configure` it goes nowhere. Raises InvariantBroken for unlisted names."""
    if _log is not None:
        _log.write(event, level, fields)
        return
    if event not in EVENTS or not FIELDS.keys() >= fields.keys():
        raise InvariantBroken(f"the event {event!r} or one of its fields is not in the tables of telemetry.py")


class Counters:
    """Whole numbers that only grow, by documented name and an optional label (a reason, a code, a lane)."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, int]] = {}

    def increment(self, name: str, amount: int = 1, label: str = "") -> None:
        """Add to a counter of COUNTERS. Beyond 64 labels of one name, or for a label that is no word, it counts as `other`."""
        rows = self._values.get(name)
        if rows is None:
            if name not in COUNTERS:
                raise InvariantBroken(f"the counter {name!r} is not in the table of telemetry.py")
            rows = self._values[name] = {}
        present = rows.get(label)
        if present is not None:
            rows[label] = present + amount
            return
        if label and (len(rows) >= _LABELS_MAX or not _WORD.fullmatch(label) or _KEY_LIKE.search(label)):
            label = "other"
        rows[label] = rows.get(label, 0) + amount

    def value(self, name: str, label: str | None = None) -> int:
        """Return one counter: of one label, or over all labels when `label` is None."""
        rows = self._values.get(name, {})
        return sum(rows.values()) if label is None else rows.get(label, 0)

    def snapshot(self) -> dict[str, int]:
        """Return every counter that was ever incremented, as `name` or `name:label`, sorted."""
        flat = {f"{name}:{label}" if label else name: value for name, rows in self._values.items() for label, value in rows.items()}
        return dict(sorted(flat.items()))


PROCESS_COUNTERS: Final = Counters()
"""Counters of this process; parts that may live several times in one process (tests, the simulator's relatives) are given their own."""
