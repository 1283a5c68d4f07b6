"""A hospital's gateway: transactions of many sources, collected for a few milliseconds and signed together.

One signature serves up to 64 transactions, so the network verifies a small part of what it would otherwise (protocol.md, "Nouns", batch
signature; verification is most of a transaction's cost). Each transaction still stands for itself: accepted, refused, decided and proven
alone. Knows no operation's meaning; what was handed in once is handed in again only with the same bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from medchain.chain import limits
from medchain.chain.transaction import BATCH_PATH_MAX, Operation, Transaction, TransactionBody
from medchain.client.node import DECIDED, raise_error
from medchain.client.wallet import RUN_TIMEOUT_MS, Outcome, Wallet
from medchain.errors import Malformed, MedchainError, Unavailable

COLLECT_MS: Final = 5
"""How long the first of a batch waits for others: less than the time between two blocks by far."""
WAITING_MAX: Final = 4_096
"""Transactions not yet answered by the node: two full blocks. Whoever has more is told to come later."""
HAND_IN_MS: Final = 30_000
RETRY_MS: Final = 250
RETRY_MS_MAX: Final = 2_000
HEIGHT_AGE_SECONDS: Final = 1.0
"""How old the height may be from which a valid-until is counted; half the expiry window is minutes at least."""
_ROOM_BYTES: Final = limits.SIGNATURE_BYTES + 34 * BATCH_PATH_MAX + 64
"""What a batch signature and the wrapping add to a body, at most."""


@dataclass(slots=True)
class _Waiting:
    body: TransactionBody
    answer: asyncio.Future[Transaction]


class Gateway:
    """One key at one node, for many tasks of one event loop at once. An async context manager; leaving it hands in what waits."""

    def __init__(self, wallet: Wallet, *, collect_ms: int = COLLECT_MS, batch_max: int = limits.BATCH_SIGNATURE_IDS_MAX) -> None:
        """Collect for at most `collect_ms`, and sign at most `batch_max` (1 to 64) together; 1 signs each alone."""
        if not 1 <= batch_max <= limits.BATCH_SIGNATURE_IDS_MAX or collect_ms < 0:
            raise Malformed(f"a gateway signs 1 to {limits.BATCH_SIGNATURE_IDS_MAX} transactions together, after 0 milliseconds or more")
        self._wallet = wallet
        self._collect_seconds = collect_ms / 1_000
        self._batch_max = batch_max
        self._waiting: list[_Waiting] = []
        self._unanswered = 0
        self._timer: asyncio.TimerHandle | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self._asking = asyncio.Lock()
        self._valid_until = 0
        self._valid_until_made = -HEIGHT_AGE_SECONDS

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Hand in what waits, and return when everything was answered."""
        self._flush()
        while ending := tuple(self._under_way):
            await asyncio.gather(*ending)
            self._under_way.difference_update(ending)  # since Python 3.12 gather of what has ended does not let anybody else do it

    async def submit(self, operations: Sequence[Operation]) -> Transaction:
        """Do the operations, all or none: return the signed transaction once the node has it durably.

        Raises Rejected when the node refuses it, Unavailable when it was not taken for 30 seconds or too many wait, Malformed when it
        breaks a bound. Cancelling the caller does not take back what is on its way.
        """
        if self._unanswered >= WAITING_MAX:
            raise Unavailable("too many transactions wait for the node: come again when some were answered", RETRY_MS)
        self._unanswered += 1
        try:
            body = await self._body(operations)
            waiting = _Waiting(body, asyncio.get_running_loop().create_future())
            self._collect(waiting)
            return await waiting.answer
        finally:
            self._unanswered -= 1

    async def run(self, operations: Sequence[Operation], *, timeout_ms: int = RUN_TIMEOUT_MS) -> Outcome:
        """Submit and come back with what the network decided, proven; like `Wallet.run`."""
        return await self._wallet.send(await self.submit(operations), timeout_ms=timeout_ms)

    # ---- collecting ----------------------------------------------------------------------------------------------------------

    async def _body(self, operations: Sequence[Operation]) -> TransactionBody:
        """Return the body, read back as others will read it: what is malformed fails here, alone."""
        async with self._asking:  # those who come together ask the node once
            now = time.monotonic()
            if now - self._valid_until_made >= HEIGHT_AGE_SECONDS:
                self._valid_until, self._valid_until_made = await self._wallet.valid_until(), now
        return TransactionBody.decode((await self._wallet.body(operations, self._valid_until)).encode())

    def _collect(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        if len(self._waiting) >= self._batch_max:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._collect_seconds, self._flush)

    def _flush(self) -> None:
        """Begin to hand in what was collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting = self._waiting, []
        if batch:
            task = asyncio.get_running_loop().create_task(self._hand_in(batch), name="hand in a batch")
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    # ---- handing in ----------------------------------------------------------------------------------------------------------

    async def _hand_in(self, batch: list[_Waiting]) -> None:
        """Sign a batch, submit it until each of it is answered or the time is over, and tell those who wait."""
        try:
            open_ones = list(zip(await self._sign([waiting.body for waiting in batch]), batch, strict=True))
        except MedchainError as error:
            for waiting in batch:
                _fail(waiting, error)
            return
        deadline, pause_ms = time.monotonic() + HAND_IN_MS / 1_000, RETRY_MS
        while open_ones:
            open_ones, later = await self._submit(open_ones)
            if later is not None:
                pause_ms = min(max(later.retry_after_ms, pause_ms), RETRY_MS_MAX)
                if time.monotonic() + pause_ms / 1_000 >= deadline:
                    for _, waiting in open_ones:
                        _fail(waiting, later)
                    return
                await asyncio.sleep(pause_ms / 1_000)
                pause_ms *= 2

    async def _sign(self, bodies: Sequence[TransactionBody]) -> list[Transaction]:
        """Sign what has room for a path together, the rest one by one; in the order given."""
        network, key = (await self._wallet.client.facts()).network, self._wallet.identity.signing
        small = [place for place, body in enumerate(bodies) if len(body.encode()) + _ROOM_BYTES <= limits.TRANSACTION_BYTES_MAX]
        signed: dict[int, Transaction] = {}
        if len(small) > 1:
            signed = dict(zip(small, Transaction.sign_batch([bodies[place] for place in small], key, network), strict=True))
        return [signed.get(place) or Transaction.sign(body, key, network) for place, body in enumerate(bodies)]

    async def _submit(
        self, open_ones: list[tuple[Transaction, _Waiting]]
    ) -> tuple[list[tuple[Transaction, _Waiting]], Unavailable | None]:
        """Hand in once; return those to hand in again and why."""
        try:
            answer = await self._wallet.client.call("tx.submit_batch", transactions=[transaction.raw for transaction, _ in open_ones])
            rows = _rows_of(answer, len(open_ones))
        except Unavailable as later:
            return open_ones, later
        except MedchainError as error:
            for _, waiting in open_ones:
                _fail(waiting, error)
            return [], None
        again: list[tuple[Transaction, _Waiting]] = []
        reason: Unavailable | None = None
        for (transaction, waiting), row in zip(open_ones, rows, strict=True):
            if row.get("result") in ("accepted", "duplicate") or row.get("code") == DECIDED:
                if not waiting.answer.done():
                    waiting.answer.set_result(transaction)
                continue
            try:
                raise_error({"code": row.get("code"), "message": row.get("message"), "retry_after_ms": row.get("retry_after_ms")})
            except Unavailable as later:
                again.append((transaction, waiting))
                reason = later
            except MedchainError as refusal:
                _fail(waiting, refusal)
        return again, reason


def _fail(waiting: _Waiting, error: MedchainError) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)


def _rows_of(answer: Any, count: int) -> list[dict[str, Any]]:
    """Return the rows of a submission's answer. Raises Malformed for anything that is not one row for each."""
    rows = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(rows, list) or len(rows) != count or not all(isinstance(row, dict) for row in rows):
        raise Malformed("the node's answer to a batch is none: node and client may be of different versions")
    return rows
