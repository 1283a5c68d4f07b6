"""Holes that an adversary looked for in the rule book: each test is named by the attack that must fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medchain.ledger.access import ReadReceipt, ReadTrail, Release
from medchain.ledger.consents import Revoke
from medchain.ledger.emergencies import REVIEW_DUE_MS, UNJUSTIFIED, Emergency, Review
from medchain.ledger.evidence import RECORDED
from medchain.ledger.people import RevokeCredential, clinician_of, credential_bytes, credential_of
from medchain.ledger.permits import EMERGENCY_MS, RELEASES_MAX, permit_of, permit_standing
from medchain.ledger.records import ConfirmCustody
from medchain.ledger.trail import EVENT_FIELDS, trail_after, trail_of, trail_start


def test_hospital_that_claims_custody_cannot_use_up_the_releases_of_a_permit(story):
    story.grant()
    permit, _ = story.ask()
    story.accepted(story.d, ConfirmCustody(story.RECORD, 1))
    for _ in range(RELEASES_MAX):
        assert story.refused(story.d, Release(permit, 1)) == "access.not-custodian"
    assert story.refused(story.b, Release(permit, 1)) == "access.not-custodian"
    story.accepted(story.a, Release(permit, 1))


def test_revocation_is_not_hidden_behind_releases_that_are_used_up(story):
    consent = story.grant()
    permit, _ = story.ask()
    for _ in range(RELEASES_MAX):
        story.accepted(story.a, Release(permit, 1))
    assert story.refused(story.a, Release(permit, 1)) == "access.releases-used-up"
    story.accepted(story.ann, Revoke(consent))
    assert permit_standing(story.state, story.context(), permit, permit_of(story.state, permit)) == "consent.revoked"


def test_ended_credential_is_not_hidden_behind_releases_that_are_used_up(story):
    story.grant()
    permit, _ = story.ask()
    for _ in range(RELEASES_MAX):
        story.accepted(story.a, Release(permit, 1))
    story.accepted(story.b, RevokeCredential(story.lee.public))
    assert permit_standing(story.state, story.context(), permit, permit_of(story.state, permit)) == "credential.revoked"


def test_permit_stays_dead_when_a_renewed_credential_was_revoked_and_given_again(story):
    story.grant()
    permit, _ = story.ask()
    story.clinician("lee", "b")  # renewed: the permit goes on
    story.accepted(story.a, Release(permit, 1))
    story.accepted(story.b, RevokeCredential(story.lee.public))
    story.clinician("lee", "b")  # given again: what was permitted before the revocation stays dead
    assert story.refused(story.a, Release(permit, 1)) == "credential.revoked"
    again, _ = story.ask()
    story.accepted(story.a, Release(again, 1))


def test_emergency_of_a_revoked_credential_stays_dead_when_it_is_given_again(story):
    receipt = story.accepted(story.lee, Emergency(story.RECORD, "UNCONSCIOUS"))
    permit = receipt.events[0].fields[4]
    story.clinician("lee", "b")
    story.accepted(story.b, RevokeCredential(story.lee.public))
    story.clinician("lee", "b")
    assert story.refused(story.a, Release(permit, 1)) == "credential.revoked"


def test_emergency_opens_no_later_version_no_other_hand_and_not_for_longer_than_its_limit(story):
    receipt = story.accepted(story.lee, Emergency(story.RECORD, "UNCONSCIOUS"))
    permit = receipt.events[0].fields[4]
    story.accepted(story.a, story.amend(story.a.public, 2))
    assert story.refused(story.a, Release(permit, 2)) == "access.permit-version"
    story.accepted(story.a, Release(permit, 1))
    assert story.refused(story.kim, ReadReceipt(permit, 1)) == "access.not-reader"
    assert story.refused(story.a, Release(permit, 1), wait_ms=EMERGENCY_MS) == "access.permit-expired"


def test_permit_given_before_an_amendment_opens_the_old_version_only(story):
    story.grant()
    permit, _ = story.ask()
    story.accepted(story.a, story.amend(story.a.public, 2))
    assert story.refused(story.a, Release(permit, 2)) == "access.permit-version"
    story.accepted(story.a, Release(permit, 1))
    newer, _ = story.ask()
    assert permit_of(story.state, newer).versions == (2,)


def test_of_two_grants_one_revoked_the_other_permits_anew_but_the_permit_of_the_revoked_one_is_dead(story):
    story.grant(days=3)
    longer = story.grant(days=9)
    permit, _ = story.ask()
    story.accepted(story.ann, Revoke(longer))
    assert story.refused(story.a, Release(permit, 1)) == "consent.revoked"
    again, code = story.ask()
    assert not code
    story.accepted(story.a, Release(again, 1))


def test_amendment_under_an_epoch_older_than_the_last_revocation_is_refused(story):
    consent = story.grant()
    story.accepted(story.ann, Revoke(consent))
    assert story.refused(story.a, story.amend(story.a.public, 2)) == "records.epoch-too-old"


@pytest.mark.parametrize("other", [{"category": "imaging"}, {"purpose": "HRESCH"}])
def test_consent_for_another_category_or_purpose_opens_nothing(story, other):
    story.grant(**other)
    permit, code = story.ask()
    assert permit is None and code == "consent." + next(iter(other))


def test_patient_key_of_another_hospital_cannot_be_taken_over_in_any_part(story):
    assert story.refused(story.b, story.registration(story.ann, "b")) == "people.patient-known"
    bob = story.key("patient bob")
    assert story.refused(story.b, story.registration(bob, "b", agreed_with="a")) == "people.proof-invalid"
    for taken in (story.ann, story.a, story.lee):
        code = story.refused(story.c, story.registration(taken, "c"))
        assert code in ("people.patient-known", "people.key-in-use")


def test_hospital_cannot_take_a_clinicians_key_it_saw_in_gossip(story):
    """The squatter's transactions stand first in the block; the clinician's own hospital is not shut out, and its opening key counts."""
    bob = story.key("bob")
    seen = story.credential(bob, "c", opening="bob's opening key")
    with_own_opening_key = replace(seen, opening_key=story.fixed("the squatter's opening key"))
    by_its_own_hand = replace(
        with_own_opening_key,
        proof=story.b.sign(credential_bytes(story.network, story.b.public, seen.opening_suite, with_own_opening_key.opening_key)),
    )
    squats = [story.transaction(story.b, operation) for operation in (seen, with_own_opening_key, by_its_own_hand)]
    receipts = story.block(*squats, story.transaction(story.c, seen)).transaction_receipts
    assert [receipt.code for receipt in receipts] == ["people.credential-proof-invalid"] * 3 + [""]
    assert clinician_of(story.state, bob.public).hospital == story.c.public
    assert credential_of(story.state, bob.public, 1).opening_key == story.fixed("bob's opening key")


BOTH_TRAILS = (
    "records.register", "records.amend", "records.confirm_custody", "access.permit", "access.denial", "access.release", "access.receipt",
    "access.emergency", "access.review", "access.review_overdue",
)  # fmt: skip
"""What concerns a patient and a record. The rest concerns a patient alone, or (credentials) a member of staff."""


def test_every_event_is_on_the_trails_of_patient_and_record_and_they_can_be_computed_from_the_events_alone(story):
    story.ask()
    consent = story.grant()
    permit, _ = story.ask()
    story.accepted(story.a, Release(permit, 1))
    story.accepted(story.lee, ReadReceipt(permit, 1))
    story.accepted(story.a, story.amend(story.a.public, 2), ConfirmCustody(story.RECORD, 2))
    story.accepted(story.ann, Revoke(consent))
    story.ask()
    first = story.accepted(story.lee, Emergency(story.RECORD, "DISASTER")).events[0].fields[4]
    story.accepted(story.lee, Emergency(story.RECORD, "DISASTER"))
    story.accepted(story.a, Review(first, UNJUSTIFIED))
    story.accepted(story.ann, ReadTrail(story.RECORD))
    story.accepted(story.a, ReadTrail(story.pseudonym))
    story.accepted(story.b, RevokeCredential(story.lee.public))
    story.wait(REVIEW_DUE_MS)
    story.block(evidence=(story.double_vote("d", story.height),))
    assert {event.kind for _, event in story.events} == set(EVENT_FIELDS), "an event kind that this story does not make is not looked at"
    for subject in (story.pseudonym, story.RECORD):
        events = [(height, event.encode()) for height, event in story.events if subject in event.subjects]
        assert trail_after(trail_start(), events) == trail_of(story.state, subject)
    for _, event in story.events:
        if event.kind in BOTH_TRAILS:
            assert event.subjects == (story.pseudonym, story.RECORD), event.kind
        elif event.kind.startswith("people.") and "credential" in event.kind:
            assert event.subjects == ()
        elif event.kind == RECORDED:
            assert event.subjects == (story.d.public,), "what a hospital did while agreeing is on its own trail and no patient's"
        else:
            assert story.pseudonym in event.subjects, event.kind
