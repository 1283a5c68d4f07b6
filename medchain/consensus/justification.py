"""What a pre-prepare must carry and say: checks of the envelope and of the header, each with its reason in words.

Castro & Liskov 1999, section 4.4 (new-view) and the QBFT specification (isProposalJustification), with exactly q view changes for exactly
the view. Signatures were checked before; what is inside the block is the engine's business. Keeps no state.
"""

from __future__ import annotations

import itertools

from medchain.chain.block import Header
from medchain.chain.parameters import Parameters
from medchain.chain.validators import ValidatorSet
from medchain.chain.vote import PREPARE, ViewChange
from medchain.consensus.messages import PrePrepare
from medchain.consensus.rotation import primary
from medchain.consensus.view_changes import is_below, is_well_formed


def why_unjustified(message: PrePrepare, height: int, validators: ValidatorSet, rotation: tuple[bytes, ...]) -> str | None:
    """Return why no honest validator sends this pre-prepare at this height, None if it is justified.

    The answer depends on the message, the height, its set and its rotation only, not on what this node has seen: so a sender can be
    blamed for it.
    """
    prepare, header = message.prepare, message.proposal.header
    if prepare.kind != PREPARE or prepare.height != height or header.height != height:
        return "the pre-prepare is of another height or carries no prepare"
    if prepare.signer != primary(rotation, height, prepare.view):
        return "the pre-prepare is not by the primary of its view"
    if header.digest() != prepare.digest:
        return "the prepare is of another block"
    if header.proposer != primary(rotation, height, header.view):
        return "the block names a proposer that was not primary of its view"
    if prepare.view == 0:
        return None if header.view == 0 and not message.view_changes else "a pre-prepare of view 0 is a fresh block without view changes"
    return _why_not_following(message, height, validators)


def _why_not_following(message: PrePrepare, height: int, validators: ValidatorSet) -> str | None:
    """Check the view changes of a pre-prepare with view > 0."""
    changes, view, header = message.view_changes, message.prepare.view, message.proposal.header
    if len(changes) != validators.quorum:
        return f"exactly {validators.quorum} view changes are needed, not {len(changes)}"
    if any(left.signer >= right.signer for left, right in itertools.pairwise(changes)):
        return "the view changes must be in ascending order of distinct validators"
    for change in changes:
        if change.height != height or change.view != view or not is_well_formed(change, validators.quorum):
            return "a view change is not for this height and exactly this view"
        if not validators.is_voter(change.signer):
            return "a view change is by no voting validator"
    provers = [change for change in changes if change.proof is not None]
    if all(change.prepared_view is None for change in changes):
        return None if header.view == view else "nobody prepared, so the block must be fresh"
    if len(provers) != 1:
        return "exactly one view change, the one with the highest prepared view, must carry its proof"
    return _why_not_highest(changes, provers[0], header)


def _why_not_highest(changes: tuple[ViewChange, ...], prover: ViewChange, header: Header) -> str | None:
    """Check that the proven block is the highest prepared one and the one proposed, byte for byte."""
    if not all(is_below(change, prover) for change in changes):
        return "a view change shows a higher prepared view than the one proven"
    if header.digest() != prover.digest:
        return "the block is not the highest prepared one"
    if prover.prepared_view is None or header.view > prover.prepared_view:
        return "a block cannot be younger than the view it was prepared in"
    return None


def why_header_refused(
    header: Header, view: int, *, parent: bytes, parent_time_ms: int, wall_ms: int, parameters: Parameters
) -> str | None:
    """Return why a justified proposal's header is refused here and now, None if it is not.

    `wall_ms` is this node's wall clock. The clock bound holds only for fresh proposals: a long stall must not make a prepared block
    unacceptable for good (protocol.md, "Agreement").
    """
    if header.parent != parent:
        return "the block does not follow the block decided below"
    if header.time_ms <= parent_time_ms:
        return "the block is not later than its parent"
    if header.view == view and abs(header.time_ms - wall_ms) > parameters.clock_bound_ms:
        return "the block's time is too far from this node's clock"
    return None
