"""Every decoder of every room, with real bytes to damage: the bytes of a small network that ran, of the rule book's story, of key files.

A decoder that is not here fails test_decoders.py. Those that take apart nothing that comes from outside stand in EXEMPT with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from medchain import codec
from medchain.bench.facts import Facts
from medchain.bench.results import HIGHER, LOWER, MICRO, Case, Curve, Measure, Result
from medchain.bench.results import Target as BenchTarget
from medchain.chain.block import Block, Header, LastCommit, Proposal
from medchain.chain.certificate import Certificate
from medchain.chain.evidence import Contradiction
from medchain.chain.genesis import Genesis, Hospital
from medchain.chain.parameters import Parameters
from medchain.chain.receipt import Event, Receipt, decode_receipts, encode_receipts
from medchain.chain.transaction import Operation, Transaction, TransactionBody
from medchain.chain.validators import ValidatorSet
from medchain.chain.vote import PreparedProof, ViewChange, Vote, signatures_from_value, signatures_to_value
from medchain.consensus.messages import PrePrepare
from medchain.crypto.certificates import make_certificate, read_certificate
from medchain.crypto.keyfile import Identity, load_identity, load_public, save_identity
from medchain.crypto.sealing import SUITE_X25519, OpeningKey
from medchain.crypto.streams import StreamHeader
from medchain.engine import hardstate
from medchain.engine.mempool import Mempool, Placement
from medchain.errors import InvariantBroken, Malformed, MedchainError, Rejected
from medchain.ledger import access, consents, emergencies, epochs, people, records
from medchain.ledger.execution import Handler
from medchain.ledger.kinds import read_operation
from medchain.ledger.permits import PermitUse
from medchain.ledger.rotation import RotationRow, founding_row
from medchain.ledger.rows import decode_row, encode_row
from medchain.network.framing import Assembler, part_head
from medchain.network.handshake import Hello, Proof, Refusal, decode_handshake, encode_handshake
from medchain.network.limits import PART_BYTES
from medchain.node.config import NodeConfig, default_file, parse_address
from medchain.node.home import load_genesis
from medchain.rpc.requests import read_json, read_request
from medchain.sim.faults import draw_plan
from medchain.sim.plantext import decode_plan, encode_plan
from medchain.store import layout
from medchain.store.archive import BlockArchive
from medchain.store.history import History, load_history
from medchain.store.memory import MemoryKeyValue
from medchain.store.proof import StateProof
from medchain.store.staged import Staged
from medchain.store.tree import StateTree
from medchain.testnet.plan import load_plan
from medchain.vault.http import read_content_range, read_error
from medchain.wire.custody import PutRequest, Release, ReleaseInfo, ReleaseRequest
from medchain.wire.methods import METHODS, check_params, read_hex
from medchain.wire.peer import (
    BlockSent,
    BlockWanted,
    EvidenceSent,
    PastVotesSent,
    ProposalWanted,
    RangeSent,
    RangeWanted,
    decode_message,
    encode_message,
)
from medchain.wire.proof import Place, StateFileProof, TransactionProof
from tests.chain import conftest as nouns
from tests.engine.conftest import Cluster
from tests.ledger.conftest import Story
from tests.wire import test_custody as custody
from tests.wire import test_proof as proofs

EXEMPT = {
    "medchain.actions.access:read_trail": "makes an operation",
    "medchain.bench.cluster:Suite.load": "measures an axis",
    "medchain.bench.usage:read_object": "reads what a node of a measurement counted",
    "medchain.client.access:read_trail": "asks a node; its answers are read by NodeClient",
    "medchain.client.node:read_answer": "bounds the bytes of an HTTP answer; tests/client",
    "medchain.client.transfer:upload_from": "reads a file of the user's own",
    "medchain.codec:decode_own": "reads what `encode` made here; tests/test_codec.py",
    "medchain.engine.evidence:EvidencePool.load": "reads rows of the store, each with Contradiction.decode; tests/engine/test_evidence.py",
    "medchain.ledger.execution:Handler.from_payload": "abstract; every handler of the table of kinds is here",
    "medchain.ledger.lists:read_page": "reads rows of the state",
    "medchain.ledger.rows:decode_changing_row": "reads rows of the state; tests/ledger/test_rows.py",
    "medchain.network.tls:load_certificate": "reads a file and hands it to read_certificate; tests/network/test_tls.py",
    "medchain.node.replicas:read_bounded": "bounds the bytes of an HTTP answer; tests/node/test_replicas.py",
    "medchain.vault.blobs:BlobStore.read_range": "reads ciphertext as it is",
}

CONTRADICTIONS = tuple(Contradiction.of(*pair) for pair in nouns.CONTRADICTIONS.values())


@dataclass(frozen=True)
class Decoder:
    """How to feed a decoder bytes, and what it may answer."""

    samples: tuple[bytes, ...]
    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes] | None = None
    """The encoder. None: there is no way back, and only the way in is tested."""
    refusals: tuple[type[MedchainError], ...] = (Malformed,)
    is_canonical: bool = True
    """Whether one value has one byte string. JSON and TOML do not."""


def of_value(kind: Any, *found: Any) -> Decoder:
    """Of a noun that travels inside others, as a codec value."""
    samples = tuple(codec.encode(noun.to_value()) for noun in found)
    return Decoder(samples, lambda data: kind.from_value(codec.decode(data)), lambda noun: codec.encode(noun.to_value()))


def of_bytes(kind: Any, *found: Any) -> Decoder:
    return Decoder(tuple(noun.encode() for noun in found), kind.decode, lambda noun: noun.encode())


def table(folder: Path) -> dict[str, Decoder]:
    """All decoders by `module:qualified name`. Files are written to `folder`, which must be empty and private."""
    real = Real()
    return {
        f"medchain.{name}": decoder
        for part in (
            chain_decoders(real),
            consensus_decoders(real),
            ledger_decoders(),
            store_decoders(real),
            wire_decoders(real),
            boundary_decoders(),
            simulator_decoders(),
            benchmark_decoders(folder),
            file_decoders(folder, real),
        )
        for name, decoder in part.items()
    }


class Real:
    """What a network of four made while it ran: blocks, certificates, receipts, messages, a store."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.cluster.warm()
        node = self.cluster.nodes[0]
        for index in range(3):
            self.cluster.settle(node, self.cluster.patient(0, f"patient {index}"))
        self.archive = node.engine.chain.archive
        self.genesis = self.cluster.genesis
        self.store = node.store
        heights = range(1, node.height + 1)
        self.blocks = [Block.decode(self.archive.block(height)) for height in heights]
        self.certificates = [Certificate.decode(self.archive.certificate(height)) for height in heights]
        self.receipts = [receipt for height in heights for receipt in decode_receipts(self.archive.receipts(height))]
        self.transactions = [transaction for block in self.blocks for transaction in block.transactions]
        self.messages = [message for _, _, message, _ in self.cluster.sent]

    def messages_of(self, kind: type) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)][:8]


