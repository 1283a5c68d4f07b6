"""The first words of two hospitals on a fresh connection: the same network, a common version, and whose keys these are. Pure.

The dialler says hello, the listener says hello, then both sign everything said so far and both certificates with their consensus keys, the
dialler first: the listener's proof is also its welcome. So each proof covers both fresh challenges, genesis digest, recovery number,
versions and heights (protocol.md, "Gossip"), and is worth nothing on another connection. A side that says no sends a refusal with its code
first. Knows no socket; what TLS has proven comes in as the peer's certificate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from medchain import codec
from medchain.chain import domain, limits
from medchain.chain.domain import Domain
from medchain.chain.genesis import Hospital
from medchain.crypto.hashing import tagged_digest
from medchain.crypto.signing import SigningKey, is_signature_valid
from medchain.errors import InvariantBroken, Malformed, Rejected
from medchain.network.limits import HANDSHAKE_BYTES_MAX
from medchain.wire.peer import WIRE_VERSION

HANDSHAKE_VERSION: Final = 1
CHALLENGE_BYTES: Final = 32
VERSION_MAX: Final = 2**16
DIALLER: Final = "dialler"
LISTENER: Final = "listener"

REFUSALS: Final[dict[str, str]] = {
    "handshake.another-network": "the peer belongs to a network with another genesis document",
    "handshake.another-history": "the peer has applied another number of recovery documents",
    "handshake.other-version": "the two sides have no version of the peer protocol in common",
    "handshake.unknown-hospital": "the consensus key is not that of a hospital of this network",
    "handshake.wrong-key": "the consensus key belongs to another hospital than the TLS certificate",
    "handshake.own-key": "the peer uses our own consensus key",
    "handshake.stale-challenge": "the peer sent our own challenge back",
    "handshake.bad-signature": "the proof is not a signature of this handshake by the consensus key",
    "handshake.unreadable": "what was sent is no message of the handshake",
    "handshake.already-connected": "another connection of this pair is open and stays",
    "handshake.banned": "the peer broke rules and is kept away for a while",
    "handshake.stopping": "the node is about to stop",
}


@dataclass(frozen=True, slots=True)
class Hello:
    """What each side says of itself."""

    oldest_version: int
    newest_version: int
    """Versions of peer messages that it understands, both included."""
    genesis: bytes
    recovery: int
    height: int
    """Highest decided height, for people and for the choice of whom to ask; believed by nobody."""
    consensus_key: bytes
    challenge: bytes
    """32 fresh random bytes."""

    @classmethod
    def make(cls, network: Domain, key: bytes, height: int, challenge: bytes) -> Hello:
        """Return our own hello; `challenge` is 32 fresh random bytes of this connection."""
        return cls(WIRE_VERSION, WIRE_VERSION, network.genesis, network.recovery, height, key, challenge)


@dataclass(frozen=True, slots=True)
class Proof:
    """The signature by the consensus key."""

    signature: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the sender goes away: one of REFUSALS."""

    code: str


HandshakeMessage = Hello | Proof | Refusal


def encode_handshake(message: HandshakeMessage) -> bytes:
    """Return the bytes of a handshake message."""
    match message:
        case Hello():
            fields = [
                message.oldest_version, message.newest_version, message.genesis, message.recovery,
                message.height, message.consensus_key, message.challenge,
            ]  # fmt: skip
            return codec.encode([HANDSHAKE_VERSION, 1, fields])
        case Proof():
            return codec.encode([HANDSHAKE_VERSION, 2, [message.signature]])
        case Refusal():
            return codec.encode([HANDSHAKE_VERSION, 3, [message.code]])
    raise InvariantBroken(f"{type(message).__name__} is no handshake message")


def decode_handshake(data: bytes) -> HandshakeMessage:
    """Read a handshake message. Raises Malformed, or Rejected(handshake.other-version) when it is of another version of the handshake."""
    value = codec.decode(data, bytes_max=HANDSHAKE_BYTES_MAX, depth_max=3, items_max=32)
    if type(value) is not list or not value or type(value[0]) is not int:
        raise Malformed("a handshake message begins with its version")
    if value[0] != HANDSHAKE_VERSION:
        raise Rejected("handshake.other-version", f"the peer speaks version {value[0]} of the handshake: update the older of the two nodes")
    _, kind, fields = codec.as_fields(value, 3, "handshake message")
    if kind == 1 and type(kind) is int:
        return _read_hello(fields)
    if kind == 2 and type(kind) is int:
        (signature,) = codec.as_fields(fields, 1, "proof")
        return Proof(codec.as_bytes(signature, "signature", length=limits.SIGNATURE_BYTES))
    if kind == 3 and type(kind) is int:
        (code,) = codec.as_fields(fields, 1, "refusal")
        if type(code) is not str or code not in REFUSALS:
            raise Malformed("a refusal must hold one of the codes of the handshake")
        return Refusal(code)
    raise Malformed("unknown kind of handshake message")


