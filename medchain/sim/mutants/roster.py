"""All mutants, by name."""

from __future__ import annotations

from typing import Final

from medchain.errors import Malformed
from medchain.sim.mutants.agreement import AGREEMENT
from medchain.sim.mutants.checks import CHECKS
from medchain.sim.mutants.durability import DURABILITY
from medchain.sim.mutants.mutant import Mutant
from medchain.sim.mutants.rotation import ROTATION

MUTANTS: Final = (*AGREEMENT, *CHECKS, *DURABILITY, *ROTATION)


def mutant_called(name: str) -> Mutant:
    """Return a mutant by its name. Raises Malformed when there is none."""
    for mutant in MUTANTS:
        if mutant.name == name:
            return mutant
    raise Malformed(f"there is no mutant called {name!r}: see medchain sim mutants --list")