def chain_decoders(real: Real) -> dict[str, Decoder]:
    block, change = nouns.block(), nouns.view_change(nouns.prepared())
    parameters = json.dumps(real.genesis.parameters.as_names()).encode()
    return {
        "codec:decode": Decoder((codec.encode([1, "a", b"b", None, {"c": [True]}]), block.encode()), codec.decode, codec.encode),
        "chain.block:Header.decode": of_bytes(Header, block.header, *(block.header for block in real.blocks)),
        "chain.block:LastCommit.from_value": of_value(LastCommit, block.last_commit, *(block.last_commit for block in real.blocks)),
        "chain.block:Proposal.from_value": of_value(Proposal, block.proposal(), *(block.proposal() for block in real.blocks)),
        "chain.block:Block.decode": of_bytes(Block, block, *real.blocks),
        "chain.certificate:Certificate.from_value": of_value(Certificate, *real.certificates),
        "chain.certificate:Certificate.decode": of_bytes(Certificate, *real.certificates),
        "chain.evidence:Contradiction.decode": of_bytes(Contradiction, *CONTRADICTIONS),
        "chain.genesis:Hospital.from_value": of_value(Hospital, *real.genesis.hospitals),
        "chain.genesis:Genesis.from_json": Decoder(
            (real.genesis.to_json().encode(), nouns.genesis().to_json().encode()),
            Genesis.from_json,
            lambda noun: noun.to_json().encode(),
            is_canonical=False,
        ),
        "chain.parameters:Parameters.decode": of_bytes(Parameters, Parameters(), real.genesis.parameters),
        "chain.parameters:Parameters.from_names": Decoder((parameters,), lambda data: Parameters.from_names(from_json(data))),
        "chain.receipt:Event.from_value": of_value(Event, *(event for receipt in real.receipts for event in receipt.events)),
        "chain.receipt:Event.decode": of_bytes(Event, *(event for receipt in real.receipts for event in receipt.events)),
        "chain.receipt:Receipt.from_value": of_value(Receipt, *real.receipts, *nouns.RECEIPTS),
        "chain.receipt:Receipt.decode": of_bytes(Receipt, *real.receipts, *nouns.RECEIPTS),
        "chain.receipt:decode_receipts": Decoder(
            (encode_receipts(real.receipts), encode_receipts(nouns.RECEIPTS)), decode_receipts, encode_receipts
        ),
        "chain.transaction:TransactionBody.decode": of_bytes(TransactionBody, nouns.body(), *(entry.body for entry in real.transactions)),
        "chain.transaction:Transaction.decode": Decoder(
            tuple(entry.raw for entry in (nouns.transaction(), *nouns.batch(5), *real.transactions)),
            Transaction.decode,
            lambda noun: noun.raw,
        ),
        "chain.validators:ValidatorSet.decode": of_bytes(ValidatorSet, nouns.validators_of(5, (2,), 40), real.genesis.validators()),
        "chain.vote:Vote.from_value": of_value(Vote, *real.messages_of(Vote)),
        "chain.vote:PreparedProof.from_value": of_value(PreparedProof, nouns.prepared()),
        "chain.vote:ViewChange.from_value": of_value(ViewChange, change, nouns.view_change()),
        "chain.vote:signatures_from_value": Decoder(
            (codec.encode(signatures_to_value(nouns.prepared().prepares)),),
            lambda data: signatures_from_value(codec.decode(data)),
            lambda rows: codec.encode(signatures_to_value(rows)),
        ),
    }


