"""Bringing ciphertext here: replicas that this hospital is designated to hold, repairs of what was lost, and copies for local readers.

Each decided block tells what was registered; a scan of all records at the start and now and then finds what was missed. A blob is pulled by
ranges, goes on where it stopped, is verified before it counts, and only then is custody confirmed on chain (confirmer.py). Failures are
tried again with growing pauses; nothing here is ever waited for by consensus (lessons.md: fabric #3858). While the node catches up, what it
knows of holders is old and its time is needed elsewhere, so work here goes on a little each second only. Knows no key.
"""

from __future__ import annotations

import asyncio
import heapq
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

import aiohttp

from medchain.actions.placement import designated_holders
from medchain.crypto.streams import HEADER_BYTES_MAX, LENGTH_BYTES, SEGMENT_BYTES, TAG_BYTES
from medchain.engine.ready import BlockDecided
from medchain.errors import InvariantBroken, Malformed, MedchainError, Rejected, Unavailable
from medchain.ledger.trail import event_names
from medchain.node.anchor import Anchor, Clock, RecordVersion
from medchain.node.confirmer import CONFIRMED_TOGETHER, Confirmer
from medchain.telemetry import log_event
from medchain.vault.blobs import READ_BYTES, BlobStore
from medchain.vault.http import ERROR_BYTES_MAX, read_error

JOBS_MAX: Final = 100_000
"""Versions that wait for a replica; what finds no room is found by the next scan."""
SCAN_PAGE: Final = 32
"""Records of one page of a scan: a page takes about a millisecond of the engine's loop."""
SCAN_PAUSE_SECONDS: Final = 0.01
"""Between two pages, so that a scan of many records never crowds out agreement."""
REGISTRATIONS: Final = ("records.register", "records.amend")
"""Kinds of events that bring a new version."""
CONFIRMING_MAX: Final = 2 * CONFIRMED_TOGETHER
"""Versions that wait for their confirmation at most: the next transaction full, and what comes in while it is decided. Looking at more of
them would only take the engine's time from others."""
ORPHAN_MS: Final = 24 * 3600 * 1000
"""A blob that no record asks this hospital to hold is kept for a day: an upload whose registration is under way, a copy for a reader."""
SLOW_SECONDS: Final = 30
SLOW_BYTES: Final = 1_048_576
"""A pull that moves less than this in that time is given up and goes on later by range: few are brought at once, and one hospital that
lets its bytes trickle, each within the bound on silence, would keep all others' replicas waiting."""
SEGMENT_SEALED_BYTES: Final = SEGMENT_BYTES + TAG_BYTES
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15})\Z")


