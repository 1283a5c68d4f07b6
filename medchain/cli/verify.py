"""`medchain verify`: check a proof file offline. Needs the genesis document, and nobody's word."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medchain.chain.genesis import Genesis
from medchain.cli import output
from medchain.client.verify import facts_value, verify_file
from medchain.errors import Malformed, Rejected
from medchain.node.home import load_genesis
from medchain.wire.proof import PROOF_FILE_BYTES_MAX


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
    try:
        facts = facts_value(verify_file(data, genesis))
    except Malformed as error:
        raise Malformed(f"{arguments.file} is no proof file, or was damaged: get it again ({error.message})") from None
    output.answer(arguments, {"verified": True, **facts}, _lines(facts, genesis))
    return output.DONE


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(PROOF_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Rejected("cli.file", f"{path} cannot be read: {error.strerror}.") from None


def _lines(facts: dict[str, Any], genesis: Genesis) -> list[str]:
    moment = datetime.fromtimestamp(facts["time_ms"] / 1_000, UTC)
    names = {hospital.consensus_key.hex(): hospital.name for hospital in genesis.hospitals}
    lines = [
        "The proof holds.",
        f"network         {facts['chain_id']}, genesis {facts['genesis']}",
        f"block           {facts['height']} of {moment:%Y-%m-%d %H:%M:%S} UTC",
        f"made final by   {', '.join(sorted(names[signer] for signer in facts['signers']))}",
    ]
    if facts["kind"] == "state":
        return [*lines, f"state key       {facts['key']}", f"value           {'absent' if facts['value'] is None else facts['value']}"]
    outcome = "accepted" if facts["is_accepted"] else f"refused: {facts['code']}"
    lines += [f"transaction     {facts['transaction']}", f"operations      {', '.join(facts['operations'])}"]
    return [*lines, f"outcome         {outcome}"]
