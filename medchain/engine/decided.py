"""The decided chain as this node holds it: head, state, tree, history, validators; founding it, loading it, and growing it by one block.

Everything is read from and written to the turn's `Staged`, so a decision leaves in one batch (protocol.md, "Amnesia": one store). This
module executes nothing and judges no block: what it is handed is certified and executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

from medchain.chain.block import ZERO_DIGEST, Block, Header, LastCommit, evidence_digest
from medchain.chain.certificate import Certificate
from medchain.chain.genesis import Genesis
from medchain.chain.leaves import BlockLeaves
from medchain.chain.limits import PROTOCOL_VERSION
from medchain.chain.receipt import Receipt, decode_receipts, encode_receipts, receipts_root
from medchain.chain.transaction import transactions_root
from medchain.chain.validators import ValidatorSet
from medchain.errors import InvariantBroken, Malformed, Rejected, Unavailable
from medchain.ledger.apply import Applied, genesis_changes, parameters_of, rotation_of, validators_of
from medchain.store import layout
from medchain.store.archive import BlockArchive
from medchain.store.history import History, HistoryNodes, history_append_ops, load_history, verify_history
from medchain.store.keyvalue import WriteBatch, prefix_end
from medchain.store.memory import MemoryKeyValue
from medchain.store.overlay import StoredRows, StoredState
from medchain.store.staged import Staged
from medchain.store.tree import StateTree, TreeUpdate

REFUSALS: Final[dict[str, str]] = {
    "store.inconsistent": "The store contradicts itself: it has to be removed, then the node catches up from its peers.",
    "store.other-network": "The store belongs to another network than the genesis document.",
    "store.version": "The store was written by another version of the program.",
}

Kept = TypeVar("Kept")

STORE_VERSION: Final = 2
"""Counts changes of the layout and of how the state is proven; a store of another number is not opened."""
_VERSION_KEY: Final = layout.meta_key("version")
_NETWORK_KEY: Final = layout.meta_key("network")
_SET_PREFIX: Final = "set/"
RECENT_BLOCKS_MAX: Final = 8
"""Decided blocks kept in memory as they are, some ten megabytes of full ones: clients ask what became of transactions just decided, each of
them a question about the same block, and who is a block behind asks for it."""


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """Where a node stands."""

    height: int
    digest: bytes
    state_root: bytes
    time_ms: int


@dataclass(frozen=True, slots=True)
class Executed:
    """A block and what executing it on its parent's state gave."""

    block: Block
    digest: bytes
    block_bytes: bytes
    applied: Applied
    update: TreeUpdate


