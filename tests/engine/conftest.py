"""A small deterministic cluster of whole engines: memory stores, a queue of encoded messages, ticks by hand. No part is a mock."""

from __future__ import annotations

from collections import deque
from hashlib import sha256

import pytest

from medchain.chain.genesis import Genesis, Hospital
from medchain.chain.parameters import Parameters
from medchain.chain.receipt import Receipt, decode_receipts
from medchain.chain.transaction import Transaction, TransactionBody
from medchain.crypto.sealing import SUITE_X25519
from medchain.crypto.signing import SigningKey
from medchain.engine.engine import Engine
from medchain.engine.ready import (
    Answered,
    PeerConnected,
    PeerDisconnected,
    Queried,
    Ready,
    Received,
    Refused,
    ReleaseAsked,
    Submitted,
    Ticked,
)
from medchain.engine.verification import Verifier
from medchain.ledger.access import Release, Request
from medchain.ledger.consents import HOSPITAL, Grant, consent_id
from medchain.ledger.epochs import Interim
from medchain.ledger.people import Credential, RegisterPatient, credential_bytes, pseudonym_of, registration_bytes
from medchain.ledger.permits import permit_id
from medchain.ledger.records import Content, Register
from medchain.store.memory import MemoryKeyValue
from medchain.wire.peer import decode_message, encode_message

START_MS = 1_800_000_000_000
TICK_MS = 20


def fixed(name: str) -> bytes:
    return sha256(name.encode()).digest()


def key(name: str) -> SigningKey:
    return SigningKey(fixed("key " + name))


def make_genesis(count: int = 4, chain_id: str = "test", **parameters: int) -> Genesis:
    settings = {"state_buckets": 64, "heartbeat_ms": 30_000, "expiry_window_blocks": 50} | parameters
    hospitals = [
        Hospital(
            name=f"Hospital {index}",
            role="validator",
            consensus_key=key(f"{index} consensus").public,
            officer_key=key(f"{index} officer").public,
            organisation_key=key(f"{index} organisation").public,
            opening_suite=SUITE_X25519,
            opening_key=fixed(f"{index} opening"),
            certificate=b"certificate of %d" % index,
            endpoints=(f"h{index}.example:7000",),
        )
        for index in range(count)
    ]
    hospitals.sort(key=lambda hospital: hospital.consensus_key)
    return Genesis(chain_id, START_MS, Parameters(**settings), tuple(hospitals))


class Node:
    """One engine with its store, as a process would hold them."""

    def __init__(self, cluster: Cluster, index: int, store: MemoryKeyValue) -> None:
        self.cluster = cluster
        self.index = index
        self.key = key(f"{index} consensus")
        self.store = store
        self.engine: Engine | None = None
        self.replies: list = []
        self.starts = 0
        self.offset_ms = 0

    @property
    def is_alive(self) -> bool:
        return self.engine is not None

    def start(self, **options) -> None:
        """Begin a process on what the store holds; every living node connects both ways."""
        self.starts += 1
        self.offset_ms = self.cluster.now_ms
        self.engine = Engine(
            genesis=self.cluster.genesis,
            store=self.store,
            consensus_key=self.key,
            verifier=Verifier(self.cluster.genesis.domain()),
            challenge=fixed(f"challenge {self.index} {self.starts}"),
            **options,
        )

    def handle(self, *events) -> Ready:
        ready = self.engine.handle_all(events)
        self.store.write(ready.batch)
        self.replies += ready.replies
        for envelope in ready.send:
            data = encode_message(envelope.message)
            for other in self.cluster.nodes:
                if other is not self and envelope.to in (None, other.key.public):
                    self.cluster.carry(self, other, data)
        return ready

    def tick(self) -> Ready:
        now_ms = self.cluster.now_ms
        return self.handle(Ticked(now_ms - self.offset_ms, START_MS + now_ms))

    def replies_of(self, kind: type) -> list:
        return [reply for reply in self.replies if isinstance(reply, kind)]

    def ask(self, method: str, **params):
        """Answer a read, or return its Refused."""
        self.replies.clear()
        self.handle(Queried(1, method, params))
        reply = next(reply for reply in self.replies if isinstance(reply, Answered | Refused))
        return reply.result if isinstance(reply, Answered) else reply

    def ask_release(self, permit: bytes):
        self.replies.clear()
        self.handle(ReleaseAsked(1, permit))
        return next(reply for reply in self.replies if isinstance(reply, Answered | Refused))

    @property
    def height(self) -> int:
        return self.engine.head.height


