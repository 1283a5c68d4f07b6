"""Evidence: two signed statements of one validator that contradict each other, so that nobody has to be believed.

Two offences (protocol.md, "Equivocation"): *equivocation*, same kind, height and view with other signed content; and *view-change-lie*, a
view change to w that shows prepared view p (or none) together with a Commit in a view c of the same height with p < c < w. Anything looser
convicts honest validators: a commit in c = p is what honest ones do, and one in c >= w may be a late commit that follows a certificate.

The rule stands here once, for who finds a contradiction (consensus), who judges a block (engine) and who reads a report (wire). It knows
no chain: which heights still count and what is recorded already is the ledger's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from medchain import codec
from medchain.chain import limits
from medchain.chain.domain import Domain
from medchain.chain.vote import COMMIT, ViewChange, Vote
from medchain.crypto.hashing import tagged_digest
from medchain.crypto.signing import verify_many
from medchain.errors import Malformed

EQUIVOCATION: Final = "equivocation"
VIEW_CHANGE_LIE: Final = "view-change-lie"
OFFENCES: Final = (EQUIVOCATION, VIEW_CHANGE_LIE)

Statement = Vote | ViewChange
"""What a validator signs while it agrees; as evidence without the proof that a view change may carry, which is not signed."""


def is_equivocation(first: Statement, second: Statement) -> bool:
    """Answer whether two statements of one signer say different things where only one may be said: same kind, height and view."""
    match first, second:
        case Vote(), Vote():
            same = (first.kind, first.height, first.view, first.signer) == (second.kind, second.height, second.view, second.signer)
            return same and first.digest != second.digest
        case ViewChange(), ViewChange():
            same = (first.height, first.view, first.signer) == (second.height, second.view, second.signer)
            return same and (first.prepared_view, first.digest) != (second.prepared_view, second.digest)
        case _:
            return False


def is_lie(change: ViewChange, commit: Vote) -> bool:
    """Answer whether a view change hides what its signer's commit shows to have been prepared."""
    prepared = -1 if change.prepared_view is None else change.prepared_view
    same = commit.kind == COMMIT and (commit.signer, commit.height) == (change.signer, change.height)
    return same and prepared < commit.view < change.view


def offence_of(first: Statement, second: Statement) -> str | None:
    """Return which of OFFENCES two statements are, in whichever order they come; None if they agree."""
    if is_equivocation(first, second):
        return EQUIVOCATION
    for one, other in ((first, second), (second, first)):
        if isinstance(one, Vote) and isinstance(other, ViewChange) and is_lie(other, one):
            return VIEW_CHANGE_LIE
    return None


@dataclass(frozen=True, slots=True)
class Contradiction:
    """One contradiction in its only form: no proofs attached, the statements in the order of their bytes (a commit before a view change).

    Made by `of` or `decode`, which both refuse what is no contradiction. The signatures are genuine only after `check`.
    """

    offence: str
    """One of OFFENCES."""
    first: Statement
    second: Statement

    @classmethod
    def of(cls, first: Statement, second: Statement) -> Contradiction:
        """Return two statements as evidence. Raises Malformed when they do not contradict each other."""
        bare = [statement.without_proof() if isinstance(statement, ViewChange) else statement for statement in (first, second)]
        one, other = sorted(bare, key=_order)
        offence = offence_of(one, other)
        if offence is None:
            raise Malformed("the two statements do not contradict each other: this is no evidence")
        return cls(offence, one, other)

    @property
    def offender(self) -> bytes:
        """Consensus key of the validator that signed both."""
        return self.first.signer

    @property
    def height(self) -> int:
        """The height both are about."""
        return self.first.height

    def encode(self) -> bytes:
        """Return the canonical bytes: what a block carries."""
        return codec.encode([self.offence, self.first.to_value(), self.second.to_value()])

    def digest(self) -> bytes:
        """Return the id of this evidence (32 bytes)."""
        return evidence_id(self.encode())

    @classmethod
    def decode(cls, data: bytes) -> Contradiction:
        """Read canonical bytes. Raises Malformed for anything that is not exactly one contradiction in its only form."""
        values = codec.as_fields(codec.decode(data, bytes_max=limits.EVIDENCE_BYTES_MAX, depth_max=3), 3, "evidence")
        offence = codec.as_text(values[0], "offence", limits.NAME_BYTES_MAX)
        first, second = _read_statement(values[1]), _read_statement(values[2])
        evidence = cls.of(first, second)
        if (evidence.offence, evidence.first, evidence.second) != (offence, first, second):
            raise Malformed("the evidence is not written in its only form: offence, then the statements in order and without proofs")
        return evidence

    def verifications(self, network: Domain) -> list[tuple[bytes, bytes, bytes]]:
        """Return the two (public key, message, signature) that `verify_many` must find valid: same network, same recovery number."""
        return [self.first.verification(network), self.second.verification(network)]

    def check(self, network: Domain) -> None:
        """Raise Malformed unless the offender signed both statements in this network."""
        if not all(verify_many(self.verifications(network))):
            raise Malformed("a signature of the evidence is forged, or of another network")


def evidence_id(data: bytes) -> bytes:
    """Return the id under which encoded evidence is stored, recorded and asked for (32 bytes)."""
    return tagged_digest("medchain/evidence-item", data)


def _order(statement: Statement) -> tuple[bool, bytes]:
    return (isinstance(statement, ViewChange), codec.encode(statement.to_value()))


def _read_statement(value: Any) -> Statement:
    """Read a vote (6 fields) or a view change (7): the number of fields tells them apart."""
    return ViewChange.from_value(value) if isinstance(value, list) and len(value) == 7 else Vote.from_value(value)
