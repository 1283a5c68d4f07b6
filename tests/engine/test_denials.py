"""No is the same no on every hospital: refusals and denials by one code in one receipt, and a refusal leaves the state as it was."""

from __future__ import annotations

from medchain.chain.receipt import decode_receipts
from medchain.ledger.access import ReadReceipt, ReadTrail, Release, Request
from medchain.ledger.consents import Grant, Revoke
from medchain.ledger.emergencies import Emergency, Review
from medchain.ledger.epochs import Interim
from medchain.ledger.people import RevokeCredential
from medchain.ledger.records import ConfirmCustody
from medchain.ledger.rows import ROTATION


def rows_of(node):
    """The state of a node but for who signed, which every block changes, whatever is in it."""
    return [(key, value) for key, value in node.engine.state.iterate(b"") if key != ROTATION]


def receipt_everywhere(cluster, transaction):
    """Decide a transaction; return its receipt, the same bytes on every node, and whether the state stayed as it was."""
    before = rows_of(cluster.nodes[0])
    cluster.settle(cluster.nodes[0], transaction)
    found = set()
    for node in cluster.nodes:
        height, index = node.engine.chain.archive.locate(transaction.id)
        found.add(decode_receipts(node.engine.chain.archive.receipts(height))[index].encode())
    assert len(found) == 1
    height, index = cluster.nodes[0].engine.chain.archive.locate(transaction.id)
    cluster.check_agreement()
    after = rows_of(cluster.nodes[0])
    assert len({node.engine.head.state_root for node in cluster.nodes}) == 1
    return decode_receipts(cluster.nodes[0].engine.chain.archive.receipts(height))[index], before == after


def test_refused_operations_have_one_code_everywhere_and_leave_the_state_unchanged(story, signer):
    cluster, lee = story.cluster, signer("lee")
    consent = story.grant()
    permit = story.ask()
    stranger = signer("2 organisation")
    attempts = [
        (stranger, Release(permit, 1), "access.not-custodian"),
        (story.custodian, Release(permit, 2), "access.permit-version"),
        (story.custodian, Release(bytes(32), 1), "access.permit-unknown"),
        (lee, ReadReceipt(permit, 1), "access.not-released"),
        (story.patient, ReadReceipt(permit, 1), "access.not-reader"),
        (story.patient, Request(story.record, "TREAT", "physician"), "people.clinician-unknown"),
        (lee, Request(bytes(32), "TREAT", "physician"), "records.unknown"),
        (lee, Revoke(consent), "consents.not-yours"),
        (lee, Emergency(bytes(32), "UNCONSCIOUS"), "records.unknown"),
        (stranger, Review(permit, "justified"), "access.review-unknown"),
        (stranger, ReadTrail(story.pseudonym), "access.not-entitled"),
        (stranger, ConfirmCustody(story.record, 2), "records.version-unknown"),
        (stranger, RevokeCredential(lee.public), "people.other-hospital"),
        (stranger, Interim(story.pseudonym, "general", 2, bytes(32)), "epochs.not-custodian"),
        (lee, Grant("clinician", lee.public, "TREAT", "general", 0, 2**45), "people.patient-unknown"),
    ]
    for sender, operation, code in attempts:
        receipt, is_unchanged = receipt_everywhere(cluster, cluster.sign(sender, operation))
        assert (receipt.code, receipt.events) == (code, ()) and is_unchanged, code


def test_an_operation_that_was_accepted_is_undone_with_the_refused_one_beside_it(story, signer):
    granted = Grant("hospital", signer("1 organisation").public, "TREAT", "general", 0, 2**45)
    transaction = story.cluster.sign(story.patient, granted, Revoke(bytes(32)))
    receipt, is_unchanged = receipt_everywhere(story.cluster, transaction)
    assert (receipt.code, receipt.operation_index, receipt.events) == ("consents.unknown", 1, ()) and is_unchanged


def test_denials_have_one_code_everywhere_and_are_on_both_trails(story, signer):
    cluster, lee = story.cluster, signer("lee")

    def denied(purpose: str = "TREAT", role: str = "physician") -> str:
        first = cluster.nodes[0]
        heads = [first.ask("access.trail", subject=subject, first=0, count=1)["count"] for subject in (story.pseudonym, story.record)]
        receipt, is_unchanged = receipt_everywhere(cluster, cluster.sign(lee, Request(story.record, purpose, role)))
        (event,) = receipt.events
        assert receipt.is_accepted and event.kind == "access.denial" and not is_unchanged
        for node in cluster.nodes:
            now = [node.ask("access.trail", subject=subject, first=0, count=1)["count"] for subject in (story.pseudonym, story.record)]
            assert now == [count + 1 for count in heads]
        return event.fields[-1]

    assert denied() == "consent.none"
    consent = story.grant()
    assert denied("HRESCH") == "consent.purpose"
    assert denied(role="nurse") == "credential.role"
    story.do(cluster.sign(story.patient, Revoke(consent)))
    assert denied() == "consent.revoked"
    story.do(cluster.sign(signer("1 organisation"), RevokeCredential(lee.public)))
    assert denied() == "credential.revoked"
