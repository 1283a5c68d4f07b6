"""The shape of modules and files: nouns of a few hundred lines that say what they are, and nothing that only one machine has."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path, PurePath

import pytest

LINES_MAX = 600
DRAWERS = {"util", "utils", "common", "helper", "helpers", "manager", "managers", "base", "misc", "shared", "tools", "stuff"}
LATER = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
# Written in pieces, so that this file does not offend against its own rule.
PLACES = ("/" + "work/", "/" + "root/", "/tmp/" + "brief")
HOSTS = ("index" + "-url", "trusted" + "-host", "find" + "-links", "py" + "pi.org", "python" + "hosted")


def test_every_module_says_what_it_is(sources, report):
    offenders = [source.path for source in sources if not (ast.get_docstring(source.tree) or "").strip()]
    report("modules without a docstring:", offenders)


def test_no_module_is_longer_than_six_hundred_lines(sources, report):
    lengths = [(source.path, source.text.count("\n")) for source in sources]
    offenders = [f"{path}: {lines} lines" for path, lines in lengths if lines > LINES_MAX]
    report(f"modules of more than {LINES_MAX} lines, to be cut along their subjects:", offenders)


def test_no_module_is_a_drawer(sources, report):
    offenders = [source.path for source in sources if DRAWERS & set(PurePath(source.path).with_suffix("").parts)]
    report("a drawer has no subject; name the module by the thing it holds:", offenders)


def test_nothing_is_left_for_later(sources, report):
    offenders = [f"{s.path}:{n}" for s in sources for n, line in enumerate(s.text.splitlines(), 1) if LATER.search(line)]
    report("notes to do something later belong in an issue:", offenders)


def test_no_file_names_an_index_or_a_path_of_one_machine(repository, repository_files, report):
    offenders = []
    for path in repository_files:
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            offenders += [f"{path.relative_to(repository)}:{number}: {word}" for word in PLACES + HOSTS if word in line]
    report("what only one machine or one company has does not belong in the repository:", offenders)


def test_no_committed_file_is_rubbish(repository, repository_files, report):
    rubbish = (".pyc", ".orig", ".rej", ".swp", ".log", ".DS_Store")
    report("files nobody wants:", [str(path.relative_to(repository)) for path in repository_files if path.name.endswith(rubbish)])


def test_default_configuration_travels_in_the_wheel(repository):
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    forced = settings["tool"]["hatch"]["build"]["targets"]["wheel"].get("force-include", {})
    if (repository / "node_config" / "default.toml").exists():
        assert forced.get("node_config/default.toml") == "medchain/node/default.toml"
    else:
        assert "node_config/default.toml" not in forced, "hatch refuses to build when a forced file is absent"


def test_version_is_the_same_everywhere(repository):
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    written = re.search(r'^__version__ = "([^"]+)"$', (repository / "medchain" / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert written is not None
    assert written[1] == settings["project"]["version"]


@pytest.mark.parametrize(("file", "extra"), [("requirements.txt", "dev"), ("scripts/bench-requirements.txt", "bench")])
def test_requirements_pin_every_package_by_hash(repository, file, extra):
    pinned = pins(repository / file)
    assert pinned
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["optional-dependencies"][extra] + (project["dependencies"] if extra == "dev" else [])
    for requirement in wanted:
        assert re.split(r"[<>=!~ ]", requirement)[0] in pinned


def test_package_that_two_files_pin_has_one_version(repository):
    everything, plots = pins(repository / "requirements.txt"), pins(repository / "scripts" / "bench-requirements.txt")
    assert {name: plots[name] for name in plots if name in everything} == {name: everything[name] for name in everything if name in plots}


def pins(file: Path) -> dict[str, str]:
    """Package → version; each line must carry a hash, and none may say where packages come from."""
    lines = [
        line for line in file.read_text(encoding="utf-8").replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")
    ]
    for line in lines:
        assert re.match(r"[a-z0-9-]+==\S+ +--hash=sha256:[0-9a-f]{64}", line), line
    return dict(line.split()[0].split("==") for line in lines)
