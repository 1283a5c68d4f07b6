"""Building operations and signing transactions. Knows no operation's meaning; expiry and nonce are the caller's."""

from __future__ import annotations

from collections.abc import Sequence

from medchain.chain.domain import Domain
from medchain.chain.transaction import Operation, Transaction, TransactionBody
from medchain.crypto.signing import SigningKey
from medchain.errors import Malformed
from medchain.ledger.execution import Handler


def build_transaction(
    network: Domain, chain_id: str, key: SigningKey, operations: Sequence[Operation], *, valid_until: int, nonce: bytes
) -> Transaction:
    """Return the signed transaction of `operations` by `key`.

    `valid_until` is the last height whose block may hold it, `nonce` eight fresh random bytes. Raises Malformed when a bound of
    chain/limits.py is broken.
    """
    return Transaction.sign(build_body(chain_id, key.public, operations, valid_until=valid_until, nonce=nonce), key, network)


def build_body(chain_id: str, sender: bytes, operations: Sequence[Operation], *, valid_until: int, nonce: bytes) -> TransactionBody:
    """Return what `sender` signs to do these operations; see `build_transaction`."""
    return TransactionBody(chain_id=chain_id, sender=sender, valid_until=valid_until, operations=tuple(operations), nonce=nonce)


def operation_of(handler: Handler) -> Operation:
    """Return the operation of a payload that reads back as itself, so that a wrong argument fails here and not on the chain.

    Raises Malformed with the rule book's own sentence.
    """
    operation = handler.operation()
    if type(handler).from_payload(operation.payload) != handler:
        raise Malformed(f"an argument of {handler.KIND} is not of the type the rule book asks for")
    return operation
