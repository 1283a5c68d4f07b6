"""Consents: granted and revoked by the patient's key alone, and never overwritten."""

from __future__ import annotations

import pytest

from medchain.errors import Malformed
from medchain.ledger import consents
from medchain.ledger.consents import Grant, Revoke, consent_id


def grant(story, **other):
    said = {
        "grantee_kind": "hospital", "grantee": story.b.public, "purpose": "TREAT", "category": "general", "from_ms": 0,
        "until_ms": story.time_ms + story.DAY_MS,
    }  # fmt: skip
    return Grant(**(said | other))


def test_patient_grants_and_the_id_follows_from_the_transaction(story):
    transaction = story.transaction(story.ann, grant(story), grant(story, grantee_kind="clinician", grantee=story.lee.public))
    (receipt,) = story.block(transaction).receipts
    ids = [consent_id(transaction.id, index) for index in (0, 1)]
    assert [event.fields[1] for event in receipt.events] == ids
    row = consents.consent_of(story.state, ids[0])
    assert (row.pseudonym, row.grantee_kind, row.grantee, row.purpose) == (story.pseudonym, "hospital", story.b.public, "TREAT")
    assert row.from_height == story.height
    assert consents.consents_to(story.state, story.pseudonym, story.lee.public) == (ids[1],)


def test_only_a_registered_patient_grants(story):
    for signer in (story.lee, story.a, story.key("nobody")):
        assert story.refused(signer, grant(story)) == "people.patient-unknown"


def test_unknown_grantee_or_one_of_the_other_kind_is_refused(story):
    for kind, grantee in (
        ("clinician", story.key("nobody")), ("hospital", story.lee), ("clinician", story.b), ("hospital", story.key("b consensus")),
        ("clinician", story.ann),
    ):  # fmt: skip
        assert story.refused(story.ann, grant(story, grantee_kind=kind, grantee=grantee.public)) == "consents.grantee-unknown"


def test_consent_that_is_over_before_it_begins_to_count_is_refused(story):
    next_ms = story.time_ms + 1000
    assert story.refused(story.ann, grant(story, until_ms=next_ms)) == "consents.period"
    story.accepted(story.ann, grant(story, until_ms=story.time_ms + 1001))


def test_another_patient_hospital_or_clinician_cannot_revoke(story):
    consent = story.grant()
    bob, _ = story.patient("bob", "a")
    for signer in (bob, story.a, story.b, story.lee):
        assert story.refused(signer, Revoke(consent)) == "consents.not-yours"
    assert story.ask()[1] == ""


def test_consent_is_revoked_once_and_its_row_stays(story):
    consent = story.grant()
    before = consents.consent_of(story.state, consent)
    assert story.refused(story.ann, Revoke(bytes(32))) == "consents.unknown"
    story.accepted(story.ann, Revoke(consent))
    assert consents.consent_of(story.state, consent) == before
    end = consents.consent_end_of(story.state, consent)
    assert (end.to_height, end.time_ms) == (story.height, story.time_ms)
    assert story.refused(story.ann, Revoke(consent)) == "consents.revoked"


def test_status_is_one_of_four_with_exact_edges(story):
    begin, end = story.time_ms + 5000, story.time_ms + 9000
    consent = story.grant(from_ms=begin, until_ms=end)
    row = consents.consent_of(story.state, consent)
    statuses = [consents.consent_status(story.state, consent, row, time_ms) for time_ms in (begin - 1, begin, end - 1, end)]
    assert statuses == ["not-begun", "active", "active", "ended"]
    story.accepted(story.ann, Revoke(consent))
    assert consents.consent_status(story.state, consent, row, end) == "revoked"


def test_consents_to_one_grantee_are_bounded_and_ended_ones_make_room(story):
    first = story.grant()
    for _ in range(consents.CONSENTS_PER_GRANTEE_MAX - 1):
        last = story.grant()
    assert story.refused(story.ann, grant(story)) == "consents.too-many"
    story.grant(story.c)
    story.accepted(story.ann, Revoke(last))
    newest = story.grant()
    looked_at = consents.consents_to(story.state, story.pseudonym, story.b.public)
    assert len(looked_at) == consents.CONSENTS_PER_GRANTEE_MAX
    assert (looked_at[0], looked_at[-1]) == (first, newest) and last not in looked_at
    assert consents.consent_of(story.state, last) is not None
    assert story.refused(story.ann, grant(story)) == "consents.too-many"


@pytest.mark.parametrize(
    "damage",
    [
        {"grantee_kind": "patient"}, {"grantee": bytes(31)}, {"purpose": "treat"}, {"purpose": "MARKETING"}, {"category": "every thing"},
        {"from_ms": -1}, {"until_ms": 2**48 + 1}, {"from_ms": 10, "until_ms": 10}, {"until_ms": True},
    ],
    ids=str,
)  # fmt: skip
def test_damaged_consent_is_malformed(story, damage):
    whole = grant(story)
    assert Grant.from_payload(whole.to_payload()) == whole
    with pytest.raises(Malformed):
        Grant.from_payload(grant(story, **damage).to_payload())


def test_damaged_revocation_is_malformed():
    for payload in ([], [bytes(31)], ["x" * 32], [bytes(32), 1]):
        with pytest.raises(Malformed):
            Revoke.from_payload(payload)
