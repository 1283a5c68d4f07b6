"""What the tidy tests share: the modules of medchain as syntax trees, the import law, the files of the repository."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Source:
    """One module of medchain: its path from the root, its room (the first name below medchain), its text and its syntax tree."""

    path: str
    room: str
    text: str
    tree: ast.Module

    def at(self, node: ast.AST) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


@dataclass(frozen=True)
class Law:
    """The import contracts of pyproject.toml, by their ids."""

    contracts: dict[str, dict[str, Any]]

    def rooms_of(self, contract: str, key: str = "source_modules") -> set[str]:
        """The rooms a contract lists: `medchain.chain.**` and `medchain.chain` both name the room chain."""
        return {name.split(".")[1] for name in self.contracts[contract][key]}

    @property
    def floors(self) -> list[set[str]]:
        """The rooms floor by floor, from the top; parentheses (a room that may not exist yet) are dropped."""
        return [{room.strip(" ()") for room in layer.split("|")} for layer in self.contracts["floors"]["layers"]]

    @property
    def pure(self) -> set[str]:
        """The rooms below the I/O line as the floors tell: everything below telemetry, without crypto, and the simulator."""
        below = self.floors[self.floors.index({"telemetry"}) + 1 :]
        return set().union(*below) - {"crypto"} | {"sim"}


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    found = []
    for path in sorted((REPOSITORY / "medchain").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        inside = path.relative_to(REPOSITORY / "medchain")
        found.append(Source(str(path.relative_to(REPOSITORY)), inside.parts[0].removesuffix(".py"), text, ast.parse(text)))
    return found


@pytest.fixture(scope="session")
def law() -> Law:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    return Law({contract["id"]: contract for contract in settings["tool"]["importlinter"]["contracts"]})


@pytest.fixture(scope="session")
def pure_sources(sources: list[Source], law: Law) -> list[Source]:
    """The modules below the I/O line; leveldb.py stands in a pure room but above the line."""
    return [source for source in sources if source.room in law.pure and source.path != "medchain/store/leveldb.py"]


@pytest.fixture(scope="session")
def repository_files() -> list[Path]:
    """Every file that is in git or would be added; without git (an unpacked archive) the tests that need it are skipped."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        pytest.skip("this is not a git checkout")
    return [REPOSITORY / name for name in listing.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


class Reporter:
    """Collects offenders, so that one run names all of them."""

    def __call__(self, rule: str, offenders: list[str]) -> None:
        if offenders:
            pytest.fail(f"{rule}\n  " + "\n  ".join(sorted(offenders)), pytrace=False)


@pytest.fixture(scope="session")
def report() -> Reporter:
    return Reporter()
