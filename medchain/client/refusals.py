"""Codes with which the SDK itself says no, before or after a node was asked."""

from __future__ import annotations

from typing import Final

REFUSALS: Final[dict[str, str]] = {
    "client.other-network": "The node belongs to another network than the given genesis document.",
    "client.not-a-node": "What answers at the address is no medchain node, or one of another version.",
    "client.expired": "The transaction's last height passed before a block took it; nothing happened.",
    "client.false-answer": "The node's answer is not what the chain proves; do not use this node.",
    "client.unreadable-file": "The file is not there or cannot be read.",
    "client.not-fhir": "The file says it is FHIR JSON, but it is not.",
    "client.fhir-too-large": "The file is too large to be checked as FHIR; store it as a plain file.",
    "client.output-exists": "There is a file of this name already; what was fetched is never written over it.",
    "client.output-unwritable": "The file cannot be written there.",
    "client.no-permit": "The reader has no permit for this record that still stands.",
    "client.unknown-hospital": "No member hospital has this name or key.",
}
