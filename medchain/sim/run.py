"""Running seeds: one seed to a report, many seeds to a summary. Pure: printing, processes and time are the command's business."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from medchain.sim.checkers.case import Case, Ending
from medchain.sim.checkers.panel import Panel
from medchain.sim.checkers.progress import Progress
from medchain.sim.engines import founding_batch, real_engines
from medchain.sim.faults import ClockJump, Plan, draw_plan
from medchain.sim.identity import SigningOrder, make_identities
from medchain.sim.liars.kinds import AND
from medchain.sim.liars.roster import liar_maker, with_liars
from medchain.sim.node import EngineBuilder
from medchain.sim.report import HEIGHTS_MIN, SeedReport
from medchain.sim.trace import Trace
from medchain.sim.workload import Workload
from medchain.sim.world import World

DRIFT_MARGIN_MS: Final = 1_000
"""What drifting clocks gain in the longest worlds."""


@dataclass(frozen=True, slots=True)
class SeedOptions:
    """How seeds are run."""

    nodes: int | None = None
    """None: the seed decides (4 to 10)."""
    is_text_kept: bool = False
    """Keep the text of the trace."""
    has_liars: bool | None = None
    """None: the seed decides; True: at least one node lies, however the seed would decide."""

    def words(self) -> str:
        """Return the options of the command line that mean this."""
        return ("" if self.nodes is None else f" --nodes {self.nodes}") + (" --liars" if self.has_liars else "")


def plan_of(seed: int, options: SeedOptions) -> Plan:
    """Return the plan of a seed under these options."""
    return draw_plan(seed, options.nodes, options.has_liars)


def run_seed(seed: int, options: SeedOptions | None = None) -> SeedReport:
    """Run one seed from its plan to its verdict."""
    chosen = options or SeedOptions()
    report = run_plan(plan_of(seed, chosen), is_text_kept=chosen.is_text_kept)
    return replace(report, replay=f"medchain sim run --seed {seed}{chosen.words()} --trace")


def run_plan(
    plan: Plan,
    *,
    is_text_kept: bool = False,
    faulty: frozenset[int] | None = None,
    wrap: Callable[[EngineBuilder], EngineBuilder] | None = None,
    heights_min: int = HEIGHTS_MIN,
) -> SeedReport:
    """Run a world to its end: faults, healing, rest, last questions.

    `wrap` may put mutants in the place of all engines; `faulty` names the nodes besides the liars whose votes promise nothing (None: those
    whose disks forget).
    """
    signing = SigningOrder()
    identities = make_identities(plan.seed, plan.nodes, plan.parameters, signing)
    founding = founding_batch(identities.genesis)
    lying = plan.liar_nodes
    workload = Workload(plan.seed, identities, plan.valid_for_blocks, plan.resubmit_permille, plan.batch_permille, plan.batch_max)
    workload.book.untrusted = lying
    case = Case(
        identities.genesis,
        signing,
        faulty=lying | (plan.forgetful if faulty is None else faulty),
        liars=lying,
        forgetful=plan.forgetful,
        latest_clock_ms=latest_clock_ms(plan),
    )
    panel = Panel(case, workload.book)
    builder = real_engines(identities.genesis, plan.pool_bytes_max, signing)
    builder = wrap(builder) if wrap else builder
    accomplices = frozenset([identities.consensus[node].public for node in lying])
    builder = with_liars(builder, {node: liar_maker(kind, founding, accomplices, workload.keys()) for node, kind in plan.liars})
    trace = Trace(is_text_kept)
    world = World(plan, identities, builder, founding, workload, panel, trace)
    world.run_until(plan.safety_ms * 1000)
    progress = Progress(world, lying)
    is_at_rest = False
    if not case.findings:
        world.heal()
        is_at_rest = progress.demand(heights_min)
    case.now_us = world.now_us
    panel.on_end(Ending(tuple([node.disk.open() for node in world.nodes]), workload.book.accepted, is_at_rest))
    return _report(world, panel, progress, trace)


def latest_clock_ms(plan: Plan) -> int:
    """Return how far ahead of the true time an honest node with a clock that is not off may let a fresh block be."""
    ahead = [max(0, offset_ms) for node, offset_ms in enumerate(plan.clock_offsets_ms) if node not in plan.off_clocks]
    clocks = list(plan.clock_offsets_ms)
    for action in plan.actions:
        if isinstance(action, ClockJump) and action.node not in plan.off_clocks:
            clocks[action.node] += action.delta_ms
            ahead.append(clocks[action.node])
    return max(ahead, default=0) + plan.parameters.clock_bound_ms + DRIFT_MARGIN_MS


def _report(world: World, panel: Panel, progress: Progress, trace: Trace) -> SeedReport:
    book, network, plan = world.workload.book, world.network, world.plan
    seen = dict(world.tally.faults)
    kinds = [name for _, kind in plan.liars for name in kind.split(AND)]
    if plan.off_clocks:
        seen["clock off"] = len(plan.off_clocks)
    for name, count in (
        ("messages lost", network.lost),
        ("messages doubled", network.doubled),
        ("messages reordered", network.reordered),
        ("messages held", network.held_count),
        ("evidence recorded", panel.evidence.recorded),
    ):
        if count:
            seen[name] = count
    return SeedReport(
        seed=world.plan.seed,
        nodes=world.plan.nodes,
        violations=tuple(panel.findings),
        heights=max(node.height for node in world.nodes),
        crashes=world.tally.crashes,
        partitions=world.tally.partitions,
        faults=seen,
        liars={name: kinds.count(name) for name in sorted(set(kinds))},
        lost=world.tally.lost,
        view_changes=panel.promises.view_changes,
        highest_view=panel.promises.highest_view,
        submitted=book.submitted,
        batches=book.batches,
        batched=book.batched,
        accepted=len(book.accepted),
        decided=panel.durability.decided,
        batched_decided=panel.durability.batched_decided,
        batches_split=panel.durability.batches_split,
        expired=panel.durability.expired,
        refusals=book.refusals,
        recovery_ms=progress.recovery_ms,
        virtual_ms=world.now_us // 1000,
        turns=world.tally.turns,
        messages=world.tally.messages,
        bytes_sent=world.tally.bytes_sent,
        alarms=panel.honesty.alarms,
        accusations=panel.honesty.accusations,
        digest=trace.digest(),
        replay="",
        trace=tuple(trace.lines),
    )
