"""May the keys of a permit go out now? The releaser's own check, at its own head, counted durably before the answer.

Rule: ledger.md, "Sealing and sharing", 6. What the state says is the ledger's (`permit_standing`); added here is what only a node knows:
how old its head is, and how many keys it has already let out. A cut-off node stops after two heartbeats. That a release is announced and
final before the key leaves is the custodian's duty; it may ask here before or after. This module opens and sends no key.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from medchain.engine.decided import DecidedChain
from medchain.engine.turn import Turn
from medchain.errors import Rejected
from medchain.ledger.execution import BlockContext
from medchain.ledger.permits import PermitRow, check_permit, permit_standing
from medchain.ledger.refusals import REFUSALS as LEDGER_REFUSALS
from medchain.store import layout
from medchain.store.staged import Staged

REFUSALS: Final[dict[str, str]] = {
    "release.head-old": "This node's newest block is older than two heartbeats: it may not know of a revocation.",
    "release.count": "This node has let out as many keys under this permit as the permit allows.",
}

HEARTBEATS: Final = 2


def head_age_max_ms(chain: DecidedChain) -> int:
    """Return how old the newest block may be, by the wall clock, for keys to go out."""
    return HEARTBEATS * chain.parameters.heartbeat_ms


def check_release(chain: DecidedChain, permit: bytes, wall_ms: int, released: int) -> PermitRow:
    """Return the permit if a key may go out under it now; `released` is how many went out from here already.

    Announcements are counted by the chain, against the same bound; the one that made this very release final must not stand in its way.
    Raises Rejected with a code of REFUSALS or of the ledger.
    """
    head = chain.head
    if wall_ms - head.time_ms > head_age_max_ms(chain):
        raise Rejected("release.head-old", "the newest block here is too old to release by: wait until the node is connected and caught up")
    row = check_permit(chain.state, permit)
    context = BlockContext(head.height, max(head.time_ms, wall_ms), chain.network, chain.parameters)
    code = permit_standing(chain.state, context, permit, replace(row, releases_max=row.releases_max + 1))
    if code:
        raise Rejected(code, LEDGER_REFUSALS[code])
    if released >= row.releases_max:
        raise Rejected("release.count", "this node has used up the permit's releases: the reader has to ask for access again")
    return row


def take_release(chain: DecidedChain, staged: Staged, turn: Turn, permit: bytes) -> dict[str, Any]:
    """Check a release and count it in this turn's batch; return what the custodian needs. Raises Rejected; then nothing is counted."""
    key = layout.release_key(b"permit/" + permit)
    stored = staged.get(key)
    released = 0 if stored is None else int.from_bytes(stored, "big")
    row = check_release(chain, permit, turn.wall_ms, released)
    staged.put(key, layout.uint32(released + 1))
    return {
        "permit": permit,
        "record": row.record,
        "pseudonym": row.pseudonym,
        "versions": list(row.versions),
        "reader": row.reader,
        "hospital": row.hospital,
        "purpose": row.purpose,
        "height": chain.height,
        "released": released + 1,
    }
