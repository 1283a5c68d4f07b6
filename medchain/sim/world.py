"""The world: nodes, the network between them and their clients, in virtual time, and what goes wrong with them.

All is decided by the plan and by dice seeded from it, and nothing is read from the real world, so one seed is one history. Processes start
and end here and planned faults happen here; their turns are in turns.py, their connections in connections.py, time in timeline.py. Knows no
checker's business: the judge is told what left each node.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

from medchain.crypto.hashing import tagged_digest
from medchain.engine.ready import Submitted
from medchain.errors import InvariantBroken
from medchain.sim import faults
from medchain.sim.clocks import Clock
from medchain.sim.connections import Connections
from medchain.sim.disk import Disk
from medchain.sim.faults import Action, CrashPoint, DiskFate, Plan
from medchain.sim.identity import Identities
from medchain.sim.network import Link, Network, Wiring
from medchain.sim.node import EngineBuilder, Node, NodeState, Start
from medchain.sim.scene import Scene, Tally
from medchain.sim.timeline import Timeline
from medchain.sim.trace import Trace
from medchain.sim.turns import Judge, Turns
from medchain.sim.workload import Workload
from medchain.store import layout
from medchain.store.keyvalue import WriteBatch

ARMED_US: Final = 250_000
"""How long a planned crash waits for its point to be reached; then the process dies where it is."""


class World:
    """All nodes, the network between them and their clients."""

    def __init__(
        self,
        plan: Plan,
        identities: Identities,
        builder: EngineBuilder,
        founding: WriteBatch,
        workload: Workload,
        judge: Judge,
        trace: Trace,
    ) -> None:
        """Set everything up and start every node; `founding` is what `node init` writes into an empty store."""
        self.plan = plan
        self.identities = identities
        self.workload = workload
        self.trace = trace
        self.tally = Tally()
        self.violations = judge.findings
        self.is_healed = False
        self.is_workload_over = False
        self._builder = builder
        self._dice = random.Random(f"medchain/world/{plan.seed}")
        self._timeline = Timeline(trace, self.violations)
        self.network = Network(random.Random(f"medchain/network/{plan.seed}"), plan.weather)
        self.wiring = Wiring()
        self.nodes = [self._make_node(index, founding) for index in range(plan.nodes)]
        scene = Scene(plan, identities, workload, self._timeline, self.network, self.wiring, self.tally, self.nodes)
        self._turns = Turns(scene, judge, self.kill_node, self._crash)
        self._connections = Connections(scene, self._dice, self._turns.push)
        for node in self.nodes:
            self.start_node(node)
        self._timeline.after(0, self._connections.check)
        self._timeline.after(self._dice.randrange(200_000), self._submit)
        for action in plan.actions:
            self._timeline.at(action.at_ms * 1000, lambda action=action: self._act(action))  # type: ignore[misc]  # a bound loop variable

    def _make_node(self, index: int, founding: WriteBatch) -> Node:
        node = Node(
            index=index,
            disk=Disk(),
            clock=Clock(self.plan.clock_offsets_ms[index], self.plan.clock_drifts_ppm[index]),
            sync_us=self.plan.sync_us,
        )
        store = node.disk.open()
        store.write(founding)
        store.close()
        return node

    # ---- time ---------------------------------------------------------------------------------------------------------------

    @property
    def now_us(self) -> int:
        """Virtual time since the world began."""
        return self._timeline.now_us

    def run_until(self, time_us: int) -> None:
        """Let time pass up to `time_us`, or until a violation."""
        self._timeline.run_until(time_us)

    def violate(self, checker: str, message: str) -> None:
        """Note a violation; the world stops at the next happening."""
        self._timeline.violate(checker, message)

    # ---- processes ----------------------------------------------------------------------------------------------------------

    def start_node(self, node: Node, is_marked_damaged: bool = False) -> None:
        """Start a process on what the disk holds."""
        if node.state is not NodeState.DOWN:
            return
        node.incarnation += 1
        node.state = NodeState.UP
        node.clock.restart(self._timeline.now_us - self._dice.randrange(1_000_000_000))
        store = node.store = node.disk.open()
        head = store.get(layout.HEAD)
        node.height = 0 if head is None else int.from_bytes(head[:8], "big")
        node.inbox, node.writing, node.is_turn_due, node.is_finish_due = [], None, False, False
        node.executed_weight, node.is_tick_owed = 0, False
        challenge = tagged_digest("medchain/sim/challenge", b"%d/%d/%d" % (self.plan.seed, node.index, node.incarnation))
        is_damaged = node.disk.is_damaged or is_marked_damaged
        self._timeline.note(f"node {node.index} starts at height {node.height}" + (" damaged" if is_damaged else ""))
        start = Start(node.index, self.identities.genesis, store, self.identities.consensus[node.index], challenge, is_damaged)
        try:
            node.engine = self._builder(start)
        except Exception as error:
            self._turns.stopped(node, "start", error)
            return
        self._tick(node, node.incarnation)

    def kill_node(self, node: Node, point: str, down_us: int | None) -> None:
        """End a process at once; None = it stays down until somebody starts it."""
        if node.state is NodeState.DOWN:
            return
        self._timeline.note(f"node {node.index} dies: {point}")
        self.tally.count(point, "crashes")
        node.state = NodeState.DOWN
        node.engine = None
        if node.store is not None:
            node.store.close()
        node.inbox, node.writing = [], None
        self._connections.cut_off(node.index)
        if down_us is not None:
            incarnation = node.incarnation
            self._timeline.after(down_us, lambda: self.start_node(node) if node.incarnation == incarnation else None)

    def _crash(self, node: Node, crash: faults.Crash) -> None:
        """Die as planned, and meet the disk's fate meanwhile."""
        self.kill_node(node, crash.point.value, None)
        self._meet_fate(node, crash)
        incarnation = node.incarnation
        is_marked = crash.is_marked_damaged
        self._timeline.after(crash.down_ms * 1000, lambda: self.start_node(node, is_marked) if node.incarnation == incarnation else None)

    def _meet_fate(self, node: Node, crash: faults.Crash) -> None:
        match crash.fate:
            case DiskFate.KEPT:
                return
            case DiskFate.WIPED:
                node.disk.wipe()
            case DiskFate.RESTORED:
                if node.backup is None:
                    raise InvariantBroken("a plan restores a disk that was never copied")
                node.disk.restore(node.backup)
            case DiskFate.ROTTED:
                node.disk.rot(crash.share_permille)
        self.tally.count(f"disk {crash.fate.value}")
        self.workload.book.forgive(node.index)
        self._timeline.note(f"disk of node {node.index} is {crash.fate.value}")

    def _tick(self, node: Node, incarnation: int) -> None:
        """Hand time in, again and again; a process that stands still is owed one tick only."""
        if node.incarnation != incarnation or node.state is NodeState.DOWN:
            return
        if node.unit_us and node.writing is not None:
            node.is_tick_owed = True
        elif node.state is NodeState.UP:
            self._turns.push(node, node.clock.tick(self._timeline.now_us))
        self._timeline.after(self.plan.tick_ms * 1000, lambda: self._tick(node, incarnation))

    # ---- clients ------------------------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        """A client hands a transaction, or a batch of them, to some living node, and the next one comes a while later."""
        if self.is_workload_over:
            return
        candidates = [node for node in self.nodes if node.state is NodeState.UP]
        count = self._dice.randint(1, self.plan.burst_max) if candidates and self._dice.randrange(4) == 0 else min(1, len(candidates))
        for _ in range(count):
            node = self._dice.choice(candidates)
            for request, transaction in self.workload.hand_in(node.height, self._timeline.now_us):
                self._timeline.note(f"client submits {request} {transaction.id[:6].hex()} to {node.index}")
                self._turns.push(node, Submitted(request, transaction))
        mean_us = self.plan.submit_interval_ms * 1000
        self._timeline.after(self._dice.randint(mean_us // 4, mean_us * 7 // 4), self._submit)

    # ---- faults -------------------------------------------------------------------------------------------------------------

    def _act(self, action: Action) -> None:
        """Let a planned fault happen."""
        if self.is_healed:
            return
        self._timeline.note(f"fault {action}")
        match action:
            case faults.Crash():
                self._begin_crash(action)
            case faults.Backup():
                self.nodes[action.node].backup = self.nodes[action.node].disk.copy()
            case faults.Pause():
                self._pause(self.nodes[action.node], action.for_ms * 1000)
            case faults.Partition():
                self._partition(action)
            case faults.Flap():
                self._connections.flap(action.first, action.second)
            case faults.ClockJump():
                self.nodes[action.node].clock.jump(action.delta_ms)
                self.tally.count("clock jump")
            case faults.SlowDisk():
                self._slow_disk(self.nodes[action.node], action)
            case faults.SlowProcessor():
                self._slow_processor(self.nodes[action.node], action)
            case faults.FullDisk():
                self.tally.count("full disk")
                self.nodes[action.node].full_until_us = self._timeline.now_us + action.for_ms * 1000

    def _begin_crash(self, crash: faults.Crash) -> None:
        node = self.nodes[crash.node]
        if node.state is NodeState.DOWN:
            return
        if crash.point is CrashPoint.ANYWHERE:
            self._crash_now(node, crash)
        else:
            node.armed.append(crash)
            self._timeline.after(ARMED_US, lambda: self._give_up(node, crash))

    def _give_up(self, node: Node, crash: faults.Crash) -> None:
        if crash in node.armed and node.state is not NodeState.DOWN:
            node.armed.remove(crash)
            self._crash_now(node, replace(crash, point=CrashPoint.ANYWHERE))

    def _crash_now(self, node: Node, crash: faults.Crash) -> None:
        if node.writing is not None and node.writing.batch:
            self._turns.die(node, node.writing, crash)
        else:
            self._crash(node, crash)

    def _pause(self, node: Node, for_us: int) -> None:
        if node.state is not NodeState.UP:
            return
        self.tally.count("pause")
        node.state = NodeState.PAUSED
        incarnation = node.incarnation
        self._timeline.after(for_us, lambda: self._resume(node, incarnation))

    def _resume(self, node: Node, incarnation: int) -> None:
        if node.incarnation != incarnation or node.state is not NodeState.PAUSED:
            return
        self._timeline.note(f"node {node.index} goes on")
        node.state = NodeState.UP
        if node.is_finish_due:
            node.is_finish_due = False
            self._turns.finish(node, incarnation)
        self._turns.plan_turn(node)

    def _partition(self, action: faults.Partition) -> None:
        self.tally.count(action.shape, "partitions")
        self.network.block(action.links, action.is_holding)
        self._timeline.after(action.for_ms * 1000, lambda: self._unblock(action))

    def _unblock(self, action: faults.Partition) -> None:
        if not self.is_healed:
            self._timeline.note(f"{action.shape} ends")
            self._release(self.network.unblock(action.links, action.is_holding))

    def _release(self, held: list[tuple[Link, bytes]]) -> None:
        for link, data in held:
            if self.wiring.is_up(*link):
                self._turns.transmit(link, data, "held")

    def _slow_disk(self, node: Node, action: faults.SlowDisk) -> None:
        self.tally.count("slow disk")
        node.sync_us = action.sync_us
        self._timeline.after(action.for_ms * 1000, lambda: setattr(node, "sync_us", self.plan.sync_us))

    def _slow_processor(self, node: Node, action: faults.SlowProcessor) -> None:
        self.tally.count("slow processor")
        node.unit_us = action.unit_us
        self._timeline.after(action.for_ms * 1000, lambda: setattr(node, "unit_us", 0))

    def heal(self) -> None:
        """End every fault: all nodes run, all links carry, disks and processors are as fast as planned. Clocks stay wrong."""
        self._timeline.note("everything heals")
        self.is_healed = True
        for node in self.nodes:
            node.armed.clear()
            node.full_until_us = 0
            node.sync_us = self.plan.sync_us
            node.unit_us = 0
            if node.state is NodeState.PAUSED:
                self._resume(node, node.incarnation)
            if node.state is NodeState.DOWN:
                self.start_node(node)
        self._release(self.network.heal())
