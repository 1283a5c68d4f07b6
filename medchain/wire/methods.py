"""The one table of RPC methods: names, parameters, who serves them and what they answer. Server, SDK, docs and tests read it.

Parameters travel by name; bytes travel as lower-case hexadecimal text, both ways. Whatever a client sends, `check_params` returns values of
the stated kinds or raises Malformed. This module knows no HTTP and no answer's content. JSON-RPC 2.0: https://www.jsonrpc.org/specification
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from medchain import codec
from medchain.chain import limits
from medchain.errors import Malformed
from medchain.wire.custody import REQUEST_BYTES_MAX

JSONRPC_VERSION: Final = "2.0"

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
"""Malformed: the parameters are not what the table says."""
INTERNAL_ERROR: Final = -32603
"""Our own fault; says nothing more to the client, the node's log does."""
REJECTED: Final = -32000
"""A rule said no; `data.code` is the stable code, `data.retry_after_ms` > 0 where coming again later helps."""
UNAVAILABLE: Final = -32001
"""Not now; `data.retry_after_ms` is a hint, 0 = unknown."""

ENGINE: Final = "engine"
DESK: Final = "desk"
CUSTODIAN: Final = "custodian"
SERVERS: Final = (ENGINE, DESK, CUSTODIAN)
"""Who answers: the engine's read methods, the desk (submitting and waiting), the hospital's custodian."""

DIGEST: Final = "digest"
KEY: Final = "key"
BYTES: Final = "bytes"
BYTES_LIST: Final = "bytes_list"
UINT: Final = "uint"
TEXT: Final = "text"
BOOLEAN: Final = "boolean"
KINDS: Final[dict[str, str]] = {
    DIGEST: "32 bytes as hexadecimal text",
    KEY: "a 32-byte public key as hexadecimal text",
    BYTES: "bytes as hexadecimal text",
    BYTES_LIST: "a list of byte strings as hexadecimal text",
    UINT: "a whole number from 0",
    TEXT: "text",
    BOOLEAN: "true or false",
}

UINT_MAX: Final = 2**53 - 1
"""Largest whole number that every JSON reader keeps exact (RFC 8259, section 6)."""
TEXT_BYTES_MAX: Final = 256
"""Codes and names; no method takes prose."""
STATE_KEY_BYTES_MAX: Final = 256
BATCH_TRANSACTIONS_MAX: Final = 64
"""Transactions of one tx.submit_batch: 4 MiB when each is as large as it may be."""
WAIT_MS_MAX: Final = 120_000
"""Longest tx.wait: four heartbeats. Who wants longer asks again."""
PAGE_MAX: Final = 256
"""Items of one page of a list; the answer's `next` continues."""
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*\Z")


@dataclass(frozen=True, slots=True)
class Param:
    """One named parameter."""

    name: str
    kind: str
    """One of KINDS."""
    is_required: bool
    doc: str
    maximum: int | None = None
    """Largest number for `uint`; most bytes for `bytes` (each, in a list) and `text`. None = the kind's own bound."""
    default: Any = None
    """What an optional parameter is when it is absent or null."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method."""

    name: str
    params: tuple[Param, ...]
    served_by: str
    """One of SERVERS."""
    doc: str
    result_doc: str
    """The answer's names and what they mean; bytes are hexadecimal text."""


def _required(name: str, kind: str, doc: str, maximum: int | None = None) -> Param:
    return Param(name, kind, True, doc, maximum)


def _optional(name: str, kind: str, doc: str, maximum: int | None = None, default: Any = None) -> Param:
    return Param(name, kind, False, doc, maximum, default)


_HEIGHT: Final = _required("height", UINT, "height of a decided block, from 1 on", limits.HEIGHT_MAX)
_ID: Final = _required("id", DIGEST, "transaction id")
_RECORD: Final = _required("record", DIGEST, "record id")
_VERSION: Final = _required("version", UINT, "version of the record, from 1 on", 1_000_000)
_PSEUDONYM: Final = _required("pseudonym", DIGEST, "pseudonym of the patient")
_AFTER: Final = _optional("after", BYTES, "cursor: `next` of the page before; absent = from the beginning", STATE_KEY_BYTES_MAX)
_COUNT: Final = _optional("count", UINT, f"items of the page, at most {PAGE_MAX}", PAGE_MAX, PAGE_MAX)
_FIRST: Final = _optional("first", UINT, "index in the trail of the first event", default=0)
_REQUEST: Final = _required("request", BYTES, "encoded and signed request of wire/custody.py", REQUEST_BYTES_MAX)
_EVENTS: Final = "events as {kind, subjects, fields} with the fields by name"

