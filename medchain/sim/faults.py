"""The plan of a seed: what goes wrong, when, for how long, and how the world is before and after.

The whole plan is drawn before the world starts, so that it can be printed, shrunk and replayed. Every seed picks its own subset of faults
(swarm testing: Groce et al. 2012): what is always mixed hides what only shows alone. Each plan has a crash and a partition, because a seed
without them does not count (lessons.md). Knows no engine.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from medchain.chain.parameters import Parameters
from medchain.sim.network import Link, Weather, links_between

NODES_MIN: Final = 4
NODES_MAX: Final = 7


class CrashPoint(Enum):
    """Where in a turn the process dies: every durability point, before and after."""

    ANYWHERE = "anywhere"
    BEFORE_WRITE = "before write"
    TORN_WRITE = "torn write"
    AFTER_WRITE = "after write"
    BETWEEN_SENDS = "between sends"
    BEFORE_REPLIES = "before replies"
    DISK_FULL = "disk full"


class DiskFate(Enum):
    """What happens to the disk while the process is down."""

    KEPT = "kept"
    WIPED = "wiped"
    RESTORED = "restored"
    """From the copy that the last Backup made."""
    ROTTED = "rotted"
    """One bit of the log is flipped."""


@dataclass(frozen=True, slots=True)
class Crash:
    """The process of `node` dies at the first turn from `at_ms` on that reaches `point`, and starts again after `down_ms`."""

    at_ms: int
    node: int
    point: CrashPoint
    down_ms: int
    share_permille: int = 500
    """Torn write: how much of the record is on the disk (1000 = all). Between sends: how many messages left."""
    is_zero_filled: bool = False
    fate: DiskFate = DiskFate.KEPT
    is_marked_damaged: bool = False
    """Started as damaged (`snapshot restore` marks its store), whatever the disk says."""


@dataclass(frozen=True, slots=True)
class Backup:
    """The disk of `node` is copied (as it is at some instant) for a later DiskFate.RESTORED."""

    at_ms: int
    node: int


@dataclass(frozen=True, slots=True)
class Pause:
    """The process stands still (SIGSTOP, a long garbage collection, a frozen virtual machine)."""

    at_ms: int
    node: int
    for_ms: int


@dataclass(frozen=True, slots=True)
class Partition:
    """These directed links carry nothing."""

    at_ms: int
    for_ms: int
    shape: str
    links: tuple[Link, ...]
    is_holding: bool
    """Messages wait instead of being lost, as on TCP."""


@dataclass(frozen=True, slots=True)
class Flap:
    """The connection of a pair breaks and is made again."""

    at_ms: int
    first: int
    second: int


@dataclass(frozen=True, slots=True)
class ClockJump:
    """The wall clock of `node` is set forward or back."""

    at_ms: int
    node: int
    delta_ms: int


@dataclass(frozen=True, slots=True)
class SlowDisk:
    """Every synced write of `node` takes `sync_us`."""

    at_ms: int
    node: int
    for_ms: int
    sync_us: int


Action = Crash | Backup | Pause | Partition | Flap | ClockJump | SlowDisk


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a seed decides, except the dice thrown on the way."""

    seed: int
    nodes: int
    parameters: Parameters
    weather: Weather
    clock_offsets_ms: tuple[int, ...]
    clock_drifts_ppm: tuple[int, ...]
    actions: tuple[Action, ...]
    """In order of their times."""
    safety_ms: int
    """How long faults happen; then everything heals and progress is demanded."""
    tick_ms: int
    turn_us: int
    """How long a turn waits for further events: group commit."""
    sync_us: int
    """How long a synced write takes."""
    submit_interval_ms: int
    """Mean time between submissions."""
    valid_for_blocks: int
    """Transactions expire so many blocks after the head their client saw."""
    resubmit_permille: int
    """Submissions that repeat an earlier transaction, at any node."""
    burst_max: int = 1
    """Submissions that may come at one instant."""
    pool_bytes_max: int = 4 * 1024 * 1024
    """Room of every pool."""

    @property
    def forgetful(self) -> frozenset[int]:
        """Nodes whose disk forgets: they count towards f, because what they said and nobody heard they may contradict."""
        crashes = [action for action in self.actions if isinstance(action, Crash)]
        return frozenset([crash.node for crash in crashes if crash.fate is not DiskFate.KEPT])

    def without_disasters(self) -> Plan:
        """Return the plan with disks that remember."""
        kept = [replace(action, fate=DiskFate.KEPT) if isinstance(action, Crash) else action for action in self.actions]
        return replace(self, actions=tuple(kept))

    def with_actions(self, *actions: Action) -> Plan:
        """Return the plan with other faults: for targeted scenarios and for shrinking."""
        return replace(self, actions=tuple(sorted(actions, key=lambda action: action.at_ms)))


