"""The desk for local clients: questions get a number, go into the inbox, and their answers find the way back.

Also waiting for transactions to end, and telling of decided blocks; all of it bounded. This module knows no HTTP and no rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from medchain.chain.transaction import Transaction
from medchain.engine.ready import (
    Accepted,
    Alarm,
    Answered,
    BlockDecided,
    Event,
    PeerAccused,
    Queried,
    Refused,
    ReleaseAsked,
    Reply,
    Submitted,
    TransactionsExpired,
)
from medchain.errors import InvariantBroken, Malformed, MedchainError, Rejected, Unavailable
from medchain.wire import methods

PENDING_MAX: Final = 20_000
"""Questions in the inbox at the same time; each lasts one turn of the loop."""
WAITERS_MAX: Final = 20_000
"""Clients that wait for transactions at the same time; more are told to come again."""
RETRY_MS: Final = 500

Server = Callable[[Mapping[str, Any]], Awaitable[Any]]


class Desk:
    """Ties answers to questions. `post` puts an event into the loop's inbox and says whether there was room."""

    def __init__(
        self,
        post: Callable[[Event], bool],
        *,
        accuse: Callable[[bytes, str], None] = lambda peer, reason: None,
        alarm: Callable[[str, str], None] = lambda code, message: None,
        failed: Callable[[InvariantBroken], None] = lambda error: None,
    ) -> None:
        self._post = post
        self._accuse = accuse
        self._alarm = alarm
        self._failed = failed
        self._last_request = 0
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._waiters: dict[bytes, list[asyncio.Future[None]]] = {}
        self._waiting = 0
        self._is_closed = False
        self.servers: dict[str, Server] = {}
        """Methods answered neither by the engine nor by the desk: those of the custodian, by name."""
        self.observers: list[Callable[[BlockDecided], None]] = []
        """Told of each decided block at once; they must not wait."""

    # ---- questions -----------------------------------------------------------------------------------------------------------

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """Answer a method of wire/methods.py, its parameters checked. Raises Rejected, Unavailable or Malformed as the answer is."""
        known = methods.METHODS[method]
        if known.served_by == methods.ENGINE:
            return await self.query(method, **params)
        match method:
            case "tx.submit":
                return _accepted_value(await self.submit(Transaction.decode(params["transaction"])))
            case "tx.submit_batch":
                return {"results": await self._submit_all(params["transactions"])}
            case "tx.wait":
                return await self.wait(params["id"], params["timeout_ms"])
        server = self.servers.get(method)
        if server is None:
            raise Unavailable("this node has no custodian: ask the node of a hospital that holds records")
        try:
            return await server(params)
        except InvariantBroken as error:
            self._failed(error)  # the client is told nothing of it, but the node must not go on
            raise

    async def query(self, method: str, **params: Any) -> Any:
        """Return the engine's answer to a read method. Raises Rejected or Unavailable."""
        return await self._ask(lambda request: Queried(request, method, params))

    async def submit(self, transaction: Transaction) -> Accepted:
        """Hand in a transaction; returns when it is durably in the pool. Raises Rejected or Unavailable."""
        accepted: Accepted = await self._ask(_submission_of(transaction))
        return accepted

    async def ask_release(self, permit: bytes) -> Any:
        """Ask whether the keys of a permit may go out now; counted durably before the answer. Raises Rejected or Unavailable."""
        return await self._ask(lambda request: ReleaseAsked(request, permit))

    async def wait(self, transaction_id: bytes, timeout_ms: int) -> Any:
        """Return tx.status once the transaction has ended, or as it is after `timeout_ms`."""
        if self._waiting >= WAITERS_MAX:
            raise Unavailable("too many clients wait for transactions: ask tx.status instead, or come again", RETRY_MS)
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(transaction_id, [])
        waiters.append(woken)
        self._waiting += 1
        try:
            status = await self.query("tx.status", id=transaction_id)  # after the waiter is set: an ending in between is not missed
            if _has_ended(status) or timeout_ms <= 0:
                return status
            await asyncio.wait((woken,), timeout=timeout_ms / 1_000)
            return await self.query("tx.status", id=transaction_id)
        finally:
            self._waiting -= 1
            waiters.remove(woken)
            if not waiters:
                self._waiters.pop(transaction_id, None)

    async def _submit_all(self, batch: Sequence[bytes]) -> list[dict[str, Any]]:
        """Hand in a batch, then wait for the answers; a refusal is an answer, so that it touches no other transaction."""
        asked: list[tuple[bytes | None, int, asyncio.Future[Any] | MedchainError]] = []
        try:
            for raw in batch:
                identity: bytes | None = None
                try:
                    transaction = Transaction.decode(raw)
                    identity = transaction.id
                    asked.append((identity, *self._begin(_submission_of(transaction))))
                except (Rejected, Unavailable, Malformed) as refusal:
                    asked.append((identity, 0, refusal))
            return [await _row_of(identity, answer) for identity, _, answer in asked]
        finally:
            for _, request, _ in asked:
                self._pending.pop(request, None)

    async def _ask(self, question: Callable[[int], Event]) -> Any:
        request, answer = self._begin(question)
        try:
            return await answer
        finally:
            self._pending.pop(request, None)

    def _begin(self, question: Callable[[int], Event]) -> tuple[int, asyncio.Future[Any]]:
        """Put a question into the inbox; return its number and what its answer will be in. Raises Unavailable."""
        if self._is_closed:
            raise _stopping()
        if len(self._pending) >= PENDING_MAX:
            raise _overloaded()
        self._last_request += 1
        request = self._last_request
        if not self._post(question(request)):
            raise _overloaded()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[request] = answer
        return request, answer

    # ---- answers -------------------------------------------------------------------------------------------------------------

    def answer(self, replies: Sequence[Reply]) -> None:
        """Hand out what a turn answered; everything in its batch is durable by now."""
        for reply in replies:
            match reply:
                case Accepted():
                    self._resolve(reply.request, reply)
                case Answered():
                    self._resolve(reply.request, reply.result)
                case Refused():
                    self._fail(reply.request, _refusal(reply))
                case BlockDecided():
                    for receipt in reply.receipts:
                        self._wake(receipt.transaction_id)
                    for observe in self.observers:
                        observe(reply)
                case TransactionsExpired():
                    for transaction_id in reply.transaction_ids:
                        self._wake(transaction_id)
                case PeerAccused():
                    self._accuse(reply.peer, reply.reason)
                case Alarm():
                    self._alarm(reply.code, reply.message)

    def close(self) -> None:
        """Tell everybody who still waits that the node stops."""
        self._is_closed = True
        for request in list(self._pending):
            self._fail(request, _stopping())
        for transaction_id in list(self._waiters):
            self._wake(transaction_id)

    def _resolve(self, request: int, result: Any) -> None:
        answer = self._pending.get(request)
        if answer is not None and not answer.done():
            answer.set_result(result)

    def _fail(self, request: int, error: MedchainError) -> None:
        answer = self._pending.get(request)
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def _wake(self, transaction_id: bytes) -> None:
        for woken in self._waiters.get(transaction_id, ()):
            if not woken.done():
                woken.set_result(None)


