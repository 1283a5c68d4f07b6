"""People: who may credential whom, who is registered, and that identity is the signing key."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medchain.chain.domain import Domain
from medchain.errors import Malformed
from medchain.ledger import people, rows
from medchain.ledger.people import Credential, RegisterPatient, RevokeCredential


def test_hospital_credentials_a_clinician(world):
    lee = world.key("lee")
    receipt = world.accepted(world.hospital("b"), world.credential(lee, "b"))
    row = people.clinician_of(world.state, lee.public)
    assert (row.hospital, row.number) == (world.hospital("b").public, 1)
    found, code = people.credential_standing(world.state, world.time_ms, lee.public, row)
    assert (found.role, found.specialty, found.opening_key, code) == ("physician", "general", world.fixed("opening"), "")
    assert [event.kind for event in receipt.events] == ["people.credential"]


def test_only_a_hospital_credentials(world):
    lee = world.key("lee")
    assert world.refused(lee, world.credential(lee, "b")) == "hospital.unknown"
    consensus_key = world.key("a consensus")
    assert world.refused(consensus_key, world.credential(lee, "b")) == "hospital.unknown"


def test_credential_by_another_hospital_is_refused_even_after_the_end_of_the_first(world):
    lee = world.key("lee")
    world.accepted(world.hospital("b"), world.credential(lee, "b"))
    assert world.refused(world.hospital("c"), world.credential(lee, "c")) == "people.other-hospital"
    world.accepted(world.hospital("b"), RevokeCredential(lee.public))
    assert world.refused(world.hospital("c"), world.credential(lee, "c")) == "people.other-hospital"


def test_credential_is_signed_by_the_clinicians_key_for_one_hospital_and_one_opening_key(world):
    lee, b, c = world.key("lee"), world.hospital("b"), world.hospital("c")
    good = world.credential(lee, "b")
    kims = world.credential(world.key("kim"), "b")
    as_patient = people.registration_bytes(world.network, b.public, 2, good.opening_key)
    elsewhere = people.credential_bytes(Domain(bytes(32)), b.public, 2, good.opening_key)
    wrong = {
        "no signature": (b, replace(good, proof=bytes(64))),
        "another clinician's": (b, replace(good, proof=kims.proof)),
        "the hospital's own": (b, replace(good, proof=b.sign(people.credential_bytes(world.network, b.public, 2, good.opening_key)))),
        "for another hospital": (b, world.credential(lee, "b", agreed_with="c")),
        "of another hospital's credential": (c, good),
        "for another opening key": (b, replace(good, opening_key=world.fixed("mine"))),
        "for a patient's registration": (b, replace(good, proof=lee.sign(as_patient))),
        "in another network": (b, replace(good, proof=lee.sign(elsewhere))),
    }
    for whose, (hospital, operation) in wrong.items():
        assert world.refused(hospital, operation) == "people.credential-proof-invalid", whose
    world.accepted(b, good)


def test_credential_with_a_proof_of_another_length_is_malformed(world):
    good = world.credential(world.key("lee"), "b")
    for proof in (b"", good.proof[:-1], good.proof + b"\0"):
        with pytest.raises(Malformed):
            Credential.from_payload([*good.to_payload()[:-1], proof])


def test_renewal_needs_the_clinicians_signature_for_its_opening_key(world):
    lee, b = world.key("lee"), world.hospital("b")
    first = world.credential(lee, "b")
    world.accepted(b, first)
    exchanged = replace(first, opening_key=world.fixed("the hospital's own"))
    assert world.refused(b, exchanged) == "people.credential-proof-invalid"
    assert world.refused(b, replace(first, proof=bytes(64))) == "people.credential-proof-invalid"
    world.accepted(b, RevokeCredential(lee.public))
    assert world.refused(b, exchanged) == "people.credential-proof-invalid"
    world.accepted(b, replace(first, role="surgeon", expires_ms=world.time_ms + 60 * world.DAY_MS))
    world.accepted(b, world.credential(lee, "b", opening="another of the clinician's"))
    newest = people.credential_of(world.state, lee.public, 3)
    assert newest.opening_key == world.fixed("another of the clinician's")


def test_keys_of_hospitals_and_patients_are_not_credentialed(world):
    ann, _ = world.patient("ann", "a")
    for key in (ann, world.hospital("c"), world.key("c consensus"), world.key("c officer")):
        assert world.refused(world.hospital("b"), world.credential(key, "b")) == "people.key-in-use"


def test_credential_past_its_end_is_refused(world):
    assert world.refused(world.hospital("b"), world.credential(world.key("lee"), "b", days=0)) == "people.expiry-past"


def test_renewal_ends_the_credential_before_and_overwrites_nothing(world):
    lee = world.key("lee")
    world.accepted(world.hospital("b"), world.credential(lee, "b"))
    first = people.credential_of(world.state, lee.public, 1)
    world.accepted(world.hospital("b"), world.credential(lee, "b", role="surgeon"))
    assert people.credential_of(world.state, lee.public, 1) == first
    end = people.credential_end_of(world.state, lee.public, 1)
    assert (end.to_height, end.cause) == (world.height, people.RENEWED)
    newest, code = people.credential_standing(world.state, world.time_ms, lee.public, people.clinician_of(world.state, lee.public))
    assert (newest.role, newest.from_height, code) == ("surgeon", world.height, "")


def test_revoked_credential_can_be_given_again_by_its_hospital(world):
    lee = world.clinician("lee", "b")
    world.accepted(world.hospital("b"), RevokeCredential(lee.public))
    world.clinician("lee", "b")
    assert people.clinician_of(world.state, lee.public).number == 2
    assert people.credential_end_of(world.state, lee.public, 1).cause == people.REVOKED


def test_only_the_hospital_that_gave_a_credential_revokes_it(world):
    lee = world.clinician("lee", "b")
    assert world.refused(world.hospital("c"), RevokeCredential(lee.public)) == "people.other-hospital"
    assert world.refused(lee, RevokeCredential(lee.public)) == "hospital.unknown"
    assert world.refused(world.hospital("b"), RevokeCredential(world.key("nobody").public)) == "people.clinician-unknown"
    world.accepted(world.hospital("b"), RevokeCredential(lee.public))
    assert world.refused(world.hospital("b"), RevokeCredential(lee.public)) == "people.credential-ended"


def test_credential_is_over_at_its_last_millisecond(world):
    lee = world.clinician("lee", "b")
    row = people.clinician_of(world.state, lee.public)
    expires_ms = people.credential_of(world.state, lee.public, 1).expires_ms
    assert people.credential_standing(world.state, expires_ms - 1, lee.public, row)[1] == ""
    assert people.credential_standing(world.state, expires_ms, lee.public, row)[1] == "credential.expired"


def test_patient_is_registered_under_a_pseudonym_with_a_trail_of_its_own(world):
    ann, pseudonym = world.patient("ann", "a")
    row = people.patient_of(world.state, pseudonym)
    assert (row.key, row.hospital, row.from_height) == (ann.public, world.hospital("a").public, world.height)
    ((_, event),) = world.events
    assert (event.kind, event.subjects) == ("people.register_patient", (pseudonym,))
    assert pseudonym != ann.public


def test_patient_is_registered_once(world):
    ann, _ = world.patient("ann", "a")
    assert world.refused(world.hospital("a"), world.registration(ann, "a")) == "people.patient-known"
    assert world.refused(world.hospital("b"), world.registration(ann, "b")) == "people.patient-known"


def test_proof_of_possession_is_for_one_hospital_and_one_opening_key(world):
    ann = world.key("ann")
    a, b = world.hospital("a"), world.hospital("b")
    assert world.refused(a, world.registration(ann, "a", agreed_with="b")) == "people.proof-invalid"
    taken = world.registration(ann, "a")
    assert world.refused(b, taken) == "people.proof-invalid"
    other_opening_key = RegisterPatient(taken.patient, 2, world.fixed("mine"), taken.proof)
    assert world.refused(a, other_opening_key) == "people.proof-invalid"
    other_patient = RegisterPatient(world.key("bob").public, taken.opening_suite, taken.opening_key, taken.proof)
    assert world.refused(a, other_patient) == "people.proof-invalid"


def test_proof_of_another_network_is_refused(world):
    ann = world.key("ann")
    signed = people.registration_bytes(type(world.network)(bytes(32), 0), world.hospital("a").public, 2, world.fixed("o"))
    registration = RegisterPatient(ann.public, 2, world.fixed("o"), ann.sign(signed))
    assert world.refused(world.hospital("a"), registration) == "people.proof-invalid"


def test_only_a_hospital_registers_patients(world):
    ann = world.key("ann")
    assert world.refused(ann, world.registration(ann, "a")) == "hospital.unknown"


def test_keys_of_clinicians_and_hospitals_are_not_registered_as_patients(world):
    lee = world.clinician("lee", "b")
    for key in (lee, world.hospital("c"), world.key("d officer")):
        assert world.refused(world.hospital("b"), world.registration(key, "b")) == "people.key-in-use"


def test_pseudonym_that_is_a_record_id_is_refused(story):
    bob = story.key("bob")
    taken = people.pseudonym_of(bob.public)
    story.accepted(story.a, story.register(story.pseudonym, story.a.public, taken))
    assert story.refused(story.a, story.registration(bob, "a")) == "people.pseudonym-in-use"


def test_credentials_and_patients_survive_as_they_were_written(story):
    before = {key: value for key, value in story.state.rows.items() if key.startswith((rows.CREDENTIAL, rows.PATIENT))}
    story.accepted(story.b, RevokeCredential(story.lee.public))
    story.clinician("lee", "b")
    assert {key: story.state.rows[key] for key in before} == before


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Credential, [bytes(31), 2, bytes(32), "physician", "general", 1, bytes(64)]),
        (Credential, [bytes(32), 2, bytes(32), "the physician", "general", 1, bytes(64)]),
        (Credential, [bytes(32), 2, bytes(32), "physician", "general", bytes(64)]),
        (Credential, [bytes(32), 2, bytes(32), "physician", "general", -1, bytes(64)]),
        (Credential, [bytes(32), 2, bytes(32), "physician", "general", 1]),
        (RevokeCredential, []),
        (RevokeCredential, [b""]),
        (RegisterPatient, [bytes(32), 2, bytes(32), bytes(63)]),
        (RegisterPatient, [bytes(32), 1, bytes(32), bytes(64)]),
    ],
)
def test_damaged_payloads_are_malformed(kind, payload):
    with pytest.raises(Malformed):
        kind.from_payload(payload)
