"""Answers and endings: JSON is one object, every error a sentence with its exit code, never a traceback."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from medchain.cli import output
from medchain.errors import InvariantBroken, Malformed, Misbehaviour, Rejected, Unavailable


def ended_with(error: BaseException, *, with_json: bool = False) -> int:
    def command() -> int:
        raise error

    return output.guarded(command, with_json=with_json)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Rejected("consents.not-yours", "the consent is another patient's"), 1),
        (Rejected("client.expired", "nothing happened"), 1),
        (Rejected("keyfile.permissions", "others may read it"), 2),
        (Rejected("config.bad-value", "wrong"), 2),
        (Rejected("client.other-network", "wrong genesis"), 2),
        (Rejected("proof.certificate", "it does not hold"), 2),
        (Malformed("not JSON"), 2),
        (Unavailable("not there", 500), 3),
        (TimeoutError(), 3),
        (ConnectionRefusedError(111, "refused"), 3),
        (Rejected("client.not-a-node", "something else answers"), 3),
        (Rejected("store.locked", "it runs already"), 4),
        (Rejected("network.port-taken", "port 7200 is taken"), 4),
        (InvariantBroken("the disk is full"), 4),
        (Misbehaviour(b"k", "it lied"), 4),
        (OSError(28, "No space left on device", "/x"), 4),
        (ZeroDivisionError("secret content"), 4),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_error_is_one_sentence_with_its_exit_code(error, code, capsys):
    assert ended_with(error) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("medchain: ")
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.err


def test_unexpected_error_shows_its_type_but_nothing_of_its_content(capsys):
    ended_with(ZeroDivisionError("secret content"))
    shown = capsys.readouterr().err
    assert "ZeroDivisionError" in shown
    assert "secret" not in shown


def test_developers_can_ask_for_the_traceback(monkeypatch, capsys):
    monkeypatch.setenv(output.TRACEBACK_VARIABLE, "1")
    ended_with(ZeroDivisionError())
    assert "Traceback" in capsys.readouterr().err


def test_error_of_a_command_that_answers_json_is_one_object(capsys):
    assert ended_with(Rejected("records.unknown", "there is none"), with_json=True) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"]["code"] == "records.unknown"
    assert ended_with(TimeoutError(), with_json=True) == 3
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "timeout"


def test_answer_is_json_or_text(capsys):
    value = {"id": b"\x01\xff", "file": Path("a"), "名": "李"}
    output.answer(argparse.Namespace(json=True), value, "text")
    assert json.loads(capsys.readouterr().out) == {"id": "01ff", "file": "a", "名": "李"}
    output.answer(argparse.Namespace(json=False), value, ["one", "two"])
    assert capsys.readouterr().out == "one\ntwo\n"


def test_what_has_no_json_form_is_our_mistake():
    with pytest.raises(TypeError):
        output.as_json({"x": object()})


def test_exit_code_of_a_command_is_passed_on_and_messages_go_to_standard_error(capsys):
    def command() -> int:
        output.say("working ...")
        return 1

    assert output.guarded(command, with_json=False) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "working ...\n")
