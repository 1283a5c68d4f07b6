"""Scenarios of agreement as transcripts: what the real replicas do is what the files say.

`pytest tests/consensus/test_transcripts.py --rewrite` writes what happens now into the files; the change is then reviewed as a diff.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medchain.chain.certificate import Certificate
from medchain.chain.vote import COMMIT, PREPARE, ViewChange, Vote
from medchain.consensus.events import Broadcast, Decided, EvidenceFound, OwnViewChange, OwnVote, Persist
from tests.consensus import transcript
from tests.consensus.conftest import KEYS, NETWORK
from tests.consensus.stage import Misuse, Stage

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_what_happens_is_what_the_transcript_says(path: Path, request: pytest.FixtureRequest) -> None:
    written = path.read_text(encoding="utf-8")
    happened = transcript.play(written)
    if request.config.getoption("--rewrite"):
        path.write_text(happened, encoding="utf-8")
        return
    assert happened.splitlines() == written.splitlines(), "run with --rewrite and review the diff if this change is meant"
    assert happened == written


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_every_transcript_says_in_its_first_line_what_it_shows(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")
    assert len(first) > 30


# ---- the stage itself -------------------------------------------------------------------------------------------------------------

HAPPY = """# Two commands.

start n=4
propose b B1
----
b: start height 1
  build a block for v0
b: B1 is built
  persist block B1 for v0
  persist prepare v0 B1
  send pre-prepare v0 B1
"""


def test_a_transcript_that_is_right_stays_as_it_is_and_a_wrong_one_does_not() -> None:
    assert transcript.play(HAPPY) == HAPPY
    wrong = HAPPY.replace("  persist prepare v0 B1\n", "")
    assert transcript.play(wrong) == HAPPY


@pytest.mark.parametrize(
    ("commands", "complaint"),
    [
        ("propose b B1", "the first command is start"),
        ("start n=4\nsing a", "no such command: sing"),
        ("start n=4\ntick e 1s", "no validator is called e"),
        ("start n=4\ntick a 1h", "a time reads"),
        ("start n=4\ndeliver a", "a link reads a->b"),
        ("start n=4 lairs=a", "no such option: lairs"),
        ("start n=4\nblock B1 v0\nblock B1 v0", "there is a block B1 already"),
        ("start n=4\ninvalid B1", "no block is called B1"),
        ("start n=4\nblock B1 0", "a view reads v0"),
        ("start n=4\nblock B1 v0\nsay a->b prepare v0 B1", "only liars say"),
        ("start n=4 liars=d\nblock B1 v0\nsay d->a view-change v1 shows v0 B1 proven by a b d", "a is honest and never signed"),
        ("start n=4 liars=d\nblock B1 v0\nsay d->a view-change v1 shows v0 B1 proven by d", "3 validators are a quorum, not 1"),
        ("start n=4 liars=c\nblock B1 v1\nsay c->a pre-prepare v1 B1 with a b c", "a never signed a view change to v1"),
        ("start n=4 liars=d\nblock B1 v0\nlearn a v0 B1 by b c d", "b is honest and never signed commit v0 B1"),
        ("start n=4\nblock B1 v0\necho a prepare v0 B1", "a is honest and never signed prepare v0 B1"),
        ("start n=4\nrestore a", "a must be down"),
        ("start n=4\nsituation a busy", "a situation is"),
        ("start n=4\ncrash a sometime", "a crash is now"),
        ("start n=4\ntick a", "cannot be read: tick a"),
    ],
)
def test_what_a_transcript_cannot_mean_is_refused_in_words(commands: str, complaint: str) -> None:
    with pytest.raises(Misuse, match=complaint):
        transcript.play(f"{commands}\n----\n")


def test_commands_without_a_rule_are_refused() -> None:
    with pytest.raises(Misuse, match="a line of four dashes"):
        transcript.parse("start n=4")


def test_the_page_of_commands_lists_every_command_and_no_other() -> None:
    page = (Path(__file__).parent / "scenarios" / "README.md").read_text(encoding="utf-8")
    table = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert {words.split()[0] for cell in table for words in re.findall(r"`([^`]+)`", cell)} == set(transcript.COMMANDS)


def test_the_stage_sees_what_no_transcript_may_bless() -> None:
    stage = Stage()
    for command in ("start n=4 liars=d", "block B1 v0", "block B2 v0"):
        transcript.run(stage, command)
    a = stage.players["a"]
    one, two = (Vote.sign(NETWORK, KEYS[0], PREPARE, 1, 0, stage.digest(name)) for name in ("B1", "B2"))
    with pytest.raises(AssertionError, match="says what is not durable"):
        stage.obey(a, Broadcast(one))
    stage.obey(a, Persist(OwnVote(one)))
    stage.obey(a, Broadcast(one))
    with pytest.raises(AssertionError, match="promises twice"):
        stage.obey(a, Persist(OwnVote(two)))
    stage.obey(a, Persist(OwnViewChange(ViewChange.sign(NETWORK, KEYS[0], 1, 1, None))))
    with pytest.raises(AssertionError, match="votes in a view it left"):
        stage.obey(a, Persist(OwnVote(Vote.sign(NETWORK, KEYS[0], COMMIT, 1, 0, stage.digest("B1")))))
    stage.obey(a, Decided(Certificate(1, 0, stage.digest("B1"), ())))
    with pytest.raises(AssertionError, match="two blocks of one height"):
        stage.obey(a, Decided(Certificate(1, 1, stage.digest("B2"), ())))
    with pytest.raises(AssertionError, match="b is honest and is convicted"):
        stage.obey(a, EvidenceFound(KEYS[1].public, "equivocation", one, two))
