"""Getting missing transactions and blocks: whom to ask, what counts, and how much is waited for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medchain import codec
from medchain.chain.transaction import Transaction
from medchain.engine.executor import Executor
from medchain.engine.fetching import LEFT_OUT_MS, ON_THE_WAY_MS, PENDING_MAX, RETRY_MS, Fetching
from medchain.engine.turn import Turn
from medchain.engine.verification import Verifier
from medchain.wire.peer import BlockWanted, ProposalWanted, TransactionsWanted

PEERS = (b"a" * 32, b"b" * 32, b"c" * 32)


class Search:
    """Fetching over a real turn, and a real block of three transactions."""

    def __init__(self, cluster) -> None:
        self.turn = Turn()
        self.turn.set_time(1_000, 0)
        self.peers = PEERS
        self.fetching = Fetching(self.turn, lambda: self.peers)
        self.transactions = [cluster.patient(0, f"patient {index}") for index in range(3)]
        executor = Executor(cluster.nodes[0].engine.chain, Verifier(cluster.network))
        self.block = executor.build(0, 1_900_000_000_000, PEERS[1], self.transactions).block

    def gather(self, *held: Transaction, hint: bytes = PEERS[1]):
        known = {transaction.entry: transaction for transaction in held}
        return self.fetching.gather(self.block.proposal(), hint, known.get)

    def tick(self, milliseconds: int = RETRY_MS, voters: tuple[bytes, ...] = ()) -> list:
        self.turn.set_time(self.turn.monotonic_ms + milliseconds, 0)
        self.fetching.tick(lambda digest: voters)
        return self.said()

    def lack(self, holders: tuple[bytes, ...], milliseconds: int = 0, view: int = 2) -> list:
        """Let time pass while votes of `holders` show a proposal that did not come."""
        self.turn.set_time(self.turn.monotonic_ms + milliseconds, 0)
        self.fetching.want_proposal(1, view, holders)
        return self.said()

    def said(self) -> list:
        return [(envelope.to, envelope.message) for envelope in self.turn.take()[0]]


@pytest.fixture
def search(cluster) -> Search:
    return Search(cluster)


def test_a_proposal_whose_transactions_are_here_is_whole_at_once(search):
    assert search.gather(*search.transactions) == search.block
    assert search.said() == []


def test_who_proposed_is_asked_first_and_then_the_others_in_turn(search):
    assert search.gather(search.transactions[1]) is None
    wanted = TransactionsWanted((search.transactions[0].entry, search.transactions[2].entry))
    assert search.said() == [], "what was forwarded before the proposal is still on its way"
    assert search.tick(ON_THE_WAY_MS - 1) == []
    assert search.tick(1) == [(PEERS[1], wanted)]
    assert search.tick(RETRY_MS - 1) == []
    assert search.tick(1) == [(PEERS[0], wanted)]
    assert search.tick() == [(PEERS[2], wanted)]
    assert search.tick() == [(PEERS[1], wanted)]


def test_who_voted_for_a_proposal_is_asked_soon_for_what_its_primary_withholds(search):
    """Half deaf primary: its proposal came, its transactions do not, and every one of its turns would cost a quarter of a second."""
    search.gather(search.transactions[1], hint=PEERS[0])
    wanted = TransactionsWanted((search.transactions[0].entry, search.transactions[2].entry))
    assert search.tick(ON_THE_WAY_MS) == [(PEERS[0], wanted)]
    assert search.tick(1, (PEERS[0],)) == [], "its own vote says nothing new"
    assert search.tick(1, (PEERS[0], PEERS[2])) == []
    assert search.tick(LEFT_OUT_MS - 1, (PEERS[0], PEERS[2])) == []
    assert search.tick(1, (PEERS[0], PEERS[2])) == [(PEERS[2], wanted)]
    assert search.tick(RETRY_MS, PEERS) == [(PEERS[0], wanted)]
    assert search.tick(RETRY_MS, PEERS) == [(PEERS[1], wanted)]


def test_a_proposal_that_others_voted_for_is_asked_for_when_it_stays_away(search):
    wanted = ProposalWanted(1, 2)
    assert search.lack((PEERS[1],)) == []
    assert search.lack((PEERS[1],), LEFT_OUT_MS - 1) == []
    assert search.lack((PEERS[1], PEERS[2]), 1) == [(PEERS[1], wanted)]
    assert search.lack((PEERS[1], PEERS[2]), RETRY_MS - 1) == []
    assert search.lack((PEERS[1], PEERS[2]), 1) == [(PEERS[0], wanted)], "whoever was left out first hears from somebody in the end"
    assert search.lack((PEERS[1], PEERS[2]), RETRY_MS) == [(PEERS[2], wanted)]


def test_a_proposal_that_came_meanwhile_is_not_asked_for(search):
    search.lack((PEERS[1],))
    assert search.lack((), LEFT_OUT_MS - 1) == []
    assert search.lack((PEERS[1],), 1) == [], "in a new moment of doubt the grace begins again"
    assert search.lack((PEERS[1],), LEFT_OUT_MS, view=3) == [], "as it does in another view"
    search.fetching.clear()
    assert search.lack((PEERS[1],), LEFT_OUT_MS, view=3) == [], "and at another height"


def test_only_the_exact_authentication_counts(search):
    search.gather(*search.transactions[:2])
    last = search.transactions[2]
    twin = Transaction.decode(codec.encode([last.body_bytes, [1, bytes(64)]]))
    assert search.fetching.take_transactions([twin]) == []
    assert search.fetching.take_transactions([last]) == [search.block]
    assert search.fetching.take_transactions([last]) == []
    search.said()
    assert search.tick() == []


def test_a_search_goes_on_when_peers_come_back(search):
    search.peers = ()
    search.gather()
    assert search.said() == []
    search.peers = PEERS[2:]
    assert [to for to, _ in search.tick()] == [PEERS[2]]


def test_a_block_is_asked_for_until_it_comes(search):
    digest = search.block.header.digest()
    search.fetching.want_block(1, digest, (PEERS[2],))
    search.fetching.want_block(1, digest)
    assert search.said() == [(PEERS[2], BlockWanted(1, digest))]
    assert search.tick() == [(PEERS[0], BlockWanted(1, digest))]
    assert search.fetching.take_block(digest)
    assert not search.fetching.take_block(digest)
    assert search.tick() == []


def test_a_decision_ends_all_searches(search):
    search.gather()
    search.fetching.want_block(1, bytes(32))
    search.said()
    search.fetching.clear()
    assert search.tick() == []
    assert search.fetching.take_transactions(search.transactions) == []


def test_searches_are_bounded(search):
    for index in range(PENDING_MAX + 5):
        search.fetching.want_block(1, bytes([index]) * 32)
        header = replace(search.block.header, time_ms=index)
        search.fetching.gather(replace(search.block.proposal(), header=header), PEERS[0], lambda entry: None)
    search.said()
    assert len(search.tick()) == 2 * PENDING_MAX


def test_a_proposal_larger_than_any_block_is_dropped_and_fills_no_memory(search):
    search.gather()
    gathering = search.fetching._gatherings[search.block.header.digest()]
    gathering.room = len(search.transactions[0].raw)
    assert search.fetching.take_transactions(search.transactions[:1]) == []
    assert search.fetching.take_transactions(search.transactions[1:]) == []
    search.said()
    assert search.tick() == []