class PeerOpener(Protocol):
    """`PeerNetwork.open`: one bulk request to a hospital, authenticated both ways. Raises Unavailable."""

    async def __call__(
        self, peer: bytes, method: str, path: str, *, data: Any = None, headers: dict[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        """Return the response; the caller releases it."""
        ...


@dataclass(frozen=True, slots=True)
class ReplicaLimits:
    """Settings of the replicas."""

    at_once: int = 2
    """Replicas brought at the same time."""
    fetches_at_once: int = 8
    """Copies brought for local readers at the same time."""
    pause_first_ms: int = 500
    pause_max_ms: int = 60_000
    """Between attempts: doubled each time, from the first to the longest."""
    catching_up_pause_ms: int = 1_000
    """Between two looks for work while the node catches up, and how long an answer counts that it does not. Work never stops: a node that
    is always a little behind must bring its replicas, too."""
    scan_interval_ms: int = 15 * 60 * 1000
    """Between scans: finds lost files and confirmations, and removes what nobody needs."""
    confirm_pause_ms: int = 2_000
    """Least time between two transactions of confirmations: 32 in each are 1.4 million a day, and others' transactions hardly wait."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A version that may need a replica here."""

    record: bytes
    version: int
    attempt: int = 0

    @property
    def key(self) -> tuple[bytes, int]:
        return self.record, self.version


class Replicas:
    """What one hospital brings to its vault. `open_peer` may be set until the first pull."""

    def __init__(
        self,
        anchor: Anchor,
        blobs: BlobStore,
        open_peer: PeerOpener | None,
        clock: Clock,
        limits: ReplicaLimits,
        failed: Callable[[InvariantBroken], None],
    ) -> None:
        self._anchor = anchor
        self._blobs = blobs
        self._clock = clock
        self._limits = limits
        self._failed = failed
        self.open_peer = open_peer
        self._jobs: list[tuple[float, int, _Job]] = []
        """A heap by the loop time at which each is due; the number keeps the order of arrival."""
        self._waiting: set[tuple[bytes, int]] = set()
        self._arrivals = 0
        self._working: dict[tuple[bytes, int], asyncio.Task[None]] = {}
        self._confirmer = Confirmer(anchor, limits.confirm_pause_ms)
        self._unhurried_until = 0.0
        """Until this loop time nobody asks again whether the node catches up."""
        self._confirming = 0
        """Of those being worked on, how many only wait for the chain."""
        self._pulls: dict[bytes, asyncio.Task[None]] = {}
        self._fetches = asyncio.Semaphore(limits.fetches_at_once)
        self._waker = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # ---- life ----------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work, with a scan of all records."""
        self._tasks = [
            asyncio.create_task(self._guarded(self._schedule()), name="replicas"),
            asyncio.create_task(self._guarded(self._scan_forever()), name="replica scan"),
            asyncio.create_task(self._guarded(self._confirmer.run()), name="custody confirmations"),
        ]

    async def stop(self) -> None:
        """End everything; uploads go on after the next start."""
        tasks = [*self._tasks, *self._working.values(), *self._pulls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    async def _guarded(self, work: Awaitable[None]) -> None:
        """Hand a bug of our own to whoever stops the node: a background task would keep it to itself."""
        try:
            await work
        except InvariantBroken as error:
            self._failed(error)
        except Exception as error:
            self._failed(InvariantBroken(f"the custodian's background work failed ({type(error).__name__})"))

    # ---- what is wanted ------------------------------------------------------------------------------------------------------

    def observe(self, block: BlockDecided) -> None:
        """Note the versions that a block registered and that belong here; never waits."""
        for receipt in block.receipts:
            for event in receipt.events:
                if event.kind in REGISTRATIONS:
                    said = event_names(event)
                    if self._may_be_wanted(event.subjects[1], said["hospital"], said["root"]):
                        self.want(event.subjects[1], said["version"])

    def _may_be_wanted(self, record: bytes, custodian: bytes, root: bytes) -> bool:
        """Answer without asking the chain whether a new version may need something here: most are others' or lie here already."""
        own = self._anchor.organisation
        if custodian == own:
            return not self._blobs.has(root)
        hospitals = self._anchor.known_hospitals
        return not hospitals or own in designated_holders(record, custodian, [member.organisation_key for member in hospitals])

    def want(self, record: bytes, version: int) -> None:
        """Look at a version soon: is this hospital to hold it, does it?"""
        if (record, version) not in self._waiting and (record, version) not in self._working and len(self._jobs) < JOBS_MAX:
            self._put(_Job(record, version), 0.0)

    def _put(self, job: _Job, due: float) -> None:
        self._arrivals += 1
        self._waiting.add(job.key)
        heapq.heappush(self._jobs, (due, self._arrivals, job))
        self._waker.set()

    @property
    def waiting(self) -> int:
        """Versions that wait for a replica or are being brought."""
        return len(self._jobs) + len(self._working)

    async def _schedule(self) -> None:
        """Begin jobs that are due, a few at a time; sleep until the next one is."""
        loop = asyncio.get_running_loop()
        while True:
            self._waker.clear()
            if self._may_begin(loop.time()):
                await self._let_catch_up()
            while self._may_begin(loop.time()):
                _, _, job = heapq.heappop(self._jobs)
                self._waiting.discard(job.key)
                task = self._working[job.key] = asyncio.create_task(self._guarded(self._work(job)), name="replica")
                task.add_done_callback(partial(self._worked, job.key))
            try:
                async with asyncio.timeout_at(None if self._is_full or not self._jobs else self._jobs[0][0]):
                    await self._waker.wait()
            except TimeoutError:
                continue

    async def _let_catch_up(self) -> None:
        """Return at once unless the node catches up or is too busy to say, else after a pause."""
        loop, pause = asyncio.get_running_loop(), self._limits.catching_up_pause_ms / 1000
        if loop.time() < self._unhurried_until:
            return
        try:
            is_busy = await self._anchor.is_catching_up()
        except Unavailable:
            is_busy = True
        if is_busy:
            await asyncio.sleep(pause)
        else:
            self._unhurried_until = loop.time() + pause

    def _may_begin(self, now: float) -> bool:
        """Answer whether a job is due and there is room for it."""
        return bool(self._jobs) and self._jobs[0][0] <= now and not self._is_full

    @property
    def _is_full(self) -> bool:
        return len(self._working) - self._confirming >= self._limits.at_once or self._confirming >= CONFIRMING_MAX

    def _worked(self, key: tuple[bytes, int], _: asyncio.Task[None]) -> None:
        self._working.pop(key, None)
        self._waker.set()

    async def _work(self, job: _Job) -> None:
        try:
            await self._ensure(job.record, job.version)
        except (Malformed, Rejected, Unavailable) as error:
            pause_ms = min(self._limits.pause_max_ms, self._limits.pause_first_ms * 2 ** min(job.attempt, 20))
            log_event("custodian.retry", level="warning", step="replica", code=error.code, attempt=job.attempt + 1, milliseconds=pause_ms)
            self._put(replace(job, attempt=job.attempt + 1), asyncio.get_running_loop().time() + pause_ms / 1000)

    async def _ensure(self, record: bytes, version: int) -> None:
        """Bring a version's ciphertext if it belongs here and confirm custody of it. Raises Malformed, Rejected or Unavailable."""
        found = await self._anchor.record_version(record, version)
        if not await self._belongs_here(found):
            return
        is_new = not self._blobs.has(found.root)
        if is_new:
            await self._bring(found)
        if self._anchor.organisation in (found.custodian, *found.holders):
            return
        self._confirming += 1
        self._waker.set()
        try:
            await self._confirmer.confirm(record, version)
        finally:
            self._confirming -= 1
        log_event("custodian.replicated", bytes=self._blobs.size(found.root))

    async def _belongs_here(self, version: RecordVersion) -> bool:
        """Answer whether this hospital is the custodian, a designated holder, or has said that it holds the version."""
        own = self._anchor.organisation
        if own in (version.custodian, *version.holders):
            return True
        hospitals = [member.organisation_key for member in await self._anchor.hospitals()]
        return own in designated_holders(version.record, version.custodian, hospitals)

    # ---- bringing ------------------------------------------------------------------------------------------------------------

    async def fetch(self, version: RecordVersion, permit: bytes, patience_ms: int) -> bool:
        """Bring a version's ciphertext for a local reader with a permit; answer whether it is here after at most `patience_ms`.

        The work goes on in the background: ask again. Raises Malformed, Rejected or Unavailable as it failed.
        """
        if self._blobs.has(version.root):
            return True
        task = self._pulls.get(version.root)
        if task is None:
            if len(self._pulls) >= 4 * self._limits.fetches_at_once:
                raise Unavailable("too many records are being fetched: ask again in a moment", 1_000)
            task = self._begin_pull(version, permit, self._fetches)
        await asyncio.wait((task,), timeout=patience_ms / 1000)
        if task.done():
            await task
        return self._blobs.has(version.root)

    async def _bring(self, version: RecordVersion) -> None:
        """Bring a version's ciphertext; one that is already on its way is waited for."""
        task = self._pulls.get(version.root) or self._begin_pull(version, None, None)
        await asyncio.shield(task)

    def _begin_pull(self, version: RecordVersion, permit: bytes | None, room: asyncio.Semaphore | None) -> asyncio.Task[None]:
        async def pull() -> None:
            async with room or nullcontext():
                await self._pull(version, permit)

        task = self._pulls[version.root] = asyncio.create_task(pull(), name="pull a blob")
        task.add_done_callback(lambda done: self._pulled(version.root, done))
        return task

    def _pulled(self, root: bytes, task: asyncio.Task[None]) -> None:
        self._pulls.pop(root, None)
        error = None if task.cancelled() else task.exception()  # looked at, so that nobody has to
        if isinstance(error, InvariantBroken):
            self._failed(error)
        elif error is not None and not isinstance(error, MedchainError):
            self._failed(InvariantBroken(f"pulling a blob failed ({type(error).__name__})"))

    async def _pull(self, version: RecordVersion, permit: bytes | None) -> None:
        """Try the custodian, then every confirmed holder; each failure is the next one's chance. Raises the last failure."""
        failure: MedchainError = Unavailable("no other hospital holds this version yet: ask again in a moment", 1_000)
        for source in await self._sources(version):
            try:
                await self._pull_from(source, version, permit)
                log_event("vault.stored", bytes=self._blobs.size(version.root))
                return
            except (Malformed, Rejected, Unavailable) as error:
                if isinstance(error, Rejected) and error.code in ("vault.full", "vault.disk-low"):
                    raise
                failure = error
        raise failure

    async def _sources(self, version: RecordVersion) -> Sequence[bytes]:
        """Return the consensus keys of hospitals that hold a version, the custodian first."""
        keys = {member.organisation_key: member.consensus_key for member in await self._anchor.hospitals()}
        holders = dict.fromkeys((version.custodian, *version.holders))
        return [keys[holder] for holder in holders if holder in keys and holder != self._anchor.organisation]

    async def _pull_from(self, peer: bytes, version: RecordVersion, permit: bytes | None) -> None:
        """Bring the rest from one hospital. When what was begun with another one turns out wrong, begin anew here."""
        began_at = self._blobs.received(version.root)
        try:
            if await self._blobs.finish_if_whole(version.root):
                return
            await self._pull_rest(peer, version, permit)
        except Malformed:
            if not began_at:
                raise
            await self._pull_rest(peer, version, permit)

    async def _pull_rest(self, peer: bytes, version: RecordVersion, permit: bytes | None) -> None:
        if self.open_peer is None:
            raise Unavailable("the node is not connected to other hospitals yet: ask again in a moment", 1_000)
        offset = self._blobs.received(version.root)
        height = await self._anchor.height()
        path = f"/blobs/{version.root.hex()}?record={version.record.hex()}&version={version.version}&height={height}"
        path += "" if permit is None else f"&permit={permit.hex()}"
        response = await self.open_peer(peer, "GET", path, headers={"Range": f"bytes={offset}-"})
        try:
            total = await _total_of(response, offset)
            if total > LENGTH_BYTES + HEADER_BYTES_MAX + version.segments * SEGMENT_SEALED_BYTES:
                raise Malformed("a hospital sends more than the chain says that this version has")
            chunks = steady(_chunks(response), asyncio.get_running_loop().time)
            await self._blobs.write_range(version.root, offset, chunks, total=total)
        finally:
            response.release()
        await self._blobs.finish(version.root)

    # ---- the scan ------------------------------------------------------------------------------------------------------------

    async def _scan_forever(self) -> None:
        attempt = 0
        while True:
            try:
                await self._scan()
                attempt = 0
                pause_ms = self._limits.scan_interval_ms
            except (Malformed, Rejected, Unavailable) as error:
                pause_ms = min(self._limits.pause_max_ms, self._limits.pause_first_ms * 2 ** min(attempt, 20))
                attempt += 1
                log_event("custodian.retry", level="warning", step="scan", code=error.code, attempt=attempt, milliseconds=pause_ms)
            await asyncio.sleep(pause_ms / 1000)

    async def _scan(self) -> None:
        """Look at every record: want what is missing here, then remove what nobody asks this hospital to hold."""
        is_known_whole = await self._anchor.is_head_fresh()
        kept: set[bytes] = set()
        after: bytes | None = None
        while True:
            await self._let_catch_up()
            page = await self._anchor.scan(after, SCAN_PAGE)
            for row in page["records"]:
                versions = await self._anchor.versions(row["record"])
                is_known_whole = is_known_whole and len(versions) == row["version"]
                for version in versions:
                    if not await self._belongs_here(version):
                        continue
                    kept.add(version.root)
                    is_held = self._anchor.organisation in (version.custodian, *version.holders)
                    if not (is_held and self._blobs.has(version.root)):
                        self.want(version.record, version.version)
            after = page["next"]
            if after is None:
                break
            await asyncio.sleep(SCAN_PAUSE_SECONDS)
        now_ms = self._clock.wall_ms()
        self._blobs.drop_stale_uploads(now_ms)
        if is_known_whole and await self._anchor.is_head_fresh():
            await self._remove_orphans(kept, now_ms)

    async def _remove_orphans(self, kept: set[bytes], now_ms: int) -> None:
        """Remove blobs that no record of the whole chain asks this hospital to hold. Only with a fresh head before and after the scan: a
        node that has not caught up does not know what it must keep."""
        for root in self._blobs.roots():
            if root not in kept and root not in self._pulls and self._blobs.age_ms(root, now_ms) > ORPHAN_MS:
                self._blobs.remove(root)
                await asyncio.sleep(0)


async def _total_of(response: aiohttp.ClientResponse, offset: int) -> int:
    """Return the whole length of a blob whose rest a hospital sends from `offset` on. Raises what its error says, or Malformed."""
    if response.status not in (200, 206):
        raise read_error(response.status, await read_bounded(response, ERROR_BYTES_MAX))
    if response.status == 200:
        if offset or response.content_length is None:
            raise Malformed("a hospital did not answer with the range that was asked for")
        return response.content_length
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != offset:
        raise Malformed("a hospital did not answer with the range that was asked for")
    return int(found[2])


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the body as it arrives; a connection that breaks is Unavailable, and what arrived is kept."""
    try:
        async for chunk in response.content.iter_chunked(READ_BYTES):
            yield chunk
    except (aiohttp.ClientError, OSError, TimeoutError):
        raise Unavailable("the connection to the other hospital broke: the rest is fetched later", 1_000) from None


async def steady(chunks: AsyncIterator[bytes], now: Callable[[], float]) -> AsyncIterator[bytes]:
    """Pass chunks on while SLOW_BYTES arrive in each SLOW_SECONDS of `now`. Raises Unavailable when they trickle."""
    began, arrived = now(), 0
    async for chunk in chunks:
        yield chunk
        arrived += len(chunk)
        if now() - began >= SLOW_SECONDS:
            if arrived < SLOW_BYTES:
                raise Unavailable("the other hospital sends too slowly: the rest is fetched later", 1_000)
            began, arrived = now(), 0


async def read_bounded(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """Return a body of at most `bytes_max` bytes. Raises Malformed when it is longer, Unavailable when the connection breaks."""
    data = bytearray()
    async for chunk in _chunks(response):
        data += chunk
        if len(data) > bytes_max:
            raise Malformed("a hospital's answer is longer than any can be")
    return bytes(data)
