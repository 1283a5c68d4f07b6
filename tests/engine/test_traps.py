"""Traps found in our own design that concern one node among its peers, each a scenario named after the trap (list: tests/LESSONS.md)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medchain import codec
from medchain.chain.transaction import Transaction, transactions_root
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.engine.executor import Executor
from medchain.engine.ready import Accepted, Alarm, PeerAccused, Received, Refused
from medchain.engine.verification import Verifier
from medchain.errors import Malformed
from medchain.ledger.access import Request
from medchain.ledger.consents import ACTIVE, HOSPITAL, REVOKED, Grant, Revoke, consent_id
from medchain.ledger.execution import BlockContext
from medchain.ledger.queries import consent
from medchain.store import layout
from medchain.store.keyvalue import WriteBatch
from medchain.wire.peer import (
    BlockSent,
    PastVotesSent,
    PastVotesWanted,
    PoolListed,
    TransactionsOffered,
    TransactionsWanted,
    decode_message,
    encode_message,
)

DAY_MS = 86_400_000


def leader_key(node) -> bytes:
    """Who leads where this node stands."""
    return node.engine._agreement.replica.primary_key()


def leader_of(cluster):
    return next(node for node in cluster.nodes if node.key.public == leader_key(cluster.living[0]))


def view_of(node) -> int:
    return node.engine.status()["view"]


def may_vote(node) -> bool:
    return node.engine.status()["may_vote"]


def own_votes(cluster, node, first: int = 0) -> list[Vote | ViewChange]:
    sent = [message for source, _, message, _ in cluster.sent[first:] if source == node.index]
    sent = [message.prepare if isinstance(message, PrePrepare) else message for message in sent]
    return [message for message in sent if isinstance(message, Vote | ViewChange) and message.signer == node.key.public]


class LyingLeader:
    """The leader of the present height: its own node says and hears nothing more, its key goes on."""

    def __init__(self, cluster) -> None:
        self.cluster = cluster
        self.node = leader_of(cluster)
        self.honest = [node for node in cluster.nodes if node is not self.node]
        self.is_heard = lambda source, target, message: True
        cluster.drop = lambda source, target, message: self.node in (source, target) or not self.is_heard(source, target, message)

    def propose(self, *transactions: Transaction, is_executed: bool = True, late: tuple[Vote, ...] = ()) -> PrePrepare:
        """A block as this leader would build it; not executed, it has the roots of an empty one."""
        executor = Executor(self.honest[0].engine.chain, Verifier(self.cluster.network))
        time_ms = self.honest[0].engine._turn.wall_ms
        block = executor.build(0, time_ms, self.node.key.public, transactions if is_executed else (), late).block
        root = transactions_root([transaction.entry for transaction in transactions])
        block = replace(block, header=replace(block.header, transactions_root=root), transactions=transactions)
        prepare = Vote.sign(self.cluster.network, self.node.key, PREPARE, block.header.height, 0, block.header.digest())
        return PrePrepare(block.proposal(), prepare)

    def say(self, target, *messages):
        return target.handle(*(Received(self.node.key.public, message) for message in messages))


# ---- transactions -----------------------------------------------------------------------------------------------------------


def test_a_revoked_grant_is_replayed_after_its_id_left_the_window(story):
    """By its owner's enemy as a client, and by a lying leader inside a block: the consent stays revoked."""
    cluster = story.cluster
    terms = Grant(HOSPITAL, story.custodian.public, "TREAT", "general", 0, 2**42)
    grant = cluster.sign(story.patient, terms, valid_until=cluster.nodes[0].height + 50)
    story.do(grant)
    identity = consent_id(grant.id, 0)
    assert status_of(cluster, identity) == ACTIVE
    story.do(cluster.sign(story.patient, Revoke(identity)))
    window = cluster.genesis.parameters.expiry_window_blocks
    for number in range(window + 3):
        cluster.settle(cluster.nodes[0], cluster.patient(1, f"somebody {number}"))
        if number % 10 == 0 or number > window - 3:
            assert isinstance(cluster.submit(cluster.nodes[number % 4], grant), Refused)
    cluster.run(100)
    liar = LyingLeader(cluster)
    proposal = liar.propose(grant, is_executed=False)
    for node in liar.honest:
        ready = liar.say(node, proposal, TransactionsOffered((grant,)))
        assert any(isinstance(reply, PeerAccused) and "block.transaction" in reply.reason for reply in ready.replies)
    height = liar.honest[0].height + 1
    cluster.run_until(lambda: all(node.height >= height for node in liar.honest))
    assert all(grant.id not in {t.id for t in node.engine.chain.block_of(height).transactions} for node in liar.honest)
    assert status_of(cluster, identity) == REVOKED