def consensus_decoders(real: Real) -> dict[str, Decoder]:
    plain = real.messages_of(PrePrepare)
    changes = tuple(nouns.view_change(height=plain[0].height, view=3, signer=signer) for signer in (0, 1, 2))
    return {
        "consensus.messages:PrePrepare.from_value": of_value(PrePrepare, *plain, PrePrepare(plain[0].proposal, plain[0].prepare, changes))
    }


def handlers() -> dict[str, tuple[type[Handler], list[Handler]]]:
    """One payload of each kind."""
    story = Story()
    ident = story.fixed("id")
    found: list[Handler] = [
        story.credential(story.lee, "b"),
        people.RevokeCredential(story.lee.public),
        story.registration(story.key("zoe"), "a"),
        epochs.Interim(story.pseudonym, "general", 2, ident),
        story.register(story.pseudonym, story.a.public),
        story.amend(story.a.public, 2),
        records.ConfirmCustody(story.RECORD, 1),
        consents.Grant("hospital", story.b.public, "TREAT", "general", 0, story.time_ms + 10_000),
        consents.Revoke(ident),
        access.Request(story.RECORD, "TREAT", "physician"),
        access.Release(ident, 1),
        access.ReadReceipt(ident, 1),
        access.ReadTrail(story.pseudonym),
        emergencies.Emergency(story.RECORD, "UNCONSCIOUS"),
        emergencies.Review(ident, "justified"),
    ]
    return {f"{type(one).__module__.removeprefix('medchain.')}:{type(one).__name__}.from_payload": (type(one), [one]) for one in found}


