"""The node's clocks: a drill shifts the wall clock alone, and a wrong wall clock is found out from what honest hospitals propose."""

from __future__ import annotations

import time

from medchain.node.clock import Clock, ClockWatch

OWN, B, C, D = (bytes([number]) * 32 for number in range(4))
LIMIT_MS = 2_500


def watch() -> ClockWatch:
    return ClockWatch(OWN, 1, LIMIT_MS)


def test_shift_moves_the_wall_clock_and_never_the_timers():
    before = (time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000)
    tick = Clock(3_600_000).tick()
    after = (time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000)
    assert before[0] <= tick.monotonic_ms <= after[0]
    assert before[1] + 3_600_000 <= tick.wall_ms <= after[1] + 3_600_000


def test_clock_that_agrees_with_the_others_is_not_off():
    clocks = watch()
    for height, (key, late_ms) in enumerate([(B, 3), (C, 40), (D, 900)], 1):
        clocks.observe(key, height, 1_000_000, 1_000_000 + late_ms)
    assert clocks.offset_ms() == 0


def test_clock_that_more_hospitals_than_may_be_faulty_see_wrong_is_off_on_their_side():
    for offset_ms in (-3_600_000, -LIMIT_MS - 1, LIMIT_MS + 1, 3_600_000):
        clocks = watch()
        clocks.observe(B, 1, 1_000_000, 1_000_000 + offset_ms)
        assert clocks.offset_ms() == 0, "one hospital may be the wrong one"
        clocks.observe(C, 2, 2_000_000, 2_000_000 + offset_ms)
        assert clocks.offset_ms() == offset_ms


def test_two_hospitals_wrong_on_either_side_do_not_convict_this_clock():
    clocks = watch()
    clocks.observe(B, 1, 1_000_000, 1_000_000 - 10_000)
    clocks.observe(C, 2, 1_000_000, 1_000_000 + 10_000)
    assert clocks.offset_ms() == 0


def test_own_proposals_and_repeated_ones_say_nothing():
    clocks = watch()
    clocks.observe(OWN, 1, 0, 10_000_000)
    clocks.observe(B, 2, 1_000_000, 1_000_005)
    clocks.observe(B, 2, 1_000_000, 1_030_000)  # the same proposal, sent again half a minute later
    clocks.observe(C, 3, 1_000_000, 1_030_000)
    assert clocks.offset_ms() == 0


def test_clock_that_was_set_right_is_right_again_with_the_next_proposals():
    clocks = watch()
    for height, key in enumerate((B, C, D), 1):
        clocks.observe(key, height, 1_000_000, 4_600_000)
    assert clocks.offset_ms() == 3_600_000
    for height, key in enumerate((B, C), 4):
        clocks.observe(key, height, 1_000_000, 1_000_010)
    assert clocks.offset_ms() == 0
