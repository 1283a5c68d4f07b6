"""Mutants: one rule of our own is dropped at a time, and a judge must see it soon: a judge that sees nothing judges nothing.

The whole table, with many seeds a mutant, is `medchain sim mutants` (medchain/sim/DESIGN.md shows one).
"""

from __future__ import annotations

from typing import Final

import pytest

import medchain.chain.validators
from medchain.chain.validators import quorum
from medchain.consensus.promises import Promises
from medchain.errors import Malformed
from medchain.sim.mutants.hunt import Catch, describe_catches, hunt, run_mutant, run_under
from medchain.sim.mutants.mutant import Mutant
from medchain.sim.mutants.roster import MUTANTS, mutant_called
from medchain.sim.run import SeedOptions, plan_of

SEEDS: Final = 40
"""Worlds at most, until a judge speaks: most mutants are seen in the first two, and any change of pace moves where the others show."""
SLOW: Final = frozenset({"few asked after a start", "proofs of preparedness unchecked"})
"""Those of whose worlds few show anything."""
QUICK: Final = [mutant for mutant in MUTANTS if mutant.name not in SLOW and not mutant.harmless]
JUDGES: Final = frozenset(
    {
        "agreement", "certificates", "promises", "justification", "durability", "roots", "honesty", "evidence", "rotation", "tidiness",
        "times", "progress", "stopped", "views",
    }
)  # fmt: skip


def name_of(mutant: Mutant) -> str:
    return mutant.name


@pytest.mark.sim
@pytest.mark.parametrize("mutant", QUICK, ids=name_of)
def test_rule_that_is_dropped_is_missed_by_a_judge_and_only_then(mutant: Mutant) -> None:
    catch = hunt(mutant, SEEDS, is_first_enough=True)
    assert catch.caught, f"nobody saw in {SEEDS} seeds that {mutant.lost}"
    assert set(catch.by) <= JUDGES
    assert catch.first_seed is not None
    sound = run_mutant(None, catch.first_seed, mutant)
    assert not [violation for violation in sound.violations if violation.checker in catch.by], "the same world without the mutant fails too"


@pytest.mark.sim
@pytest.mark.long
@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.name in SLOW], ids=name_of)
def test_rule_whose_loss_shows_seldom_is_missed_in_many_seeds(mutant: Mutant) -> None:
    assert hunt(mutant, 60, is_first_enough=True).caught


def test_mutants_are_distinct_and_say_what_they_lack() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names) >= 45
    assert all(mutant.lost and (mutant.replacements or mutant.wrap) for mutant in MUTANTS)
    assert set(names) >= SLOW
    with pytest.raises(Malformed, match="no mutant called 'none'"):
        mutant_called("none")


def test_everything_is_as_before_when_a_mutant_is_gone_whatever_happened() -> None:
    change_view = Promises.change_view
    with pytest.raises(ZeroDivisionError), mutant_called("half as quorum").in_place():
        assert medchain.chain.validators.quorum(4) == 2
        raise ZeroDivisionError
    with mutant_called("prepared block hidden").in_place():
        assert Promises.change_view is not change_view
    assert medchain.chain.validators.quorum is quorum and quorum(4) == 3 and Promises.change_view is change_view


@pytest.mark.sim
def test_run_under_a_mutant_by_name_is_the_same_again() -> None:
    plan = plan_of(3, SeedOptions(nodes=4, has_liars=False))
    first, again, sound = (run_under(name, plan) for name in ("pool unwritten", "pool unwritten", None))
    assert first.violations and first.violations == again.violations and first.digest == again.digest
    assert not sound.violations


def test_table_names_what_nobody_saw() -> None:
    seen = Catch("one", "this is dropped", "", seeds=9, caught=2, by={"agreement": 1, "progress": 1}, first_seed=4)
    missed = Catch("two", "that is dropped", "", seeds=9)
    excused = Catch("three", "what is dropped", "another rule holds it", seeds=9)
    lines = describe_catches([seen, missed, excused])
    assert "| **one**: this is dropped | 2 of 9 | agreement 1, progress 1 | seed 4 |" in lines
    assert "3 mutants: 1 caught, 1 missed by all judges" in lines and lines[-1] == "MISSED two"
    assert [catch.is_as_expected for catch in (seen, missed, excused)] == [True, False, True]
