"""The world: an event queue in virtual time that drives engines through turns, crashes included.

A turn is the one loop of house.md: inbox → handle_all → write → send → answer; a process may die before, inside and after each. All is
decided by the plan and by dice seeded from it, and nothing is read from the real world, so one seed is one history. Knows no checker's
business: it tells the judge what left each node.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from medchain.crypto.hashing import tagged_digest
from medchain.engine.ready import Accepted, Envelope, Event, PeerConnected, PeerDisconnected, Ready, Received, Refused, Submitted, Ticked
from medchain.errors import InvariantBroken, Malformed
from medchain.sim import faults
from medchain.sim.clocks import Clock
from medchain.sim.disk import Disk, encode_record
from medchain.sim.faults import Action, CrashPoint, DiskFate, Plan
from medchain.sim.identity import Identities
from medchain.sim.network import Link, Network, Wiring
from medchain.sim.node import EngineBuilder, Node, NodeState, Start, Turn, Violation
from medchain.sim.trace import Trace
from medchain.sim.workload import Workload
from medchain.store import layout
from medchain.store.keyvalue import EMPTY_BATCH, WriteBatch
from medchain.wire.peer import PeerMessage, decode_message, encode_message

INBOX_EVENTS_MAX: Final = 20_000
"""Events that wait for a paused process; its sockets' buffers are finite too."""
DECODED_MAX: Final = 4_096
"""Decoded messages remembered: a broadcast is decoded once for all its receivers."""
FULL_RESTART_US: Final = 150_000
"""How soon a process that ended because its disk was full is started again."""
ARMED_US: Final = 250_000
"""How long a planned crash waits for its point to be reached; then the process dies where it is."""
WIRING_CHECK_US: Final = 100_000
"""How often ends notice dead connections and pairs try to connect."""
STEPS_MAX: Final = 5_000_000
"""A world with more happenings is stuck in a loop that takes no time."""


class Judge(Protocol):
    """Sees what leaves the nodes while the world runs, and keeps the list of violations; a world with one in it stands still."""

    @property
    def findings(self) -> list[Violation]:
        """Violations so far; the world adds those that only it can see."""
        ...

    def on_turn(self, turn: Turn) -> None:
        """Look at a turn."""
        ...


