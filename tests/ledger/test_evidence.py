"""Evidence on the chain: what is recorded, each refusal by its code, and growth that is bounded by heights and not by lies."""

from __future__ import annotations

import pytest

from medchain.chain.evidence import EQUIVOCATION, VIEW_CHANGE_LIE, Contradiction
from medchain.chain.vote import COMMIT, Vote
from medchain.errors import InvariantBroken, Rejected
from medchain.ledger import lists, queries, rows
from medchain.ledger.apply import BlockContext, Carried, apply_block
from medchain.ledger.evidence import (
    EVIDENCE_AGE_BLOCKS,
    EVIDENCE_INTERVAL_BLOCKS,
    RECORDED,
    EvidenceRow,
    check_recordable,
    evidence_of,
    newest_evidence_of,
    suspension_proposed,
)
from medchain.ledger.records import ConfirmCustody
from medchain.ledger.trail import event_names, trail_of


def code_of(world, data: bytes, height: int | None = None) -> str:
    """The code with which the next block (or one of `height`) may not record this; empty if it may."""
    try:
        check_recordable(world.state, world.height + 1 if height is None else height, Contradiction.decode(data))
    except Rejected as refusal:
        return refusal.code
    return ""


def test_recorded_evidence_is_a_row_an_event_and_a_proposal_to_suspend(world):
    world.wait(1)
    data = world.double_vote("d", 1)
    found = Contradiction.decode(data)
    applied = world.block(evidence=(data,))
    (receipt,) = applied.receipts
    (event,) = receipt.events
    hospital = world.hospital("d").public
    assert (event.kind, event.subjects) == (RECORDED, (hospital,))
    assert event_names(event) == {"hospital": hospital, "offence": EQUIVOCATION, "height": 1, "evidence": found.digest()}
    row = evidence_of(world.state, found.digest())
    assert row == EvidenceRow(EQUIVOCATION, found.offender, hospital, 1, 2, world.time_ms, data)
    assert newest_evidence_of(world.state, found.offender, EQUIVOCATION).identity == found.digest()
    proposed = suspension_proposed(world.state, hospital)
    assert (proposed.identity, proposed.from_height, proposed.time_ms) == (found.digest(), 2, world.time_ms)
    assert trail_of(world.state, hospital).count == 1
    assert applied.validators == world.genesis.validators(), "suspension is a vote, not a consequence"


def test_evidence_shares_the_receipt_of_due_items_and_transactions_keep_theirs(story):
    transaction = story.transaction(story.d, ConfirmCustody(story.RECORD, 1))
    applied = story.block(transaction, evidence=(story.double_vote("d", story.height),))
    assert [receipt.transaction_id for receipt in applied.receipts][1:] == [transaction.id]
    assert [receipt.transaction_id for receipt in applied.transaction_receipts] == [transaction.id]


def test_each_offence_of_each_offender_is_recorded_and_the_first_one_proposes_suspension(world):
    first = world.double_vote("d", 1)
    world.block(evidence=(first,))
    others = (world.lie("d", 2), world.double_vote("c", 2), world.lie("c", 2))
    world.block(evidence=others)
    identities, following = lists.read_page(world.state, lists.EVIDENCE, b"", 0, 10)
    assert identities == [Contradiction.decode(data).digest() for data in (first, *others)] and following is None
    assert suspension_proposed(world.state, world.hospital("d").public).identity == identities[0]
    assert suspension_proposed(world.state, world.hospital("c").public).identity == identities[2]
    assert suspension_proposed(world.state, world.hospital("a").public) is None
    assert [evidence_of(world.state, identity).offence for identity in identities] == [
        EQUIVOCATION, VIEW_CHANGE_LIE, EQUIVOCATION, VIEW_CHANGE_LIE,
    ]  # fmt: skip


def test_evidence_counts_from_its_height_on_and_not_for_ever(world):
    assert code_of(world, world.double_vote("d", 2), 1) == "evidence.future"
    assert code_of(world, world.double_vote("d", 2), 2) == ""
    assert code_of(world, world.double_vote("d", 2), 2 + EVIDENCE_AGE_BLOCKS) == ""
    assert code_of(world, world.double_vote("d", 2), 3 + EVIDENCE_AGE_BLOCKS) == "evidence.too-old"


def test_the_same_lie_is_recorded_once_and_another_one_after_the_interval(world):
    world.wait(1)
    data = world.double_vote("d", 2)
    world.block(evidence=(data,))
    before = dict(world.state.rows)
    for again in (data, world.double_vote("d", 2, view=1), world.double_vote("d", 1), world.double_vote("d", 3)):
        assert code_of(world, again) == "evidence.recorded"
    last = 2 + EVIDENCE_INTERVAL_BLOCKS
    assert code_of(world, world.double_vote("d", last - 1), last) == "evidence.recorded"
    assert code_of(world, world.double_vote("d", last), last) == ""
    assert code_of(world, world.lie("d", 3)) == "" and code_of(world, world.double_vote("c", 3)) == ""
    assert world.state.rows == before
    world.height = last - 1
    world.block(evidence=(world.double_vote("d", last),))
    assert lists.count_of(world.state, lists.EVIDENCE, b"") == 2
    assert code_of(world, data, last + 1) == "evidence.recorded", "also the first one, though another is the newest now"


def test_key_that_is_no_hospitals_convicts_nobody(world):
    votes = [Vote.sign(world.network, world.key("stranger"), COMMIT, 1, 0, world.fixed(name)) for name in ("one", "two")]
    assert code_of(world, Contradiction.of(*votes).encode()) == "evidence.stranger"


def test_a_liar_that_contradicts_itself_in_every_height_grows_the_state_by_one_row_an_interval(world):
    recorded = 0
    for height in range(1, 2 * EVIDENCE_INTERVAL_BLOCKS, 100):
        world.height = height - 1
        data = world.double_vote("d", height)
        if not code_of(world, data):
            world.block(evidence=(data,))
            recorded += 1
    assert recorded == 2 == len([key for key in world.state.rows if key.startswith(rows.EVIDENCE)])


@pytest.mark.parametrize("bad", ["no evidence", "of the future"])
def test_execution_takes_no_evidence_that_the_engine_had_to_refuse(world, bad):
    data = b"\x90" if bad == "no evidence" else world.double_vote("d", 9)
    context = BlockContext(1, world.time_ms + 1, world.network, world.genesis.parameters)
    with pytest.raises(InvariantBroken):
        apply_block(world.state, context, (), Carried(evidence=(data,)))


def test_what_people_are_told_of_evidence(world):
    data = world.lie("d", 1)
    identity = Contradiction.decode(data).digest()
    assert queries.evidence(world.state, identity) is None
    world.block(evidence=(data,))
    told = queries.evidence(world.state, identity)
    assert told == {
        "id": identity, "offence": VIEW_CHANGE_LIE, "offender": world.key("d consensus").public, "hospital": world.hospital("d").public,
        "height": 1, "from_height": 1, "time_ms": world.time_ms, "evidence": data,
    }  # fmt: skip
