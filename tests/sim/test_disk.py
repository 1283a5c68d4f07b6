"""The simulated disk: a crash leaves a prefix of whole batches, wherever it cuts."""

from __future__ import annotations

import pytest

from medchain.errors import InvariantBroken
from medchain.sim.disk import CHECKPOINT_BYTES, Disk, encode_record
from medchain.store.keyvalue import WriteBatch

EVERYTHING = (b"", b"\xff" * 1100)
FIRST = WriteBatch.of((b"a", b"1"), (b"b", b"2"))
SECOND = WriteBatch.of((b"a", b"new"), (b"b", None), (b"c", b"3" * 20))


def content(disk: Disk) -> dict[bytes, bytes]:
    return dict(disk.open().iterate(*EVERYTHING))


@pytest.mark.parametrize("is_zero_filled", [False, True])
def test_log_cut_at_every_byte_recovers_the_batches_before_the_cut(is_zero_filled: bool) -> None:
    whole = len(encode_record(SECOND))
    for kept in range(whole + 1):
        disk = Disk()
        disk.open().write(FIRST)
        disk.tear(SECOND, kept, is_zero_filled)
        expected = {b"a": b"new", b"c": b"3" * 20} if kept == whole else {b"a": b"1", b"b": b"2"}
        assert content(disk) == expected, f"cut at {kept}"
        assert not disk.is_damaged, f"a torn end at {kept} was called damage"


def test_writing_goes_on_after_a_torn_end() -> None:
    disk = Disk()
    disk.open().write(FIRST)
    disk.tear(SECOND, 5)
    disk.open().write(WriteBatch.of((b"d", b"4")))
    assert content(disk) == {b"a": b"1", b"b": b"2", b"d": b"4"}


def test_a_flipped_bit_before_the_end_is_damage() -> None:
    disk = Disk()
    store = disk.open()
    for batch in (FIRST, SECOND, FIRST):
        store.write(batch)
    disk.rot(400)
    disk.open()
    assert disk.is_damaged


def test_long_logs_are_folded_without_losing_anything() -> None:
    disk = Disk()
    store = disk.open()
    for number in range(200):
        store.write(WriteBatch.of((b"%03d" % number, bytes(1024))))
    assert len(disk.copy().log) <= CHECKPOINT_BYTES + 2048
    assert len(content(disk)) == 200


def test_restored_copy_forgets_what_came_after_it_and_wiped_disk_everything() -> None:
    disk = Disk()
    store = disk.open()
    store.write(FIRST)
    image = disk.copy()
    store.write(SECOND)
    disk.restore(image)
    assert content(disk) == {b"a": b"1", b"b": b"2"} and not disk.is_damaged
    disk.wipe()
    assert content(disk) == {}


def test_store_of_a_dead_process_cannot_write() -> None:
    store = Disk().open()
    store.close()
    with pytest.raises(InvariantBroken):
        store.write(FIRST)
