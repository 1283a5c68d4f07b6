"""`medchain bench` refuses what it cannot measure before it starts anything, loses no finished measurement, and compares results."""

from __future__ import annotations

import argparse
import json
import sys

import pytest

from medchain.bench.facts import Facts
from medchain.bench.results import CLUSTER, LOWER, MICRO, Case, Curve, Measure, Result, Target
from medchain.cli import bench, main, output
from medchain.errors import Unavailable


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--only", "earthquake"], "cli.bench-fault"),
        (["--hospitals", "3"], "cli.bench-range"),
        (["--hospitals", "11"], "cli.bench-range"),
        (["--rate", "0"], "cli.bench-range"),
        (["--rate", "nan"], "cli.bench-range"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_code_and_nothing_is_made(capsys, tmp_path, words, code):
    assert main.main(["bench", "faults", "--home", str(tmp_path), *words, "--json"]) == output.WRONG_USE
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code
    assert list(tmp_path.iterdir()) == []


def test_faults_are_listed_by_the_names_that_only_takes(capsys):
    assert main.main(["bench", "faults", "--list", "--json"]) == output.DONE
    listed = json.loads(capsys.readouterr().out)
    assert {"healthy", "dead", "primary-killed", "storm", "partition-half", "liar-lazy-primary"} <= set(listed)
    assert not any("{" in title for title in listed.values())


# ---- micro, cluster ----------------------------------------------------------------------------------------------------------------

GROUPS = {"first": "The first group", "second": "The second group", "third": "The third group"}


class Measured:
    """A suite whose groups cost nothing; it notes how it was asked, and breaks where it is told to."""

    def __init__(self, breaks: BaseException | None = None, at: str = "third", value: float = 10.0) -> None:
        self.asked: list[list[str]] = []
        self.folders = []
        self._breaks, self._at, self._value = breaks, at, value

    def __call__(self, *, is_quick, only, folder, say):
        self.asked.append(list(only))
        self.folders.append(folder)
        assert folder.is_dir()
        (folder / "node.log").write_text("something happened")
        if self._breaks is not None and only == [self._at]:
            raise self._breaks
        facts = Facts("1", f"commit{len(self.asked)}", "2026-01-01", "a machine", 2, 0.1, "3.12", "Linux")
        measures = {"cost": Measure("us", LOWER, (self._value, self._value + 1))}
        cases = [Case("base", "In every group", measures), Case(only[0], GROUPS[only[0]], measures, targets=(Target("cost", 20.0),))]
        return Result(MICRO, facts, cases, (Curve("keys", "Cost", "keys", "cost", "It grows. Because."),))


def asked(tmp_path, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args([*words, "--home", str(tmp_path)])


def test_groups_are_measured_one_by_one_and_make_one_result(tmp_path, capsys):
    measured = Measured()
    arguments = asked(tmp_path, "micro", "--out", str(tmp_path / "result.json"))
    assert bench.run_suite(bench.Suite(GROUPS, measured), arguments) == output.DONE
    assert measured.asked == [["first"], ["second"], ["third"]]
    result = Result.load(tmp_path / "result.json")
    assert [case.name for case in result.cases] == ["base", "first", "second", "third"]
    assert [curve.name for curve in result.curves] == ["keys"]
    assert result.facts.commit == "commit1", "the machine as it was before the first load"
    assert "All 3 targets that must be reached are." in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_folder_to_measure_in_is_made_when_there_is_none(tmp_path):
    """Bug: "The operating system refused: No such file or directory", naming a folder that nobody had asked for."""
    folder = tmp_path / "fast" / "disk"
    arguments = asked(folder, "micro", "--only", "first", "--out", str(tmp_path / "result.json"))
    assert bench.run_suite(bench.Suite(GROUPS, Measured()), arguments) == output.DONE
    assert list(folder.iterdir()) == []


def test_chosen_groups_alone_are_measured_in_their_own_order(tmp_path):
    measured = Measured()
    bench.run_suite(bench.Suite(GROUPS, measured), asked(tmp_path, "cluster", "--only", "third", "--only", "first"))
    assert measured.asked == [["first"], ["third"]]


def test_json_is_the_result_itself(tmp_path, capsys):
    arguments = argparse.Namespace(**{**vars(asked(tmp_path, "micro", "--out", str(tmp_path / "result.json"))), "json": True})
    bench.run_suite(bench.Suite(GROUPS, Measured()), arguments)
    assert Result.from_value(json.loads(capsys.readouterr().out)) == Result.load(tmp_path / "result.json")


def test_missed_target_is_told_by_the_exit_code(tmp_path, capsys):
    suite = bench.Suite(GROUPS, Measured(value=30.0))
    assert bench.run_suite(suite, asked(tmp_path, "micro", "--out", str(tmp_path / "result.json"))) == output.DENIED
    assert "MISSED: The first group: cost is 30.5 us, must be at most 20 us" in capsys.readouterr().out
    assert len(Result.load(tmp_path / "result.json").cases) == 4, "the figures are as good as others"


@pytest.mark.parametrize("breaks", [KeyboardInterrupt(), Unavailable("no block within 60 s")])
def test_interruption_keeps_the_groups_that_are_complete(tmp_path, breaks):
    arguments = asked(tmp_path, "cluster", "--out", str(tmp_path / "result.json"))
    with pytest.raises(type(breaks)):
        bench.run_suite(bench.Suite(GROUPS, Measured(breaks)), arguments)
    assert [case.name for case in Result.load(tmp_path / "result.json").cases] == ["base", "first", "second"]


def test_without_a_complete_group_the_old_file_stays(tmp_path):
    (tmp_path / "result.json").write_text("what was there")
    with pytest.raises(KeyboardInterrupt):
        arguments = asked(tmp_path, "micro", "--out", str(tmp_path / "result.json"))
        bench.run_suite(bench.Suite(GROUPS, Measured(KeyboardInterrupt(), "first")), arguments)
    assert (tmp_path / "result.json").read_text() == "what was there"


def test_folder_of_networks_stays_after_a_fault_and_goes_after_an_interruption(tmp_path, capsys):
    measured = Measured(Unavailable("no block within 60 s"))
    with pytest.raises(Unavailable):
        bench.run_suite(bench.Suite(GROUPS, measured), asked(tmp_path, "micro"))
    assert (measured.folders[0] / "node.log").exists()
    assert str(measured.folders[0]) in capsys.readouterr().err
    measured = Measured(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bench.run_suite(bench.Suite(GROUPS, measured), asked(tmp_path, "micro"))
    assert not measured.folders[0].exists()


def test_groups_are_listed_and_nothing_is_measured(tmp_path, capsys):
    measured = Measured()
    assert bench.run_suite(bench.Suite(GROUPS, measured), asked(tmp_path, "micro", "--list")) == output.DONE
    assert "second                  The second group" in capsys.readouterr().out
    assert measured.asked == []


def test_axes_of_networks_are_listed_by_the_names_that_only_takes(capsys, tmp_path):
    assert main.main(["bench", "cluster", "--list", "--json"]) == output.DONE
    listed = json.loads(capsys.readouterr().out)
    assert {"base", "shape", "validators", "distance"} <= set(listed)
    assert main.main(["bench", "cluster", "--only", "weather", "--home", str(tmp_path), "--json"]) == output.WRONG_USE
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "cli.bench-group"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--only", "fourth"], "cli.bench-group"),
        (["--out", "no/such/folder/result.json"], "cli.bench-file"),
        (["--out", "."], "cli.bench-file"),
    ],
)
def test_what_a_suite_cannot_do_is_refused_before_it_measures(tmp_path, words, code):
    measured = Measured()
    with pytest.raises(bench.Rejected) as refused:
        bench.run_suite(bench.Suite(GROUPS, measured), asked(tmp_path, "micro", *words))
    assert refused.value.code == code
    assert output.exit_code_of(refused.value) == output.WRONG_USE
    assert measured.asked == []


# ---- compare ---------------------------------------------------------------------------------------------------------------------


def saved(tmp_path, name: str, factor: float = 1.0, kind: str = CLUSTER) -> str:
    facts = Facts("1", name, "2026-01-01", "a machine", 2, 0.1, "3.12", "Linux")
    samples = tuple(factor * sample for sample in (99.0, 100.0, 101.0, 100.5, 99.5))
    Result(kind, facts, (Case("base", "The base case", {"cpu_verify": Measure("us", LOWER, samples)}),)).save(tmp_path / name)
    return str(tmp_path / name)


@pytest.mark.parametrize(
    ("factor", "code", "verdict"), [(1.0, output.DONE, "same"), (1.5, output.DENIED, "worse"), (0.5, output.DONE, "better")]
)
def test_exit_code_tells_whether_anything_is_worse(tmp_path, capsys, factor, code, verdict):
    words = ["bench", "compare", saved(tmp_path, "before"), saved(tmp_path, "after", factor)]
    assert main.main(words) == code
    assert f"1 {verdict}" in capsys.readouterr().out
    assert main.main([*words, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["changes"][0]["verdict"] == verdict


def test_margins_are_options(tmp_path, capsys):
    before, after = saved(tmp_path, "before"), saved(tmp_path, "after", 1.5)
    assert main.main(["bench", "compare", before, after, "--relevant", "70"]) == output.DONE
    assert "1 same" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused_with_the_files_name(tmp_path, capsys):
    before, micro = saved(tmp_path, "before"), saved(tmp_path, "micro", kind=MICRO)
    (tmp_path / "spoilt").write_text("{}")
    for words, code in (
        ([before, micro], "bench.other-kind"),
        ([before, str(tmp_path / "absent")], "cli.bench-file"),
        ([before, str(tmp_path)], "cli.bench-file"),
        ([str(tmp_path / "spoilt"), before], "malformed"),
        ([before, before, "--relevant", "-1"], "cli.bench-range"),
        ([before, before, "--drift", "nan"], "cli.bench-range"),
    ):
        assert main.main(["bench", "compare", *words, "--json"]) == output.WRONG_USE
        error = json.loads(capsys.readouterr().out)["error"]
        assert error["code"] == code
        if code in ("malformed", "cli.bench-file"):
            assert str(tmp_path) in error["message"]


# ---- report ----------------------------------------------------------------------------------------------------------------------


def test_report_without_the_package_that_draws_is_refused_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ["bench", "report", saved(tmp_path, "result"), "--out", str(tmp_path / "page.html"), "--json"]
    assert main.main(words) == output.LOCAL_FAULT
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "bench.no-plots"
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["absent"], "cli.bench-file"),
        (["absent", "--out", "no/such/folder/page.html"], "cli.bench-file"),
        (["absent"] * 21, "cli.bench-range"),
    ],
)
def test_what_no_page_can_be_made_of_is_refused(capsys, words, code):
    assert main.main(["bench", "report", *words, "--json"]) == output.WRONG_USE
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code
