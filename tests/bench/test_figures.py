"""Figures are written with the digits that mean something."""

from __future__ import annotations

import math

import pytest

from medchain.bench import figures


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1_234_567, "1,230,000"),
        (5_000, "5,000"),
        (999.6, "1,000"),
        (12.345, "12.3"),
        (0.001234, "0.00123"),
        (-3.14159, "-3.14"),
        (0, "0"),
        (2.5e-7, "2.50e-07"),
        (-1e300, "-1.00e+300"),
    ],
)
def test_number_has_three_digits_that_count(value, text):
    assert figures.number(value) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_a_dash(value):
    assert figures.number(value) == figures.share(value) == figures.change(value) == "–"


def test_unit_stands_apart_but_for_a_ratio():
    assert figures.quantity(12.34, "us") == "12.3 us"
    assert figures.quantity(1.5, "x") == "1.5x"


@pytest.mark.parametrize(
    ("factor", "text"),
    [(1.0, "0 %"), (1.00001, "0 %"), (1.1234, "+12 %"), (0.966, "-3.4 %"), (2.5, "x2.5"), (0.25, "x0.25"), (0.0, "–"), (-1.0, "–")],
)
def test_change_is_told_in_percent_and_beyond_doubling_as_a_factor(factor, text):
    assert figures.change(factor) == text


def test_share_is_told_in_percent():
    assert (figures.share(0.754), figures.share(0.0123)) == ("75 %", "1.2 %")


def test_text_out_of_a_file_loses_what_cannot_be_shown():
    assert figures.plain("a\x1b[2Jb\n\udce4\u202ec äµ–") == "a [2Jb   c äµ–"
