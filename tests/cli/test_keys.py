"""`medchain keys`: files made and shown, nothing secret on the screen."""

from __future__ import annotations

import json

import pytest

from medchain.cli.main import main
from medchain.crypto.keyfile import load_identity


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("MEDCHAIN_PASSPHRASE", "a secret")


def test_new_key_file_is_private_protected_and_shown(tmp_path, capsys):
    path = tmp_path / "a.key"
    assert main(["keys", "new", "--role", "clinician", "--out", str(path), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert path.stat().st_mode & 0o777 == 0o600
    identity = load_identity(path, "a secret")
    assert (made["role"], made["public"], made["is_protected"]) == ("clinician", identity.signing.public.hex(), True)
    assert main(["keys", "show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert made["public"] in shown
    assert identity.signing.seed_bytes().hex() not in shown
    assert main(["keys", "show", str(path), "--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["public"] == made["public"]


def test_existing_key_file_is_never_written_over(tmp_path, capsys):
    path = tmp_path / "a.key"
    assert main(["keys", "new", "--role", "patient", "--out", str(path), "--no-passphrase"]) == 0
    before = path.read_bytes()
    assert main(["keys", "new", "--role", "patient", "--out", str(path), "--no-passphrase"]) == 2
    assert path.read_bytes() == before
    assert "keyfile.exists" in capsys.readouterr().err


def test_wrong_passphrase_is_told_and_a_damaged_file_too(tmp_path, capsys, monkeypatch):
    path = tmp_path / "a.key"
    main(["keys", "new", "--role", "officer", "--out", str(path)])
    monkeypatch.setenv("MEDCHAIN_PASSPHRASE", "another")
    assert main(["keys", "show", str(path), "--check"]) == 2
    assert "keyfile.wrong-passphrase" in capsys.readouterr().err
    path.write_text("{}")
    assert main(["keys", "show", str(path), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "malformed"


def test_key_file_without_a_name_is_refused_with_a_sentence(capsys):
    assert main(["keys", "new", "--role", "patient", "--no-passphrase", "--out", ""]) == 2
    assert "keyfile.unwritable" in capsys.readouterr().err
