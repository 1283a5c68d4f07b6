"""Results in words: what was explored, what held, and a broken promise as a numbered story."""

from __future__ import annotations

from medchain.sim.explore.automaton import Move
from medchain.sim.explore.search import Result, Story, Violation
from medchain.sim.explore.universe import Universe

HELD = (
    "no two blocks prepared in one view or certified at the height, counting every statement ever made",
    "one prepare, one commit and one view change a view of each honest node; none below its view change; none for an invalid block",
    "nothing said before it was durable; every honest pre-prepare justified; no invariant broken",
    "evidence accuses liars only; no node meets a statement of its own that it does not know",
)
"""The promises that are held against every state."""


def describe_move(universe: Universe, node: int, move: Move, said: tuple[str, ...]) -> str:
    """Return one step of a story in words."""
    who = universe.describe_node(node)
    match move:
        case ("expire",):
            happens = f"{who}: its timer runs out"
        case ("restart",):
            happens = f"{who}: crashes and starts again with what its disk keeps"
        case ("build",):
            happens = f"{who}: builds a block"
        case ("adopt",):
            happens = f"{who}: adopts the decided block"
        case ("held", number):
            happens = f"{who}: gets the bytes of {universe.blocks[number].name}"
        case ("votes", statements):
            happens = f"{who}: receives " + ", ".join(universe.describe(vote) for vote in statements)
        case ("certificate", statements):
            happens = f"{who}: receives a certificate of " + ", ".join(universe.describe(vote) for vote in statements)
        case ("view changes", statements):
            happens = f"{who}: receives " + ", ".join(universe.describe(change) for change in statements)
        case ("view changes, expire", statements):
            happens = f"{who}: receives " + ", ".join(universe.describe(change) for change in statements) + "; then its timer runs out"
        case ("pre-prepare", prepare, changes):
            carried = ", ".join(universe.describe(change) for change in changes)
            happens = f"{who}: receives a pre-prepare, {universe.describe(prepare)}" + (f", carrying {carried}" if changes else "")
        case _:
            happens = f"{who}: {move[0]}"
    return happens + (f"\n       and says {', '.join(said)}" if said else "")


def describe_story(universe: Universe, story: Story) -> list[str]:
    """Return the steps of a story as numbered lines."""
    return [f"  {number:>2}. {describe_move(universe, node, move, said)}" for number, (node, move, said) in enumerate(story, 1)]


def describe_violation(universe: Universe, violation: Violation) -> list[str]:
    """Return a broken promise as lines."""
    lines = [f"VIOLATION: {violation.message}", f"the shortest way there, {len(violation.story)} steps:"]
    return lines + describe_story(universe, violation.story)


def describe_bounds(result: Result) -> str:
    """Return what was explored, in a line."""
    bounds = result.bounds
    liars = ", ".join(f"the leader of view {node}" for node in bounds.liars) or "nobody"
    return f"n = {bounds.nodes}, one height, views 0 to {bounds.views}, lying: {liars}"


def describe_result(universe: Universe, result: Result) -> list[str]:
    """Return the outcome as lines."""
    lines = [
        describe_bounds(result),
        f"  {result.states:,} states, {result.transitions:,} transitions, depth {result.depth}; "
        + ("all there are" if result.is_complete else "NOT all: the search was stopped" if result.violation is None else "stopped there"),
        f"  {result.standings:,} standings of single nodes, {result.evaluations:,} steps of a real replica, {result.statements} statements",
        f"  decided in some state: {', '.join(result.decisions) or 'nothing'}",
    ]
    if result.violation is not None:
        return lines + describe_violation(universe, result.violation)
    return lines + [f"  held: {promise}" for promise in HELD]