_TABLE: Final = (
    # ---- node --------------------------------------------------------------------------------------------------------------------
    Method(
        "node.status", (), ENGINE,
        "Where this node stands.",
        "{height, digest, time_ms, state_root, view, is_validator, may_vote, consensus_key, peers (consensus keys connected), "
        "pool_transactions, is_catching_up, waits_for}",
    ),
    Method(
        "node.version", (), ENGINE,
        "Versions of the software, the protocol and the peer wire.",
        "{version, protocol, wire}",
    ),
    Method(
        "node.validators", (), ENGINE,
        "The validators in force for the next block.",
        "{changed_at, quorum, faults_tolerated, digest, validators: [{consensus_key, officer_key, may_vote, name, organisation_key}]}",
    ),
    # ---- chain -------------------------------------------------------------------------------------------------------------------
    Method(
        "chain.genesis", (), ENGINE,
        "The founding document. Its digest is worth what you know about it from elsewhere: pin it.",
        "{digest, chain_id, recovery, document (the JSON text)}",
    ),
    Method("chain.params", (), ENGINE, "The on-chain parameters in force.", "{height, parameters: {name: number}}"),
    Method("chain.head", (), ENGINE, "The newest decided block.", "{height, digest, time_ms, state_root}; at height 0 the genesis"),
    Method(
        "chain.header", (_HEIGHT,), ENGINE,
        "The header of a decided block.",
        "{height, digest, view, time_ms, proposer, parent, state_root, transactions_root, receipts_root, header (its bytes)}",
    ),
    Method(
        "chain.certificate", (_HEIGHT,), ENGINE,
        "The certificate that made a block final.",
        "{height, view, digest, signers (consensus keys), certificate (its bytes)}",
    ),
    Method(
        "chain.block", (_HEIGHT,), ENGINE,
        "A decided block.",
        "{height, digest, view, time_ms, proposer, transactions (ids), receipts: [{id, code, operation_index, events}], block (its bytes)}",
    ),
    Method(
        "chain.blocks",
        (_required("first", UINT, "lowest height", limits.HEIGHT_MAX), _COUNT), ENGINE,
        "Summaries of decided blocks, ascending.",
        "{height (of the head), blocks: [{height, digest, view, time_ms, proposer, transactions (how many)}]}",
    ),
    # ---- tx ----------------------------------------------------------------------------------------------------------------------
    Method(
        "tx.submit", (_required("transaction", BYTES, "the signed transaction's bytes", limits.TRANSACTION_BYTES_MAX),), DESK,
        "Hand in a transaction. Accepted means durable: it ends in a receipt or as expired, whatever happens to this node.",
        "{id, result: accepted|duplicate}; refused = a JSON-RPC error with data {code, retry_after_ms}",
    ),
    Method(
        "tx.submit_batch",
        (_required("transactions", BYTES_LIST, f"at most {BATCH_TRANSACTIONS_MAX} transactions", limits.TRANSACTION_BYTES_MAX),), DESK,
        "Hand in several transactions, each on its own: one refusal touches no other.",
        "{results: [{id, result: accepted|duplicate|refused, code, message, retry_after_ms}]} in the order given",
    ),
    Method(
        "tx.wait",
        (_ID, _optional("timeout_ms", UINT, f"how long to wait, at most {WAIT_MS_MAX}", WAIT_MS_MAX, 30_000)), DESK,
        "Wait until a transaction is decided or expired.",
        f"{{id, status: decided|expired|pending|unknown, height, time_ms, code (empty = accepted), operation_index, {_EVENTS}}}",
    ),
    Method(
        "tx.status", (_ID,), ENGINE,
        "What became of a transaction.",
        f"{{id, status: decided|expired|pending|unknown, height, time_ms, code (empty = accepted), operation_index, {_EVENTS}}}",
    ),
    Method(
        "tx.proof", (_ID,), ENGINE,
        "A proof file of a decided transaction: verifies offline with the genesis document alone.",
        "{id, height, proof (the file's bytes)}",
    ),
    # ---- state, pool, hospitals --------------------------------------------------------------------------------------------------
    Method(
        "state.get", (_required("key", BYTES, "state key (ledger/rows.py)", STATE_KEY_BYTES_MAX),), ENGINE,
        "A row of the state at the head, or its absence, with everything needed to check it.",
        "{height, header, certificate, value (null when absent), proof}; Unavailable at height 0, which nothing certifies",
    ),
    Method("mempool.status", (), ENGINE, "The pool of accepted transactions that wait.", "{transactions, bytes, bytes_max, oldest_ms}"),
    Method(
        "hospitals.list", (), ENGINE,
        "Member hospitals.",
        "{hospitals: [{organisation_key, name, role, consensus_key, officer_key, opening_suite, opening_key, endpoints, from_height}]}",
    ),
    # ---- people and epochs -------------------------------------------------------------------------------------------------------
    Method(
        "people.clinician", (_required("clinician", KEY, "the clinician's signing key"),), ENGINE,
        "A clinician and the newest credential.",
        "{clinician, hospital, number, role, specialty, expires_ms, opening_suite, opening_key, from_height, "
        "code (empty = valid at the head's time)}; people.clinician-unknown",
    ),
    Method(
        "people.patient", (_PSEUDONYM,), ENGINE,
        "A registered patient.",
        "{pseudonym, key, hospital, opening_suite, opening_key, from_height}; people.patient-unknown",
    ),
    Method(
        "epochs.head", (_PSEUDONYM, _required("category", TEXT, "category of records")), ENGINE,
        "Where the epochs of a patient and category stand; number 0 = none was opened yet.",
        "{pseudonym, category, number, floor, is_interim, check_value}",
    ),
    # ---- records -----------------------------------------------------------------------------------------------------------------
    Method(
        "records.get", (_RECORD,), ENGINE,
        "A record with all its versions.",
        "{record, pseudonym, custodian, category, kind, version, from_height, versions: [{version, root, segments, size_class, epoch, "
        "author, date, tokens, wrap_digest, from_height, time_ms, holders (organisation keys that confirmed custody)}]}; records.unknown",
    ),
    Method(
        "records.list", (_PSEUDONYM, _AFTER, _COUNT), ENGINE,
        "Records of a patient, oldest first.",
        "{records: [{record, category, kind, version, custodian, from_height}], next}",
    ),
    Method(
        "records.scan", (_AFTER, _COUNT), ENGINE,
        "All records, for repairing replicas; in the order of their ids.",
        "{records: [{record, custodian, version, root, segments, size_class, holders}] (newest version), next}",
    ),
    Method(
        "records.history", (_RECORD, _FIRST, _COUNT), ENGINE,
        "What happened to a record: registrations, amendments, custody, requests, releases, reads.",
        "{record, count, events: [{height, time_ms, index, kind, fields}], next}",
    ),
    Method(
        "records.put", (_REQUEST,), CUSTODIAN,
        "Register a record version whose ciphertext was uploaded to this hospital's vault.",
        "{record, version, root, height}",
    ),
    Method(
        "records.fetch", (_RECORD, _VERSION), CUSTODIAN,
        "Bring a version's ciphertext into this hospital's vault for a reader of this hospital; ask again until it is complete.",
        "{root, sealed_bytes (null until the beginning has arrived), received_bytes, is_complete}",
    ),
    Method(
        "records.release", (_REQUEST,), CUSTODIAN,
        "Ask for the data key of a permit's version; answered after the release is final on the chain.",
        "{release (its bytes)}",
    ),
    # ---- consents and access -----------------------------------------------------------------------------------------------------
    Method(
        "consents.list", (_PSEUDONYM, _AFTER, _COUNT), ENGINE,
        "Consents of a patient, oldest first.",
        "{consents: [{consent, grantee_kind, grantee, purpose, category, from_ms, until_ms, from_height, "
        "status: active|not-begun|ended|revoked, to_height}], next}",
    ),
    Method(
        "consents.explain",
        (
            _required("clinician", KEY, "the clinician's signing key"),
            _RECORD,
            _required("purpose", TEXT, "purpose of use"),
            _optional("role", TEXT, "role the clinician would ask under; absent = that of the credential"),
        ),
        ENGINE,
        "What a request would be answered at the head, and why. Writes nothing.",
        "{height, permit, code, consent, until_ms, trace: [{consent, code, from_height, to_height}]}",
    ),
    Method(
        "access.permit", (_required("permit", DIGEST, "permit id"),), ENGINE,
        "A permit, what was done with it, and whether a key may still go out under it.",
        "{permit, record, pseudonym, versions, reader, credential, hospital, purpose, role, consent, reason, from_height, time_ms, "
        "expires_height, expires_ms, releases_max, releases, released, read, code (empty = stands)}; access.permit-unknown",
    ),
    Method(
        "access.trail",
        (
            _required("subject", DIGEST, "pseudonym or record id"),
            _FIRST,
            _COUNT,
        ),
        ENGINE,
        "Events of a trail with their exact bytes, so that the running digest can be checked.",
        "{subject, height, count, digest (head of the trail at that height), events: [{index, height, time_ms, event (its bytes)}], "
        "next (index, null at the end)}",
    ),
    Method(
        "access.emergencies",
        (
            _optional("custodian", KEY, "only those that this hospital (organisation key) reviews"),
            _optional("is_open", BOOLEAN, "only those that await review", default=False),
            _AFTER,
            _COUNT,
        ),
        ENGINE,
        "Broken glasses and their reviews.",
        "{emergencies: [{permit, record, pseudonym, custodian, clinician, hospital, reason, from_height, time_ms, due_ms, "
        "outcome (empty while open), is_overdue}], next}",
    ),
    # ---- evidence ----------------------------------------------------------------------------------------------------------------
    Method(
        "evidence.list", (_AFTER, _COUNT), ENGINE,
        "Contradictions by validators that the chain recorded, oldest first, and those this node holds that no block carries yet.",
        "{evidence: [{id, offence: equivocation|view-change-lie, offender (consensus key), hospital (organisation key), height, "
        "from_height, time_ms}], pending: [{id, offence, offender, hospital, height}] (on every page), next}",
    ),
    Method(
        "evidence.get", (_required("id", DIGEST, "id of the evidence"),), ENGINE,
        "One contradiction with the signed statements; `state.get` of `key` proves that it is recorded.",
        "{id, offence, offender, hospital, height, from_height (null while no block carries it), time_ms (null likewise), "
        "evidence (its bytes), key (of the state)}; evidence.unknown",
    ),
)  # fmt: skip

