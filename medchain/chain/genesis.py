"""The genesis document: what a network is. Chain id, parameters and founding hospitals; its digest is in everything ever signed.

The document is JSON for people; the digest is over the canonical encoding of what it says, so its layout on disk does not matter and
nothing else in it is tolerated. The state it leads to is the ledger's business.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from medchain import codec
from medchain.chain import limits
from medchain.chain.domain import Domain
from medchain.chain.parameters import Parameters
from medchain.chain.validators import Validator, ValidatorSet
from medchain.crypto.hashing import tagged_digest
from medchain.errors import Malformed

VALIDATOR: Final = "validator"
OBSERVER: Final = "observer"
VALIDATORS_MIN: Final = 4
"""n >= 4 (protocol.md, "Numbers"): with fewer, no fault is tolerated."""
_DOCUMENT_NAMES: Final = ("medchain_genesis", "chain_id", "time_ms", "parameters", "hospitals")
_HOSPITAL_NAMES: Final = (
    "name", "role", "consensus_key", "officer_key", "organisation_key", "opening_suite", "opening_key", "certificate", "endpoints",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hospital:
    """A founding member, with everything others must know to talk to it and to check it."""

    name: str
    role: str
    """`validator` or `observer`."""
    consensus_key: bytes
    """Ed25519; signs votes and the peer handshake."""
    officer_key: bytes
    """Ed25519, kept offline; signs membership votes and recovery."""
    organisation_key: bytes
    """Ed25519; the hospital's sender key for transactions, held by its custodian."""
    opening_suite: int
    opening_key: bytes
    """HPKE public key for records and the suite it belongs to."""
    certificate: bytes
    """The whole self-signed TLS certificate, DER: the TLS context trusts exactly these."""
    endpoints: tuple[str, ...]
    """`host:port` of its peer listener."""

    def to_value(self) -> list[Any]:
        """Return the codec value."""
        return [
            self.name, self.role, self.consensus_key, self.officer_key, self.organisation_key,
            self.opening_suite, self.opening_key, self.certificate, list(self.endpoints),
        ]  # fmt: skip

    @classmethod
    def from_value(cls, value: Any) -> Hospital:
        """Read a codec value. Raises Malformed."""
        name, role, consensus, officer, organisation, suite, opening, certificate, endpoints = codec.as_fields(value, 9, "hospital")
        if type(role) is not str or role not in (VALIDATOR, OBSERVER):
            raise Malformed("a hospital is a validator or an observer")
        return cls(
            name=codec.as_text(name, "hospital name", limits.NAME_BYTES_MAX),
            role=role,
            consensus_key=codec.as_bytes(consensus, "consensus_key", length=limits.KEY_BYTES),
            officer_key=codec.as_bytes(officer, "officer_key", length=limits.KEY_BYTES),
            organisation_key=codec.as_bytes(organisation, "organisation_key", length=limits.KEY_BYTES),
            opening_suite=codec.as_uint(suite, "opening_suite", 255),
            opening_key=codec.as_bytes(opening, "opening_key", maximum=limits.OPENING_KEY_BYTES_MAX),
            certificate=codec.as_bytes(certificate, "certificate", maximum=limits.CERTIFICATE_DER_BYTES_MAX),
            endpoints=codec.as_items(
                endpoints,
                limits.ENDPOINTS_MAX,
                "endpoints",
                lambda item: codec.as_text(item, "endpoint", limits.ENDPOINT_BYTES_MAX),
            ),
        )


