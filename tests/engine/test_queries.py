"""Reads: every engine method of the one table is served, answers what the table says, and proves what it can."""

from __future__ import annotations

import pytest

from medchain.chain.block import Block, Header
from medchain.chain.certificate import Certificate
from medchain.engine.decided import RECENT_BLOCKS_MAX
from medchain.engine.queries import READS
from medchain.engine.ready import Refused
from medchain.ledger.trail import trail_after, trail_start
from medchain.store import layout
from medchain.store.keyvalue import WriteBatch
from medchain.store.proof import StateProof, verify_state
from medchain.wire.methods import METHODS, check_params, served_by, to_json
from medchain.wire.proof import verify_transaction_proof


def read(node, method: str, **params):
    """Ask as a client would: parameters checked by the table, the answer JSON-friendly."""
    answer = node.ask(method, **check_params(method, {name: to_json(value) for name, value in params.items()}))
    if not isinstance(answer, Refused):
        to_json(answer)
    return answer


def code_of(answer) -> str:
    assert isinstance(answer, Refused), answer
    return answer.code


def test_every_engine_method_of_the_table_is_served_and_no_other():
    assert set(READS) == set(served_by("engine"))


@pytest.mark.parametrize("method", sorted(name for name, method in METHODS.items() if method.served_by == "engine" and not method.params))
def test_methods_without_parameters_answer_from_the_first_moment(cluster, method):
    answer = read(cluster.nodes[0], method)
    if method == "state.get":
        assert code_of(answer) == "unavailable"
    else:
        assert isinstance(answer, dict)


def test_chain_reads_tell_of_decided_blocks(story):
    node = story.cluster.nodes[1]
    head = read(node, "chain.head")
    assert (head["height"], head["digest"]) == (node.height, node.engine.head.digest)
    header = read(node, "chain.header", height=2)
    assert Header.decode(header["header"]).digest() == header["digest"]
    block = read(node, "chain.block", height=2)
    decoded = Block.decode(block["block"])
    assert [receipt["id"] for receipt in block["receipts"]] == block["transactions"] == [entry[0] for entry in decoded.entries]
    certificate = read(node, "chain.certificate", height=2)
    assert Certificate.decode(certificate["certificate"]).digest == header["digest"]
    assert len(certificate["signers"]) == 3
    rows = read(node, "chain.blocks", first=1, count=2)
    assert [row["height"] for row in rows["blocks"]] == [1, 2]
    assert rows["height"] == node.height
    for method in ("chain.header", "chain.block", "chain.certificate"):
        assert code_of(read(node, method, height=10_000)) == "chain.height-unknown"
    assert read(node, "chain.genesis")["document"] == story.cluster.genesis.to_json()
    assert read(node, "chain.params")["parameters"]["state_buckets"] == 64


def test_block_that_many_ask_about_is_read_once_and_the_newest_not_at_all(story, monkeypatch):
    """Each waiting client asks what became of its transaction: a block of two thousand was read two thousand times."""
    node, reads = story.cluster.nodes[1], []
    decode = Block.decode
    monkeypatch.setattr(Block, "decode", lambda data: reads.append(data) or decode(data))
    for height in (node.height, node.height, 1, 1, node.height):
        block = node.engine.chain.block_of(height)
        assert block.header.height == height
        assert block.encode() == node.engine.chain.archive.block(height)
    assert len(reads) == (1 if node.height > RECENT_BLOCKS_MAX else 0)
    for height in range(1, node.height + 1):
        node.engine.chain.block_of(height)
    assert len(node.engine.chain._recent) <= RECENT_BLOCKS_MAX


def test_validators_are_told_with_their_hospitals(cluster):
    found = read(cluster.nodes[0], "node.validators")
    assert (found["quorum"], found["faults_tolerated"]) == (3, 1)
    assert sorted(row["name"] for row in found["validators"]) == [f"Hospital {index}" for index in range(4)]


def test_a_transaction_is_unknown_then_pending_then_decided(cluster):
    cluster.warm()
    transaction = cluster.credential()
    assert read(cluster.nodes[0], "tx.status", id=transaction.id)["status"] == "unknown"
    assert code_of(read(cluster.nodes[0], "tx.proof", id=transaction.id)) == "transaction.not-decided"
    cluster.submit(cluster.nodes[0], transaction)
    assert read(cluster.nodes[0], "tx.status", id=transaction.id)["status"] == "pending"
    assert read(cluster.nodes[0], "mempool.status")["transactions"] == 1
    cluster.run_until(lambda: cluster.is_decided(transaction))
    found = read(cluster.nodes[3], "tx.status", id=transaction.id)
    assert (found["status"], found["code"], found["height"]) == ("decided", "", 1)
    assert found["events"][0]["fields"]["role"] == "physician"


def test_the_proof_of_a_transaction_verifies_with_the_genesis_document(story):
    cluster = story.cluster
    transactions = [cluster.patient(0, f"patient {index}") for index in range(7)]
    for transaction in transactions:
        cluster.submit(cluster.nodes[0], transaction)
    cluster.run_until(lambda: all(cluster.is_decided(transaction) for transaction in transactions))
    for transaction in transactions:
        answer = read(cluster.nodes[2], "tx.proof", id=transaction.id)
        facts = verify_transaction_proof(answer["proof"], cluster.genesis)
        assert (facts.transaction.id, facts.receipt.is_accepted, facts.height) == (transaction.id, True, answer["height"])


