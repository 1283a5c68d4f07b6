"""Transactions: ids from the received body bytes, the reserved batch signature refused, every limit kept."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain import codec
from medchain.chain import limits
from medchain.chain.domain import Domain
from medchain.chain.transaction import (
    BATCH_SIGNATURE,
    SINGLE_SIGNATURE,
    Operation,
    Transaction,
    TransactionBody,
    transaction_id,
    transactions_root,
)
from medchain.crypto.signing import SigningKey, is_signature_valid
from medchain.errors import Malformed
from tests.chain.conftest import NETWORK, SENDER, body, digest, signing_key, transaction

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "transaction.json").read_text())


def tagged(tag: str, data: bytes) -> bytes:
    prefix = sha256(tag.encode()).digest()
    return sha256(prefix + prefix + data).digest()


def with_authentication(authentication: Any) -> bytes:
    return codec.encode([transaction().body_bytes, authentication])


def test_the_id_is_the_tagged_digest_of_the_received_body_bytes() -> None:
    made = transaction()
    decoded = Transaction.decode(made.raw)
    received = codec.decode(made.raw)[0]
    assert decoded.body_bytes == received
    assert decoded.id == transaction_id(received) == tagged("medchain/transaction", received) == made.id
    assert decoded.raw == made.raw


def test_the_authentication_digest_is_over_the_received_authentication() -> None:
    made = transaction()
    received = codec.encode(codec.decode(made.raw)[1])
    assert received == codec.encode([SINGLE_SIGNATURE, made.signature])
    assert Transaction.decode(made.raw).authentication_digest == tagged("medchain/authentication", received)


def test_one_body_under_two_authentications_is_one_id_and_two_entries() -> None:
    """lessons.md: "Two authentications of one body bend the transactions root, or a forged one rides on a remembered id"."""
    good = transaction()
    other = Transaction.decode(with_authentication([SINGLE_SIGNATURE, bytes(64)]))
    assert other.id == good.id
    assert other.entry != good.entry
    assert transactions_root([other.entry]) != transactions_root([good.entry])
    assert is_signature_valid(*good.verification(NETWORK))
    assert not is_signature_valid(*other.verification(NETWORK))


def test_a_signature_counts_in_its_network_and_history_only() -> None:
    for network in (Domain(digest("another network")), Domain(NETWORK.genesis, 1)):
        assert not is_signature_valid(*transaction().verification(network))


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": "tesu"}, {"sender": signing_key("other").public}, {"valid_until": 1_001}, {"nonce": bytes(8)},
        {"operations": body().operations[:1]}, {"operations": body().operations[::-1]},
        {"operations": (replace(body().operations[0], kind="people.other"), body().operations[1])},
        {"operations": (replace(body().operations[0], payload=[]), body().operations[1])},
    ],
)  # fmt: skip
def test_the_id_covers_every_field_of_the_body(change: dict[str, Any]) -> None:
    changed = replace(body(), **change)
    assert transaction_id(changed.encode()) != transaction_id(body().encode())
    assert TransactionBody.decode(changed.encode()) == changed


def test_only_the_sender_signs_its_bodies() -> None:
    with pytest.raises(Malformed, match="not the sender's"):
        Transaction.sign(body(), signing_key("other"), NETWORK)


def test_a_signed_transaction_holds_what_others_will_decode() -> None:
    loose = body(operations=(Operation("records.test", [("a", (1, 2)), ()]),))
    made = Transaction.sign(loose, SENDER, NETWORK)
    assert made == Transaction.decode(made.raw)
    assert made.body.operations[0].payload == [["a", [1, 2]], []]


@pytest.mark.parametrize(
    "authentication",
    [
        [BATCH_SIGNATURE, bytes(64), 2, 0, [bytes(32)]],
        [BATCH_SIGNATURE, bytes(64), 1, 0, []],
        [BATCH_SIGNATURE],
        [BATCH_SIGNATURE, bytes(64)],
    ],
)
def test_the_batch_signature_is_reserved_and_refused(authentication: list[Any]) -> None:
    with pytest.raises(Malformed, match="batch signatures are reserved"):
        Transaction.decode(with_authentication(authentication))


@pytest.mark.parametrize(
    "authentication",
    [
        [], None, b"", bytes(64), [0, bytes(64)], [3, bytes(64)], [True, bytes(64)], [None, bytes(64)], ["1", bytes(64)],
        [1], [1, bytes(63)], [1, bytes(65)], [1, "x" * 64], [1, bytes(64), b""], [1, None], [1, bytes(64), 1, 0, []], [[1, bytes(64)]],
    ],
)  # fmt: skip
def test_every_other_authentication_is_refused(authentication: Any) -> None:
    with pytest.raises(Malformed):
        Transaction.decode(with_authentication(authentication))


def wrong_bodies() -> list[Any]:
    good = codec.decode(body().encode())
    places: list[tuple[int, Any]] = [
        (0, 0), (0, 2), (0, True), (0, None), (0, "1"),
        (1, "x" * 65), (1, b"test"), (1, "a\nb"), (1, None),
        (2, bytes(31)), (2, bytes(33)), (2, "x" * 32),
        (3, -1), (3, limits.HEIGHT_MAX + 1), (3, False), (3, None),
        (4, []), (4, None), (4, [["kind", []]] * 65), (4, [["kind"]]), (4, [["kind", [], 1]]), (4, [["kind", None]]), (4, [["kind", b""]]),
        (4, [[b"kind", []]]), (4, [["k" * 49, []]]), (4, [["ki\x00nd", []]]), (4, [["kind", [None] * 65]]), (4, [["kind", {"a": 1}]]),
        (5, bytes(7)), (5, bytes(9)), (5, 1), (5, None),
    ]  # fmt: skip
    bodies = [[wrong if place == where else value for place, value in enumerate(good)] for where, wrong in places]
    return [*bodies, good[:-1], [*good, None], good[1:], [], {}, None, body().encode()]


@pytest.mark.parametrize("value", wrong_bodies(), ids=lambda value: "")
def test_bodies_of_another_form_are_refused_alone_and_inside_a_transaction(value: Any) -> None:
    encoded = codec.encode(value)
    with pytest.raises(Malformed):
        TransactionBody.decode(encoded)
    with pytest.raises(Malformed):
        Transaction.decode(codec.encode([encoded, [SINGLE_SIGNATURE, bytes(64)]]))


def test_a_body_in_another_encoding_of_the_same_values_is_refused() -> None:
    canonical = body().encode()
    assert canonical[:2] == b"\x96\x01"
    for longer in (b"\x96\xcc\x01" + canonical[2:], b"\xdc\x00\x06" + canonical[1:], canonical + b"\xc0"):
        with pytest.raises(Malformed):
            Transaction.decode(codec.encode([longer, [SINGLE_SIGNATURE, bytes(64)]]))


def test_a_float_inside_a_payload_is_refused() -> None:
    marked = body(operations=(Operation("records.test", [b"\xcb" * 9]),)).encode()
    floating = marked.replace(b"\xc4\x09" + b"\xcb" * 9, b"\xcb" + bytes(8))
    assert floating != marked
    with pytest.raises(Malformed):
        TransactionBody.decode(floating)


def test_a_payload_nested_too_deep_is_refused() -> None:
    nested: Any = []
    for _ in range(8):
        nested = [nested]
    fits = body(operations=(Operation("records.test", nested),))
    assert Transaction.decode(Transaction.sign(fits, SENDER, NETWORK).raw).body == fits
    with pytest.raises(Malformed, match="deeper"):
        Transaction.sign(body(operations=(Operation("records.test", [nested]),)), SENDER, NETWORK)


def test_sixty_four_operations_fit_and_one_more_does_not() -> None:
    many = (Operation("records.test", []),) * limits.OPERATIONS_MAX
    assert len(Transaction.sign(body(operations=many), SENDER, NETWORK).body.operations) == 64
    with pytest.raises(Malformed, match="at most 64"):
        Transaction.sign(body(operations=(*many, many[0])), SENDER, NETWORK)


def test_the_largest_transaction_fits_and_one_byte_more_does_not() -> None:
    def sized(payload_bytes: int) -> TransactionBody:
        return body(operations=(Operation("records.test", [bytes(payload_bytes)]),))

    spare = limits.TRANSACTION_BYTES_MAX - len(Transaction.sign(sized(60_000), SENDER, NETWORK).raw)
    largest = Transaction.sign(sized(60_000 + spare), SENDER, NETWORK)
    assert len(largest.raw) == limits.TRANSACTION_BYTES_MAX
    assert Transaction.decode(largest.raw) == largest
    with pytest.raises(Malformed):
        Transaction.sign(sized(60_001 + spare), SENDER, NETWORK)
    with pytest.raises(Malformed):
        Transaction.decode(codec.encode([sized(60_001 + spare).encode(), [SINGLE_SIGNATURE, bytes(64)]]))


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32)), max_size=6), st.data())
def test_the_root_covers_ids_authentications_order_and_count(entries: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    other = data.draw(st.permutations(entries) | st.just(entries[:-1]) | st.just([*entries, *entries[:1]]))
    assert (transactions_root(entries) == transactions_root(other)) == (list(entries) == list(other))


@pytest.mark.parametrize("vector", VECTORS["transactions"], ids=lambda vector: vector["name"].replace(" ", "-"))
def test_frozen_transactions_do_not_change(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["raw"])
    decoded = Transaction.decode(raw)
    assert decoded.body_bytes.hex() == vector["body"]
    assert decoded.id.hex() == vector["id"]
    assert decoded.authentication_digest.hex() == vector["authentication_digest"]
    network = Domain(bytes.fromhex(vector["genesis"]), vector["recovery"])
    assert decoded.verification(network)[1].hex() == vector["signed"]
    assert is_signature_valid(*decoded.verification(network))
    again = Transaction.sign(decoded.body, SigningKey(bytes.fromhex(vector["seed"])), network)
    assert again == decoded


def test_the_frozen_transaction_is_the_one_these_tests_make() -> None:
    assert VECTORS["transactions"][0]["raw"] == transaction().raw.hex()


@pytest.mark.parametrize("vector", VECTORS["roots"], ids=lambda vector: str(len(vector["entries"])))
def test_frozen_transactions_roots_do_not_change(vector: dict[str, Any]) -> None:
    entries = [(bytes.fromhex(identity), bytes.fromhex(authentication)) for identity, authentication in vector["entries"]]
    assert transactions_root(entries).hex() == vector["root"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"].replace(" ", "-"))
def test_frozen_refusals_do_not_change(vector: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match=vector["message"]):
        Transaction.decode(bytes.fromhex(vector["raw"]))
