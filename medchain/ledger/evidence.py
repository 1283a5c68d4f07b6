"""Evidence on the chain: which contradictions a block may record, and what recording one writes.

A contradiction proves itself (chain/evidence.py); this module decides when it still counts and keeps what is recorded bounded. Whether
the signatures are genuine and the offender was a validator of that height the engine has found before (executor). Source: protocol.md,
"Equivocation": stored, put on chain, reported; the offender is proposed for suspension, which is a vote. Until then it keeps its own vote
and loses its turns as primary for a while (rotation.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from medchain.chain.evidence import Contradiction
from medchain.errors import InvariantBroken, Malformed, Rejected
from medchain.ledger import rows
from medchain.ledger.execution import Execution
from medchain.ledger.hospitals import organisation_of
from medchain.ledger.lists import EVIDENCE, append_item
from medchain.ledger.rotation import convict
from medchain.ledger.rows import decode_row, encode_row
from medchain.store.overlay import StateView

EVIDENCE_AGE_BLOCKS: Final = 10_000
"""How far below a block the height of its evidence may lie: over three days of an idle network, eight minutes of the busiest. Longer would
let whoever finds the discarded key of a hospital make up a past for it. A constant of the protocol version, like Wmax."""
EVIDENCE_INTERVAL_BLOCKS: Final = 1_000
"""One contradiction of each offence is recorded of an offender in so many heights: the first says it all, and a liar that contradicts
itself in every height must not make the state grow with every block. Below EVIDENCE_AGE_BLOCKS, so lying again is recorded again."""
RECORDED: Final = "evidence.recorded"
"""Kind of the event; its subject is the offender's hospital (organisation key)."""


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """A recorded contradiction; its key is its id."""

    offence: str
    offender: bytes
    """Consensus key that signed both statements."""
    hospital: bytes
    """Organisation key of the hospital whose key that is."""
    height: int
    """The height both statements are about."""
    from_height: int
    """The block that recorded it."""
    time_ms: int
    evidence: bytes
    """The encoded contradiction: in the state, so that pruning old blocks does not take it away."""


@dataclass(frozen=True, slots=True)
class NewestEvidence:
    """The newest contradiction recorded of an offender and offence."""

    height: int
    """The height its statements are about."""
    identity: bytes


@dataclass(frozen=True, slots=True)
class SuspensionProposed:
    """That the hospital is to be voted on: the first evidence against it. The vote that ends this comes with membership."""

    identity: bytes
    """Id of the evidence."""
    from_height: int
    time_ms: int


def evidence_of(view: StateView, identity: bytes) -> EvidenceRow | None:
    """Return recorded evidence, None if none is recorded under this id."""
    stored = view.get(evidence_key(identity))
    return None if stored is None else decode_row(EvidenceRow, stored)


def evidence_key(identity: bytes) -> bytes:
    """Return the state key of recorded evidence, for proofs."""
    return rows.EVIDENCE + identity


def newest_evidence_of(view: StateView, offender: bytes, offence: str) -> NewestEvidence | None:
    """Return the newest contradiction recorded of a consensus key and offence."""
    stored = view.get(_newest_key(offender, offence))
    return None if stored is None else decode_row(NewestEvidence, stored)


def suspension_proposed(view: StateView, hospital: bytes) -> SuspensionProposed | None:
    """Return why a hospital (organisation key) is proposed for suspension, None if it is not."""
    stored = view.get(rows.SUSPENSION_PROPOSED + hospital)
    return None if stored is None else decode_row(SuspensionProposed, stored)


def check_recordable(view: StateView, height: int, contradiction: Contradiction) -> None:
    """Raise Rejected (`evidence.*`) unless block `height`, on top of `view`, may record this.

    Its height lies in [height - EVIDENCE_AGE_BLOCKS, height] and EVIDENCE_INTERVAL_BLOCKS above the newest one recorded of the same
    offender and offence; so nothing is recorded twice, and what is recorded grows with heights, not with lies.
    """
    if contradiction.height > height:
        raise Rejected("evidence.future", "the evidence is about a height above this block's")
    if contradiction.height < height - EVIDENCE_AGE_BLOCKS:
        raise Rejected("evidence.too-old", f"the evidence is about a height more than {EVIDENCE_AGE_BLOCKS} blocks ago")
    if organisation_of(view, contradiction.offender) is None:
        raise Rejected("evidence.stranger", "the evidence is about a key that is no hospital's")
    newest = newest_evidence_of(view, contradiction.offender, contradiction.offence)
    if newest is not None and contradiction.height < newest.height + EVIDENCE_INTERVAL_BLOCKS:
        raise Rejected("evidence.recorded", "evidence of this offence by this validator is recorded for these heights already")


def record_evidence(execution: Execution, carried: Sequence[bytes]) -> None:
    """Write the evidence of a block, in its order, with an event each. Raises InvariantBroken for what the engine must have refused."""
    for data in carried:
        try:
            contradiction = Contradiction.decode(data)
            check_recordable(execution.state, execution.context.height, contradiction)
        except (Malformed, Rejected) as error:
            raise InvariantBroken(f"evidence that may not stand in a block was to be recorded: {error.message}") from None
        _record(execution, contradiction, data)


def _record(execution: Execution, contradiction: Contradiction, data: bytes) -> None:
    state, context = execution.state, execution.context
    identity, offender, offence = contradiction.digest(), contradiction.offender, contradiction.offence
    hospital = organisation_of(state, offender)
    if hospital is None:
        raise InvariantBroken("the hospital behind checked evidence is missing from the state")
    row = EvidenceRow(offence, offender, hospital, contradiction.height, context.height, context.time_ms, data)
    execution.insert(evidence_key(identity), encode_row(row))
    append_item(execution, EVIDENCE, b"", identity)
    state.put(_newest_key(offender, offence), encode_row(NewestEvidence(contradiction.height, identity)))
    convict(state, context, offender)
    if suspension_proposed(state, hospital) is None:
        proposed = SuspensionProposed(identity, context.height, context.time_ms)
        execution.insert(rows.SUSPENSION_PROPOSED + hospital, encode_row(proposed))
    execution.emit(RECORDED, (hospital,), [hospital, offence, contradiction.height, identity])


def _newest_key(offender: bytes, offence: str) -> bytes:
    return rows.EVIDENCE_NEWEST + offender + offence.encode()