class DecidedChain:
    """The chain up to the decided head."""

    __slots__ = (
        "_recent", "_recent_leaves", "_recent_receipts",
        "_staged", "archive", "certificate", "digest", "genesis", "head_validators", "header", "history", "network",
        "parameters", "rotation", "rows", "state", "tree", "validators",
    )  # fmt: skip

    def __init__(self, genesis: Genesis, staged: Staged) -> None:
        """Load the chain from a founded store. Raises Rejected (`store.*`) when it is damaged or another network's."""
        self._staged = staged
        self._recent: dict[int, Block] = {}
        self._recent_receipts: dict[int, tuple[Receipt, ...]] = {}
        self._recent_leaves: dict[int, BlockLeaves] = {}
        self.genesis = genesis
        self.network = genesis.domain()
        self.archive = BlockArchive(staged)
        self.state = StoredState(staged)
        self.rows = StoredRows(staged)
        _check_origin(staged, genesis)
        try:
            self._load()
        except (Malformed, InvariantBroken, Unavailable) as error:
            raise damaged(error.message) from None

    def _load(self) -> None:
        head = self.archive.head()
        block_bytes = None if head is None else self.archive.block(head.height)
        if head is None or block_bytes is None:
            raise damaged("the newest block is missing")
        self.header = Block.decode(block_bytes).header
        self.digest = head.digest
        if self.header.digest() != head.digest or self.header.height != head.height:
            raise damaged("the newest block is not the one that was decided")
        self.certificate = self.certificate_of(head.height)
        if (self.certificate is None) != (head.height == 0):
            raise damaged("the certificate of the newest block is missing")
        self.validators = validators_of(self.state)
        self.parameters = parameters_of(self.state)
        self.rotation = rotation_of(self.state, self.header.height + 1)
        if self.validators.digest() != self.header.next_validators_digest:
            raise damaged("the validators in the state are not those of the newest block")
        head_validators = self.validator_set(self.header.validators_digest)
        if head_validators is None:
            raise damaged("the validators of the newest block are missing")
        self.head_validators = head_validators
        if self.certificate is not None:
            if self.certificate.digest != head.digest:
                raise damaged("the certificate of the newest block is another block's")
            self.certificate.check(self.network, head_validators)
        self.history = load_history(self._staged)
        self._check_history()
        items = self.state.iterate(b"")
        self.tree = StateTree.rebuild(self.genesis.parameters.state_buckets, items)
        if self.tree.root != self.header.state_root:
            raise damaged("the state is not the one that the newest block leads to")
        self.state.ask_before_reading(self.tree.lacks)

    def _check_history(self) -> None:
        """Raise unless the stored history is that of the newest header, with that header's digest at its end."""
        height, nodes = self.header.height, HistoryNodes(self._staged)
        path = nodes.prove(height, height + 1)
        is_own = self.history.count == height + 1 and nodes.root_at(height) == self.header.history_root
        if not is_own or not verify_history(self.history.root, height + 1, height, self.digest, path):
            raise damaged("the history of headers is not that of the newest block")

    @property
    def height(self) -> int:
        """Height of the newest decided block."""
        return self.header.height

    @property
    def head(self) -> HeadFacts:
        """Where this node stands."""
        return HeadFacts(self.header.height, self.digest, self.header.state_root, self.header.time_ms)

    def validator_set(self, digest: bytes) -> ValidatorSet | None:
        """Return the set with this digest if it was ever in force here."""
        stored = self._staged.get(_set_key(digest))
        if stored is None:
            return None
        validators = ValidatorSet.decode(stored)
        if validators.digest() != digest:
            raise Malformed("a validator set in the store is another than its key says")
        return validators

    def validators_at(self, height: int) -> ValidatorSet | None:
        """Return the validators of a height up to the one after the head, None when its block is not kept here."""
        if height == self.height + 1:
            return self.validators
        header = self.header_of(height)
        return None if header is None else self.validator_set(header.validators_digest)

    def header_of(self, height: int) -> Header | None:
        """Return the header of a decided block, None when it is not kept here."""
        block = self.block_of(height)
        return None if block is None else block.header

    def block_of(self, height: int) -> Block | None:
        """Return a decided block, None when it is not kept here. The last few that were decided or asked for are not read again."""
        block = self._recent.pop(height, None)
        if block is None:
            stored = self.archive.block(height)
            if stored is None:
                return None
            block = Block.decode(stored)
        _keep(self._recent, height, block)
        return block

    def receipts_of(self, height: int) -> tuple[Receipt, ...] | None:
        """Return the receipts of a decided block, None when they are not kept here; like `block_of` not read again each time."""
        receipts = self._recent_receipts.pop(height, None)
        if receipts is None:
            stored = self.archive.receipts(height)
            if stored is None:
                return None
            receipts = decode_receipts(stored)
        _keep(self._recent_receipts, height, receipts)
        return receipts

    def leaves_of(self, height: int) -> BlockLeaves | None:
        """Return what proofs about a decided block are made from, None when it is not kept here. The last few asked for are at hand.

        Raises Rejected store.inconsistent when the stored block is not the one that its header says.
        """
        leaves = self._recent_leaves.pop(height, None)
        if leaves is None:
            block_bytes, receipts_bytes = self.archive.block(height), self.archive.receipts(height)
            if block_bytes is None or receipts_bytes is None:
                return None
            try:
                leaves = BlockLeaves.of(block_bytes, receipts_bytes)
            except Malformed as error:
                raise damaged(f"block {height}: {error.message}") from None
        _keep(self._recent_leaves, height, leaves)
        return leaves

    def certificate_of(self, height: int) -> Certificate | None:
        """Return the certificate of a decided block; block 0 has none."""
        stored = self.archive.certificate(height)
        return Certificate.decode(stored) if stored else None

    def advance(self, executed: Executed, certificate: Certificate) -> None:
        """Make the executed block the head, in this turn's batch: block, certificate, receipts, state, indexes, history.

        Raises InvariantBroken when it does not follow the head.
        """
        header = executed.block.header
        if header.height != self.height + 1 or header.parent != self.digest or certificate.digest != executed.digest:
            raise InvariantBroken(f"block {header.height} does not follow block {self.height}")
        applied = executed.applied
        _stage_block(
            self._staged, self.archive, executed.block, executed.digest, executed.block_bytes, certificate.encode(), applied.receipts
        )
        self._staged.stage([(layout.STATE + key, value) for key, value in applied.changes.items()])
        self.state.adopt(applied.changes)
        self._staged.stage(history_append_ops(self.history, executed.digest))
        self.tree.adopt(executed.update)
        self._forget_hard_state(header.height)
        self.head_validators = self.validators
        if header.next_validators_digest != header.validators_digest:
            self.validators = applied.validators
            self._staged.put(_set_key(header.next_validators_digest), applied.validators.encode())
        self.parameters = parameters_of(self.state)
        self.rotation = rotation_of(self.state, header.height + 1)
        self.header, self.digest, self.certificate = header, executed.digest, certificate
        _keep(self._recent, header.height, executed.block)
        _keep(self._recent_receipts, header.height, applied.receipts)

    def _forget_hard_state(self, height: int) -> None:
        start, stop = layout.hard_state_range(self.height, height)  # not from 0: what is deleted there costs a search (archive.py)
        for key, _ in self._staged.iterate(start, stop):
            self._staged.delete(key)


