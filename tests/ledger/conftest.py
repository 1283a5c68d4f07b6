"""A world of four hospitals for the tests of the rule book: keys from fixed seeds, time by hand, one block a call."""

from __future__ import annotations

from hashlib import sha256

import pytest

from medchain.chain.evidence import Contradiction
from medchain.chain.genesis import Genesis, Hospital
from medchain.chain.parameters import Parameters
from medchain.chain.receipt import Event, Receipt
from medchain.chain.transaction import Transaction, TransactionBody
from medchain.chain.vote import COMMIT, ViewChange, Vote
from medchain.crypto.sealing import SUITE_X25519
from medchain.crypto.signing import SigningKey
from medchain.ledger.access import Request
from medchain.ledger.apply import Applied, BlockContext, Carried, apply_block, genesis_changes
from medchain.ledger.consents import HOSPITAL, Grant
from medchain.ledger.epochs import Interim
from medchain.ledger.execution import Handler
from medchain.ledger.people import Credential, RegisterPatient, credential_bytes, pseudonym_of, registration_bytes
from medchain.ledger.records import Amend, ConfirmCustody, Content, Register
from medchain.ledger.rows import WRITTEN_ONCE
from medchain.ledger.trail import event_names

START_MS = 1_800_000_000_000
DAY_MS = 86_400_000
RECORD = sha256(b"record").digest()
"""Id of the story's record."""


def fixed(name: str) -> bytes:
    """32 bytes that depend on the name only."""
    return sha256(name.encode()).digest()


def key(name: str) -> SigningKey:
    return SigningKey(fixed("key " + name))


class State:
    """A whole state in a dictionary: the simplest StateView there is."""

    def __init__(self, rows: dict[bytes, bytes]) -> None:
        self.rows = dict(rows)

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def iterate(self, prefix: bytes):
        return iter([(key, self.rows[key]) for key in sorted(self.rows) if key.startswith(prefix)])


class World:
    """Four hospitals a to d, a state, a height and a time. `block` executes transactions and moves on."""

    DAY_MS = DAY_MS
    fixed = staticmethod(fixed)
    key = staticmethod(key)

    def __init__(self) -> None:
        self.organisations = {name: key(f"{name} organisation") for name in "abcd"}
        members = [
            Hospital(
                name=f"Hospital {name.upper()}",
                role="validator",
                consensus_key=key(f"{name} consensus").public,
                officer_key=key(f"{name} officer").public,
                organisation_key=self.organisations[name].public,
                opening_suite=SUITE_X25519,
                opening_key=fixed(f"{name} opening"),
                certificate=b"certificate of " + name.encode(),
                endpoints=(f"{name}.example:7000",),
            )
            for name in "abcd"
        ]
        members.sort(key=lambda hospital: hospital.consensus_key)
        self.genesis = Genesis("test", START_MS, Parameters(state_buckets=64), tuple(members))
        self.network = self.genesis.domain()
        self.state = State(genesis_changes(self.genesis))
        self.height = 0
        self.time_ms = START_MS
        self.nonce = 0
        self.events: list[tuple[int, Event]] = []

    def context(self) -> BlockContext:
        """The context of the next block."""
        return BlockContext(self.height + 1, self.time_ms + 1000, self.network, self.genesis.parameters)

    def transaction(self, signer: SigningKey, *handlers: Handler) -> Transaction:
        self.nonce += 1
        body = TransactionBody(
            "test", signer.public, self.height + 100, tuple(handler.operation() for handler in handlers), self.nonce.to_bytes(8, "big")
        )
        return Transaction.sign(body, signer, self.network)

    def block(self, *transactions: Transaction, wait_ms: int = 1000, evidence: tuple[bytes, ...] = ()) -> Applied:
        """Execute one block twice (purity), adopt its changes, return what it did."""
        context = BlockContext(self.height + 1, self.time_ms + wait_ms, self.network, self.genesis.parameters)
        before = dict(self.state.rows)
        carried = Carried(evidence=evidence)
        applied = apply_block(self.state, context, transactions, carried)
        assert self.state.rows == before, "the view was changed"
        assert apply_block(State(before), context, transactions, carried) == applied
        self.height, self.time_ms = context.height, context.time_ms
        for row_key, value in applied.changes.items():
            assert not (row_key.startswith(WRITTEN_ONCE) and row_key in before), "a row that is written once was touched again"
            if value is None:
                self.state.rows.pop(row_key, None)
            else:
                self.state.rows[row_key] = value
        self.events += [(self.height, event) for receipt in applied.receipts for event in receipt.events]
        return applied

    def do(self, signer: SigningKey, *handlers: Handler, wait_ms: int = 1000) -> Receipt:
        """One transaction in a block of its own; returns its receipt."""
        return self.block(self.transaction(signer, *handlers), wait_ms=wait_ms).transaction_receipts[0]

    def accepted(self, signer: SigningKey, *handlers: Handler, wait_ms: int = 1000) -> Receipt:
        receipt = self.do(signer, *handlers, wait_ms=wait_ms)
        assert receipt.code == ""
        return receipt

    def refused(self, signer: SigningKey, *handlers: Handler, wait_ms: int = 1000) -> str:
        """One transaction that must be refused: no event, no change. Returns the code."""
        applied = self.block(self.transaction(signer, *handlers), wait_ms=wait_ms)
        receipt = applied.transaction_receipts[0]
        assert not receipt.is_accepted and receipt.events == ()
        if not applied.due_events:
            assert applied.changes == {}
        return receipt.code

    def wait(self, wait_ms: int) -> Applied:
        """An empty block, later."""
        return self.block(wait_ms=wait_ms)

    def double_vote(self, name: str, height: int, view: int = 0) -> bytes:
        """Encoded evidence: hospital `name` signed two commits of one height and view."""
        votes = [Vote.sign(self.network, key(f"{name} consensus"), COMMIT, height, view, fixed(block)) for block in ("one", "two")]
        return Contradiction.of(*votes).encode()

    def lie(self, name: str, height: int) -> bytes:
        """Encoded evidence: hospital `name` committed in view 0 and hid it in a view change to view 1."""
        signer = key(f"{name} consensus")
        commit = Vote.sign(self.network, signer, COMMIT, height, 0, fixed("one"))
        return Contradiction.of(commit, ViewChange.sign(self.network, signer, height, 1, None)).encode()

    def hospital(self, name: str) -> SigningKey:
        return self.organisations[name]

    def credential(
        self,
        signer: SigningKey,
        at: str,
        *,
        days: int = 30,
        role: str = "physician",
        opening: str = "opening",
        agreed_with: str | None = None,
    ) -> Credential:
        """The operation with which a hospital credentials a clinician's key; the clinician's proof may name another hospital."""
        hospital, opening_key = self.hospital(agreed_with or at).public, fixed(opening)
        proof = signer.sign(credential_bytes(self.network, hospital, SUITE_X25519, opening_key))
        return Credential(signer.public, SUITE_X25519, opening_key, role, "general", self.time_ms + days * DAY_MS, proof)

    def clinician(self, name: str, at: str, *, days: int = 30, role: str = "physician") -> SigningKey:
        """A clinician credentialed at a hospital."""
        signer = key(f"clinician {name}")
        self.accepted(self.hospital(at), self.credential(signer, at, days=days, role=role, opening=f"clinician opening {name}"))
        return signer

    def registration(self, signer: SigningKey, at: str, *, agreed_with: str | None = None) -> RegisterPatient:
        """The operation that registers a patient at a hospital; the patient's proof may name another one."""
        opening = fixed("patient opening")
        hospital = self.hospital(agreed_with or at).public
        proof = signer.sign(registration_bytes(self.network, hospital, SUITE_X25519, opening))
        return RegisterPatient(signer.public, SUITE_X25519, opening, proof)

    def patient(self, name: str, at: str) -> tuple[SigningKey, bytes]:
        """A registered patient: key and pseudonym."""
        signer = key(f"patient {name}")
        self.accepted(self.hospital(at), self.registration(signer, at))
        return signer, pseudonym_of(signer.public)




