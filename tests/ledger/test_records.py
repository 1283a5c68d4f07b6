"""Records: registered and amended by the custodian alone, held by whoever confirms it."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from medchain.errors import Malformed
from medchain.ledger import queries, records
from medchain.ledger.people import RevokeCredential
from medchain.ledger.records import Amend, ConfirmCustody, Content, Register


def test_registered_record_says_what_it_was_registered_with(story):
    row = records.record_of(story.state, story.RECORD)
    assert (row.pseudonym, row.custodian, row.category, row.kind, row.version) == (
        story.pseudonym, story.a.public, "general", "fhir-bundle", 1,
    )  # fmt: skip
    version = records.version_of(story.state, story.RECORD, 1)
    assert (version.root, version.segments, version.epoch, version.author) == (story.fixed("root 1"), 2, 1, story.a.public)
    assert (version.from_height, version.time_ms) == (story.height, story.time_ms)
    kinds = [event.kind for _, event in story.events if event.subjects == (story.pseudonym, story.RECORD)]
    assert kinds == ["records.register", "records.confirm_custody"]


def test_only_the_patients_hospital_registers(story):
    other = story.fixed("other")
    assert story.refused(story.b, story.register(story.pseudonym, story.b.public, other)) == "records.not-custodian"
    assert story.refused(story.ann, story.register(story.pseudonym, story.ann.public, other)) == "hospital.unknown"
    assert story.refused(story.a, story.register(bytes(32), story.a.public, other)) == "people.patient-unknown"


def test_record_id_is_used_once_by_whomever(story):
    assert story.refused(story.a, story.register(story.pseudonym, story.a.public)) == "records.id-taken"
    _, bob = story.patient("bob", "b")
    assert story.refused(story.b, story.register(bob, story.b.public)) == "records.id-taken"


def test_record_under_a_pseudonym_is_refused_because_it_would_write_on_that_trail(story):
    _, bob = story.patient("bob", "b")
    assert story.refused(story.a, story.register(story.pseudonym, story.a.public, bob)) == "records.id-taken"


def test_record_under_a_hospitals_key_is_refused_because_it_would_write_on_that_trail(story):
    for key in (story.b.public, story.key("b consensus").public):
        assert story.refused(story.a, story.register(story.pseudonym, story.a.public, key)) == "records.id-taken"


def test_author_is_the_custodian_or_a_clinician_with_a_valid_credential_from_it(story):
    may = story.clinician("may", "a", days=2)
    story.accepted(story.a, story.register(story.pseudonym, may.public, story.fixed("1")))
    for author in (story.lee, story.ann, story.b):
        assert story.refused(story.a, story.register(story.pseudonym, author.public, story.fixed("2"))) == "records.author"
    story.wait(2 * story.DAY_MS)
    assert story.refused(story.a, story.register(story.pseudonym, may.public, story.fixed("2"))) == "records.author"
    story.clinician("may", "a")
    story.accepted(story.a, story.register(story.pseudonym, may.public, story.fixed("2")))
    story.accepted(story.a, RevokeCredential(may.public))
    assert story.refused(story.a, story.register(story.pseudonym, may.public, story.fixed("3"))) == "records.author"


def test_epoch_that_was_never_opened_is_refused(story):
    assert story.refused(story.a, story.register(story.pseudonym, story.a.public, story.fixed("2"), epoch=2)) == "records.epoch-unknown"
    other = story.register(story.pseudonym, story.a.public, story.fixed("2"), category="psychiatry")
    assert story.refused(story.a, other) == "records.epoch-unknown"


def test_amendment_is_the_next_version_and_leaves_the_earlier_one(story):
    first = records.version_of(story.state, story.RECORD, 1)
    story.accepted(story.a, story.amend(story.a.public, 2))
    assert records.record_of(story.state, story.RECORD).version == 2
    assert records.version_of(story.state, story.RECORD, 1) == first
    assert records.version_of(story.state, story.RECORD, 2).root == story.fixed("root 2")
    assert records.version_of(story.state, story.RECORD, 2).tokens == (story.fixed("token"),)


@pytest.mark.parametrize("version", [1, 3])
def test_amendment_of_another_version_is_refused(story, version):
    assert story.refused(story.a, story.amend(story.a.public, version)) == "records.version"


def test_two_amendments_of_one_version_in_a_block_give_one_winner(story):
    one, two = (story.transaction(story.a, story.amend(story.a.public, 2)) for _ in range(2))
    assert [receipt.code for receipt in story.block(one, two).receipts] == ["", "records.version"]


def test_only_the_custodian_amends(story):
    assert story.refused(story.b, story.amend(story.b.public, 2)) == "records.not-custodian"
    assert story.refused(story.ann, story.amend(story.a.public, 2)) == "hospital.unknown"
    assert story.refused(story.a, story.amend(story.a.public, 2, bytes(32))) == "records.unknown"


def holders(story, version: int) -> list[bytes]:
    return [row["hospital"] for row in queries.version(story.state, story.RECORD, version)["holders"]]


def test_any_hospital_confirms_custody_once_per_version(story):
    assert story.d.public not in holders(story, 1)
    story.accepted(story.d, ConfirmCustody(story.RECORD, 1))
    assert story.d.public in holders(story, 1)
    assert story.refused(story.d, ConfirmCustody(story.RECORD, 1)) == "records.custody-confirmed"
    assert story.refused(story.a, ConfirmCustody(story.RECORD, 1)) == "records.custody-confirmed"
    assert story.refused(story.d, ConfirmCustody(story.RECORD, 2)) == "records.version-unknown"
    assert story.refused(story.d, ConfirmCustody(bytes(32), 1)) == "records.unknown"
    assert story.refused(story.lee, ConfirmCustody(story.RECORD, 1)) == "hospital.unknown"


DAMAGE = [
    {"record": bytes(31)}, {"pseudonym": bytes(33)}, {"category": "a category"}, {"kind": ""}, {"size_class": 49}, {"size_class": -1},
    {"root": b""}, {"segments": 0}, {"segments": 2**28 + 1}, {"epoch": 0}, {"author": bytes(31)}, {"date": 202413}, {"date": 202400},
    {"date": 20240101}, {"date": 174912}, {"tokens": (bytes(32),) * 2}, {"tokens": (b"\x01" * 32, bytes(32))}, {"tokens": (bytes(31),)},
    {"tokens": tuple(bytes([index]) * 32 for index in range(17))}, {"wrap_digest": None},
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=str)
def test_damaged_registration_is_malformed(story, damage):
    whole = story.register(story.pseudonym, story.a.public)
    assert Register.from_payload(whole.to_payload()) == whole
    with pytest.raises(Malformed):
        Register.from_payload(_damaged(whole, damage).to_payload())


def _damaged(whole, damage):
    """Return a registration or amendment with another value, which may be one of its content's."""
    if damage.keys() <= {field.name for field in fields(Content)}:
        damage = {"content": replace(whole.content, **damage)}
    return replace(whole, **damage)


def test_damaged_amendment_and_confirmation_are_malformed(story):
    whole = story.amend(story.a.public, 2)
    assert Amend.from_payload(whole.to_payload()) == whole
    for payload in (whole.to_payload()[:-1], [*whole.to_payload(), 1], replace(whole, version=0).to_payload()):
        with pytest.raises(Malformed):
            Amend.from_payload(payload)
    for payload in ([story.RECORD], [story.RECORD, True], [story.RECORD, 2**32], [1, 1]):
        with pytest.raises(Malformed):
            ConfirmCustody.from_payload(payload)
