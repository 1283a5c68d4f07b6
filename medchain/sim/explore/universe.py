"""What can exist in an explored run: nodes, the blocks that may be proposed, and every statement that somebody may sign.

Nodes are numbered by the view they lead at the explored height, so "node 0" leads view 0. Honest statements become bits, so what was ever
said in a state is one number; a liar may say anything at any time, so its statements are no state at all. Signatures are real.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from medchain.chain.block import Header, LastCommit, Proposal, evidence_digest
from medchain.chain.domain import Domain
from medchain.chain.parameters import Parameters
from medchain.chain.transaction import transactions_root
from medchain.chain.validators import Validator, ValidatorSet
from medchain.chain.vote import COMMIT, PREPARE, PreparedProof, ViewChange, Vote
from medchain.consensus.rotation import primary
from medchain.crypto.hashing import tagged_digest
from medchain.crypto.signing import SigningKey

HEIGHT: Final = 1
NETWORK: Final = Domain(tagged_digest("medchain/genesis", b"explored"), 0)
PARENT: Final = tagged_digest("medchain/block", b"the block below")
WALL_MS: Final = 1_700_000_001_000
KIND_NAMES: Final = {PREPARE: "prepare", COMMIT: "commit"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is explored. Within these bounds everything is: any order, loss, repetition, any number of crashes, any moment for a timer."""

    views: int = 1
    """The highest view that an honest node enters."""
    nodes: int = 4
    liars: tuple[int, ...] = (0,)
    """Who lies, by the view it leads. More than f of them must break agreement."""


@dataclass(frozen=True, slots=True, order=True)
class SaidVote:
    """A prepare or commit, by the numbers of node and block."""

    node: int
    kind: int
    view: int
    block: int


@dataclass(frozen=True, slots=True, order=True)
class SaidViewChange:
    """A view change; (prepared, block) are -1 where it says that nothing was prepared."""

    node: int
    view: int
    prepared: int = -1
    block: int = -1
    has_proof: bool = True
    """Whether the proof is attached; a relay may cut it off, and a liar may have none."""


Said = SaidVote | SaidViewChange


@dataclass(frozen=True, slots=True)
class ExploredBlock:
    """A block somebody may propose afresh."""

    name: str
    view: int
    is_valid: bool
    proposal: Proposal
    digest: bytes


