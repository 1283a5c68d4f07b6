"""Sealed blobs in files, named by the Merkle root over their segments; nothing is published before its root was computed from its bytes.

    blobs/<root>    verified, read only, whole
    uploads/<root>  what was received so far; survives a restart, goes on where it stopped

A name is the hexadecimal text of 32 bytes, so no text from outside ever becomes part of a path. Memory does not grow with a blob. This
module knows no key, no permit and no chain. One process owns the folder (the node's store is locked before); everything that waits for
the disk runs in worker threads.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from medchain.crypto.streams import HEADER_BYTES_MAX, LENGTH_BYTES, SEGMENT_BYTES, SEGMENTS_MAX, TAG_BYTES, StreamHeader, stream_root
from medchain.errors import InvariantBroken, Malformed, Rejected, Unavailable
from medchain.vault.files import disk_errors, disk_low, make_folder, sync_file, sync_folder

REFUSALS: Final[dict[str, str]] = {
    "vault.full": "The vault's quota has no room for the blob.",
    "vault.blob-missing": "The vault does not hold this blob.",
    "vault.too-large": "The blob is larger than a sealed stream can be.",
    "vault.offset": "The range does not begin where the bytes received so far end.",
}

ROOT_BYTES: Final = 32
BLOB_BYTES_MAX: Final = LENGTH_BYTES + HEADER_BYTES_MAX + SEGMENTS_MAX * (SEGMENT_BYTES + TAG_BYTES)
"""The longest sealed stream there can be: 64 GiB of content."""
WRITE_BYTES: Final = 1024 * 1024
"""Bytes gathered before a write: arriving pieces are a few kB, and each write is a trip to a worker thread."""
READ_BYTES: Final = 256 * 1024
"""Bytes read at a time when a blob is served."""
STALE_UPLOAD_MS: Final = 7 * 24 * 3600 * 1000
"""An upload untouched for a week was given up."""
VERIFYING_THREADS: Final = 2
"""Threads that hash a blob: the root of 1 GB is known in about a second, and consensus keeps a core's share."""
UPLOADS_AT_ONCE: Final = 64
"""Ranges being written at the same time, about 1 MiB of memory each."""
_Result = TypeVar("_Result")
_NAME: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class BlobLimits:
    """Settings of a vault."""

    bytes_max: int = 1_099_511_627_776
    """Quota over published blobs and uploads together."""
    disk_free_bytes_min: int = 268_435_456
    """Nothing is taken when less than this would stay free: the chain's own store needs room to go on."""


@dataclass(frozen=True, slots=True)
class BlobFacts:
    """What the header of a published blob says; its root covers all of it."""

    root: bytes
    sealed_bytes: int
    plaintext_bytes: int
    segment_count: int
    """Segments, the header included: what the chain anchors."""
    header: StreamHeader


