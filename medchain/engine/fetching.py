"""Getting what votes, a proposal or a view change refer to and this node lacks: transactions by entry, blocks by digest, proposals by view.

Whoever sent a proposal is asked first, and soon those who voted for it, who must hold all of it; then the other connected peers in turn
until the height is decided. So a primary that leaves somebody out costs the others a moment, not a view. A transaction counts only with
exactly the authentication the proposal names (protocol.md, "Nouns"); a block only with the digest asked for. This module judges nothing it
gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from medchain.chain import limits
from medchain.chain.block import Block, Proposal
from medchain.chain.transaction import Transaction
from medchain.engine.turn import Turn
from medchain.wire.peer import IDS_MAX, BlockWanted, Entry, PeerMessage, ProposalWanted, TransactionsWanted

RETRY_MS: Final = 250
"""A round trip between hospitals with room to spare; then the next peer is asked."""
ON_THE_WAY_MS: Final = 15
"""A proposal overtakes the transactions in it (they come in a slower lane, and their signatures are checked first), so they are asked for
only when they stay away: asked for at once, most of them came twice."""
LEFT_OUT_MS: Final = 50
"""Votes overtake a proposal and its transactions by a moment where lines differ. When these stay away so long after the first vote,
they were lost or the primary left this node out, and a voter is asked."""
PENDING_MAX: Final = 16
"""Proposals and blocks waited for at one height: one for each view that gets as far; the oldest gives way."""


@dataclass(slots=True)
class _Search:
    """Whom to ask, and when again."""

    hints: tuple[bytes, ...]
    attempts: int = 0
    next_ms: int = 0
    are_voters_known: bool = False

    def turn_to(self, voters: tuple[bytes, ...], now_ms: int) -> None:
        """Ask those next who voted for what is sought and were not asked first, and the first of them soon; only the first call counts."""
        others = tuple(voter for voter in voters if voter not in self.hints)
        if others and not self.are_voters_known:
            self.attempts, self.next_ms, self.are_voters_known = 0, min(self.next_ms, now_ms + LEFT_OUT_MS), True
            self.hints = (*others, *self.hints)


@dataclass(slots=True)
class _Gathering:
    """A proposal whose transactions are being collected."""

    proposal: Proposal
    found: dict[Entry, Transaction]
    search: _Search
    missing: dict[Entry, None] = field(default_factory=dict)
    room: int = limits.BLOCK_BYTES_HARD_MAX
    """Bytes of transactions that a valid block may still hold."""


class Fetching:
    """Open searches of the undecided height."""

    def __init__(self, turn: Turn, peers: Callable[[], Sequence[bytes]]) -> None:
        self._turn = turn
        self._peers = peers
        self._gatherings: dict[bytes, _Gathering] = {}
        self._blocks: dict[bytes, tuple[int, _Search]] = {}
        self._proposal: tuple[tuple[int, int], _Search] | None = None

    def clear(self) -> None:
        """Forget everything: the height is decided."""
        self._gatherings.clear()
        self._blocks.clear()
        self._proposal = None

    def gather(self, proposal: Proposal, hint: bytes, find: Callable[[Entry], Transaction | None]) -> Block | None:
        """Return the whole block if `find` has all of its transactions, else wait for the missing ones and soon ask peers for them."""
        present = [(entry, find(entry)) for entry in proposal.entries]
        transactions = tuple([transaction for _, transaction in present if transaction is not None])
        if len(transactions) == len(present):
            return Block(proposal.header, transactions, proposal.last_commit, proposal.evidence)
        found = {entry: transaction for entry, transaction in present if transaction is not None}
        missing: dict[Entry, None] = {entry: None for entry, transaction in present if transaction is None}
        search = _Search((hint,), next_ms=self._turn.monotonic_ms + ON_THE_WAY_MS)
        self._gatherings[proposal.header.digest()] = _Gathering(proposal, found, search, missing)
        _bound(self._gatherings)
        return None

    def take_transactions(self, transactions: Iterable[Transaction]) -> list[Block]:
        """Use what arrived; return the blocks that are whole now.

        A proposal that turns out larger than any block is dropped, so that a liar fills no memory: it ends like one whose bytes never come.
        """
        if not self._gatherings:
            return []
        for transaction in transactions:
            for gathering in self._gatherings.values():
                if transaction.entry in gathering.missing:
                    del gathering.missing[transaction.entry]
                    gathering.found[transaction.entry] = transaction
                    gathering.room -= len(transaction.raw)
        for digest in [digest for digest, gathering in self._gatherings.items() if gathering.room < 0]:
            del self._gatherings[digest]
        whole = [digest for digest, gathering in self._gatherings.items() if not gathering.missing]
        return [_complete(self._gatherings.pop(digest)) for digest in whole]

    def want_block(self, height: int, digest: bytes, hints: tuple[bytes, ...] = ()) -> None:
        """Ask peers for a block, `hints` first."""
        if digest not in self._blocks:
            search = _Search(hints)
            self._blocks[digest] = (height, search)
            _bound(self._blocks)
            self._ask(search, BlockWanted(height, digest))

    def take_block(self, digest: bytes) -> bool:
        """Answer whether a block with this digest was asked for; it is not any more."""
        return self._blocks.pop(digest, None) is not None

    def want_proposal(self, height: int, view: int, holders: tuple[bytes, ...]) -> None:
        """Ask for the proposal of a view that `holders` voted for and this node has not seen, if that lasts; nobody voted = nothing lacks.

        To be called at every tick, with what the votes say then.
        """
        if not holders:
            self._proposal = None
            return
        now_ms = self._turn.monotonic_ms
        if self._proposal is None or self._proposal[0] != (height, view):
            self._proposal = (height, view), _Search((), next_ms=now_ms + LEFT_OUT_MS)
        search = self._proposal[1]
        search.turn_to(holders, now_ms)
        if now_ms >= search.next_ms:
            self._ask(search, ProposalWanted(height, view))

    def tick(self, voters_for: Callable[[bytes], tuple[bytes, ...]]) -> None:
        """Ask the next peer where the last one did not answer in time; `voters_for` a digest hold all of that block."""
        now_ms = self._turn.monotonic_ms
        for digest, gathering in self._gatherings.items():
            voters = voters_for(digest) if gathering.search.attempts else ()
            if voters:
                gathering.search.turn_to(voters, now_ms)
            if now_ms >= gathering.search.next_ms:
                self._ask_transactions(gathering)
        for digest, (height, search) in self._blocks.items():
            if now_ms >= search.next_ms:
                self._ask(search, BlockWanted(height, digest))

    def _ask_transactions(self, gathering: _Gathering) -> None:
        self._ask(gathering.search, TransactionsWanted(tuple(gathering.missing)[:IDS_MAX]))

    def _ask(self, search: _Search, message: PeerMessage) -> None:
        search.next_ms = self._turn.monotonic_ms + RETRY_MS
        peers = self._peers()
        order = [peer for peer in search.hints if peer in peers]
        order += [peer for peer in peers if peer not in search.hints]
        if order:
            self._turn.send(order[search.attempts % len(order)], message)
            search.attempts += 1


def _complete(gathering: _Gathering) -> Block:
    proposal = gathering.proposal
    transactions = tuple(gathering.found[entry] for entry in proposal.entries)
    return Block(proposal.header, transactions, proposal.last_commit, proposal.evidence)


def _bound(pending: dict[bytes, _Gathering] | dict[bytes, tuple[int, _Search]]) -> None:
    while len(pending) > PENDING_MAX:
        del pending[next(iter(pending))]
