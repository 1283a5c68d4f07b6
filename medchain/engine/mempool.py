"""The durable pool: accepted transactions until a block or their valid-until height ends them.

An entry is written into the turn's batch when it is added and removed in the batch of the decision that settles it, so "accepted" survives
a restart (lessons.md: cometbft #1516). Proposals take urgent entries first and the rest by weighted round robin over the senders' hospitals
(protocol.md, "Lanes and work"). Nothing pending is checked again when a block is decided (lessons.md: left-curve #2200): entries leave by
id and by height. This module knows no signature and no rule of admission but its own caps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from medchain import codec
from medchain.chain import limits
from medchain.chain.transaction import Transaction
from medchain.errors import Malformed, Rejected
from medchain.store import layout
from medchain.store.keyvalue import prefix_end
from medchain.store.staged import Staged

REFUSALS: Final[dict[str, str]] = {
    "pool.full": "The pool has no room now; send the transaction again later.",
    "pool.quota": "This sender or hospital already has its share of the pool; send the transaction again later.",
}

POOL_BYTES_MAX: Final = 64 * 1024 * 1024
"""Some hundred thousand transactions of usual size: minutes of full blocks; more would expire before their turn."""
ENTRY_OVERHEAD_BYTES: Final = 512
"""What an entry costs besides its bytes, so that tiny transactions cannot fill the memory under the cap."""
SENDER_SHARE: Final = 3
"""A sender holds at most a third of what it leaves free: alone a quarter of the pool; one gateway gone wild leaves room for others."""
HOSPITAL_SHARE: Final = 1
"""A hospital (all its senders) holds at most what it leaves free: alone half of the pool, beside another one a quarter, and so on. Fixed
shares of a half were the whole pool for two; so f that conspire leave at least 1/2^f of it to the others. (Dynamic thresholds of shared
buffers: Choudhury & Hahne 1998.)"""
URGENT_SHARE: Final = 8
"""The last eighth is for urgent entries only: a revocation is accepted while a flood is refused."""
URGENT_BLOCK_SHARE: Final = 2
"""While ordinary entries wait, half of two blocks in three is kept for them."""
EXPIRED_MAX: Final = 10_000
"""Ids of expired entries remembered, for whoever asks what became of one."""
QUANTUM_WEIGHT: Final = 64
"""Work a hospital may place into a block before the next hospital's turn."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an entry belongs among the others."""

    group: bytes
    """Organisation key of the sender's hospital: the party that shares fairly."""
    is_urgent: bool
    weight: int


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """An accepted transaction."""

    transaction: Transaction
    placement: Placement
    is_local: bool
    """Accepted from a client of this node, who is told the end of it."""
    sequence: int
    """Order of arrival, kept over restarts."""
    arrived_ms: int
    """Monotonic time of arrival; 0 for what was found on disk."""

    @property
    def size(self) -> int:
        """Bytes it takes under the caps."""
        return len(self.transaction.raw) + ENTRY_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class BlockRoom:
    """What a block may hold."""

    bytes_max: int
    transactions_max: int
    weight_max: int
    weight_enough: int | None = None
    """Weight at which to stop, be it before the room is full: what is heavier by itself still has its turn. None = no such bound."""


