"""Transactions: ids from the received body bytes, one signature for one or for a batch, every limit kept."""

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
    SINGLE_SIGNATURE,
    Operation,
    Transaction,
    TransactionBody,
    transaction_id,
    transactions_root,
)
from medchain.crypto.merkle import merkle_root
from medchain.crypto.signing import SigningKey, is_signature_valid
from medchain.errors import Malformed
from tests.chain.conftest import NETWORK, SENDER, batch, body, digest, signing_key, transaction

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


# ---- batch signatures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5, 16, 63, 64])
def test_one_signature_stands_under_every_transaction_of_a_batch_and_each_stands_for_itself(count: int) -> None:
    made = batch(count)
    assert [item.body for item in made] == [body(number + 1) for number in range(count)]
    assert [item.id for item in made] == [transaction(number + 1).id for number in range(count)], "the id is of the body alone"
    assert len({item.verification(NETWORK) for item in made}) == 1
    for item in made:
        decoded = Transaction.decode(item.raw)
        assert decoded == item and is_signature_valid(*decoded.verification(NETWORK))
        received = codec.encode(codec.decode(item.raw)[1])
        assert decoded.authentication_digest == tagged("medchain/authentication", received)


def test_what_a_batch_signs_is_the_root_over_its_ids_and_its_size() -> None:
    made = batch(5)
    root = merkle_root("medchain/batch", [item.id for item in made])
    assert made[0].verification(NETWORK) == (SENDER.public, NETWORK.signed_bytes("transaction-batch", root), made[0].signature)
    assert NETWORK.signed_bytes("transaction-batch", root) != NETWORK.signed_bytes("transaction", root), "no id passes for a root"


def test_a_batch_signature_counts_for_its_ids_and_places_its_network_and_its_sender_only() -> None:
    """The index and the count are bound to the path: nothing else can be said with the same signature."""
    good = codec.decode(batch(5)[2].raw)
    others: list[Any] = []
    for place, wrong in ((2, 4), (2, 6), (3, 3), (3, 0)):
        authentication = list(good[1])
        authentication[place] = wrong
        others.append([good[0], authentication])
    others.append([body(99).encode(), good[1]])
    others.append([body(3, sender=signing_key("other").public).encode(), good[1]])
    swapped = [*good[1][:4], [good[1][4][1], good[1][4][0], *good[1][4][2:]]]
    others.append([good[0], swapped])
    verdicts = []
    for other in others:
        try:
            verdicts.append(is_signature_valid(*Transaction.decode(codec.encode(other)).verification(NETWORK)))
        except Malformed:
            verdicts.append(False)
    assert not any(verdicts)
    for network in (Domain(digest("another network")), Domain(NETWORK.genesis, 1)):
        assert not is_signature_valid(*batch(5)[2].verification(network))


def test_one_body_signed_alone_and_in_two_batches_is_one_id_and_three_entries() -> None:
    alone, first, second = transaction(1), batch(2)[0], batch(3)[0]
    assert {alone.id, first.id, second.id} == {alone.id}
    assert len({alone.entry, first.entry, second.entry}) == 3
    assert all(is_signature_valid(*item.verification(NETWORK)) for item in (alone, first, second))


@pytest.mark.parametrize("count", [0, 1, 65])
def test_a_batch_has_two_to_sixty_four_transactions(count: int) -> None:
    with pytest.raises(Malformed, match="2 to 64"):
        batch(count)


def test_only_the_sender_of_all_of_them_signs_a_batch() -> None:
    with pytest.raises(Malformed, match="not the sender's"):
        Transaction.sign_batch([body(1), body(2, sender=signing_key("other").public)], SENDER, NETWORK)


PATH = [bytes(32)]


@pytest.mark.parametrize(
    "authentication",
    [
        [2], [2, bytes(64)], [2, bytes(64), 2, 0], [2, bytes(64), 2, 0, PATH, None], [2, bytes(63), 2, 0, PATH], [2, None, 2, 0, PATH],
        [2, bytes(64), 1, 0, []], [2, bytes(64), 0, 0, []], [2, bytes(64), 65, 0, PATH * 7], [2, bytes(64), 2, 2, PATH],
        [2, bytes(64), 2, -1, PATH], [2, bytes(64), 2, 0, []], [2, bytes(64), 2, 0, PATH * 2], [2, bytes(64), 2, 0, [bytes(31)]],
        [2, bytes(64), 2, 0, [None]], [2, bytes(64), 2, 0, None], [2, bytes(64), True, 0, PATH], [2, bytes(64), 2, False, PATH],
        [2, bytes(64), 64, 0, PATH * 7], [2, bytes(64), 3, 2, PATH * 2],
    ],
)  # fmt: skip
def test_a_batch_signature_of_another_shape_is_refused(authentication: list[Any]) -> None:
    with pytest.raises(Malformed):
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


def test_frozen_batch_does_not_change() -> None:
    vector = VECTORS["batch"]
    network, key = Domain(bytes.fromhex(vector["genesis"]), vector["recovery"]), SigningKey(bytes.fromhex(vector["seed"]))
    decoded = [Transaction.decode(bytes.fromhex(raw)) for raw in vector["raw"]]
    assert [item.authentication_digest.hex() for item in decoded] == vector["authentication_digests"]
    assert {item.verification(network)[1].hex() for item in decoded} == {vector["signed"]}
    assert all(is_signature_valid(*item.verification(network)) for item in decoded)
    assert list(Transaction.sign_batch([item.body for item in decoded], key, network)) == decoded


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
