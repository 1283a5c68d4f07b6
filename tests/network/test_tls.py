"""Certificates and keys on disk: every way in which they can be wrong has a code and a sentence that says what to do."""

from __future__ import annotations

import ssl
import time

import pytest

from medchain.errors import Rejected
from medchain.network.tls import DAY_MS, Credentials, days_left, load_certificate, peer_certificate, tls_reason


def now_ms() -> int:
    return int(time.time() * 1000)


def refused(code, work, *arguments) -> str:
    with pytest.raises(Rejected) as caught:
        work(*arguments)
    assert caught.value.code == code
    return caught.value.message


def test_own_certificate_is_returned_as_listed(world):
    member = world.members[0]
    assert load_certificate(member.certificate_path, member.certificate, now_ms()) == member.certificate


def test_missing_or_damaged_certificate_file_is_refused(world, tmp_path):
    listed = world.members[0].certificate
    damaged = tmp_path / "cert.pem"
    assert "restore it" in refused("network.certificate-unreadable", load_certificate, damaged, listed, now_ms())
    for content in (b"", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"x" * 100_000):
        damaged.write_bytes(content)
        refused("network.certificate-unreadable", load_certificate, damaged, listed, now_ms())


def test_certificate_of_another_hospital_is_refused(world):
    path = world.members[1].certificate_path
    refused("network.certificate-unlisted", load_certificate, path, world.members[0].certificate, now_ms())


def test_ended_certificate_is_refused_with_what_to_do(world):
    member = world.members[0]
    sentence = refused("network.certificate-ended", load_certificate, member.certificate_path, member.certificate, now_ms() + 400 * DAY_MS)
    assert "make a new one and have it voted in" in sentence


def test_certificate_from_the_future_points_at_the_clock(world):
    member = world.members[0]
    sentence = refused("network.certificate-not-begun", load_certificate, member.certificate_path, member.certificate, 0)
    assert "clock" in sentence


@pytest.mark.parametrize("passphrase", [None, "", "wrong"])
def test_wrong_or_absent_passphrase_is_refused_and_nobody_is_asked(world, passphrase):
    member = world.members[0]
    message = refused(
        "network.key-unreadable", Credentials(member.certificate_path, member.key_path, passphrase).server_context, [member.certificate]
    )
    assert "passphrase" in message


def test_key_of_another_certificate_is_refused(world):
    credentials = Credentials(world.members[1].certificate_path, world.members[2].key_path, None)
    refused("network.key-unreadable", credentials.client_context, world.members[0].certificate)


def test_contexts_demand_certificates_and_version_three(world):
    member = world.members[1]
    credentials = Credentials(member.certificate_path, member.key_path, None)
    for context in (credentials.server_context([world.members[0].certificate]), credentials.client_context(world.members[0].certificate)):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert len(context.get_ca_certs()) + len([c for c in context.cert_store_stats().values() if c]) >= 1
        assert context.cert_store_stats()["x509"] == 1


def test_days_left_counts_down_and_below_zero(world):
    certificate = world.members[0].certificate
    assert days_left(certificate, now_ms()) in (364, 365)
    assert days_left(certificate, now_ms() + 400 * DAY_MS) < 0


def test_no_transport_shows_no_certificate():
    assert peer_certificate(None) is None


def test_reason_is_found_below_other_errors():
    inner = ssl.SSLError(1, "[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired")
    inner.reason = "SSLV3_ALERT_CERTIFICATE_EXPIRED"
    outer = OSError("lost")
    outer.__cause__ = inner
    assert tls_reason(outer) == "certificate-ended"
    assert tls_reason(OSError("refused")) == "unreachable"
    assert tls_reason(ssl.SSLError(1, "odd")) == "tls"