def status_of(cluster, identity: bytes) -> str:
    chain = cluster.living[0].engine.chain
    context = BlockContext(chain.height + 1, chain.header.time_ms + 1, chain.network, chain.parameters)
    return consent(chain.state, context, identity)["status"]


def test_two_authentications_of_one_body_bend_the_root_or_a_forged_one_rides_on_a_remembered_id(cluster):
    """Everyone verified the genuine one; the leader lists the id with a forged one: nobody votes for it, the genuine one is decided."""
    cluster.warm()
    genuine = cluster.credential()
    cluster.drop = lambda source, target, message: isinstance(message, PrePrepare)
    for node in cluster.nodes:
        assert isinstance(cluster.submit(node, genuine), Accepted)
    forged = Transaction.decode(codec.encode([genuine.body_bytes, [1, bytes(64)]]))
    assert forged.id == genuine.id
    liar = LyingLeader(cluster)
    honest_root = liar.propose(genuine).proposal.header.transactions_root
    proposal = liar.propose(forged)
    assert proposal.proposal.header.transactions_root != honest_root
    first = len(cluster.sent)
    for node in liar.honest:
        ready = liar.say(node, proposal, TransactionsOffered((forged,)))
        assert [reply.peer for reply in ready.replies if isinstance(reply, PeerAccused)] == [liar.node.key.public]
    cluster.run_until(lambda: all(node.height == 1 for node in liar.honest))
    votes = [vote for node in liar.honest for vote in own_votes(cluster, node, first)]
    assert votes and proposal.digest not in [vote.digest for vote in votes]
    assert [t.entry for node in liar.honest for t in node.engine.chain.block_of(1).transactions] == [genuine.entry] * 3


@pytest.mark.parametrize("count", [4, 7])
def test_certified_block_whose_transactions_nobody_alive_has(make_cluster, count):
    """Only the leader's pool had the transaction; the leader alone sees the certificate and dies for good, everyone else restarts."""
    cluster = make_cluster(count)
    cluster.warm()
    leader = leader_of(cluster)
    wanted = set()

    def drop(source, target, message):
        if isinstance(message, TransactionsWanted):
            wanted.add(source.index)
        if isinstance(message, TransactionsOffered):
            return target.index not in wanted
        return isinstance(message, PoolListed) or (isinstance(message, Vote) and message.kind == COMMIT and target is not leader)

    cluster.drop = drop
    transaction = cluster.credential()
    cluster.submit(leader, transaction)
    cluster.run_until(lambda: leader.height == 1, 2_000)
    digest = leader.engine.head.digest
    others = [node for node in cluster.nodes if node is not leader]
    assert wanted and all(node.height == 0 for node in others)
    cluster.kill(leader)
    for node in others:
        cluster.kill(node)
        node.store.write(WriteBatch.of((layout.pool_key(transaction.id), None)))  # what is pinned must do, without any pool
    cluster.drop = lambda *_: False
    for node in others:
        cluster.restart(node)
    cluster.run_until(lambda: all(node.height >= 1 for node in others))
    assert {node.engine.chain.archive.digest_of(1) for node in others} == {digest}
    assert others[0].engine.chain.block_of(1).transactions[0].raw == transaction.raw


# ---- view changes -----------------------------------------------------------------------------------------------------------


