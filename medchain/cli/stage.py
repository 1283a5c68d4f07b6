"""What a demonstration is played on: runs `medchain` commands in this process, shows each with its time, and what it proves.

Every command is the very command that a person types, with its --json answer read back; in what is printed, long identities stand under
their names ($RECORD). This module knows no story.
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TextIO

from medchain.cli import output
from medchain.errors import InvariantBroken

INDENT: Final = "     "
WIDTH: Final = 118


@dataclass(slots=True)
class Scene:
    """One step of the story."""

    number: int
    title: str
    seconds: float = 0.0
    commands: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    proves: str = ""

    def to_value(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "step": self.number, "title": self.title, "seconds": round(self.seconds, 3), "commands": list(self.commands),
            "results": list(self.results), "proves": self.proves,
        }  # fmt: skip


class Stage:
    """Shows scenes one after the other on `stream`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._names: dict[str, str] = {}
        self.scenes: list[Scene] = []

    # ---- what is shown -------------------------------------------------------------------------------------------------------

    def write(self, text: str = "") -> None:
        """Show a line."""
        print(text, file=self._stream, flush=True)

    def call(self, name: str, identity: str) -> str:
        """Show `identity` (64 hexadecimal digits) as $name from now on; return it."""
        self._names[identity] = name
        return identity

    @property
    def names(self) -> dict[str, str]:
        """Name → identity of everything that was named."""
        return {name: identity for identity, name in self._names.items()}

    @contextmanager
    def scene(self, title: str, proves: str) -> Iterator[Scene]:
        """Play one step: its title is shown at once, its time and what it proves at its end."""
        scene = Scene(len(self.scenes) + 1, title)
        began = time.monotonic()
        self.write(f"{scene.number:>3}. {title}")
        yield scene
        scene.seconds = time.monotonic() - began
        scene.proves = proves
        self.scenes.append(scene)
        proof = textwrap.fill(proves, WIDTH, initial_indent=f"{INDENT}proves  ", subsequent_indent=f"{INDENT}        ")
        self.write(f"{proof}\n{INDENT}{scene.seconds:.2f} s\n")

    def result(self, scene: Scene, text: str) -> None:
        """Show what came of a command."""
        scene.results.append(text)
        self.write(f"{INDENT}→ {text}")

    def line_of(self, words: Sequence[str]) -> str:
        """Return a command as a person types it, with names for identities."""
        return "medchain " + " ".join(f"${self._names[word]}" if word in self._names else shlex.quote(word) for word in words)

    # ---- what is done --------------------------------------------------------------------------------------------------------

    def show(self, scene: Scene, *words: str) -> None:
        """Show a command that is done by other means."""
        line = self.line_of(words)
        scene.commands.append(line)
        self.write(f"{INDENT}$ {line}")

    def run(self, scene: Scene, *words: str, expect: int = output.DONE) -> dict[str, Any]:
        """Run a command, show it, and return its JSON answer. Raises InvariantBroken when it ends with another code than `expect`."""
        self.show(scene, *words)
        return self.ask(*words, expect=expect)

    def ask(self, *words: str, expect: int = output.DONE) -> dict[str, Any]:
        """Run a command without showing it, and return its JSON answer."""
        from medchain.cli.main import main

        answered, unsaid = io.StringIO(), io.StringIO()
        is_bar_shown = expect == output.DONE and sys.stderr.isatty()
        with contextlib.redirect_stdout(answered), contextlib.redirect_stderr(sys.stderr if is_bar_shown else unsaid):
            try:
                code = main([*words, "--json"])
            except SystemExit as ending:  # argparse did not know a word
                raise InvariantBroken(f"`{self.line_of(words)}` is no command: {unsaid.getvalue().strip()}") from ending
        if code == output.INTERRUPTED:
            raise KeyboardInterrupt
        value: dict[str, Any] = json.loads(answered.getvalue().splitlines()[-1])
        if code != expect:
            told = value.get("error", {}).get("message", answered.getvalue().strip())
            raise InvariantBroken(f"`{self.line_of(words)}` ended with exit code {code} where {expect} was due: {told}")
        return value

