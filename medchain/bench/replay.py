"""Replayed traffic: one process in the place of all hospitals but one, which gossips signed transactions and says nothing else.

    python -m medchain.bench.replay --net NET --to NAME --transactions N

Signs the transactions, connects to the node with the keys and certificates of the other hospitals, prints a line when all are connected,
and sends everything when a line comes in. Holds the connections until its input ends. For test networks only: the others never vote.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from medchain.actions.transactions import build_body
from medchain.bench.workload import workload
from medchain.chain import limits
from medchain.chain.genesis import Genesis
from medchain.chain.transaction import Transaction
from medchain.crypto.keyfile import load_identity
from medchain.engine.ready import Envelope
from medchain.network.peers import PeerNetwork
from medchain.node.home import load_genesis
from medchain.testnet.plan import HOST, Plan, Seat, load_plan
from medchain.wire.peer import GOSSIP_TRANSACTIONS_MAX, TransactionsOffered

LIFE_BLOCKS: Final = 1_000
CONNECT_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.02


def stream(plan: Plan, genesis: Genesis, secret: str, kind: str, count: int) -> list[Transaction]:
    """Return signed transactions of one operation each, of all hospitals in turns. Nobody executes them: what they need may be missing."""
    network = genesis.domain()
    keys = {seat.name: load_identity(seat.home.organisation_key_file, secret) for seat in plan.seats}
    source = workload(kind, network, keys, count)
    for _ in source.phases():
        continue
    made = []
    for number in range(count):
        task = source.next(plan.seats[number % len(plan.seats)].name, 1)
        nonce = secrets.token_bytes(limits.NONCE_BYTES)
        body = build_body(genesis.chain_id, task.key.public, task.operations, valid_until=LIFE_BLOCKS, nonce=nonce)
        made.append(Transaction.sign(body, task.key, network))
    return made


def peer_of(seat: Seat, genesis: Genesis, secret: str) -> PeerNetwork:
    """Return the network of a hospital that listens to nobody."""
    home = seat.home
    return PeerNetwork(
        genesis=genesis, network=genesis.domain(), consensus_key=load_identity(home.consensus_key_file, secret).signing,
        certificate_path=home.tls_certificate_file, key_path=home.tls_key_file, passphrase=secret, listen=(HOST, seat.peer_port),
        deliver=lambda event: None, height=lambda: 0,
    )  # fmt: skip


async def _replay(plan: Plan, to: str, count: int) -> None:
    secret = plan.passphrase_file.read_text(encoding="utf-8").strip()
    genesis = load_genesis(plan.genesis_file)
    target = next(hospital.consensus_key for hospital in genesis.hospitals if hospital.name == to)
    transactions = stream(plan, genesis, secret, "record", count)
    peers = [peer_of(seat, genesis, secret) for seat in plan.seats if seat.name != to]
    messages = [
        TransactionsOffered(tuple(transactions[start : start + GOSSIP_TRANSACTIONS_MAX]))
        for start in range(0, count, GOSSIP_TRANSACTIONS_MAX)
    ]
    try:
        for peer in peers:
            await peer.start()
        async with asyncio.timeout(CONNECT_SECONDS):
            while not all(target in peer.connected for peer in peers):
                await asyncio.sleep(POLL_SECONDS)
        _say({"transactions": count})
        await asyncio.to_thread(sys.stdin.readline)
        for number, message in enumerate(messages):
            peers[number % len(peers)].send([Envelope(target, message)])
        await asyncio.to_thread(sys.stdin.readline)
    finally:
        for peer in peers:
            await peer.stop()


def _say(value: dict[str, int]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main(words: Sequence[str] | None = None) -> int:
    """Replay until standard input ends; return the exit code."""
    parser = argparse.ArgumentParser(prog="medchain.bench.replay", description="Stands in for all hospitals but one.")
    parser.add_argument("--net", required=True, type=Path)
    parser.add_argument("--to", required=True)
    parser.add_argument("--transactions", required=True, type=int)
    arguments = parser.parse_args(words)
    asyncio.run(_replay(load_plan(arguments.net.resolve()), arguments.to, arguments.transactions))
    return 0


if __name__ == "__main__":
    sys.exit(main())
