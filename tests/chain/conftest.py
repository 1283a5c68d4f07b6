"""Nouns made from fixed seeds, and hostile bytes made from valid ones.

Everything here is a function of constants, so the frozen vectors can be made again on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from hypothesis import strategies as st

from medchain import codec
from medchain.chain.block import Block, Header, LastCommit, evidence_digest
from medchain.chain.certificate import Certificate
from medchain.chain.domain import Domain
from medchain.chain.genesis import OBSERVER, VALIDATOR, Genesis, Hospital
from medchain.chain.parameters import Parameters
from medchain.chain.receipt import Event, Receipt, receipts_root
from medchain.chain.transaction import Operation, Transaction, TransactionBody, transactions_root
from medchain.chain.validators import Validator, ValidatorSet
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, Signatures, ViewChange, Vote
from medchain.crypto.signing import SigningKey
from medchain.errors import Malformed


def digest(name: str) -> bytes:
    """Thirty-two bytes that stand for something."""
    return sha256(f"medchain tests {name}".encode()).digest()


def signing_key(name: str) -> SigningKey:
    """The key of a seed made from a name."""
    return SigningKey(digest(f"key {name}"))


NETWORK = Domain(digest("genesis"), 0)
KEYS = sorted((signing_key(f"consensus {number}") for number in range(13)), key=lambda key: key.public)
"""Consensus keys in the order of a validator set."""
SENDER = signing_key("sender")


def validators_of(n: int, suspended: Sequence[int] = (), changed_at: int = 0) -> ValidatorSet:
    """A set of the first n keys."""
    members = (Validator(KEYS[i].public, signing_key(f"officer {i}").public, i not in suspended) for i in range(n))
    return ValidatorSet(changed_at, tuple(members))


def signatures_by(signers: Sequence[int], kind: int, height: int, view: int, name: bytes, network: Domain = NETWORK) -> Signatures:
    """Signatures of one vote by validators of these indexes."""
    return tuple((index, Vote.sign(network, KEYS[index], kind, height, view, name).signature) for index in signers)


def certify(
    signers: Sequence[int], height: int = 7, view: int = 2, name: bytes = digest("block"), network: Domain = NETWORK
) -> Certificate:
    """A certificate with these signers, who may be too few."""
    return Certificate(height, view, name, signatures_by(signers, COMMIT, height, view, name, network))


def body(nonce: int = 1, **changed: Any) -> TransactionBody:
    """What the sender signs, with an operation of every kind of value."""
    operations = (Operation("people.register_patient", [digest("patient"), 3, None]), Operation("records.test", ["TREAT", [1, True], -5]))
    plain = TransactionBody("test", SENDER.public, 1_000, operations, nonce.to_bytes(8, "big"))
    return replace(plain, **changed)


def transaction(nonce: int = 1) -> Transaction:
    """A signed transaction."""
    return Transaction.sign(body(nonce), SENDER, NETWORK)


def batch(count: int) -> tuple[Transaction, ...]:
    """Transactions under one signature."""
    return Transaction.sign_batch([body(number + 1) for number in range(count)], SENDER, NETWORK)


RECEIPTS = (
    Receipt(transaction(1).id, "", 0, (Event("people.register_patient", (digest("patient"),), [SENDER.public]),)),
    Receipt(transaction(2).id, "consents.unknown", 1, ()),
)
"""An accepted one and a refused one."""


def block(height: int = 8, count: int = 2) -> Block:
    """A block of `count` transactions with its parent's certificate, a late commit and evidence."""
    transactions = tuple(transaction(nonce) for nonce in range(1, count + 1))
    late = tuple(Vote.sign(NETWORK, KEYS[index], COMMIT, height - 2, 0, digest("grandparent")) for index in (0, 3))
    last_commit = LastCommit(certify((0, 1, 3), height - 1, 0, digest("parent")), late)
    evidence = (b"evidence one", b"evidence two")
    header = Header(
        version=1, chain_id="test", height=height, view=2, time_ms=1_800_000_000_000, parent=digest("parent"), proposer=KEYS[2].public,
        transactions_root=transactions_root([entry.entry for entry in transactions]), receipts_root=receipts_root(RECEIPTS),
        state_root=digest("state"), validators_digest=validators_of(4).digest(), next_validators_digest=validators_of(5).digest(),
        last_commit_digest=last_commit.digest(), history_root=digest("history"), evidence_digest=evidence_digest(evidence),
    )  # fmt: skip
    return Block(header, transactions, last_commit, evidence)


def prepared(view: int = 1, height: int = 7, name: bytes = digest("block"), signers: Sequence[int] = (0, 1, 2)) -> PreparedProof:
    """The proof that a block was prepared, in a set of four."""
    return PreparedProof(height, view, name, signatures_by(signers, PREPARE, height, view, name))


