"""Proofs: of a record's presence and of a transaction, as a node makes them and a stranger checks them; over ever more keys and headers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from medchain.bench.micro.clinic import Clinic, digest_of
from medchain.bench.micro.setting import Bench, Findings
from medchain.bench.micro.solo import SEED, Solo
from medchain.bench.micro.state import key_of, rows_of
from medchain.bench.micro.stopwatch import quiet
from medchain.bench.results import LOWER, Case, Curve, Measure, Target
from medchain.chain.block import Header
from medchain.chain.certificate import Certificate
from medchain.chain.genesis import Genesis
from medchain.engine.mempool import Mempool
from medchain.engine.queries import READS, Reading
from medchain.engine.turn import Turn
from medchain.errors import InvariantBroken
from medchain.ledger.rows import RECORD
from medchain.store.history import History, HistoryNodes, history_append_ops, verify_history
from medchain.store.keyvalue import KeyValue, Operation, WriteBatch
from medchain.store.proof import StateProof, verify_state
from medchain.store.tree import StateTree
from medchain.wire.proof import StateFileProof, verify_state_proof, verify_transaction_proof

TARGETS: Final = (Target("size", 5_000.0, 3_000.0), Target("time_build", 5.0, 1.0), Target("time_check", 5.0, 1.0))
"""Without validator-set history: 5 kB and 5 ms, better 3 kB and 1 ms."""
PATIENTS_MAX: Final = 500
RECENT: Final = 4
"""The newest blocks, which a node keeps at hand."""
ASKED: Final = 256
"""Keys or headers that are proven in turn."""
FILES: Final = 60
"""Transactions that are proven in turn, the same number of every block."""
KEYS: Final = "proofs-keys"
HISTORY: Final = "proofs-history"
HEADERS_PER_BATCH: Final = 5_000


def measure(bench: Bench) -> Findings:
    """Measure the group."""
    findings = Findings()
    with bench.store() as store:
        solo = Solo(store)
        clinic = Clinic(solo, min(bench.size.patients, PATIENTS_MAX))
        blocks = [
            [transaction.id for transaction in solo.decide(clinic.mixed(bench.size.block_transactions)).block.transactions]
            for _ in range(bench.size.blocks)
        ]
        with quiet():
            findings.cases.append(_record(bench, solo, clinic))
            findings.cases.append(_transaction(bench, solo, "proofs-transaction", "any older block", blocks))
            findings.cases.append(_transaction(bench, solo, "proofs-transaction-recent", "one of the newest blocks", blocks[-RECENT:]))
    findings.cases += [_keys(bench, keys) for keys in bench.size.keys if keys]
    with bench.store() as store:
        findings.cases += _history(bench, store)
    findings.curves += _curves(findings.cases)
    return findings


def _reading(solo: Solo) -> Reading:
    return Reading(solo.chain, Mempool(solo.staged), solo.staged, Turn(), dict)


def _record(bench: Bench, solo: Solo, clinic: Clinic) -> Case:
    reading = _reading(solo)
    keys = [RECORD + patient.record for patient in clinic.patients[:ASKED]]

    def prove(key: bytes) -> bytes:
        """The node's answer, and the file that its asker makes of it (client/node.py)."""
        answer = READS["state.get"](reading, {"key": key})
        header, certificate = Header.decode(answer["header"]), Certificate.decode(answer["certificate"])
        return StateFileProof(header, certificate, key, answer["value"], StateProof.decode(answer["proof"])).encode()

    title = "That a record is in the state: made at the head of the chain, checked with the genesis document alone"
    return _files(bench, "proofs-record", title, solo.genesis, prove, keys, verify_state_proof, {"patients": len(clinic.patients)})


