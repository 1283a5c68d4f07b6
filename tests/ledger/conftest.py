"""A world of four hospitals for the tests of the rule book: keys from fixed seeds, time by hand, one block a call."""

from __future__ import annotations

from hashlib import sha256

import pytest

from medchain.chain.genesis import Genesis, Hospital
from medchain.chain.parameters import Parameters
from medchain.chain.receipt import Receipt
from medchain.chain.transaction import Transaction, TransactionBody
from medchain.crypto.sealing import SUITE_X25519
from medchain.crypto.signing import SigningKey
from medchain.ledger.apply import Applied, BlockContext, apply_block, genesis_changes
from medchain.ledger.execution import Handler
from medchain.ledger.people import Credential, RegisterPatient, pseudonym_of, registration_bytes

START_MS = 1_800_000_000_000
DAY_MS = 86_400_000


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
        self.events: list[tuple[int, object]] = []

    def context(self) -> BlockContext:
        """The context of the next block."""
        return BlockContext(self.height + 1, self.time_ms + 1000, self.network, self.genesis.parameters)

    def transaction(self, signer: SigningKey, *handlers: Handler) -> Transaction:
        self.nonce += 1
        body = TransactionBody(
            "test", signer.public, self.height + 100, tuple(handler.operation() for handler in handlers), self.nonce.to_bytes(8, "big")
        )
        return Transaction.sign(body, signer, self.network)

    def block(self, *transactions: Transaction, wait_ms: int = 1000) -> Applied:
        """Execute one block twice (purity), adopt its changes, return what it did."""
        context = BlockContext(self.height + 1, self.time_ms + wait_ms, self.network, self.genesis.parameters)
        before = dict(self.state.rows)
        applied = apply_block(self.state, context, transactions)
        assert self.state.rows == before, "the view was changed"
        assert apply_block(State(before), context, transactions) == applied
        self.height, self.time_ms = context.height, context.time_ms
        for row_key, value in applied.changes.items():
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

    def hospital(self, name: str) -> SigningKey:
        return self.organisations[name]

    def clinician(self, name: str, at: str, *, days: int = 30, role: str = "physician") -> SigningKey:
        """A clinician credentialed at a hospital."""
        signer = key(f"clinician {name}")
        opening = fixed(f"clinician opening {name}")
        self.accepted(
            self.hospital(at), Credential(signer.public, SUITE_X25519, opening, role, "general", self.time_ms + days * DAY_MS)
        )
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




@pytest.fixture
def world() -> World:
    return World()
