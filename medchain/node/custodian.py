"""The custodian: the organisation's online agent. Takes records into custody, releases keys to the readers of permits, keeps replicas.

It holds the organisation's unlocked keys and uses them for nothing else than what stands here (ledger.md, "Who" and "Sealing and sharing").
Whatever it gives out, it first reads at the node's own head whether the rule allows it, and an audit entry is final before a key leaves.
Who asks is the signing key. Keys and payloads are never logged. HTTP, disk and chain are its neighbours' affair.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from medchain.actions.access import announce_release
from medchain.actions.custody import make_release, open_put_request
from medchain.actions.records import amend_record, confirm_custody, register_record
from medchain.chain import limits
from medchain.chain.domain import Domain
from medchain.chain.genesis import Genesis
from medchain.chain.transaction import Operation
from medchain.crypto.keyfile import Identity
from medchain.crypto.sealing import KEY_BYTES
from medchain.crypto.streams import SegmentOpener
from medchain.engine.ready import BlockDecided
from medchain.errors import InvariantBroken, Malformed, Rejected, Unavailable
from medchain.ledger.records import Content
from medchain.node.anchor import RELEASES_USED_UP, Anchor, Clock, Desk, RecordVersion, Settled, refused
from medchain.node.opening import Opening, Turns
from medchain.node.replicas import PeerOpener, ReplicaLimits, Replicas, read_bounded
from medchain.node.serving import RELEASE_PATH, Serving
from medchain.telemetry import log_event
from medchain.vault.blobs import BlobStore
from medchain.vault.http import ERROR_BYTES_MAX, blob_routes, read_error, typed
from medchain.vault.wraps import WrapStore
from medchain.wire.custody import (
    REQUEST_BYTES_MAX,
    PutRequest,
    Release,
    ReleaseInfo,
    ReleaseRequest,
    reader_key_digest,
)

REFUSALS: Final[dict[str, str]] = {
    "custody.signature": "The request is not signed by the key that it names.",
    "custody.not-custodian": "This hospital is not the custodian of the patient or the record.",
    "custody.author": "The author is neither this hospital nor a clinician with a valid credential from it.",
    "custody.blob-missing": "The ciphertext was not uploaded to this hospital's vault.",
    "custody.blob-differs": "The uploaded ciphertext is not what the request says of it.",
    "custody.record-differs": "The record is registered with another patient, category or kind.",
    "custody.version-taken": "This version of the record is registered with other content.",
    "custody.version-order": "The version is not the one after the newest.",
    "custody.not-reader": "The permit was given to another reader.",
}

PUT_ATTEMPTS: Final = 4
"""A put is made anew when another one opened the epoch first, or a revocation came in between; four in a row are no accident."""
ANEW: Final = ("epochs.number", "records.epoch-too-old", "records.epoch-unknown")
RELEASES_REMEMBERED: Final = 1_024
"""Answers kept for readers who lost one and send the same request again: the release is not counted twice."""
REQUESTS_AT_ONCE: Final = 256
"""Puts and releases that are being worked on; more are told to come again."""
HEAD_WAIT_MS: Final = 3_000
"""How long a relayed request waits for this node to reach the height at which the other hospital saw the permit."""
FETCH_PATIENCE_MS: Final = 1_500
"""How long records.fetch waits before it tells how far it is: most records are there by then."""


@dataclass(frozen=True, slots=True)
class CustodianLimits:
    """Settings of a custodian."""

    replicas: ReplicaLimits = field(default_factory=ReplicaLimits)
    settle_ms: int = 60_000
    """How long a put or a release waits for its block."""
    fetch_patience_ms: int = FETCH_PATIENCE_MS


class Custodian:
    """The agent of one hospital. Make it, give its routes to the listeners and `servers` to the desk, then `start`."""

    def __init__(
        self,
        *,
        identity: Identity,
        genesis: Genesis,
        network: Domain,
        desk: Desk,
        blobs: BlobStore,
        wraps: WrapStore,
        clock: Clock,
        open_peer: PeerOpener | None = None,
        failed: Callable[[InvariantBroken], None] | None = None,
        limits: CustodianLimits | None = None,
    ) -> None:
        """`identity`: the organisation's, unlocked. `failed` is told of a bug in background work, which must stop the node; without it the
        loop's exception handler is. Raises InvariantBroken when the identity is not the one of a hospital of the genesis document.
        """
        own = identity.signing.public
        hospital = next((hospital for hospital in genesis.hospitals if hospital.organisation_key == own), None)
        if hospital is None:
            raise InvariantBroken("the custodian's key is not that of a hospital of this network")
        self._identity = identity
        self._network = network
        self._blobs = blobs
        self._limits = limits or CustodianLimits()
        self._consensus_key = hospital.consensus_key
        self._anchor = Anchor(desk, identity.signing, genesis, network, clock)
        self._opening = Opening(self._anchor, wraps)
        self.replicas = Replicas(self._anchor, blobs, open_peer, clock, self._limits.replicas, failed or _report)
        self._serving = Serving(self._anchor)
        self._turns = Turns()
        self._released: OrderedDict[tuple[bytes, bytes, bytes], bytes] = OrderedDict()
        self._requests = 0

    # ---- wiring --------------------------------------------------------------------------------------------------------------

    @property
    def open_peer(self) -> PeerOpener | None:
        """How other hospitals are reached; may be set after the making."""
        return self.replicas.open_peer

    @open_peer.setter
    def open_peer(self, open_peer: PeerOpener) -> None:
        self.replicas.open_peer = open_peer

    @property
    def servers(self) -> dict[str, Callable[[Mapping[str, Any]], Awaitable[Any]]]:
        """The methods of wire/methods.py that the custodian answers, by name; each takes its checked parameters."""

        async def put(params: Mapping[str, Any]) -> Any:
            return await self.put(params["request"])

        async def release(params: Mapping[str, Any]) -> Any:
            return {"release": await self.release(params["request"])}

        async def fetch(params: Mapping[str, Any]) -> Any:
            return await self.fetch(params["record"], params["version"])

        return {"records.put": put, "records.release": release, "records.fetch": fetch}

    def client_routes(self) -> list[web.RouteDef]:
        """Return the routes for local clients: uploads, and reading what `records.fetch` allowed."""
        return blob_routes(self._blobs, self._serving.check_local, self._serving.check_upload)

    def peer_routes(self) -> list[web.RouteDef]:
        """Return the routes for other hospitals; a request carries `request["peer"]`, the proven consensus key."""
        return [*blob_routes(self._blobs, self._check_peer), web.post(RELEASE_PATH, typed(self._relayed))]

    def observe(self, block: BlockDecided) -> None:
        """Take note of a decided block; never waits."""
        self._anchor.observe(block)
        self.replicas.observe(block)

    async def start(self) -> None:
        """Begin the work in the background; the node's loop must turn already."""
        self.replicas.start()

    async def stop(self) -> None:
        """End the work in the background."""
        await self.replicas.stop()

    # ---- taking into custody -------------------------------------------------------------------------------------------------

    async def put(self, request: bytes) -> dict[str, Any]:
        """Register a version whose ciphertext is in the vault: {record, version, root, height}. The same request again changes nothing.

        Raises Malformed for what is no request or does not open, Rejected with a code of REFUSALS or of the ledger, Unavailable when it is
        not settled in time (ask again: what was decided meanwhile is found).
        """
        wanted = PutRequest.decode(request)
        _version_operation(wanted, 1, bytes(limits.DIGEST_BYTES))  # what the rule book would call malformed is refused before any work
        if not wanted.is_signed(self._network):
            raise Rejected("custody.signature", "the request is not signed by its author on this network: sign it with the author's key")
        async with self._counted("put"), self._turns.of(("record", wanted.record)):
            present = await self._find_registered(wanted)
            if present is not None:
                return _put_answer(wanted, present.from_height)
            settled = await self._put(wanted)
        log_event("custodian.put", height=settled)
        return _put_answer(wanted, settled)

    async def _find_registered(self, wanted: PutRequest) -> RecordVersion | None:
        """Return the version if it stands on chain as requested and its key is here; None when it is the next in line.

        Raises Rejected when the record or version is another one's.
        """
        versions = await self._anchor.versions(wanted.record)
        if not versions:
            if wanted.version != 1:
                raise Rejected("custody.version-order", "the record is not registered yet: register version 1 first")
            return None
        newest = versions[-1]
        if newest.custodian != self._anchor.organisation:
            raise _not_custodian()
        if (newest.pseudonym, newest.category, newest.kind) != (wanted.pseudonym, wanted.category, wanted.kind):
            raise Rejected("custody.record-differs", "the record is registered with another patient, category or kind: take a new id")
        present = next((version for version in versions if version.version == wanted.version), None)
        if present is None:
            if wanted.version != newest.newest + 1:
                raise Rejected("custody.version-order", f"the newest version is {newest.newest}: amend it with the number after it")
            return None
        is_same = (present.root, present.author, present.segments) == (wanted.root, wanted.author, wanted.segment_count)
        if not is_same or not await self._opening.has_wrap(present):
            raise Rejected("custody.version-taken", "this version is registered with other content: read the record and amend its newest")
        return present

    async def _put(self, wanted: PutRequest) -> int:
        """Check, wrap, register; return the height."""
        await self._check_author(wanted)
        data_key = await self._open_data_key(wanted)
        for _ in range(PUT_ATTEMPTS):
            try:
                return (await self._register(wanted, data_key)).height
            except Rejected as refusal:
                if refusal.code in ("records.id-taken", "records.version"):  # perhaps by our own attempt before
                    present = await self._find_registered(wanted)
                    if present is not None:
                        return present.from_height
                if refusal.code not in ANEW:
                    raise
        raise Unavailable("the patient's epochs change faster than the record can be registered: ask again in a moment", 1_000)

    async def _check_author(self, wanted: PutRequest) -> None:
        own = self._anchor.organisation
        if await self._anchor.patient_hospital(wanted.pseudonym) != own:
            raise _not_custodian()
        if wanted.author == own:
            return
        try:
            clinician = await self._anchor.clinician(wanted.author)
        except Rejected as refusal:
            if refusal.code != "people.clinician-unknown":
                raise
            clinician = {"hospital": b"", "code": refusal.code}
        if clinician["hospital"] != own or clinician["code"]:
            raise Rejected("custody.author", "the author must be this hospital or a clinician with a valid credential from it")

    async def _open_data_key(self, wanted: PutRequest) -> bytes:
        """Return the data key, having checked that the blob is here, is what the request says, and opens with this key."""
        if not await self._blobs.finish_if_whole(wanted.root):
            raise Rejected("custody.blob-missing", "the ciphertext is not in this hospital's vault: upload it first, then ask again")
        facts = await self._blobs.facts(wanted.root)
        fits = (
            facts.segment_count == wanted.segment_count
            and facts.header.record == wanted.record
            and facts.plaintext_bytes <= 2**wanted.size_class
        )
        if not fits:
            raise Rejected("custody.blob-differs", "the ciphertext has another record, segment count or size than the request says")
        data_key = open_put_request(self._network, wanted, self._identity.opening)
        if len(data_key) != KEY_BYTES:
            raise Malformed(f"a data key is {KEY_BYTES} bytes long")
        SegmentOpener(facts.header, data_key)  # the key commitment: a custodian takes no record that nobody could ever open
        return data_key

    async def _register(self, wanted: PutRequest, data_key: bytes) -> Settled:
        """Settle one transaction: the epoch if it must be opened, the version, and that its ciphertext is here."""
        async with self._turns.of(("epoch", wanted.pseudonym, wanted.category)):
            epoch, opening = await self._opening.sealing_epoch(wanted.pseudonym, wanted.category)
            digest = await self._opening.wrap(epoch, wanted.record, wanted.version, data_key)
            operations = [_version_operation(wanted, epoch.number, digest), confirm_custody(wanted.record, wanted.version)]
            if opening is not None:  # others of this patient and category wait: they can then use the same epoch
                return await self._anchor.settle([opening, *operations], self._limits.settle_ms)
        return await self._anchor.settle(operations, self._limits.settle_ms)

    # ---- releasing -----------------------------------------------------------------------------------------------------------

    async def release(self, request: bytes) -> bytes:
        """Return the encoded release of a permit's version to its reader; a record of another custodian is asked for there.

        The announcement is final on the chain before the key leaves. Raises Malformed, Rejected (codes of REFUSALS, the ledger and
        engine/release.py, also those of the other hospital) and Unavailable.
        """
        return await self._release(request, may_relay=True)

    async def _release(self, request: bytes, *, may_relay: bool) -> bytes:
        wanted = ReleaseRequest.decode(request)
        if not wanted.is_signed(self._network):
            raise Rejected("custody.signature", "the request is not signed by its reader on this network: sign it with the reader's key")
        async with self._counted("release"), self._turns.of(("release", wanted.permit)):
            permit = await self._check_permit(wanted)
            version = await self._anchor.record_version(permit["record"], permit["versions"][-1])
            if version.custodian == self._anchor.organisation:
                return await self._release_own(wanted, permit, version)
            if not may_relay:
                raise _not_custodian()
            return await self._relay(request, version.custodian)

    async def _check_permit(self, wanted: ReleaseRequest) -> dict[str, Any]:
        """Return the permit. Raises Rejected when it is another reader's or does not stand at this node's head."""
        permit = await self._anchor.permit(wanted.permit)
        if permit["reader"] != wanted.reader:
            raise Rejected("custody.not-reader", "the permit was given to another reader: ask for access yourself")
        code = permit["code"]
        if code and not (code == RELEASES_USED_UP and self._remembered(wanted) is not None):
            raise refused(code)
        if self._anchor.is_past(permit["expires_ms"]):
            raise refused("access.permit-expired")
        await self._anchor.check_head()
        return permit

    async def _release_own(self, wanted: ReleaseRequest, permit: dict[str, Any], version: RecordVersion) -> bytes:
        remembered = self._remembered(wanted)
        if remembered is not None:  # the answer was lost on its way; the rule was asked again just now
            return remembered
        data_key = await self._opening.data_key(version)
        await self._anchor.settle([announce_release(wanted.permit, version.version)], self._limits.settle_ms)
        await self._anchor.ask_release(wanted.permit)
        reader = await self._anchor.clinician(permit["reader"])
        info = ReleaseInfo(
            genesis=self._network.genesis,
            suite=reader["opening_suite"],
            custodian=self._anchor.organisation,
            pseudonym=version.pseudonym,
            category=version.category,
            epoch=version.epoch,
            record=version.record,
            version=version.version,
            permit=wanted.permit,
            reader_key_digest=reader_key_digest(reader["opening_key"]),
        )
        release = make_release(
            self._network, info, self._identity.signing, reader["opening_key"], secrets.token_bytes(KEY_BYTES), data_key
        ).encode()
        self._remember(wanted, release)
        log_event("custodian.released", height=await self._anchor.height())
        return release

    def _remembered(self, wanted: ReleaseRequest) -> bytes | None:
        return self._released.get((wanted.permit, wanted.reader, wanted.challenge))

    def _remember(self, wanted: ReleaseRequest, release: bytes) -> None:
        self._released[wanted.permit, wanted.reader, wanted.challenge] = release
        if len(self._released) > RELEASES_REMEMBERED:
            self._released.popitem(last=False)

    async def _relay(self, request: bytes, custodian: bytes) -> bytes:
        """Ask the record's custodian on the peer channel. Its typed refusals come back as they are."""
        peer = await self._anchor.consensus_key_of(custodian)
        if peer is None or self.open_peer is None:
            raise Unavailable("the record's custodian cannot be reached: ask again in a moment", 1_000)
        path = f"{RELEASE_PATH}?height={await self._anchor.height()}"
        response = await self.open_peer(peer, "POST", path, data=request, headers={"Content-Type": "application/octet-stream"})
        try:
            if response.status != 200:
                raise read_error(response.status, await read_bounded(response, ERROR_BYTES_MAX))
            release = await read_bounded(response, REQUEST_BYTES_MAX)
        finally:
            response.release()
        try:
            Release.decode(release).check(self._network)
        except Malformed:
            raise Unavailable("the record's custodian answered with something that is no release: ask its operator") from None
        return release

    # ---- answering other hospitals -------------------------------------------------------------------------------------------

    async def may_serve(self, peer: bytes, root: bytes, record: bytes, version: int, permit: bytes | None = None) -> None:
        """Return when the hospital with this consensus key may have the ciphertext of a version: it is to hold it, or one of its clinicians
        has a live permit (`permit`, or any that is found) and this node's head is fresh. Raises Rejected.
        """
        await self._serving.check_hospital(await self._serving.organisation_of(peer), root, record, version, permit)

    async def _check_peer(self, request: web.Request, root: bytes) -> None:
        record, number = _named_digest(request, "record"), request.query.get("version", "")
        permit = _named_digest(request, "permit") if "permit" in request.query else None
        if not (number.isascii() and number.isdigit() and len(number) <= 10):
            raise Malformed("a hospital's request for a blob names the version of the record")
        await self._anchor.wait_height(_named_height(request), HEAD_WAIT_MS)
        await self.may_serve(request["peer"], root, record, int(number), permit)

    async def _relayed(self, request: web.Request) -> web.StreamResponse:
        """POST /custody/release: another hospital relays its reader's request."""
        await self._serving.organisation_of(request["peer"])
        data = bytearray()
        async for chunk in request.content.iter_chunked(REQUEST_BYTES_MAX):
            data += chunk
            if len(data) > REQUEST_BYTES_MAX:
                raise Malformed(f"a release request has at most {REQUEST_BYTES_MAX} bytes")
        await self._anchor.wait_height(_named_height(request), HEAD_WAIT_MS)
        return web.Response(body=await self._release(bytes(data), may_relay=False), content_type="application/octet-stream")

    # ---- fetching for local readers ------------------------------------------------------------------------------------------

    async def fetch(self, record: bytes, version: int) -> dict[str, Any]:
        """Bring a version's ciphertext to this vault for a reader of this hospital: {root, sealed_bytes, received_bytes, is_complete}.

        Ask again until it is complete; `sealed_bytes` is None until the beginning has arrived. Then the blob can be read under its root by
        local clients. Raises Rejected (records.unknown, records.version-unknown, custody.not-permitted, custody.head-old, what the holders
        say) and Unavailable.
        """
        found = await self._anchor.record_version(record, version)
        permit = await self._serving.lend(found)
        is_complete = await self.replicas.fetch(found, permit, self._limits.fetch_patience_ms)
        return {
            "root": found.root,
            "sealed_bytes": self._blobs.size(found.root) if is_complete else self._blobs.expected_bytes(found.root),
            "received_bytes": self._blobs.received(found.root),
            "is_complete": is_complete,
        }

    # ---- bounds --------------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _counted(self, step: str) -> AsyncIterator[None]:
        """Count a request while it is worked on, and log its refusal by code. Raises Unavailable when there are too many."""
        if self._requests >= REQUESTS_AT_ONCE:
            raise Unavailable("this hospital's custodian has more to do than it can take in: come again in a moment", 1_000)
        self._requests += 1
        try:
            yield
        except (Malformed, Rejected, Unavailable) as error:
            log_event("custodian.refused", step=step, code=error.code)
            raise
        finally:
            self._requests -= 1


