"""Custody is confirmed many versions a transaction, at a bounded pace, and one bad confirmation spoils no other."""

from __future__ import annotations

import asyncio

import pytest

from medchain.errors import Rejected, Unavailable
from medchain.node.anchor import Anchor
from medchain.node.confirmer import CONFIRMED_TOGETHER, Confirmer
from tests.node.custody_world import Sealed, World, fixed

pytestmark = pytest.mark.asyncio


class Watched(Anchor):
    """The real anchor of the second hospital, which also says what was settled."""

    def __init__(self, world: World) -> None:
        house = world.houses[1]
        super().__init__(house, house.identity.signing, world.genesis, world.network, house)
        self.settled: list[int] = []
        self.began: list[float] = []
        self.is_cut_off = False

    async def settle(self, operations, timeout_ms=20_000):
        self.settled.append(len(operations))
        self.began.append(asyncio.get_running_loop().time())
        if self.is_cut_off:
            raise Unavailable("the other hospitals do not answer", 1_000)
        return await super().settle(operations, timeout_ms)


async def registered(world: World, count: int) -> list[bytes]:
    """Ids of that many registered records."""
    records = [Sealed(world, f"record {number}", length=100) for number in range(count)]
    for sealed in records:
        await sealed.put()
    return [sealed.record for sealed in records]


async def confirmed(anchor: Watched, records: list[bytes], pause_ms: int = 0) -> list[BaseException | None]:
    """How the confirmations of all records end that were asked for at once."""
    confirmer = Confirmer(anchor, pause_ms)
    asking = [asyncio.ensure_future(confirmer.confirm(record, 1)) for record in records]
    await asyncio.sleep(0)
    work = asyncio.create_task(confirmer.run())
    try:
        return await asyncio.gather(*asking, return_exceptions=True)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def holders(anchor: Watched, record: bytes) -> tuple[bytes, ...]:
    return (await anchor.record_version(record, 1)).holders


async def test_confirmations_asked_for_together_share_one_transaction(with_world):
    async with with_world() as world:
        anchor = Watched(world)
        records = await registered(world, 5)
        assert await confirmed(anchor, records) == [None] * 5
        assert anchor.settled == [5]
        assert all([anchor.organisation in await holders(anchor, record) for record in records])


async def test_confirmation_that_is_refused_spoils_no_other(with_world):
    async with with_world() as world:
        anchor = Watched(world)
        first, second = await registered(world, 2)
        ends = await confirmed(anchor, [first, fixed("a record that nobody registered"), second])
        assert ends[0] is None and ends[2] is None
        assert isinstance(ends[1], Rejected) and ends[1].code == "records.unknown"
        assert anchor.settled == [3, 1, 1, 1]
        assert all([anchor.organisation in await holders(anchor, record) for record in (first, second)])


async def test_custody_that_was_confirmed_before_is_no_failure(with_world):
    async with with_world() as world:
        anchor = Watched(world)
        [record] = await registered(world, 1)
        assert await confirmed(anchor, [record]) == [None]
        assert await confirmed(anchor, [record]) == [None]
        assert (await holders(anchor, record)).count(anchor.organisation) == 1


async def test_undecided_confirmations_all_fail_and_may_be_asked_for_again(with_world):
    async with with_world() as world:
        anchor = Watched(world)
        records = await registered(world, 2)
        anchor.is_cut_off = True
        assert [type(end) for end in await confirmed(anchor, records)] == [Unavailable, Unavailable]
        anchor.is_cut_off = False
        assert await confirmed(anchor, records) == [None, None]


async def test_two_transactions_begin_at_least_the_pause_apart_and_hold_at_most_so_many(with_world):
    async with with_world() as world:
        anchor = Watched(world)
        anchor.is_cut_off = True  # counted only, not decided
        await confirmed(anchor, [fixed(f"record {number}") for number in range(CONFIRMED_TOGETHER + 1)], pause_ms=50)
        assert anchor.settled == [CONFIRMED_TOGETHER, 1]
        assert anchor.began[1] - anchor.began[0] >= 0.049


async def test_who_no_longer_waits_is_left_out(with_world):
    async with with_world() as world:
        anchor = Watched(world)
        [record] = await registered(world, 1)
        confirmer = Confirmer(anchor, 0)
        given_up = asyncio.ensure_future(confirmer.confirm(fixed("a record that nobody registered"), 1))
        asking = asyncio.ensure_future(confirmer.confirm(record, 1))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)
        work = asyncio.create_task(confirmer.run())
        await asking
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert anchor.settled == [1]
