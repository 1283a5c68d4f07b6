"""Networks with a past: whole test networks whose nodes have long chains and large states before any of them ever ran.

    python -m medchain.bench.founded --net NET --keys N | --blocks N

Blocks are built, executed and certified by the engine's own code in one process that holds the keys of all hospitals, written into the
store of one of them and copied into the others': to a node that starts on it, it is its own past. What fills the state are consents,
because nothing comes of them later: records would be looked at by the custodians of every hospital as soon as the nodes run. Knows no load.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from medchain.bench.micro.clinic import check
from medchain.bench.micro.solo import LoneChain
from medchain.bench.program import environment
from medchain.bench.workload import Consents, Task, joined
from medchain.chain import limits
from medchain.chain.transaction import Transaction, TransactionBody
from medchain.crypto.keyfile import load_identity
from medchain.errors import Unavailable
from medchain.node.home import load_genesis
from medchain.store.keyvalue import prefix_end
from medchain.store.leveldb import LevelDB
from medchain.testnet.launch import Testnet
from medchain.testnet.plan import Plan, load_plan

AT_ONCE: Final = 10_000
"""Consents for which patients are registered at once."""
PER_TRANSACTION: Final = 50
PER_BLOCK: Final = 20
"""Transactions of a block while the state is filled: a thousand operations, within every bound of a block."""
LIFE_BLOCKS: Final = 1_000
BLOCK_MS: Final = 1
"""Between two blocks: the chain must not end in the future, or its nodes would have to wait for it."""
PATIENCE_SECONDS: Final = 900.0


def network_with(folder: Path, *, keys: int = 0, blocks: int = 0) -> Path:
    """Return the folder of a network whose state holds `keys` keys at least, or whose chain has `blocks` blocks; made once in `folder`.

    Raises Unavailable when it cannot be made.
    """
    whole = folder / f"founded-{keys}-{blocks}"
    if not whole.exists():
        begun = folder / f"begun-{keys}-{blocks}"
        shutil.rmtree(begun, ignore_errors=True)
        plan = Testnet.open_or_make(begun, None, 0).plan
        command = [sys.executable, "-P", "-m", "medchain.bench.founded", "--net", str(begun), "--keys", str(keys), "--blocks", str(blocks)]
        done = subprocess.run(command, env=environment(), timeout=PATIENCE_SECONDS, stdout=subprocess.PIPE, check=False)
        if done.returncode:
            raise Unavailable("the past of a network could not be made: look at what was said above")
        first, *others = plan.seats
        for seat in others:
            shutil.rmtree(seat.home.data_folder)
            shutil.copytree(first.home.data_folder, seat.home.data_folder)
        begun.rename(whole)
    return whole


def copy(network: Path, to: Path) -> None:
    """Copy a network that never ran. Tables of LevelDB are never written again, so both may have them in common."""

    def copy_file(source: str, target: str) -> str:
        if source.endswith(".ldb"):
            os.link(source, target)
            return target
        return shutil.copy2(source, target)

    shutil.copytree(network, to, copy_function=copy_file)


class Past:
    """Decides blocks in the store of a network's first hospital."""

    def __init__(self, plan: Plan) -> None:
        secret = plan.passphrase_file.read_text(encoding="utf-8").strip()
        genesis = load_genesis(plan.genesis_file)
        keys = [load_identity(seat.home.consensus_key_file, secret).signing for seat in plan.seats]
        of_public = {key.public: key for key in keys}
        self._organisations = {seat.name: load_identity(seat.home.organisation_key_file, secret) for seat in plan.seats}
        self._store = LevelDB(plan.seats[0].home.data_folder, create=False)
        self._chain = LoneChain(self._store, genesis, [of_public[hospital.consensus_key] for hospital in genesis.hospitals])

    @property
    def keys(self) -> int:
        """Keys in the state."""
        return self._chain.chain.tree.count

    @property
    def height(self) -> int:
        """Height of the chain."""
        return self._chain.chain.height

    def fill(self, keys: int) -> None:
        """Decide blocks full of consents until the state holds so many keys."""
        while self.keys < keys:
            source = self._consents(AT_ONCE)
            for _ in range(AT_ONCE // (PER_BLOCK * PER_TRANSACTION)):
                if self.keys < keys:
                    names = itertools.islice(itertools.cycle(self._organisations), PER_BLOCK)
                    self._decide([source.next(name, PER_TRANSACTION) for name in names])

    def lengthen(self, blocks: int) -> None:
        """Decide blocks of one consent each until the chain has so many."""
        if self.height >= blocks:
            return
        source = self._consents(blocks)
        for name in itertools.cycle(self._organisations):
            if self.height >= blocks:
                break
            self._decide([source.next(name, 1)])

    def close(self) -> None:
        """Let LevelDB bring the store into the order that it has after a while, and close it."""
        self._store.compact(b"", prefix_end(b""))
        self._store.close()

    def _consents(self, operations: int) -> Consents:
        """Return what makes so many consents, when what they need is on the chain."""
        source = Consents(self._chain.network, self._organisations, operations)
        for phase in source.phases():
            for tasks in _groups(joined(phase, PER_TRANSACTION), PER_BLOCK):
                self._decide(tasks)
        return source

    def _decide(self, tasks: Sequence[Task]) -> None:
        check(self._chain.decide([self._signed(task) for task in tasks], BLOCK_MS).applied.receipts)

    def _signed(self, task: Task) -> Transaction:
        chain = self._chain
        body = TransactionBody(
            chain_id=chain.genesis.chain_id, sender=task.key.public, valid_until=self.height + LIFE_BLOCKS,
            operations=tuple(task.operations), nonce=secrets.token_bytes(limits.NONCE_BYTES),
        )  # fmt: skip
        return Transaction.sign(body, task.key, chain.network)


def _groups(tasks: Sequence[Task], size: int) -> Iterator[Sequence[Task]]:
    return (tasks[start : start + size] for start in range(0, len(tasks), size))


def main(words: Sequence[str] | None = None) -> int:
    """Give a network its past; return the exit code."""
    parser = argparse.ArgumentParser(prog="medchain.bench.founded", description="Gives a test network that never ran a past.")
    parser.add_argument("--net", required=True, type=Path)
    parser.add_argument("--keys", type=int, default=0)
    parser.add_argument("--blocks", type=int, default=0)
    arguments = parser.parse_args(words)
    past = Past(load_plan(arguments.net.resolve()))
    try:
        past.fill(arguments.keys)
        past.lengthen(arguments.blocks)
        sys.stdout.write(json.dumps({"keys": past.keys, "height": past.height}) + "\n")
    finally:
        past.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
