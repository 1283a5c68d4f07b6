"""Liars as primaries: two blocks, false blocks, blocks that nobody can get, other authentications, unjustified blocks, no blocks.

Such a liar holds its engine's own pre-prepare back for a turn, because only then the store shows what the block stands on, and says
something else in its place. It answers for the bytes of what it made up itself, as far as it wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from medchain.chain.block import Block
from medchain.chain.evidence import Contradiction
from medchain.chain.transaction import Transaction, transactions_root
from medchain.chain.validators import quorum
from medchain.chain.vote import COMMIT, PREPARE, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.crypto.hashing import tagged_digest
from medchain.crypto.signing import SigningKey
from medchain.engine.ready import Envelope, Event, Ready, Received, Submitted
from medchain.sim.authentication import sign_again, sign_otherwise, with_authentication_of, with_forged_signature
from medchain.sim.engines import build_block
from medchain.sim.liars.liar import Liar
from medchain.sim.node import EngineLike, Start
from medchain.wire.peer import BlockSent, BlockWanted, Entry, TransactionsOffered, TransactionsWanted

TRANSACTIONS_KEPT: Final = 200
"""Transactions heard of that a liar can build blocks from."""
BLOCKS_KEPT: Final = 8
USURPED_MAX: Final = 6
"""Proposals of one height that a usurper answers, each with one of its own in every next view."""


class FalsePrimary(Liar):
    """What liars about proposals share."""

    def __init__(self, start: Start, engine: EngineLike) -> None:
        super().__init__(start, engine)
        self.heard: dict[bytes, Transaction] = {}
        self.made: dict[bytes, Block] = {}
        """Blocks made up here, by digest."""
        self._held_back: list[Envelope] = []

    def lie(self, events: Sequence[Event]) -> Ready:
        """Say what should be said instead of the last turn's proposals, then take a turn."""
        said = [again for envelope in self._held_back for again in self._instead_of(envelope)]
        for event in events:
            said += self._listen(event)
        ready = self.engine.handle_all(events)
        self._held_back = [envelope for envelope in ready.send if self._is_own_proposal(envelope)]
        kept = [envelope for envelope in ready.send if not self._is_own_proposal(envelope)]
        return replace(ready, send=(*said, *self.spoil(kept)))

    def _is_own_proposal(self, envelope: Envelope) -> bool:
        return isinstance(envelope.message, PrePrepare) and envelope.message.prepare.signer == self.own

    def _instead_of(self, envelope: Envelope) -> list[Envelope]:
        if not isinstance(envelope.message, PrePrepare):
            return [envelope]
        return self.propose(envelope, envelope.message)

    def propose(self, envelope: Envelope, message: PrePrepare) -> list[Envelope]:
        """Return what is said instead of an own proposal."""
        return [envelope]

    def _listen(self, event: Event) -> list[Envelope]:
        """Remember transactions, and answer for what was made up here."""
        if isinstance(event, Submitted):
            self.heard[event.transaction.id] = event.transaction
        elif isinstance(event, Received):
            message, peer = event.message, event.peer
            if isinstance(message, TransactionsOffered):
                self.heard.update((transaction.id, transaction) for transaction in message.transactions)
            elif isinstance(message, BlockWanted) and message.digest in self.made:
                return [Envelope(peer, BlockSent(self.made[message.digest]))]
            elif isinstance(message, TransactionsWanted):
                found = self._made_transactions(message.entries)
                return [Envelope(peer, TransactionsOffered(found))] if found else []
        while len(self.heard) > TRANSACTIONS_KEPT:
            del self.heard[next(iter(self.heard))]
        return []

    def _made_transactions(self, entries: tuple[Entry, ...]) -> tuple[Transaction, ...]:
        held = {transaction.entry: transaction for block in self.made.values() for transaction in block.transactions}
        return tuple([held[entry] for entry in entries if entry in held])

    def transactions_of(self, message: PrePrepare) -> list[Transaction]:
        """Return the transactions of a proposal, as far as they were heard of."""
        return [self.heard[identity] for identity, _ in message.proposal.entries if identity in self.heard]

    def keep(self, block: Block) -> bytes:
        """Remember a block made up here; return its digest."""
        digest = block.header.digest()
        self.made[digest] = block
        while len(self.made) > BLOCKS_KEPT:
            del self.made[next(iter(self.made))]
        return digest

    def instead(self, message: PrePrepare, block: Block) -> PrePrepare:
        """Return a pre-prepare of another block in the place of an own one, signed anew."""
        digest = self.keep(block)
        prepare = self.vote(PREPARE, message.height, message.view, digest)
        return PrePrepare(block.proposal(), prepare, message.view_changes)

    def build(self, message: PrePrepare, time_ms: int, transactions: Sequence[Transaction]) -> Block | None:
        """Return a true block of another content for the height and view of an own proposal; None when its moment has passed."""
        return build_block(self.real, message.height, message.view, time_ms, self.own, transactions)


