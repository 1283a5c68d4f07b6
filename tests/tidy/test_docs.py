"""What the README says is so: every command in it parses, every file it names is there, its tables are those of the code."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from medchain.cli import main, output

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line.partition("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.startswith("medchain ")]
NOT_WRITTEN_YET: set[str] = set()
"""Rooms the README says are not written yet."""


def parser_of(noun: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"medchain {noun}", exit_on_error=False)
    importlib.import_module(f"medchain.cli.{main.NOUNS[noun].module}").configure(parser)
    return parser


def verbs_of(noun: str) -> list[str]:
    groups = [action for action in parser_of(noun)._actions if isinstance(action, argparse._SubParsersAction)]
    return list(groups[0].choices) if groups else []


def table_under(heading: str) -> list[list[str]]:
    """Rows of the first table that comes after a line with `heading`, without head and rule."""
    after = README[README.index(heading) :]
    lines = re.search(r"(?:^\|.*\|\n)+", after, re.MULTILINE)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("command", COMMANDS)
def test_command_in_the_readme_is_one(command):
    _, noun, *words = shlex.split(command)
    assert noun in main.NOUNS
    parser_of(noun).parse_args(words)


def test_table_of_nouns_and_verbs_is_that_of_the_program():
    rows = {row[0].strip("`"): row[1] for row in table_under("| Noun | Verbs |")}
    assert list(rows) and set(rows) == set(main.NOUNS)
    for noun, text in rows.items():
        told = [] if text.startswith("(") else text.split(", ")
        assert sorted(told) == sorted(verbs_of(noun)), noun


def test_help_of_the_program_names_every_verb():
    """The one line a noun has in `medchain --help` lists its verbs, where it lists any."""
    for noun, known in main.NOUNS.items():
        listed = re.search(r"(?::\s)([a-z, ]+)$", known.help)
        if listed and verbs_of(noun):
            assert set(listed[1].split(", ")) == set(verbs_of(noun)), noun


def test_exit_codes_are_those_of_the_program():
    told = re.search(r"Exit codes: (.*?)\.\n", README, re.DOTALL)[1].replace("\n", " ")
    assert told == ", ".join(f"{code} {meaning}" for code, meaning in output.EXIT_CODES.items())


def test_every_room_is_in_the_table_on_its_floor(repository, law):
    told = {}
    for row in table_under("| Room | Floor | What it holds |"):
        for room in re.findall(r"`([a-z]+)(?:/|\.py)`", row[0]):
            told[room] = int(row[1])
    there = {path.stem for path in (repository / "medchain").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    there -= {"__init__", "__main__"}
    assert there <= set(told)
    assert set(told) - there <= NOT_WRITTEN_YET
    floors = [floor & set(told) for floor in reversed(law.floors)]
    order = [floor for floor in floors if floor]
    for lower, upper in pairwise(order):
        assert max(told[room] for room in lower) < min(told[room] for room in upper)
    for floor in order:
        assert len({told[room] for room in floor}) == 1


def test_files_and_folders_named_are_there(repository, report):
    named = set(re.findall(r"`((?:scripts|tests|node_config|medchain)/[\w./-]*)`", README)) | set(re.findall(r"\]\(([\w./-]+)\)", README))
    named |= {word for block in BLOCKS for word in re.findall(r"^(scripts/\w+)", block, re.MULTILINE)}
    assert named
    report("the README names what is not there:", [name for name in named if not (repository / name).exists()])


def test_options_of_scripts_in_the_readme_exist(repository):
    """Each `scripts/NAME --option` stands in the script's own help, which is its head."""
    found = re.findall(r"`?scripts/(demo|test) ((?:--[a-z]+ ?)+)", README)
    found += [("demo", option) for option in re.findall(r"`(--(?:input|hospitals|keep)[^`]*)`", README)]
    assert found
    for script, options in found:
        text = (repository / "scripts" / script).read_text(encoding="utf-8")
        for option in re.findall(r"--[a-z]+", options):
            assert option in text, f"scripts/{script} {option}"


@pytest.mark.parametrize("noun", sorted(main.NOUNS))
def test_every_noun_and_verb_explains_itself(noun, capsys):
    for verb in [[], *([name] for name in verbs_of(noun))]:
        with pytest.raises(SystemExit) as ended:
            main.main([noun, *verb, "--help"])
        shown = capsys.readouterr().out
        assert ended.value.code == 0
        assert f"medchain {' '.join([noun, *verb])}" in shown
        assert "exit codes: 0 done" in shown.replace("\n", " ")
