"""Evidence that no block carries yet: what this node found and what peers sent, durable until a block records it or it no longer counts.

Rules: protocol.md, "Equivocation" (stored, gossiped, put on chain) and "Lanes and work" (evidence goes first). Nothing is believed: what a
peer sends is verified before it is kept, and passed on once. Memory is bounded by the validators: one contradiction of each offence for
each. This module votes on nobody and knows no block's other content.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

from medchain.chain.block import Evidence
from medchain.chain.evidence import Contradiction, Statement
from medchain.chain.limits import EVIDENCE_MAX
from medchain.chain.receipt import Event
from medchain.engine.decided import DecidedChain
from medchain.engine.turn import Turn
from medchain.engine.verification import Verifier
from medchain.errors import InvariantBroken, Malformed, Rejected
from medchain.ledger.evidence import RECORDED, check_recordable
from medchain.ledger.trail import event_names
from medchain.store import layout
from medchain.store.keyvalue import prefix_end
from medchain.store.staged import Staged
from medchain.wire.peer import EvidenceSent

OWN_KEY: Final = "evidence.own-key"
"""Code of the alarm: two contradicting statements are signed with this node's key."""


def check_contradiction(chain: DecidedChain, verifier: Verifier, contradiction: Contradiction) -> None:
    """Raise Rejected unless the next block may record this: it counts, both signatures are genuine, the offender was a validator then.

    In this order, so that only a real offender's own signatures make a node look up old blocks.
    """
    try:
        check_recordable(chain.state, chain.height + 1, contradiction)
    except Rejected as refusal:
        raise Rejected("block.evidence", f"the block carries evidence that may not stand in it ({refusal.code})") from None
    if not is_genuine(chain, verifier, contradiction):
        raise Rejected("block.evidence", "a signature of the evidence is forged")
    if not was_validator(chain, contradiction):
        raise Rejected("block.evidence", "the signer of the evidence was no validator of that height")


def check_evidence(chain: DecidedChain, verifier: Verifier, items: Evidence) -> None:
    """Raise Rejected (`block.evidence`) unless the next block may carry these: ids ascending, one of each offence an offender, each valid.

    How many they may be and how long is checked where a block is decoded.
    """
    known: dict[tuple[bytes, str], None] = {}
    last = b""
    for item in items:
        try:
            contradiction = Contradiction.decode(item)
        except Malformed as error:
            raise Rejected("block.evidence", f"the block carries what is no evidence: {error.message}") from None
        identity = contradiction.digest()
        if identity <= last:
            raise Rejected("block.evidence", "the evidence in the block is not in ascending order of its ids, each once")
        if (contradiction.offender, contradiction.offence) in known:
            raise Rejected("block.evidence", "the block carries an offence of one validator twice")
        known[contradiction.offender, contradiction.offence] = None
        last = identity
        check_contradiction(chain, verifier, contradiction)


def is_genuine(chain: DecidedChain, verifier: Verifier, contradiction: Contradiction) -> bool:
    """Answer whether both statements are signed by the offender in this network."""
    return all(verifier.check_all(contradiction.verifications(chain.network)))


def was_validator(chain: DecidedChain, contradiction: Contradiction) -> bool:
    """Answer whether the offender was in the validator set of the height it contradicted itself at, suspended or not."""
    validators = chain.validators_at(contradiction.height)
    return validators is not None and validators.index_of(contradiction.offender) is not None


