"""Hospitals that are killed with kill -9 while everybody works: what was accepted stays, nothing happens twice, and they come back."""

from __future__ import annotations

import time

import pytest

from medchain.testnet.launch import poll

pytestmark = pytest.mark.cluster

BACK_WITHIN_S = 10.0


def check_nothing_lost_or_doubled(cluster, accepted: list[str]) -> None:
    cluster.wait_agreed()
    for name in cluster.names:
        decided = cluster.decided_ids(name)
        assert [identity for identity in accepted if decided[identity] == 0] == [], f"lost at {name}"
        assert [identity for identity, count in decided.items() if count > 1] == [], f"doubled at {name}"
    for identity in accepted[:: max(1, len(accepted) // 20)]:
        assert cluster.ask("a", "tx.status", id=identity)["code"] == ""


def test_killing_each_hospital_in_turn_under_load_loses_and_doubles_no_accepted_transaction(cluster, load):
    """The primary changes with every height, so each of them is killed as primary of some."""
    load.start()
    cluster.wait("the first blocks", lambda: cluster.height("a") >= 3)
    for name in cluster.names:
        cluster.testnet.kill(name)
        survivor = next(other for other in cluster.names if other != name)
        height = cluster.height(survivor)
        cluster.wait(f"work goes on without {name}", lambda survivor=survivor, height=height: cluster.height(survivor) >= height + 4)
        began = time.monotonic()
        cluster.testnet.start([name])
        cluster.testnet.wait_ready([name], timeout_s=BACK_WITHIN_S)
        caught_up = cluster.height(survivor)
        cluster.wait(f"{name} catches up", lambda name=name, caught_up=caught_up: cluster.height(name) >= caught_up, BACK_WITHIN_S)
        assert time.monotonic() - began < BACK_WITHIN_S
    accepted = load.finish()
    assert len(accepted) > 100
    check_nothing_lost_or_doubled(cluster, accepted)


def test_killing_all_hospitals_at_once_under_load_loses_and_doubles_no_accepted_transaction(cluster, load):
    load.start()
    cluster.wait("the first blocks", lambda: cluster.height("a") >= 3)
    for name in cluster.names:
        cluster.testnet.kill(name)
    accepted = load.finish()
    cluster.testnet.start()
    cluster.testnet.wait_ready()
    check_nothing_lost_or_doubled(cluster, accepted)


def test_two_dead_of_four_decide_nothing_and_one_that_returns_makes_it_go_on_by_itself(cluster):
    first = cluster.submit("a", cluster.registration("a"))
    assert cluster.ask("a", "tx.wait", id=first, timeout_ms=20_000)["status"] == "decided"
    cluster.wait_agreed()
    cluster.testnet.kill("c")
    cluster.testnet.kill("d")
    height = cluster.height("a")
    waiting = cluster.submit("a", cluster.registration("a"))
    assert not poll(lambda: cluster.height("a") > height or cluster.height("b") > height, 4.0)
    assert cluster.ask("a", "tx.status", id=waiting)["status"] == "pending"
    cluster.testnet.start(["c"])
    assert cluster.ask("a", "tx.wait", id=waiting, timeout_ms=30_000)["status"] == "decided"
    cluster.wait_agreed(["a", "b", "c"])


def test_hospital_with_a_lost_disk_starts_empty_only_when_told_to_and_votes_once_the_others_confirmed(cluster):
    for _ in range(3):
        identity = cluster.submit("a", cluster.registration("a"))
        assert cluster.ask("a", "tx.wait", id=identity, timeout_ms=20_000)["status"] == "decided"
    cluster.testnet.kill("b")
    data = cluster.plan.seat("b").home.data_folder
    data.rename(data.with_name("lost"))
    cluster.testnet.start(["b"])
    with pytest.raises(Exception, match=r"--empty-store.*store\.missing"):
        cluster.testnet.wait_ready(["b"])
    cluster.testnet.start(["b"], options=["--empty-store"])
    cluster.testnet.wait_ready(["b"])
    identity = cluster.submit("b", cluster.registration("b"))
    assert cluster.ask("b", "tx.wait", id=identity, timeout_ms=20_000)["status"] == "decided"
    cluster.wait_agreed()
