"""Member hospitals: founded by the genesis document, looked up by any of their keys. Membership votes come with a later issue.

Knows the rows of hospitals, the validator set and the parameters; knows no patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from medchain.chain.genesis import Genesis
from medchain.chain.parameters import Parameters
from medchain.chain.validators import ValidatorSet
from medchain.errors import InvariantBroken, Rejected
from medchain.ledger import rows
from medchain.ledger.execution import Execution
from medchain.ledger.rows import decode_row, encode_row
from medchain.store.overlay import StateView

VERSIONS_CACHED_MAX: Final = 16
"""Every block asks for the validators and the parameters, and they change once in months: the latest few are remembered as read."""


@dataclass(frozen=True, slots=True)
class HospitalRow:
    """What everyone must know of a member hospital; its key in the state is the organisation key."""

    name: str
    role: str
    """`validator` or `observer`."""
    consensus_key: bytes
    officer_key: bytes
    opening_suite: int
    opening_key: bytes
    """HPKE public key to which data keys for the hospital are sealed."""
    certificate: bytes
    """Self-signed TLS certificate, DER."""
    endpoints: tuple[str, ...]
    """`host:port` of its peer listener."""
    from_height: int
    """Member from this height on."""


def founding_rows(genesis: Genesis) -> dict[bytes, bytes]:
    """Return the state after the genesis document, in key order."""
    founded: dict[bytes, bytes] = {
        rows.PARAMETERS: genesis.parameters.encode(),
        rows.VALIDATORS: genesis.validators().encode(),
    }
    for hospital in genesis.hospitals:
        founded[rows.HOSPITAL + hospital.organisation_key] = encode_row(
            HospitalRow(
                name=hospital.name,
                role=hospital.role,
                consensus_key=hospital.consensus_key,
                officer_key=hospital.officer_key,
                opening_suite=hospital.opening_suite,
                opening_key=hospital.opening_key,
                certificate=hospital.certificate,
                endpoints=hospital.endpoints,
                from_height=0,
            )
        )
        for key in (hospital.organisation_key, hospital.consensus_key, hospital.officer_key):
            founded[rows.HOSPITAL_KEY + key] = hospital.organisation_key
    return dict(sorted(founded.items()))


def validators_of(view: StateView) -> ValidatorSet:
    """Return the validators in force for the next block. Raises InvariantBroken when the state has none: it was never founded."""
    return _read_validators(_founded(view, rows.VALIDATORS))


def parameters_of(view: StateView) -> Parameters:
    """Return the parameters in force for the next block. Raises InvariantBroken when the state was never founded."""
    return _read_parameters(_founded(view, rows.PARAMETERS))


@lru_cache(maxsize=VERSIONS_CACHED_MAX)
def _read_validators(stored: bytes) -> ValidatorSet:
    return ValidatorSet.decode(stored)


@lru_cache(maxsize=VERSIONS_CACHED_MAX)
def _read_parameters(stored: bytes) -> Parameters:
    return Parameters.decode(stored)


def _founded(view: StateView, key: bytes) -> bytes:
    stored = view.get(key)
    if stored is None:
        raise InvariantBroken("the state holds no network: the genesis rows are missing")
    return stored


def hospital_of(view: StateView, organisation_key: bytes) -> HospitalRow | None:
    """Return the member hospital with this organisation key, None if there is none."""
    stored = view.get(rows.HOSPITAL + organisation_key)
    return None if stored is None else decode_row(HospitalRow, stored)


def is_hospital(view: StateView, organisation_key: bytes) -> bool:
    """Answer whether this is the organisation key of a member hospital."""
    return view.get(rows.HOSPITAL + organisation_key) is not None


def organisation_of(view: StateView, key: bytes) -> bytes | None:
    """Return the organisation key of the hospital to which a consensus, officer or organisation key belongs, None if to none."""
    return view.get(rows.HOSPITAL_KEY + key)


def check_hospital(execution: Execution) -> None:
    """Raise Rejected unless the sender signs as a member hospital, with its organisation key."""
    if not is_hospital(execution.state, execution.sender):
        raise Rejected("hospital.unknown", "this has to be signed with the organisation key of a member hospital")
