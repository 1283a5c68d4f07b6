"""What broke in other systems, played here as a whole network: one scenario a failure, named after it (list: tests/LESSONS.md)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import pytest

from medchain.chain.block import Block
from medchain.chain.certificate import Certificate
from medchain.chain.limits import VIEW_MAX
from medchain.chain.vote import PREPARE, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.crypto.hashing import tagged_digest
from medchain.engine.engine import Engine
from medchain.engine.executor import Executor
from medchain.engine.ready import Envelope, Event, Ready
from medchain.errors import InvariantBroken
from medchain.sim.faults import Crash, CrashPoint, Partition, Pause, quiet_plan
from medchain.sim.network import Weather, links_between
from medchain.sim.node import EngineBuilder, EngineLike, Start
from medchain.sim.run import run_plan
from medchain.wire.peer import PoolListed, RangeSent, TransactionsOffered, TransactionsWanted
from tests.sim.probes import Probe, changed, run_scripted, told, without_clients

pytestmark = pytest.mark.sim


def sign_view_change(start: Start, height: int, view: int) -> ViewChange:
    return ViewChange.sign(start.genesis.domain(), start.key, height, view, None)


# ---- timers and views -------------------------------------------------------------------------------------------------------


def test_next_try_only_after_68_minutes_because_the_round_timer_doubled_without_a_cap_besu_7642() -> None:
    """Quorum lost for ten minutes and restored: the first block within ten seconds, and nobody was restarted."""
    probe = Probe()
    split = Partition(1_000, 600_000, "split", links_between((0, 1), (2, 3)), is_holding=False)
    plan = quiet_plan(1, safety_ms=600_000, submit_interval_ms=5_000, tick_ms=100).with_actions(split)
    report = run_plan(plan, wrap=probe.wrap)
    assert not report.violations, told(report)
    assert report.recovery_ms < 10_000
    assert set(probe.starts.values()) == {1}
    assert probe.longest_pause_ms(0, 600_000) > 590_000, "the quorum was not lost"


def heights_with(nodes: int, dead: Sequence[int], safety_ms: int) -> None:
    """Kill these nodes for good and demand that the others go on deciding at a steady pace."""
    probe = Probe()
    crashes = [Crash(300, node, CrashPoint.ANYWHERE, 3_600_000) for node in dead]
    plan = quiet_plan(sum(dead), nodes, safety_ms=safety_ms).with_actions(*crashes)
    report = run_plan(plan, wrap=probe.wrap, heights_min=1)
    assert not report.violations, f"{dead} dead: {told(report)}"
    living = [node for node in range(nodes) if node not in dead]
    counts = probe.heights(500, safety_ms, living)
    assert min(counts.values()) >= 10, f"{dead} dead: heights decided by the others: {counts}"
    assert probe.longest_pause_ms(500, safety_ms) < 2_500, f"{dead} dead"


@pytest.mark.parametrize("nodes", [4, 5, 6, 7])
def test_two_of_seven_down_and_it_stalls_half_the_time_besu_6613(nodes: int) -> None:
    """Every set of f dead validators, not only the convenient ones."""
    for dead in combinations(range(nodes), (nodes - 1) // 3):
        heights_with(nodes, dead, 4_000)


def test_three_of_ten_down_and_it_stalls_half_the_time_besu_6613() -> None:
    """Sixteen of the 120 sets: neighbours in the rotation, which cost most, and some drawn at random. The long tier has them all."""
    sets = [*[tuple(sorted((first + step) % 10 for step in range(3))) for first in range(0, 10, 2)], (0, 5, 9), (0, 3, 6)]
    sets += random.Random(6613).sample(list(combinations(range(10), 3)), 5)
    for dead in sets:
        heights_with(10, dead, 5_000)


@pytest.mark.long
def test_any_three_of_ten_down_and_it_stalls_half_the_time_besu_6613() -> None:
    for dead in combinations(range(10), 3):
        heights_with(10, dead, 8_000)


CUTS = {
    "halves": links_between((0, 1), (2, 3)),
    "alone": links_between((0,), (1, 2, 3)),
    "one-way": tuple((a, b) for a in (0, 1) for b in (2, 3)),
    "nobody hears 0": tuple((0, b) for b in (1, 2, 3)),
    "0 hears nobody": tuple((b, 0) for b in (1, 2, 3)),
    "ring": ((0, 2), (2, 0), (1, 3), (3, 1)),
    "star": ((1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)),
    "everyone alone": tuple((a, b) for a in range(4) for b in range(4) if a != b),
}


@pytest.mark.parametrize("shape", CUTS)
@pytest.mark.parametrize("is_holding", [False, True])
def test_out_of_consensus_for_hours_after_thirty_seconds_of_network_loss_indy_node_1700(shape: str, is_holding: bool) -> None:
    """Partitions of every shape, messages lost or held back: all at one height within five seconds of healing."""
    cut = Partition(500, 30_000, shape, CUTS[shape], is_holding)
    report = run_plan(quiet_plan(1, safety_ms=30_500, submit_interval_ms=700, tick_ms=50).with_actions(cut))
    assert not report.violations, told(report)
    assert report.recovery_ms < 5_000


@pytest.mark.parametrize("seed", range(4))
def test_view_change_storm_in_which_view_numbers_run_apart_indy_node_1720(seed: int) -> None:
    """A minute in which everyone is cut off now and then, with others each time and at other moments: the views stay together."""
    dice = random.Random(1720 + seed)
    cuts = []
    for at_ms in range(500, 60_000, 700):
        left = tuple(dice.sample(range(4), dice.randint(1, 3)))
        right = tuple(node for node in range(4) if node not in left)
        links = links_between(left, right) if dice.randrange(2) else tuple((a, b) for a in left for b in right)
        cuts.append(Partition(at_ms, dice.choice((300, 900, 2_400)), "split", links, is_holding=bool(dice.randrange(2))))
    probe = Probe()
    plan = quiet_plan(seed, safety_ms=60_000, submit_interval_ms=500, tick_ms=50).with_actions(*cuts)
    report = run_plan(plan, wrap=probe.wrap)
    assert not report.violations, told(report)
    assert report.recovery_ms < 5_000
    assert report.view_changes > 20, "no storm"
    assert report.highest_view <= 12
    views = [engine.status()["view"] for engine in probe.engines.values()]  # type: ignore[attr-defined]
    assert max(views) - min(views) <= 1


@pytest.mark.parametrize("liar", range(4))
def test_one_node_with_a_huge_view_number_stops_the_chain_fisco_bcos_2211(liar: int) -> None:
    """At every height it claims views without end; nobody follows it, no honest node changes the view, the pace is the usual one."""
    quiet, probe = Probe(), Probe()
    claimed: set[int] = set()

    def boast(start: Start, ready: Ready) -> Ready:
        heights = {e.message.height for e in ready.send if isinstance(e.message, Vote)} - claimed
        if start.node != liar or not heights:
            return ready
        claimed.update(heights)
        lies = [Envelope(None, sign_view_change(start, max(heights), view)) for view in (1_000, 2**31, VIEW_MAX)]
        return replace(ready, send=(*ready.send, *lies))

    probe.say = boast
    plan = quiet_plan(5)
    run_plan(plan, wrap=quiet.wrap)
    report = run_scripted(plan, probe, [liar])
    assert not report.violations, told(report)
    assert len(claimed) > 20
    honest = [node for node in range(4) if node != liar]
    assert not [vote for node in honest for vote in probe.votes(node) if isinstance(vote, ViewChange) or vote.view > 0]
    usual = min(quiet.heights(0, plan.safety_ms, honest).values())
    assert min(probe.heights(0, plan.safety_ms, honest).values()) >= usual * 9 // 10


def test_an_idle_chain_is_called_faulty_webase_front_891() -> None:
    """Ten idle minutes: an empty block a heartbeat, no view change, no alarm, nothing that anybody waits for."""
    probe = Probe(hear=without_clients)
    parameters = replace(quiet_plan(1).parameters, heartbeat_ms=8_000)
    plan = quiet_plan(1, safety_ms=600_000, parameters=parameters, tick_ms=100, submit_interval_ms=600_000)
    report = run_plan(plan, wrap=probe.wrap, heights_min=1)
    assert not report.violations, told(report)
    assert report.view_changes == 0 and report.alarms == {}
    assert all(70 <= count <= 76 for count in probe.heights(0, 600_000, range(4)).values())
    for engine in probe.engines.values():
        status = engine.status()  # type: ignore[attr-defined]
        assert status["waits_for"] == "" and status["may_vote"] and not status["is_catching_up"]


# ---- blocks -----------------------------------------------------------------------------------------------------------------


def forged_root(start: Start, message: PrePrepare) -> PrePrepare:
    """Return the liar's own proposal with another state root, signed anew."""
    header = replace(message.proposal.header, state_root=tagged_digest("medchain/sim/lie", message.digest))
    proposal = replace(message.proposal, header=header)
    prepare = Vote.sign(start.genesis.domain(), start.key, PREPARE, message.height, message.view, header.digest())
    return PrePrepare(proposal, prepare, message.view_changes)


