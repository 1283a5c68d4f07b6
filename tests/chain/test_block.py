"""Blocks: the header's digest covers every field, its digests cover every other byte."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain import codec
from medchain.chain import limits
from medchain.chain.block import Block, Header, LastCommit, Proposal, evidence_digest
from medchain.chain.transaction import SINGLE_SIGNATURE, Transaction, transactions_root
from medchain.chain.vote import COMMIT, PREPARE, Vote
from medchain.errors import Malformed
from tests.chain.conftest import KEYS, NETWORK, block, certify, digest, hostile, single_changes, transaction

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "block.json").read_text())
BLOCK = block()
HEADER = BLOCK.header


def other_value(name: str) -> Any:
    value = getattr(HEADER, name)
    if isinstance(value, int):
        return value + 1
    return value + "x" if isinstance(value, str) else bytes((value[0] ^ 1,)) + value[1:]


@pytest.mark.parametrize("name", [field.name for field in fields(Header) if field.init])
def test_the_digest_of_a_header_covers_each_field(name: str) -> None:
    changed = replace(HEADER, **{name: other_value(name)})
    assert changed.encode() != HEADER.encode()
    assert changed.digest() != HEADER.digest()


@pytest.mark.parametrize("name", [field.name for field in fields(Header) if field.init][5:])
def test_two_digests_of_a_header_do_not_stand_for_each_other(name: str) -> None:
    for other in [field.name for field in fields(Header) if field.init][5:]:
        exchanged = replace(HEADER, **{name: getattr(HEADER, other), other: getattr(HEADER, name)})
        assert (exchanged.digest() == HEADER.digest()) == (getattr(HEADER, name) == getattr(HEADER, other))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("version", 0), ("version", 2), ("version", True), ("chain_id", "x" * 65), ("chain_id", b"test"), ("height", -1),
        ("height", limits.HEIGHT_MAX + 1), ("height", True), ("view", limits.VIEW_MAX + 1), ("view", -1),
        ("time_ms", limits.TIME_MS_MAX + 1), ("time_ms", None),
        ("parent", bytes(31)), ("proposer", bytes(33)), ("state_root", "x" * 32), ("evidence_digest", None),
    ],
)  # fmt: skip
def test_headers_out_of_bounds_are_refused(name: str, wrong: Any) -> None:
    with pytest.raises(Malformed):
        Header.decode(replace(HEADER, **{name: wrong}).encode())


def test_no_byte_of_a_block_is_out_of_the_headers_reach() -> None:
    """Turn each bit's byte, cut at each length, append: either it is refused, or it is another header, hence another block."""
    changed = 0
    for data in single_changes(BLOCK.encode()):
        try:
            other = Block.decode(data)
        except Malformed:
            continue
        assert other.header.digest() != HEADER.digest()
        changed += 1
    assert changed > 0, "fields that only execution can judge (state root, time, ...) were changed and read"


@given(st.data())
def test_damaged_blocks_are_malformed_or_have_another_digest(data: st.DataObject) -> None:
    damaged = data.draw(hostile(BLOCK.encode()))
    try:
        other = Block.decode(damaged)
    except Malformed:
        return
    assert other == BLOCK or other.header.digest() != HEADER.digest()
    assert other.encode() == damaged


def body_changes() -> dict[str, Block]:
    first, second = BLOCK.transactions
    commit, late = BLOCK.last_commit, BLOCK.last_commit.late
    resigned = Transaction.decode(codec.encode([first.body_bytes, [SINGLE_SIGNATURE, bytes(64)]]))
    return {
        "transactions swapped": replace(BLOCK, transactions=(second, first)),
        "a transaction lost": replace(BLOCK, transactions=(first,)),
        "a transaction added": replace(BLOCK, transactions=(first, second, transaction(3))),
        "no transactions": replace(BLOCK, transactions=()),
        "another authentication of a body": replace(BLOCK, transactions=(resigned, second)),
        "the certificate lost": replace(BLOCK, last_commit=replace(commit, certificate=None)),
        "another certificate of the same block": replace(
            BLOCK, last_commit=replace(commit, certificate=certify((0, 1, 2), HEADER.height - 1, 0, digest("parent")))
        ),
        "late commits lost": replace(BLOCK, last_commit=replace(commit, late=())),
        "a late commit lost": replace(BLOCK, last_commit=replace(commit, late=late[:1])),
        "evidence lost": replace(BLOCK, evidence=()),
        "evidence swapped": replace(BLOCK, evidence=BLOCK.evidence[::-1]),
        "evidence doubled": replace(BLOCK, evidence=(*BLOCK.evidence, BLOCK.evidence[0])),
        "evidence joined": replace(BLOCK, evidence=(b"".join(BLOCK.evidence),)),
    }


@pytest.mark.parametrize("name", body_changes())
def test_a_body_that_is_not_the_headers_is_refused_as_block_and_as_proposal(name: str) -> None:
    changed = body_changes()[name]
    with pytest.raises(Malformed, match=r"not (those|that) of the header"):
        Block.decode(changed.encode())
    with pytest.raises(Malformed, match=r"not (those|that) of the header"):
        Proposal.from_value(changed.proposal().to_value())


