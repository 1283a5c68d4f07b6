"""Evidence against validators: what a node has, checked here, and reports that others verify offline.

A node is believed nothing: the statements are verified with the genesis document, and that they are recorded under a certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medchain.chain.evidence import Contradiction
from medchain.chain.limits import EVIDENCE_BYTES_MAX
from medchain.client.node import NodeClient, all_pages, bytes_of, list_of
from medchain.errors import Malformed, Rejected
from medchain.ledger.evidence import evidence_key
from medchain.wire.evidence import write_report


@dataclass(frozen=True, slots=True)
class EvidenceListed:
    """Rows as `evidence.list` gives them."""

    recorded: list[Any]
    """Oldest first."""
    pending: list[Any]
    """Held by this node, in no block yet."""


async def list_evidence(client: NodeClient) -> EvidenceListed:
    """Return all recorded evidence and what waits for a block."""
    pending = list_of(await client.call("evidence.list", count=1), "pending")
    return EvidenceListed(await all_pages(client, "evidence.list", "evidence"), pending)


async def evidence_report(client: NodeClient, identity: bytes) -> bytes:
    """Return a report about one contradiction, with the proof that it is recorded if it is: bytes for `wire.evidence.verify_report`.

    Raises Rejected `evidence.unknown`, `client.false-answer` when the node shows something else, `report.*`, `proof.*`.
    """
    answer = await client.call("evidence.get", id=identity)
    try:
        contradiction = Contradiction.decode(bytes_of(answer, "evidence", EVIDENCE_BYTES_MAX))
    except Malformed:
        raise _false_answer() from None
    if contradiction.digest() != identity:
        raise _false_answer()
    is_recorded = answer.get("from_height") is not None
    proof = await client.state_proof(evidence_key(identity)) if is_recorded else None
    return write_report(contradiction, (await client.facts()).genesis, proof)


def _false_answer() -> Rejected:
    return Rejected("client.false-answer", "the node shows other evidence than was asked for: do not use it")
