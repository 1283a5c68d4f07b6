"""Mutants that say what they have not written, or keep what is over: one for each kind of record (protocol.md, "Durable before said")."""

from __future__ import annotations

from typing import Final

from medchain.sim.mutants.mutant import Mutant, Wrap, blackouts, unwritten
from medchain.store import layout
from medchain.store.keyvalue import WriteBatch

_KIND_AT: Final = len(layout.HARD_STATE) + 8
"""Where the kind stands in a key of hard state (engine/hardstate.py)."""


def _hard_state(kind: bytes) -> Wrap:
    return unwritten(lambda key, value, batch: key.startswith(layout.HARD_STATE) and key[_KIND_AT : _KIND_AT + 1] == kind)


def _prefix(prefix: bytes) -> Wrap:
    return unwritten(lambda key, value, batch: key.startswith(prefix))


def _is_early_body(key: bytes, value: bytes | None, batch: WriteBatch) -> bool:
    """Answer whether this is a block that is not decided in the same batch: pinned, that is."""
    return key.startswith(layout.BODY) and value is not None and all(other != layout.HEAD for other, _ in batch.operations)


DURABILITY: Final = (
    Mutant("own votes unwritten", "prepares and commits are said and not kept", wrap=_hard_state(b"a")),
    Mutant("own view changes unwritten", "view changes are said and not kept", wrap=_hard_state(b"w")),
    Mutant(
        "pins unwritten",
        "which block was prepared in which view is not kept",
        wrap=_hard_state(b"q"),
        harmless="votes and proofs name the block, and its bytes are found by that name: one look into the store more after a crash",
    ),
    Mutant("prepared proofs unwritten", "commits are said while their prepared proof is not kept", wrap=_hard_state(b"x"), plans=blackouts),
    Mutant("pinned bytes unwritten", "blocks are prepared while their bytes are not kept", wrap=unwritten(_is_early_body)),
    Mutant("all hard state unwritten", "nothing said at an undecided height is kept", wrap=_prefix(layout.HARD_STATE)),
    Mutant("pool unwritten", "transactions are accepted and not kept (lessons.md: cometbft #1516)", wrap=_prefix(layout.POOL)),
    Mutant("state unwritten", "what a block changed is not kept", wrap=_prefix(layout.STATE)),
    Mutant("certificates unwritten", "blocks are decided and what proves it is not kept", wrap=_prefix(layout.CERTIFICATE)),
    Mutant("blocks unwritten", "the bytes of decided blocks are not kept", wrap=_prefix(layout.BODY)),
    Mutant("index unwritten", "where a transaction was decided is not kept", wrap=_prefix(layout.TRANSACTION)),
    Mutant(
        "observer mark unwritten",
        "that a node must not vote yet is forgotten by the next crash",
        wrap=_prefix(layout.OBSERVER_MARK),
        harmless="every start asks again, and forgotten votes that still bind are still held by q: the mark saves a second alarm",
    ),
    Mutant(
        "hard state never removed",
        "what was said at decided heights stays on the disk",
        wrap=unwritten(lambda key, value, batch: key.startswith(layout.HARD_STATE) and value is None),
    ),
    Mutant(
        "pool never emptied",
        "decided transactions stay in the pool's range",
        wrap=unwritten(lambda key, value, batch: key.startswith(layout.POOL) and value is None),
    ),
)
