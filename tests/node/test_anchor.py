"""What the custodian remembers of the chain between two questions: the members, until a block says something of them."""

from __future__ import annotations

import pytest

from medchain.chain.receipt import ACCEPTED, Event, Receipt
from medchain.engine.ready import BlockDecided
from medchain.node.anchor import Anchor
from tests.node.custody_world import World, fixed, making

pytestmark = pytest.mark.asyncio


def block_with(kind: str) -> BlockDecided:
    receipt = Receipt(fixed("a transaction"), ACCEPTED, 0, (Event(kind, (fixed("a subject"),), []),))
    return BlockDecided(1, fixed("a block"), 0, (receipt,))


class Counted:
    """A desk that counts questions, and lets something happen while it is asked."""

    def __init__(self, world: World) -> None:
        self.house = world.houses[0]
        self.asked = 0
        self.meanwhile = lambda: None

    async def query(self, method, **params):
        self.asked += 1
        answer = await self.house.query(method, **params)
        self.meanwhile()
        return answer


async def test_members_are_asked_for_once_until_a_block_changes_them(tmp_path, monkeypatch):
    async with making(tmp_path, monkeypatch) as world:
        desk = Counted(world)
        anchor = Anchor(desk, world.houses[0].identity.signing, world.genesis, world.network, world.houses[0])
        assert anchor.known_hospitals == ()
        members = await anchor.hospitals()
        anchor.observe(block_with("records.register"))
        assert await anchor.hospitals() == anchor.known_hospitals == members and len(members) == 4
        assert desk.asked == 1
        anchor.observe(block_with("hospitals.admit"))
        assert anchor.known_hospitals == ()
        assert await anchor.hospitals() == members and desk.asked == 2


async def test_answer_that_a_block_overtook_is_not_remembered(tmp_path, monkeypatch):
    async with making(tmp_path, monkeypatch) as world:
        desk = Counted(world)
        anchor = Anchor(desk, world.houses[0].identity.signing, world.genesis, world.network, world.houses[0])
        desk.meanwhile = lambda: anchor.observe(block_with("hospitals.admit"))
        await anchor.hospitals()
        assert anchor.known_hospitals == ()
