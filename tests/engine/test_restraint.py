"""How much a proposer puts into a block: less after views that ended while this node was busy, and all of it again when it is not."""

from __future__ import annotations

import pytest

from medchain.chain.parameters import Parameters
from medchain.engine.restraint import Restraint

PARAMETERS = Parameters()
FULL = PARAMETERS.block_weight_max
LONG_MS = PARAMETERS.view_timeout_base_ms // 4 + 1


def decide(restraint: Restraint, view: int, turn_ms: int) -> int:
    restraint.saw_turn(turn_ms)
    restraint.saw_turn(1)
    restraint.saw_decision(view, PARAMETERS)
    return restraint.weight(0, PARAMETERS)


def test_a_block_may_hold_all_that_the_parameters_allow_until_a_view_is_lost() -> None:
    restraint = Restraint()
    assert [decide(restraint, 0, 5_000) for _ in range(3)] == [FULL] * 3


def test_each_further_view_of_a_height_proposes_half_as_much() -> None:
    restraint = Restraint()
    assert [restraint.weight(view, PARAMETERS) for view in (0, 1, 2, 3)] == [FULL, FULL // 2, FULL // 4, FULL // 8]
    assert restraint.weight(64, PARAMETERS) == 0


def test_views_lost_while_this_node_had_long_turns_halve_the_next_blocks_down_to_a_sixteenth() -> None:
    restraint = Restraint()
    assert decide(restraint, 1, LONG_MS) == FULL // 2
    assert decide(restraint, 2, LONG_MS) == FULL // 8
    assert decide(restraint, 100_000_000, LONG_MS) == FULL // 16
    assert decide(restraint, 1, LONG_MS) == FULL // 16


def test_views_lost_to_a_silent_primary_or_a_slow_line_cost_no_room() -> None:
    restraint = Restraint()
    assert decide(restraint, 3, LONG_MS - 1) == FULL


def test_a_long_turn_counts_for_the_height_in_which_it_was() -> None:
    restraint = Restraint()
    decide(restraint, 0, LONG_MS)
    assert decide(restraint, 1, 20) == FULL


@pytest.mark.parametrize(("turn_ms", "heights"), [(20, 6), (LONG_MS, 45)])
def test_room_comes_back_quickly_where_turns_are_short_and_slowly_where_they_are_long(turn_ms: int, heights: int) -> None:
    restraint = Restraint()
    decide(restraint, 1, LONG_MS)
    assert [decide(restraint, 0, turn_ms) == FULL for _ in range(heights)] == [False] * (heights - 1) + [True]


def test_a_parameter_lowered_by_vote_binds_at_once() -> None:
    restraint = Restraint()
    decide(restraint, 1, LONG_MS)
    assert restraint.weight(0, Parameters(block_weight_max=100)) == 100
