"""Admission: what enters the pool; each refusal by its code, in order of cost, and nothing is changed by it."""

from __future__ import annotations

import pytest

from medchain import codec
from medchain.chain.transaction import Operation, Transaction, TransactionBody
from medchain.crypto.sealing import PUBLIC_KEY_BYTES, SUITE_HYBRID
from medchain.engine.admission import hospital_behind
from medchain.engine.ready import Accepted, Refused
from medchain.errors import Rejected
from medchain.ledger.people import Credential, RevokeCredential


def code_of(cluster, transaction: Transaction) -> str:
    node = cluster.nodes[0]
    before = (len(node.engine._pool), node.engine._pool.bytes_used, len(node.store))
    answer = cluster.submit(node, transaction)
    if isinstance(answer, Accepted):
        return ""
    assert isinstance(answer, Refused)
    assert len(answer.message) > 20
    assert (len(node.engine._pool), node.engine._pool.bytes_used, len(node.store)) == before
    return answer.code


def bulk(cluster, signer, count: int) -> Transaction:
    opening = bytes(PUBLIC_KEY_BYTES[SUITE_HYBRID])
    doctors = [signer(f"doctor {index}").public for index in range(count)]
    payloads = [Credential(doctor, SUITE_HYBRID, opening, "physician", "general", 2**45, bytes(64)) for doctor in doctors]
    return cluster.sign(signer("0 organisation"), *payloads)


def test_hospitals_clinicians_and_patients_may_send_and_strangers_may_not(story, signer):
    cluster, state = story.cluster, story.cluster.nodes[0].engine.state
    assert hospital_behind(state, signer("0 organisation").public) == signer("0 organisation").public
    assert hospital_behind(state, signer("0 officer").public) == signer("0 organisation").public
    assert hospital_behind(state, story.clinician.public) == signer("1 organisation").public
    assert hospital_behind(state, story.patient.public) == signer("0 organisation").public
    assert hospital_behind(state, signer("stranger").public) is None
    revoke = RevokeCredential(story.clinician.public)
    assert code_of(cluster, cluster.sign(story.clinician, revoke)) == ""      # whether it may is the ledger's to say, in a receipt
    assert code_of(cluster, cluster.sign(signer("stranger"), revoke)) == "transaction.sender-unknown"


def test_a_refusal_by_the_ledger_is_a_receipt_and_not_a_refusal_at_the_gate(story):
    cluster = story.cluster
    transaction = cluster.sign(story.clinician, RevokeCredential(story.clinician.public))
    cluster.settle(cluster.nodes[0], transaction)
    assert cluster.nodes[1].ask("tx.status", id=transaction.id)["code"] == "hospital.unknown"


def test_unknown_kinds_and_malformed_payloads_are_refused_before_they_cost_a_signature_check(cluster, signer):
    sender = signer("0 organisation")

    def unsigned(*operations: Operation) -> Transaction:
        body = TransactionBody("test", sender.public, 9, operations, bytes(8)).encode()
        return Transaction.decode(codec.encode([body, [1, bytes(64)]]))

    assert code_of(cluster, unsigned(Operation("no.such.kind", []))) == "operation.unknown"
    assert code_of(cluster, unsigned(Operation("people.credential", [1, 2]))) == "operation.malformed"
    assert code_of(cluster, unsigned(RevokeCredential(bytes(32)).operation())) == "transaction.signature"


def test_what_fits_into_no_block_is_refused(make_cluster, signer):
    cluster = make_cluster(block_weight_max=100)
    assert code_of(cluster, bulk(cluster, signer, 10)) == "transaction.too-heavy"
    small = make_cluster(block_bytes_max=64 * 1024)
    assert code_of(small, bulk(small, signer, 28)) == ""
    assert code_of(small, bulk(small, signer, 32)) == "transaction.too-large"
    small.warm()
    small.run(1_000)
    assert small.nodes[3].height == 1


@pytest.mark.parametrize("valid_until, code", [(0, "transaction.expired"), (1, ""), (51, ""), (52, "transaction.too-far")])
def test_the_window_of_heights_is_exact(cluster, valid_until, code):
    assert code_of(cluster, cluster.credential(valid_until=valid_until)) == code


def test_the_other_refusals_by_their_codes(cluster):
    cluster.warm()
    good = cluster.credential()
    assert code_of(cluster, cluster.credential(chain_id="elsewhere")) == "transaction.other-network"
    assert code_of(cluster, Transaction.decode(codec.encode([good.body_bytes, [1, bytes(64)]]))) == "transaction.signature"
    cluster.settle(cluster.nodes[1], good)
    assert code_of(cluster, good) == "transaction.decided"


def test_an_overloaded_node_says_when_to_come_again(make_cluster):
    cluster = make_cluster()
    node = cluster.nodes[0]
    cluster.restart(node, pool_bytes_max=16 * 1024)
    for other in cluster.nodes[1:]:
        cluster.disconnect(node, other)
    answers = [cluster.submit(node, cluster.patient(0, f"patient {index}")) for index in range(20)]
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert {answer.code for answer in refused} == {"pool.quota"}
    assert all(answer.retry_after_ms > 0 for answer in refused)
    assert isinstance(answers[0], Accepted)


def test_a_transaction_of_the_block_being_written_is_not_pooled_again(cluster):
    """The world asks for hints while a batch is being written; what it reads then once was remembered, and every later block refused."""
    cluster.warm()
    node, transaction = cluster.nodes[0], cluster.patient()
    store, asked = node.store, []

    class Writing:
        def write(self, batch):
            asked.append(node.engine.is_admissible(transaction))
            store.write(batch)

        def __getattr__(self, name):
            return getattr(store, name)

    node.store = Writing()
    cluster.settle(cluster.nodes[1], transaction)
    assert True in asked
    node.engine.is_admissible(transaction)
    with pytest.raises(Rejected) as refusal:
        node.engine._admission.check(transaction)
    assert refusal.value.code == "transaction.decided"
