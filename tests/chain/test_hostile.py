"""Every decoder of the room: valid nouns come back, hostile bytes give Malformed or a noun whose one encoding they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medchain import codec
from medchain.chain.block import Block, Header, LastCommit, Proposal
from medchain.chain.certificate import Certificate
from medchain.chain.evidence import Contradiction
from medchain.chain.genesis import Hospital
from medchain.chain.parameters import Parameters
from medchain.chain.receipt import Event, Receipt, decode_receipts, encode_receipts
from medchain.chain.transaction import Transaction, TransactionBody
from medchain.chain.validators import ValidatorSet
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, Vote
from medchain.errors import Malformed
from tests.chain.conftest import (
    FOREIGN,
    KEYS,
    NETWORK,
    RECEIPTS,
    block,
    body,
    certify,
    check_hostile,
    digest,
    hospital,
    hostile,
    prepared,
    single_changes,
    transaction,
    validators_of,
    view_change,
)


class Kind(NamedTuple):
    """One decoder, its encoder and a noun."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    noun: Any

    @property
    def valid(self) -> bytes:
        return self.encode(self.noun)


def by_value(noun: Any) -> Kind:
    """A noun that travels inside others, as a codec value."""
    read = type(noun).from_value
    return Kind(lambda data: read(codec.decode(data)), lambda value: codec.encode(value.to_value()), noun)


TWO_VOTES = tuple(Vote.sign(NETWORK, KEYS[1], COMMIT, 7, 2, digest(name)) for name in ("block", "other"))

KINDS: dict[str, Kind] = {
    "transaction body": Kind(TransactionBody.decode, TransactionBody.encode, body()),
    "transaction": Kind(Transaction.decode, lambda noun: noun.raw, transaction()),
    "header": Kind(Header.decode, Header.encode, block().header),
    "block": Kind(Block.decode, Block.encode, block()),
    "empty block": Kind(Block.decode, Block.encode, block(count=0)),
    "proposal": by_value(block().proposal()),
    "last commit": by_value(block().last_commit),
    "last commit of block 1": by_value(LastCommit(None)),
    "vote": by_value(Vote.sign(NETWORK, KEYS[1], PREPARE, 7, 2, digest("block"))),
    "prepared proof": by_value(prepared()),
    "evidence of votes": Kind(Contradiction.decode, Contradiction.encode, Contradiction.of(*TWO_VOTES)),
    "evidence of a lie": Kind(Contradiction.decode, Contradiction.encode, Contradiction.of(TWO_VOTES[0], view_change())),
    "view change": by_value(view_change(prepared())),
    "view change that prepared nothing": by_value(view_change()),
    "certificate": Kind(Certificate.decode, Certificate.encode, certify((0, 1, 2))),
    "validator set": Kind(ValidatorSet.decode, ValidatorSet.encode, validators_of(5, (2,), 40)),
    "parameters": Kind(Parameters.decode, Parameters.encode, Parameters()),
    "event": Kind(Event.decode, Event.encode, RECEIPTS[0].events[0]),
    "receipt": Kind(Receipt.decode, Receipt.encode, RECEIPTS[0]),
    "refused receipt": Kind(Receipt.decode, Receipt.encode, RECEIPTS[1]),
    "receipts": Kind(decode_receipts, encode_receipts, RECEIPTS),
    "hospital": by_value(hospital(1)),
}

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@every_kind
def test_every_noun_comes_back_from_its_bytes(kind: Kind) -> None:
    assert kind.decode(kind.valid) == kind.noun
    assert kind.encode(kind.decode(kind.valid)) == kind.valid


@every_kind
def test_every_turned_bit_cut_and_extension_is_refused_or_is_another_noun(kind: Kind) -> None:
    step = max(1, len(kind.valid) // 400)
    for data in single_changes(kind.valid, step):
        try:
            assert kind.decode(data) != kind.noun
        except Malformed:
            continue
        assert kind.encode(kind.decode(data)) == data


@every_kind
@given(data=st.data())
def test_damaged_nouns_are_malformed_or_canonical(kind: Kind, data: st.DataObject) -> None:
    check_hostile(data.draw(hostile(kind.valid)), kind.decode, kind.encode)


@given(st.sampled_from(list(KINDS.values())), st.binary(max_size=200) | FOREIGN.map(codec.encode))
def test_foreign_bytes_are_malformed_or_canonical(kind: Kind, data: bytes) -> None:
    check_hostile(data, kind.decode, kind.encode)


@every_kind
def test_the_bytes_of_another_noun_are_refused(kind: Kind) -> None:
    """Two pairs share a form on purpose.

    A certificate and a prepared proof are told apart by what their signatures cover; a proposal and a block differ in their transactions,
    of which an empty block has none.
    """
    alike = ({Certificate, PreparedProof}, {Block, Proposal})
    for other in KINDS.values():
        if type(other.noun) is not type(kind.noun) and {type(other.noun), type(kind.noun)} not in alike:
            with pytest.raises(Malformed):
                kind.decode(other.valid)


@every_kind
@pytest.mark.parametrize("rest", [b"", b"\x90", b"\xc0", b"\xff", b"\x81\xa1a\x01", b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"])
def test_tiny_hostile_bytes_are_refused(kind: Kind, rest: bytes) -> None:
    if rest == b"\x90" and kind.noun is RECEIPTS:
        assert kind.decode(rest) == ()  # a block without transactions has no receipts
        return
    with pytest.raises(Malformed):
        kind.decode(rest)


WRONG_FIELDS = (True, -1, 2**64 - 1, "x" * 300, "a\x00", b"", b"\x00" * 33, [None], {"a": 1})
POSITIONAL = [
    (name, place)
    for name, kind in KINDS.items()
    if name not in ("receipts", "parameters")
    for place in range(len(codec.decode(kind.valid)))
]  # fmt: skip


@pytest.mark.parametrize(("name", "place"), POSITIONAL)
def test_a_field_of_another_type_or_size_is_refused_or_kept_as_it_is(name: str, place: int) -> None:
    """No field is read by its truth or converted: either the decoder refuses it, or encoding gives the very bytes back."""
    kind, refused = KINDS[name], 0
    for wrong in WRONG_FIELDS:
        value = codec.decode(kind.valid)
        value[place] = wrong
        try:
            assert kind.encode(kind.decode(codec.encode(value))) == codec.encode(value)
        except Malformed:
            refused += 1
    assert refused >= 5


def test_a_hospital_with_a_role_of_another_type_is_refused() -> None:
    value = hospital(1).to_value()
    for role in ("", "Validator", "validators", b"validator", None, True, ["validator"], {"validator": 1}):
        value[1] = role
        with pytest.raises(Malformed, match="validator or an observer"):
            Hospital.from_value(value)


def test_no_noun_is_mutable() -> None:
    for kind in KINDS.values():
        if kind.noun is RECEIPTS:
            continue
        name = next(iter(type(kind.noun).__dataclass_fields__))
        with pytest.raises(AttributeError):
            setattr(kind.noun, name, None)
