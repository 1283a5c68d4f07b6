"""A plan as one line of text: what differs from the quiet plan, as JSON. What a shrunk seed is printed as, and what replays it.

It names every fault itself and no dice, so it means the same after the drawing of plans has changed (a list of which faults of a seed to
keep would not). Fields that are not named are those of `faults.quiet_plan`.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from enum import Enum
from typing import Any, Final

from medchain.chain.limits import BATCH_SIGNATURE_IDS_MAX
from medchain.chain.parameters import Parameters
from medchain.chain.transaction import BATCH_IDS_MIN
from medchain.errors import Malformed
from medchain.sim import faults
from medchain.sim.faults import Action, CrashPoint, DiskFate, Plan, quiet_plan
from medchain.sim.liars.kinds import AND, LIAR_KINDS
from medchain.sim.network import Weather

TEXT_CHARACTERS_MAX: Final = 100_000
"""A drawn plan takes some thousands."""
_ACTIONS: Final[dict[str, type[Any]]] = {
    kind.__name__: kind
    for kind in (
        faults.Crash, faults.Backup, faults.Pause, faults.Partition, faults.Flap, faults.ClockJump, faults.SlowDisk,
        faults.SlowProcessor, faults.FullDisk,
    )
}  # fmt: skip
_ENUMS: Final[dict[str, type[Enum]]] = {"point": CrashPoint, "fate": DiskFate}


def encode_plan(plan: Plan) -> str:
    """Return the line that `decode_plan` reads."""
    quiet = quiet_plan(plan.seed, plan.nodes)
    value: dict[str, Any] = {"seed": plan.seed, "nodes": plan.nodes}
    for field in fields(Plan):
        mine, usual = getattr(plan, field.name), getattr(quiet, field.name)
        if field.name in value or mine == usual:
            continue
        if field.name in ("parameters", "weather"):
            value[field.name] = _changes(mine, usual)
        elif field.name == "actions":
            value["actions"] = [_encode_action(action) for action in mine]
        else:
            value[field.name] = mine
    return json.dumps(value, separators=(",", ":"))


def decode_plan(text: str) -> Plan:
    """Read a plan. Raises Malformed in words for anything that is none."""
    if len(text) > TEXT_CHARACTERS_MAX:
        raise Malformed("the plan is too long")
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise Malformed("a plan is a JSON object")
        plan = _read(dict(value))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:  # 1e999 is infinity
        raise Malformed(f"this is no plan of a simulated world: {error}") from None
    _check(plan)
    return plan


def _changes(mine: Any, usual: Any) -> dict[str, Any]:
    return {field.name: getattr(mine, field.name) for field in fields(mine) if getattr(mine, field.name) != getattr(usual, field.name)}


def _encode_action(action: Action) -> list[Any]:
    """Return [kind, fields that differ from their defaults]."""
    named: dict[str, Any] = {}
    for field in fields(action):
        item = getattr(action, field.name)
        if item != field.default:
            named[field.name] = item.value if isinstance(item, Enum) else item
    return [type(action).__name__, named]


def _read(value: dict[str, Any]) -> Plan:
    seed, nodes = value.pop("seed"), value.pop("nodes", 4)
    if type(seed) is not int or type(nodes) is not int or not faults.NODES_MIN <= nodes <= faults.NODES_MAX:
        raise Malformed(f"a plan has a seed and {faults.NODES_MIN} to {faults.NODES_MAX} nodes")
    quiet = quiet_plan(seed, nodes)
    unknown = sorted(set(value) - {field.name for field in fields(Plan)})
    if unknown:
        raise Malformed(f"a plan has no field called {unknown[0]!r}")
    changes: dict[str, Any] = {}
    for name, item in value.items():
        if name == "parameters":
            changes[name] = _changed_parameters(quiet.parameters, item)
        elif name == "weather":
            changes[name] = replace(Weather(), **_whole_numbers(item))
        elif name == "actions":
            changes[name] = tuple([_read_action(row) for row in item])
        elif name == "liars":
            changes[name] = tuple([(int(node), str(kind)) for node, kind in item])
        elif name in ("clock_offsets_ms", "clock_drifts_ppm"):
            changes[name] = tuple([int(number) for number in item])
        else:
            changes.update(_whole_numbers({name: item}))
    return replace(quiet, **changes)


def _changed_parameters(usual: Parameters, item: Any) -> Parameters:
    return replace(usual, **_whole_numbers(item))


def _whole_numbers(item: Any) -> dict[str, int]:
    if not isinstance(item, dict) or any(type(number) is not int for number in item.values()):
        raise Malformed("the numbers of a plan are whole numbers by name")
    return item


def _read_action(row: Any) -> Action:
    name, named = row
    if name not in _ACTIONS or not isinstance(named, dict):
        raise Malformed(f"there is no fault called {name!r}")
    read = {
        key: _ENUMS[key](item) if key in _ENUMS else tuple([(int(a), int(b)) for a, b in item]) if key == "links" else item
        for key, item in named.items()
    }
    action: Action = _ACTIONS[name](**read)
    return action


def _check(plan: Plan) -> None:
    """Refuse what would make a world stumble: nodes that do not exist, numbers that no world has."""
    nodes = range(plan.nodes)
    named = [node for node, _ in plan.liars]
    for action in plan.actions:
        if isinstance(action, faults.Partition):
            named += [node for link in action.links for node in link]
        elif isinstance(action, faults.Flap):
            named += [action.first, action.second]
        else:
            named.append(action.node)
        numbers = [getattr(action, field.name) for field in fields(action) if field.name in ("at_ms", "for_ms", "down_ms", "unit_us")]
        if any(type(number) is not int or number < 0 for number in numbers):
            raise Malformed("times of a plan are whole numbers from 0 on")
    if any(type(node) is not int or node not in nodes for node in named):
        raise Malformed("a plan names a node that its world does not have")
    if any(name not in LIAR_KINDS for _, kind in plan.liars for name in kind.split(AND)):
        raise Malformed(f"a plan names a liar that does not exist: the kinds are {', '.join(LIAR_KINDS)}")
    if len(plan.clock_offsets_ms) != plan.nodes or len(plan.clock_drifts_ppm) != plan.nodes:
        raise Malformed("a plan has one clock a node")
    if min(plan.tick_ms, plan.submit_interval_ms, plan.burst_max, plan.safety_ms, plan.valid_for_blocks) < 1:
        raise Malformed("intervals of a plan are 1 or more")
    if not BATCH_IDS_MIN <= plan.batch_max <= BATCH_SIGNATURE_IDS_MAX:
        raise Malformed(f"a batch of a plan has {BATCH_IDS_MIN} to {BATCH_SIGNATURE_IDS_MAX} transactions")
