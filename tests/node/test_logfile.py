"""The bounded log: two files at most, no line cut in two, the newest always in the same place."""

from __future__ import annotations

import pytest

from medchain import telemetry
from medchain.node.logfile import LogFile


def test_full_log_becomes_the_old_one_and_a_new_one_begins(tmp_path):
    path = tmp_path / "node.log"
    log = LogFile(path, 100)
    lines = [f"line {number:03d}\n" for number in range(50)]
    for line in lines:
        assert log.write(line) == len(line)
    log.close()
    old = tmp_path / "node.log.old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["node.log", "node.log.old"]
    assert path.stat().st_size <= 100 and old.stat().st_size <= 100
    kept = (old.read_text() + path.read_text()).splitlines(keepends=True)
    assert kept == lines[-len(kept) :]
    assert len(kept) > 100 // len(lines[0])


def test_log_goes_on_where_an_earlier_process_ended(tmp_path):
    path = tmp_path / "node.log"
    path.write_text("x" * 95 + "\n")
    log = LogFile(path, 100)
    log.write("four\n")
    log.close()
    assert path.read_text() == "four\n"
    assert (tmp_path / "node.log.old").read_text() == "x" * 95 + "\n"


def test_line_longer_than_the_bound_has_a_file_of_its_own(tmp_path):
    log = LogFile(tmp_path / "node.log", 10)
    log.write("a" * 50 + "\n")
    log.write("b\n")
    log.close()
    assert (tmp_path / "node.log").read_text() == "b\n"
    assert (tmp_path / "node.log.old").read_text() == "a" * 50 + "\n"


def test_folder_that_allows_no_new_name_loses_the_line_and_not_the_file(tmp_path):
    (tmp_path / "node.log.old").mkdir()
    log = LogFile(tmp_path / "node.log", 10)
    log.write("123456789\n")
    with pytest.raises(OSError):
        log.write("next\n")
    assert (tmp_path / "node.log").read_text() == "123456789\n"
    (tmp_path / "node.log.old").rmdir()
    log.write("next\n")
    log.close()
    assert (tmp_path / "node.log").read_text() == "next\n"


def test_lost_line_is_counted_and_never_raised_to_whoever_logs(tmp_path):
    (tmp_path / "node.log.old").mkdir()
    log = telemetry.EventLog(LogFile(tmp_path / "node.log", 10))
    log.write("node.started", "info", {"height": 1})
    log.write("node.started", "info", {"height": 2})
    assert log.lines_lost == 1
