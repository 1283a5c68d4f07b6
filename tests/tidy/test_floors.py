"""The law of the house: which room may import which, and what may not be touched below the I/O line."""

from __future__ import annotations

import ast
import subprocess
import sys


def test_import_contracts_hold(repository):
    linter = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-logo", "--no-cache"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert linter.returncode == 0, f"a contract is broken, or no floor declares a room:\n{linter.stdout}\n{linter.stderr}"


def test_list_of_pure_rooms_equals_the_floors_below_the_line(law):
    assert law.rooms_of("line") == law.pure
    assert law.rooms_of("dice") == law.pure - {"sim"}


def test_room_above_the_line_is_kept_from_the_ciphers(law):
    above = set().union(*law.floors) - law.pure - {"crypto", "telemetry", "__main__"}
    assert law.rooms_of("ciphers") == above


def test_every_room_of_the_tree_stands_on_a_floor(law, sources, report):
    declared = set().union(*law.floors) | {"__init__"}
    report("rooms that no floor of pyproject.toml declares:", sorted({source.room for source in sources} - declared))


def test_every_folder_of_modules_is_a_package(repository, sources, report):
    folders = {(repository / source.path).parent for source in sources}
    report(
        "folders without __init__.py (the linter would not see them):",
        [str(folder.relative_to(repository)) for folder in folders if not (folder / "__init__.py").exists()],
    )


def test_pure_module_imports_nothing_of_the_world(law, pure_sources, report):
    """What the linter says for modules inside packages, said for each file: a package's __init__ included."""
    forbidden = set(law.contracts["line"]["forbidden_modules"])
    offenders = []
    for source in pure_sources:
        banned = forbidden if source.room == "sim" else forbidden | {"random"}
        for node in ast.walk(source.tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            offenders += [f"{source.at(node)}: import of {name}" for name in names if name.split(".")[0] in banned]
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "__import__":
                offenders.append(f"{source.at(node)}: __import__ goes round the law")
    report("below the I/O line stands no clock, socket, disk, loop or dice:", offenders)
