"""Evidence reports: what one hospital hands to others, or to a court, to show that a validator contradicted itself. Checked offline.

A report is JSON that people can read, and every byte of it follows from the evidence, the proof that it is recorded, and the genesis
document: whoever verifies it writes it anew and compares, so changing any byte makes it fail. What convicts is two signatures by the same
key (chain/evidence.py), not the chain: a report is as good before any block records it. This module knows no node and asks nobody.

Misuse: a genesis document from the same stranger as the report proves nothing; pin its digest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from medchain.chain.evidence import Contradiction, Statement
from medchain.chain.genesis import Genesis
from medchain.chain.limits import EVIDENCE_BYTES_MAX
from medchain.chain.vote import COMMIT, ViewChange, Vote
from medchain.errors import Malformed, Rejected
from medchain.ledger.evidence import EvidenceRow, evidence_key
from medchain.ledger.rows import decode_row
from medchain.wire.methods import read_hex
from medchain.wire.proof import PROOF_FILE_BYTES_MAX, StateFacts, verify_state_proof

REFUSALS: Final[dict[str, str]] = {
    "report.other-network": "The report is about another network than that of the genesis document.",
    "report.forged": "A statement in the report is not signed by the accused in this network.",
    "report.validators": "The accused is not among the founding validators; the report needs the history of validators.",
    "report.not-recorded": "The proof in the report does not show that the chain recorded this evidence.",
    "report.altered": "The report says something else than what its evidence and its proof show.",
}

FORMAT: Final = 1
REPORT_BYTES_MAX: Final = 2 * PROOF_FILE_BYTES_MAX + 64 * 1024
"""A proof of state as hexadecimal text, and some pages of words."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """That the chain recorded it, proven by a certificate."""

    from_height: int
    """The block that recorded it."""
    time_ms: int
    """That block's time."""
    proven_height: int
    """The block whose certified state shows it."""
    signers: tuple[bytes, ...]
    """Consensus keys whose commits make that block final."""


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """What a verified report proves."""

    contradiction: Contradiction
    hospital: str
    """Name of the hospital whose key signed both statements."""
    organisation_key: bytes
    recorded: Recorded | None
    """None: the report was written before a block recorded it, or without asking for the proof."""


def write_report(contradiction: Contradiction, genesis: Genesis, proof: bytes | None = None) -> bytes:
    """Return the bytes of a report; `proof` is a proof file of state for `evidence_key(id)`.

    Raises Rejected (`report.*`, `proof.*`) or Malformed when what was given proves nothing.
    """
    return _encode(_check(contradiction, genesis, proof), genesis, proof)


def verify_report(data: bytes, genesis: Genesis) -> ReportFacts:
    """Return what a report proves in the network of `genesis`.

    Raises Malformed when the bytes are no report, Rejected (`report.*`, `proof.*`) when it does not hold.
    """
    value = _read(data)
    if value.get("genesis") != genesis.digest().hex():
        raise Rejected("report.other-network", "the report is about another network: check which genesis document belongs to it")
    contradiction = Contradiction.decode(read_hex(value.get("evidence"), "evidence", EVIDENCE_BYTES_MAX))
    recorded = value.get("recorded")
    proof = None if recorded is None else read_hex(_member(recorded, "proof"), "proof", PROOF_FILE_BYTES_MAX)
    facts = _check(contradiction, genesis, proof)
    if _encode(facts, genesis, proof) != data:
        raise Rejected("report.altered", "the report was changed after it was written: get it again")
    return facts


def _read(data: bytes) -> dict[str, Any]:
    if len(data) > REPORT_BYTES_MAX:
        raise Malformed(f"a report has at most {REPORT_BYTES_MAX} bytes")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed("a report is a JSON object") from None
    if type(value) is not dict or value.get("evidence_report") != FORMAT:
        raise Malformed(f"a report is a JSON object of format {FORMAT}")
    return value