class EvidencePool:
    """Contradictions that wait for a block, in memory and in the evidence range of the store."""

    def __init__(self, chain: DecidedChain, staged: Staged, turn: Turn, verifier: Verifier, own: bytes) -> None:
        self._chain = chain
        self._staged = staged
        self._turn = turn
        self._verifier = verifier
        self._own = own
        self._pending: dict[tuple[bytes, str], Contradiction] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def load(self) -> None:
        """Take over what is on disk after a start; what no longer counts is removed. Raises Malformed when an item is damaged."""
        for key, value in self._staged.iterate(layout.EVIDENCE, prefix_end(layout.EVIDENCE)):
            contradiction = Contradiction.decode(value)
            contradiction.check(self._chain.network)
            if layout.evidence_key(contradiction.digest()) != key:
                raise Malformed("evidence stands under another id")
            self._pending[contradiction.offender, contradiction.offence] = contradiction
        self.settle()

    def pending(self) -> tuple[Contradiction, ...]:
        """Return what waits, oldest first."""
        return tuple(self._pending.values())

    def find(self, first: Statement, second: Statement) -> None:
        """Keep what this node found itself (the signatures are verified) and tell everybody, once."""
        try:
            contradiction = Contradiction.of(first, second)
        except Malformed as error:
            raise InvariantBroken(f"agreement reported what is no evidence: {error.message}") from None
        self._turn.accuse(contradiction.offender, f"it signed two contradicting statements ({contradiction.offence})")
        self._keep(contradiction)

    def take(self, peer: bytes, message: EvidenceSent) -> None:
        """Keep what a peer sent and what counts, and tell everybody, once; accuse the peer of what is forged.

        What is known, recorded, too old, or about a height that this node has not reached says nothing against the peer.
        """
        for contradiction in message.contradictions:
            if (contradiction.offender, contradiction.offence) in self._pending:
                continue
            if not self._counts(contradiction):
                continue
            if not is_genuine(self._chain, self._verifier, contradiction):
                self._turn.accuse(peer, "it sent evidence with a forged signature")
                return
            if was_validator(self._chain, contradiction):
                self._keep(contradiction)

    def select(self) -> tuple[bytes, ...]:
        """Return what the next block should carry: the oldest ones, encoded, in the order of their ids."""
        chosen = sorted(islice(self._pending.values(), EVIDENCE_MAX), key=Contradiction.digest)
        return tuple([contradiction.encode() for contradiction in chosen])

    def tell(self, peer: bytes) -> None:
        """Send a peer the oldest of what waits: it just connected, or is the primary and proposes nothing."""
        waiting = tuple(islice(self._pending.values(), EVIDENCE_MAX))
        if waiting:
            self._turn.send(peer, EvidenceSent(waiting))

    def settle(self) -> None:
        """Forget what the newest block recorded, and what no block may record any more."""
        for contradiction in self.pending():
            if not self._counts(contradiction):
                del self._pending[contradiction.offender, contradiction.offence]
                self._staged.delete(layout.evidence_key(contradiction.digest()))

    def report(self, events: Sequence[Event]) -> None:
        """Tell the operator what a block recorded, with the id to ask for."""
        for event in events:
            if event.kind == RECORDED:
                said = event_names(event)
                self._turn.alarm(
                    RECORDED,
                    f"the chain recorded that a validator contradicted itself at height {said['height']} ({said['offence']}): see "
                    f"`medchain evidence show {said['evidence'].hex()}`, and ask that hospital what happened",
                )

    def _counts(self, contradiction: Contradiction) -> bool:
        try:
            check_recordable(self._chain.state, self._chain.height + 1, contradiction)
        except Rejected:
            return False
        return True

    def _keep(self, contradiction: Contradiction) -> None:
        """Keep one contradiction an offender and offence, durable with this turn and so before it is told."""
        if (contradiction.offender, contradiction.offence) in self._pending or not self._counts(contradiction):
            return
        self._pending[contradiction.offender, contradiction.offence] = contradiction
        self._staged.put(layout.evidence_key(contradiction.digest()), contradiction.encode())
        self._turn.broadcast(EvidenceSent((contradiction,)))
        if contradiction.offender == self._own:
            self._turn.alarm(
                OWN_KEY,
                "two contradicting statements are signed with this node's key, and every hospital can prove it: look for a second copy of "
                "this node, a restored backup or a stolen key",
            )
