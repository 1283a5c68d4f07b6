"""Turns: the one loop of house.md for every pretended process, inbox → handle_all → write → send → answer, and death on any step of it.

Also what lies between two turns: frames on links, and their arrival in an inbox. Knows no fault but the crash that is armed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from medchain.engine.ready import Accepted, Envelope, Event, Ready, Received, Refused
from medchain.errors import Malformed
from medchain.sim.disk import encode_record
from medchain.sim.faults import Crash, CrashPoint
from medchain.sim.network import Link
from medchain.sim.node import Node, NodeState, Turn, Violation, Worker
from medchain.sim.scene import Scene
from medchain.store import layout
from medchain.store.keyvalue import EMPTY_BATCH, WriteBatch
from medchain.wire.peer import PeerMessage, decode_message, encode_message

INBOX_EVENTS_MAX: Final = 20_000
"""Events that wait for a paused process; its sockets' buffers are finite too."""
DECODED_MAX: Final = 4_096
"""Decoded messages remembered: a broadcast is decoded once for all its receivers."""
FULL_RESTART_US: Final = 150_000
"""How soon a process that ended because its disk was full is started again."""


class Judge(Protocol):
    """Sees what leaves the nodes while the world runs, and keeps the list of violations; a world with one in it stands still."""

    @property
    def findings(self) -> list[Violation]:
        """Violations so far; the world adds those that only it can see."""
        ...

    def on_turn(self, turn: Turn) -> None:
        """Look at a turn."""
        ...


