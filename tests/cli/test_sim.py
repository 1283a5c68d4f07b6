"""The simulator's command: answers, exit codes and the line to paste."""

from __future__ import annotations

import json

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
    assert command("--seeds", "5", "--jobs", "1") == 4
    told = capsys.readouterr()
    assert "replay: medchain sim run --seed 0 --nodes 4 --trace" in told.err and "1 seeds:" in told.out
    assert command("--seeds", "5", "--jobs", "1", "--keep-going") == 4
    assert "5 seeds:" in capsys.readouterr().out
    assert command("--seed", "9") == 4
    assert "VIOLATION agreement: two blocks at height 7" in capsys.readouterr().out
