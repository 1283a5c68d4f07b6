"""Certificates: exactly q commits of distinct voting validators over one block, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medchain.chain.certificate import Certificate
from medchain.chain.domain import Domain
from medchain.chain.vote import PreparedProof, signatures_from_value
from medchain.crypto.signing import SigningKey, verify_many
from medchain.errors import Malformed
from tests.chain.conftest import KEYS, NETWORK, certify, digest, prepared, validators_of

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "certificate.json").read_text())
SIZES = range(4, 14)


def refused(certificate: Certificate | PreparedProof, n: int = 4, suspended: tuple[int, ...] = (), network: Domain = NETWORK) -> str:
    with pytest.raises(Malformed) as failure:
        certificate.check(network, validators_of(n, suspended))
    return failure.value.message


@pytest.mark.parametrize("n", SIZES)
def test_every_q_voting_validators_certify(n: int) -> None:
    validators = validators_of(n)
    for start in range(n):
        signers = sorted((start + offset) % n for offset in range(validators.quorum))
        certify(signers).check(NETWORK, validators)


@pytest.mark.parametrize("n", SIZES)
def test_one_signature_less_or_more_than_a_quorum_is_refused(n: int) -> None:
    q = validators_of(n).quorum
    assert "signatures are needed" in refused(certify(range(q - 1)), n)
    if q < n:
        assert "signatures are needed" in refused(certify(range(q + 1)), n)
    assert "signatures are needed" in refused(certify(()), n)


@pytest.mark.parametrize("n", SIZES)
def test_a_validator_that_stands_twice_is_refused_even_without_bytes(n: int) -> None:
    """The decoder refuses it too; a certificate that a program put together must not slip through the check."""
    q = validators_of(n).quorum
    twice = certify((*range(q - 1), q - 2))
    assert "distinct validators" in refused(twice, n)
    with pytest.raises(Malformed, match="distinct validators"):
        Certificate.decode(twice.encode())
    assert "distinct validators" in refused(certify((0,) * q), n)


def test_signers_out_of_order_are_refused_so_that_there_is_one_encoding() -> None:
    assert "ascending order" in refused(certify((0, 2, 1)))
    with pytest.raises(Malformed, match="ascending order"):
        Certificate.decode(certify((2, 1, 0)).encode())


def test_a_suspended_validator_does_not_count() -> None:
    assert "no voting validator" in refused(certify((0, 1, 2)), suspended=(1,))
    certify((0, 2, 3)).check(NETWORK, validators_of(4, (1,)))


@pytest.mark.parametrize("index", [4, 5, 127])
def test_a_signer_out_of_the_set_is_refused(index: int) -> None:
    good = certify((0, 1, 2))
    outside = replace(good, commits=(*good.commits[:2], (index, good.commits[2][1])))
    assert "no voting validator" in refused(outside)
    assert Certificate.decode(outside.encode()) == outside  # form alone cannot tell: the set is needed


def test_an_index_below_the_set_is_refused_and_never_counts_from_the_end() -> None:
    backwards = replace(certify((0, 1, 2)), commits=((-1, certify((3,)).commits[0][1]), *certify((0, 1)).commits))
    assert "no voting validator" in refused(backwards)


@pytest.mark.parametrize("value", [[[128, bytes(64)]], [[-1, bytes(64)]], [[True, bytes(64)]], [[0, bytes(63)]], [[0]], [0, bytes(64)]])
def test_indexed_signatures_of_another_form_are_refused(value: Any) -> None:
    with pytest.raises(Malformed):
        signatures_from_value(value)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_forged_signature_spoils_the_certificate(place: int) -> None:
    good = certify((0, 1, 3))
    index, signature = good.commits[place]
    for forged in (bytes(64), signature[:-1] + bytes((signature[-1] ^ 1,)), SigningKey(digest("liar")).sign(b"x")):
        commits = (*good.commits[:place], (index, forged), *good.commits[place + 1 :])
        assert "forged" in refused(replace(good, commits=commits))


def test_signatures_of_two_validators_exchanged_are_refused() -> None:
    (a, one), (b, other), third = certify((0, 1, 2)).commits
    assert "forged" in refused(replace(certify((0, 1, 2)), commits=((a, other), (b, one), third)))


@pytest.mark.parametrize("change", [{"height": 8}, {"view": 3}, {"view": 0}, {"digest": digest("another block")}])
def test_a_certificate_of_another_height_view_or_block_does_not_hold(change: dict[str, Any]) -> None:
    assert "forged" in refused(replace(certify((0, 1, 2)), **change))


@pytest.mark.parametrize("network", [Domain(digest("another network")), Domain(NETWORK.genesis, 1)])
def test_a_certificate_of_another_network_or_history_does_not_hold(network: Domain) -> None:
    assert "forged" in refused(certify((0, 1, 2)), network=network)
    certify((0, 1, 2), network=network).check(network, validators_of(4))


def test_prepares_make_no_certificate_and_commits_no_prepared_proof() -> None:
    proof = prepared()
    assert "forged" in refused(Certificate(proof.height, proof.view, proof.digest, proof.prepares))
    certificate = certify((0, 1, 2))
    assert "forged" in refused(PreparedProof(certificate.height, certificate.view, certificate.digest, certificate.commits))
    proof.check(NETWORK, validators_of(4))


def test_prepared_proofs_are_counted_by_the_same_rules() -> None:
    for signers in ((0, 1), (0, 1, 2, 3), (0, 1, 1), (0, 2, 1)):
        refused(prepared(signers=signers))
    refused(prepared(signers=(0, 1, 2)), suspended=(2,))
    assert "no voting validator" in refused(prepared(signers=(0, 1, 2, 3)), n=5, suspended=(3,))


def test_the_signatures_to_check_are_those_of_the_named_validators_in_order() -> None:
    items = certify((0, 2, 3)).verifications(NETWORK, validators_of(4))
    assert [public for public, _, _ in items] == [KEYS[index].public for index in (0, 2, 3)]
    assert len({message for _, message, _ in items}) == 1
    assert verify_many(items) == [True] * 3


@pytest.mark.parametrize("vector", VECTORS["certificates"], ids=lambda vector: vector["name"].replace(" ", "-"))
def test_frozen_certificates_do_not_change(vector: dict[str, Any]) -> None:
    network = Domain(bytes.fromhex(vector["genesis"]), vector["recovery"])
    keys = sorted((SigningKey(bytes.fromhex(seed)) for seed in vector["seeds"]), key=lambda key: key.public)
    assert [key.public for key in keys] == [key.public for key in KEYS[: len(keys)]]
    name = bytes.fromhex(vector["digest"])
    made = certify(vector["signers"], vector["height"], vector["view"], name, network)
    assert made.encode().hex() == vector["encoded"]
    decoded = Certificate.decode(bytes.fromhex(vector["encoded"]))
    assert decoded == made
    decoded.check(network, validators_of(len(keys)))


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"].replace(" ", "-"))
def test_frozen_refusals_do_not_change(vector: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match=vector["message"]):
        Certificate.decode(bytes.fromhex(vector["encoded"])).check(NETWORK, validators_of(vector["n"], tuple(vector["suspended"])))