@dataclass(slots=True)
class Tally:
    """What a world contained, counted."""

    crashes: dict[str, int] = field(default_factory=dict)
    partitions: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    """Messages that never arrived, by kind."""
    turns: int = 0
    messages: int = 0
    bytes_sent: int = 0

    def count(self, name: str, table: str = "faults") -> None:
        """Count one."""
        counts: dict[str, int] = getattr(self, table)
        counts[name] = counts.get(name, 0) + 1


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
        self.now_us = 0
        self.is_healed = False
        self.is_workload_over = False
        self._builder = builder
        self._judge = judge
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._dice = random.Random(f"medchain/world/{plan.seed}")
        self.network = Network(random.Random(f"medchain/network/{plan.seed}"), plan.weather)
        self.wiring = Wiring()
        self._decoded: dict[bytes, PeerMessage] = {}
        self._peers = {key.public: index for index, key in enumerate(identities.consensus)}
        self.nodes = [self._make_node(index, founding) for index in range(plan.nodes)]
        for node in self.nodes:
            self.start_node(node)
        self.after(0, self._check_wiring)
        self.after(self._dice.randrange(200_000), self._submit)
        for action in plan.actions:
            self.at(action.at_ms * 1000, lambda action=action: self._act(action))  # type: ignore[misc]  # a bound loop variable

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

    def at(self, time_us: int, callback: Callable[[], None]) -> None:
        """Let `callback` happen at a moment; equal moments keep the order of these calls."""
        self._sequence += 1
        heapq.heappush(self._queue, (max(time_us, self.now_us), self._sequence, callback))

    def after(self, delay_us: int, callback: Callable[[], None]) -> None:
        """Let `callback` happen a while from now."""
        self._sequence += 1
        heapq.heappush(self._queue, (self.now_us + delay_us, self._sequence, callback))

    def run_until(self, time_us: int) -> None:
        """Let time pass up to `time_us`, or until a violation."""
        queue = self._queue
        while queue and queue[0][0] <= time_us and not self.violations:
            if self._sequence > STEPS_MAX:
                self.violate("steps", f"more than {STEPS_MAX} happenings: something loops without taking time")
                return
            self.now_us, _, callback = heapq.heappop(queue)
            callback()
        if not self.violations:
            self.now_us = max(self.now_us, time_us)

    def violate(self, checker: str, message: str) -> None:
        """Note a violation; the world stops at the next happening."""
        self.violations.append(Violation(checker, message, self.now_us))
        self.trace.note(self.now_us, f"VIOLATION {checker}: {message}")

    # ---- processes ----------------------------------------------------------------------------------------------------------

    def start_node(self, node: Node, is_marked_damaged: bool = False) -> None:
        """Start a process on what the disk holds."""
        if node.state is not NodeState.DOWN:
            return
        node.incarnation += 1
        node.state = NodeState.UP
        node.clock.restart(self.now_us - self._dice.randrange(1_000_000_000))
        store = node.store = node.disk.open()
        head = store.get(layout.HEAD)
        node.height = 0 if head is None else int.from_bytes(head[:8], "big")
        node.inbox, node.writing, node.is_turn_due, node.is_finish_due = [], None, False, False
        challenge = tagged_digest("medchain/sim/challenge", b"%d/%d/%d" % (self.plan.seed, node.index, node.incarnation))
        is_damaged = node.disk.is_damaged or is_marked_damaged
        self.trace.note(self.now_us, f"node {node.index} starts at height {node.height}" + (" damaged" if is_damaged else ""))
        start = Start(node.index, self.identities.genesis, store, self.identities.consensus[node.index], challenge, is_damaged)
        try:
            node.engine = self._builder(start)
        except Exception as error:
            self._stopped(node, "start", error)
            return
        self._tick(node, node.incarnation)

    def kill_node(self, node: Node, point: str, down_us: int | None) -> None:
        """End a process at once; None = it stays down until somebody starts it."""
        if node.state is NodeState.DOWN:
            return
        self.trace.note(self.now_us, f"node {node.index} dies: {point}")
        self.tally.count(point, "crashes")
        node.state = NodeState.DOWN
        node.engine = None
        if node.store is not None:
            node.store.close()
        node.inbox, node.writing = [], None
        for peer in range(self.plan.nodes):
            if peer == node.index:
                continue
            self._drop_end(node.index, peer)
            if self.wiring.is_up(peer, node.index) and self._dice.randrange(4):
                epoch = self.wiring.epoch(node.index, peer)
                self.after(self._dice.randint(500, 20_000), lambda peer=peer, epoch=epoch: self._notice(peer, node.index, epoch))  # type: ignore[misc]
        if down_us is not None:
            incarnation = node.incarnation
            self.after(down_us, lambda: self.start_node(node) if node.incarnation == incarnation else None)

    def _crash(self, node: Node, crash: faults.Crash) -> None:
        """Die as planned, and meet the disk's fate meanwhile."""
        self.kill_node(node, crash.point.value, None)
        self._meet_fate(node, crash)
        incarnation = node.incarnation
        is_marked = crash.is_marked_damaged
        self.after(crash.down_ms * 1000, lambda: self.start_node(node, is_marked) if node.incarnation == incarnation else None)

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
        self.trace.note(self.now_us, f"disk of node {node.index} is {crash.fate.value}")

    def _stopped(self, node: Node, when: str, error: Exception) -> None:
        """An engine raised: always a violation, whatever it is."""
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{place.tb_frame.f_code.co_filename.rpartition('medchain/')[2]}:{place.tb_lineno}" if place is not None else "?"
        self.violate("stopped", f"node {node.index} raised {type(error).__name__} in {when} at {where}: {error}")

    def _tick(self, node: Node, incarnation: int) -> None:
        """Hand time in, again and again; a process that stands still is owed one tick only."""
        if node.incarnation != incarnation or node.state is NodeState.DOWN:
            return
        if node.state is NodeState.UP:
            self.push(node, Ticked(node.clock.monotonic_ms(self.now_us), node.clock.wall_ms(self.now_us)))
        self.after(self.plan.tick_ms * 1000, lambda: self._tick(node, incarnation))

    # ---- turns --------------------------------------------------------------------------------------------------------------

    def push(self, node: Node, event: Event) -> None:
        """Put an event into a living node's inbox."""
        if node.state is NodeState.DOWN or len(node.inbox) >= INBOX_EVENTS_MAX:
            return
        node.inbox.append(event)
        self._plan_turn(node)

    def _plan_turn(self, node: Node) -> None:
        if node.is_turn_due or node.writing is not None or node.state is not NodeState.UP or not node.inbox:
            return
        node.is_turn_due = True
        incarnation = node.incarnation
        self.after(self.plan.turn_us, lambda: self._turn(node, incarnation))

    def _turn(self, node: Node, incarnation: int) -> None:
        """One turn: many events, one Ready."""
        if node.incarnation != incarnation or node.state is NodeState.DOWN:
            return
        node.is_turn_due = False
        if node.state is NodeState.PAUSED or node.engine is None:
            return
        events, node.inbox = node.inbox, []
        node.inbox_longest = max(node.inbox_longest, len(events))
        self.tally.turns += 1
        try:
            ready = node.engine.handle_all(events)
        except Exception as error:
            self._stopped(node, "a turn", error)
            return
        if not ready.batch.operations and not ready.send and not ready.replies:
            return  # most turns are ticks after which nothing is due: no crash point is in them and nothing leaves the node
        node.writing = ready
        if ready.batch:
            self.after(node.sync_us, lambda: self._finish_turn(node, incarnation))
        else:
            self._finish_turn(node, incarnation)

    def _finish_turn(self, node: Node, incarnation: int) -> None:
        """The rest of a turn, when the write would be done: 1. durable 2. sends 3. replies, or death on the way."""
        if node.incarnation != incarnation or node.state is NodeState.DOWN or node.writing is None:
            return
        if node.state is NodeState.PAUSED:
            node.is_finish_due = True
            return
        ready = node.writing
        if ready.batch and self.now_us < node.full_until_us:
            self.kill_node(node, CrashPoint.DISK_FULL.value, FULL_RESTART_US)
            return
        crash = self._due_crash(node, ready)
        if crash is not None:
            self._die_in_turn(node, ready, crash)
            return
        node.writing = None
        self._write(node, ready.batch)
        frames = self._frames(node, ready.send)
        self._send(node, frames)
        self._tell(node, ready.batch, frames, ready)
        self._answer(node, ready)
        self._plan_turn(node)

    def _due_crash(self, node: Node, ready: Ready) -> faults.Crash | None:
        """Return the armed crash whose point this turn reaches."""
        for crash in node.armed:
            match crash.point:
                case CrashPoint.BETWEEN_SENDS:
                    is_reached = bool(ready.send)
                case CrashPoint.BEFORE_REPLIES:
                    is_reached = bool(ready.replies)
                case _:
                    is_reached = bool(ready.batch)
            if is_reached:
                node.armed.remove(crash)
                return crash
        return None

    def _die_in_turn(self, node: Node, ready: Ready, crash: faults.Crash) -> None:
        """Do as much of the turn as the crash lets happen, then die."""
        frames: list[tuple[int, PeerMessage, bytes]] = []
        batch = ready.batch
        replies_kept = Ready(batch=batch)
        match crash.point:
            case CrashPoint.BEFORE_WRITE | CrashPoint.DISK_FULL:
                batch = EMPTY_BATCH
            case CrashPoint.TORN_WRITE | CrashPoint.ANYWHERE:
                batch = EMPTY_BATCH
                record_bytes = len(encode_record(ready.batch))
                kept = record_bytes * crash.share_permille // 1000
                node.disk.tear(ready.batch, kept, crash.is_zero_filled)
                outcome = "none" if kept == 0 else "all" if kept == record_bytes else "part"
                self.tally.count(f"write torn: {outcome} kept" + (", zeros" if crash.is_zero_filled and kept < record_bytes else ""))
                self.trace.note(self.now_us, f"node {node.index} tears a write at {kept} of {record_bytes} bytes")
            case CrashPoint.AFTER_WRITE:
                self._write(node, batch)
            case CrashPoint.BETWEEN_SENDS:
                self._write(node, batch)
                frames = self._frames(node, ready.send)
                frames = frames[: len(frames) * crash.share_permille // 1000]
            case CrashPoint.BEFORE_REPLIES:
                self._write(node, batch)
                frames = self._frames(node, ready.send)
        self._send(node, frames)
        self._tell(node, batch, frames, replies_kept)
        self._crash(node, crash)

    def _write(self, node: Node, batch: WriteBatch) -> None:
        if not batch or node.store is None:
            return
        node.store.write(batch)
        for key, value in batch.operations:
            if key == layout.HEAD and value is not None:
                node.height = int.from_bytes(value[:8], "big")
                self.trace.note(self.now_us, f"node {node.index} decides {node.height} {value[8:14].hex()}")

    def _frames(self, node: Node, envelopes: tuple[Envelope, ...]) -> list[tuple[int, PeerMessage, bytes]]:
        """Return (peer, message, bytes) for every connected receiver, in order."""
        frames: list[tuple[int, PeerMessage, bytes]] = []
        if not envelopes:
            return frames
        connected = [peer for peer in range(self.plan.nodes) if self.wiring.is_up(node.index, peer)]
        for envelope in envelopes:
            data = encode_message(envelope.message)
            if envelope.to is None:
                frames += [(peer, envelope.message, data) for peer in connected]
            else:
                target = self._peers.get(envelope.to)
                if target in connected:
                    frames.append((target, envelope.message, data))
        return frames

    def _send(self, node: Node, frames: list[tuple[int, PeerMessage, bytes]]) -> None:
        for peer, message, data in frames:
            self.tally.messages += 1
            self.tally.bytes_sent += len(data)
            self._transmit((node.index, peer), data, type(message).__name__)

    def _transmit(self, link: Link, data: bytes, name: str) -> None:
        arrivals = self.network.send(self.now_us, link, data)
        if not arrivals:
            self.tally.count(name, "lost")
        self.trace.note(self.now_us, f"{link[0]}>{link[1]} {name} {len(data)} B x{len(arrivals)}", data)
        epoch, incarnation = self.wiring.epoch(*link), self.nodes[link[1]].incarnation
        for arrival_us in arrivals:
            self.at(arrival_us, lambda: self._deliver(link, epoch, incarnation, data))

    def _deliver(self, link: Link, epoch: int, incarnation: int, data: bytes) -> None:
        """A frame arrives, unless its connection or its receiver's process is gone."""
        source, target = link
        node = self.nodes[target]
        if node.incarnation != incarnation or self.wiring.epoch(source, target) != epoch or not self.wiring.is_up(target, source):
            return
        message = self._decoded.get(data)
        if message is None:
            try:
                message = decode_message(data)
            except Malformed as error:
                self.tally.count("messages malformed")
                if source not in self.workload.book.untrusted:
                    self.violate("stopped", f"node {source} sent what node {target} cannot read: {error.message}")
                return
            if len(self._decoded) >= DECODED_MAX:
                self._decoded.clear()
            self._decoded[data] = message
        self.push(node, Received(self.identities.consensus[source].public, message))

    def _tell(self, node: Node, batch: WriteBatch, frames: list[tuple[int, PeerMessage, bytes]], ready: Ready) -> None:
        """Tell the judge what left the node."""
        if node.store is None:
            return
        sent: list[PeerMessage] = []
        for _, message, _ in frames:
            if not sent or sent[-1] is not message:
                sent.append(message)
        self._judge.on_turn(Turn(self.now_us, node.index, node.store, batch, tuple(sent), ready.replies))

    def _answer(self, node: Node, ready: Ready) -> None:
        for reply in ready.replies:
            if isinstance(reply, Accepted | Refused):
                is_accepted = isinstance(reply, Accepted)
                self.trace.note(self.now_us, f"node {node.index} {'accepts' if is_accepted else 'refuses'} request {reply.request}")
                self.workload.answered(node.index, reply)

    # ---- clients ------------------------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        """A client hands a transaction to some living node, and the next one comes a while later."""
        if self.is_workload_over:
            return
        candidates = [node for node in self.nodes if node.state is NodeState.UP]
        count = self._dice.randint(1, self.plan.burst_max) if candidates and self._dice.randrange(4) == 0 else min(1, len(candidates))
        for _ in range(count):
            node = self._dice.choice(candidates)
            request, transaction = self.workload.next(node.height, self.now_us)
            self.trace.note(self.now_us, f"client submits {request} {transaction.id[:6].hex()} to {node.index}")
            self.push(node, Submitted(request, transaction))
        mean_us = self.plan.submit_interval_ms * 1000
        self.after(self._dice.randint(mean_us // 4, mean_us * 7 // 4), self._submit)

    # ---- connections --------------------------------------------------------------------------------------------------------

    def _check_wiring(self) -> None:
        """Ends notice dead connections, each in its own time; pairs that can, connect."""
        nodes = self.nodes
        for first in range(len(nodes)):
            for second in range(first + 1, len(nodes)):
                self._check_pair(nodes[first], nodes[second])
        self.after(WIRING_CHECK_US, self._check_wiring)

    def _check_pair(self, left: Node, right: Node) -> None:
        wiring = self.wiring
        is_open = not self.network.is_blocked((left.index, right.index)) and not self.network.is_blocked((right.index, left.index))
        both_up = wiring.is_up(left.index, right.index) and wiring.is_up(right.index, left.index)
        if both_up and is_open and left.state is not NodeState.DOWN and right.state is not NodeState.DOWN:
            return
        can_connect = is_open and left.state is NodeState.UP and right.state is NodeState.UP
        if can_connect and not both_up and self.now_us >= wiring.retry_at(left.index, right.index):
            self._connect(left, right)
            return
        for node, peer in ((left, right), (right, left)):
            if wiring.is_up(node.index, peer.index) and self._dice.randrange(8) == 0:
                self._disconnect(node.index, peer.index)

    def _connect(self, left: Node, right: Node) -> None:
        for node, peer in ((left, right), (right, left)):
            if self.wiring.is_up(node.index, peer.index):
                self._disconnect(node.index, peer.index)
        self.wiring.connect(left.index, right.index)
        self.trace.note(self.now_us, f"{left.index} and {right.index} connect")
        for node, peer in ((left, right), (right, left)):
            self.push(node, PeerConnected(self.identities.consensus[peer.index].public))

    def _drop_end(self, node: int, peer: int) -> None:
        self.wiring.drop_end(node, peer)
        self.network.forget_held((node, peer))
        self.network.forget_held((peer, node))

    def _disconnect(self, node: int, peer: int) -> None:
        """One end notices that its connection ended."""
        self._drop_end(node, peer)
        self.trace.note(self.now_us, f"{node} loses {peer}")
        self.push(self.nodes[node], PeerDisconnected(self.identities.consensus[peer].public))

    def _notice(self, node: int, peer: int, epoch: int) -> None:
        if self.wiring.is_up(node, peer) and self.wiring.epoch(node, peer) == epoch:
            self._disconnect(node, peer)

    # ---- faults -------------------------------------------------------------------------------------------------------------

    def _act(self, action: Action) -> None:
        """Let a planned fault happen."""
        if self.is_healed:
            return
        self.trace.note(self.now_us, f"fault {action}")
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
                self._flap(action.first, action.second)
            case faults.ClockJump():
                self.nodes[action.node].clock.jump(action.delta_ms)
                self.tally.count("clock jump")
            case faults.SlowDisk():
                self._slow_disk(self.nodes[action.node], action)
            case faults.FullDisk():
                self.tally.count("full disk")
                self.nodes[action.node].full_until_us = self.now_us + action.for_ms * 1000

    def _begin_crash(self, crash: faults.Crash) -> None:
        node = self.nodes[crash.node]
        if node.state is NodeState.DOWN:
            return
        if crash.point is CrashPoint.ANYWHERE:
            self._crash_now(node, crash)
        else:
            node.armed.append(crash)
            self.after(ARMED_US, lambda: self._give_up(node, crash))

    def _give_up(self, node: Node, crash: faults.Crash) -> None:
        if crash in node.armed and node.state is not NodeState.DOWN:
            node.armed.remove(crash)
            self._crash_now(node, replace(crash, point=CrashPoint.ANYWHERE))

    def _crash_now(self, node: Node, crash: faults.Crash) -> None:
        if node.writing is not None and node.writing.batch:
            self._die_in_turn(node, node.writing, crash)
        else:
            self._crash(node, crash)

    def _pause(self, node: Node, for_us: int) -> None:
        if node.state is not NodeState.UP:
            return
        self.tally.count("pause")
        node.state = NodeState.PAUSED
        incarnation = node.incarnation
        self.after(for_us, lambda: self._resume(node, incarnation))

    def _resume(self, node: Node, incarnation: int) -> None:
        if node.incarnation != incarnation or node.state is not NodeState.PAUSED:
            return
        self.trace.note(self.now_us, f"node {node.index} goes on")
        node.state = NodeState.UP
        if node.is_finish_due:
            node.is_finish_due = False
            self._finish_turn(node, incarnation)
        self._plan_turn(node)

    def _partition(self, action: faults.Partition) -> None:
        self.tally.count(action.shape, "partitions")
        self.network.block(action.links, action.is_holding)
        self.after(action.for_ms * 1000, lambda: self._unblock(action))

    def _unblock(self, action: faults.Partition) -> None:
        if not self.is_healed:
            self.trace.note(self.now_us, f"{action.shape} ends")
            self._release(self.network.unblock(action.links, action.is_holding))

    def _release(self, held: list[tuple[Link, bytes]]) -> None:
        for link, data in held:
            if self.wiring.is_up(*link):
                self._transmit(link, data, "held")

    def _flap(self, first: int, second: int) -> None:
        self.tally.count("flap")
        self.wiring.postpone(first, second, self.now_us + self._dice.randint(50_000, 600_000))
        epoch = self.wiring.epoch(first, second)
        for node, peer in ((first, second), (second, first)):
            self.after(self._dice.randrange(30_000), lambda node=node, peer=peer: self._notice(node, peer, epoch))  # type: ignore[misc]

    def _slow_disk(self, node: Node, action: faults.SlowDisk) -> None:
        self.tally.count("slow disk")
        node.sync_us = action.sync_us
        self.after(action.for_ms * 1000, lambda: setattr(node, "sync_us", self.plan.sync_us))

    def heal(self) -> None:
        """End every fault: all nodes run, all links carry, disks are as fast as planned. Clocks stay as wrong as they are."""
        self.trace.note(self.now_us, "everything heals")
        self.is_healed = True
        for node in self.nodes:
            node.armed.clear()
            node.full_until_us = 0
            node.sync_us = self.plan.sync_us
            if node.state is NodeState.PAUSED:
                self._resume(node, node.incarnation)
            if node.state is NodeState.DOWN:
                self.start_node(node)
        self._release(self.network.heal())
