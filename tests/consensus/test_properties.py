"""Properties of counting, choosing and waiting, each held against a plain model or against trying everything."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medchain.chain.certificate import Certificate
from medchain.chain.parameters import Parameters
from medchain.chain.validators import faults_tolerated, quorum
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.consensus.justification import why_unjustified
from medchain.consensus.messages import PrePrepare
from medchain.consensus.rotation import primary
from medchain.consensus.tally import VIEWS_KEPT, Tally
from medchain.consensus.timers import view_timeout_ms
from medchain.consensus.view_changes import Choice, ViewChanges
from tests.consensus.conftest import KEYS, NETWORK, make_proposal, validators_of

# ---- numbers ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(4, 129))
def test_quorum_is_the_smallest_whose_members_always_share_an_honest_one(n):
    """protocol.md, "Numbers": one less would let two quorums meet in liars alone."""
    f, q = faults_tolerated(n), quorum(n)
    assert 2 * q - n >= f + 1 > 2 * (q - 1) - n
    assert 3 * f + 1 <= n < 3 * f + 4
    assert f + 1 <= q <= n - f
    assert (q == 2 * f + 1) == (n == 3 * f + 1)


# ---- votes ------------------------------------------------------------------------------------------------------------------------

DIGESTS = [bytes([number]) * 32 for number in range(3)]
VOTES = st.lists(
    st.tuples(st.integers(0, 10), st.sampled_from([PREPARE, COMMIT]), st.integers(0, VIEWS_KEPT), st.sampled_from(DIGESTS)), max_size=80
)


@given(n=st.integers(4, 10), rows=VOTES)
def test_quorum_is_found_if_and_only_if_q_validators_said_the_same_first(n, rows):
    """A vote that comes again counts once, one that contradicts an earlier one is handed back and counts never, strangers never."""
    validators, first = validators_of(n), {}
    tally = Tally(validators)
    for i, kind, view, digest in rows:
        contradicted = tally.add(Vote(kind, 1, view, digest, KEYS[i].public, bytes(64)))
        earlier = first.get((kind, view, i)) if i < n else None
        assert (contradicted is not None) == (earlier is not None and earlier != digest)
        assert contradicted is None or contradicted.digest == earlier
        if i < n:
            first.setdefault((kind, view, i), digest)
    full = {}
    for kind, view in itertools.product((PREPARE, COMMIT), range(VIEWS_KEPT + 1)):
        said = {i: digest for (its, at, i), digest in first.items() if (its, at) == (kind, view)}
        for digest in DIGESTS:
            signers = sorted(i for i, found in said.items() if found == digest)
            assert tally.count(kind, view, digest) == len(signers)
            assert [index for index, _ in tally.signatures(kind, view, digest)] == signers[: quorum(n)]
            if len(signers) >= quorum(n):
                full[kind, view] = digest
        assert tally.digest_with_quorum(kind, view) == full.get((kind, view))
        assert tally.signers(kind, view) == tuple(KEYS[i].public for i in sorted(said))
    for kind in (PREPARE, COMMIT):
        views = [view for its, view in full if its == kind]
        assert tally.newest_quorum(kind) == ((max(views), full[kind, max(views)]) if views else None)


@given(n=st.integers(4, 7), order=st.permutations(list(range(7))), others=st.sets(st.integers(0, 6)), again=st.lists(st.integers(0, 6)))
@settings(max_examples=40)
def test_votes_in_any_order_give_a_certificate_that_anyone_can_check(n, order, others, again):
    """The signatures that the tally hands out are those of a quorum, whatever came before, between and twice."""
    validators, block = validators_of(n), make_proposal(validators_of(n))
    digest, tally = block.header.digest(), Tally(validators_of(n))
    for i in [*(i for i in order if i < n), *(i for i in again if i < n)]:
        tally.add(Vote.sign(NETWORK, KEYS[i], COMMIT, 1, 3, DIGESTS[1] if i in others else digest))
    found = tally.newest_quorum(COMMIT)
    assert (found is not None) == (max(len(others & set(range(n))), n - len(others & set(range(n)))) >= quorum(n))
    if found is not None:
        Certificate(1, *found, tally.signatures(COMMIT, *found)).check(NETWORK, validators)


@given(rows=VOTES, views=st.lists(st.integers(0, 3 * VIEWS_KEPT), max_size=4))
def test_forgetting_far_views_never_makes_a_quorum(rows, views):
    """Whatever is forgotten as views pass, q votes are reported only while q are held."""
    tally = Tally(validators_of(4))
    for i, kind, view, digest in rows:
        tally.add(Vote(kind, 1, view, digest, KEYS[i].public, bytes(64)))
    for centre in views:
        tally.centre_on(centre)
    for kind, view in itertools.product((PREPARE, COMMIT), range(VIEWS_KEPT + 1)):
        digest = tally.digest_with_quorum(kind, view)
        assert digest is None or tally.count(kind, view, digest) >= 3
        assert all(tally.count(kind, view, other) < 3 for other in DIGESTS if other != digest)


# ---- choosing view changes --------------------------------------------------------------------------------------------------------

VIEW = 4
CLAIM = st.one_of(st.none(), st.tuples(st.integers(0, VIEW - 1), st.integers(0, 1), st.booleans()))
"""Nothing prepared; or (prepared view, which block, whether the proof is attached)."""


def block_of(n: int, view: int, which: int):
    return make_proposal(validators_of(n), view=view, salt=bytes([which]))


def shown(n: int, i: int, view: int, claim) -> ViewChange:
    """The view change of validator i; signatures are not looked at here."""
    if claim is None:
        return ViewChange(1, view, None, None, KEYS[i].public, bytes(64))
    prepared, which, has_proof = claim
    digest = block_of(n, prepared, which).header.digest()
    proof = PreparedProof(1, prepared, digest, tuple((j, bytes(64)) for j in range(quorum(n))))
    return ViewChange(1, view, prepared, digest, KEYS[i].public, bytes(64), proof if has_proof else None)


def envelope(n: int, changes: tuple[ViewChange, ...], digest: bytes | None) -> PrePrepare:
    """The pre-prepare of view 4 around these view changes."""
    validators = validators_of(n)
    blocks = [block_of(n, view, which) for view in range(VIEW) for which in (0, 1)]
    known = {block.header.digest(): block for block in blocks}
    block = make_proposal(validators, view=VIEW) if digest is None else known[digest]
    prepare = Vote(PREPARE, 1, VIEW, block.header.digest(), primary(validators.voters, 1, VIEW), bytes(64))
    return PrePrepare(block, prepare, changes)


def is_justified(n: int, changes: tuple[ViewChange, ...], digest: bytes | None) -> bool:
    return why_unjustified(envelope(n, changes, digest), 1, validators_of(n), validators_of(n).voters) is None


def every_choice(n: int, changes: list[ViewChange]) -> set[bytes | None]:
    """By trying all sets of q and every prover in them: what a justified pre-prepare may propose."""
    found: set[bytes | None] = set()
    for chosen in itertools.combinations(sorted(changes, key=lambda change: change.signer), quorum(n)):
        bare = tuple(change.without_proof() for change in chosen)
        if is_justified(n, bare, None):
            found.add(None)
        for place, change in enumerate(chosen):
            if change.proof is not None and is_justified(n, (*bare[:place], change, *bare[place + 1 :]), change.digest):
                found.add(change.digest)
    return found


@given(n=st.integers(4, 7), claims=st.lists(st.tuples(CLAIM, st.sampled_from([VIEW, VIEW, VIEW, VIEW + 1])), min_size=7, max_size=7))
@settings(max_examples=150)
def test_choices_are_exactly_what_backups_accept(n, claims):
    """Safe: every choice passes the check that each backup makes. Complete: whatever any q view changes justify is offered."""
    store = ViewChanges(validators_of(n))
    for i, (claim, view) in enumerate(claims[:n]):
        store.add(shown(n, i, view, claim))
    choices = store.choices(VIEW)
    for choice in choices:
        assert isinstance(choice, Choice)
        assert is_justified(n, choice.view_changes, choice.digest)
        assert len(choice.view_changes) == quorum(n)
    assert {choice.digest for choice in choices} == every_choice(n, list(store.for_exactly(VIEW)))
    prepared = [max([change.prepared_view for change in choice.view_changes if change.proof], default=-1) for choice in choices]
    assert prepared == sorted(prepared, reverse=True), "the highest is tried first"


# ---- timers -----------------------------------------------------------------------------------------------------------------------


@given(base=st.integers(50, 600_000), factor=st.integers(1, 1_000), view=st.integers(0, 200))
def test_length_of_a_view_is_the_formula_of_the_protocol(base, factor, view):
    """protocol.md, "Timers": base * 1.5^v, rounded down, up to the cap; then one base more for each further view."""
    cap = base * factor
    first_at_cap = next(step for step in itertools.count() if int(base * Fraction(3, 2) ** step) >= cap)
    expected = int(base * Fraction(3, 2) ** view) if view < first_at_cap else cap + base * (view - first_at_cap)
    assert view_timeout_ms(Parameters(view_timeout_base_ms=base, view_timeout_cap_ms=cap), view) == expected


@given(base=st.integers(50, 10_000), factor=st.integers(1, 50), bound=st.integers(1, 10**9))
def test_some_view_lasts_longer_than_any_delay(base, factor, bound):
    """Liveness needs it (C&L 4.5.2): the lengths have no bound."""
    assert view_timeout_ms(Parameters(view_timeout_base_ms=base, view_timeout_cap_ms=base * factor), bound // base + 1) > bound
