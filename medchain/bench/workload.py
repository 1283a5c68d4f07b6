"""What the load hands in: operations of one kind, as many as wanted, each of them accepted by the rule book.

A kind may need things on the chain first (patients, records): `phases` gives them, one phase after the other is decided. Knows no node and
no network: it makes operations and says whose key signs them.
"""

from __future__ import annotations

import itertools
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from medchain.actions.access import request_access
from medchain.actions.consents import grant_to_hospital
from medchain.actions.people import credential_clinician, register_patient
from medchain.actions.records import confirm_custody, open_interim_epoch, register_record, size_class_of
from medchain.bench.vaults import shared_record
from medchain.chain.domain import Domain
from medchain.chain.transaction import Operation
from medchain.crypto.keyfile import Identity
from medchain.crypto.sealing import SUITE_X25519
from medchain.crypto.signing import SigningKey
from medchain.errors import Rejected
from medchain.ledger.consents import CONSENTS_PER_GRANTEE_MAX
from medchain.ledger.people import pseudonym_of
from medchain.ledger.records import Content

REFUSALS: Final[dict[str, str]] = {
    "bench.kind": "There is no kind of transaction of this name for the load.",
    "bench.exhausted": "The load has used up what was put on the chain for it.",
}

CATEGORY: Final = "general"
PATIENTS_EACH: Final = 64
"""Patients of each hospital whose records and trails are written in turns."""
CLINICIANS_EACH: Final = 16
FOREVER_MS: Final = 4_000_000_000_000
"""The year 2096."""


@dataclass(frozen=True, slots=True)
class Task:
    """Operations that one key signs."""

    hospital: str
    """Name of the hospital at which they are handed in."""
    key: SigningKey
    operations: list[Operation]


Tasks = list[Task]


class Workload(ABC):
    """Operations of one kind for the hospitals of a network. Make one with `workload`."""

    title: str = ""

    def __init__(self, network: Domain, hospitals: Mapping[str, Identity], operations: int) -> None:
        """`hospitals`: name → organisation identity. `operations` that will be asked for in all, for kinds that use things up."""
        self._network = network
        self._hospitals = hospitals
        self._operations = operations

    def phases(self) -> Iterator[Tasks]:
        """Yield what must be on the chain first, phase by phase; a task holds one operation."""
        return iter(())

    @abstractmethod
    def next(self, hospital: str, count: int) -> Task:
        """Return `count` operations of one key, to be handed in at a hospital. Raises Rejected `bench.exhausted`."""

    def _public(self, hospital: str) -> bytes:
        return self._hospitals[hospital].signing.public

    def _task(self, hospital: str, *operations: Operation) -> Task:
        return Task(hospital, self._hospitals[hospital].signing, list(operations))


class Patients(Workload):
    """Registers patients. Two signatures an operation, the hospital's and the patient's: every node verifies twice."""

    title = "a patient is registered (two signatures)"

    def next(self, hospital: str, count: int) -> Task:
        """Return registrations of fresh patients."""
        return self._task(hospital, *(self._registration(hospital)[1] for _ in range(count)))

    def _registration(self, hospital: str) -> tuple[Identity, Operation]:
        patient = Identity.generate("patient", SUITE_X25519)
        return patient, register_patient(self._network, self._public(hospital), patient)


class _WithPatients(Patients):
    """What needs registered patients with an open epoch."""

    def __init__(self, network: Domain, hospitals: Mapping[str, Identity], operations: int) -> None:
        super().__init__(network, hospitals, operations)
        self._patients: dict[str, list[Identity]] = {}
        self._turns: dict[str, Iterator[Identity]] = {}
        self._sealed, _ = shared_record()
        self._size_class = size_class_of(self._sealed.plaintext_bytes)

    def _patients_each(self) -> int:
        return PATIENTS_EACH

    def phases(self) -> Iterator[Tasks]:
        """Register patients, then open an epoch for each."""
        registrations: Tasks = []
        for hospital in self._hospitals:
            made = [self._registration(hospital) for _ in range(self._patients_each())]
            self._patients[hospital] = [patient for patient, _ in made]
            self._turns[hospital] = itertools.cycle(self._patients[hospital])
            registrations += [self._task(hospital, operation) for _, operation in made]
        yield registrations
        yield [
            self._task(hospital, open_interim_epoch(pseudonym_of(patient.signing.public), CATEGORY, 1, secrets.token_bytes(32)))
            for hospital, patients in self._patients.items()
            for patient in patients
        ]

    def _record(self, hospital: str) -> tuple[bytes, Operation]:
        """Return a fresh record of the next patient in turn: its id and its registration."""
        record, pseudonym = secrets.token_bytes(32), pseudonym_of(next(self._turns[hospital]).signing.public)
        root, segments = self._sealed.root, self._sealed.segment_count
        content = Content(self._size_class, root, segments, 1, self._public(hospital), 202_601, (), secrets.token_bytes(32))
        return record, register_record(record, pseudonym, CATEGORY, "Bundle", content)


class Records(_WithPatients):
    """Registers records: what the chain is for. One signature; six rows of the state, two trails."""

    title = "a record is registered"

    def next(self, hospital: str, count: int) -> Task:
        """Return registrations of fresh records of the hospital's patients in turns."""
        return self._task(hospital, *(self._record(hospital)[1] for _ in range(count)))


