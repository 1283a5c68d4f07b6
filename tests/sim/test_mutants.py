"""Mutants: one rule of our own is dropped at a time, and a judge must see it soon: a judge that sees nothing judges nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

import medchain.chain.validators
from medchain.consensus.instance import Instance
from medchain.consensus.promises import Promises
from medchain.engine.decided import DecidedChain
from medchain.engine.executor import Executor
from medchain.engine.ready import Event, Ready
from medchain.engine.recovery import AmnesiaCheck
from medchain.engine.verification import Verifier
from medchain.sim.faults import Backup, Crash, CrashPoint, DiskFate, draw_plan, quiet_plan
from medchain.sim.node import EngineBuilder, EngineLike, Start
from medchain.sim.run import run_plan
from medchain.store import layout
from medchain.store.keyvalue import WriteBatch

pytestmark = pytest.mark.sim
SEEDS = 60


class Filter:
    """An engine whose batches lose some rows before they are written."""

    def __init__(self, engine: EngineLike, is_kept: Callable[[bytes], bool]) -> None:
        self._engine = engine
        self._is_kept = is_kept

    def handle_all(self, events: Sequence[Event]) -> Ready:
        ready = self._engine.handle_all(events)
        kept = tuple(operation for operation in ready.batch.operations if self._is_kept(operation[0]))
        return replace(ready, batch=WriteBatch(kept))


def filtered(is_kept: Callable[[bytes], bool]) -> Callable[[EngineBuilder], EngineBuilder]:
    def wrap(builder: EngineBuilder) -> EngineBuilder:
        def build(start: Start) -> EngineLike:
            return Filter(builder(start), is_kept)

        return build

    return wrap


def first_finding(wrap: Callable[[EngineBuilder], EngineBuilder] | None = None, seeds: int = SEEDS) -> tuple[str, str]:
    """Run seeds of four nodes until a judge speaks; return which and what."""
    for seed in range(seeds):
        report = run_plan(draw_plan(seed, 4), wrap=wrap)
        if report.violations:
            return report.violations[0].checker, report.violations[0].message
    return "", f"nothing was seen in {seeds} seeds"


def test_votes_that_are_not_durable_are_seen() -> None:
    """The amnesia check and the sight of own unknown votes make such nodes stop voting and alarm, which may be what is seen first."""
    checker, message = first_finding(filtered(lambda key: not key.startswith(layout.HARD_STATE)))
    assert checker in ("promises", "agreement", "stopped", "progress", "tidiness", "honesty"), message


def test_pool_that_is_not_durable_is_seen() -> None:
    checker, message = first_finding(filtered(lambda key: not key.startswith(layout.POOL)))
    assert checker == "durability", message


def test_state_that_is_not_written_is_seen() -> None:
    checker, message = first_finding(filtered(lambda key: not key.startswith(layout.STATE)))
    assert checker in ("roots", "stopped"), message


def test_certificates_that_are_not_written_are_seen() -> None:
    checker, message = first_finding(filtered(lambda key: not key.startswith(layout.CERTIFICATE)))
    assert checker in ("certificates", "stopped", "progress"), message


def test_quorum_of_half_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medchain.chain.validators, "quorum", lambda n: n // 2)
    checker, message = first_finding()
    assert checker in ("agreement", "promises", "stopped"), message


def test_view_change_that_hides_what_was_prepared_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Promises.change_view

    def forgetful(self: Promises, view: int) -> Any:
        proof, self.proof = self.proof, None
        try:
            return honest(self, view)
        finally:
            self.proof = proof

    monkeypatch.setattr(Promises, "change_view", forgetful)
    monkeypatch.setattr(Promises, "is_bound_to_certificate", property(lambda self: False))
    checker, message = first_finding()
    assert checker in ("promises", "agreement", "stopped"), message


def test_voting_in_a_view_that_one_left_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Promises.change_view

    def restless(self: Promises, view: int) -> Any:
        change, records = honest(self, view)
        del self._view_changes[view]
        return change, records

    monkeypatch.setattr(Promises, "change_view", restless)
    monkeypatch.setattr(Instance, "may_sign_in_view", property(lambda self: self.may_sign))
    checker, message = first_finding()
    assert checker in ("promises", "agreement", "stopped"), message


def test_forged_signatures_let_through_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Verifier, "check_all", lambda self, items: [True] * len(items))
    checker, message = first_finding()
    assert checker in ("honesty", "certificates"), message


def test_replayed_transactions_let_through_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful:
        def __init__(self, archive: Any) -> None:
            self._archive = archive

        def __getattr__(self, name: str) -> Any:
            return getattr(self._archive, name)

        def locate(self, transaction_id: bytes) -> None:
            return None

    honest = DecidedChain.__init__

    def founded(self: DecidedChain, *arguments: Any, **named: Any) -> None:
        honest(self, *arguments, **named)
        self.archive = Forgetful(self.archive)  # type: ignore[assignment]

    monkeypatch.setattr(DecidedChain, "__init__", founded)
    checker, message = first_finding()
    assert checker in ("durability", "stopped"), message


def test_execution_that_differs_from_the_rule_book_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Executor._apply

    def late(self: Executor, height: int, time_ms: int, *arguments: Any) -> Any:
        return honest(self, height, time_ms + 1, *arguments)

    monkeypatch.setattr(Executor, "_apply", late)
    checker, message = first_finding()
    assert checker == "roots", message


def test_amnesia_check_left_out_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup older than its owner's votes, put back without a word, lets it vote twice."""
    monkeypatch.setattr(AmnesiaCheck, "may_vote", lambda self: True)
    for at_ms in range(1_000, 1_200, 7):
        crashes = [Crash(at_ms, node, CrashPoint.BETWEEN_SENDS, 5, 1000, fate=DiskFate.RESTORED) for node in range(4)]
        plan = quiet_plan(1).with_actions(*[Backup(at_ms - 8, node) for node in range(4)], *crashes)
        report = run_plan(plan, faulty=frozenset())
        if any(violation.checker in ("promises", "agreement", "stopped") for violation in report.violations):
            return
    pytest.fail("nobody saw four restored backups vote again")
