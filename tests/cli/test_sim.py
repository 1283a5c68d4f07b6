"""The simulator's command: answers, exit codes and the line to paste."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medchain.cli import main, sim
from medchain.sim.node import Violation
from medchain.sim.report import SeedReport
from medchain.sim.run import SeedOptions, run_seed


def command(*words: str) -> int:
    return main.main(["sim", "run", *words])


def test_one_seed_is_told_in_words_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--seed", "3", "--nodes", "4") == 0
    told = capsys.readouterr().out
    assert "seed 3: 4 nodes" in told and "crashes" in told and "trace " in told
    assert command("--seed", "3", "--nodes", "4", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["seed"] == 3 and value["violations"] == [] and value["digest"] in told and value["is_counted"]


def test_trace_shows_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--seed", "3", "--nodes", "4", "--trace") == 0
    told = capsys.readouterr().out
    assert "decides 1 " in told and "everything heals" in told


def test_seeds_run_in_several_processes_and_are_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--seeds", "4", "--start", "2", "--nodes", "4", "--jobs", "2", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["seeds"] == 4 and value["failures"] == [] and value["nodes"] == {"4": 4} and value["seconds"] > 0


@pytest.mark.parametrize("words", [("--seeds", "0"), ("--nodes", "3"), ("--nodes", "11"), ("--jobs", "-1")])
def test_number_out_of_range_is_wrong_use_with_its_range(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*words) == 2
    assert "must be from" in capsys.readouterr().err
    assert "cli.sim-range" in sim.REFUSALS


@pytest.fixture
def broken_report(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = run_seed(3, SeedOptions(nodes=4))

    def broken(seed: int, options: SeedOptions) -> SeedReport:
        fields = {name: getattr(sound, name) for name in SeedReport.__slots__}
        replay = f"medchain sim run --seed {seed} --nodes 4 --trace"
        return SeedReport(**{**fields, "seed": seed, "replay": replay, "violations": (Violation("agreement", "two blocks at height 7"),)})

    monkeypatch.setattr(sim, "run_seed", broken)


@pytest.mark.usefixtures("broken_report")
def test_violation_gives_exit_code_four_and_one_line_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--seeds", "5", "--jobs", "1", "--no-shrink") == 4
    told = capsys.readouterr()
    assert "replay: medchain sim run --seed 0 --nodes 4 --trace" in told.err and "1 seeds:" in told.out
    assert command("--seeds", "5", "--jobs", "1", "--keep-going", "--no-shrink") == 4
    assert "5 seeds:" in capsys.readouterr().out
    assert command("--seed", "9", "--no-shrink") == 4
    assert "VIOLATION agreement: two blocks at height 7" in capsys.readouterr().out


# ---- plans, shrinking, mutants ------------------------------------------------------------------------------------------------


def test_plan_is_run_from_the_line_and_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = '{"seed":4,"nodes":4,"actions":[["Pause",{"at_ms":500,"node":1,"for_ms":200}]],"safety_ms":800}'
    assert command("--plan", plan, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert first["faults"]["pause"] == 1 and plan in first["replay"]
    (tmp_path / "plan.json").write_text(plan)
    assert command("--plan", str(tmp_path / "plan.json"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["digest"] == first["digest"]


@pytest.mark.parametrize("plan", ["/nowhere/plan.json", "{}", '{"seed":1,"nodes":99}'])
def test_plan_that_is_none_is_wrong_use(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--plan", plan) == 2
    assert "plan" in capsys.readouterr().err and "cli.sim-plan" in sim.REFUSALS


def test_sound_world_cannot_be_made_smaller(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["sim", "shrink", "--plan", '{"seed":4,"nodes":4,"safety_ms":500}']) == 2
    assert "breaks no promise" in capsys.readouterr().err and "cli.sim-sound" in sim.REFUSALS


def test_failing_run_is_made_smaller_by_itself_within_the_time_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--seeds", "3", "--nodes", "4", "--jobs", "1", "--mutant", "state unwritten", "--seconds", "1", "--json") == 4
    value = json.loads(capsys.readouterr().out)
    assert value["shrunk"]["command"].startswith("medchain sim run --plan ") and value["shrunk"]["runs"] >= 1
    assert "--mutant 'state unwritten'" in value["failures"][0]["replay"]


def test_mutants_are_listed_and_hunted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["sim", "mutants", "--list"]) == 0
    assert "half as quorum: q is n/2" in capsys.readouterr().out
    assert main.main(["sim", "mutants", "--only", "execution beside the rule book", "--seeds", "1", "--jobs", "1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["mutants"]
    assert row["caught"] == 1 and row["by"] == {"roots": 1}
    assert main.main(["sim", "mutants", "--only", "no such thing"]) == 2
    assert command("--seed", "1", "--mutant", "no such thing") == 2
    assert "no mutant called" in capsys.readouterr().err and "cli.sim-mutant" in sim.REFUSALS


def test_ledger_gets_one_line_a_run(tmp_path: Path) -> None:
    for start in ("0", "1"):
        assert command("--seeds", "1", "--start", start, "--nodes", "4", "--jobs", "1", "--ledger", str(tmp_path / "ledger")) == 0
    lines = [json.loads(line) for line in (tmp_path / "ledger").read_text().splitlines()]
    assert [line["seeds"] for line in lines] == [1, 1] and lines[1]["start"] == 1 and lines[0]["failures"] == []
