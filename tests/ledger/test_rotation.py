"""Who takes turns: each rule of the rotation, and random chains held against a judge that knows the blocks alone.

protocol.md, "Primary"; lessons.md, second table: "Late commits under no digest give different primaries", "A primary that signs but never
proposes slows the chain for ever; an old penalty frees a silent liar".
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medchain.chain.block import LastCommit
from medchain.chain.certificate import Certificate
from medchain.chain.domain import Domain
from medchain.chain.evidence import Contradiction
from medchain.chain.genesis import Genesis, Hospital
from medchain.chain.parameters import Parameters
from medchain.chain.validators import ValidatorSet, faults_tolerated, quorum
from medchain.chain.vote import COMMIT, Vote
from medchain.consensus.rotation import primary
from medchain.crypto.sealing import SUITE_X25519
from medchain.errors import InvariantBroken
from medchain.ledger import rows
from medchain.ledger.apply import BlockContext, Carried, apply_block, genesis_changes, rotation_of, signed_heights
from medchain.ledger.rotation import DECAY_TURNS, RotationRow, Standing, order, punished, standings_of
from medchain.sim.checkers.rotation import TurnTaking
from tests.ledger.conftest import START_MS, State, fixed, key

SIZES = range(4, 14)


def founded(n: int, **settings_: int) -> Genesis:
    hospitals = [
        Hospital(
            name=f"Hospital {number}",
            role="validator",
            consensus_key=key(f"{number} consensus").public,
            officer_key=key(f"{number} officer").public,
            organisation_key=key(f"{number} organisation").public,
            opening_suite=SUITE_X25519,
            opening_key=fixed(f"{number} opening"),
            certificate=b"certificate of %d" % number,
            endpoints=(f"h{number}.example:7000",),
        )
        for number in range(n)
    ]
    hospitals.sort(key=lambda hospital: hospital.consensus_key)
    return Genesis("test", START_MS, Parameters(state_buckets=64, **settings_), tuple(hospitals))


class Chain:
    """Blocks without transactions on a real state; who signs, in which view and who comes late is the test's choice."""

    def __init__(self, n: int, **settings_: int) -> None:
        self.genesis = founded(n, **settings_)
        self.network: Domain = self.genesis.domain()
        self.validators = self.genesis.validators()
        self.keys = self.validators.keys
        self.q, self.window = quorum(n), self.genesis.parameters.rotation_window(n)
        self.state = State(genesis_changes(self.genesis))
        self.height = 0
        self.proposer = b""
        self.certificate: Certificate | None = None
        self.judge = TurnTaking(self.keys, self.q, self.window)
        self.judged_turns: list[bytes] = []

    def rotation(self) -> list[int]:
        """R of the next height, as places in the set."""
        return [self.keys.index(found) for found in rotation_of(self.state, self.height + 1)]

    def standing(self, place: int) -> Standing:
        return standings_of(self.state)[place]

    def block(self, view: int = 0, signers: tuple[int, ...] | None = None, *, header_view: int | None = None, late=(), evidence=()) -> None:
        """Decide the next block in `view`, first proposed in `header_view`; its certificate is carried by the block after it."""
        height = self.height + 1
        turns = rotation_of(self.state, height)
        proposer = primary(turns, height, view if header_view is None else header_view)
        carried = Carried(LastCommit(self.certificate, tuple(late)), tuple(evidence), self.proposer)
        block = SimpleNamespace(last_commit=carried.last_commit, evidence=carried.evidence)
        due = self.judge.turns(height)
        assert due == list(turns)
        self.judge.tell(block, self.proposer, self.judged_turns)
        self.judged_turns = due
        context = BlockContext(height, START_MS + height, self.network, self.genesis.parameters)
        for name, value in apply_block(self.state, context, [], carried).changes.items():
            self.state.rows[name] = value
        commits = tuple((place, bytes(64)) for place in sorted(signers or range(self.q)))
        self.height, self.proposer, self.certificate = height, proposer, Certificate(height, view, bytes(32), commits)

    def vote(self, place: int, height: int) -> Vote:
        return Vote(COMMIT, height, 0, bytes(32), self.keys[place], bytes(64))

    def first_live_view(self, dead: tuple[int, ...]) -> int:
        turns = self.rotation()
        return next(view for view in range(len(turns)) if turns[(self.height + 1 + view) % len(turns)] not in dead)

    def live_block(self, dead: tuple[int, ...]) -> int:
        """Decide a block without the dead; return its view."""
        view = self.first_live_view(dead)
        self.block(view, tuple([place for place in range(len(self.keys)) if place not in dead][: self.q]))
        return view


