"""Lists: pages with cursors that stay good while the list grows."""

from __future__ import annotations

import pytest

from medchain.errors import InvariantBroken
from medchain.ledger import lists, rows
from medchain.ledger.execution import Execution
from medchain.store.overlay import Overlay

OWNER = bytes(32)


@pytest.fixture
def execution(world):
    return Execution(world.context(), Overlay(world.state), b"", bytes(32))


def fill(execution, count):
    for index in range(count):
        lists.append_item(execution, lists.RECORDS, OWNER, b"item %d" % index)


def test_pages_show_every_item_once_in_order(execution):
    fill(execution, 7)
    seen, start = [], 0
    while start is not None:
        items, start = lists.read_page(execution.state, lists.RECORDS, OWNER, start, 3)
        seen += items
    assert seen == [b"item %d" % index for index in range(7)]
    assert lists.count_of(execution.state, lists.RECORDS, OWNER) == 7


def test_page_is_bounded_whatever_is_asked(execution):
    fill(execution, lists.PAGE_MAX + 1)
    items, following = lists.read_page(execution.state, lists.RECORDS, OWNER, 0, 10**9)
    assert (len(items), following) == (lists.PAGE_MAX, lists.PAGE_MAX)
    assert len(lists.read_page(execution.state, lists.RECORDS, OWNER, 0, 0)[0]) == 1


def test_cursor_outside_the_list_gives_an_empty_or_the_first_page(execution):
    fill(execution, 2)
    assert lists.read_page(execution.state, lists.RECORDS, OWNER, 99, 5) == ([], None)
    assert lists.read_page(execution.state, lists.RECORDS, OWNER, -5, 5) == ([b"item 0", b"item 1"], None)
    assert lists.read_page(execution.state, lists.CONSENTS, OWNER, 0, 5) == ([], None)


def test_missing_item_is_a_broken_invariant(execution):
    fill(execution, 2)
    execution.state.delete(rows.LIST + lists.RECORDS + OWNER + rows.uint64(1))
    with pytest.raises(InvariantBroken):
        lists.read_page(execution.state, lists.RECORDS, OWNER, 0, 5)
