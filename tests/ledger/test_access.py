"""Access: requests, announced releases, read receipts, reading of trails."""

from __future__ import annotations

import pytest

from medchain.errors import Malformed
from medchain.ledger import permits
from medchain.ledger.access import ReadReceipt, ReadTrail, Release, Request
from medchain.ledger.consents import Revoke
from medchain.ledger.people import RevokeCredential
from medchain.ledger.permits import PERMIT_BLOCKS, PERMIT_MS, RELEASES_MAX, permit_id
from medchain.ledger.trail import event_names


def test_permit_names_exactly_the_newest_version_reader_purpose_and_end(story):
    consent = story.grant()
    story.accepted(story.a, story.amend(story.a.public, 2))
    transaction = story.transaction(story.lee, Request(story.RECORD, "TREAT", "physician"))
    story.block(transaction)
    identity = permit_id(transaction.id, 0)
    row = permits.permit_of(story.state, identity)
    assert (row.record, row.versions, row.reader, row.purpose, row.consent) == (
        story.RECORD, (2,), story.lee.public, "TREAT", consent,
    )  # fmt: skip
    assert (row.hospital, row.role, row.credential, row.reason) == (story.b.public, "physician", 1, "")
    assert (row.from_height, row.expires_height) == (story.height, story.height + PERMIT_BLOCKS)
    assert row.expires_ms == story.time_ms + PERMIT_MS
    story.accepted(story.a, story.amend(story.a.public, 3))
    assert story.refused(story.a, Release(identity, 3)) == "access.permit-version"
    story.accepted(story.a, Release(identity, 2))


def test_permit_ends_with_its_consent(story):
    story.grant(until_ms=story.time_ms + 5000)
    permit, _ = story.ask()
    assert permits.permit_of(story.state, permit).expires_ms == story.time_ms + 3000
    assert story.refused(story.a, Release(permit, 1), wait_ms=3000) == "access.permit-expired"


def test_request_by_an_unknown_key_or_for_an_unknown_record_is_refused(story):
    request = Request(story.RECORD, "TREAT", "physician")
    for signer in (story.key("nobody"), story.ann, story.b):
        assert story.refused(signer, request) == "people.clinician-unknown"
    assert story.refused(story.lee, Request(bytes(32), "TREAT", "physician")) == "records.unknown"


def test_custodian_releases_and_nobody_else(story):
    story.grant()
    permit, _ = story.ask()
    receipt = story.accepted(story.a, Release(permit, 1))
    (event,) = receipt.events
    assert event_names(event) == {
        "hospital": story.a.public, "permit": permit, "version": 1, "reader": story.lee.public, "release": 1,
    }  # fmt: skip
    assert event.subjects == (story.pseudonym, story.RECORD)
    assert story.refused(story.d, Release(permit, 1)) == "access.not-custodian"
    assert story.refused(story.lee, Release(permit, 1)) == "hospital.unknown"
    assert story.refused(story.a, Release(bytes(32), 1)) == "access.permit-unknown"


def test_release_counts_are_used_up(story):
    story.grant()
    permit, _ = story.ask()
    for _ in range(RELEASES_MAX):
        story.accepted(story.a, Release(permit, 1))
    assert story.refused(story.a, Release(permit, 1)) == "access.releases-used-up"
    assert permits.permit_use_of(story.state, permit).releases == RELEASES_MAX
    again, _ = story.ask()
    story.accepted(story.a, Release(again, 1))


def test_permit_is_past_its_end_by_time(story):
    story.grant()
    permit, _ = story.ask()
    assert story.refused(story.a, Release(permit, 1), wait_ms=PERMIT_MS) == "access.permit-expired"


def test_permit_is_past_its_end_by_height(story):
    story.grant()
    permit, _ = story.ask()
    story.height += PERMIT_BLOCKS
    assert story.refused(story.a, Release(permit, 1)) == "access.permit-expired"


