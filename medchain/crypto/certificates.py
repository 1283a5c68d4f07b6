"""Self-signed X.509 certificates for TLS between hospitals.

There is no authority: a network's TLS context trusts exactly the certificates of its hospitals, each signed by itself (protocol.md,
"Nouns"), so a certificate is a key with names and dates around it (RFC 5280). This module knows no membership and opens no connection.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from medchain.errors import Malformed

CERTIFICATE_BYTES_MAX: Final = 4096
"""Longest certificate that is read: a P-256 one with 32 long host names stays below; it lies on the chain."""
HOSTS_MAX: Final = 32
"""Most host names and addresses of one certificate."""
VALID_DAYS_MAX: Final = 3650
"""Ten years; a hospital rotates its certificate by vote long before."""
NAME_BYTES_MAX: Final = 64
"""Longest common name (RFC 5280, appendix A, ub-common-name-length), counted in UTF-8 bytes as the strictest readers do."""
BACKDATED_HOURS: Final = 1
"""A certificate begins this long before it was made, so that a peer whose clock is behind accepts it at once."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOST_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.ExtensionNotFound,
)


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a node shows and checks of a certificate."""

    subject: str
    """The common name: whom its maker says it belongs to. Shown to people, trusted by nothing."""
    not_before_ms: int
    """Begin of validity, milliseconds since 1970 UTC."""
    not_after_ms: int
    """End of validity, milliseconds since 1970 UTC."""
    fingerprint: bytes
    """SHA-256 of the DER bytes, 32 bytes, as TLS tools show it."""
    hosts: tuple[str, ...]
    """Host names and addresses that it stands for, in its own order."""


def make_certificate(
    hospital_name: str, hosts: Sequence[str], *, valid_days: int, now: datetime, passphrase: bytes | None = None
) -> tuple[bytes, bytes]:
    """Make a fresh P-256 key and its self-signed certificate; return (private key as PKCS #8 PEM, certificate as DER).

    `hosts` are DNS names (ASCII; international ones as A-labels) and IP addresses under which peers dial; `now` is the present time with
    its time zone; the key is encrypted under `passphrase` when one is given. A name beyond 64 bytes of UTF-8 is cut, for X.509 has no room
    for more. The certificate serves as server and as client and can sign no other.

    Misuse: without `passphrase` the key is plain text; write it with mode 0600 only.
    Raises Malformed when a host, the name or the number of days is not usable.
    """
    if not 1 <= valid_days <= VALID_DAYS_MAX:
        raise Malformed(f"a certificate is valid for 1 to {VALID_DAYS_MAX} days")
    if now.tzinfo is None:
        raise Malformed("the present time needs its time zone")
    if passphrase is not None and not passphrase:
        raise Malformed("an empty passphrase protects nothing; give a longer one, or none at all")
    names = _general_names(hosts)
    begin = now.astimezone(UTC).replace(microsecond=0)
    key = ec.generate_private_key(ec.SECP256R1())
    common_name = hospital_name.encode("utf-8", "replace")[:NAME_BYTES_MAX].decode("utf-8", "ignore")  # never half a character
    if not common_name:
        raise Malformed("the hospital needs a name of at least one character")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    key_identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - timedelta(hours=BACKDATED_HOURS))
        .not_valid_after(begin + timedelta(days=valid_days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(key_identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise Malformed(f"the certificate takes {len(der)} bytes, at most {CERTIFICATE_BYTES_MAX} are allowed: give fewer or shorter hosts")
    protection = serialization.BestAvailableEncryption(passphrase) if passphrase is not None else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection), der


def read_certificate(der: bytes) -> CertificateFacts:
    """Return the facts of a certificate as `make_certificate` makes them: self-signed by a P-256 key, not an authority, with hosts.

    Misuse: parsers of X.509 differ between versions in what odd bytes they accept, so this is for a node's own decisions (set-up, TLS,
    display) and never for a rule whose verdict all nodes must share; such a rule bounds the size and leaves the inside alone. Raises
    Malformed for every other byte string, and nothing else.
    """
    certificate = _load(der)
    try:
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise Malformed("the certificate's key is not a P-256 key")
        certificate.verify_directly_issued_by(certificate)
        if not der.endswith(b"\x00" + certificate.signature):  # the one byte under no signature: the count of unused bits in it
            raise Malformed("the certificate's signature is not in its only form")
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise Malformed("the certificate could sign others; a hospital's certificate must not be an authority")
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = tuple(str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress))
        subjects = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if len(subjects) != 1 or not hosts:
            raise Malformed("the certificate must have one common name and at least one host")
        if certificate.serial_number <= 0:
            raise Malformed("the certificate's serial number must be positive")
        subject = subjects[0].value
        not_before, not_after = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except InvalidSignature:
        raise Malformed("the certificate is not signed by its own key") from None
    except _UNREADABLE as error:
        raise Malformed(f"the certificate cannot be read ({type(error).__name__})") from None
    return CertificateFacts(
        subject=subject if isinstance(subject, str) else subject.decode("utf-8", "replace"),
        not_before_ms=(not_before - _EPOCH) // timedelta(milliseconds=1),
        not_after_ms=(not_after - _EPOCH) // timedelta(milliseconds=1),
        fingerprint=hashlib.sha256(der).digest(),
        hosts=hosts,
    )


def certificate_pem(der: bytes) -> bytes:
    """Return the certificate as PEM text, for TLS contexts and tools. Raises Malformed when the bytes are not a certificate."""
    return _load(der).public_bytes(serialization.Encoding.PEM)


def _load(der: bytes) -> x509.Certificate:
    if type(der) is not bytes or len(der) > CERTIFICATE_BYTES_MAX:
        raise Malformed(f"a certificate is at most {CERTIFICATE_BYTES_MAX} bytes long")
    try:
        return x509.load_der_x509_certificate(der)
    except _UNREADABLE as error:
        raise Malformed(f"the bytes are not a certificate ({type(error).__name__})") from None


def _general_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Read hosts as addresses where they are addresses, else as DNS names."""
    if not 1 <= len(hosts) <= HOSTS_MAX:
        raise Malformed(f"a certificate stands for 1 to {HOSTS_MAX} hosts")
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
            continue
        except ValueError:
            pass  # not an address, so it must be a name
        if len(host) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in host.split(".")):
            raise Malformed("a host must be an IP address or an ASCII host name without a port")
        names.append(x509.DNSName(host))
    return names


def _key_usage() -> x509.KeyUsage:
    """Sign handshakes, nothing else: TLS 1.3 needs no more (RFC 8446, section 4.4.2.2)."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
