"""Shrinking: a failing plan becomes a small one that fails in the same way, and one line that runs it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medchain.cli import main
from medchain.errors import Malformed
from medchain.sim.faults import (
    Backup,
    ClockJump,
    Crash,
    CrashPoint,
    DiskFate,
    Flap,
    FullDisk,
    Partition,
    Pause,
    Plan,
    SlowDisk,
    draw_plan,
    quiet_plan,
)  # fmt: skip
from medchain.sim.mutants.hunt import run_under
from medchain.sim.plantext import decode_plan, encode_plan
from medchain.sim.shrink import Shrinking, describe_plan, minimal_steps

FAULTS = (
    Crash(500, 0, CrashPoint.TORN_WRITE, 200, 300),
    Backup(200, 1),
    Crash(700, 1, CrashPoint.ANYWHERE, 80, fate=DiskFate.RESTORED, is_marked_damaged=True),
    Pause(800, 2, 400),
    Partition(900, 800, "split", ((0, 3), (3, 0), (4, 0), (0, 4)), True),
    Flap(950, 1, 4),
    ClockJump(960, 2, -300),
    SlowDisk(970, 3, 400, 30_000),
    FullDisk(980, 4, 300),
)
BUSY = quiet_plan(
    7, 5, safety_ms=4_000, burst_max=12, liars=((2, "forger"), (3, "miser + spammer")), clock_offsets_ms=(5, 0, 0, 0, 90)
).with_actions(*FAULTS)


# ---- the plan as text -----------------------------------------------------------------------------------------------------------


def test_plan_survives_its_text_and_names_only_what_is_unusual() -> None:
    assert decode_plan(encode_plan(BUSY)) == BUSY
    assert encode_plan(quiet_plan(3)) == '{"seed":3,"nodes":4}'
    for seed in range(60):
        plan = draw_plan(seed)
        assert decode_plan(encode_plan(plan)) == plan


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"seed":1,"nodes":3}',
        '{"seed":1,"colour":2}',
        '{"seed":1,"actions":[["Quake",{}]]}',
        '{"seed":1,"actions":[["Pause",{"at_ms":1,"node":4,"for_ms":1}]]}',
        '{"seed":1,"actions":[["Pause",{"at_ms":-1,"node":0,"for_ms":1}]]}',
        '{"seed":1,"actions":[["Crash",{"at_ms":1,"node":0,"point":"nowhere","down_ms":1}]]}',
        '{"seed":1,"liars":[[0,"saint"]]}',
        '{"seed":1,"liars":[[9,"forger"]]}',
        '{"seed":1,"clock_offsets_ms":[1]}',
        '{"seed":1,"clock_offsets_ms":[1e999,0,0,0]}',
        '{"seed":1,"tick_ms":0}',
        '{"seed":1,"tick_ms":"soon"}',
        '{"seed":1,"batch_permille":9,"batch_max":1}',
        '{"seed":1,"batch_permille":9,"batch_max":65}',
        '{"seed":1,"weather":{"rain":1}}',
        '{"seed":1,"weather":7}',
        "[" * 100_001,
        "[" * 50_000,
    ],
)
def test_text_that_is_no_plan_is_refused_in_words(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        decode_plan(text)
    assert len(refused.value.message) > 10


# ---- making it smaller ------------------------------------------------------------------------------------------------------------


def shrink(plan: Plan, is_failing: object, *, runs_max: int = 10_000) -> Shrinking:
    shrinking = Shrinking(plan, "agreement", lambda small: "agreement" if is_failing(small) else "", lambda: shrinking.runs >= runs_max)  # type: ignore[operator]
    shrinking.run()
    return shrinking


def test_only_what_the_failure_needs_is_left() -> None:
    def needs_pause_and_forger(plan: Plan) -> bool:
        return any(isinstance(action, Pause) for action in plan.actions) and (2, "forger") in plan.liars

    shrinking = shrink(BUSY, needs_pause_and_forger)
    assert shrinking.is_minimal
    assert shrinking.plan == quiet_plan(7, safety_ms=1_000, liars=((2, "forger"),)).with_actions(Pause(800, 2, 1))


def test_one_of_two_kinds_of_a_liar_and_the_fifth_node_stay_if_they_are_needed() -> None:
    shrinking = shrink(BUSY, lambda plan: any("spammer" in kind for _, kind in plan.liars) and plan.nodes == 5)
    assert shrinking.plan.liars == ((3, "spammer"),) and shrinking.plan.nodes == 5 and shrinking.plan.actions == ()


def test_restored_disk_keeps_its_copy() -> None:
    shrinking = shrink(BUSY, lambda plan: any(isinstance(action, Crash) and action.fate is DiskFate.RESTORED for action in plan.actions))
    assert [type(action).__name__ for action in shrinking.plan.actions] == ["Backup", "Crash"]


def test_shrinking_ends_when_the_time_is_up_with_what_it_has() -> None:
    shrinking = shrink(BUSY, lambda plan: bool(plan.actions), runs_max=4)
    assert not shrinking.is_minimal and shrinking.runs == 4 and shrinking.plan.actions


def test_small_plan_is_told_to_a_person() -> None:
    told = "\n".join(describe_plan(BUSY))
    assert "5 nodes" in told and "node 2 lies: forger" in told and "Pause" in told and "clocks off" in told


# ---- with a mutant, to the command ------------------------------------------------------------------------------------------------


@pytest.mark.sim
def test_seed_that_fails_under_a_mutant_is_shrunk_to_a_minimal_world_whose_command_fails_again(capsys: pytest.CaptureFixture[str]) -> None:
    """The command is the real one: what `sim shrink` prints is pasted back."""
    import json
    import shlex

    mutant = "own votes unwritten"
    seed = next(seed for seed in range(60) if run_under(mutant, draw_plan(seed, 4)).violations)
    assert main.main(["sim", "shrink", "--seed", str(seed), "--nodes", "4", "--mutant", mutant, "--seconds", "300", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["is_minimal"], told
    small = decode_plan(told["plan"])
    assert 1 <= len(small.actions) <= 2 and len(small.actions) + len(small.liars) < len(draw_plan(seed, 4).actions)
    judge = told["violation"].partition(":")[0]
    for lacking in minimal_steps(small):
        found = run_under(mutant, lacking).violations
        assert not found or found[0].checker != judge, f"{lacking} fails as well"
    words = shlex.split(told["command"])
    assert words[:3] == ["medchain", "sim", "run"]
    assert main.main([*words[1:], "--json"]) == 4
    replayed = json.loads(capsys.readouterr().out)
    assert f"{replayed['violations'][0]['checker']}: {replayed['violations'][0]['message']}" in told["violation"]
    assert run_under(None, replace(small)).violations == ()
