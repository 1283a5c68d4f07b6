"""Between the replica and the rest of the node: verified messages in, and every output of the replica obeyed in order.

The replica knows votes and views; here proposals get their bytes and are executed, hard state is written, and a decision is handed to the
engine with the executed block. Rules: protocol.md, "Agreement" and "Durable before said": what is written here leaves in the same batch
as, and therefore before, what is sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, assert_never

from medchain.chain.block import Block
from medchain.chain.certificate import Certificate
from medchain.chain.transaction import Transaction
from medchain.chain.vote import COMMIT, ViewChange, Vote
from medchain.consensus import events, rotation
from medchain.consensus.events import Input, Output
from medchain.consensus.messages import PrePrepare
from medchain.consensus.replica import Replica
from medchain.crypto.signing import SigningKey
from medchain.engine import hardstate
from medchain.engine.allowance import Allowance
from medchain.engine.decided import DecidedChain, Executed, damaged
from medchain.engine.evidence import EvidencePool
from medchain.engine.executor import Executor
from medchain.engine.fetching import Fetching
from medchain.engine.gossip import Gossip
from medchain.engine.late import LateCommits
from medchain.engine.mempool import Mempool
from medchain.engine.proposer import Proposer
from medchain.engine.sync import Sync
from medchain.engine.turn import Turn
from medchain.engine.verification import Item, Verifier
from medchain.errors import InvariantBroken, Malformed, Rejected
from medchain.store.staged import Staged
from medchain.wire.peer import BlockSent, BlockWanted, ConsensusMessage, Entry, ProposalWanted

HELD_MAX: Final = 16
"""Whole blocks of the undecided height kept in memory: one for each view that gets as far; pinned ones are on disk as well."""
SIGNATURES_PER_POINT: Final = 8
"""A view change costs its sender a point of attention, and one for so many signatures of its proof: at 128 validators five new ones a
second are verified, while an honest peer has one a second at most."""
BLOCKS_PER_SECOND_MAX: Final = 8
"""Undecided blocks sent to one peer: it needs one for each view."""

LISTENING_MS: Final = 100
"""An idle node looks at the clock so often: what passes beyond that from one tick to the next it was busy or stood still."""
LISTENING_SHARE: Final = 10
"""With longer timers a tenth of the base: a view of the base's length has at least ten turns to hear its votes in."""


