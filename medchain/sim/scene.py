"""The scene: what all parts of a world share, and the counts of what happened in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from medchain.sim.faults import Plan
from medchain.sim.identity import Identities
from medchain.sim.network import Network, Wiring
from medchain.sim.node import Node
from medchain.sim.timeline import Timeline
from medchain.sim.workload import Workload


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


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything of a world that is not a rule of it."""

    plan: Plan
    identities: Identities
    workload: Workload
    timeline: Timeline
    network: Network
    wiring: Wiring
    tally: Tally
    nodes: list[Node]
