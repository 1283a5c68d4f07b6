"""Scenarios of whole engines as transcripts; `pytest tests/engine/test_transcripts.py --rewrite` writes what happens now into the files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.consensus import transcript
from tests.consensus.stage import Misuse
from tests.engine.transcript import COMMANDS, Scene

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_what_happens_is_what_the_transcript_says(path: Path, request: pytest.FixtureRequest) -> None:
    written = path.read_text(encoding="utf-8")
    scene = Scene()
    happened = transcript.play(written, scene.obey)
    scene.cluster.check_agreement()
    if request.config.getoption("--rewrite"):
        path.write_text(happened, encoding="utf-8")
        return
    assert happened.splitlines() == written.splitlines(), "run with --rewrite and review the diff if this change is meant"


@pytest.mark.parametrize(
    ("commands", "complaint"),
    [
        ("run 1s", "the first command is start"),
        ("start n=4\nsing", "no such command"),
        ("start n=4\nkill e", "no node is called e"),
        ("start n=4\nwipe a", "a must be down"),
        ("start n=4\nheal a", "heal takes no words"),
    ],
)
def test_what_a_transcript_cannot_mean_is_refused_in_words(commands: str, complaint: str) -> None:
    with pytest.raises(Misuse, match=complaint):
        transcript.play(f"{commands}\n----\n", Scene().obey)


def test_the_page_of_commands_lists_every_command_and_no_other() -> None:
    page = (Path(__file__).parent / "scenarios" / "README.md").read_text(encoding="utf-8")
    table = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert {words.split()[0] for cell in table for words in re.findall(r"`([^`]+)`", cell)} == set(COMMANDS)
