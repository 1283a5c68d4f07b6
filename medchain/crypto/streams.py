"""Sealed streams: large content under one data key, in segments that open, verify and travel one by one.

The construction is STREAM (Hoang, Reyhanitabar, Rogaway and Vizar, "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance", CRYPTO 2015, section 7) over AES-256-GCM, with a key commitment and a Merkle root over the sealed segments (ledger.md,
"Sealing and sharing", point 1).

    segment 0      u32 big endian length || header (public: suite, sizes, record, key commitment)
    segment 1..k   AES-256-GCM(nonce = 7-byte prefix || u32 big endian index || last flag, associated data = segment 0) of the next piece
    of plaintext

Each segment is a leaf of the Merkle tree "medchain/stream"; the root is what the chain anchors. Encryption key, nonce prefix and
commitment are derived from the data key and the record id. An empty plaintext has one empty last segment, so truncation never looks like
an end.

This module reads and writes binary streams that it is given; it must not know files, vaults, permits or who holds a key. The streams must
block, and a sink must have consumed or copied what it was given when `write` returns. `workers` threads seal, open and hash; the result
does not depend on them.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import BinaryIO, Final, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from medchain import codec
from medchain.crypto.hashing import DIGEST_BYTES, hkdf_sha256
from medchain.crypto.merkle import MerkleTree, leaf_digest
from medchain.errors import InvariantBroken, Malformed, Rejected

SUITE_AES_256_GCM: Final = 1
"""The only suite: AES-256-GCM segments, HKDF-SHA256 derivation, SHA-256 Merkle root."""
SEGMENT_BYTES: Final = 1024 * 1024
"""Plaintext bytes a segment, unless the sealer chooses less. Also the most: it bounds the memory of everyone who opens or checks a
stream."""
SEGMENT_BYTES_MIN: Final = 4096
"""Smallest segment: below, tags and leaf digests weigh more than one percent of the content."""
SEGMENTS_MAX: Final = 65_536
"""Most content segments: 64 GiB at 1 MiB, beyond any single study or genome, and the leaf digests still fit into a few MB of memory."""
TAG_BYTES: Final = 16
"""What AES-256-GCM adds to each segment."""
KEY_BYTES: Final = 32
"""Length of a data key."""
HEADER_BYTES_MAX: Final = 128
"""Longest encoded header; the largest field values make 85 bytes."""
LENGTH_BYTES: Final = 4
"""The length in front of the header."""
WORKERS_MAX: Final = 64
"""Most threads one call may start; each holds about 4 MiB of buffers."""
MERKLE_TAG: Final = "medchain/stream"
"""Tag of the tree over the sealed segments."""

REFUSALS: Final[dict[str, str]] = {
    "stream.too-large": "The content is larger than one stream may be; split it.",
    "stream.source-changed": "The content is not as long as announced: it changed while it was sealed; seal it again under a fresh key.",
}

Progress = Callable[[int], None]
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """What anyone may know about a sealed stream, and what every segment is bound to. A header that exists is valid; the constructor
    raises Malformed."""

    suite: int
    """SUITE_AES_256_GCM."""
    segment_bytes: int
    """Plaintext bytes of each segment but the last: a power of two from SEGMENT_BYTES_MIN to SEGMENT_BYTES."""
    plaintext_bytes: int
    """Length of the whole plaintext."""
    record: bytes
    """Id of the record the content belongs to, 32 bytes; bound into the keys."""
    commitment: bytes
    """HKDF of data key and record, 32 bytes: only one data key fits (AES-GCM alone does not bind its key)."""

    def __post_init__(self) -> None:
        if codec.as_uint(self.suite, "the stream suite") != SUITE_AES_256_GCM:
            raise Malformed(f"stream suite {self.suite} is unknown; this version knows 1 (AES-256-GCM)")
        size = codec.as_uint(self.segment_bytes, "the segment size", SEGMENT_BYTES)
        if size < SEGMENT_BYTES_MIN or size & (size - 1):
            raise Malformed(f"the segment size must be a power of two from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES}")
        codec.as_uint(self.plaintext_bytes, "the plaintext size", SEGMENTS_MAX * size)
        codec.as_bytes(self.record, "the record id", length=DIGEST_BYTES)
        codec.as_bytes(self.commitment, "the key commitment", length=DIGEST_BYTES)

    def encode(self) -> bytes:
        """Return the canonical bytes of the header."""
        return codec.encode([self.suite, self.segment_bytes, self.plaintext_bytes, self.record, self.commitment])

    @classmethod
    def decode(cls, data: bytes) -> StreamHeader:
        """Return the header of canonical bytes. Raises Malformed."""
        fields = codec.as_fields(codec.decode(data, bytes_max=HEADER_BYTES_MAX, depth_max=1, items_max=8), 5, "a stream header")
        return cls(*fields)

    def segment_zero(self) -> bytes:
        """Return the header as it stands in front of the sealed stream, with its length: leaf 0, and the associated data of every
        segment."""
        encoded = self.encode()
        return len(encoded).to_bytes(LENGTH_BYTES, "big") + encoded

    @property
    def content_segments(self) -> int:
        """Number of segments after the header: at least one."""
        return max(1, -(-self.plaintext_bytes // self.segment_bytes))

    @property
    def sealed_bytes(self) -> int:
        """Length of the whole sealed stream."""
        return len(self.segment_zero()) + self.plaintext_bytes + TAG_BYTES * self.content_segments

    def plaintext_length(self, index: int) -> int:
        """Return how many plaintext bytes segment `index` holds, 1 being the first. Raises Malformed when there is no such segment."""
        if not 1 <= index <= self.content_segments:
            raise Malformed(f"there is no segment {index}; the stream has segments 1 to {self.content_segments}")
        if index < self.content_segments:
            return self.segment_bytes
        return self.plaintext_bytes - self.segment_bytes * (index - 1)


@dataclass(frozen=True, slots=True)
class SealedStream:
    """The description of a sealed stream; everything in it may be public."""

    root: bytes
    """Merkle root over all segments, the header included: what the chain anchors."""
    segment_count: int
    """Number of segments, the header included."""
    sealed_bytes: int
    plaintext_bytes: int
    header: StreamHeader
    leaf_digests: tuple[bytes, ...] = field(repr=False)
    """Leaf digest of each segment, to locate damage and to prove ranges (`MerkleTree(MERKLE_TAG, leaf_digests)`)."""


class SegmentOpener:
    """Opens single segments of one stream, in any order. The key commitment is checked here, before any segment is touched.

    A segment that opens was sealed under this data key for this place of this header; that it is the one under the root on the chain,
    only the Merkle path shows (`merkle.verify_range` over the sealed segments).
    """

    __slots__ = ("_cipher", "_prefix", "_segment_zero", "header")

    header: StreamHeader

    def __init__(self, header: StreamHeader, data_key: bytes) -> None:
        """Raises Malformed when `data_key` is not the key that the header commits to."""
        if len(data_key) != KEY_BYTES:
            raise Malformed(f"a data key is {KEY_BYTES} bytes long")
        if _derive(data_key, "commit", header.record, DIGEST_BYTES) != header.commitment:
            raise Malformed("the data key is not the one this stream commits to: wrong key, or a header of another record")
        self.header = header
        self._segment_zero = header.segment_zero()
        self._cipher = AESGCM(_derive(data_key, "key", header.record, KEY_BYTES))
        self._prefix = _derive(data_key, "nonce", header.record, 7)

    def nonce(self, index: int) -> bytes:
        """Return the nonce of segment `index`: prefix, position and whether it is the last (STREAM, figure 9)."""
        return self._prefix + index.to_bytes(4, "big") + (b"\x01" if index == self.header.content_segments else b"\x00")

    def open_segment(self, index: int, sealed: bytes) -> bytes:
        """Return the plaintext of segment `index` (1 is the first after the header). Raises Malformed naming the segment when it does not
        open."""
        if len(sealed) != self.header.plaintext_length(index) + TAG_BYTES:
            raise Malformed(f"segment {index} is {len(sealed)} bytes long, not {self.header.plaintext_length(index) + TAG_BYTES}")
        try:
            return self._cipher.decrypt(self.nonce(index), sealed, self._segment_zero)
        except InvalidTag:
            raise _damaged(index, self.header) from None

    def open_range(self, first: int, last: int, sealed: bytes) -> bytes:
        """Return plaintext bytes `first` to `last`, both included; `sealed` are the sealed bytes that `segment_range` named for them.

        Raises Malformed when there is no such range, `sealed` has another length, or a segment does not open.
        """
        segments, offsets = segment_range(self.header, first, last)
        if len(sealed) != len(offsets):
            raise Malformed(f"the range is {len(offsets)} sealed bytes long, not {len(sealed)}")
        step = self.header.segment_bytes + TAG_BYTES
        pieces = [self.open_segment(index, sealed[place * step : (place + 1) * step]) for place, index in enumerate(segments)]
        skipped = (segments.start - 1) * self.header.segment_bytes
        return b"".join(pieces)[first - skipped : last + 1 - skipped]

    def seal_into(self, index: int, plaintext: memoryview, sealed: memoryview) -> None:
        """Seal one segment into a buffer of its sealed length. Only `seal_stream` calls it: a second plaintext for an index would break
        the cipher."""
        self._cipher.encrypt_into(self.nonce(index), plaintext, self._segment_zero, sealed)

    def open_into(self, index: int, sealed: memoryview, plaintext: memoryview) -> None:
        """Open one segment into a buffer of its plaintext length. Raises Malformed naming the segment when it does not open."""
        try:
            self._cipher.decrypt_into(self.nonce(index), sealed, self._segment_zero, plaintext)
        except InvalidTag:
            raise _damaged(index, self.header) from None


def generate_data_key() -> bytes:
    """Return a fresh data key from the system's source of randomness: one for each call of `seal_stream`, never reused."""
    return secrets.token_bytes(KEY_BYTES)


