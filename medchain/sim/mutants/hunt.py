"""The hunt: a mutant is run through worlds until a judge sees it, and the same world without it must be sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from medchain.sim.faults import Plan
from medchain.sim.mutants.mutant import Mutant
from medchain.sim.mutants.roster import mutant_called
from medchain.sim.report import SeedReport
from medchain.sim.run import run_plan


@dataclass(slots=True)
class Catch:
    """What became of one mutant."""

    name: str
    lost: str
    harmless: str
    seeds: int = 0
    caught: int = 0
    by: dict[str, int] = field(default_factory=dict)
    """By judge: the one that spoke first."""
    first_seed: int | None = None
    first_words: str = ""

    @property
    def is_as_expected(self) -> bool:
        """Answer whether it was caught, or nobody can."""
        return bool(self.caught) != bool(self.harmless)


def run_mutant(mutant: Mutant | None, seed: int, plan_by: Mutant | None = None) -> SeedReport:
    """Run the world of a mutant with this seed; `mutant` None: the sound node in the world of `plan_by`."""
    chosen = mutant or plan_by
    if chosen is None:
        raise TypeError("a world is made by a mutant")
    plan = chosen.plans(seed)
    faulty = None if chosen.is_forgetting_excused else frozenset[int]()
    if mutant is None:
        return run_plan(plan, faulty=faulty)
    with mutant.in_place():
        return run_plan(plan, faulty=faulty, wrap=mutant.wrap)


def run_under(name: str | None, plan: Plan, *, is_text_kept: bool = False) -> SeedReport:
    """Run a plan with the mutant of this name in place, None: with the sound node."""
    if name is None:
        return run_plan(plan, is_text_kept=is_text_kept)
    mutant = mutant_called(name)
    with mutant.in_place():
        faulty = None if mutant.is_forgetting_excused else frozenset[int]()
        return run_plan(plan, is_text_kept=is_text_kept, faulty=faulty, wrap=mutant.wrap)


def hunt(mutant: Mutant, seeds: int, *, is_first_enough: bool = False, on_seed: Callable[[], None] | None = None) -> Catch:
    """Run a mutant through `seeds` worlds, or to the first in which a judge sees it."""
    catch = Catch(mutant.name, mutant.lost, mutant.harmless)
    for seed in range(seeds):
        report = run_mutant(mutant, seed)
        catch.seeds += 1
        if on_seed is not None:
            on_seed()
        found = [violation for violation in report.violations if violation.checker not in mutant.unpromised]
        if not found:
            continue
        first = found[0]
        catch.caught += 1
        catch.by[first.checker] = catch.by.get(first.checker, 0) + 1
        if catch.first_seed is None:
            catch.first_seed, catch.first_words = seed, first.message
            if is_first_enough:
                break
    return catch


def describe_catches(catches: Sequence[Catch]) -> list[str]:
    """Return the table of what was caught, as lines of Markdown, and what follows from it."""
    lines = ["| Rule dropped | Caught in | By | First |", "|---|---|---|---|"]
    for catch in catches:
        by = ", ".join(f"{judge} {catch.by[judge]}" for judge in sorted(catch.by)) or "nobody"
        first = "" if catch.first_seed is None else f"seed {catch.first_seed}"
        remark = f"harmless: {catch.harmless}" if catch.harmless else first
        lines.append(f"| **{catch.name}**: {catch.lost} | {catch.caught} of {catch.seeds} | {by} | {remark} |")
    missed = [catch.name for catch in catches if not catch.caught and not catch.harmless]
    lines.append(f"{len(catches)} mutants: {sum(bool(catch.caught) for catch in catches)} caught, {len(missed)} missed by all judges")
    return [*lines, *[f"MISSED {name}" for name in missed]]
