"""What a pre-prepare must carry and say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medchain.chain.parameters import Parameters
from medchain.chain.vote import COMMIT, PREPARE
from medchain.consensus.justification import why_header_refused, why_unjustified
from medchain.consensus.messages import PrePrepare
from tests.consensus.conftest import GENESIS_DIGEST, GENESIS_TIME_MS, KEYS, make_proposal, proof_of, validators_of, view_change, vote

V4 = validators_of(4)
BLOCK = make_proposal(V4)
PROOF = proof_of(BLOCK, 0, (0, 1, 2))
FRESH_2 = make_proposal(V4, view=2, salt=b"fresh")


def again(view=2, proposal=BLOCK, changes=None, leader=None):
    """A pre-prepare for a view above 0: by default the rightful re-proposal of the block prepared in view 0."""
    changes = (view_change(0, view, PROOF), view_change(1, view), view_change(3, view)) if changes is None else changes
    leader = (1 + view) % 4 if leader is None else leader
    return PrePrepare(proposal, vote(leader, PREPARE, proposal, view), tuple(changes))


def why(message):
    return why_unjustified(message, 1, V4, V4.voters)


def test_fresh_block_of_view_zero_needs_nothing():
    assert why(PrePrepare(BLOCK, vote(1, PREPARE, BLOCK))) is None


def test_highest_prepared_block_with_q_view_changes_is_justified():
    assert why(again()) is None


def test_fresh_block_is_justified_when_nobody_prepared():
    assert why(again(proposal=FRESH_2, changes=[view_change(i, 2) for i in (0, 2, 3)])) is None


OLD = make_proposal(V4, view=1, salt=b"old")
STRIPPED = replace(view_change(0, 2, PROOF), proof=None)
FOREIGN = make_proposal(V4, proposer=KEYS[3].public)
WITH_STRANGER = sorted((view_change(0, 2, PROOF), view_change(1, 2), view_change(8, 2)), key=lambda change: change.signer)
HIGHER = view_change(2, 2, proof_of(OLD, 1, (0, 1, 2)))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (PrePrepare(BLOCK, vote(0, PREPARE, BLOCK)), "not by the primary"),
        (PrePrepare(BLOCK, vote(1, COMMIT, BLOCK)), "carries no prepare"),
        (PrePrepare(BLOCK, vote(1, PREPARE, OLD)), "another block"),
        (PrePrepare(FOREIGN, vote(1, PREPARE, FOREIGN)), "names a proposer"),
        (PrePrepare(BLOCK, vote(1, PREPARE, BLOCK), (view_change(0, 1),)), "view 0"),
        (PrePrepare(make_proposal(V4, height=2), vote(2, PREPARE, make_proposal(V4, height=2))), "another height"),
        (again(changes=[]), "exactly 3"),
        (again(changes=[view_change(0, 2, PROOF), view_change(1, 2)]), "exactly 3"),
        (again(changes=[view_change(i, 2) for i in range(4)], proposal=FRESH_2), "exactly 3"),
        (again(changes=[view_change(0, 2, PROOF), view_change(0, 2), view_change(1, 2)]), "distinct"),
        (again(changes=[view_change(1, 2), view_change(0, 2, PROOF), view_change(3, 2)]), "ascending"),
        (again(changes=[view_change(0, 2, PROOF), view_change(1, 3), view_change(3, 2)]), "exactly this view"),
        (again(changes=[view_change(0, 2, PROOF), view_change(1, 1), view_change(3, 2)]), "exactly this view"),
        (again(changes=[view_change(0, 2, PROOF), view_change(1, 2, height=2), view_change(3, 2)]), "exactly this view"),
        (again(changes=WITH_STRANGER), "no voting validator"),
        (again(changes=[view_change(i, 2) for i in (0, 1, 3)]), "must be fresh"),
        (again(changes=[STRIPPED, view_change(1, 2), view_change(3, 2)]), "carry its proof"),
        (again(changes=[view_change(0, 2, PROOF), view_change(1, 2, PROOF), view_change(3, 2)]), "exactly one"),
        (again(changes=[view_change(0, 2, PROOF), view_change(1, 2), HIGHER.without_proof()]), "higher prepared view"),
        (again(changes=[view_change(0, 2), view_change(1, 2), HIGHER]), "not the highest"),
        (again(proposal=FRESH_2), "not the highest"),
    ],
)
def test_unjustified_pre_prepare_is_refused_with_its_reason(message, reason):
    assert reason in why(message)


def test_block_younger_than_the_view_it_was_prepared_in_is_refused():
    young = make_proposal(V4, view=2, salt=b"young")
    changes = [view_change(0, 3, proof_of(young, 1, (0, 1, 2))), view_change(1, 3), view_change(3, 3)]
    assert "younger" in why(again(view=3, proposal=young, changes=changes))


def refused(header, view=0, wall_ms=GENESIS_TIME_MS + 1_000, parameters=None):
    return why_header_refused(
        header, view, parent=GENESIS_DIGEST, parent_time_ms=GENESIS_TIME_MS, wall_ms=wall_ms, parameters=parameters or Parameters()
    )


@pytest.mark.parametrize(("offset_ms", "is_refused"), [(-5_001, True), (-5_000, False), (5_000, False), (5_001, True)])
def test_fresh_block_must_be_within_the_clock_bound(offset_ms, is_refused):
    assert (refused(BLOCK.header, wall_ms=BLOCK.header.time_ms + offset_ms) is not None) == is_refused


def test_reproposal_is_exempt_from_the_clock_bound():
    assert refused(BLOCK.header, view=1, wall_ms=BLOCK.header.time_ms + 10**9) is None


def test_block_must_be_later_than_its_parent_and_follow_it():
    assert "later" in refused(make_proposal(V4, time_ms=GENESIS_TIME_MS).header)
    assert "follow" in refused(make_proposal(V4, parent=bytes(32)).header)
