"""Where replicas go: rendezvous hashing, so that everyone computes the same holders and a change of members moves few records.

Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998. Knows no vault and no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from medchain.crypto.hashing import tagged_digest

REPLICAS: Final = 2
"""Further hospitals that hold a record's ciphertext besides the custodian (issue: replicas on two further hospitals)."""


def ranked_holders(record: bytes, custodian: bytes, hospitals: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the hospitals (organisation keys) other than the custodian, those that should hold the record first."""
    others = [hospital for hospital in hospitals if hospital != custodian]
    return tuple(sorted(others, key=lambda hospital: (tagged_digest("medchain/placement", record + hospital), hospital)))


def designated_holders(record: bytes, custodian: bytes, hospitals: Sequence[bytes], replicas: int = REPLICAS) -> tuple[bytes, ...]:
    """Return the `replicas` hospitals designated to hold a record's ciphertext besides its custodian."""
    return ranked_holders(record, custodian, hospitals)[:replicas]