class TwoBlocks(FalsePrimary):
    """Proposes two true blocks, one to each half of the others, and votes for each before its half; now and then both to one.

    Tests that one digest a view gets a quorum, and that two proposals of one primary are evidence, not a fork.
    """

    def __init__(self, start: Start, engine: EngineLike) -> None:
        super().__init__(start, engine)
        self._other: dict[tuple[int, int], tuple[PrePrepare, frozenset[bytes]]] = {}
        """(height, view) → the other proposal and who is told it."""

    def propose(self, envelope: Envelope, message: PrePrepare) -> list[Envelope]:
        """Say the other block to the other half."""
        place = (message.height, message.view)
        if place not in self._other:
            header = message.proposal.header
            transactions = self.transactions_of(message)[1:]
            block = self.build(message, header.time_ms + 1, transactions) if header.view == message.view else None
            if block is None:
                return [envelope]
            half = frozenset(self.dice.sample(self.peers, self.dice.randint(1, len(self.peers) - 1)))
            self._other = {place: (self.instead(message, block), half)}
        other, half = self._other[place]
        said: list[Envelope] = []
        for single in self.spread(envelope):
            is_other = single.to in half
            said.append(Envelope(single.to, other) if is_other else single)
            if self.dice.randrange(4) == 0:
                said.append(single if is_other else Envelope(single.to, other))
        return said

    def spoil(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Vote for what each half was told."""
        said: list[Envelope] = []
        for envelope in envelopes:
            vote = envelope.message
            known = self._other.get((vote.height, vote.view)) if isinstance(vote, Vote) and vote.signer == self.own else None
            if known is None or not isinstance(vote, Vote):
                said.append(envelope)
                continue
            other, half = known
            for single in self.spread(envelope):
                is_other = single.to in half
                said.append(Envelope(single.to, self.vote(vote.kind, vote.height, vote.view, other.digest)) if is_other else single)
        return said


class FalseBlocks(FalsePrimary):
    """Proposes blocks that no honest node may vote for: false roots or times, another parent, old transactions, forged late commits,
    another block's vote.

    Tests that backups execute before they vote (lessons.md: FISCO-BCOS #2307), that the clock bound holds, and that the view ends.
    """

    def propose(self, envelope: Envelope, message: PrePrepare) -> list[Envelope]:
        """Spoil two of three proposals."""
        transactions = tuple(self.transactions_of(message))
        kind = self.dice.randrange(9)
        if kind < 3 or len(transactions) != len(message.proposal.entries):
            return [envelope]
        block = self._spoilt(message, transactions, kind)
        if block is None:
            return [envelope]
        said = self.instead(message, block)
        if kind == 8:  # the header of one block, the prepare of another
            said = replace(said, prepare=self.vote(PREPARE, message.height, message.view, self.other_digest(said.digest)))
        return [Envelope(envelope.to, said)]

    def _spoilt(self, message: PrePrepare, transactions: tuple[Transaction, ...], kind: int) -> Block | None:
        header = message.proposal.header
        if kind == 3:  # true in all but its time
            away_ms = self.dice.choice((3_000, 3_600_000, 10**11, -3_600_000))
            return self.build(message, header.time_ms + away_ms, transactions)
        if kind == 4:  # true in all but transactions that were decided before
            proposed = {identity for identity, _ in message.proposal.entries}
            old = [transaction for identity, transaction in self.heard.items() if identity not in proposed]
            return self.build(message, header.time_ms, [*transactions, *old[:2]])
        if kind == 7 and message.proposal.last_commit.certificate is not None:  # true in all but a late commit of a node that sleeps
            forged = Vote(COMMIT, message.height - 1, 0, header.parent, self.dice.choice(self.peers), bytes(64))
            return build_block(self.real, message.height, message.view, header.time_ms, self.own, transactions, (forged,))
        noise = self.other_digest(header.encode())
        spoilt = replace(header, state_root=noise)
        if kind == 5:
            spoilt = replace(header, receipts_root=noise)
        elif kind == 6:
            spoilt = replace(header, parent=noise) if self.dice.randrange(2) else replace(header, history_root=noise)
        return Block(spoilt, transactions, message.proposal.last_commit, message.proposal.evidence)


class Framer(FalsePrimary):
    """Puts statements into its blocks that others never made: late commits, and evidence that would convict them.

    Tests that what a block carries is checked signature by signature: late commits decide who leads, evidence who is suspended.
    """

    def propose(self, envelope: Envelope, message: PrePrepare) -> list[Envelope]:
        """Propose a block that is true but for one statement in the name of another."""
        header, victim = message.proposal.header, self.dice.choice(self.peers)
        kind = self.dice.randrange(5)
        if header.view != message.view or message.height < 2 or kind == 0:
            return [envelope]
        below = message.height - 1
        late = (replace(self.vote(COMMIT, below, 0, header.parent), signer=victim),)
        first = replace(self.vote(PREPARE, below, 0, header.parent), signer=victim)
        second = replace(self.vote(PREPARE, below, 0, self.other_digest(victim)), signer=victim)
        evidence = (Contradiction.of(first, second).encode(),)
        carried = (late, ()) if kind < 4 else ((), evidence)
        transactions = self.transactions_of(message)
        block = build_block(self.real, message.height, message.view, header.time_ms, self.own, transactions, *carried)
        return [envelope] if block is None else [Envelope(envelope.to, self.instead(message, block))]


class HiddenBytes(FalsePrimary):
    """Proposes true blocks of which nobody can get all bytes: one transaction stands in them that only this liar knows, and it keeps it.

    Tests that a proposal that cannot be completed ends in a view change, and that no honest node prepares what it does not hold.
    """

    def propose(self, envelope: Envelope, message: PrePrepare) -> list[Envelope]:
        """Put a transaction of one's own making into the list."""
        if self.dice.randrange(3) == 0:
            return [envelope]
        hidden = tagged_digest("medchain/sim/hidden", message.digest)
        block = self.build(message, message.proposal.header.time_ms, self.transactions_of(message))
        if block is None or message.proposal.header.view != message.view:
            return [envelope]
        proposal = block.proposal()
        entries = (*proposal.entries, (hidden, hidden))
        header = replace(proposal.header, transactions_root=transactions_root(entries))
        prepare = self.vote(PREPARE, message.height, message.view, header.digest())
        return [Envelope(envelope.to, PrePrepare(replace(proposal, header=header, entries=entries), prepare, message.view_changes))]


class OtherAuthentications(FalsePrimary):
    """Knows its clients' keys and signs their transactions a second time: one body, two genuine authentications (alone, in a batch), or a
    forged one, such as another one's place under a batch signature.

    Gossips one to some and another to others, and proposes what nobody holds. Tests that roots, lists and memories are over (id,
    authentication digest), that the proposed authentication is fetched, and that a forged one never rides on a remembered id.
    """

    def __init__(self, start: Start, engine: EngineLike, clients: dict[bytes, SigningKey]) -> None:
        super().__init__(start, engine)
        self._clients = clients

    def propose(self, envelope: Envelope, message: PrePrepare) -> list[Envelope]:
        """Propose the same transactions under other authentications."""
        header, transactions = message.proposal.header, self.transactions_of(message)
        if not transactions or header.view != message.view or self.dice.randrange(4) == 0:
            return [envelope]
        block = self.build(message, header.time_ms, [self._again(transaction) for transaction in transactions])
        return [envelope] if block is None else [Envelope(envelope.to, self.instead(message, block))]

    def spoil(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Gossip other authentications."""
        said: list[Envelope] = []
        for envelope in envelopes:
            message = envelope.message
            if isinstance(message, TransactionsOffered) and self.dice.randrange(3) == 0:
                envelope = replace(envelope, message=TransactionsOffered(tuple([self._again(item) for item in message.transactions])))
            said.append(envelope)
        return said

    def _again(self, transaction: Transaction) -> Transaction:
        key, roll = self._clients.get(transaction.body.sender), self.dice.randrange(8)
        if roll == 0:
            return self._forge(transaction)
        if key is None or roll < 5:
            return transaction
        if roll == 5 and self._batched():
            return sign_otherwise(transaction, key, self.network, other=tagged_digest("medchain/sim/unknown", transaction.id))
        return sign_again(transaction, key, self.network, nonce=self.dice.randrange(1, 2**250))

    def _forge(self, transaction: Transaction) -> Transaction:
        """Take the place of another transaction of this sender under a batch signature, if one is known; else forge the signature."""
        sender = transaction.body.sender
        others = [other for other in self._batched() if other.body.sender == sender and other.id != transaction.id]
        return with_authentication_of(others[-1], transaction.body) if others else with_forged_signature(transaction)

    def _batched(self) -> list[Transaction]:
        """Return what was heard of that is signed in batches: nothing in a world without any, whose history so stays what it was."""
        return [transaction for transaction in self.heard.values() if transaction.batch_root is not None]


class LazyPrimary(FalsePrimary):
    """Signs everything and never proposes.

    Tests that the view ends and the next primary leads (and, with the rotation, that it loses its turns).
    """

    def propose(self, envelope: Envelope, message: PrePrepare) -> list[Envelope]:
        """Propose nothing."""
        return []


class Usurper(FalsePrimary):
    """Proposes in views above 0 without the right to: no view changes, too few, proofs cut off, prepared blocks passed over or stamped
    anew; and opens such a view whenever it likes, before anybody asked for one.

    Tests that a pre-prepare is justified by exactly q view changes and by the highest prepared block, byte for byte.
    """

    def __init__(self, start: Start, engine: EngineLike) -> None:
        super().__init__(start, engine)
        self._answered = (0, 0)
        """(height, how many proposals of it were answered)."""

    def propose(self, envelope: Envelope, message: PrePrepare) -> list[Envelope]:
        """Leave out what obliges, or stamp anew."""
        if message.view == 0:
            early = self._early(message)
            return [envelope] if early is None else [envelope, Envelope(None, early)]
        kind = self.dice.randrange(10)
        if kind < 4:  # a block of one's own, or the right one, justified by nothing
            other = self.build(message, message.proposal.header.time_ms + 1, ()) if kind else None
            said = message if other is None else self.instead(message, other)
            return [Envelope(envelope.to, replace(said, view_changes=()))]
        if kind == 4:
            return [Envelope(envelope.to, replace(message, view_changes=message.view_changes[1:]))]
        if kind == 5:
            bare = tuple([change.without_proof() for change in message.view_changes])
            return [Envelope(envelope.to, replace(message, view_changes=bare))]
        if kind == 6:
            block = self.build(message, message.proposal.header.time_ms, self.transactions_of(message))
            return [envelope] if block is None else [Envelope(envelope.to, self.instead(message, block))]
        usurped = self._in_another_name(message, is_proof_genuine=kind == 7) if kind < 9 else None
        return [envelope] if usurped is None else [Envelope(envelope.to, usurped)]

    def _in_another_name(self, message: PrePrepare, is_proof_genuine: bool) -> PrePrepare | None:
        """Return a block of one's own making as the highest prepared one, in the name of an earlier primary, which signs no header.

        Its proof is made of one's own signatures, or it is the genuine proof of the block that should have been proposed.
        """
        header, height, view = message.proposal.header, message.height, message.view
        prover = next((change for change in message.view_changes if change.proof is not None), None)
        if is_proof_genuine and (prover is None or prover.proof is None):
            return None
        block = build_block(self.real, height, header.view, header.time_ms + 1, header.proposer, ())
        others = [change.without_proof() for change in message.view_changes if change.signer != self.own]
        if block is None or header.view >= view:
            return None
        digest = self.keep(block)
        prepared_view = prover.prepared_view if is_proof_genuine and prover is not None and prover.prepared_view is not None else view - 1
        proof = self.false_proof(height, prepared_view, digest)
        change = ViewChange.sign(self.network, self.start.key, height, view, proof)
        if is_proof_genuine and prover is not None:
            change = replace(change, proof=prover.proof)
        chosen = sorted([change, *others[: quorum(len(self.peers) + 1) - 1]], key=lambda item: item.signer)
        return PrePrepare(block.proposal(), self.vote(PREPARE, height, view, digest), tuple(chosen))

    def _early(self, message: PrePrepare) -> PrePrepare | None:
        """Return a fresh block for the next view that is led from here, justified by nothing."""
        view = message.view + len(self.peers) + 1
        block = build_block(self.real, message.height, view, message.proposal.header.time_ms + 1, self.own, ())
        if block is None or self.dice.randrange(2):
            return None
        return PrePrepare(block.proposal(), self.vote(PREPARE, message.height, view, self.keep(block)), ())

    def lie(self, events: Sequence[Event]) -> Ready:
        """Besides, now and then when another one proposes, propose in a view of one's own at once; not without end, or two of a kind
        would answer each other's answers.
        """
        usurped: list[Envelope] = []
        for event in events:
            if isinstance(event, Received) and isinstance(event.message, PrePrepare) and self.dice.randrange(6) == 0:
                height = event.message.height
                self._answered = (height, self._answered[1] + 1 if self._answered[0] == height else 1)
                if self._answered[1] <= USURPED_MAX:
                    usurped += self._usurp(event.message)
        ready = super().lie(events)
        return replace(ready, send=(*ready.send, *usurped)) if usurped else ready

    def _usurp(self, message: PrePrepare) -> list[Envelope]:
        """Answer a proposal by an empty block in each of the next views; one of them is led from here."""
        said: list[Envelope] = []
        for view in range(message.view + 1, message.view + len(self.peers) + 1):
            block = build_block(self.real, message.height, view, message.proposal.header.time_ms + 1, self.own, ())
            if block is not None:
                prepare = self.vote(PREPARE, message.height, view, self.keep(block))
                said.append(Envelope(None, PrePrepare(block.proposal(), prepare, message.view_changes)))
        return said
