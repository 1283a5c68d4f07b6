"""Evidence reports: they verify offline with the genesis document alone, say in words what was signed, and no changed byte passes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from medchain.chain.evidence import Contradiction
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.engine.ready import Received
from medchain.errors import Malformed, Rejected
from medchain.ledger.evidence import evidence_key
from medchain.wire.evidence import REPORT_BYTES_MAX, rule_of, says, verify_report, write_report
from medchain.wire.peer import EvidenceSent
from medchain.wire.proof import StateFileProof
from tests.engine.conftest import Cluster, make_genesis


class World:
    """A chain on which one contradiction is recorded."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.cluster.warm()
        self.genesis = self.cluster.genesis
        self.liar = self.cluster.nodes[2]
        self.recorded = self.double_vote()
        first = self.cluster.nodes[0]
        first.handle(Received(self.liar.key.public, EvidenceSent((self.recorded,))))
        self.cluster.run_until(lambda: all(self.row(node) is not None for node in self.cluster.nodes))
        self.proof = self.state_proof(self.recorded)

    def row(self, node):
        return node.engine.state.get(evidence_key(self.recorded.digest()))

    def double_vote(self, kind: int = COMMIT, network=None) -> Contradiction:
        network = network or self.cluster.network
        return Contradiction.of(*[Vote.sign(network, self.liar.key, kind, 1, 0, digest) for digest in (b"1" * 32, b"2" * 32)])

    def view_change(self, prepared: int | None = None, view: int = 3) -> ViewChange:
        proof = None if prepared is None else PreparedProof(1, prepared, b"1" * 32, ())
        return ViewChange.sign(self.cluster.network, self.liar.key, 1, view, proof)

    def lie(self) -> Contradiction:
        return Contradiction.of(Vote.sign(self.cluster.network, self.liar.key, COMMIT, 1, 1, b"1" * 32), self.view_change())

    def state_proof(self, contradiction: Contradiction) -> bytes:
        chain = self.cluster.nodes[0].engine.chain
        key = evidence_key(contradiction.digest())
        return StateFileProof(chain.header, chain.certificate, key, chain.state.get(key), chain.tree.prove(key)).encode()


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def code_of(world: World, data: bytes, genesis=None) -> str:
    with pytest.raises(Rejected) as refusal:
        verify_report(data, genesis or world.genesis)
    return refusal.value.code


def test_a_report_verifies_and_tells_whose_key_it_was_and_which_block_recorded_it(world):
    facts = verify_report(write_report(world.recorded, world.genesis, world.proof), world.genesis)
    accused = next(hospital for hospital in world.genesis.hospitals if hospital.consensus_key == world.liar.key.public)
    assert (facts.contradiction, facts.hospital, facts.organisation_key) == (world.recorded, accused.name, accused.organisation_key)
    assert facts.recorded.from_height == 1 and len(facts.recorded.signers) == 3
    assert facts.recorded.proven_height == world.cluster.nodes[0].height


def test_a_report_convicts_before_any_block_records_it(world):
    for contradiction in (world.recorded, world.lie(), world.double_vote(PREPARE)):
        facts = verify_report(write_report(contradiction, world.genesis), world.genesis)
        assert facts.contradiction == contradiction and facts.recorded is None


def test_no_changed_byte_of_a_report_passes(world):
    data = write_report(world.recorded, world.genesis, world.proof)
    for place in range(len(data)):
        with pytest.raises((Rejected, Malformed)):
            verify_report(data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :], world.genesis)
    for changed in (data[:-1], data + b"\n", b" " + data, data.replace(b"a", b"A", 1), b"", b"[]", b"{}", b"\xff", b"null"):
        with pytest.raises((Rejected, Malformed)):
            verify_report(changed, world.genesis)


def test_words_that_do_not_follow_from_the_evidence_are_refused(world):
    data = write_report(world.recorded, world.genesis, world.proof)
    other = next(hospital.name for hospital in world.genesis.hospitals if hospital.consensus_key != world.liar.key.public)
    false = {"hospital": other, "height": 2, "rule": "none", "id": "00" * 32, "recovery": 1, "recorded": {"proof": ""}}
    for name, value in false.items():
        changed = json.dumps(json.loads(data) | {name: value}, indent=2).encode() + b"\n"
        with pytest.raises((Rejected, Malformed)):
            verify_report(changed, world.genesis)
    assert code_of(world, json.dumps(json.loads(data), indent=1).encode() + b"\n") == "report.altered"


def test_a_report_of_another_network_says_so(world):
    data = write_report(world.recorded, world.genesis)
    assert code_of(world, data, make_genesis(heartbeat_ms=29_999)) == "report.other-network"


def test_forged_statements_are_refused_by_name(world):
    data = json.loads(write_report(world.recorded, world.genesis))
    swapped = replace(world.recorded, first=replace(world.recorded.first, signature=world.recorded.second.signature))
    elsewhere = world.double_vote(network=replace(world.cluster.network, recovery=1))
    for forged in (swapped, elsewhere):
        assert code_of(world, json.dumps(data | {"evidence": forged.encode().hex()}).encode()) == "report.forged"
        with pytest.raises(Rejected) as refusal:
            write_report(forged, world.genesis)
        assert refusal.value.code == "report.forged"


def test_keys_of_no_founding_validator_are_refused_by_name(world, signer):
    votes = [Vote.sign(world.cluster.network, signer("stranger"), COMMIT, 1, 0, digest) for digest in (b"1" * 32, b"2" * 32)]
    data = json.loads(write_report(world.recorded, world.genesis))
    stranger = Contradiction.of(*votes).encode().hex()
    assert code_of(world, json.dumps(data | {"evidence": stranger}).encode()) == "report.validators"


def test_a_proof_of_something_else_is_refused_by_name(world):
    lie = world.lie()
    for proof in (world.proof, world.state_proof(lie)):
        with pytest.raises(Rejected) as refusal:
            write_report(lie, world.genesis, proof)
        assert refusal.value.code == "report.not-recorded"
    with pytest.raises(Malformed):
        write_report(lie, world.genesis, b"proof")


def test_a_huge_or_deep_report_is_malformed(world):
    for data in (b" " * (REPORT_BYTES_MAX + 1), b"[" * 100_000):
        with pytest.raises(Malformed):
            verify_report(data, world.genesis)


def test_every_contradiction_has_its_words(world):
    commit, hidden = world.lie().first, world.lie().second
    assert says(commit) == f"commit to block {'31' * 32} at height 1 in view 1"
    assert says(hidden) == "view change to view 3 at height 1, saying that no block was prepared"
    assert says(world.view_change(0)) == f"view change to view 3 at height 1, showing block {'31' * 32} prepared in view 0"
    assert "hides the commit" in rule_of(world.lie())
    assert "two, of different blocks" in rule_of(world.double_vote(PREPARE)) and "one prepare" in rule_of(world.double_vote(PREPARE))
    assert "one view change" in rule_of(Contradiction.of(world.view_change(), world.view_change(0)))


@pytest.fixture
def signer():
    from tests.engine.conftest import key

    return key