def seal_stream(
    source: BinaryIO,
    plaintext_bytes: int,
    data_key: bytes,
    record: bytes,
    sink: BinaryIO,
    progress: Progress | None = None,
    *,
    segment_bytes: int = SEGMENT_BYTES,
    workers: int = 1,
) -> SealedStream:
    """Seal `plaintext_bytes` bytes of `source` into `sink` and return the description with the root; memory does not grow with the length.

    Misuse to beware of: `data_key` must be fresh for every call (`generate_data_key`). Sealing two different contents under one data key
    and one record id uses nonces twice, which reveals both contents and lets anyone forge segments; nothing here can notice it. A stream
    that was sealed once is stored and sent again as it is, never sealed again.

    `record` is the 32-byte record id; `progress` is told the plaintext bytes done, after each segment, in the calling thread.
    Raises Rejected `stream.too-large`, or `stream.source-changed` when the source ends early or goes on; then the sink must be thrown away.
    Raises InvariantBroken for a key, record id, segment size or number of workers that is none.
    """
    header = _header_for(plaintext_bytes, data_key, record, segment_bytes)
    opener = SegmentOpener(header, data_key)
    slots = _slots(header, workers)

    def read() -> Iterator[tuple[int, memoryview, memoryview]]:
        for index in range(1, header.content_segments + 1):
            length = header.plaintext_length(index)
            plaintext, sealed = slots[index % len(slots)]
            if _read_into(source, plaintext[:length]) != length:
                raise _source_changed()
            yield index, plaintext[:length], sealed[: length + TAG_BYTES]
        if _read_into(source, memoryview(bytearray(1))):
            raise _source_changed()

    def work(job: tuple[int, memoryview, memoryview]) -> tuple[bytes, memoryview]:
        index, plaintext, sealed = job
        opener.seal_into(index, plaintext, sealed)
        return _leaf(sealed), sealed

    digests = [_leaf(header.segment_zero())]
    _write(sink, memoryview(header.segment_zero()))
    done = 0
    with closing(_in_order(read(), work, workers)) as results:
        for digest, sealed in results:
            digests.append(digest)
            _write(sink, sealed)
            done += len(sealed) - TAG_BYTES
            if progress is not None:
                progress(done)
    return _describe(header, digests)


