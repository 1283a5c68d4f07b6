"""Proof files: they verify with the genesis document alone, and no byte of them can be changed."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain import codec
from medchain.chain.block import ZERO_DIGEST, Header, LastCommit, evidence_digest
from medchain.chain.certificate import Certificate
from medchain.chain.genesis import Genesis, Hospital
from medchain.chain.parameters import Parameters
from medchain.chain.receipt import RECEIPTS_TAG, Event, Receipt
from medchain.chain.transaction import TRANSACTIONS_TAG, Operation, Transaction, TransactionBody
from medchain.chain.vote import COMMIT, Vote
from medchain.crypto.merkle import MerkleTree
from medchain.crypto.signing import SigningKey
from medchain.errors import Malformed, Rejected
from medchain.store.tree import StateTree
from medchain.wire.proof import (
    STATE_KIND,
    TRANSACTION_KIND,
    Place,
    StateFileProof,
    TransactionProof,
    kind_of,
    verify_state_proof,
    verify_transaction_proof,
)


def key(name: str) -> SigningKey:
    return SigningKey(sha256(name.encode()).digest())


def make_genesis(chain_id: str = "test", **parameters: int) -> Genesis:
    members = [
        Hospital(
            f"Hospital {index}", "validator", key(f"{index} consensus").public, key(f"{index} officer").public,
            key(f"{index} organisation").public, 1, bytes(32), b"certificate", ("h.example:1",),
        )
        for index in range(4)
    ]  # fmt: skip
    members.sort(key=lambda hospital: hospital.consensus_key)
    return Genesis(chain_id, 1_800_000_000_000, Parameters(state_buckets=16, **parameters), tuple(members))


GENESIS = make_genesis()
SIGNERS = sorted((key(f"{index} consensus") for index in range(4)), key=lambda signer: signer.public)
ROWS = {b"row %d" % index: b"value %d" % index for index in range(200)}
TREE = StateTree.rebuild(16, ROWS.items())


def sign(nonce: int, network=None) -> Transaction:
    sender = key("0 organisation")
    body = TransactionBody(GENESIS.chain_id, sender.public, 9, (Operation("x.y", [nonce]),), nonce.to_bytes(8, "big"))
    return Transaction.sign(body, sender, network or GENESIS.domain())


def certify(header: Header, signers=SIGNERS[:3], network=None) -> Certificate:
    votes = [Vote.sign(network or GENESIS.domain(), signer, COMMIT, header.height, 1, header.digest()) for signer in signers]
    commits = tuple((SIGNERS.index(signer), vote.signature) for signer, vote in zip(signers, votes, strict=True))
    return Certificate(header.height, 1, header.digest(), commits)


TRANSACTIONS = [sign(index) for index in range(5)]
RECEIPTS = [Receipt(entry.id, "" if index else "x.no", 0, (Event("k", (bytes(32),), [1]),)) for index, entry in enumerate(TRANSACTIONS)]
LEAVES = MerkleTree.over(TRANSACTIONS_TAG, [entry.id + entry.authentication_digest for entry in TRANSACTIONS])
OUTCOMES = MerkleTree.over(RECEIPTS_TAG, [receipt.encode() for receipt in RECEIPTS])
HEADER = Header(
    version=1, chain_id="test", height=5, view=0, time_ms=1_800_000_000_005, parent=ZERO_DIGEST, proposer=SIGNERS[0].public,
    transactions_root=LEAVES.root, receipts_root=OUTCOMES.root, state_root=TREE.root, validators_digest=GENESIS.validators().digest(),
    next_validators_digest=GENESIS.validators().digest(), last_commit_digest=LastCommit(None).digest(), history_root=bytes(32),
    evidence_digest=evidence_digest(()),
)  # fmt: skip


def prove(index: int = 2) -> TransactionProof:
    return TransactionProof(
        HEADER, certify(HEADER), TRANSACTIONS[index], Place(index, 5, LEAVES.inclusion_path(index)), RECEIPTS[index],
        Place(index, 5, OUTCOMES.inclusion_path(index)),
    )  # fmt: skip


def prove_state(name: bytes = b"row 7") -> StateFileProof:
    return StateFileProof(HEADER, certify(HEADER), name, ROWS.get(name), TREE.prove(name))


def code_of(proof: TransactionProof | StateFileProof, genesis: Genesis = GENESIS) -> str:
    verify = verify_transaction_proof if isinstance(proof, TransactionProof) else verify_state_proof
    with pytest.raises(Rejected) as refusal:
        verify(proof.encode(), genesis)
    return refusal.value.code


@pytest.mark.parametrize("index", range(5))
def test_a_transaction_is_proven_with_its_receipt(index):
    proof = prove(index)
    facts = verify_transaction_proof(proof.encode(), GENESIS)
    assert (facts.transaction, facts.receipt) == (TRANSACTIONS[index], RECEIPTS[index])
    assert (facts.height, facts.time_ms, facts.block) == (5, 1_800_000_000_005, HEADER.digest())
    assert facts.signers == tuple(signer.public for signer in SIGNERS[:3])
    assert facts.genesis == GENESIS.digest()
    assert kind_of(proof.encode()) == TRANSACTION_KIND


@pytest.mark.parametrize("name", [b"row 7", b"nothing"])
def test_a_row_and_its_absence_are_proven(name):
    facts = verify_state_proof(prove_state(name).encode(), GENESIS)
    assert (facts.key, facts.value, facts.height) == (name, ROWS.get(name), 5)
    assert kind_of(prove_state(name).encode()) == STATE_KIND


@pytest.mark.parametrize("verify, data", [(verify_transaction_proof, prove().encode()), (verify_state_proof, prove_state().encode())])
def test_changing_any_byte_makes_a_proof_fail(verify, data):
    for position in range(len(data)):
        for change in (1, 0x80):
            changed = data[:position] + bytes((data[position] ^ change,)) + data[position + 1 :]
            with pytest.raises((Malformed, Rejected)):
                verify(changed, GENESIS)


@pytest.mark.parametrize("verify, data", [(verify_transaction_proof, prove().encode()), (verify_state_proof, prove_state().encode())])
def test_a_cut_or_lengthened_proof_is_malformed(verify, data):
    for length in range(0, len(data), 7):
        with pytest.raises(Malformed):
            verify(data[:length], GENESIS)
    with pytest.raises(Malformed):
        verify(data + b"\xc0", GENESIS)


def test_a_proof_of_the_other_kind_is_malformed():
    with pytest.raises(Malformed):
        verify_transaction_proof(prove_state().encode(), GENESIS)
    with pytest.raises(Malformed):
        verify_state_proof(prove().encode(), GENESIS)


def test_a_proof_of_another_network_is_refused():
    assert code_of(prove(), make_genesis("elsewhere")) == "proof.other-network"
    assert code_of(prove(), make_genesis(heartbeat_ms=1_000)) == "proof.certificate"


def test_other_validators_are_refused():
    header = replace(HEADER, validators_digest=bytes(32))
    assert code_of(replace(prove(), header=header, certificate=certify(header))) == "proof.validators"


def test_a_certificate_that_does_not_make_it_final_is_refused():
    proof = prove()
    other = replace(HEADER, height=6)
    forged = replace(proof.certificate, commits=tuple((index, bytes(64)) for index, _ in proof.certificate.commits))
    for certificate in (certify(other), certify(HEADER, SIGNERS[:2]), certify(HEADER, SIGNERS), forged):
        assert code_of(replace(proof, certificate=certificate)) == "proof.certificate"


def test_another_transaction_or_another_place_is_refused():
    proof = prove()
    assert code_of(replace(proof, transaction=TRANSACTIONS[3])) == "proof.transaction"
    assert code_of(replace(proof, place=replace(proof.place, index=3))) == "proof.transaction"
    assert code_of(replace(proof, place=replace(proof.place, count=6))) == "proof.transaction"


def test_a_decided_transaction_with_a_forged_signature_is_refused():
    """Cannot be decided by honest validators; a proof is checked to the end all the same."""
    forged = Transaction.decode(codec.encode([TRANSACTIONS[0].body_bytes, [1, bytes(64)]]))
    leaves = MerkleTree.over(TRANSACTIONS_TAG, [forged.id + forged.authentication_digest])
    outcomes = MerkleTree.over(RECEIPTS_TAG, [RECEIPTS[0].encode()])
    header = replace(HEADER, transactions_root=leaves.root, receipts_root=outcomes.root)
    proof = TransactionProof(header, certify(header), forged, Place(0, 1, ()), RECEIPTS[0], Place(0, 1, ()))
    assert code_of(proof) == "proof.transaction"


def test_another_receipt_is_refused():
    proof = prove()
    assert code_of(replace(proof, receipt=RECEIPTS[3], receipt_place=prove(3).receipt_place)) == "proof.receipt"
    assert code_of(replace(proof, receipt=replace(RECEIPTS[2], code="x.other"))) == "proof.receipt"


def test_another_value_or_key_is_refused():
    proof = prove_state()
    for other in (replace(proof, value=b"more"), replace(proof, value=None), replace(proof, key=b"row 8")):
        assert code_of(other) == "proof.state"
    assert code_of(replace(prove_state(b"nothing"), value=b"")) == "proof.state"


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_malformed(data):
    for verify in (verify_transaction_proof, verify_state_proof):
        with pytest.raises(Malformed):
            verify(data, GENESIS)


def test_the_bytes_of_proofs_are_frozen(repository):
    vectors = json.loads((repository / "tests" / "vectors" / "proof.json").read_text(encoding="utf-8"))
    assert GENESIS.to_json() == vectors["genesis"]
    assert prove().encode().hex() == vectors["transaction"]
    assert prove_state().encode().hex() == vectors["state"]
    assert prove_state(b"nothing").encode().hex() == vectors["absence"]
