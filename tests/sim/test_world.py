"""The world itself, with a toy engine: turns, crashes at every point, pauses, connections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from medchain.engine.ready import Event, PeerConnected, PeerDisconnected, Ready
from medchain.errors import InvariantBroken
from medchain.sim.checkers.progress import Progress
from medchain.sim.faults import Backup, ClockJump, Crash, CrashPoint, DiskFate, Flap, Partition, Pause, SlowDisk, draw_plan, quiet_plan
from medchain.sim.network import links_between
from medchain.sim.node import NodeState, Start

MakeWorld = Callable[..., tuple[Any, Any]]


def count_on_disk(world: Any, node: int = 0) -> int:
    stored = world.nodes[node].disk.open().get(b"count")
    return 0 if stored is None else int.from_bytes(stored, "big")


def test_same_plan_gives_the_same_trace_and_another_seed_another(make_world: MakeWorld) -> None:
    digests = []
    for seed in (5, 5, 6):
        world, _ = make_world(draw_plan(seed, 4))
        world.run_until(2_000_000)
        digests.append(world.trace.digest())
    assert digests[0] == digests[1] != digests[2]


def test_everyone_ticks_and_everyone_hears_everyone(make_world: MakeWorld) -> None:
    world, _ = make_world(quiet_plan(1))
    world.run_until(1_000_000)
    for node in world.nodes:
        assert 35 <= node.engine.ticks <= 41
        assert len(node.engine.heard) > 90


@pytest.mark.parametrize(
    ("point", "share", "written", "told"),
    [
        (CrashPoint.BEFORE_WRITE, 500, False, 0),
        (CrashPoint.DISK_FULL, 500, False, 0),
        (CrashPoint.TORN_WRITE, 0, False, 0),
        (CrashPoint.TORN_WRITE, 500, False, 0),
        (CrashPoint.TORN_WRITE, 1000, True, 0),
        (CrashPoint.AFTER_WRITE, 500, True, 0),
        (CrashPoint.BETWEEN_SENDS, 400, True, 1),
        (CrashPoint.BETWEEN_SENDS, 1000, True, 3),
    ],
)
def test_crash_leaves_exactly_what_had_been_done(
    make_world: MakeWorld, point: CrashPoint, share: int, written: bool, told: int
) -> None:
    world, watch = make_world(quiet_plan(1).with_actions(Crash(500, 0, point, 5_000, share)))
    world.run_until(499_999)
    before, messages = count_on_disk(world), world.tally.messages
    while world.nodes[0].state is NodeState.UP:
        world.run_until(world.now_us + 1)
    assert count_on_disk(world) - before == (1 if written else 0)
    assert len([turn for turn in watch.turns if turn.node == 0 and turn.now_us >= 499_999 and turn.sent]) == (1 if told else 0)
    assert sum(line.split()[1].startswith("0>") for line in world.trace.lines if float(line.split()[0]) > 500) == told
    assert world.tally.messages >= messages
    assert world.tally.crashes == {point.value: 1}


def test_crashed_node_comes_back_with_what_it_had_written(make_world: MakeWorld) -> None:
    world, _ = make_world(quiet_plan(1).with_actions(Crash(500, 2, CrashPoint.ANYWHERE, 300)))
    world.run_until(600_000)
    assert world.nodes[2].state is NodeState.DOWN
    kept = count_on_disk(world, 2)
    world.run_until(1_500_000)
    assert world.nodes[2].incarnation == 2 and world.nodes[2].engine.ticks > kept > 10


def test_paused_process_does_nothing_and_then_goes_on(make_world: MakeWorld) -> None:
    world, _ = make_world(quiet_plan(1).with_actions(Pause(500, 1, 400)))
    world.run_until(550_000)
    ticks = world.nodes[1].engine.ticks
    world.run_until(880_000)
    assert world.nodes[1].engine.ticks == ticks
    world.run_until(1_200_000)
    assert world.nodes[1].engine.ticks > ticks + 5 and world.nodes[1].incarnation == 1


def test_partition_is_noticed_by_its_ends_and_mended_after_it(make_world: MakeWorld) -> None:
    seen: list[tuple[float, str]] = []

    class Listener:
        def __init__(self, start: Start) -> None:
            self.node = start.node

        def handle_all(self, events: Sequence[Event]) -> Ready:
            seen.extend((self.node, type(event).__name__) for event in events if isinstance(event, PeerConnected | PeerDisconnected))
            return Ready()

    cut = Partition(300, 5_000, "alone", links_between((0,), (1, 2, 3)), is_holding=False)
    world, _ = make_world(quiet_plan(1).with_actions(cut), Listener)
    world.run_until(200_000)
    assert seen.count((0, "PeerConnected")) == 3
    world.run_until(5_000_000)
    assert seen.count((0, "PeerDisconnected")) == 3 and seen.count((1, "PeerDisconnected")) == 1
    world.run_until(6_000_000)
    assert seen.count((0, "PeerConnected")) == 6


def test_engine_that_raises_is_a_violation_with_its_place(make_world: MakeWorld) -> None:
    class Broken:
        def handle_all(self, events: Sequence[Event]) -> Ready:
            raise InvariantBroken("two and two are five")

    world, watch = make_world(quiet_plan(1), lambda start: Broken())
    world.run_until(1_000_000)
    assert len(watch.findings) == 1 and "two and two are five" in str(watch.findings[0]) and "test_world.py" in str(watch.findings[0])


@pytest.mark.parametrize("fate", [DiskFate.WIPED, DiskFate.RESTORED])
def test_disk_meets_its_fate_while_the_process_is_down(make_world: MakeWorld, fate: DiskFate) -> None:
    crash = Crash(800, 0, CrashPoint.ANYWHERE, 100, fate=fate)
    world, _ = make_world(quiet_plan(1).with_actions(Backup(300, 0), crash))
    world.run_until(850_000)
    assert count_on_disk(world) == 0 if fate is DiskFate.WIPED else 5 < count_on_disk(world) < 15


def test_rotted_disk_is_told_to_the_engine(make_world: MakeWorld) -> None:
    starts: list[Start] = []

    def build(start: Start) -> Any:
        starts.append(start)
        return type("Writer", (), {"handle_all": lambda self, events: Ready(batch=_row(len(events)))})()

    crash = Crash(800, 0, CrashPoint.ANYWHERE, 100, share_permille=300, fate=DiskFate.ROTTED)
    world, _ = make_world(quiet_plan(1).with_actions(crash), build)
    world.run_until(1_000_000)
    assert [start.is_store_damaged for start in starts if start.node == 0] == [False, True]


def _row(number: int) -> Any:
    from medchain.store.keyvalue import WriteBatch

    return WriteBatch.of((b"row", bytes((number % 256,)) * 40))


def test_process_that_dies_after_healing_is_waited_for_until_it_is_back(make_world: MakeWorld) -> None:
    """The long crash matrix once asked the closed store of a catching-up node that died after everything had healed."""
    world, _ = make_world(quiet_plan(1))
    world.run_until(500_000)
    world.heal()
    world.is_workload_over = True
    progress = Progress(world)
    assert progress._is_at_rest()
    world.kill_node(world.nodes[1], "by hand", 100_000)
    assert not progress._is_at_rest()
    world.run_until(700_000)
    assert progress._is_at_rest()


def test_healing_ends_every_fault(make_world: MakeWorld) -> None:
    world, _ = make_world(
        quiet_plan(1).with_actions(
            Crash(100, 0, CrashPoint.ANYWHERE, 600_000),
            Pause(100, 1, 600_000),
            Partition(100, 600_000, "split", links_between((0, 1), (2, 3)), is_holding=True),
            SlowDisk(100, 2, 600_000, 200_000),
            Flap(100, 0, 3),
            ClockJump(100, 3, 50),
        )
    )
    world.run_until(1_000_000)
    world.heal()
    world.run_until(2_000_000)
    assert all(node.state is NodeState.UP and node.sync_us == world.plan.sync_us for node in world.nodes)
    assert all(world.wiring.is_up(a, b) for a in range(4) for b in range(4) if a != b)


def test_every_plan_has_a_crash_and_a_partition_and_every_fault_is_drawn_by_some_seed() -> None:
    kinds: set[str] = set()
    for seed in range(300):
        plan = draw_plan(seed)
        assert any(isinstance(action, Crash) for action in plan.actions) and any(isinstance(action, Partition) for action in plan.actions)
        assert 4 <= plan.nodes <= 10 and all(action.at_ms < plan.safety_ms for action in plan.actions)
        assert draw_plan(seed) == plan
        kinds |= {type(action).__name__ for action in plan.actions}
        kinds |= {action.point.value for action in plan.actions if isinstance(action, Crash)}
        kinds |= {action.shape for action in plan.actions if isinstance(action, Partition)}
    assert kinds >= {
        "Pause", "Flap", "ClockJump", "SlowDisk", "FullDisk", "ring", "one-way", "clogged", "pair", *(point.value for point in CrashPoint),
    }  # fmt: skip