def quiet_plan(seed: int, nodes: int = 4, **changes: object) -> Plan:
    """Return a plan in which nothing goes wrong: the start of targeted scenarios. `changes` name fields of Plan."""
    plan = Plan(
        seed=seed,
        nodes=nodes,
        parameters=_parameters(300, 2_000),
        weather=Weather(),
        clock_offsets_ms=(0,) * nodes,
        clock_drifts_ppm=(0,) * nodes,
        actions=(),
        safety_ms=3_000,
        tick_ms=25,
        turn_us=300,
        sync_us=500,
        submit_interval_ms=60,
        valid_for_blocks=200,
        resubmit_permille=0,
    )
    return replace(plan, **changes)  # type: ignore[arg-type]  # names and types are the caller's, a wrong one raises TypeError


def draw_plan(seed: int, nodes: int | None = None) -> Plan:
    """Return the plan of a seed: the same for the same arguments, everywhere and for ever."""
    dice = random.Random(f"medchain/plan/{seed}")
    count = dice.choices(range(NODES_MIN, NODES_MAX + 1), weights=(6, 2, 1, 2))[0]
    count = count if nodes is None else nodes
    safety_ms = dice.randint(3_500, 7_000)
    skew_ms = dice.choice((0, 0, 50, 400))
    return Plan(
        seed=seed,
        nodes=count,
        parameters=_draw_parameters(dice),
        weather=_draw_weather(dice),
        clock_offsets_ms=tuple([dice.randint(-skew_ms, skew_ms) for _ in range(count)]),
        clock_drifts_ppm=tuple([dice.choice((0, 0, -200, 200)) for _ in range(count)]),
        actions=_draw_actions(dice, count, safety_ms, skew_ms),
        safety_ms=safety_ms,
        tick_ms=dice.choice((15, 25, 50)),
        turn_us=dice.choice((100, 300, 1_000, 4_000)),
        sync_us=dice.choice((200, 1_000, 5_000)),
        submit_interval_ms=dice.choice((60, 100, 150)),
        valid_for_blocks=dice.choice((8, 20, 39)),
        resubmit_permille=dice.choice((0, 100, 300)),
        burst_max=dice.choice((1, 1, 1, 12)),
        pool_bytes_max=dice.choice((4 * 1024 * 1024, 4 * 1024 * 1024, 16 * 1024)),
    )


def _draw_parameters(dice: random.Random) -> Parameters:
    """Short times, so that much happens in a second; now and then small blocks, so that work queues up, or a narrow window."""
    return replace(
        _parameters(dice.choice((100, 200, 300, 600)), dice.choice((1_000, 3_000, 60_000))),
        block_transactions_max=dice.choice((2_000, 2_000, 2_000, 2)),
        block_weight_max=dice.choice((20_000, 20_000, 100)),
        expiry_window_blocks=dice.choice((200, 200, 40)),
    )


def _parameters(view_timeout_base_ms: int, heartbeat_ms: int) -> Parameters:
    return Parameters(
        block_interval_min_ms=50,
        heartbeat_ms=heartbeat_ms,
        view_timeout_base_ms=view_timeout_base_ms,
        view_timeout_cap_ms=view_timeout_base_ms * 4,
        clock_bound_ms=1_000,
        expiry_window_blocks=200,
        state_buckets=64,
    )


def _draw_weather(dice: random.Random) -> Weather:
    kind = dice.randrange(4)
    if kind == 0:
        return Weather()
    delay_max_us = dice.choice((3_000, 10_000, 30_000, 80_000))
    return Weather(
        delay_min_us=dice.choice((100, 1_000)),
        delay_max_us=delay_max_us,
        loss_permille=dice.choice((0, 10, 50, 150)),
        duplicate_permille=dice.choice((0, 0, 50)),
        reorder_permille=dice.choice((0, 50, 500)),
        straggler_permille=dice.choice((0, 0, 10)),
        straggler_us=dice.choice((200_000, 1_500_000)),
    )