class Mempool:
    """Pool entries in memory, mirrored in the pool range of the store."""

    def __init__(self, staged: Staged, bytes_max: int = POOL_BYTES_MAX) -> None:
        self._staged = staged
        self.bytes_max = bytes_max
        self.bytes_used = 0
        self._entries: dict[bytes, PoolEntry] = {}
        self._urgent: dict[bytes, dict[bytes, PoolEntry]] = {}
        self._ordinary: dict[bytes, dict[bytes, PoolEntry]] = {}
        self._by_end: dict[int, dict[bytes, None]] = {}
        self._bytes_of: dict[bytes, int] = {}
        self._sequence = 0
        self._lead = 0
        self._expired: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, transaction_id: bytes) -> bool:
        return transaction_id in self._entries

    def load(self, height: int, place: Callable[[Transaction], Placement]) -> list[PoolEntry]:
        """Take over what is on disk after a start; entries that ended at or below `height` are removed and returned.

        Raises Malformed when an entry is damaged.
        """
        found: list[tuple[int, bool, Transaction]] = []
        for key, value in self._staged.iterate(layout.POOL, prefix_end(layout.POOL)):
            sequence, is_local, raw = codec.as_fields(codec.decode(value), 3, "pool entry")
            transaction = Transaction.decode(codec.as_bytes(raw, "transaction", maximum=limits.TRANSACTION_BYTES_MAX))
            if layout.pool_key(transaction.id) != key:
                raise Malformed("a pool entry stands under another id")
            found.append((codec.as_uint(sequence, "sequence"), codec.as_bool(is_local, "local"), transaction))
        ended: list[PoolEntry] = []
        for sequence, is_local, transaction in sorted(found, key=lambda row: row[0]):
            entry = PoolEntry(transaction, place(transaction), is_local, sequence, 0)
            self._sequence = max(self._sequence, sequence + 1)
            if transaction.body.valid_until <= height:
                self._staged.delete(layout.pool_key(transaction.id))
                self._expired[transaction.id] = None
                ended.append(entry)
            else:
                self._insert(entry)
        return ended

    def add(self, transaction: Transaction, placement: Placement, *, is_local: bool, now_ms: int) -> PoolEntry:
        """Accept a transaction that admission let pass, durably with this turn. Raises Rejected (`pool.*`) when there is no room."""
        self.check_room(transaction, placement)
        entry = PoolEntry(transaction, placement, is_local, self._sequence, now_ms)
        self._sequence += 1
        self._insert(entry)
        self._write(entry)
        return entry

    def check_room(self, transaction: Transaction, placement: Placement) -> None:
        """Raise Rejected (`pool.*`) unless there is room for a transaction and its sender and hospital have not used up their shares."""
        size = len(transaction.raw) + ENTRY_OVERHEAD_BYTES
        room = self.bytes_max if placement.is_urgent else self.bytes_max - self.bytes_max // URGENT_SHARE
        free = room - self.bytes_used - size
        if free < 0:
            raise Rejected("pool.full", "the network has more work than it can place now: send the transaction again later")
        if self.bytes_used + size <= free // max(SENDER_SHARE, HOSPITAL_SHARE):
            return  # nobody holds more than all together, so nobody's share needs to be looked up
        of_sender, of_group = (self._bytes_of.get(account, 0) + size for account in _accounts(transaction, placement))
        if of_sender > free // SENDER_SHARE or of_group > free // HOSPITAL_SHARE:
            raise Rejected(
                "pool.quota", "this sender or its hospital already fills its share of the pool: send the transaction again later"
            )

    def adopt(self, transaction_id: bytes) -> None:
        """Note that a client of this node, too, handed in an entry known by gossip, so it is told the end of it."""
        entry = self._entries[transaction_id]
        if not entry.is_local:
            local = PoolEntry(entry.transaction, entry.placement, True, entry.sequence, entry.arrived_ms)
            self._entries[transaction_id] = local
            self._lane(local)[transaction_id] = local
            self._write(local)

    def has_room(self) -> bool:
        """Answer whether ordinary entries are still taken; without room there is no use in asking peers for theirs."""
        return self.bytes_max - self.bytes_used >= self.bytes_max // URGENT_SHARE + ENTRY_OVERHEAD_BYTES

    def get(self, transaction_id: bytes) -> PoolEntry | None:
        """Return the entry with this id."""
        return self._entries.get(transaction_id)

    def holds(self, transaction: Transaction) -> bool:
        """Answer whether this very transaction, authentication included, is an entry."""
        held = self._entries.get(transaction.id)
        return held is not None and held.transaction.authentication_digest == transaction.authentication_digest

    def find(self, entry: tuple[bytes, bytes]) -> Transaction | None:
        """Return the transaction with exactly this (id, authentication digest)."""
        held = self._entries.get(entry[0])
        return held.transaction if held is not None and held.transaction.authentication_digest == entry[1] else None

    def entries(self) -> Iterator[PoolEntry]:
        """Yield all entries in order of arrival; the pool must not change meanwhile."""
        return iter(self._entries.values())

    def settle(self, transaction_ids: Iterable[bytes], height: int) -> list[PoolEntry]:
        """Remove what block `height` holds, then what can no longer enter a block; return the latter in order of arrival."""
        for transaction_id in transaction_ids:
            self._remove(transaction_id)
        ended = [self._entries[transaction_id] for transaction_id in self._by_end.get(height, ())]
        for entry in ended:
            self._remove(entry.transaction.id)
            self._expired[entry.transaction.id] = None
        while len(self._expired) > EXPIRED_MAX:
            del self._expired[next(iter(self._expired))]
        return ended

    def has_expired(self, transaction_id: bytes) -> bool:
        """Answer whether an entry left the pool unused since the start of this process; the newest EXPIRED_MAX are remembered."""
        return transaction_id in self._expired

    def select(self, room: BlockRoom) -> list[Transaction]:
        """Return what the next block should hold: urgent entries first, then ordinary ones, of hospitals in turns, each its oldest first.

        While ordinary entries wait, urgent ones leave them half of two blocks in three: urgent is what the sender says
        it is, and a hospital that sends nothing else would otherwise stop all the others.
        """
        chosen: list[Transaction] = []
        enough = room.weight_max if room.weight_enough is None else min(room.weight_enough, room.weight_max)
        left = [room.bytes_max, room.transactions_max, room.weight_max, max(2, enough)]  # 2: one entry of each lane
        is_shared = bool(self._ordinary) and self._lead % 3 != 2  # every third block is whole: for an urgent entry larger than a half
        kept = [have // URGENT_BLOCK_SHARE if is_shared else 0 for have in left]
        left = [have - part for have, part in zip(left, kept, strict=True)]
        self._select_in_turns(self._urgent, left, chosen)
        left = [max(0, have) + part for have, part in zip(left, kept, strict=True)]
        self._select_in_turns(self._ordinary, left, chosen)
        self._lead += 1  # who begins changes from block to block, else a full block would always favour the same hospital
        return chosen

    def _select_in_turns(self, lane: dict[bytes, dict[bytes, PoolEntry]], left: list[int], chosen: list[Transaction]) -> None:
        groups = list(lane.values())
        lead = self._lead % max(1, len(groups))
        queues = deque(iter(group.values()) for group in groups[lead:] + groups[:lead])
        while queues:
            queue = queues.popleft()
            quantum = QUANTUM_WEIGHT
            while quantum > 0:
                entry = next(queue, None)
                if entry is None or not _take(entry, left):
                    break  # this hospital's oldest does not fit any more: the others may have smaller ones
                chosen.append(entry.transaction)
                quantum -= entry.placement.weight
            else:
                queues.append(queue)

    def _insert(self, entry: PoolEntry) -> None:
        transaction = entry.transaction
        self._entries[transaction.id] = entry
        self._lane(entry)[transaction.id] = entry
        self._by_end.setdefault(transaction.body.valid_until, {})[transaction.id] = None
        self._account(entry, entry.size)

    def _remove(self, transaction_id: bytes) -> None:
        entry = self._entries.pop(transaction_id, None)
        if entry is None:
            return
        lane = self._lane(entry)
        del lane[transaction_id]
        if not lane:
            del self._lanes(entry)[entry.placement.group]
        ends = self._by_end[entry.transaction.body.valid_until]
        del ends[transaction_id]
        if not ends:
            del self._by_end[entry.transaction.body.valid_until]
        self._account(entry, -entry.size)
        self._staged.delete(layout.pool_key(transaction_id))

    def _lane(self, entry: PoolEntry) -> dict[bytes, PoolEntry]:
        return self._lanes(entry).setdefault(entry.placement.group, {})

    def _lanes(self, entry: PoolEntry) -> dict[bytes, dict[bytes, PoolEntry]]:
        return self._urgent if entry.placement.is_urgent else self._ordinary

    def _account(self, entry: PoolEntry, size: int) -> None:
        self.bytes_used += size
        bytes_of = self._bytes_of
        for account in _accounts(entry.transaction, entry.placement):
            total = bytes_of.get(account, 0) + size
            if total:
                bytes_of[account] = total
            else:
                del bytes_of[account]

    def _write(self, entry: PoolEntry) -> None:
        value = codec.encode([entry.sequence, entry.is_local, entry.transaction.raw])
        self._staged.put(layout.pool_key(entry.transaction.id), value)


def _accounts(transaction: Transaction, placement: Placement) -> tuple[bytes, bytes]:
    """Return the keys under which bytes of a sender and its hospital are counted, in each lane apart: a flood delays no revocation."""
    lane = b"u" if placement.is_urgent else b"o"
    return lane + b"s" + transaction.body.sender, lane + b"g" + placement.group


def _take(entry: PoolEntry, left: list[int]) -> bool:
    """Take an entry's bytes, place and weight off what is left of a block, if it fits."""
    size, weight = len(entry.transaction.raw) + 8, entry.placement.weight  # 8: the framing of a transaction among a block's bytes
    if size > left[0] or left[1] < 1 or weight > left[2] or left[3] < 1:
        return False
    left[0] -= size
    left[1] -= 1
    left[2] -= weight
    left[3] -= weight
    return True
