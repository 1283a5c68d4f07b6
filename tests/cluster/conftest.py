"""Real networks for the cluster tests: four processes with LevelDB on loopback, work for them, and no process left behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medchain.actions.people import register_patient
from medchain.actions.transactions import build_transaction
from medchain.chain.parameters import Parameters
from medchain.chain.transaction import Transaction
from medchain.crypto.keyfile import Identity, load_identity
from medchain.crypto.sealing import SUITE_X25519
from medchain.errors import Rejected, Unavailable
from medchain.node.home import load_genesis
from medchain.testnet.launch import Testnet, ask, poll

PATIENCE_S = 30.0
"""Until a condition must hold on a loaded machine; only a failing test waits so long."""


class Cluster:
    """A test network and questions to it."""

    def __init__(self, testnet: Testnet) -> None:
        self.testnet = testnet
        self.plan = testnet.plan
        self.names = [seat.name for seat in testnet.plan.seats]
        self.genesis = load_genesis(testnet.plan.genesis_file)
        self.passphrase = testnet.plan.passphrase_file.read_text().strip()
        self._organisations: dict[str, Identity] = {}

    def ask(self, name: str, method: str, **params):
        return ask(self.plan.seat(name).rpc_port, method, **params)

    def status(self, name: str) -> dict | None:
        try:
            return self.ask(name, "node.status")
        except Unavailable:
            return None

    def height(self, name: str) -> int:
        status = self.status(name)
        return -1 if status is None else status["height"]

    def wait(self, what: str, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> float:
        """Seconds until the condition held; fails the test when it never does."""
        began = time.monotonic()
        if not poll(condition, timeout_s):
            rows = {name: self.status(name) for name in self.names}
            pytest.fail(f"not within {timeout_s:.0f} s: {what}\n{rows}")
        return time.monotonic() - began

    def organisation(self, name: str) -> Identity:
        if name not in self._organisations:
            self._organisations[name] = load_identity(self.plan.seat(name).home.organisation_key_file, self.passphrase)
        return self._organisations[name]

    def registration(self, name: str, *, valid_until: int = 9_000) -> Transaction:
        """A transaction of one hospital: a patient is registered there."""
        key, network = self.organisation(name).signing, self.genesis.domain()
        operation = register_patient(network, key.public, Identity.generate("patient", SUITE_X25519))
        return build_transaction(
            network, self.genesis.chain_id, key, [operation], valid_until=valid_until, nonce=secrets.token_bytes(8)
        )

    def submit(self, name: str, transaction: Transaction) -> str:
        """Hand in at one hospital; returns the id."""
        answer = self.ask(name, "tx.submit", transaction=transaction.raw.hex())
        assert answer["result"] == "accepted"
        return answer["id"]

    def all_agree(self, names: list[str] | None = None) -> bool:
        """Whether these hospitals (all by default) stand at the same block with the same root, and nothing waits in a pool."""
        rows = [self.status(name) for name in names or self.names]
        if any(row is None or row["pool_transactions"] for row in rows):
            return False
        return len({(row["height"], row["digest"], row["state_root"]) for row in rows}) == 1

    def wait_agreed(self, names: list[str] | None = None) -> None:
        self.wait("all hospitals at one block with one state root", lambda: self.all_agree(names))

    def decided_ids(self, name: str) -> Counter[str]:
        """How often each transaction stands in the chain of one hospital."""
        found: Counter[str] = Counter()
        for height in range(1, self.height(name) + 1):
            found.update(self.ask(name, "chain.block", height=height)["transactions"])
        return found

    def stop_hard(self) -> None:
        """End every process of the network, whatever state it is in."""
        for name in self.names:
            children = self.testnet._children.get(name)
            for process in {self.testnet.process_of(name), children.pid if children is not None and children.poll() is None else None}:
                if process is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process, signal.SIGKILL)  # each node leads a process group of its own
        self.testnet.stop()


class Load(threading.Thread):
    """Registers patients at every hospital that answers, until stopped; remembers what was accepted."""

    def __init__(self, cluster: Cluster, batch: int = 8) -> None:
        super().__init__(name="load", daemon=True)
        self._cluster = cluster
        self._batch = batch
        self._is_stopping = threading.Event()
        self.accepted: list[str] = []
        self.failure: BaseException | None = None
        for name in cluster.names:
            cluster.organisation(name)  # unlocking keys takes time, so it is done before the clock matters

    def run(self) -> None:
        try:
            while not self._is_stopping.is_set():
                for name in self._cluster.names:
                    self._submit(name)
        except BaseException as error:  # shown by the test, which a thread cannot fail by itself
            self.failure = error

    def _submit(self, name: str) -> None:
        batch = [self._cluster.registration(name) for _ in range(self._batch)]
        try:
            answer = self._cluster.ask(name, "tx.submit_batch", transactions=[transaction.raw.hex() for transaction in batch])
        except (Unavailable, Rejected):
            return  # killed just now: nothing was promised
        for row in answer["results"]:
            if row["result"] == "accepted":
                self.accepted.append(row["id"])

    def finish(self) -> list[str]:
        """Stop, and return the ids that were accepted."""
        self._is_stopping.set()
        self.join(PATIENCE_S)
        assert not self.is_alive()
        if self.failure is not None:
            raise self.failure
        return list(self.accepted)


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes and starts networks on free ports; afterwards none of their processes is left."""
    made: list[Cluster] = []

    def make(hospitals: int = 4, *, is_started: bool = True, parameters: Parameters | None = None) -> Cluster:
        testnet = Testnet.open_or_make(tmp_path / f"net{len(made)}", hospitals, 0, parameters)
        cluster = Cluster(testnet)
        made.append(cluster)
        if is_started:
            testnet.start()
            testnet.wait_ready()
        return cluster

    yield make
    for cluster in made:
        cluster.stop_hard()


@pytest.fixture
def cluster(make_cluster) -> Cluster:
    """Four hospitals, ready."""
    return make_cluster()


@pytest.fixture
def load(cluster: Cluster) -> Iterator[Load]:
    """Work for the four hospitals, begun by the test with `start()`."""
    work = Load(cluster)
    yield work
    work._is_stopping.set()
