"""Copies and fingerprints of a replica, made from the shape of its objects.

A step needs a replica to try things on, and two replicas that can never again behave differently must be found equal. Both walk the
mutable objects of consensus generically, so a field that is added there is copied and compared without a change here. What a fingerprint
leaves out is listed, each with its reason. deepcopy is forty times slower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final

from medchain.chain.block import Proposal
from medchain.chain.certificate import Certificate
from medchain.chain.vote import PreparedProof, ViewChange, Vote
from medchain.consensus.early import EarlyMessages
from medchain.consensus.events import HeightStarted
from medchain.consensus.evidence import Reports
from medchain.consensus.messages import PrePrepare
from medchain.consensus.tally import Tally
from medchain.consensus.timers import Timer
from medchain.consensus.view_changes import ViewChanges

ROOM: Final = "medchain.consensus"
NOT_COMPARED: Final = (
    Tally,  # own votes only (what others said is forgotten after each step), which the promises hold as well
    ViewChanges,  # the same
    Timer,  # stopped after each step; whether it may run is a question to the state
    Reports,  # only keeps a second report of the same node back
    EarlyMessages,  # of a height that is not explored
    HeightStarted,  # fixed, but for records that the promises hold
)
NAMES_NOT_COMPARED: Final = (
    "monotonic_ms",  # always 0 between steps
    "wall_ms",
    "_resend_at_ms",  # what is sent again was said before
    "_resend_in_ms",
    "_resend_view",
    "_is_proposal_seen",  # a reason for the timer of view 0, which here always has one
    "_is_handed_over",
    "heard",  # the message whose block is accepted, kept for others to ask for
    "_justification",  # any q view changes that oblige to nothing are as good as any others
)


def copy_of(value: Any, done: list[tuple[Any, Any]] | None = None) -> Any:
    """Return a copy whose mutable parts are its own; frozen values, keys and sets of validators are shared.

    What two objects share (the surroundings, of replica and instance) their copies share as well: `done` lists the pairs made so far.
    """
    kind = type(value)
    known = [] if done is None else done
    if kind is dict:
        if not any(_has_parts(type(item)) for item in value.values()):
            return value.copy()
        return {key: copy_of(item, known) for key, item in value.items()}
    if kind is list:
        return [copy_of(item, known) for item in value]
    if not _is_mutable(kind):
        return value
    for original, twin in known:
        if original is value:
            return twin
    twin = object.__new__(kind)
    known.append((value, twin))
    for name in _names(value):
        item = getattr(value, name)
        setattr(twin, name, copy_of(item, known) if _has_parts(type(item)) else item)
    return twin


def fingerprint(value: Any) -> Any:
    """Return a hashable value that is equal for two replicas which will behave alike.

    Of a proof or a certificate it counts what is proven, not whose signatures do it.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is dict:
        return frozenset([(fingerprint(key), fingerprint(item)) for key, item in value.items()])
    if kind is tuple or kind is list:
        return tuple([fingerprint(item) for item in value])
    project = _PROJECTIONS.get(kind)
    if project is not None:
        return project(value)
    if _is_mutable(kind):
        return tuple([(name, fingerprint(getattr(value, name))) for name in _names(value) if name not in NAMES_NOT_COMPARED])
    return value


_ATOMS: Final = frozenset((bytes, int, bool, str, type(None)))
_PROJECTIONS: Final[dict[type, Callable[[Any], Any]]] = {
    Proposal: lambda proposal: proposal.header.digest(),
    Vote: lambda vote: (vote.kind, vote.view, vote.digest, vote.signer),
    ViewChange: lambda change: (change.view, change.prepared_view, change.digest, change.signer),
    PreparedProof: lambda proof: (proof.view, proof.digest),
    Certificate: lambda certificate: (certificate.view, certificate.digest),
    PrePrepare: lambda message: (message.view, message.digest),
    **{kind: lambda whatever: None for kind in NOT_COMPARED},
}


def part(value: Any, kind: type) -> Any:
    """Return the one attribute of an object that is of this class."""
    return next(found for found in (getattr(value, name) for name in _names(value)) if isinstance(found, kind))


_MUTABLE: dict[type, bool] = {}


def _is_mutable(kind: type) -> bool:
    """Answer whether this is a class of consensus whose objects change."""
    known = _MUTABLE.get(kind)
    if known is None:
        parameters = getattr(kind, "__dataclass_params__", None)
        is_frozen = parameters is not None and parameters.frozen
        known = _MUTABLE[kind] = kind.__module__.startswith(ROOM) and not is_frozen and not issubclass(kind, Enum)
    return known


def _has_parts(kind: type) -> bool:
    return kind is dict or kind is list or _is_mutable(kind)


def _names(value: Any) -> tuple[str, ...]:
    if hasattr(value, "__dict__"):
        return tuple(vars(value))
    return tuple(field.name for field in fields(value)) if is_dataclass(value) else ()