def ledger_decoders() -> dict[str, Decoder]:
    payloads = {name: of_payload(kind, found) for name, (kind, found) in handlers().items()}
    every = tuple(codec.encode([one.KIND, one.operation().payload]) for _, found in handlers().values() for one in found)
    content = next(found[0] for kind, found in handlers().values() if kind is records.Register).operation().payload[4:]
    return payloads | {
        "ledger.records:Content.from_values": Decoder(
            (codec.encode(content),), lambda data: records.Content.from_values(codec.as_fields(codec.decode(data), len(content), "content"))
        ),
        "ledger.kinds:read_operation": Decoder(
            every, read_kind, lambda one: codec.encode([one.KIND, one.operation().payload]), (Malformed, Rejected)
        ),
        "ledger.rotation:RotationRow.decode": Decoder((founding_row(nouns.genesis()),), RotationRow.decode, None, (InvariantBroken,)),
        "ledger.rows:decode_row": Decoder(
            (encode_row(PermitUse(3, (1, 2), (1,))),), partial(decode_row, PermitUse), encode_row, (InvariantBroken,)
        ),
    }


def of_payload(kind: type[Handler], found: Iterable[Handler]) -> Decoder:
    samples = tuple(codec.encode(one.operation().payload) for one in found)
    return Decoder(samples, lambda data: kind.from_payload(as_list(codec.decode(data))), lambda one: codec.encode(one.operation().payload))


def as_list(value: Any) -> list[Any]:
    """A payload is a list before any handler sees it (chain/transaction.py)."""
    if type(value) is not list:
        raise Malformed("no list")
    return value


def read_kind(data: bytes) -> Handler:
    kind, payload = codec.as_fields(codec.decode(data), 2, "operation")
    return read_operation(Operation(codec.as_text(kind, "kind", 48), as_list(payload)))


def store_decoders(real: Real) -> dict[str, Decoder]:
    tree = StateTree.rebuild(64, [(b"row %d" % number, b"value") for number in range(300)])
    history = History()
    for number in range(11):
        history._append(bytes([number]) * 32)
    vote = codec.encode(real.messages_of(Vote)[0].to_value())
    change = codec.encode(nouns.view_change(nouns.prepared(height=1), height=1).to_value())
    pool = codec.encode([1, True, real.transactions[0].raw])
    return {
        "store.proof:StateProof.decode": of_bytes(StateProof, tree.prove(b"row 7"), tree.prove(b"none")),
        "store.history:History.decode": Decoder((history.encode(),), lambda data: History.decode(data).encode(), bytes),
        "store.history:load_history": Decoder(
            (history.encode(),), lambda data: load_history(stored(layout.HISTORY_PEAKS, data)).encode(), bytes
        ),
        "engine.hardstate:load": Decoder((vote, change), read_hard_state),
        "engine.mempool:Mempool.load": Decoder((pool,), partial(read_pool, real)),
    }


def stored(key: bytes, value: bytes) -> Staged:
    staged = Staged(MemoryKeyValue())
    staged.put(key, value)
    return staged


def read_hard_state(data: bytes) -> Any:
    found = []
    for kind in (b"a", b"w", b"x", b"q", b"z"):
        staged = stored(layout.hard_state_key(1, kind, bytes(9)), data)
        try:
            found.append(hardstate.load(staged, BlockArchive(staged), 1))
        except Malformed:
            continue
    if not found:
        raise Malformed("no kind of record")
    return found


def read_pool(real: Real, data: bytes) -> Any:
    staged = stored(layout.pool_key(real.transactions[0].id), data)
    return Mempool(staged).load(0, lambda transaction: Placement(transaction.body.sender, False, 1))


