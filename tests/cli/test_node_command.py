"""`medchain node` and `medchain testnet`, as far as nothing needs to run for it."""

from __future__ import annotations

import json

import pytest

from medchain.chain.genesis import Genesis
from medchain.cli.main import main
from medchain.cli.node import rotation_lines
from medchain.node.home import NodeHome, open_home


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("MEDCHAIN_PASSPHRASE", "a secret")
    monkeypatch.delenv("MEDCHAIN_AT", raising=False)


def make_hospital(tmp_path, name: str, *more: str) -> int:
    officer = tmp_path / f"officer-{name}.key"
    assert main(["keys", "new", "--role", "officer", "--out", str(officer)]) == 0
    words = ["--name", name, "--officer", str(officer), "--host", "127.0.0.1", "--host", "::1", "--peer-port", "7201", *more]
    return main(["node", "init", "--home", str(tmp_path / name), *words])


def test_four_hospitals_found_a_network_by_hand(tmp_path, capsys):
    """Each makes its keys and describes itself; one writes the genesis document; each founds its store with it."""
    for name in "abcd":
        assert make_hospital(tmp_path, name) == 0
    descriptions = [word for name in "abcd" for word in ("--hospital", str(tmp_path / name / "hospital.json"))]
    genesis = tmp_path / "genesis.json"
    assert main(["node", "genesis", *descriptions, "--chain-id", "by-hand", "--out", str(genesis)]) == 0
    document = Genesis.from_json(genesis.read_text())
    assert document.chain_id == "by-hand"
    assert sorted(hospital.name for hospital in document.hospitals) == list("abcd")
    assert document.hospitals[0].endpoints == ("127.0.0.1:7201", "[::1]:7201")
    capsys.readouterr()
    assert main(["node", "init", "--home", str(tmp_path / "a"), "--genesis", str(genesis), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["genesis"] == document.digest().hex()
    opened = open_home(NodeHome(tmp_path / "a"), lambda: "a secret")
    assert opened.config.peers_listen == ("0.0.0.0", 7201)
    opened.store.close()
    assert main(["node", "genesis", *descriptions, "--chain-id", "again", "--out", str(genesis)]) == 2
    assert "cli.file" in capsys.readouterr().err
    assert main(["node", "init", "--home", str(tmp_path / "a"), "--genesis", str(genesis)]) == 2
    assert "home.exists" in capsys.readouterr().err


def test_genesis_document_of_too_few_hospitals_is_refused(tmp_path, capsys):
    assert make_hospital(tmp_path, "a") == 0
    words = ["--hospital", str(tmp_path / "a" / "hospital.json"), "--chain-id", "alone", "--out", str(tmp_path / "genesis.json")]
    assert main(["node", "genesis", *words]) == 2
    assert "at least four" in capsys.readouterr().err
    assert not (tmp_path / "genesis.json").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": 5}', "[" * 50_000])
def test_damaged_description_of_a_hospital_is_refused(tmp_path, capsys, content):
    (tmp_path / "hospital.json").write_text(content)
    words = ["--hospital", str(tmp_path / "hospital.json"), "--chain-id", "x", "--out", str(tmp_path / "genesis.json")]
    assert main(["node", "genesis", *words]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_init_without_what_it_needs_says_what_that_is(tmp_path, capsys):
    assert main(["node", "init", "--home", str(tmp_path / "a")]) == 2
    assert "cli.options" in capsys.readouterr().err
    assert make_hospital(tmp_path, "a") == 0
    assert main(["node", "init", "--home", str(tmp_path / "a")]) == 2
    assert "--genesis" in capsys.readouterr().err
    assert main(["node", "init", "--home", str(tmp_path / "a"), "--genesis", str(tmp_path / "absent.json")]) == 2
    assert "home.incomplete" in capsys.readouterr().err


def test_init_with_a_genesis_document_of_others_founds_nothing(tmp_path, capsys):
    for name in "abcde":
        assert make_hospital(tmp_path, name) == 0
    descriptions = [word for name in "abcd" for word in ("--hospital", str(tmp_path / name / "hospital.json"))]
    genesis = tmp_path / "genesis.json"
    assert main(["node", "genesis", *descriptions, "--chain-id", "others", "--out", str(genesis)]) == 0
    assert main(["node", "init", "--home", str(tmp_path / "e"), "--genesis", str(genesis)]) == 2
    assert "home.not-a-member" in capsys.readouterr().err
    assert not (tmp_path / "e" / "data").exists()


def test_start_in_a_folder_that_is_no_node_is_refused(tmp_path, capsys):
    assert main(["node", "start", "--home", str(tmp_path)]) == 2
    assert "config.missing" in capsys.readouterr().err


def test_status_of_a_node_that_is_not_there_is_exit_3(capsys):
    assert main(["node", "status", "--at", "127.0.0.1:1"]) == 3
    assert main(["node", "status"]) == 2
    assert "cli.no-address" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["status"], ["down"], ["kill", "a"], ["restart", "a"]])
def test_commands_on_a_network_that_is_not_there_are_refused(tmp_path, capsys, verb):
    assert main(["testnet", *verb, "--home", str(tmp_path)]) == 2
    assert "testnet.missing" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["heartbeat_ms", "heartbeat_ms=", "heartbeat_ms=soon", "heartbeats=5", "heartbeat_ms=1"])
def test_wrong_parameter_of_a_new_network_is_refused(tmp_path, capsys, word):
    assert main(["testnet", "up", "--home", str(tmp_path / "net"), "--parameter", word, "--detach"]) == 2
    assert not (tmp_path / "net").exists()


def test_start_of_a_node_that_was_never_founded_is_not_told_of_a_lost_disk(tmp_path, capsys):
    assert make_hospital(tmp_path, "a") == 0
    assert main(["node", "start", "--home", str(tmp_path / "a")]) == 2
    shown = capsys.readouterr().err
    assert "home.incomplete" in shown
    assert "--empty-store" not in shown


@pytest.mark.parametrize(
    "more",
    [
        ("--name", "x" * 65),
        ("--peer-port", "99999"),
        ("--rpc-port", "-4"),
        ("--host", "two words"),
        ("--officer", "patient.key"),
    ],
)
def test_init_with_a_wrong_option_leaves_nothing_behind(tmp_path, capsys, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    assert main(["keys", "new", "--role", "patient", "--out", "patient.key"]) == 0
    assert make_hospital(tmp_path, "a", *more) == 2
    assert not (tmp_path / "a").exists()


def test_interrupted_init_leaves_nothing_in_the_way_of_the_next_try(tmp_path, monkeypatch, capsys):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("medchain.node.home.own_row", interrupt)
        assert make_hospital(tmp_path, "a") == 130
    assert not list((tmp_path / "a").iterdir())
    (tmp_path / "officer-a.key").unlink()
    assert make_hospital(tmp_path, "a") == 0


def test_init_never_writes_over_a_key_or_certificate(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "tls.key.pem").write_text("mine", encoding="ascii")
    assert make_hospital(tmp_path, "a") == 2
    assert "home.exists" in capsys.readouterr().err
    assert (tmp_path / "a" / "tls.key.pem").read_text(encoding="ascii") == "mine"


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "1e9"])
def test_waiting_for_no_possible_time_is_wrong_use(capsys, seconds):
    assert main(["tx", "wait", "00" * 32, "--at", "127.0.0.1:1", f"--timeout={seconds}"]) == 2
    assert "--timeout" in capsys.readouterr().err


def test_status_says_who_takes_turns_and_who_was_left_out():
    assert rotation_lines({"height": 0, "phase": "no height started"}) == []
    assert rotation_lines({"takes_turns": ["aa", "bb", "cc", "dd"], "left_out": []}) == ["take turns      4 of 4 hospitals at proposing"]
    told = rotation_lines({"takes_turns": ["aa", "bb", "cc"], "left_out": ["dd"]})
    assert told[0] == "take turns      3 of 4 hospitals at proposing" and "dd (silent for long" in told[1]
