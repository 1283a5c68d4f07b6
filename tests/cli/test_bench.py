"""`medchain bench` refuses what it cannot measure before it starts anything."""

from __future__ import annotations

import json

import pytest

from medchain.cli import main, output


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
