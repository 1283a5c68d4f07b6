"""Self-signed certificates: what they say, that TLS trusts exactly them, and that hostile bytes are Malformed and nothing else."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from medchain.crypto.certificates import (
    CERTIFICATE_BYTES_MAX,
    HOSTS_MAX,
    VALID_DAYS_MAX,
    certificate_pem,
    make_certificate,
    read_certificate,
)
from medchain.errors import Malformed

NOW = datetime(2026, 3, 1, 12, 30, 15, 999, tzinfo=UTC)
KEY_PEM, DER = make_certificate("Charité Berlin", ["node.charite.example", "127.0.0.1", "::1"], valid_days=365, now=NOW)


def test_facts_are_those_that_were_asked_for() -> None:
    facts = read_certificate(DER)
    assert facts.subject == "Charité Berlin"
    assert facts.hosts == ("node.charite.example", "127.0.0.1", "::1")
    begin_ms = int(NOW.replace(microsecond=0).timestamp()) * 1000
    assert facts.not_before_ms == begin_ms - 3_600_000
    assert facts.not_after_ms == begin_ms + 365 * 86_400_000
    assert facts.fingerprint == hashlib.sha256(DER).digest()


def test_a_certificate_signs_handshakes_as_server_and_client_and_nothing_else() -> None:
    certificate = x509.load_der_x509_certificate(DER)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_the_pem_form_is_the_same_certificate() -> None:
    pem = certificate_pem(DER)
    assert ssl.PEM_cert_to_DER_cert(pem.decode()) == DER


def test_the_time_zone_of_now_does_not_matter() -> None:
    _, der = make_certificate("H", ["h"], valid_days=1, now=NOW.astimezone(timezone(timedelta(hours=5))))
    assert read_certificate(der).not_before_ms == read_certificate(DER).not_before_ms


def test_a_long_name_is_cut() -> None:
    for name, cut in (("a" * 200, "a" * 64), ("Ä" * 200, "Ä" * 32), ("a" + "Ä" * 200, "a" + "Ä" * 31), ("医" * 200, "医" * 21)):
        _, der = make_certificate(name, ["h"], valid_days=1, now=NOW)
        assert read_certificate(der).subject == cut


def test_each_certificate_has_a_key_and_a_serial_of_its_own() -> None:
    made = [x509.load_der_x509_certificate(make_certificate("H", ["h"], valid_days=1, now=NOW)[1]) for _ in range(3)]
    assert len({certificate.serial_number for certificate in made}) == 3
    assert len({certificate.public_key().public_numbers() for certificate in made}) == 3  # type: ignore[union-attr]


def test_the_private_key_is_pkcs8_and_encrypted_when_a_passphrase_is_given() -> None:
    assert KEY_PEM.startswith(b"-----BEGIN PRIVATE KEY-----")
    pem, der = make_certificate("H", ["h"], valid_days=1, now=NOW, passphrase=b"open sesame")
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    key = serialization.load_pem_private_key(pem, b"open sesame")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == x509.load_der_x509_certificate(der).public_key()
    with pytest.raises(ValueError):
        serialization.load_pem_private_key(pem, b"wrong")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hosts": []}, "1 to 32 hosts"),
        ({"hosts": ["h"] * (HOSTS_MAX + 1)}, "1 to 32 hosts"),
        ({"hosts": [""]}, "host name"),
        ({"hosts": ["a..b"]}, "host name"),
        ({"hosts": ["*.example"]}, "host name"),
        ({"hosts": ["node.example:7000"]}, "without a port"),
        ({"hosts": ["bücher.example"]}, "ASCII"),
        ({"hosts": ["a b"]}, "host name"),
        ({"hosts": ["-a.example"]}, "host name"),
        ({"hosts": ["a" * 64]}, "host name"),
        ({"hosts": [".".join(["a" * 60] * 5)]}, "host name"),
        ({"hosts": [".".join(["a" * 60] * 4)] * HOSTS_MAX}, "fewer or shorter"),
        ({"hospital_name": ""}, "needs a name"),
        ({"valid_days": 0}, "1 to 3650 days"),
        ({"valid_days": VALID_DAYS_MAX + 1}, "1 to 3650 days"),
        ({"now": NOW.replace(tzinfo=None)}, "time zone"),
        ({"passphrase": b""}, "empty passphrase"),
    ],
)
def test_unusable_wishes_are_malformed(changes: dict[str, Any], message: str) -> None:
    wishes: dict[str, Any] = {"hospital_name": "H", "hosts": ["h"], "valid_days": 1, "now": NOW} | changes
    with pytest.raises(Malformed, match=message):
        make_certificate(**wishes)


def build(key: Any, *, signer: Any = None, ca: bool | None = False, hosts: bool = True, names: int = 1) -> bytes:
    """A certificate that differs in one thing from those that are accepted."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "H")] * names)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("h")]), critical=False)
    return builder.sign(signer or key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_certificates_of_another_form_are_malformed() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert read_certificate(build(key)).subject == "H"
    for der, message in (
        (build(key, signer=ec.generate_private_key(ec.SECP256R1())), "not signed by its own key"),
        (build(key, ca=True), "must not be an authority"),
        (build(key, ca=None), "cannot be read"),
        (build(key, hosts=False), "cannot be read"),
        (build(key, names=0), "one common name"),
        (build(ec.generate_private_key(ec.SECP384R1())), "not a P-256 key"),
    ):
        with pytest.raises(Malformed, match=message):
            read_certificate(der)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x30", b"\x30\x00", DER + b"\x00", DER + DER, DER[:-1], KEY_PEM, base64.b64encode(DER), bytes(CERTIFICATE_BYTES_MAX + 1)],
)
def test_what_is_not_one_certificate_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_certificate(data)
    with pytest.raises(Malformed):
        certificate_pem(data)


