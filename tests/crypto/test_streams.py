"""Sealed streams: frozen bytes, the layout read independently, every kind of damage, range reads, hostile headers, constant memory."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from medchain import codec
from medchain.crypto import streams
from medchain.crypto.merkle import MerkleTree, leaf_digest, merkle_root, verify_range
from medchain.crypto.streams import (
    HEADER_BYTES_MAX,
    KEY_BYTES,
    MERKLE_TAG,
    SEGMENT_BYTES,
    SEGMENT_BYTES_MIN,
    SEGMENTS_MAX,
    SUITE_AES_256_GCM,
    TAG_BYTES,
    WORKERS_MAX,
    SealedStream,
    SegmentOpener,
    StreamHeader,
    damaged_segments,
    generate_data_key,
    open_stream,
    seal_stream,
    segment_range,
    stream_root,
)
from medchain.errors import InvariantBroken, Malformed, Rejected

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "streams.json").read_text())["streams"]
SMALL = SEGMENT_BYTES_MIN
KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
RECORD = bytes(range(100, 132))
OTHER_RECORD = bytes(range(101, 133))
MIB = 1024 * 1024


def content(length: int) -> bytes:
    return hashlib.shake_128(b"medchain stream vector").digest(length)


def sealed_content(
    length: int, key: bytes = KEY, record: bytes = RECORD, segment_bytes: int = SMALL, workers: int = 1
) -> tuple[bytes, SealedStream]:
    sink = io.BytesIO()
    described = seal_stream(io.BytesIO(content(length)), length, key, record, sink, segment_bytes=segment_bytes, workers=workers)
    return sink.getvalue(), described


def opened(sealed: bytes, root: bytes, key: bytes = KEY, **options: Any) -> bytes:
    sink = io.BytesIO()
    open_stream(io.BytesIO(sealed), key, root, sink, **options)
    return sink.getvalue()


def pieces(sealed: bytes, header: StreamHeader) -> list[bytes]:
    """Cut a sealed stream into its segments, the header first."""
    start = len(header.segment_zero())
    step = header.segment_bytes + TAG_BYTES
    return [sealed[:start]] + [sealed[at : at + step] for at in range(start, len(sealed), step)]


# --- frozen bytes, and the layout read independently ---


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['plaintext_bytes']}-by-{vector['segment_bytes']}")
def test_frozen_streams_do_not_change(vector: dict[str, Any], workers: int) -> None:
    key, record, length = bytes.fromhex(vector["data_key"]), bytes.fromhex(vector["record"]), vector["plaintext_bytes"]
    sealed, described = sealed_content(length, key, record, vector["segment_bytes"], workers)
    assert hashlib.sha256(sealed).hexdigest() == vector["sealed_sha256"]
    assert described.root.hex() == vector["root"]
    assert described.header.encode().hex() == vector["header"]
    assert (described.segment_count, described.sealed_bytes, described.plaintext_bytes) == (
        vector["segment_count"],
        vector["sealed_bytes"],
        length,
    )
    assert sealed.hex() == vector.get("sealed", sealed.hex())
    assert stream_root(io.BytesIO(sealed), workers=workers) == described
    assert opened(sealed, described.root, key, workers=workers) == content(length)


def derived(key: bytes, use: bytes, record: bytes, length: int) -> bytes:
    """HKDF of RFC 5869 for one block of output."""
    return hmac.digest(hmac.digest(bytes(32), key, "sha256"), b"medchain/stream/" + use + record + b"\x01", "sha256")[:length]


@pytest.mark.parametrize("length", [0, 1, SMALL - 1, SMALL, SMALL + 1, 3 * SMALL, 3 * SMALL + 7])
def test_the_layout_is_the_documented_one(length: int) -> None:
    """Everything here is made from the module's description and library calls, not from the code under test."""
    plaintext = content(length)
    header = codec.encode([1, SMALL, length, RECORD, derived(KEY, b"commit", RECORD, 32)])
    leaves = [len(header).to_bytes(4, "big") + header]
    cuts = [plaintext[at : at + SMALL] for at in range(0, length, SMALL)] or [b""]
    for index, cut in enumerate(cuts, 1):
        nonce = derived(KEY, b"nonce", RECORD, 7) + index.to_bytes(4, "big") + (b"\x01" if index == len(cuts) else b"\x00")
        leaves.append(AESGCM(derived(KEY, b"key", RECORD, 32)).encrypt(nonce, cut, leaves[0]))
    sealed, described = sealed_content(length)
    assert sealed == b"".join(leaves)
    assert described.root == merkle_root(MERKLE_TAG, leaves)
    assert described.leaf_digests == tuple(leaf_digest(MERKLE_TAG, leaf) for leaf in leaves)


