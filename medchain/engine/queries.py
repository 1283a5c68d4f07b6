"""Reads: what the engine answers to clients, from the decided chain, the archive and the pool; one table method → function.

Names, parameters and answers are those of wire/methods.py. Every answer is of one height, nothing is changed, and every page is bounded.
Raises Rejected for what is not there and Unavailable for what this node cannot show now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from medchain import __version__
from medchain.chain.block import Header
from medchain.chain.certificate import Certificate
from medchain.chain.limits import PROTOCOL_VERSION
from medchain.chain.receipt import Receipt
from medchain.engine import rulebook
from medchain.engine.decided import DecidedChain
from medchain.engine.mempool import Mempool
from medchain.engine.turn import Turn
from medchain.errors import InvariantBroken, Rejected, Unavailable
from medchain.ledger.apply import due_receipt_id
from medchain.ledger.trail import event_names
from medchain.store.staged import Staged
from medchain.wire.peer import WIRE_VERSION
from medchain.wire.proof import Place, TransactionProof

REFUSALS: Final[dict[str, str]] = {
    "chain.height-unknown": "No block of this height is decided here, or it is not kept any more.",
    "transaction.not-decided": "No block holds a transaction with this id.",
}

BLOCKS_PAGE_MAX: Final = 64
"""Summaries of one page; each reads a whole block."""

Params = dict[str, Any]
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """What reads may look at."""

    chain: DecidedChain
    pool: Mempool
    staged: Staged
    turn: Turn
    status: Callable[[], Answer]


# ---- node -----------------------------------------------------------------------------------------------------------------------


def _node_status(reading: Reading, params: Params) -> Answer:
    return reading.status()


def _node_version(reading: Reading, params: Params) -> Answer:
    return {"version": __version__, "protocol": PROTOCOL_VERSION, "wire": WIRE_VERSION}


def _node_validators(reading: Reading, params: Params) -> Answer:
    validators = reading.chain.validators
    names = rulebook.hospitals_by_consensus_key(reading.chain.state)
    rows = []
    for validator in validators.validators:
        name, organisation_key = names.get(validator.consensus_key, (None, None))
        rows.append(
            {
                "consensus_key": validator.consensus_key,
                "officer_key": validator.officer_key,
                "may_vote": validator.may_vote,
                "name": name,
                "organisation_key": organisation_key,
            }
        )
    return {
        "changed_at": validators.changed_at,
        "quorum": validators.quorum,
        "faults_tolerated": validators.faults_tolerated,
        "digest": validators.digest(),
        "validators": rows,
    }


# ---- chain ----------------------------------------------------------------------------------------------------------------------


def _chain_genesis(reading: Reading, params: Params) -> Answer:
    genesis, network = reading.chain.genesis, reading.chain.network
    return {"digest": network.genesis, "chain_id": genesis.chain_id, "recovery": network.recovery, "document": genesis.to_json()}


def _chain_params(reading: Reading, params: Params) -> Answer:
    return {"height": reading.chain.height, "parameters": reading.chain.parameters.as_names()}


def _chain_head(reading: Reading, params: Params) -> Answer:
    head = reading.chain.head
    return {"height": head.height, "digest": head.digest, "time_ms": head.time_ms, "state_root": head.state_root}


def _chain_header(reading: Reading, params: Params) -> Answer:
    header = _header(reading, params["height"])
    names = ("height", "view", "time_ms", "proposer", "parent", "state_root", "transactions_root", "receipts_root")
    return {name: getattr(header, name) for name in names} | {"digest": header.digest(), "header": header.encode()}


def _chain_certificate(reading: Reading, params: Params) -> Answer:
    certificate = _certificate(reading, params["height"])
    validators = reading.chain.validator_set(_header(reading, certificate.height).validators_digest)
    if validators is None:
        raise InvariantBroken("the validators of a decided block are missing")
    return {
        "height": certificate.height,
        "view": certificate.view,
        "digest": certificate.digest,
        "signers": [validators.validators[index].consensus_key for index, _ in certificate.commits],
        "certificate": certificate.encode(),
    }


def _chain_block(reading: Reading, params: Params) -> Answer:
    block = reading.chain.block_of(params["height"])
    if block is None:
        raise _unknown_height()
    receipts = _receipts(reading, block.header.height)
    return {
        **_summary(block.header),
        "transactions": [transaction.id for transaction in block.transactions],
        "receipts": [{"id": receipt.transaction_id, **_outcome(receipt)} for receipt in receipts],
        "block": block.encode(),
    }


def _chain_blocks(reading: Reading, params: Params) -> Answer:
    chain = reading.chain
    last = min(params["first"] + min(params["count"], BLOCKS_PAGE_MAX) - 1, chain.height)
    blocks = [chain.block_of(height) for height in range(params["first"], last + 1)]
    rows = [{**_summary(block.header), "transactions": len(block.transactions)} for block in blocks if block is not None]
    return {"height": chain.height, "blocks": rows}


def _summary(header: Header) -> Answer:
    return {
        "height": header.height,
        "digest": header.digest(),
        "view": header.view,
        "time_ms": header.time_ms,
        "proposer": header.proposer,
    }


def _outcome(receipt: Receipt) -> Answer:
    events = [{"kind": event.kind, "subjects": list(event.subjects), "fields": event_names(event)} for event in receipt.events]
    return {"code": receipt.code, "operation_index": receipt.operation_index, "events": events}


def _header(reading: Reading, height: int) -> Header:
    header = reading.chain.header_of(height)
    if header is None:
        raise _unknown_height()
    return header


def _certificate(reading: Reading, height: int) -> Certificate:
    certificate = reading.chain.certificate_of(height)
    if certificate is None:
        raise _unknown_height()
    return certificate


def _receipts(reading: Reading, height: int) -> tuple[Receipt, ...]:
    receipts = reading.chain.receipts_of(height)
    if receipts is None:
        raise _unknown_height()
    return receipts


def _unknown_height() -> Rejected:
    return Rejected("chain.height-unknown", "this node holds no decided block of this height: ask for one up to its head")


# ---- transactions ---------------------------------------------------------------------------------------------------------------


def transaction_status(reading: Reading, transaction_id: bytes) -> Answer:
    """Return what became of a transaction, as `tx.status` tells it: decided, pending, or unknown here.

    One whose valid-until height passed has left the pool and is unknown to the chain; the submitter was told that it expired.
    """
    answer: Answer = {
        "id": transaction_id, "status": "unknown", "height": None, "time_ms": None, "code": None, "operation_index": None, "events": [],
    }  # fmt: skip
    place = reading.chain.archive.locate(transaction_id)
    if place is not None:
        receipt = _receipt_at(reading, *place)
        header = _header(reading, place[0])
        return answer | {"status": "decided", "height": place[0], "time_ms": header.time_ms, **_outcome(receipt)}
    if transaction_id in reading.pool:
        return answer | {"status": "pending"}
    if reading.pool.has_expired(transaction_id):
        return answer | {"status": "expired"}
    return answer


def _receipt_at(reading: Reading, height: int, index: int) -> Receipt:
    """Return the receipt of a transaction; due items, if any, have the first one."""
    receipts = _receipts(reading, height)
    if receipts and receipts[0].transaction_id == due_receipt_id(height):
        index += 1
    return receipts[index]


def _tx_status(reading: Reading, params: Params) -> Answer:
    return transaction_status(reading, params["id"])


def _tx_proof(reading: Reading, params: Params) -> Answer:
    place = reading.chain.archive.locate(params["id"])
    if place is None:
        raise Rejected("transaction.not-decided", "no block holds this transaction: wait until it is decided, or check the id")
    height, index = place
    leaves = reading.chain.leaves_of(height)
    if leaves is None:
        raise _unknown_height()
    transactions, receipts, leaf = leaves.transactions_tree, leaves.receipts_tree, leaves.receipt_place(index)
    proof = TransactionProof(
        header=leaves.header,
        certificate=_certificate(reading, height),
        transaction=leaves.transaction(index),
        place=Place(index, transactions.count, transactions.inclusion_path(index)),
        receipt=leaves.receipt(leaf),
        receipt_place=Place(leaf, receipts.count, receipts.inclusion_path(leaf)),
    )
    return {"id": params["id"], "height": height, "proof": proof.encode()}


# ---- state and pool -------------------------------------------------------------------------------------------------------------


def _state_get(reading: Reading, params: Params) -> Answer:
    chain = reading.chain
    if chain.certificate is None:
        raise Unavailable("the state at height 0 is the genesis document's, which nothing certifies: ask again after the first block")
    key = params["key"]
    return {
        "height": chain.height,
        "header": chain.header.encode(),
        "certificate": chain.certificate.encode(),
        "value": chain.state.get(key),
        "proof": chain.tree.prove(key).encode(),
    }


def _mempool_status(reading: Reading, params: Params) -> Answer:
    pool = reading.pool
    oldest = next(pool.entries(), None)
    age_ms = 0 if oldest is None else max(0, reading.turn.monotonic_ms - oldest.arrived_ms)
    return {"transactions": len(pool), "bytes": pool.bytes_used, "bytes_max": pool.bytes_max, "oldest_ms": age_ms}


def _of_rulebook(read: Callable[[rulebook.Book, Params], Any]) -> Callable[[Reading, Params], Any]:
    return lambda reading, params: read(rulebook.Book(reading.chain, reading.staged), params)


READS: Final[dict[str, Callable[[Reading, Params], Any]]] = {
    "node.status": _node_status,
    "node.version": _node_version,
    "node.validators": _node_validators,
    "chain.genesis": _chain_genesis,
    "chain.params": _chain_params,
    "chain.head": _chain_head,
    "chain.header": _chain_header,
    "chain.certificate": _chain_certificate,
    "chain.block": _chain_block,
    "chain.blocks": _chain_blocks,
    "tx.status": _tx_status,
    "tx.proof": _tx_proof,
    "state.get": _state_get,
    "mempool.status": _mempool_status,
    **{name: _of_rulebook(read) for name, read in rulebook.READS.items()},
}
"""Method → function (reading, checked parameters) → answer with bytes as they are."""
