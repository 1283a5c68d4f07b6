"""Keys and the genesis document of a simulated network, all derived from the seed; and keys that remember when they first signed what.

Real Ed25519 keys, so every signature in the simulator is a real one. Knows no node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from medchain import codec
from medchain.chain.genesis import VALIDATOR, Genesis, Hospital
from medchain.chain.parameters import Parameters
from medchain.crypto.hashing import tagged_digest
from medchain.crypto.sealing import PUBLIC_KEY_BYTES
from medchain.crypto.signing import SigningKey
from medchain.sim.clocks import EPOCH_MS

OPENING_SUITE: Final = min(PUBLIC_KEY_BYTES, key=lambda suite: PUBLIC_KEY_BYTES[suite])
"""The suite with the shortest keys: nothing is sealed in the simulator, so the shortest will do."""


Item = tuple[bytes, bytes, bytes]
"""(public key, message, signature)."""


def seeded_key(seed: int, purpose: str, number: int = 0) -> SigningKey:
    """Return a key that everyone with the seed can make: for pretend worlds only."""
    return SigningKey(tagged_digest("medchain/sim/key", codec.encode([seed, purpose, number])))


def opening_key(seed: int, purpose: str, number: int = 0) -> bytes:
    """Return bytes of the right length for an HPKE public key; nobody ever seals to it."""
    digest = tagged_digest("medchain/sim/opening", codec.encode([seed, purpose, number]))
    return (digest * (PUBLIC_KEY_BYTES[OPENING_SUITE] // len(digest) + 1))[: PUBLIC_KEY_BYTES[OPENING_SUITE]]


@dataclass(slots=True)
class SigningOrder:
    """Remembers in which order signatures were first made, over all keys and all restarts of a world."""

    order: dict[bytes, int] = field(default_factory=dict)
    witnesses: list[Callable[[Item], None]] = field(default_factory=list)
    """Told of every (public key, message, signature) that a watched key makes."""
    _made: set[Item] = field(default_factory=set)

    def note(self, public: bytes, message: bytes, signature: bytes) -> None:
        """Give a signature its number unless it has one, and remember who made it over what."""
        self.order.setdefault(signature, len(self.order) + 1)
        item = (public, message, signature)
        if item not in self._made:
            self._made.add(item)
            for tell in self.witnesses:
                tell(item)

    def was_made(self, item: Item) -> bool:
        """Answer whether a watched key made exactly this (public key, message, signature): then it is genuine, nobody need verify it."""
        return item in self._made

    def now(self) -> int:
        """Return the number of the newest signature."""
        return len(self.order)


class WatchedKey(SigningKey):
    """A signing key whose signatures are numbered: the judges must know what was signed before what."""

    __slots__ = ("_order",)

    def __init__(self, seed: bytes, order: SigningOrder) -> None:
        super().__init__(seed)
        self._order = order

    def sign(self, message: bytes) -> bytes:
        """Sign and remember when."""
        signature = super().sign(message)
        self._order.note(self.public, message, signature)
        return signature


def watched_key(seed: int, purpose: str, number: int, order: SigningOrder) -> WatchedKey:
    """Return the seeded key as a watched one."""
    return WatchedKey(seeded_key(seed, purpose, number).seed_bytes(), order)


@dataclass(frozen=True, slots=True)
class Identities:
    """Everyone's keys in a world. Index i is hospital i, in ascending order of the consensus keys."""

    genesis: Genesis
    consensus: tuple[WatchedKey, ...]
    organisations: tuple[WatchedKey, ...]
    signing: SigningOrder


def make_identities(seed: int, nodes: int, parameters: Parameters, order: SigningOrder) -> Identities:
    """Return the keys and the genesis document of a world."""
    members = []
    for number in range(nodes):
        consensus = watched_key(seed, "consensus", number, order)
        members.append((consensus, seeded_key(seed, "officer", number), watched_key(seed, "organisation", number, order)))
    members.sort(key=lambda member: member[0].public)
    hospitals = tuple(
        [
            Hospital(
                name=f"hospital-{index}",
                role=VALIDATOR,
                consensus_key=consensus.public,
                officer_key=officer.public,
                organisation_key=organisation.public,
                opening_suite=OPENING_SUITE,
                opening_key=opening_key(seed, "hospital", index),
                certificate=b"simulated",
                endpoints=(f"node-{index}.sim:1",),
            )
            for index, (consensus, officer, organisation) in enumerate(members)
        ]
    )
    genesis = Genesis(f"sim-{seed}", EPOCH_MS - 1_000, parameters, hospitals)
    return Identities(genesis, tuple([member[0] for member in members]), tuple([member[2] for member in members]), order)
