"""Reading and writing what travels: transactions, blocks, votes, gossip; and what ever longer transactions cost until they are believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from medchain import codec
from medchain.bench.micro.clinic import digest_of
from medchain.bench.micro.setting import Bench, Findings
from medchain.bench.micro.solo import Solo
from medchain.bench.micro.stopwatch import quiet
from medchain.bench.results import NEITHER, Case, Curve, Measure
from medchain.chain.block import Block
from medchain.chain.transaction import REMEMBERED_BYTES_MAX, Transaction
from medchain.chain.vote import PREPARE, Vote
from medchain.crypto.signing import verify_many
from medchain.ledger.records import Content, Register
from medchain.store.memory import MemoryKeyValue
from medchain.wire.peer import PeerMessage, TransactionsOffered, decode_message, encode_message

PAYLOAD: Final = "codec-payload"
PAYLOAD_BYTES: Final = 500_000
"""Of different transactions that are read in turn for one point of the curve."""


def measure(bench: Bench) -> Findings:
    """Measure the group."""
    solo = Solo(MemoryKeyValue())
    transactions = [_registration(solo, number, 1, 0) for number in range(bench.size.distinct)]
    findings = Findings()
    with quiet():
        findings.cases.append(_values(bench, transactions[0]))
        findings.cases.append(_transaction(bench, transactions))
        findings.cases.append(_block(bench, solo, transactions))
        findings.cases.append(_vote(bench, solo))
        findings.cases.append(_gossip(bench, transactions))
        findings.cases += [_payload(bench, solo, transactions, *shape) for shape in bench.size.operations]
    findings.curves.append(_curve(findings.cases))
    return findings


def _registration(solo: Solo, number: int, operations: int, tokens: int) -> Transaction:
    hospital = solo.organisations[number % len(solo.organisations)]
    labels = tuple(sorted(digest_of("token", place) for place in range(tokens)))
    handlers = [
        Register(
            record=digest_of("record", number * operations + place), pseudonym=digest_of("pseudonym", number), category="general",
            kind="fhir-bundle",
            content=Content(20, digest_of("root", place), 2, 1, hospital.public, 202601, labels, digest_of("wrap", place)),
        )
        for place in range(operations)
    ]  # fmt: skip
    return solo.transaction(hospital, *handlers)


def _each(work: Callable[[bytes], object], items: Sequence[bytes]) -> None:
    for item in items:
        work(item)


def _bytes(count: float) -> Measure:
    return Measure("bytes", NEITHER, (float(count),))


def _values(bench: Bench, transaction: Transaction) -> Case:
    data = transaction.body_bytes
    value = codec.decode(data)
    measures = {
        "cpu_encode": bench.sampling.repeat(partial(codec.encode, value)).cpu_us(),
        "cpu_decode": bench.sampling.repeat(partial(codec.decode, data)).cpu_us(),
        "size": _bytes(len(data)),
    }
    return Case("codec-values", "The codec alone: the values of a transaction's body", measures)


def _transaction(bench: Bench, transactions: Sequence[Transaction]) -> Case:
    raws = [transaction.raw for transaction in transactions]
    measures = {
        "cpu_encode": bench.sampling.repeat(transactions[0].body.encode).cpu_us(),
        "cpu_decode": bench.sampling.repeat(partial(_each, Transaction.decode, raws), len(raws)).cpu_us(),
        "cpu_decode_again": bench.sampling.repeat(partial(Transaction.decode, raws[0])).cpu_us(),
        "size": _bytes(len(raws[0])),
    }
    return Case(
        "codec-transaction", "A transaction of one operation: its body written; all of it read, with its digests; met again",
        measures,
    )  # fmt: skip


def _block(bench: Bench, solo: Solo, transactions: Sequence[Transaction]) -> Case:
    """Different blocks in turn, so that no transaction in them is remembered."""
    count = bench.size.block_transactions
    blocks = []
    for start in range(0, len(transactions) - count + 1, count):
        block = solo.build(transactions[start : start + count]).block
        blocks.append(block)
        solo.executor.forget()
    raws = [block.encode() for block in blocks]
    header, last_commit = blocks[0].header, blocks[0].last_commit
    encode = bench.sampling.repeat(lambda: Block(header, blocks[0].transactions, last_commit).encode(), count)
    decode = bench.sampling.repeat(partial(_each, Block.decode, raws), len(raws) * count)
    measures = {"cpu_encode": encode.cpu_us(), "cpu_decode": decode.cpu_us(), "size": _bytes(len(raws[0]))}
    return Case("codec-block", f"A block of {count} transactions, per transaction", measures, {"transactions": count})


def _vote(bench: Bench, solo: Solo) -> Case:
    vote = Vote.sign(solo.network, solo.consensus[0], PREPARE, 1_000, 0, digest_of("block", 0))
    return _message(bench, "codec-vote", "A vote as a message between hospitals", vote, [encode_message(vote)], 1)


def _gossip(bench: Bench, transactions: Sequence[Transaction]) -> Case:
    count = min(bench.size.gossiped, len(transactions))
    offers = [TransactionsOffered(tuple(transactions[start : start + count])) for start in range(0, len(transactions) - count + 1, count)]
    # The last, shorter message makes them one round more than is remembered.
    offers.append(TransactionsOffered(tuple(transactions[-count:])))
    title = f"A message of {count} transactions, per transaction"
    return _message(bench, "codec-gossip", title, offers[0], [encode_message(offer) for offer in offers], count)


def _message(bench: Bench, name: str, title: str, message: PeerMessage, frames: Sequence[bytes], units: int) -> Case:
    encode = bench.sampling.repeat(partial(encode_message, message), units)
    decode = bench.sampling.repeat(partial(_each, decode_message, frames), len(frames) * units)
    return Case(name, title, {"cpu_encode": encode.cpu_us(), "cpu_decode": decode.cpu_us(), "size": _bytes(len(frames[0]))})


def _payload(bench: Bench, solo: Solo, shortest: Sequence[Transaction], operations: int, tokens: int) -> Case:
    size = len(_registration(solo, 0, operations, tokens).raw)
    if size == len(shortest[0].raw):
        raws = [transaction.raw for transaction in shortest]
    else:
        count = bench.size.distinct if size <= REMEMBERED_BYTES_MAX else max(2, PAYLOAD_BYTES // size)
        raws = [_registration(solo, number, operations, tokens).raw for number in range(count)]

    def believe(raw: bytes) -> None:
        verify_many((Transaction.decode(raw).verification(solo.network),))

    decode = bench.sampling.repeat(partial(_each, Transaction.decode, raws), len(raws))
    total = bench.sampling.repeat(partial(_each, believe, raws), len(raws))
    return Case(
        f"{PAYLOAD}-{operations}x{tokens}", f"Reading, naming and verifying a transaction of {operations} operations ({size} bytes)",
        {"cpu": total.cpu_us(), "cpu_decode": decode.cpu_us(), "size": _bytes(size)},
        {"operations": operations, "tokens": tokens}, curve=PAYLOAD, x=float(size),
    )  # fmt: skip


def _curve(cases: list[Case]) -> Curve:
    points = sorted((case for case in cases if case.curve == PAYLOAD), key=lambda case: case.x)
    first, last = points[0], points[-1]
    signature = first.measures["cpu"].median - first.measures["cpu_decode"].median
    per_kilobyte = (last.measures["cpu"].median - first.measures["cpu"].median) / (last.x - first.x) * 1_000
    return Curve(
        PAYLOAD, "Believing a transaction", "bytes", "cpu",
        f"A transaction of {first.x:.0f} bytes takes {first.measures['cpu'].median:.0f} us, {signature:.0f} of them for the signature, and "
        f"every further kilobyte {per_kilobyte:.1f} us. What grows is the reading, value by value, and the digests over its bytes; the "
        "signature covers the id only and costs the same for all.",
        is_log_x=True,
    )  # fmt: skip
