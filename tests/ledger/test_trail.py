"""Trails: a running digest that no cut, change, exchange or move survives."""

from __future__ import annotations

from medchain.ledger import rows, trail
from medchain.ledger.rows import decode_row
from medchain.ledger.trail import TrailHead, event_names, trail_after, trail_next, trail_start

EVENTS = [(3, b"first"), (3, b"second"), (7, b"third")]


def test_digest_depends_on_every_event_its_order_height_and_bytes():
    head = trail_after(trail_start(), EVENTS)
    assert head.count == 3
    others = [
        EVENTS[:2], EVENTS[1:], [EVENTS[1], EVENTS[0], EVENTS[2]], [(4, b"first"), *EVENTS[1:]], [(3, b"firsT"), *EVENTS[1:]],
        [*EVENTS, EVENTS[2]],
    ]  # fmt: skip
    assert len({head.digest, *(trail_after(trail_start(), other).digest for other in others)}) == len(others) + 1


def test_events_between_two_heads_lead_from_one_to_the_other():
    middle = trail_after(trail_start(), EVENTS[:1])
    assert trail_after(middle, EVENTS[1:]) == trail_after(trail_start(), EVENTS)


def test_index_in_the_trail_is_under_the_digest():
    assert trail_next(TrailHead(0, bytes(32)), 1, b"x").digest != trail_next(TrailHead(1, bytes(32)), 1, b"x").digest


def test_heads_in_the_state_are_those_of_all_events_of_the_receipts(story):
    story.grant()
    story.ask()
    for subject in (story.pseudonym, story.RECORD):
        events = [(height, event.encode()) for height, event in story.events if subject in event.subjects]
        assert trail.trail_of(story.state, subject) == trail_after(trail_start(), events)
        assert decode_row(TrailHead, story.state.rows[trail.trail_key(subject)]).count == len(events)
    assert rows.TRAIL + story.pseudonym == trail.trail_key(story.pseudonym)


def test_trail_of_an_unknown_subject_is_the_start(world):
    assert trail.trail_of(world.state, bytes(32)) == trail_start()


def test_every_event_of_a_story_has_named_fields(story):
    story.grant()
    story.ask()
    for _, event in story.events:
        assert set(event_names(event)) == set(trail.EVENT_FIELDS[event.kind])
