"""A key that acts: builds transactions, signs them, hands them in and comes back with what the network decided, proven.

Knows no operation's meaning. A transaction that was handed in once is only ever handed in again with the same bytes, so that a lost answer
never makes two of it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from medchain.actions.transactions import build_body
from medchain.chain import limits
from medchain.chain.receipt import Event
from medchain.chain.transaction import Operation, Transaction, TransactionBody
from medchain.client.node import NodeClient, bytes_of
from medchain.crypto.keyfile import Identity
from medchain.errors import Rejected, Unavailable
from medchain.ledger.refusals import REFUSALS as LEDGER_REFUSALS
from medchain.ledger.trail import event_names
from medchain.wire.methods import WAIT_MS_MAX
from medchain.wire.proof import PROOF_FILE_BYTES_MAX, verify_transaction_proof

RUN_TIMEOUT_MS: Final = 60_000
"""Long enough for a few view changes; a quorum that is away longer is told as such."""
_RETRY_MS: Final = 250
_RETRY_MS_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an accepted transaction, as its proven receipt says."""

    transaction_id: bytes
    height: int
    time_ms: int
    """The block's time."""
    code: str
    """Empty: only accepted transactions come back; refused ones are raised."""
    events: tuple[Event, ...]

    def first(self, kind: str) -> Event | None:
        """Return the first event of a kind, None if there is none."""
        return next((event for event in self.events if event.kind == kind), None)


class Wallet:
    """One identity at one node."""

    def __init__(self, client: NodeClient, identity: Identity) -> None:
        self.client = client
        self.identity = identity

    @property
    def public(self) -> bytes:
        """The key others know this wallet by."""
        return self.identity.signing.public

    async def build(self, operations: Sequence[Operation]) -> Transaction:
        """Return the signed transaction of `operations`, good for half the network's expiry window from now."""
        body = await self.body(operations, await self.valid_until())
        return Transaction.sign(body, self.identity.signing, (await self.client.facts()).network)

    async def valid_until(self) -> int:
        """Return the last height for what is signed now: half the network's expiry window from the node's head."""
        return await self.client.head_height() + max(1, (await self.client.facts()).expiry_window_blocks // 2)

    async def body(self, operations: Sequence[Operation], valid_until: int) -> TransactionBody:
        """Return a fresh body of `operations` by this key, good up to a height."""
        chain_id, nonce = (await self.client.facts()).chain_id, secrets.token_bytes(limits.NONCE_BYTES)
        return build_body(chain_id, self.public, operations, valid_until=valid_until, nonce=nonce)

    async def run(self, operations: Sequence[Operation], *, timeout_ms: int = RUN_TIMEOUT_MS) -> Outcome:
        """Do the operations, all or none, and return what the network decided.

        Raises Rejected with the code when it was refused, Unavailable when nothing is decided after `timeout_ms` (it may be decided
        later: the sentence says so), Malformed when the transaction breaks a bound.
        """
        return await self.send(await self.build(operations), timeout_ms=timeout_ms)

    async def send(self, transaction: Transaction, *, timeout_ms: int = RUN_TIMEOUT_MS) -> Outcome:
        """Hand in a signed transaction until it is taken, wait for its end and check the proof; else like `run`."""
        deadline = time.monotonic() + timeout_ms / 1000
        pause_ms = _RETRY_MS
        while True:
            try:
                await self.client.submit(transaction)
                status = await self._wait(transaction, deadline)
            except Unavailable as later:
                pause_ms = min(max(later.retry_after_ms, pause_ms), _RETRY_MS_MAX)
                if time.monotonic() + pause_ms / 1000 >= deadline:
                    raise
                await asyncio.sleep(pause_ms / 1000)
                pause_ms *= 2
                continue
            if status == "decided":
                return await self._proven(transaction)
            if status == "expired":
                raise Rejected("client.expired", "the transaction was not taken into a block in time and is void: do it again")
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"nothing was decided within {timeout_ms // 1000} seconds; the transaction {transaction.id.hex()} may still be: "
                    "wait for it by its id"
                )

    async def _wait(self, transaction: Transaction, deadline: float) -> str:
        """Return the status once the transaction has ended, or the last one before the deadline."""
        left_ms = int(max(0.0, deadline - time.monotonic()) * 1000)
        status = await self.client.wait(transaction.id, min(left_ms, WAIT_MS_MAX))
        return str(status.get("status"))

    async def _proven(self, transaction: Transaction) -> Outcome:
        """Return the outcome that the chain proves. Raises Rejected when it was refused, or the node's proof does not hold."""
        answer = await self.client.call("tx.proof", id=transaction.id)
        genesis = (await self.client.facts()).genesis
        facts = verify_transaction_proof(bytes_of(answer, "proof", PROOF_FILE_BYTES_MAX), genesis)
        if facts.transaction.id != transaction.id:
            raise Rejected("client.false-answer", "the node proved another transaction than the one it was asked for: do not use this node")
        receipt = facts.receipt
        if not receipt.is_accepted:
            raise rule_refusal(receipt.code)
        return Outcome(transaction.id, facts.height, facts.time_ms, receipt.code, receipt.events)


def refusal_sentence(code: str) -> str:
    """Return what a code of the rule book means, for people."""
    return LEDGER_REFUSALS.get(code, "the network refused it for a reason this client does not know: update the client")


def rule_refusal(code: str) -> Rejected:
    """Return the refusal with a code of the rule book, as the network would say it."""
    return Rejected(code, refusal_sentence(code))


def event_field(event: Event, name: str) -> object:
    """Return a field of an event by its name. Raises Rejected when the event is of a kind this client does not know."""
    names = event_names(event)
    if name not in names:
        raise Rejected("client.not-a-node", f"the network's event {event.kind} is of another version than this client: update the client")
    return names[name]
