"""Key ranges do not overlap, and key order is number order."""

from __future__ import annotations

import pytest

from medchain.errors import InvariantBroken
from medchain.store import layout
from medchain.store.keyvalue import KEY_BYTES_MAX


def test_no_range_is_a_prefix_of_another() -> None:
    assert len(set(layout.RANGES)) == len(layout.RANGES)
    assert all(not a.startswith(b) for a in layout.RANGES for b in layout.RANGES if a != b)


def test_key_order_is_number_order() -> None:
    heights = [0, 1, 255, 256, 65_535, 2**32, 2**64 - 1]
    for build in (layout.block_key, layout.certificate_key, layout.receipts_key, lambda height: layout.event_key(b"s", height, 0)):
        keys = [build(height) for height in heights]
        assert keys == sorted(keys)


def test_every_key_fits_the_contract_and_its_range() -> None:
    digest = b"\xff" * 32
    keys = {
        layout.META: layout.meta_key("name"),
        layout.BLOCK: layout.block_key(7),
        layout.BODY: layout.body_key(digest),
        layout.CERTIFICATE: layout.certificate_key(7),
        layout.RECEIPTS: layout.receipts_key(7),
        layout.HEIGHT_BY_DIGEST: layout.height_key(digest),
        layout.TRANSACTION: layout.transaction_key(digest),
        layout.STATE: layout.state_key(b"key"),
        layout.HARD_STATE: layout.pin_key(7, digest),
        layout.POOL: layout.pool_key(digest),
        layout.HISTORY: layout.history_node_key(63, 2**63),
        layout.EVENT: layout.event_key(b"s" * 255, 7, 1),
        layout.RELEASE: layout.release_key(b"name"),
        layout.EVIDENCE: layout.evidence_key(digest),
    }
    assert set(keys) == set(layout.RANGES)
    assert all(key.startswith(prefix) and len(key) <= KEY_BYTES_MAX for prefix, key in keys.items())


def test_hard_state_range_holds_the_asked_heights_and_no_other() -> None:
    start, stop = layout.hard_state_range(3, 4)
    inside = [height for height in range(8) if start <= layout.hard_state_key(height, b"o", b"\xff" * 40) < stop]
    assert inside == [3, 4]
    with pytest.raises(InvariantBroken):
        layout.hard_state_key(3, b"two")


@pytest.mark.parametrize("subject", [b"", b"s" * 256])
def test_event_subject_of_no_or_too_many_bytes_is_our_bug(subject: bytes) -> None:
    with pytest.raises(InvariantBroken):
        layout.event_key(subject, 1, 0)


def test_subjects_that_begin_alike_do_not_share_events() -> None:
    assert not layout.event_key(b"ab", 1, 0).startswith(layout.event_prefix(b"a"))
