"""The simulated disk: a log of checksummed records that a crash can cut at any byte, and the store that is read from it.

It implements keyvalue.KeyValue and passes its contract suite. What is written whole is durable; of a batch that a crash interrupts nothing,
a piece or all may be on the disk, and opening recovers a prefix of whole batches (as LevelDB does). Also what people and hardware do to
disks: wiped, restored from an old copy, rotted. Knows no key range.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from medchain.errors import InvariantBroken
from medchain.store.keyvalue import WriteBatch
from medchain.store.memory import MemoryKeyValue

_HEADER: Final = struct.Struct(">II")
"""Length of the record's body, and its masked checksum."""
_LENGTHS: Final = struct.Struct(">IB")
_CHECKSUM_MASK: Final = 0x5A17_D15C
"""Keeps a run of zero bytes from being a valid record."""
CHECKPOINT_BYTES: Final = 128 * 1024
"""A longer log is folded into the checkpoint, so that opening stays cheap."""


def encode_record(batch: WriteBatch) -> bytes:
    """Return the log record of a batch."""
    parts: list[bytes] = []
    pack = _LENGTHS.pack
    for key, value in batch.operations:
        if value is None:
            parts += (pack(len(key), 0), key)
        else:
            parts += (pack(len(key), 1), key, len(value).to_bytes(4, "big"), value)
    body = b"".join(parts)
    return _HEADER.pack(len(body), zlib.crc32(body) ^ _CHECKSUM_MASK) + body


def _decode_body(body: bytes) -> WriteBatch:
    """Return the batch of a record whose checksum was right."""
    operations: list[tuple[bytes, bytes | None]] = []
    place = 0
    while place < len(body):
        length, is_put = _LENGTHS.unpack_from(body, place)
        place += _LENGTHS.size
        key = body[place : place + length]
        place += length
        value: bytes | None = None
        if is_put:
            size = int.from_bytes(body[place : place + 4], "big")
            value = body[place + 4 : place + 4 + size]
            place += 4 + size
        operations.append((key, value))
    return WriteBatch(tuple(operations))


@dataclass(frozen=True, slots=True)
class DiskImage:
    """A copy of a disk: what a backup holds."""

    checkpoint: dict[bytes, bytes]
    log: bytes


class Disk:
    """The platter: what survives crashes. `open` starts a process' view of it."""

    def __init__(self) -> None:
        self._checkpoint: dict[bytes, bytes] = {}
        self._log = bytearray()
        self.is_damaged = False
        """Found at the last opening: a place that cannot be read with written records after it (a torn end is none)."""

    def open(self) -> DiskStore:
        """Recover: cut a torn end off, apply every whole batch, note damage."""
        content = MemoryKeyValue()
        content.write(WriteBatch(tuple(self._checkpoint.items())))
        self.is_damaged = False
        log, place = bytes(self._log), 0
        while place < len(log):
            body = _whole_body(log, place)
            if body is None:
                self.is_damaged = not _is_torn_end(log, place)
                break
            content.write(_decode_body(body))
            place += _HEADER.size + len(body)
        del self._log[place:]
        return DiskStore(self, content)

    def append(self, record: bytes) -> bool:
        """Write a record and sync; answer whether the log has grown enough to be folded."""
        self._log += record
        return len(self._log) > CHECKPOINT_BYTES

    def fold(self, content: dict[bytes, bytes]) -> None:
        """Replace checkpoint and log by the content they lead to."""
        self._checkpoint = content
        self._log.clear()

    def tear(self, batch: WriteBatch, bytes_kept: int, is_zero_filled: bool = False) -> None:
        """Write as a crash leaves it: the first `bytes_kept` bytes of the batch's record, then nothing or zeros.

        All bytes kept means that the batch is durable although nobody was told.
        """
        record = encode_record(batch)
        kept = min(bytes_kept, len(record))
        self._log += record[:kept]
        if is_zero_filled:
            self._log += bytes(len(record) - kept)

    def wipe(self) -> None:
        """Lose everything: a new disk in an old machine."""
        self._checkpoint = {}
        self._log.clear()

    def copy(self) -> DiskImage:
        """Return a backup."""
        return DiskImage(dict(self._checkpoint), bytes(self._log))

    def restore(self, image: DiskImage) -> None:
        """Put a backup back: the disk forgets what came after it, and nothing on it says so."""
        self._checkpoint = dict(image.checkpoint)
        self._log = bytearray(image.log)

    def rot(self, position_permille: int) -> None:
        """Flip a bit of the log at a place given in thousandths of its length."""
        if self._log:
            self._log[min(len(self._log) - 1, len(self._log) * position_permille // 1000)] ^= 0x10


def _whole_body(log: bytes, place: int) -> bytes | None:
    """Return the body of the record at `place`, None when it cannot be read."""
    if place + _HEADER.size > len(log):
        return None
    length, checksum = _HEADER.unpack_from(log, place)
    start = place + _HEADER.size
    body = log[start : start + length]
    if len(body) != length or zlib.crc32(body) ^ _CHECKSUM_MASK != checksum:
        return None
    return body


def _is_torn_end(log: bytes, place: int) -> bool:
    """Answer whether an unreadable record is the last one: it reaches the end, or only zeros follow."""
    if place + _HEADER.size > len(log) or not any(log[place:]):
        return True
    length, _ = _HEADER.unpack_from(log, place)
    return place + _HEADER.size + length >= len(log) or not any(log[place + _HEADER.size :])


class DiskStore:
    """A process' open store: keyvalue.KeyValue over a Disk."""

    __slots__ = ("_content", "_disk", "_is_closed")

    def __init__(self, disk: Disk, content: MemoryKeyValue) -> None:
        self._disk = disk
        self._content = content
        self._is_closed = False

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None when there is none."""
        return self._content.get(key)

    def iterate(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) for start <= key < stop as they are at the moment of the call; see keyvalue.Reader."""
        return self._content.iterate(start, stop, reverse=reverse)

    def write(self, batch: WriteBatch) -> None:
        """Write the batch to the log, sync, apply."""
        if self._is_closed:
            raise InvariantBroken("the simulated disk was written after its process ended")
        if not batch:
            return
        is_long = self._disk.append(encode_record(batch))
        self._content.write(batch)
        if is_long:
            self._disk.fold(dict(self._content.iterate(b"", b"\xff" * 1100)))

    def close(self) -> None:
        """End the process' view; what was written stays on the disk."""
        self._is_closed = True
        self._content.close()