def _member(value: Any, name: str) -> Any:
    return value.get(name) if type(value) is dict else None


def _check(contradiction: Contradiction, genesis: Genesis, proof: bytes | None) -> ReportFacts:
    try:
        contradiction.check(genesis.domain())
    except Malformed:
        raise Rejected("report.forged", "a statement in the report was not signed by the accused in this network") from None
    accused = next((hospital for hospital in genesis.hospitals if hospital.consensus_key == contradiction.offender), None)
    if accused is None or genesis.validators().index_of(contradiction.offender) is None:
        raise Rejected("report.validators", "the key in the report is that of no founding validator")
    recorded = None if proof is None else _recorded(contradiction, verify_state_proof(proof, genesis))
    return ReportFacts(contradiction, accused.name, accused.organisation_key, recorded)


def _recorded(contradiction: Contradiction, facts: StateFacts) -> Recorded:
    if facts.key != evidence_key(contradiction.digest()) or facts.value is None:
        raise Rejected("report.not-recorded", "the proof in the report does not show that the chain recorded this evidence")
    row = decode_row(EvidenceRow, facts.value)
    return Recorded(row.from_height, row.time_ms, facts.height, facts.signers)


# ---- words ----------------------------------------------------------------------------------------------------------------------


def _encode(facts: ReportFacts, genesis: Genesis, proof: bytes | None) -> bytes:
    contradiction, recorded = facts.contradiction, facts.recorded
    value: dict[str, Any] = {
        "evidence_report": FORMAT,
        "about": "Two statements signed by one validator that contradict each other. Check it with: medchain evidence verify",
        "chain_id": genesis.chain_id,
        "genesis": genesis.digest().hex(),
        "recovery": genesis.domain().recovery,
        "id": contradiction.digest().hex(),
        "offence": contradiction.offence,
        "hospital": facts.hospital,
        "organisation_key": facts.organisation_key.hex(),
        "consensus_key": contradiction.offender.hex(),
        "height": contradiction.height,
        "rule": rule_of(contradiction),
        "statements": [_statement_value(contradiction.first), _statement_value(contradiction.second)],
        "evidence": contradiction.encode().hex(),
        "recorded": None,
    }
    if recorded is not None and proof is not None:
        names = {hospital.consensus_key: hospital.name for hospital in genesis.hospitals}
        value["recorded"] = {
            "block": recorded.from_height,
            "time_ms": recorded.time_ms,
            "shown_by_block": recorded.proven_height,
            "made_final_by": sorted(names[signer] for signer in recorded.signers),
            "proof": proof.hex(),
        }
    return (json.dumps(value, indent=2) + "\n").encode()


def _statement_value(statement: Statement) -> dict[str, str]:
    return {"says": says(statement), "signature": statement.signature.hex()}


def says(statement: Statement) -> str:
    """Return in words what a signed statement says."""
    if isinstance(statement, Vote):
        kind = "commit to" if statement.kind == COMMIT else "prepare of"
        return f"{kind} block {statement.digest.hex()} at height {statement.height} in view {statement.view}"
    return f"view change to view {statement.view} at height {statement.height}, {_shown(statement)}"


def _shown(change: ViewChange) -> str:
    if change.prepared_view is None or change.digest is None:
        return "saying that no block was prepared"
    return f"showing block {change.digest.hex()} prepared in view {change.prepared_view}"


def rule_of(contradiction: Contradiction) -> str:
    """Return in words which rule two statements break."""
    first, second = contradiction.first, contradiction.second
    if isinstance(first, Vote) and isinstance(second, ViewChange):
        return (
            "Who committed to a block in a view shows it, or one prepared later, in every view change to a later view. This view change "
            "hides the commit."
        )
    if isinstance(first, Vote):
        kind = "commit" if first.kind == COMMIT else "prepare"
        return f"A validator signs one {kind} at a height and view. These are two, of different blocks."
    return "A validator signs one view change to a view at a height. These are two that show different things."
