"""Who leads: the primary of a height and view, behind one function.

The rotation of a height, made by the rules of the state (protocol.md, "Primary"), takes turns: place (height + view) mod its length. A
certificate held here is never consulted, so all nodes at a height agree on its primaries. Knows no votes and no state.
"""

from __future__ import annotations

from collections.abc import Sequence


def primary(rotation: Sequence[bytes], height: int, view: int) -> bytes:
    """Return the consensus key of the primary of (height, view); empty bytes, which are no key, when nobody takes turns."""
    return rotation[(height + view) % len(rotation)] if rotation else b""
