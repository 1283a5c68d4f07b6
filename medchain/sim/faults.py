"""The plan of a seed: what goes wrong, when, for how long, and how the world is before and after.

The whole plan is drawn before the world starts, so that it can be printed, shrunk and replayed. Every seed picks its own subset of faults
(swarm testing: Groce et al. 2012): what is always mixed hides what only shows alone. Each plan has a crash and a partition, because a seed
without them does not count (lessons.md). Knows no engine.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from medchain.chain.limits import BATCH_SIGNATURE_IDS_MAX
from medchain.chain.parameters import Parameters
from medchain.sim.liars.kinds import draw_kind
from medchain.sim.network import Link, Weather, links_between

NODES_MIN: Final = 4
NODES_MAX: Final = 10
NODES_WEIGHTS: Final = (16, 6, 2, 5, 1, 1, 2)
"""How often a seed has 4, 5, ... 10 nodes: large worlds are slow, and what they add shows in few."""
MILD_CLOCK_MS: Final = 450
"""How far the clocks of those count that are not off: two of them are within the clock bound of each other, delays included."""


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


@dataclass(frozen=True, slots=True)
class SlowProcessor:
    """`node` hears nothing for `unit_us` per unit of weight (as in block_weight_max) that it executes; otherwise that takes no time."""

    at_ms: int
    node: int
    for_ms: int
    unit_us: int


@dataclass(frozen=True, slots=True)
class FullDisk:
    """The disk of `node` takes no write for a while: its process ends whenever it must write, is started again, and ends again."""

    at_ms: int
    node: int
    for_ms: int


Action = Crash | Backup | Pause | Partition | Flap | ClockJump | SlowDisk | SlowProcessor | FullDisk


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
    batch_permille: int = 0
    """Submissions for which a client signs several transactions with one signature."""
    batch_max: int = BATCH_SIGNATURE_IDS_MAX
    """The most transactions in a batch; the fewest are two."""
    liars: tuple[tuple[int, str], ...] = ()
    """(node, kind of liar), see liars/roster.py."""

    @property
    def off_clocks(self) -> frozenset[int]:
        """Nodes whose wall clock is wrong beyond what others accept, from the start or after a jump: for progress they count as faulty."""
        clocks = list(self.clock_offsets_ms)
        off = {node for node, offset_ms in enumerate(clocks) if abs(offset_ms) > MILD_CLOCK_MS}
        for action in self.actions:
            if isinstance(action, ClockJump):
                clocks[action.node] += action.delta_ms
                if abs(clocks[action.node]) > MILD_CLOCK_MS:
                    off.add(action.node)
        return frozenset(off)

    @property
    def liar_nodes(self) -> frozenset[int]:
        """Nodes that lie."""
        return frozenset([node for node, _ in self.liars])

    @property
    def forgetful(self) -> frozenset[int]:
        """Nodes whose disk forgets: they count towards f, because what they said and nobody heard they may contradict."""
        crashes = [action for action in self.actions if isinstance(action, Crash)]
        return frozenset([crash.node for crash in crashes if crash.fate is not DiskFate.KEPT])

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


def draw_plan(seed: int, nodes: int | None = None, has_liars: bool | None = None) -> Plan:
    """Return the plan of a seed: the same for the same arguments, everywhere and for ever.

    `nodes` None: the seed decides; `has_liars` None: the seed decides, True: at least one node lies, False: none. Liars, disks that forget
    and clocks that are far off together are at most f nodes: that many may do anything, and the others still owe everything.
    """
    dice = random.Random(f"medchain/plan/{seed}")
    count = dice.choices(range(NODES_MIN, NODES_MAX + 1), weights=NODES_WEIGHTS)[0]
    count = count if nodes is None else nodes
    safety_ms = dice.randint(3_500, 7_000)
    skew_ms = dice.choice((0, 0, 50, 400))
    drawn = _draw_faulty(dice, count, has_liars)
    offsets = [dice.randint(-skew_ms, skew_ms) for _ in range(count)]
    return Plan(
        seed=seed,
        nodes=count,
        parameters=_draw_parameters(dice),
        weather=_draw_weather(dice),
        clock_offsets_ms=tuple([_far_offset_ms(dice) if node in drawn.off else offset for node, offset in enumerate(offsets)]),
        clock_drifts_ppm=tuple([dice.choice((0, 0, -200, 200)) for _ in range(count)]),
        actions=_draw_actions(dice, count, safety_ms, offsets, skew_ms, drawn),
        safety_ms=safety_ms,
        tick_ms=dice.choice((15, 25, 50)),
        turn_us=dice.choice((100, 300, 1_000, 4_000)),
        sync_us=dice.choice((200, 1_000, 5_000)),
        submit_interval_ms=dice.choice((60, 100, 150)),
        valid_for_blocks=dice.choice((8, 20, 39)),
        resubmit_permille=dice.choice((0, 100, 300)),
        burst_max=dice.choice((1, 1, 1, 12)),
        pool_bytes_max=dice.choice((4 * 1024 * 1024, 4 * 1024 * 1024, 16 * 1024)),
        liars=tuple([(node, draw_kind(dice)) for node in drawn.liars]),
        **_draw_batches(dice),
    )


def _draw_batches(dice: random.Random) -> dict[str, int]:
    """In three of four seeds clients sign in batches: many small ones, or few large ones."""
    batch_max = dice.choice((1, 4, 16, BATCH_SIGNATURE_IDS_MAX))
    return {} if batch_max == 1 else {"batch_permille": {4: 150, 16: 80}.get(batch_max, 40), "batch_max": batch_max}


@dataclass(frozen=True, slots=True)
class _Faulty:
    """Which nodes may do anything, and in which way: together at most f."""

    liars: tuple[int, ...]
    forgetful: tuple[int, ...]
    off: tuple[int, ...]
    """Clocks that are far off from the start."""
    jumping: tuple[int, ...]
    """Clocks that jump far and perhaps back."""


def _draw_faulty(dice: random.Random, count: int, has_liars: bool | None) -> _Faulty:
    """Share f out among liars, forgetful disks and clocks; half of all seeds have no such node."""
    places = dice.sample(range(count), (count - 1) // 3)
    would_lie = dice.randrange(5) < 2
    is_lying = would_lie if has_liars is None else has_liars
    roll = dice.randrange(10)
    liars: list[int] = []
    if is_lying:
        liars = places[: dice.randint(1, len(places))]
        places = places[len(liars) :]
    forgetful: list[int] = []
    if places and roll < 3:
        forgetful = places[: dice.randint(1, len(places))]
        places = places[len(forgetful) :]
    is_jumping = dice.randrange(2) == 0
    off = places if roll in (2, 3, 4) else []
    return _Faulty(
        liars=tuple(sorted(liars)),
        forgetful=tuple(sorted(forgetful)),
        off=() if is_jumping else tuple(sorted(off)),
        jumping=tuple(sorted(off)) if is_jumping else (),
    )


def _far_offset_ms(dice: random.Random) -> int:
    """Return by how much a clock is off that nobody believes: seconds, an hour, a month, ten years, either way."""
    far_ms = dice.choice((1_500, 4_000, 3_600_000, 30 * 86_400_000, 3_650 * 86_400_000))
    return far_ms if dice.randrange(2) else -far_ms


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
        state_buckets=16,
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


def _draw_actions(
    dice: random.Random, count: int, safety_ms: int, offsets: Sequence[int], skew_ms: int, drawn: _Faulty
) -> tuple[Action, ...]:
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
    actions = _draw_disasters(dice, drawn.forgetful, actions, (start_ms, end_ms))
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
    actions += _draw_jumps(dice, offsets, skew_ms, drawn, (start_ms, end_ms))
    if dice.randrange(4) == 0:
        slow = SlowDisk(dice.randint(start_ms, end_ms), dice.randrange(count), dice.randint(200, 2_000), dice.choice((30_000, 200_000)))
        actions.append(slow)
    if dice.randrange(6) == 0:
        actions.append(FullDisk(dice.randint(start_ms, end_ms), dice.randrange(count), dice.randint(100, 1_500)))
    if dice.randrange(6) == 0:
        for _ in range(dice.randint(1, 3)):
            actions += draw_last_word(dice, count, dice.randint(start_ms + 300, end_ms))
    return tuple(sorted(actions, key=lambda action: action.at_ms))


def draw_last_word(dice: random.Random, count: int, at_ms: int) -> list[Action]:
    """Let f nodes be down while another one is not heard any more from `at_ms` on.

    If that moment lies between its Prepare and its Commit, it alone collects q commits and decides; the others lack one, change the view
    when the first come back, and must decide the same: where most forks would begin.
    """
    silent, *down = dice.sample(range(count), 1 + (count - 1) // 3)
    links = tuple([(silent, peer) for peer in range(count) if peer != silent])
    crashes = [Crash(max(0, at_ms - 300), node, CrashPoint.ANYWHERE, 900) for node in down]
    return [*crashes, Partition(at_ms, 1_300, "one-way", links, is_holding=False)]


def _draw_jumps(
    dice: random.Random, offsets: Sequence[int], skew_ms: int, drawn: _Faulty, span_ms: tuple[int, int]
) -> list[Action]:
    """Draw clock jumps: small ones of anybody, to another mild offset, and far ones of those drawn for it, half of them back again."""
    actions: list[Action] = []
    if skew_ms and dice.randrange(2) == 0:
        steady = [node for node in range(len(offsets)) if node not in drawn.off and node not in drawn.jumping]
        for node in dice.sample(steady, min(len(steady), dice.randint(1, 2))):
            actions.append(ClockJump(dice.randint(*span_ms), node, dice.randint(-skew_ms, skew_ms) - offsets[node]))
    for node in drawn.jumping:
        at_ms, delta_ms = dice.randint(*span_ms), _far_offset_ms(dice)
        actions.append(ClockJump(at_ms, node, delta_ms))
        if dice.randrange(2):
            actions.append(ClockJump(dice.randint(at_ms, span_ms[1]), node, -delta_ms))
    return actions


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


def _draw_disasters(
    dice: random.Random, victims: tuple[int, ...], actions: list[Action], span_ms: tuple[int, int]
) -> list[Action]:
    """Let the disks of `victims` forget in their crashes, of which each has one; nothing may be lost or decided twice for that."""
    for node in victims:
        if not any(isinstance(action, Crash) and action.node == node for action in actions):
            actions.append(_draw_crash(dice, node, dice.randint(*span_ms), (CrashPoint.ANYWHERE,)))
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
