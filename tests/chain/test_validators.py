"""Validator sets and the numbers n, f, q."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from medchain import codec
from medchain.chain import limits
from medchain.chain.validators import Validator, ValidatorSet, faults_tolerated, quorum
from medchain.errors import Malformed
from tests.chain.conftest import KEYS, digest, signing_key, validators_of

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "validators.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["quorums"], ids=lambda vector: f"n-{vector['n']}")
def test_frozen_quorums_do_not_change(vector: dict[str, int]) -> None:
    validators = validators_of(vector["n"])
    assert faults_tolerated(vector["n"]) == validators.faults_tolerated == vector["f"]
    assert quorum(vector["n"]) == validators.quorum == vector["q"]


def test_quorums_are_frozen_for_every_number_of_validators_from_4_to_13() -> None:
    assert [vector["n"] for vector in VECTORS["quorums"]] == list(range(4, 14))


@pytest.mark.parametrize("n", range(4, 10))
def test_any_two_quorums_share_an_honest_validator_by_trying_them_all(n: int) -> None:
    """With f liars anywhere, more than f shared members leave an honest one (protocol.md, "Numbers")."""
    f, q = faults_tolerated(n), quorum(n)
    masks = [sum(1 << member for member in members) for members in itertools.combinations(range(n), q)]
    first = masks[0]  # the members are alike: it is enough to hold one quorum and try every other
    assert all((first & other).bit_count() > f for other in masks)
    assert n <= 7 or len(masks) < 300
    for one, other in itertools.product(masks, repeat=2):
        assert (one & other).bit_count() > f


@pytest.mark.parametrize("n", range(4, limits.VALIDATORS_MAX + 1))
def test_quorums_intersect_honestly_are_reached_by_the_honest_and_are_the_smallest_such(n: int) -> None:
    f, q = faults_tolerated(n), quorum(n)
    assert n >= 3 * f + 1 and n < 3 * (f + 1) + 1
    assert 2 * q - n >= f + 1, "two quorums share at least one honest validator"
    assert n - f >= q, "the honest alone reach a quorum"
    assert 2 * (q - 1) - n < f + 1, "with one less they need not"


@pytest.mark.parametrize("n", [5, 6, 8, 9])
def test_twice_the_faults_and_one_would_be_no_quorum_where_n_is_not_three_f_and_one(n: int) -> None:
    """lessons.md: "2f+1 as quorum at n = 5, 6, 8, 9: two certificates without a common honest validator"."""
    naive, f = 2 * faults_tolerated(n) + 1, faults_tolerated(n)
    assert 2 * naive - n <= f
    assert quorum(n) > naive


@pytest.mark.parametrize("vector", VECTORS["sets"], ids=lambda vector: f"{len(vector['validators'])}-at-{vector['changed_at']}")
def test_frozen_sets_and_digests_do_not_change(vector: dict[str, Any]) -> None:
    members = tuple(
        Validator(bytes.fromhex(member["consensus_key"]), bytes.fromhex(member["officer_key"]), member["may_vote"])
        for member in vector["validators"]
    )
    validators = ValidatorSet(vector["changed_at"], members)
    assert validators.encode().hex() == vector["encoded"]
    assert validators.digest().hex() == vector["digest"]
    assert ValidatorSet.decode(bytes.fromhex(vector["encoded"])) == validators


def test_the_digest_covers_height_keys_officers_and_votes() -> None:
    plain = validators_of(4)
    other_officer = ValidatorSet(0, (Validator(KEYS[0].public, signing_key("new officer").public), *plain.validators[1:]))
    sets = (plain, validators_of(5), validators_of(4, (1,)), validators_of(4, (2,)), validators_of(4, (), 1), other_officer)
    assert len({validators.digest() for validators in sets}) == len(sets)


def test_places_are_those_in_the_order_of_the_keys() -> None:
    validators = validators_of(5, suspended=(2,))
    assert validators.keys == tuple(sorted(validators.keys))
    assert [validators.index_of(key.public) for key in KEYS[:6]] == [0, 1, 2, 3, 4, None]
    assert [validators.is_voter(key.public) for key in KEYS[:6]] == [True, True, False, True, True, False]


def test_suspension_leaves_n_and_q_as_they_are() -> None:
    assert validators_of(7, suspended=(0, 1)).quorum == validators_of(7).quorum == 5


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 1, 1, 2), (0, 0, 0, 0), ()])
def test_sets_out_of_order_with_a_validator_twice_or_empty_are_refused(order: tuple[int, ...]) -> None:
    rows = [[KEYS[index].public, digest("officer"), True] for index in order]
    with pytest.raises(Malformed):
        ValidatorSet.decode(codec.encode([0, rows]))
    with pytest.raises(Malformed):
        ValidatorSet(0, tuple(Validator(*row) for row in rows))


def test_one_validator_more_than_the_most_is_refused() -> None:
    rows = [[number.to_bytes(32, "big"), digest("officer"), True] for number in range(limits.VALIDATORS_MAX + 1)]
    assert len(ValidatorSet.decode(codec.encode([0, rows[:-1]]))) == limits.VALIDATORS_MAX
    with pytest.raises(Malformed):
        ValidatorSet.decode(codec.encode([0, rows]))


@pytest.mark.parametrize(
    "row",
    [
        [KEYS[0].public, digest("officer"), 1],
        [KEYS[0].public, digest("officer"), None],
        [KEYS[0].public[:31], digest("officer"), True],
        [KEYS[0].public, digest("officer") + b"\0", True],
        [KEYS[0].public, digest("officer")],
        [KEYS[0].public, digest("officer"), True, True],
    ],
)
def test_validators_of_another_form_are_refused(row: list[Any]) -> None:
    with pytest.raises(Malformed):
        ValidatorSet.decode(codec.encode([0, [row]]))


@pytest.mark.parametrize("height", [-1, limits.HEIGHT_MAX + 1, True, None])
def test_a_height_of_change_out_of_bounds_is_refused(height: Any) -> None:
    with pytest.raises(Malformed):
        ValidatorSet.decode(codec.encode([height, [[KEYS[0].public, digest("officer"), True]]]))