class Turns:
    """Drives every engine through its turns."""

    def __init__(
        self, scene: Scene, judge: Judge, kill: Callable[[Node, str, int | None], None], crash: Callable[[Node, Crash], None]
    ) -> None:
        """`kill` ends a process (its name for the count, and how long it is down); `crash` ends it as planned, disk included."""
        self._plan = scene.plan
        self._identities = scene.identities
        self._workload = scene.workload
        self._timeline = scene.timeline
        self._network = scene.network
        self._wiring = scene.wiring
        self._tally = scene.tally
        self._nodes = scene.nodes
        self._judge = judge
        self._kill = kill
        self._crash = crash
        self._decoded: dict[bytes, PeerMessage] = {}
        self._peers = {key.public: index for index, key in enumerate(scene.identities.consensus)}

    def push(self, node: Node, event: Event) -> None:
        """Put an event into a living node's inbox."""
        if node.state is NodeState.DOWN or len(node.inbox) >= INBOX_EVENTS_MAX:
            return
        node.inbox.append(event)
        self.plan_turn(node)

    def plan_turn(self, node: Node) -> None:
        """Let a node take what is in its inbox a moment from now, unless it will anyway."""
        if node.is_turn_due or node.writing is not None or node.state is not NodeState.UP:
            return
        if not node.inbox and not node.is_tick_owed:
            return
        node.is_turn_due = True
        incarnation = node.incarnation
        self._timeline.after(self._plan.turn_us, lambda: self._turn(node, incarnation))

    def _turn(self, node: Node, incarnation: int) -> None:
        """One turn: many events, one Ready."""
        if node.incarnation != incarnation or node.state is NodeState.DOWN:
            return
        node.is_turn_due = False
        if node.state is NodeState.PAUSED or node.engine is None:
            return
        events, node.inbox = node.inbox, []
        if node.is_tick_owed:
            node.is_tick_owed = False
            events.insert(0, node.clock.tick(self._timeline.now_us))
        node.inbox_longest = max(node.inbox_longest, len(events))
        self._tally.turns += 1
        try:
            ready = node.engine.handle_all(events)
        except Exception as error:
            self.stopped(node, "a turn", error)
            return
        if not ready.batch.operations and not ready.send and not ready.replies:
            return  # most turns are ticks after which nothing is due: no crash point is in them and nothing leaves the node
        node.writing = ready
        busy_us = node.unit_us * self._executed(node)
        if ready.batch or busy_us:
            self._timeline.after(busy_us + (node.sync_us if ready.batch else 0), lambda: self.finish(node, incarnation))
        else:
            self.finish(node, incarnation)

    def _executed(self, node: Node) -> int:
        """Return how much a node executed since this was asked last."""
        if not isinstance(node.engine, Worker):
            return 0
        done, node.executed_weight = node.engine.executed_weight - node.executed_weight, node.engine.executed_weight
        return done

    def finish(self, node: Node, incarnation: int) -> None:
        """The rest of a turn, when the write would be done: 1. durable 2. sends 3. replies, or death on the way."""
        if node.incarnation != incarnation or node.state is NodeState.DOWN or node.writing is None:
            return
        if node.state is NodeState.PAUSED:
            node.is_finish_due = True
            return
        ready = node.writing
        if ready.batch and self._timeline.now_us < node.full_until_us:
            self._kill(node, CrashPoint.DISK_FULL.value, FULL_RESTART_US)
            return
        crash = self._due_crash(node, ready)
        if crash is not None:
            self.die(node, ready, crash)
            return
        node.writing = None
        self._write(node, ready.batch)
        frames = self._frames(node, ready.send)
        self._send(node, frames)
        self._tell(node, ready.batch, frames, ready)
        self._answer(node, ready)
        self.plan_turn(node)

    def _due_crash(self, node: Node, ready: Ready) -> Crash | None:
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

    def die(self, node: Node, ready: Ready, crash: Crash) -> None:
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
                self._tally.count(f"write torn: {outcome} kept" + (", zeros" if crash.is_zero_filled and kept < record_bytes else ""))
                self._timeline.note(f"node {node.index} tears a write at {kept} of {record_bytes} bytes")
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
                self._timeline.note(f"node {node.index} decides {node.height} {value[8:14].hex()}")

    def _frames(self, node: Node, envelopes: tuple[Envelope, ...]) -> list[tuple[int, PeerMessage, bytes]]:
        """Return (peer, message, bytes) for every connected receiver, in order."""
        frames: list[tuple[int, PeerMessage, bytes]] = []
        if not envelopes:
            return frames
        connected = [peer for peer in range(self._plan.nodes) if self._wiring.is_up(node.index, peer)]
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
            self._tally.messages += 1
            self._tally.bytes_sent += len(data)
            self.transmit((node.index, peer), data, type(message).__name__)

    def transmit(self, link: Link, data: bytes, name: str) -> None:
        """Put a message on a link."""
        arrivals = self._network.send(self._timeline.now_us, link, data)
        if not arrivals:
            self._tally.count(name, "lost")
        self._timeline.note(f"{link[0]}>{link[1]} {name} {len(data)} B x{len(arrivals)}", data)
        epoch, incarnation = self._wiring.epoch(*link), self._nodes[link[1]].incarnation
        for arrival_us in arrivals:
            self._timeline.at(arrival_us, lambda: self._deliver(link, epoch, incarnation, data))

    def _deliver(self, link: Link, epoch: int, incarnation: int, data: bytes) -> None:
        """A frame arrives, unless its connection or its receiver's process is gone."""
        source, target = link
        node = self._nodes[target]
        if node.incarnation != incarnation or self._wiring.epoch(source, target) != epoch or not self._wiring.is_up(target, source):
            return
        message = self._decoded.get(data)
        if message is None:
            try:
                message = decode_message(data)
            except Malformed as error:
                self._tally.count("messages malformed")
                if source not in self._workload.book.untrusted:
                    self._timeline.violate("stopped", f"node {source} sent what node {target} cannot read: {error.message}")
                return
            if len(self._decoded) >= DECODED_MAX:
                self._decoded.clear()
            self._decoded[data] = message
        self.push(node, Received(self._identities.consensus[source].public, message))

    def _tell(self, node: Node, batch: WriteBatch, frames: list[tuple[int, PeerMessage, bytes]], ready: Ready) -> None:
        """Tell the judge what left the node."""
        if node.store is None:
            return
        sent: list[PeerMessage] = []
        for _, message, _ in frames:
            if not sent or sent[-1] is not message:
                sent.append(message)
        self._judge.on_turn(Turn(self._timeline.now_us, node.index, node.store, batch, tuple(sent), ready.replies))

    def _answer(self, node: Node, ready: Ready) -> None:
        for reply in ready.replies:
            if isinstance(reply, Accepted | Refused):
                is_accepted = isinstance(reply, Accepted)
                self._timeline.note(f"node {node.index} {'accepts' if is_accepted else 'refuses'} request {reply.request}")
                self._workload.answered(node.index, reply)

    def stopped(self, node: Node, when: str, error: Exception) -> None:
        """An engine raised: always a violation, whatever it is."""
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{place.tb_frame.f_code.co_filename.rpartition('medchain/')[2]}:{place.tb_lineno}" if place is not None else "?"
        self._timeline.violate("stopped", f"node {node.index} raised {type(error).__name__} in {when} at {where}: {error}")
