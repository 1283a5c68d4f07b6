"""Wallets against a running network: what was decided comes back proven, refusals with their code, and a lost quorum is told."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from medchain.actions import people
from medchain.chain.genesis import Genesis
from medchain.client.node import NodeClient
from medchain.client.people import credential_clinician, find_hospital, list_hospitals, register_patient
from medchain.client.verify import facts_value, verify_file
from medchain.client.wallet import Wallet, event_field
from medchain.crypto.keyfile import Identity
from medchain.crypto.sealing import SUITE_X25519
from medchain.errors import Malformed, Rejected, Unavailable
from medchain.ledger import rows
from medchain.ledger.people import pseudonym_of

pytestmark = pytest.mark.asyncio
LATE_MS = 1_900_000_000_000


def identity(role: str) -> Identity:
    return Identity.generate(role, SUITE_X25519)


async def test_a_transaction_comes_back_with_its_proven_receipt(network):
    async with network() as net:
        clinician = identity("clinician")
        outcome = await credential_clinician(net.hospital("a"), clinician, "physician", "general", LATE_MS)
        event = outcome.first("people.credential")
        assert event is not None and event_field(event, "role") == "physician"
        assert outcome.code == "" and outcome.height >= 1
        assert outcome.first("people.revoke_credential") is None
        with pytest.raises(Rejected):
            event_field(event, "no-such-field")


async def test_a_renewal_is_signed_by_the_clinicians_key_too(network):
    async with network() as net:
        hospital, clinician = net.hospital("a"), identity("clinician")
        for number, role in enumerate(("physician", "surgeon"), start=1):
            outcome = await credential_clinician(hospital, clinician, role, "general", LATE_MS)
            event = outcome.first("people.credential")
            assert event is not None and (event_field(event, "number"), event_field(event, "role")) == (number, role)
        signed_for_another = people.credential_clinician(
            net.genesis.domain(), net.hospital("b").public, clinician, "nurse", "general", LATE_MS
        )
        with pytest.raises(Rejected) as refused:
            await hospital.run([signed_for_another])
        assert refused.value.code == "people.credential-proof-invalid"


async def test_a_refused_transaction_is_raised_with_its_code_and_sentence(network):
    async with network() as net:
        patient = identity("patient")
        registered = await register_patient(net.hospital("a"), patient)
        assert registered.pseudonym == pseudonym_of(patient.signing.public)
        with pytest.raises(Rejected) as refused:
            await register_patient(net.hospital("a"), patient)
        assert refused.value.code == "people.patient-known"
        with pytest.raises(Rejected) as refused:
            await net.wallet(patient, "a").run([people.revoke_credential(patient.signing.public)])
        assert refused.value.code == "hospital.unknown"


async def test_a_transaction_handed_in_again_after_its_block_comes_back_as_decided(network):
    """An answer was lost: the second try met the block, and the wallet called its own success a refusal."""
    async with network() as net:
        wallet, operation = net.hospital("a"), people.register_patient(net.genesis.domain(), net.hospital("a").public, identity("patient"))
        transaction = await wallet.build([operation])
        first = await wallet.send(transaction)
        assert await wallet.client.submit(transaction) == "duplicate"
        assert await wallet.send(transaction) == first


async def test_every_node_proves_the_same_state_under_a_certificate(network):
    async with network() as net:
        patient = identity("patient")
        registered = await register_patient(net.hospital("a"), patient)
        key = rows.PATIENT + registered.pseudonym
        for name in "abcd":
            async with asyncio.timeout(20):
                while (await net.client(name).head_height()) < registered.height:
                    await asyncio.sleep(0.01)
            facts = await net.client(name).proven_state(key)
            assert facts.value is not None and facts.height >= registered.height and len(facts.signers) == 3
        absent = await net.client("a").proven_state(rows.PATIENT + bytes(32))
        assert absent.value is None


async def test_a_proof_file_verifies_with_the_genesis_document_alone(network):
    async with network() as net:
        wallet = net.hospital("b")
        outcome = await credential_clinician(wallet, identity("clinician"), "nurse", "general", LATE_MS)
        data = bytes.fromhex((await net.client("b").call("tx.proof", id=outcome.transaction_id))["proof"])
        genesis = Genesis.from_json(net.genesis.to_json())
    facts = verify_file(data, genesis)
    value = facts_value(facts)
    assert value["kind"] == "transaction" and value["is_accepted"] and value["sender"] == wallet.public.hex()
    assert value["events"][0]["fields"]["role"] == "nurse"
    for place in range(0, len(data), max(1, len(data) // 60)):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((Malformed, Rejected)):
            verify_file(damaged, genesis)
    for cut in (0, 1, len(data) - 1):
        with pytest.raises(Malformed):
            verify_file(data[:cut], genesis)


async def test_hospitals_are_found_by_name_and_key(network):
    async with network() as net:
        assert [hospital.name for hospital in sorted(await list_hospitals(net.client("a")), key=lambda h: h.name)] == list("abcd")
        key = net.members["c"].identity.signing.public
        for wanted in ("c", key, key.hex()):
            assert (await find_hospital(net.client("a"), wanted)).organisation_key == key
        with pytest.raises(Rejected) as refused:
            await find_hospital(net.client("a"), "nowhere")
        assert refused.value.code == "client.unknown-hospital"


async def test_without_a_quorum_nothing_is_decided_and_the_wallet_says_so_then_it_goes_on(network):
    async with network() as net:
        await register_patient(net.hospital("a"), identity("patient"))
        net.disconnect("c", "d")
        with pytest.raises(Unavailable, match="may still be"):
            await register_patient(net.hospital("a"), identity("patient"), timeout_ms=300)
        net.connect("c", "d")
        await register_patient(net.hospital("a"), identity("patient"))


async def test_a_transaction_that_missed_its_last_height_is_told_as_expired(network):
    async with network(expiry_window_blocks=10) as net:
        await register_patient(net.hospital("b"), identity("patient"))
        net.disconnect("a")
        waiting = asyncio.ensure_future(register_patient(net.hospital("a"), identity("patient")))
        async with asyncio.timeout(20):
            while (await net.client("a").call("mempool.status"))["transactions"] == 0:
                await asyncio.sleep(0.01)
        for _ in range(8):
            await register_patient(net.hospital("b"), identity("patient"))
        net.connect("a")
        with pytest.raises(Rejected) as refused:
            await waiting
        assert refused.value.code == "client.expired"


async def test_a_transaction_that_is_sent_twice_is_done_once(network):
    async with network() as net:
        wallet = net.hospital("a")
        operation = people.credential_clinician(net.genesis.domain(), wallet.public, identity("clinician"), "nurse", "x", LATE_MS)
        transaction = await wallet.build([operation])
        first, second = await asyncio.gather(wallet.send(transaction), wallet.send(transaction))
        assert first == second


async def test_many_wallets_may_work_at_the_same_time(network):
    async with network() as net:
        outcomes = await asyncio.gather(
            *[register_patient(net.hospital(name), identity("patient")) for name in "abcd" for _ in range(5)]
        )
        assert len({outcome.pseudonym for outcome in outcomes}) == 20


async def test_a_node_of_another_network_is_refused(network):
    async with network() as net:
        other = Genesis("another", net.genesis.time_ms, net.genesis.parameters, net.genesis.hospitals)
        async with NodeClient(net.client("a").url, genesis=other) as client:
            with pytest.raises(Rejected) as refused:
                await Wallet(client, identity("patient")).run([people.revoke_credential(bytes(32))])
        assert refused.value.code == "client.other-network"


async def test_without_a_pinned_document_the_nodes_own_is_taken(network):
    async with network() as net:
        async with NodeClient(net.client("a").url) as client:
            assert (await client.facts()).genesis == net.genesis
            await register_patient(Wallet(client, net.members["a"].identity), identity("patient"))


async def test_calls_that_break_the_table_fail_before_they_are_sent():
    async with NodeClient("http://127.0.0.1:1") as client:
        with pytest.raises(Malformed):
            await client.call("tx.status", identity=bytes(32))
        with pytest.raises(Malformed):
            await client.call("no.such")


# ---- nodes that are none --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def pretender(answer):
    """Something that listens and answers every request with what `answer` returns."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with NodeClient(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}") as client:
            yield client
    finally:
        await runner.cleanup()


