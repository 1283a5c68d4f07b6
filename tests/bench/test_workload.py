"""The load's operations: each kind makes what the rule book accepts, in any shape, after its phases."""

from __future__ import annotations

import secrets

import pytest

from medchain.actions.transactions import build_body
from medchain.bench.workload import KINDS, Task, joined, workload
from medchain.chain.domain import Domain
from medchain.chain.genesis import VALIDATOR, Genesis, Hospital
from medchain.chain.parameters import Parameters
from medchain.chain.transaction import Transaction
from medchain.crypto.keyfile import Identity
from medchain.crypto.sealing import SUITE_X25519
from medchain.crypto.signing import SigningKey
from medchain.errors import Rejected
from medchain.ledger.apply import BlockContext, apply_block, genesis_changes
from medchain.store.layout import STATE
from medchain.store.memory import MemoryKeyValue
from medchain.store.overlay import StoredState
from medchain.store.staged import Staged

NAMES = ("a", "b", "c", "d")


class _Ledger:
    """The rule book on a state in memory, with four hospitals."""

    def __init__(self) -> None:
        self.identities = {name: Identity.generate("hospital", SUITE_X25519) for name in NAMES}
        consensus_keys = sorted(SigningKey.generate().public for _ in NAMES)
        self.genesis = Genesis(
            chain_id="bench",
            time_ms=1_700_000_000_000,
            hospitals=tuple(
                Hospital(
                    name=name,
                    role=VALIDATOR,
                    organisation_key=identity.signing.public,
                    consensus_key=consensus_key,
                    officer_key=SigningKey.generate().public,
                    opening_suite=SUITE_X25519,
                    opening_key=identity.opening.public,
                    certificate=secrets.token_bytes(64),
                    endpoints=("127.0.0.1:1",),
                )
                for (name, identity), consensus_key in zip(self.identities.items(), consensus_keys, strict=True)
            ),
            parameters=Parameters(state_buckets=16),
        )
        self.staged = Staged(MemoryKeyValue())
        for key, value in genesis_changes(self.genesis).items():
            self.staged.put(STATE + key, value)
        self.height = 0

    @property
    def network(self) -> Domain:
        return self.genesis.domain()

    def codes(self, tasks: list[Task]) -> set[str]:
        """Execute a block with each task as a transaction; return the receipts' codes."""
        self.height += 1
        transactions = [
            Transaction.sign(
                build_body("bench", task.key.public, task.operations, valid_until=10, nonce=secrets.token_bytes(8)), task.key, self.network
            )
            for task in tasks
        ]
        context = BlockContext(self.height, 1_700_000_000_000 + self.height, self.network, self.genesis.parameters)
        applied = apply_block(StoredState(self.staged), context, transactions)
        for key, value in applied.changes.items():
            self.staged.put(STATE + key, value) if value is not None else self.staged.delete(STATE + key)
        return {receipt.code for receipt in applied.transaction_receipts}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operations", [1, 50])
def test_every_operation_of_a_kind_is_accepted(kind: str, operations: int) -> None:
    ledger = _Ledger()
    source = workload(kind, ledger.network, ledger.identities, 8 * operations)
    for phase in source.phases():
        assert ledger.codes(joined(phase, 50)) == {""}
    tasks = [source.next(name, operations) for name in (*NAMES, *NAMES)]
    assert [len(task.operations) for task in tasks] == [operations] * 8
    assert ledger.codes(tasks) == {""}


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(Rejected) as refusal:
        workload("dance", Domain(b"\0" * 32, 0), {}, 1)
    assert refusal.value.code == "bench.kind"


def test_confirmations_end_when_every_record_is_confirmed() -> None:
    ledger = _Ledger()
    source = workload("custody", ledger.network, ledger.identities, 16)
    for phase in source.phases():
        ledger.codes(phase)
    source.next("a", 4)
    with pytest.raises(Rejected) as refusal:
        source.next("a", 1)
    assert refusal.value.code == "bench.exhausted"


def test_tasks_are_joined_by_key_and_hospital_in_order() -> None:
    ledger = _Ledger()
    first, second = (workload("patient", ledger.network, ledger.identities, 0).next(name, 5) for name in "ab")
    singles = [Task(task.hospital, task.key, [operation]) for task in (first, second) for operation in task.operations]
    assert joined(singles, 3) == [
        Task("a", first.key, first.operations[:3]), Task("a", first.key, first.operations[3:]),
        Task("b", second.key, second.operations[:3]), Task("b", second.key, second.operations[3:]),
    ]  # fmt: skip
