"""Counting votes, without any rule."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from medchain.chain.vote import COMMIT, PREPARE, Vote
from medchain.consensus.tally import VIEWS_KEPT, Tally
from tests.consensus.conftest import KEYS, validators_of

A, B = b"a" * 32, b"b" * 32


def cast(i: int, digest: bytes = A, view: int = 0, kind: int = PREPARE) -> Vote:
    return Vote(kind, 1, view, digest, KEYS[i].public, bytes([i]) * 64)


def test_vote_that_comes_twice_counts_once():
    tally = Tally(validators_of(4))
    assert tally.add(cast(0)) is None
    assert tally.add(cast(0)) is None
    assert tally.count(PREPARE, 0, A) == 1


def test_second_vote_with_other_content_is_handed_back_and_does_not_count():
    tally = Tally(validators_of(4))
    tally.add(cast(0, A))
    assert tally.add(cast(0, B)) == cast(0, A)
    assert tally.count(PREPARE, 0, B) == 0
    assert tally.count(PREPARE, 0, A) == 1


def test_kinds_views_and_digests_are_counted_apart():
    tally = Tally(validators_of(4))
    for vote in (cast(0), cast(1, B), cast(2, view=1), cast(3, kind=COMMIT)):
        tally.add(vote)
    assert tally.count(PREPARE, 0, A) == tally.count(PREPARE, 0, B) == tally.count(PREPARE, 1, A) == tally.count(COMMIT, 0, A) == 1


def test_votes_of_strangers_and_suspended_validators_do_not_count():
    tally = Tally(validators_of(5, suspended=(2,)))
    for vote in (cast(2), cast(7)):
        assert tally.add(vote) is None
    assert tally.count(PREPARE, 0, A) == 0
    assert tally.votes_of(KEYS[7].public) == ()


def test_quorum_is_found_when_q_agree_and_not_before():
    tally = Tally(validators_of(6))
    for i in (5, 1, 3):
        tally.add(cast(i))
    tally.add(cast(0, B))
    assert tally.digest_with_quorum(PREPARE, 0) is None
    tally.add(cast(4))
    assert tally.digest_with_quorum(PREPARE, 0) == A
    assert tally.newest_quorum(PREPARE) == (0, A)
    assert tally.newest_quorum(COMMIT) is None


def test_signatures_are_the_quorum_with_the_lowest_indexes_in_order():
    tally = Tally(validators_of(4))
    for i in (3, 2, 0, 1):
        tally.add(cast(i))
    assert [index for index, _ in tally.signatures(PREPARE, 0, A)] == [0, 1, 2]


def test_newest_vote_is_kept_wherever_it_is_and_older_far_ones_are_forgotten():
    tally = Tally(validators_of(4))
    for view in (0, 5, 100, 50, 10**6, 10**5):
        tally.add(cast(0, view=view))
    assert [vote.view for vote in tally.votes_of(KEYS[0].public)] == [0, 5, 10**6]
    tally.centre_on(100)
    assert [vote.view for vote in tally.votes_of(KEYS[0].public)] == [10**6]


def test_quorum_of_a_forgotten_view_is_forgotten_with_its_votes():
    tally = Tally(validators_of(4))
    for i in range(3):
        tally.add(cast(i, kind=COMMIT))
        tally.add(cast(i, kind=COMMIT, view=40))
    tally.centre_on(40)
    assert tally.newest_quorum(COMMIT) == (40, A)
    assert tally.digest_with_quorum(COMMIT, 0) is None


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([A, B]), st.integers(0, 60), st.sampled_from([PREPARE, COMMIT]))))
def test_memory_stays_bounded_and_counts_stay_true_for_any_votes(rows):
    tally = Tally(validators_of(4))
    for position, (i, digest, view, kind) in enumerate(rows):
        tally.add(cast(i, digest, view, kind))
        if position % 7 == 0:
            tally.centre_on(view)
    for kind in (PREPARE, COMMIT):
        held = [vote for i in range(4) for vote in tally.votes_of(KEYS[i].public, kind)]
        assert all(len(tally.votes_of(KEYS[i].public, kind)) <= 2 * VIEWS_KEPT + 2 for i in range(4))
        for view in range(61):
            for digest in (A, B):
                matching = [vote for vote in held if (vote.view, vote.digest) == (view, digest)]
                assert tally.count(kind, view, digest) == len(matching)
                assert (tally.digest_with_quorum(kind, view) == digest) == (len(matching) >= 3)
