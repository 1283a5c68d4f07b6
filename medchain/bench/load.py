"""The work: a process of its own that hands in transactions at all hospitals and knows afterwards what became of each.

    python -m medchain.bench.load --net NET [--kind KIND] [--operations N] [--batch N] [--submit N] [--prepared N] [--in-flight N]
                                  [--rate N] [--leave-out NAME,...]

Closed loop (the default): so many groups of 64 transactions are always under way, each waits for the decision of its last one. Open loop
(--rate): so many transactions a second are due whatever happens, and a latency counts from when its group was due, so that a stall is not
hidden by asking less. --prepared signs so many transactions before the work begins: clients sign on machines of their own, and on the
nodes' machine their signing would be taken from the nodes. Each line on standard input is an order (`report`, `stop`, `check URL`), each
line on standard output its answer, one JSON object. Moments are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from medchain.actions.transactions import build_body
from medchain.bench.workload import KINDS, Task, Tasks, joined, workload
from medchain.chain import limits
from medchain.chain.genesis import Genesis
from medchain.chain.transaction import Transaction
from medchain.client.node import NodeClient
from medchain.crypto.keyfile import Identity, load_identity
from medchain.errors import InvariantBroken, MedchainError, Rejected, Unavailable
from medchain.node.home import load_genesis
from medchain.testnet.plan import Plan, load_plan
from medchain.wire.methods import BATCH_TRANSACTIONS_MAX

POSTED_TOGETHER: Final = 8
"""Of a group where each transaction has a POST of its own."""
OPERATIONS_TOGETHER: Final = 256
"""Of a group at most: what takes longer than a block is known to be decided late, and all at once."""
LIFE_BLOCKS: Final = 5_000
"""How long a transaction may wait: minutes, longer than any fault of the page, within the expiry window."""
PAUSE_SECONDS: Final = 0.05
"""Before another hospital is tried."""
CALL_SECONDS: Final = 2.0
"""For one submission to be answered; a hospital that stands still must not take a worker with it."""
WAIT_MS: Final = 1_000
"""One tx.wait; asked again until GIVE_UP_SECONDS, each time at a hospital that answers."""
GIVE_UP_SECONDS: Final = 30.0
"""A group whose hospital died right after accepting it waits there; the worker goes on and the end's check finds it."""
HEAD_SECONDS: Final = 1.0
PREPARING_AT_ONCE: Final = 16
"""Groups of what a kind needs first that are under way together."""
PREPARING_OPERATIONS: Final = 50