def test_one_liars_genuine_prepared_proof_of_an_unobtainable_block_wedges_each_new_primary(cluster):
    """Two honest nodes prepared it and the liar hides it from the third, who leads next and gets its bytes from nobody."""
    cluster.warm()
    liar = LyingLeader(cluster)
    transaction = cluster.credential()
    proposal = liar.propose(transaction)
    proposer_of_next = next(node for node in liar.honest if leads(node, 1))
    preparers = [node for node in liar.honest if node is not proposer_of_next]
    hidden = (BlockSent, TransactionsOffered)
    liar.is_heard = lambda source, target, message: not (
        (isinstance(message, Vote) and message.view == 0) or (target is proposer_of_next and isinstance(message, hidden))
    )  # the votes of the two reach the liar alone
    first = len(cluster.sent)
    prepares = {liar.node.key.public: proposal.prepare}
    for node in preparers:
        ready = liar.say(node, proposal, TransactionsOffered((transaction,)))
        prepares |= {e.message.signer: e.message for e in ready.send if isinstance(e.message, Vote) and e.message.kind == PREPARE}
    assert len(prepares) == cluster.genesis.validators().quorum
    index = cluster.genesis.validators().index_of
    proof = PreparedProof(1, 0, proposal.digest, tuple(sorted((index(key), vote.signature) for key, vote in prepares.items())))

    def lie() -> None:
        views = {view_of(node) for node in liar.honest}
        for view in range(1, max(views) + 2):
            change = ViewChange.sign(cluster.network, liar.node.key, 1, view, proof)
            for node in liar.honest:
                liar.say(node, change)

    for _ in range(40):
        if all(node.height for node in liar.honest):
            break
        lie()
        cluster.run(100)
    assert min(node.height for node in liar.honest) >= 1, [node.engine.status()["agreement"] for node in liar.honest]
    assert [m for s, _, m, _ in cluster.sent[first:] if s == proposer_of_next.index and isinstance(m, PrePrepare)], "it never led"
    cluster.check_agreement()


def leads(node, view: int) -> bool:
    """Answer whether a node leads a view of the present height."""
    instance = node.engine._agreement.replica._instance
    from medchain.consensus.rotation import primary

    return primary(instance.rotation, instance.height, view) == node.key.public


def test_views_two_one_zero_and_one_lost_message_nobody_may_follow_and_no_timer_runs(cluster):
    """One node in view 2, one in view 1, one in view 0, the fourth dies and every view change so far is lost to somebody."""
    cluster.warm()
    first, second, third, fourth = cluster.nodes
    cluster.drop = lambda source, target, message: third in (source, target) or isinstance(message, PrePrepare)
    cluster.submit(first, cluster.credential())
    cluster.run_until(lambda: view_of(first) == view_of(second) == view_of(fourth) == 1, 10_000)
    old = cluster.drop
    cluster.drop = lambda source, target, message: old(source, target, message) or source is second or target is second
    tick, second.tick = second.tick, lambda: None  # it stands still for a while
    cluster.run_until(lambda: 2 in (view_of(first), view_of(fourth)), 10_000)
    if view_of(first) != 2:
        first, fourth = fourth, first
    cluster.kill(fourth)
    assert (view_of(first), view_of(second), view_of(third)) == (2, 1, 0)
    second.tick = tick
    cluster.drop = lambda *_: False
    cluster.run_until(lambda: all(node.height == 1 for node in (first, second, third)), 10_000)


# ---- the rotation -----------------------------------------------------------------------------------------------------------


def test_late_commits_under_no_digest_give_different_primaries(cluster):
    """The leader shows one half a late commit that keeps a slow node in the rotation, and hides it from the other: these are two blocks."""
    cluster.warm()
    slow = leader_of(cluster)  # of height 1; the heights below are led by others in turn
    cluster.drop = lambda source, target, message: source is slow and isinstance(message, Vote) and message.kind == COMMIT
    while slow is leader_of(cluster) or cluster.nodes[0].height < 10:
        cluster.settle(next(node for node in cluster.nodes if node is not slow), cluster.credential(name=f"dr {cluster.now_ms}"))
    liar = LyingLeader(cluster)
    chain = liar.honest[0].engine.chain
    late = Vote.sign(cluster.network, slow.key, COMMIT, chain.height, 0, chain.digest)
    cluster.tick()
    shown, hidden = liar.propose(late=(late,)), liar.propose()
    assert shown.digest != hidden.digest
    for mixed in (
        PrePrepare(replace(shown.proposal, last_commit=hidden.proposal.last_commit), shown.prepare),
        PrePrepare(replace(hidden.proposal, last_commit=shown.proposal.last_commit), hidden.prepare),
    ):
        with pytest.raises(Malformed):
            decode_message(encode_message(mixed))
    height = chain.height + 1
    for node, proposal in zip(liar.honest, (shown, hidden, hidden), strict=True):
        liar.say(node, proposal)
    cluster.run_until(lambda: all(node.height >= height for node in liar.honest))
    assert len({node.engine.chain.archive.digest_of(height) for node in liar.honest}) == 1
    assert len({node.engine.chain.rotation for node in liar.honest if node.height == liar.honest[0].height}) == 1
    cluster.check_agreement()


