"""The vault's blobs: resumable, verified before they are published, bounded, constant in memory."""

from __future__ import annotations

import asyncio
import io
import shutil
import stat
import tracemalloc
from collections import namedtuple

import pytest

from medchain.crypto.streams import seal_stream
from medchain.errors import InvariantBroken, Malformed, Rejected, Unavailable
from medchain.vault import blobs
from medchain.vault.blobs import BLOB_BYTES_MAX, STALE_UPLOAD_MS, BlobLimits, BlobStore

pytestmark = pytest.mark.asyncio


async def whole(store, root):
    return b"".join([piece async for piece in store.read_range(root, 0, store.size(root) - 1)])


async def test_blob_is_published_after_its_root_was_verified(store, blob, folder):
    assert await store.write_range(blob.root, 0, blob.chunks(), total=len(blob.sealed)) == len(blob.sealed)
    assert not store.has(blob.root)
    assert store.expected_bytes(blob.root) == len(blob.sealed)
    facts = await store.finish(blob.root)
    assert (facts.segment_count, facts.plaintext_bytes, facts.sealed_bytes) == (blob.stream.segment_count, 100_000, len(blob.sealed))
    assert facts.header == blob.stream.header and facts == await store.facts(blob.root)
    assert store.has(blob.root) and store.roots() == (blob.root,) and await whole(store, blob.root) == blob.sealed
    assert store.path(blob.root).read_bytes() == blob.sealed
    assert store.used_bytes() == len(blob.sealed)
    assert list((folder / "uploads").iterdir()) == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.path(blob.root).stat().st_mode) & 0o077 == 0


async def test_upload_goes_on_after_a_restart_where_it_stopped(store, blob, folder):
    await store.write_range(blob.root, 0, blob.chunks(0, 33_333), total=len(blob.sealed))
    again = BlobStore(folder)
    assert again.received(blob.root) == 33_333 and not again.has(blob.root)
    await again.write_range(blob.root, 33_333, blob.chunks(33_333), total=len(blob.sealed))
    await again.finish(blob.root)
    assert await whole(again, blob.root) == blob.sealed
    third = BlobStore(folder)
    assert third.roots() == (blob.root,) and third.size(blob.root) == len(blob.sealed)


async def test_bytes_received_before_a_break_are_kept(store, blob):
    async def breaks():
        yield blob.sealed[:5_000]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.write_range(blob.root, 0, breaks(), total=len(blob.sealed))
    assert store.received(blob.root) == 5_000
    await store.write_range(blob.root, 5_000, blob.chunks(5_000), total=len(blob.sealed))
    await store.finish(blob.root)


async def test_upload_that_was_whole_before_a_stop_is_published_later(store, blob, folder):
    await store.write_range(blob.root, 0, blob.chunks(0, -1), total=len(blob.sealed))
    assert not await store.finish_if_whole(blob.root)
    await store.write_range(blob.root, len(blob.sealed) - 1, blob.chunks(len(blob.sealed) - 1))
    again = BlobStore(folder)
    assert await again.finish_if_whole(blob.root) and await again.finish_if_whole(blob.root)
    assert again.has(blob.root)


async def test_range_that_does_not_continue_the_upload_is_refused_and_changes_nothing(store, blob):
    await store.write_range(blob.root, 0, blob.chunks(0, 100))
    for offset in (0, 99, 101):
        with pytest.raises(Rejected) as refusal:
            await store.write_range(blob.root, offset, blob.chunks(offset))
        assert refusal.value.code == "vault.offset"
    assert store.received(blob.root) == 100


@pytest.mark.parametrize("place", [10, 200, -1])
async def test_flipped_byte_removes_the_upload(store, blob, place):
    damaged = bytearray(blob.sealed)
    damaged[place] ^= 1

    async def chunks():
        yield bytes(damaged)

    with pytest.raises(Malformed):
        await store.write_range(blob.root, 0, chunks())
        await store.finish(blob.root)
    assert store.received(blob.root) == 0 and not store.has(blob.root) and store.used_bytes() == 0


async def test_another_blob_under_the_name_of_a_root_is_refused(store, blob, make_blob):
    other = make_blob("two", 50_000)
    await store.write_range(blob.root, 0, other.chunks(), total=len(other.sealed))
    with pytest.raises(Malformed):
        await store.finish(blob.root)
    assert not store.has(blob.root) and store.received(blob.root) == 0


