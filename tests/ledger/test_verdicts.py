"""The verdict: permit only where a consent says so, and the most specific reason where none does."""

from __future__ import annotations

import pytest

from medchain.errors import Rejected
from medchain.ledger.access import Request
from medchain.ledger.consents import Revoke
from medchain.ledger.people import RevokeCredential
from medchain.ledger.refusals import DENIALS, REFUSALS
from medchain.ledger.verdicts import verdict


def test_without_consent_everything_is_denied_to_the_custodians_own_clinicians_too(story):
    assert story.ask() == (None, "consent.none")
    assert story.ask(story.clinician("may", "a")) == (None, "consent.none")


def test_grant_to_a_hospital_covers_the_clinicians_it_credentialed_and_no_others(story):
    story.grant(story.b)
    assert story.ask(story.lee)[1] == ""
    assert story.ask(story.kim) == (None, "consent.none")


def test_grant_to_a_clinician_covers_no_colleague(story):
    story.grant(story.lee, kind="clinician")
    assert story.ask(story.lee)[1] == ""
    assert story.ask(story.clinician("may", "b")) == (None, "consent.none")


def test_other_purpose_is_denied(story):
    story.grant()
    assert story.ask(purpose="HRESCH") == (None, "consent.purpose")


def test_other_category_is_denied(story):
    story.grant(category="psychiatry")
    assert story.ask() == (None, "consent.category")


def test_other_category_and_purpose_is_named_by_the_category(story):
    story.grant(category="psychiatry", purpose="HRESCH")
    assert story.ask() == (None, "consent.category")


def test_revoked_consent_is_denied_from_the_next_transaction_on(story):
    consent = story.grant()
    assert story.ask()[1] == ""
    story.accepted(story.ann, Revoke(consent))
    assert story.ask() == (None, "consent.revoked")


def test_order_within_a_block_decides_between_revocation_and_request(story):
    consent = story.grant()
    asked = [story.transaction(story.lee, Request(story.RECORD, "TREAT", "physician")) for _ in range(2)]
    revoked = story.transaction(story.ann, Revoke(consent))
    receipts = story.block(asked[0], revoked, asked[1]).receipts
    assert [receipt.events[0].kind for receipt in receipts] == ["access.permit", "consents.revoke", "access.denial"]


def test_consent_past_its_end_is_denied_at_its_last_millisecond(story):
    story.grant(until_ms=story.time_ms + 3000)
    assert story.ask(wait_ms=1999)[1] == "" and story.time_ms % 1000 == 999
    assert story.ask(wait_ms=1) == (None, "consent.ended")


def test_consent_that_has_not_begun_is_denied(story):
    story.grant(from_ms=story.time_ms + 3000)
    assert story.ask() == (None, "consent.not-begun")
    assert story.ask(wait_ms=1000)[1] == ""


def test_revoked_credential_is_denied_whatever_the_consents_say(story):
    story.grant()
    story.accepted(story.b, RevokeCredential(story.lee.public))
    assert story.ask() == (None, "credential.revoked")


def test_expired_credential_is_denied_on_the_trail(story):
    story.grant(days=60)
    count = len([event for _, event in story.events if story.pseudonym in event.subjects])
    assert story.ask(wait_ms=31 * story.DAY_MS) == (None, "credential.expired")
    assert len([event for _, event in story.events if story.pseudonym in event.subjects]) == count + 1


def test_revoked_and_expired_credential_is_named_revoked(story):
    story.accepted(story.b, RevokeCredential(story.lee.public))
    assert story.ask(wait_ms=31 * story.DAY_MS) == (None, "credential.revoked")


def test_role_that_the_credential_does_not_have_is_denied(story):
    story.grant()
    assert story.ask(role="surgeon") == (None, "credential.role")


def test_matching_consent_that_is_over_is_named_before_one_for_another_purpose(story):
    story.accepted(story.ann, Revoke(story.grant()))
    story.grant(purpose="HRESCH")
    assert story.ask() == (None, "consent.revoked")


def test_consent_that_is_over_and_about_something_else_says_nothing(story):
    story.accepted(story.ann, Revoke(story.grant(purpose="HRESCH")))
    assert story.ask() == (None, "consent.none")


def test_one_consent_in_force_is_enough_beside_revoked_and_other_ones(story):
    story.accepted(story.ann, Revoke(story.grant()))
    story.grant(purpose="HRESCH")
    good = story.grant(story.lee, kind="clinician")
    answer = verdict(story.state, story.context(), story.lee.public, story.RECORD, "TREAT")
    assert (answer.permit, answer.code, answer.consent) == (True, "", good)
    assert [step.code for step in answer.trace] == ["", "consent.revoked", "consent.purpose"]
    assert answer.trace[1].to_height is not None and answer.trace[0].to_height is None


def test_of_several_permitting_consents_the_one_that_ends_last_counts_the_older_on_a_tie(story):
    story.grant(days=1)
    until_ms = story.time_ms + 5 * story.DAY_MS
    longest = story.grant(until_ms=until_ms)
    story.grant(until_ms=until_ms)
    answer = verdict(story.state, story.context(), story.lee.public, story.RECORD, "TREAT")
    assert (answer.consent, answer.until_ms) == (longest, until_ms)


def test_unknown_clinician_and_unknown_record_are_refused(story):
    for clinician, record, code in (
        (story.key("nobody").public, story.RECORD, "people.clinician-unknown"),
        (story.ann.public, story.RECORD, "people.clinician-unknown"),
        (story.lee.public, bytes(32), "records.unknown"),
    ):
        with pytest.raises(Rejected) as refusal:
            verdict(story.state, story.context(), clinician, record, "TREAT")
        assert refusal.value.code == code


def test_every_denial_code_has_a_meaning():
    assert set(DENIALS) < set(REFUSALS)
