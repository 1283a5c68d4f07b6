"""Replicas come by themselves, are confirmed on chain, repaired when lost, and survive liars."""

from __future__ import annotations

import os

import aiohttp
import pytest
from aiohttp import web

from medchain.errors import InvariantBroken, Malformed, Unavailable
from medchain.node.replicas import ORPHAN_MS, steady
from medchain.vault.blobs import BlobLimits
from tests.node.custody_world import (
    Sealed,
    World,
    asked,
    holders_of,
    identity,
    stranger_of,
    until,
)

pytestmark = pytest.mark.asyncio


# ---- replicas -------------------------------------------------------------------------------------------------------------------


async def replicated(world: World, sealed: Sealed) -> None:
    """Run until both designated holders have confirmed custody."""

    def step() -> bool:
        world.cluster.tick()
        state = world.cluster.nodes[0].ask("records.get", record=sealed.record)
        return {house.organisation for house in holders_of(world, sealed.record)} <= set(state["versions"][sealed.version - 1]["holders"])

    await until(step, "the replicas did not come")


async def test_two_designated_hospitals_bring_a_replica_and_confirm_it(with_world):
    async with with_world() as world:
        for house in world.houses:
            await house.custodian.start()
        sealed = Sealed(world)
        await sealed.put()
        await replicated(world, sealed)
        for house in holders_of(world, sealed.record):
            assert house.blobs.path(sealed.root).read_bytes() == sealed.bytes
        assert not stranger_of(world, sealed).blobs.has(sealed.root)
        amended = Sealed(world, version=2, record=sealed.record)
        await amended.put()
        await replicated(world, amended)
        history = await world.a.query("records.history", record=sealed.record, first=0, count=64)
        kinds = [event["kind"] for event in history["events"]]
        assert kinds.count("records.confirm_custody") == 6


