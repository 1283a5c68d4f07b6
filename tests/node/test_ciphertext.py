"""Who gets ciphertext from a vault, on whole engines: designated holders, and hospitals with a live permit of their own."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from medchain.actions.access import request_access
from medchain.actions.records import confirm_custody
from medchain.ledger.consents import Revoke
from tests.node.custody_world import (
    House,
    Sealed,
    asked,
    fixed,
    holders_of,
    open_by,
    refusal,
    strange_to_b,
    stranger_of,
    until,
)

pytestmark = pytest.mark.asyncio


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
