"""The page says what was measured and what was missed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import medchain.bench
from medchain.bench.facts import Facts
from medchain.bench.faults import FAULTS, title_of
from medchain.bench.page import PAGE_COMMAND, Measurement, brief
from medchain.bench.rows import FULL, Row
from medchain.bench.session import Rate
from medchain.bench.worker import Checked

PAGE = Path(medchain.bench.__file__).with_name("FAULTS.md")


def measurement() -> Measurement:
    good = Row("dead", "f dead", Rate(500, 300, 90, 120, 200), Rate(450, 310, 95, 130, 210), [900.0], [1_500.0], Checked(9_000, 0, 0, 0))
    good.expect("at least 80% of healthy", True)
    bad = Row("storm", "storm", next_block_ms=[1.0, 2_000.0, 30.0], checked=Checked(100, 3, 0, 0), is_paced=True, repetitions=3)
    bad.expect("nothing accepted lost", False)
    bad.expect("nothing decided twice", True)
    return Measurement(Facts("1", "abc", "2026-01-01", "a machine", 2, 0.1, "3.12", "Linux"), FULL, 4, 200.0, (good, bad))


def test_page_shows_every_row_the_machine_and_what_was_missed():
    page = measurement().page()
    assert "| f dead | 0 | 500 | 450 | 90% | 900 / 900 / 900 | 1500 / 1500 | 300 / 310 | 9000 | 0 | 0 |" in page
    assert "| storm ¹ | 3 |  |  |  | 30 / 2000 / 2000 |  | – / – | 100 | 3 | 0 |" in page
    assert "a machine, 2 cores" in page and "commit abc" in page
    assert "- at least 80% of healthy: held under 1 of 1 faults" in page
    assert "- nothing accepted lost: MISSED under: storm" in page


def test_what_a_fault_costs_until_the_network_has_settled_into_it_stands_beside_the_ratio():
    measured = measurement()
    good = measured.rows[0]
    good.at_first = Rate(320, 400, 90, 120, 1_200)
    assert "| 90% (at first 64%) |" in measured.page()
    assert good.to_value()["ratio_at_first"] == 0.64


def test_missed_target_is_told_and_decides_the_verdict():
    measured = measurement()
    assert not measured.are_targets_met
    assert "MISSED: storm: nothing accepted lost" in measured.summary()
    assert json.loads(json.dumps(measured.to_value(), allow_nan=False))["rows"][1]["targets"][0] == {
        "text": "nothing accepted lost",
        "is_met": False,
    }


def test_facts_are_of_this_machine():
    facts = Facts.collect()
    assert facts.cores >= 1 and facts.machine and facts.python.startswith("3.1")


def test_row_in_one_line_says_what_was_missed():
    good, bad = measurement().rows
    assert brief(good) == "500 -> 450 tx/s, next block within 900 ms, all equal within 1500 ms"
    assert brief(bad) == "next block within 2000 ms; MISSED: nothing accepted lost"


def test_page_of_a_busy_machine_says_so():
    measured = measurement()
    assert "busy" not in measured.page()
    assert "**The machine was busy" in replace(measured, facts=replace(measured.facts, load_before=7.5)).page()


def test_page_in_the_room_has_the_faults_for_which_something_must_hold():
    page = PAGE.read_text(encoding="utf-8")
    assert PAGE_COMMAND in page
    rows = [line.split(" | ")[0].strip("| ").removesuffix(" ¹") for line in page.splitlines() if line.startswith("| ")][2:]
    assert set(rows) <= {title_of(name, FULL) for name in FAULTS}
    for name in ("dead", "primary-killed", "storm", "liar-double-voter", "liar-half-deaf", "liar-lazy-primary", "partition-half"):
        assert title_of(name, FULL) in rows


def test_readme_leads_to_the_page(repository):
    assert "medchain/bench/FAULTS.md" in (repository / "README.md").read_text(encoding="utf-8")
