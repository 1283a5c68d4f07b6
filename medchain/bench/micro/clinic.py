"""What hospitals do all day, in bulk: people, records, consents and accesses on a chain, and blocks full of one kind of operation.

Who is chosen is drawn from a fixed seed, spread over everybody, so that what the rules read was not read a moment before. Knows no clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from medchain.bench.micro.solo import SEED, Solo
from medchain.chain.receipt import Receipt
from medchain.chain.transaction import Transaction
from medchain.crypto.hashing import tagged_digest
from medchain.crypto.sealing import SUITE_X25519
from medchain.crypto.signing import SigningKey
from medchain.errors import InvariantBroken
from medchain.ledger.access import ReadReceipt, Release, Request
from medchain.ledger.consents import CLINICIAN, HOSPITAL, Grant, Revoke
from medchain.ledger.epochs import Interim
from medchain.ledger.execution import Handler, made_id
from medchain.ledger.people import Credential, RegisterPatient, credential_bytes, pseudonym_of, registration_bytes
from medchain.ledger.permits import permit_id
from medchain.ledger.records import Amend, ConfirmCustody, Content, Register

ROLE: Final = "physician"
GENERAL: Final = "general"
"""Category of the records that everybody has; a standing consent covers it."""
IMAGING: Final = "imaging"
"""Category of the consents that are granted and revoked while measuring: a revocation bars the epochs of its category."""
TREAT: Final = "TREAT"
RESEARCH: Final = "HRESCH"
"""A purpose that nobody consented to."""
YEAR_MS: Final = 365 * 86_400_000
PER_TRANSACTION: Final = 50
"""Operations of one transaction while the population is made."""


@dataclass(frozen=True, slots=True)
class Patient:
    """One patient of a hospital, with one record there."""

    key: SigningKey
    pseudonym: bytes
    hospital: int
    record: bytes


@dataclass(frozen=True, slots=True)
class _Permit:
    id: bytes
    version: int
    custodian: SigningKey
    reader: SigningKey


def digest_of(purpose: str, number: int) -> bytes:
    """Return 32 bytes that stand for something random."""
    return tagged_digest("medchain/bench/" + purpose, number.to_bytes(8, "big"))


class Clinic:
    """Everybody, and everything they can do next."""

    def __init__(self, solo: Solo, patients: int, clinicians: int = 8) -> None:
        """Decide the blocks that found a population: each patient with an epoch, a record and a consent for another hospital."""
        self.solo = solo
        self.dice = random.Random(SEED)
        self.clinicians = [SigningKey(digest_of("clinician", number)) for number in range(clinicians)]
        self.patients: list[Patient] = []
        self._registered = 0
        self._records = 0
        self._versions: dict[bytes, int] = {}
        self._consents: list[tuple[Patient, bytes]] = []
        self._permits: list[_Permit] = []
        self._announced: list[_Permit] = []
        self._turns: dict[str, list[Patient]] = {}
        self._unconfirmed: list[tuple[bytes, int]] = []
        """(record, hospital that could confirm its custody)."""
        solo.decide([solo.transaction(self._hospital(number), self._credential(number)) for number in range(clinicians)])
        self._populate(patients)

    def _hospital(self, number: int) -> SigningKey:
        organisations = self.solo.organisations
        return organisations[number % len(organisations)]

    def _reader(self, patient: Patient) -> SigningKey:
        """A clinician of the hospital that the patient's standing consent is for."""
        hospitals = len(self.solo.organisations)
        groups = len(self.clinicians) // hospitals
        return self.clinicians[(patient.hospital + 1) % hospitals + hospitals * self.dice.randrange(groups)]

    def _credential(self, number: int) -> Credential:
        hospital, clinician, opening = self._hospital(number), self.clinicians[number], digest_of("opening", number)
        proof = clinician.sign(credential_bytes(self.solo.network, hospital.public, SUITE_X25519, opening))
        return Credential(clinician.public, SUITE_X25519, opening, ROLE, "surgery", self.solo.context().time_ms + YEAR_MS, proof)

    def _populate(self, count: int) -> None:
        """Everybody in transactions of many operations, hospital by hospital, and everybody's consent."""
        solo, hospitals = self.solo, len(self.solo.organisations)
        fresh = [self._new_patient() for _ in range(count)]
        for start in range(0, count, PER_TRANSACTION * hospitals):
            some = fresh[start : start + PER_TRANSACTION * hospitals]
            block = []
            for hospital in range(hospitals):
                own = [patient for patient in some if patient.hospital == hospital]
                for make in (self._registration, self._epoch, self._registration_of_record):
                    if own:
                        block.append(solo.transaction(self._hospital(hospital), *[make(patient) for patient in own]))
            check(solo.decide(block).applied.transaction_receipts)
            check(solo.decide([solo.transaction(patient.key, self._standing_consent(patient)) for patient in some]).applied.receipts)
        self.patients += fresh
        for patient in fresh:
            self._await_custody(patient, patient.record)

    def _await_custody(self, patient: Patient, record: bytes) -> None:
        self._unconfirmed += [(record, patient.hospital + distance) for distance in range(1, len(self.solo.organisations))]

    def _new_patient(self) -> Patient:
        number, self._registered = self._registered, self._registered + 1
        key = SigningKey(digest_of("patient", number))
        return Patient(key, pseudonym_of(key.public), number % len(self.solo.organisations), digest_of("record", number))

    def _registration(self, patient: Patient) -> RegisterPatient:
        opening = digest_of("patient-opening", self._registered)
        said = registration_bytes(self.solo.network, self._hospital(patient.hospital).public, SUITE_X25519, opening)
        return RegisterPatient(patient.key.public, SUITE_X25519, opening, patient.key.sign(said))

    def _epoch(self, patient: Patient) -> Interim:
        return Interim(patient.pseudonym, GENERAL, 1, digest_of("check", 1))

    def _registration_of_record(self, patient: Patient, record: bytes | None = None) -> Register:
        return Register(
            record=record or patient.record, pseudonym=patient.pseudonym, category=GENERAL, kind="fhir-bundle",
            content=self._content(patient, 1),
        )  # fmt: skip

    def _content(self, patient: Patient, version: int) -> Content:
        return Content(
            size_class=20, root=digest_of("root", version), segments=2, epoch=1, author=self._hospital(patient.hospital).public,
            date=202601, tokens=(digest_of("token", patient.hospital),), wrap_digest=digest_of("wrap", version),
        )  # fmt: skip

    def _standing_consent(self, patient: Patient) -> Grant:
        grantee = self._hospital(patient.hospital + 1).public
        return Grant(HOSPITAL, grantee, TREAT, GENERAL, 0, self.solo.context().time_ms + YEAR_MS)

    def _draw(self, urn: list[tuple[bytes, int]], count: int) -> list[tuple[bytes, int]]:
        """Take so many out of an urn, anywhere."""
        drawn = []
        for _ in range(count):
            place = self.dice.randrange(len(urn))
            urn[place], urn[-1] = urn[-1], urn[place]
            drawn.append(urn.pop())
        return drawn

    def _next_patients(self, purpose: str, count: int) -> list[Patient]:
        """Return patients in an order of their own for each purpose, everybody once before anybody twice."""
        chosen: list[Patient] = []
        while len(chosen) < count:
            turn = self._turns.setdefault(purpose, [])
            if not turn:
                turn.extend(self.patients)
                self.dice.shuffle(turn)
            wanted = count - len(chosen)
            chosen += turn[:wanted]
            del turn[:wanted]
        return chosen

    # ---- blocks full of one kind: each has to be decided before the next is asked for ---------------------------------------------

    def register_patients(self, count: int) -> list[Transaction]:
        """Hospitals register patients who are not known yet; each brings a proof that is a signature of its own."""
        fresh = [self._new_patient() for _ in range(count)]
        return [self._signed(self._hospital(patient.hospital), self._registration(patient)) for patient in fresh]

    def register_records(self, count: int) -> list[Transaction]:
        """Custodians register one more record for patients they know."""
        block = []
        for patient in self._next_patients("register", count):
            self._records += 1
            record = digest_of("further-record", self._records)
            self._await_custody(patient, record)
            block.append(self._signed(self._hospital(patient.hospital), self._registration_of_record(patient, record)))
        return block

    def amend_records(self, count: int) -> list[Transaction]:
        """Custodians add the next version of records."""
        block = []
        for patient in self._next_patients("amend", count):
            version = self._versions[patient.record] = self._versions.get(patient.record, 1) + 1
            custodian = self._hospital(patient.hospital)
            block.append(self._signed(custodian, Amend(patient.record, version, self._content(patient, version))))
        return block

    def confirm_custody(self, count: int) -> list[Transaction]:
        """Other hospitals say that they hold the first version of a record."""
        while len(self._unconfirmed) < count:
            self.solo.decide(self.register_records(count))
        chosen = self._draw(self._unconfirmed, count)
        return [self._signed(self._hospital(holder), ConfirmCustody(record, 1)) for record, holder in chosen]

    def grant_consents(self, count: int) -> list[Transaction]:
        """Patients permit a clinician something more."""
        block = []
        for patient in self._next_patients("grant", count):
            clinician = self.dice.choice(self.clinicians)
            grant = Grant(CLINICIAN, clinician.public, TREAT, IMAGING, 0, self.solo.context().time_ms + YEAR_MS)
            transaction = self._signed(patient.key, grant)
            self._consents.append((patient, made_id("consent", transaction.id, 0)))
            block.append(transaction)
        return block

    def revoke_consents(self, count: int) -> list[Transaction]:
        """Patients end the oldest of what `grant_consents` permitted."""
        while len(self._consents) < count:
            self.solo.decide(self.grant_consents(count))
        ended, self._consents = self._consents[:count], self._consents[count:]
        return [self._signed(patient.key, Revoke(consent)) for patient, consent in ended]

    def request_permitted(self, count: int) -> list[Transaction]:
        """Clinicians ask for what the standing consents permit."""
        block = []
        for patient in self._next_patients("permit", count):
            reader = self._reader(patient)
            transaction = self._signed(reader, Request(patient.record, TREAT, ROLE))
            version = self._versions.get(patient.record, 1)
            self._permits.append(_Permit(permit_id(transaction.id, 0), version, self._hospital(patient.hospital), reader))
            block.append(transaction)
        return block

    def request_denied(self, count: int) -> list[Transaction]:
        """Clinicians ask for a purpose that nobody consented to: a denial is an accepted transaction."""
        return [
            self._signed(self._reader(patient), Request(patient.record, RESEARCH, ROLE)) for patient in self._next_patients("deny", count)
        ]

    def release_keys(self, count: int) -> list[Transaction]:
        """Custodians announce releases under the oldest permits of `request_permitted`."""
        while len(self._permits) < count:
            self.solo.decide(self.request_permitted(count))
        used, self._permits = self._permits[:count], self._permits[count:]
        self._announced += used
        return [self._signed(permit.custodian, Release(permit.id, permit.version)) for permit in used]

    def confirm_reading(self, count: int) -> list[Transaction]:
        """Readers confirm what `release_keys` announced."""
        while len(self._announced) < count:
            self.solo.decide(self.release_keys(count))
        read, self._announced = self._announced[:count], self._announced[count:]
        return [self._signed(permit.reader, ReadReceipt(permit.id, permit.version)) for permit in read]

    def mixed(self, count: int) -> list[Transaction]:
        """A bit of everything that is done all day, in any order; custody of what is registered here cannot be confirmed yet."""
        makers = (self.confirm_custody, self.register_records, self.grant_consents, self.request_permitted)
        block = [transaction for make in makers for transaction in make(count // len(makers))]
        self.dice.shuffle(block)
        return block

    def _signed(self, sender: SigningKey, handler: Handler) -> Transaction:
        return self.solo.transaction(sender, handler)


Maker = Callable[[Clinic, int], list[Transaction]]
"""Makes so many transactions of one operation each. What has to happen on the chain before them is decided on the way."""


def check(receipts: Sequence[Receipt]) -> None:
    """Raise InvariantBroken if anything was refused: then something else was measured than meant."""
    codes = sorted({receipt.code for receipt in receipts if receipt.code})
    if codes:
        raise InvariantBroken(f"operations that should be accepted were refused: {', '.join(codes)}")