@pytest.mark.parametrize(
    ("length", "segments"), [(0, 1), (1, 1), (SMALL - 1, 1), (SMALL, 1), (SMALL + 1, 2), (2 * SMALL, 2), (2 * SMALL + 1, 3)]
)
def test_segments_at_the_edges(length: int, segments: int) -> None:
    sealed, described = sealed_content(length)
    assert described.segment_count == segments + 1
    assert described.sealed_bytes == len(sealed) == len(described.header.segment_zero()) + length + TAG_BYTES * segments
    assert opened(sealed, described.root) == content(length)


@pytest.mark.parametrize("length", [SEGMENT_BYTES, SEGMENT_BYTES + 1])
def test_the_usual_segment_is_one_mebibyte(length: int) -> None:
    sink = io.BytesIO()
    described = seal_stream(io.BytesIO(content(length)), length, KEY, RECORD, sink)
    assert (described.header.segment_bytes, described.segment_count) == (MIB, 2 if length == MIB else 3)
    assert opened(sink.getvalue(), described.root) == content(length)


# --- keys and commitment ---


class Tripwire:
    """Stands where the cipher is made, and says so."""

    def __init__(self, key: bytes) -> None:
        raise AssertionError("a cipher was made")


def test_a_wrong_key_is_refused_by_the_commitment_before_any_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed, described = sealed_content(3 * SMALL)
    monkeypatch.setattr(streams, "AESGCM", Tripwire)
    sink = io.BytesIO()
    with pytest.raises(Malformed, match="data key is not the one this stream commits to"):
        open_stream(io.BytesIO(sealed), OTHER_KEY, described.root, sink)
    with pytest.raises(Malformed, match="data key is not the one this stream commits to"):
        SegmentOpener(described.header, OTHER_KEY)
    assert sink.getvalue() == b""
    with pytest.raises(AssertionError, match="a cipher was made"):  # the wire is taut
        SegmentOpener(described.header, KEY)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_data_keys_of_another_length_are_refused(length: int) -> None:
    sealed, described = sealed_content(10)
    with pytest.raises(Malformed, match="32 bytes"):
        opened(sealed, described.root, bytes(length))
    with pytest.raises(InvariantBroken):
        seal_stream(io.BytesIO(b""), 0, bytes(length), RECORD, io.BytesIO())


def test_one_key_under_two_records_shares_neither_keystream_nor_segments() -> None:
    """The same data key twice is a mistake; under different record ids it must at least break nothing."""
    first, described = sealed_content(2 * SMALL)
    second, _ = sealed_content(2 * SMALL, record=OTHER_RECORD)
    own, foreign = pieces(first, described.header), pieces(second, described.header)
    assert all(a[:64] != b[:64] for a, b in zip(own, foreign, strict=True))
    keystreams = [bytes(x ^ y for x, y in zip(part[1][:SMALL], content(SMALL), strict=True)) for part in (own, foreign)]
    assert keystreams[0] != keystreams[1]
    with pytest.raises(Malformed, match="segment 1 of 2"):
        SegmentOpener(described.header, KEY).open_segment(1, foreign[1])


def test_segments_of_one_stream_never_share_a_keystream() -> None:
    sink = io.BytesIO()
    described = seal_stream(io.BytesIO(bytes(4 * SMALL)), 4 * SMALL, KEY, RECORD, sink, segment_bytes=SMALL)
    blocks = [part[at : at + 16] for part in pieces(sink.getvalue(), described.header)[1:] for at in range(0, SMALL, 16)]
    assert len(set(blocks)) == len(blocks)


def test_another_records_id_in_the_header_is_refused_by_the_commitment() -> None:
    sealed, described = sealed_content(2 * SMALL)
    moved = replace(described.header, record=OTHER_RECORD).segment_zero()
    with pytest.raises(Malformed, match="header of another record"):
        opened(moved + sealed[len(moved) :], described.root)


