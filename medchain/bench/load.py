"""The work: a process of its own that registers patients at all hospitals, in batches, and knows afterwards what became of each.

    python -m medchain.bench.load --net NET [--in-flight N] [--rate N] [--leave-out NAME,...]

Closed loop (the default): so many batches are always under way, each waits for the decision of its last transaction. Open loop (--rate):
so many transactions a second are due whatever happens, and a latency counts from when its batch was due, so that a stall is not hidden by
asking less. Each line on standard input is an order (`report`, `stop`, `check URL`), each line on standard output its answer, one JSON
object. Moments are CLOCK_MONOTONIC, which all processes of a machine share.

A patient's registration is the cheapest transaction that writes a row and a trail; it carries two signatures, the hospital's and the
patient's, so each of the nodes verifies twice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from medchain.actions.people import register_patient
from medchain.actions.transactions import build_transaction
from medchain.chain.genesis import Genesis
from medchain.chain.limits import NONCE_BYTES
from medchain.chain.transaction import Transaction
from medchain.client.node import NodeClient
from medchain.crypto.keyfile import Identity, load_identity
from medchain.crypto.sealing import SUITE_X25519
from medchain.errors import MedchainError, Rejected, Unavailable
from medchain.node.home import load_genesis
from medchain.testnet.plan import Plan, load_plan
from medchain.wire.methods import BATCH_TRANSACTIONS_MAX

IN_FLIGHT_DEFAULT: Final = 8
"""Batches under way: five hundred transactions keep two cores busy; more of them only wait longer."""
LIFE_BLOCKS: Final = 5_000
"""How long a transaction may wait: minutes, longer than any fault of the page, within the expiry window."""
PAUSE_SECONDS: Final = 0.05
"""Before another hospital is tried."""
CALL_SECONDS: Final = 2.0
"""For one submission to be answered; a hospital that stands still must not take a worker with it."""
WAIT_MS: Final = 1_000
"""One tx.wait; asked again until GIVE_UP_SECONDS, each time at a hospital that answers."""
GIVE_UP_SECONDS: Final = 30.0
"""A batch whose hospital died right after accepting it waits there; the worker goes on and the end's check finds it."""
HEAD_SECONDS: Final = 1.0


