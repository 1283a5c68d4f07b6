"""The progress bar: on terminals only, and never in the way of the work."""

from __future__ import annotations

import io

import pytest

from medchain.cli.progress import Progress, amount


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(Terminal):
    def write(self, text: str) -> int:
        raise OSError("the terminal went away")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (1_500_000, "1.5 MB"), (2e9, "2.0 GB"), (5e15, "5000.0 TB")]
)
def test_amounts_read_well(count, text):
    assert amount(count) == text


def test_bar_grows_to_its_end_on_a_terminal():
    stream = Terminal()
    with Progress("sealing", 100, stream=stream) as bar:
        bar(50)
        assert "[############............]  50% 50 B of 100 B" in bar.line()
        bar(100)
    shown = stream.getvalue()
    assert "100%" in shown
    assert shown.endswith("\n")


def test_unknown_total_shows_what_is_done():
    bar = Progress("fetching", 0, stream=Terminal())
    bar(1_234)
    assert "fetching 1.2 kB" in bar.line()


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_nothing_is_drawn_where_nobody_watches(stream):
    with Progress("sealing", 100, stream=stream, is_shown=stream.__class__ is not Terminal) as bar:
        bar(100)
    assert stream.getvalue() == ""


def test_lost_terminal_does_not_stop_the_work():
    with Progress("sealing", 100, stream=Gone()) as bar:
        bar(100)
        bar(100)
