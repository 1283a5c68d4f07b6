"""Clients that sign in batches: one signature under many transactions, each of which still stands for itself, whatever goes wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pytest

from medchain.chain.parameters import Parameters
from medchain.chain.transaction import Transaction
from medchain.crypto.signing import verify_many
from medchain.engine.ready import Accepted, Envelope, Event, Ready, Refused, Submitted
from medchain.sim.authentication import sign_again, sign_otherwise, with_authentication_of, with_forged_signature
from medchain.sim.faults import Crash, CrashPoint, Plan, draw_plan, quiet_plan
from medchain.sim.identity import Identities, SigningOrder, make_identities
from medchain.sim.node import Start
from medchain.sim.plantext import decode_plan, encode_plan
from medchain.sim.run import run_plan
from medchain.sim.workload import Workload
from medchain.wire.peer import TransactionsOffered
from tests.sim.probes import Probe, run_scripted, told

pytestmark = pytest.mark.sim

SUBMISSIONS = 600


@pytest.fixture
def identities() -> Identities:
    return make_identities(1, 4, Parameters(state_buckets=64), SigningOrder())


def handed_in(workload: Workload) -> list[list[Transaction]]:
    """What clients hand in at once, again and again."""
    return [[transaction for _, transaction in workload.hand_in(0, 0)] for _ in range(SUBMISSIONS)]


def busy_plan(seed: int, **changes: object) -> Plan:
    return quiet_plan(seed, **{"batch_permille": 150, "batch_max": 64, "safety_ms": 4_000, **changes})


def test_batches_have_2_to_64_transactions_of_one_sender_and_come_whole_or_one_by_one(identities: Identities) -> None:
    turns = handed_in(Workload(1, identities, 50, 0, 150, 64))
    roots = Counter(transaction.batch_root for turn in turns for transaction in turn if transaction.batch_root is not None)
    whole = [turn for turn in turns if len(turn) > 1]
    assert all(len({(item.body.sender, item.signature) for item in turn}) == 1 for turn in whole)
    assert min(len(turn) for turn in whole) < 10 and max(len(turn) for turn in whole) > 54
    alone = [turn[0] for turn in turns if len(turn) == 1 and turn[0].batch_root is not None]
    assert len(alone) > 50 and len({transaction.batch_root for transaction in alone} - {turn[0].batch_root for turn in whole}) > 5
    assert len(roots) > 20
    assert len({transaction.body.sender for turn in whole for transaction in turn}) > 4, "patients, clinicians and hospitals"
    assert any(turn[0].batch_root is None for turn in turns)


def test_everything_good_that_clients_hand_in_is_genuine_and_everything_bad_of_a_batch_is_not(identities: Identities) -> None:
    workload = Workload(1, identities, 50, 0, 150, 64)
    seen = {transaction.id: transaction for turn in handed_in(workload) for transaction in turn}
    batched = {identity: transaction for identity, transaction in seen.items() if transaction.batch_root is not None}
    bad = [batched.pop(identity) for identity in workload._bad if identity in batched]
    assert len(bad) > 10, "places under a signature that cover something else"
    genuine = {transaction.signature for transaction in batched.values()}
    assert sum(transaction.signature in genuine for transaction in bad) > len(bad) // 2, "of batches that the nodes have seen"
    assert all(verify_many([transaction.verification(identities.genesis.domain()) for transaction in batched.values()]))
    assert not any(verify_many([transaction.verification(identities.genesis.domain()) for transaction in bad]))


def test_bad_transaction_of_a_batch_is_handed_in_once_and_good_ones_are_repeated(identities: Identities) -> None:
    """A liar that knows its client's key may sign its body meanwhile: then a node that has heard of that rightly says "known already"."""
    workload = Workload(1, identities, 50, 900, 150, 4)
    counts = Counter(transaction.id for turn in handed_in(workload) for transaction in turn if transaction.batch_root is not None)
    bad = [identity for identity in counts if identity in workload._bad]
    assert len(bad) > 5 and all(counts[identity] == 1 for identity in bad)
    assert sum(count > 1 for count in counts.values()) > 25


def test_clients_that_sign_no_batches_say_what_they_said_before_there_were_any(identities: Identities) -> None:
    one, other = Workload(1, identities, 50, 100), Workload(1, identities, 50, 100, 0, 64)
    assert handed_in(one) == [[other.next(0, 0)[1]] for _ in range(SUBMISSIONS)]
    assert one.book.batched == 0