async def test_truncated_upload_is_not_published(store, blob):
    await store.write_range(blob.root, 0, blob.chunks(0, -1))
    with pytest.raises(Malformed):
        await store.finish(blob.root)
    assert not store.has(blob.root)


async def test_length_in_the_header_must_be_the_announced_one(store, blob):
    with pytest.raises(Malformed):
        await store.write_range(blob.root, 0, blob.chunks(0, 500), total=len(blob.sealed) + 1)
    assert store.received(blob.root) == 0


async def test_what_is_no_sealed_stream_is_refused_at_once(store, blob):
    async def chunks():
        yield b"\xff" * 1000

    with pytest.raises(Malformed):
        await store.write_range(blob.root, 0, chunks(), total=1_000_000)
    assert store.used_bytes() == 0


async def test_more_bytes_than_announced_are_refused(store, blob):
    with pytest.raises(Malformed):
        await store.write_range(blob.root, 0, blob.chunks(), total=2_000)
    assert store.received(blob.root) <= 2_000


async def test_published_blob_is_left_as_it_is(store, blob):
    await store.write_range(blob.root, 0, blob.chunks())
    await store.finish(blob.root)

    async def never():
        raise AssertionError("a published blob takes no bytes")
        yield b""

    assert await store.write_range(blob.root, 7, never()) == len(blob.sealed)
    assert (await store.finish(blob.root)).root == blob.root


async def test_missing_blob_is_refused_by_code(store, blob):
    for read in (store.size, store.path):
        with pytest.raises(Rejected) as refusal:
            read(blob.root)
        assert refusal.value.code == "vault.blob-missing"
    for ask in (store.finish(blob.root), store.facts(blob.root), store.check(blob.root), anext(store.read_range(blob.root, 0, 1))):
        with pytest.raises(Rejected) as refusal:
            await ask
        assert refusal.value.code == "vault.blob-missing"


async def test_quota_counts_uploads_and_blobs(folder, blob, make_blob):
    store = BlobStore(folder, BlobLimits(bytes_max=len(blob.sealed) + 10_000, disk_free_bytes_min=0))
    await store.write_range(blob.root, 0, blob.chunks())
    await store.finish(blob.root)
    other = make_blob("two", 50_000)
    with pytest.raises(Rejected) as refusal:
        await store.write_range(other.root, 0, other.chunks(), total=len(other.sealed))
    assert refusal.value.code == "vault.full" and store.received(other.root) == 0
    with pytest.raises(Rejected) as refusal:  # a sender who does not say how much comes is stopped when it is too much
        await store.write_range(other.root, 0, other.chunks())
    assert refusal.value.code == "vault.full"
    store.remove(blob.root)
    assert store.roots() == ()
    await store.write_range(other.root, store.received(other.root), other.chunks(store.received(other.root)))
    await store.finish(other.root)


async def test_low_disk_refuses_uploads(folder, blob, monkeypatch):
    store = BlobStore(folder, BlobLimits(disk_free_bytes_min=1_000_000))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 1_000_000 + 50_000))
    with pytest.raises(Rejected) as refusal:
        await store.write_range(blob.root, 0, blob.chunks(), total=len(blob.sealed))
    assert refusal.value.code == "vault.disk-low"
    assert store.received(blob.root) == 0


async def test_full_disk_is_a_typed_refusal(store, blob, monkeypatch):
    def no_room(descriptor, piece):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(blobs.os, "write", no_room)
    with pytest.raises(Rejected) as refusal:
        await store.write_range(blob.root, 0, blob.chunks())
    assert refusal.value.code == "vault.disk-low"


async def test_failing_disk_is_unavailable_and_names_no_path(store, blob, folder, monkeypatch):
    def fails(descriptor, piece):
        raise OSError(5, "Input/output error", str(folder))

    monkeypatch.setattr(blobs.os, "write", fails)
    with pytest.raises(Unavailable) as failure:
        await store.write_range(blob.root, 0, blob.chunks())
    assert "EIO" in failure.value.message and str(folder) not in failure.value.message


async def test_blob_beyond_every_stream_is_too_large(store, blob):
    with pytest.raises(Rejected) as refusal:
        await store.write_range(blob.root, 0, blob.chunks(), total=BLOB_BYTES_MAX + 1)
    assert refusal.value.code == "vault.too-large"


