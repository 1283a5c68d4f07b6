"""Where passphrases come from, in which order, and what is refused."""

from __future__ import annotations

import argparse
import io

import pytest

from medchain.cli import passphrase
from medchain.crypto.keyfile import Identity, save_identity
from medchain.errors import Rejected


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    monkeypatch.delenv(passphrase.VARIABLE, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())


@pytest.fixture
def answers(monkeypatch):
    """A person at the terminal who gives these answers."""

    def sit(*given: str) -> None:
        left = list(given)
        monkeypatch.setattr("sys.stdin", Terminal())
        monkeypatch.setattr("getpass.getpass", lambda prompt: left.pop(0))

    return sit


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    passphrase.add_new_key_options(parser)
    return parser.parse_args(words)


def write(path, content: bytes = b"secret\n", mode: int = 0o600):
    path.write_bytes(content)
    path.chmod(mode)
    return path


def refused(code: str, call, *arguments) -> None:
    with pytest.raises(Rejected) as caught:
        call(*arguments)
    assert caught.value.code == code


def test_named_file_goes_before_the_variable_before_the_testnets_file(tmp_path, monkeypatch):
    home = tmp_path / "net" / "a"
    home.mkdir(parents=True)
    assert passphrase.find_passphrase(options(), (home,)) is None
    write(home.parent / "passphrase", b"of the net")
    assert passphrase.find_passphrase(options(), (home,)) == "of the net"
    monkeypatch.setenv(passphrase.VARIABLE, "of the variable")
    assert passphrase.find_passphrase(options(), (home,)) == "of the variable"
    named = write(tmp_path / "named", "größer\r\n".encode())
    assert passphrase.find_passphrase(options("--passphrase-file", str(named)), (home,)) == "größer"


def test_person_at_a_terminal_is_asked_and_nobody_else(answers):
    refused("passphrase.missing", passphrase.passphrase_of, options())
    answers("typed")
    assert passphrase.passphrase_of(options()) == "typed"


def test_new_passphrase_is_asked_twice_and_must_be_the_same(answers):
    refused("passphrase.missing", passphrase.new_passphrase, options())
    answers("one", "two")
    refused("passphrase.mismatch", passphrase.new_passphrase, options())
    answers("one", "one")
    assert passphrase.new_passphrase(options()) == "one"
    assert passphrase.new_passphrase(options("--no-passphrase")) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"\xff\xfe", b"x" * 5_000])
def test_file_that_is_not_one_line_of_text_is_refused(tmp_path, content):
    named = write(tmp_path / "named", content)
    refused("passphrase.unreadable", passphrase.find_passphrase, options("--passphrase-file", str(named)))


def test_absent_file_is_refused(tmp_path):
    refused("passphrase.unreadable", passphrase.find_passphrase, options("--passphrase-file", str(tmp_path / "absent")))


def test_file_that_others_may_read_is_refused(tmp_path):
    named = write(tmp_path / "named", mode=0o644)
    refused("passphrase.permissions", passphrase.find_passphrase, options("--passphrase-file", str(named)))


def test_key_file_is_opened_with_what_it_needs(tmp_path, monkeypatch):
    identity = Identity.generate("client")
    plain, locked = tmp_path / "plain.key", tmp_path / "locked.key"
    save_identity(plain, identity, None)
    save_identity(locked, identity, "secret")
    assert passphrase.open_key(options(), plain).signing.public == identity.signing.public
    refused("passphrase.missing", passphrase.open_key, options(), locked)
    monkeypatch.setenv(passphrase.VARIABLE, "secret")
    assert passphrase.open_key(options(), locked).signing.public == identity.signing.public
    monkeypatch.setenv(passphrase.VARIABLE, "wrong")
    refused("keyfile.wrong-passphrase", passphrase.open_key, options(), locked)
    refused("keyfile.unreadable", passphrase.open_key, options(), tmp_path / "absent.key")
