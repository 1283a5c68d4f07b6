"""Lists in the state that only grow: the records of a patient, the permits on a record. Appended by the rules, read page by page.

Items stand under their index, so a page costs what it shows, wherever it begins, and a cursor stays good for ever. This module knows no
item.
"""

from __future__ import annotations

from typing import Final

from medchain.errors import InvariantBroken
from medchain.ledger import rows
from medchain.ledger.execution import Execution
from medchain.ledger.rows import uint64
from medchain.store.overlay import StateView

RECORDS: Final = b"records/"
"""Record ids of a pseudonym."""
CONSENTS: Final = b"consents/"
"""Consent ids of a pseudonym."""
PERMITS: Final = b"permits/"
"""Permit ids on a record."""
REVIEWS: Final = b"reviews/"
"""Emergencies (permit ids) that a custodian has to review, or has reviewed."""
EVIDENCE: Final = b"evidence/"
"""Ids of recorded evidence, of nobody in particular."""

PAGE_MAX: Final = 100
"""Most items of one page, whoever asks."""


def append_item(execution: Execution, name: bytes, owner: bytes, item: bytes) -> None:
    """Add an item at the end of the list `name` of `owner`."""
    count = count_of(execution.state, name, owner)
    execution.insert(rows.LIST + name + owner + uint64(count), item)
    execution.state.put(rows.LIST_COUNT + name + owner, uint64(count + 1))


def count_of(view: StateView, name: bytes, owner: bytes) -> int:
    """Return how many items a list has."""
    stored = view.get(rows.LIST_COUNT + name + owner)
    return 0 if stored is None else int.from_bytes(stored, "big")


def read_page(view: StateView, name: bytes, owner: bytes, start: int, limit: int) -> tuple[list[bytes], int | None]:
    """Return the items from index `start` on, at most `limit` (and PAGE_MAX), and the index of the next page, None at the end."""
    start, count = max(start, 0), count_of(view, name, owner)
    stop = min(count, start + min(max(limit, 1), PAGE_MAX))
    items: list[bytes] = []
    for index in range(start, stop):
        item = view.get(rows.LIST + name + owner + uint64(index))
        if item is None:
            raise InvariantBroken("an item of a list is missing from the state")
        items.append(item)
    return items, stop if stop < count else None
