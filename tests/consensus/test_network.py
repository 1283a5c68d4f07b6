"""Networks of replicas over many seeds: agreement, no double promise, no honest validator convicted, progress once it is quiet.

The checkers live in the network of conftest.py and look at what is written, said and decided. No seed is excluded, ever.
"""

from __future__ import annotations

import itertools
import random

import pytest

from medchain.chain.validators import faults_tolerated, quorum
from medchain.chain.vote import COMMIT, PREPARE
from tests.consensus.conftest import LIARS, Net, Weather, equivocating, make_proposal, silent, silent_as_primary, vote

RECOVERY_MS = 20_000
BLOCKS = [0, *(pytest.param(block, marks=pytest.mark.sim) for block in range(1, 8))]
SIZES = [*range(4, 9), *(pytest.param(n, marks=pytest.mark.sim) for n in (9, 10))]


def storm(seed: int, n: int, liars: dict | None = None) -> Net:
    """A network that went through bad weather, cuts and crashes of the seed's choice, and is quiet again."""
    dice = random.Random(seed * 7919 + n)
    weather = Weather(
        loss=dice.choice((0, 0.02, 0.1, 0.25)),
        duplication=dice.choice((0, 0.1, 0.3)),
        slow=dice.choice((0, 0.05, 0.2)),
        crash=dice.choice((0, 0.01, 0.05)),
    )
    net = Net(n, seed, weather, liars=liars)
    for _ in range(dice.randint(1, 4)):
        net.run_for(dice.randint(500, 4_000))
        cut_somehow(net, dice)
        net.run_for(dice.randint(500, 6_000))
        net.cut = {}
    net.run_for(2_000)
    net.heal()
    return net


def cut_somehow(net: Net, dice: random.Random) -> None:
    everyone = list(range(len(net.nodes)))
    dice.shuffle(everyone)
    shape = dice.random()
    if shape < 0.5:
        place = dice.randint(1, len(everyone) - 1)
        net.partition(tuple(everyone[:place]), tuple(everyone[place:]))
    elif shape < 0.7:
        net.partition(*((i,) for i in everyone))
    else:
        net.cut = {link: None for link in itertools.permutations(everyone, 2) if dice.random() < 0.3}


@pytest.mark.parametrize("block", BLOCKS)
def test_honest_networks_agree_and_recover_in_every_seed(block):
    for seed in range(block * 25, block * 25 + 25):
        net = storm(seed, 4 + seed % 7)
        height = max(node.height for node in net.honest())
        assert net.reaches(height + 3, RECOVERY_MS), f"seed {seed}: no progress after healing"


@pytest.mark.parametrize("block", BLOCKS)
def test_networks_with_f_liars_agree_and_recover_in_every_seed(block):
    for seed in range(block * 25, block * 25 + 25):
        n = 4 + seed % 7
        dice = random.Random(seed)
        liars = {i: dice.choice(LIARS) for i in dice.sample(range(n), faults_tolerated(n))}
        net = storm(seed, n, liars)
        height = max(node.height for node in net.honest())
        assert net.reaches(height + 3, RECOVERY_MS), f"seed {seed}: no progress after healing"


@pytest.mark.parametrize("n", SIZES)
def test_heights_keep_growing_with_every_set_of_f_validators_down(n):
    """lessons.md: 2 of 7 down, within f, and it stalled half the time (besu #6613)."""
    for dead in itertools.combinations(range(n), faults_tolerated(n)):
        net = Net(n, seed=n, dead=dead)
        assert net.reaches(n, 60_000), f"n = {n}, down: {dead}"


@pytest.mark.parametrize("n", [4, 5, 7, 10])
def test_one_more_than_f_down_decides_nothing_and_goes_on_by_itself(n):
    net = Net(n, dead=tuple(range(n - quorum(n) + 1)))
    net.run_for(60_000)
    assert net.lowest() == 0
    node = net.nodes[0]
    net.dead = net.dead[1:]
    node.boot()
    net.keep_ticking(node)
    assert net.reaches(3, 10_000)