def _draw_actions(dice: random.Random, count: int, safety_ms: int, skew_ms: int) -> tuple[Action, ...]:
    """Draw the faults: each kind is in or out for the whole seed, crashes and partitions always in."""
    start_ms, end_ms = 300, safety_ms - 300
    actions: list[Action] = []
    points = tuple(dice.sample(list(CrashPoint), dice.randint(1, len(CrashPoint))))
    for _ in range(dice.randint(1, 1 + count // 2)):
        actions.append(_draw_crash(dice, dice.randrange(count), dice.randint(start_ms, end_ms), points))
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3))):
        actions.append(_draw_partition(dice, count, start_ms, end_ms))
    if dice.randrange(4) == 0:
        actions += _draw_power_loss(dice, count, dice.randint(start_ms, end_ms))
    if dice.randrange(5) == 0:
        actions = _draw_disasters(dice, count, actions)
    if dice.randrange(3) == 0:
        for _ in range(dice.randint(1, 3)):
            actions.append(Pause(dice.randint(start_ms, end_ms), dice.randrange(count), dice.randint(50, 2_000)))
    if dice.randrange(3) == 0:
        for _ in range(dice.randint(1, 6)):
            first, second = dice.sample(range(count), 2)
            actions.append(Flap(dice.randint(start_ms, end_ms), first, second))
    if dice.randrange(4) == 0:
        first, second = dice.sample(range(count), 2)
        links = ((first, second), (second, first))
        actions.append(Partition(dice.randint(start_ms, end_ms), dice.randint(100, 1_500), "clogged", links, True))
    if skew_ms and dice.randrange(2) == 0:
        for _ in range(dice.randint(1, 2)):
            actions.append(ClockJump(dice.randint(start_ms, end_ms), dice.randrange(count), dice.randint(-skew_ms, skew_ms)))
    if dice.randrange(4) == 0:
        slow = SlowDisk(dice.randint(start_ms, end_ms), dice.randrange(count), dice.randint(200, 2_000), dice.choice((30_000, 200_000)))
        actions.append(slow)
    return tuple(sorted(actions, key=lambda action: action.at_ms))


def _draw_crash(dice: random.Random, node: int, at_ms: int, points: tuple[CrashPoint, ...]) -> Crash:
    return Crash(
        at_ms=at_ms,
        node=node,
        point=dice.choice(points),
        down_ms=dice.choice((20, 200, 600, 1_500)),
        share_permille=dice.choice((0, dice.randrange(1001), 1000)),
        is_zero_filled=dice.randrange(3) == 0,
    )


def _draw_power_loss(dice: random.Random, count: int, at_ms: int) -> list[Action]:
    """Every node, or all but one, at one instant."""
    nodes = dice.sample(range(count), dice.randint(count - 1, count))
    point = dice.choice((CrashPoint.ANYWHERE, CrashPoint.AFTER_WRITE, CrashPoint.BETWEEN_SENDS))
    return [_draw_crash(dice, node, at_ms, (point,)) for node in nodes]


def _draw_disasters(dice: random.Random, count: int, actions: list[Action]) -> list[Action]:
    """Let the disks of at most f nodes forget in their crashes; nothing may be lost or decided twice for that."""
    crashes = [action for action in actions if isinstance(action, Crash)]
    victims = sorted({crash.node for crash in crashes})
    victims = dice.sample(victims, min(len(victims), dice.randint(1, (count - 1) // 3)))
    changed: list[Action] = [Backup(dice.randint(100, 280), node) for node in victims]
    for action in actions:
        if isinstance(action, Crash) and action.node in victims:
            fate = dice.choice((DiskFate.WIPED, DiskFate.RESTORED, DiskFate.ROTTED))
            action = replace(action, fate=fate, is_marked_damaged=fate is DiskFate.RESTORED and dice.randrange(2) == 0)
        changed.append(action)
    return changed


def _draw_partition(dice: random.Random, count: int, start_ms: int, end_ms: int) -> Partition:
    shape = dice.choice(("split", "split", "halves", "alone", "one-way", "ring", "pair"))
    everyone = tuple(range(count))
    shuffled = tuple(dice.sample(everyone, count))
    links: tuple[Link, ...]
    if shape == "split":
        cut = dice.randint(1, count - 1)
        links = links_between(shuffled[:cut], shuffled[cut:])
    elif shape == "halves":
        links = links_between(shuffled[: count // 2], shuffled[count // 2 :])
    elif shape == "alone":
        links = links_between(shuffled[:1], shuffled[1:])
    elif shape == "one-way":
        cut = dice.randint(1, count - 1)
        links = tuple([(a, b) for a in shuffled[:cut] for b in shuffled[cut:]])
    elif shape == "ring":
        neighbours = {(shuffled[i], shuffled[(i + 1) % count]) for i in range(count)}
        links = tuple([(a, b) for a in everyone for b in everyone if a != b and (a, b) not in neighbours and (b, a) not in neighbours])
    else:
        links = ((shuffled[0], shuffled[1]), (shuffled[1], shuffled[0]))
    for_ms = dice.choice((200, 800, 1_500, 3_000))
    return Partition(
        at_ms=dice.randint(start_ms, max(start_ms, end_ms - for_ms)),
        for_ms=for_ms,
        shape=shape,
        links=links,
        is_holding=dice.randrange(2) == 0,
    )
