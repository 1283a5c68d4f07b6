"""Allowances, points and bans, with time as a parameter."""

from __future__ import annotations

import pytest

from medchain.network.limits import NetworkLimits
from medchain.network.standing import POINTS, Standings, TokenBucket

PEER, OTHER = b"\x01" * 32, b"\x02" * 32
LIMITS = NetworkLimits(ban_score=100, ban_first_ms=10_000, ban_max_ms=60_000)


def test_allowance_lets_a_burst_through_and_then_paces():
    bucket = TokenBucket(100, 50, 0.0)
    assert bucket.take(50, 0.0) == 0.0
    assert bucket.take(10, 0.0) == pytest.approx(0.1)
    assert bucket.take(10, 0.1) == pytest.approx(0.1)
    assert bucket.take(0, 0.2) == pytest.approx(0.0)


def test_allowance_refills_to_the_burst_and_no_further():
    bucket = TokenBucket(100, 50, 0.0)
    bucket.take(50, 0.0)
    assert bucket.take(51, 1_000.0) == pytest.approx(0.01)


def test_one_message_larger_than_the_burst_costs_a_pause_but_passes():
    assert TokenBucket(100, 50, 0.0).take(150, 0.0) == pytest.approx(1.0)


def test_clock_that_stands_still_or_goes_back_gives_nothing():
    bucket = TokenBucket(100, 50, 10.0)
    bucket.take(50, 10.0)
    assert bucket.take(1, 5.0) > 0


def test_points_lead_to_a_ban_that_ends():
    standings = Standings(LIMITS)
    assert not standings.accuse(PEER, 60, 0.0)
    assert standings.score(PEER, 0.0) == 60
    assert standings.accuse(PEER, 60, 1.0)
    assert standings.banned_for(PEER, 1.0) == 10.0
    assert standings.banned_for(PEER, 11.5) == 0.0
    assert standings.banned_for(OTHER, 1.0) == 0.0


def test_points_are_forgiven_with_time():
    standings = Standings(LIMITS)
    standings.accuse(PEER, 60, 0.0)
    assert not standings.accuse(PEER, 60, 50.0)
    assert standings.score(PEER, 50.0) == 70
    assert standings.score(PEER, 500.0) == 0


def test_each_further_ban_lasts_twice_as_long_up_to_the_bound():
    standings = Standings(LIMITS)
    lengths, now = [], 0.0
    for _ in range(5):
        assert standings.accuse(PEER, 100, now)
        lengths.append(standings.banned_for(PEER, now))
        now += lengths[-1] + 1
    assert lengths == [10.0, 20.0, 40.0, 60.0, 60.0]


def test_long_good_conduct_makes_the_next_ban_short_again():
    standings = Standings(LIMITS)
    standings.accuse(PEER, 100, 0.0)
    assert standings.accuse(PEER, 100, 2_000.0)
    assert standings.banned_for(PEER, 2_000.0) == 10.0


def test_accusation_during_a_ban_changes_nothing():
    standings = Standings(LIMITS)
    standings.accuse(PEER, 100, 0.0)
    assert not standings.accuse(PEER, 100, 5.0)
    assert standings.banned_for(PEER, 5.0) == 5.0


def test_unreadable_bytes_ban_at_once_and_what_the_engine_finds_at_the_second_time():
    assert POINTS["malformed"] >= 100 and POINTS["oversized"] >= 100
    assert 50 < POINTS["engine"] < 100