class Agreement:
    """Drives the replica of one node."""

    def __init__(
        self,
        chain: DecidedChain,
        staged: Staged,
        turn: Turn,
        verifier: Verifier,
        executor: Executor,
        pool: Mempool,
        evidence: EvidencePool,
        gossip: Gossip,
        sync: Sync,
        key: SigningKey | None,
        adopt: Callable[[Executed, Certificate], None],
    ) -> None:
        """Wire the parts; `adopt` makes an executed, certified block the new head."""
        self._chain = chain
        self._staged = staged
        self._turn = turn
        self._verifier = verifier
        self._executor = executor
        self._pool = pool
        self._evidence = evidence
        self._gossip = gossip
        self._sync = sync
        self._own = b"" if key is None else key.public
        self._adopt = adopt
        self.replica = Replica(chain.network, key)
        self.late = LateCommits(chain, verifier)
        self.proposer = Proposer(chain, pool, self.late, evidence, executor, turn, self._own)
        self.fetching = Fetching(turn, lambda: gossip.peers)
        self._held: dict[bytes, Block] = {}
        self._told_by: dict[bytes, bytes] = {}
        """Digest of a block of the undecided height → who sent its proposal, if that was not its primary."""
        self._awaited: Certificate | None = None
        self._inputs: deque[Input] = deque()
        self._is_feeding = False
        self._situation: tuple[bool, bool, bool, bool] | None = None
        """What the replica was told last, in the order of the fields of SituationChanged."""
        self._is_voting_allowed = False
        self.is_copied = False
        """Whether another holder of this node's key showed itself: then it never votes again in this process."""
        self._blocks_sent: dict[bytes, int] = {}
        self._attention = Allowance(turn)
        self._is_handed_on = False
        self._next_allowance_ms = 0
        self._ticked_ms: int | None = None
        self._listened_ms = 0
        """The replica's time: that of the first tick, and what passed since, long turns left out."""

    # ---- the replica ------------------------------------------------------------------------------------------------------------

    def start(self) -> tuple[events.HardState, ...]:
        """Begin the height after the head, with what the store holds of it; return that. Raises Rejected when it is damaged."""
        try:
            records = hardstate.load(self._staged, self._chain.archive, self._chain.height + 1)
            for record in records:
                if isinstance(record, events.PinnedProposal):
                    block = hardstate.pinned_block(self._chain.archive, record.proposal.header.digest())
                    self._hold(block)
        except Malformed as error:
            raise damaged(error.message) from None
        self._start_height(records)
        return records

    def allow_voting(self, is_allowed: bool) -> None:
        """Tell the replica whether this node may sign, when that changes."""
        if is_allowed != self._is_voting_allowed:
            self._is_voting_allowed = is_allowed
            self.feed(events.VotingAllowed(is_allowed))

    def feed(self, event: Input) -> None:
        """Hand the replica an event and obey what it answers, and what follows from that, in order."""
        self._inputs.append(event)
        if self._is_feeding:
            return
        self._is_feeding = True
        while self._inputs:
            for output in self.replica.handle(self._inputs.popleft()):
                self._obey(output)
        self._is_feeding = False

    def _start_height(self, records: tuple[events.HardState, ...]) -> None:
        self._is_handed_on = False
        chain = self._chain
        self.feed(
            events.HeightStarted(
                height=chain.height + 1,
                validators=chain.validators,
                rotation=chain.rotation,
                parameters=chain.parameters,
                parent_time_ms=chain.header.time_ms,
                parent_digest=chain.digest,
                hard_state=records,
            )
        )

    def _obey(self, output: Output) -> None:
        match output:
            case events.Persist(record):
                self._persist(record)
            case events.Broadcast(message):
                self._broadcast(message)
            case events.BuildProposal():
                self.proposer.ask(output)
            case events.CheckProposal():
                self._check(output)
            case events.FetchBlock(height, digest):
                self._fetch(height, digest)
            case events.HandOver():
                self._gossip.hand_over(self.replica.primary_key())
                self._evidence.tell(self.replica.primary_key())
            case events.Decided(certificate):
                self._decide(certificate)
            case events.EvidenceFound():
                self._evidence.find(output.first, output.second)
            case events.SawUnknownOwnVote():
                self.is_copied = True
                self._turn.alarm(
                    "amnesia.unknown-vote",
                    "another hospital shows a vote signed with this node's key that it never sent: it stopped voting. Look for a second "
                    "copy of this node or a stolen key before starting it again",
                )
            case _:
                assert_never(output)

    def _broadcast(self, message: PrePrepare | Vote | ViewChange) -> None:
        """Tell all peers. With a late commit comes first where this node stands, else they take it for a question and send the block."""
        if isinstance(message, Vote) and message.height <= self._chain.height:
            self.late.keep((message,))
            self._sync.announce()
        self._turn.broadcast(message)

    def _persist(self, record: events.HardState) -> None:
        if hardstate.height_of(record) > self._chain.height:  # a late commit of a height that this turn decided is not needed any more
            block = self._find(record.proposal.header.digest()) if isinstance(record, events.PinnedProposal) else None
            hardstate.save(self._staged, self._chain.archive, record, block)

    # ---- proposals --------------------------------------------------------------------------------------------------------------

    def _check(self, request: events.CheckProposal) -> None:
        proposal = request.proposal
        self.proposer.saw_proposal(proposal.header.time_ms)
        if len(proposal.entries) > self._chain.parameters.block_transactions_max:  # nothing is fetched for what cannot be valid
            self._turn.accuse(proposal.header.proposer, "it proposed a block of more transactions than allowed")
            self.feed(events.ProposalChecked(proposal.header.digest(), False))
            return
        block = self._find(proposal.header.digest())
        if block is None:
            held = self._held_transactions()
            teller = self._told_by.get(proposal.header.digest(), request.proposer_hint)
            block = self.fetching.gather(proposal, teller, lambda entry: self._pool.find(entry) or held.get(entry))
        if block is not None:
            self._judge(block)

    def _held_transactions(self) -> dict[Entry, Transaction]:
        """Return the transactions of other blocks of this height: with the authentication of a proposal, which the pool may not hold."""
        return {transaction.entry: transaction for block in self._held.values() for transaction in block.transactions}

    def _judge(self, block: Block) -> None:
        """Execute a whole block and tell the replica whether it is valid."""
        digest = block.header.digest()
        self._hold(block)
        try:
            self._executor.execute(block)
        except Rejected as refusal:
            self._held.pop(digest)  # else peers that lack its transactions would get them from here, and a forged one would be blamed on us
            self._turn.accuse(block.header.proposer, f"it proposed a block that breaks a rule ({refusal.code})")
            self.feed(events.ProposalChecked(digest, False))
        else:
            self.feed(events.ProposalChecked(digest, True))

    def _fetch(self, height: int, digest: bytes) -> None:
        block = self._find(digest)
        if block is None:
            self.fetching.want_block(height, digest)
        else:
            self.feed(events.BlockHeld(block.proposal()))

    def _find(self, digest: bytes) -> Block | None:
        """Return a whole block of the undecided height: from memory, or pinned on disk, where memory's bound does not reach."""
        block = self._held.get(digest)
        if block is None and self._chain.archive.is_pinned(self._chain.height + 1, digest):
            block = hardstate.pinned_block(self._chain.archive, digest)
        return block

    def _hold(self, block: Block) -> None:
        self._held[block.header.digest()] = block
        while len(self._held) > HELD_MAX:
            del self._held[next(iter(self._held))]

    # ---- deciding ---------------------------------------------------------------------------------------------------------------

    def _decide(self, certificate: Certificate) -> None:
        """Adopt the certified block if its bytes are here, else get them first; then begin the next height."""
        executed = self._executor.result(certificate.digest)
        if executed is None:
            block = self._find(certificate.digest)
            if block is None:
                self._awaited = certificate
                self.fetching.want_block(certificate.height, certificate.digest, self._holders_of(certificate))
                return
            try:
                executed = self._executor.execute(block)
            except Rejected as refusal:
                raise InvariantBroken(f"a certified block cannot be executed here: {refusal}") from refusal
        self._awaited = None
        counted = self.replica.commits_of(certificate.digest)
        self._adopt(executed, certificate)
        self.late.keep(counted)
        if certificate.height > self._sync.credible_height() - self._chain.parameters.rotation_window(len(self._chain.validators)):
            self.feed(events.DecisionAdopted())
        self._executor.forget()
        self.fetching.clear()
        self._held.clear()
        self._told_by.clear()
        self.proposer.saw_decision(certificate.view)
        self._start_height(hardstate.load(self._staged, self._chain.archive, self._chain.height + 1))

    def _holders_of(self, certificate: Certificate) -> tuple[bytes, ...]:
        """Return who signed a certificate, its primary last: that one left this node out, else the block would be here."""
        signers = (self._chain.validators.validators[index].consensus_key for index, _ in certificate.commits)
        leader = rotation.primary(self._chain.rotation, certificate.height, certificate.view)
        return tuple(sorted(signers, key=lambda signer: signer == leader))

    def take_certified(self, block: Block, certificate: Certificate) -> bool:
        """Take a certified block from a peer: adopt it if it is next; return whether it is certified."""
        if block.header.height != self._chain.height + 1:
            return True
        if certificate.digest != block.header.digest() or not self._executor.is_certified(certificate, self._chain.validators):
            return False
        self._hold(block)
        if self._awaited is not None:
            self._decide(self._awaited)
        else:
            self.feed(events.CertificateLearned(certificate))
        return True

    def learn(self, certificate: Certificate) -> None:
        """Take a certificate of the height being agreed on without its block, which is then looked for: here, and with its signers."""
        is_open = self.replica.decided is None and certificate.height == self.replica.height
        if is_open and self._executor.is_certified(certificate, self._chain.validators):
            self.feed(events.CertificateLearned(certificate))

    # ---- messages ---------------------------------------------------------------------------------------------------------------

    def take(self, peer: bytes, message: ConsensusMessage) -> None:
        """Take a vote, a view change or a pre-prepare: verified, then handed on; a decided height is answered with its block."""
        head = self._chain.height
        if message.height <= head:
            self._take_decided(peer, message)
            return
        self._sync.hint(peer, message.height - 1)
        if message.height > head + 2 or (message.height == head + 2 and isinstance(message, ViewChange)):
            return  # the replica keeps votes and a proposal of the height after its own; anything else is resent
        match message:
            case Vote():
                if self._is_worth_checking(peer, message) and self._are_valid(peer, [message.verification(self._chain.network)]):
                    self.feed(events.VoteReceived(message))
            case ViewChange():
                if self._is_worth_checking(peer, message) and self._is_genuine(peer, message):
                    self.feed(events.ViewChangeReceived(message))
                    self._hand_on(peer, message)
            case PrePrepare():
                self._take_pre_prepare(peer, message)

    def _is_worth_checking(self, peer: bytes, message: Vote | ViewChange) -> bool:
        """Answer whether a statement deserves a verification: a validator's, and not one of ever new ones that nobody needs.

        A liar can sign votes for views without end; each costs 56 us to verify. What honest validators send now is always looked at; of the
        rest (votes of far views or against a vote held, new view changes) each peer has an allowance, and what is honest comes again.
        """
        if not self._chain.validators.is_voter(message.signer):
            return False
        if isinstance(message, Vote):
            return self.replica.is_expected(message) or self._attention.take(peer, 1)
        if message.signer != self._own and not self.replica.is_news(message):
            return False  # one of this node's own that it does not know is news whatever its view
        proven = 0 if message.proof is None else len(message.proof.prepares)
        return self._attention.take(peer, 1 + proven // SIGNATURES_PER_POINT)

    def _hand_on(self, peer: bytes, change: ViewChange) -> None:
        """Give the primary of view 0 the first view change of a height, if it may not know it: its turn ends over it.

        A liar could show it to everybody else in an idle network; the honest primary, which has nothing to propose, would lose its turns.
        One is enough for its timer to run as ours does, and more would be n^2 messages in every change of the view.
        """
        primary = self.replica.primary_key()
        is_open = self.replica.view == 0 and change.height == self.replica.height and self.replica.decided is None
        if is_open and not self._is_handed_on and primary not in (self._own, peer, change.signer):
            self._is_handed_on = True
            self._turn.send(primary, change)

    def _take_decided(self, peer: bytes, message: ConsensusMessage) -> None:
        """A message about a decided height: a late commit, or the question of one who has not decided it yet."""
        is_commit = isinstance(message, Vote) and message.kind == COMMIT
        if isinstance(message, Vote) and not self.late.take(message):
            self._turn.accuse(peer, "it sent a forged signature")
        elif not is_commit or not self._sync.has_decided(peer, message.height):
            self._sync.answer_late(peer, message.height)

    def _take_pre_prepare(self, peer: bytes, message: PrePrepare) -> None:
        validators, network = self._chain.validators, self._chain.network
        if not validators.is_voter(message.prepare.signer) or not all(validators.is_voter(c.signer) for c in message.view_changes):
            return
        items = [message.prepare.verification(network)]
        try:
            for change in message.view_changes:
                items.append(change.verification(network))
                if change.proof is not None:
                    items += change.proof.verifications(network, validators)
        except Malformed:
            self._turn.accuse(peer, "it sent a proposal with a malformed proof")
            return
        if not self._are_valid(peer, items):
            return
        unjustified = self.replica.why_unjustified(message)
        if unjustified is not None:
            # whoever sent it: the envelope is unsigned, so a liar could wrap an honest primary's prepare into it
            self._turn.accuse(peer, f"it sent an unjustified proposal: {unjustified}")
        if peer != message.prepare.signer and message.height == self._chain.height + 1:
            self._told_by = {message.digest: peer}
        self.feed(events.PrePrepareReceived(message))

    def _is_genuine(self, peer: bytes, change: ViewChange) -> bool:
        """Answer whether a view change is signed by a voter and proves what it shows."""
        if not self._chain.validators.is_voter(change.signer):
            return False
        items = [change.verification(self._chain.network)]
        if change.prepared_view is not None:
            try:
                if change.proof is None:
                    raise Malformed("a view change lacks the proof of what it shows")
                items += change.proof.verifications(self._chain.network, self._chain.validators)
            except Malformed:
                self._turn.accuse(peer, "it sent a view change without a proof of what it shows")
                return False
        return self._are_valid(peer, items)

    def _are_valid(self, peer: bytes, items: list[Item]) -> bool:
        if all(self._verifier.check_all(items)):
            return True
        self._turn.accuse(peer, "it sent a forged signature")
        return False

    def take_transactions(self, transactions: tuple[Transaction, ...]) -> None:
        """Use transactions that proposals wait for."""
        for block in self.fetching.take_transactions(transactions):
            self._judge(block)

    def take_block(self, message: BlockSent) -> None:
        """Take an undecided block that was asked for; anything else is not kept."""
        block = message.block
        digest = block.header.digest()
        if block.header.height != self._chain.height + 1 or not self.fetching.take_block(digest):
            return
        self._hold(block)
        if self._awaited is not None and self._awaited.digest == digest:
            self._decide(self._awaited)
            return
        self.feed(events.BlockHeld(block.proposal()))
        self.take_transactions(block.transactions)

    def answer_block(self, peer: bytes, wanted: BlockWanted) -> None:
        """Send a block that a peer lacks: a decided one with its certificate, or a pinned one."""
        if wanted.height <= self._chain.height:
            self._sync.answer_late(peer, wanted.height, is_asked=True)
            return
        block = self._find(wanted.digest)
        sent = self._blocks_sent.get(peer, 0)
        if block is not None and wanted.height == self._chain.height + 1 and sent < BLOCKS_PER_SECOND_MAX:
            self._blocks_sent[peer] = sent + 1
            self._turn.send(peer, BlockSent(block))

    def answer_proposal(self, peer: bytes, wanted: ProposalWanted) -> None:
        """Send the pre-prepare of a view to a peer that saw votes for it alone, or the block when the height is decided."""
        if wanted.height <= self._chain.height:
            self._sync.answer_late(peer, wanted.height, is_asked=True)
            return
        message = self.replica.proposal_of(wanted.height, wanted.view)
        if message is not None:
            self._turn.send(peer, message)

    def find_wanted(self, entries: tuple[Entry, ...]) -> list[Transaction]:
        """Return the transactions a peer asks for, as far as they are in the pool or in blocks of this height."""
        pooled = {entry: self._pool.find(entry) for entry in entries}
        held = self._held_transactions() if None in pooled.values() else {}
        found = (transaction or held.get(entry) for entry, transaction in pooled.items())
        return [transaction for transaction in found if transaction is not None]

    # ---- time -------------------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Hand time to the replica and to open searches."""
        self._pass_time()
        if self._turn.monotonic_ms >= self._next_allowance_ms:
            self._next_allowance_ms = self._turn.monotonic_ms + 1_000
            self._blocks_sent.clear()
        self.settle()
        self.feed(events.Ticked(self._listened_ms, self._turn.wall_ms))
        self.fetching.want_proposal(self.replica.height, self.replica.view, self.replica.proposal_holders())
        self.fetching.tick(self.replica.preparers_of)

    def _pass_time(self) -> None:
        """Count the time since the last tick as far as this node can have listened: what waits unread after a long turn is no silence."""
        now_ms = self._turn.monotonic_ms
        if self._ticked_ms is None:
            self._ticked_ms = self._listened_ms = now_ms
        passed_ms, self._ticked_ms = now_ms - self._ticked_ms, now_ms
        self._listened_ms += min(passed_ms, max(LISTENING_MS, self._chain.parameters.view_timeout_base_ms // LISTENING_SHARE))
        self.proposer.saw_turn(passed_ms)

    def settle(self) -> None:
        """At the end of a turn: tell the replica what changed around it, and build the block it asked for if the moment has come.

        A decision may make the next moment come at once (an interval of 0 with a single validator voting), so it ends after a few rounds.
        """
        for _ in range(4):
            self._tell_situation()
            if not self.proposer.is_asked:
                return
            executed = self.proposer.build(self.replica.height, self.replica.view, is_pressed=self.replica.is_pressed())
            if executed is None:
                return
            self._hold(executed.block)
            self.feed(events.ProposalBuilt(executed.block.header.view, executed.block.proposal()))

    def _tell_situation(self) -> None:
        primary = self.replica.primary_key()
        is_own = primary == self._own
        is_waiting = len(self._pool) > 0 or len(self._evidence) > 0
        situation = (
            is_waiting if is_own else self._gossip.knows_any(primary),
            is_waiting,
            is_own or self._gossip.is_connected(primary),
            self.proposer.is_heartbeat_due(),
        )
        if situation != self._situation:
            self._situation = situation
            self.feed(events.SituationChanged(*situation))
