"""The engine: one turn of a node. Events in, one Ready out; runs to completion, touches nothing outside (house.md, "The heart").

Here the parts are wired and events are dispatched; what each part does stands in its own file. Within a turn time and peers come first,
then fetched blocks, then clients, then what is ready to be voted on or built. All writes leave in one batch, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, assert_never

from medchain.chain.certificate import Certificate
from medchain.chain.genesis import Genesis
from medchain.chain.transaction import Transaction
from medchain.chain.vote import ViewChange, Vote
from medchain.consensus.events import ViewChangeReceived, VoteReceived
from medchain.consensus.messages import PrePrepare
from medchain.crypto.signing import SigningKey
from medchain.engine import decided, recovery
from medchain.engine.admission import Admission
from medchain.engine.agreement import Agreement
from medchain.engine.allowance import ENTRIES_PER_POINT, EVIDENCE_POINTS, LIST_POINTS, PAST_VOTES_POINTS, PROPOSAL_POINTS, Allowance
from medchain.engine.decided import DecidedChain, Executed, HeadFacts, damaged
from medchain.engine.evidence import EvidencePool
from medchain.engine.executor import Executor
from medchain.engine.gossip import LIST_ENTRIES_MAX, Gossip
from medchain.engine.mempool import POOL_BYTES_MAX, Mempool, PoolEntry
from medchain.engine.queries import READS, Reading
from medchain.engine.ready import (
    NOTHING_TO_DO,
    Accepted,
    Answered,
    BlockDecided,
    Event,
    PeerConnected,
    PeerDisconnected,
    Queried,
    Ready,
    Received,
    Refused,
    ReleaseAsked,
    Submitted,
    Ticked,
    TransactionsExpired,
)
from medchain.engine.release import take_release
from medchain.engine.sync import Sync
from medchain.engine.turn import Turn
from medchain.engine.verification import Verifier
from medchain.errors import InvariantBroken, Malformed, Rejected, Unavailable
from medchain.store.keyvalue import KeyValue, WriteBatch
from medchain.store.overlay import StateView
from medchain.store.staged import Staged
from medchain.wire.peer import (
    BlockSent,
    BlockWanted,
    Entry,
    EvidenceSent,
    PastVotesSent,
    PastVotesWanted,
    PeerMessage,
    PeerStatus,
    PoolListed,
    ProposalWanted,
    RangeSent,
    RangeWanted,
    TransactionsOffered,
    TransactionsWanted,
)

OVERLOAD_RETRY_MS: Final = 1_000
"""When a client should come again after the pool had no room: some twenty blocks later at the shortest interval."""
CATCH_UP_BLOCKS_PER_TURN: Final = 16
"""Certified blocks applied in one turn, so that a node catching up still hears its peers and clients in between."""
CATCH_UP_TRANSACTIONS_PER_TURN: Final = 256
"""After so many no further block is begun in a turn: what is asked for next is sent at its end, and comes while the rest is applied."""
ClientEvent = Submitted | Queried | ReleaseAsked


class Engine:
    """A whole node minus the world."""

    def __init__(
        self,
        *,
        genesis: Genesis,
        store: KeyValue,
        consensus_key: SigningKey | None,
        verifier: Verifier,
        challenge: bytes,
        pool_bytes_max: int = POOL_BYTES_MAX,
        is_store_damaged: bool = False,
    ) -> None:
        """Recover from the store.

        `consensus_key` None, or not in the validator set, makes an observer. `challenge`: 32 fresh random bytes of this start, for the
        amnesia check. `is_store_damaged`: the world found and repaired damage, so votes may be missing. An empty store is founded with the
        first turn and counts as wiped. Raises Rejected (`store.*`) when the store cannot be used.
        """
        self._staged = Staged(store)
        self._turn = Turn()
        if decided.is_empty(self._staged):
            decided.stage_founding(genesis, self._staged)
            recovery.mark_unconfirmed(self._staged)
        self._chain = chain = DecidedChain(genesis, self._staged)
        if is_store_damaged:
            recovery.mark_unconfirmed(self._staged)
        self._own = b"" if consensus_key is None else consensus_key.public
        self._verifier = verifier
        self._pool = Mempool(self._staged, pool_bytes_max)
        self._admission = Admission(chain, self._pool, verifier)
        self._gossip = Gossip(self._pool, self._turn)
        self._sync = Sync(chain, self._turn)
        self._allowance = Allowance(self._turn)
        self._executor = executor = Executor(chain, verifier, self._pool.holds)
        self._evidence = EvidencePool(chain, self._staged, self._turn, verifier, self._own)
        self._agreement = Agreement(
            chain, self._staged, self._turn, verifier, executor, self._pool, self._evidence, self._gossip, self._sync, consensus_key,
            self._adopt,
        )  # fmt: skip
        try:
            ended = self._pool.load(chain.height, self._admission.place)
            self._check_pool()
            self._evidence.load()
        except Malformed as error:
            raise damaged(error.message) from None
        self._report_expired(ended)
        records = self._agreement.start()
        self._check = recovery.AmnesiaCheck(chain, self._staged, self._turn, verifier, own=self._own, challenge=challenge, records=records)
        self._reading = Reading(chain, self._pool, self._staged, self._turn, self.status)

    def _check_pool(self) -> None:
        """Raise Malformed unless every entry found on disk is signed: one rotten entry would spoil every block proposed here."""
        network = self._chain.network
        if not all(self._verifier.check_all([entry.transaction.verification(network) for entry in self._pool.entries()])):
            raise Malformed("the signature of a pool entry does not hold")

    @staticmethod
    def founding_batch(genesis: Genesis) -> WriteBatch:
        """Return what `node init` writes once into an empty store: it makes it intact at height 0, so that a wiped one is recognised."""
        return decided.founding_batch(genesis)

    # ---- facts ------------------------------------------------------------------------------------------------------------------

    @property
    def head(self) -> HeadFacts:
        """The newest decided block."""
        return self._chain.head

    @property
    def state(self) -> StateView:
        """The state after the head."""
        return self._chain.state

    @property
    def chain(self) -> DecidedChain:
        """The decided chain, for tests, checkers and tools; it must not be changed."""
        return self._chain

    @property
    def executed_weight(self) -> int:
        """The work of all transactions executed since the start, blocks that were never decided included."""
        return self._executor.executed_weight

    def is_admissible(self, transaction: Transaction) -> bool:
        """Answer whether a transaction would be accepted if its signature holds: the world need not verify any other beforehand."""
        return self._admission.is_admissible(transaction)

    def status(self) -> dict[str, Any]:
        """Return what `node.status` answers (wire/methods.py), with more for operators under `agreement`."""
        replica, head = self._agreement.replica, self._chain.head
        return {
            "height": head.height,
            "digest": head.digest,
            "time_ms": head.time_ms,
            "state_root": head.state_root,
            "view": replica.view,
            "is_validator": self._chain.validators.index_of(self._own) is not None,
            "may_vote": self._may_vote(),
            "consensus_key": self._own or None,
            "peers": list(self._gossip.peers),
            "pool_transactions": len(self._pool),
            "is_catching_up": self._sync.is_catching_up(),
            "waits_for": self._waits_for(),
            "best_height": self._sync.best_height(),
            "agreement": replica.explain(),
        }

    def _waits_for(self) -> str:
        """Return in a sentence what the node waits for; empty when it is idle or at work."""
        needed, connected = self._chain.validators.quorum, len(self._gossip.peers)
        if not self._check.is_passed:
            return f"{self._check.answered()} of {self._check.needed()} other validators have told what they hold signed by this node"
        if self._chain.height + 1 <= self._check.observer_until:
            return f"height {self._check.observer_until}: up to there it only observes, because its store had forgotten votes"
        if self._agreement.is_copied:
            return "an operator: another holder of this node's key showed itself"
        if connected + 1 < needed and self._own:
            return f"peers: {connected} are connected, {needed - 1} are needed for a quorum"
        return ""

    def _may_vote(self) -> bool:
        return self._chain.validators.is_voter(self._own) and self._check.may_vote() and not self._agreement.is_copied

    # ---- a turn -----------------------------------------------------------------------------------------------------------------

    def handle_all(self, events: Sequence[Event]) -> Ready:
        """Take the events and return what the world must do.

        Time and peers come first, in order, then clients, in order: so an answer is of the newest head, and what is accepted in this turn
        has not expired in it.

        The world writes `Ready.batch` to the store, synced, before it sends or answers anything and before the next call. Raises
        InvariantBroken for our own bugs and for a certified block that executes otherwise here: the node must stop.
        """
        height = self._chain.height
        for event in events:
            if not isinstance(event, ClientEvent):
                self._take(event)
        self._catch_up()
        for event in events:
            if isinstance(event, ClientEvent):
                self._take(event)
        self._settle()
        self._gossip.end_turn()
        if self._chain.height != height:
            self._sync.ask()
        sends, replies = self._turn.take()
        batch = self._staged.take_batch()
        again_ms = 0 if self._sync.has_blocks() else self._agreement.proposer.due_in_ms()
        return Ready(batch, sends, replies, again_ms) if sends or replies or batch or again_ms is not None else NOTHING_TO_DO

    def _take(self, event: Event) -> None:
        match event:
            case Ticked(monotonic_ms, wall_ms):
                self._turn.set_time(monotonic_ms, wall_ms)
                self._gossip.tick()
                self._sync.tick()
                self._check.tick(self._gossip.peers)
                self._agreement.tick()
            case PeerConnected(peer):
                self._connect(peer)
            case PeerDisconnected(peer):
                self._gossip.disconnect(peer)
                self._sync.disconnect(peer)
            case Received(peer, message):
                self._receive(peer, message)
            case Submitted():
                self._submit(event)
            case Queried():
                self._query(event)
            case ReleaseAsked():
                self._release(event)
            case _:
                assert_never(event)

    def _settle(self) -> None:
        """Let what the events made possible happen: end the amnesia check, vote or stop voting, propose."""
        shown = self._check.next_certificate()
        if shown is not None:
            self._agreement.learn(shown)
        self._check.settle()
        self._agreement.allow_voting(self._may_vote())
        self._agreement.settle()

    def _connect(self, peer: bytes) -> None:
        """A peer is there: say where this node stands, repeat what it said about this height, ask what it remembers."""
        if self._gossip.is_connected(peer):
            self._gossip.disconnect(peer)
            self._sync.disconnect(peer)
        self._gossip.connect(peer)
        self._sync.connect(peer)
        for message in self._agreement.replica.own_messages():
            self._turn.send(peer, message)
        self._evidence.tell(peer)
        self._check.ask(peer)

    # ---- peers ------------------------------------------------------------------------------------------------------------------

    def _receive(self, peer: bytes, message: PeerMessage) -> None:
        points = _points_of(message)
        if points and not self._allowance.take(peer, points):
            return
        match message:
            case PrePrepare() | Vote() | ViewChange():
                self._agreement.take(peer, message)
            case PeerStatus():
                self._sync.take_status(peer, message)
            case TransactionsOffered():
                self._take_offered(peer, message.transactions)
            case PoolListed():
                self._take_list(peer, message)
            case TransactionsWanted():
                self._gossip.answer(peer, self._agreement.find_wanted(message.entries))
            case BlockWanted():
                self._agreement.answer_block(peer, message)
            case BlockSent():
                self._agreement.take_block(message)
            case ProposalWanted():
                self._agreement.answer_proposal(peer, message)
            case RangeWanted():
                self._sync.answer_range(peer, message)
            case RangeSent():
                self._sync.take_range(peer, message)
            case EvidenceSent():
                self._evidence.take(peer, message)
            case PastVotesWanted():
                votes, view_changes = self._agreement.replica.messages_signed_by(peer)
                self._turn.send(peer, PastVotesSent(message.challenge, self._chain.height, self._chain.certificate, votes, view_changes))
            case PastVotesSent():
                for statement in self._check.take(peer, message):
                    self._agreement.feed(VoteReceived(statement) if isinstance(statement, Vote) else ViewChangeReceived(statement))
            case _:
                assert_never(message)

    def _take_offered(self, peer: bytes, transactions: tuple[Transaction, ...]) -> None:
        """Transactions from a peer: those that proposals wait for are used at once, and what admission lets pass is kept."""
        self._agreement.take_transactions(transactions)
        for transaction in transactions:
            if transaction.id not in self._pool:
                try:
                    placement = self._admission.check(transaction)
                    self._pool.add(transaction, placement, is_local=False, now_ms=self._turn.monotonic_ms)
                except Rejected as refusal:  # most reasons depend on heights that differ between honest nodes; a forgery does not
                    if refusal.code == "transaction.signature":
                        self._turn.accuse(peer, "it sent a transaction with a forged signature")
        self._gossip.confirm(peer, (transaction.id for transaction in transactions))

    def _take_list(self, peer: bytes, message: PoolListed) -> None:
        entries = message.entries[:LIST_ENTRIES_MAX]
        missing: list[Entry] = []
        if self._pool.has_room():
            missing = [entry for entry in entries if entry[0] not in self._pool and self._chain.archive.locate(entry[0]) is None]
        self._gossip.take_list(peer, entries, missing)

    # ---- clients ----------------------------------------------------------------------------------------------------------------

    def _submit(self, event: Submitted) -> None:
        """Answer a submission honestly: durable with this turn, known already, or refused with a code (node.md, "RPC")."""
        transaction = event.transaction
        if transaction.id in self._pool:
            self._pool.adopt(transaction.id)
            self._turn.reply(Accepted(event.request, transaction.id, True))
            return
        try:
            placement = self._admission.check(transaction)
            self._pool.add(transaction, placement, is_local=True, now_ms=self._turn.monotonic_ms)
        except Rejected as refusal:
            retry_ms = OVERLOAD_RETRY_MS if refusal.code.startswith("pool.") else 0
            self._turn.reply(Refused(event.request, refusal.code, refusal.message, retry_ms))
            return
        self._gossip.forward(transaction)
        self._turn.reply(Accepted(event.request, transaction.id, False))

    def _query(self, event: Queried) -> None:
        read = READS.get(event.method)
        if read is None:
            raise InvariantBroken(f"the engine serves no method {event.method}")
        try:
            self._turn.reply(Answered(event.request, read(self._reading, event.params)))
        except Rejected as refusal:
            self._turn.reply(Refused(event.request, refusal.code, refusal.message))
        except Malformed as error:
            self._turn.reply(Refused(event.request, error.code, error.message))
        except Unavailable as error:
            self._turn.reply(Refused(event.request, error.code, error.message, error.retry_after_ms))

    def _release(self, event: ReleaseAsked) -> None:
        try:
            self._turn.reply(Answered(event.request, take_release(self._chain, self._staged, self._turn, event.permit)))
        except Rejected as refusal:
            self._turn.reply(Refused(event.request, refusal.code, refusal.message))

    # ---- deciding ---------------------------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Verify and apply fetched blocks, some each turn."""
        transactions = 0
        for _ in range(CATCH_UP_BLOCKS_PER_TURN):
            item = self._sync.next_block() if transactions < CATCH_UP_TRANSACTIONS_PER_TURN else None
            if item is None:
                return
            peer, block, certificate = item
            transactions += len(block.transactions)
            if not self._agreement.take_certified(block, certificate):
                self._sync.condemn(peer, f"it sent a block of height {block.header.height} that is not certified")

    def _adopt(self, executed: Executed, certificate: Certificate) -> None:
        """Make a certified, executed block the head: everything of it in this turn's batch."""
        self._chain.advance(executed, certificate)
        settled = [transaction.id for transaction in executed.block.transactions]
        ended = self._pool.settle(settled, self._chain.height)
        self._gossip.forget([*settled, *(entry.transaction.id for entry in ended)])
        self._evidence.settle()
        self._evidence.report(executed.applied.due_events)
        self._sync.saw_decision()
        header = executed.block.header
        self._turn.reply(BlockDecided(header.height, executed.digest, header.time_ms, executed.applied.receipts))
        self._report_expired(ended)

    def _report_expired(self, ended: Sequence[PoolEntry]) -> None:
        expired = tuple(entry.transaction.id for entry in ended if entry.is_local)
        if expired:
            self._turn.reply(TransactionsExpired(expired))


def _points_of(message: PeerMessage) -> int:
    """Return what a question takes off its sender's allowance; ranges have an allowance of their own (sync.py)."""
    match message:
        case TransactionsWanted():
            return 1 + len(message.entries) // ENTRIES_PER_POINT
        case BlockWanted():
            return 1
        case ProposalWanted():
            return PROPOSAL_POINTS
        case PastVotesWanted():
            return PAST_VOTES_POINTS
        case PoolListed():
            return LIST_POINTS
        case EvidenceSent():
            return EVIDENCE_POINTS
        case _:
            return 0
