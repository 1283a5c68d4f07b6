"""Who leads."""

from __future__ import annotations

import pytest

from medchain.consensus.rotation import primary
from tests.consensus.conftest import KEYS, validators_of


@pytest.mark.parametrize("n", range(4, 14))
def test_every_validator_leads_once_in_n_views_of_a_height(n):
    validators = validators_of(n)
    for height in (1, 2, 10**9):
        assert sorted(primary(validators.voters, height, view) for view in range(n)) == list(validators.keys)


def test_next_height_is_led_by_the_next_validator_in_key_order():
    validators = validators_of(4)
    assert [primary(validators.voters, height, 0) for height in range(1, 6)] == [KEYS[i].public for i in (1, 2, 3, 0, 1)]


def test_suspended_validator_never_leads():
    validators = validators_of(5, suspended=(2,))
    assert KEYS[2].public not in validators.voters
    assert {primary(validators.voters, 7, view) for view in range(50)} == set(validators.voters)


def test_set_in_which_nobody_may_vote_has_no_primary():
    assert primary(validators_of(4, suspended=(0, 1, 2, 3)).voters, 1, 0) == b""
