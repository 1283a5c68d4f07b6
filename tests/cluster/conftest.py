"""Real networks for the cluster tests: four processes with LevelDB on loopback, work for them, and no process left behind."""

from __future__ import annotations

import contextlib
import importlib.resources
import io
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
from medchain.cli.stage import Stage
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
        return build_transaction(network, self.genesis.chain_id, key, [operation], valid_until=valid_until, nonce=secrets.token_bytes(8))

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
def as_cluster() -> Callable[[Testnet], Cluster]:
    """Asks a network that something else runs."""
    return Cluster


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


# ---- people and records, through the commands that people type ---------------------------------------------------------------------


class Sharing:
    """Hospitals, a patient registered at a, a physician at b and one at c, and commands to them. Key files lie in `folder`."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder = folder
        self.cluster = cluster
        self._stage = Stage(io.StringIO())
        self.lee, self.kim, self.patient_key = (folder / f"{name}.key" for name in ("lee", "kim", "patient"))
        self.lee_id = self.credential("b", self.lee)["clinician"]
        self.kim_id = self.credential("c", self.kim)["clinician"]
        self.patient = self.medchain("patient", "register", "--at", self.home("a"), "--out", self.patient_key)["pseudonym"]

    def home(self, name: str) -> Path:
        return self.cluster.plan.seat(name).home.path

    def medchain(self, *words: object, expect: int = 0) -> dict:
        """Run a command in this process and return its JSON answer; another exit code than `expect` fails."""
        return self._stage.ask(*map(str, words), expect=expect)

    def credential(self, hospital: str, out: Path, expires: str = "30d") -> dict:
        return self.medchain(
            "clinician", "credential", "--at", self.home(hospital), "--role", "physician", "--expires", expires, "--out", out
        )

    def put(self, file: Path, category: str = "general", **options: str) -> str:
        more = [word for name, value in options.items() for word in (f"--{name}", value)]
        words = ("record", "put", file, "--at", self.home("a"), "--patient", self.patient, "--category", category)
        return self.medchain(*words, *more)["record"]

    def grant(self, grantee: object, *, category: str = "general", purpose: str = "TREAT", until: str = "1d") -> str:
        words = ("consent", "grant", "--as", self.patient_key, "--at", self.home("a"), "--to", grantee)
        return self.medchain(*words, "--category", category, "--purpose", purpose, "--until", until)["consent"]

    def revoke(self, consent: str) -> dict:
        return self.medchain("consent", "revoke", consent, "--as", self.patient_key, "--at", self.home("a"))

    def request(self, record: str, *, key: Path | None = None, at: str = "b", purpose: str = "TREAT", expect: int = 0) -> dict:
        words = ("access", "request", record, "--as", key or self.lee, "--at", self.home(at), "--purpose", purpose)
        return self.medchain(*words, expect=expect)

    def get(self, record: str, out: Path, *, key: Path | None = None, at: str = "b", expect: int = 0) -> dict:
        return self.medchain("record", "get", record, "--as", key or self.lee, "--at", self.home(at), "--out", out, expect=expect)

    def emergency(self, record: str, *, key: Path | None = None, at: str = "c", expect: int = 0) -> dict:
        words = ("access", "emergency", record, "--as", key or self.kim, "--at", self.home(at), "--reason", "UNCONSCIOUS")
        return self.medchain(*words, expect=expect)

    def history(self, record: str, at: str = "a") -> list[dict]:
        return self.medchain("record", "history", record, "--at", self.home(at))["events"]


@contextlib.contextmanager
def running_network(folder: Path, hospitals: int = 4, prepare: Callable[[Testnet], None] = lambda testnet: None) -> Iterator[Cluster]:
    """A network on free ports in `folder`, ready; afterwards none of its processes is left."""
    testnet = Testnet.open_or_make(folder, hospitals, 0)
    cluster = Cluster(testnet)
    try:
        prepare(testnet)
        testnet.start()
        testnet.wait_ready()
        yield cluster
    finally:
        cluster.stop_hard()


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sharing]:
    """One network for the tests of a module, each with records and consents of its own."""
    folder = tmp_path_factory.mktemp("sharing")
    with running_network(folder / "net") as cluster:
        yield Sharing(folder, cluster)


@pytest.fixture
def make_sharing(tmp_path: Path) -> Iterator[Callable[..., Sharing]]:
    """Makes networks of the test's own; `prepare` may change their settings before they start."""
    with contextlib.ExitStack() as stack:

        def make(prepare: Callable[[Testnet], None] = lambda testnet: None) -> Sharing:
            cluster = stack.enter_context(running_network(tmp_path / "net", prepare=prepare))
            return Sharing(tmp_path, cluster)

        yield make


@pytest.fixture(scope="session")
def sample_bundle() -> Path:
    """The FHIR bundle that comes with medchain."""
    return Path(str(importlib.resources.files("medchain.cli").joinpath("sample_bundle.json")))
