"""Where a crash has torn the end of a LevelDB log, and where a log is damaged.

Format: https://github.com/google/leveldb/blob/main/doc/log_format.md . A log is blocks of 32 KiB; a record is a header (masked CRC-32C,
u16 length, u8 type; little-endian) and data, and a batch is one FULL record or FIRST, MIDDLE..., LAST. This module only looks at bytes:
it opens no file, and knows nothing of what the batches say.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

BLOCK_BYTES: Final = 32 * 1024
HEADER_BYTES: Final = 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
_BEGINNINGS: Final = (FULL, FIRST)
_CRC_START: Final = 0xFFFFFFFF
_CRC_MASK_DELTA: Final = 0xA282EAD8
_CASTAGNOLI: Final = 0x82F63B78


def has_hole(log: bytes) -> bool:
    """Answer whether a batch was begun after a place that cannot be read: everything before it had been synced, so that is damage.

    Two such places LevelDB would take for the end of what was written: zeros, and a last record said to be longer than the file.
    """
    last: tuple[int, int] | None = None
    for offset, length, kind in _records(log, 0):
        if kind is None:
            return _has_beginning(log, offset + 1)
        last = offset, length
    return last is not None and sum(last) + HEADER_BYTES > len(log) and _has_wrong_length(log, last[0])


def torn_end(log: bytes) -> int | None:
    """Return the offset to cut `log` at so that only a batch is lost whose write a crash interrupted; None if there is no such end.

    The bytes before the cut are not checked here, LevelDB does that when it opens the log again. None means that the last batch is sound,
    or that another was begun after the bad place: then the fault is damage, not a torn end.
    """
    begin, unreadable = _last_places(log)
    if begin is not None and _is_whole(log, begin, len(log) if unreadable is None else unreadable):
        cut = unreadable
    else:
        cut = begin if begin is not None else unreadable
    return None if cut is None or _has_beginning(log, cut + 1) else cut


def _last_places(log: bytes) -> tuple[int | None, int | None]:
    """Return where the last batch begins that the headers lead to, and where they stop making sense (None: nowhere)."""
    begin: int | None = None
    for offset, _, kind in _records(log, 0):
        if kind is None:
            return begin, offset
        if kind in _BEGINNINGS:
            begin = offset
    return begin, None


def _records(log: bytes, offset: int) -> Iterator[tuple[int, int, int | None]]:
    """Yield (offset, data length, type) of each record by its header; type None, once and last, where a header makes no sense."""
    while offset + HEADER_BYTES <= len(log):
        rest = BLOCK_BYTES - offset % BLOCK_BYTES
        if rest < HEADER_BYTES:
            offset += rest  # too short for a header: the block's trailer
            continue
        length = log[offset + 4] | log[offset + 5] << 8
        kind = log[offset + 6]
        if not FULL <= kind <= LAST or length > rest - HEADER_BYTES:
            yield offset, 0, None
            return
        yield offset, length, kind
        offset += HEADER_BYTES + length


def _has_beginning(log: bytes, offset: int) -> bool:
    """Answer whether a valid record that begins a batch stands anywhere in the rest of the block of `offset`, or in a later block.

    In the first block headers do not lead on, so every place is tried; a later block always starts with a record.
    """
    block_end = min((offset // BLOCK_BYTES + 1) * BLOCK_BYTES, len(log))
    for place in range(offset, block_end - HEADER_BYTES + 1):
        length = log[place + 4] | log[place + 5] << 8
        if log[place + 6] in _BEGINNINGS and length <= block_end - place - HEADER_BYTES and _is_valid(log, place, length):
            return True
    for block in range(block_end, len(log), BLOCK_BYTES):
        for place, length, kind in _records(log[: block + BLOCK_BYTES], block):
            if kind in _BEGINNINGS and _is_valid(log, place, length):
                return True
    return False


def _has_wrong_length(log: bytes, offset: int) -> bool:
    """Answer whether the record, said to run past the end, is shorter: its checksum fits less data and a valid record follows."""
    wanted = int.from_bytes(log[offset : offset + 4], "little")
    crc = _CRC_START
    for place in range(offset + 6, len(log) - HEADER_BYTES):
        crc = _CRC_TABLE[(crc ^ log[place]) & 0xFF] ^ crc >> 8
        if _masked(crc) == wanted:
            follower = place + 1
            if _is_valid(log, follower, log[follower + 4] | log[follower + 5] << 8):
                return True
    return False


def _is_whole(log: bytes, begin: int, stop: int) -> bool:
    """Answer whether the records from `begin` up to `stop` are one whole, valid batch."""
    kinds = []
    for offset, length, kind in _records(log[:stop], begin):
        if kind is None or not _is_valid(log, offset, length):
            return False
        kinds.append(kind)
    return bool(kinds) and (kinds[-1] == FULL or kinds[-1] == LAST)


def _is_valid(log: bytes, offset: int, length: int) -> bool:
    """Answer whether the record's checksum, over its type and data, is right."""
    end = offset + HEADER_BYTES + length
    if end > len(log):
        return False
    crc = _CRC_START
    for byte in log[offset + 6 : end]:  # slow in Python, but only a log that looks damaged is ever read here
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return int.from_bytes(log[offset : offset + 4], "little") == _masked(crc)


def _masked(running: int) -> int:
    """Finish a CRC-32C (Castagnoli) and mask it as LevelDB stores it."""
    crc = running ^ _CRC_START
    return ((crc >> 15 | crc << 17) + _CRC_MASK_DELTA) & 0xFFFFFFFF


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC_TABLE: Final = _crc_table()
