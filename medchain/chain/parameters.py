"""On-chain parameters: the only settings that agreement depends on, never local (lessons.md: FISCO-BCOS #4656).

Knows the names, defaults and bounds of protocol.md, "Numbers". Whether a change is allowed is the ledger's business.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from medchain import codec
from medchain.chain import limits
from medchain.errors import Malformed

BOUNDS: Final[dict[str, tuple[int, int]]] = {
    "block_interval_min_ms": (0, 60_000),
    "heartbeat_ms": (100, 86_400_000),
    "view_timeout_base_ms": (50, 600_000),
    "view_timeout_cap_ms": (50, 3_600_000),
    "clock_bound_ms": (50, 600_000),
    "expiry_window_blocks": (10, limits.EXPIRY_WINDOW_BLOCKS_HARD_MAX),
    "local_emergency_max_ms": (0, 7 * 86_400_000),
    "local_emergency_count_max": (0, 1_000),
    "rotation_window_blocks": (0, 10_000),
    "block_bytes_max": (64 * 1024, limits.BLOCK_BYTES_HARD_MAX),
    "block_transactions_max": (1, limits.BLOCK_TRANSACTIONS_HARD_MAX),
    "block_weight_max": (100, 10_000_000),
    "state_buckets": (16, 2**20),
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters in force; every one is a whole number. `state_buckets` is fixed by genesis and must be a power of two."""

    block_interval_min_ms: int = 50
    heartbeat_ms: int = 30_000
    view_timeout_base_ms: int = 1_000
    view_timeout_cap_ms: int = 10_000
    clock_bound_ms: int = 5_000
    expiry_window_blocks: int = 10_000
    local_emergency_max_ms: int = 86_400_000
    local_emergency_count_max: int = 3
    rotation_window_blocks: int = 0
    """K: who signed none of the last K heights is not primary, and late commits are carried for so long; 0 is twice the validators."""
    block_bytes_max: int = 4 * 1024 * 1024
    block_transactions_max: int = 2_000
    block_weight_max: int = 20_000
    """In units of about 7.5 microseconds of execution on the reference machine: a block executes in 150 ms."""
    state_buckets: int = 65_536

    def rotation_window(self, n: int) -> int:
        """Return K, the window of the rotation in blocks, for n validators."""
        return self.rotation_window_blocks or 2 * n

    def check(self) -> None:
        """Raise Malformed when a value is out of its bounds."""
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise Malformed(f"parameter {name} must be a whole number from {low} to {high}")
        if self.state_buckets & (self.state_buckets - 1):
            raise Malformed("parameter state_buckets must be a power of two")
        if self.view_timeout_cap_ms < self.view_timeout_base_ms:
            raise Malformed("parameter view_timeout_cap_ms must not be below view_timeout_base_ms")

    def encode(self) -> bytes:
        """Return the canonical bytes: the values in the order of the fields."""
        return codec.encode([getattr(self, field.name) for field in fields(self)])

    @classmethod
    def decode(cls, data: bytes) -> Parameters:
        """Read canonical bytes. Raises Malformed."""
        values = codec.as_fields(codec.decode(data, bytes_max=1024), len(fields(cls)), "parameters")
        parameters = cls(*(codec.as_uint(value, field.name) for value, field in zip(values, fields(cls), strict=True)))
        parameters.check()
        return parameters

    def as_names(self) -> dict[str, int]:
        """Return name → value, for people and JSON."""
        return asdict(self)

    @classmethod
    def from_names(cls, values: Any) -> Parameters:
        """Read a JSON object; missing names take their default, unknown names are refused. Raises Malformed."""
        if not isinstance(values, dict):
            raise Malformed("parameters must be an object of names and whole numbers")
        unknown = sorted(str(name) for name in values if name not in BOUNDS)
        if unknown:
            raise Malformed(f"unknown parameter {unknown[0]}")
        parameters = cls(**{name: codec.as_uint(value, name) for name, value in values.items()})
        parameters.check()
        return parameters
