"""Probes for named scenarios: what each node heard, said and decided, and when; and places to put a lie between a node and the world."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from medchain.chain.vote import ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.engine.ready import BlockDecided, Envelope, Event, PeerAccused, Ready, Submitted, Ticked
from medchain.sim import run
from medchain.sim.clocks import EPOCH_MS
from medchain.sim.faults import Plan
from medchain.sim.node import EngineBuilder, EngineLike, Start, Worker
from medchain.sim.report import SeedReport

Hear = Callable[[Start, Sequence[Event]], Sequence[Event]]
Say = Callable[[Start, Ready], Ready]
SCRIPTED = "scripted"
"""The kind of liar whose lies stand in a probe."""


@dataclass(frozen=True)
class Decision:
    """A height that a node decided, by its own clock since the world began."""

    node: int
    height: int
    digest: bytes
    at_ms: int


@dataclass
class Probe:
    """Put around every engine of a world with `run_plan(plan, wrap=probe.wrap)`. `hear` and `say` change what goes in and out of a node."""

    hear: Hear = lambda start, events: events
    say: Say = lambda start, ready: ready
    engines: dict[int, EngineLike] = field(default_factory=dict)
    """The newest engine of each node."""
    keys: dict[int, bytes] = field(default_factory=dict)
    """Consensus key of each node."""
    starts: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    decisions: list[Decision] = field(default_factory=list)
    said: list[tuple[int, Envelope]] = field(default_factory=list)
    """(node, envelope) of everything said, lies included, also what the world then did not carry."""
    accusations: list[tuple[int, bytes, str]] = field(default_factory=list)
    """(who accuses, whom, of what)."""

    def wrap(self, builder: EngineBuilder) -> EngineBuilder:
        """Return a builder whose engines are watched."""

        def build(start: Start) -> EngineLike:
            engine = self.engines[start.node] = builder(start)
            self.keys[start.node] = start.key.public
            self.starts[start.node] += 1
            return _Watched(self, start, engine)

        return build

    def votes(self, node: int) -> list[Vote | ViewChange]:
        """Return the own votes and view changes that a node said, those inside pre-prepares too; not what it passed on."""
        found: list[Vote | ViewChange] = []
        for speaker, envelope in self.said:
            message = envelope.message
            if speaker == node and isinstance(message, Vote | ViewChange | PrePrepare):
                found.append(message.prepare if isinstance(message, PrePrepare) else message)
        return [vote for vote in found if vote.signer == self.keys[node]]

    def heights(self, first_ms: int, last_ms: int, among: Sequence[int]) -> dict[int, int]:
        """Return how many heights each of these nodes decided in a stretch of time."""
        counts = dict.fromkeys(among, 0)
        for decision in self.decisions:
            if decision.node in counts and first_ms <= decision.at_ms < last_ms:
                counts[decision.node] += 1
        return counts

    def longest_pause_ms(self, first_ms: int, last_ms: int) -> int:
        """Return the longest time in which nobody decided anything new."""
        seen: dict[int, int] = {}
        for decision in self.decisions:
            seen.setdefault(decision.height, decision.at_ms)
        moments = sorted([first_ms, *[at_ms for at_ms in seen.values() if first_ms <= at_ms < last_ms], last_ms])
        return max(later - earlier for earlier, later in itertools.pairwise(moments))


class _Watched:
    """One engine with its probe."""

    def __init__(self, probe: Probe, start: Start, engine: EngineLike) -> None:
        self._probe = probe
        self._start = start
        self._engine = engine
        self._now_ms = 0

    @property
    def executed_weight(self) -> int:
        """What the world asks to let executing take time."""
        return self._engine.executed_weight if isinstance(self._engine, Worker) else 0

    def handle_all(self, events: Sequence[Event]) -> Ready:
        probe, start = self._probe, self._start
        for event in events:
            if isinstance(event, Ticked):
                self._now_ms = event.wall_ms - EPOCH_MS
        ready = probe.say(start, self._engine.handle_all(probe.hear(start, events)))
        probe.said += [(start.node, envelope) for envelope in ready.send]
        for reply in ready.replies:
            if isinstance(reply, BlockDecided):
                probe.decisions.append(Decision(start.node, reply.height, reply.digest, self._now_ms))
            elif isinstance(reply, PeerAccused):
                probe.accusations.append((start.node, reply.peer, reply.reason))
        return ready


def run_scripted(plan: Plan, probe: Probe, liars: Iterable[int], heights_min: int = 20) -> SeedReport:
    """Run a world in which these nodes lie as the probe's script says; everyone else is judged as always."""
    scripted = replace(plan, liars=tuple((node, SCRIPTED) for node in sorted(liars)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "liar_maker", lambda *facts: lambda start, builder: builder(start))
        return run.run_plan(scripted, wrap=probe.wrap, heights_min=heights_min)


def without_clients(start: Start, events: Sequence[Event]) -> Sequence[Event]:
    """A `hear` under which no client ever submits anything."""
    return [event for event in events if not isinstance(event, Submitted)]


def changed(ready: Ready, change: Callable[[Envelope], Sequence[Envelope]]) -> Ready:
    """Return a Ready with each envelope replaced by what `change` makes of it."""
    return replace(ready, send=tuple([new for envelope in ready.send for new in change(envelope)]))


def told(report: SeedReport) -> str:
    """Return the violations of a report in words, for the message of an assertion."""
    return "\n".join(str(violation) for violation in report.violations)
