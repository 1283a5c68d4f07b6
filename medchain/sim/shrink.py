"""Shrinking: from a plan that breaks a promise to a small one that breaks the same promise.

Delta debugging (Zeller, Hildebrandt 2002) over the faults, then single steps over everything else: liars, weather, clocks, load,
parameters, nodes, durations. A smaller plan is taken when the same judge speaks first, whatever it says: what exactly it says changes with
every step. Ends when no step helps (then dropping any fault or any liar makes it pass) or when the time is up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from medchain.sim.faults import Action, Backup, Crash, DiskFate, Flap, FullDisk, Partition, Pause, Plan, SlowDisk, SlowProcessor, quiet_plan
from medchain.sim.liars.kinds import AND
from medchain.sim.network import Weather

Check = Callable[[Plan], str]
"""Runs a plan and returns the name of the judge that spoke first, or nothing."""
SHORTER: Final = (0, 1, 2)
"""Shares of a duration that are tried: none of it, a quarter, a half."""
FIELDS_LAST: Final = (
    "weather", "clock_drifts_ppm", "clock_offsets_ms", "parameters", "resubmit_permille", "batch_permille", "batch_max",
    "burst_max", "pool_bytes_max", "valid_for_blocks", "turn_us", "sync_us", "tick_ms", "submit_interval_ms",
)  # fmt: skip
"""Fields that are set back to the quiet plan's, whole, in this order."""


@dataclass(slots=True)
class Shrinking:
    """One plan being made smaller."""

    plan: Plan
    judge: str
    check: Check
    is_time_up: Callable[[], bool]
    on_run: Callable[[int, Plan], None] | None = None
    runs: int = 0
    is_minimal: bool = False
    """Whether it ended because nothing helped any more."""

    def run(self) -> Plan:
        """Make it smaller until nothing helps or the time is up; return the smallest plan found."""
        while not self.is_time_up():
            before = self.plan
            self._drop_liars()
            self._drop_actions()
            for candidate in _simpler(self.plan):
                self._take(candidate(self.plan))
            if self.plan == before:
                self.is_minimal = not self.is_time_up()
                break
        return self.plan

    def _take(self, candidate: Plan | None) -> bool:
        """Adopt a candidate that still fails in the same way."""
        if candidate is None or candidate == self.plan or self.is_time_up():
            return False
        self.runs += 1
        is_failing = self.check(candidate) == self.judge
        if is_failing:
            self.plan = candidate
        if self.on_run is not None:
            self.on_run(self.runs, self.plan)
        return is_failing

    def _drop_liars(self) -> None:
        self._take(replace(self.plan, liars=()))
        for node, kind in self.plan.liars:
            others = tuple([liar for liar in self.plan.liars if liar[0] != node])
            if self._take(replace(self.plan, liars=others)) or AND not in kind:
                continue
            for name in kind.split(AND):
                self._take(replace(self.plan, liars=tuple(sorted([*others, (node, name)]))))

    def _drop_actions(self) -> None:
        """Drop halves, quarters, ... of the faults, then each alone."""
        size = len(self.plan.actions)
        while size:
            place = 0
            while place < len(self.plan.actions):
                kept = (*self.plan.actions[:place], *self.plan.actions[place + size :])
                if not self._take(_without_loose_backups(replace(self.plan, actions=kept))):
                    place += size
            size //= 2


def _without_loose_backups(plan: Plan) -> Plan:
    """Keep every restored disk its copy: a world cannot restore what was never copied."""
    copied = {action.node for action in plan.actions if isinstance(action, Backup)}
    actions: list[Action] = []
    for action in plan.actions:
        if isinstance(action, Crash) and action.fate is DiskFate.RESTORED and action.node not in copied:
            action = replace(action, fate=DiskFate.KEPT, is_marked_damaged=False)
        actions.append(action)
    return replace(plan, actions=tuple(actions))


