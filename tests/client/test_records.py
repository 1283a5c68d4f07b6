"""The story of a record, end to end: sealed at one hospital, granted, read at another, denied, broken open, and all of it on the trail."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from medchain.actions import access as access_actions
from medchain.client import access, consents, people, records
from medchain.client.permits import find_permit
from medchain.client.wallet import Wallet
from medchain.crypto.keyfile import Identity
from medchain.crypto.sealing import SUITE_X25519
from medchain.errors import Malformed, Rejected

pytestmark = pytest.mark.asyncio
LATE_MS = 1_900_000_000_000


def identity(role: str) -> Identity:
    return Identity.generate(role, SUITE_X25519)


@dataclass
class Story:
    """A patient at a, Dr Lee at b, Dr Kim at c, and one FHIR bundle in a's custody."""

    net: object
    folder: Path
    patient: Wallet
    pseudonym: bytes
    lee: Wallet
    kim: Wallet
    bundle: Path
    stored: records.StoredRecord

    async def grant(self, **options) -> consents.Granted:
        wanted = {"purpose": "TREAT", "category": "general", "until_ms": LATE_MS} | options
        return await consents.grant(self.patient, wanted.pop("grantee", self.lee.public), **wanted)

    async def read(self, reader: Wallet, name: str) -> bytes:
        await records.get_record(reader, self.stored.record, self.folder / name)
        return (self.folder / name).read_bytes()


async def begin(net, folder: Path) -> Story:
    bundle = folder / "bundle.json"
    bundle.write_text(json.dumps({"resourceType": "Bundle", "entry": ["plaintext of Jane Doe " + secrets.token_hex(8)] * 50}))
    patient, lee, kim = identity("patient"), identity("clinician"), identity("clinician")
    registered = await people.register_patient(net.hospital("a"), patient)
    await people.credential_clinician(net.hospital("b"), lee, "physician", "cardiology", LATE_MS)
    await people.credential_clinician(net.hospital("c"), kim, "physician", "emergency", LATE_MS)
    stored = await records.put_record(net.hospital("a"), bundle, pseudonym=registered.pseudonym, category="general")
    return Story(
        net, folder, net.wallet(patient, "a"), registered.pseudonym, net.wallet(lee, "b"), net.wallet(kim, "c"), bundle, stored
    )


async def refused(awaitable) -> str:
    with pytest.raises(Rejected) as raised:
        await awaitable
    return raised.value.code


async def test_the_main_story(network, tmp_path):
    async with network() as net:
        story = await begin(net, tmp_path)
        record = story.stored.record
        assert story.stored.kind == "fhir-bundle" and story.stored.version == 1

        denied = await access.request_access(story.lee, record, "TREAT")
        assert (denied.is_permit, denied.code, denied.permit) == (False, "consent.none", b"")
        assert await refused(records.get_record(story.lee, record, tmp_path / "early.json")) == "client.no-permit"

        granted = await story.grant()
        assert (await consents.explain(net.client("b"), story.lee.public, record, "TREAT"))["permit"] is True
        permitted = await access.request_access(story.lee, record, "TREAT")
        assert permitted.is_permit and permitted.consent == granted.consent and permitted.versions == (1,)
        steps = []
        read = await records.get_record(story.lee, record, tmp_path / "copy.json", progress=lambda *step: steps.append(step))
        assert (tmp_path / "copy.json").read_bytes() == story.bundle.read_bytes()
        assert read.plaintext_bytes == story.bundle.stat().st_size and read.receipt_height is not None
        assert {step[0] for step in steps} == {records.FETCH, records.DOWNLOAD, records.OPEN}

        await consents.revoke(story.patient, granted.consent)
        assert [row["status"] for row in await consents.list_consents(net.client("a"), story.pseudonym)] == ["revoked"]
        assert (await access.request_access(story.lee, record, "TREAT")).code == "consent.revoked"
        assert await refused(records.get_record(story.lee, record, tmp_path / "late.json")) == "consent.revoked"

        emergency = await access.declare_emergency(story.kim, record, "UNCONSCIOUS")
        assert emergency.is_permit and emergency.consent == b""
        assert await story.read(story.kim, "kim.json") == story.bundle.read_bytes()
        await access.review(net.hospital("a"), emergency.permit, "justified")

        trail = await access.read_trail(story.patient, story.pseudonym)
        kinds = [event.kind for event in trail.events if event.kind not in ("epochs.interim", "records.confirm_custody")]
        assert kinds == [
            "people.register_patient", "records.register", "access.denial", "consents.grant", "access.permit", "access.release",
            "access.receipt", "consents.revoke", "access.denial", "access.emergency", "access.release", "access.receipt",
            "access.review", "access.read_trail",
        ]  # fmt: skip
        assert trail.count == len(trail.events) and trail.events[-1].fields == {"reader": story.patient.public}
        assert sorted(os.listdir(tmp_path)) == ["a", "b", "bundle.json", "c", "copy.json", "d", "kim.json"]


