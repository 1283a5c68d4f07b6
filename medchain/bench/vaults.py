"""One sealed record in every vault: what all records of a load refer to.

Hospitals bring every registered record that they are to hold into their vaults, and go on asking for one that nobody has. A load that
registers thousands a second cannot bring thousands of files; so each of its records is this one, which everybody holds already. Knows no
network and no load.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Final

from medchain.crypto.hashing import tagged_digest
from medchain.crypto.streams import SealedStream, seal_stream
from medchain.vault.blobs import BlobStore

CONTENT: Final = bytes(10_000)


def shared_record() -> tuple[SealedStream, bytes]:
    """Return the description and the bytes of the sealed record: always the same ones, for its key is no secret."""
    sink = io.BytesIO()
    key, record = tagged_digest("medchain/bench/key", b""), tagged_digest("medchain/bench/record", b"")
    return seal_stream(io.BytesIO(CONTENT), len(CONTENT), key, record, sink), sink.getvalue()


def fill_vaults(folders: Iterable[Path]) -> None:
    """Put the sealed record into vaults whose nodes do not run yet."""
    sealed, data = shared_record()

    async def bytes_of() -> AsyncIterator[bytes]:
        yield data

    async def fill() -> None:
        for folder in folders:
            store = BlobStore(folder)
            if not store.has(sealed.root):
                await store.write_range(sealed.root, 0, bytes_of(), total=len(data))
                await store.finish(sealed.root)

    asyncio.run(fill())
