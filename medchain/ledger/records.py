"""Records: what the chain knows of sealed content. Digests of ciphertext, coarse codes, tokens; never content or a digest of it.

The custodian of a record is the hospital that registered its patient. Versions are rows written once; who holds which version's ciphertext
is a row for each confirmation. This module knows no consent and no permit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final, NoReturn

from medchain import codec
from medchain.errors import InvariantBroken, Malformed, Rejected
from medchain.ledger import rows
from medchain.ledger.epochs import check_epoch
from medchain.ledger.execution import Execution, Handler
from medchain.ledger.hospitals import check_hospital, organisation_of
from medchain.ledger.lists import RECORDS, append_item
from medchain.ledger.payload import as_code, as_digest, as_key, as_number
from medchain.ledger.people import check_patient, clinician_of, credential_standing, patient_of
from medchain.ledger.rows import decode_row, encode_row, uint32
from medchain.store.overlay import StateView

SIZE_CLASS_MAX: Final = 48
"""Size class = the power of two at or above the size: coarse on purpose; 2^48 bytes is beyond any study."""
SEGMENTS_MAX: Final = 2**28
"""Ciphertext segments of 1 MiB, as many as the largest size class needs."""
TOKENS_MAX: Final = 16
"""Label tokens of one version."""
YEAR_MIN: Final = 1850
YEAR_MAX: Final = 2200
"""Bounds of a coarse date that say "this is a month" and nothing about what is plausible."""


@dataclass(frozen=True, slots=True)
class RecordRow:
    """A record; what does not change with its versions, and how many there are."""

    pseudonym: bytes
    custodian: bytes
    """Organisation key."""
    category: str
    kind: str
    version: int
    """The newest, from 1 on."""
    from_height: int


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version's reference to its ciphertext."""

    size_class: int
    root: bytes
    """Merkle root over the ciphertext's segments."""
    segments: int
    epoch: int
    author: bytes
    date: int
    """Coarse date of the content, year * 100 + month."""
    tokens: tuple[bytes, ...]
    wrap_digest: bytes
    from_height: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class CustodyRow:
    """A hospital's word that it holds a version's ciphertext."""

    from_height: int


def record_of(view: StateView, record: bytes) -> RecordRow | None:
    """Return a record, None if it is not registered."""
    stored = view.get(rows.RECORD + record)
    return None if stored is None else decode_row(RecordRow, stored)


def version_of(view: StateView, record: bytes, version: int) -> VersionRow | None:
    """Return one version of a record, None if there is none."""
    stored = view.get(rows.VERSION + record + uint32(version))
    return None if stored is None else decode_row(VersionRow, stored)


def _custody_key(record: bytes, version: int, hospital: bytes) -> bytes:
    return rows.CUSTODY + record + uint32(version) + hospital


@dataclass(frozen=True, slots=True)
class Content:
    """What registering and amending say of a version alike: the last eight fields of both payloads."""

    size_class: int
    root: bytes
    segments: int
    epoch: int
    author: bytes
    date: int
    tokens: tuple[bytes, ...]
    wrap_digest: bytes

    def to_values(self) -> list[Any]:
        """Return the eight values in the order of the payload."""
        return [
            self.size_class, self.root, self.segments, self.epoch, self.author, self.date, list(self.tokens), self.wrap_digest,
        ]  # fmt: skip

    @classmethod
    def from_values(cls, values: list[Any]) -> Content:
        """Read the eight values. Raises Malformed."""
        size_class, root, segments, epoch, author, date, tokens, wrap_digest = values
        return cls(
            size_class=codec.as_uint(size_class, "size class", SIZE_CLASS_MAX),
            root=as_digest(root, "ciphertext root"),
            segments=_as_segments(segments),
            epoch=as_number(epoch, "epoch"),
            author=as_key(author, "author key"),
            date=_as_month(date),
            tokens=_as_tokens(tokens),
            wrap_digest=as_digest(wrap_digest, "wrap digest"),
        )


