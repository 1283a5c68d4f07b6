"""The chain as the custodian uses it: reading rows at the node's own head, and settling transactions of the organisation.

Asks the node's desk and nothing else, so what is read here was decided by a quorum and executed by this node. Knows no vault, no file and
no peer.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from medchain.actions.transactions import build_transaction
from medchain.chain import limits
from medchain.chain.domain import Domain
from medchain.chain.genesis import Genesis
from medchain.chain.transaction import Operation, Transaction
from medchain.crypto.signing import SigningKey
from medchain.engine.ready import Accepted, BlockDecided
from medchain.errors import Rejected, Unavailable
from medchain.ledger.permits import EMERGENCY_MS
from medchain.ledger.refusals import REFUSALS as LEDGER_REFUSALS

REFUSALS: Final[dict[str, str]] = {
    "custody.head-old": "This hospital's newest block is older than two heartbeats: it may not know of a revocation.",
}

HEARTBEATS: Final = 2
MEMBERSHIP: Final = "hospitals."
"""What the kinds of events about members begin with."""
VALID_BLOCKS_MAX: Final = 2_000
"""How long a transaction of the custodian may wait for a block: over a minute at the shortest interval, hours when idle."""
SETTLE_MS: Final = 60_000
"""How long a put or a release waits for its block before the asker is told to come again."""
PERMIT_PAGE: Final = 64
"""Events of a record's history read at a time, newest first."""
PERMIT_PAGES_MAX: Final = 32
"""Pages looked through for a permit: 2,048 events within the hours that a permit can live."""
RETRY_MS: Final = 1_000

RELEASES_USED_UP: Final = "access.releases-used-up"


class Desk(Protocol):
    """What is needed of the node's desk (node/desk.py)."""

    async def submit(self, transaction: Transaction) -> Accepted:
        """Hand in a transaction; returns when it is durably in the pool."""
        ...

    async def wait(self, transaction_id: bytes, timeout_ms: int) -> Any:
        """Return tx.status once the transaction has ended, or as it is after the time."""
        ...

    async def query(self, method: str, **params: Any) -> Any:
        """Answer a read method of wire/methods.py."""
        ...

    async def ask_release(self, permit: bytes) -> Any:
        """Ask engine/release.py whether a key may go out now."""
        ...


class Clock(Protocol):
    """What is needed of the node's clock."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970 UTC."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """A hospital of the network."""

    organisation_key: bytes
    consensus_key: bytes


@dataclass(frozen=True, slots=True)
class RecordVersion:
    """One version of a record as the chain knows it."""

    record: bytes
    version: int
    pseudonym: bytes
    custodian: bytes
    category: str
    kind: str
    newest: int
    """Number of the record's newest version."""
    root: bytes
    segments: int
    epoch: int
    author: bytes
    wrap_digest: bytes
    from_height: int
    holders: tuple[bytes, ...]
    """Organisation keys that confirmed custody of this version."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A transaction that was executed and accepted."""

    transaction_id: bytes
    height: int
    time_ms: int