def test_release_is_refused_once_the_consent_is_revoked_even_if_another_would_cover_it(story):
    consent = story.grant()
    permit, _ = story.ask()
    story.grant()
    story.accepted(story.ann, Revoke(consent))
    assert story.refused(story.a, Release(permit, 1)) == "consent.revoked"
    again, _ = story.ask()
    story.accepted(story.a, Release(again, 1))


def test_release_is_refused_once_the_credential_is_revoked_even_if_given_again(story):
    story.grant()
    permit, _ = story.ask()
    story.accepted(story.b, RevokeCredential(story.lee.public))
    assert story.refused(story.a, Release(permit, 1)) == "credential.revoked"
    story.clinician("lee", "b")
    assert story.refused(story.a, Release(permit, 1)) == "credential.revoked"


def test_release_goes_on_after_a_renewal_and_stops_when_the_renewed_credential_is_revoked(story):
    story.grant()
    permit, _ = story.ask()
    story.clinician("lee", "b")
    story.accepted(story.a, Release(permit, 1))
    story.accepted(story.b, RevokeCredential(story.lee.public))
    assert story.refused(story.a, Release(permit, 1)) == "credential.revoked"


def test_release_is_refused_once_the_credential_is_expired(story):
    may = story.clinician("may", "b", days=1)
    story.grant()
    story.wait(story.DAY_MS - 5000)
    permit, _ = story.ask(may)
    assert story.refused(story.a, Release(permit, 1), wait_ms=60_000) == "credential.expired"


def test_reader_confirms_reading_once_and_only_what_was_released(story):
    story.grant()
    permit, _ = story.ask()
    assert story.refused(story.lee, ReadReceipt(permit, 1)) == "access.not-released"
    story.accepted(story.a, Release(permit, 1))
    assert story.refused(story.lee, ReadReceipt(permit, 2)) == "access.not-released"
    for signer in (story.kim, story.a, story.ann):
        assert story.refused(signer, ReadReceipt(permit, 1)) == "access.not-reader"
    assert story.refused(story.lee, ReadReceipt(bytes(32), 1)) == "access.permit-unknown"
    story.accepted(story.lee, ReadReceipt(permit, 1), wait_ms=PERMIT_MS)
    assert story.refused(story.lee, ReadReceipt(permit, 1)) == "access.read-twice"


def test_patient_and_custodian_read_the_trail_and_the_reading_is_on_it(story):
    for reader, subject, subjects in (
        (story.ann, story.pseudonym, (story.pseudonym,)),
        (story.a, story.pseudonym, (story.pseudonym,)),
        (story.a, story.RECORD, (story.pseudonym, story.RECORD)),
        (story.ann, story.RECORD, (story.pseudonym, story.RECORD)),
    ):
        (event,) = story.accepted(reader, ReadTrail(subject)).events
        assert (event.kind, event.subjects, event.fields) == ("access.read_trail", subjects, [reader.public])


def test_nobody_else_reads_the_trail(story):
    bob, _ = story.patient("bob", "a")
    for signer in (story.b, story.lee, bob, story.key("a officer")):
        assert story.refused(signer, ReadTrail(story.pseudonym)) == "access.not-entitled"
    assert story.refused(story.a, ReadTrail(bytes(32))) == "access.subject-unknown"


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Request, [bytes(32), "BTG", "physician"]), (Request, [bytes(32), "TREAT"]), (Request, [bytes(32), "TREAT", "dr who"]),
        (Request, [bytes(32), "OTHER", "physician"]), (Release, [bytes(32), 0]), (Release, [bytes(31), 1]), (ReadReceipt, [bytes(32)]),
        (ReadReceipt, [bytes(32), "1"]), (ReadTrail, [b""]), (ReadTrail, []),
    ],
)  # fmt: skip
def test_damaged_payloads_are_malformed(kind, payload):
    with pytest.raises(Malformed):
        kind.from_payload(payload)
