"""The custodian on whole engines: real chain, real files, real sealing, real sockets between the hospitals.

Here the whole way, and taking into custody; test_releasing.py, test_ciphertext.py and test_replicas.py have the rest.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from medchain.actions.access import confirm_reading
from medchain.chain.domain import Domain
from medchain.crypto.sealing import SUITE_HYBRID, OpeningKey, unwrap_key
from medchain.errors import Malformed, Unavailable
from medchain.ledger.consents import Revoke
from medchain.ledger.people import RevokeCredential
from medchain.vault.wraps import WrapStore
from medchain.wire.custody import Release
from tests.node.custody_world import (
    Sealed,
    asked,
    fixed,
    identity,
    open_by,
    permitted,
    refusal,
)

pytestmark = pytest.mark.asyncio


# ---- the whole way --------------------------------------------------------------------------------------------------------------


async def test_record_goes_into_custody_and_comes_out_to_the_permitted_reader_byte_for_byte(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        answer = await sealed.put()
        assert (answer["record"], answer["version"], answer["root"]) == (sealed.record, 1, sealed.root)
        row = await world.d.query("records.get", record=sealed.record)
        assert row["custodian"] == world.a.organisation and row["versions"][0]["holders"] == [world.a.organisation]
        assert row["versions"][0]["from_height"] == answer["height"]
        head = await world.b.query("epochs.head", pseudonym=world.pseudonym, category="general")
        assert (head["number"], head["is_interim"]) == (1, True)
        await world.grant()
        permit = await world.ask(sealed.record)
        facts = await world.b.custodian.fetch(sealed.record, 1)
        assert facts == {"root": sealed.root, "sealed_bytes": len(sealed.bytes), "received_bytes": len(sealed.bytes), "is_complete": True}
        release = await world.b.custodian.release(asked(world, permit))
        assert await open_by(world, world.lee, release, permit, sealed) == sealed.plaintext
        assert world.b.blobs.path(sealed.root).read_bytes() == sealed.bytes
        await world.settle(world.lee, confirm_reading(permit, 1), at=world.b)
        trail = await world.c.query("records.history", record=sealed.record, first=0, count=64)
        kinds = [event["kind"] for event in trail["events"]]
        assert kinds == ["records.register", "records.confirm_custody", "access.permit", "access.release", "access.receipt"]


async def test_nothing_on_any_disk_is_a_key_or_plaintext(with_world):
    async with with_world() as world:
        sealed, _, permit = await permitted(world)
        await world.b.custodian.fetch(sealed.record, 1)
        release = await world.b.custodian.release(asked(world, permit))
        permit_key = world.lee.opening.open(Release.decode(release).sealed_permit_key, info=Release.decode(release).info.encode())
        epoch = world.a.wraps.epoch_key(world.pseudonym, "general", 1)
        assert unwrap_key(permit_key, Release.decode(release).wrapped_data_key) == sealed.key
        for house in world.houses:
            found = house.everything_on_disk() + b"".join(value for _, value in house.node.store.iterate(b"", b"\xff" * 64))
            for secret in (sealed.key, epoch.key, permit_key, sealed.plaintext[:32], house.identity.opening.private_bytes()):
                assert secret not in found and secret.hex().encode() not in found
        assert sealed.key not in release


async def test_all_disks_without_an_unlocked_key_open_nothing(with_world, tmp_path):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        thief = WrapStore(world.a.folder / "wraps", OpeningKey.generate(SUITE_HYBRID), world.network)
        with pytest.raises(Malformed):
            thief.epoch_key(world.pseudonym, "general", 1)


async def test_clinician_of_the_custodian_may_author(with_world):
    async with with_world() as world:
        author = identity("clinician", "author")
        await world.credential(author, world.a, "nurse")
        sealed = Sealed(world)
        await sealed.upload(world.a.blobs)
        answer = await world.a.custodian.put(sealed.request(author).encode())
        assert answer["version"] == 1
        await world.settle(world.a.identity, RevokeCredential(author.signing.public).operation())
        later = Sealed(world, version=2, record=sealed.record)
        await later.upload(world.a.blobs)
        assert await refusal(world.a.custodian.put(later.request(author).encode())) == "custody.author"


# ---- taking into custody: refusals and retries ----------------------------------------------------------------------------------


async def test_put_refuses_by_code_and_leaves_the_state_as_it_was(with_world):
    async with with_world() as world:
        sealed, other = Sealed(world), Sealed(world, "other")
        put = world.a.custodian.put
        root = world.a.node.engine.head.state_root
        assert await refusal(put(sealed.request().encode())) == "custody.blob-missing"
        await sealed.upload(world.a.blobs)
        unsigned = replace(sealed.request(), coarse_date=202612).encode()
        assert await refusal(put(unsigned)) == "custody.signature"
        assert await refusal(put(sealed.request(network=Domain(bytes(32))).encode())) == "custody.signature"
        for stranger in (identity("clinician", "nobody"), world.lee, world.b.identity, world.ann):
            assert await refusal(put(sealed.request(stranger).encode())) == "custody.author"
        assert await refusal(put(sealed.request(segment_count=5).encode())) == "custody.blob-differs"
        assert await refusal(put(sealed.request(size_class=10).encode())) == "custody.blob-differs"
        assert await refusal(put(sealed.request(record=other.record).encode())) == "custody.blob-differs"
        assert await refusal(put(sealed.request(version=2).encode())) == "custody.version-order"
        assert await refusal(put(sealed.request(pseudonym=fixed("nobody")).encode())) == "people.patient-unknown"
        assert await refusal(world.b.custodian.put(sealed.request().encode())) == "custody.not-custodian"
        assert world.a.node.engine.head.state_root == root
        assert not (world.a.folder / "wraps" / "epochs").exists() or not any((world.a.folder / "wraps" / "epochs").iterdir())


async def test_put_refuses_bytes_that_are_no_request(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.upload(world.a.blobs)
        whole = sealed.request().encode()
        hostile = [b"", b"\xc1", whole[:-1], whole + b"\0", b"\x90" * 20_000]
        hostile += [sealed.request(coarse_date=202613).encode(), sealed.request(label_tokens=(b"\2" * 32, b"\1" * 32)).encode()]
        hostile += [sealed.request(kind="two words").encode(), sealed.request(size_class=60).encode()]
        hostile.append(sealed.request(version=0).encode())
        hostile += [sealed.request(key=b"\1" * 32).encode(), sealed.request(key=b"short").encode()]  # opens, but is not the blob's key
        sealed_elsewhere = replace(sealed.request(), sealed_key=Sealed(world, "other").request().sealed_key)
        hostile.append(sealed_elsewhere.signed(world.network, world.a.identity.signing).encode())
        for data in hostile:
            assert await refusal(world.a.custodian.put(data), Malformed) == "malformed"


async def test_same_put_again_changes_nothing(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        first = await sealed.put()
        height = world.a.node.height
        assert await world.a.custodian.put(sealed.request().encode()) == first
        assert world.a.node.height == height
        assert (await world.a.query("records.get", record=sealed.record))["version"] == 1


async def test_same_put_twice_at_once_registers_once(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.upload(world.a.blobs)
        requests = [world.a.custodian.put(sealed.request().encode()) for _ in range(3)]
        answers = await asyncio.gather(*requests)
        assert answers[0] == answers[1] == answers[2]
        assert (await world.a.query("records.history", record=sealed.record, first=0, count=9))["count"] == 2


async def test_puts_of_one_patient_at_once_share_an_epoch(with_world):
    async with with_world() as world:
        many = [Sealed(world, f"record {index}", length=100) for index in range(4)]
        await asyncio.gather(*(sealed.put() for sealed in many))
        epochs = {(await world.a.query("records.get", record=sealed.record))["versions"][0]["epoch"] for sealed in many}
        assert epochs == {1}


async def test_put_that_was_decided_after_its_asker_gave_up_is_found_on_the_next_try(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.upload(world.a.blobs)
        world.patience_ms = 0
        with pytest.raises(Unavailable):
            await world.a.custodian.put(sealed.request().encode())
        world.patience_ms = 20_000
        answer = await world.a.custodian.put(sealed.request().encode())
        row = await world.a.query("records.get", record=sealed.record)
        assert row["versions"][0]["from_height"] == answer["height"] and row["version"] == 1
        await world.grant()
        permit = await world.ask(sealed.record)
        release = await world.b.custodian.release(asked(world, permit))
        assert await open_by(world, world.lee, release, permit, sealed) == sealed.plaintext


async def test_epoch_key_is_durable_before_its_check_value_goes_on_chain(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.upload(world.a.blobs)
        submitted = []
        submit = world.a.submit

        async def looking(transaction):
            again = WrapStore(world.a.folder / "wraps", world.a.identity.opening, world.network)  # what a restart would find
            operations = transaction.body.operations
            assert [operation.kind for operation in operations] == ["epochs.interim", "records.register", "records.confirm_custody"]
            epoch = again.epoch_key(world.pseudonym, "general", 1)
            assert epoch.is_of(world.network, operations[0].payload[3])
            wrap = again.wrap(sealed.record, 1, operations[1].payload[-1])
            assert again.data_key(epoch, wrap) == sealed.key
            submitted.append(transaction)
            return await submit(transaction)

        world.a.submit = looking
        await world.a.custodian.put(sealed.request().encode())
        assert len(submitted) == 1


async def test_crash_after_the_epoch_key_was_stored_leaves_nothing_in_the_way(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.upload(world.a.blobs)
        submit = world.a.submit

        async def crash(transaction):
            raise Unavailable("the process dies here")

        world.a.submit = crash
        with pytest.raises(Unavailable):
            await world.a.custodian.put(sealed.request().encode())
        world.a.submit = submit
        world.a.make()
        await world.a.custodian.put(sealed.request().encode())
        head = await world.a.query("epochs.head", pseudonym=world.pseudonym, category="general")
        assert head["number"] == 1 and world.a.wraps.epoch_key(world.pseudonym, "general", 1).is_of(world.network, head["check_value"])


async def test_version_after_a_revocation_is_sealed_under_a_new_epoch(with_world):
    async with with_world() as world:
        first = Sealed(world)
        await first.put()
        consent = await world.grant()
        second = Sealed(world, version=2, record=first.record)
        await second.put()
        await world.settle(world.ann, Revoke(consent).operation())
        third = Sealed(world, version=3, record=first.record)
        await third.put()
        versions = (await world.a.query("records.get", record=first.record))["versions"]
        assert [version["epoch"] for version in versions] == [1, 1, 2]
        await world.grant()
        permit = await world.ask(first.record)
        release = await world.b.custodian.release(asked(world, permit))
        assert await open_by(world, world.lee, release, permit, third, epoch=2) == third.plaintext


async def test_revocation_between_reading_the_epoch_and_the_block_makes_the_put_anew(with_world):
    async with with_world() as world:
        first = Sealed(world)
        await first.put()
        consent = await world.grant()
        second = Sealed(world, version=2, record=first.record)
        await second.upload(world.a.blobs)
        submit, revoked = world.a.submit, []

        async def late(transaction):
            if not revoked:
                revoked.append(await world.settle(world.ann, Revoke(consent).operation(), at=world.d))
            return await submit(transaction)

        world.a.submit = late
        await world.a.custodian.put(second.request().encode())
        versions = (await world.a.query("records.get", record=first.record))["versions"]
        assert [version["epoch"] for version in versions] == [1, 2]


async def test_lost_epoch_key_does_not_stop_the_hospital_from_sealing(with_world):
    async with with_world() as world:
        first = Sealed(world)
        await first.put()
        world.a.wraps.shred_epoch_key(world.pseudonym, "general", 1)
        second = Sealed(world, version=2, record=first.record)
        await second.put()
        versions = (await world.a.query("records.get", record=first.record))["versions"]
        assert [version["epoch"] for version in versions] == [1, 2]


async def test_record_id_version_and_patient_cannot_be_taken_over(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        put = world.a.custodian.put
        rival = Sealed(world, "rival", record=sealed.record)
        await rival.upload(world.a.blobs)
        assert await refusal(put(rival.request().encode())) == "custody.version-taken"
        bob = identity("patient", "bob")
        pseudonym = await world.register_patient(bob)
        assert await refusal(put(rival.request(pseudonym=pseudonym, version=2).encode())) == "custody.record-differs"
        assert await refusal(put(rival.request(category="psy", version=2).encode())) == "custody.record-differs"
        assert await refusal(put(rival.request(version=3).encode())) == "custody.version-order"
        assert await refusal(world.b.custodian.put(rival.request(version=2).encode())) == "custody.not-custodian"
