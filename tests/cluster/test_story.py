"""The story of a record on real processes: the main story on real bundles, and every way of being told no."""

from __future__ import annotations

import io
import time

import pytest

from medchain.cli.stage import Stage
from medchain.cli.story import Story
from medchain.errors import InvariantBroken

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("name", ["Bob965", "Cecelia952"])
def test_main_story_goes_as_it_must_on_a_real_bundle(shared_data, tmp_path, monkeypatch, name):
    (bundle,) = (shared_data / "fhir-synthea").glob(f"{name}_*.json")
    monkeypatch.chdir(tmp_path)
    stage = Stage(io.StringIO())
    story = Story(stage, tmp_path, str(bundle))
    try:
        story.begin(4)
        facts = story.play()
    finally:
        if story.network is not None:
            story.network.stop()
    assert (tmp_path / "copy").read_bytes() == bundle.read_bytes()
    assert len(facts["state_root"]) == 64
    assert len(stage.scenes) == 13


@pytest.fixture(scope="module")
def denied(sharing):
    """Checks a denial: its code, that every hospital decided the same, and that it is on the record's trail."""

    def check(answer: dict, record: str, code: str) -> None:
        assert (answer["result"], answer["code"], answer["permit"]) == ("deny", code, None)
        cluster = sharing.cluster
        for name in cluster.names:
            cluster.wait(f"{name} decided it", lambda name=name: cluster.height(name) >= answer["height"])
            status = cluster.ask(name, "tx.status", id=answer["transaction"])
            assert [(event["kind"], event["fields"]["code"]) for event in status["events"]] == [("access.denial", code)]
            assert status["height"] == answer["height"]
        last = sharing.history(record)[-1]
        assert (last["kind"], last["height"], last["fields"]["code"]) == ("access.denial", answer["height"], code)

    return check


@pytest.fixture
def record(sharing, sample_bundle, request):
    """A record of a category of its own, so that no consent of another test speaks of it."""
    category = "c-" + request.node.originalname.removeprefix("test_")[:29].rstrip("_")
    return sharing.put(sample_bundle, category), category


def test_reading_before_any_consent_is_denied(sharing, denied, record):
    identity, _ = record
    other = sharing.folder / "nobody.key"
    sharing.credential("d", other)
    denied(sharing.request(identity, key=other, at="d", expect=1), identity, "consent.none")


