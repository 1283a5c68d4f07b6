"""Running seeds: one seed to a report, many seeds to a summary. Pure: printing, processes and time are the command's business."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from medchain.sim.checkers.case import Case, Ending
from medchain.sim.checkers.panel import Panel
from medchain.sim.checkers.progress import Progress
from medchain.sim.engines import founding_batch, real_engines
from medchain.sim.faults import Plan, draw_plan
from medchain.sim.identity import SigningOrder, make_identities
from medchain.sim.liars import draw_liars, liar_makers, with_liars
from medchain.sim.node import EngineBuilder
from medchain.sim.report import HEIGHTS_MIN, SeedReport, Summary, summarise
from medchain.sim.trace import Trace
from medchain.sim.workload import Workload
from medchain.sim.world import World


@dataclass(frozen=True, slots=True)
class SeedOptions:
    """How seeds are run."""

    nodes: int | None = None
    """None: the seed decides (4 to 7)."""
    is_text_kept: bool = False
    """Keep the text of the trace."""
    has_liars: bool = False
    """Up to f nodes lie; then no disk forgets, because that counts towards f too."""


def run_seed(seed: int, options: SeedOptions | None = None) -> SeedReport:
    """Run one seed from its plan to its verdict."""
    chosen = options or SeedOptions()
    plan = draw_plan(seed, chosen.nodes)
    if not chosen.has_liars:
        return run_plan(plan, is_text_kept=chosen.is_text_kept)
    return run_plan(plan.without_disasters(), is_text_kept=chosen.is_text_kept, liars=draw_liars(seed, plan.nodes))


def run_plan(
    plan: Plan,
    *,
    is_text_kept: bool = False,
    faulty: frozenset[int] | None = None,
    liars: dict[int, str] | None = None,
    wrap: Callable[[EngineBuilder], EngineBuilder] | None = None,
    heights_min: int = HEIGHTS_MIN,
) -> SeedReport:
    """Run a world to its end: faults, healing, rest, last questions.

    `liars` says which nodes lie and how (names of `liars.liar_makers`), `wrap` may put mutants in the place of all engines; `faulty` names
    the nodes whose votes promise nothing (None: liars and those whose disks forget).
    """
    signing = SigningOrder()
    identities = make_identities(plan.seed, plan.nodes, plan.parameters, signing)
    founding = founding_batch(identities.genesis)
    lying = frozenset(liars or ())
    workload = Workload(plan.seed, identities, plan.valid_for_blocks, plan.resubmit_permille)
    workload.book.untrusted = lying
    case = Case(identities.genesis, signing, lying | (plan.forgetful if faulty is None else faulty), lying)
    panel = Panel(case, workload.book)
    builder = real_engines(identities.genesis, plan.pool_bytes_max)
    builder = wrap(builder) if wrap else builder
    if liars:
        makers = liar_makers(founding, frozenset([identities.consensus[node].public for node in lying]))
        builder = with_liars(builder, {node: makers[kind] for node, kind in liars.items()})
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
    return _report(world, panel, progress, trace, liars or {})


def _report(world: World, panel: Panel, progress: Progress, trace: Trace, liars: dict[int, str]) -> SeedReport:
    book, network = world.workload.book, world.network
    seen = dict(world.tally.faults)
    for kind in liars.values():
        seen[f"liar: {kind}"] = seen.get(f"liar: {kind}", 0) + 1
    for name, count in (
        ("messages lost", network.lost),
        ("messages doubled", network.doubled),
        ("messages reordered", network.reordered),
        ("messages held", network.held_count),
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
        view_changes=panel.promises.view_changes,
        highest_view=panel.promises.highest_view,
        submitted=book.submitted,
        accepted=len(book.accepted),
        decided=panel.durability.decided,
        expired=panel.durability.expired,
        refusals=book.refusals,
        recovery_ms=progress.recovery_ms,
        virtual_ms=world.now_us // 1000,
        turns=world.tally.turns,
        messages=world.tally.messages,
        bytes_sent=world.tally.bytes_sent,
        alarms=panel.honesty.alarms,
        digest=trace.digest(),
        trace=tuple(trace.lines),
    )


def run_seeds(count: int, start: int = 0, options: SeedOptions | None = None) -> Summary:
    """Run `count` seeds from `start` on, one after the other."""
    return summarise(run_seed(seed, options) for seed in range(start, start + count))