class Load:
    """Workers and what they saw."""

    def __init__(self, plan: Plan, genesis: Genesis, keys: dict[str, Identity], *, in_flight: int, rate: float) -> None:
        """`keys`: organisation key by name of each hospital that takes part. `rate` in transactions a second, 0 = closed loop."""
        self._genesis = genesis
        self._network = genesis.domain()
        self._keys = keys
        self._names = list(keys)
        self._clients = {seat.name: NodeClient(seat.rpc_url) for seat in plan.seats if seat.name in keys}
        self._in_flight = in_flight
        self._seconds_per_batch = BATCH_TRANSACTIONS_MAX / rate if rate else 0.0
        self._next_due = 0.0
        self._height = 0
        self._is_stopping = False
        self.accepted: list[str] = []
        self.batches: list[tuple[float, float, int]] = []
        """(moment it was due or handed in, moment its decision was known, transactions)."""
        self.refusals: Counter[str] = Counter()
        self._reported = 0

    async def run(self) -> None:
        """Work until `stop`, and let what is under way end."""
        self._next_due = time.monotonic()
        await self._note_height()
        height = asyncio.create_task(self._follow_height(), name="height")
        await asyncio.gather(*(self._work(number) for number in range(self._in_flight)))
        height.cancel()

    def stop(self) -> None:
        """Begin no further batch."""
        self._is_stopping = True

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.close()

    def report(self) -> dict[str, Any]:
        """Return what happened since the last report."""
        fresh, self._reported = self.batches[self._reported :], len(self.batches)
        return {"accepted": len(self.accepted), "batches": fresh, "refusals": dict(self.refusals)}

    async def _work(self, number: int) -> None:
        home = self._names[number % len(self._names)]
        while not self._is_stopping:
            due = time.monotonic()
            if self._seconds_per_batch:
                due, self._next_due = self._next_due, self._next_due + self._seconds_per_batch
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            batch = [self._registration(home) for _ in range(BATCH_TRANSACTIONS_MAX)]
            accepted, at = await self._submit(batch, home)
            if accepted and await self._wait(bytes.fromhex(accepted[-1]), at):
                self.batches.append((due, time.monotonic(), len(accepted)))

    def _registration(self, hospital: str) -> Transaction:
        key = self._keys[hospital].signing
        operation = register_patient(self._network, key.public, Identity.generate("patient", SUITE_X25519))
        nonce = secrets.token_bytes(NONCE_BYTES)
        return build_transaction(
            self._network, self._genesis.chain_id, key, [operation], valid_until=self._height + LIFE_BLOCKS, nonce=nonce
        )

    async def _submit(self, batch: Sequence[Transaction], home: str) -> tuple[list[str], str]:
        """Hand a batch in, at its home or, when that does not take it, elsewhere; return the ids accepted and where."""
        for at in self._from(home):
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    answer = await self._clients[at].call("tx.submit_batch", transactions=[transaction.raw for transaction in batch])
            except (MedchainError, TimeoutError) as error:  # down, or overloaded: nothing was promised
                self.refusals[getattr(error, "code", "unavailable")] += 1
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            accepted = [row["id"] for row in answer["results"] if row["result"] == "accepted"]
            self.refusals.update(row["code"] for row in answer["results"] if row["result"] == "refused")
            self.accepted += accepted
            if accepted:
                return accepted, at
            await asyncio.sleep(PAUSE_SECONDS)
        return [], home

    async def _wait(self, identity: bytes, at: str) -> bool:
        """Wait until a transaction is decided, at the hospital that accepted it or, when that is gone, at any; return whether it was."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        places = self._from(at)
        while time.monotonic() < deadline:
            try:
                async with asyncio.timeout(WAIT_MS / 1_000 + CALL_SECONDS):
                    status = (await self._clients[places[0]].wait(identity, WAIT_MS))["status"]
            except (Unavailable, Rejected, TimeoutError):
                status = ""
            if status == "decided":
                return True
            if status == "expired":
                return False
            if status != "pending":  # gone, or never heard of it
                places = [*places[1:], places[0]]
                await asyncio.sleep(PAUSE_SECONDS)
        return False

    def _from(self, name: str) -> list[str]:
        start = self._names.index(name)
        return self._names[start:] + self._names[:start]

    async def _follow_height(self) -> None:
        while True:
            await asyncio.sleep(HEAD_SECONDS)
            await self._note_height()

    async def _note_height(self) -> None:
        for client in self._clients.values():
            with contextlib.suppress(MedchainError, TimeoutError):
                async with asyncio.timeout(CALL_SECONDS):
                    head = await client.call("chain.head")
                self._height = max(self._height, int(head["height"]))

    async def check(self, url: str) -> dict[str, Any]:
        """Compare what was accepted with the whole chain of one hospital: what is lost, what was decided twice."""
        decided: Counter[str] = Counter()
        refused: Counter[str] = Counter()
        async with NodeClient(url) as client:
            height = int((await client.call("chain.head"))["height"])
            for number in range(1, height + 1):
                block = await client.call("chain.block", height=number)
                decided.update(block["transactions"])
                refused.update(row["code"] for row in block["receipts"] if row["code"])
        return {
            "height": height,
            "accepted": len(self.accepted),
            "lost": sum(decided[identity] == 0 for identity in self.accepted),
            "doubled": sum(count > 1 for count in decided.values()),
            "refused": dict(refused),
        }


async def _obey(load: Load) -> None:
    """Take orders from standard input until it ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    work = asyncio.create_task(load.run(), name="work")
    _say({"is_running": True})
    while order := (await reader.readline()).decode().split():
        match order:
            case ["report"]:
                _say(load.report())
            case ["stop"]:
                load.stop()
                await work
                _say(load.report())
            case ["check", url]:
                _say(await load.check(url))
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await load.close()


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main(words: Sequence[str] | None = None) -> int:
    """Run the load of a network until standard input ends; return the exit code."""
    parser = argparse.ArgumentParser(prog="medchain.bench.load", description="Registers patients at all hospitals of a test network.")
    parser.add_argument("--net", required=True, type=Path)
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT_DEFAULT)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--leave-out", default="")
    arguments = parser.parse_args(words)
    plan = load_plan(arguments.net.resolve())
    left_out = arguments.leave_out.split(",")
    secret = plan.passphrase_file.read_text(encoding="utf-8").strip()
    keys = {seat.name: load_identity(seat.home.organisation_key_file, secret) for seat in plan.seats if seat.name not in left_out}
    load = Load(plan, load_genesis(plan.genesis_file), keys, in_flight=arguments.in_flight, rate=arguments.rate)
    asyncio.run(_obey(load))
    return 0


if __name__ == "__main__":
    sys.exit(main())
