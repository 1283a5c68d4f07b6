"""The verifier's memory: positive answers only, under everything that was checked, bounded."""

from __future__ import annotations

import pytest

from medchain.chain.domain import Domain
from medchain.chain.validators import Validator, ValidatorSet
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.engine import verification
from medchain.engine.ready import PeerConnected, Received, Submitted, Ticked
from medchain.engine.verification import Verifier, verifications_of
from medchain.wire.peer import PastVotesSent, PeerStatus, RangeSent, TransactionsOffered

NETWORK = Domain(bytes(32))


@pytest.fixture
def counted(monkeypatch):
    """How many signatures were really computed."""
    computed: list[int] = []
    real = verification.verify_many

    def count(items):
        computed.append(len(items))
        return real(items)

    monkeypatch.setattr(verification, "verify_many", count)
    return computed


def item(signer, name: str = "a", message: bytes = b"m"):
    key = signer(name)
    return (key.public, message, key.sign(message))


def test_an_equal_check_is_computed_once(signer, counted):
    verifier = Verifier(NETWORK)
    assert verifier.check_all([item(signer), item(signer, "b")]) == [True, True]
    assert verifier.check_all([item(signer, "b"), item(signer), item(signer, "c")]) == [True, True, True]
    assert counted == [2, 1]


def test_equal_checks_of_one_call_are_computed_once_whatever_they_end_with(signer, counted):
    """The transactions of a batch share one check and arrive together."""
    good, (public, message, signature) = item(signer), item(signer, "b")
    bad = (public, message + b"!", signature)
    assert Verifier(NETWORK).check_all([good, bad, good, bad, good]) == [True, False, True, False, True]
    assert counted == [2]


def test_refused_checks_are_not_remembered_and_spoil_no_others(signer, counted):
    verifier = Verifier(NETWORK)
    public, message, signature = item(signer)
    wrong = (public, message, bytes(64))
    assert verifier.check_all([wrong, (public, message, signature), wrong]) == [False, True, False]
    assert verifier.check_all([wrong]) == [False]
    assert counted == [2, 1], "equal ones of one call are computed once"


def test_another_message_key_or_signature_never_rides_on_a_remembered_check(signer):
    verifier = Verifier(NETWORK)
    public, message, signature = item(signer)
    assert verifier.is_valid((public, message, signature))
    other = signer("b")
    for wrong in (
        (other.public, message, signature),
        (public, message + b"x", signature),
        (public, message, other.sign(message)),
        (public + signature[:1], message, signature[1:]),
        (public, signature[-1:] + message, signature[:-1]),
        (b"", message, public + signature),
    ):
        assert not verifier.is_valid(wrong)


def test_the_memory_is_bounded_and_keeps_the_newest(signer, counted):
    verifier = Verifier(NETWORK, remembered_max=20)
    items = [item(signer, "a", b"%d" % index) for index in range(100)]
    verifier.check_all(items)
    assert len(verifier._newer) + len(verifier._older) <= 21
    verifier.check_all(items[-5:])
    assert counted == [100]


def test_what_an_event_needs_is_what_the_engine_checks(cluster, signer, counted):
    """A world that warms the verifier beforehand leaves nothing for the engine's own turn to compute."""
    cluster.warm()
    cluster.settle(cluster.nodes[0], cluster.credential())
    node, peer = cluster.nodes[1], cluster.nodes[0]
    vote = Vote.sign(cluster.network, peer.key, PREPARE, 2, 0, bytes(32))
    change = ViewChange.sign(cluster.network, peer.key, 2, 1, None)
    events = [
        Submitted(1, cluster.patient(0, "one")),
        Received(peer.key.public, TransactionsOffered((cluster.patient(0, "two"),))),
        Received(peer.key.public, vote),
        Received(peer.key.public, change),
    ]
    for event in events:
        items = verifications_of(event, cluster.network, node.engine.chain.validators)
        assert len(items) == 1
        assert all(node.engine._verifier.check_all(items))
    counted.clear()
    node.handle(*events)
    assert counted == []


def test_proofs_and_certificates_are_included_when_the_validators_are_known(cluster, signer):
    cluster.warm()
    cluster.settle(cluster.nodes[0], cluster.credential())
    chain = cluster.nodes[0].engine.chain
    block, certificate = chain.block_of(1), chain.certificate_of(1)
    event = Received(b"", RangeSent(((block, certificate),)))
    assert len(verifications_of(event, cluster.network)) == 1
    assert len(verifications_of(event, cluster.network, chain.validators)) == 4
    keys = sorted((node.key for node in cluster.nodes), key=lambda key: key.public)
    prepares = tuple((index, Vote.sign(cluster.network, key, PREPARE, 2, 0, bytes(32)).signature) for index, key in enumerate(keys[:3]))
    change = ViewChange.sign(cluster.network, keys[0], 2, 1, PreparedProof(2, 0, bytes(32), prepares))
    assert len(verifications_of(Received(b"", change), cluster.network, chain.validators)) == 4
    past = PastVotesSent(bytes(32), 0, None, (Vote.sign(cluster.network, keys[0], COMMIT, 1, 0, bytes(32)),), (change,))
    assert len(verifications_of(Received(b"", past), cluster.network)) == 2


def test_what_is_malformed_or_unsigned_needs_nothing(signer):
    few = ValidatorSet(0, (Validator(signer("v").public, signer("o").public),))
    change = ViewChange(2, 1, 0, bytes(32), bytes(32), bytes(64), PreparedProof(2, 0, bytes(32), ((0, bytes(64)), (1, bytes(64)))))
    assert len(verifications_of(Received(b"", change), NETWORK, few)) == 1
    for event in (Ticked(1, 1), PeerConnected(b""), Received(b"", PeerStatus(1, bytes(32)))):
        assert verifications_of(event, NETWORK) == []


def test_what_was_signed_here_is_not_computed_and_covers_nothing_else(signer, counted):
    verifier = Verifier(NETWORK)
    public, message, signature = own = item(signer)
    verifier.trust(own)
    assert verifier.is_valid(own)
    assert counted == []
    assert not verifier.is_valid((public, message + b"!", signature))
    assert not verifier.is_valid((item(signer, "b")[0], message, signature))
    assert counted == [1, 1]
