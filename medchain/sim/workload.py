"""The clients of a simulated network: real signed operations of the rule book, handed to random nodes, and a book of what was promised.

Every transaction that a node said *accepted* to is written down; the durability checker demands each of them back. Some are signed in
batches, handed in together or one by one and in any order. Some submissions repeat an earlier one (a client that got no answer), some must
be refused (forged, expired, of another network, under a root that does not cover them). Knows no node's inside.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from medchain.chain.limits import BATCH_SIGNATURE_IDS_MAX
from medchain.chain.transaction import BATCH_IDS_MIN, Operation, Transaction, TransactionBody, transaction_id
from medchain.crypto.hashing import tagged_digest
from medchain.crypto.signing import SigningKey
from medchain.engine.ready import Accepted, Refused
from medchain.ledger.access import ReadTrail, Request
from medchain.ledger.consents import Grant, Revoke
from medchain.ledger.epochs import Interim
from medchain.ledger.execution import made_id
from medchain.ledger.people import Credential, RegisterPatient, credential_bytes, pseudonym_of, registration_bytes
from medchain.ledger.records import Amend, ConfirmCustody, Content, Register
from medchain.sim.authentication import with_authentication_of, with_forged_signature
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
SAYINGS: Final = ("grant", "grant", "revoke", "ask", "ask", "read trail", "amend", "confirm", "renew")
"""What clients do, as often as it stands here."""
SLIPPED_IN_OF: Final = 3
"""One batch of so many has somebody among it who took a place under the signature that covers another one."""
WAITING_MAX: Final = 2 * BATCH_SIGNATURE_IDS_MAX
"""Transactions signed together that wait to be handed in one by one; the oldest beyond are never handed in by anybody."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """A body and who signs it."""

    key: SigningKey
    body: TransactionBody

    @property
    def id(self) -> bytes:
        return transaction_id(self.body.encode())


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
    batches: int = 0
    """Signatures that clients made over several transactions."""
    batched: int = 0
    """Of those submitted, how many came with such a signature; repeated ones are not counted again."""

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

    def __init__(
        self,
        seed: int,
        identities: Identities,
        valid_for_blocks: int,
        resubmit_permille: int,
        batch_permille: int = 0,
        batch_max: int = BATCH_SIGNATURE_IDS_MAX,
    ) -> None:
        """`batch_permille` of the submissions sign 2 to `batch_max` transactions with one signature; the numbers are those of the plan."""
        self.book = Book()
        self._dice = random.Random(f"medchain/workload/{seed}")
        self._identities = identities
        self._network = identities.genesis.domain()
        self._valid_for_blocks = valid_for_blocks
        self._resubmit_permille = resubmit_permille
        self._batch_permille = batch_permille
        self._batch_max = batch_max
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
        self._waiting: list[Transaction] = []
        """Signed in batches, not handed in yet."""
        self._count = 0
        """Requests and bodies signed in batches: the nonce of what is made next."""

    def keys(self) -> dict[bytes, SigningKey]:
        """Return the keys of all clients by their public keys, for those who cheat together with one."""
        keys = (*self._identities.organisations, *self._patients, *self._clinicians)
        return {key.public: key for key in keys}

    def hand_in(self, height: int, now_us: int) -> list[tuple[int, Transaction]]:
        """Return what is handed in at once to a node whose head is `height`, as (request, transaction): one, or a whole batch."""
        dice = self._dice
        if not self._batch_permille or self._count < PATIENTS + CLINICIANS:
            return [self.next(height, now_us)]
        if dice.randrange(1000) < self._batch_permille:
            signed = self._sign_together(height)
            if dice.randrange(2):
                return [self._submit(transaction) for transaction in signed]
            self._waiting = [*self._waiting, *signed][-WAITING_MAX:]
        if self._waiting and dice.randrange(2):
            return [self._submit(self._waiting.pop(dice.randrange(len(self._waiting))))]
        return [self.next(height, now_us)]

    def _submit(self, transaction: Transaction) -> tuple[int, Transaction]:
        self._count += 1
        self.book.submitted += 1
        self.book.batched += 1
        if transaction.id not in self._bad:
            self._known.append(transaction)  # a bad one is handed in once: a liar with its client's key may make its body a good one later
        self._requests[self._count] = transaction
        return self._count, transaction

    def next(self, height: int, now_us: int) -> tuple[int, Transaction]:
        """Return (request, transaction) for a node whose head is `height`: one that is signed alone, a repeated or a bad one."""
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

    def _draft(self, key: SigningKey, height: int, *operations: Operation) -> _Draft:
        body = TransactionBody(
            chain_id=self._identities.genesis.chain_id,
            sender=key.public,
            valid_until=height + self._valid_for_blocks,
            operations=operations,
            nonce=self._count.to_bytes(8, "big"),
        )
        return _Draft(key, body)

    def _sign(self, draft: _Draft) -> Transaction:
        return Transaction.sign(draft.body, draft.key, self._network)

    def _sign_together(self, height: int) -> list[Transaction]:
        """Sign several things that one client has to say with one signature; now and then another one slips in that it does not cover."""
        dice = self._dice
        clients = (*self._patients, *self._clinicians, *self._identities.organisations)
        client = dice.choice(clients)
        bodies = [self._draft_by(client, height).body for _ in range(dice.randint(BATCH_IDS_MIN, self._batch_max))]
        signed = list(Transaction.sign_batch(bodies, client, self._network))
        self.book.batches += 1
        if dice.randrange(SLIPPED_IN_OF) == 0:
            bad = with_authentication_of(dice.choice(signed), self._draft_by(client, height).body)
            signed.insert(dice.randrange(len(signed) + 1), bad)
            self._bad.add(bad.id)
        return signed

    def _draft_by(self, client: SigningKey, height: int) -> _Draft:
        """Return something that this client may say, with a nonce of its own."""
        self._count += 1
        dice = self._dice
        if client in self._patients:
            return dice.choice((self._grant, self._grant, self._revoke, self._read_trail))(height, client)
        if client in self._clinicians:
            return self._ask(height, client)
        own = [number for number in range(PATIENTS) if self._organisation(number) is client]
        if own and dice.randrange(2):
            return self._amend(height, dice.choice(own))
        number = dice.choice([number for number in range(PATIENTS) if number not in own])
        return self._confirm(height, number, client)

    def _good_transaction(self, height: int) -> Transaction:
        """First the people, again until a node has accepted them; then what they do, at random."""
        dice = self._dice
        if self._missing and (self._count <= CLINICIANS + PATIENTS or dice.randrange(2)):
            person = self._missing[self._count % len(self._missing)]
            transaction = self._sign(self._credential(height, person) if person < CLINICIANS else self._admit(height, person - CLINICIANS))
            self._introductions[transaction.id] = person
            return transaction
        saying = dice.choice(SAYINGS)
        match saying:
            case "grant":
                draft = self._grant(height, dice.choice(self._patients))
            case "revoke":
                draft = self._revoke(height, None)
            case "ask":
                draft = self._ask(height, None)
            case "read trail":
                draft = self._read_trail(height, dice.choice(self._patients))
            case "amend":
                draft = self._amend(height, dice.randrange(PATIENTS))
            case "confirm":
                draft = self._confirm(height, dice.randrange(PATIENTS), None)
            case _:
                draft = self._credential(height, dice.randrange(CLINICIANS))
        return self._sign(draft)

    def _organisation(self, number: int) -> SigningKey:
        """Return the hospital that a person of this number belongs to."""
        return self._identities.organisations[number % len(self._identities.organisations)]

    def _credential(self, height: int, number: int) -> _Draft:
        hospital, clinician, opening = self._organisation(number + 1), self._clinicians[number], self._openings[PATIENTS + number]
        proof = clinician.sign(credential_bytes(self._network, hospital.public, OPENING_SUITE, opening))
        credential = Credential(clinician.public, OPENING_SUITE, opening, ROLE, "surgery", EPOCH_MS + YEAR_MS, proof)
        return self._draft(hospital, height, credential.operation())

    def _admit(self, height: int, number: int) -> _Draft:
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
        return self._draft(
            hospital,
            height,
            RegisterPatient(patient.public, OPENING_SUITE, self._openings[number], patient.sign(signed)).operation(),
            Interim(pseudonym, CATEGORY, 1, bytes(32)).operation(),
            register.operation(),
        )

    def _grant(self, height: int, patient: SigningKey) -> _Draft:
        clinician = self._dice.choice(self._clinicians)
        grant = Grant(CLINICIAN, clinician.public, "TREAT", CATEGORY, 0, EPOCH_MS + YEAR_MS)
        draft = self._draft(patient, height, grant.operation())
        self._consents.append((patient, made_id("consent", draft.id, 0)))
        return draft

    def _revoke(self, height: int, patient: SigningKey | None) -> _Draft:
        """Take back a consent, of this patient if one is given; a new one where there is none."""
        places = [place for place, (giver, _) in enumerate(self._consents) if patient is None or giver is patient]
        if not places:
            return self._grant(height, patient or self._dice.choice(self._patients))
        giver, consent = self._consents.pop(places[self._dice.randrange(len(places))])
        return self._draft(giver, height, Revoke(consent).operation())

    def _ask(self, height: int, clinician: SigningKey | None) -> _Draft:
        request = Request(self._dice.choice(self._records), self._dice.choice(("TREAT", "HRESCH")), ROLE)
        return self._draft(clinician or self._dice.choice(self._clinicians), height, request.operation())

    def _read_trail(self, height: int, patient: SigningKey) -> _Draft:
        return self._draft(patient, height, ReadTrail(pseudonym_of(patient.public)).operation())

    def _amend(self, height: int, number: int) -> _Draft:
        """A new epoch and, sealed under it, the next version; refused where a forerunner is missing, which is as good a test."""
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
        return self._draft(hospital, height, Interim(pseudonym, CATEGORY, version, bytes(32)).operation(), amend.operation())

    def _confirm(self, height: int, number: int, holder: SigningKey | None) -> _Draft:
        if holder is None:
            holder = self._organisation(number + 1 + self._dice.randrange(len(self._identities.organisations) - 1))
        confirm = ConfirmCustody(self._records[number], self._dice.randint(1, self._versions[number]))
        return self._draft(holder, height, confirm.operation())

    def _bad_transaction(self, height: int) -> Transaction:
        """A forged signature, an unknown sender or a valid-until long past or far away: admission must refuse each.

        The body of a forged one is a good one: another authentication of it could be accepted, but is never made.
        """
        good = self._grant(height, self._dice.choice(self._patients))
        kind = self._dice.randrange(4)
        operation = good.body.operations[0]
        if kind == 0:
            bad = with_forged_signature(self._sign(good))
        elif kind == 1:
            bad = self._sign(self._draft(seeded_key(self._count, "stranger"), height, operation))
        elif kind == 2:
            bad = self._sign(self._draft(self._patients[0], height - self._valid_for_blocks, operation))
        else:
            bad = self._sign(self._draft(self._patients[0], height + 1_000_000, operation))
        self._bad.add(bad.id)
        return bad
