"""Executing blocks: what each frequent kind of operation costs by rules and state tree, and a whole block from building to disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from medchain.bench.micro.clinic import Clinic, Maker, check
from medchain.bench.micro.setting import Bench, Findings
from medchain.bench.micro.solo import Solo
from medchain.bench.micro.stopwatch import MICROSECONDS, MILLISECONDS, Lap, quiet
from medchain.bench.results import LOWER, NEITHER, Case, Measure
from medchain.chain.transaction import Transaction
from medchain.ledger.apply import Applied, apply_block, weight_of

SAMPLE_SECONDS: Final = 0.05
"""Of the rules in one sample: one or two blocks. More would need ever more people."""
SAMPLE_BLOCKS_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Kind:
    """A frequent kind of operation."""

    name: str
    title: str
    make: Maker


KINDS: Final = (
    Kind("people.register_patient", "Registering a patient, whose proof of possession is verified by the rules", Clinic.register_patients),
    Kind("records.register", "Registering a record", Clinic.register_records),
    Kind("records.amend", "Amending a record", Clinic.amend_records),
    Kind("records.confirm_custody", "Confirming custody", Clinic.confirm_custody),
    Kind("consents.grant", "Granting a consent", Clinic.grant_consents),
    Kind("consents.revoke", "Revoking a consent", Clinic.revoke_consents),
    Kind("access.request", "Asking for a record, permitted", Clinic.request_permitted),
    Kind("access.request-denied", "Asking for a record, denied", Clinic.request_denied),
    Kind("access.release", "Announcing a release", Clinic.release_keys),
    Kind("access.receipt", "Confirming a reading", Clinic.confirm_reading),
)


def measure(bench: Bench) -> Findings:
    """Measure the group."""
    findings = Findings()
    with bench.store() as store:
        solo = Solo(store)
        clinic = Clinic(solo, bench.size.patients)
        bench.say(f"execute: {len(clinic.patients)} patients, {solo.chain.tree.count} keys in the state")
        with quiet():
            for kind in KINDS:
                findings.cases.append(_kind(bench, clinic, kind))
            findings.cases.append(_whole_block(bench, clinic))
    return findings


class _Sample:
    """Adds up the blocks of one sample."""

    def __init__(self) -> None:
        self.rules = Lap()
        self.tree = Lap()
        self.operations = 0
        self.weight = 0
        self.keys = 0
        self.value_bytes = 0
        self.event_bytes = 0

    def is_long_enough(self, blocks: int) -> bool:
        """Whether the clock no longer matters."""
        return self.rules.wall_seconds >= SAMPLE_SECONDS or blocks >= SAMPLE_BLOCKS_MAX

    def add(self, solo: Solo, transactions: Sequence[Transaction]) -> None:
        """Execute a block and let the state be what it made of it."""
        chain = solo.chain
        context, carried = solo.context(), solo.carried()
        with self.rules:
            applied = apply_block(chain.state, context, transactions, carried)
        with self.tree:
            update = chain.tree.preview(applied.changes)
            chain.tree.adopt(update)
        check(applied.transaction_receipts)
        solo.settle(applied.changes)
        self._count(transactions, applied)

    def _count(self, transactions: Sequence[Transaction], applied: Applied) -> None:
        self.operations += len(transactions)
        self.weight += sum(weight_of(transaction) for transaction in transactions)
        self.keys += len(applied.changes)
        self.value_bytes += sum(len(key) + len(value or b"") for key, value in applied.changes.items())
        self.event_bytes += sum(len(event.encode()) for receipt in applied.receipts for event in receipt.events)


def _kind(bench: Bench, clinic: Clinic, kind: Kind) -> Case:
    """Blocks full of one kind: as many as its weight lets into a block."""
    solo = clinic.solo
    first = kind.make(clinic, 1)
    solo.decide(first)
    weight = weight_of(first[0])
    count = max(1, min(bench.size.block_operations, bench.size.block_weight // weight))
    samples: list[_Sample] = []
    for _ in range(bench.sampling.samples + 1):  # the first warms up
        sample, blocks = _Sample(), 0
        while not blocks or not sample.is_long_enough(blocks):
            sample.add(solo, kind.make(clinic, count))
            blocks += 1
        samples.append(sample)
    del samples[0]

    def per_operation(unit: str, better: str, values: list[float]) -> Measure:
        return Measure(unit, better, tuple([value / sample.operations for value, sample in zip(values, samples, strict=True)]))

    both = [(sample.rules.cpu_seconds + sample.tree.cpu_seconds) * MICROSECONDS for sample in samples]
    measures = {
        "cpu": per_operation("us", LOWER, both),
        "cpu_rules": per_operation("us", LOWER, [sample.rules.cpu_seconds * MICROSECONDS for sample in samples]),
        "cpu_tree": per_operation("us", LOWER, [sample.tree.cpu_seconds * MICROSECONDS for sample in samples]),
        "cpu_per_weight": Measure("us", LOWER, tuple([us / sample.weight for us, sample in zip(both, samples, strict=True)])),
        "weight": Measure("", NEITHER, (float(weight),)),
        "keys": per_operation("", NEITHER, [float(sample.keys) for sample in samples]),
        "state_bytes": per_operation("bytes", NEITHER, [float(sample.value_bytes) for sample in samples]),
        "event_bytes": per_operation("bytes", NEITHER, [float(sample.event_bytes) for sample in samples]),
    }
    settings = {"patients": bench.size.patients, "block_weight": bench.size.block_weight}
    return Case(f"execute-{kind.name}", f"{kind.title}: cost per operation", measures, settings)


def _whole_block(bench: Bench, clinic: Clinic) -> Case:
    """A primary's own block of mixed operations: execution, roots, encoding; then the decision, staged, and its one synced batch."""
    solo, count = clinic.solo, bench.size.block_transactions
    laps: dict[str, list[Lap]] = {name: [] for name in ("build", "check", "stage", "write")}
    batch_bytes: list[float] = []
    for _ in range(bench.sampling.samples + 1):
        transactions = clinic.mixed(count)
        build, again, stage, write = Lap(), Lap(), Lap(), Lap()
        with build:
            executed = solo.build(transactions)
        check(executed.applied.transaction_receipts)
        solo.executor.forget()
        solo.remember(transactions)
        with again:
            executed = solo.executor.execute(executed.block)
        certificate = solo.certificate_of(executed)
        with stage:
            batch = solo.adopt(executed, certificate)
        with write:
            solo.store.write(batch)
        for name, lap in zip(laps, (build, again, stage, write), strict=True):
            laps[name].append(lap)
        batch_bytes.append(float(sum(len(key) + len(value or b"") for key, value in batch.operations)))
    measures = {
        f"cpu_{name}": Measure("us", LOWER, tuple([lap.cpu_seconds * MICROSECONDS / count for lap in taken[1:]]))
        for name, taken in laps.items()
    }
    measures["time_write"] = Measure("ms", LOWER, tuple([lap.wall_seconds * MILLISECONDS for lap in laps["write"][1:]]))
    measures["batch_bytes"] = Measure("bytes", LOWER, tuple([size / count for size in batch_bytes[1:]]))
    title = (
        f"A block of {count} mixed transactions, per transaction: built by its primary, checked by a backup that knows the signatures (its "
        "rows just read), staged with all indexes, written in one synced batch (time of the whole batch)"
    )
    return Case("execute-block", title, measures, {"transactions": count})