class BlobStore:
    """The blobs of one hospital. Methods may be called from one event loop only."""

    def __init__(self, directory: Path, limits: BlobLimits | None = None) -> None:
        """Open or make the folder. Raises Unavailable or Rejected vault.disk-low when it cannot be used."""
        self._limits = limits or BlobLimits()
        self._blobs = directory / "blobs"
        self._uploads = directory / "uploads"
        self._directory = directory
        self._busy: set[bytes] = set()
        with disk_errors("opening the vault"):
            for folder in (directory, self._blobs, self._uploads):
                make_folder(folder)
            self._sizes = _sizes(self._blobs)
            self._received = _sizes(self._uploads)
        self._published_bytes = sum(self._sizes.values())
        for root in [root for root in self._received if root in self._sizes]:
            self._drop_upload(root)

    # ---- what there is ---------------------------------------------------------------------------------------------------------

    def has(self, root: bytes) -> bool:
        """Answer whether the whole blob is here and was verified."""
        return root in self._sizes

    def size(self, root: bytes) -> int:
        """Return the length of a published blob. Raises Rejected vault.blob-missing."""
        size = self._sizes.get(root)
        if size is None:
            raise _missing()
        return size

    def received(self, root: bytes) -> int:
        """Return how many bytes are here: the whole length when it is published, 0 when nothing is known of it."""
        return self._sizes.get(root, self._received.get(root, 0))

    def roots(self) -> tuple[bytes, ...]:
        """Return the roots of all published blobs, ascending."""
        return tuple(sorted(self._sizes))

    def used_bytes(self) -> int:
        """Return the bytes that count towards the quota."""
        return self._published_bytes + sum(self._received.values())

    def path(self, root: bytes) -> Path:
        """Return the file of a published blob. Raises Rejected vault.blob-missing."""
        self.size(root)
        return self._blobs / _name(root)

    async def facts(self, root: bytes) -> BlobFacts:
        """Return what the header of a published blob says. Raises Rejected vault.blob-missing, Malformed when the file is damaged."""
        return await asyncio.to_thread(_facts, self.path(root), root)

    def expected_bytes(self, root: bytes) -> int | None:
        """Return how long an upload says it will be, None while its header has not arrived. Raises Malformed when the header is none."""
        if root not in self._received:
            return None
        header = _read_header(self._uploads / _name(root))
        return None if header is None else header.sealed_bytes

    # ---- receiving -------------------------------------------------------------------------------------------------------------

    async def write_range(self, root: bytes, offset: int, chunks: AsyncIterable[bytes], *, total: int | None = None) -> int:
        """Append what `chunks` yields to an upload whose next byte is `offset`; return how many bytes are here now.

        `total` is the length that the sender announces. What arrived before `chunks` raised stays and the upload goes on from there. A
        published blob is left as it is. Raises Rejected vault.offset, vault.full, vault.disk-low, vault.too-large; Unavailable while
        another writer has the upload; Malformed when the bytes are no sealed stream of that length (the upload is removed then).
        """
        if self.has(root):
            return self.size(root)
        async with self._alone(root):
            received = self._received.get(root, 0)
            if offset != received:
                raise Rejected("vault.offset", f"the upload goes on at byte {received}: ask how much was received and send the rest")
            self._check_room(max(0, (total or 0) - received), total or 0)
            descriptor = await asyncio.to_thread(self._open_upload, root)
            try:
                await self._append_all(root, descriptor, chunks, total)
            finally:
                os.close(descriptor)
            await self._check_length(root, total)
            return self._received.get(root, 0)

    async def _append_all(self, root: bytes, descriptor: int, chunks: AsyncIterable[bytes], total: int | None) -> None:
        """Write in pieces of WRITE_BYTES; what was gathered is written even when the sender breaks off."""
        gathered = bytearray()
        try:
            async for chunk in chunks:
                gathered += chunk
                if self._received.get(root, 0) + len(gathered) > (BLOB_BYTES_MAX if total is None else total):
                    gathered.clear()
                    raise Malformed("more bytes were sent than announced: send exactly the range that was named")
                if len(gathered) >= WRITE_BYTES:
                    piece = bytes(gathered)
                    gathered.clear()
                    await self._append(root, descriptor, piece)
        finally:
            if gathered:
                await self._append(root, descriptor, bytes(gathered))

    async def _append(self, root: bytes, descriptor: int, piece: bytes) -> None:
        """Write one piece and count it."""
        self._check_room(len(piece), 0)
        try:
            await _unbroken(_write_all, descriptor, piece)
        finally:
            self._received[root] = os.fstat(descriptor).st_size

    async def _check_length(self, root: bytes, total: int | None) -> None:
        """Raise Malformed, and remove the upload, when its header announces another length than its sender or than what is here."""
        try:
            expected = await asyncio.to_thread(self.expected_bytes, root)
            if expected is not None and (total not in (None, expected) or self._received.get(root, 0) > expected):
                raise Malformed(f"the sealed stream is {expected} bytes long by its header: that is not what was announced")
        except Malformed:
            await asyncio.to_thread(self._drop_upload, root)
            raise

    def _open_upload(self, root: bytes) -> int:
        with disk_errors("beginning an upload"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._uploads / _name(root), flags, 0o600)
            self._received[root] = os.fstat(descriptor).st_size
            return descriptor

    def _check_room(self, coming: int, total: int) -> None:
        if total > BLOB_BYTES_MAX:
            raise Rejected("vault.too-large", f"a sealed blob has at most {BLOB_BYTES_MAX} bytes: split the content")
        if self.used_bytes() + coming > self._limits.bytes_max:
            raise Rejected("vault.full", "the quota of this vault has no room for the blob: its operator has to raise it or make room")
        with disk_errors("looking at the free space"):
            free = shutil.disk_usage(self._directory).free
        if free - coming < self._limits.disk_free_bytes_min:
            raise disk_low()

    async def finish(self, root: bytes) -> BlobFacts:
        """Verify an upload against its root in worker threads, publish it durably, return its facts; a published one is left as it is.

        Raises Malformed when the bytes are not the blob of this root (the upload is removed then), Rejected vault.blob-missing when nothing
        was received, Unavailable while a writer has the upload.
        """
        if self.has(root):
            return await self.facts(root)
        async with self._alone(root):
            if root not in self._received:
                raise _missing()
            path = self._uploads / _name(root)
            try:
                facts = await _unbroken(_verified, path, root)
                await _unbroken(self._publish, root)
            except Malformed:
                await asyncio.to_thread(self._drop_upload, root)
                raise
            return facts

    async def finish_if_whole(self, root: bytes) -> bool:
        """Publish an upload that has all its bytes; answer whether the blob is published now.

        For an upload whose last bytes arrived before a stop. Raises Malformed when it turns out damaged (it is removed then).
        """
        if self.has(root):
            return True
        expected = await asyncio.to_thread(self.expected_bytes, root)
        if expected is None or self.received(root) < expected:
            return False
        await self.finish(root)
        return True

    def _publish(self, root: bytes) -> None:
        """Sync the content, give it its final name, sync both folders."""
        path = self._uploads / _name(root)
        with disk_errors("publishing a blob"):
            sync_file(path)
            path.chmod(0o400)
            os.replace(path, self._blobs / _name(root))
            sync_folder(self._blobs)
            sync_folder(self._uploads)
        self._sizes[root] = self._received.pop(root)
        self._published_bytes += self._sizes[root]

    @asynccontextmanager
    async def _alone(self, root: bytes) -> AsyncIterator[None]:
        """One writer an upload; who comes second is told, not queued: the same bytes would only arrive twice."""
        if root in self._busy:
            raise Unavailable("this blob is being written by another request: ask how much was received in a moment", 500)
        if len(self._busy) >= UPLOADS_AT_ONCE:
            raise Unavailable("too many blobs are being written: come again in a moment", 1_000)
        self._busy.add(root)
        try:
            yield
        finally:
            self._busy.discard(root)

    # ---- reading and removing ----------------------------------------------------------------------------------------------------

    async def read_range(self, root: bytes, first: int, last: int) -> AsyncGenerator[bytes, None]:
        """Yield bytes `first` to `last`, both included, of a published blob; the file is open until the end even when it is removed.

        Raises Rejected vault.blob-missing, Unavailable when the disk fails.
        """
        path = self.path(root)
        with disk_errors("reading a blob"):
            descriptor = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                while first <= last:
                    piece = await asyncio.to_thread(os.pread, descriptor, min(READ_BYTES, last + 1 - first), first)
                    if not piece:
                        raise Unavailable("a blob is shorter than it was: its operator has to look at the disk")
                    first += len(piece)
                    yield piece
            finally:
                os.close(descriptor)

    async def check(self, root: bytes) -> bool:
        """Compute the root of a published blob anew; remove it and answer False when it is damaged: a replica is fetched again."""
        path = self.path(root)
        try:
            await asyncio.to_thread(_verified, path, root)
        except Malformed:
            await asyncio.to_thread(self.remove, root)
            return False
        return True

    def remove(self, root: bytes) -> None:
        """Remove a blob and whatever was received of it."""
        if root in self._sizes:
            with disk_errors("removing a blob"):
                (self._blobs / _name(root)).unlink(missing_ok=True)
                sync_folder(self._blobs)
            self._published_bytes -= self._sizes.pop(root)
        if root in self._received and root not in self._busy:
            self._drop_upload(root)

    def age_ms(self, root: bytes, now_ms: int) -> int:
        """Return how long ago a published blob was written last. Raises Rejected vault.blob-missing."""
        with disk_errors("looking at a blob"):
            return now_ms - self.path(root).stat().st_mtime_ns // 1_000_000

    def drop_stale_uploads(self, now_ms: int) -> int:
        """Remove uploads that nobody went on with for a week; return how many."""
        stale = []
        with disk_errors("looking at uploads"):
            for root in list(self._received):
                path = self._uploads / _name(root)
                if root not in self._busy and now_ms - path.stat().st_mtime_ns // 1_000_000 > STALE_UPLOAD_MS:
                    stale.append(root)
        for root in stale:
            self._drop_upload(root)
        return len(stale)

    def _drop_upload(self, root: bytes) -> None:
        with disk_errors("removing an upload"):
            (self._uploads / _name(root)).unlink(missing_ok=True)
        self._received.pop(root, None)


