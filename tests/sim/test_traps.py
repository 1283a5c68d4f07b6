"""Traps found in our own design before any code was written, each played as a whole network and named after the trap (tests/LESSONS.md)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pytest

import medchain.chain.validators
from medchain.chain.vote import COMMIT, PREPARE, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.engine.ready import Envelope, Event, Ready, Received, Ticked
from medchain.sim.clocks import EPOCH_MS
from medchain.sim.engines import founding_batch
from medchain.sim.faults import Crash, CrashPoint, Partition, quiet_plan
from medchain.sim.liars.twins import Twins, twins
from medchain.sim.network import links_between
from medchain.sim.node import EngineBuilder, EngineLike, Start
from medchain.sim.report import SeedReport
from medchain.sim.run import run_plan
from medchain.wire.peer import PastVotesSent
from tests.sim.probes import Probe, changed, run_scripted, told

pytestmark = pytest.mark.sim


# ---- two certificates without a common honest validator ---------------------------------------------------------------------


def two_sided(nodes: int, seed: int) -> SeedReport:
    """Cut the honest in two halves, with f liars whose two copies play along on both sides."""
    faults = (nodes - 1) // 3
    liars, honest = tuple(range(faults)), tuple(range(faults, nodes))
    left, right = honest[: len(honest) // 2], honest[len(honest) // 2 :]

    class TwoSided(Probe):
        def wrap(self, builder: EngineBuilder) -> EngineBuilder:
            def build(start: Start) -> EngineLike:
                if start.node not in liars:
                    return builder(start)
                keys = [hospital.consensus_key for hospital in start.genesis.hospitals]
                both = frozenset(keys[node] for node in liars)
                twin = twins(founding_batch(start.genesis), both)(start, builder)
                assert isinstance(twin, Twins)
                twin._sides = (both | {keys[node] for node in left}, both | {keys[node] for node in right})
                return twin

            return super().wrap(build)

    cut = Partition(50, 3_500, "halves", links_between(left, right), is_holding=False)
    return run_scripted(quiet_plan(seed, nodes, safety_ms=3_500).with_actions(cut), TwoSided(), liars, heights_min=1)


@pytest.mark.parametrize("nodes", [5, 6, 8, 9])
def test_2f_plus_1_as_quorum_where_n_is_not_3f_plus_1_gives_two_certificates_of_one_height(
    nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With q for any n the halves wait for each other; with 2f + 1 both decide, and the judges see it."""
    report = two_sided(nodes, seed=1)
    assert not report.violations, told(report)
    monkeypatch.setattr(medchain.chain.validators, "quorum", lambda n: 2 * ((n - 1) // 3) + 1)
    worlds = (two_sided(nodes, seed) for seed in range(1, 13))
    assert any(violation.checker == "agreement" for world in worlds for violation in world.violations)


# ---- re-proposals -----------------------------------------------------------------------------------------------------------


def now_of(events: Sequence[Event], clocks: dict[int, int], node: int) -> int:
    """Return a node's time since the world began, remembered from its newest tick."""
    for event in events:
        if isinstance(event, Ticked):
            clocks[node] = event.wall_ms - EPOCH_MS
    return clocks.get(node, 0)


@pytest.mark.parametrize("nodes", [4, 5, 7])
def test_re_stamped_re_proposal_forks_and_one_outside_the_clock_bound_halts_for_good(nodes: int) -> None:
    """All commits are lost for half a minute, thirty times the clock bound: the block prepared in view 0 is decided, byte for byte."""
    from_ms, until_ms = 1_000, 30_000
    clocks: dict[int, int] = {}

    def deaf_to_commits(start: Start, events: Sequence[Event]) -> Sequence[Event]:
        if not from_ms <= now_of(events, clocks, start.node) < until_ms:
            return events
        return [e for e in events if not (isinstance(e, Received) and isinstance(e.message, Vote) and e.message.kind == COMMIT)]

    probe = Probe(hear=deaf_to_commits)
    report = run_plan(quiet_plan(8, nodes, safety_ms=32_000, submit_interval_ms=400), wrap=probe.wrap)
    assert not report.violations, told(report)
    later = [decision for decision in probe.decisions if decision.at_ms >= until_ms]
    stalled = min(decision.height for decision in later)
    (digest,) = {decision.digest for decision in later if decision.height == stalled}
    prepared = {vote.view: vote.digest for node in range(nodes) for vote in of_height(probe, node, PREPARE, stalled)}
    assert prepared[0] == digest and set(prepared.values()) == {digest} and len(prepared) > 2
    store = probe.engines[0].chain  # type: ignore[attr-defined]
    block, certificate = store.block_of(stalled), store.certificate_of(stalled)
    assert block.header.view == 0 and certificate.view > 1
    decided_ms = min(decision.at_ms for decision in later if decision.height == stalled)
    assert decided_ms - (block.header.time_ms - EPOCH_MS) > 20 * quiet_plan(1).parameters.clock_bound_ms
    assert decided_ms < until_ms + 5_000


def of_height(probe: Probe, node: int, kind: int, height: int) -> list[Vote]:
    return [vote for vote in probe.votes(node) if isinstance(vote, Vote) and (vote.kind, vote.height) == (kind, height)]


# ---- evidence ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [4, 7])
def test_the_evidence_rule_convicts_an_honest_validator_at_a_normal_view_change(nodes: int) -> None:
    """A few prepare and commit in a view that the rest leaves; all of it is heard by everybody, late and again: nobody is convicted."""
    probe = Probe()
    held: dict[int, list[Event]] = defaultdict(list)
    clocks: dict[int, int] = {}
    slow_half = frozenset(range(nodes // 2, nodes))

    def hear_late(start: Start, events: Sequence[Event]) -> Sequence[Event]:
        """The slow half hears votes 350 ms late, more than a view lasts, and then twice."""
        now_ms = now_of(events, clocks, start.node)
        if start.node not in slow_half or now_ms >= 6_000:
            return [*events, *(held.pop(start.node, []) if now_ms >= 6_000 else [])]
        ripe = held[start.node] if now_ms % 400 < 50 else []
        held[start.node] = [] if ripe else held[start.node]
        late = [event for event in events if isinstance(event, Received) and isinstance(event.message, Vote)]
        held[start.node] += late
        return [*[event for event in events if event not in late], *ripe, *ripe]

    probe.hear = hear_late
    report = run_plan(quiet_plan(9, nodes, safety_ms=6_500), wrap=probe.wrap)
    assert not report.violations, told(report)
    assert not [reason for _, _, reason in probe.accusations]
    both = 0
    for node in range(nodes):
        changes = [vote for vote in probe.votes(node) if isinstance(vote, ViewChange)]
        commits = {vote.height for vote in probe.votes(node) if isinstance(vote, Vote) and vote.kind == COMMIT}
        both += sum(change.height in commits for change in changes)
    assert both > 10, "no validator committed and changed the view in one height"


# ---- amnesia ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [4, 7])
def test_a_liar_replays_pruned_own_votes_at_a_full_restart_and_everybody_is_observer_for_ever(nodes: int) -> None:
    """f liars answer the amnesia checks of all with genuine old votes; the decided heights they are of do not count."""
    liars = frozenset(range((nodes - 1) // 3))
    heard: dict[bytes, list[Vote]] = defaultdict(list)
    replayed = [0]

    def remember(start: Start, events: Sequence[Event]) -> Sequence[Event]:
        for event in events:
            if start.node in liars and isinstance(event, Received) and isinstance(event.message, Vote):
                heard[event.message.signer].append(event.message)
        return events

    def replay(start: Start, ready: Ready) -> Ready:
        def one(envelope: Envelope) -> list[Envelope]:
            answer = envelope.message
            if start.node not in liars or not isinstance(answer, PastVotesSent) or envelope.to is None:
                return [envelope]
            old = tuple(heard[envelope.to][-200:])
            replayed[0] += len(old)
            return [Envelope(envelope.to, replace(answer, votes=old, view_changes=()))]

        return changed(ready, one)

    probe = Probe(hear=remember, say=replay)
    crashes = [Crash(1_500, node, CrashPoint.ANYWHERE, 100) for node in range(nodes)]
    report = run_scripted(quiet_plan(10, nodes).with_actions(*crashes), probe, liars)
    assert not report.violations, told(report)
    assert replayed[0] > 50 and report.alarms == {}
    honest = [node for node in range(nodes) if node not in liars]
    assert min(probe.heights(1_700, 3_000, honest).values()) >= 10
    for node in honest:
        assert probe.engines[node].status()["waits_for"] == ""  # type: ignore[attr-defined]


# ---- the rotation -----------------------------------------------------------------------------------------------------------


def later_views(probe: Probe, first_ms: int, last_ms: int) -> int:
    """Return how many heights of a stretch of time were decided in a view above 0: somebody let its turn pass."""
    heights = {decision.height for decision in probe.decisions if first_ms <= decision.at_ms < last_ms}
    chain = probe.engines[max(probe.engines)].chain  # type: ignore[attr-defined]
    return sum(chain.certificate_of(height).view > 0 for height in heights)


@pytest.mark.parametrize("nodes", [4, 7])
def test_a_primary_that_signs_but_never_proposes_slows_the_chain_for_ever(nodes: int) -> None:
    """f lazy primaries over twenty seconds: each turn they let pass doubles the time until the next one."""
    lazy = frozenset(range((nodes - 1) // 3))

    def propose_nothing(start: Start, ready: Ready) -> Ready:
        is_lazy = start.node in lazy
        return changed(ready, lambda envelope: [] if is_lazy and isinstance(envelope.message, PrePrepare) else [envelope])

    probe = Probe(say=propose_nothing)
    report = run_scripted(quiet_plan(12, nodes, safety_ms=20_000, tick_ms=50), probe, lazy)
    assert not report.violations, told(report)
    early, late = later_views(probe, 0, 10_000), later_views(probe, 10_000, 20_000)
    assert early >= 2 * len(lazy) and late <= 2 * len(lazy), (early, late)
    assert report.heights > 200


def test_an_old_penalty_frees_a_silent_liar() -> None:
    """One node was away, is back and still barred when another falls silent: that one loses its turns all the same."""
    probe = Probe()
    away = Crash(300, 1, CrashPoint.ANYWHERE, 4_000)
    gone = Crash(5_500, 2, CrashPoint.ANYWHERE, 3_600_000)
    report = run_plan(quiet_plan(13, safety_ms=14_000, tick_ms=50).with_actions(away, gone), wrap=probe.wrap, heights_min=1)
    assert not report.violations, told(report)
    assert later_views(probe, 300, 4_300) > 0, "nobody was punished"
    assert later_views(probe, 5_500, 9_000) > 0
    assert later_views(probe, 9_000, 14_000) == 0
    assert probe.heights(9_000, 14_000, (0, 1, 3))[0] > 30


# ---- work that only some know -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [4, 7])
def test_a_transaction_known_only_to_one_node_or_a_disconnected_primary_waits_for_the_heartbeat(nodes: int) -> None:
    """The heartbeat is ten minutes away, each node in turn is cut off for four seconds: all is decided within seconds all the same."""
    parameters = replace(quiet_plan(1).parameters, heartbeat_ms=600_000)
    for node in range(nodes):
        others = tuple(peer for peer in range(nodes) if peer != node)
        cut = Partition(300, 4_000, "alone", links_between((node,), others), is_holding=False)
        plan = quiet_plan(node, nodes, safety_ms=4_000, submit_interval_ms=400, parameters=parameters).with_actions(cut)
        report = run_plan(plan, heights_min=1)
        assert not report.violations, told(report)
        assert report.decided == report.accepted


def test_an_id_is_replayed_after_it_left_the_window() -> None:
    """Clients hand in old transactions again and again for six times the window; none is decided twice."""
    parameters = replace(quiet_plan(1).parameters, expiry_window_blocks=10)
    plan = quiet_plan(1, safety_ms=6_000, submit_interval_ms=40, valid_for_blocks=9, resubmit_permille=500, parameters=parameters)
    report = run_plan(plan)
    assert not report.violations, told(report)
    assert report.heights > 60 and report.refusals["transaction.decided"] > 20