async def test_no_plaintext_and_no_name_reaches_a_node(network, tmp_path):
    async with network() as net:
        story = await begin(net, tmp_path)
        await story.grant()
        await access.request_access(story.lee, story.stored.record, "TREAT")
        await story.read(story.lee, "copy.json")
        bodies = b"".join(body for member in net.members.values() for body in member.bodies)
        files = b"".join(path.read_bytes() for name in "abcd" for path in (tmp_path / name).rglob("*") if path.is_file())
    assert len(bodies) > 1000 and len(files) > 1000
    for text in (b"Jane Doe", b"plaintext of", b"resourceType", b"bundle.json"):
        assert text not in bodies and text.hex().encode() not in bodies and text not in files


async def test_a_large_file_of_any_kind_is_read_back_the_same(network, tmp_path):
    async with network() as net:
        story = await begin(net, tmp_path)
        scan = tmp_path / "scan.dcm"
        scan.write_bytes(secrets.token_bytes(5 * 1024 * 1024 + 3))
        steps = []
        stored = await records.put_record(
            net.hospital("a"), scan, pseudonym=story.pseudonym, category="imaging", progress=lambda *step: steps.append(step)
        )
        assert stored.kind == "file"
        assert [step for step, _, _ in steps if step == records.SEAL] and steps[-1] == (records.UPLOAD, steps[-1][2], steps[-1][2])
        await story.grant(category="imaging", grantee=net.members["b"].identity.signing.public)
        assert (await access.request_access(story.lee, stored.record, "TREAT")).is_permit
        read = await records.get_record(story.lee, stored.record, tmp_path / "copy.dcm")
        assert (tmp_path / "copy.dcm").read_bytes() == scan.read_bytes() and read.kind == "file"
        rows = await records.list_records(net.client("d"), story.pseudonym)
        assert [row["record"] for row in rows] == [story.stored.record.hex(), stored.record.hex()]


