"""The clients of a simulated network: real signed operations of the rule book, handed to random nodes, and a book of what was promised.

Every transaction that a node said *accepted* to is written down; the durability checker demands each of them back. Some submissions repeat
an earlier one (a client that got no answer), some must be refused (forged, expired, of another network). Knows no node's inside.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from medchain import codec
from medchain.chain.transaction import SINGLE_SIGNATURE, Operation, Transaction, TransactionBody
from medchain.crypto.hashing import tagged_digest
from medchain.crypto.signing import SigningKey
from medchain.engine.ready import Accepted, Refused
from medchain.ledger.access import ReadTrail, Request
from medchain.ledger.consents import Grant, Revoke
from medchain.ledger.epochs import Interim
from medchain.ledger.execution import made_id
from medchain.ledger.people import Credential, RegisterPatient, credential_bytes, pseudonym_of, registration_bytes
from medchain.ledger.records import Amend, ConfirmCustody, Content, Register
from medchain.sim.clocks import EPOCH_MS
from medchain.sim.identity import OPENING_SUITE, Identities, opening_key, seeded_key, watched_key

PATIENTS: Final = 3
CLINICIANS: Final = 2
CATEGORY: Final = "general"
ROLE: Final = "physician"
YEAR_MS: Final = 365 * 86_400_000
BAD_PERMILLE: Final = 30
"""Submissions that must be refused."""
CLINICIAN: Final = "clinician"


@dataclass(slots=True)
class Book:
    """What clients were told."""

    submitted: int = 0
    accepted: dict[bytes, Transaction] = field(default_factory=dict)
    """By transaction id: promised."""
    accepted_by: dict[bytes, set[int]] = field(default_factory=dict)
    """Which nodes promised it."""
    duplicates: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    """By code."""
    untrusted: frozenset[int] = frozenset()
    """Nodes whose word is worth nothing: liars."""
    wrongly_accepted: list[bytes] = field(default_factory=list)
    """Ids of transactions that had to be refused."""


    def promise(self, node: int, transaction: Transaction) -> None:
        """Write down that a node accepted a transaction."""
        if node in self.untrusted:
            return
        self.accepted[transaction.id] = transaction
        self.accepted_by.setdefault(transaction.id, set()).add(node)

    def forgive(self, node: int) -> None:
        """A disk was destroyed, and with it what only this node had promised."""
        for identity, nodes in self.accepted_by.items():
            nodes.discard(node)
            if not nodes:
                self.accepted.pop(identity, None)


class Workload:
    """Makes transactions, one after the other, from its own dice."""

    def __init__(self, seed: int, identities: Identities, valid_for_blocks: int, resubmit_permille: int) -> None:
        self.book = Book()
        self._dice = random.Random(f"medchain/workload/{seed}")
        self._identities = identities
        self._network = identities.genesis.domain()
        self._valid_for_blocks = valid_for_blocks
        self._resubmit_permille = resubmit_permille
        self._patients = [watched_key(seed, "patient", number, identities.signing) for number in range(PATIENTS)]
        self._clinicians = [watched_key(seed, "clinician", number, identities.signing) for number in range(CLINICIANS)]
        self._openings = [opening_key(seed, "person", number) for number in range(PATIENTS + CLINICIANS)]
        self._records = [tagged_digest("medchain/sim/record", b"%d/%d" % (seed, number)) for number in range(PATIENTS)]
        self._consents: list[tuple[SigningKey, bytes]] = []
        self._versions = [1] * PATIENTS
        self._known: list[Transaction] = []
        self._bad: set[bytes] = set()
        self._missing = list(range(CLINICIANS + PATIENTS))
        """People whose introduction no node has accepted yet."""
        self._introductions: dict[bytes, int] = {}
        self._requests: dict[int, Transaction] = {}
        self._count = 0

    def keys(self) -> dict[bytes, SigningKey]:
        """Return the keys of all clients by their public keys, for those who cheat together with one."""
        keys = (*self._identities.organisations, *self._patients, *self._clinicians)
        return {key.public: key for key in keys}

    def next(self, height: int, now_us: int) -> tuple[int, Transaction]:
        """Return (request, transaction) for a node whose head is `height`."""
        self._count += 1
        self.book.submitted += 1
        dice = self._dice
        roll = dice.randrange(1000)
        if self._known and roll < self._resubmit_permille:
            transaction = dice.choice(self._known[-20:])
        elif self._count > PATIENTS + CLINICIANS and roll >= 1000 - BAD_PERMILLE:
            transaction = self._bad_transaction(height)
        else:
            transaction = self._good_transaction(height)
            self._known.append(transaction)
        self._requests[self._count] = transaction
        return self._count, transaction

    def answered(self, node: int, reply: Accepted | Refused) -> None:
        """Write down what a node told a client."""
        transaction = self._requests.pop(reply.request)
        if isinstance(reply, Refused):
            self.book.refusals[reply.code] = self.book.refusals.get(reply.code, 0) + 1
            return
        if reply.is_duplicate:
            self.book.duplicates += 1
        if transaction.id in self._bad and node not in self.book.untrusted:
            self.book.wrongly_accepted.append(transaction.id)
        self.book.promise(node, transaction)
        person = self._introductions.get(transaction.id)
        if person in self._missing:
            self._missing.remove(person)

    def _sign(self, key: SigningKey, height: int, *operations: Operation) -> Transaction:
        body = TransactionBody(
            chain_id=self._identities.genesis.chain_id,
            sender=key.public,
            valid_until=height + self._valid_for_blocks,
            operations=operations,
            nonce=self._count.to_bytes(8, "big"),
        )
        return Transaction.sign(body, key, self._network)

    def _good_transaction(self, height: int) -> Transaction:
        """First the people, again until a node has accepted them; then what they do, at random."""
        if self._missing and (self._count <= CLINICIANS + PATIENTS or self._dice.randrange(2)):
            person = self._missing[self._count % len(self._missing)]
            transaction = self._credential(height, person) if person < CLINICIANS else self._admit(height, person - CLINICIANS)
            self._introductions[transaction.id] = person
            return transaction
        choices = (self._grant, self._grant, self._revoke, self._ask, self._ask, self._read_trail, self._amend, self._confirm, self._renew)
        return self._dice.choice(choices)(height)

    def _organisation(self, number: int) -> SigningKey:
        """Return the hospital that a person of this number belongs to."""
        return self._identities.organisations[number % len(self._identities.organisations)]

    def _credential(self, height: int, number: int) -> Transaction:
        hospital, clinician, opening = self._organisation(number + 1), self._clinicians[number], self._openings[PATIENTS + number]
        proof = clinician.sign(credential_bytes(self._network, hospital.public, OPENING_SUITE, opening))
        credential = Credential(clinician.public, OPENING_SUITE, opening, ROLE, "surgery", EPOCH_MS + YEAR_MS, proof)
        return self._sign(hospital, height, credential.operation())

    def _renew(self, height: int) -> Transaction:
        return self._credential(height, self._dice.randrange(CLINICIANS))

    def _admit(self, height: int, number: int) -> Transaction:
        """One transaction of three operations: the patient, the first epoch, the first record."""
        hospital, patient = self._organisation(number), self._patients[number]
        signed = registration_bytes(self._network, hospital.public, OPENING_SUITE, self._openings[number])
        pseudonym = pseudonym_of(patient.public)
        register = Register(
            record=self._records[number],
            pseudonym=pseudonym,
            category=CATEGORY,
            kind="fhir",
            content=Content(
                size_class=1,
                root=tagged_digest("medchain/sim/root", self._records[number]),
                segments=1,
                epoch=1,
                author=hospital.public,
                date=202506,
                tokens=(),
                wrap_digest=bytes(32),
            ),
        )
        return self._sign(
            hospital,
            height,
            RegisterPatient(patient.public, OPENING_SUITE, self._openings[number], patient.sign(signed)).operation(),
            Interim(pseudonym, CATEGORY, 1, bytes(32)).operation(),
            register.operation(),
        )

    def _grant(self, height: int) -> Transaction:
        patient, clinician = self._dice.choice(self._patients), self._dice.choice(self._clinicians)
        grant = Grant(CLINICIAN, clinician.public, "TREAT", CATEGORY, 0, EPOCH_MS + YEAR_MS)
        transaction = self._sign(patient, height, grant.operation())
        self._consents.append((patient, made_id("consent", transaction.id, 0)))
        return transaction

    def _revoke(self, height: int) -> Transaction:
        if not self._consents:
            return self._grant(height)
        patient, consent = self._consents.pop(self._dice.randrange(len(self._consents)))
        return self._sign(patient, height, Revoke(consent).operation())

    def _ask(self, height: int) -> Transaction:
        request = Request(self._dice.choice(self._records), self._dice.choice(("TREAT", "HRESCH")), ROLE)
        return self._sign(self._dice.choice(self._clinicians), height, request.operation())

    def _read_trail(self, height: int) -> Transaction:
        patient = self._dice.choice(self._patients)
        return self._sign(patient, height, ReadTrail(pseudonym_of(patient.public)).operation())

    def _amend(self, height: int) -> Transaction:
        """A new epoch and, sealed under it, the next version; refused where a forerunner is missing, which is as good a test."""
        number = self._dice.randrange(PATIENTS)
        self._versions[number] += 1
        version, hospital = self._versions[number], self._organisation(number)
        pseudonym = pseudonym_of(self._patients[number].public)
        amend = Amend(
            record=self._records[number],
            version=version,
            content=Content(
                size_class=1,
                root=tagged_digest("medchain/sim/root", self._records[number] + bytes((version % 256,))),
                segments=1,
                epoch=version,
                author=hospital.public,
                date=202507,
                tokens=(),
                wrap_digest=bytes(32),
            ),
        )
        return self._sign(hospital, height, Interim(pseudonym, CATEGORY, version, bytes(32)).operation(), amend.operation())

    def _confirm(self, height: int) -> Transaction:
        number = self._dice.randrange(PATIENTS)
        holder = self._organisation(number + 1 + self._dice.randrange(len(self._identities.organisations) - 1))
        confirm = ConfirmCustody(self._records[number], self._dice.randint(1, self._versions[number]))
        return self._sign(holder, height, confirm.operation())

    def _bad_transaction(self, height: int) -> Transaction:
        """A forged signature, an unknown sender or a valid-until long past or far away: admission must refuse each."""
        good = self._grant(height)
        kind = self._dice.randrange(4)
        if kind == 0:
            forged = bytes((good.signature[0] ^ 1,)) + good.signature[1:]
            bad = Transaction.decode(codec.encode([good.body_bytes, [SINGLE_SIGNATURE, forged]]))
            # The body is a good one: another authentication of it could be accepted, but is never made.
        elif kind == 1:
            bad = self._sign(seeded_key(self._count, "stranger"), height, good.body.operations[0])
        elif kind == 2:
            bad = self._sign(self._patients[0], height - self._valid_for_blocks, good.body.operations[0])
        else:
            bad = self._sign(self._patients[0], height + 1_000_000, good.body.operations[0])
        self._bad.add(bad.id)
        return bad