async def test_scan_at_the_start_finds_what_was_registered_while_the_hospital_was_down(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        amended = Sealed(world, version=2, record=sealed.record)
        await amended.put()
        for house in holders_of(world, sealed.record):
            house.make()
            await house.custodian.start()
        await replicated(world, sealed)
        await replicated(world, amended)


async def test_replica_comes_when_the_custodian_can_be_reached_again(with_world):
    async with with_world() as world:
        world.a.is_reachable = False
        for house in world.houses:
            await house.custodian.start()
        sealed = Sealed(world)
        await sealed.put()
        holders = holders_of(world, sealed.record)
        await until(lambda: all(house.custodian.replicas.waiting for house in holders))
        assert not any(house.blobs.has(sealed.root) for house in holders)
        world.a.is_reachable = True
        await replicated(world, sealed)
        await until(lambda: not any(house.custodian.replicas.waiting for house in world.houses))


async def test_node_that_catches_up_leaves_records_alone_until_the_pause_is_over(with_world):
    async with with_world() as world:
        first, second = holders_of(world, Sealed(world).record)
        first.is_behind = True
        first.make(catching_up_pause_ms=3_600_000)
        second.make(catching_up_pause_ms=3_600_000)
        for house in (first, second):
            house.asked.clear()
            await house.custodian.start()
        sealed = Sealed(world)
        await sealed.put()
        await until(lambda: (world.cluster.tick(), second.blobs.has(sealed.root) and not second.custodian.replicas.waiting)[1])
        assert first.custodian.replicas.waiting == 1 and not first.blobs.has(sealed.root)
        assert not {"records.scan", "records.get"} & set(first.asked)
        assert second.asked.count("node.status") == 1, "one answer counts for the whole pause"


async def test_node_that_is_always_behind_brings_its_replicas_all_the_same(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        for house in holders_of(world, sealed.record):
            house.is_behind = True
            house.make(catching_up_pause_ms=1)
            await house.custodian.start()
        await replicated(world, sealed)
        amended = Sealed(world, version=2, record=sealed.record)
        await amended.put()
        await replicated(world, amended)


async def test_node_too_busy_to_say_whether_it_catches_up_brings_its_replicas_later(with_world, monkeypatch):
    async with with_world() as world:
        house = holders_of(world, Sealed(world).record)[0]
        house.make(catching_up_pause_ms=1)
        query, refused = house.query, []

        async def busy(method, **params):
            if method == "node.status" and len(refused) < 2:
                refused.append(method)
                raise Unavailable("too many questions at once", 1_000)
            return await query(method, **params)

        monkeypatch.setattr(house, "query", busy)
        await house.custodian.start()
        sealed = Sealed(world)
        await sealed.put()
        await until(lambda: (world.cluster.tick(), house.blobs.has(sealed.root))[1])
        assert refused and not house.failures


async def test_replica_comes_from_a_confirmed_holder_when_the_custodian_lost_it_and_the_custodian_repairs_itself(with_world):
    async with with_world() as world:
        first, second = holders_of(world, Sealed(world).record)
        sealed = Sealed(world)
        await sealed.put()
        await first.custodian.start()
        await until(lambda: (world.cluster.tick(), first.blobs.has(sealed.root) and not first.custodian.replicas.waiting)[1])
        world.a.blobs.remove(sealed.root)
        await second.custodian.start()
        await replicated(world, sealed)
        assert not world.a.blobs.has(sealed.root)
        await world.a.custodian.start()  # the scan of the custodian finds its own loss
        await until(lambda: world.a.blobs.has(sealed.root))


async def test_liar_cannot_poison_a_replica(with_world, monkeypatch):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        first, second = holders_of(world, sealed.record)
        await first.custodian.start()
        await until(lambda: (world.cluster.tick(), first.blobs.has(sealed.root) and not first.custodian.replicas.waiting)[1])
        path = world.a.blobs.path(sealed.root)  # now the custodian itself serves damaged bytes
        path.chmod(0o600)
        path.write_bytes(sealed.bytes[:-1] + bytes([sealed.bytes[-1] ^ 1]))
        await second.custodian.start()
        await replicated(world, sealed)
        assert second.blobs.path(sealed.root).read_bytes() == sealed.bytes


async def test_begun_replica_goes_on_by_range_after_a_restart(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        holder = holders_of(world, sealed.record)[0]

        async def beginning():
            yield sealed.bytes[:20_000]

        await holder.blobs.write_range(sealed.root, 0, beginning())
        now_seconds = world.wall() / 1000  # of the world; the machine's clock would make it an upload given up long ago
        os.utime(holder.folder / "uploads" / sealed.root.hex(), (now_seconds, now_seconds))
        holder.make()
        ranges, opener = [], holder.open_peer

        async def watched(peer, method, path, *, data=None, headers=None):
            ranges.append(headers["Range"])
            return await opener(peer, method, path, data=data, headers=headers)

        holder.custodian.open_peer = watched
        await holder.custodian.start()
        await until(lambda: (world.cluster.tick(), holder.blobs.has(sealed.root))[1])
        assert ranges == ["bytes=20000-"]


async def test_beginning_from_a_liar_is_thrown_away_and_fetched_anew(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        holder = holders_of(world, sealed.record)[0]

        async def wrong():
            yield sealed.bytes[:10_000] + bytes(5_000)

        await holder.blobs.write_range(sealed.root, 0, wrong())
        now_seconds = world.wall() / 1000
        os.utime(holder.folder / "uploads" / sealed.root.hex(), (now_seconds, now_seconds))
        await holder.custodian.start()
        await until(lambda: (world.cluster.tick(), holder.blobs.has(sealed.root))[1])
        assert holder.blobs.path(sealed.root).read_bytes() == sealed.bytes


@pytest.mark.parametrize("answer", ["too long", "other range", "error", "rubbish", "silence"])
async def test_what_a_hostile_hospital_sends_is_survived(with_world, answer):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        await world.grant()
        await world.ask(sealed.record)

        async def hostile(request):
            size = 10**12
            match answer:
                case "too long":
                    return web.Response(status=206, body=b"x" * 100, headers={"Content-Range": f"bytes 0-{size - 1}/{size}"})
                case "other range":
                    return web.Response(status=206, body=sealed.bytes[5:], headers={"Content-Range": "bytes 5-9/10"})
                case "error":
                    return web.Response(status=500, text="x" * 100_000)
                case "rubbish":
                    end = len(sealed.bytes)
                    return web.Response(status=206, body=b"\xff" * end, headers={"Content-Range": f"bytes 0-{end - 1}/{end}"})
            request.transport.abort()
            return web.Response()

        application = web.Application()
        application.router.add_route("*", "/{rest:.*}", hostile)
        runner = web.AppRunner(application, shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        honest, world.a.peer_port = world.a.peer_port, runner.addresses[0][1]

        async def careful(peer, method, path, *, data=None, headers=None):
            try:
                return await world.b.open_peer(peer, method, path, data=data, headers=headers)
            except aiohttp.ClientError:
                raise Unavailable("the hospital did not answer", 1_000) from None

        world.b.custodian.open_peer = careful
        with pytest.raises((Unavailable, Malformed)):
            await world.b.custodian.fetch(sealed.record, 1)
        assert not world.b.blobs.has(sealed.root)
        with pytest.raises((Unavailable, Malformed)):
            await world.b.custodian.release(asked(world, (await world.b.query("records.history", record=sealed.record, first=2, count=1))
                                                  ["events"][0]["fields"]["permit"]))
        world.a.peer_port = honest
        assert (await world.b.custodian.fetch(sealed.record, 1))["is_complete"]
        await runner.cleanup()


async def test_full_vault_waits_and_tries_again(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        holder = holders_of(world, sealed.record)[0]
        holder.blobs._limits = BlobLimits(bytes_max=1_000, disk_free_bytes_min=0)
        await holder.custodian.start()
        await until(lambda: holder.custodian.replicas.waiting > 0)
        assert not holder.blobs.has(sealed.root)
        holder.blobs._limits = BlobLimits(disk_free_bytes_min=0)
        await until(lambda: (world.cluster.tick(), holder.blobs.has(sealed.root))[1])


async def test_copy_for_a_reader_is_removed_after_a_day_and_what_must_be_held_is_kept(with_world):
    async with with_world() as world:
        sealed = Sealed(world)
        await sealed.put()
        stranger = stranger_of(world, sealed)
        await sealed.upload(stranger.blobs)
        abandoned = Sealed(world, "abandoned")
        await abandoned.upload(world.a.blobs)
        old_seconds = (world.wall() - ORPHAN_MS) / 1000 - 60
        for house, blob in ((world.a, sealed), (stranger, sealed), (world.a, abandoned)):
            os.utime(house.blobs.path(blob.root), (old_seconds, old_seconds))
        fresh = Sealed(world, "fresh upload")
        await fresh.upload(world.a.blobs)
        os.utime(world.a.blobs.path(fresh.root), (world.wall() / 1000, world.wall() / 1000))
        world.clock_ahead_ms = 100_000  # a head that is too old decides nothing
        for house in (world.a, stranger):
            await house.custodian.replicas._scan()
        assert stranger.blobs.has(sealed.root) and world.a.blobs.has(abandoned.root)
        world.clock_ahead_ms = 0
        for house in (world.a, stranger):
            await house.custodian.replicas._scan()
        assert not stranger.blobs.has(sealed.root) and not world.a.blobs.has(abandoned.root)
        assert world.a.blobs.has(sealed.root) and world.a.blobs.has(fresh.root)


async def test_key_that_is_no_hospitals_makes_no_custodian(with_world, tmp_path):
    async with with_world() as world:
        world.a.identity, own = identity("hospital", "nobody"), world.a.identity
        with pytest.raises(InvariantBroken):
            world.a.make()
        world.a.identity = own
        world.a.make()


async def test_bug_in_background_work_is_handed_to_whoever_stops_the_node(with_world):
    async with with_world() as world:
        async def broken(method, **params):
            raise ZeroDivisionError

        world.d.query = broken
        await world.d.custodian.start()
        await until(lambda: world.d.failures)
        assert "ZeroDivisionError" in world.d.failures[0].message
        world.d.failures.clear()


async def test_hospital_that_lets_its_bytes_trickle_does_not_keep_other_replicas_waiting():
    clock = 0.0

    async def arriving(piece: bytes, seconds: float):
        nonlocal clock
        for _ in range(100):
            clock += seconds
            yield piece

    async def taken(piece: bytes, seconds: float) -> int:
        return sum([len(chunk) async for chunk in steady(arriving(piece, seconds), lambda: clock)])

    assert await taken(bytes(262_144), 5.0) == 100 * 262_144  # slow, but it gets there
    assert await taken(b"x", 0.2) == 100  # small, but over before anybody waits
    with pytest.raises(Unavailable, match="slowly"):
        await taken(b"x", 20.0)