# ---- who is left out --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
def test_everybody_takes_turns_at_first_in_key_order(n):
    assert Chain(n).rotation() == list(range(n))


@pytest.mark.parametrize("n", SIZES)
def test_validator_that_signed_nothing_for_k_heights_is_left_out_and_not_a_height_sooner(n):
    """Block h is led by those known from the certificates up to h - 2: silent in the K heights h - 1 - K to h - 2."""
    chain, silent = Chain(n), n - 1
    for _ in range(chain.window + 1):
        assert silent in chain.rotation()
        chain.block()
    assert chain.height + 1 == chain.window + 2
    assert silent not in chain.rotation()


@pytest.mark.parametrize("n", SIZES)
def test_however_many_are_silent_only_the_spare_ones_are_left_out_the_longest_silent_first(n):
    chain = Chain(n)
    standings = tuple(Standing(key, 100 + (place * 7) % n) for place, key in enumerate(chain.keys))
    found = order(standings, chain.validators, 1_000, chain.window)
    out = [place for place in range(n) if place not in found]
    oldest = sorted(range(n), key=lambda place: standings[place].newest_signed)
    assert sorted(oldest[: n - chain.q]) == out and len(found) == chain.q


@pytest.mark.parametrize("n", [4, 7, 10, 13])
def test_dead_validators_cost_a_view_change_for_no_more_than_k_and_one_heights(n):
    f = faults_tolerated(n)
    for first in range(n):
        chain, dead = Chain(n), tuple((first + number) % n for number in range(f))
        for _ in range(chain.window + 1):
            chain.live_block(dead)
        assert not set(chain.rotation()) & set(dead)
        assert [chain.live_block(dead) for _ in range(3 * n)] == [0] * 3 * n


def test_one_that_comes_back_takes_turns_again_when_its_bar_has_passed():
    chain, dead = Chain(4), (2,)
    for _ in range(3 * chain.window):
        chain.live_block(dead)
    barred_until = chain.standing(2).barred_until
    assert 2 not in chain.rotation()
    for _ in range(2 * chain.window):
        chain.block(0, (1, 2, 3))
        if 2 in chain.rotation():
            break
    assert 2 in chain.rotation() and chain.height + 1 > barred_until


def test_signed_is_whatever_certificate_or_late_commit_a_block_carried():
    chain = Chain(4)
    chain.block(0, (0, 1, 2))
    assert [standing.newest_signed for standing in standings_of(chain.state)] == [0, 0, 0, 0]
    chain.block(0, (0, 1, 3))
    assert [standing.newest_signed for standing in standings_of(chain.state)] == [1, 1, 1, 0]
    chain.block(0, (0, 1, 3))
    assert [standing.newest_signed for standing in standings_of(chain.state)] == [2, 2, 1, 2]
    assert signed_heights(chain.state, chain.certificate) == dict(zip(chain.keys, (3, 3, 1, 3), strict=True))
    chain.block(0, (0, 1, 3), late=(chain.vote(2, 3),))
    assert [standing.newest_signed for standing in standings_of(chain.state)] == [3, 3, 3, 3]


def test_late_commit_for_the_oldest_height_that_may_be_carried_saves_its_signer():
    saved, lost = Chain(4), Chain(4)
    for _ in range(saved.window):
        saved.block(0, (0, 1, 2))
        lost.block(0, (0, 1, 2))
    saved.block(0, (0, 1, 2), late=(saved.vote(3, 1),))
    lost.block(0, (0, 1, 2))
    assert saved.height + 1 == saved.window + 2
    assert 3 in saved.rotation() and 3 not in lost.rotation()


def test_the_window_is_a_parameter():
    chain = Chain(4, rotation_window_blocks=3)
    for _ in range(4):
        assert len(chain.rotation()) == 4
        chain.block(0, (0, 1, 2))
    assert chain.rotation() == [0, 1, 2]