def wire_decoders(real: Real) -> dict[str, Decoder]:
    challenge = bytes(32)
    certificate = real.certificates[-1]
    every = {type(message): message for message in real.messages}
    made = [
        BlockWanted(3, challenge),
        BlockSent(real.blocks[0]),
        ProposalWanted(3, 2),
        RangeWanted(1, 9),
        RangeSent(tuple(zip(real.blocks, real.certificates, strict=True))),
        PastVotesSent(challenge, certificate.height, certificate, tuple(real.messages_of(Vote)), (nouns.view_change(),)),
        EvidenceSent(CONTRADICTIONS),
        nouns.view_change(nouns.prepared()),
    ]
    frames = tuple(encode_message(message) for message in (*every.values(), *made))
    params = tuple(
        json.dumps({"method": name, "params": {param.name: SAMPLE_PARAMS[param.kind] for param in method.params}}).encode()
        for name, method in METHODS.items()
    )
    proof, state = proofs.prove(), proofs.prove_state()
    return {
        "wire.peer:decode_message": Decoder(frames, decode_message, encode_message),
        "wire.proof:Place.from_value": of_value(Place, proof.place),
        "wire.proof:TransactionProof.decode": of_bytes(TransactionProof, proof),
        "wire.proof:StateFileProof.decode": of_bytes(StateFileProof, state),
        "wire.custody:PutRequest.decode": of_bytes(PutRequest, custody.PUT),
        "wire.custody:ReleaseRequest.decode": of_bytes(ReleaseRequest, custody.ASK),
        "wire.custody:Release.decode": of_bytes(Release, custody.RELEASE),
        "wire.custody:ReleaseInfo.from_value": of_value(ReleaseInfo, custody.INFO),
        "wire.methods:read_hex": Decoder(
            (b"00ff12", b"ab" * 32), lambda data: read_hex(data.decode("utf-8", "replace"), "it", 64), lambda found: found.hex().encode()
        ),
        "wire.methods:check_params": Decoder(params, read_params),
    }


SAMPLE_PARAMS = {
    "digest": "00" * 32,
    "key": "11" * 32,
    "bytes": "a1",
    "bytes_list": ["a1", "b2"],
    "uint": 3,
    "text": "general",
    "boolean": True,
}


def read_params(data: bytes) -> Any:
    call = from_json(data)
    if type(call) is not dict or type(call.get("method")) is not str:
        raise Malformed("no call")
    return check_params(call["method"], call.get("params"))


def from_json(data: bytes) -> Any:
    """JSON as the boundary reads it, so that only what passes there gets further in."""
    return read_json(data, depth_max=16, values_max=100_000)


def boundary_decoders() -> dict[str, Decoder]:
    hello = Hello(1, 2, bytes(32), 0, 7, bytes(32), bytes(range(32)))
    shakes = tuple(encode_handshake(message) for message in (hello, Proof(bytes(64)), Refusal("handshake.banned")))
    long = part_head(1, PART_BYTES, is_last=False) + bytes(PART_BYTES)
    frames = (part_head(0, 5, is_last=True) + b"hello" + part_head(2, 1, is_last=True) + b"x", long, part_head(1, 3, is_last=True) + b"end")
    call = b'{"jsonrpc": "2.0", "id": 7, "method": "chain.status", "params": {"height": 3, "text": "a\\u00e9"}}'
    error = b'{"error": {"code": "vault.full", "message": "no room", "retry_after_ms": 500}}'
    _, der = make_certificate("hospital", ["127.0.0.1", "h.example"], valid_days=30, now=datetime(2026, 1, 1, tzinfo=UTC))
    header = StreamHeader(1, 65_536, 100_000, bytes(32), bytes(range(32)))
    return {
        "crypto.certificates:read_certificate": Decoder((der,), read_certificate),
        "network.handshake:decode_handshake": Decoder(shakes, decode_handshake, encode_handshake, (Malformed, Rejected)),
        "network.framing:Assembler.feed": Decoder(frames, read_frames),
        "rpc.requests:read_json": Decoder((call, b"[1, -2.5e3, null, true, [], {}]"), from_json),
        "rpc.requests:read_request": Decoder((call,), lambda data: read_request(from_json(data))),
        "vault.http:read_error": Decoder((error,), lambda data: (read_error(503, data), read_error(403, data))),
        "vault.http:read_content_range": Decoder(
            (b"bytes 0-99/1000", b"bytes */1000"), lambda data: read_content_range(data.decode("latin-1"))
        ),
        "node.config:parse_address": Decoder((b"127.0.0.1:7100", b"[::1]:0"), lambda data: parse_address(data.decode("latin-1"))),
        "crypto.streams:StreamHeader.decode": of_bytes(StreamHeader, header),
        "crypto.sealing:OpeningKey.from_private_bytes": Decoder(
            (bytes(range(32)),), lambda data: OpeningKey.from_private_bytes(SUITE_X25519, data).private_bytes(), bytes
        ),
    }


