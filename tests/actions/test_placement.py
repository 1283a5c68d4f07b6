"""Everyone computes the same holders; a change of members moves few records."""

from __future__ import annotations

from medchain.actions.placement import designated_holders, ranked_holders

HOSPITALS = [bytes([number]) * 32 for number in range(1, 8)]
RECORDS = [bytes([number % 256, number // 256]) * 16 for number in range(600)]


def test_custodian_is_never_its_own_replica_and_holders_are_distinct() -> None:
    for record in RECORDS:
        holders = designated_holders(record, HOSPITALS[0], HOSPITALS)
        assert HOSPITALS[0] not in holders
        assert len(set(holders)) == 2


def test_order_of_the_list_does_not_matter() -> None:
    assert ranked_holders(RECORDS[1], HOSPITALS[0], HOSPITALS) == ranked_holders(RECORDS[1], HOSPITALS[0], HOSPITALS[::-1])


def test_every_hospital_gets_a_fair_share() -> None:
    counts = {hospital: 0 for hospital in HOSPITALS[1:]}
    for record in RECORDS:
        for holder in designated_holders(record, HOSPITALS[0], HOSPITALS):
            counts[holder] += 1
    assert all(140 <= count <= 260 for count in counts.values())


def test_removing_a_hospital_moves_only_the_records_it_held() -> None:
    gone = HOSPITALS[3]
    rest = [hospital for hospital in HOSPITALS if hospital != gone]
    for record in RECORDS:
        before = designated_holders(record, HOSPITALS[0], HOSPITALS)
        after = designated_holders(record, HOSPITALS[0], rest)
        if gone not in before:
            assert after == before