def test_suspended_validator_takes_no_turn_and_frees_no_place_of_a_silent_one_below_q():
    chain = Chain(7)
    suspended = ValidatorSet(0, tuple(replace(item, may_vote=place != 1) for place, item in enumerate(chain.validators.validators)))
    standings = tuple(Standing(key, 0) for key in chain.keys)
    found = order(standings, suspended, 1_000, chain.window)
    assert 1 not in found and len(found) == chain.q
    few = ValidatorSet(0, tuple(replace(item, may_vote=place < 3) for place, item in enumerate(chain.validators.validators)))
    assert order(standings, few, 1_000, chain.window) == (0, 1, 2)


# ---- penalties --------------------------------------------------------------------------------------------------------------


def test_each_primary_of_a_view_that_passed_is_punished_once_and_the_proposer_of_the_block_is_not():
    chain = Chain(7)
    chain.block(3, header_view=1)
    passed = {chain.keys.index(primary(chain.keys, 1, view)) for view in (0, 2)}
    chain.block()
    for place in range(7):
        standing = chain.standing(place)
        assert (standing.skips, standing.last_skip) == ((1, 1) if place in passed else (0, 0))
        assert standing.barred_until == (2 + chain.window if place in passed else 0)


def test_a_huge_view_punishes_everybody_once_and_at_once():
    chain = Chain(4)
    chain.block(2**32)
    chain.block()
    assert [standing.skips for standing in standings_of(chain.state)].count(1) == 3
    assert len(chain.rotation()) == chain.q


def test_barred_lasts_k_heights_from_the_first_that_can_know_of_it():
    """The block that carries the certificate is by the old rotation, as everybody computed it before that block was there."""
    chain = Chain(7)
    lazy = chain.keys.index(primary(chain.keys, 1, 0))
    chain.block(1)
    assert lazy in chain.rotation()
    chain.block()
    for _ in range(chain.window):
        assert lazy not in chain.rotation()
        chain.block(0, tuple(range(7))[-chain.q :] if chain.height % 2 else tuple(range(chain.q)))
    assert lazy in chain.rotation()


@pytest.mark.parametrize("n", [4, 7, 10])
def test_primary_that_signs_but_never_proposes_is_barred_ever_longer(n):
    chain, lazy = Chain(n), 1
    others = [place for place in range(n) if place != lazy]
    wasted = []
    for number in range(40 * chain.window):
        turns = chain.rotation()
        view = 1 if turns[(chain.height + 1) % len(turns)] == lazy else 0
        wasted += [chain.height + 1] if view else []
        signers = [others[(number + step) % len(others)] for step in range(chain.q - 1)]
        chain.block(view, tuple(sorted([lazy, *signers])))
    gaps = [after - before for before, after in pairwise(wasted)]
    assert 3 <= len(wasted) <= 7 and gaps == sorted(gaps) and gaps[-1] > 2 * gaps[0]


@pytest.mark.parametrize("n", [4, 10])
def test_bars_double_eight_times_and_no_more_and_old_skips_are_forgotten(n):
    chain = Chain(n)
    standings = tuple(Standing(key, 0) for key in chain.keys)
    place, lengths = 2, []
    for number in range(12):
        height = 10 + number
        view = (place - height) % n
        standings = punished(standings, tuple(range(n)), height, view + 1, chain.keys[(place + 1) % n], chain.window)
        lengths.append(standings[place].barred_until - height - 1)
    assert lengths == [chain.window * 2 ** min(number, 8) for number in range(12)]
    last, skips = standings[place].last_skip, standings[place].skips
    later = last + 3 * DECAY_TURNS * n
    later += (place - later) % n
    (found,) = [punished(standings, tuple(range(n)), later, 1, b"", chain.window)[place]]
    assert found.skips == skips - (later - last) // (DECAY_TURNS * n) + 1 and found.last_skip == later
    much_later = later + 100 * DECAY_TURNS * n
    assert punished(standings, tuple(range(n)), much_later, 1, b"", chain.window)[place].skips == 1


def test_old_penalty_frees_no_silent_liar():
    """Silence comes before bars: whoever is silent is out, and a barred one takes its turn if there are too many."""
    chain = Chain(4)
    standings = [Standing(key, 99) for key in chain.keys]
    standings[0] = replace(standings[0], barred_until=10_000)
    assert order(standings, chain.validators, 100, chain.window) == (1, 2, 3)
    standings[3] = replace(standings[3], newest_signed=1)
    assert order(standings, chain.validators, 100, chain.window) == (0, 1, 2)


