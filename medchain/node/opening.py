"""The custodian's keys at work: which epoch may seal, a data key under it, and back again.

An epoch's key is durable before its check value goes on chain, so a crash in between loses nothing that anybody relies on. Sealing never
uses an epoch older than the last revocation (ledger.md, "Sealing and sharing", 3). Keys stay inside the calls; nothing here is logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Final

from medchain.actions.records import open_interim_epoch
from medchain.chain.transaction import Operation
from medchain.errors import Rejected
from medchain.node.anchor import Anchor, RecordVersion
from medchain.vault.wraps import EpochKey, WrapStore

REFUSALS: Final[dict[str, str]] = {
    "custody.key-missing": "The custodian does not hold the key that the chain names for this version.",
}


class Turns:
    """One at a time for each key: those who come meanwhile wait in order."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, key: Hashable) -> AsyncIterator[None]:
        """Wait for the turn of `key` and hold it within the block."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)


class Opening:
    """Epoch keys and wraps of one custodian."""

    def __init__(self, anchor: Anchor, wraps: WrapStore) -> None:
        self._anchor = anchor
        self._wraps = wraps

    async def sealing_epoch(self, pseudonym: bytes, category: str) -> tuple[EpochKey, Operation | None]:
        """Return the epoch to seal under now, and the operation that must open it on chain first; its key is durable already.

        A new one is opened when there is none, when a revocation came after the newest, or when this hospital does not hold the newest
        one's key. Raises Malformed when a stored key is damaged, Unavailable and Rejected vault.disk-low when none can be written.
        """
        head = await self._anchor.epoch_head(pseudonym, category)
        number = head["number"]
        if number >= max(1, head["floor"]):
            present = await asyncio.to_thread(self._wraps.epoch_key, pseudonym, category, number)
            if present is not None and present.is_of(self._anchor.network, head["check_value"]):
                return present, None
        fresh = await asyncio.to_thread(self._wraps.make_epoch_key, pseudonym, category, number + 1)
        check_value = fresh.check_value(self._anchor.network)
        return fresh, open_interim_epoch(pseudonym, category, number + 1, check_value)

    async def wrap(self, epoch: EpochKey, record: bytes, version: int, data_key: bytes) -> bytes:
        """Store a data key under an epoch and return the wrap digest for the chain; durable when this returns."""
        return await asyncio.to_thread(self._wraps.put_wrap, epoch, record, version, data_key)

    async def data_key(self, version: RecordVersion) -> bytes:
        """Return the data key of a version. Raises Rejected custody.key-missing; Malformed when what is stored is damaged."""
        wrap = await asyncio.to_thread(self._wraps.wrap, version.record, version.version, version.wrap_digest)
        epoch = await asyncio.to_thread(self._wraps.epoch_key, version.pseudonym, version.category, version.epoch)
        if wrap is None or epoch is None:
            raise Rejected(
                "custody.key-missing",
                "the custodian does not hold the key of this version: its operator has to restore the vault's folder from a backup",
            )
        return self._wraps.data_key(epoch, wrap)

    async def has_wrap(self, version: RecordVersion) -> bool:
        """Answer whether the wrap that the chain anchors is stored here."""
        return await asyncio.to_thread(self._wraps.wrap, version.record, version.version, version.wrap_digest) is not None