def view_change(proof: PreparedProof | None = None, height: int = 7, view: int = 3, signer: int = 1) -> ViewChange:
    """A signed view change."""
    return ViewChange.sign(NETWORK, KEYS[signer], height, view, proof)


def vote(
    name: str = "block", kind: int = COMMIT, height: int = 7, view: int = 1, signer: int = 1, network: Domain = NETWORK
) -> Vote:
    """A signed vote."""
    return Vote.sign(network, KEYS[signer], kind, height, view, digest(name))


CONTRADICTIONS = {
    "two commits": (vote("block"), vote("other")),
    "two prepares": (vote("block", PREPARE), vote("other", PREPARE)),
    "two view changes": (view_change(), view_change(prepared(view=1))),
    "two view changes with other blocks": (view_change(prepared()), view_change(prepared(name=digest("other")))),
    "a commit hidden": (vote(view=0), view_change()),
    "a later commit hidden": (vote(view=2), view_change(prepared(view=1))),
}
"""Statements of validator 1 about height 7 that contradict each other; the view changes lead to view 3."""


def hospital(number: int, role: str = VALIDATOR) -> Hospital:
    """A founding member."""
    return Hospital(
        name=f"Hôpital {number}", role=role, consensus_key=KEYS[number].public, officer_key=signing_key(f"officer {number}").public,
        organisation_key=signing_key(f"organisation {number}").public, opening_suite=2, opening_key=digest(f"opening {number}"),
        certificate=b"certificate %d" % number, endpoints=(f"node-{number}.example:7000", f"198.51.100.{number}:7000"),
    )  # fmt: skip


def genesis() -> Genesis:
    """Four validators and an observer."""
    hospitals = tuple(hospital(number, OBSERVER if number == 2 else VALIDATOR) for number in range(5))
    return Genesis("test", 1_700_000_000_000, Parameters(state_buckets=1024), hospitals)


# ------------------------------------------------------------------------------------------------------------------- hostile bytes

FOREIGN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=70) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
"""Any value of the codec."""


@st.composite
def hostile(draw: st.DrawFn, valid: bytes) -> bytes:
    """Bytes near valid ones: damaged as bytes (flipped, cut, extended) or as values (a field doubled, lost, swapped, replaced)."""
    damage = draw(st.sampled_from(("flip", "cut", "extend", "insert", "value", "value", "value")))
    place = draw(st.integers(0, len(valid) - 1))
    if damage == "flip":
        return valid[:place] + bytes((valid[place] ^ draw(st.integers(1, 255)),)) + valid[place + 1 :]
    if damage == "cut":
        return valid[:place]
    if damage == "extend":
        return valid + draw(st.binary(min_size=1, max_size=40))
    if damage == "insert":
        return valid[:place] + draw(st.binary(min_size=1, max_size=4)) + valid[place:]
    return codec.encode(_damage_value(draw, codec.decode(valid)))


def _damage_value(draw: st.DrawFn, value: Any) -> Any:
    """Damage one place of a value; bytes that hold an encoding are damaged inside as well."""
    if type(value) is bytes and draw(st.booleans()):
        inner = _inside(value)
        if inner is not None:
            return codec.encode(_damage_value(draw, inner))
    if type(value) is not list or not value or draw(st.integers(0, 3)) == 0:
        return draw(FOREIGN)
    place = draw(st.integers(0, len(value) - 1))
    change = draw(st.sampled_from(("double", "lose", "swap", "add", "inside", "inside", "inside", "inside")))
    before, item, after = value[:place], value[place], value[place + 1 :]
    if change == "double":
        return [*before, item, item, *after]
    if change == "lose":
        return before + after
    if change == "swap":
        return [*after, item, *before]
    if change == "add":
        return [*before, draw(FOREIGN), item, *after]
    return [*before, _damage_value(draw, item), *after]


def _inside(data: bytes) -> Any:
    try:
        value = codec.decode(data)
    except Malformed:
        return None
    return value if type(value) is list else None


def check_hostile(data: bytes, decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]) -> None:
    """Whatever the bytes are: Malformed, or a noun whose one encoding they are."""
    try:
        noun = decode(data)
    except Malformed:
        return
    assert encode(noun) == data


def single_changes(valid: bytes, step: int = 1) -> Iterator[bytes]:
    """Valid bytes with one bit turned, one after the other, then cut off and extended."""
    for place in range(0, len(valid), step):
        yield valid[:place] + bytes((valid[place] ^ (1 << place % 8),)) + valid[place + 1 :]
        yield valid[:place]
    yield from (valid + b"\x00", valid + b"\xc0", valid + valid)
