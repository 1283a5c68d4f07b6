"""Votes, prepared proofs and view changes: signed over fixed tuples, and refused when their fields contradict each other."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medchain import codec
from medchain.chain import domain, limits
from medchain.chain.domain import Domain
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote, vote_bytes
from medchain.crypto.signing import SigningKey, is_signature_valid, verify_many
from medchain.errors import Malformed
from tests.chain.conftest import KEYS, NETWORK, digest, prepared, validators_of, view_change

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vote.json").read_text())
VOTE = Vote.sign(NETWORK, KEYS[1], PREPARE, 7, 2, digest("block"))


def read(noun: Any) -> Any:
    return type(noun).from_value(codec.decode(codec.encode(noun.to_value())))


def is_signed(vote: Vote | ViewChange, network: Domain = NETWORK) -> bool:
    return is_signature_valid(*vote.verification(network))


def test_a_vote_is_valid_in_its_network_and_history_only():
    assert is_signed(VOTE)
    assert not is_signed(VOTE, Domain(digest("another network")))
    assert not is_signed(VOTE, Domain(NETWORK.genesis, 1))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": COMMIT},
        {"height": 8},
        {"view": 3},
        {"digest": digest("another block")},
        {"signer": KEYS[0].public},
        {"signature": bytes(64)},
    ],
)
def test_the_signature_of_a_vote_covers_every_field(change: dict[str, Any]):
    assert not is_signed(replace(VOTE, **change))


def test_signed_bytes_of_votes_differ_in_every_field():
    made = [
        vote_bytes(NETWORK, *fields)
        for fields in itertools.product((PREPARE, COMMIT), (1, 2), (0, 1), (digest("block"), digest("another block")))
    ]
    assert len(set(made)) == len(made) == 16


def test_a_vote_signs_height_view_and_digest_as_a_fixed_tuple():
    assert vote_bytes(NETWORK, COMMIT, 7, 2, digest("b")) == NETWORK.signed_bytes(domain.COMMIT, codec.encode([7, 2, digest("b")]))


@pytest.mark.parametrize("kind", [0, 3, True, None, "1", b"\x01", -1])
def test_an_unknown_kind_of_vote_is_refused(kind: Any):
    with pytest.raises(Malformed, match="kind of vote"):
        Vote.from_value([kind, *VOTE.to_value()[1:]])


@pytest.mark.parametrize(("place", "limit"), [(1, limits.HEIGHT_MAX), (2, limits.VIEW_MAX)])
def test_heights_and_views_beyond_their_bound_are_refused(place: int, limit: int):
    value = VOTE.to_value()
    value[place] = limit
    assert Vote.from_value(value).to_value() == value
    value[place] = limit + 1
    with pytest.raises(Malformed):
        Vote.from_value(value)


def test_view_changes_come_back_with_and_without_proof():
    for change in (view_change(), view_change(prepared()), view_change(prepared()).without_proof()):
        assert read(change) == change
        assert is_signed(change)


def test_the_signature_of_a_view_change_covers_every_field_but_the_proof():
    change = view_change(prepared())
    assert is_signed(change.without_proof()), "the proof is attached, not signed"
    for other in (
        {"height": 8}, {"view": 4}, {"prepared_view": 2}, {"prepared_view": None, "digest": None}, {"digest": digest("another block")},
        {"signer": KEYS[0].public},
    ):  # fmt: skip
        assert not is_signed(replace(change, **other)), other
    assert not is_signed(change, Domain(NETWORK.genesis, 1))


def test_a_view_change_passes_for_no_vote():
    change = view_change(prepared())
    for kind in (PREPARE, COMMIT):
        assert not is_signed(Vote(kind, change.height, change.view, digest("block"), change.signer, change.signature))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"view": 0, "prepared_view": None, "digest": None, "proof": None}, "view 1 or later"),
        ({"digest": None}, "together"),
        ({"prepared_view": None}, "together"),
        ({"prepared_view": None, "digest": None}, "another block"),
        ({"view": 1}, "own or a later view"),
        ({"prepared_view": 3, "proof": None}, "own or a later view"),
        ({"height": 8}, "another block"),
        ({"prepared_view": 0}, "another block"),
        ({"digest": digest("another block")}, "another block"),
    ],
)
def test_view_changes_that_contradict_themselves_are_refused(change: dict[str, Any], message: str):
    """lessons.md, FISCO-BCOS #2448: whatever a view change says twice must agree when it is read."""
    with pytest.raises(Malformed, match=message):
        read(replace(view_change(prepared()), **change))


def test_a_view_change_with_a_huge_view_is_bounded():
    assert read(view_change(view=limits.VIEW_MAX)).view == limits.VIEW_MAX
    with pytest.raises(Malformed):
        read(view_change(view=limits.VIEW_MAX + 1))


@pytest.mark.parametrize("vector", VECTORS["votes"], ids=lambda vector: f"{vector['kind']}-{vector['height']}-{vector['view']}")
def test_frozen_votes_do_not_change(vector: dict[str, Any]):
    network = Domain(bytes.fromhex(vector["genesis"]), vector["recovery"])
    key, name = SigningKey(bytes.fromhex(vector["seed"])), bytes.fromhex(vector["digest"])
    assert vote_bytes(network, vector["kind"], vector["height"], vector["view"], name).hex() == vector["signed"]
    made = Vote.sign(network, key, vector["kind"], vector["height"], vector["view"], name)
    assert codec.encode(made.to_value()).hex() == vector["encoded"]
    assert Vote.from_value(codec.decode(bytes.fromhex(vector["encoded"]))) == made
    assert is_signed(made, network)


@pytest.mark.parametrize("vector", VECTORS["view_changes"], ids=lambda vector: vector["name"].replace(" ", "-"))
def test_frozen_view_changes_do_not_change(vector: dict[str, Any]):
    made = view_change(prepared() if vector["is_prepared"] else None)
    assert made.message(NETWORK, made.height, made.view, made.prepared_view, made.digest).hex() == vector["signed"]
    assert codec.encode(made.to_value()).hex() == vector["encoded"]
    decoded = ViewChange.from_value(codec.decode(bytes.fromhex(vector["encoded"])))
    assert decoded == made and is_signed(decoded)
    if decoded.proof is not None:
        decoded.proof.check(NETWORK, validators_of(4))


def test_a_prepared_proof_names_the_signatures_to_check():
    proof = read(prepared())
    assert isinstance(proof, PreparedProof)
    assert verify_many(proof.verifications(NETWORK, validators_of(4))) == [True, True, True]