def test_a_transaction_twice_is_refused_even_when_the_root_says_so() -> None:
    first, _ = BLOCK.transactions
    resigned = Transaction.decode(codec.encode([first.body_bytes, [SINGLE_SIGNATURE, bytes(64)]]))
    for pair in ((first, first), (first, resigned)):
        twice = replace(
            BLOCK, transactions=pair, header=replace(HEADER, transactions_root=transactions_root([item.entry for item in pair]))
        )
        with pytest.raises(Malformed, match="a transaction twice"):
            Block.decode(twice.encode())
        with pytest.raises(Malformed, match="a transaction twice"):
            Proposal.from_value(twice.proposal().to_value())


def late_vote(height: int, index: int, kind: int = COMMIT, view: int = 0) -> Vote:
    return Vote.sign(NETWORK, KEYS[index], kind, height, view, digest("grandparent"))


@pytest.mark.parametrize(
    "late",
    [
        (late_vote(6, 3), late_vote(6, 0)),
        (late_vote(6, 0), late_vote(5, 1)),
        (late_vote(6, 0), late_vote(6, 0)),
        (late_vote(6, 0), late_vote(6, 0, view=1)),
        (late_vote(6, 0, PREPARE),),
    ],
    ids=["signers out of order", "heights out of order", "one twice", "one twice in two views", "a prepare"],
)
def test_late_commits_out_of_order_twice_or_of_another_kind_are_refused(late: tuple[Vote, ...]) -> None:
    last_commit = LastCommit(BLOCK.last_commit.certificate, late)
    other = replace(BLOCK, last_commit=last_commit, header=replace(HEADER, last_commit_digest=last_commit.digest()))
    with pytest.raises(Malformed, match="late commits must"):
        Block.decode(other.encode())


def test_late_commits_in_order_come_back() -> None:
    last_commit = LastCommit(BLOCK.last_commit.certificate, (late_vote(5, 3), late_vote(6, 0), late_vote(6, 1)))
    other = replace(BLOCK, last_commit=last_commit, header=replace(HEADER, last_commit_digest=last_commit.digest()))
    assert Block.decode(other.encode()) == other


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_block_and_its_proposal_name_the_same_entries(count: int) -> None:
    made = block(count=count)
    proposal = Proposal.from_value(codec.decode(codec.encode(made.proposal().to_value())))
    assert proposal == made.proposal()
    assert proposal.entries == made.entries == tuple(item.entry for item in made.transactions)
    assert proposal.header.digest() == made.header.digest()


def test_a_block_keeps_the_received_bytes_of_its_transactions() -> None:
    assert [item.raw for item in Block.decode(BLOCK.encode()).transactions] == [item.raw for item in BLOCK.transactions]


def with_evidence(items: tuple[bytes, ...]) -> Block:
    return replace(BLOCK, evidence=items, header=replace(HEADER, evidence_digest=evidence_digest(items)))


def test_evidence_is_bounded_in_number_and_size() -> None:
    most = with_evidence((b"x",) * limits.EVIDENCE_MAX)
    assert Block.decode(most.encode()) == most
    for items in ((b"x",) * (limits.EVIDENCE_MAX + 1), (bytes(limits.EVIDENCE_BYTES_MAX + 1),)):
        with pytest.raises(Malformed):
            Block.decode(with_evidence(items).encode())


def test_a_block_above_the_hard_limit_is_refused_before_it_is_taken_apart() -> None:
    with pytest.raises(Malformed, match=f"more than the {limits.BLOCK_BYTES_HARD_MAX} allowed"):
        Block.decode(bytes(limits.BLOCK_BYTES_HARD_MAX + 1))


def test_more_transactions_than_the_hard_limit_are_refused() -> None:
    value = BLOCK.proposal().to_value()
    value[1] = [[bytes(32), bytes(32)]] * (limits.BLOCK_TRANSACTIONS_HARD_MAX + 1)
    with pytest.raises(Malformed, match="at most"):
        Proposal.from_value(value)


@pytest.mark.parametrize("vector", VECTORS["blocks"], ids=lambda vector: vector["name"].replace(" ", "-"))
def test_frozen_blocks_do_not_change(vector: dict[str, Any]) -> None:
    made = block(vector["header"]["height"], vector["transactions"])
    assert made.encode().hex() == vector["encoded"]
    decoded = Block.decode(bytes.fromhex(vector["encoded"]))
    assert decoded == made
    named = {name: value.hex() if isinstance(value, bytes) else value for name, value in header_values(decoded.header).items()}
    assert named == vector["header"]
    assert decoded.header.encode().hex() == vector["header_encoded"]
    assert decoded.header.digest().hex() == vector["digest"]
    assert codec.encode(decoded.proposal().to_value()).hex() == vector["proposal"]


def header_values(header: Header) -> dict[str, Any]:
    return {field.name: getattr(header, field.name) for field in fields(Header) if field.init}


def test_frozen_digests_of_nothing_do_not_change() -> None:
    assert transactions_root(()).hex() == VECTORS["empty"]["transactions_root"]
    assert evidence_digest(()).hex() == VECTORS["empty"]["evidence_digest"]
    assert LastCommit(None).digest().hex() == VECTORS["empty"]["last_commit_digest"]