def _put_answer(wanted: PutRequest, height: int) -> dict[str, Any]:
    return {"record": wanted.record, "version": wanted.version, "root": wanted.root, "height": height}


def _version_operation(wanted: PutRequest, epoch: int, wrap_digest: bytes) -> Operation:
    content = Content(
        wanted.size_class, wanted.root, wanted.segment_count, epoch, wanted.author, wanted.coarse_date, wanted.label_tokens, wrap_digest
    )
    if wanted.version == 1:
        return register_record(wanted.record, wanted.pseudonym, wanted.category, wanted.kind, content)
    return amend_record(wanted.record, wanted.version, content)


def _not_custodian() -> Rejected:
    return Rejected("custody.not-custodian", "another hospital is the custodian of this patient or record: ask that hospital")


def _named_digest(request: web.Request, name: str) -> bytes:
    """Return an id that a hospital names in its request. Raises Malformed."""
    text = request.query.get(name, "")
    if len(text) != 2 * limits.DIGEST_BYTES or not all(character in "0123456789abcdef" for character in text):
        raise Malformed(f"a hospital's request for a blob names the {name} in 64 lower-case hexadecimal digits")
    return bytes.fromhex(text)


def _named_height(request: web.Request) -> int:
    """Return the height at which the asking hospital saw what it relies on; 0 when it names none."""
    text = request.query.get("height", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else 0


def _report(error: InvariantBroken) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": "the custodian failed", "exception": error})