def _submission_of(transaction: Transaction) -> Callable[[int], Event]:
    return lambda request: Submitted(request, transaction)


async def _row_of(identity: bytes | None, answer: asyncio.Future[Any] | MedchainError) -> dict[str, Any]:
    """Return one row of a batch's answer, once it is there."""
    try:
        if isinstance(answer, MedchainError):
            raise answer
        return {**_accepted_value(await answer), "code": "", "message": "", "retry_after_ms": 0}
    except (Rejected, Unavailable, Malformed) as refusal:
        retry_after_ms = refusal.retry_after_ms if isinstance(refusal, Unavailable) else 0
        reason = {"code": refusal.code, "message": refusal.message, "retry_after_ms": retry_after_ms}
        return {"id": identity, "result": "refused", **reason}


def _accepted_value(accepted: Accepted) -> dict[str, Any]:
    return {"id": accepted.transaction_id, "result": "duplicate" if accepted.is_duplicate else "accepted"}


def _has_ended(status: Mapping[str, Any]) -> bool:
    return status["status"] in ("decided", "expired")


def _refusal(reply: Refused) -> MedchainError:
    """Return the error of a refusal, of the family it was raised in; one that passes with time keeps its code."""
    if reply.code == Malformed.code:
        return Malformed(reply.message)
    if reply.retry_after_ms > 0 or reply.code == Unavailable.code:
        later = Unavailable(reply.message, reply.retry_after_ms)
        later.code = reply.code
        return later
    return Rejected(reply.code, reply.message)


def _overloaded() -> Unavailable:
    return Unavailable("the node has more to do than it can take in: come again in a moment", RETRY_MS)


def _stopping() -> Unavailable:
    return Unavailable("the node is stopping: come again when it is back", RETRY_MS)