def test_a_certificate_cut_off_anywhere_is_malformed() -> None:
    for length in range(len(DER)):
        with pytest.raises(Malformed):
            read_certificate(DER[:length])


ODD_SERIAL = "ignore:Parsed a serial number"  # a changed serial number may be negative; the library warns, we refuse


@pytest.mark.filterwarnings(ODD_SERIAL)
@settings(deadline=None, max_examples=400)
@given(st.integers(0, len(DER) - 1), st.integers(1, 255))
def test_a_changed_byte_is_malformed(position: int, change: int) -> None:
    # Every byte is under the signature or is the signature; ECDSA's two forms, (r, s) and (r, -s), differ in more than one byte.
    data = bytearray(DER)
    data[position] ^= change
    with pytest.raises(Malformed):
        read_certificate(bytes(data))


def test_the_count_of_unused_bits_cannot_be_changed() -> None:
    """The last byte of a signature is even every other time; then the count, which no signature covers, could be 1 as well as 0."""
    key = ec.generate_private_key(ec.SECP256R1())
    der = next(der for der in (build(key) for _ in range(200)) if der[-1] % 2 == 0)
    position = len(der) - len(x509.load_der_x509_certificate(der).signature) - 1
    read_certificate(der)
    with pytest.raises(Malformed, match="only form"):
        read_certificate(der[:position] + b"\x01" + der[position + 1 :])


@pytest.mark.filterwarnings(ODD_SERIAL)
def test_every_single_bit_flip_raises_malformed_and_nothing_else() -> None:
    for position in range(len(DER)):
        data = bytearray(DER)
        data[position] ^= 1 << position % 8
        with pytest.raises(Malformed):
            read_certificate(bytes(data))


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200))
def test_random_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_certificate(data)


