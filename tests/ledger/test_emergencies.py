"""Breaking the glass: without consent, never without credential; the review opens by itself and escalates once."""

from __future__ import annotations

import pytest

from medchain.errors import Malformed
from medchain.ledger import emergencies, permits, rows
from medchain.ledger.access import ReadReceipt, Release
from medchain.ledger.apply import due_receipt_id
from medchain.ledger.emergencies import DUE_ITEMS_MAX, REVIEW_DUE_MS, Emergency, Review
from medchain.ledger.people import RevokeCredential
from medchain.ledger.permits import EMERGENCY_MS
from medchain.ledger.trail import event_names


def declare(story, **how):
    """Kim at hospital c breaks the glass; returns the permit's id."""
    (event,) = story.accepted(story.kim, Emergency(story.RECORD, "UNCONSCIOUS"), **how).events
    assert event.kind == "access.emergency" and event.subjects == (story.pseudonym, story.RECORD)
    return event_names(event)["permit"]


def overdue(applied):
    return [event_names(event)["permit"] for event in applied.due_events]


def test_emergency_overrides_the_absence_of_consent_with_a_time_limit(story):
    permit = declare(story)
    row = permits.permit_of(story.state, permit)
    assert (row.purpose, row.reason, row.consent, row.reader) == ("BTG", "UNCONSCIOUS", b"", story.kim.public)
    assert row.expires_ms == story.time_ms + EMERGENCY_MS
    story.accepted(story.a, Release(permit, 1))
    story.accepted(story.kim, ReadReceipt(permit, 1))
    assert story.refused(story.a, Release(permit, 1), wait_ms=EMERGENCY_MS) == "access.permit-expired"


def test_review_opens_by_itself_with_a_due_time(story):
    permit = declare(story)
    review = emergencies.review_of(story.state, permit)
    assert (review.custodian, review.clinician, review.hospital) == (story.a.public, story.kim.public, story.c.public)
    assert review.due_ms == story.time_ms + REVIEW_DUE_MS
    assert emergencies.review_end_of(story.state, permit) is None


def test_emergency_with_a_revoked_or_expired_credential_is_a_denial_on_the_trail(story):
    story.accepted(story.c, RevokeCredential(story.kim.public))
    (event,) = story.accepted(story.kim, Emergency(story.RECORD, "DISASTER")).events
    assert (event.kind, event.subjects) == ("access.denial", (story.pseudonym, story.RECORD))
    assert (event_names(event)["code"], event_names(event)["purpose"]) == ("credential.revoked", "BTG")
    (event,) = story.accepted(story.lee, Emergency(story.RECORD, "DISASTER"), wait_ms=31 * story.DAY_MS).events
    assert event_names(event)["code"] == "credential.expired"


def test_emergency_by_an_unknown_key_or_for_an_unknown_record_is_refused(story):
    assert story.refused(story.ann, Emergency(story.RECORD, "DISASTER")) == "people.clinician-unknown"
    assert story.refused(story.kim, Emergency(bytes(32), "DISASTER")) == "records.unknown"


def test_custodian_reviews_once(story):
    permit = declare(story)
    for signer in (story.c, story.b):
        assert story.refused(signer, Review(permit, "justified")) == "access.not-reviewer"
    for signer in (story.kim, story.ann):
        assert story.refused(signer, Review(permit, "justified")) == "hospital.unknown"
    assert story.refused(story.a, Review(bytes(32), "justified")) == "access.review-unknown"
    story.accepted(story.a, Review(permit, "justified"))
    assert emergencies.review_end_of(story.state, permit).outcome == "justified"
    assert story.refused(story.a, Review(permit, "unjustified")) == "access.reviewed"
    story.accepted(story.a, Release(permit, 1))


def test_ordinary_permit_has_no_review(story):
    story.grant()
    permit, _ = story.ask()
    assert story.refused(story.a, Review(permit, "justified")) == "access.review-unknown"


def test_unjustified_emergency_ends_its_permit_at_once(story):
    permit = declare(story)
    story.accepted(story.a, Review(permit, "unjustified"))
    assert story.refused(story.a, Release(permit, 1)) == "access.permit-ended"


def test_review_that_is_done_in_time_does_not_escalate(story):
    permit = declare(story)
    story.accepted(story.a, Review(permit, "justified"))
    assert not story.wait(REVIEW_DUE_MS).receipts
    assert not [key for key in story.state.rows if key.startswith(rows.DUE)]
    assert emergencies.review_late_of(story.state, permit) is None


def test_overdue_review_escalates_once_first_in_the_block_under_a_receipt_of_its_own(story):
    permit = declare(story)
    assert not story.wait(REVIEW_DUE_MS - 1).due_events
    transaction = story.transaction(story.a, Review(permit, "justified"))
    applied = story.block(transaction, wait_ms=1)
    assert overdue(applied) == [permit]
    due, reviewed = applied.receipts
    assert (due.transaction_id, due.is_accepted, due.events) == (due_receipt_id(story.height), True, applied.due_events)
    assert (reviewed.transaction_id, reviewed.is_accepted) == (transaction.id, True)
    assert applied.transaction_receipts == (reviewed,)
    assert [event.subjects for event in applied.due_events] == [(story.pseudonym, story.RECORD)]
    assert emergencies.review_late_of(story.state, permit).from_height == story.height
    assert not story.wait(REVIEW_DUE_MS).due_events


def test_due_items_of_a_block_are_bounded_and_the_oldest_come_first(story):
    declared = []
    for _ in range(2):
        transactions = [story.transaction(story.kim, *[Emergency(story.RECORD, "DISASTER")] * 50)]
        (receipt,) = story.block(*transactions).receipts
        declared.append({event_names(event)["permit"] for event in receipt.events})
    first = story.wait(2 * REVIEW_DUE_MS)
    second = story.wait(1)
    assert (len(first.due_events), len(second.due_events)) == (DUE_ITEMS_MAX, 100 - DUE_ITEMS_MAX)
    assert set(overdue(first)[:50]) == declared[0]
    assert {*overdue(first), *overdue(second)} == declared[0] | declared[1]
    assert not story.wait(1).due_events


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Emergency, [bytes(32), "CURIOUS"]), (Emergency, [bytes(32)]), (Emergency, [bytes(31), "DISASTER"]), (Review, [bytes(32), "fine"]),
        (Review, [bytes(32)]), (Review, [None, "justified"]),
    ],
)  # fmt: skip
def test_damaged_payloads_are_malformed(kind, payload):
    with pytest.raises(Malformed):
        kind.from_payload(payload)