def _read_hello(fields: Any) -> Hello:
    oldest, newest, genesis, recovery, height, key, challenge = codec.as_fields(fields, 7, "hello")
    hello = Hello(
        oldest_version=codec.as_uint(oldest, "oldest version", VERSION_MAX),
        newest_version=codec.as_uint(newest, "newest version", VERSION_MAX),
        genesis=codec.as_bytes(genesis, "genesis digest", length=limits.DIGEST_BYTES),
        recovery=codec.as_uint(recovery, "recovery number"),
        height=codec.as_uint(height, "height", limits.HEIGHT_MAX),
        consensus_key=codec.as_bytes(key, "consensus key", length=limits.KEY_BYTES),
        challenge=codec.as_bytes(challenge, "challenge", length=CHALLENGE_BYTES),
    )
    if hello.oldest_version > hello.newest_version:
        raise Malformed("the oldest version is newer than the newest")
    return hello


def check_hello(theirs: Hello, own: Hello, hospitals: Mapping[bytes, Hospital], certificate: bytes) -> int:
    """Return the version of peer messages to use. Raises Rejected with the first code of REFUSALS that applies.

    `hospitals` are the members by consensus key, `certificate` the DER bytes that the peer proved to hold in TLS.
    """
    if theirs.genesis != own.genesis:
        raise Rejected("handshake.another-network", "the peer has another genesis document: compare the genesis files of the two nodes")
    if theirs.recovery != own.recovery:
        message = f"the peer has applied {theirs.recovery} recovery documents and this node {own.recovery}: apply the missing ones"
        raise Rejected("handshake.another-history", message)
    version = min(theirs.newest_version, own.newest_version)
    if version < max(theirs.oldest_version, own.oldest_version):
        message = f"the peer speaks versions {theirs.oldest_version} to {theirs.newest_version}: update the older of the two nodes"
        raise Rejected("handshake.other-version", message)
    if theirs.consensus_key == own.consensus_key:
        raise Rejected("handshake.own-key", "the peer uses this node's own consensus key: stop one of the two, or this node dialled itself")
    hospital = hospitals.get(theirs.consensus_key)
    if hospital is None:
        raise Rejected("handshake.unknown-hospital", "the peer's consensus key is not that of a member: have it admitted by vote first")
    if hospital.certificate != certificate:
        raise Rejected(
            "handshake.wrong-key", "the peer's consensus key and TLS certificate belong to different hospitals: check its folder"
        )
    if theirs.challenge == own.challenge:
        raise Rejected("handshake.stale-challenge", "the peer sent our own challenge back instead of a fresh one")
    return version


@dataclass(frozen=True, slots=True)
class Transcript:
    """Everything both proofs cover."""

    dialler_hello: bytes
    listener_hello: bytes
    """The encoded hellos as they were sent."""
    dialler_certificate: bytes
    listener_certificate: bytes
    """DER bytes."""

    def signed_bytes(self, network: Domain, role: str) -> bytes:
        """Return what the side of this role (DIALLER or LISTENER) signs."""
        certificates = [
            tagged_digest("medchain/handshake/certificate", der) for der in (self.dialler_certificate, self.listener_certificate)
        ]
        return network.signed_bytes(domain.HANDSHAKE, codec.encode([role, self.dialler_hello, self.listener_hello, *certificates]))


def make_proof(transcript: Transcript, network: Domain, role: str, key: SigningKey) -> Proof:
    """Sign the handshake as the side of this role."""
    return Proof(key.sign(transcript.signed_bytes(network, role)))


def check_proof(proof: Proof, transcript: Transcript, network: Domain, role: str, consensus_key: bytes) -> None:
    """Raise Rejected(handshake.bad-signature) unless the side of this role holds the consensus key it named."""
    if not is_signature_valid(consensus_key, transcript.signed_bytes(network, role), proof.signature):
        raise Rejected("handshake.bad-signature", "the peer could not prove that it holds the consensus key it named")
