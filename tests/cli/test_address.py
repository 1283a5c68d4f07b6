"""--at: a home folder, an address, the variable; anything else is refused."""

from __future__ import annotations

import argparse

import pytest

from medchain.cli import address
from medchain.errors import Rejected


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    address.add_option(parser)
    return parser.parse_args(words)


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(address.VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("at", "url"),
    [
        ("http://127.0.0.1:7100", "http://127.0.0.1:7100"),
        ("http://127.0.0.1:7100/", "http://127.0.0.1:7100"),
        ("127.0.0.1:7100", "http://127.0.0.1:7100"),
        ("[::1]:7100", "http://[::1]:7100"),
    ],
)
def test_address_is_taken_as_it_is(at, url):
    assert address.rpc_url(options("--at", at)) == url
    assert address.home_of(options("--at", at)) is None


def test_home_folder_leads_to_its_listener(tmp_path):
    (tmp_path / "node.toml").write_text('[rpc]\nlisten = "127.0.0.1:7105"\n')
    arguments = options("--at", str(tmp_path))
    assert address.rpc_url(arguments) == "http://127.0.0.1:7105"
    assert address.home_of(arguments) == tmp_path


def test_variable_is_the_default(monkeypatch):
    monkeypatch.setenv(address.VARIABLE, "http://127.0.0.1:7")
    assert address.rpc_url(options()) == "http://127.0.0.1:7"
    assert address.rpc_url(options("--at", "http://127.0.0.1:8")) == "http://127.0.0.1:8"


@pytest.mark.parametrize(
    ("words", "code"), [((), "cli.no-address"), (("--at", "./nowhere"), "cli.bad-address"), (("--at", "a b:1"), "cli.bad-address")]
)
def test_no_address_and_bad_address_are_refused(words, code):
    with pytest.raises(Rejected) as caught:
        address.rpc_url(options(*words))
    assert caught.value.code == code


def test_folder_that_is_no_home_is_refused(tmp_path):
    with pytest.raises(Rejected) as caught:
        address.rpc_url(options("--at", str(tmp_path)))
    assert caught.value.code == "config.missing"
