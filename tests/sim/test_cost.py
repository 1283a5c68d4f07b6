"""What a seed costs, counted and not timed: work that is done once must not quietly be done for every node again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from medchain.consensus.instance import Instance
from medchain.crypto.signing import verify_many
from medchain.engine import verification
from medchain.sim import turns
from medchain.sim.checkers import case
from medchain.sim.faults import draw_plan
from medchain.sim.identity import SigningOrder
from medchain.sim.report import SeedReport
from medchain.sim.run import run_plan
from medchain.wire import peer

pytestmark = pytest.mark.sim

NODES = 4
HONEST_SEED = next(seed for seed in range(100) if not draw_plan(seed, NODES).liars and not draw_plan(seed, NODES).forgetful)
"""Nobody lies in it and no disk forgets, so the only false signatures are those of bad clients."""


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the expensive things are done."""
    counted: Counter[str] = Counter()

    def count(place: Any, name: str, label: str, size: Callable[..., int] = lambda *_: 1) -> None:
        real = getattr(place, name)

        def counting(*arguments: Any, **named: Any) -> Any:
            counted[label] += size(*arguments)
            return real(*arguments, **named)

        monkeypatch.setattr(place, name, counting)

    count(verification, "verify_many", "signatures verified for nodes", len)
    count(case, "verify_many", "signatures verified for judges", len)
    count(turns, "encode_message", "messages encoded")
    count(turns, "decode_message", "messages decoded")
    count(peer.codec, "encode", "values encoded")
    count(Instance, "advance", "times the rules were applied")
    count(Instance, "pass_time", "ticks")
    return counted


def run_counted() -> SeedReport:
    report = run_plan(draw_plan(HONEST_SEED, NODES))
    assert not report.violations
    assert report.heights >= 20
    return report


def test_only_what_the_world_did_not_see_being_signed_is_verified(counts: Counter[str]) -> None:
    report = run_counted()
    assert counts["signatures verified for nodes"] <= report.refusals.get("transaction.signature", 0) + 2
    assert counts["signatures verified for judges"] == 0


def test_message_is_encoded_once_for_all_its_receivers_and_decoded_once(counts: Counter[str]) -> None:
    report = run_counted()
    assert counts["messages decoded"] <= counts["messages encoded"]
    assert counts["messages encoded"] < report.messages * 3 // 5


def test_tick_before_the_deadline_applies_no_rule(counts: Counter[str]) -> None:
    report = run_counted()
    assert counts["ticks"] > 200
    assert counts["times the rules were applied"] < 14 * report.heights * NODES


def test_values_encoded_for_a_decided_height_and_node_are_bounded(counts: Counter[str]) -> None:
    report = run_counted()
    assert counts["values encoded"] < 90 * report.heights * NODES


def test_what_the_world_saw_being_signed_is_what_libsodium_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[bytes, bytes, bytes]] = []
    real = SigningOrder.note

    def note(self: SigningOrder, public: bytes, message: bytes, signature: bytes) -> None:
        made.append((public, message, signature))
        real(self, public, message, signature)

    monkeypatch.setattr(SigningOrder, "note", note)
    run_counted()
    assert len(made) > 200
    assert all(verify_many(made))