def _transaction(bench: Bench, solo: Solo, name: str, where: str, blocks: Sequence[Sequence[bytes]]) -> Case:
    """One of each block in turn: what is not at hand is read from the disk each time."""
    reading = _reading(solo)
    dice = random.Random(SEED)
    asked = [dice.choice(block) for _ in range(FILES // len(blocks)) for block in blocks]

    def prove(identity: bytes) -> bytes:
        proof: bytes = READS["tx.proof"](reading, {"id": identity})["proof"]
        return proof

    title = f"That a transaction was decided, with its receipt, from {where} of {bench.size.block_transactions} transactions"
    settings = {"transactions": bench.size.block_transactions, "blocks": len(blocks)}
    return _files(bench, name, title, solo.genesis, prove, asked, verify_transaction_proof, settings)


def _files(
    bench: Bench, name: str, title: str, genesis: Genesis, prove: Callable[[bytes], bytes], asked: Sequence[bytes],
    check: Callable[[bytes, Genesis], object], settings: Mapping[str, int],
) -> Case:  # fmt: skip
    files = [prove(subject) for subject in asked]
    subjects, made = itertools.cycle(asked), itertools.cycle(files)
    building = bench.sampling.repeat(lambda: prove(next(subjects)))
    checking = bench.sampling.repeat(lambda: check(next(made), genesis))
    measures = {
        "size": _sizes([len(file) for file in files]),
        "time_build": building.wall_ms(),
        "time_check": checking.wall_ms(),
        "cpu_build": building.cpu_us(),
        "cpu_check": checking.cpu_us(),
    }
    return Case(name, title, measures, settings, TARGETS)


def _sizes(sizes: Sequence[int]) -> Measure:
    """The mean: sizes are not noise, and those of one run are those of every run."""
    return Measure("bytes", LOWER, (sum(sizes) / len(sizes),))


def _keys(bench: Bench, keys: int) -> Case:
    buckets = bench.size.buckets
    tree = StateTree.rebuild(buckets, rows_of(keys))
    dice = random.Random(SEED)
    rows = {key_of(number): None for number in (dice.randrange(keys) for _ in range(ASKED))}
    asked = list(rows)
    values = [(digest + digest)[:64] for digest in (key[len(RECORD) :] for key in asked)]
    proofs = [tree.prove(key) for key in asked]
    subjects = itertools.cycle(asked)
    shown = itertools.cycle(list(zip(asked, values, proofs, strict=True)))

    def check() -> None:
        key, value, proof = next(shown)
        if not verify_state(tree.root, buckets, key, value, proof):
            raise _broken()

    with quiet():
        building = bench.sampling.repeat(lambda: tree.prove(next(subjects)).encode())
        checking = bench.sampling.repeat(check)
    measures = {"size": _sizes([len(proof.encode()) for proof in proofs]), "cpu_build": building.cpu_us(), "cpu_check": checking.cpu_us()}
    return Case(
        f"{KEYS}-{keys}", f"The path of one key among {keys}", measures, {"keys": keys, "buckets": buckets}, curve=KEYS, x=float(keys)
    )


def _broken() -> InvariantBroken:
    return InvariantBroken("a proof that was just made does not hold")


def _history(bench: Bench, store: KeyValue) -> list[Case]:
    """One history that grows to each length in turn."""
    cases: list[Case] = []
    history = History()
    pending: list[Operation] = []
    for count in bench.size.headers:
        while history.count < count:
            pending += history_append_ops(history, digest_of("header", history.count))
            if len(pending) >= HEADERS_PER_BATCH:
                store.write(WriteBatch(tuple(pending)))
                pending.clear()
        store.write(WriteBatch(tuple(pending)))
        pending.clear()
        cases.append(_length(bench, store, history))
    return cases


def _length(bench: Bench, store: KeyValue, history: History) -> Case:
    count, root, nodes = history.count, history.root, HistoryNodes(store)
    dice = random.Random(SEED)
    asked = [dice.randrange(count) for _ in range(ASKED)]
    paths = [nodes.prove(index, count) for index in asked]
    subjects = itertools.cycle(asked)
    shown = itertools.cycle(list(zip(asked, paths, strict=True)))

    def check() -> None:
        index, path = next(shown)
        if not verify_history(root, count, index, digest_of("header", index), path):
            raise _broken()

    with quiet():
        building = bench.sampling.repeat(lambda: nodes.prove(next(subjects), count))
        checking = bench.sampling.repeat(check)
    measures: dict[str, Any] = {
        "cpu_build": building.cpu_us(),
        "cpu_check": checking.cpu_us(),
        "size": _sizes([sum(map(len, path)) for path in paths]),
    }
    return Case(
        f"{HISTORY}-{count}", f"That a header is one of the {count} before a newer one", measures, {"headers": count},
        curve=HISTORY, x=float(count),
    )  # fmt: skip


def _curves(cases: Sequence[Case]) -> list[Curve]:
    keys = [case for case in cases if case.curve == KEYS]
    lengths = [case for case in cases if case.curve == HISTORY]
    curves = []
    if keys:
        first, last = keys[0], keys[-1]
        curves.append(
            Curve(
                KEYS, "Size of a proof of state", "keys", "size",
                f"From {first.x:,.0f} to {last.x:,.0f} keys the proof grows from {first.measures['size'].median:.0f} to "
                f"{last.measures['size'].median:.0f} bytes. It holds the digests beside the way from the bucket to the top, as many "
                "at any size, and all entries of the key's own bucket, 64 bytes each: those grow with "
                "the keys until 64 of them split the bucket.",
                is_log_x=True,
            )
        )  # fmt: skip
    if lengths:
        first, last = lengths[0], lengths[-1]
        curves.append(
            Curve(
                HISTORY, "Proving an old header", "headers", "cpu_build",
                f"From {first.x:,.0f} to {last.x:,.0f} headers the path grows from {first.measures['size'].median:.0f} to "
                f"{last.measures['size'].median:.0f} bytes and its making from {first.measures['cpu_build'].median:.0f} to "
                f"{last.measures['cpu_build'].median:.0f} us. A path has one node for each doubling of the chain, each made of nodes "
                "that are read from LevelDB.",
                is_log_x=True,
            )
        )  # fmt: skip
    return curves