METHODS: Final[dict[str, Method]] = {method.name: method for method in _TABLE}
"""Name → method, in the order of the documentation."""


def served_by(server: str) -> tuple[str, ...]:
    """Return the names of the methods that one of SERVERS answers."""
    return tuple(method.name for method in _TABLE if method.served_by == server)


def check_params(method: str, params: Any) -> dict[str, Any]:
    """Return every parameter of a method by name: hexadecimal text as bytes, absent optional ones with their default.

    `params` is what JSON held: an object, or None for none. Raises Malformed with a sentence for an unknown method, unknown or missing
    names, wrong types and values out of bounds.
    """
    known = METHODS.get(method)
    if known is None:
        raise Malformed("there is no method of this name: see the table of methods")
    if params is None:
        params = {}
    if type(params) is not dict:
        raise Malformed(f"{method} takes its parameters by name, in an object")
    names = [param.name for param in known.params]
    if not names and params:
        raise Malformed(f"{method} takes no parameters")
    if any(name not in names for name in params):
        raise Malformed(f"{method} takes only these parameters: {', '.join(names)}")
    checked: dict[str, Any] = {}
    for param in known.params:
        value = params.get(param.name)
        if value is not None:
            checked[param.name] = _read(param, value)
        elif param.is_required:
            raise Malformed(f"{method} needs the parameter {param.name}: {param.doc}")
        else:
            checked[param.name] = param.default
    return checked


