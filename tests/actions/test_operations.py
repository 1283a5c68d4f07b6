"""Operations built by actions are executed by the rule book as they are, and wrong arguments fail where they are written."""

from __future__ import annotations

import pytest

from medchain.actions import access, consents, people, records
from medchain.actions.transactions import build_transaction
from medchain.chain.domain import Domain
from medchain.chain.transaction import Transaction
from medchain.crypto.keyfile import Identity
from medchain.crypto.sealing import SUITE_X25519
from medchain.crypto.signing import is_signature_valid
from medchain.errors import Malformed
from medchain.ledger.kinds import KINDS, check_form, read_operation
from medchain.ledger.people import credential_bytes, registration_bytes
from medchain.ledger.records import Content

ID = bytes(range(32))
OTHER = bytes(range(1, 33))
NETWORK = Domain(b"g" * 32)
CONTENT = Content(20, ID, 3, 1, OTHER, 202601, (ID, OTHER), ID)
CLINICIAN = Identity.generate("clinician", SUITE_X25519)
PATIENT = Identity.generate("patient", SUITE_X25519)

BUILT = {
    "people.credential": people.credential_clinician(NETWORK, OTHER, CLINICIAN, "physician", "cardiology", 10),
    "people.revoke_credential": people.revoke_credential(ID),
    "people.register_patient": people.register_patient(NETWORK, OTHER, PATIENT),
    "epochs.interim": records.open_interim_epoch(ID, "general", 1, OTHER),
    "records.register": records.register_record(ID, OTHER, "general", "fhir-bundle", CONTENT),
    "records.amend": records.amend_record(ID, 2, CONTENT),
    "records.confirm_custody": records.confirm_custody(ID, 1),
    "consents.grant": consents.grant_to_clinician(ID, "TREAT", "general", 10),
    "consents.revoke": consents.revoke_consent(ID),
    "access.request": access.request_access(ID, "TREAT", "physician"),
    "access.release": access.announce_release(ID, 1),
    "access.receipt": access.confirm_reading(ID, 1),
    "access.read_trail": access.read_trail(ID),
    "access.emergency": access.declare_emergency(ID, "UNCONSCIOUS"),
    "access.review": access.review_emergency(ID, "justified"),
}


def test_every_kind_of_the_rule_book_has_an_action():
    assert set(BUILT) == set(KINDS)


@pytest.mark.parametrize("kind", BUILT)
def test_an_operation_built_here_is_well_formed_in_a_signed_transaction(kind):
    built = build_transaction(NETWORK, "test", PATIENT.signing, [BUILT[kind]], valid_until=9, nonce=b"12345678")
    transaction = Transaction.decode(built.raw)
    assert transaction.body.operations[0].kind == kind
    check_form(transaction)
    assert read_operation(transaction.body.operations[0]).operation() == BUILT[kind]
    assert is_signature_valid(*transaction.verification(NETWORK))


def test_a_patients_registration_is_signed_for_one_hospital_of_one_network():
    operation = BUILT["people.register_patient"]
    key, suite, opening, proof = operation.payload
    assert (key, suite, opening) == (PATIENT.signing.public, PATIENT.opening.suite, PATIENT.opening.public)
    assert is_signature_valid(key, registration_bytes(NETWORK, OTHER, suite, opening), proof)
    assert not is_signature_valid(key, registration_bytes(NETWORK, ID, suite, opening), proof)
    assert not is_signature_valid(key, registration_bytes(Domain(b"h" * 32), OTHER, suite, opening), proof)


def test_a_clinicians_credential_is_signed_for_one_hospital_of_one_network():
    operation = BUILT["people.credential"]
    key, suite, opening, *_, proof = operation.payload
    assert (key, suite, opening) == (CLINICIAN.signing.public, CLINICIAN.opening.suite, CLINICIAN.opening.public)
    assert is_signature_valid(key, credential_bytes(NETWORK, OTHER, suite, opening), proof)
    assert not is_signature_valid(key, credential_bytes(NETWORK, ID, suite, opening), proof)
    assert not is_signature_valid(key, credential_bytes(Domain(b"h" * 32), OTHER, suite, opening), proof)
    assert not is_signature_valid(key, registration_bytes(NETWORK, OTHER, suite, opening), proof)


def test_a_grant_to_a_hospital_names_the_kind_of_grantee():
    assert consents.grant_to_hospital(ID, "TREAT", "general", 10).payload[:2] == ["hospital", ID]
    assert consents.grant_to_clinician(ID, "TREAT", "general", 10, 5).payload == ["clinician", ID, "TREAT", "general", 5, 10]


@pytest.mark.parametrize(
    "build",
    [
        lambda: access.request_access(ID, "BTG", "physician"),
        lambda: access.request_access(ID, "CURIOSITY", "physician"),
        lambda: access.request_access(ID[:-1], "TREAT", "physician"),
        lambda: access.request_access(ID, "TREAT", "Jane Doe, cardiologist"),
        lambda: access.declare_emergency(ID, "the patient Jane Doe is unconscious"),
        lambda: access.review_emergency(ID, "maybe"),
        lambda: access.confirm_reading(ID, 0),
        lambda: consents.grant_to_clinician(ID, "TREAT", "general", 10, 10),
        lambda: consents.grant_to_clinician(ID, "TREAT", "x" * 65, 10),
        lambda: people.credential_clinician(NETWORK, OTHER, CLINICIAN, "", "general", 10),
        lambda: records.confirm_custody(ID, True),
        lambda: records.open_interim_epoch(ID, "general", 0, ID),
        lambda: records.register_record(ID, OTHER, "general", "file", Content(20, ID, 3, 1, OTHER, 202613, (), ID)),
        lambda: records.register_record(ID, OTHER, "general", "file", Content(20, ID, 3, 1, OTHER, 202601, (OTHER, ID), ID)),
    ],
)
def test_wrong_arguments_are_malformed_before_anything_is_signed(build):
    with pytest.raises(Malformed):
        build()


@pytest.mark.parametrize(("size", "size_class"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (2**20, 20), (2**20 + 1, 21)])
def test_a_size_class_is_the_power_of_two_at_or_above(size, size_class):
    assert records.size_class_of(size) == size_class


def test_sizes_and_months_out_of_bounds_are_malformed():
    for size in (-1, 2**48 + 1):
        with pytest.raises(Malformed):
            records.size_class_of(size)
    for year, month in ((1849, 1), (2201, 1), (2026, 0), (2026, 13)):
        with pytest.raises(Malformed):
            records.coarse_date_of(year, month)
    assert records.coarse_date_of(2026, 3) == 202603


def test_tokens_are_put_into_the_only_order_the_rule_book_takes():
    assert records.sorted_tokens([OTHER, ID, OTHER]) == (ID, OTHER)