async def _unbroken(work: Callable[..., _Result], *arguments: object) -> _Result:
    """Run `work` in a worker thread; when the caller is cancelled, wait for it first: no thread touches a file that its owner let go."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait((running,))
        raise


def _name(root: bytes) -> str:
    if type(root) is not bytes or len(root) != ROOT_BYTES:
        raise InvariantBroken("a blob is named by a root of 32 bytes")
    return root.hex()


def _sizes(folder: Path) -> dict[bytes, int]:
    """Return root → length of the files in a folder; what is not named like a blob is not ours and not touched."""
    with os.scandir(folder) as entries:
        return {
            bytes.fromhex(entry.name): entry.stat(follow_symlinks=False).st_size
            for entry in entries
            if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
        }


def _write_all(descriptor: int, piece: bytes) -> None:
    with disk_errors("writing a blob"):
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]


def _read_header(path: Path) -> StreamHeader | None:
    """Return the header at the beginning of a file, None while it is not wholly there. Raises Malformed."""
    with disk_errors("reading a blob's header"), path.open("rb") as file:
        start = file.read(LENGTH_BYTES + HEADER_BYTES_MAX)
    if len(start) < LENGTH_BYTES:
        return None
    length = int.from_bytes(start[:LENGTH_BYTES], "big")
    if length > HEADER_BYTES_MAX:
        raise Malformed("the bytes are not a sealed stream: seal the content first")
    if len(start) < LENGTH_BYTES + length:
        return None
    return StreamHeader.decode(start[LENGTH_BYTES : LENGTH_BYTES + length])


def _facts(path: Path, root: bytes) -> BlobFacts:
    header = _read_header(path)
    if header is None or header.sealed_bytes != path.stat().st_size:
        raise Malformed("a stored blob was damaged: restore it from another holder")
    return BlobFacts(root, header.sealed_bytes, header.plaintext_bytes, header.content_segments + 1, header)


def _verified(path: Path, root: bytes) -> BlobFacts:
    """Compute the root of a file. Raises Malformed when it is not `root`."""
    with disk_errors("verifying a blob"), path.open("rb", buffering=0) as file:
        found = stream_root(file, workers=VERIFYING_THREADS)
    if found.root != root:
        raise Malformed("the bytes received are not the blob of this root: send it again from the beginning")
    return BlobFacts(root, found.sealed_bytes, found.plaintext_bytes, found.segment_count, found.header)


def _missing() -> Rejected:
    return Rejected("vault.blob-missing", "this vault does not hold the blob: fetch the record first, or ask another holder")
