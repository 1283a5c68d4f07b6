"""LevelDB on a real disk: refusals by code, torn logs, damage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medchain.errors import InvariantBroken, Rejected
from medchain.store.keyvalue import WriteBatch
from medchain.store.leveldb import REFUSALS, LevelDB
from medchain.store.logtail import BLOCK_BYTES, has_hole, torn_end

EVERYTHING = (b"", b"\xff" * 40)


def batch(number: int, size: int = 40) -> WriteBatch:
    """Two keys that are there together or not at all, and a counter."""
    filler = bytes((number * 7 + byte) % 251 for byte in range(size))
    return WriteBatch.of((b"a/%04d" % number, filler), (b"z/%04d" % number, filler), (b"count", b"%d" % (number + 1)))


def written(path: Path, count: int, size: int = 40) -> list[int]:
    """Make a store of `count` batches and leave it as a crash does; return the length of its log after each batch."""
    living = path.with_name(path.name + "-living")
    store = LevelDB(living, create=True)
    lengths = []
    for number in range(count):
        store.write(batch(number, size))
        lengths.append(log_of(living).stat().st_size)
    shutil.copytree(living, path)  # closing would tidy nothing, but a copy of the open store is what a crash leaves
    store.close()
    shutil.rmtree(living)
    return lengths


def log_of(path: Path) -> Path:
    (log,) = path.glob("*.log")
    return log


def batches_in(path: Path) -> int:
    """Open the store and return how many batches it holds; fails unless they are a prefix, each one whole."""
    store = LevelDB(path, create=False)
    count = int(store.get(b"count") or b"0")
    keys = [key for key, _ in store.iterate(*EVERYTHING) if key != b"count"]
    store.check()
    store.close()
    assert keys == [b"a/%04d" % number for number in range(count)] + [b"z/%04d" % number for number in range(count)]
    return count


def refusal(action: Callable[[], object]) -> Rejected:
    with pytest.raises(Rejected) as caught:
        action()
    assert caught.value.code in REFUSALS
    return caught.value


def test_missing_store_is_refused_unless_it_may_be_made(tmp_path: Path) -> None:
    assert refusal(lambda: LevelDB(tmp_path / "none", create=False)).code == "store.missing"
    assert not (tmp_path / "none").exists()
    store = LevelDB(tmp_path / "deep" / "none", create=True)
    assert store.path == tmp_path / "deep" / "none" and (store.path.stat().st_mode & 0o077) == 0
    store.close()
    LevelDB(tmp_path / "deep" / "none", create=False).close()


def test_batch_taken_over_shows_only_when_it_is_written_and_may_be_written_in_another_thread(tmp_path: Path) -> None:
    store = LevelDB(tmp_path / "store", create=True)
    store.write(WriteBatch.of((b"gone", b"1"), (b"kept", b"1")))
    write = store.begin_write(WriteBatch.of((b"kept", b"2"), (b"gone", None), (b"new", b"3"), (b"new", b"4")))
    assert list(store.iterate(b"", b"z")) == [(b"gone", b"1"), (b"kept", b"1")]
    with ThreadPoolExecutor(1) as threads:
        threads.submit(write).result()
    store.close()
    store = LevelDB(tmp_path / "store", create=False)
    assert list(store.iterate(b"", b"z")) == [(b"kept", b"2"), (b"new", b"4")]
    store.begin_write(WriteBatch())()
    assert list(store.iterate(b"", b"z")) == [(b"kept", b"2"), (b"new", b"4")]
    late = store.begin_write(WriteBatch.of((b"late", b"5")))
    store.close()
    with pytest.raises(InvariantBroken, match="after it was closed"):
        late()
    for too_late in (WriteBatch.of((b"later", b"6")), WriteBatch()):
        with pytest.raises(InvariantBroken, match="after it was closed"):
            store.begin_write(too_late)


def test_store_open_in_this_process_is_locked(tmp_path: Path) -> None:
    store = LevelDB(tmp_path / "store", create=True)
    error = refusal(lambda: LevelDB(tmp_path / "store", create=True))
    assert error.code == "store.locked" and "running" in error.message
    store.write(batch(0))  # and the one that holds it is not disturbed
    store.close()


def test_store_open_in_another_process_is_locked(tmp_path: Path) -> None:
    program = (
        "import sys; from medchain.store.leveldb import LevelDB\n"
        "store = LevelDB(sys.argv[1], create=True); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "store")], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"open\n"
        assert refusal(lambda: LevelDB(tmp_path / "store", create=False)).code == "store.locked"
        other.communicate(timeout=30)
    LevelDB(tmp_path / "store", create=False).close()


def test_path_that_is_a_file_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert refusal(lambda: LevelDB(tmp_path / "file", create=True)).code == "store.unusable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directory_without_rights_is_unusable(tmp_path: Path) -> None:
    LevelDB(tmp_path / "store", create=True).close()
    (tmp_path / "store").chmod(0o500)
    try:
        assert refusal(lambda: LevelDB(tmp_path / "store", create=False)).code == "store.unusable"
    finally:
        (tmp_path / "store").chmod(0o700)


def test_log_cut_at_any_byte_opens_by_itself_with_whole_batches(tmp_path: Path) -> None:
    """lessons.md, "Node will not start after a crash" (tendermint #3295, #5422)."""
    lengths = written(tmp_path / "store", 5)
    for cut in range(lengths[-1] + 1):
        copy = tmp_path / "cut"
        shutil.copytree(tmp_path / "store", copy)
        os.truncate(log_of(copy), cut)
        assert batches_in(copy) == sum(length <= cut for length in lengths)
        shutil.rmtree(copy)


def test_log_of_batches_longer_than_a_block_cut_anywhere_opens_by_itself(tmp_path: Path) -> None:
    lengths = written(tmp_path / "store", 4, size=25_000)
    near_blocks = [block + shift for block in range(0, lengths[-1], BLOCK_BYTES) for shift in range(-9, 9)]
    for cut in sorted({*range(0, lengths[-1], 4999), *near_blocks, *lengths}):
        if not 0 <= cut <= lengths[-1]:
            continue
        copy = tmp_path / "cut"
        shutil.copytree(tmp_path / "store", copy)
        os.truncate(log_of(copy), cut)
        assert batches_in(copy) == sum(length <= cut for length in lengths)
        shutil.rmtree(copy)


@pytest.mark.parametrize("size", [40, 25_000])
@pytest.mark.parametrize("spoil", [b"\x00", b"\xa5"], ids=["zeros", "garbage"])
def test_last_batch_written_in_part_is_dropped_and_the_rest_kept(tmp_path: Path, size: int, spoil: bytes) -> None:
    """A file system may have grown the file before the data came: the end is there but is not what was written."""
    lengths = written(tmp_path / "store", 4, size=size)
    begin, end = lengths[-2], lengths[-1]
    for start in sorted({begin, begin + 3, begin + 6, begin + 8, (begin + end) // 2, end - 1}):
        copy = tmp_path / "torn"
        shutil.copytree(tmp_path / "store", copy)
        content = log_of(copy).read_bytes()
        log_of(copy).write_bytes(content[:start] + spoil * (end - start))
        assert batches_in(copy) == 3
        shutil.rmtree(copy)


def test_every_wrong_byte_of_a_log_is_damage_or_costs_the_last_batch_alone(tmp_path: Path) -> None:
    lengths = written(tmp_path / "store", 3)
    for position in range(lengths[-1]):
        copy = tmp_path / "rotten"
        shutil.copytree(tmp_path / "store", copy)
        content = bytearray(log_of(copy).read_bytes())
        content[position] ^= 0x10
        log_of(copy).write_bytes(content)
        if position < lengths[-2]:
            assert refusal(lambda copy=copy: LevelDB(copy, create=True)).code == "store.damaged"
        else:
            assert batches_in(copy) == 2
        shutil.rmtree(copy)


@pytest.mark.parametrize("size", [40, 25_000])
def test_bad_byte_before_the_last_batch_is_damage_and_nothing_is_altered(tmp_path: Path, size: int) -> None:
    lengths = written(tmp_path / "store", 4, size=size)
    for position in (0, 4, 6, 20, lengths[0] + 5, lengths[0] + 6, lengths[1] - 1, lengths[2] - 1):
        copy = tmp_path / "rotten"
        shutil.copytree(tmp_path / "store", copy)
        content = bytearray(log_of(copy).read_bytes())
        content[position] ^= 0x10
        log_of(copy).write_bytes(content)
        error = refusal(lambda copy=copy: LevelDB(copy, create=True))
        assert error.code == "store.damaged"
        assert log_of(copy).read_bytes() == content
        shutil.rmtree(copy)


def test_zeros_in_the_middle_of_the_log_are_damage(tmp_path: Path) -> None:
    lengths = written(tmp_path / "store", 6, size=25_000)
    for start, stop in ((lengths[0], lengths[0] + 4096), (lengths[0] + 100, lengths[2]), (0, 10)):
        copy = tmp_path / "rotten"
        shutil.copytree(tmp_path / "store", copy)
        content = log_of(copy).read_bytes()
        log_of(copy).write_bytes(content[:start] + bytes(stop - start) + content[stop:])
        assert refusal(lambda copy=copy: LevelDB(copy, create=True)).code == "store.damaged"
        shutil.rmtree(copy)


def test_store_that_lost_a_file_is_damaged_and_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "store"
    written(path, 3)
    LevelDB(path, create=False).close()  # turns the log into a table
    for lost in ("CURRENT", "MANIFEST-*", "*.ldb"):
        copy = tmp_path / "copy"
        shutil.copytree(path, copy)
        for file in copy.glob(lost):
            file.unlink()
        assert refusal(lambda copy=copy: LevelDB(copy, create=True)).code == "store.damaged"
        shutil.rmtree(copy)


def test_rotten_table_is_found_by_check_and_stops_a_read(tmp_path: Path) -> None:
    path = tmp_path / "store"
    written(path, 3, size=4000)
    LevelDB(path, create=False).close()
    (table,) = path.glob("*.ldb")
    content = bytearray(table.read_bytes())
    content[100] ^= 1
    table.write_bytes(content)
    store = LevelDB(path, create=False)
    assert refusal(store.check).code == "store.damaged"
    with pytest.raises(InvariantBroken):
        store.get(b"a/0000")
    with pytest.raises(InvariantBroken):
        list(store.iterate(*EVERYTHING))
    store.close()


def test_table_cut_short_is_the_store_s_sentence_and_no_bare_error_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "store"
    written(path, 3, size=4000)
    LevelDB(path, create=False).close()
    (table,) = path.glob("*.ldb")
    table.write_bytes(table.read_bytes()[:2000])
    try:
        store = LevelDB(path, create=False)
    except Rejected as error:
        assert error.code == "store.damaged"
        return
    with pytest.raises(InvariantBroken, match="could not read") as caught:
        list(store.iterate(*EVERYTHING))
    assert "b'" not in str(caught.value)
    store.close()


def test_table_of_refusals_lists_what_is_tested_here() -> None:
    assert set(REFUSALS) == {"store.missing", "store.locked", "store.damaged", "store.unusable"}


def test_compaction_frees_the_disk(tmp_path: Path) -> None:
    store = LevelDB(tmp_path / "store", create=True)
    for number in range(40):
        store.write(WriteBatch.of((b"k%d" % number, os.urandom(256 * 1024))))
    store.compact(*EVERYTHING)
    full = store.disk_bytes()
    store.write(WriteBatch(tuple((b"k%d" % number, None) for number in range(40))))
    store.compact(*EVERYTHING)
    store.close()
    store = LevelDB(tmp_path / "store", create=False)  # the old log goes with the next opening
    assert store.disk_bytes() < full / 20
    store.close()


def test_sound_log_has_neither_hole_nor_torn_end(tmp_path: Path) -> None:
    written(tmp_path / "store", 4, size=25_000)
    content = log_of(tmp_path / "store").read_bytes()
    assert torn_end(content) is None and not has_hole(content)
    assert torn_end(b"") is None and not has_hole(b"")
    assert torn_end(content[:3]) is None and not has_hole(bytes(50_000))
    assert torn_end(bytes(50_000)) == 0
