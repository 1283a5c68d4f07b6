"""The gateway against a running network: what is handed in together is signed together, and each transaction still ends for itself."""

from __future__ import annotations

import asyncio

import pytest

from medchain.actions.people import register_patient
from medchain.chain import limits
from medchain.chain.transaction import Operation, Transaction
from medchain.client import gateway
from medchain.client.gateway import Gateway
from medchain.client.node import NodeClient
from medchain.client.verify import facts_value, verify_file
from medchain.client.wallet import Wallet
from medchain.crypto.keyfile import Identity
from medchain.crypto.sealing import SUITE_X25519
from medchain.errors import Malformed, Rejected, Unavailable

pytestmark = pytest.mark.asyncio


def registration(net, name: str = "a") -> Operation:
    return register_patient(net.genesis.domain(), net.hospital(name).public, Identity.generate("patient", SUITE_X25519))


def signatures(transactions: list[Transaction]) -> set[bytes]:
    return {transaction.signature for transaction in transactions}


async def test_what_is_handed_in_at_once_stands_under_one_signature_and_is_decided_and_proven_alone(network):
    async with network() as net, Gateway(net.hospital("a"), collect_ms=20) as found:
        outcomes = await asyncio.gather(*(found.run([registration(net)]) for _ in range(10)))
        assert len({outcome.transaction_id for outcome in outcomes}) == 10
        chain = net.members["b"].engine.chain
        decided = [transaction for height in range(1, chain.height + 1) for transaction in chain.block_of(height).transactions]
        ours = [transaction for transaction in decided if transaction.id in {outcome.transaction_id for outcome in outcomes}]
        assert len(ours) == 10 and len(signatures(ours)) == 1 and len({transaction.batch_root for transaction in ours}) == 1
        proof = bytes.fromhex((await net.client("c").call("tx.proof", id=outcomes[3].transaction_id))["proof"])
        assert facts_value(verify_file(proof, net.genesis))["sender"] == net.hospital("a").public.hex()


async def test_one_alone_is_signed_alone(network):
    async with network() as net, Gateway(net.hospital("a"), collect_ms=0) as found:
        transaction = await found.submit([registration(net)])
        assert transaction.batch_root is None


async def test_leaving_ends_when_the_last_answer_came_a_moment_before(network, monkeypatch):
    """On Python 3.12 it never did: gather of what has ended returns at once, and those who take the ended off the list never ran."""
    real, called = asyncio.gather, []

    def at_once(*awaited):
        called.append(awaited)
        assert len(called) < 9, "it waits again and again for what has ended"
        if not all(each.done() for each in awaited):
            return real(*awaited)
        ended = asyncio.get_running_loop().create_future()
        ended.set_result([each.result() for each in awaited])
        return ended

    async with network() as net, Gateway(net.hospital("a"), collect_ms=0) as found:
        await found.submit([registration(net)])
        monkeypatch.setattr(asyncio, "gather", at_once)
        await found.close()
        assert called, "the answer came before its batch was off the list"
        monkeypatch.undo()


async def test_a_full_batch_does_not_wait_and_no_batch_is_larger(network):
    async with network() as net, Gateway(net.hospital("a"), collect_ms=600_000, batch_max=4) as found:
        made = await asyncio.gather(*(found.submit([registration(net)]) for _ in range(8)))
        assert len(signatures(made)) == 2
        assert sorted(len([item for item in made if item.signature == signature]) for signature in signatures(made)) == [4, 4]


async def test_those_who_come_together_ask_the_node_for_its_height_once(network):
    async with network() as net, Gateway(net.hospital("a"), collect_ms=20) as found:
        asked = len([body for body in net.members["a"].bodies if b"chain.head" in body])
        await asyncio.gather(*(found.submit([registration(net)]) for _ in range(10)))
        assert len([body for body in net.members["a"].bodies if b"chain.head" in body]) == asked + 1


async def test_leaving_hands_in_what_waits(network):
    async with network() as net:
        async with Gateway(net.hospital("a"), collect_ms=600_000) as found:
            waiting = [asyncio.ensure_future(found.submit([registration(net)])) for _ in range(3)]
            while len(found._waiting) < 3:
                await asyncio.sleep(0)
        assert len(signatures([await item for item in waiting])) == 1


async def test_one_that_is_refused_or_malformed_fails_alone(network):
    async with network() as net, Gateway(net.hospital("a"), collect_ms=20) as found:
        good, unknown, malformed = await asyncio.gather(
            found.submit([registration(net)]),
            found.submit([Operation("no.such_thing", [])]),
            found.submit([Operation("x" * 200, [])]),
            return_exceptions=True,
        )
        assert isinstance(good, Transaction)
        assert isinstance(unknown, Rejected) and unknown.code == "operation.unknown", unknown
        assert isinstance(malformed, Malformed)


async def test_a_transaction_without_room_for_a_path_is_signed_alone_beside_the_others(network):
    async with network() as net, Gateway(net.hospital("a"), collect_ms=20) as found:
        large = Operation("no.such_thing", [bytes(60_000), bytes(5_000)])
        results = await asyncio.gather(
            found.submit([registration(net)]), found.submit([large]), found.submit([registration(net)]), return_exceptions=True
        )
        assert isinstance(results[1], Rejected)
        first, last = results[0], results[2]
        assert isinstance(first, Transaction) and isinstance(last, Transaction) and first.signature == last.signature


async def test_whoever_has_too_many_under_way_is_told_to_come_later(network, monkeypatch):
    monkeypatch.setattr(gateway, "WAITING_MAX", 2)
    async with network() as net, Gateway(net.hospital("a"), collect_ms=20) as found:
        results = await asyncio.gather(*(found.submit([registration(net)]) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [Transaction, Transaction, Unavailable]
        assert isinstance(await found.submit([registration(net)]), Transaction), "there is room again"


async def test_a_node_that_is_away_for_a_moment_costs_time_and_one_that_stays_away_is_told_to_everybody(network, monkeypatch):
    async with network() as net, Gateway(net.hospital("a"), collect_ms=5) as found:
        await found.submit([registration(net)])
        client, url, nowhere = net.client("a"), net.client("a").url, "http://127.0.0.1:1"
        client.url = nowhere
        waiting = [asyncio.ensure_future(found.submit([registration(net)])) for _ in range(2)]
        async with asyncio.timeout(10):
            while not found._under_way:
                await asyncio.sleep(0.001)
        client.url = url
        assert len(signatures(await asyncio.gather(*waiting))) == 1
        monkeypatch.setattr(gateway, "HAND_IN_MS", 100)
        client.url = nowhere
        results = await asyncio.gather(*(found.submit([registration(net)]) for _ in range(2)), return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable, Unavailable]


@pytest.mark.parametrize(("collect_ms", "batch_max"), [(-1, 64), (5, 0), (5, limits.BATCH_SIGNATURE_IDS_MAX + 1)])
async def test_a_gateway_that_cannot_be_is_refused(collect_ms, batch_max):
    wallet = Wallet(NodeClient("http://127.0.0.1:1"), Identity.generate("hospital", SUITE_X25519))
    with pytest.raises(Malformed, match="1 to 64"):
        Gateway(wallet, collect_ms=collect_ms, batch_max=batch_max)
