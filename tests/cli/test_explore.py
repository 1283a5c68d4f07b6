"""`medchain sim explore`: answers, exit codes and the story of a broken promise."""

from __future__ import annotations

import json

import pytest

from medchain.cli import explore, main


def command(*words: str) -> int:
    return main.main(["sim", "explore", *words])


def test_small_search_is_told_in_words_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--views", "0", "--liar", "0", "--recover", "20") == 0
    told = capsys.readouterr().out
    assert "views 0 to 0, lying: the leader of view 0" in told and "all there are" in told and "held: evidence accuses liars only" in told
    assert "states left alone with a network that works" in told and "VIOLATION" not in told
    assert command("--views", "0", "--liar", "0", "--recover", "20", "--json") == 0
    (value,) = json.loads(capsys.readouterr().out)["searches"]
    assert value["is_complete"] and value["violation"] is None and value["states"] > 100
    assert value["decisions"] == ["A0 in view 0", "B0 in view 0"] and value["recoveries"]["failures"] == 0


def test_search_that_was_stopped_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--views", "0", "--no-liar", "--states-max", "5", "--recover", "0") == 0
    assert "NOT all" in capsys.readouterr().out


def test_broken_agreement_is_a_numbered_story_and_a_local_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--views", "0", "--liar", "0", "--liar", "1") == 4
    told = capsys.readouterr().out
    assert "VIOLATION: two blocks are certified at one height: A0 (view 0) and B0 (view 0)" in told
    assert "   1. node" in told and "and says commit(view 0, B0)" in told


@pytest.mark.parametrize("words", [("--views", "4"), ("--liar", "4"), ("--states-max", "0"), ("--recover", "-1")])
def test_bound_out_of_range_is_wrong_use_with_its_range(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*words) == 2
    assert "must be from" in capsys.readouterr().err
    assert "cli.explore-range" in explore.REFUSALS
