"""Saying on chain which ciphertext lies here: confirmations of custody, many in one transaction, at a bounded pace.

A hospital that registers a thousand records gives each of its replicas a thousand confirmations to make. One transaction for each costs
every node a signature, and one at a time costs every confirmation a block, also of a network that had nothing else to decide. So one
transaction is under way at a time, it takes up all that has gathered, and there is a pause between the beginnings of two. Knows no file
and no peer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from medchain.actions.records import confirm_custody
from medchain.errors import MedchainError, Rejected, Unavailable
from medchain.node.anchor import Anchor

CONFIRMED_TOGETHER: Final = 32
"""Confirmations of one transaction: about 4 ms of work in a block, which those who wait for that block pay for."""
ALREADY_CONFIRMED: Final = "records.custody-confirmed"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A version whose ciphertext lies here, and who waits for the chain to say so."""

    record: bytes
    version: int
    said: asyncio.Future[None]


class Confirmer:
    """Confirms custody for one hospital. `run` does the work; `confirm` may be called by many at once."""

    def __init__(self, anchor: Anchor, pause_ms: int) -> None:
        """`pause_ms`: least time between the beginnings of two transactions."""
        self._anchor = anchor
        self._pause_seconds = pause_ms / 1000
        self._wanted: deque[_Wanted] = deque()
        self._waker = asyncio.Event()

    async def confirm(self, record: bytes, version: int) -> None:
        """Return when the chain says that this hospital holds a version.

        Raises Rejected when the rule book refuses this confirmation, Unavailable when it was not decided in time (it may yet be).
        """
        wanted = _Wanted(record, version, asyncio.get_running_loop().create_future())
        self._wanted.append(wanted)
        self._waker.set()
        await wanted.said

    async def run(self) -> None:
        """Confirm what is wanted, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._waker.wait()
            began = loop.time()
            together = [self._wanted.popleft() for _ in range(min(CONFIRMED_TOGETHER, len(self._wanted)))]
            if not self._wanted:
                self._waker.clear()
            await self._settle([wanted for wanted in together if not wanted.said.done()])
            await asyncio.sleep(max(0.0, began + self._pause_seconds - loop.time()))

    async def _settle(self, together: list[_Wanted]) -> None:
        """Settle confirmations in one transaction; when one of them spoils it (a transaction is all or nothing), each in its own."""
        if not together:
            return
        try:
            await self._anchor.settle([confirm_custody(wanted.record, wanted.version) for wanted in together])
        except Rejected as refusal:
            if len(together) > 1:
                for wanted in together:
                    await self._settle([wanted])
            else:  # an earlier attempt may have been decided after all
                _tell(together, None if refusal.code == ALREADY_CONFIRMED else refusal)
        except Unavailable as error:
            _tell(together, error)
        else:
            _tell(together, None)


def _tell(waiting: Iterable[_Wanted], error: MedchainError | None) -> None:
    for wanted in waiting:
        if not wanted.said.done():  # whoever waited may have been stopped
            if error is None:
                wanted.said.set_result(None)
            else:
                wanted.said.set_exception(error)