@dataclass(frozen=True, slots=True)
class Genesis:
    """The founding document, checked."""

    chain_id: str
    time_ms: int
    parameters: Parameters
    hospitals: tuple[Hospital, ...]
    """In ascending order of their consensus keys."""

    def __post_init__(self) -> None:
        if not codec.as_text(self.chain_id, "chain id", limits.CHAIN_ID_BYTES_MAX):
            raise Malformed("a network needs a chain id")
        codec.as_uint(self.time_ms, "time_ms", limits.TIME_MS_MAX)
        self.parameters.check()
        codec.as_list(list(self.hospitals), limits.VALIDATORS_MAX, "hospitals")
        for hospital in self.hospitals:  # what `node init` and `testnet` build must be readable once it is written
            Hospital.from_value(hospital.to_value())
        keys = [hospital.consensus_key for hospital in self.hospitals]
        if keys != sorted(keys):
            raise Malformed("hospitals must stand in ascending order of their consensus keys")
        roles = ("consensus_key", "officer_key", "organisation_key")
        everyone = [getattr(hospital, role) for hospital in self.hospitals for role in roles]
        if len(set(everyone)) != len(everyone):
            raise Malformed("every key of every hospital must be its own")
        names = [hospital.name for hospital in self.hospitals]
        if len(set(names)) != len(names) or not all(names):
            raise Malformed("every hospital needs a name of its own")
        if sum(hospital.role == VALIDATOR for hospital in self.hospitals) < VALIDATORS_MIN:
            raise Malformed("a network needs at least four validators")

    def validators(self) -> ValidatorSet:
        """Return the founding validator set."""
        members = [h for h in self.hospitals if h.role == VALIDATOR]
        return ValidatorSet(0, tuple(Validator(h.consensus_key, h.officer_key) for h in members))

    def encode(self) -> bytes:
        """Return the canonical bytes that the digest covers."""
        rows = [hospital.to_value() for hospital in self.hospitals]
        return codec.encode([limits.PROTOCOL_VERSION, self.chain_id, self.time_ms, self.parameters.encode(), rows])

    def digest(self) -> bytes:
        """Return the digest that names the network."""
        return tagged_digest("medchain/genesis", self.encode())

    def domain(self) -> Domain:
        """Return the domain of the network's first history."""
        return Domain(self.digest(), 0)

    def to_json(self) -> str:
        """Return the document for people and files."""
        rows = []
        for hospital in self.hospitals:
            values = zip(_HOSPITAL_NAMES, hospital.to_value(), strict=True)
            rows.append({name: value.hex() if isinstance(value, bytes) else value for name, value in values})
        document = {
            "medchain_genesis": limits.PROTOCOL_VERSION,
            "chain_id": self.chain_id,
            "time_ms": self.time_ms,
            "parameters": self.parameters.as_names(),
            "hospitals": rows,
        }
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Genesis:
        """Read a document, UTF-8 when given as bytes.

        Names that are unknown, missing or there twice, wrong types and damaged text raise Malformed with a sentence.
        """
        document = _read_json(text)
        if not isinstance(document, dict) or set(document) != set(_DOCUMENT_NAMES):
            raise Malformed("the genesis document must hold exactly: " + ", ".join(_DOCUMENT_NAMES))
        version = document["medchain_genesis"]
        if type(version) is not int or version != limits.PROTOCOL_VERSION:
            raise Malformed(f"the genesis document is not of version {limits.PROTOCOL_VERSION}")
        rows = codec.as_list(document["hospitals"], limits.VALIDATORS_MAX, "hospitals")
        if not isinstance(document["parameters"], dict) or len(document["parameters"]) != len(Parameters().as_names()):
            raise Malformed("the genesis document must hold every parameter")
        return cls(
            chain_id=codec.as_text(document["chain_id"], "chain id", limits.CHAIN_ID_BYTES_MAX),
            time_ms=codec.as_uint(document["time_ms"], "time_ms", limits.TIME_MS_MAX),
            parameters=Parameters.from_names(document["parameters"]),
            hospitals=tuple(Hospital.from_value(_hospital_value(row)) for row in rows),
        )


def _read_json(text: str | bytes) -> Any:
    """Read bounded JSON in which every name stands once and every number is whole.

    Readers disagree about the rest (the first or the last of two equal names, 1.0 or 1), so two members could see two networks in one file.
    """
    if len(text) > limits.GENESIS_BYTES_MAX:
        raise Malformed("the genesis document is too large")
    try:
        plain = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(plain, object_pairs_hook=_read_object, parse_float=_refuse_number, parse_constant=_refuse_number)
    except (ValueError, RecursionError):
        raise Malformed("the genesis document is not readable JSON: get a fresh copy from a member of the network") from None


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Malformed("a name stands twice in one object of the genesis document: get a fresh copy from a member of the network")
    return members


def _refuse_number(text: str) -> Any:
    raise Malformed("every number in the genesis document must be whole and written without a point or exponent")


def _hospital_value(row: Any) -> list[Any]:
    """Turn a JSON object of a hospital into the codec value."""
    if not isinstance(row, dict) or set(row) != set(_HOSPITAL_NAMES):
        raise Malformed("a hospital must hold exactly: " + ", ".join(_HOSPITAL_NAMES))
    value = []
    for name in _HOSPITAL_NAMES:
        item = row[name]
        if name.endswith("_key") or name == "certificate":
            item = _from_hex(item, name)
        value.append(item)
    return value


def _from_hex(value: Any, name: str) -> bytes:
    if not isinstance(value, str) or value != value.lower():
        raise Malformed(f"{name} must be lower-case hexadecimal text")
    try:
        data = bytes.fromhex(value)
    except ValueError:
        raise Malformed(f"{name} must be lower-case hexadecimal text") from None
    if data.hex() != value:
        raise Malformed(f"{name} must be lower-case hexadecimal text")
    return data
