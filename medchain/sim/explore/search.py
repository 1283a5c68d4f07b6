"""The search: every state that the honest nodes can reach together, nearest first, held against what agreement promises.

A state is how each honest node stands; all that was ever said follows from it. Statements are never unsaid and messages never die, so a
move needs only that its parts were said, and messages lost, late, repeated or out of order need no states of their own. Breadth first,
hence a broken promise is shown by a shortest story.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from medchain.chain.vote import COMMIT, PREPARE
from medchain.consensus.events import HardState
from medchain.sim.explore.automaton import Automaton, Move, Standing
from medchain.sim.explore.menu import Menu
from medchain.sim.explore.universe import Bounds, SaidVote, Universe

STATES_MAX_DEFAULT = 2_000_000
PROGRESS_STATES = 20_000
"""States between two reports of progress."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search is."""

    states: int
    depth: int
    waiting: int


Story = tuple[tuple[int, Move, tuple[str, ...]], ...]
"""(node, what it was handed, what it said then), step by step."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise and the shortest way to it."""

    message: str
    story: Story


@dataclass(slots=True)
class Result:
    """What a search found."""

    bounds: Bounds
    states: int = 0
    transitions: int = 0
    depth: int = 0
    is_complete: bool = False
    """Whether every state within the bounds was seen."""
    standings: int = 0
    """Different standings of single nodes."""
    evaluations: int = 0
    """Times a real replica was fed."""
    statements: int = 0
    decisions: tuple[str, ...] = ()
    """Which blocks are certified in some state, with the views of their certificates."""
    violation: Violation | None = None


class Search:
    """One exploration."""

    def __init__(
        self,
        bounds: Bounds,
        *,
        states_max: int = STATES_MAX_DEFAULT,
        is_kept: Callable[[HardState], bool] = lambda record: True,
    ) -> None:
        self.universe = Universe(bounds)
        self.automaton = Automaton(self.universe, is_kept)
        self.menu = Menu(self.automaton)
        self.result = Result(bounds)
        self._states_max = states_max
        self._parents: dict[tuple[int, ...], tuple[int, ...] | None] = {}
        self._votes_seen = 0
        self._topics: dict[tuple[int, int, int], int] = {}
        self._agreement: dict[int, str | None] = {}
        self._vote_bits = 0
        self._is_tolerable = len(bounds.liars) <= self.universe.validators.faults_tolerated
        self._decisions: dict[str, None] = {}

    def run(self) -> Iterator[Progress]:
        """Search to the end, to the first broken promise or to the most states; yield progress now and then. `result` holds the outcome."""
        start = tuple(self.automaton.first(node).number for node in self.universe.honest)
        self._parents[start] = None
        level = [start]
        result = self.result
        while level and result.violation is None and len(self._parents) < self._states_max:
            upcoming: list[tuple[int, ...]] = []
            for state in level:
                self._expand(state, upcoming)
                if result.violation is not None or len(self._parents) >= self._states_max:
                    break
                if len(self._parents) - result.states >= PROGRESS_STATES:
                    result.states = len(self._parents)
                    yield Progress(result.states, result.depth, len(upcoming))
            level = upcoming
            result.depth += bool(upcoming)
        result.is_complete = not level and result.violation is None
        self._finish()

    def states(self) -> Iterator[tuple[int, ...]]:
        """Yield all states found, in the order they were."""
        yield from self._parents

    def retrace(self, state: tuple[int, ...]) -> tuple[Standing, ...]:
        """Return how each honest node stands in a state when it goes the shortest way there."""
        places = {node: place for place, node in enumerate(self.universe.honest)}
        standings = [self.automaton.first(node) for node in self.universe.honest]
        for node, move, _ in self.story(state):
            place = places[node]
            standings[place] = self.automaton.go_on(standings[place], self.menu.events(standings[place], move))
        return tuple(standings)

    def _finish(self) -> None:
        result = self.result
        result.states = len(self._parents)
        result.standings = len(self.automaton.standings)
        result.evaluations = self.automaton.evaluations
        result.statements = len(self.universe.said)
        result.decisions = tuple(sorted(self._decisions))

    def _expand(self, state: tuple[int, ...], upcoming: list[tuple[int, ...]]) -> None:
        standings = self.automaton.standings
        said = 0
        for number in state:
            said |= standings[number].said
        for place, number in enumerate(state):
            standing = standings[number]
            if said & ~standing.considered & ~standing.said or not standing.considered:
                self.menu.extend(standing, said)
            for needed, target, _ in standing.moves:
                if needed & ~said:
                    continue
                self.result.transitions += 1
                reached = (*state[:place], target, *state[place + 1 :])
                if reached in self._parents:
                    continue
                self._parents[reached] = state
                upcoming.append(reached)
                problem = standings[target].problem or self._disagreement(said | standings[target].said)
                if problem is not None:
                    self.result.violation = Violation(problem, self.story(reached))
                    return

    # ---- the promise of agreement -----------------------------------------------------------------------------------------------

    def _disagreement(self, said: int) -> str | None:
        """Return what two blocks are prepared in one view, or certified, by all statements ever made; None if none are."""
        self._sort_new_statements()
        votes = said & self._vote_bits
        if votes not in self._agreement:
            self._agreement[votes] = self._judge(votes)
        return self._agreement[votes]

    def _judge(self, votes: int) -> str | None:
        needed = self.universe.validators.quorum - len(self.universe.bounds.liars)
        prepared: dict[int, int] = {}
        certified: dict[int, int] = {}
        for (kind, view, block), mask in self._topics.items():
            if (votes & mask).bit_count() < needed:
                continue
            name = self.universe.blocks[block].name
            if kind == COMMIT:
                self._decisions[f"{name} in view {view}"] = None
                certified.setdefault(block, view)
            elif self._is_tolerable and prepared.setdefault(view, block) != block:
                return f"two blocks are prepared in view {view}: {self.universe.blocks[prepared[view]].name} and {name}"
        if len(certified) > 1:
            names = " and ".join(f"{self.universe.blocks[block].name} (view {view})" for block, view in sorted(certified.items()))
            return f"two blocks are certified at one height: {names}"
        return None

    def _sort_new_statements(self) -> None:
        for place in range(self._votes_seen, len(self.universe.said)):
            said = self.universe.said[place]
            if isinstance(said, SaidVote) and said.kind in (PREPARE, COMMIT):
                topic = (said.kind, said.view, said.block)
                self._topics[topic] = self._topics.get(topic, 0) | 1 << place
                self._vote_bits |= 1 << place
        self._votes_seen = len(self.universe.said)

    # ---- stories ----------------------------------------------------------------------------------------------------------------

    def story(self, state: tuple[int, ...]) -> Story:
        """Return a shortest way to a state."""
        steps = []
        parent = self._parents[state]
        while parent is not None:
            steps.append(self._step(parent, state))
            state, parent = parent, self._parents[parent]
        return tuple(reversed(steps))

    def _step(self, before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, Move, tuple[str, ...]]:
        """Return one step of a story: which node, what it was handed, what it said."""
        standings = self.automaton.standings
        said = 0
        for number in before:
            said |= standings[number].said
        place = next(place for place in range(len(before)) if before[place] != after[place])
        old, new = standings[before[place]], standings[after[place]]
        move = next(move for needed, target, move in old.moves if target == new.number and needed & ~said == 0)
        spoken = tuple(self.universe.describe(item) for item in self.universe.statements(new.said & ~old.said))
        return old.node, move, spoken
