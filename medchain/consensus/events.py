"""Everything that goes into the replica and everything that comes out: two closed unions, nothing else crosses.

Inputs arrive with their signatures already checked by the engine (which knows the validator set). Outputs are obeyed in order, and every
`Persist` is durable before anything after it is sent.
"""

from __future__ import annotations

from dataclasses import dataclass

from medchain.chain.block import Proposal
from medchain.chain.certificate import Certificate
from medchain.chain.parameters import Parameters
from medchain.chain.validators import ValidatorSet
from medchain.chain.vote import PreparedProof, ViewChange, Vote
from medchain.consensus.messages import PrePrepare

# ---- hard state: what must never be forgotten while its height is undecided -------------------------------------------------


@dataclass(frozen=True, slots=True)
class OwnVote:
    """A prepare or commit signed here."""

    vote: Vote


@dataclass(frozen=True, slots=True)
class OwnViewChange:
    """A view change signed here; its bytes, proof included, are frozen once durable."""

    view_change: ViewChange


@dataclass(frozen=True, slots=True)
class PinnedProposal:
    """A proposal this node prepared: with all bytes of its transactions it is kept and served until the height is decided.

    The engine writes the whole block (proposal + transactions) under its digest once, and this reference.
    """

    proposal: Proposal
    view: int


@dataclass(frozen=True, slots=True)
class OwnPreparedProof:
    """The proof of the block prepared here in the highest view."""

    proof: PreparedProof


HardState = OwnVote | OwnViewChange | PinnedProposal | OwnPreparedProof

# ---- inputs -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeightStarted:
    """Agreement on `height` begins (or begins again after a restart, with the hard state found on disk)."""

    height: int
    validators: ValidatorSet
    rotation: tuple[bytes, ...]
    """Consensus keys that take turns as primary at this height, in order: a function of the state below it."""
    parameters: Parameters
    parent_time_ms: int
    parent_digest: bytes
    hard_state: tuple[HardState, ...] = ()


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time is handed in: monotonic for timers, wall for the clock bound of fresh proposals."""

    monotonic_ms: int
    wall_ms: int


@dataclass(frozen=True, slots=True)
class PrePrepareReceived:
    """From the network; sender = the prepare's signer (relays do not matter)."""

    message: PrePrepare


@dataclass(frozen=True, slots=True)
class VoteReceived:
    """A prepare or commit from the network."""

    vote: Vote


@dataclass(frozen=True, slots=True)
class ViewChangeReceived:
    """A view change from the network. Its attached proof, if any, was checked against the validator set."""

    view_change: ViewChange


@dataclass(frozen=True, slots=True)
class ProposalBuilt:
    """Answer to BuildProposal: a fresh proposal of this node for (height, view). Its execution was already done."""

    view: int
    proposal: Proposal


@dataclass(frozen=True, slots=True)
class ProposalChecked:
    """Answer to CheckProposal: the block's bytes are all here and executing it gave exactly its roots (`is_valid`), or it never can."""

    digest: bytes
    is_valid: bool


@dataclass(frozen=True, slots=True)
class BlockHeld:
    """The bytes of a block that a view change showed as prepared are here now (answer to FetchBlock, or because it was pinned)."""

    proposal: Proposal


@dataclass(frozen=True, slots=True)
class SituationChanged:
    """What the engine knows that the timer rule of view 0 needs (protocol.md, "Timers")."""

    is_work_known_to_primary: bool
    """A pool transaction executable now was offered to the primary or received from it."""
    is_work_waiting: bool
    """Some pool transaction is executable now, whoever knows it."""
    is_primary_connected: bool
    """Of the primary of the current view (always true for oneself)."""
    is_heartbeat_due: bool


@dataclass(frozen=True, slots=True)
class CertificateLearned:
    """A checked certificate of the current height, from a peer. The replica may sign its late commit, then the engine delivers."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class DecisionAdopted:
    """The block decided at this height was executed and becomes durable with this turn: the moment for a late commit, if none was signed.

    Not fed for heights that others left long ago: nobody needs to hear that this node caught up with them.
    """


@dataclass(frozen=True, slots=True)
class VotingAllowed:
    """False until the amnesia check is passed, while an observer, or after seeing a vote of its own that it never sent."""

    is_allowed: bool


Input = (
    HeightStarted
    | Ticked
    | PrePrepareReceived
    | VoteReceived
    | ViewChangeReceived
    | ProposalBuilt
    | ProposalChecked
    | BlockHeld
    | SituationChanged
    | CertificateLearned
    | DecisionAdopted
    | VotingAllowed
)

# ---- outputs ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Persist:
    """Must be durable before any later output of the same turn leaves the process."""

    record: HardState


@dataclass(frozen=True, slots=True)
class Broadcast:
    """To every validator and observer connected."""

    message: PrePrepare | Vote | ViewChange


@dataclass(frozen=True, slots=True)
class BuildProposal:
    """This node is primary of (height, view) and may propose afresh. `is_urgent`: propose at once, empty if need be (view > 0);
    otherwise the engine answers when it has transactions or a heartbeat is due, and the minimum interval has passed."""

    height: int
    view: int
    is_urgent: bool


@dataclass(frozen=True, slots=True)
class CheckProposal:
    """Get the block's missing bytes, check its fields against the chain and execute it.

    Answer ProposalChecked, or nothing while bytes are missing.
    """

    proposal: Proposal
    proposer_hint: bytes
    """Consensus key of who sent it: ask there first."""


@dataclass(frozen=True, slots=True)
class FetchBlock:
    """Get the block with this digest from whoever prepared it; answer BlockHeld."""

    height: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class HandOver:
    """The timer of view 0 ran out over transactions: give those the primary may not know to it, once each."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The block with this certificate is final. The engine applies it and starts the next height."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class EvidenceFound:
    """Two contradicting signed statements of one validator, each as codec values."""

    offender: bytes
    kind: str
    first: Vote | ViewChange
    second: Vote | ViewChange


@dataclass(frozen=True, slots=True)
class SawUnknownOwnVote:
    """Somebody shows a vote signed with this node's key that it never sent: stop voting and alarm (protocol.md, "Amnesia")."""

    vote: Vote | ViewChange


Output = (
    Persist
    | Broadcast
    | BuildProposal
    | CheckProposal
    | FetchBlock
    | HandOver
    | Decided
    | EvidenceFound
    | SawUnknownOwnVote
)
