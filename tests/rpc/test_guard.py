"""Who may speak to the listener: the calls and connections it lets in."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from medchain.errors import Rejected
from medchain.rpc.guard import Allowance, check_caller, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"])
def test_this_machine_is_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org", "", "127.0.0.1.example.org", "2130706433"]
)
def test_other_hosts_are_not_loopback(host):
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1:7100", "localhost:7100", "LOCALHOST:7100", "[::1]:7100", "127.0.0.1"])
def test_a_program_on_this_machine_is_let_in(host):
    check_caller(make_mocked_request("POST", "/", headers={"Host": host}), 7100)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:7100", "127.0.0.1:80", "127.0.0.1.evil.example:7100", "10.0.0.1:7100", "", ":7100",
        "127.0.0.1:7100:7100", "[::1", "a@127.0.0.1:7100",
    ],
)  # fmt: skip
def test_a_foreign_host_name_is_refused(host):
    with pytest.raises(Rejected) as refused:
        check_caller(make_mocked_request("POST", "/", headers={"Host": host}), 7100)
    assert refused.value.code == "rpc.host"


def test_a_request_without_a_host_or_with_two_is_refused():
    for headers in ([], [("Host", "127.0.0.1:7100"), ("Host", "127.0.0.1:7100")]):
        with pytest.raises(Rejected) as refused:
            check_caller(make_mocked_request("POST", "/", headers=CIMultiDict(headers)), 7100)
        assert refused.value.code == "rpc.host"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://127.0.0.1:7100"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-origin"),
    ],
)
def test_a_web_page_is_refused(name, value):
    with pytest.raises(Rejected) as refused:
        check_caller(make_mocked_request("POST", "/", headers={"Host": "127.0.0.1:7100", name: value}), 7100)
    assert refused.value.code == "rpc.web-page"


def test_a_person_may_open_the_health_page_in_a_browser():
    check_caller(make_mocked_request("GET", "/healthz", headers={"Host": "127.0.0.1:7100", "Sec-Fetch-Site": "none"}), 7100)


def test_an_allowance_lets_a_burst_through_then_so_many_a_second():
    allowance = Allowance(10, 3)
    assert [allowance.take(100.0) for _ in range(3)] == [0, 0, 0]
    assert 0 < allowance.take(100.0) <= 101
    assert allowance.take(100.11) == 0
    assert allowance.take(100.11) > 0
    assert [allowance.take(200.0) for _ in range(3)] == [0, 0, 0]
    assert allowance.take(200.0) > 0


def test_an_allowance_survives_a_clock_that_stands_or_runs_backwards():
    allowance = Allowance(10, 1)
    assert allowance.take(100.0) == 0
    assert allowance.take(50.0) > 0
    assert allowance.take(50.2) == 0

