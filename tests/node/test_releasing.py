"""Releasing keys on whole engines: only under a permit that stands, announced and final before the key leaves, and counted."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from medchain.actions.access import declare_emergency, request_access, review_emergency
from medchain.actions.custody import make_release_request
from medchain.chain.domain import Domain
from medchain.chain.transaction import Transaction, TransactionBody
from medchain.errors import Malformed, Unavailable
from medchain.ledger.consents import HOSPITAL, Grant, Revoke
from medchain.ledger.people import RevokeCredential
from tests.node.custody_world import (
    House,
    Sealed,
    asked,
    fixed,
    open_by,
    permitted,
    refusal,
    strange_to_b,
    stranger_of,
    until,
)

pytestmark = pytest.mark.asyncio


async def test_release_is_refused_by_code(with_world):
    async with with_world() as world:
        _, _, permit = await permitted(world)
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
        sealed, consent, permit = await permitted(world)
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
        _, consent, permit = await permitted(world)
        submit, revoked = world.a.submit, []

        async def late(transaction):
            if not revoked:
                revoked.append(await world.settle(world.ann, Revoke(consent).operation(), at=world.d))
            return await submit(transaction)

        world.a.submit = late
        assert await refusal(world.a.custodian.release(asked(world, permit))) == "consent.revoked"


async def test_revocation_decided_while_the_announcement_became_final_wins(with_world):
    async with with_world() as world:
        _, consent, permit = await permitted(world)
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
        sealed, _, permit = await permitted(world)
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
        sealed, _, permit = await permitted(world)
        await world.b.custodian.fetch(sealed.record, 1)
        world.clock_ahead_ms = 2 * 30_000 + 20_000
        for house in (world.a, world.b):
            assert await refusal(house.custodian.release(asked(world, permit))) == "custody.head-old"
        assert await refusal(world.b.custodian.fetch(sealed.record, 1)) == "custody.head-old"
        serving = world.a.custodian.may_serve(stranger_of(world, sealed).key, sealed.root, sealed.record, 1)
        assert await refusal(serving) == "custody.head-old"


async def test_same_release_request_again_is_answered_without_counting_twice(with_world):
    async with with_world() as world:
        _, _, permit = await permitted(world)
        request = asked(world, permit)
        answers = await asyncio.gather(*(world.b.custodian.release(request) for _ in range(3)))
        assert answers[0] == answers[1] == answers[2]
        assert (await world.a.query("access.permit", permit=permit))["releases"] == 1
        await world.b.custodian.release(asked(world, permit))
        assert (await world.a.query("access.permit", permit=permit))["releases"] == 2


async def test_releases_are_counted_and_end(with_world):
    async with with_world() as world:
        sealed, _, permit = await permitted(world)
        for _ in range(16):
            last = asked(world, permit)
            release = await world.a.custodian.release(last)
        assert await open_by(world, world.lee, release, permit, sealed) == sealed.plaintext
        assert await refusal(world.a.custodian.release(asked(world, permit))) == "access.releases-used-up"
        assert await world.a.custodian.release(last) == release
        assert (await world.b.custodian.fetch(sealed.record, 1))["is_complete"]  # ciphertext is not counted, keys are


async def test_permit_of_an_ended_credential_opens_nothing(with_world):
    async with with_world() as world:
        _, _, permit = await permitted(world)
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
        sealed, _, permit = await permitted(world)
        world.a.wraps.shred_record(sealed.record)
        assert await refusal(world.b.custodian.release(asked(world, permit))) == "custody.key-missing"
        assert (await world.a.query("access.permit", permit=permit))["releases"] == 0
        assert await refusal(world.a.custodian.put(sealed.request().encode())) == "custody.version-taken"


async def test_release_by_a_custodian_after_its_restart(with_world):
    async with with_world() as world:
        sealed, _, permit = await permitted(world)
        world.a.make()
        release = await world.b.custodian.release(asked(world, permit))
        assert await open_by(world, world.lee, release, permit, sealed) == sealed.plaintext


async def test_relay_does_not_go_in_circles_and_strangers_are_turned_away(with_world):
    async with with_world() as world:
        _, _, permit = await permitted(world)

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
        sealed, _, permit = await permitted(world)
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