class Custody(_WithPatients):
    """Confirms the custody of records. One signature; three rows, two trails."""

    title = "a hospital confirms that it holds a record"

    def __init__(self, network: Domain, hospitals: Mapping[str, Identity], operations: int) -> None:
        super().__init__(network, hospitals, operations)
        self._records: list[bytes] = []
        self._unconfirmed: dict[str, Iterator[bytes]] = {}

    def phases(self) -> Iterator[Tasks]:
        """Register as many records as there will be confirmations, by all hospitals."""
        yield from super().phases()
        each = -(-self._operations // len(self._hospitals) ** 2)
        tasks: Tasks = []
        for hospital in self._hospitals:
            for _ in range(each):
                record, operation = self._record(hospital)
                self._records.append(record)
                tasks.append(self._task(hospital, operation))
        self._unconfirmed = {hospital: iter(self._records) for hospital in self._hospitals}
        yield tasks

    def next(self, hospital: str, count: int) -> Task:
        """Return confirmations of records that this hospital has not confirmed yet."""
        records = list(itertools.islice(self._unconfirmed[hospital], count))
        if len(records) < count:
            raise _exhausted()
        return self._task(hospital, *(confirm_custody(record, 1) for record in records))


class Consents(_WithPatients):
    """Grants consents, signed by patients. One signature; five rows, one trail."""

    title = "a patient grants a consent"

    def __init__(self, network: Domain, hospitals: Mapping[str, Identity], operations: int) -> None:
        super().__init__(network, hospitals, operations)
        self._left: dict[str, Iterator[tuple[Identity, bytes]]] = {}
        self._open: dict[str, tuple[Identity, list[bytes]]] = {}

    def _patients_each(self) -> int:
        return -(-self._operations // (len(self._hospitals) ** 2 * CONSENTS_PER_GRANTEE_MAX)) + 8

    def next(self, hospital: str, count: int) -> Task:
        """Return grants of one patient to the hospitals in turns, each within what a verdict looks at."""
        while True:
            patient, grantees = self._open.get(hospital) or self._turn_of(hospital)
            if len(grantees) >= count:
                break
            self._open.pop(hospital)
        taken, self._open[hospital] = grantees[:count], (patient, grantees[count:])
        operations = [grant_to_hospital(grantee, "TREAT", CATEGORY, FOREVER_MS) for grantee in taken]
        return Task(hospital, patient.signing, operations)

    def _turn_of(self, hospital: str) -> tuple[Identity, list[bytes]]:
        if not self._patients[hospital]:
            raise _exhausted()
        grantees = [self._public(name) for name in self._hospitals] * CONSENTS_PER_GRANTEE_MAX
        self._open[hospital] = found = (self._patients[hospital].pop(), grantees)
        return found


class Requests(_WithPatients):
    """Clinicians ask for records; the rules decide. One signature; a permit is six rows and two trails, every second is a denial."""

    title = "a clinician asks for a record: permit and denial in turns"

    def __init__(self, network: Domain, hospitals: Mapping[str, Identity], operations: int) -> None:
        super().__init__(network, hospitals, operations)
        self._records: list[bytes] = []
        self._clinicians: dict[str, Iterator[Identity]] = {}
        self._asked: Iterator[tuple[bytes, str]] = iter(())

    def phases(self) -> Iterator[Tasks]:
        """Credential clinicians, register a record of each patient, and let the patients permit treatment at every hospital."""
        yield from super().phases()
        credentials: Tasks = []
        for hospital in self._hospitals:
            clinicians = [Identity.generate("clinician", SUITE_X25519) for _ in range(CLINICIANS_EACH)]
            self._clinicians[hospital] = itertools.cycle(clinicians)
            for clinician in clinicians:
                given = credential_clinician(self._network, self._public(hospital), clinician, "physician", "general", FOREVER_MS)
                credentials.append(self._task(hospital, given))
        yield credentials
        registrations: Tasks = []
        grants: Tasks = []
        for hospital, patients in self._patients.items():
            for patient in patients:
                record, operation = self._record(hospital)
                self._records.append(record)
                registrations.append(self._task(hospital, operation))
                grants += [
                    Task(hospital, patient.signing, [grant_to_hospital(self._public(name), "TREAT", CATEGORY, FOREVER_MS)])
                    for name in self._hospitals
                ]
        yield registrations
        yield grants
        self._asked = itertools.cycle(itertools.product(self._records, ("TREAT", "HRESCH")))

    def next(self, hospital: str, count: int) -> Task:
        """Return requests of one clinician for records in turns, for treatment (permitted) and for research (denied)."""
        asked = [next(self._asked) for _ in range(count)]
        return Task(hospital, next(self._clinicians[hospital]).signing, [request_access(*one, "physician") for one in asked])


def _exhausted() -> Rejected:
    return Rejected("bench.exhausted", "the load has used up what was put on the chain for it: announce more operations")


KINDS: Final[dict[str, type[Workload]]] = {
    "patient": Patients, "record": Records, "custody": Custody, "consent": Consents, "request": Requests,
}  # fmt: skip
"""Name of a kind → what makes it."""


def workload(kind: str, network: Domain, hospitals: Mapping[str, Identity], operations: int) -> Workload:
    """Return the load of a kind (a name of KINDS). Raises Rejected `bench.kind`."""
    found = KINDS.get(kind)
    if found is None:
        raise Rejected("bench.kind", f"There is no kind of transaction {kind!r}; there are: {', '.join(KINDS)}.")
    return found(network, hospitals, operations)


def joined(tasks: Sequence[Task], operations_max: int) -> Tasks:
    """Return the same operations with up to `operations_max` of one key and hospital in each task, in order."""
    groups: dict[tuple[str, bytes], Tasks] = {}
    for task in tasks:
        group = groups.setdefault((task.hospital, task.key.public), [])
        if not group or len(group[-1].operations) + len(task.operations) > operations_max:
            group.append(Task(task.hospital, task.key, []))
        group[-1].operations.extend(task.operations)
    return [task for group in groups.values() for task in group]


