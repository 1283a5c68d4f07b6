"""Handing keys over, pure: an author's data key to the custodian, a permit's data key to its reader.

Every release makes a fresh permit key, so a reader's wrap opens exactly the version its permit names and nothing else of the patient
(ledger.md, "Sealing and sharing" 4; lessons.md, "One epoch key to a reader opens everything"). Who may ask is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

from medchain.chain.domain import Domain
from medchain.crypto.sealing import OpeningKey, seal, unwrap_key, wrap_key
from medchain.crypto.signing import SigningKey
from medchain.errors import Malformed
from medchain.wire.custody import PutRequest, Release, ReleaseInfo, ReleaseRequest, put_info, reader_key_digest


def make_put_request(
    network: Domain, request: PutRequest, author: SigningKey, data_key: bytes, custodian_suite: int, custodian_opening_key: bytes
) -> PutRequest:
    """Return `request` (its sealed key and signature are filled here) with the data key sealed to the custodian, signed by the author.

    Raises Malformed when the key is not the author's.
    """
    if author.public != request.author:
        raise Malformed("the signing key is not the author's")
    info = put_info(network, request.record, request.version, request.root, request.author)
    sealed = seal(custodian_suite, custodian_opening_key, data_key, info=info)
    return replace(request, sealed_key=sealed).signed(network, author)


def open_put_request(network: Domain, request: PutRequest, custodian: OpeningKey) -> bytes:
    """Return the data key of a signed request. Raises Malformed when the signature or the seal is not what it must be."""
    if not request.is_signed(network):
        raise Malformed("the request is not signed by its author")
    return custodian.open(request.sealed_key, info=put_info(network, request.record, request.version, request.root, request.author))


def make_release_request(network: Domain, permit: bytes, reader: SigningKey, challenge: bytes) -> ReleaseRequest:
    """Return the reader's signed request for the keys of a permit; `challenge` is 32 fresh random bytes."""
    return ReleaseRequest(permit, reader.public, challenge).signed(network, reader)


def make_release(
    network: Domain, info: ReleaseInfo, custodian: SigningKey, reader_opening_key: bytes, permit_key: bytes, data_key: bytes
) -> Release:
    """Return the signed release of one data key to one reader; `permit_key` is 32 fresh random bytes, used once.

    Raises Malformed when `info` names another custodian or another reader key than those given.
    """
    if info.custodian != custodian.public or info.reader_key_digest != reader_key_digest(reader_opening_key):
        raise Malformed("the release does not name this custodian and this reader")
    sealed = seal(info.suite, reader_opening_key, permit_key, info=info.encode())
    return Release(info, sealed, wrap_key(permit_key, data_key)).signed(network, custodian)


def open_release(network: Domain, release: Release, expected: ReleaseInfo, reader: OpeningKey) -> bytes:
    """Return the data key for the reader.

    `expected` is what the reader knows from the chain (custodian, record, version, permit, ...). Raises Malformed when the
    release says anything else, is not signed by that custodian, or does not open.
    """
    if release.info != expected:
        raise Malformed("the release is not of what the permit names")
    release.check(network)
    permit_key = reader.open(release.sealed_permit_key, info=release.info.encode())
    return unwrap_key(permit_key, release.wrapped_data_key)
