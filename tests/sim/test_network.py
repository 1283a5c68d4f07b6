"""The pretend network: what it loses, holds, doubles and keeps in order."""

from __future__ import annotations

import random

from medchain.sim.network import Network, Weather, Wiring, links_between

LINK = (0, 1)


def network(**weather: int) -> Network:
    return Network(random.Random(7), Weather(**weather))


def test_calm_link_keeps_the_order_of_messages() -> None:
    calm = network(delay_min_us=0, delay_max_us=10_000)
    arrivals = [calm.send(sent_us, LINK, b"")[0] for sent_us in range(0, 50_000, 100)]
    assert arrivals == sorted(arrivals)


def test_bad_weather_loses_doubles_and_reorders() -> None:
    stormy = network(loss_permille=300, duplicate_permille=300, reorder_permille=500)
    arrivals = [stormy.send(sent_us, LINK, b"") for sent_us in range(0, 500_000, 500)]
    counts = {len(arrival) for arrival in arrivals}
    firsts = [arrival[0] for arrival in arrivals if arrival]
    assert counts == {0, 1, 2} and firsts != sorted(firsts)
    assert stormy.lost > 200 and stormy.doubled > 100 and stormy.reordered > 200


def test_partition_loses_in_the_blocked_direction_only_and_overlapping_ones_end_one_by_one() -> None:
    calm = network()
    calm.block((LINK,), is_holding=False)
    calm.block((LINK,), is_holding=False)
    assert calm.send(0, LINK, b"lost") == [] and calm.send(0, (1, 0), b"")
    calm.unblock((LINK,), is_holding=False)
    assert calm.is_blocked(LINK)
    calm.unblock((LINK,), is_holding=False)
    assert calm.send(0, LINK, b"")


def test_clogged_link_gives_back_what_it_held_when_it_clears() -> None:
    calm = network()
    calm.block((LINK,), is_holding=True)
    assert calm.send(0, LINK, b"one") == [] and calm.send(0, LINK, b"two") == []
    assert calm.unblock((LINK,), is_holding=True) == [(LINK, b"one"), (LINK, b"two")]
    calm.block((LINK,), is_holding=True)
    calm.send(0, LINK, b"three")
    assert calm.heal() == [(LINK, b"three")]


def test_each_end_sees_its_own_side_of_a_connection() -> None:
    wiring = Wiring()
    wiring.connect(2, 1)
    first = wiring.epoch(1, 2)
    wiring.drop_end(1, 2)
    assert not wiring.is_up(1, 2) and wiring.is_up(2, 1)
    wiring.connect(1, 2)
    assert wiring.epoch(2, 1) == first + 1


def test_links_between_two_sides_go_both_ways() -> None:
    assert sorted(links_between((0,), (1, 2))) == [(0, 1), (0, 2), (1, 0), (2, 0)]
