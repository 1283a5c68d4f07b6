"""Every lesson has its test: the table of tests/LESSONS.md names tests that exist, all named after lessons, and what waits for what."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
TABLE = REPOSITORY / "tests" / "LESSONS.md"
DESIGN = REPOSITORY.parent / "shared" / "design" / "lessons.md"
NAMED = re.compile(r"`([a-z_/]+\.py)(?:::(test_[a-z0-9_]+))?`")
FILES = ("sim/test_lessons.py", "sim/test_traps.py", "engine/test_lessons.py", "engine/test_traps.py", "node/test_lessons.py")
"""Files that hold nothing but tests of lessons."""


def rows(text: str) -> list[list[str]]:
    """The rows of all tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] not in ("Failure", "Trap")]


def names_in(path: str) -> set[str]:
    tree = ast.parse((REPOSITORY / "tests" / path).read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


def test_every_row_names_a_test_that_exists_or_what_it_waits_for() -> None:
    for row in rows(TABLE.read_text(encoding="utf-8")):
        named = NAMED.findall(row[-1])
        assert named or "waits: " in row[-1], row[0]
        for path, name in named:
            assert (REPOSITORY / "tests" / path).is_file(), path
            assert not name or name in names_in(path), f"{row[0]}: there is no {path}::{name}"


def test_every_test_named_after_a_lesson_stands_in_the_table() -> None:
    listed = set(NAMED.findall(TABLE.read_text(encoding="utf-8")))
    missing = [f"{path}::{name}" for path in FILES for name in names_in(path) if (path, name) not in listed]
    assert not missing, missing


def test_every_row_of_the_projects_lessons_stands_in_the_table() -> None:
    if not DESIGN.is_file():
        pytest.skip("the project's own tables of lessons are not beside this checkout")
    ours = rows(TABLE.read_text(encoding="utf-8"))
    theirs = rows(DESIGN.read_text(encoding="utf-8"))
    assert len(ours) == len(theirs) > 45
    for mine, row in zip(ours, theirs, strict=True):
        assert words(mine[0])[:3] == words(row[0])[:3], row[0]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def test_seeds_that_fail_are_excluded_plenum_1506() -> None:
    """No simulated network may be left out: nothing in the simulator's tests is skipped, expected to fail or taken off a range of seeds."""
    found = []
    for path in sorted((REPOSITORY / "tests" / "sim").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if name in ("skip", "skipif", "xfail") or re.search("exclu|forbidden_seeds|known_bad", name.lower()):
                found.append(f"{path.name}:{node.lineno} {name}")
    assert not found, found
    seeds = (REPOSITORY / "tests" / "sim" / "test_seeds.py").read_text(encoding="utf-8")
    assert "range(SEEDS)" in seeds, "the seeds of CI are all of a range"
