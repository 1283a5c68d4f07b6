"""The desk: every question gets exactly its own answer, waiting ends with the transaction, and everything is bounded."""

from __future__ import annotations

import asyncio

import pytest

from medchain.chain.domain import Domain
from medchain.chain.receipt import Receipt
from medchain.chain.transaction import Operation, Transaction, TransactionBody
from medchain.crypto.signing import SigningKey
from medchain.engine.ready import (
    Accepted,
    Alarm,
    Answered,
    BlockDecided,
    PeerAccused,
    Queried,
    Refused,
    ReleaseAsked,
    Submitted,
    TransactionsExpired,
)
from medchain.errors import InvariantBroken, Malformed, Rejected, Unavailable
from medchain.node import desk as desks
from medchain.node.desk import Desk
from medchain.wire.methods import METHODS

pytestmark = pytest.mark.asyncio

ID = bytes(32)


class Inbox:
    """Takes the desk's events; the test answers them."""

    def __init__(self) -> None:
        self.events = []
        self.is_full = False
        self.told = []
        self.desk = Desk(
            self.post,
            accuse=lambda peer, reason: self.told.append((peer, reason)),
            alarm=lambda code, message: self.told.append((code, message)),
            failed=self.told.append,
        )

    def post(self, event) -> bool:
        if not self.is_full:
            self.events.append(event)
        return not self.is_full

    async def next(self):
        while not self.events:
            await asyncio.sleep(0)
        return self.events.pop(0)

    async def answer_status(self, status: str) -> None:
        asked = await self.next()
        assert (asked.method, asked.params) == ("tx.status", {"id": ID})
        self.desk.answer([Answered(asked.request, {"status": status})])


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


def transaction(nonce: int = 0) -> Transaction:
    key = SigningKey(bytes(32))
    body = TransactionBody("test", key.public, 10, (Operation("people.revoke_credential", [bytes(32)]),), nonce.to_bytes(8, "big"))
    return Transaction.sign(body, key, Domain(bytes(32)))


def decided(height: int, *ids: bytes) -> BlockDecided:
    return BlockDecided(height, bytes(32), 0, tuple(Receipt(identity, "", 0, ()) for identity in ids))


async def test_answers_reach_their_questions_in_any_order(inbox):
    first = asyncio.create_task(inbox.desk.query("chain.block", height=1))
    second = asyncio.create_task(inbox.desk.call("chain.block", {"height": 2}))
    asked = [await inbox.next(), await inbox.next()]
    assert [event.params for event in asked] == [{"height": 1}, {"height": 2}]
    inbox.desk.answer([Answered(asked[1].request, "two"), Answered(asked[0].request, "one"), Answered(99, "nobody's")])
    assert (await first, await second) == ("one", "two")


async def test_refusal_arrives_as_rejected_and_one_that_passes_as_unavailable_with_its_code(inbox):
    asking = asyncio.create_task(inbox.desk.query("records.get", record=ID))
    inbox.desk.answer([Refused((await inbox.next()).request, "records.unknown", "there is none")])
    with pytest.raises(Rejected) as refused:
        await asking
    assert refused.value.code == "records.unknown"
    submitting = asyncio.create_task(inbox.desk.submit(transaction()))
    inbox.desk.answer([Refused((await inbox.next()).request, "pool.full", "later", 700)])
    with pytest.raises(Unavailable) as later:
        await submitting
    assert (later.value.code, later.value.retry_after_ms) == ("pool.full", 700)


async def test_refusal_keeps_the_family_it_was_raised_in(inbox):
    """A read that found nothing yet (a state proof at height 0) came out as a rule that said no."""
    for refusal, family in (("unavailable", Unavailable), ("malformed", Malformed)):
        asking = asyncio.create_task(inbox.desk.query("state.get", key=b"k"))
        event = await inbox.next()
        inbox.desk.answer([Refused(event.request, refusal, "not there yet")])
        with pytest.raises(family):
            await asking


async def test_submission_is_answered_when_accepted_and_says_when_it_was_known(inbox):
    for is_duplicate, word in ((False, "accepted"), (True, "duplicate")):
        submitting = asyncio.create_task(inbox.desk.call("tx.submit", {"transaction": transaction().raw}))
        event = await inbox.next()
        assert isinstance(event, Submitted)
        inbox.desk.answer([Accepted(event.request, event.transaction.id, is_duplicate)])
        assert await submitting == {"id": transaction().id, "result": word}


async def test_bytes_that_are_no_transaction_are_malformed_and_ask_nothing(inbox):
    with pytest.raises(Malformed):
        await inbox.desk.call("tx.submit", {"transaction": b"nothing"})
    assert inbox.events == []


async def test_one_refused_transaction_of_a_batch_touches_no_other(inbox):
    good, full = transaction(1), transaction(2)
    submitting = asyncio.create_task(inbox.desk.call("tx.submit_batch", {"transactions": (good.raw, b"x", full.raw)}))
    asked = [await inbox.next(), await inbox.next()]
    inbox.desk.answer([Accepted(asked[0].request, good.id, False), Refused(asked[1].request, "pool.full", "later", 5)])
    rows = (await submitting)["results"]
    assert [row["result"] for row in rows] == ["accepted", "refused", "refused"]
    assert [row["code"] for row in rows] == ["", "malformed", "pool.full"]
    assert [row["id"] for row in rows] == [good.id, None, full.id]
    assert rows[2]["retry_after_ms"] == 5


