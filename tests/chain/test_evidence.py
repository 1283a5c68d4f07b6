"""Evidence: each contradiction convicts, nothing looser does, and one contradiction has one encoding."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from medchain import codec
from medchain.chain import limits
from medchain.chain.domain import Domain
from medchain.chain.evidence import EQUIVOCATION, VIEW_CHANGE_LIE, Contradiction, evidence_id, offence_of
from medchain.chain.vote import PREPARE
from medchain.errors import Malformed
from tests.chain.conftest import CONTRADICTIONS, KEYS, NETWORK, digest, prepared, single_changes, view_change, vote

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "evidence.json").read_text())


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_every_contradiction_convicts_in_whichever_order_it_is_told(name):
    first, second = CONTRADICTIONS[name]
    contradiction = Contradiction.of(first, second)
    assert contradiction == Contradiction.of(second, first)
    assert contradiction.offence == (VIEW_CHANGE_LIE if "hidden" in name else EQUIVOCATION)
    assert (contradiction.offender, contradiction.height) == (KEYS[1].public, 7)
    contradiction.check(NETWORK)
    assert Contradiction.decode(contradiction.encode()) == contradiction


@pytest.mark.parametrize(
    "first, second",
    [
        (vote(), vote()),
        (vote(), vote("other", PREPARE)),
        (vote(), vote("other", height=8)),
        (vote(), vote("other", view=2)),
        (vote(), vote("other", signer=2)),
        (view_change(), view_change()),
        (view_change(), view_change(view=4)),
        (view_change(), view_change(prepared(), signer=2)),
        (view_change(), view_change(prepared(height=8), height=8)),
        (vote(view=1), view_change(prepared(view=1))),
        (vote(view=0), view_change(prepared(view=1))),
        (vote(view=3), view_change()),
        (vote(view=9), view_change()),
        (vote("block", PREPARE), view_change()),
        (vote(height=8), view_change()),
        (vote(signer=2), view_change()),
    ],
)
def test_what_an_honest_validator_may_sign_is_no_evidence(first, second):
    """Only p < c < w is a lie: p = c is what an honest committer shows, c >= w may be a late commit after a certificate."""
    for one, other in ((first, second), (second, first)):
        assert offence_of(one, other) is None
        with pytest.raises(Malformed):
            Contradiction.of(one, other)


def test_another_signature_of_the_same_statement_is_no_contradiction():
    assert offence_of(vote(), replace(vote(), signature=bytes(64))) is None


def test_statement_signed_for_another_network_or_history_is_a_forgery_here():
    elsewhere = (Domain(digest("elsewhere"), 0), Domain(NETWORK.genesis, 1))
    for network in elsewhere:
        contradiction = Contradiction.of(vote(), vote("other", network=network))
        with pytest.raises(Malformed):
            contradiction.check(NETWORK)
        with pytest.raises(Malformed):
            contradiction.check(network)


def test_view_change_is_kept_without_its_proof():
    contradiction = Contradiction.of(*CONTRADICTIONS["two view changes with other blocks"])
    assert contradiction.first.proof is None and contradiction.second.proof is None
    contradiction.check(NETWORK)


def encoded(offence: str, *statements) -> bytes:
    return codec.encode([offence, *[statement.to_value() for statement in statements]])


def test_one_contradiction_has_one_encoding():
    hidden, two = Contradiction.of(*CONTRADICTIONS["a commit hidden"]), Contradiction.of(*CONTRADICTIONS["two commits"])
    proven = view_change(prepared(view=1))
    for data in (
        encoded(EQUIVOCATION, two.second, two.first),
        encoded(VIEW_CHANGE_LIE, hidden.second, hidden.first),
        encoded(VIEW_CHANGE_LIE, two.first, two.second),
        encoded(EQUIVOCATION, hidden.first, hidden.second),
        encoded("other", two.first, two.second),
        encoded(VIEW_CHANGE_LIE, vote(view=2), proven),
        encoded(EQUIVOCATION, two.first, two.first),
        encoded(EQUIVOCATION, vote(), vote()),
        codec.encode([EQUIVOCATION, two.first.to_value(), two.second.to_value(), None]),
        codec.encode([EQUIVOCATION, two.first.to_value()]),
        codec.encode([EQUIVOCATION, 1, 2]),
        b"",
        two.encode() + b"\x00",
    ):
        with pytest.raises(Malformed):
            Contradiction.decode(data)


def is_proof(data: bytes) -> bool:
    try:
        Contradiction.decode(data).check(NETWORK)
    except Malformed:
        return False
    return True


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_no_changed_byte_leaves_it_a_proof(name):
    data = Contradiction.of(*CONTRADICTIONS[name]).encode()
    assert is_proof(data)
    assert not [changed for changed in single_changes(data) if is_proof(changed)]


def test_the_largest_evidence_is_within_the_limit():
    proof = replace(prepared(), height=limits.HEIGHT_MAX, view=limits.VIEW_MAX - 2)
    other = replace(proof, digest=digest("other"))
    largest = [replace(view_change(shown, height=limits.HEIGHT_MAX, view=limits.VIEW_MAX - 1), proof=None) for shown in (proof, other)]
    assert 300 < len(Contradiction.of(*largest).encode()) < limits.EVIDENCE_BYTES_MAX


def test_the_bytes_are_frozen():
    assert {name: Contradiction.of(*statements).encode().hex() for name, statements in CONTRADICTIONS.items()} == VECTORS["encoded"]
    ids = {name: Contradiction.of(*statements).digest() for name, statements in CONTRADICTIONS.items()}
    assert {name: identity.hex() for name, identity in ids.items()} == VECTORS["ids"]
    assert all(ids[name] == evidence_id(bytes.fromhex(text)) for name, text in VECTORS["encoded"].items())
