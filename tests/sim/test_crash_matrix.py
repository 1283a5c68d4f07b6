"""Crashes in a matrix: where in a turn the process dies, in which role the node is, and what the turn says or decides.

Every cell must really be reached: the process dies in the first turn that fits, at the point, and is started again on what the disk then
holds. The judges of the simulator look at the rest: no double promise, nothing accepted lost or doubled, and progress after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from medchain.chain.vote import COMMIT, PREPARE, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.engine.ready import Accepted, Ready
from medchain.sim import faults, run, world
from medchain.sim.faults import Action, Crash, CrashPoint, Partition, quiet_plan
from medchain.sim.network import Weather, links_between
from medchain.sim.node import Node
from medchain.sim.report import SeedReport
from medchain.sim.scene import Scene
from medchain.sim.turns import Turns
from medchain.store import layout
from tests.sim.probes import told

pytestmark = pytest.mark.sim

POINTS = [
    (CrashPoint.BEFORE_WRITE, 0),
    (CrashPoint.TORN_WRITE, 500),
    (CrashPoint.TORN_WRITE, 1000),
    (CrashPoint.AFTER_WRITE, 0),
    (CrashPoint.BETWEEN_SENDS, 500),
    (CrashPoint.BEFORE_REPLIES, 0),
    (CrashPoint.DISK_FULL, 0),
]
"""(point, share in thousandths): a torn write leaves half of its record or all of it, and then nobody was told."""
ROLES = ("primary", "backup", "new primary", "catching-up node")
PHASES = ("pre-prepare", "prepare", "commit", "decision", "view change", "pool accept")
IMPOSSIBLE = {
    ("primary", "prepare"): "its prepare travels in its pre-prepare",
    ("new primary", "prepare"): "its prepare travels in its pre-prepare",
    ("backup", "pre-prepare"): "who proposes is the primary",
}
CELLS = [(role, phase) for role in ROLES for phase in PHASES if (role, phase) not in IMPOSSIBLE]
VICTIM, DEAD = 2, 3


@dataclass
class Cell:
    """What is waited for, and whether it came."""

    role: str
    phase: str
    point: CrashPoint
    share: int
    leaders: dict[tuple[int, int], int] = field(default_factory=dict)
    """(height, view) → who proposed in it."""
    was_behind: set[int] = field(default_factory=set)
    reached: list[str] = field(default_factory=list)

    def look(self, scene: Scene, node: Node, ready: Ready) -> bool:
        """Look at a turn before it is written; answer whether the process dies in it."""
        for envelope in ready.send:
            message = envelope.message
            if isinstance(message, PrePrepare) and message.prepare.signer == key_of(scene, node):
                self.leaders[message.height, message.view] = node.index
        is_behind = max(other.height for other in scene.nodes) - node.height >= 2
        if is_behind:
            self.was_behind.add(node.index)
        if self.reached or scene.timeline.now_us < 250_000:
            return False
        place = self.place_of_phase(scene, node, ready)
        if place is None or self.role_of(node, *place, is_behind=is_behind) != self.role:
            return False
        self.reached.append(f"node {node.index} at height {place[0]} view {place[1]}")
        return True

    def place_of_phase(self, scene: Scene, node: Node, ready: Ready) -> tuple[int, int] | None:
        """Return (height, view) of what this turn does, if it is the phase waited for."""
        key = key_of(scene, node)
        own = [envelope.message for envelope in ready.send if getattr(envelope.message, "signer", key) == key]
        match self.phase:
            case "pre-prepare":
                found = [m for m in own if isinstance(m, PrePrepare) and m.prepare.signer == key]
            case "prepare" | "commit":
                kind = PREPARE if self.phase == "prepare" else COMMIT
                found = [m for m in own if isinstance(m, Vote) and m.kind == kind]
            case "view change":
                found = [m for m in own if isinstance(m, ViewChange)]
            case "decision":
                heads = [value for key, value in ready.batch.operations if key == layout.HEAD and value is not None]
                height = int.from_bytes(heads[-1][:8], "big") if heads else 0
                return (height, self.newest_view(height)) if heads else None
            case _:
                is_accepting = any(isinstance(reply, Accepted) and not reply.is_duplicate for reply in ready.replies)
                status = node.engine.status()["agreement"]  # type: ignore[union-attr]
                return (status["height"], status["view"]) if is_accepting else None
        is_new = bool(ready.batch)  # what is resent is no new promise
        return (found[-1].height, found[-1].view) if found and is_new else None

    def newest_view(self, height: int) -> int:
        return max([view for led, view in self.leaders if led == height], default=0)

    def role_of(self, node: Node, height: int, view: int, *, is_behind: bool) -> str:
        """Return the role a node plays at (height, view); whoever was behind is catching up until its first such turn."""
        if is_behind or (node.index in self.was_behind and self.role == "catching-up node"):
            return "catching-up node"
        if self.phase == "view change":
            # the one who leads the view that is left, or the one who will lead the next
            if self.leaders.get((height, view - 1)) == node.index:
                return "primary" if view == 1 else "new primary"
            return "new primary" if leads(node, view) else "backup"
        if self.leaders.get((height, view)) == node.index or (self.phase == "pool accept" and leads(node, view)):
            return "primary" if view == 0 else "new primary"
        return "backup" if view == 0 or self.phase != "pool accept" else "another view"


def key_of(scene: Scene, node: Node) -> bytes:
    return scene.identities.consensus[node.index].public


def leads(node: Node, view: int) -> bool:
    """Answer whether a node leads the present height in the view it stands in."""
    status = node.engine.status()  # type: ignore[union-attr]
    agreement = status["agreement"]
    return agreement["view"] == view and agreement["primary"] == status["consensus_key"].hex()


def scenario(role: str, phase: str, nodes: int) -> Sequence[Action]:
    """What must go wrong for the cell to be reached."""
    if role == "catching-up node":
        others = tuple(node for node in range(nodes) if node != VICTIM)
        for_ms = 2_200 if phase == "view change" else 800
        return [Partition(250, for_ms, "alone", links_between((VICTIM,), others), is_holding=False)]
    if (role, phase) == ("primary", "view change"):
        links = tuple((one, other) for one in range(nodes) for other in range(nodes) if one != other)
        return [Partition(300, 700, "everyone alone", links, is_holding=False)]
    if role == "new primary" or phase == "view change":
        return [Crash(200, DEAD, CrashPoint.ANYWHERE, 60_000)]
    return []


def run_cell(cell: Cell, seed: int, nodes: int = 4) -> SeedReport:
    """Run one cell."""

    class ArmedTurns(Turns):
        def __init__(self, scene: Scene, *rest: Any) -> None:
            super().__init__(scene, *rest)
            self.scene = scene

        def _due_crash(self, node: Node, ready: Ready) -> faults.Crash | None:
            planned = super()._due_crash(node, ready)
            if planned is None and cell.look(self.scene, node, ready):
                return Crash(0, node.index, cell.point, 60, cell.share)
            return planned

    safety_ms = 2_700 if cell.phase == "view change" else 1_700 if cell.role == "catching-up node" else 1_200
    plan = quiet_plan(seed, nodes, safety_ms=safety_ms, submit_interval_ms=30)
    if (cell.role, cell.phase) == ("new primary", "pool accept"):  # a later view lasts longer on slow links, and somebody submits in it
        plan = replace(plan, safety_ms=2_000, submit_interval_ms=15, weather=Weather(delay_min_us=30_000, delay_max_us=45_000))
    plan = plan.with_actions(*scenario(cell.role, cell.phase, nodes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "Turns", ArmedTurns)
        return run.run_plan(plan, heights_min=10)


@pytest.mark.parametrize(("role", "phase"), CELLS)
def test_no_durable_vote_and_a_restart_signs_twice_besu_plenum(role: str, phase: str) -> None:
    """A crash before, in and after every write of this role in this phase."""
    for seed, (point, share) in enumerate(POINTS):
        for attempt in range(4):  # where the cell is rare, some seeds miss it
            cell = Cell(role, phase, point, share)
            report = run_cell(cell, seed + 100 * attempt)
            if cell.reached:
                break
        assert cell.reached, f"{point.value}: no {role} came to its {phase}"
        assert not report.violations, f"{point.value} {cell.reached}: {told(report)}"
        assert report.crashes[point.value] == 1
        assert report.decided == report.accepted


@pytest.mark.long
@pytest.mark.parametrize(("role", "phase"), CELLS)
@pytest.mark.parametrize("nodes", [4, 5, 7])
def test_no_durable_vote_and_a_restart_signs_twice_over_many_seeds(nodes: int, role: str, phase: str) -> None:
    for seed in range(20):
        for point, share in POINTS:
            cell = Cell(role, phase, point, share)
            report = run_cell(cell, seed, nodes)
            assert not report.violations, f"seed {seed} {point.value} {cell.reached}: {told(report)}"