@pytest.mark.parametrize("kind", ["alone", "in a batch"])
def test_other_authentications_of_one_body_are_genuine_and_forged_ones_are_not(identities: Identities, kind: str) -> None:
    network, key = identities.genesis.domain(), identities.organisations[0]
    workload = Workload(1, identities, 50, 0)
    bodies = [workload._draft_by(key, number).body for number in range(3)]
    in_batch = Transaction.sign_batch(bodies, key, network)
    given = Transaction.sign(bodies[0], key, network) if kind == "alone" else in_batch[0]
    again, otherwise = sign_again(given, key, network, nonce=7), sign_otherwise(given, key, network, other=bytes(32))
    assert len({item.authentication_digest for item in (given, again, otherwise)}) == 3
    assert {item.id for item in (given, again, otherwise)} == {given.id}
    assert again.batch_root == given.batch_root and (otherwise.batch_root is None) == (given.batch_root is not None)
    assert all(verify_many([item.verification(network) for item in (given, again, otherwise)]))
    forged = with_forged_signature(given)
    moved = with_authentication_of(in_batch[1], bodies[0])
    assert forged.id == moved.id == given.id and moved.signature == in_batch[1].signature
    assert not any(verify_many([item.verification(network) for item in (forged, moved)]))


@pytest.mark.parametrize("nodes", [4, 7])
def test_quiet_network_decides_every_transaction_of_every_batch(nodes: int) -> None:
    report = run_plan(replace(busy_plan(1), nodes=nodes, clock_offsets_ms=(0,) * nodes, clock_drifts_ppm=(0,) * nodes))
    assert not report.violations, told(report)
    assert report.batches > 5 and report.batched_decided > 100 and report.decided == report.accepted and report.expired == 0


def test_batch_of_which_a_full_pool_takes_only_some_loses_none_of_those() -> None:
    """There is no all or nothing: whoever is told "full" may come again, and whoever is told "accepted" is decided or expires."""
    asked: dict[int, bytes] = {}
    answers: dict[bytes, set[type]] = defaultdict(set)

    def hear(start: Start, events: Sequence[Event]) -> Sequence[Event]:
        submitted = [event for event in events if isinstance(event, Submitted)]
        asked.update({event.request: event.transaction.batch_root for event in submitted if event.transaction.batch_root is not None})
        return events

    def listen(start: Start, ready: Ready) -> Ready:
        for reply in ready.replies:
            if isinstance(reply, Accepted | Refused) and reply.request in asked:
                answers[asked[reply.request]].add(type(reply))
        return ready

    report = run_plan(busy_plan(2, batch_permille=300, pool_bytes_max=16 * 1024), wrap=Probe(hear=hear, say=listen).wrap)
    assert not report.violations, told(report)
    assert sum(kinds == {Accepted, Refused} for kinds in answers.values()) > 5
    assert report.refusals["pool.quota"] > 50 and report.batched_decided > 50 and report.decided == report.accepted


def test_batch_larger_than_a_block_ends_in_several_each_member_in_one() -> None:
    parameters = replace(quiet_plan(1).parameters, block_transactions_max=5)
    report = run_plan(busy_plan(3, parameters=parameters, valid_for_blocks=190))
    assert not report.violations, told(report)
    assert report.batches_split > 5 and report.decided == report.accepted


@pytest.mark.parametrize("point", [CrashPoint.TORN_WRITE, CrashPoint.AFTER_WRITE, CrashPoint.BEFORE_REPLIES])
def test_batch_that_was_accepted_outlives_the_power_of_all_nodes_in_their_pools(point: CrashPoint) -> None:
    """Each member is read again from the pool's row alone: nothing of the batch is kept beside it."""
    for seed in range(3):
        crashes = [Crash(at_ms, node, point, 150 + 40 * node) for at_ms in (1_200, 2_400) for node in range(4)]
        report = run_plan(busy_plan(seed, batch_permille=400, batch_max=16).with_actions(*crashes))
        assert not report.violations, told(report)
        assert report.batched_decided > 50 and report.decided == report.accepted and report.expired == 0


def test_forged_signature_of_a_batch_member_spoils_none_of_the_others() -> None:
    """A liar gossips some members under another one's place; the honest refuse these and decide all that clients were promised."""

    def forge(start: Start, ready: Ready) -> Ready:
        return ready if start.node else replace(ready, send=tuple([moved(envelope) for envelope in ready.send]))

    def moved(envelope: Envelope) -> Envelope:
        message = envelope.message
        if not isinstance(message, TransactionsOffered):
            return envelope
        batched = [item for item in message.transactions if item.batch_root is not None]
        others = {item.id: batched[place - 1] for place, item in enumerate(batched)}
        false = [
            with_authentication_of(others[item.id], item.body) if item.id in others and others[item.id] is not item else item
            for item in message.transactions
        ]
        forged.extend([item for item in false if item not in message.transactions])
        return replace(envelope, message=TransactionsOffered(tuple(false)))

    forged: list[Transaction] = []
    report = run_scripted(busy_plan(1), Probe(say=forge), [0])
    assert not report.violations, told(report)
    assert len(forged) > 20 and report.decided == report.accepted


def test_three_of_four_seeds_sign_in_batches_and_their_plans_are_printed_with_them() -> None:
    plans = [draw_plan(seed, 4) for seed in range(200)]
    batching = [plan for plan in plans if plan.batch_permille]
    assert 130 < len(batching) < 170 and {plan.batch_max for plan in batching} == {4, 16, 64}
    assert all(decode_plan(encode_plan(plan)) == plan for plan in batching)