class Anchor:
    """Reads and writes on behalf of one organisation."""

    def __init__(self, desk: Desk, key: SigningKey, genesis: Genesis, network: Domain, clock: Clock) -> None:
        self._desk = desk
        self._key = key
        self._genesis = genesis
        self._clock = clock
        self._decided = asyncio.Event()
        self._members: tuple[Member, ...] | None = None
        self._memberships = 0
        """How often the members may have changed: what was asked for before that is not remembered."""
        self.network = network

    @property
    def organisation(self) -> bytes:
        """Organisation key of this hospital."""
        return self._key.public

    # ---- the head ------------------------------------------------------------------------------------------------------------

    def observe(self, block: BlockDecided) -> None:
        """Wake whoever waits for a height, and forget the members when a block says something of them."""
        self._decided.set()
        self._decided = asyncio.Event()
        if any(event.kind.startswith(MEMBERSHIP) for receipt in block.receipts for event in receipt.events):
            self._members = None
            self._memberships += 1

    async def height(self) -> int:
        """Return the height of the node's newest block."""
        return int((await self._desk.query("chain.head"))["height"])

    async def wait_height(self, height: int, timeout_ms: int) -> None:
        """Return when the node has reached a height, or after the time: whoever named the height may be ahead, or may lie."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while True:
                    decided = self._decided
                    if await self.height() >= height:
                        return
                    await decided.wait()
        except TimeoutError:
            return

    async def is_head_fresh(self) -> bool:
        """Answer whether the node's newest block is at most two heartbeats old by the wall clock."""
        head = await self._desk.query("chain.head")
        parameters = (await self._desk.query("chain.params"))["parameters"]
        return bool(self._clock.wall_ms() - head["time_ms"] <= HEARTBEATS * parameters["heartbeat_ms"])

    async def is_catching_up(self) -> bool:
        """Answer whether the node is fetching blocks that others have decided: what it knows is old then, and will soon be new."""
        return bool((await self._desk.query("node.status"))["is_catching_up"])

    async def check_head(self) -> None:
        """Raise Rejected custody.head-old when the head is too old to give anything out by (ledger.md, "Sealing and sharing", 6)."""
        if not await self.is_head_fresh():
            raise Rejected("custody.head-old", "this hospital's newest block is too old: try again when it is connected and has caught up")

    def is_past(self, time_ms: int) -> bool:
        """Answer whether a moment has passed by the wall clock, which an idle chain's head lags behind."""
        return self._clock.wall_ms() >= time_ms

    # ---- rows ----------------------------------------------------------------------------------------------------------------

    async def hospitals(self) -> tuple[Member, ...]:
        """Return the member hospitals, in the order of their organisation keys. Asked for with every record, so they are remembered."""
        if self._members is not None:
            return self._members
        asked = self._memberships
        rows = (await self._desk.query("hospitals.list"))["hospitals"]
        members = tuple(Member(row["organisation_key"], row["consensus_key"]) for row in rows)
        if asked == self._memberships:
            self._members = members
        return members

    @property
    def known_hospitals(self) -> tuple[Member, ...]:
        """The member hospitals if they are remembered, else ()."""
        return self._members or ()

    async def organisation_of(self, consensus_key: bytes) -> bytes | None:
        """Return the organisation key of the hospital with a consensus key, None when there is none."""
        return next((member.organisation_key for member in await self.hospitals() if member.consensus_key == consensus_key), None)

    async def consensus_key_of(self, organisation_key: bytes) -> bytes | None:
        """Return the consensus key of a hospital, None when there is none."""
        return next((member.consensus_key for member in await self.hospitals() if member.organisation_key == organisation_key), None)

    async def patient_hospital(self, pseudonym: bytes) -> bytes:
        """Return the organisation key of the hospital that registered a patient. Raises Rejected people.patient-unknown."""
        return bytes((await self._desk.query("people.patient", pseudonym=pseudonym))["hospital"])

    async def clinician(self, key: bytes) -> dict[str, Any]:
        """Return a clinician as `people.clinician` answers. Raises Rejected people.clinician-unknown."""
        found: dict[str, Any] = await self._desk.query("people.clinician", clinician=key)
        return found

    async def epoch_head(self, pseudonym: bytes, category: str) -> dict[str, Any]:
        """Return where the epochs of a patient and category stand, as `epochs.head` answers."""
        found: dict[str, Any] = await self._desk.query("epochs.head", pseudonym=pseudonym, category=category)
        return found

    async def permit(self, permit: bytes) -> dict[str, Any]:
        """Return a permit as `access.permit` answers. Raises Rejected access.permit-unknown."""
        found: dict[str, Any] = await self._desk.query("access.permit", permit=permit)
        return found

    async def scan(self, after: bytes | None, count: int) -> dict[str, Any]:
        """Return a page of all records, as `records.scan` answers."""
        found: dict[str, Any] = await self._desk.query("records.scan", after=after, count=count)
        return found

    async def versions(self, record: bytes) -> tuple[RecordVersion, ...]:
        """Return all versions of a record, oldest first, or () when it is not registered."""
        try:
            found = await self._desk.query("records.get", record=record)
        except Rejected as refusal:
            if refusal.code != "records.unknown":
                raise
            return ()
        return tuple(_record_version(found, row) for row in found["versions"])

    async def record_version(self, record: bytes, version: int) -> RecordVersion:
        """Return one version of a record. Raises Rejected records.unknown or records.version-unknown."""
        versions = await self.versions(record)
        if not versions:
            raise refused("records.unknown")
        found = next((row for row in versions if row.version == version), None)
        if found is None:
            raise refused("records.version-unknown")
        return found

    async def live_permit(self, version: RecordVersion, hospital: bytes, named: bytes | None = None) -> bytes | None:
        """Return a permit of one of a hospital's clinicians that names this version and still stands, None when there is none.

        `named`, when it is one, saves walking through the record's history, newest event first. A permit whose releases are used up still
        counts here: what is counted are keys, and this is asked for ciphertext. The caller checks the age of the head.
        """
        if named is not None and await self._covers(named, version, hospital):
            return named
        oldest_ms = self._clock.wall_ms() - EMERGENCY_MS
        history = await self._history(version.record, 0, 1)
        stop = int(history["count"])
        for _ in range(PERMIT_PAGES_MAX):
            if stop == 0:
                return None
            first = max(0, stop - PERMIT_PAGE)
            events = (await self._history(version.record, first, stop - first))["events"]
            for event in reversed(events):
                if event["time_ms"] is None or event["time_ms"] < oldest_ms:
                    return None
                if event["kind"] not in ("access.permit", "access.emergency") or event["fields"].get("hospital") != hospital:
                    continue
                if await self._covers(event["fields"]["permit"], version, hospital):
                    return bytes(event["fields"]["permit"])
            stop = first
        return None

    async def _history(self, record: bytes, first: int, count: int) -> dict[str, Any]:
        found: dict[str, Any] = await self._desk.query("records.history", record=record, first=first, count=count)
        return found

    async def _covers(self, permit: bytes, version: RecordVersion, hospital: bytes) -> bool:
        """Answer whether a permit is a hospital's for this version, and stands at the head and by the wall clock, which an idle chain's
        head lags behind."""
        try:
            found = await self.permit(permit)
        except Rejected as refusal:
            if refusal.code != "access.permit-unknown":
                raise
            return False
        is_for_it = found["record"] == version.record and version.version in found["versions"] and found["hospital"] == hospital
        return is_for_it and found["code"] in ("", RELEASES_USED_UP) and self._clock.wall_ms() < found["expires_ms"]

    # ---- writing -------------------------------------------------------------------------------------------------------------

    async def ask_release(self, permit: bytes) -> None:
        """Return when engine/release.py lets a key out, which counts it. Raises Rejected or Unavailable."""
        await self._desk.ask_release(permit)

    async def settle(self, operations: Sequence[Operation], timeout_ms: int = SETTLE_MS) -> Settled:
        """Sign and submit one transaction of the organisation and return when a block has accepted it.

        Raises Rejected with the code of a refusal; Unavailable when it expired, or is still waiting after `timeout_ms` (then it may yet be
        decided: whoever asks again must look first).
        """
        height = await self.height()
        parameters = (await self._desk.query("chain.params"))["parameters"]
        transaction = build_transaction(
            self.network,
            self._genesis.chain_id,
            self._key,
            operations,
            valid_until=height + max(1, min(parameters["expiry_window_blocks"] // 2, VALID_BLOCKS_MAX)),
            nonce=secrets.token_bytes(limits.NONCE_BYTES),
        )
        await self._desk.submit(transaction)
        status = await self._desk.wait(transaction.id, timeout_ms)
        if status["status"] != "decided":
            waits = status["status"] == "pending"
            reason = "waits for the other hospitals to agree" if waits else "found no block in time"
            raise Unavailable(f"the hospital's transaction {reason}: ask again in a moment", RETRY_MS)
        if status["code"]:
            raise refused(status["code"])
        return Settled(transaction.id, status["height"], status["time_ms"])


def refused(code: str) -> Rejected:
    """Return the refusal for a code of the rule book, with its sentence."""
    return Rejected(code, LEDGER_REFUSALS.get(code, "the rule book refused the hospital's transaction"))


def _record_version(record: dict[str, Any], row: dict[str, Any]) -> RecordVersion:
    return RecordVersion(
        record=record["record"],
        version=row["version"],
        pseudonym=record["pseudonym"],
        custodian=record["custodian"],
        category=record["category"],
        kind=record["kind"],
        newest=record["version"],
        root=row["root"],
        segments=row["segments"],
        epoch=row["epoch"],
        author=row["author"],
        wrap_digest=row["wrap_digest"],
        from_height=row["from_height"],
        holders=tuple(row["holders"]),
    )
