"""The page holds what the results hold, needs nothing else, can be read by everyone, and trusts no word of a result."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from medchain.bench.report import page
from medchain.bench.results import LOWER, Case, Curve, Measure, Target

pytestmark = pytest.mark.usefixtures("drawing")

VOID = {"meta", "br", "hr", "img", "link", "input"}
HOSTILE = "<script>alert('x')</script>\"><img src=https://example.invalid onerror=a> & $\\frac{ \x00\x1b \udce4"


class Reader(HTMLParser):
    """Reads a page: elements with their attributes and text; notes what is closed in the wrong order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def both(drawing, cluster_result, micro_result) -> str:
    return page([cluster_result, micro_result])


def test_page_is_whole_and_fetches_nothing(both):
    reader = Reader(both)
    assert reader.wrong == [] and reader.open == []
    assert {tag for tag, _ in reader.elements}.isdisjoint({"script", "link", "img", "iframe", "object", "form"})
    addresses = {
        value for _, attributes in reader.elements for name, value in attributes.items() if value and "://" in value and "xmlns" not in name
    }
    assert addresses == set()
    assert "@import" not in both and not re.search(r"url\((?!#)", both)
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]


def test_page_can_be_read_without_seeing_it(both):
    reader = Reader(both)
    assert reader.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in reader.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert all(attributes.get("scope") for attributes in reader.all("th"))
    assert len(reader.all("caption")) == len(reader.all("table")) > 3
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in reader.all("svg"))
    assert len(reader.all("svg")) == len(reader.all("figure")) == len(reader.all("figcaption")) == 4


def test_names_on_the_page_are_unique_and_those_referred_to_are_there(both):
    reader = Reader(both)
    names = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', both)) <= set(names)


def test_first_section_tells_what_was_to_be_reached_and_was(both):
    text = Reader(both).text
    assert text.index("What was to be reached") < text.index("Where processor time goes") < text.index("Everything measured")
    assert "3 of 4 targets that must be reached are, and 1 of 4 goals." in text
    assert re.search(
        r"Four hospitals, everything on cluster, base: latency p99 at most 60 ms at most 40 ms 8\d(\.\d)? ms ±\S+ % MISSED", text
    )
    assert re.search(r"cluster, base: rate at least 5,000 1/s at least 6,600 1/s 5,\d\d0 1/s ±\S+ % must reached, goal not", text)
    assert re.search(r"cluster, base: limit ratio at least 0.6x at least 0.65x \S+ ±\S+ % goal reached", text)


def test_curves_stand_with_their_explanations_and_are_told_in_words(both):
    reader = Reader(both)
    assert "The path is as long at any size. What grows are buckets." in reader.text
    told = next(attributes["aria-label"] for attributes in reader.all("svg") if attributes["aria-label"].startswith("Writing a key"))
    assert re.search(r"tree only: \S+ at 1,000, \S+ at 100,000, \S+ at 1,000,000; with LevelDB: \S+ at 1,000", told)


def test_processor_time_and_latency_are_drawn_for_networks_with_all_their_parts(both, cluster_result):
    reader = Reader(both)
    told = next(attributes["aria-label"] for attributes in reader.all("svg") if attributes["aria-label"].startswith("Processor time a"))
    for case in cluster_result.cases:
        assert f"{case.name}: verify " in told
    assert "LevelDB 8" in told and "rest 1" in told
    assert any(attributes["aria-label"].startswith("Latency in milliseconds") for attributes in reader.all("svg"))


def test_every_case_and_measure_is_in_the_tables(both, cluster_result, micro_result):
    text = Reader(both).text
    for result in (cluster_result, micro_result):
        for case in result.cases:
            if case.measures:
                assert f"{case.title} {case.name}" in text
    assert "state-tree-only-1000; series tree only, keys 1000" in text
    assert len(re.findall(r"latency max \S+ ms", text)) == 6


def test_facts_and_what_makes_them_doubtful_are_told(both):
    text = Reader(both).text
    assert "cluster: medchain 0.1.0 at commit abcdef1234, measured on 2026-11-21 10:00 UTC, a machine, 2 cores, Python 3.11.7." in text
    assert "micro: the machine was busy with other things (load 3.5 on 2 cores)" in text
    assert "micro: the program held changes that are not committed." in text
    assert "cluster: the machine was busy" not in text


def test_same_results_give_the_same_bytes_in_any_process(both, cluster_result, micro_result, tmp_path):
    for result in (cluster_result, micro_result):
        result.save(tmp_path / result.kind)
    words = ["bench", "report", str(tmp_path / "cluster"), str(tmp_path / "micro"), "--out", str(tmp_path / "page.html")]
    program = "import sys; from medchain.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program, *words], env=environment, check=True, timeout=120, capture_output=True)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == both


def test_two_results_of_a_kind_are_told_apart_and_share_their_plots(micro_result):
    later = replace(micro_result, facts=replace(micro_result.facts, commit="fedcba"))
    reader = Reader(page([micro_result, later]))
    assert "micro 1 (abcdef1234+): medchain" in reader.text and "micro 2 (fedcba): medchain" in reader.text
    (told,) = [attributes["aria-label"] for attributes in reader.all("svg")]
    assert "micro 1 (abcdef1234+) tree only:" in told and "micro 2 (fedcba) with LevelDB:" in told


def test_result_without_targets_curves_and_cases_is_a_page_too(micro_result):
    text = Reader(page([replace(micro_result, cases=(), curves=())])).text
    assert "No target was set for what was measured." in text


def test_nothing_a_result_says_becomes_part_of_the_page_but_as_text(cluster_result):
    measures = {
        f"cpu_verify{HOSTILE}": Measure(HOSTILE, LOWER, (1.0, math.nan)),
        "cpu_verify": Measure("us", LOWER, (math.inf,)),
        "cpu_rest": Measure(HOSTILE, LOWER, (1e300, 1e-300)),
        "latency_p50": Measure("ms", "", (-1.0,)),
        "latency_max": Measure("ms", LOWER, (1.0,)),
    }
    target = Target(f"cpu_verify{HOSTILE}", 1.0, 2.0)
    case = Case(HOSTILE, HOSTILE, measures, {HOSTILE: HOSTILE, "series": HOSTILE}, (target,), curve=HOSTILE, x=math.nan)
    curve = Curve(HOSTILE, HOSTILE, HOSTILE, "cpu_rest", HOSTILE, is_log_x=True)
    facts = replace(
        cluster_result.facts, version=HOSTILE, commit=HOSTILE, measured_at=HOSTILE, machine=HOSTILE, python=HOSTILE, system=HOSTILE
    )
    text = page([replace(cluster_result, facts=facts, cases=(case, replace(case, name="2")), curves=(curve,))])
    text.encode("utf-8")
    reader = Reader(text)
    assert reader.wrong == [] and reader.open == []
    assert {tag for tag, _ in reader.elements}.isdisjoint({"script", "img"})
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on") or name == "src"]
    assert "\x00" not in text and "\x1b" not in text
    assert "<script>alert('x')</script>" in reader.text, "it is told as it stands"