def register(pseudonym: bytes, author: bytes, record: bytes = RECORD, *, epoch: int = 1, category: str = "general") -> Register:
    content = Content(20, fixed("root 1"), 2, epoch, author, 202401, (), fixed("wrap 1"))
    return Register(record, pseudonym, category, "fhir-bundle", content)


def amend(author: bytes, version: int, record: bytes = RECORD, *, epoch: int = 1) -> Amend:
    content = Content(21, fixed(f"root {version}"), 3, epoch, author, 202402, (fixed("token"),), fixed(f"wrap {version}"))
    return Amend(record, version, content)


class Story(World):
    """The cast of the main story: a patient of hospital a with one record there, a clinician at b and one at c."""

    RECORD = RECORD
    register = staticmethod(register)
    amend = staticmethod(amend)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (self.hospital(name) for name in "abcd")
        self.lee = self.clinician("lee", "b")
        self.kim = self.clinician("kim", "c")
        self.ann, self.pseudonym = self.patient("ann", "a")
        self.accepted(self.a, Interim(self.pseudonym, "general", 1, fixed("check 1")))
        self.accepted(self.a, register(self.pseudonym, self.a.public), ConfirmCustody(RECORD, 1))

    def grant(self, grantee: SigningKey | None = None, *, kind: str = HOSPITAL, days: int = 7, **other) -> bytes:
        """A consent of the patient, by default to hospital b for treatment; returns its id."""
        grantee = grantee or self.b
        said = {"purpose": "TREAT", "category": "general", "from_ms": 0, "until_ms": self.time_ms + days * DAY_MS} | other
        receipt = self.accepted(self.ann, Grant(kind, grantee.public, **said))
        return receipt.events[0].fields[1]

    def ask(self, clinician: SigningKey | None = None, purpose: str = "TREAT", *, role: str = "physician", wait_ms: int = 1000):
        """A request; returns (permit id, "") or (None, denial code), having checked that it is on both trails."""
        receipt = self.accepted(clinician or self.lee, Request(RECORD, purpose, role), wait_ms=wait_ms)
        (event,) = receipt.events
        assert event.subjects == (self.pseudonym, RECORD)
        said = event_names(event)
        assert said["clinician"] == (clinician or self.lee).public
        return (said["permit"], "") if event.kind == "access.permit" else (None, said["code"])


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def make_story() -> type[Story]:
    """For tests that need a fresh story for each example they draw."""
    return Story