def test_reading_under_a_consent_gives_the_original_byte_for_byte(sharing, record, sample_bundle, tmp_path):
    identity, category = record
    sharing.grant(sharing.lee_id, category=category)
    assert sharing.request(identity)["result"] == "permit"
    read = sharing.get(identity, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == sample_bundle.read_bytes()
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    kinds = [event["kind"] for event in sharing.history(identity)]
    assert kinds[-3:] == ["access.permit", "access.release", "access.receipt"]
    assert read["receipt_height"] == sharing.history(identity)[-1]["height"]


def test_consent_to_a_hospital_covers_its_clinicians_and_no_others(sharing, denied, record, tmp_path):
    identity, category = record
    sharing.grant("b", category=category)
    assert sharing.request(identity)["result"] == "permit"
    denied(sharing.request(identity, key=sharing.kim, at="c", expect=1), identity, "consent.none")


def test_another_purpose_is_denied(sharing, denied, record):
    identity, category = record
    sharing.grant(sharing.lee_id, category=category)
    denied(sharing.request(identity, purpose="HRESCH", expect=1), identity, "consent.purpose")


def test_another_category_is_denied(sharing, denied, record, sample_bundle):
    _, category = record
    key = sharing.folder / "category.key"
    clinician = sharing.credential("b", key)["clinician"]
    sharing.grant(clinician, category=category)
    elsewhere = sharing.put(sample_bundle, "elsewhere")
    denied(sharing.request(elsewhere, key=key, expect=1), elsewhere, "consent.category")


def test_after_the_revocation_neither_request_nor_old_permit_opens_anything(sharing, denied, record, tmp_path):
    identity, category = record
    consent = sharing.grant(sharing.lee_id, category=category)
    permitted = sharing.request(identity)
    revoked = sharing.revoke(consent)
    answer = sharing.request(identity, expect=1)
    denied(answer, identity, "consent.revoked")
    assert permitted["height"] < revoked["height"] < answer["height"]
    refused = sharing.get(identity, tmp_path / "copy", expect=1)
    assert refused["error"]["code"] == "consent.revoked"
    assert list(tmp_path.iterdir()) == []


def test_past_the_consent_s_end_it_is_denied(sharing, denied, record):
    identity, category = record
    until = "4s"
    granted = time.time()
    sharing.grant(sharing.lee_id, category=category, until=until)
    assert sharing.request(identity)["result"] == "permit"
    sharing.cluster.wait("the consent's end has passed", lambda: time.time() > granted + 6)
    denied(sharing.request(identity, expect=1), identity, "consent.ended")


def test_expired_credential_is_denied(sharing, denied, record):
    identity, category = record
    key = sharing.folder / "short.key"
    began = time.time()
    clinician = sharing.credential("b", key, expires="4s")["clinician"]
    sharing.grant(clinician, category=category)
    sharing.cluster.wait("the credential's end has passed", lambda: time.time() > began + 6)
    denied(sharing.request(identity, key=key, expect=1), identity, "credential.expired")
    denied(sharing.emergency(identity, key=key, at="b", expect=1), identity, "credential.expired")


def test_revoked_credential_is_denied(sharing, denied, record):
    identity, category = record
    key = sharing.folder / "dismissed.key"
    clinician = sharing.credential("b", key)["clinician"]
    sharing.grant(clinician, category=category)
    sharing.medchain("clinician", "revoke", clinician, "--at", sharing.home("b"))
    denied(sharing.request(identity, key=key, expect=1), identity, "credential.revoked")


def test_explain_tells_on_every_hospital_what_a_request_would_be_answered(sharing, record):
    identity, category = record
    words = ("consent", "explain", identity, "--clinician", sharing.lee, "--purpose", "TREAT")
    head = max(map(sharing.cluster.height, sharing.cluster.names))
    sharing.cluster.wait("all stand there", lambda: all(sharing.cluster.height(name) >= head for name in sharing.cluster.names))
    answers = [sharing.medchain(*words, "--at", sharing.home(name), expect=1) for name in sharing.cluster.names]
    assert {answer["code"] for answer in answers} <= {"consent.none", "consent.category"}
    assert len({answer["code"] for answer in answers}) == 1
    sharing.grant(sharing.lee_id, category=category)
    sharing.cluster.wait_agreed()
    assert all(sharing.medchain(*words, "--at", sharing.home(name))["permit"] for name in sharing.cluster.names)


def test_broken_glass_opens_the_record_and_a_review_that_may_end_it(sharing, record, sample_bundle, tmp_path):
    identity, _ = record
    broken = sharing.emergency(identity)
    sharing.get(identity, tmp_path / "copy", key=sharing.kim, at="c")
    assert (tmp_path / "copy").read_bytes() == sample_bundle.read_bytes()
    review = ("access", "review", broken["permit"], "--outcome", "unjustified")
    assert sharing.medchain(*review, "--at", sharing.home("c"), expect=1)["error"]["code"] == "access.not-reviewer"
    assert broken["permit"] in {row["permit"] for row in _open_reviews(sharing)}
    sharing.medchain(*review, "--at", sharing.home("a"))
    assert broken["permit"] not in {row["permit"] for row in _open_reviews(sharing)}
    assert sharing.medchain(*review, "--at", sharing.home("a"), expect=1)["error"]["code"] == "access.reviewed"
    refused = sharing.get(identity, tmp_path / "again", key=sharing.kim, at="c", expect=1)
    assert refused["error"]["code"] == "access.permit-ended"


def _open_reviews(sharing) -> list[dict]:
    return sharing.medchain("access", "emergencies", "--at", sharing.home("a"), "--open")["emergencies"]


def test_amended_record_is_read_in_its_newest_version(sharing, record, tmp_path):
    identity, category = record
    second = tmp_path / "second.txt"
    second.write_text("a later finding")
    amended = sharing.medchain("record", "amend", identity, second, "--at", sharing.home("a"), expect=2)
    assert amended["error"]["code"] == "client.not-fhir"
    second.write_text('{"resourceType": "Observation", "status": "final"}')
    amended = sharing.medchain("record", "amend", identity, second, "--at", sharing.home("a"))
    assert amended["version"] == 2
    sharing.grant(sharing.lee_id, category=category)
    sharing.request(identity)
    assert sharing.get(identity, tmp_path / "copy")["version"] == 2
    assert (tmp_path / "copy").read_bytes() == second.read_bytes()
    known = sharing.medchain("record", "show", identity, "--at", sharing.home("d"))
    assert [row["version"] for row in known["versions"]] == [1, 2]


def test_clinician_of_the_custodian_may_be_the_author_and_nobody_else(sharing, sample_bundle, tmp_path):
    own = tmp_path / "own.key"
    author = sharing.credential("a", own)["clinician"]
    words = ("record", "put", sample_bundle, "--at", sharing.home("a"), "--patient", sharing.patient, "--category", "authors")
    record = sharing.medchain(*words, "--as", own)["record"]
    registered = next(event for event in sharing.history(record) if event["kind"] == "records.register")
    assert registered["fields"]["author"] == author
    assert sharing.medchain(*words, "--as", sharing.lee, expect=1)["error"]["code"] == "custody.author"


def test_trail_is_for_the_patient_and_the_custodian_only(sharing, record):
    identity, _ = record
    for subject in (sharing.patient, identity):
        trail = sharing.medchain("access", "trail", subject, "--as", sharing.patient_key, "--at", sharing.home("b"))
        assert trail["is_verified"] and trail["count"] == len(trail["events"])
        assert trail["events"][-1]["kind"] == "access.read_trail"
        assert all(event["summary"] for event in trail["events"])
    words = ("access", "trail", identity, "--at", sharing.home("b"), "--as", sharing.lee)
    assert sharing.medchain(*words, expect=1)["error"]["code"] == "access.not-entitled"


def test_nothing_is_read_without_a_permit_or_over_another_file(sharing, record, tmp_path):
    identity, _ = record
    taken = tmp_path / "taken"
    taken.write_text("do not lose me")
    assert sharing.get(identity, tmp_path / "copy", expect=1)["error"]["code"] == "client.no-permit"
    assert sharing.get(identity, taken, expect=2)["error"]["code"] == "client.output-exists"
    assert taken.read_text() == "do not lose me"
    assert sharing.request("00" * 32, expect=1)["error"]["code"] == "records.unknown"


def test_another_reader_s_permit_opens_nothing(sharing, record, tmp_path):
    identity, category = record
    sharing.grant(sharing.lee_id, category=category)
    permit = sharing.request(identity)["permit"]
    words = ("record", "get", identity, "--as", sharing.kim, "--at", sharing.home("c"), "--out", tmp_path / "copy", "--permit", permit)
    assert sharing.medchain(*words, expect=1)["error"]["code"] == "client.no-permit"


def test_key_that_nobody_credentialed_cannot_even_ask(sharing, record):
    identity, _ = record
    assert sharing.request(identity, key=sharing.patient_key, at="a", expect=1)["error"]["code"] == "people.clinician-unknown"


def test_only_the_patient_who_granted_can_revoke(sharing, record, tmp_path):
    _, category = record
    consent = sharing.grant(sharing.kim_id, category=category)
    other = tmp_path / "other.key"
    sharing.medchain("patient", "register", "--at", sharing.home("a"), "--out", other)
    words = ("consent", "revoke", consent, "--at", sharing.home("a"))
    assert sharing.medchain(*words, "--as", other, expect=1)["error"]["code"] == "consents.not-yours"
    listed = sharing.medchain("consent", "list", sharing.patient_key, "--at", sharing.home("d"))["consents"]
    assert next(row["status"] for row in listed if row["consent"] == consent) == "active"


def test_grantee_may_be_named_by_key_key_file_or_hospital_name(sharing, record):
    _, category = record
    for grantee, kind in ((sharing.lee_id, "clinician"), (sharing.lee, "clinician"), ("c", "hospital")):
        consent = sharing.grant(grantee, category=category)
        listed = sharing.medchain("consent", "list", sharing.patient, "--at", sharing.home("a"))["consents"]
        assert next(row["grantee_kind"] for row in listed if row["consent"] == consent) == kind
    words = ("consent", "grant", "--as", sharing.patient_key, "--at", sharing.home("a"), "--to", "nowhere", "--purpose", "TREAT")
    refused = sharing.medchain(*words, "--category", category, "--until", "1d", expect=2)
    assert refused["error"]["code"] == "client.unknown-hospital"


def test_refused_registration_leaves_no_key_file(sharing, tmp_path):
    """The key file is there before the network hears of the key; a refusal takes it away again."""
    words = ("clinician", "credential", "--at", sharing.home("b"), "--role", "physician", "--expires", "2001-01-01")
    out = tmp_path / "late.key"
    assert sharing.medchain(*words, "--out", out, expect=1)["error"]["code"] == "people.expiry-past"
    assert not out.exists()
    words = ("patient", "register", "--at", sharing.home("b"), "--key", sharing.patient_key)
    assert sharing.medchain(*words, expect=1)["error"]["code"] == "people.patient-known"
    assert sharing.patient_key.exists()


def test_lists_show_what_was_put(sharing, record):
    identity, category = record
    rows = sharing.medchain("record", "list", sharing.patient, "--at", sharing.home("c"))["records"]
    assert next(row for row in rows if row["record"] == identity)["category"] == category
    assert sharing.medchain("patient", "show", sharing.patient, "--at", sharing.home("d"))["pseudonym"] == sharing.patient
    assert sharing.medchain("clinician", "show", sharing.lee_id, "--at", sharing.home("d"))["role"] == "physician"


def test_stage_stops_the_story_at_the_first_thing_that_is_not_as_it_must_be(sharing):
    with pytest.raises(InvariantBroken, match="exit code 1 where 0 was due"):
        sharing.request("00" * 32)