def _as_segments(value: Any) -> int:
    if codec.as_uint(value, "segment count", SEGMENTS_MAX) < 1:
        raise Malformed("a ciphertext has at least one segment")
    return int(value)


def _as_month(value: Any) -> int:
    year, month = divmod(codec.as_uint(value, "coarse date", YEAR_MAX * 100 + 12), 100)
    if year < YEAR_MIN or not 1 <= month <= 12:
        raise Malformed("the coarse date must be year * 100 + month")
    return int(value)


def _as_tokens(value: Any) -> tuple[bytes, ...]:
    tokens = codec.as_items(value, TOKENS_MAX, "label tokens", lambda item: as_digest(item, "label token"))
    if list(tokens) != sorted(set(tokens)):
        raise Malformed("label tokens must be distinct and in ascending order, so that their order says nothing")
    return tokens


def _check_content(execution: Execution, pseudonym: bytes, category: str, content: Content) -> None:
    """Raise Rejected unless the epoch may seal now and the author belongs to the custodian, who is the sender."""
    check_epoch(execution.state, pseudonym, category, content.epoch)
    author = content.author
    if author == execution.sender:
        return
    clinician = clinician_of(execution.state, author)
    if clinician is not None and clinician.hospital == execution.sender:
        _, code = credential_standing(execution.state, execution.context.time_ms, author, clinician)
        if not code:
            return
    raise Rejected("records.author", "the author must be the custodian itself or a clinician with a valid credential from it")


def _not_custodian() -> NoReturn:
    raise Rejected("records.not-custodian", "only the hospital that registered this patient registers and amends the patient's records")


