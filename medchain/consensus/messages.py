"""The pre-prepare: an unsigned envelope around the primary's ordinary signed Prepare (protocol.md, "Agreement").

Votes and view changes are nouns of the chain (chain/vote.py); this is the one message that only agreement knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medchain import codec
from medchain.chain import limits
from medchain.chain.block import Proposal
from medchain.chain.vote import PREPARE, ViewChange, Vote
from medchain.errors import Malformed


@dataclass(frozen=True, slots=True)
class PrePrepare:
    """A primary's proposal for (height, view).

    The block by reference, its own Prepare, and for view > 0 the q view changes that justify it.
    """

    proposal: Proposal
    prepare: Vote
    """The primary's signed Prepare(height, view, digest); it counts as one."""
    view_changes: tuple[ViewChange, ...] = ()
    """Exactly q for exactly this view; only the one with the highest prepared view carries its proof."""

    @property
    def height(self) -> int:
        """Height of the proposal."""
        return self.prepare.height

    @property
    def view(self) -> int:
        """View in which it is proposed (a re-proposal's header has a lower one)."""
        return self.prepare.view

    @property
    def digest(self) -> bytes:
        """Digest of the proposed block."""
        return self.prepare.digest

    def to_value(self) -> list[Any]:
        """Return the codec value."""
        return [self.proposal.to_value(), self.prepare.to_value(), [change.to_value() for change in self.view_changes]]

    @classmethod
    def from_value(cls, value: Any) -> PrePrepare:
        """Read a codec value and recompute its digests. Raises Malformed."""
        proposal_value, prepare_value, changes = codec.as_fields(value, 3, "pre-prepare")
        message = cls(
            proposal=Proposal.from_value(proposal_value),
            prepare=Vote.from_value(prepare_value),
            view_changes=codec.as_items(changes, limits.VALIDATORS_MAX, "view changes", ViewChange.from_value),
        )
        header = message.proposal.header
        if message.prepare.kind != PREPARE:
            raise Malformed("a pre-prepare carries a prepare")
        if message.prepare.height != header.height or message.prepare.digest != header.digest():
            raise Malformed("the prepare of a pre-prepare is of another block")
        if header.view > message.prepare.view:
            raise Malformed("a block cannot be older than its first proposal")
        return message