def simulator_decoders() -> dict[str, Decoder]:
    plans = tuple(encode_plan(draw_plan(seed)).encode() for seed in range(3))
    return {
        "sim.plantext:decode_plan": Decoder(
            plans, lambda data: decode_plan(data.decode("utf-8", "replace")), lambda plan: encode_plan(plan).encode(), is_canonical=False
        )
    }


def benchmark_decoders(folder: Path) -> dict[str, Decoder]:
    """Files of results: they travel from the machine that measured to whoever compares."""
    facts = Facts("0.1.0", "0123abc", "2026-01-01 00:00 UTC", "one", 2, 0.5, "3.12.1", "Linux 6")
    measures = {"rate": Measure("1/s", HIGHER, (90.0, 110.0)), "latency_p50": Measure("ms", LOWER, (1.5,))}
    case = Case("one", "One", measures, {"nodes": 4, "shape": "a"}, (BenchTarget("rate", 100, 200.0),), "growth", 4.0)
    curve = Curve("growth", "Growth", "nodes", "rate", "It grows. It has to.", is_log_x=True)
    found = json.dumps(Result(MICRO, facts, (case,), (curve,)).to_value()).encode()
    return {
        "bench.results:Result.from_value": Decoder((found,), lambda data: Result.from_value(from_json(data))),
        "bench.results:Result.load": of_file(folder / "result.json", found, Result.load),
    }


def read_frames(data: bytes) -> list[bytes]:
    """The frame twice on one connection: the second meets what the first left unfinished."""
    assembler = Assembler()
    return assembler.feed(data) + assembler.feed(data)


def file_decoders(folder: Path, real: Real) -> dict[str, Decoder]:
    key_file = folder / "sample.key"
    save_identity(key_file, Identity.generate("clinician"), None)
    settings = default_file().read_bytes()
    plan = json.dumps({"chain_id": "test", "hospitals": [{"name": "a", "rpc_port": 7100, "peer_port": 7101}]}).encode()
    return {
        "crypto.keyfile:load_identity": of_file(folder / "a.key", key_file.read_bytes(), lambda path: load_identity(path, None)),
        "crypto.keyfile:load_public": of_file(folder / "b.key", key_file.read_bytes(), load_public),
        "node.config:NodeConfig.load": of_file(folder / "node.toml", settings, lambda path: NodeConfig.load(path.parent, {})),
        "node.home:load_genesis": of_file(folder / "genesis.json", real.genesis.to_json().encode(), load_genesis),
        "testnet.plan:load_plan": of_file(folder / "testnet.json", plan, lambda path: load_plan(path.parent)),
    }


def of_file(path: Path, sample: bytes, load: Callable[[Path], Any]) -> Decoder:
    path.touch(mode=0o600)

    def read(data: bytes) -> Any:
        path.write_bytes(data)
        return load(path)

    return Decoder((sample,), read, None, (Malformed, Rejected), is_canonical=False)
