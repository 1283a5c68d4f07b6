"""What every judge knows from the start, and where it writes down what it found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from medchain.chain.block import Block
from medchain.chain.domain import Domain
from medchain.chain.genesis import Genesis
from medchain.chain.transaction import Transaction
from medchain.chain.validators import ValidatorSet
from medchain.chain.vote import Signatures, Vote
from medchain.crypto.signing import verify_many
from medchain.sim.identity import SigningOrder
from medchain.sim.node import Turn, Violation
from medchain.store.keyvalue import KeyValue

FINDINGS_MAX: Final = 20
"""One broken promise shows in many places; the first ones tell enough."""


@dataclass(slots=True)
class Case:
    """A network on trial."""

    genesis: Genesis
    signing: SigningOrder
    faulty: frozenset[int] = frozenset()
    """Nodes whose votes promise nothing: liars, and those whose disks forget."""
    liars: frozenset[int] = frozenset()
    """Nodes that break rules on purpose: not even their stores are asked about."""
    forgetful: frozenset[int] = frozenset()
    """Nodes whose disks forget: only they may find out that they forgot."""
    latest_clock_ms: int = 2**60
    """How far ahead of the true time the latest of the clocks is that are not off, with the clock bound: no decided block is later."""
    now_us: int = 0
    findings: list[Violation] = field(default_factory=list)
    network: Domain = field(init=False)
    validators: ValidatorSet = field(init=False)
    _verified: dict[tuple[bytes, bytes, bytes], bool] = field(default_factory=dict)

    _blocks: dict[bytes, Block] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network = self.genesis.domain()
        self.validators = self.genesis.validators()

    def find(self, checker: str, message: str) -> None:
        """Write a violation down."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Violation(checker, message, self.now_us))

    def name(self, key: bytes) -> str:
        """Return a validator's readable name."""
        index = self.validators.index_of(key)
        return "a stranger" if index is None else f"node {index}"

    def is_honest(self, key: bytes) -> bool:
        """Answer whether this key's owner is one for whom the promises hold."""
        index = self.validators.index_of(key)
        return index is not None and index not in self.faulty

    def are_valid(self, items: list[tuple[bytes, bytes, bytes]]) -> bool:
        """Answer whether signatures are genuine, by what the judge saw being signed; whatever it did not see, it verifies itself.

        The nodes' shared memory of verified signatures is part of what is judged and never asked.
        """
        return all(self.signing.was_made(item) or self._is_valid(item) for item in items)

    def _is_valid(self, item: tuple[bytes, bytes, bytes]) -> bool:
        known = self._verified.get(item)
        if known is None:
            known = self._verified[item] = verify_many((item,))[0]
        return known

    def block(self, data: bytes) -> Block:
        """Return the block of stored bytes, read once however many stores hold it and judges ask. Raises Malformed."""
        block = self._blocks.get(data)
        if block is None:
            block = self._blocks[data] = Block.decode(data)
        return block

    def votes_of(self, height: int, view: int, digest: bytes, signatures: Signatures, kind: int) -> list[Vote]:
        """Return the signatures of a certificate (COMMIT) or a proof (PREPARE) as votes; unknown places are left out."""
        members = self.validators.validators
        return [
            Vote(kind, height, view, digest, members[index].consensus_key, signature)
            for index, signature in signatures
            if index < len(members)
        ]


@dataclass(frozen=True, slots=True)
class Ending:
    """What a world left behind, for the last questions."""

    stores: tuple[KeyValue, ...]
    """One open store a node, in order."""
    accepted: dict[bytes, Transaction]
    """Transactions that clients were promised."""
    is_at_rest: bool
    """The world healed and was given the time to decide everything: only then is absence a fault."""


class Checker(Protocol):
    """One promise."""

    def on_turn(self, turn: Turn) -> None:
        """Look at what left a node."""
        ...

    def on_end(self, ending: Ending) -> None:
        """Look at what is left."""
        ...
