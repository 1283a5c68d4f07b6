"""`medchain verify`: check a proof file offline. Needs the genesis document, and nobody's word."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medchain.chain.genesis import Genesis
from medchain.cli import output
from medchain.errors import Rejected
from medchain.node.home import load_genesis
from medchain.wire import proof as proofs


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Checks a proof file with the genesis document alone. What it proves was true at the time it names; a genesis document from the "
        "same stranger as the proof proves nothing, so compare its digest with one you trust."
    )
    parser.add_argument("file", metavar="PROOF", help="the proof file, for example of `medchain tx proof`")
    parser.add_argument("--genesis", required=True, metavar="FILE", help="the genesis document of the network")


def run(arguments: argparse.Namespace) -> int:
    """Verify the file and return the exit code: 0 only when the proof holds."""
    genesis = load_genesis(Path(arguments.genesis))
    data = _read(Path(arguments.file))
    facts = _state_facts(data, genesis) if proofs.kind_of(data) == proofs.STATE_KIND else _transaction_facts(data, genesis)
    output.answer(arguments, facts, _lines(facts, genesis))
    return output.DONE


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(proofs.PROOF_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Rejected("cli.file", f"{path} cannot be read: {error.strerror}.") from None


def _transaction_facts(data: bytes, genesis: Genesis) -> dict[str, Any]:
    proven = proofs.verify_transaction_proof(data, genesis)
    body, receipt = proven.transaction.body, proven.receipt
    return {
        "verified": True,
        "kind": "transaction",
        **_block_facts(proven),
        "transaction": proven.transaction.id,
        "sender": body.sender,
        "operations": [operation.kind for operation in body.operations],
        "code": receipt.code,
        "events": [event.kind for event in receipt.events],
    }


def _state_facts(data: bytes, genesis: Genesis) -> dict[str, Any]:
    proven = proofs.verify_state_proof(data, genesis)
    return {"verified": True, "kind": "state", **_block_facts(proven), "key": proven.key, "value": proven.value}


def _block_facts(proven: proofs.ProofFacts | proofs.StateFacts) -> dict[str, Any]:
    names = ("chain_id", "genesis", "height", "block", "time_ms", "signers")
    return {name: getattr(proven, name) for name in names} | {"signers": list(proven.signers)}


def _lines(facts: dict[str, Any], genesis: Genesis) -> list[str]:
    moment = datetime.fromtimestamp(facts["time_ms"] / 1_000, UTC)
    names = {hospital.consensus_key: hospital.name for hospital in genesis.hospitals}
    lines = [
        "The proof holds.",
        f"network         {facts['chain_id']}, genesis {facts['genesis'].hex()}",
        f"block           {facts['height']} of {moment:%Y-%m-%d %H:%M:%S} UTC",
        f"made final by   {', '.join(sorted(names[signer] for signer in facts['signers']))}",
    ]
    if facts["kind"] == "state":
        value = "absent" if facts["value"] is None else f"{len(facts['value'])} bytes"
        return [*lines, f"state key       {facts['key'].hex()}", f"value           {value}"]
    outcome = f"refused: {facts['code']}" if facts["code"] else "accepted"
    return [
        *lines,
        f"transaction     {facts['transaction'].hex()}",
        f"operations      {', '.join(facts['operations'])}",
        f"outcome         {outcome}",
    ]
