"""How long a view lasts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from medchain.chain.parameters import Parameters
from medchain.consensus.timers import Timer, view_timeout_ms


def test_lengths_grow_by_half_up_to_the_cap_and_by_one_base_beyond_it():
    lengths = [view_timeout_ms(Parameters(), view) for view in range(10)]
    assert lengths == [1_000, 1_500, 2_250, 3_375, 5_062, 7_593, 10_000, 11_000, 12_000, 13_000]


def test_base_at_the_cap_grows_by_one_base_a_view():
    parameters = Parameters(view_timeout_base_ms=500, view_timeout_cap_ms=500)
    assert [view_timeout_ms(parameters, view) for view in range(4)] == [500, 1_000, 1_500, 2_000]


@given(base=st.integers(50, 600_000), factor=st.integers(1, 100), view=st.integers(0, 60))
def test_later_views_last_longer_without_end(base, factor, view):
    parameters = Parameters(view_timeout_base_ms=base, view_timeout_cap_ms=base * factor)
    present, following = view_timeout_ms(parameters, view), view_timeout_ms(parameters, view + 1)
    assert type(present) is int
    assert base <= present < following or following == parameters.view_timeout_cap_ms == present
    assert following - present <= max(base, present // 2 + 1)


def test_length_of_a_huge_view_is_found_at_once():
    assert view_timeout_ms(Parameters(), 2**32) > 2**40


def test_timer_expires_at_its_deadline_and_not_before():
    timer = Timer()
    assert not timer.is_expired(10**9)
    timer.start(100, 50)
    assert timer.is_running
    assert not timer.is_expired(149)
    assert timer.is_expired(150)
    timer.stop()
    assert not timer.is_running
    assert not timer.is_expired(10**9)
