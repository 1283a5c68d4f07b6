"""Peer messages: each goes out and comes back, hostile bytes give Malformed and nothing else, and the bytes are frozen."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain import codec
from medchain.chain.block import ZERO_DIGEST, Block, Header, LastCommit, evidence_digest
from medchain.chain.certificate import Certificate
from medchain.chain.domain import Domain
from medchain.chain.evidence import Contradiction
from medchain.chain.receipt import receipts_root
from medchain.chain.transaction import Operation, Transaction, TransactionBody, transactions_root
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.crypto.signing import SigningKey
from medchain.errors import InvariantBroken, Malformed
from medchain.wire.peer import (
    CONSENSUS_LANE,
    FRAME_BYTES_MAX,
    GOSSIP_LANE,
    IDS_MAX,
    QUERY_LANE,
    RANGE_BLOCKS_MAX,
    WIRE_VERSION,
    BlockSent,
    BlockWanted,
    EvidenceSent,
    PastVotesSent,
    PastVotesWanted,
    PeerStatus,
    PoolListed,
    ProposalWanted,
    RangeSent,
    RangeWanted,
    TransactionsOffered,
    TransactionsWanted,
    decode_message,
    encode_message,
    lane_of,
)

NETWORK = Domain(sha256(b"genesis").digest(), 0)
KEYS = [SigningKey(sha256(b"key %d" % index).digest()) for index in range(4)]


def digest(name: str) -> bytes:
    return sha256(name.encode()).digest()


def transaction(nonce: int = 1) -> Transaction:
    body = TransactionBody("test", KEYS[0].public, 10, (Operation("people.register", [b"x", 3, None]),), nonce.to_bytes(8, "big"))
    return Transaction.sign(body, KEYS[0], NETWORK)


def block(height: int, parent: bytes = ZERO_DIGEST, certificate: Certificate | None = None) -> Block:
    transactions = (transaction(height), transaction(height + 100))
    last_commit = LastCommit(certificate)
    header = Header(
        version=1, chain_id="test", height=height, view=0, time_ms=1_800_000_000_000 + height, parent=parent, proposer=KEYS[0].public,
        transactions_root=transactions_root([entry.entry for entry in transactions]), receipts_root=receipts_root(()),
        state_root=digest("state"), validators_digest=digest("validators"), next_validators_digest=digest("validators"),
        last_commit_digest=last_commit.digest(), history_root=digest("history"), evidence_digest=evidence_digest(()),
    )  # fmt: skip
    return Block(header, transactions, last_commit)


def certify(decided: Block, view: int = 0) -> Certificate:
    height, name = decided.header.height, decided.header.digest()
    votes = [Vote.sign(NETWORK, key, COMMIT, height, view, name) for key in KEYS[:3]]
    return Certificate(height, view, name, tuple((index, vote.signature) for index, vote in enumerate(votes)))


FIRST = block(1)
FIRST_CERTIFICATE = certify(FIRST)
SECOND = block(2, FIRST.header.digest(), FIRST_CERTIFICATE)
PREPARES = tuple((index, Vote.sign(NETWORK, key, PREPARE, 1, 0, FIRST.header.digest()).signature) for index, key in enumerate(KEYS[:3]))
PROOF = PreparedProof(1, 0, FIRST.header.digest(), PREPARES)
CHANGES = (ViewChange.sign(NETWORK, KEYS[1], 1, 1, PROOF), ViewChange.sign(NETWORK, KEYS[2], 1, 1, None))
VOTE = Vote.sign(NETWORK, KEYS[1], COMMIT, 1, 0, FIRST.header.digest())
OTHER_VOTE = Vote.sign(NETWORK, KEYS[1], COMMIT, 1, 0, digest("other"))
OTHER_CHANGE = ViewChange.sign(NETWORK, KEYS[1], 1, 1, None)

MESSAGES = {
    "pre-prepare": PrePrepare(SECOND.proposal(), Vote.sign(NETWORK, KEYS[0], PREPARE, 2, 0, SECOND.header.digest())),
    "pre-prepare of view 1": PrePrepare(FIRST.proposal(), Vote.sign(NETWORK, KEYS[0], PREPARE, 1, 1, FIRST.header.digest()), CHANGES),
    "vote": VOTE,
    "view change": CHANGES[0],
    "view change without proof": CHANGES[1],
    "status": PeerStatus(7, digest("block")),
    "offered": TransactionsOffered((transaction(1), transaction(2))),
    "offered nothing": TransactionsOffered(()),
    "pool": PoolListed(((digest("a"), digest("b")), (digest("c"), digest("d")))),
    "wanted": TransactionsWanted(((digest("a"), digest("b")),)),
    "block wanted": BlockWanted(3, digest("block")),
    "block sent": BlockSent(SECOND),
    "proposal wanted": ProposalWanted(3, 2),
    "range wanted": RangeWanted(1, 64),
    "range sent": RangeSent(((FIRST, FIRST_CERTIFICATE), (SECOND, certify(SECOND, 1)))),
    "range sent empty": RangeSent(()),
    "past votes wanted": PastVotesWanted(digest("challenge")),
    "past votes sent": PastVotesSent(digest("challenge"), 1, FIRST_CERTIFICATE, (VOTE,), (CHANGES[0],)),
    "past votes sent at height 0": PastVotesSent(digest("challenge"), 0, None, (), ()),
    "evidence": EvidenceSent((Contradiction.of(VOTE, OTHER_VOTE), Contradiction.of(CHANGES[0], OTHER_CHANGE))),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_each_message_comes_back_as_it_was_and_as_the_same_bytes(name):
    data = encode_message(MESSAGES[name])
    decoded = decode_message(data)
    assert decoded == MESSAGES[name]
    assert encode_message(decoded) == data


def test_the_bytes_of_each_message_are_frozen(repository):
    vectors = json.loads((repository / "tests" / "vectors" / "peer.json").read_text(encoding="utf-8"))
    found = {name: [len(encode_message(message)), sha256(encode_message(message)).hexdigest()] for name, message in MESSAGES.items()}
    assert found == vectors["messages"]
    assert {name: encode_message(MESSAGES[name]).hex() for name in vectors["frames"]} == vectors["frames"]


def test_every_kind_of_message_is_tried_here():
    from medchain.wire import peer

    assert {type(message) for message in MESSAGES.values()} == set(peer.PeerMessage.__args__)


@pytest.mark.parametrize("name", MESSAGES)
def test_cut_and_lengthened_frames_are_malformed(name):
    data = encode_message(MESSAGES[name])
    steps = range(len(data)) if len(data) < 400 else range(0, len(data), 37)
    for length in steps:
        with pytest.raises(Malformed):
            decode_message(data[:length])
    with pytest.raises(Malformed):
        decode_message(data + b"\x00")


@pytest.mark.parametrize("name", MESSAGES)
def test_a_changed_byte_gives_malformed_or_another_message_and_nothing_else(name):
    data = encode_message(MESSAGES[name])
    step = max(1, len(data) // 300)
    for position in range(0, len(data), step):
        for value in (data[position] ^ 1, data[position] ^ 0x80, 0xC1, 0xFF):
            changed = data[:position] + bytes((value,)) + data[position + 1 :]
            if changed == data:
                continue
            try:
                message = decode_message(changed)
            except Malformed:
                continue
            assert encode_message(message) == changed != data


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_malformed_or_a_message(data):
    try:
        message = decode_message(data)
    except Malformed:
        return
    assert encode_message(message) == data


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)


@given(st.integers(0, 15), values)
def test_well_formed_msgpack_of_any_shape_is_malformed_or_a_message(kind, value):
    data = codec.encode([WIRE_VERSION, kind, value])
    try:
        message = decode_message(data)
    except Malformed:
        return
    assert encode_message(message) == data


def frame(kind: int, fields: list) -> bytes:
    return codec.encode([WIRE_VERSION, kind, fields])


HOSTILE = {
    "another version": codec.encode([2, 4, [1, bytes(32)]]),
    "a truth value as version": codec.encode([True, 4, [1, bytes(32)]]),
    "an unknown kind": frame(99, []),
    "a kind that is text": codec.encode([1, "4", []]),
    "no list": codec.encode({"a": 1}),
    "too many fields": frame(4, [1, bytes(32), 0]),
    "a height beyond the bound": frame(4, [2**60, bytes(32)]),
    "a negative height": frame(4, [-1, bytes(32)]),
    "a short digest": frame(4, [1, bytes(31)]),
    "too many ids": frame(6, [[[bytes(32), bytes(32)]] * (IDS_MAX + 1)]),
    "an id of one field": frame(7, [[[bytes(32)]]]),
    "a range of too many blocks": frame(10, [1, RANGE_BLOCKS_MAX + 1]),
    "a block cut short": frame(9, [SECOND.encode()[:-1]]),
    "a transaction twice in an offer's block": frame(9, [codec.encode([FIRST.header.encode(), [transaction(1).raw] * 2, [None, []], []])]),
    "a certificate of another block": frame(11, [[[FIRST.encode(), certify(SECOND).encode()]]]),
    "a range with a gap": frame(11, [[[FIRST.encode(), FIRST_CERTIFICATE.encode()], [FIRST.encode(), FIRST_CERTIFICATE.encode()]]]),
    "a vote of an unknown kind": frame(2, [3, 1, 0, bytes(32), bytes(32), bytes(64)]),
    "a vote with a short signature": frame(2, [1, 1, 0, bytes(32), bytes(32), bytes(63)]),
    "a view change to view 0": frame(3, [1, 0, None, None, bytes(32), bytes(64), None]),
    "a view change with half a prepared block": frame(3, [1, 2, 1, None, bytes(32), bytes(64), None]),
    "a view change that prepared later": frame(3, [1, 2, 2, bytes(32), bytes(32), bytes(64), None]),
    "a proof of another block": frame(3, [1, 2, 1, bytes(32), bytes(32), bytes(64), PROOF.to_value()]),
    "a prepare of another block": frame(
        1, [FIRST.proposal().to_value(), Vote.sign(NETWORK, KEYS[0], PREPARE, 1, 0, bytes(32)).to_value(), []]
    ),
    "a prepare of another height than the block": frame(
        1, [FIRST.proposal().to_value(), Vote.sign(NETWORK, KEYS[0], PREPARE, 2, 0, FIRST.header.digest()).to_value(), []]
    ),
    "a pre-prepare with a commit": frame(1, [FIRST.proposal().to_value(), VOTE.to_value(), []]),
    "a proposal with another last commit": frame(
        1, [[FIRST.header.encode(), [list(e) for e in FIRST.entries], [FIRST_CERTIFICATE.to_value(), []], []], VOTE.to_value(), []]
    ),
    "a challenge of another length": frame(12, [bytes(16)]),
    "more bytes than a frame": b"\xc6" + (FRAME_BYTES_MAX + 1).to_bytes(4, "big") + bytes(FRAME_BYTES_MAX + 1),
    "deep nesting": b"\x91" * 200 + b"\xc0",
    "a float": frame(4, [])[:-1] + b"\x92\xcb" + bytes(8),
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_frame_is_malformed(name):
    with pytest.raises(Malformed):
        decode_message(HOSTILE[name])


def test_a_value_that_is_no_message_is_our_own_bug():
    with pytest.raises(InvariantBroken):
        encode_message("hello")  # type: ignore[arg-type]


def test_agreement_overtakes_gossip_and_gossip_overtakes_bulk():
    lanes = {name: lane_of(message) for name, message in MESSAGES.items()}
    assert {lanes[name] for name in ("pre-prepare", "vote", "view change", "wanted", "block sent")} == {CONSENSUS_LANE}
    assert {lanes[name] for name in ("offered", "pool", "status", "evidence")} == {GOSSIP_LANE}
    assert {lanes[name] for name in ("range wanted", "range sent")} == {QUERY_LANE}