def test_generated_data_keys_differ() -> None:
    assert len({generate_data_key() for _ in range(20)}) == 20
    assert len(generate_data_key()) == KEY_BYTES


# --- damage ---


def test_every_flipped_byte_is_found_and_located() -> None:
    """Without any knowledge but key and root, and with the leaf digests; by the holder of a replica without the key too."""
    length = 2 * SMALL + 40
    sealed, described = sealed_content(length)
    lengths = [len(piece) for piece in pieces(sealed, described.header)]
    owner = [index for index, size in enumerate(lengths) for _ in range(size)]
    positions = [*range(200), *range(200, len(sealed), 61), *range(len(sealed) - 60, len(sealed))]
    for position in positions:
        altered = bytearray(sealed)
        altered[position] ^= 1 << (position % 8)
        index = owner[position]
        with pytest.raises(Malformed) as refused:
            opened(bytes(altered), described.root)
        if index > 0:
            assert f"segment {index} of 3" in refused.value.message
        with pytest.raises(Malformed) as refused:
            opened(bytes(altered), described.root, leaf_digests=described.leaf_digests)
        if index > 0:
            assert f"segment {index} of 3" in refused.value.message
        assert damaged_segments(io.BytesIO(bytes(altered)), described) == (index,)
        try:
            assert stream_root(io.BytesIO(bytes(altered))).root != described.root
        except Malformed:
            assert index == 0


Damage = Callable[[list[bytes]], list[bytes]]
DAMAGES: dict[str, Damage] = {
    "swapped": lambda parts: [parts[0], parts[2], parts[1], *parts[3:]],
    "first dropped": lambda parts: [parts[0], *parts[2:]],
    "middle dropped": lambda parts: [*parts[:2], *parts[3:]],
    "last dropped": lambda parts: parts[:-1],
    "duplicated": lambda parts: [*parts[:2], parts[1], *parts[2:]],
    "duplicated in place": lambda parts: [*parts[:2], parts[1], *parts[3:]],
    "last twice": lambda parts: [*parts, parts[-1]],
    "header only": lambda parts: parts[:1],
    "header twice": lambda parts: [parts[0], *parts],
    "no header": lambda parts: parts[1:],
    "nothing": lambda parts: [],
    "one byte short": lambda parts: [*parts[:-1], parts[-1][:-1]],
    "one byte more": lambda parts: [*parts, b"\x00"],
    "tag cut off": lambda parts: [*parts[:-1], parts[-1][:-TAG_BYTES]],
}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
@pytest.mark.parametrize("length", [4 * SMALL, 3 * SMALL + 5])
def test_segments_out_of_place_are_refused(length: int, damage: Damage, workers: int) -> None:
    sealed, described = sealed_content(length)
    altered = b"".join(damage(pieces(sealed, described.header)))
    for leaf_digests in (None, described.leaf_digests):
        with pytest.raises(Malformed):
            opened(altered, described.root, workers=workers, leaf_digests=leaf_digests)
    assert damaged_segments(io.BytesIO(altered), described)
    with suppress(Malformed):  # the shape may be off as well; if it is not, the root is another
        assert stream_root(io.BytesIO(altered), workers=workers).root != described.root


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_stream_cut_at_a_segment_with_a_header_to_match_is_refused(kept: int) -> None:
    """The header is bound to every segment and the last flag to its nonce: a shorter stream cannot be cut out of a longer one."""
    sealed, described = sealed_content(4 * SMALL)
    header = replace(described.header, plaintext_bytes=kept * SMALL)
    altered = [header.segment_zero(), *pieces(sealed, described.header)[1 : kept + 1]]
    with pytest.raises(Malformed, match="segment 1 of"):
        opened(b"".join(altered), merkle_root(MERKLE_TAG, altered))


@pytest.mark.parametrize("index", [1, 2, 3])
def test_the_last_flag_is_bound_apart_from_the_header(index: int) -> None:
    """A segment sealed with the wrong flag under the right key, header and position does not open."""
    _, described = sealed_content(3 * SMALL)
    opener = SegmentOpener(described.header, KEY)
    nonce = bytearray(opener.nonce(index))
    assert nonce[-1] == (index == 3)
    nonce[-1] ^= 1
    forged = AESGCM(derived(KEY, b"key", RECORD, 32)).encrypt(bytes(nonce), bytes(SMALL), described.header.segment_zero())
    with pytest.raises(Malformed, match=f"segment {index} of 3"):
        opener.open_segment(index, forged)