async def test_second_writer_of_an_upload_is_told_to_come_again(store, blob):
    gate = asyncio.Event()

    async def slow():
        yield blob.sealed[:10]
        await gate.wait()
        yield blob.sealed[10:]

    first = asyncio.create_task(store.write_range(blob.root, 0, slow()))
    while blob.root not in store._busy:
        await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await store.write_range(blob.root, 0, blob.chunks())
    with pytest.raises(Unavailable):
        await store.finish(blob.root) if store.received(blob.root) else await store.write_range(blob.root, 0, blob.chunks())
    gate.set()
    assert await first == len(blob.sealed)
    await store.finish(blob.root)


async def test_cancelled_writer_leaves_a_true_count(store, blob):
    gate = asyncio.Event()

    async def endless():
        yield blob.sealed[:20_000]
        gate.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.write_range(blob.root, 0, endless()))
    await gate.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.received(blob.root) == 20_000
    await store.write_range(blob.root, 20_000, blob.chunks(20_000))
    await store.finish(blob.root)


@pytest.mark.parametrize("name", [b"../../etc/passwd", b"", b"\x00" * 31, "ab" * 32, None])
async def test_only_32_bytes_name_a_blob(store, name):
    with pytest.raises(InvariantBroken):
        await store.write_range(name, 0, iter(()))


async def test_foreign_files_in_the_folder_are_neither_served_nor_touched(folder, blob):
    store = BlobStore(folder)
    (folder / "blobs" / "notes.txt").write_text("mine")
    (folder / "blobs" / blob.root.hex()).symlink_to("/etc/hostname")
    again = BlobStore(folder)
    assert again.roots() == () and not again.has(blob.root) and (folder / "blobs" / "notes.txt").exists()
    assert store.used_bytes() == 0


async def test_ranges_are_exact(store, blob):
    await store.write_range(blob.root, 0, blob.chunks())
    await store.finish(blob.root)
    for first, last in ((0, 0), (1, 70_000), (len(blob.sealed) - 1, len(blob.sealed) - 1)):
        assert b"".join([piece async for piece in store.read_range(blob.root, first, last)]) == blob.sealed[first : last + 1]


async def test_damage_on_disk_is_found_and_the_blob_removed(store, blob):
    await store.write_range(blob.root, 0, blob.chunks())
    await store.finish(blob.root)
    assert await store.check(blob.root)
    path = store.path(blob.root)
    path.chmod(0o600)
    path.write_bytes(blob.sealed[:-1] + bytes([blob.sealed[-1] ^ 1]))
    assert not await store.check(blob.root)
    assert not store.has(blob.root) and store.used_bytes() == 0


async def test_truncation_on_disk_is_noticed_by_whoever_asks_for_facts(store, blob):
    await store.write_range(blob.root, 0, blob.chunks())
    await store.finish(blob.root)
    path = store.path(blob.root)
    path.chmod(0o600)
    path.write_bytes(blob.sealed[:-1])
    with pytest.raises(Malformed):
        await store.facts(blob.root)
    with pytest.raises(Unavailable):
        await whole(store, blob.root)


async def test_uploads_given_up_are_dropped(store, blob, folder):
    await store.write_range(blob.root, 0, blob.chunks(0, 100))
    written_ms = (folder / "uploads" / blob.root.hex()).stat().st_mtime_ns // 1_000_000
    assert store.drop_stale_uploads(written_ms + STALE_UPLOAD_MS) == 0
    assert store.drop_stale_uploads(written_ms + STALE_UPLOAD_MS + 1) == 1
    assert store.received(blob.root) == 0


async def test_memory_does_not_grow_with_the_blob(store, tmp_path):
    length = 24 * 1024 * 1024
    key, record = b"\x01" * 32, b"\x02" * 32
    path = tmp_path / "sealed"
    with path.open("wb") as sink:
        stream = seal_stream(io.BytesIO(bytes(length)), length, key, record, sink)

    async def pieces():
        with path.open("rb") as file:
            while piece := file.read(65_536):
                yield piece

    big = BlobStore(store._directory, BlobLimits(disk_free_bytes_min=0))
    tracemalloc.start()
    await big.write_range(stream.root, 0, pieces(), total=stream.sealed_bytes)
    await big.finish(stream.root)
    count = 0
    async for piece in big.read_range(stream.root, 0, stream.sealed_bytes - 1):
        count += len(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == stream.sealed_bytes
    assert peak < 16 * 1024 * 1024
