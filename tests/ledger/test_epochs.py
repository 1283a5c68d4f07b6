"""Epochs: in order, by the custodian alone, and never one older than the last revocation."""

from __future__ import annotations

import pytest

from medchain.errors import Malformed
from medchain.ledger import epochs
from medchain.ledger.consents import Revoke
from medchain.ledger.epochs import Interim


def interim(story, number, category="general"):
    return Interim(story.pseudonym, category, number, story.fixed(f"check {number}"))


def test_custodian_opens_the_next_epoch_marked_interim(story):
    receipt = story.accepted(story.a, interim(story, 2))
    assert epochs.epoch_head(story.state, story.pseudonym, "general") == epochs.EpochHead(2, 1)
    row = epochs.epoch_of(story.state, story.pseudonym, "general", 2)
    assert (row.is_interim, row.check_value, row.from_height) == (True, story.fixed("check 2"), story.height)
    assert [event.subjects for event in receipt.events] == [(story.pseudonym,)]


@pytest.mark.parametrize("number", [1, 3, 7])
def test_epoch_out_of_order_is_refused(story, number):
    assert story.refused(story.a, interim(story, number)) == "epochs.number"


def test_epochs_of_categories_are_counted_apart(story):
    story.accepted(story.a, interim(story, 1, "psychiatry"))
    assert epochs.epoch_head(story.state, story.pseudonym, "general").number == 1


def test_only_the_patients_hospital_opens_epochs(story):
    assert story.refused(story.b, interim(story, 2)) == "epochs.not-custodian"
    assert story.refused(story.ann, interim(story, 2)) == "hospital.unknown"
    unknown = Interim(bytes(32), "general", 1, bytes(32))
    assert story.refused(story.a, unknown) == "people.patient-unknown"


def test_sealing_never_uses_an_epoch_older_than_the_last_revocation(story):
    consent = story.grant()
    story.accepted(story.a, story.register(story.pseudonym, story.a.public, story.fixed("before")))
    story.accepted(story.ann, Revoke(consent))
    late = story.register(story.pseudonym, story.a.public, story.fixed("after"))
    assert story.refused(story.a, late) == "records.epoch-too-old"
    assert story.refused(story.a, story.amend(story.a.public, 2)) == "records.epoch-too-old"
    story.accepted(story.a, interim(story, 2))
    story.accepted(story.a, story.register(story.pseudonym, story.a.public, story.fixed("after"), epoch=2))
    story.accepted(story.a, story.amend(story.a.public, 2, epoch=2))


def test_epoch_opened_before_the_revocation_in_the_same_block_is_too_old(story):
    consent = story.grant()
    opened = story.transaction(story.a, interim(story, 2))
    revoked = story.transaction(story.ann, Revoke(consent))
    assert all(receipt.is_accepted for receipt in story.block(opened, revoked).receipts)
    assert story.refused(story.a, story.amend(story.a.public, 2, epoch=2)) == "records.epoch-too-old"


def test_revocation_leaves_epochs_of_other_categories_alone(story):
    story.accepted(story.a, interim(story, 1, "psychiatry"))
    consent = story.grant(category="psychiatry")
    story.accepted(story.ann, Revoke(consent))
    story.accepted(story.a, story.amend(story.a.public, 2))


@pytest.mark.parametrize("payload", [[bytes(32), "general", 0, bytes(32)], [bytes(32), "general", 1, bytes(31)], [bytes(32), "general", 1]])
def test_damaged_payloads_are_malformed(payload):
    with pytest.raises(Malformed):
        Interim.from_payload(payload)