def test_a_stream_made_up_by_a_holder_of_the_key_is_refused_by_the_root() -> None:
    """Each segment opens; only the anchored root tells that this was never anchored, so the error says to discard what was opened."""
    _, described = sealed_content(2 * SMALL)
    sink = io.BytesIO()
    forged = seal_stream(io.BytesIO(bytes(2 * SMALL)), 2 * SMALL, KEY, RECORD, sink, segment_bytes=SMALL)
    with pytest.raises(Malformed, match="not the stream that was anchored"):
        opened(sink.getvalue(), described.root)
    with pytest.raises(Malformed, match="segment 1 of 2"):
        opened(sink.getvalue(), described.root, leaf_digests=described.leaf_digests)
    assert forged.leaf_digests[0] == described.leaf_digests[0]


def test_with_leaf_digests_nothing_unproven_reaches_the_sink() -> None:
    sealed, described = sealed_content(3 * SMALL)
    altered = bytearray(sealed)
    altered[-1] ^= 1
    sink = io.BytesIO()
    with pytest.raises(Malformed, match="segment 3 of 3"):
        open_stream(io.BytesIO(bytes(altered)), KEY, described.root, sink, leaf_digests=described.leaf_digests)
    assert sink.getvalue() == content(2 * SMALL)


def test_leaf_digests_that_are_not_those_of_the_root_are_refused() -> None:
    sealed, described = sealed_content(2 * SMALL)
    digests = described.leaf_digests
    for wrong in (
        (),
        digests[:1],
        digests[:-1],
        digests[::-1],
        (*digests, digests[0]),
        (b"", *digests[1:]),
        cast(Any, (None, *digests[1:])),
    ):
        with pytest.raises(Malformed, match="leaf digest"):
            opened(sealed, described.root, leaf_digests=wrong)


def test_a_stream_is_refused_under_the_leaf_digests_of_another() -> None:
    sealed, _ = sealed_content(2 * SMALL)
    _, other = sealed_content(2 * SMALL, record=OTHER_RECORD)
    with pytest.raises(Malformed, match="segment 0"):
        opened(sealed, other.root, leaf_digests=other.leaf_digests)
    _, described = sealed_content(2 * SMALL)
    longer = MerkleTree(MERKLE_TAG, (*described.leaf_digests, bytes(32)))
    with pytest.raises(Malformed, match="3 segments, but 4"):
        opened(sealed, longer.root, leaf_digests=(*described.leaf_digests, bytes(32)))


def test_damaged_segments_names_all_and_trusts_no_digests_of_another_root() -> None:
    sealed, described = sealed_content(4 * SMALL)
    parts = pieces(sealed, described.header)
    assert damaged_segments(io.BytesIO(sealed), described) == ()
    assert damaged_segments(io.BytesIO(b"".join([*parts[:3], bytes(len(parts[3]))])), described) == (3, 4)
    assert damaged_segments(io.BytesIO(sealed + b"\x00"), described) == (5,)
    assert damaged_segments(io.BytesIO(b""), described) == (0, 1, 2, 3, 4)
    with pytest.raises(InvariantBroken):
        damaged_segments(io.BytesIO(sealed), replace(described, root=bytes(32)))


# --- what the sealer may not do ---


@pytest.mark.parametrize(("held", "announced"), [(0, 1), (SMALL, SMALL + 1), (SMALL, SMALL - 1), (1, 0), (3 * SMALL, 2 * SMALL)])
def test_a_source_of_another_length_than_announced_is_refused(held: int, announced: int) -> None:
    for workers in (1, 2):
        with pytest.raises(Rejected) as refused:
            seal_stream(io.BytesIO(content(held)), announced, KEY, RECORD, io.BytesIO(), segment_bytes=SMALL, workers=workers)
        assert refused.value.code == "stream.source-changed"


def test_content_that_is_too_large_is_refused_before_a_byte_is_read_or_written() -> None:
    source, sink = io.BytesIO(b"content"), io.BytesIO()
    for segment_bytes in (SMALL, SEGMENT_BYTES):
        with pytest.raises(Rejected) as refused:
            seal_stream(source, SEGMENTS_MAX * segment_bytes + 1, KEY, RECORD, sink, segment_bytes=segment_bytes)
        assert refused.value.code == "stream.too-large"
    assert (source.tell(), sink.getvalue()) == (0, b"")