def stream_root(source: BinaryIO, progress: Progress | None = None, *, workers: int = 1) -> SealedStream:
    """Return the description of the sealed bytes in `source`, read to its end, without any key: how a vault checks an upload against the
    chain.

    Only the shape and the root are found; a stream of rubbish with a good header has a root too, so compare it with the one that is
    anchored. `progress` is told the plaintext bytes covered so far. Raises Malformed when the header is damaged, the bytes end early or
    go on after the last segment.
    """
    header = _read_header(source)
    slots = _slots(header, workers)

    def work(job: tuple[int, memoryview, memoryview]) -> bytes:
        return _leaf(job[1])

    digests = [_leaf(header.segment_zero())]
    with closing(_in_order(_read_sealed(source, header, slots), work, workers)) as results:
        for digest in results:
            digests.append(digest)
            if progress is not None:
                progress(min((len(digests) - 1) * header.segment_bytes, header.plaintext_bytes))
    return _describe(header, digests)


def open_stream(
    source: BinaryIO,
    data_key: bytes,
    root: bytes,
    sink: BinaryIO,
    progress: Progress | None = None,
    *,
    leaf_digests: Sequence[bytes] | None = None,
    workers: int = 1,
) -> StreamHeader:
    """Open the sealed bytes of `source` into `sink` and return the header; `root` is the root anchored on the chain. Memory does not grow.

    Checked in this order: shape of the header, key commitment, then each segment, the end of the source, and at last the root. Until this
    returns, the sink holds plaintext that a holder of the data key could have made up: on any error throw it away. With `leaf_digests`
    (checked against `root` first) each segment is proven to be the anchored one before it is opened, and damage is named even where it is
    in the header. Raises Malformed: its message names the damaged segment, or says that the key is the wrong one (nothing was decrypted
    then).
    """
    if leaf_digests is not None:
        _check_leaf_digests(leaf_digests, root)
    header = _read_header(source)
    segment_zero = _leaf(header.segment_zero())
    if leaf_digests is not None and segment_zero != leaf_digests[0]:
        raise Malformed("segment 0, the header, is damaged or of another stream; fetch the stream again")
    if leaf_digests is not None and len(leaf_digests) != header.content_segments + 1:
        raise Malformed(f"the stream has {header.content_segments + 1} segments, but {len(leaf_digests)} leaf digests were given")
    opener = SegmentOpener(header, data_key)
    slots = _slots(header, workers)

    def work(job: tuple[int, memoryview, memoryview]) -> tuple[bytes, memoryview]:
        index, sealed, plaintext = job
        digest = _leaf(sealed)
        if leaf_digests is not None and digest != leaf_digests[index]:
            raise _damaged(index, header)
        opener.open_into(index, sealed, plaintext)
        return digest, plaintext

    digests = [segment_zero]
    done = 0
    with closing(_in_order(_read_sealed(source, header, slots), work, workers)) as results:
        for digest, plaintext in results:
            digests.append(digest)
            _write(sink, plaintext)
            done += len(plaintext)
            if progress is not None:
                progress(done)
    if MerkleTree(MERKLE_TAG, digests).root != root:
        raise Malformed(
            "every segment opens, but the root is not the expected one: this is not the stream that was anchored; discard what was opened"
        )
    return header


