"""Spreading transactions: what each peer is known to hold, what it should be told, and what it asks for.

A transaction accepted here is forwarded to every peer once, in messages of up to 256 (protocol.md, "Gossip"); what was received from a peer
is not forwarded again, since hospitals are connected pairwise and flooding would send it n times (lessons.md: cometbft #1058). Losses and
missing links are healed by telling peers, every second, the ids of older entries. Everything remembered of a peer is bounded by the pool.
This module knows no block and no rule of admission.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from medchain.chain.transaction import Transaction
from medchain.engine.mempool import Mempool, PoolEntry
from medchain.engine.turn import Turn
from medchain.wire.peer import GOSSIP_TRANSACTIONS_MAX, Entry, PoolListed, TransactionsOffered, TransactionsWanted

FLUSH_TOGETHER_MIN: Final = 16
"""So many that were accepted in one turn are forwarded at its end: the next tick may be 20 ms away, and so many are worth a message."""
LIST_EVERY_MS: Final = 1_000
LIST_AGE_MS: Final = 1_000
"""Entries younger than this are still on their way by forwarding."""
LIST_ENTRIES_MAX: Final = 2_000
"""Ids told a peer at once (128 KB): the oldest first, so that those that wait longest are healed first."""
WANTED_ENTRIES_MAX: Final = 512
"""Ids asked for in one answer to a list."""
OFFER_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes of one message of transactions: well below a frame."""
ANSWER_BYTES_PER_SECOND_MAX: Final = 16 * 1024 * 1024
"""What a peer may make this node send by asking for transactions."""
HAND_OVER_MAX: Final = 256
"""Transactions handed to a primary at once: enough work to judge it by."""