async def test_a_node_that_does_not_listen_is_unavailable_with_its_address():
    async with NodeClient("http://127.0.0.1:1") as client:
        with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1 cannot be reached"):
            await client.call("node.status")


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"7", b'{"id":1}', b'{"id":2,"result":1}', b'{"jsonrpc":"2.0","id":1', b"[" * 100_000, b"\xff"],
)
async def test_whatever_a_stranger_answers_is_refused(body):
    async def answer(request):
        return web.Response(body=body)

    async with pretender(answer) as client:
        with pytest.raises(Rejected) as refused:
            await client.call("node.status")
        assert refused.value.code == "client.not-a-node"


@pytest.mark.parametrize(
    ("error", "family", "code"),
    [
        ({"code": -32000, "message": "no", "data": {"code": "consent.none", "retry_after_ms": 0}}, Rejected, "consent.none"),
        ({"code": -32000, "message": "no"}, Rejected, "client.not-a-node"),
        ({"code": -32000, "message": "no", "data": {"code": "Evil Code\n"}}, Rejected, "client.not-a-node"),
        ({"code": -32001, "message": "later", "data": {"code": "pool.full", "retry_after_ms": 70}}, Unavailable, "pool.full"),
        ({"code": -32603, "message": "bug"}, Unavailable, "unavailable"),
        ({"code": -32601, "message": "?"}, Rejected, "client.not-a-node"),
        ({"code": -32602, "message": "bad"}, Malformed, "malformed"),
        ({"code": "vault.full", "message": "full", "retry_after_ms": 0}, Rejected, "vault.full"),
        ({"code": "unavailable", "message": "later", "retry_after_ms": 5}, Unavailable, "unavailable"),
        ({"code": "malformed", "message": "bad"}, Malformed, "malformed"),
        ({"message": 7}, Malformed, "malformed"),
        ("text", Malformed, "malformed"),
        (None, Malformed, "malformed"),
    ],
)
async def test_errors_come_back_as_the_family_they_were(error, family, code):
    async def answer(request):
        return web.json_response({"jsonrpc": "2.0", "id": 1, "error": error})

    async with pretender(answer) as client:
        with pytest.raises(family) as raised:
            await client.call("node.status")
        assert raised.value.code == code
        assert getattr(raised.value, "retry_after_ms", 0) in (0, 5, 70)


async def test_what_a_node_says_reaches_a_terminal_bounded_and_printable():
    async def answer(request):
        return web.json_response({"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "a\x1b[31mred\r\n" + "x" * 10_000}})

    async with pretender(answer) as client:
        with pytest.raises(Rejected) as refused:
            await client.call("node.status")
    assert "\x1b" not in refused.value.message and len(refused.value.message) <= 500


async def test_a_node_that_lies_about_the_state_is_found_out(network):
    async with network() as net:
        registered = await register_patient(net.hospital("a"), identity("patient"))
        key = rows.PATIENT + registered.pseudonym
        truth = await net.client("a").call("state.get", key=key)
        genesis = await net.client("a").call("chain.genesis")
        params = await net.client("a").call("chain.params")

    async def lie(request):
        call = await request.json()
        forged = dict(truth, value="00" + truth["value"][2:])
        results = {"chain.genesis": genesis, "chain.params": params, "state.get": forged}
        return web.json_response({"jsonrpc": "2.0", "id": call["id"], "result": results[call["method"]]})

    async with pretender(lie) as client:
        with pytest.raises(Rejected) as refused:
            await client.proven_state(key)
    assert refused.value.code == "proof.state"
