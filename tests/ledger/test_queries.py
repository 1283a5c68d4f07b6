"""Queries: what people are told is what the chain says, page by page."""

from __future__ import annotations

import pytest

from medchain.errors import Rejected
from medchain.ledger import lists, queries
from medchain.ledger.access import ReadReceipt, Release
from medchain.ledger.consents import Revoke
from medchain.ledger.emergencies import REVIEW_DUE_MS, Emergency, Review
from medchain.ledger.people import RevokeCredential
from medchain.ledger.records import ConfirmCustody
from medchain.ledger.trail import event_names


def is_plain(value) -> bool:
    """Only what a JSON writer with a text form for bytes can write."""
    if isinstance(value, dict):
        return all(isinstance(name, str) and is_plain(inner) for name, inner in value.items())
    if isinstance(value, list):
        return all(is_plain(inner) for inner in value)
    return value is None or type(value) in (bool, int, str, bytes)


def test_hospitals_are_listed_with_their_keys(world):
    listed = queries.hospitals(world.state)
    assert [entry["organisation_key"] for entry in listed] == sorted(key.public for key in world.organisations.values())
    assert {entry["name"] for entry in listed} == {"Hospital A", "Hospital B", "Hospital C", "Hospital D"}
    assert queries.hospital(world.state, listed[0]["organisation_key"]) == listed[0]
    assert queries.hospital(world.state, bytes(32)) is None
    assert is_plain(listed)


def test_clinician_is_told_with_the_present_standing(story):
    told = queries.clinician(story.state, story.context(), story.lee.public)
    assert (told["status"], told["role"], told["hospital"], told["to_height"]) == ("valid", "physician", story.b.public, None)
    story.accepted(story.b, RevokeCredential(story.lee.public))
    told = queries.clinician(story.state, story.context(), story.lee.public)
    assert (told["status"], told["to_height"]) == ("credential.revoked", story.height)
    assert queries.clinician(story.state, story.context(), bytes(32)) is None
    assert is_plain(told)


def test_patient_and_epoch_are_told(story):
    told = queries.patient(story.state, story.pseudonym)
    assert (told["hospital"], told["key"]) == (story.a.public, story.ann.public)
    assert queries.patient(story.state, bytes(32)) is None
    epoch = queries.epoch(story.state, story.pseudonym, "general")
    assert (epoch["number"], epoch["may_seal"], epoch["is_interim"], epoch["check_value"]) == (1, True, True, story.fixed("check 1"))
    story.accepted(story.ann, Revoke(story.grant()))
    assert queries.epoch(story.state, story.pseudonym, "general")["may_seal"] is False
    nothing = queries.epoch(story.state, story.pseudonym, "psychiatry")
    assert (nothing["number"], nothing["may_seal"], nothing["check_value"]) == (0, False, None)
    assert is_plain(told) and is_plain(epoch)


def test_record_is_told_with_its_newest_version_and_holders(story):
    story.accepted(story.a, story.amend(story.a.public, 2))
    story.accepted(story.d, ConfirmCustody(story.RECORD, 2))
    told = queries.record(story.state, story.RECORD)
    assert (told["version"], told["newest"]["root"], told["custodian"]) == (2, story.fixed("root 2"), story.a.public)
    assert told["newest"]["holders"] == [{"hospital": story.d.public, "from_height": story.height}]
    assert [holder["hospital"] for holder in queries.version(story.state, story.RECORD, 1)["holders"]] == [story.a.public]
    assert queries.record(story.state, bytes(32)) is None
    assert queries.version(story.state, story.RECORD, 3) is None
    assert is_plain(told)


def test_versions_come_in_pages(story):
    for number in (2, 3):
        story.accepted(story.a, story.amend(story.a.public, number))
    page = queries.versions(story.state, story.RECORD, 1, 2)
    assert [entry["version"] for entry in page["items"]] == [1, 2] and (page["next"], page["count"]) == (3, 3)
    page = queries.versions(story.state, story.RECORD, page["next"], 2)
    assert [entry["version"] for entry in page["items"]] == [3] and page["next"] is None
    assert queries.versions(story.state, story.RECORD, 4)["items"] == []
    assert queries.versions(story.state, bytes(32)) is None


