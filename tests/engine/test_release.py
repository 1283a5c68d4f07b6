"""May the keys of a permit go out now? Announced, counted, fresh, and by the ledger's rule (ledger.md, "Sealing and sharing", 6 and 7)."""

from __future__ import annotations

import pytest

from medchain.engine.ready import Answered, Refused
from medchain.ledger.consents import Revoke
from medchain.ledger.people import RevokeCredential
from medchain.store import layout


def code_of(answer) -> str:
    assert isinstance(answer, Refused), answer
    return answer.code


def count_key(permit: bytes) -> bytes:
    return layout.release_key(b"permit/" + permit)


@pytest.fixture
def permitted(story):
    """A story with a grant and a permit, and the permit's id."""
    story.consent = story.grant()
    return story, story.ask()


def test_a_release_is_counted_durably_before_it_is_allowed(permitted):
    story, permit = permitted
    node = story.cluster.nodes[0]
    assert node.store.get(count_key(permit)) is None
    answer = node.ask_release(permit)
    assert isinstance(answer, Answered)
    assert (answer.result["versions"], answer.result["record"], answer.result["released"]) == ([1], story.record, 1)
    assert node.store.get(count_key(permit)) == layout.uint32(1)
    story.cluster.restart(node)
    node.tick()
    assert node.ask_release(permit).result["released"] == 2


def test_no_more_keys_go_out_than_the_permit_allows_even_when_every_release_is_announced(permitted):
    story, permit = permitted
    node = story.cluster.nodes[0]
    answers = []
    for _ in range(16):
        story.announce(permit)
        answers.append(node.ask_release(permit))
    assert [type(answer) for answer in answers] == [Answered] * 16
    before = node.store.get(count_key(permit))
    assert code_of(node.ask_release(permit)) == "release.count"
    assert node.store.get(count_key(permit)) == before


def test_an_unknown_permit_is_refused(story):
    assert code_of(story.cluster.nodes[0].ask_release(bytes(32))) == "access.permit-unknown"


def test_after_a_revocation_nothing_goes_out_on_any_node(permitted):
    story, permit = permitted
    story.announce(permit)
    story.do(story.cluster.sign(story.patient, Revoke(story.consent)))
    assert {code_of(node.ask_release(permit)) for node in story.cluster.nodes} == {"consent.revoked"}


def test_after_the_reader_lost_the_credential_nothing_goes_out(permitted, signer):
    story, permit = permitted
    story.announce(permit)
    story.do(story.cluster.sign(signer("1 organisation"), RevokeCredential(story.clinician.public)))
    assert code_of(story.cluster.nodes[0].ask_release(permit)) == "credential.revoked"


def test_a_cut_off_node_stops_after_two_heartbeats(permitted):
    story, permit = permitted
    story.announce(permit)
    node = story.cluster.nodes[0]
    for other in story.cluster.nodes[1:]:
        story.cluster.disconnect(node, other)
    story.cluster.run(59_000)
    assert isinstance(node.ask_release(permit), Answered)
    story.cluster.run(2_000)
    assert code_of(node.ask_release(permit)) == "release.head-old"
    for other in story.cluster.nodes[1:]:
        story.cluster.connect(node, other)
    story.announce(permit)
    story.cluster.run_until(lambda: node.height == story.cluster.nodes[1].height)
    assert isinstance(node.ask_release(permit), Answered)


def test_an_idle_network_keeps_its_heads_fresh_enough(permitted):
    story, permit = permitted
    story.announce(permit)
    story.cluster.run(200_000)
    assert isinstance(story.cluster.nodes[2].ask_release(permit), Answered)
