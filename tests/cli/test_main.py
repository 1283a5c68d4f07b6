"""The command line as a whole: every noun explains itself, starts fast, and no ending shows a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import medchain
from medchain.cli import output
from medchain.cli.main import NOUNS, main

HEAVY = ("aiohttp", "asyncio", "cryptography", "nacl", "plyvel", "ssl")


def run_fresh(repository, code: str) -> str:
    """Standard output of a program in a fresh interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_overview_names_every_noun_and_every_exit_code(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name, noun in NOUNS.items():
        assert f"  {name} " in text
        assert noun.help in text
    for code, meaning in output.EXIT_CODES.items():
        assert f"{code} {meaning}" in text


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"medchain {medchain.__version__}\n"


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_explains_itself_and_its_exit_codes(noun, capsys):
    with pytest.raises(SystemExit) as ended:
        main([noun, "--help"])
    assert ended.value.code == 0
    assert "exit codes: 0 done" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["nonsense"], ["--nonsense"], ["--json"], ["keys"], ["keys", "nonsense"], ["tx", "show"]])
def test_wrong_use_is_exit_2_with_a_hint(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["testnet", "status"], ["keys", "new"], ["tx", "wait"], ["verify"], ["node", "start"]])
def test_every_command_can_answer_with_json(words, capsys):
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    assert "--json" in capsys.readouterr().out


def test_overview_loads_nothing_heavy_so_that_commands_start_at_once(repository):
    code = f"import sys, medchain.cli.main\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    assert run_fresh(repository, code) == "[]\n"


def test_key_commands_load_no_network_and_no_database(repository):
    code = "import sys, medchain.cli.keys\nprint([name for name in ('aiohttp', 'asyncio', 'plyvel') if name in sys.modules])"
    assert run_fresh(repository, code) == "[]\n"


def test_module_and_command_are_the_same(repository):
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    ended = subprocess.run(
        [sys.executable, "-m", "medchain", "--version"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, f"medchain {medchain.__version__}\n")


def test_reader_that_leaves_early_is_no_error(repository):
    """`medchain ... | head -0`: the pipe breaks."""
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    code = (
        "import sys\nfrom medchain.cli import output\n"
        "def command():\n    for _ in range(100_000):\n        print('x' * 100)\n    return 0\n"
        "sys.exit(output.guarded(command, with_json=False))"
    )
    ended = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "{sys.executable}" -c "$CODE" | head -c 1 >/dev/null'],
        env={**environment, "CODE": code}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("words", [["--json"], ["keys", "--json"], ["tx", "show", "--json"], ["keys", "new", "--json", "--role", "boss"]])
def test_wrong_use_with_json_is_still_answered_with_one_object(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "cli.usage"


@pytest.mark.parametrize(
    ("redirection", "code"),
    [(">&-", 0), ("<&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0), (">/dev/full", 4), (">/dev/full 2>/dev/full", 4)],
)
def test_closed_or_full_standard_stream_shows_no_traceback(repository, tmp_path, redirection, code):
    command = f'"$0" -m medchain keys new --role patient --no-passphrase --out k --json {redirection}'
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    ended = subprocess.run(
        ["sh", "-c", command, sys.executable], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in ended.stderr
    assert "fault of medchain" not in ended.stderr
    assert ended.returncode == code
    assert (tmp_path / "k").read_bytes().startswith(b"{")  # nothing else was written into it


def test_passphrase_needed_with_standard_input_closed_is_a_sentence(repository, tmp_path):
    command = '"$0" -m medchain keys new --role patient --out k <&-'
    environment = {name: value for name, value in os.environ.items() if name != "MEDCHAIN_PASSPHRASE"} | {"PYTHONPATH": str(repository)}
    ended = subprocess.run(
        ["sh", "-c", command, sys.executable], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert "passphrase.missing" in ended.stderr


def test_path_that_is_no_utf_8_is_answered_in_json(repository, tmp_path):
    command = [sys.executable, "-m", "medchain", "keys", "new", "--role", "patient", "--no-passphrase", "--json", "--out", b"k\xff"]
    environment = {**os.environ, "PYTHONPATH": str(repository), "PYTHONUTF8": "1"}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["role"] == "patient"
