"""All judges together."""

from __future__ import annotations

from medchain.sim.checkers.agreement import Agreement
from medchain.sim.checkers.case import Case, Checker, Ending
from medchain.sim.checkers.certificates import Certificates
from medchain.sim.checkers.durability import Durability
from medchain.sim.checkers.evidence import Evidence
from medchain.sim.checkers.honesty import Honesty
from medchain.sim.checkers.justification import Justification
from medchain.sim.checkers.promises import Promises
from medchain.sim.checkers.roots import Roots
from medchain.sim.checkers.rotation import Rotation
from medchain.sim.checkers.tidiness import Tidiness
from medchain.sim.checkers.times import Times
from medchain.sim.checkers.views import Views
from medchain.sim.node import Turn, Violation
from medchain.sim.workload import Book


class Panel:
    """Hands everything to every judge."""

    def __init__(self, case: Case, book: Book) -> None:
        self._case = case
        self.agreement = Agreement(case)
        self.promises = Promises(case)
        self.durability = Durability(case)
        self.honesty = Honesty(case, book)
        self.evidence = Evidence(case)
        self._checkers: tuple[Checker, ...] = (
            self.agreement, Certificates(case), self.promises, self.durability, Roots(case), self.honesty,
            self.evidence, Rotation(case), Tidiness(case), Times(case), Justification(case), Views(case),
        )  # fmt: skip

    @property
    def findings(self) -> list[Violation]:
        """All violations so far."""
        return self._case.findings

    def on_turn(self, turn: Turn) -> None:
        """Let every judge look at a turn."""
        self._case.now_us = turn.now_us
        for checker in self._checkers:
            checker.on_turn(turn)

    def on_end(self, ending: Ending) -> None:
        """Let every judge ask its last questions."""
        for checker in self._checkers:
            checker.on_end(ending)
