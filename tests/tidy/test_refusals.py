"""Refusals are part of the protocol: each code is listed with its meaning, raised somewhere and tested somewhere."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

import pytest

CODE = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+")


def is_refusals(node: ast.AST) -> bool:
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.target, ast.Name) and node.target.id == "REFUSALS"
    return isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "REFUSALS" for target in node.targets)


@pytest.fixture(scope="session")
def tables(sources):
    """Room → list of (code, meaning, place) as its REFUSALS tables list them."""
    found = defaultdict(list)
    for source in sources:
        for node in source.tree.body:
            if is_refusals(node) and isinstance(node.value, ast.Dict):
                for key, value in zip(node.value.keys, node.value.values, strict=True):
                    if key is not None:      # `**other.REFUSALS` gathers tables; the entries are checked where they are written
                        found[source.room].append((literal(key), literal(value), source.at(key)))
    return found


def literal(node: ast.AST) -> object:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


@pytest.fixture(scope="session")
def strings(sources):
    """Room → the strings its code uses, outside the tables and docstrings."""
    found = defaultdict(set)
    for source in sources:
        listed = {id(key) for node in ast.walk(source.tree) if is_refusals(node) for key in ast.walk(node)}
        found[source.room] |= {
            node.value
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in listed
        }
    return found


def raised(sources):
    """(room, code, place) of each `Rejected("code", ...)` whose code is written there."""
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and "Rejected" in (getattr(node.func, "id", ""), getattr(node.func, "attr", "")):
                code = node.args[0] if node.args else next((word.value for word in node.keywords if word.arg == "code"), None)
                if isinstance(code, ast.Constant) and isinstance(code.value, str):
                    yield source.room, code.value, source.at(node)


def test_every_raised_code_stands_in_the_table_of_its_room(sources, tables, report):
    listed = {room: {code for code, _, _ in entries} for room, entries in tables.items()}
    report(
        "codes that no REFUSALS table of the room lists:",
        [f"{place}: {code}" for room, code, place in raised(sources) if code not in listed.get(room, set())],
    )


def test_every_code_has_its_form_and_a_meaning_of_one_line(tables, report):
    offenders = []
    for entries in tables.values():
        for code, meaning, place in entries:
            if not isinstance(code, str) or not CODE.fullmatch(code):
                offenders.append(f"{place}: {code!r} is not written subject.reason")
            if not isinstance(meaning, str) or not meaning.strip() or "\n" in meaning:
                offenders.append(f"{place}: {code!r} has no meaning of one line")
    report("a refusal is a stable code and one line:", offenders)


def test_no_code_has_two_meanings(tables, report):
    meanings = defaultdict(dict)
    offenders = []
    for room, entries in tables.items():
        codes = [code for code, _, _ in entries]
        offenders += [f"{room} lists {code} twice" for code in sorted({code for code in codes if codes.count(code) > 1}, key=str)]
        for code, meaning, place in entries:
            meanings[code][meaning] = place
    offenders += [f"{code}: {' and '.join(sorted(places.values()))}" for code, places in meanings.items() if len(places) > 1]
    report("one code, one meaning, one entry in a room:", offenders)


def test_every_listed_code_is_used_in_its_room(tables, strings, report):
    report(
        "codes listed but never raised:",
        [f"{place}: {code}" for room, entries in tables.items() for code, _, place in entries if code not in strings[room]],
    )


def test_every_code_has_a_test(repository, tables, report):
    tests = [path for path in (repository / "tests").rglob("*") if path.suffix in (".py", ".txt", ".json", ".toml")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in tests if "tidy" not in path.parts)
    named = set(re.findall(r"[\w.-]+", text))
    named |= {word.rstrip(".") for word in named}
    offenders = [f"{place}: {code}" for entries in tables.values() for code, _, place in entries if code not in named]
    report("codes that no test names:", offenders)