def test_no_proof_is_made_from_a_stored_block_that_rotted(story):
    node, transaction = story.cluster.nodes[2], story.cluster.patient(0, "somebody else")
    story.do(transaction)
    height, _ = node.engine.chain.archive.locate(transaction.id)
    key = layout.receipts_key(height)
    stored = node.store.get(key)
    node.store.write(WriteBatch.of((key, stored[:-1] + bytes((stored[-1] ^ 1,)))))
    assert code_of(read(node, "tx.proof", id=transaction.id)) == "store.inconsistent"


def test_a_state_row_and_its_absence_are_proven(story):
    node = story.cluster.nodes[1]
    for state_key, is_there in ((b"record/" + story.record, True), (b"record/" + bytes(32), False)):
        answer = read(node, "state.get", key=state_key)
        assert (answer["value"] is not None) == is_there
        header = Header.decode(answer["header"])
        assert Certificate.decode(answer["certificate"]).digest == header.digest()
        assert verify_state(header.state_root, 64, state_key, answer["value"], StateProof.decode(answer["proof"]))


def test_people_and_epochs_are_read(story):
    node = story.cluster.nodes[1]
    clinician = read(node, "people.clinician", clinician=story.clinician.public)
    assert (clinician["code"], clinician["role"], clinician["number"]) == ("", "physician", 1)
    assert code_of(read(node, "people.clinician", clinician=bytes(32))) == "people.clinician-unknown"
    assert read(node, "people.patient", pseudonym=story.pseudonym)["hospital"] == story.custodian.public
    assert code_of(read(node, "people.patient", pseudonym=bytes(32))) == "people.patient-unknown"
    assert read(node, "epochs.head", pseudonym=story.pseudonym, category="general")["number"] == 1
    assert len(read(node, "hospitals.list")["hospitals"]) == 4


def test_records_are_read_listed_and_scanned(story):
    node = story.cluster.nodes[1]
    record = read(node, "records.get", record=story.record)
    assert [version["version"] for version in record["versions"]] == [1]
    assert record["custodian"] == story.custodian.public
    assert code_of(read(node, "records.get", record=bytes(32))) == "records.unknown"
    listed = read(node, "records.list", pseudonym=story.pseudonym)
    assert [row["record"] for row in listed["records"]] == [story.record]
    assert listed["next"] is None
    scanned = read(node, "records.scan", count=1)
    assert [row["record"] for row in scanned["records"]] == [story.record]
    assert read(node, "records.scan", after=scanned["next"])["records"] == []
    assert code_of(read(node, "records.list", pseudonym=story.pseudonym, after=b"xx")) == "malformed"


def test_consents_verdicts_and_permits_are_read(story):
    node = story.cluster.nodes[1]
    asked = {"clinician": story.clinician.public, "record": story.record, "purpose": "TREAT"}
    assert (read(node, "consents.explain", **asked)["permit"], read(node, "consents.explain", **asked)["code"]) == (False, "consent.none")
    consent = story.grant()
    assert [row["consent"] for row in read(node, "consents.list", pseudonym=story.pseudonym)["consents"]] == [consent]
    explained = read(node, "consents.explain", **asked)
    assert (explained["permit"], explained["consent"]) == (True, consent)
    assert code_of(read(node, "consents.explain", **(asked | {"record": bytes(32)}))) == "records.unknown"
    permit = story.ask()
    found = read(node, "access.permit", permit=permit)
    assert (found["code"], found["releases"], found["consent"]) == ("", 0, consent)
    assert code_of(read(node, "access.permit", permit=bytes(32))) == "access.permit-unknown"


def test_a_trail_is_read_in_pages_and_its_digest_can_be_checked(story):
    story.grant()
    story.ask()
    node = story.cluster.nodes[1]
    events, first = [], 0
    while first is not None:
        page = read(node, "access.trail", subject=story.pseudonym, first=first, count=2)
        assert len(page["events"]) <= 2
        events += page["events"]
        first = page["next"]
    assert [row["index"] for row in events] == list(range(page["count"]))
    head = trail_after(trail_start(), [(row["height"], row["event"]) for row in events])
    assert (head.count, head.digest) == (page["count"], page["digest"])
    history = read(node, "records.history", record=story.record)
    assert [row["kind"] for row in history["events"]] == ["records.register", "access.permit"]
    assert read(node, "access.trail", subject=bytes(32))["events"] == []


def test_emergencies_are_listed_for_all_and_for_their_custodian(story, signer):
    from medchain.ledger.emergencies import Emergency

    node = story.cluster.nodes[1]
    story.do(story.cluster.sign(story.clinician, Emergency(story.record, "UNCONSCIOUS")))
    everyone = read(node, "access.emergencies")
    assert [(row["reason"], row["outcome"], row["is_overdue"]) for row in everyone["emergencies"]] == [("UNCONSCIOUS", "", False)]
    own = read(node, "access.emergencies", custodian=story.custodian.public, is_open=True, count=1)
    assert own["emergencies"] == everyone["emergencies"]
    assert read(node, "access.emergencies", custodian=story.custodian.public, after=own["next"])["emergencies"] == []
    assert read(node, "access.emergencies", custodian=signer("2 organisation").public)["emergencies"] == []


def test_node_status_says_what_the_table_says(cluster):
    cluster.warm()
    status = read(cluster.nodes[0], "node.status")
    for name in ("height", "digest", "time_ms", "state_root", "view", "is_validator", "may_vote", "consensus_key", "peers"):
        assert name in status
    assert (status["may_vote"], len(status["peers"]), status["waits_for"], status["is_catching_up"]) == (True, 3, "", False)