@pytest.mark.parametrize("nodes", [4, 7])
def test_forged_header_is_voted_through_and_then_nobody_can_execute_it_fisco_bcos_2307(nodes: int) -> None:
    """f primaries propose roots that execution does not give, whenever they lead: no honest vote, and a view later all goes on."""
    liars = frozenset(range((nodes - 1) // 3))
    forged: set[bytes] = set()

    def forge(start: Start, ready: Ready) -> Ready:
        def one(envelope: Envelope) -> list[Envelope]:
            message = envelope.message
            if start.node not in liars or not isinstance(message, PrePrepare) or message.prepare.signer != start.key.public:
                return [envelope]
            lie = forged_root(start, message)
            forged.add(lie.digest)
            return [Envelope(envelope.to, lie)]

        return changed(ready, one)

    probe = Probe(say=forge)
    report = run_scripted(quiet_plan(2, nodes, safety_ms=4_000), probe, liars)
    assert not report.violations, told(report)
    assert len(forged) >= 2, "the liars never led"
    honest = [node for node in range(nodes) if node not in liars]
    assert not [vote for node in honest for vote in probe.votes(node) if isinstance(vote, Vote) and vote.digest in forged]
    assert any("block.result" in reason for node, _, reason in probe.accusations if node in honest)
    assert not forged & {decision.digest for decision in probe.decisions}
    assert report.decided == report.accepted


def spoilt_range(start: Start, message: RangeSent, number: int) -> RangeSent:
    """Return a range with a wrong state root, with blocks left out at its beginning, or of one block again and again."""
    blocks = message.blocks
    if number % 2:
        block, certificate = blocks[0]
        header = replace(block.header, state_root=tagged_digest("medchain/sim/lie", block.header.state_root))
        false = Block(header, block.transactions, block.last_commit, block.evidence)
        return RangeSent(((false, Certificate(certificate.height, certificate.view, header.digest(), certificate.commits)), *blocks[1:]))
    return RangeSent(blocks[len(blocks) // 2 :]) if number % 4 else RangeSent(blocks[:1])


@pytest.mark.parametrize("nodes", [4, 7])
def test_reordered_packets_and_a_wrong_root_in_sync_stall_it_fisco_bcos_3307(nodes: int) -> None:
    """Nodes that were away catch up over links that reorder half of all messages, with f peers that lie in each answer."""
    liars = frozenset(range(nodes - (nodes - 1) // 3, nodes))
    lies = [0]

    def lie(start: Start, ready: Ready) -> Ready:
        def one(envelope: Envelope) -> list[Envelope]:
            if start.node not in liars or not isinstance(envelope.message, RangeSent) or not envelope.message.blocks:
                return [envelope]
            lies[0] += 1
            return [Envelope(envelope.to, spoilt_range(start, envelope.message, lies[0]))]

        return changed(ready, one)

    condemned = 0
    away = [Crash(400 + 2_000 * number, 0, CrashPoint.ANYWHERE, 1_200) for number in range(4)]
    weather = Weather(delay_max_us=40_000, reorder_permille=500, duplicate_permille=50)
    for seed in (6, 8):
        probe = Probe(say=lie)
        report = run_scripted(quiet_plan(seed, nodes, safety_ms=9_000, weather=weather).with_actions(*away), probe, liars)
        assert not report.violations, told(report)
        condemned += sum("not certified" in reason for node, _, reason in probe.accusations if node == 0)
        returned = [decision.height for decision in probe.decisions if decision.node == 0 and 8_200 <= decision.at_ms < 9_000]
        newest = max(decision.height for decision in probe.decisions if decision.at_ms < 8_900)
        assert max(returned, default=0) >= newest - 2, "it did not catch up while the lies went on"
    assert lies[0] >= 2 and condemned, "nobody asked a liar"


def test_wrong_application_hash_halts_the_chain_cosmos_sdk_10281(monkeypatch: pytest.MonkeyPatch) -> None:
    """One node's execution gives other roots: its blocks and votes never get a quorum, it stops by itself, and the others go on."""
    honest = Executor._apply
    stopped: list[str] = []

    def wrong(self: Executor, *arguments: object) -> object:
        applied = honest(self, *arguments)  # type: ignore[arg-type]
        return replace(applied, changes={**applied.changes, b"stray": b"1"})

    class Broken:
        def __init__(self, engine: EngineLike) -> None:
            self._engine = engine

        def handle_all(self, events: Sequence[Event]) -> Ready:
            with monkeypatch.context() as patch:
                patch.setattr(Executor, "_apply", wrong)
                try:
                    return Ready() if stopped else self._engine.handle_all(events)
                except InvariantBroken as error:
                    stopped.append(error.message)
                    return Ready()

    class BrokenProbe(Probe):
        def wrap(self, builder: EngineBuilder) -> EngineBuilder:
            return super().wrap(lambda start: Broken(builder(start)) if start.node == 1 else builder(start))

    probe = BrokenProbe()
    report = run_scripted(quiet_plan(4), probe, [1])
    assert not report.violations, told(report)
    assert stopped and "certified block" in stopped[0]
    assert min(probe.heights(0, 3_000, (0, 2, 3)).values()) >= 10
    assert report.decided == report.accepted


# ---- pools and gossip -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_ok_for_a_transaction_that_the_pool_dropped_cometbft_1516(seed: int) -> None:
    """Small pools, bursts, and kills right after the answer, before it and amid the write: what was accepted is decided, once."""
    dice = random.Random(1516 + seed)
    points = (CrashPoint.BEFORE_REPLIES, CrashPoint.AFTER_WRITE, CrashPoint.TORN_WRITE, CrashPoint.BETWEEN_SENDS, CrashPoint.ANYWHERE)
    crashes = [Crash(at_ms, dice.randrange(4), dice.choice(points), dice.choice((20, 300))) for at_ms in range(300, 3_800, 120)]
    plan = quiet_plan(
        seed, safety_ms=4_000, burst_max=12, submit_interval_ms=20, resubmit_permille=200, pool_bytes_max=12 * 1024
    ).with_actions(*crashes)
    report = run_plan(plan)
    assert not report.violations, told(report)
    assert sum(report.crashes.values()) >= 20 and report.accepted > 80
    assert report.refusals.get("pool.full", 0) + report.refusals.get("pool.quota", 0) > 10, report.refusals
    assert report.decided == report.accepted and report.expired == 0


@pytest.mark.parametrize("nodes", [4, 7, 10])
def test_flood_gossip_repeats_everything_cometbft_1058(nodes: int) -> None:
    """Each transaction goes to each other hospital about once, so its bytes leave nodes n - 1 times and not n * (n - 1) times."""
    probe = Probe()
    report = run_plan(quiet_plan(6, nodes, safety_ms=2_000, submit_interval_ms=15), wrap=probe.wrap)
    assert not report.violations, told(report)
    assert report.decided > 80
    carried, asked = 0, 0
    sizes: dict[bytes, int] = {}
    for _, envelope in probe.said:
        message = envelope.message
        if isinstance(message, TransactionsOffered):
            receivers = nodes - 1 if envelope.to is None else 1
            for transaction in message.transactions:
                sizes[transaction.id] = len(transaction.raw)
                carried += receivers * len(transaction.raw)
        elif isinstance(message, PoolListed | TransactionsWanted):
            asked += 64 * len(message.entries)
    once_each = (nodes - 1) * sum(sizes.values())
    assert once_each * 9 // 10 <= carried <= once_each * 11 // 10
    assert asked < carried // 10, "lists of ids are for what was lost, not for everything"


@pytest.mark.parametrize("odd", range(4))
def test_a_local_setting_on_one_node_hangs_the_chain_fisco_bcos_4656(odd: int) -> None:
    """One node has a tiny pool, a slow disk, rare ticks and a clock of its own: it may refuse clients, but everyone decides the same."""

    def wrap(builder: EngineBuilder) -> EngineBuilder:
        def build(start: Start) -> EngineLike:
            if start.node != odd:
                return builder(start)
            shared = builder(start)
            assert isinstance(shared, Engine)
            return Engine(
                genesis=start.genesis,
                store=start.store,
                consensus_key=start.key,
                verifier=shared._verifier,
                challenge=start.challenge,
                pool_bytes_max=4 * 1024,
            )

        return build

    offsets = tuple(900 if node == odd else 0 for node in range(4))
    slow = [Pause(at_ms, odd, 60) for at_ms in range(300, 2_900, 130)]
    plan = quiet_plan(odd, clock_offsets_ms=offsets, burst_max=8, submit_interval_ms=30).with_actions(*slow)
    report = run_plan(plan, wrap=wrap)
    assert not report.violations, told(report)
    assert report.refusals.get("pool.full", 0) + report.refusals.get("pool.quota", 0) > 0
    assert report.decided == report.accepted and report.heights >= 20
