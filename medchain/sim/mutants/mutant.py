"""What a mutant is, how it is put in place and taken away again, and the worlds in which its lost rule would matter."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from medchain.chain.validators import faults_tolerated
from medchain.engine.ready import Event, Ready
from medchain.sim.faults import Action, Crash, CrashPoint, Partition, Plan, draw_last_word, draw_plan, quiet_plan
from medchain.sim.network import Weather, links_between
from medchain.sim.node import EngineBuilder, EngineLike, Start
from medchain.store.keyvalue import WriteBatch

Wrap = Callable[[EngineBuilder], EngineBuilder]
Replacement = tuple[Any, str, Any]
"""(owner, attribute, what stands there instead)."""
PlanMaker = Callable[[int], Plan]


def four_nodes(seed: int) -> Plan:
    """Return a drawn plan of four nodes, whatever else it has."""
    return draw_plan(seed, 4)


def lying(nodes: int, *kinds: str) -> PlanMaker:
    """Return a maker of drawn plans in which every liar is of these kinds, in turn."""

    def make(seed: int) -> Plan:
        plan = draw_plan(seed, nodes, has_liars=True)
        return replace(plan, liars=tuple([(node, kinds[place % len(kinds)]) for place, (node, _) in enumerate(plan.liars)]))

    return make


CYCLE_MS: Final = 1_800
CYCLES: Final = 8
BLACKOUT_MS: Final = 1_000
BLACKOUTS: Final = 12


def cut_short(*kinds: str) -> PlanMaker:
    """Return a maker of plans of four nodes in which one may decide and nobody hears of it, again and again (`faults.draw_last_word`)."""

    def make(seed: int) -> Plan:
        dice = random.Random(f"medchain/cut-short/{seed}")
        actions: list[Action] = []
        for cycle in range(CYCLES):
            actions += draw_last_word(dice, 4, 600 + CYCLE_MS * cycle + dice.randint(0, 300))
        weather = Weather(20_000, 80_000)
        liars = ((dice.randrange(4), dice.choice(kinds)),) if kinds else ()
        plan = quiet_plan(seed, weather=weather, liars=liars, safety_ms=600 + CYCLE_MS * CYCLES, submit_interval_ms=30)
        return plan.with_actions(*actions)

    return make


def blackouts(seed: int) -> Plan:
    """Return a plan of four nodes that all die right after a write, again and again, of which one stays away: the others change the view
    over what they had said, with what they had kept.
    """
    dice = random.Random(f"medchain/blackouts/{seed}")
    actions: list[Action] = []
    for cycle in range(BLACKOUTS):
        at_ms, late = 600 + BLACKOUT_MS * cycle + dice.randrange(400), dice.randrange(4)
        actions += [Crash(at_ms, node, CrashPoint.AFTER_WRITE, 1_000 if node == late else 60) for node in range(4)]
    plan = quiet_plan(seed, weather=Weather(20_000, 80_000), safety_ms=600 + BLACKOUT_MS * BLACKOUTS, submit_interval_ms=30)
    return plan.with_actions(*actions)


def torn_apart(nodes: int) -> PlanMaker:
    """Return a maker of plans with f twins, whose honest others are cut in two halves again and again."""

    def make(seed: int) -> Plan:
        dice = random.Random(f"medchain/torn-apart/{seed}")
        liars = tuple([(node, "twins") for node in range(faults_tolerated(nodes))])
        cuts: list[Action] = []
        for place in range(4):
            honest = dice.sample(range(len(liars), nodes), nodes - len(liars))
            middle = len(honest) // 2
            links = links_between(tuple(honest[:middle]), tuple(honest[middle:]))
            cuts.append(Partition(500 + 1_500 * place, 1_200, "split", links, is_holding=False))
        return quiet_plan(seed, nodes, liars=liars, safety_ms=6_500).with_actions(*cuts)

    return make


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule dropped."""

    name: str
    lost: str
    """What does not hold any more, in words; with the source of the rule where it has one of its own."""
    replacements: tuple[Replacement, ...] = ()
    wrap: Wrap | None = None
    """Puts something in the place of every engine."""
    plans: PlanMaker = four_nodes
    is_forgetting_excused: bool = True
    """Whether nodes whose disks forget may contradict themselves; where all of them forget at once, they must not."""
    unpromised: frozenset[str] = frozenset()
    """Judges whose word counts for nothing here: the world breaks that promise without the mutant as well, with more than f faulty."""
    harmless: str = ""
    """Why nobody can see it, if nobody can: then another rule keeps the promise alone."""

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Drop the rule for a while; everything is as before afterwards."""
        kept: list[Replacement] = []
        try:
            for owner, name, instead in self.replacements:
                kept.append((owner, name, vars(owner)[name] if isinstance(owner, type) else getattr(owner, name)))
                setattr(owner, name, instead)
            yield
        finally:
            for owner, name, before in reversed(kept):
                setattr(owner, name, before)


class _Filter:
    """An engine whose batches lose some rows before they are written."""

    def __init__(self, engine: EngineLike, is_kept: Callable[[bytes, bytes | None, WriteBatch], bool]) -> None:
        self._engine = engine
        self._is_kept = is_kept

    def handle_all(self, events: Sequence[Event]) -> Ready:
        """Take a turn, forget a part of it."""
        ready = self._engine.handle_all(events)
        kept = tuple([operation for operation in ready.batch.operations if self._is_kept(*operation, ready.batch)])
        return replace(ready, batch=WriteBatch(kept))


def unwritten(is_lost: Callable[[bytes, bytes | None, WriteBatch], bool]) -> Wrap:
    """Return a wrap under which no row for which `is_lost` holds is ever written (key, value or None for a deletion, its batch)."""

    def wrap(builder: EngineBuilder) -> EngineBuilder:
        def build(start: Start) -> EngineLike:
            return _Filter(builder(start), lambda key, value, batch: not is_lost(key, value, batch))

        return build

    return wrap
