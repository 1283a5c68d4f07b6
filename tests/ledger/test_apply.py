"""Executing blocks: pure, all or nothing, and the same after any story."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from medchain import codec
from medchain.chain.receipt import Receipt, decode_receipts, encode_receipts, receipts_root
from medchain.chain.transaction import Operation, Transaction, TransactionBody
from medchain.crypto.hashing import tagged_digest
from medchain.ledger import rows, trail
from medchain.ledger.access import ReadReceipt, ReadTrail, Release, Request
from medchain.ledger.apply import apply_block
from medchain.ledger.consents import Grant, Revoke, consent_id
from medchain.ledger.emergencies import REVIEW_DUE_MS, Emergency, Review
from medchain.ledger.epochs import Interim
from medchain.ledger.people import RevokeCredential, credential_bytes, registration_bytes
from medchain.ledger.permits import permit_id
from medchain.ledger.records import ConfirmCustody
from medchain.store.overlay import Overlay
from medchain.store.tree import StateTree


def test_empty_block_changes_nothing_and_keeps_the_validators(world):
    applied = world.wait(1)
    assert (applied.receipts, applied.changes, applied.due_events) == ((), {}, ())
    assert applied.validators == world.genesis.validators()


def test_receipts_stand_in_block_order(story):
    transactions = [story.transaction(story.d, ConfirmCustody(story.RECORD, version)) for version in (1, 2)]
    receipts = story.block(*transactions).receipts
    assert [(receipt.transaction_id, receipt.code) for receipt in receipts] == [
        (transactions[0].id, ""), (transactions[1].id, "records.version-unknown"),
    ]  # fmt: skip


def test_operations_of_a_transaction_all_count_or_none(story):
    good, bad = ConfirmCustody(story.RECORD, 1), ConfirmCustody(story.RECORD, 9)
    applied = story.block(story.transaction(story.d, good, bad, bad))
    (receipt,) = applied.receipts
    assert (receipt.code, receipt.operation_index, receipt.events) == ("records.version-unknown", 1, ())
    assert applied.changes == {}
    story.accepted(story.d, good)


def test_later_operation_sees_what_an_earlier_one_of_the_transaction_did(story):
    story.accepted(story.a, Interim(story.pseudonym, "x-ray", 1, bytes(32)), Interim(story.pseudonym, "x-ray", 2, bytes(32)))


def test_refused_transaction_between_two_accepted_ones_leaves_no_trace(story):
    first = story.transaction(story.c, ConfirmCustody(story.RECORD, 1))
    refused = story.transaction(story.d, ConfirmCustody(story.RECORD, 1), ConfirmCustody(story.RECORD, 9))
    last = story.transaction(story.d, ConfirmCustody(story.RECORD, 1))
    context = story.context()
    with_it, without = (apply_block(story.state, context, block) for block in ([first, refused, last], [first, last]))
    assert with_it.changes == without.changes


def test_unknown_and_damaged_operations_end_in_the_receipt(world):
    signer = world.key("anyone")
    for operation, code in ((Operation("no.such", []), "operation.unknown"), (Operation("consents.revoke", [1]), "operation.malformed")):
        transaction = Transaction.sign(TransactionBody("test", signer.public, 9, (operation,), bytes(8)), signer, world.network)
        applied = world.block(transaction)
        assert (applied.receipts, applied.changes) == ((Receipt(transaction.id, code, 0, ()),), {})


def test_block_executes_alike_on_a_state_and_on_an_overlay_of_it(story):
    transactions = [story.transaction(story.d, ConfirmCustody(story.RECORD, 1))]
    context = story.context()
    assert apply_block(Overlay(story.state), context, transactions) == apply_block(story.state, context, transactions)


def test_changes_stand_in_key_order(story):
    read, confirmed = story.transaction(story.ann, ReadTrail(story.pseudonym)), story.transaction(story.d, ConfirmCustody(story.RECORD, 1))
    applied = story.block(read, confirmed)
    assert list(applied.changes) == sorted(applied.changes)


CAST = (None, None, None, "a", "b", "lee", "kim", "ann", "nobody")
"""Who signs; None = whoever should, so that stories get somewhere."""
RIGHTFUL = {
    "interim": "a", "register": "a", "amend": "a", "custody": "b", "grant": "ann", "revoke": "ann", "request": "lee", "release": "a",
    "receipt": "lee", "emergency": "kim", "review": "a", "trail": "ann", "fire": "b", "hire": "b",
}  # fmt: skip


def handler_of(story, act, number, made):
    """An operation of the given act, aimed at ids that exist by a fair chance."""
    permit = made["permit"][number % len(made["permit"])]
    consent = made["consent"][number % len(made["consent"])]
    grantee = ("hospital", story.b.public) if number % 2 else ("clinician", story.kim.public)
    return {
        "interim": lambda: Interim(story.pseudonym, "general", 1 + number % 4, bytes(32)),
        "register": lambda: story.register(story.pseudonym, story.a.public, story.fixed(f"r{number % 3}"), epoch=1 + number % 3),
        "amend": lambda: story.amend(story.a.public, 2 + number % 2, epoch=1 + number % 3),
        "custody": lambda: ConfirmCustody(story.RECORD, 1 + number % 2),
        "grant": lambda: Grant(*grantee, ("TREAT", "HRESCH")[number % 3 % 2], "general", 0, story.time_ms + 2500 + 1000 * (number % 5)),
        "revoke": lambda: Revoke(consent),
        "request": lambda: Request(story.RECORD, "TREAT", "physician"),
        "release": lambda: Release(permit, 1 + number % 2),
        "receipt": lambda: ReadReceipt(permit, 1),
        "emergency": lambda: Emergency(story.RECORD, "UNCONSCIOUS"),
        "review": lambda: Review(permit, ("justified", "unjustified")[number % 2]),
        "trail": lambda: ReadTrail(story.pseudonym),
        "fire": lambda: RevokeCredential(story.lee.public),
        "hire": lambda: story.credential(story.lee, "b"),
    }[act]()


ACT = st.tuples(st.sampled_from(sorted(RIGHTFUL)), st.integers(0, 9))
SIGNED = st.tuples(st.sampled_from(CAST), st.lists(ACT, min_size=1, max_size=3))
BLOCKS = st.lists(st.tuples(st.lists(SIGNED, max_size=6), st.sampled_from((1, 1000, 80 * 3_600_000))), max_size=6)


@settings(max_examples=60)
@given(BLOCKS)
def test_any_story_keeps_the_promises_of_the_rule_book(make_story, blocks):
    """Purity and rows written once are checked by `World.block`; here: refusals are empty, trails add up, receipts are readable."""
    story = make_story()
    cast = {"a": story.a, "b": story.b, "lee": story.lee, "kim": story.kim, "ann": story.ann, "nobody": story.key("nobody")}
    made = {"permit": [bytes(32)], "consent": [bytes(32)]}
    for block, wait_ms in blocks:
        transactions = []
        for who, acts in block:
            signer = cast[who or RIGHTFUL[acts[0][0]]]
            transaction = story.transaction(signer, *(handler_of(story, act, number, made) for act, number in acts))
            transactions.append(transaction)
            for index in range(len(acts)):
                made["permit"].append(permit_id(transaction.id, index))
                made["consent"].append(consent_id(transaction.id, index))
        applied = story.block(*transactions, wait_ms=wait_ms)
        for receipt in applied.transaction_receipts:
            assert receipt.is_accepted or receipt.events == ()
        assert decode_receipts(encode_receipts(applied.receipts)) == applied.receipts
    for subject in (story.pseudonym, story.RECORD):
        events = [(height, event.encode()) for height, event in story.events if subject in event.subjects]
        assert trail.trail_of(story.state, subject) == trail.trail_after(trail.trail_start(), events)
    for key, value in story.state.rows.items():
        if key not in (rows.PARAMETERS, rows.VALIDATORS) and not key.startswith((rows.HOSPITAL_KEY, rows.LIST, rows.LIST_COUNT, rows.DUE)):
            codec.decode(value)


def test_fixed_story_gives_the_frozen_ids_trails_and_state(repository, story):
    """The main story with one of each operation; a change of any of these bytes is a change of the protocol."""
    story.accepted(story.a, Interim(story.pseudonym, "general", 2, story.fixed("check 2")), story.amend(story.a.public, 2, epoch=2))
    denied = story.ask()
    consent = story.grant()
    permit, _ = story.ask()
    story.accepted(story.a, Release(permit, 2))
    story.accepted(story.lee, ReadReceipt(permit, 2))
    story.accepted(story.ann, Revoke(consent))
    denied_again = story.ask()
    (declared,) = story.accepted(story.kim, Emergency(story.RECORD, "UNCONSCIOUS")).events
    emergency = trail.event_names(declared)["permit"]
    overdue = story.wait(REVIEW_DUE_MS)
    story.accepted(story.a, Review(emergency, "unjustified"))
    story.accepted(story.b, RevokeCredential(story.lee.public))
    story.accepted(story.ann, ReadTrail(story.RECORD))
    found = {
        "genesis": story.genesis.digest().hex(),
        "pseudonym": story.pseudonym.hex(),
        "signed_by_a_patient": registration_bytes(story.network, story.a.public, 2, story.fixed("opening")).hex(),
        "signed_by_a_clinician": credential_bytes(story.network, story.a.public, 2, story.fixed("opening")).hex(),
        "consent": consent.hex(),
        "permit": permit.hex(),
        "emergency": emergency.hex(),
        "denials": [denied[1], denied_again[1]],
        "due_receipts_root": receipts_root(overdue.receipts).hex(),
        "trails": {
            name: [trail.trail_of(story.state, subject).count, trail.trail_of(story.state, subject).digest.hex()]
            for name, subject in (("patient", story.pseudonym), ("record", story.RECORD))
        },
        "state_rows": len(story.state.rows),
        "state_digest": tagged_digest("test/state", codec.encode([[k, v] for k, v in sorted(story.state.rows.items())])).hex(),
        "state_root_64_buckets": StateTree.rebuild(64, sorted(story.state.rows.items())).root.hex(),
    }
    frozen = json.loads((repository / "tests" / "vectors" / "ledger.json").read_text(encoding="utf-8"))
    del frozen["about"]
    assert found == frozen