class Gossip:
    """What peers know of the pool."""

    def __init__(self, pool: Mempool, turn: Turn) -> None:
        self._pool = pool
        self._turn = turn
        self._offered: dict[bytes, dict[bytes, None]] = {}
        """Peer → ids of pool entries sent to it; each is also in its `_confirmed` once it is known to hold them."""
        self._confirmed: dict[bytes, dict[bytes, None]] = {}
        self._fresh: list[Transaction] = []
        self._next_list_ms = 0
        self._answer_bytes: dict[bytes, int] = {}

    @property
    def peers(self) -> tuple[bytes, ...]:
        """Connected peers in the order they connected."""
        return tuple(self._offered)

    def is_connected(self, peer: bytes) -> bool:
        """Answer whether a peer is connected."""
        return peer in self._offered

    def connect(self, peer: bytes) -> None:
        """A peer connected; nothing is known of what it holds."""
        self._offered[peer] = {}
        self._confirmed[peer] = {}

    def disconnect(self, peer: bytes) -> None:
        """Forget a peer: what was on its way to it may be lost."""
        self._offered.pop(peer, None)
        self._confirmed.pop(peer, None)
        self._answer_bytes.pop(peer, None)

    def forward(self, transaction: Transaction) -> None:
        """Tell peers of a transaction accepted here: at the end of the turn with many others, else with the next tick."""
        self._fresh.append(transaction)
        if len(self._fresh) >= GOSSIP_TRANSACTIONS_MAX:
            self.flush()

    def end_turn(self) -> None:
        """Forward at once what is worth a message."""
        if len(self._fresh) >= FLUSH_TOGETHER_MIN:
            self.flush()

    def flush(self) -> None:
        """Send what is waiting to be forwarded."""
        fresh, self._fresh = self._fresh, []
        for peer in self._offered if fresh else ():
            self._offer(peer, [transaction for transaction in fresh if not self.knows(peer, transaction.id)])

    def knows(self, peer: bytes, transaction_id: bytes) -> bool:
        """Answer whether a pool entry was sent to or shown by a connected peer."""
        return transaction_id in self._offered.get(peer, ()) or transaction_id in self._confirmed.get(peer, ())

    def knows_any(self, peer: bytes) -> bool:
        """Answer whether some pool entry was sent to or shown by a connected peer."""
        return bool(self._offered.get(peer) or self._confirmed.get(peer))

    def confirm(self, peer: bytes, transaction_ids: Iterable[bytes]) -> None:
        """Note that a peer holds these, as far as they are in the pool."""
        confirmed = self._confirmed.get(peer)
        if confirmed is not None:
            for transaction_id in transaction_ids:
                if transaction_id in self._pool:
                    confirmed[transaction_id] = None

    def forget(self, transaction_ids: Sequence[bytes]) -> None:
        """Drop what is remembered of transactions that left the pool."""
        for known in (*self._offered.values(), *self._confirmed.values()):
            for transaction_id in transaction_ids:
                known.pop(transaction_id, None)

    def tick(self) -> None:
        """Forward what waits; every second tell each peer the ids of older entries that it has not shown to hold."""
        self.flush()
        now_ms = self._turn.monotonic_ms
        if now_ms < self._next_list_ms:
            return
        self._next_list_ms = now_ms + LIST_EVERY_MS
        self._answer_bytes.clear()
        old = [entry.transaction.entry for entry in self._old_entries(now_ms)]
        for peer, confirmed in self._confirmed.items():
            entries = [entry for entry in old if entry[0] not in confirmed][:LIST_ENTRIES_MAX]
            if entries:
                self._turn.send(peer, PoolListed(tuple(entries)))

    def hand_over(self, primary: bytes) -> None:
        """Give the primary the oldest transactions that it has not shown to hold (protocol.md, "Timers"): what was sent may be lost."""
        confirmed = self._confirmed.get(primary)
        if confirmed is not None:
            unknown = (entry.transaction for entry in self._pool.entries() if entry.transaction.id not in confirmed)
            self._offer(primary, list(islice(unknown, HAND_OVER_MAX)))

    def take_list(self, peer: bytes, entries: Sequence[Entry], missing: Sequence[Entry]) -> None:
        """A peer told what it holds; ask it for what is `missing` here."""
        self.confirm(peer, (identity for identity, _ in entries))
        if missing:
            self._turn.send(peer, TransactionsWanted(tuple(missing[:WANTED_ENTRIES_MAX])))

    def answer(self, peer: bytes, transactions: Sequence[Transaction]) -> None:
        """Send transactions that a peer asked for, as far as its allowance of this second goes."""
        spent = self._answer_bytes.get(peer, 0)
        allowed: list[Transaction] = []
        for transaction in transactions:
            spent += len(transaction.raw)
            if spent > ANSWER_BYTES_PER_SECOND_MAX:
                break
            allowed.append(transaction)
        self._answer_bytes[peer] = spent
        self._offer(peer, allowed)

    def _old_entries(self, now_ms: int) -> Iterator[PoolEntry]:
        for entry in islice(self._pool.entries(), 4 * LIST_ENTRIES_MAX):
            if now_ms - entry.arrived_ms < LIST_AGE_MS:
                return
            yield entry

    def _offer(self, peer: bytes, transactions: Sequence[Transaction]) -> None:
        offered = self._offered.get(peer)
        for group in _messages(transactions):
            self._turn.send(peer, TransactionsOffered(tuple(group)))
            if offered is not None:
                offered.update((transaction.id, None) for transaction in group if transaction.id in self._pool)


def _messages(transactions: Sequence[Transaction]) -> Iterator[list[Transaction]]:
    """Split transactions into messages within the bounds of count and bytes."""
    group: list[Transaction] = []
    size = 0
    for transaction in transactions:
        if group and (len(group) >= GOSSIP_TRANSACTIONS_MAX or size + len(transaction.raw) > OFFER_BYTES_MAX):
            yield group
            group, size = [], 0
        group.append(transaction)
        size += len(transaction.raw)
    if group:
        yield group
