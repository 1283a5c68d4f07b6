"""The validators of a height and the numbers that follow from how many they are.

f = floor((n-1)/3) and q = floor((n+f)/2) + 1, for any n >= 4: any two quorums share an honest validator, and n-f reach a quorum
(protocol.md, "Numbers"; 2f+1 only where n = 3f+1). Knows no vote and no rule of membership.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from medchain import codec
from medchain.chain import limits
from medchain.crypto.hashing import tagged_digest
from medchain.errors import Malformed


def faults_tolerated(n: int) -> int:
    """Return f, the most validators that may fail in any way among n."""
    return (n - 1) // 3


def quorum(n: int) -> int:
    """Return q, the distinct validators that certify, prepare and enter views among n."""
    return (n + faults_tolerated(n)) // 2 + 1


@dataclass(frozen=True, slots=True)
class Validator:
    """One hospital's place in the set."""

    consensus_key: bytes
    officer_key: bytes
    may_vote: bool = True
    """False while suspended: n and q stay."""


@dataclass(frozen=True, slots=True)
class ValidatorSet:
    """Validators in ascending order of their consensus keys; an index means a place in this order."""

    changed_at: int
    """Height at which the set last changed; 0 for the founding set."""
    validators: tuple[Validator, ...]
    _index: dict[bytes, int] = field(init=False, repr=False, compare=False)
    _digest: bytes | None = field(init=False, repr=False, compare=False, default=None)
    """Computed when first asked for: every block names the same set twice."""

    def __post_init__(self) -> None:
        keys = [validator.consensus_key for validator in self.validators]
        if keys != sorted(set(keys)):
            raise Malformed("validators must be distinct and in ascending order of their consensus keys")
        if not 1 <= len(keys) <= limits.VALIDATORS_MAX:
            raise Malformed(f"a validator set has 1 to {limits.VALIDATORS_MAX} members")
        object.__setattr__(self, "_index", {key: index for index, key in enumerate(keys)})

    def __len__(self) -> int:
        return len(self.validators)

    @property
    def faults_tolerated(self) -> int:
        """f of this set."""
        return faults_tolerated(len(self.validators))

    @property
    def quorum(self) -> int:
        """q of this set."""
        return quorum(len(self.validators))

    def index_of(self, consensus_key: bytes) -> int | None:
        """Return the place of a key, None if it is not in the set."""
        return self._index.get(consensus_key)

    def is_voter(self, consensus_key: bytes) -> bool:
        """Answer whether this key is in the set and not suspended."""
        index = self._index.get(consensus_key)
        return index is not None and self.validators[index].may_vote

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Consensus keys in order."""
        return tuple(validator.consensus_key for validator in self.validators)

    @property
    def voters(self) -> tuple[bytes, ...]:
        """Consensus keys of those that may vote, in order."""
        return tuple(validator.consensus_key for validator in self.validators if validator.may_vote)

    def encode(self) -> bytes:
        """Return the canonical bytes, which are also what the set digest covers."""
        return codec.encode([self.changed_at, [[v.consensus_key, v.officer_key, v.may_vote] for v in self.validators]])

    @classmethod
    def decode(cls, data: bytes) -> ValidatorSet:
        """Read canonical bytes. Raises Malformed."""
        changed_at, rows = codec.as_fields(codec.decode(data, bytes_max=64 * 1024, depth_max=4), 2, "validator set")
        return cls(
            changed_at=codec.as_uint(changed_at, "height of the change", limits.HEIGHT_MAX),
            validators=codec.as_items(rows, limits.VALIDATORS_MAX, "validators", _read_validator),
        )

    def digest(self) -> bytes:
        """Return the digest that headers carry."""
        digest = self._digest
        if digest is None:
            digest = tagged_digest("medchain/validators", self.encode())
            object.__setattr__(self, "_digest", digest)
        return digest


def _read_validator(value: Any) -> Validator:
    consensus_key, officer_key, may_vote = codec.as_fields(value, 3, "validator")
    return Validator(
        consensus_key=codec.as_bytes(consensus_key, "consensus key", length=limits.KEY_BYTES),
        officer_key=codec.as_bytes(officer_key, "officer key", length=limits.KEY_BYTES),
        may_vote=codec.as_bool(may_vote, "may-vote"),
    )
