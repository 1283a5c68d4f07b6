"""Commands of people, records, consents and access, without a network: what they read, what they say, how they end.

With a network they are tested in tests/cluster/test_story.py.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from medchain.cli import access, demo, main, newkey, signing, stage, story, words
from medchain.cli.happenings import Namer, line_of, summary_of
from medchain.client.files import check_fhir
from medchain.crypto.keyfile import Identity, load_public, save_identity
from medchain.crypto.sealing import SUITE_X25519
from medchain.errors import InvariantBroken, Malformed, Rejected, Unavailable
from medchain.ledger.trail import EVENT_FIELDS

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
ID = "ab" * 32
NOWHERE = "http://127.0.0.1:9"


# ---- words ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2027-01-01", "2027-01-01T00:00:00+00:00"),
        ("2027-01-01T12:30:00Z", "2027-01-01T12:30:00+00:00"),
        ("2027-01-01T12:30:00+08:00", "2027-01-01T04:30:00+00:00"),
        ("90s", "2026-03-04T12:01:30+00:00"),
        ("15m", "2026-03-04T12:15:00+00:00"),
        ("12h", "2026-03-05T00:00:00+00:00"),
        ("30d", "2026-04-03T12:00:00+00:00"),
    ],
)
def test_moments_are_read_as_people_write_them(text, expected):
    assert words.moment_ms(text, "--until", NOW) == int(datetime.fromisoformat(expected).timestamp() * 1000)


@pytest.mark.parametrize("text", ["", "soon", "2027-13-01", "1969-12-31", "-5d", "5w", "999999999d", "٣d", "2027-01-01T25:00"])
def test_what_is_no_moment_is_refused_with_the_forms_that_are(text):
    with pytest.raises(Malformed, match="a span from now"):
        words.moment_ms(text, "--until", NOW)


@pytest.mark.parametrize("text", ["", "ab", ID + "00", "zz" * 32, "ab " * 21 + "a", ID[:-1] + "\u0661"])
def test_what_is_no_identity_is_refused(text):
    assert not words.is_identity(text)
    with pytest.raises(Malformed, match="64 hexadecimal digits"):
        words.identity(text, "a record id")


def test_identity_is_read():
    assert words.is_identity(ID)
    assert words.identity(ID.upper(), "a record id") == bytes.fromhex(ID)


def test_months_are_read_and_others_refused():
    assert words.month("2026-03", "--date") == (2026, 3)
    for text in ("2026-13", "2026-3", "03-2026", "2026-00", ""):
        with pytest.raises(Malformed, match="2026-03"):
            words.month(text, "--date")


# ---- commands -------------------------------------------------------------------------------------------------------------------


def run(capsys, *line: object) -> tuple[int, str, str]:
    code = main.main([str(word) for word in line])
    out, said = capsys.readouterr()
    return code, out, said


@pytest.fixture
def key(tmp_path) -> Path:
    path = tmp_path / "own.key"
    save_identity(path, Identity.generate("clinician", SUITE_X25519), None)
    return path


@pytest.mark.parametrize(
    "line",
    [
        ("record", "list", ID),
        ("record", "show", ID),
        ("record", "history", ID),
        ("patient", "show", ID),
        ("clinician", "show", ID),
        ("consent", "list", ID),
        ("access", "emergencies"),
    ],
)
def test_unreachable_node_ends_with_exit_code_3_and_a_sentence(capsys, line):
    code, out, said = run(capsys, *line, "--at", NOWHERE)
    assert (code, out) == (3, "")
    assert "cannot be reached" in said
    code, out, _ = run(capsys, *line, "--at", NOWHERE, "--json")
    assert code == 3
    assert json.loads(out)["error"]["code"] == "unavailable"


@pytest.mark.parametrize(
    "line",
    [
        ("record", "show", "short"),
        ("record", "get", "short", "--out", "x"),
        ("record", "amend", "short", "pyproject.toml"),
        ("consent", "revoke", "short"),
        ("consent", "grant", "--to", ID, "--purpose", "TREAT", "--category", "general", "--until", "whenever"),
        ("access", "request", "short", "--purpose", "TREAT"),
        ("access", "review", "short", "--outcome", "justified"),
        ("access", "trail", "short"),
        ("patient", "show", "short"),
        ("clinician", "revoke", "short"),
    ],
)
def test_bad_words_end_with_exit_code_2_and_a_sentence(capsys, key, line):
    signs = line[1] not in ("show",)
    code, out, said = run(capsys, *line, "--at", NOWHERE, *(("--as", key) if signs else ()))
    assert (code, out) == (2, "")
    assert said.startswith("medchain: ")
    assert "Traceback" not in said


@pytest.mark.parametrize("line", [("access", "request", ID, "--purpose", "BTG"), ("access", "emergency", ID, "--reason", "BORED")])
def test_breaking_the_glass_is_declared_with_a_listed_reason_and_never_asked_for(capsys, key, line):
    with pytest.raises(SystemExit) as ended:
        run(capsys, *line, "--as", key, "--at", NOWHERE)
    assert ended.value.code == 2


def test_command_that_signs_needs_a_key_or_the_folder_of_a_node(capsys):
    code, _, said = run(capsys, "patient", "register", "--at", NOWHERE, "--out", "nobody.key")
    assert code == 2
    assert "[cli.no-key]" in said
    assert not Path("nobody.key").exists()


def test_command_without_a_node_says_how_to_name_one(capsys, key, monkeypatch):
    monkeypatch.delenv("MEDCHAIN_AT", raising=False)
    code, _, said = run(capsys, "consent", "revoke", ID, "--as", key)
    assert code == 2
    assert "[cli.no-address]" in said


def test_node_is_the_one_in_whose_folder_the_signing_key_lies(tmp_path, key):
    (tmp_path / "node.toml").write_text("")
    arguments = argparse.Namespace(key=str(key), at=None)
    assert signing.open_identity(arguments).role == "clinician"
    assert arguments.at == str(tmp_path)


@pytest.mark.parametrize(("name", "code"), [("absent.json", "client.unreadable-file"), (".", "client.unreadable-file")])
def test_file_that_cannot_be_read_is_refused_before_the_node_is_asked(capsys, key, tmp_path, name, code):
    words_ = ("record", "put", tmp_path / name, "--as", key, "--at", NOWHERE, "--patient", ID, "--category", "general")
    ended, _, said = run(capsys, *words_)
    assert ended == 2
    assert f"[{code}]" in said


def test_file_named_json_must_be_fhir(capsys, key, tmp_path):
    file = tmp_path / "bundle.json"
    file.write_text('{"resourceType": 1}')
    ended, _, said = run(capsys, "record", "put", file, "--as", key, "--at", NOWHERE, "--patient", ID, "--category", "general")
    assert ended == 2
    assert "[client.not-fhir]" in said


# ---- key files made by commands -------------------------------------------------------------------------------------------------


def options(**values: object) -> argparse.Namespace:
    given = {"out": None, "given": None, "no_passphrase": True, "passphrase_file": None}
    return argparse.Namespace(**(given | values))


@pytest.mark.parametrize(
    ("error", "is_kept"), [(Rejected("people.key-in-use", "no"), False), (Malformed("no"), False), (Unavailable("later"), True)]
)
def test_fresh_key_file_goes_away_unless_it_may_be_registered(tmp_path, error, is_kept):
    """Before the network hears of a key its file is on disk; only what is surely not registered is removed."""
    out = tmp_path / "new.key"
    with pytest.raises(type(error)), newkey.subject(options(out=str(out)), "patient", ()) as made:
        assert load_public(out).public == made.public
        assert made.is_new
        raise error
    assert out.exists() == is_kept


def test_given_key_file_stays_and_must_be_of_the_role(key):
    with pytest.raises(Rejected), newkey.subject(options(given=str(key)), "clinician", ()) as known:
        assert not known.is_new
        raise Rejected("people.key-in-use", "no")
    assert key.exists()
    with pytest.raises(Malformed, match="not for a patient"), newkey.subject(options(given=str(key)), "patient", ()):
        pass


def test_given_key_file_is_unlocked_because_its_owner_signs_too(tmp_path, monkeypatch):
    file, clinician = tmp_path / "lee.key", Identity.generate("clinician")
    save_identity(file, clinician, "lee's own")
    monkeypatch.delenv("MEDCHAIN_PASSPHRASE", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(Rejected) as refusal, newkey.subject(options(given=str(file)), "clinician", ()):
        pass
    assert refusal.value.code == "passphrase.missing"
    monkeypatch.setenv("MEDCHAIN_PASSPHRASE", "lee's own")
    with newkey.subject(options(given=str(file)), "clinician", ()) as known:
        assert (known.public, known.identity.public_identity()) == (clinician.signing.public, clinician.public_identity())


# ---- what happened, in a line ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(EVENT_FIELDS))
def test_every_kind_of_event_has_a_line_with_the_hospital_s_name(kind):
    hospital = bytes(range(32))
    fields = {name: hospital if name == "hospital" else name for name in EVENT_FIELDS[kind]}
    line = summary_of(kind, fields, Namer({hospital: "North"}))
    assert line
    assert "{" not in line
    if kind.startswith(("records.", "access.permit", "access.denial", "access.release")):
        assert "North" in line


def test_event_of_an_unknown_kind_is_told_as_it_is():
    assert summary_of("access.telepathy", {"by": b"\xaa" * 32, "versions": [1, 2]}, Namer({})) == "by aaaaaaaaaaaa…, versions 1, 2"
    assert summary_of("records.amend", {"version": 2}, Namer({})) == "version 2"
    row = {"time_ms": 0, "height": 7, "kind": "access.telepathy", "summary": "x"}
    assert line_of(row).startswith("1970-01-01 00:00:00 UTC  block      7  access.telepathy")


def test_emergency_reasons_and_purposes_are_those_of_the_rule_book():
    parser = argparse.ArgumentParser()
    access.configure(parser)
    assert "UNCONSCIOUS" in access.REASONS
    with pytest.raises(SystemExit):
        parser.parse_args(["request", ID, "--as", "x", "--purpose", "PLEASURE"])


# ---- the demo's folder ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 11, 0])
def test_demo_refuses_other_numbers_of_hospitals(capsys, tmp_path, count):
    code, _, said = run(capsys, "demo", "--home", tmp_path / "demo", "--hospitals", count)
    assert code == 2
    assert "[demo.hospitals]" in said
    assert list(tmp_path.iterdir()) == []


def test_demo_never_empties_a_folder_it_did_not_make(capsys, tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    code, _, said = run(capsys, "demo", "--home", tmp_path)
    assert code == 2
    assert "[demo.folder-in-use]" in said
    assert (tmp_path / "thesis.txt").read_text() == "three years of work"


def test_demo_empties_the_folder_of_an_earlier_one(tmp_path):
    folder = tmp_path / "demo"
    demo._prepare(folder)
    (folder / "copy").write_text("left over")
    demo._prepare(folder)
    assert [path.name for path in folder.iterdir()] == [demo.MARK]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_demo_in_a_folder_where_one_runs_is_refused(tmp_path):
    """A locked node.pid is how a running node is known; here this process holds it."""
    from medchain.node.pidfile import PidFile

    folder = tmp_path / "demo"
    demo._prepare(folder)
    (folder / "net" / "a").mkdir(parents=True)
    held = PidFile(folder / "net" / "a" / "node.pid")
    held.hold()
    try:
        with pytest.raises(Rejected) as refused:
            demo._prepare(folder)
        assert refused.value.code == "demo.running"
        assert (folder / "net").is_dir()
    finally:
        held.release()


def test_sample_bundle_is_fhir_and_says_that_it_is_invented(tmp_path):
    record = demo._take_input(tmp_path, None)
    check_fhir(tmp_path / record)
    bundle = json.loads((tmp_path / record).read_text(encoding="utf-8"))
    assert bundle["resourceType"] == "Bundle"
    assert bundle["meta"]["tag"][0]["code"] == "HTEST"
    kinds = {entry["resource"]["resourceType"] for entry in bundle["entry"]}
    assert {"Patient", "Encounter", "Condition", "Observation", "AllergyIntolerance", "MedicationRequest", "DiagnosticReport"} <= kinds
    identities = {f"{entry['resource']['resourceType']}/{entry['resource']['id']}" for entry in bundle["entry"]}
    assert set(references_of(bundle)) <= identities


def references_of(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["reference"]] if isinstance(value.get("reference"), str) else []
        return own + [found for item in value.values() for found in references_of(item)]
    return [found for item in value for found in references_of(item)] if isinstance(value, list) else []


# ---- the stage ------------------------------------------------------------------------------------------------------------------


def test_stage_shows_each_command_under_the_names_of_its_identities():
    shown = io.StringIO()
    played = stage.Stage(shown)
    played.call("RECORD", ID)
    with played.scene("Something happens", "That it can be shown.") as scene:
        with pytest.raises(InvariantBroken, match=r"medchain record show \$RECORD --at http://127.0.0.1:9` ended with exit code 3 where 0"):
            played.run(scene, "record", "show", ID, "--at", NOWHERE)
        refused = played.run(scene, "record", "show", ID, "--at", NOWHERE, expect=3)
        played.result(scene, refused["error"]["code"])
    assert "$ medchain record show $RECORD --at http://127.0.0.1:9\n" in shown.getvalue()
    assert "→ unavailable" in shown.getvalue()
    assert played.scenes[0].to_value()["commands"] == ["medchain record show $RECORD --at http://127.0.0.1:9"] * 2
    assert played.scenes[0].proves == "That it can be shown."


def test_stage_takes_a_word_argparse_does_not_know_for_a_fault_of_the_story():
    with pytest.raises(InvariantBroken, match="is no command"):
        stage.Stage(io.StringIO()).ask("record", "polish", ID)


def test_story_needs_its_network():
    played = story.Story(stage.Stage(io.StringIO()), Path(os.devnull), "bundle.json")
    with pytest.raises(InvariantBroken, match="before its network"):
        played.play()


def test_event_of_a_trail_is_named_as_the_rule_book_names_it():
    """The story looks for these on the trail; a renamed event would make it blind."""
    assert set(story._MUST_BE_ON_TRAIL) <= set(EVENT_FIELDS)