@pytest.mark.parametrize("segment_bytes", [1, SMALL - 1, SMALL // 2, SMALL + 1, 3 * SMALL, 2 * SEGMENT_BYTES])
def test_sealing_with_an_odd_segment_size_is_our_own_mistake(segment_bytes: int) -> None:
    with pytest.raises(InvariantBroken, match="segment size"):
        seal_stream(io.BytesIO(b"a"), 1, KEY, RECORD, io.BytesIO(), segment_bytes=segment_bytes)


def test_sealing_with_a_wrong_record_length_or_number_of_workers_is_our_own_mistake() -> None:
    with pytest.raises(InvariantBroken, match="record id"):
        seal_stream(io.BytesIO(b""), 0, KEY, RECORD[:-1], io.BytesIO())
    with pytest.raises(InvariantBroken):
        seal_stream(io.BytesIO(b""), -1, KEY, RECORD, io.BytesIO())
    for workers in (0, -1, WORKERS_MAX + 1):
        with pytest.raises(InvariantBroken, match="workers"):
            seal_stream(io.BytesIO(b""), 0, KEY, RECORD, io.BytesIO(), workers=workers)


# --- streams as the system gives them ---


class Trickle(io.RawIOBase):
    """A source and sink that moves at most 1,000 bytes a call, as pipes and sockets do."""

    def __init__(self, data: bytes = b"") -> None:
        self.inner = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self.inner.readinto(memoryview(buffer)[:1000])

    def write(self, data: Any) -> int:
        return self.inner.write(bytes(memoryview(data)[:1000]))


class ReadOnly:
    """A source that has nothing but `read`."""

    def __init__(self, data: bytes) -> None:
        self.inner = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self.inner.read(min(size, 3000))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_short_reads_and_short_writes_change_nothing(workers: int) -> None:
    length = 5 * SMALL + 9
    expected, described = sealed_content(length)
    for source in (Trickle(content(length)), ReadOnly(content(length))):
        sink = Trickle()
        made = seal_stream(cast(BinaryIO, source), length, KEY, RECORD, cast(BinaryIO, sink), segment_bytes=SMALL, workers=workers)
        assert (made, sink.inner.getvalue()) == (described, expected)
    for source in (Trickle(expected), ReadOnly(expected)):
        sink = Trickle()
        open_stream(cast(BinaryIO, source), KEY, described.root, cast(BinaryIO, sink), workers=workers)
        assert sink.inner.getvalue() == content(length)


class Deaf(io.RawIOBase):
    """A sink that takes nothing, as a socket that does not block."""

    def write(self, data: Any) -> None:
        return None


def test_a_sink_that_takes_nothing_ends_the_sealing() -> None:
    with pytest.raises(InvariantBroken, match="sink"):
        seal_stream(io.BytesIO(b"a"), 1, KEY, RECORD, cast(BinaryIO, Deaf()))


@pytest.mark.parametrize("workers", [1, 3])
def test_progress_is_told_after_each_segment_and_ends_at_the_length(workers: int) -> None:
    length = 2 * SMALL + 1
    told: list[int] = []
    sink = io.BytesIO()
    described = seal_stream(io.BytesIO(content(length)), length, KEY, RECORD, sink, told.append, segment_bytes=SMALL, workers=workers)
    open_stream(io.BytesIO(sink.getvalue()), KEY, described.root, io.BytesIO(), told.append, workers=workers)
    stream_root(io.BytesIO(sink.getvalue()), told.append, workers=workers)
    assert told == [SMALL, 2 * SMALL, length] * 3


class Flow:
    """A source that makes `length` bytes as they are asked for and holds none of them."""

    def __init__(self, length: int) -> None:
        self.left = length
        self.block = content(256 * 1024)

    def read(self, size: int = -1) -> bytes:
        count = min(size, self.left, len(self.block))
        self.left -= count
        return self.block[:count]


class Drain:
    """A sink that keeps a digest only."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.count = 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.count += len(data)
        return len(data)


@pytest.mark.parametrize("workers", [1, 3])
def test_memory_does_not_grow_with_the_stream(workers: int, tmp_path: Path) -> None:
    """64 MiB are sealed, checked and opened within 16 MiB."""
    length = 64 * MIB
    path = tmp_path / "sealed"
    drain = Drain()
    tracemalloc.start()
    try:
        with path.open("wb") as sink:
            described = seal_stream(cast(BinaryIO, Flow(length)), length, KEY, RECORD, sink, workers=workers)
        with path.open("rb") as source:
            assert stream_root(source, workers=workers) == described
        with path.open("rb") as source:
            open_stream(source, KEY, described.root, cast(BinaryIO, drain), workers=workers)
        with path.open("rb") as source:
            assert damaged_segments(source, described) == ()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        path.unlink(missing_ok=True)
    assert drain.count == length
    assert peak < 16 * MIB


# --- range reads ---

RANGED, RANGED_DESCRIPTION = sealed_content(5 * SMALL + 123)
RANGED_PLAINTEXT = content(5 * SMALL + 123)


@given(data=st.data())
def test_range_reads_equal_slices_of_the_original(data: st.DataObject) -> None:
    """Any range opens from exactly the sealed bytes named for it, and those bytes are proven under the root by one range path."""
    near_edges = st.sampled_from([edge + step for edge in range(0, 6 * SMALL, SMALL) for step in (-1, 0, 1)])
    place = st.one_of(st.integers(0, len(RANGED_PLAINTEXT) - 1), near_edges.filter(lambda at: 0 <= at < len(RANGED_PLAINTEXT)))
    first, last = sorted((data.draw(place), data.draw(place)))
    header = RANGED_DESCRIPTION.header
    segments, offsets = segment_range(header, first, last)
    part = RANGED[offsets.start : offsets.stop]
    assert SegmentOpener(header, KEY).open_range(first, last, part) == RANGED_PLAINTEXT[first : last + 1]
    leaves = pieces(RANGED, header)[segments.start : segments.stop]
    assert b"".join(leaves) == part
    tree = MerkleTree(MERKLE_TAG, RANGED_DESCRIPTION.leaf_digests)
    path = tree.range_path(segments.start, segments.stop)
    assert verify_range(MERKLE_TAG, RANGED_DESCRIPTION.root, leaves, segments.start, RANGED_DESCRIPTION.segment_count, path)


def test_segments_open_in_any_order() -> None:
    opener = SegmentOpener(RANGED_DESCRIPTION.header, KEY)
    parts = pieces(RANGED, RANGED_DESCRIPTION.header)
    for index in (6, 1, 3, 2, 5, 4):
        assert opener.open_segment(index, parts[index]) == RANGED_PLAINTEXT[(index - 1) * SMALL : index * SMALL]


def test_neighbouring_ranges_meet_without_gap_or_overlap() -> None:
    header = RANGED_DESCRIPTION.header
    spans = [segment_range(header, at, min(at + SMALL, len(RANGED_PLAINTEXT)) - 1) for at in range(0, len(RANGED_PLAINTEXT), SMALL)]
    assert [list(segments) for segments, _ in spans] == [[index] for index in range(1, 7)]
    assert all(left.stop == right.start for (_, left), (_, right) in pairwise(spans))
    assert (spans[0][1].start, spans[-1][1].stop) == (len(header.segment_zero()), len(RANGED))


@pytest.mark.parametrize(("first", "last"), [(-1, 0), (1, 0), (0, 5 * SMALL + 123), (5 * SMALL + 123, 5 * SMALL + 123), (-5, -1)])
def test_ranges_outside_the_plaintext_are_malformed(first: int, last: int) -> None:
    with pytest.raises(Malformed, match="there are no bytes"):
        segment_range(RANGED_DESCRIPTION.header, first, last)
    with pytest.raises(Malformed):
        SegmentOpener(RANGED_DESCRIPTION.header, KEY).open_range(first, last, b"")


def test_an_empty_plaintext_has_no_range_but_its_segment_opens() -> None:
    sealed, described = sealed_content(0)
    with pytest.raises(Malformed):
        segment_range(described.header, 0, 0)
    assert SegmentOpener(described.header, KEY).open_segment(1, pieces(sealed, described.header)[1]) == b""


@pytest.mark.parametrize("index", [-1, 0, 7, 2**32])
def test_there_is_no_segment_beyond_the_stream(index: int) -> None:
    with pytest.raises(Malformed, match="there is no segment"):
        SegmentOpener(RANGED_DESCRIPTION.header, KEY).open_segment(index, bytes(SMALL + TAG_BYTES))


def test_segments_and_ranges_of_another_length_are_malformed() -> None:
    opener = SegmentOpener(RANGED_DESCRIPTION.header, KEY)
    parts = pieces(RANGED, RANGED_DESCRIPTION.header)
    for part in (b"", parts[1][:-1], parts[1] + b"\x00", parts[6]):
        with pytest.raises(Malformed, match="bytes long"):
            opener.open_segment(1, part)
        with pytest.raises(Malformed, match="sealed bytes long"):
            opener.open_range(0, 9, part)


# --- headers ---

FIELDS: dict[str, Any] = {
    "suite": SUITE_AES_256_GCM,
    "segment_bytes": SMALL,
    "plaintext_bytes": 5,
    "record": RECORD,
    "commitment": bytes(32),
}


@pytest.mark.parametrize("plaintext_bytes", [0, 1, 2**16, SEGMENTS_MAX * SEGMENT_BYTES])
def test_headers_come_back_as_they_went(plaintext_bytes: int) -> None:
    header = StreamHeader(SUITE_AES_256_GCM, SEGMENT_BYTES, plaintext_bytes, RECORD, bytes(32))
    assert StreamHeader.decode(header.encode()) == header
    assert len(header.encode()) <= HEADER_BYTES_MAX
    assert header.content_segments <= SEGMENTS_MAX


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("suite", 0),
        ("suite", 2),
        ("suite", "1"),
        ("suite", True),
        ("segment_bytes", 0),
        ("segment_bytes", SMALL // 2),
        ("segment_bytes", SMALL + 1),
        ("segment_bytes", 3 * SMALL),
        ("segment_bytes", 2 * SEGMENT_BYTES),
        ("segment_bytes", -SMALL),
        ("segment_bytes", None),
        ("plaintext_bytes", -1),
        ("plaintext_bytes", SEGMENTS_MAX * SMALL + 1),
        ("plaintext_bytes", 2**64 - 1),
        ("plaintext_bytes", b"5"),
        ("record", RECORD[:-1]),
        ("record", RECORD + b"\x00"),
        ("record", "r" * 32),
        ("commitment", b""),
        ("commitment", bytes(33)),
        ("commitment", None),
    ],
)
def test_header_fields_out_of_bounds_are_malformed(name: str, value: Any) -> None:
    StreamHeader(**FIELDS)
    with pytest.raises(Malformed):
        StreamHeader(**{**FIELDS, name: value})
    with pytest.raises(Malformed):
        StreamHeader.decode(codec.encode(list({**FIELDS, name: value}.values())))


@pytest.mark.parametrize("count", [0, 1, 4, 6])
def test_headers_with_missing_or_more_fields_are_malformed(count: int) -> None:
    with pytest.raises(Malformed):
        StreamHeader.decode(codec.encode([*FIELDS.values(), 0][:count]))


@given(data=st.binary(max_size=200))
def test_hostile_header_bytes_are_malformed_and_nothing_else(data: bytes) -> None:
    with pytest.raises(Malformed):
        StreamHeader.decode(data)
    for source in (data, len(data).to_bytes(4, "big") + data):
        for read in (stream_root, lambda given: open_stream(given, KEY, bytes(32), io.BytesIO())):
            with pytest.raises(Malformed):
                read(io.BytesIO(source))


@given(data=st.data())
def test_altered_headers_are_malformed_or_another_header_but_never_open(data: st.DataObject) -> None:
    sealed, described = sealed_content(SMALL + 1)
    altered = bytearray(sealed)
    for _ in range(data.draw(st.integers(1, 3))):
        altered[data.draw(st.integers(0, len(described.header.segment_zero()) - 1))] = data.draw(st.integers(0, 255))
    if altered == sealed:
        return
    with pytest.raises(Malformed):
        opened(bytes(altered), described.root)


@settings(max_examples=30)
@given(length=st.integers(0, 200), key=st.binary(min_size=32, max_size=32), record=st.binary(min_size=32, max_size=32))
def test_whatever_is_sealed_opens(length: int, key: bytes, record: bytes) -> None:
    sealed, described = sealed_content(length * 97, key, record)
    assert opened(sealed, described.root, key) == content(length * 97)
    assert stream_root(io.BytesIO(sealed)) == described
