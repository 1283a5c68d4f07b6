"""What the simulator's tests share: a network's keys, a panel to try, and a toy engine that only counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from medchain.chain.certificate import Certificate
from medchain.chain.parameters import Parameters
from medchain.chain.vote import COMMIT, Vote
from medchain.engine.ready import Envelope, Event, Ready, Received, Reply, Ticked
from medchain.sim.checkers.case import Case
from medchain.sim.checkers.panel import Panel
from medchain.sim.faults import Plan
from medchain.sim.identity import Identities, SigningOrder, make_identities
from medchain.sim.node import EngineBuilder, EngineLike, Start, Turn, Violation
from medchain.sim.trace import Trace
from medchain.sim.workload import Workload
from medchain.sim.world import World
from medchain.store.keyvalue import EMPTY_BATCH, KeyValue, WriteBatch
from medchain.store.memory import MemoryKeyValue
from medchain.wire.peer import PeerMessage, PeerStatus


@dataclass
class Trial:
    """A network on trial, fed by hand."""

    identities: Identities
    case: Case
    panel: Panel
    workload: Workload

    def turn(
        self,
        *sent: PeerMessage,
        node: int = 0,
        batch: WriteBatch = EMPTY_BATCH,
        replies: tuple[Reply, ...] = (),
        store: KeyValue | None = None,
    ) -> None:
        self.panel.on_turn(Turn(0, node, store if store is not None else MemoryKeyValue(), batch, sent, replies))

    def vote(self, node: int, kind: int, height: int, view: int, digest: bytes) -> Vote:
        return Vote.sign(self.case.network, self.identities.consensus[node], kind, height, view, digest)

    def certificate(self, height: int, digest: bytes, view: int = 0, nodes: Sequence[int] = (0, 1, 2)) -> Certificate:
        votes = [(node, self.vote(node, COMMIT, height, view, digest).signature) for node in nodes]
        return Certificate(height, view, digest, tuple(votes))

    def found(self, checker: str) -> list[str]:
        return [finding.message for finding in self.case.findings if finding.checker == checker]


@pytest.fixture
def trial() -> Trial:
    signing = SigningOrder()
    identities = make_identities(1, 4, Parameters(state_buckets=64), signing)
    workload = Workload(1, identities, 50, 0)
    case = Case(identities.genesis, signing)
    return Trial(identities, case, Panel(case, workload.book), workload)


@dataclass
class ToyEngine:
    """Counts ticks durably and tells everyone the count: enough to see what a world does to an engine."""

    start: Start
    ticks: int = 0
    heard: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        stored = self.start.store.get(b"count")
        self.ticks = 0 if stored is None else int.from_bytes(stored, "big")

    def handle_all(self, events: Sequence[Event]) -> Ready:
        ticks = sum(isinstance(event, Ticked) for event in events)
        self.heard += [
            event.message.height for event in events if isinstance(event, Received) and isinstance(event.message, PeerStatus)
        ]
        if not ticks:
            return Ready()
        self.ticks += ticks
        batch = WriteBatch.of((b"count", self.ticks.to_bytes(8, "big")))
        return Ready(batch=batch, send=(Envelope(None, PeerStatus(self.ticks, bytes(32))),))


class Watch:
    """A judge that only remembers."""

    def __init__(self) -> None:
        self.findings: list[Violation] = []
        self.turns: list[Turn] = []

    def on_turn(self, turn: Turn) -> None:
        self.turns.append(turn)


def toy_engine(start: Start) -> EngineLike:
    return ToyEngine(start)


MakeWorld = Callable[..., tuple[World, Watch]]


@pytest.fixture
def make_world() -> MakeWorld:
    def make(plan: Plan, builder: EngineBuilder = toy_engine) -> tuple[World, Watch]:
        identities = make_identities(plan.seed, plan.nodes, plan.parameters, SigningOrder())
        workload = Workload(plan.seed, identities, plan.valid_for_blocks, plan.resubmit_permille)
        watch = Watch()
        return World(plan, identities, builder, EMPTY_BATCH, workload, watch, Trace(is_text_kept=True)), watch

    return make
