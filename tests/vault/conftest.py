"""Real files, real sealing: sealed blobs of a fixed record, and a vault in a temporary folder."""

from __future__ import annotations

import io
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from medchain.crypto.streams import SealedStream, seal_stream
from medchain.vault.blobs import BlobLimits, BlobStore

RECORD = sha256(b"record").digest()


@dataclass(frozen=True)
class Blob:
    """A sealed stream with what it was sealed from."""

    plaintext: bytes
    key: bytes
    sealed: bytes
    stream: SealedStream

    @property
    def root(self) -> bytes:
        return self.stream.root

    async def chunks(self, first: int = 0, stop: int | None = None, size: int = 10_000):
        """The sealed bytes from `first` to before `stop`, in pieces."""
        wanted = self.sealed[first:stop]
        for start in range(0, len(wanted), size):
            yield wanted[start : start + size]


def seal_blob(name: str, length: int, *, record: bytes = RECORD, segment_bytes: int = 4096) -> Blob:
    """A blob whose content and key depend on its name only; many small segments."""
    key = sha256(b"data key " + name.encode()).digest()
    plaintext = (sha256(name.encode()).digest() * (length // 32 + 1))[:length]
    sink = io.BytesIO()
    stream = seal_stream(io.BytesIO(plaintext), length, key, record, sink, segment_bytes=segment_bytes)
    return Blob(plaintext, key, sink.getvalue(), stream)


@pytest.fixture
def make_blob():
    return seal_blob


@pytest.fixture(scope="session")
def blob() -> Blob:
    return seal_blob("one", 100_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "vault"


@pytest.fixture
def store(folder: Path) -> BlobStore:
    return BlobStore(folder, BlobLimits(bytes_max=10_000_000, disk_free_bytes_min=0))
