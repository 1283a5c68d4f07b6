"""Liars in view changes: about what they prepared, to whom, and with which proof; and those that show a proof and keep the block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from medchain.chain.vote import ViewChange
from medchain.consensus.messages import PrePrepare
from medchain.engine.ready import Envelope, Event, Ready, Received
from medchain.sim.liars.liar import Liar
from medchain.sim.node import EngineLike, Start
from medchain.wire.peer import BlockSent, PastVotesSent, RangeSent, TransactionsOffered


class ViewLiar(Liar):
    """Says in its view changes that it prepared nothing, or something that nobody prepared, another lie to each.

    Tests that a claim without proof decides nothing, that q statements outvote f lies, that a proof is checked signature by signature,
    and that a view change which hides a commit is found out.
    """

    def __init__(self, start: Start, engine: EngineLike) -> None:
        super().__init__(start, engine)
        self._proposed: tuple[int, int, bytes] = (0, 0, b"")
        """(height, view, digest) of the newest proposal heard of."""

    def lie(self, events: Sequence[Event]) -> Ready:
        """Listen to what is proposed, then lie."""
        for event in events:
            if isinstance(event, Received) and isinstance(event.message, PrePrepare):
                self._proposed = (event.message.height, event.message.view, event.message.digest)
        return super().lie(events)

    def spoil(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Swap own view changes for lies."""
        said: list[Envelope] = []
        for envelope in envelopes:
            message = envelope.message
            if isinstance(message, ViewChange) and message.signer == self.own:
                said += [Envelope(single.to, self._lie(message)) for single in self.spread(envelope)]
            else:
                said.append(envelope)
        return said

    def _lie(self, change: ViewChange) -> ViewChange:
        kind = self.dice.randrange(8)
        if kind == 0:
            return change
        if kind == 1:
            return ViewChange.sign(self.network, self.start.key, change.height, change.view, None)
        height, view, digest = self._proposed
        is_had_by_others = height == change.height and view < change.view  # so an honest primary could lead with it
        if is_had_by_others and self.dice.randrange(3):
            proof = self.false_proof(change.height, view, digest)
        else:
            proof = self.false_proof(change.height, change.view - 1, self.other_digest(change.digest or b""))
        if kind == 7 and change.proof is not None:  # a genuine proof beside a block that it does not prove
            proof = replace(proof, view=change.proof.view)
            lie = ViewChange.sign(self.network, self.start.key, change.height, change.view, proof)
            return replace(lie, proof=change.proof)
        lie = ViewChange.sign(self.network, self.start.key, change.height, change.view, proof)
        return lie.without_proof() if kind == 2 else lie


class Miser(Liar):
    """Votes and proves like the best and answers no question: no block, no transaction, no range, no past vote; proofs now and then to
    one alone.

    Tests that a genuine proof of a block which its prover does not give wedges no new primary, and that fetching asks the next one.
    """

    def spoil(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Leave every answer out; tell a view change with a proof to one peer only."""
        said: list[Envelope] = []
        for envelope in envelopes:
            message = envelope.message
            if envelope.to is not None and isinstance(message, BlockSent | RangeSent | TransactionsOffered | PastVotesSent):
                continue
            if isinstance(message, ViewChange) and message.proof is not None and self.dice.randrange(2):
                chosen = self.dice.choice(self.peers)
                said += [replace(single) for single in self.spread(envelope) if single.to == chosen]
                continue
            said.append(envelope)
        return said