def test_records_of_a_patient_come_in_pages_oldest_first(story):
    more = [story.fixed(f"more {index}") for index in range(3)]
    for identity in more:
        story.accepted(story.a, story.register(story.pseudonym, story.a.public, identity))
    page = queries.records_of(story.state, story.pseudonym, 0, 3)
    assert [entry["record"] for entry in page["items"]] == [story.RECORD, *more[:2]] and (page["next"], page["count"]) == (3, 4)
    page = queries.records_of(story.state, story.pseudonym, page["next"], 3)
    assert [entry["record"] for entry in page["items"]] == more[2:] and page["next"] is None
    assert queries.records_of(story.state, bytes(32)) == {"items": [], "next": None, "count": 0}


def test_consents_are_told_with_the_status_from_the_chain(story):
    revoked, ended, active = story.grant(), story.grant(until_ms=story.time_ms + 4000), story.grant()
    later = story.grant(from_ms=story.time_ms + 60_000)
    story.accepted(story.ann, Revoke(revoked), wait_ms=4000)
    page = queries.consents_of(story.state, story.context(), story.pseudonym)
    assert [(entry["consent"], entry["status"]) for entry in page["items"]] == [
        (revoked, "revoked"), (ended, "ended"), (active, "active"), (later, "not-begun"),
    ]  # fmt: skip
    assert [entry["to_height"] for entry in page["items"]] == [story.height, None, None, None]
    assert queries.consent(story.state, story.context(), active) == page["items"][2]
    assert queries.consent(story.state, story.context(), bytes(32)) is None
    assert is_plain(page)


def test_permit_is_told_with_its_standing_and_uses(story):
    consent = story.grant()
    permit, _ = story.ask()
    assert queries.permit(story.state, story.context(), permit)["standing"] == "open"
    story.accepted(story.a, Release(permit, 1))
    story.accepted(story.lee, ReadReceipt(permit, 1))
    story.accepted(story.ann, Revoke(consent))
    told = queries.permit(story.state, story.context(), permit)
    assert (told["standing"], told["releases"], told["released"], told["read"]) == ("consent.revoked", 1, [1], [1])
    assert lists.read_page(story.state, lists.PERMITS, story.RECORD, 0, 10) == ([permit], None)
    assert queries.permit(story.state, story.context(), bytes(32)) is None
    assert is_plain(told)


def test_review_is_told_from_opening_to_outcome(story):
    (event,) = story.accepted(story.kim, Emergency(story.RECORD, "UNCONSCIOUS")).events
    permit = event_names(event)["permit"]
    told = queries.review(story.state, permit)
    assert (told["outcome"], told["escalated_height"], told["reason"]) == (None, None, "UNCONSCIOUS")
    story.wait(REVIEW_DUE_MS)
    escalated = story.height
    story.accepted(story.a, Review(permit, "unjustified"))
    told = queries.review(story.state, permit)
    assert (told["outcome"], told["escalated_height"], told["to_height"]) == ("unjustified", escalated, story.height)
    assert lists.read_page(story.state, lists.REVIEWS, story.a.public, 0, 10) == ([permit], None)
    assert lists.count_of(story.state, lists.REVIEWS, story.b.public) == 0
    assert queries.review(story.state, bytes(32)) is None
    assert is_plain(told)


def test_explain_says_what_a_request_would_be_answered_and_why(story):
    revoked, active = story.grant(), story.grant(story.lee, kind="clinician")
    granted_height = story.height
    story.accepted(story.ann, Revoke(revoked))
    told = queries.explain(story.state, story.context(), story.lee.public, story.RECORD, "TREAT")
    assert (told["result"], told["code"], told["consent"]) == ("permit", "", active)
    assert told["trace"] == [
        {"consent": active, "code": "", "from_height": granted_height, "to_height": None},
        {"consent": revoked, "code": "consent.revoked", "from_height": granted_height - 1, "to_height": story.height},
    ]
    told = queries.explain(story.state, story.context(), story.kim.public, story.RECORD, "TREAT")
    assert (told["result"], told["code"], told["consent"], told["trace"]) == ("deny", "consent.none", None, [])
    assert is_plain(told)
    with pytest.raises(Rejected) as refusal:
        queries.explain(story.state, story.context(), bytes(32), story.RECORD, "TREAT")
    assert refusal.value.code == "people.clinician-unknown"