async def test_release_is_asked_with_its_permit(inbox):
    asking = asyncio.create_task(inbox.desk.ask_release(ID))
    event = await inbox.next()
    assert isinstance(event, ReleaseAsked)
    inbox.desk.answer([Answered(event.request, {"head": 5})])
    assert await asking == {"head": 5}


@pytest.mark.parametrize("reply", [decided(1, ID), TransactionsExpired((ID,))])
async def test_waiting_ends_when_the_transaction_is_decided_or_expired(inbox, reply):
    waiting = asyncio.create_task(inbox.desk.wait(ID, 10_000))
    await inbox.answer_status("pending")
    inbox.desk.answer([decided(1, bytes(31) + b"x")])
    inbox.desk.answer([reply])
    await inbox.answer_status("decided")
    assert await waiting == {"status": "decided"}


async def test_waiting_for_a_transaction_decided_before_ends_at_once(inbox):
    waiting = asyncio.create_task(inbox.desk.wait(ID, 10_000))
    await inbox.answer_status("decided")
    assert await waiting == {"status": "decided"}


async def test_decision_between_asking_and_answering_is_not_missed(inbox):
    waiting = asyncio.create_task(inbox.desk.wait(ID, 10_000))
    asked = await inbox.next()
    inbox.desk.answer([decided(1, ID)])
    inbox.desk.answer([Answered(asked.request, {"status": "pending"})])
    await inbox.answer_status("decided")
    assert await waiting == {"status": "decided"}


async def test_waiting_in_vain_says_so_and_leaves_nothing_behind(inbox):
    waiting = asyncio.create_task(inbox.desk.wait(ID, 1))
    await inbox.answer_status("pending")
    await inbox.answer_status("pending")
    assert await waiting == {"status": "pending"}
    assert inbox.desk._waiters == {}
    assert inbox.desk._pending == {}


async def test_waiting_with_no_time_only_asks(inbox):
    waiting = asyncio.create_task(inbox.desk.call("tx.wait", {"id": ID, "timeout_ms": 0}))
    await inbox.answer_status("unknown")
    assert await waiting == {"status": "unknown"}


async def test_full_inbox_and_too_many_questions_tell_clients_to_come_again(inbox, monkeypatch):
    inbox.is_full = True
    with pytest.raises(Unavailable) as later:
        await inbox.desk.query("chain.head")
    assert later.value.retry_after_ms > 0
    inbox.is_full = False
    monkeypatch.setattr(desks, "PENDING_MAX", 1)
    asking = asyncio.create_task(inbox.desk.query("chain.head"))
    event = await inbox.next()
    with pytest.raises(Unavailable):
        await inbox.desk.query("chain.head")
    inbox.desk.answer([Answered(event.request, 1)])
    assert await asking == 1


async def test_too_many_waiters_are_told_to_ask_instead(inbox, monkeypatch):
    monkeypatch.setattr(desks, "WAITERS_MAX", 0)
    with pytest.raises(Unavailable):
        await inbox.desk.wait(ID, 10)


async def test_abandoned_question_is_forgotten(inbox):
    asking = asyncio.create_task(inbox.desk.query("chain.head"))
    event = await inbox.next()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    inbox.desk.answer([Answered(event.request, 1)])
    assert inbox.desk._pending == {}


async def test_closing_tells_everybody_and_takes_nothing_more(inbox):
    asking = asyncio.create_task(inbox.desk.query("chain.head"))
    await inbox.next()
    waiting = asyncio.create_task(inbox.desk.wait(ID, 60_000))
    await inbox.answer_status("pending")
    inbox.desk.close()
    for task in (asking, waiting):
        with pytest.raises(Unavailable):
            await task
    with pytest.raises(Unavailable):
        await inbox.desk.query("chain.head")


async def test_observers_are_told_of_each_decided_block_in_order(inbox):
    inbox.desk.observers.append(lambda block: inbox.told.append(block.height))
    inbox.desk.answer([decided(1), decided(2)])
    assert inbox.told == [1, 2]


async def test_accusations_and_alarms_are_passed_on(inbox):
    inbox.desk.answer([PeerAccused(b"peer", "it lied"), Alarm("amnesia.votes-forgotten", "look")])
    assert inbox.told == [(b"peer", "it lied"), ("amnesia.votes-forgotten", "look")]


async def test_custodians_methods_go_to_the_custodian_or_are_not_there(inbox):
    with pytest.raises(Unavailable):
        await inbox.desk.call("records.fetch", {"record": ID, "version": 1})

    async def fetch(params):
        return params["version"]

    inbox.desk.servers["records.fetch"] = fetch
    assert await inbox.desk.call("records.fetch", {"record": ID, "version": 3}) == 3


async def test_bug_of_the_custodian_ends_the_node(inbox):
    async def broken(params):
        raise InvariantBroken("two keys for one version")

    inbox.desk.servers["records.put"] = broken
    with pytest.raises(InvariantBroken):
        await inbox.desk.call("records.put", {"request": b""})
    assert isinstance(inbox.told[-1], InvariantBroken)


async def test_every_method_of_the_table_is_answered_by_somebody(inbox):
    async def serve(params):
        return None

    for name, method in METHODS.items():
        if method.served_by == "custodian":
            inbox.desk.servers[name] = serve
    for name, method in METHODS.items():
        if method.served_by == "engine":
            asking = asyncio.create_task(inbox.desk.call(name, {}))
            event = await inbox.next()
            assert isinstance(event, Queried)
            inbox.desk.answer([Answered(event.request, None)])
            await asking
        elif method.served_by == "custodian":
            assert await inbox.desk.call(name, {}) is None
        else:
            assert name in ("tx.submit", "tx.submit_batch", "tx.wait")
