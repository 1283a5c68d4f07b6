"""Other authentications of one body: a second genuine signature, another kind of signature, a forged one, one that covers something else.

A second genuine signature of one message only the key's owner can make: the usual one with another nonce.

RFC 8032 fixes the nonce, but no verifier can tell: any R = rB with S = r + H(R, A, M) a is accepted. Slow, plain and for pretend keys only:
nothing here runs in constant time.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from medchain import codec
from medchain.chain import domain
from medchain.chain.domain import Domain
from medchain.chain.transaction import BATCH_SIGNATURE, BATCH_TAG, SINGLE_SIGNATURE, Transaction, TransactionBody
from medchain.crypto.merkle import MerkleTree
from medchain.crypto.signing import SigningKey

_P: Final = 2**255 - 19
_L: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, _P - 2, _P) % _P
_Point = tuple[int, int, int, int]
"""Extended coordinates (X, Y, Z, T) of RFC 8032, section 5.1.4."""
_BY: Final = 4 * pow(5, _P - 2, _P) % _P
_BX: Final = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_BASE: Final[_Point] = (_BX, _BY, 1, _BX * _BY % _P)


def _add(first: _Point, second: _Point) -> _Point:
    a = (first[1] - first[0]) * (second[1] - second[0]) % _P
    b = (first[1] + first[0]) * (second[1] + second[0]) % _P
    c = 2 * first[3] * second[3] * _D % _P
    d = 2 * first[2] * second[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _times_base(scalar: int) -> bytes:
    """Return the encoding of scalar * B."""
    point: _Point = (0, 1, 1, 0)
    power = _BASE
    while scalar:
        if scalar & 1:
            point = _add(point, power)
        power = _add(power, power)
        scalar >>= 1
    inverse = pow(point[2], _P - 2, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | ((x & 1) << 255)).to_bytes(32, "little")


def other_signature(key: SigningKey, message: bytes, nonce: int) -> bytes:
    """Return the signature of `message` with this nonce (1 <= nonce < 2**252): as valid as the usual one and other bytes."""
    digest = hashlib.sha512(key.seed_bytes()).digest()
    secret = int.from_bytes(digest[:32], "little") & ((1 << 254) - 8) | (1 << 254)
    point = _times_base(nonce)
    challenge = int.from_bytes(hashlib.sha512(point + key.public + message).digest(), "little") % _L
    return point + ((nonce + challenge * secret) % _L).to_bytes(32, "little")


def sign_again(transaction: Transaction, key: SigningKey, network: Domain, nonce: int) -> Transaction:
    """Return the same body under another genuine authentication by the same sender, of the same kind and in the same place."""
    _, message, _ = transaction.verification(network)
    return _with_signature(transaction, other_signature(key, message, nonce))


def sign_otherwise(transaction: Transaction, key: SigningKey, network: Domain, other: bytes) -> Transaction:
    """Return the same body under a genuine authentication of the other kind: alone after a batch, else in one with the id `other`."""
    if transaction.batch_root is not None:
        signature = key.sign(network.signed_bytes(domain.TRANSACTION, transaction.id))
        return _with_authentication(transaction.body_bytes, [SINGLE_SIGNATURE, signature])
    tree = MerkleTree.over(BATCH_TAG, [transaction.id, other])
    signature = key.sign(network.signed_bytes(domain.TRANSACTION_BATCH, tree.root))
    return _with_authentication(transaction.body_bytes, [BATCH_SIGNATURE, signature, tree.count, 0, list(tree.inclusion_path(0))])


def with_forged_signature(transaction: Transaction) -> Transaction:
    """Return the same body under an authentication that is nobody's."""
    return _with_signature(transaction, bytes((transaction.signature[0] ^ 1,)) + transaction.signature[1:])


def with_authentication_of(other: Transaction, body: TransactionBody) -> Transaction:
    """Return a body under the genuine authentication of another transaction: in a batch, a place that covers something else."""
    return _with_authentication(body.encode(), _authentication_of(other))


def _with_signature(transaction: Transaction, signature: bytes) -> Transaction:
    kind, _, *place = _authentication_of(transaction)
    return _with_authentication(transaction.body_bytes, [kind, signature, *place])


def _authentication_of(transaction: Transaction) -> list[Any]:
    authentication: list[Any] = codec.decode(transaction.raw)[1]
    return authentication


def _with_authentication(body_bytes: bytes, authentication: list[Any]) -> Transaction:
    return Transaction.decode(codec.encode([body_bytes, authentication]))