@dataclass(frozen=True, slots=True)
class Shape:
    """How transactions look and how they are handed in."""

    kind: str = "patient"
    """A name of workload.KINDS."""
    operations: int = 1
    """Of one transaction."""
    batch: int = 1
    """Transactions under one signature; 1 = each has its own."""
    submit: int = BATCH_TRANSACTIONS_MAX
    """Transactions of one call; 1 = a POST for each."""
    prepared: int = 0
    """Transactions signed before the work begins; when they are used up, further ones are signed as they are needed."""
    in_flight: int = 8
    """Groups (`together` transactions each) under way: five hundred transactions keep two cores busy; more of them only wait longer."""
    rate: float = 0.0
    """Transactions a second, 0 = closed loop."""

    @property
    def together(self) -> int:
        """Transactions of a group: what one worker hands in before it waits for the decision of the last."""
        if self.submit == 1:
            return POSTED_TOGETHER
        return max(self.batch, min(BATCH_TRANSACTIONS_MAX, OPERATIONS_TOGETHER // self.operations))

    def words(self) -> list[str]:
        """Return the words of the command line."""
        return [
            "--kind", self.kind, "--operations", str(self.operations), "--batch", str(self.batch), "--submit", str(self.submit),
            "--prepared", str(self.prepared), "--in-flight", str(self.in_flight), "--rate", str(self.rate),
        ]  # fmt: skip


class Load:
    """Workers and what they saw."""

    def __init__(self, plan: Plan, genesis: Genesis, keys: dict[str, Identity], shape: Shape) -> None:
        """`keys`: organisation identity by name of each hospital that takes part."""
        self._genesis = genesis
        self._network = genesis.domain()
        self._keys = keys
        self._shape = shape
        self._names = list(keys)
        self._clients = {seat.name: NodeClient(seat.rpc_url) for seat in plan.seats if seat.name in keys}
        margin = shape.together * len(keys)  # groups are whole, and hospitals have the same number or one more
        self._source = workload(shape.kind, self._network, keys, (shape.prepared + margin) * shape.operations)
        self._ready: dict[str, deque[list[Transaction]]] = {name: deque() for name in self._names}
        """Groups signed beforehand, by hospital."""
        self._seconds_per_group = shape.together / shape.rate if shape.rate else 0.0
        self._next_due = 0.0
        self._height = 0
        self._is_stopping = False
        self.accepted: list[str] = []
        self.batches: list[tuple[float, float, int]] = []
        """(moment a group was due or handed in, moment its decision was known, transactions)."""
        self.refusals: Counter[str] = Counter()
        self._reported = 0

    async def prepare(self) -> None:
        """Put on the chain what the kind needs first, and sign what is to be signed beforehand. Raises InvariantBroken when that fails."""
        await self._note_height()
        for phase in self._source.phases():
            tasks = joined(phase, PREPARING_OPERATIONS)
            groups = [
                (name, [self._signed([task])[0] for task in own[start : start + BATCH_TRANSACTIONS_MAX]])
                for name in self._names
                for own in ([task for task in tasks if task.hospital == name],)
                for start in range(0, len(own), BATCH_TRANSACTIONS_MAX)
            ]
            room = asyncio.Semaphore(PREPARING_AT_ONCE)
            await asyncio.gather(*(self._decide(group, name, room) for name, group in groups))
        for number in range(self._shape.prepared // self._shape.together):
            name = self._names[number % len(self._names)]
            self._ready[name].append(self._group(name))

    async def _decide(self, group: list[Transaction], home: str, room: asyncio.Semaphore) -> None:
        """Hand in a group of what comes first until all of it is accepted, and wait for its decision."""
        async with room:
            left = group
            for _ in range(100):
                accepted, at = await self._submit(left, home)
                left = [transaction for transaction in left if transaction.id.hex() not in accepted]
                if not left:
                    break
            if left or not await self._wait(group[-1].id, at):
                raise InvariantBroken(f"what the load needs on the chain first was not decided: {dict(self.refusals)}")

    async def run(self) -> None:
        """Work until `stop`, and let what is under way end."""
        self._next_due = time.monotonic()
        await self._note_height()
        height = asyncio.create_task(self._follow_height(), name="height")
        await asyncio.gather(*(self._work(number) for number in range(self._shape.in_flight)))
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
            if self._seconds_per_group:
                due, self._next_due = self._next_due, self._next_due + self._seconds_per_group
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            try:
                group = self._ready[home].popleft() if self._ready[home] else self._group(home)
            except Rejected:  # what was put on the chain for this kind is used up
                return
            accepted, at = await self._submit(group, home)
            if accepted and await self._wait(bytes.fromhex(accepted[-1]), at):
                self.batches.append((due, time.monotonic(), len(accepted)))

    def _group(self, hospital: str) -> list[Transaction]:
        """Return the signed transactions of a group."""
        shape, group = self._shape, list[Transaction]()
        while len(group) < shape.together:
            count = min(shape.batch, shape.together - len(group))
            task = self._source.next(hospital, count * shape.operations)
            parts = [task.operations[start : start + shape.operations] for start in range(0, len(task.operations), shape.operations)]
            group += self._signed([Task(hospital, task.key, part) for part in parts])
        return group

    def _signed(self, tasks: Tasks) -> Sequence[Transaction]:
        """Return the transactions of tasks of one key, under one signature."""
        key, valid_until = tasks[0].key, self._height + LIFE_BLOCKS
        bodies = [
            build_body(
                self._genesis.chain_id, key.public, task.operations, valid_until=valid_until, nonce=secrets.token_bytes(limits.NONCE_BYTES)
            )
            for task in tasks
        ]
        if len(bodies) > 1:
            return Transaction.sign_batch(bodies, key, self._network)
        return [Transaction.sign(body, key, self._network) for body in bodies]

    async def _submit(self, group: Sequence[Transaction], home: str) -> tuple[list[str], str]:
        """Hand a group in, call by call, each at its home or, when that does not take it, elsewhere; return ids accepted and where."""
        accepted: list[str] = []
        at = home
        for start in range(0, len(group), self._shape.submit):
            ids, at = await self._call(group[start : start + self._shape.submit], home)
            accepted += ids
        self.accepted += accepted
        return accepted, at

    async def _call(self, transactions: Sequence[Transaction], home: str) -> tuple[list[str], str]:
        for at in self._from(home):
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    rows = await self._hand_in(self._clients[at], transactions)
            except (MedchainError, TimeoutError) as error:  # down, or overloaded: nothing was promised
                self.refusals[getattr(error, "code", "unavailable")] += 1
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            accepted = [row["id"] for row in rows if row["result"] == "accepted"]
            self.refusals.update(row["code"] for row in rows if row["result"] == "refused")
            if accepted:
                return accepted, at
            await asyncio.sleep(PAUSE_SECONDS)
        return [], home

    async def _hand_in(self, client: NodeClient, transactions: Sequence[Transaction]) -> list[dict[str, Any]]:
        if self._shape.submit == 1:
            return [await client.call("tx.submit", transaction=transactions[0].raw)]
        answer = await client.call("tx.submit_batch", transactions=[transaction.raw for transaction in transactions])
        rows: list[dict[str, Any]] = answer["results"]
        return rows

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
    await load.prepare()
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
    parser = argparse.ArgumentParser(prog="medchain.bench.load", description="Hands in transactions at all hospitals of a test network.")
    parser.add_argument("--net", required=True, type=Path)
    usual = Shape()
    parser.add_argument("--kind", choices=list(KINDS), default=usual.kind)
    for name in ("operations", "batch", "submit", "prepared", "in_flight"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=getattr(usual, name))
    parser.add_argument("--rate", type=float, default=usual.rate)
    parser.add_argument("--leave-out", default="")
    arguments = parser.parse_args(words)
    plan = load_plan(arguments.net.resolve())
    left_out = arguments.leave_out.split(",")
    secret = plan.passphrase_file.read_text(encoding="utf-8").strip()
    keys = {seat.name: load_identity(seat.home.organisation_key_file, secret) for seat in plan.seats if seat.name not in left_out}
    shape = Shape(**{field.name: getattr(arguments, field.name) for field in fields(Shape)})
    load = Load(plan, load_genesis(plan.genesis_file), keys, shape)
    asyncio.run(_obey(load))
    return 0


if __name__ == "__main__":
    sys.exit(main())