def _keep(recent: dict[int, Kept], height: int, kept: Kept) -> None:
    """Remember the newest, and forget the one that nobody asked for the longest."""
    recent[height] = kept
    if len(recent) > RECENT_BLOCKS_MAX:
        del recent[next(iter(recent))]


def founding_batch(genesis: Genesis) -> WriteBatch:
    """Return what a new store begins with: block 0, the founding state, the network's name."""
    staged = Staged(MemoryKeyValue())
    stage_founding(genesis, staged)
    return staged.take_batch()


def stage_founding(genesis: Genesis, staged: Staged) -> None:
    """Write the founding content into this turn's batch."""
    block, state = founding_block(genesis)
    digest = block.header.digest()
    validators = genesis.validators()
    staged.put(_VERSION_KEY, layout.uint64(STORE_VERSION))
    staged.put(_NETWORK_KEY, genesis.digest())
    staged.put(_set_key(validators.digest()), validators.encode())
    _stage_block(staged, BlockArchive(staged), block, digest, block.encode(), b"", ())
    for key, value in state.items():
        staged.put(layout.state_key(key), value)
    staged.stage(history_append_ops(History(), digest))


def founding_block(genesis: Genesis) -> tuple[Block, dict[bytes, bytes]]:
    """Return block 0, which nobody proposes or certifies since everybody can make it, and the state it leads to."""
    state = dict(genesis_changes(genesis))
    validators_digest = genesis.validators().digest()
    last_commit = LastCommit(None)
    header = Header(
        version=PROTOCOL_VERSION,
        chain_id=genesis.chain_id,
        height=0,
        view=0,
        time_ms=genesis.time_ms,
        parent=ZERO_DIGEST,
        proposer=ZERO_DIGEST,
        transactions_root=transactions_root(()),
        receipts_root=receipts_root(()),
        state_root=StateTree.rebuild(genesis.parameters.state_buckets, state.items()).root,
        validators_digest=validators_digest,
        next_validators_digest=validators_digest,
        last_commit_digest=last_commit.digest(),
        history_root=History().root,
        evidence_digest=evidence_digest(()),
    )
    return Block(header, (), last_commit), state


def is_empty(staged: Staged) -> bool:
    """Answer whether a store holds nothing at all: never founded, or wiped."""
    return next(iter(staged.iterate(b"", prefix_end(b""))), None) is None


def damaged(what: str) -> Rejected:
    """Return the refusal to work on a store that contradicts itself."""
    return Rejected(
        "store.inconsistent",
        f"the store is damaged ({what}): move the data folder away and start with an empty one; the node then catches up from its peers "
        "and votes once they have confirmed what it signed before",
    )


def _check_origin(staged: Staged, genesis: Genesis) -> None:
    version, network = staged.get(_VERSION_KEY), staged.get(_NETWORK_KEY)
    if version is None or network is None:
        raise damaged("its description is missing")
    if version != layout.uint64(STORE_VERSION):
        raise Rejected(
            "store.version", f"the store is not of version {STORE_VERSION}: use the program that wrote it, or an empty data folder"
        )
    if network != genesis.digest():
        raise Rejected(
            "store.other-network", "the store belongs to another network: check the paths of the genesis document and the data folder"
        )


def _set_key(digest: bytes) -> bytes:
    return layout.META + _SET_PREFIX.encode() + digest


def _stage_block(
    staged: Staged,
    archive: BlockArchive,
    block: Block,
    digest: bytes,
    block_bytes: bytes,
    certificate_bytes: bytes,
    receipts: tuple[Receipt, ...],
) -> None:
    height = block.header.height
    archive.put_block(
        height, digest, block_bytes, certificate_bytes, encode_receipts(receipts), [transaction.id for transaction in block.transactions]
    )
    events = (event for receipt in receipts for event in receipt.events)
    archive.add_events(height, ((event.subjects, event.encode()) for event in events))