def _simpler(plan: Plan) -> Iterator[Callable[[Plan], Plan | None]]:
    """Yield steps that each take the newest plan and return a simpler one, or nothing."""
    quiet = quiet_plan(plan.seed, plan.nodes)
    for name in FIELDS_LAST:
        yield lambda now, name=name: replace(now, **{name: getattr(quiet, name)})  # type: ignore[misc]  # a bound loop variable
    for name in ("loss_permille", "duplicate_permille", "reorder_permille", "straggler_permille"):
        yield lambda now, name=name: replace(now, weather=replace(now.weather, **{name: 0}))  # type: ignore[misc]
    yield lambda now: replace(now, weather=replace(now.weather, delay_min_us=Weather().delay_min_us, delay_max_us=Weather().delay_max_us))
    for node in range(plan.nodes):
        yield lambda now, node=node: _with_true_clock(now, node)  # type: ignore[misc]
    for node in reversed(range(plan.nodes)):
        yield lambda now, node=node: _without_node(now, node)  # type: ignore[misc]
    for place in range(len(plan.actions)):
        for quarters in SHORTER:
            yield lambda now, place=place, quarters=quarters: _with_shorter(now, place, quarters)  # type: ignore[misc]
    for quarters in (1, 2, 3):
        yield lambda now, quarters=quarters: _with_shorter_safety(now, quarters)  # type: ignore[misc]


def _with_true_clock(plan: Plan, node: int) -> Plan | None:
    if node >= plan.nodes:
        return None
    offsets = [0 if index == node else offset_ms for index, offset_ms in enumerate(plan.clock_offsets_ms)]
    return replace(plan, clock_offsets_ms=tuple(offsets))


def _without_node(plan: Plan, node: int) -> Plan | None:
    """Take the last node away with all that happens to it: the others keep their numbers."""
    if node != plan.nodes - 1 or plan.nodes == 4:
        return None
    actions: list[Action] = []
    for action in plan.actions:
        if isinstance(action, Partition):
            action = replace(action, links=tuple([link for link in action.links if node not in link]))
            if not action.links:
                continue
        elif node in ((action.first, action.second) if isinstance(action, Flap) else (action.node,)):
            continue
        actions.append(action)
    return replace(
        plan,
        nodes=node,
        actions=tuple(actions),
        liars=tuple([liar for liar in plan.liars if liar[0] != node]),
        clock_offsets_ms=plan.clock_offsets_ms[:node],
        clock_drifts_ppm=plan.clock_drifts_ppm[:node],
    )


def _with_shorter(plan: Plan, place: int, quarters: int) -> Plan | None:
    """Shorten one fault to so many quarters."""
    if place >= len(plan.actions):
        return None
    action = plan.actions[place]
    if isinstance(action, Crash):
        down_ms = max(1, action.down_ms * quarters // 4)
        shorter: Action = replace(action, down_ms=down_ms)
    elif isinstance(action, Pause | Partition | SlowDisk | SlowProcessor | FullDisk):
        shorter = replace(action, for_ms=max(1, action.for_ms * quarters // 4))
    else:
        return None
    return replace(plan, actions=(*plan.actions[:place], shorter, *plan.actions[place + 1 :]))


def _with_shorter_safety(plan: Plan, quarters: int) -> Plan | None:
    """End the safety phase earlier, with what would come later left out."""
    safety_ms = max(500, plan.safety_ms * quarters // 4)
    actions = tuple([action for action in plan.actions if action.at_ms < safety_ms])
    return replace(plan, safety_ms=safety_ms, actions=actions)


def describe_plan(plan: Plan) -> list[str]:
    """Return the lines that tell a plan to a person."""
    lines = [f"{plan.nodes} nodes, faults for {plan.safety_ms} ms, then healing"]
    lines += [f"  node {node} lies: {kind}" for node, kind in plan.liars]
    lines += [f"  at {action.at_ms} ms: {action}" for action in plan.actions]
    if plan.weather != Weather():
        lines.append(f"  weather: {plan.weather}")
    if plan.batch_permille:
        lines.append(f"  clients sign {plan.batch_permille} of 1000 submissions in batches, of up to {plan.batch_max}")
    if any(plan.clock_offsets_ms):
        lines.append(f"  clocks off by {', '.join(str(offset) for offset in plan.clock_offsets_ms)} ms")
    return lines


def minimal_steps(plan: Plan) -> Sequence[Plan]:
    """Return every plan that lacks one fault or one liar of this one."""
    without = [replace(plan, actions=(*plan.actions[:place], *plan.actions[place + 1 :])) for place in range(len(plan.actions))]
    return [*without, *[replace(plan, liars=tuple([other for other in plan.liars if other != liar])) for liar in plan.liars]]
