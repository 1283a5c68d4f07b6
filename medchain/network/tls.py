"""TLS between hospitals: version 1.3 only, both sides show a certificate, and only the exact certificates of members count.

There is no authority and no host name check: who a peer is follows from the certificate alone, byte for byte (protocol.md, "Nouns"). The
server trusts the certificates of all members, a client context that of the one hospital it dials. Knows no handshake above TLS.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from medchain.crypto.certificates import CERTIFICATE_BYTES_MAX, read_certificate
from medchain.errors import Malformed, Rejected

REFUSALS: Final[dict[str, str]] = {
    "network.certificate-unreadable": "the hospital's TLS certificate file is missing or damaged",
    "network.certificate-unlisted": "the TLS certificate is not the one that the genesis document names for this hospital",
    "network.certificate-ended": "the hospital's TLS certificate has ended",
    "network.certificate-not-begun": "the hospital's TLS certificate is not valid yet: most often a wrong clock",
    "network.key-unreadable": "the TLS key file is missing, damaged, of another certificate, or the passphrase is wrong",
}
DAY_MS: Final = 86_400_000


def load_certificate(path: Path, listed: bytes, now_ms: int) -> bytes:
    """Return the DER bytes of this hospital's own certificate, checked against the `listed` one and the wall clock `now_ms`.

    Raises Rejected with a code of REFUSALS; each message says what to do (lessons.md: fabric-ca #360, an expired certificate was a crash).
    """
    try:
        text = path.read_bytes()
        if len(text) > 4 * CERTIFICATE_BYTES_MAX:
            raise Malformed("the file is too long for a certificate")
        der = ssl.PEM_cert_to_DER_cert(text.decode("ascii"))
        facts = read_certificate(der)
    except (OSError, ValueError, Malformed) as error:
        message = f"the TLS certificate {path} cannot be read ({type(error).__name__}): restore it from the backup of the node's folder"
        raise Rejected("network.certificate-unreadable", message) from None
    if der != listed:
        message = (
            f"{path} is not the certificate that the genesis document names for this hospital: restore the right file, or the right genesis"
        )
        raise Rejected("network.certificate-unlisted", message)
    if now_ms > facts.not_after_ms:
        ended = datetime.fromtimestamp(facts.not_after_ms / 1000, UTC)
        message = f"this hospital's TLS certificate ended on {ended:%Y-%m-%d}: no peer accepts it; make a new one and have it voted in"
        raise Rejected("network.certificate-ended", message)
    if now_ms < facts.not_before_ms:
        begins = datetime.fromtimestamp(facts.not_before_ms / 1000, UTC)
        message = (
            f"this hospital's TLS certificate begins on {begins:%Y-%m-%d %H:%M} UTC, which is in the future: check this machine's clock"
        )
        raise Rejected("network.certificate-not-begun", message)
    return der


def days_left(certificate: bytes, now_ms: int) -> int:
    """Return for how many more whole days a certificate is valid; negative when it has ended. Raises Malformed."""
    return (read_certificate(certificate).not_after_ms - now_ms) // DAY_MS


class Credentials:
    """This hospital's certificate and key, and the contexts made of them. The key stays in files and in OpenSSL."""

    def __init__(self, certificate_path: Path, key_path: Path, passphrase: str | None) -> None:
        self._certificate_path = certificate_path
        self._key_path = key_path
        self._passphrase = passphrase

    def server_context(self, trusted: Sequence[bytes]) -> ssl.SSLContext:
        """Return the context of the listener: it requires a client certificate and trusts exactly `trusted` (DER)."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER, trusted)
        context.num_tickets = 0  # a resumed session would skip the certificates; nobody here resumes
        return context

    def client_context(self, trusted: bytes) -> ssl.SSLContext:
        """Return a context for dialling the one hospital with this certificate (DER)."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT, [trusted])

    def _context(self, protocol: int, trusted: Sequence[bytes]) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the trusted certificates are ends, not authorities
        context.options |= ssl.OP_NO_COMPRESSION
        for der in trusted:
            context.load_verify_locations(cadata=der)
        try:
            # A callable, and never None: OpenSSL would ask on the terminal for the passphrase of an encrypted key.
            context.load_cert_chain(self._certificate_path, self._key_path, password=lambda: self._passphrase or "")
        except (OSError, ValueError) as error:
            message = f"the TLS key {self._key_path} cannot be opened ({type(error).__name__}): check the passphrase, or restore the file"
            raise Rejected("network.key-unreadable", message) from None
        return context


def peer_certificate(transport: asyncio.BaseTransport | None) -> bytes | None:
    """Return the DER bytes of the certificate that the other end proved to hold, None when there is none."""
    if transport is None:
        return None
    secured = transport.get_extra_info("ssl_object")
    if secured is None or not isinstance(secured, ssl.SSLObject | ssl.SSLSocket):
        return None
    return secured.getpeercert(binary_form=True)


_ALERTS: Final = {
    "CERTIFICATE_EXPIRED": "certificate-ended",
    "CERTIFICATE_UNKNOWN": "certificate-untrusted",
    "UNKNOWN_CA": "certificate-untrusted",
    "BAD_CERTIFICATE": "certificate-untrusted",
    "CERTIFICATE_REQUIRED": "certificate-missing",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "certificate-missing",
    "UNSUPPORTED_PROTOCOL": "tls-version",
    "PROTOCOL_VERSION": "tls-version",
    "HTTP_REQUEST": "not-tls",
    "WRONG_VERSION_NUMBER": "not-tls",
}
_EXPIRED, _NOT_YET_VALID = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID


def tls_reason(error: BaseException) -> str:
    """Return a stable word for what went wrong in TLS: ours (verification) or theirs (an alert)."""
    seen: BaseException | None = error
    for _ in range(8):
        if isinstance(seen, ssl.SSLCertVerificationError):
            words = {_EXPIRED: "certificate-ended", _NOT_YET_VALID: "certificate-not-begun"}
            return words.get(seen.verify_code, "certificate-untrusted")
        if isinstance(seen, ssl.SSLError):
            reason = str(getattr(seen, "reason", None) or "").upper().replace(" ", "_")
            return next((word for mark, word in _ALERTS.items() if mark in reason), "tls")
        if seen is None:
            break
        seen = seen.__cause__ or getattr(seen, "os_error", None)
    return "unreachable"