class Universe:
    """The nouns of one exploration, made once each."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        keys = sorted((SigningKey(bytes([7 + number]) * 32) for number in range(bounds.nodes)), key=lambda key: key.public)
        self.validators = ValidatorSet(0, tuple(Validator(key.public, bytes(32)) for key in keys))
        by_public = {key.public: key for key in keys}
        self.keys = tuple(by_public[primary(self.validators.voters, HEIGHT, view)] for view in range(bounds.nodes))
        """By node."""
        self.node_of = {key.public: node for node, key in enumerate(self.keys)}
        self.places = tuple(self.validators.keys.index(key.public) for key in self.keys)
        """The validator index of each node."""
        self.parameters = Parameters()
        self.honest = tuple(node for node in range(bounds.nodes) if node not in bounds.liars)
        self.blocks: list[ExploredBlock] = []
        self.block_of: dict[bytes, int] = {}
        has_invalid = False
        for view in range(bounds.views + 1):
            if self.leader(view) not in bounds.liars:
                self._add_block(f"A{view}", view)
                continue
            self._add_block(f"A{view}", view)
            self._add_block(f"B{view}", view)
            if not has_invalid:
                has_invalid = True
                self._add_block(f"X{view}", view, is_valid=False)
        self._bits: dict[Said, int] = {}
        self.said: list[Said] = []
        self._votes: dict[SaidVote, Vote] = {}
        self._changes: dict[SaidViewChange, ViewChange] = {}
        self._proofs: dict[tuple[int, int], PreparedProof] = {}

    # ---- nodes and blocks -------------------------------------------------------------------------------------------------------

    def leader(self, view: int) -> int:
        """Return the node that leads this view."""
        return view % self.bounds.nodes

    def is_liar(self, node: int) -> bool:
        """Answer whether this node lies."""
        return node in self.bounds.liars

    def fresh_block(self, view: int) -> int:
        """Return the block that an honest leader of `view` builds; views beyond the bound get theirs when they are asked for."""
        for number, block in enumerate(self.blocks):
            if block.view == view and block.is_valid:
                return number
        return self._add_block(f"A{view}", view)

    def _add_block(self, name: str, view: int, *, is_valid: bool = True) -> int:
        empty = LastCommit(None)
        header = Header(
            version=1,
            chain_id="explored",
            height=HEIGHT,
            view=view,
            time_ms=WALL_MS,
            parent=PARENT,
            proposer=self.keys[self.leader(view)].public,
            transactions_root=transactions_root(()),
            receipts_root=bytes(32),
            state_root=tagged_digest("medchain/state", name.encode()),
            validators_digest=self.validators.digest(),
            next_validators_digest=self.validators.digest(),
            last_commit_digest=empty.digest(),
            history_root=bytes(32),
            evidence_digest=evidence_digest(()),
        )
        self.blocks.append(ExploredBlock(name, view, is_valid, Proposal(header, (), empty), header.digest()))
        self.block_of[header.digest()] = len(self.blocks) - 1
        return len(self.blocks) - 1

    # ---- statements -------------------------------------------------------------------------------------------------------------

    def bit(self, said: Said) -> int:
        """Return the bit of an honest statement; 0 for a liar's, which is always there."""
        if self.is_liar(said.node):
            return 0
        found = self._bits.get(said)
        if found is None:
            found = self._bits[said] = 1 << len(self.said)
            self.said.append(said)
        return found

    def bit_if_said(self, said: Said) -> int | None:
        """Return the bit of a statement, None for an honest one that no run contains so far."""
        return 0 if self.is_liar(said.node) else self._bits.get(said)

    def statements(self, mask: int) -> tuple[Said, ...]:
        """Return the honest statements of a mask."""
        return tuple(said for place, said in enumerate(self.said) if mask >> place & 1)

    def name_vote(self, vote: Vote) -> SaidVote:
        """Return the statement that a vote is."""
        return SaidVote(self.node_of[vote.signer], vote.kind, vote.view, self.block_of[vote.digest])

    def name_change(self, change: ViewChange) -> SaidViewChange:
        """Return the statement that a view change is, and keep an honest one's bytes with their proof."""
        block = -1 if change.digest is None else self.block_of[change.digest]
        said = SaidViewChange(self.node_of[change.signer], change.view, -1 if change.prepared_view is None else change.prepared_view, block)
        if not self.is_liar(said.node):
            self._changes.setdefault(said, change)
        return said

    def vote(self, said: SaidVote) -> Vote:
        """Return the signed vote."""
        found = self._votes.get(said)
        if found is None:
            key, digest = self.keys[said.node], self.blocks[said.block].digest
            found = self._votes[said] = Vote.sign(NETWORK, key, said.kind, HEIGHT, said.view, digest)
        return found

    def view_change(self, said: SaidViewChange) -> ViewChange:
        """Return the signed view change, with its proof unless that was cut off."""
        found = self._changes.get(said)
        if found is None:
            whole = SaidViewChange(said.node, said.view, said.prepared, said.block)
            if said.has_proof or whole in self._changes:
                found = self._sign(whole) if said.has_proof else self._changes[whole].without_proof()
            else:
                found = self._sign(whole).without_proof()
            self._changes[said] = found
        return found

    def _sign(self, said: SaidViewChange) -> ViewChange:
        proof = None if said.prepared < 0 else self.proof(said.prepared, said.block)
        return ViewChange.sign(NETWORK, self.keys[said.node], HEIGHT, said.view, proof)

    def proof(self, view: int, block: int) -> PreparedProof:
        """Return a proof that a block was prepared; only used where a quorum's prepares exist in the run."""
        found = self._proofs.get((view, block))
        if found is None:
            signers = sorted(range(self.bounds.nodes), key=lambda node: (not self.is_liar(node), node))[: self.validators.quorum]
            rows = [(self.places[node], self.vote(SaidVote(node, PREPARE, view, block)).signature) for node in signers]
            found = PreparedProof(HEIGHT, view, self.blocks[block].digest, tuple(sorted(rows)))
            self._proofs[view, block] = found
        return found

    # ---- words ------------------------------------------------------------------------------------------------------------------

    def describe(self, said: Said) -> str:
        """Return a statement in words."""
        who = self.describe_node(said.node)
        if isinstance(said, SaidVote):
            return f"{KIND_NAMES[said.kind]}(view {said.view}, {self.blocks[said.block].name}) of {who}"
        shown = "nothing prepared" if said.prepared < 0 else f"{self.blocks[said.block].name} prepared in view {said.prepared}"
        return f"view change(view {said.view}, {shown}{'' if said.has_proof else ', no proof'}) of {who}"

    def describe_node(self, node: int) -> str:
        """Return a node's name."""
        return f"liar {node}" if self.is_liar(node) else f"node {node}"
