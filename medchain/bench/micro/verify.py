"""Signatures: verifying one by one, on two threads, one signature under many transactions, certificates of ever more validators."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from medchain.bench.micro.clinic import digest_of
from medchain.bench.micro.setting import Bench, Findings
from medchain.bench.micro.solo import Solo
from medchain.bench.micro.stopwatch import Timing, quiet
from medchain.bench.results import HIGHER, Case, Curve, Measure
from medchain.chain.certificate import Certificate
from medchain.chain.transaction import Transaction
from medchain.crypto.signing import verify_many
from medchain.engine.verification import Verifier
from medchain.ledger.records import ConfirmCustody
from medchain.store.memory import MemoryKeyValue

BATCHES: Final = (16, 64)
THREADS: Final = 2
CERTIFICATE: Final = "verify-certificate"


def measure(bench: Bench) -> Findings:
    """Measure the group."""
    solo = Solo(MemoryKeyValue())
    findings = Findings()
    with quiet():
        findings.cases += _threads(bench, solo)
        findings.cases.append(_signing(bench, solo))
        findings.cases += [_transactions(bench, solo, count) for count in (1, *BATCHES)]
        findings.cases += [_certificate(bench, count) for count in bench.size.validators]
    findings.curves.append(_curve(findings.cases))
    return findings


def _threads(bench: Bench, solo: Solo) -> list[Case]:
    items = [transaction.verification(solo.network) for transaction in _batches(solo, 1, bench.size.signatures)]
    middle = len(items) // THREADS
    halves = (items[:middle], items[middle:])
    one = bench.sampling.repeat(partial(verify_many, items), len(items))
    with ThreadPoolExecutor(THREADS) as pool:
        two = bench.sampling.repeat(lambda: list(pool.map(verify_many, halves)), len(items))
    speedup = [alone / together for alone, together in zip(one.wall, two.wall, strict=True)]
    settings = {"signatures": len(items)}
    return [
        Case(
            "verify-one-thread", "verify_many, one thread, per signature",
            {"cpu": one.cpu_us(), "time": one.wall_us(), "rate": _rate(one)}, settings,
        ),
        Case(
            "verify-two-threads", "verify_many, the list halved over two threads, per signature",
            {"cpu": two.cpu_us(), "time": two.wall_us(), "rate": _rate(two), "speedup": Measure("x", HIGHER, tuple(speedup))},
            settings | {"threads": THREADS},
        ),
    ]  # fmt: skip


def _rate(timing: Timing) -> Measure:
    return Measure("1/s", HIGHER, tuple([1 / sample for sample in timing.wall]))


def _signing(bench: Bench, solo: Solo) -> Case:
    key, message = solo.organisations[0], digest_of("message", 0)
    timing = bench.sampling.repeat(lambda: key.sign(message))
    return Case("verify-sign", "Making a signature", {"cpu": timing.cpu_us()})


def _batches(solo: Solo, count: int, total: int) -> list[Transaction]:
    """Return some `total` transactions, each `count` of them under one signature, by the hospitals in turn."""
    found: list[Transaction] = []
    while len(found) < total:
        sender = solo.organisations[len(found) // count % len(solo.organisations)]
        bodies = [solo.body(sender, ConfirmCustody(digest_of("record", len(found) + place), 1)) for place in range(count)]
        if count == 1:
            found.append(Transaction.sign(bodies[0], sender, solo.network))
        else:
            found += Transaction.sign_batch(bodies, sender, solo.network)
    return found


def _transactions(bench: Bench, solo: Solo, count: int) -> Case:
    """What a node that never saw them spends on transactions that share signatures."""
    transactions = _batches(solo, count, max(bench.size.signatures, count))

    def check() -> None:
        Verifier(solo.network).check_all([transaction.verification(solo.network) for transaction in transactions])

    timing = bench.sampling.repeat(check, len(transactions))
    title = "A signature of its own" if count == 1 else f"One signature under {count} transactions"
    return Case(f"verify-shared-{count}", f"{title}: cost per transaction", {"cpu": timing.cpu_us()}, {"transactions": count})


def _certificate(bench: Bench, validators: int) -> Case:
    solo = Solo(MemoryKeyValue(), validators)
    certificate = solo.certificate_of(solo.build([]))
    members = solo.chain.validators
    data = certificate.encode()

    def check() -> None:
        Certificate.decode(data).check(solo.network, members)

    timing = bench.sampling.repeat(check)
    measures = {"cpu": timing.cpu_us(), "signatures": Measure("", "", (float(members.quorum),))}
    return Case(
        f"{CERTIFICATE}-{validators}", f"Reading and checking a certificate of {validators} validators", measures,
        {"validators": validators}, curve=CERTIFICATE, x=float(validators),
    )  # fmt: skip


def _curve(cases: list[Case]) -> Curve:
    points = [case for case in cases if case.curve == CERTIFICATE]
    first, last = points[0], points[-1]
    costs = [case.measures["cpu"].median / case.measures["signatures"].median for case in (first, last)]
    return Curve(
        CERTIFICATE, "Checking a certificate", "validators", "cpu",
        f"A certificate holds a quorum of signatures, {first.measures['signatures'].median:.0f} of {first.x:.0f} validators and "
        f"{last.measures['signatures'].median:.0f} of {last.x:.0f}, and each is verified by itself: {costs[0]:.0f} us a signature at the "
        f"left end, {costs[1]:.0f} us at the right. So the cost grows in a straight line with the quorum, two thirds of the validators.",
    )  # fmt: skip