def test_of_the_barred_the_one_barred_longest_goes_first_and_ties_go_by_key():
    chain = Chain(4)
    for ends, out in (((500, 700, 700, 0), 1), ((700, 500, 700, 0), 0), ((99, 99, 100, 99), 2)):
        standings = [Standing(key, 99, barred_until=end) for key, end in zip(chain.keys, ends, strict=True)]
        assert [place for place in range(4) if place not in order(standings, chain.validators, 100, chain.window)] == [out]


# ---- the row ----------------------------------------------------------------------------------------------------------------


def test_change_of_the_set_forgets_who_left_and_counts_a_joiner_as_having_signed():
    chain = Chain(4)
    for _ in range(20):
        chain.block(0, (0, 1, 2))
    members = founded(5).validators().validators
    joined = next(item for item in members if item.consensus_key not in chain.keys)
    kept = chain.validators.validators[1:]
    changed = ValidatorSet(20, tuple(sorted((*kept, joined), key=lambda item: item.consensus_key)))
    chain.state.rows[rows.VALIDATORS] = changed.encode()
    rotation = rotation_of(chain.state, 21)
    assert joined.consensus_key in rotation and chain.keys[0] not in rotation and chain.keys[3] not in rotation
    carried = Carried(LastCommit(chain.certificate), (), chain.proposer)
    applied = apply_block(chain.state, BlockContext(21, START_MS + 21, chain.network, chain.genesis.parameters), [], carried)
    row = RotationRow.decode(applied.changes[rows.ROTATION])
    assert [item.consensus_key for item in row.standings] == list(changed.keys)
    newest = {item.consensus_key: item.newest_signed for item in row.standings}
    assert newest[joined.consensus_key] == 20 and newest[chain.keys[1]] == 20 and newest[chain.keys[3]] == 0
    assert tuple(row.standings[place].consensus_key for place in row.order) == rotation


def test_block_1_carries_no_certificate_and_leaves_the_row_alone():
    chain = Chain(4)
    before = chain.state.rows[rows.ROTATION]
    chain.block()
    assert chain.state.rows[rows.ROTATION] == before


def test_state_without_its_row_or_with_another_is_a_broken_invariant():
    chain = Chain(4)
    for damage in (None, b"\x90", RotationRow((), ()).encode()[:-1], b"\x92\x91\x91\x01\x90"):
        chain.state.rows.pop(rows.ROTATION, None)
        if damage is not None:
            chain.state.rows[rows.ROTATION] = damage
        with pytest.raises(InvariantBroken):
            rotation_of(chain.state, 1)


# ---- the convicted ----------------------------------------------------------------------------------------------------------


def contradiction(number: int, height: int, network: Domain) -> bytes:
    """Two commits of one view, by the validator that `founded` made with this number."""
    signer = key(f"{number} consensus")
    return Contradiction.of(*[Vote.sign(network, signer, COMMIT, height, 0, fixed(f"block {which}")) for which in "ab"]).encode()


@pytest.mark.parametrize("n", [4, 7])
def test_whoever_signed_two_contradicting_statements_leads_no_more_from_the_next_height_on(n):
    """A primary that proposes two blocks lets no turn pass, once one is decided after all, and costs a view each time."""
    chain = Chain(n)
    offender = chain.keys.index(key("2 consensus").public)
    chain.block()
    chain.block(evidence=[contradiction(2, 2, chain.network)])
    assert offender not in chain.rotation() and len(chain.rotation()) == n - 1
    for _ in range(256 * chain.window):
        assert offender not in chain.rotation()
        chain.block(0, tuple(range(n))[-chain.q :] if chain.height % 2 else tuple(range(chain.q)))
    assert chain.rotation() == list(range(n)), "the bar ends by itself"
    assert standings_of(chain.state)[offender].skips == 0


def test_evidence_in_the_first_block_counts():
    chain = Chain(4)
    offender = chain.keys.index(key("0 consensus").public)
    chain.block(evidence=[contradiction(0, 1, chain.network)])
    assert offender not in chain.rotation()


