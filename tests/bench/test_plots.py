"""Plots are SVG that stands in a page: text is text, names are the plot's own, nothing that comes out of a file breaks them."""

from __future__ import annotations

import math
import re
import sys
from xml.etree import ElementTree

import pytest

from medchain.bench.plots import LABEL_MAX, Line, Plots, Point
from medchain.errors import Rejected

SVG = "{http://www.w3.org/2000/svg}"
LINES = (Line("one", (Point(1.0, 1.0, 2.0, 3.0), Point(10.0, 2.0, 3.0, 4.0))), Line("other", (Point(1.0, 5.0, 5.0, 5.0),)))


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def curve(plots: Plots, lines=LINES, **more) -> str:
    words = {"x_label": "keys", "y_label": "cpu (us)", "is_log_x": False, "alt": "what is drawn"}
    return plots.curve(lines, **{**words, **more})


def test_without_the_package_that_draws_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Rejected) as refused:
        Plots()
    assert refused.value.code == "bench.no-plots"
    assert "scripts/bench report" in refused.value.message and "medchain[bench]" in refused.value.message


@pytest.mark.usefixtures("drawing")
class TestDrawn:
    """What needs matplotlib."""

    def test_curve_shows_labels_as_text_and_says_in_words_what_it_shows(self):
        svg = curve(Plots())
        assert {"keys", "cpu (us)", "one", "other"} <= set(texts(svg))
        root = ElementTree.fromstring(svg)
        assert (root.get("role"), root.get("aria-label")) == ("img", "what is drawn")

    def test_one_line_needs_no_legend(self):
        assert "one" not in texts(curve(Plots(), LINES[:1]))

    def test_logarithmic_scale_takes_curves_that_begin_at_zero(self):
        points = tuple(Point(float(keys), 1.0, 2.0, 3.0) for keys in (0, 100_000, 1_000_000))
        shown = texts(curve(Plots(), [Line("one", points)], is_log_x=True))
        assert {"0", "100,000", "1,000,000"} <= set(shown)

    def test_names_of_two_plots_of_one_page_differ(self):
        plots = Plots()
        names = [set(re.findall(r' id="([^"]+)"', curve(plots))) for _ in range(2)]
        assert names[0] and not names[0] & names[1]

    def test_names_that_are_referred_to_are_there(self):
        svg = Plots().stack(["base"], {"verify": [50.0], "rest": [10.0]}, x_label="us", alt="")
        names = set(re.findall(r' id="([^"]+)"', svg))
        assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg)) <= names

    def test_same_input_gives_the_same_bytes(self):
        assert curve(Plots()) == curve(Plots())
        assert "<dc:date>" not in curve(Plots())

    def test_stack_tells_the_sum_of_what_is_drawn(self):
        svg = Plots().stack(["base", "other"], {"verify": [50.0, 1.0], "rest": [10.5, math.nan]}, x_label="us", alt="")
        assert {"60.5", "1", "base", "other", "verify", "rest"} <= set(texts(svg))

    def test_spans_leave_out_what_is_no_number(self):
        svg = Plots().spans(["base", "other"], {"p50": [50.0, math.nan], "max": [100.0, 0.0]}, x_label="ms", alt="")
        assert {"base", "other", "p50", "max"} <= set(texts(svg))

    @pytest.mark.parametrize("label", ["$\\frac{", "<script>alert(1)</script>", "_hidden", "two\nlines\x00", 'quo"te', "x" * 5_000, ""])
    def test_any_label_is_drawn_as_it_stands(self, label):
        svg = curve(Plots(), [Line(label, LINES[0].points), LINES[1]], x_label=label, y_label=label, alt=label)
        ElementTree.fromstring(svg)
        assert "<script" not in svg
        if label:
            shown = label.replace("\n", " ").replace("\x00", " ")[: LABEL_MAX - 1]
            assert any(shown.strip() in text for text in texts(svg))

    @pytest.mark.parametrize(
        "points", [(), (Point(math.nan, 1.0, 2.0, 3.0),), (Point(1.0, math.nan, math.nan, math.nan),), (Point(0.0, 0.0, 0.0, 0.0),)]
    )
    def test_curve_without_a_point_that_is_a_number_is_an_empty_plot(self, points):
        for is_log_x in (False, True):
            ElementTree.fromstring(curve(Plots(), [Line("one", points)], is_log_x=is_log_x))