class Party:
    """One end of a mutual TLS connection with files of its own."""

    def __init__(self, folder: Path, name: str, hosts: list[str], passphrase: bytes | None = None, now: datetime | None = None) -> None:
        pem, self.der = make_certificate(name, hosts, valid_days=2, now=now or datetime.now(UTC), passphrase=passphrase)
        self.key_path = folder / f"{name}.key"
        self.certificate_path = folder / f"{name}.pem"
        self.key_path.write_bytes(pem)
        self.certificate_path.write_bytes(certificate_pem(self.der))
        self.passphrase = passphrase

    def context(self, purpose: ssl.Purpose, trusted: list[bytes], *, strict: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if purpose is ssl.Purpose.SERVER_AUTH else ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if strict:  # the default of later Pythons
            context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        for der in trusted:
            context.load_verify_locations(cadata=der)
        context.load_cert_chain(self.certificate_path, self.key_path, self.passphrase)
        return context


def handshake(
    server: Party, client: Party, *, server_trusts: list[bytes], client_trusts: list[bytes], host: str, strict: bool = False
) -> bytes:
    """Pass a message each way over loopback; return the certificate that the server saw. Raises what the client's end raises."""
    server_context = server.context(ssl.Purpose.CLIENT_AUTH, server_trusts, strict=strict)
    client_context = client.context(ssl.Purpose.SERVER_AUTH, client_trusts, strict=strict)
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve() -> None:
            try:
                connection, _ = listener.accept()
                connection.settimeout(20)
                with connection, server_context.wrap_socket(connection, server_side=True) as secured:
                    seen.append(secured.getpeercert(binary_form=True) or b"")
                    secured.sendall(b"from server:" + secured.recv(100))
            except OSError:
                return  # refused; the client's end shows it

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname(), timeout=20) as connection,
                client_context.wrap_socket(connection, server_hostname=host) as secured,
            ):
                secured.sendall(b"hello")
                assert secured.recv(100) == b"from server:hello"
                assert secured.getpeercert(binary_form=True) == server.der
        finally:
            thread.join(20)
    return seen[0]


@pytest.mark.parametrize("strict", [False, True])
def test_tls_trusts_each_other_with_nothing_but_these_certificates(tmp_path: Path, strict: bool) -> None:
    server = Party(tmp_path, "server", ["localhost", "127.0.0.1"], passphrase=b"open sesame")
    client = Party(tmp_path, "client", ["client.example"])
    for host in ("localhost", "127.0.0.1"):
        seen = handshake(server, client, server_trusts=[client.der], client_trusts=[server.der], host=host, strict=strict)
        assert seen == client.der


def test_tls_refuses_a_stranger_on_either_side(tmp_path: Path) -> None:
    server, client = Party(tmp_path, "server", ["localhost"]), Party(tmp_path, "client", ["localhost"])
    stranger = Party(tmp_path, "stranger", ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(stranger, client, server_trusts=[client.der], client_trusts=[server.der], host="localhost")
    with pytest.raises(OSError):
        handshake(server, stranger, server_trusts=[client.der], client_trusts=[server.der], host="localhost")


def test_tls_refuses_a_host_that_the_certificate_does_not_name(tmp_path: Path) -> None:
    server, client = Party(tmp_path, "server", ["node.example"]), Party(tmp_path, "client", ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(server, client, server_trusts=[client.der], client_trusts=[server.der], host="localhost")


def test_tls_refuses_a_certificate_that_has_ended(tmp_path: Path) -> None:
    server = Party(tmp_path, "server", ["localhost"], now=datetime.now(UTC) - timedelta(days=5))
    client = Party(tmp_path, "client", ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(server, client, server_trusts=[client.der], client_trusts=[server.der], host="localhost")


def test_tls_refuses_a_certificate_signed_by_a_trusted_one(tmp_path: Path) -> None:
    """A hospital cannot issue a certificate in another's name, for its own is no authority."""
    issuer = Party(tmp_path, "issuer", ["localhost"])
    client = Party(tmp_path, "client", ["localhost"])
    forged = Party(tmp_path, "forged", ["localhost"])
    key = serialization.load_pem_private_key(issuer.key_path.read_bytes(), None)
    own = x509.load_der_x509_certificate(issuer.der)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    leaf_key = serialization.load_pem_private_key(forged.key_path.read_bytes(), None)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "forged")]))
        .issuer_name(own.subject)
        .public_key(leaf_key.public_key())  # type: ignore[arg-type]
        .serial_number(7)
        .not_valid_before(own.not_valid_before_utc)
        .not_valid_after(own.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    forged.certificate_path.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(forged, client, server_trusts=[client.der], client_trusts=[issuer.der], host="localhost")