def test_no_bar_shortens_another():
    chain = Chain(4)
    offender = chain.keys.index(key("3 consensus").public)
    chain.block(evidence=[contradiction(3, 1, chain.network)])
    until = chain.standing(offender).barred_until
    assert until == 1 + 256 * chain.window
    others = tuple(place for place in range(4) if place != offender)
    for _ in range(2 * chain.window):  # with another one silent, the barred one is needed for a quorum of leaders
        chain.block(view=0, signers=tuple(sorted((offender, *others[:2]))))
    assert offender in chain.rotation()
    while chain.standing(offender).skips == 0:
        turns = chain.rotation()
        chain.block(1 if turns[(chain.height + 1) % len(turns)] == offender else 0, signers=tuple(sorted((offender, *others[:2]))))
    assert chain.standing(offender).barred_until == until


# ---- random chains ----------------------------------------------------------------------------------------------------------


@st.composite
def stories(draw: st.DrawFn) -> tuple[int, int, list[tuple[int, int, tuple[int, ...], bool, int]]]:
    """Size, window and for each height (deciding view, header view, signers, whether late commits come, whom evidence is about)."""
    n = draw(st.integers(4, 10))
    q = quorum(n)
    view = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 2 * n), st.just(2**32))
    signers = st.permutations(range(n)).map(lambda places: tuple(sorted(places[:q])))
    step = st.tuples(view, st.integers(0, 3), signers, st.booleans(), st.integers(0, 40))
    return n, draw(st.sampled_from([0, 1, 3])), draw(st.lists(step, min_size=1, max_size=60))


@given(stories())
@settings(max_examples=60, deadline=None)
def test_random_chains_lead_to_the_rotation_that_the_words_of_the_protocol_give(story):
    """`Chain.block` holds each height against the judge of the simulator, which is another reading of the same words."""
    n, window, steps = story
    chain = Chain(n, rotation_window_blocks=window)
    convicted: set[int] = set()
    for view, header_view, signers, is_late, offender in steps:
        late: list[Vote] = []
        if is_late and chain.certificate is not None:
            signed = signed_heights(chain.state, chain.certificate)
            lowest = max(1, chain.height + 1 - chain.window)
            late = [chain.vote(place, max(lowest, signed[key] + 1)) for place, key in enumerate(chain.keys) if signed[key] < chain.height]
            late.sort(key=lambda vote: (vote.height, vote.signer))
        is_new = offender < n and offender not in convicted
        evidence = [contradiction(offender, chain.height + 1, chain.network)] if is_new else []
        convicted |= {offender} if is_new else set()
        chain.block(view, signers, header_view=min(view, header_view), late=late, evidence=evidence)
        found = chain.rotation()
        assert chain.q <= len(found) <= n and found == sorted(set(found))
        assert {standing.consensus_key: standing.newest_signed for standing in standings_of(chain.state)} == chain.judge.newest


# ---- frozen bytes -----------------------------------------------------------------------------------------------------------


def frozen_story(n: int) -> dict[str, object]:
    """A fixed chain of 6 K blocks: one dead, one lazy, one late, then all well."""
    chain = Chain(n)
    dead, lazy = n - 1, 1
    rotations = []
    for number in range(6 * chain.window):
        is_ill = number < 3 * chain.window
        out = {dead, lazy} if is_ill else set()
        turns = chain.rotation()
        view = next(view for view in range(len(turns)) if turns[(chain.height + 1 + view) % len(turns)] not in out)
        rested = [place for place in range(n) if not (is_ill and place == dead)]
        start = number % len(rested)
        signers = tuple(sorted((rested[start:] + rested[:start])[: chain.q]))
        late = ()
        if number % 5 == 4 and chain.certificate is not None:
            signed = signed_heights(chain.state, chain.certificate)
            late = tuple(chain.vote(place, chain.height) for place in rested if signed[chain.keys[place]] < chain.height)[:1]
        chain.block(view, signers, late=late)
        rotations.append("".join("x" if place in chain.rotation() else "-" for place in range(n)))
    return {"n": n, "rotations": rotations, "row": chain.state.rows[rows.ROTATION].hex()}


def test_frozen_rotations_and_rows_do_not_change(repository):
    vectors = json.loads((repository / "tests" / "vectors" / "rotation.json").read_text(encoding="utf-8"))
    assert [frozen_story(n) for n in SIZES] == vectors["stories"]
