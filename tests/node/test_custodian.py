"""The custodian on whole engines: real chain, real files, real sealing, real sockets between the hospitals."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace

import pytest

from medchain.actions.access import confirm_reading, declare_emergency, request_access, review_emergency
from medchain.actions.custody import make_release_request
from medchain.actions.records import confirm_custody
from medchain.chain.domain import Domain
from medchain.chain.transaction import Transaction, TransactionBody
from medchain.crypto.sealing import SUITE_HYBRID, OpeningKey, unwrap_key
from medchain.errors import Malformed, Unavailable
from medchain.ledger.consents import HOSPITAL, Grant, Revoke
from medchain.ledger.people import RevokeCredential
from medchain.vault.wraps import WrapStore
from medchain.wire.custody import Release
from tests.node.custody_world import (
    House,
    Sealed,
    asked,
    fixed,
    holders_of,
    identity,
    making,
    open_by,
    refusal,
    strange_to_b,
    stranger_of,
    until,
)

pytestmark = pytest.mark.asyncio


@pytest.fixture
def with_world(tmp_path, monkeypatch):
    """A world for the body of one test: `async with with_world() as world`."""
    return lambda: making(tmp_path, monkeypatch)


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
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
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


# ---- releasing ------------------------------------------------------------------------------------------------------------------


async def test_release_is_refused_by_code(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        for house in (world.a, world.b):
            release = house.custodian.release
            assert await refusal(release(asked(world, fixed("no permit")))) == "access.permit-unknown"
            assert await refusal(release(asked(world, permit, world.kim))) == "custody.not-reader"
            forged = make_release_request(Domain(bytes(32)), permit, world.lee.signing, bytes(32)).encode()
            assert await refusal(release(forged)) == "custody.signature"
            for data in (b"", b"\xc0", forged[:-1], b"\x91" * 20_000):
                assert await refusal(release(data), Malformed) == "malformed"
        assert (await world.a.query("access.permit", permit=permit))["releases"] == 0


async def test_nothing_is_released_after_the_revocation(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        consent = await world.grant()
        permit = await world.ask(sealed.record)
        await world.b.custodian.fetch(sealed.record, 1)
        again = asked(world, permit)
        await world.b.custodian.release(again)
        await world.settle(world.ann, Revoke(consent).operation())
        for house in (world.a, world.b):
            assert await refusal(house.custodian.release(asked(world, permit))) == "consent.revoked"
            assert await refusal(house.custodian.release(again)) == "consent.revoked"  # not even the answer given before
        assert await refusal(world.b.custodian.fetch(sealed.record, 1)) == "custody.not-permitted"
        assert (await world.a.query("access.permit", permit=permit))["releases"] == 1


async def test_revocation_decided_before_the_announcement_wins(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        consent = await world.grant()
        permit = await world.ask(sealed.record)
        submit, revoked = world.a.submit, []

        async def late(transaction):
            if not revoked:
                revoked.append(await world.settle(world.ann, Revoke(consent).operation(), at=world.d))
            return await submit(transaction)

        world.a.submit = late
        assert await refusal(world.a.custodian.release(asked(world, permit))) == "consent.revoked"


async def test_revocation_decided_while_the_announcement_became_final_wins(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        consent = await world.grant()
        permit = await world.ask(sealed.record)
        wait = world.a.wait

        async def slow(transaction_id, timeout_ms):
            status = await wait(transaction_id, timeout_ms)
            world.a.wait = wait
            await world.settle(world.ann, Revoke(consent).operation(), at=world.d)
            return status

        world.a.wait = slow
        assert await refusal(world.a.custodian.release(asked(world, permit))) == "consent.revoked"


async def test_key_leaves_only_after_the_announcement_is_final(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        world.patience_ms = 0
        with pytest.raises(Unavailable):
            await world.a.custodian.release(asked(world, permit))
        world.patience_ms = 20_000
        release = await world.a.custodian.release(asked(world, permit))
        assert await open_by(world, world.lee, release, permit, sealed) == sealed.plaintext
        events = (await world.a.query("records.history", record=sealed.record, first=0, count=64))["events"]
        assert [event["kind"] for event in events].count("access.release") >= 1


async def test_cut_off_custodian_releases_and_serves_nothing(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        await world.b.custodian.fetch(sealed.record, 1)
        world.clock_ahead_ms = 2 * 30_000 + 20_000
        for house in (world.a, world.b):
            assert await refusal(house.custodian.release(asked(world, permit))) == "custody.head-old"
        assert await refusal(world.b.custodian.fetch(sealed.record, 1)) == "custody.head-old"
        serving = world.a.custodian.may_serve(stranger_of(world, sealed).key, sealed.root, sealed.record, 1)
        assert await refusal(serving) == "custody.head-old"


async def test_same_release_request_again_is_answered_without_counting_twice(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        request = asked(world, permit)
        answers = await asyncio.gather(*(world.b.custodian.release(request) for _ in range(3)))
        assert answers[0] == answers[1] == answers[2]
        assert (await world.a.query("access.permit", permit=permit))["releases"] == 1
        await world.b.custodian.release(asked(world, permit))
        assert (await world.a.query("access.permit", permit=permit))["releases"] == 2


async def test_releases_are_counted_and_end(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        for _ in range(16):
            last = asked(world, permit)
            release = await world.a.custodian.release(last)
        assert await open_by(world, world.lee, release, permit, sealed) == sealed.plaintext
        assert await refusal(world.a.custodian.release(asked(world, permit))) == "access.releases-used-up"
        assert await world.a.custodian.release(last) == release
        assert (await world.b.custodian.fetch(sealed.record, 1))["is_complete"]  # ciphertext is not counted, keys are


async def test_permit_of_an_ended_credential_opens_nothing(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        await world.settle(world.b.identity, RevokeCredential(world.lee.signing.public).operation())
        assert await refusal(world.b.custodian.release(asked(world, permit))) == "credential.revoked"


async def test_emergency_opens_and_its_unjustified_end_closes(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        (event, *_) = (await world.settle(world.kim, declare_emergency(sealed.record, "UNCONSCIOUS"), at=world.c))["events"]
        permit = event["fields"]["permit"]
        assert (await world.c.custodian.fetch(sealed.record, 1))["is_complete"]
        release = await world.c.custodian.release(asked(world, permit, world.kim))
        assert await open_by(world, world.kim, release, permit, sealed) == sealed.plaintext
        await world.settle(world.a.identity, review_emergency(permit, "unjustified"))
        assert await refusal(world.c.custodian.release(asked(world, permit, world.kim))) == "access.permit-ended"
        assert await refusal(world.c.custodian.fetch(sealed.record, 1)) == "custody.not-permitted"


async def test_lost_wrap_is_told_before_anything_is_announced(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        world.a.wraps.shred_record(sealed.record)
        assert await refusal(world.b.custodian.release(asked(world, permit))) == "custody.key-missing"
        assert (await world.a.query("access.permit", permit=permit))["releases"] == 0
        assert await refusal(world.a.custodian.put(sealed.request().encode())) == "custody.version-taken"


async def test_release_by_a_custodian_after_its_restart(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        world.a.make()
        release = await world.b.custodian.release(asked(world, permit))
        assert await open_by(world, world.lee, release, permit, sealed) == sealed.plaintext


async def test_relay_does_not_go_in_circles_and_strangers_are_turned_away(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)

        async def post(at: House, peer: bytes, data: bytes):
            url = f"http://127.0.0.1:{at.peer_port}/custody/release"
            answer = await world.session.post(url, data=data, headers={"Test-Peer": peer.hex()})
            return answer.status, (await answer.json())["error"]["code"]

        request = asked(world, permit)
        assert await post(world.c, world.b.key, request) == (403, "custody.not-custodian")
        assert await post(world.a, fixed("stranger"), request) == (403, "custody.unknown-peer")
        assert await post(world.a, world.b.key, b"\0" * 20_000) == (400, "malformed")
        assert await post(world.a, world.b.key, b"") == (400, "malformed")


async def test_unreachable_custodian_is_unavailable(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        permit = await world.ask(sealed.record)
        world.a.is_reachable = False
        with pytest.raises(Unavailable):
            await world.b.custodian.release(asked(world, permit))
        with pytest.raises(Unavailable):
            await world.b.custodian.fetch(sealed.record, 1)


async def test_custodian_that_lags_behind_waits_for_the_height_that_the_asker_saw(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        world.cluster.drop = lambda source, target, message: world.a.node in (source, target)
        body = TransactionBody(
            "test", world.lee.signing.public, 400, (request_access(sealed.record, "TREAT", "physician"),), secrets.token_bytes(8)
        )
        transaction = Transaction.sign(body, world.lee.signing, world.network)
        await world.b.submit(transaction)
        others = [house.node for house in (world.b, world.c, world.d)]
        world.cluster.run_until(lambda: world.cluster.is_decided(transaction, others))
        (event,) = (await world.b.query("tx.status", id=transaction.id))["events"]
        permit = event["fields"]["permit"]
        assert await refusal(world.a.custodian.release(asked(world, permit))) == "access.permit-unknown"
        releasing = asyncio.create_task(world.b.custodian.release(asked(world, permit)))
        await until(lambda: "POST /custody/release" in world.a.served)
        world.cluster.drop = lambda source, target, message: False

        def step() -> bool:
            world.cluster.tick()
            return releasing.done()

        await until(step)
        assert await open_by(world, world.lee, releasing.result(), permit, sealed) == sealed.plaintext


# ---- ciphertext: who may have it ------------------------------------------------------------------------------------------------


async def test_ciphertext_goes_to_designated_holders_and_permitted_hospitals_only(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        stranger = stranger_of(world, sealed)
        may_serve = world.a.custodian.may_serve
        for holder in holders_of(world, sealed.record):
            await may_serve(holder.key, sealed.root, sealed.record, 1)
        assert await refusal(may_serve(stranger.key, sealed.root, sealed.record, 1)) == "custody.not-permitted"
        assert await refusal(may_serve(fixed("nobody"), sealed.root, sealed.record, 1)) == "custody.unknown-peer"
        assert await refusal(may_serve(stranger.key, fixed("root"), sealed.record, 1)) == "custody.other-root"
        assert await refusal(may_serve(stranger.key, sealed.root, fixed("record"), 1)) == "records.unknown"
        assert await refusal(may_serve(stranger.key, sealed.root, sealed.record, 2)) == "records.version-unknown"


async def test_hospital_that_is_to_hold_nothing_gets_ciphertext_under_a_live_permit_of_its_own_only(with_world):
    async with with_world() as world:
        sealed = strange_to_b(world)
        other = Sealed(world, "other")
        await sealed.put()
        await other.put()
        consent = await world.grant()
        await world.grant(world.c)
        theirs = await world.ask(sealed.record, world.kim, at=world.c)
        elsewhere = await world.ask(other.record)
        may_serve = world.a.custodian.may_serve
        for named in (None, theirs, elsewhere, fixed("no permit")):
            assert await refusal(may_serve(world.b.key, sealed.root, sealed.record, 1, named)) == "custody.not-permitted"
        permit = await world.ask(sealed.record)
        for named in (permit, None, theirs, fixed("no permit")):
            await may_serve(world.b.key, sealed.root, sealed.record, 1, named)
        paths, opener = [], world.b.open_peer

        async def watched(peer, method, path, *, data=None, headers=None):
            paths.append(path)
            return await opener(peer, method, path, data=data, headers=headers)

        world.b.custodian.open_peer = watched
        assert (await world.b.custodian.fetch(sealed.record, 1))["is_complete"]
        assert len(paths) == 1 and paths[0].endswith(f"&permit={permit.hex()}")
        await world.settle(world.ann, Revoke(consent).operation())
        assert await refusal(may_serve(world.b.key, sealed.root, sealed.record, 1, permit)) == "custody.not-permitted"


async def test_permit_is_found_however_long_the_history_grew(with_world):
    async with with_world() as world:
        sealed = strange_to_b(world)
        await sealed.put()
        consent = await world.grant()
        await world.ask(sealed.record)
        questions = [request_access(sealed.record, "HOPERAT", "physician") for _ in range(60)]
        for _ in range(3):
            await world.settle(world.lee, *questions, at=world.b)
        await world.a.custodian.may_serve(world.b.key, sealed.root, sealed.record, 1)
        world.clock_ahead_ms = 55_000  # the head is not old yet
        await world.a.custodian.may_serve(world.b.key, sealed.root, sealed.record, 1)
        await world.settle(world.ann, Revoke(consent).operation())
        world.clock_ahead_ms = 0
        assert await refusal(world.a.custodian.may_serve(world.b.key, sealed.root, sealed.record, 1)) == "custody.not-permitted"


async def test_peer_without_a_right_gets_a_typed_refusal_and_no_byte(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        stranger = stranger_of(world, sealed)

        async def get(query: str, method: str = "GET"):
            return await stranger.open_peer(world.a.key, method, f"/blobs/{sealed.root.hex()}{query}")

        query = f"?record={sealed.record.hex()}&version=1&height=0"
        answer = await get(query)
        assert answer.status == 403 and (await answer.json())["error"]["code"] == "custody.not-permitted"
        assert (await get(query, "HEAD")).status == 403
        assert (await get(query, "PUT")).status == 405
        named = f"?record={sealed.record.hex()}"
        for bad in ("", "?record=zz&version=1", named, f"{named}&version=-1", f"{query}&permit=zz"):
            answer = await get(bad)
            assert answer.status == 400 and (await answer.json())["error"]["code"] == "malformed"


async def test_local_client_reads_a_blob_only_while_a_permit_lives(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()

        async def get(house: House):
            url = f"http://127.0.0.1:{house.client_port}/blobs/{sealed.root.hex()}"
            answer = await world.session.get(url, headers={"Range": "bytes=0-99"})
            return answer.status if answer.status < 400 else (await answer.json())["error"]["code"]

        assert await get(world.a) == "custody.not-permitted"
        assert await refusal(world.b.custodian.fetch(sealed.record, 1)) == "custody.not-permitted"
        consent = await world.grant()
        await world.ask(sealed.record)
        assert await refusal(world.c.custodian.fetch(sealed.record, 1)) == "custody.not-permitted"  # another hospital's permit
        assert await get(world.b) == "custody.not-permitted"
        await world.b.custodian.fetch(sealed.record, 1)
        assert await get(world.b) == 206
        await world.settle(world.ann, Revoke(consent).operation())
        assert await get(world.b) == "custody.not-permitted"
        assert await refusal(world.b.custodian.fetch(fixed("nothing"), 1)) == "records.unknown"
        assert await refusal(world.b.custodian.fetch(sealed.record, 9)) == "records.version-unknown"


async def test_local_client_uploads_and_registers_over_http(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        size = len(sealed.bytes)
        answer = await world.session.put(
            f"http://127.0.0.1:{world.a.client_port}/blobs/{sealed.root.hex()}",
            data=sealed.bytes,
            headers={"Content-Range": f"bytes 0-{size - 1}/{size}"},
        )
        assert answer.status == 201
        servers = world.a.custodian.servers
        assert (await servers["records.put"]({"request": sealed.request().encode()}))["root"] == sealed.root
        await world.grant()
        permit = await world.ask(sealed.record)
        assert (await world.b.custodian.servers["records.fetch"]({"record": sealed.record, "version": 1}))["is_complete"]
        answer = await world.b.custodian.servers["records.release"]({"request": asked(world, permit)})
        assert await open_by(world, world.lee, answer["release"], permit, sealed) == sealed.plaintext


async def test_fetch_tells_how_far_it_is_and_goes_on_in_the_background(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        await world.ask(sealed.record)
        gate, opener = asyncio.Event(), world.b.open_peer

        async def slow(*arguments, **options):
            await gate.wait()
            return await opener(*arguments, **options)

        world.b.custodian.open_peer = slow
        world.b.custodian._limits = replace(world.b.custodian._limits, fetch_patience_ms=1)
        facts = await world.b.custodian.fetch(sealed.record, 1)
        assert facts == {"root": sealed.root, "sealed_bytes": None, "received_bytes": 0, "is_complete": False}
        gate.set()
        await until(lambda: world.b.blobs.has(sealed.root))
        assert (await world.b.custodian.fetch(sealed.record, 1))["is_complete"]


async def test_hospital_that_claims_custody_falsely_gets_no_ciphertext(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        stranger = stranger_of(world, sealed)
        await world.settle(stranger.identity, confirm_custody(sealed.record, 1), at=stranger)
        may_serve = world.a.custodian.may_serve
        assert await refusal(may_serve(stranger.key, sealed.root, sealed.record, 1)) == "custody.not-permitted"


async def test_remembered_release_is_not_repeated_after_a_revocation_hidden_by_used_up_releases(with_world):
    async with with_world() as world:
        sealed = strange_to_b(world)
        await sealed.put()
        consent = await world.grant()
        permit = await world.ask(sealed.record)
        for _ in range(16):
            last = asked(world, permit)
            await world.a.custodian.release(last)
        await world.settle(world.ann, Revoke(consent).operation())
        assert await refusal(world.a.custodian.release(last)) == "consent.revoked"
        assert await refusal(world.a.custodian.may_serve(world.b.key, sealed.root, sealed.record, 1, permit)) == "custody.not-permitted"


async def test_remembered_release_is_not_repeated_past_the_permits_end_while_the_chain_is_idle(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        consent = Grant(HOSPITAL, world.b.organisation, "TREAT", "general", 0, world.wall() + 30_000)
        await world.settle(world.ann, consent.operation())
        permit = await world.ask(sealed.record)
        request = asked(world, permit)
        await world.a.custodian.release(request)
        world.clock_ahead_ms = 31_000  # the head, younger than two heartbeats, does not know of the end yet
        before = (await world.a.query("access.permit", permit=permit))["releases"]
        assert await refusal(world.a.custodian.release(request)) == "access.permit-expired"
        assert await refusal(world.a.custodian.release(asked(world, permit))) == "access.permit-expired"
        assert (await world.a.query("access.permit", permit=permit))["releases"] == before