async def test_an_empty_file_is_a_record_too(network, tmp_path):
    async with network() as net:
        story = await begin(net, tmp_path)
        (tmp_path / "empty").write_bytes(b"")
        stored = await records.put_record(net.hospital("a"), tmp_path / "empty", pseudonym=story.pseudonym, category="general")
        await story.grant()
        await access.request_access(story.lee, stored.record, "TREAT")
        await records.get_record(story.lee, stored.record, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b""


async def test_an_amended_record_is_read_in_its_newest_version(network, tmp_path):
    async with network() as net:
        story = await begin(net, tmp_path)
        second = tmp_path / "second.json"
        second.write_text('{"resourceType":"Bundle","id":"second"}')
        stored = await records.put_record(
            net.hospital("a"), second, pseudonym=story.pseudonym, category="general", record=story.stored.record
        )
        assert (stored.record, stored.version) == (story.stored.record, 2)
        await story.grant()
        assert (await access.request_access(story.lee, stored.record, "TREAT")).versions == (2,)
        assert await story.read(story.lee, "copy.json") == second.read_bytes()
        facts = await records.proven_record(net.client("b"), stored.record, 1)
        assert facts.version_row.root == story.stored.root
        assert await refused(records.proven_record(net.client("b"), stored.record, 3)) == "records.version-unknown"
        assert await refused(records.proven_record(net.client("b"), bytes(32))) == "records.unknown"
        kinds = [event["kind"] for event in await records.record_history(net.client("c"), stored.record)]
        assert kinds[0] == "records.register" and "records.amend" in kinds


async def test_a_clinician_of_the_hospital_may_be_the_author(network, tmp_path):
    async with network() as net:
        story = await begin(net, tmp_path)
        author = identity("clinician")
        await people.credential_clinician(net.hospital("a"), author, "physician", "general", LATE_MS)
        stored = await records.put_record(net.wallet(author, "a"), story.bundle, pseudonym=story.pseudonym, category="general")
        facts = await records.proven_record(net.client("a"), stored.record)
        assert facts.version_row.author == author.signing.public
        stranger = net.wallet(story.lee.identity, "a")
        assert await refused(records.put_record(stranger, story.bundle, pseudonym=story.pseudonym, category="general")) == "custody.author"


async def test_what_cannot_be_put_is_refused_before_anything_is_uploaded(network, tmp_path):
    async with network() as net:
        story = await begin(net, tmp_path)
        hospital, options = net.hospital("a"), {"pseudonym": story.pseudonym, "category": "general"}
        (tmp_path / "broken.json").write_text("{")
        before = net.members["a"].blobs.roots()
        assert await refused(records.put_record(hospital, tmp_path / "broken.json", **options)) == "client.not-fhir"
        assert await refused(records.put_record(hospital, tmp_path / "absent", **options)) == "client.unreadable-file"
        unknown = {**options, "pseudonym": bytes(32)}
        assert await refused(records.put_record(hospital, story.bundle, **unknown)) == "people.patient-unknown"
        assert net.members["a"].blobs.roots() == before
        await records.put_record(hospital, tmp_path / "broken.json", kind="file", **options)
        with pytest.raises((Malformed, Rejected)):
            await records.put_record(hospital, story.bundle, pseudonym=story.pseudonym, category="a whole sentence")


async def test_another_hospital_cannot_take_the_record_into_custody(network, tmp_path):
    async with network() as net:
        story = await begin(net, tmp_path)
        code = await refused(records.put_record(net.hospital("b"), story.bundle, pseudonym=story.pseudonym, category="general"))
        assert code == "custody.not-custodian"


async def test_a_permit_is_good_for_its_reader_and_record_only(network, tmp_path):
    async with network() as net:
        story = await begin(net, tmp_path)
        await story.grant()
        permitted = await access.request_access(story.lee, story.stored.record, "TREAT")
        output = tmp_path / "copy.json"
        kim_at_c = records.get_record(story.kim, story.stored.record, output, permit=permitted.permit)
        assert await refused(kim_at_c) == "client.no-permit"
        other = await records.put_record(net.hospital("a"), story.bundle, pseudonym=story.pseudonym, category="general")
        assert await refused(records.get_record(story.lee, other.record, output, permit=permitted.permit)) == "client.no-permit"
        assert await refused(find_permit(net.client("b"), story.lee.public, story.stored.record, bytes(32))) == "access.permit-unknown"
        assert not output.exists()


async def test_a_second_reading_under_a_permit_needs_no_second_receipt(network, tmp_path):
    async with network() as net:
        story = await begin(net, tmp_path)
        await story.grant()
        await access.request_access(story.lee, story.stored.record, "TREAT")
        first = await records.get_record(story.lee, story.stored.record, tmp_path / "one.json")
        second = await records.get_record(story.lee, story.stored.record, tmp_path / "two.json")
        assert first.receipt_height is not None and second.receipt_height is None
        assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
        assert await refused(records.get_record(story.lee, story.stored.record, tmp_path / "two.json")) == "client.output-exists"


async def test_the_newest_standing_permit_is_found_among_many_events(network, tmp_path, monkeypatch):
    from medchain.client import permits

    monkeypatch.setattr(permits, "PAGE_MAX", 3)
    async with network() as net:
        story = await begin(net, tmp_path)
        await story.grant()
        wanted = await access.request_access(story.lee, story.stored.record, "TREAT")
        await asyncio.gather(*[access.request_access(story.kim, story.stored.record, "TREAT") for _ in range(8)])
        found = await find_permit(net.client("b"), story.lee.public, story.stored.record)
        assert found.permit == wanted.permit and not found.is_read
        again = await access.request_access(story.lee, story.stored.record, "TREAT")
        assert (await find_permit(net.client("b"), story.lee.public, story.stored.record)).permit == again.permit


async def test_denials_carry_their_code_and_are_on_the_trail(network, tmp_path):
    async with network() as net:
        story = await begin(net, tmp_path)
        await story.grant(purpose="HPAYMT")
        record = story.stored.record
        assert (await access.request_access(story.lee, record, "TREAT")).code == "consent.purpose"
        assert (await access.request_access(story.lee, record, "TREAT", "nurse")).code == "credential.role"
        await people.revoke_credential(net.hospital("b"), story.lee.public)
        assert (await access.request_access(story.lee, record, "HPAYMT")).code == "credential.revoked"
        assert (await access.declare_emergency(story.lee, record, "DISASTER")).code == "credential.revoked"
        assert await refused(access.request_access(net.wallet(identity("clinician"), "b"), record, "TREAT")) == "people.clinician-unknown"
        assert await refused(access.request_access(story.kim, bytes(32), "TREAT")) == "records.unknown"
        trail = await access.prove_trail(net.client("d"), record)
        codes = [event.fields["code"] for event in trail.events if event.kind == "access.denial"]
        assert codes == ["consent.purpose", "credential.role", "credential.revoked", "credential.revoked"]


async def test_only_the_entitled_read_a_trail(network, tmp_path):
    async with network() as net:
        story = await begin(net, tmp_path)
        assert await refused(access.read_trail(story.lee, story.pseudonym)) == "access.not-entitled"
        assert await refused(access.read_trail(story.patient, bytes(32))) == "access.subject-unknown"
        trail = await access.read_trail(net.hospital("a"), story.stored.record)
        assert trail.events[-1].kind == "access.read_trail"


async def test_a_node_that_hides_or_changes_an_event_is_found_out(network, tmp_path, monkeypatch):
    async with network() as net:
        story = await begin(net, tmp_path)
        client = net.client("a")
        honest = client.call

        def lying(change):
            async def call(method, /, **params):
                answer = await honest(method, **params)
                return change(answer) if method == "access.trail" else answer

            return call

        def hide(answer):
            rows = [row for row in answer["events"] if row["index"] != 1]
            return {**answer, "events": [{**row, "index": index} for index, row in enumerate(rows)]}

        def swap(answer):
            first, second, *rest = answer["events"]
            return {**answer, "events": [{**second, "index": 0}, {**first, "index": 1}, *rest]}

        def move(answer):
            return {**answer, "events": [{**row, "height": row["height"] + 1} for row in answer["events"]]}

        def invent(answer):
            return {**answer, "events": [{**row, "event": answer["events"][0]["event"]} for row in answer["events"]]}

        for change in (hide, swap, move, invent):
            monkeypatch.setattr(client, "call", lying(change))
            assert await refused(access.prove_trail(client, story.pseudonym)) == "client.false-answer"
        monkeypatch.setattr(client, "call", honest)
        assert (await access.prove_trail(client, story.pseudonym)).count >= 3


async def test_a_long_trail_is_read_page_by_page_while_it_grows(network, tmp_path, monkeypatch):
    monkeypatch.setattr(access, "PAGE_MAX", 4)
    async with network() as net:
        story = await begin(net, tmp_path)

        async def grow() -> None:
            for _ in range(10):
                await access.request_access(story.kim, story.stored.record, "TREAT")

        growing = asyncio.ensure_future(grow())
        counts = [(await access.prove_trail(net.client("a"), story.stored.record)).count for _ in range(10)]
        await growing
        assert counts == sorted(counts)
        assert (await access.prove_trail(net.client("a"), story.stored.record)).count >= 12
        assert (await access.prove_trail(net.client("a"), bytes(32))).count == 0


async def test_nothing_appears_when_the_ciphertext_was_damaged(network, tmp_path, monkeypatch):
    async with network() as net:
        story = await begin(net, tmp_path)
        await story.grant()
        await access.request_access(story.lee, story.stored.record, "TREAT")

        async def damaged(client, root, sink, bytes_max, progress=None):
            total = await honest(client, root, sink, bytes_max, progress)
            sink.seek(total - 40)
            sink.write(b"\x00")
            return total

        honest = records.download_into
        monkeypatch.setattr(records, "download_into", damaged)
        with pytest.raises(Malformed, match="damaged"):
            await records.get_record(story.lee, story.stored.record, tmp_path / "copy.json")
        assert not (tmp_path / "copy.json").exists()


async def test_a_release_for_something_else_is_not_opened(network, tmp_path, monkeypatch):
    async with network() as net:
        story = await begin(net, tmp_path)
        await story.grant()
        permitted = await access.request_access(story.lee, story.stored.record, "TREAT")
        client = net.client("b")
        honest = client.call

        async def call(method, /, **params):
            answer = await honest(method, **params)
            if method == "records.release":
                release = bytearray.fromhex(answer["release"])
                release[-1] ^= 1
                return {"release": release.hex()}
            return answer

        monkeypatch.setattr(client, "call", call)
        output = tmp_path / "copy.json"
        assert await refused(records.get_record(story.lee, story.stored.record, output, permit=permitted.permit)) == "client.false-answer"
        assert not output.exists()


async def test_a_reading_is_confirmed_before_the_plaintext_appears(network, tmp_path, monkeypatch):
    async with network() as net:
        story = await begin(net, tmp_path)
        await story.grant()
        await access.request_access(story.lee, story.stored.record, "TREAT")

        async def fail(*_, **__):
            raise Rejected("access.not-released", "no receipt")

        monkeypatch.setattr(records, "confirm_reading", fail)
        assert await refused(records.get_record(story.lee, story.stored.record, tmp_path / "copy.json")) == "access.not-released"
        assert not (tmp_path / "copy.json").exists()


async def test_a_receipt_without_a_release_is_refused(network, tmp_path):
    async with network() as net:
        story = await begin(net, tmp_path)
        await story.grant()
        permitted = await access.request_access(story.lee, story.stored.record, "TREAT")
        assert await refused(story.lee.run([access_actions.confirm_reading(permitted.permit, 1)])) == "access.not-released"


@pytest.mark.parametrize("lie", ["opening_key", "name", "patient"])
async def test_a_node_cannot_slip_its_own_key_in_for_the_custodians(network, tmp_path, monkeypatch, lie):
    async with network() as net:
        story = await begin(net, tmp_path)
        client = net.client("a")
        honest, thief = client.call, identity("hospital").public_identity()
        d = (await people.find_hospital(client, net.hospital("d").public)).organisation_key

        async def call(method, /, **params):
            answer = await honest(method, **params)
            if method == "hospitals.list" and lie == "opening_key":
                return {"hospitals": [{**row, "opening_key": thief.opening_public.hex()} for row in answer["hospitals"]]}
            if method == "hospitals.list" and lie == "name":
                return {"hospitals": [{**row, "name": "Hospital Z" if row["organisation_key"] == d.hex() else row["name"]}
                                      for row in answer["hospitals"]]}  # fmt: skip
            if method == "people.patient" and lie == "patient":
                return {**answer, "hospital": d.hex()}
            return answer

        sealed_to = []
        make = records.make_put_request

        def watched(network, request, author, data_key, suite, opening_key):
            sealed_to.append(opening_key)
            return make(network, request, author, data_key, suite, opening_key)

        monkeypatch.setattr(client, "call", call)
        monkeypatch.setattr(records, "make_put_request", watched)
        if lie == "name":
            assert await refused(people.find_hospital(client, "Hospital Z")) == "client.false-answer"
            return
        try:
            await records.put_record(net.hospital("a"), story.bundle, pseudonym=story.pseudonym, category="general")
        except Rejected as refusal:
            assert refusal.code == "client.false-answer"
        assert set(sealed_to) <= {net.hospital("a").identity.opening.public}


async def test_a_custodian_that_anchors_the_content_of_another_record_is_found_out(network, tmp_path, monkeypatch):
    async with network() as net:
        story = await begin(net, tmp_path)
        await story.grant()
        await access.request_access(story.lee, story.stored.record, "TREAT")
        honest = records.open_stream

        def of_another(*arguments, **options):
            return replace(honest(*arguments, **options), record=bytes(32))

        monkeypatch.setattr(records, "open_stream", of_another)
        assert await refused(records.get_record(story.lee, story.stored.record, tmp_path / "copy.json")) == "client.false-answer"
        assert not (tmp_path / "copy.json").exists()