def segment_range(header: StreamHeader, first_plaintext_byte: int, last: int) -> tuple[range, range]:
    """Return which segments hold plaintext bytes `first_plaintext_byte` to `last`, both included, and where their sealed bytes stand in
    the stream.

    The first range are segment indexes (1 is the first after the header), the second byte offsets of the sealed stream: `offsets.start` to
    `offsets.stop` - 1, the form of an HTTP range request. `SegmentOpener.open_range` takes those bytes. Raises Malformed when there is no
    such range.
    """
    if not 0 <= first_plaintext_byte <= last < header.plaintext_bytes:
        raise Malformed(f"there are no bytes {first_plaintext_byte} to {last} in a plaintext of {header.plaintext_bytes} bytes")
    segments = range(first_plaintext_byte // header.segment_bytes + 1, last // header.segment_bytes + 2)
    step = header.segment_bytes + TAG_BYTES
    start = len(header.segment_zero())
    return segments, range(start + (segments.start - 1) * step, min(start + (segments.stop - 1) * step, header.sealed_bytes))


def damaged_segments(source: BinaryIO, known: SealedStream) -> tuple[int, ...]:
    """Return the indexes of the segments of `source` that differ from the stream `known`, 0 being the header: what a replica must fetch
    again.

    Needs no key. A source that ends early lacks all segments from there on; bytes after the end count as the segment `known.segment_count`.
    Raises InvariantBroken when the leaf digests of `known` are not those of its root.
    """
    if MerkleTree(MERKLE_TAG, known.leaf_digests).root != known.root:
        raise InvariantBroken("the leaf digests of a known stream do not make its root")
    header = known.header
    buffer = memoryview(bytearray(header.segment_bytes + TAG_BYTES))
    lengths = [len(header.segment_zero())]
    lengths += [header.plaintext_length(index) + TAG_BYTES for index in range(1, known.segment_count)]
    damaged: list[int] = []
    for index, length in enumerate(lengths):
        view = buffer[:length]
        if _read_into(source, view) != length or _leaf(view) != known.leaf_digests[index]:
            damaged.append(index)
    if _read_into(source, buffer[:1]):
        damaged.append(known.segment_count)
    return tuple(damaged)


def _derive(data_key: bytes, use: str, record: bytes, length_bytes: int) -> bytes:
    """Derive one of the three values of a stream from its data key; the record id is bound, so one key under two records never shares a
    nonce."""
    return hkdf_sha256(data_key, salt=b"", info=f"medchain/stream/{use}".encode() + record, length_bytes=length_bytes)


def _header_for(plaintext_bytes: int, data_key: bytes, record: bytes, segment_bytes: int) -> StreamHeader:
    """Make the header of a new stream from our own caller's values."""
    if len(data_key) != KEY_BYTES or plaintext_bytes < 0:
        raise InvariantBroken(f"a data key is {KEY_BYTES} bytes long and a length is not negative")
    if plaintext_bytes > SEGMENTS_MAX * segment_bytes:
        raise Rejected("stream.too-large", f"the content has {plaintext_bytes} bytes, at most {SEGMENTS_MAX * segment_bytes} fit; split it")
    try:
        return StreamHeader(SUITE_AES_256_GCM, segment_bytes, plaintext_bytes, record, _derive(data_key, "commit", record, DIGEST_BYTES))
    except Malformed as error:
        raise InvariantBroken(f"a stream cannot be sealed like this: {error.message}") from error


def _read_header(source: BinaryIO) -> StreamHeader:
    """Read segment 0."""
    length = memoryview(bytearray(LENGTH_BYTES))
    if _read_into(source, length) != LENGTH_BYTES:
        raise Malformed("the sealed stream ends within its header")
    count = int.from_bytes(length, "big")
    if count > HEADER_BYTES_MAX:
        raise Malformed(f"a stream header of {count} bytes is longer than {HEADER_BYTES_MAX}; these bytes are not a sealed stream")
    encoded = memoryview(bytearray(count))
    if _read_into(source, encoded) != count:
        raise Malformed("the sealed stream ends within its header")
    return StreamHeader.decode(bytes(encoded))


def _read_sealed(
    source: BinaryIO, header: StreamHeader, slots: Sequence[tuple[memoryview, memoryview]]
) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield each sealed segment (index, sealed bytes, room for its plaintext) and check that the source ends after the last."""
    for index in range(1, header.content_segments + 1):
        length = header.plaintext_length(index)
        plaintext, sealed = slots[index % len(slots)]
        count = _read_into(source, sealed[: length + TAG_BYTES])
        if count != length + TAG_BYTES:
            raise Malformed(f"the sealed stream ends within segment {index} of {header.content_segments}; fetch the rest")
        yield index, sealed[: length + TAG_BYTES], plaintext[:length]
    if _read_into(source, memoryview(bytearray(1))):
        raise Malformed(f"the sealed stream goes on after its last segment, {header.content_segments}")


def _slots(header: StreamHeader, workers: int) -> list[tuple[memoryview, memoryview]]:
    """Return the buffers of one call, (plaintext, sealed) for every segment in flight; they are used in turn."""
    if not 1 <= workers <= WORKERS_MAX:
        raise InvariantBroken(f"the number of workers must be from 1 to {WORKERS_MAX}")
    size = min(header.segment_bytes, header.plaintext_bytes)
    return [(memoryview(bytearray(size)), memoryview(bytearray(size + TAG_BYTES))) for _ in range(_in_flight(workers))]


def _in_flight(workers: int) -> int:
    """Segments that are read, worked on or written at once: one while there are no threads, else enough to keep each thread busy."""
    return 1 if workers == 1 else workers + 2


def _in_order(jobs: Iterator[_Job], work: Callable[[_Job], _Result], workers: int) -> Generator[_Result, None, None]:
    """Yield `work(job)` for each job in order, with at most `_in_flight(workers)` between being read and the caller asking for the next."""
    if workers == 1:
        yield from map(work, jobs)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="stream") as pool:
        pending: deque[Future[_Result]] = deque()
        try:
            for job in jobs:
                pending.append(pool.submit(work, job))
                if len(pending) == _in_flight(workers):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _read_into(source: BinaryIO, view: memoryview) -> int:
    """Fill `view` from `source` as far as it goes; return the number of bytes read, less than the view only at the end of the source."""
    filled = 0
    read_into = getattr(source, "readinto", None)
    while filled < len(view):
        if read_into is not None:
            count = read_into(view[filled:]) or 0
        else:
            piece = source.read(len(view) - filled)
            count = len(piece)
            view[filled : filled + count] = piece
        if count == 0:
            break
        filled += count
    return filled


def _write(sink: BinaryIO, view: memoryview) -> None:
    """Write the whole view; an unbuffered sink may take it in pieces."""
    while len(view):
        count = sink.write(view)
        if not count:
            raise InvariantBroken("a sink must block, and say how many bytes it took")
        view = view[count:]


def _leaf(sealed: bytes | memoryview) -> bytes:
    return leaf_digest(MERKLE_TAG, sealed)


def _describe(header: StreamHeader, digests: Sequence[bytes]) -> SealedStream:
    root = MerkleTree(MERKLE_TAG, digests).root
    return SealedStream(root, len(digests), header.sealed_bytes, header.plaintext_bytes, header, tuple(digests))


def _check_leaf_digests(leaf_digests: Sequence[bytes], root: bytes) -> None:
    """Raise Malformed unless these are the leaf digests under `root`."""
    if any(type(digest) is not bytes or len(digest) != DIGEST_BYTES for digest in leaf_digests):
        raise Malformed(f"a leaf digest is {DIGEST_BYTES} bytes long")
    if not 2 <= len(leaf_digests) <= SEGMENTS_MAX + 1 or MerkleTree(MERKLE_TAG, leaf_digests).root != root:
        raise Malformed("the leaf digests are not those of the expected root; ask another holder for them")


def _damaged(index: int, header: StreamHeader) -> Malformed:
    return Malformed(f"segment {index} of {header.content_segments} is damaged or out of place; fetch it again")


def _source_changed() -> Rejected:
    return Rejected("stream.source-changed", REFUSALS["stream.source-changed"])