class Cluster:
    """Nodes, links and time."""

    def __init__(self, count: int = 4, **parameters: int) -> None:
        self.genesis = make_genesis(count, **parameters)
        self.network = self.genesis.domain()
        self.now_ms = 0
        self.queue: deque[tuple[Node, Node, bytes]] = deque()
        self.drop = lambda source, target, message: False
        self.sent: list = []
        self.nodes = [Node(self, index, MemoryKeyValue()) for index in range(count)]
        self.links: set[tuple[int, int]] = set()
        self._nonce = 0
        for node in self.nodes:
            node.store.write(Engine.founding_batch(self.genesis))
            node.start()
        for node in self.nodes:
            for other in self.nodes:
                if node.index < other.index:
                    self.connect(node, other)

    # ---- links and processes ----

    def connect(self, one: Node, other: Node) -> None:
        self.links |= {(one.index, other.index), (other.index, one.index)}
        one.handle(PeerConnected(other.key.public))
        other.handle(PeerConnected(one.key.public))

    def disconnect(self, one: Node, other: Node) -> None:
        self.links -= {(one.index, other.index), (other.index, one.index)}
        for node, peer in ((one, other), (other, one)):
            if node.is_alive:
                node.handle(PeerDisconnected(peer.key.public))

    def kill(self, node: Node) -> None:
        node.engine = None
        for other in self.nodes:
            if (node.index, other.index) in self.links:
                self.disconnect(node, other)
        self.queue = deque(item for item in self.queue if node not in item[:2])

    def restart(self, node: Node, **options) -> None:
        if node.is_alive:
            self.kill(node)
        node.start(**options)
        for other in self.nodes:
            if other is not node and other.is_alive:
                self.connect(node, other)

    def carry(self, source: Node, target: Node, data: bytes) -> None:
        message = decode_message(data)
        if (source.index, target.index) in self.links and not self.drop(source, target, message):
            self.sent.append((source.index, target.index, message, len(data)))
            self.queue.append((source, target, data))

    # ---- time ----

    def deliver(self, steps: int = 100_000) -> None:
        while self.queue and steps:
            steps -= 1
            source, target, data = self.queue.popleft()
            if target.is_alive and (source.index, target.index) in self.links:
                target.handle(Received(source.key.public, decode_message(data)))

    def tick(self) -> None:
        self.now_ms += TICK_MS
        for node in self.nodes:
            if node.is_alive:
                node.tick()
        self.deliver()

    def run(self, milliseconds: int) -> None:
        for _ in range(milliseconds // TICK_MS):
            self.tick()

    def run_until(self, condition, milliseconds: int = 20_000) -> None:
        for _ in range(milliseconds // TICK_MS):
            if condition():
                return
            self.tick()
        assert condition(), [node.engine.status()["agreement"] if node.is_alive else None for node in self.nodes]

    def warm(self) -> None:
        """Let every node pass its amnesia check."""
        self.run_until(lambda: all(node.engine.status()["may_vote"] for node in self.living))

    @property
    def living(self) -> list[Node]:
        return [node for node in self.nodes if node.is_alive]

    @property
    def primary(self) -> Node:
        """The node that leads the present height and view, as its own replica sees it."""
        leader = self.living[0].engine._agreement.replica.primary_key()
        return next(node for node in self.nodes if node.key.public == leader)

    def check_agreement(self) -> None:
        """No two nodes decided different blocks, and equal heights have equal roots."""
        for height in range(1, max(node.height for node in self.living) + 1):
            digests = {node.engine.chain.archive.digest_of(height) for node in self.living} - {None}
            assert len(digests) <= 1, height
        roots = {(node.height, node.engine.head.state_root) for node in self.living}
        assert len(roots) == len({height for height, _ in roots})

    # ---- clients ----

    def sign(self, sender: SigningKey, *handlers, valid_until: int | None = None, chain_id: str | None = None, network=None) -> Transaction:
        self._nonce += 1
        body = TransactionBody(
            chain_id=chain_id or self.genesis.chain_id,
            sender=sender.public,
            valid_until=valid_until if valid_until is not None else max(node.height for node in self.living) + 40,
            operations=tuple(handler.operation() for handler in handlers),
            nonce=self._nonce.to_bytes(8, "big"),
        )
        return Transaction.sign(body, sender, network or self.network)

    def credential(self, hospital: int = 0, name: str = "lee", role: str = "physician", **options) -> Transaction:
        organisation, clinician = key(f"{hospital} organisation"), key(name)
        opening = fixed(name + " opening")
        proof = clinician.sign(credential_bytes(self.network, organisation.public, SUITE_X25519, opening))
        payload = Credential(clinician.public, SUITE_X25519, opening, role, "general", START_MS * 2, proof)
        return self.sign(organisation, payload, **options)

    def patient(self, hospital: int = 0, name: str = "wang", **options) -> Transaction:
        organisation, patient = key(f"{hospital} organisation"), key(name)
        opening = fixed(name + " opening")
        proof = patient.sign(registration_bytes(self.network, organisation.public, SUITE_X25519, opening))
        return self.sign(organisation, RegisterPatient(patient.public, SUITE_X25519, opening, proof), **options)

    def submit(self, node: Node, transaction: Transaction):
        """Hand in a transaction and return the node's answer."""
        before = len(node.replies)
        node.handle(Submitted(7, transaction))
        return node.replies[before]

    def settle(self, node: Node, transaction: Transaction, milliseconds: int = 20_000, among: list[Node] | None = None) -> None:
        """Hand in a transaction and run until every living node (or those named) has decided it."""
        self.submit(node, transaction)
        self.run_until(lambda: self.is_decided(transaction, among), milliseconds)

    def is_decided(self, transaction: Transaction, among: list[Node] | None = None) -> bool:
        return all(node.engine.chain.archive.locate(transaction.id) is not None for node in among or self.living)


@pytest.fixture
def signer():
    """Name → signing key of the little world, as in `key("0 organisation")`."""
    return key


@pytest.fixture
def other_genesis() -> Genesis:
    """Another network of the same name and hospitals."""
    return make_genesis(heartbeat_ms=29_999)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def make_cluster():
    return Cluster


class Story:
    """Hospital 0 registers a patient and a record; a clinician of hospital 1 gets a permit. Everything is decided by the cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        cluster.warm()
        self.custodian, self.patient, self.clinician = key("0 organisation"), key("wang"), key("lee")
        self.pseudonym, self.record = pseudonym_of(self.patient.public), fixed("record")
        self.do(cluster.patient(0, "wang"))
        self.do(cluster.credential(1, "lee"))
        self.do(cluster.sign(self.custodian, Interim(self.pseudonym, "general", 1, fixed("check"))))
        content = Content(14, fixed("root"), 1, 1, self.custodian.public, 202_701, (), fixed("wrap"))
        self.do(cluster.sign(self.custodian, Register(self.record, self.pseudonym, "general", "bundle", content)))

    def do(self, transaction: Transaction) -> Receipt:
        """Decide a transaction on all nodes and return its receipt, which must be an acceptance."""
        self.cluster.settle(self.cluster.nodes[0], transaction)
        height, index = self.cluster.nodes[0].engine.chain.archive.locate(transaction.id)
        receipt = decode_receipts(self.cluster.nodes[0].engine.chain.archive.receipts(height))[index]
        assert receipt.is_accepted, receipt.code
        return receipt

    def grant(self) -> bytes:
        """The patient lets the clinician's hospital treat; return the consent's id."""
        grant = Grant(HOSPITAL, key("1 organisation").public, "TREAT", "general", 0, START_MS + 7 * 86_400_000)
        transaction = self.cluster.sign(self.patient, grant)
        self.do(transaction)
        return consent_id(transaction.id, 0)

    def ask(self) -> bytes:
        """The clinician asks for the record; return the id of the permit, should there be one."""
        transaction = self.cluster.sign(self.clinician, Request(self.record, "TREAT", "physician"))
        self.do(transaction)
        return permit_id(transaction.id, 0)

    def announce(self, permit: bytes) -> None:
        self.do(self.cluster.sign(self.custodian, Release(permit, 1)))


@pytest.fixture
def story(cluster) -> Story:
    return Story(cluster)


@pytest.fixture
def make_story():
    return Story