# ---- amnesia ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_told_by_liar", [False, True])
def test_a_rolled_back_node_asks_a_quorum_that_contains_itself_and_a_liar_and_forks(cluster, is_told_by_liar):
    """It prepared, then its disk was restored. One peer lies, one heard nothing, and the only one who knows is cut off: it must wait."""
    cluster.warm()
    rolled = next(node for node in cluster.nodes if node is not leader_of(cluster))
    knows, liar, _ = [node for node in cluster.nodes if node is not rolled]
    backup = rolled.store.copy()
    cluster.drop = lambda source, target, message: (
        isinstance(message, Vote) and (message.kind == COMMIT or (source is rolled and target is not knows))
    )
    cluster.submit(leader_of(cluster), cluster.credential())
    cluster.run_until(lambda: bool(own_votes(cluster, rolled)), 1_000)
    forgotten = own_votes(cluster, rolled)
    cluster.kill(rolled)
    rolled.store = backup
    first = len(cluster.sent)
    cluster.drop = lambda source, target, message: knows in (source, target) or (source is liar and isinstance(message, PastVotesSent))
    cluster.restart(rolled, is_store_damaged=True)
    for _ in range(30):
        cluster.run(100)
        if is_told_by_liar:
            challenge = [m.challenge for s, _, m, _ in cluster.sent[first:] if s == rolled.index and isinstance(m, PastVotesWanted)][-1]
            rolled.handle(Received(liar.key.public, PastVotesSent(challenge, 0, None, (), ())))
    assert not may_vote(rolled) and own_votes(cluster, rolled, first) == []
    cluster.drop = lambda *_: False
    cluster.run_until(lambda: rolled.engine._check.is_passed, 5_000)
    assert [alarm.code for alarm in rolled.replies_of(Alarm)] == ["amnesia.votes-forgotten"] and not may_vote(rolled)
    cluster.run(5_000)
    for vote in own_votes(cluster, rolled, first):
        assert vote.height > forgotten[0].height + 1
    cluster.check_agreement()


# ---- work -------------------------------------------------------------------------------------------------------------------


def test_one_client_fills_blocks_with_slow_work_and_revocations_queue_behind_its_flood(make_cluster, make_story):
    """Weight bounds each block, quotas the flood, the urgent lane lets the revocation pass: two blocks, no view change."""
    story = make_story(make_cluster(block_weight_max=400, block_interval_min_ms=40))
    cluster = story.cluster
    consent = story.grant()
    flood = [cluster.sign(story.clinician, Request(story.record, "TREAT", "physician")) for _ in range(400)]
    answers = [cluster.submit(cluster.nodes[1], transaction) for transaction in flood]
    cluster.run(200)
    height = cluster.nodes[0].height
    revocation = cluster.sign(story.patient, Revoke(consent))
    other = cluster.patient(2, "somebody else")
    for transaction in (revocation, other):
        assert isinstance(cluster.submit(cluster.nodes[2], transaction), Accepted)
    cluster.run_until(lambda: cluster.is_decided(revocation) and cluster.is_decided(other), 2_000)
    chain = cluster.nodes[0].engine.chain
    assert chain.archive.locate(revocation.id)[0] <= height + 3
    assert chain.archive.locate(other.id)[0] <= height + 3
    assert sum(isinstance(answer, Accepted) for answer in answers) > 100
    assert len(cluster.nodes[0].engine._pool) > 50, "the flood was over"
    assert all(view_of(node) == 0 for node in cluster.nodes)
    assert {chain.block_of(number).header.view for number in range(1, chain.height + 1)} == {0}
