"""Telemetry: what is written is listed, and nothing of a record, a key or a person can be written."""

from __future__ import annotations

import ast
import io
import json
import logging
from pathlib import Path

import pytest

from medchain import telemetry
from medchain.errors import InvariantBroken

MEDCHAIN = Path(telemetry.__file__).parent


@pytest.fixture
def stream():
    lines = io.StringIO()
    telemetry.configure(lines, node=3)
    yield lines
    telemetry.configure(None)


def calls(name: str):
    for path in sorted(MEDCHAIN.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and name in (getattr(node.func, "id", ""), getattr(node.func, "attr", "")):
                yield path.relative_to(MEDCHAIN), node


def test_event_is_one_json_object_on_one_line(stream):
    telemetry.log_event("network.connected", peer=2, height=17)
    telemetry.log_event("network.disconnected", level="warning", peer=2, reason="frozen")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["event"] == "network.connected" and first["level"] == "info"
    assert (first["node"], first["peer"], first["height"]) == (3, 2, 17)
    assert first["time"].endswith("Z")
    assert second["level"] == "warning" and second["reason"] == "frozen"


def test_terminal_gets_a_readable_line():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    lines = Terminal()
    log = telemetry.EventLog(lines)
    log.write("network.banned", "warning", {"peer": 1})
    assert "network.banned" in lines.getvalue() and "peer=1" in lines.getvalue()
    assert telemetry.EVENTS["network.banned"] in lines.getvalue()


def test_level_below_the_configured_one_is_not_written():
    lines = io.StringIO()
    log = telemetry.EventLog(lines, level="warning")
    log.write("network.connected", "info", {})
    assert lines.getvalue() == ""


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        "Mrs Jane Doe",
        "a b",
        "x" * 65,
        "ab" * 32,
        "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6",
        "line\nbreak",
        {"a": 1},
        ["x"],
        "",
    ],
)
def test_value_that_could_be_a_payload_a_key_or_a_name_is_withheld(stream, value):
    telemetry.log_event("network.refused", reason=value)
    assert json.loads(stream.getvalue())["reason"] == "withheld"


@pytest.mark.parametrize("value", ["handshake.wrong-key", "[::1]:7200", "ClientConnectorError", 7, True, None, 0.5])
def test_words_and_numbers_are_written(stream, value):
    telemetry.log_event("network.refused", reason=value)
    assert json.loads(stream.getvalue())["reason"] == value


def test_sentence_keeps_its_words_but_no_key(stream):
    telemetry.log_event("node.alarm", sentence="the key " + "ab" * 32 + " voted twice\nstop the node")
    text = json.loads(stream.getvalue())["sentence"]
    assert "abab" not in text and "voted twice stop the node" in text


def test_digest_is_cut(stream):
    telemetry.log_event("chain.decided", digest="0123456789abcdef" * 4)
    assert json.loads(stream.getvalue())["digest"] == "0123456789abcdef"


@pytest.mark.parametrize("configured", [True, False])
def test_unlisted_event_or_field_is_our_bug(configured):
    telemetry.configure(io.StringIO() if configured else None)
    try:
        with pytest.raises(InvariantBroken):
            telemetry.log_event("network.unheard-of")
        with pytest.raises(InvariantBroken):
            telemetry.log_event("network.connected", patient="x")
    finally:
        telemetry.configure(None)


def test_library_text_never_reaches_the_log(stream):
    try:
        raise ValueError("Mrs Jane Doe")
    except ValueError:
        logging.getLogger("aiohttp.server").exception("request of %s", "Mrs Jane Doe")
    row = json.loads(stream.getvalue())
    assert row["event"] == "library.logged" and row["library"] == "aiohttp.server" and row["kind"] == "ValueError"
    assert "Jane" not in stream.getvalue()


def test_broken_stream_stops_nothing_and_is_counted():
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("no space left on device")

    log = telemetry.EventLog(Full())
    log.write("node.started", "info", {})
    assert log.lines_lost == 1


def test_counters_count_by_name_and_label():
    counters = telemetry.Counters()
    counters.increment("network_drops", label="gossip-overflow")
    counters.increment("network_drops", 4, label="not-connected")
    counters.increment("network_frames_sent", 2)
    assert counters.value("network_drops") == 5
    assert counters.value("network_drops", "not-connected") == 4
    assert counters.snapshot() == {"network_drops:gossip-overflow": 1, "network_drops:not-connected": 4, "network_frames_sent": 2}


def test_counter_without_documentation_is_our_bug():
    with pytest.raises(InvariantBroken):
        telemetry.Counters().increment("network_magic")


def test_labels_of_a_counter_are_bounded():
    counters = telemetry.Counters()
    for number in range(1_000):
        counters.increment("network_refusals", label=f"code-{number}")
    counters.increment("network_refusals", label="not a word")
    assert len(counters.snapshot()) <= 65
    assert counters.value("network_refusals") == 1_001
    assert counters.value("network_refusals", "other") == 1_001 - 64


def test_tables_have_one_line_for_every_name():
    for table in (telemetry.EVENTS, telemetry.FIELDS, telemetry.COUNTERS):
        assert all(meaning.strip() and "\n" not in meaning for meaning in table.values())


def test_every_event_and_field_used_in_medchain_is_listed():
    used = list(calls("log_event"))
    for path, call in used:
        name = call.args[0] if call.args else None
        if isinstance(name, ast.Constant):
            assert name.value in telemetry.EVENTS, f"{path}:{call.lineno}: {name.value}"
        for keyword in call.keywords:
            assert keyword.arg is None or keyword.arg == "level" or keyword.arg in telemetry.FIELDS, f"{path}:{call.lineno}: {keyword.arg}"


def test_every_counter_used_in_medchain_is_listed():
    for path, call in calls("increment"):
        if call.args and isinstance(call.args[0], ast.Constant):
            assert call.args[0].value in telemetry.COUNTERS, f"{path}:{call.lineno}: {call.args[0].value}"