def _read(param: Param, value: Any) -> Any:
    match param.kind:
        case "digest" | "key":
            return codec.as_bytes(read_hex(value, param.name, limits.DIGEST_BYTES), param.name, length=limits.DIGEST_BYTES)
        case "bytes":
            return read_hex(value, param.name, param.maximum or limits.TRANSACTION_BYTES_MAX)
        case "bytes_list":
            maximum = param.maximum or limits.TRANSACTION_BYTES_MAX
            return codec.as_items(value, BATCH_TRANSACTIONS_MAX, param.name, lambda item: read_hex(item, param.name, maximum))
        case "uint":
            return codec.as_uint(value, param.name, UINT_MAX if param.maximum is None else param.maximum)
        case "text":
            return _as_unicode(codec.as_text(value, param.name, param.maximum or TEXT_BYTES_MAX), param.name)
        case _:
            return codec.as_bool(value, param.name)


def _as_unicode(text: str, what: str) -> str:
    """JSON can escape half a character (a lone surrogate); no encoding has it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Malformed(f"{what} is not Unicode text") from None
    return text


def read_hex(value: Any, what: str, bytes_max: int) -> bytes:
    """Return the bytes of lower-case hexadecimal text; one byte string has one text. Raises Malformed."""
    if type(value) is not str or len(value) > 2 * bytes_max or not _HEX.match(value):
        raise Malformed(f"{what} must be lower-case hexadecimal text of at most {bytes_max} bytes")
    return bytes.fromhex(value)


def to_json(value: Any) -> Any:
    """Return an answer with its bytes as lower-case hexadecimal text and its tuples as lists: what is put into JSON."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def params_to_json(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return parameters as a client sends them, checked against the table first, so that a wrong call fails where it is written.

    Raises Malformed.
    """
    written = {name: to_json(value) for name, value in params.items() if value is not None}
    check_params(method, written)
    return written
