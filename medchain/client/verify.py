"""Checking proof files offline: the genesis document is all that is needed, and all that is trusted.

The rules are in wire/proof.py; here is what a person is told of the result. Knows no node.
"""

from __future__ import annotations

from typing import Any

from medchain.chain.genesis import Genesis
from medchain.ledger.trail import event_names
from medchain.wire.methods import to_json
from medchain.wire.proof import TRANSACTION_KIND, ProofFacts, StateFacts, kind_of, verify_state_proof, verify_transaction_proof

Facts = ProofFacts | StateFacts


def verify_file(data: bytes, genesis: Genesis) -> Facts:
    """Return what a proof file proves: of a transaction, or of a row of the state.

    Raises Malformed when the bytes are no proof file, Rejected (`proof.*`) when the proof does not hold. A proof says how things stood at
    `time_ms`; how old that may be is the reader's decision.
    """
    if kind_of(data) == TRANSACTION_KIND:
        return verify_transaction_proof(data, genesis)
    return verify_state_proof(data, genesis)


def facts_value(facts: Facts) -> dict[str, Any]:
    """Return proven facts as JSON has them."""
    value: dict[str, Any] = {
        "chain_id": facts.chain_id,
        "genesis": facts.genesis,
        "height": facts.height,
        "block": facts.block,
        "time_ms": facts.time_ms,
        "signers": facts.signers,
    }
    match facts:
        case ProofFacts():
            receipt = facts.receipt
            value |= {
                "kind": "transaction",
                "transaction": facts.transaction.id,
                "sender": facts.transaction.body.sender,
                "operations": [operation.kind for operation in facts.transaction.body.operations],
                "is_accepted": receipt.is_accepted,
                "code": receipt.code,
                "events": [{"kind": event.kind, "subjects": event.subjects, "fields": event_names(event)} for event in receipt.events],
            }
        case StateFacts():
            value |= {"kind": "state", "key": facts.key, "value": facts.value}
    return to_json(value)  # type: ignore[no-any-return]  # a dict stays a dict
