"""The scripts start on a bare machine: they parse, are executable, say how they are used and refuse what they do not know."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SOURCED = {"environment"}
"""Read by the others with `source`, never started."""


@pytest.fixture(scope="session")
def scripts(repository):
    found = [path for path in sorted((repository / "scripts").iterdir()) if path.is_file() and not path.suffix]
    return [*found, repository / ".ci" / "run"]


def test_every_script_parses(scripts, report):
    offenders = []
    for script in scripts:
        if script.name in SOURCED or "bash" in script.read_text(encoding="utf-8").splitlines()[0]:
            check = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
            if check.returncode != 0:
                offenders.append(check.stderr.strip())
    report("bash cannot read:", offenders)


def test_every_started_script_is_executable_and_names_its_interpreter(scripts, report):
    started = [script for script in scripts if script.name not in SOURCED]
    report(
        "not executable, or without #!/usr/bin/env on the first line:",
        [script.name for script in started if not os.access(script, os.X_OK) or not script.read_bytes().startswith(b"#!/usr/bin/env ")],
    )


def test_git_keeps_the_executable_bits(repository, scripts, report):
    listing = subprocess.run(["git", "ls-files", "-s", "scripts", ".ci"], cwd=repository, capture_output=True, text=True, check=False)
    modes = {line.split("\t")[1]: line.split()[0] for line in listing.stdout.splitlines()}
    started = {str(script.relative_to(repository)) for script in scripts if script.name not in SOURCED}
    report("committed without the executable bit:", [name for name in sorted(started & set(modes)) if modes[name] != "100755"])


def test_continuous_integration_runs_the_test_script(repository):
    assert "scripts/test" in (repository / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", ["test", "check"])
def test_script_explains_itself_without_setting_anything_up(repository, script):
    asked = subprocess.run(["bash", repository / "scripts" / script, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert asked.returncode == 0
    assert "ruff" in asked.stdout


@pytest.mark.parametrize("script", ["test", "check"])
def test_script_refuses_an_unknown_word_with_a_sentence(repository, script):
    asked = subprocess.run(["bash", repository / "scripts" / script, "--nonsense"], capture_output=True, text=True, timeout=60, check=False)
    assert asked.returncode == 2
    assert "--help" in asked.stderr


@pytest.mark.parametrize(
    ("body", "code", "last_line"),
    [
        ("pass", 0, "1 passed, 0 failed, 0 skipped"),
        ("assert False", 1, "0 passed, 1 failed, 0 skipped"),
        ("os._exit(1)", 1, "1 passed, 1 failed, 0 skipped"),  # as the watchdog over a test that hangs does: no report is written
        ("os._exit(0)", 1, "1 passed, 1 failed, 0 skipped"),
    ],
)
def test_tier_that_ends_before_its_tests_did_fails_the_run(tmp_path, repository, body, code, last_line):
    """A hang in one tier was reported, and the run then counted the other tiers and called itself passed."""
    for name in ("scripts", ".venv", "tests"):
        (tmp_path / name).mkdir()
    (tmp_path / "scripts" / "test").write_bytes((repository / "scripts" / "test").read_bytes())
    (tmp_path / "scripts" / "environment").write_text(f"PROJECT={tmp_path}\nPYTHON={sys.executable}\n")
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["sim", "cluster", "long"]\n')
    other = "" if "_exit" not in body else "@pytest.mark.cluster\ndef test_other(): pass\n"
    (tmp_path / "tests" / "test_it.py").write_text(f"import os, pytest\n@pytest.mark.sim\ndef test_it(): {body}\n{other}")
    tiers = ["--sim", "--cluster"] if other else ["--sim"]
    ran = subprocess.run(["bash", tmp_path / "scripts" / "test", *tiers], capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (code, last_line), ran.stdout
    assert ("failed outside the tests: the sim tier ended before its tests did" in ran.stdout) == ("_exit" in body)


def test_bench_script_explains_itself_and_wants_to_be_told_what_to_measure(repository):
    asked = subprocess.run(["bash", repository / "scripts" / "bench", "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert asked.returncode == 0
    for verb in ("faults", "micro", "cluster", "compare", "report"):
        assert f"scripts/bench {verb}" in asked.stdout
    told_nothing = subprocess.run(["bash", repository / "scripts" / "bench"], capture_output=True, text=True, timeout=60, check=False)
    assert told_nothing.returncode == 2
    assert "--help" in told_nothing.stderr


def test_environment_refuses_an_interpreter_that_is_none_with_a_sentence(repository, tmp_path):
    """On a copy, so that the environment of this checkout stays as it is."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/environment", "scripts/check", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((repository / name).read_bytes())
    asked = subprocess.run(
        ["bash", tmp_path / "scripts" / "check"],
        env={"PATH": os.environ["PATH"], "MEDCHAIN_PYTHON": "/no/such/python"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 4
    assert "MEDCHAIN_PYTHON=/no/such/python is not a Python 3.11 or 3.12" in asked.stderr
    assert not (tmp_path / ".venv").exists()