@pytest.mark.parametrize("n", [4, 7])
def test_quorum_lost_for_ten_minutes_and_restored_decides_within_ten_seconds(n):
    """lessons.md: timers that double without a cap waited 68 minutes (besu #7642)."""
    net = Net(n, seed=3)
    assert net.reaches(5, 10_000)
    net.partition(*((i,) for i in range(n)))
    net.run_for(600_000)
    height = max(node.height for node in net.honest())
    net.heal()
    assert net.reaches(height + 1, 10_000)
    assert max(node.replica.view for node in net.nodes) <= 2


@pytest.mark.parametrize("shape", ["halves", "ring", "one way", "minority"])
def test_partition_of_thirty_seconds_heals_within_five(shape):
    """lessons.md: out of consensus for hours after a 30 s network loss (indy-node #1700)."""
    net = Net(7, seed=5)
    net.run_for(2_000)
    n = range(7)
    if shape == "halves":
        net.partition((0, 1, 2), (3, 4, 5, 6))
    elif shape == "ring":
        net.cut = {(a, b): None for a in n for b in n if (a - b) % 7 not in (1, 6)}
    elif shape == "one way":
        net.cut = {(a, b): None for a in (0, 1, 2) for b in (3, 4, 5, 6)}
    else:
        net.partition((0, 1), (2, 3, 4, 5, 6))
    net.run_for(30_000)
    height = max(node.height for node in net.honest())
    net.heal()
    assert net.reaches(height + 1, 5_000)


def test_primary_killed_is_replaced_within_two_seconds():
    net = Net(4, seed=9)
    assert net.reaches(10, 10_000)
    height = net.lowest()
    leader = net.validators.index_of(net.nodes[0].replica.primary_key())
    net.nodes[leader].is_up = False
    net.dead = (leader,)
    assert net.reaches(height + 2, 2_000)


def test_transactions_of_an_equivocating_primary_still_get_blocks_and_it_is_convicted():
    net = Net(4, seed=2, liars={1: equivocating})
    assert net.reaches(8, 60_000)
    assert {net.validators.index_of(found.offender) for found in net.evidence} == {1}


@pytest.mark.parametrize("liar", [silent, silent_as_primary])
def test_silent_primary_is_passed_over(liar):
    net = Net(4, liars={2: liar})
    assert net.reaches(8, 60_000)


def test_invalid_and_unobtainable_proposals_end_in_a_view_change():
    for where in ("invalid", "unobtainable"):
        net = Net(4)
        refused = getattr(net, where)
        build = net.nodes[1].build

        def build_badly(height, view, net=net, refused=refused, build=build):
            before = net.nodes[1].replica.own_messages()
            build(height, view)
            for message in net.nodes[1].replica.own_messages():
                if message not in before:
                    refused[message.digest] = None

        net.nodes[1].build = build_badly
        assert net.reaches(6, 60_000), where
        assert all(digest not in net.decided.values() for digest in refused)


def test_idle_network_stays_in_view_zero_and_says_nothing():
    net = Net(4)
    net.is_busy = False
    for node in net.nodes:
        node.build = lambda height, view: None
    net.run_for(60_000)
    assert net.messages == 0
    assert all(node.replica.view == 0 for node in net.nodes)


def test_two_more_liars_than_f_can_break_agreement_and_the_checker_sees_it():
    """The checkers must see: with two of four signing everything, two honest nodes are led to two blocks of one height."""
    net = Net(4, liars={2: equivocating, 3: equivocating})
    one, two = (make_proposal(net.validators, salt=salt) for salt in (b"one", b"two"))
    with pytest.raises(AssertionError, match="fork at height 1"):
        for i, block in ((0, one), (1, two)):
            node = net.nodes[i]
            node.disk.pinned[block.header.digest()] = block
            for kind in (PREPARE, COMMIT):
                for signer in ({0, 1, 2, 3} - {i}):
                    node.receive(signer, vote(signer, kind, block))


def test_same_seed_gives_the_same_run():
    runs = []
    for _ in range(2):
        net = storm(11, 5)
        runs.append((net.decided, net.messages, net.crashes, net.now_ms, [node.height for node in net.nodes]))
    assert runs[0] == runs[1]