def _write_version(execution: Execution, kind: str, record_id: bytes, record: RecordRow, content: Content) -> None:
    """Write the record's newest version and its event on the trails of patient and record."""
    execution.state.put(rows.RECORD + record_id, encode_row(record))
    version = VersionRow(
        size_class=content.size_class,
        root=content.root,
        segments=content.segments,
        epoch=content.epoch,
        author=content.author,
        date=content.date,
        tokens=content.tokens,
        wrap_digest=content.wrap_digest,
        from_height=execution.context.height,
        time_ms=execution.context.time_ms,
    )
    execution.insert(rows.VERSION + record_id + uint32(record.version), encode_row(version))
    execution.emit(
        kind,
        (record.pseudonym, record_id),
        [
            execution.sender, record.category, record.kind, record.version, content.root, content.epoch, content.author,
            content.size_class,
        ],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Register(Handler):
    """The custodian registers version 1 of a record. Sender: the patient's hospital. Event on the trails of patient and record."""

    KIND: ClassVar[str] = "records.register"
    WEIGHT: ClassVar[int] = 20

    record: bytes
    """Id, 32 random bytes of the custodian's choosing."""
    pseudonym: bytes
    category: str
    kind: str
    content: Content

    def to_payload(self) -> list[Any]:
        """Return the positional payload: the content's values stand in it one by one."""
        return [self.record, self.pseudonym, self.category, self.kind, *self.content.to_values()]

    @classmethod
    def from_payload(cls, payload: list[Any]) -> Register:
        """Read a positional payload. Raises Malformed."""
        record, pseudonym, category, kind, *rest = codec.as_fields(payload, 12, "registration of a record")
        return cls(
            as_digest(record, "record id"), as_digest(pseudonym, "pseudonym"), as_code(category, "category"), as_code(kind, "kind"),
            Content.from_values(rest),
        )  # fmt: skip

    def check(self, execution: Execution) -> None:
        """Raise Rejected unless the patient's hospital registers an unused id, sealed under an epoch that may seal."""
        check_hospital(execution)
        state = execution.state
        if check_patient(state, self.pseudonym).hospital != execution.sender:
            _not_custodian()
        # A record under a patient's pseudonym or a hospital's key would write on their trails: all subjects share one namespace.
        taken = (record_of(state, self.record), patient_of(state, self.record), organisation_of(state, self.record))
        if any(found is not None for found in taken):
            raise Rejected("records.id-taken", "this record id is in use: choose another one at random")
        _check_content(execution, self.pseudonym, self.category, self.content)

    def apply(self, execution: Execution) -> None:
        """Write the record, its first version and its place in the patient's list."""
        height = execution.context.height
        record = RecordRow(self.pseudonym, execution.sender, self.category, self.kind, 1, height)
        append_item(execution, RECORDS, self.pseudonym, self.record)
        _write_version(execution, self.KIND, self.record, record, self.content)


@dataclass(frozen=True, slots=True)
class Amend(Handler):
    """The custodian adds the next version of a record. Sender: the custodian. Event on the trails of patient and record."""

    KIND: ClassVar[str] = "records.amend"
    WEIGHT: ClassVar[int] = 20

    record: bytes
    version: int
    """The newest version plus one: two amendments of the same version cannot both be accepted."""
    content: Content

    def to_payload(self) -> list[Any]:
        """Return the positional payload: the content's values stand in it one by one."""
        return [self.record, self.version, *self.content.to_values()]

    @classmethod
    def from_payload(cls, payload: list[Any]) -> Amend:
        """Read a positional payload. Raises Malformed."""
        record, version, *rest = codec.as_fields(payload, 10, "amendment of a record")
        return cls(as_digest(record, "record id"), as_number(version, "version"), Content.from_values(rest))

    def check(self, execution: Execution) -> None:
        """Raise Rejected unless the custodian adds the version in line, sealed under an epoch that may seal."""
        check_hospital(execution)
        record = check_record(execution.state, self.record)
        if record.custodian != execution.sender:
            _not_custodian()
        if self.version != record.version + 1:
            raise Rejected("records.version", "the record has been amended meanwhile: read its newest version and amend that")
        _check_content(execution, record.pseudonym, record.category, self.content)

    def apply(self, execution: Execution) -> None:
        """Write the next version."""
        before = record_of(execution.state, self.record)
        if before is None:
            raise InvariantBroken("the record of a checked amendment is missing")
        record = RecordRow(before.pseudonym, before.custodian, before.category, before.kind, self.version, before.from_height)
        _write_version(execution, self.KIND, self.record, record, self.content)


@dataclass(frozen=True, slots=True)
class ConfirmCustody(Handler):
    """A hospital says that it holds a version's ciphertext. Sender: any hospital. Event on the trails of patient and record."""

    KIND: ClassVar[str] = "records.confirm_custody"
    WEIGHT: ClassVar[int] = 12

    record: bytes
    version: int

    @classmethod
    def from_payload(cls, payload: list[Any]) -> ConfirmCustody:
        """Read a positional payload. Raises Malformed."""
        record, version = codec.as_fields(payload, 2, "confirmation of custody")
        return cls(as_digest(record, "record id"), as_number(version, "version"))

    def check(self, execution: Execution) -> None:
        """Raise Rejected unless a hospital confirms an existing version for the first time."""
        check_hospital(execution)
        if self.version > check_record(execution.state, self.record).version:
            raise Rejected("records.version-unknown", "the record has no such version: read its newest version")
        if execution.state.get(_custody_key(self.record, self.version, execution.sender)) is not None:
            raise Rejected("records.custody-confirmed", "this hospital has already confirmed custody of this version: nothing is left")

    def apply(self, execution: Execution) -> None:
        """Write the confirmation."""
        record = check_record(execution.state, self.record)
        key = _custody_key(self.record, self.version, execution.sender)
        execution.insert(key, encode_row(CustodyRow(execution.context.height)))
        execution.emit(self.KIND, (record.pseudonym, self.record), [execution.sender, self.version])


def check_record(view: StateView, record: bytes) -> RecordRow:
    """Return a record. Raises Rejected when it is not registered."""
    row = record_of(view, record)
    if row is None:
        raise Rejected("records.unknown", "no record is registered under this id: check the id")
    return row
