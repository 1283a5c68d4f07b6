"""Executing blocks on top of the decided chain: building one's own, and judging those of others by a list of checks.

A block is executed once: what it gave is remembered under its digest until its height is decided, so that the decision only adopts it.
Each refusal has a stable code; a refused block changes nothing. Rules: protocol.md, "Nouns" (Block, Transaction) and "Agreement". The
clock bound of fresh proposals is consensus' business, and a certified block of the past has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from medchain.chain.block import Block, Evidence, Header, LastCommit, evidence_digest
from medchain.chain.certificate import Certificate
from medchain.chain.limits import PROTOCOL_VERSION
from medchain.chain.receipt import receipts_root
from medchain.chain.transaction import Transaction, transactions_root
from medchain.chain.validators import ValidatorSet
from medchain.chain.vote import Vote
from medchain.consensus.rotation import primary
from medchain.engine.admission import check_window
from medchain.engine.decided import DecidedChain, Executed
from medchain.engine.evidence import check_evidence
from medchain.engine.late import check_late_commits
from medchain.engine.verification import Verifier
from medchain.errors import Malformed, Rejected
from medchain.ledger.apply import Applied, BlockContext, Carried, apply_block, check_form, weight_of

REFUSALS: Final[dict[str, str]] = {
    "block.network": "The block is of another network or protocol version.",
    "block.parent": "The block does not stand on the newest decided one.",
    "block.time": "The block's time is not after its parent's.",
    "block.proposer": "The block's proposer is not the primary of its height and view.",
    "block.validators": "The block names other validators than those in force.",
    "block.history": "The block's history is not that of the decided chain.",
    "block.last-commit": "The block does not carry a valid certificate of its parent.",
    "block.late-commits": "The block carries a late commit that is forged, too old, no news, or out of order.",
    "block.evidence": "The block carries evidence that is false, recorded already, too old, or out of order.",
    "block.too-large": "The block has more bytes or transactions than allowed.",
    "block.too-heavy": "The block is more work than a block may hold.",
    "block.transaction": "The block holds a transaction that may not stand in it: expired, decided before, malformed or forged.",
    "block.result": "Executing the block gives other roots than it names.",
}

RESULTS_MAX: Final = 8
"""Results kept for one undecided height: one for each view that got as far; an older one is executed again if it returns."""


class Executor:
    """Builds, checks and executes blocks for the height after the head."""

    def __init__(
        self, chain: DecidedChain, verifier: Verifier, is_admitted: Callable[[Transaction], bool] = lambda transaction: False
    ) -> None:
        """`is_admitted` says which transactions admission let pass and no block has taken since: their network, signature and newness
        are known and not looked at again."""
        self._is_admitted = is_admitted
        self._chain = chain
        self._verifier = verifier
        self._results: dict[bytes, Executed] = {}
        self.executed_weight = 0
        """Work done since the start, in the units of `block_weight_max`; what was executed for nothing counts as well."""

    def result(self, digest: bytes) -> Executed | None:
        """Return what executing the block with this digest gave, if it was executed on the present head."""
        return self._results.get(digest)

    def forget(self) -> None:
        """Drop all results: the head moved."""
        self._results.clear()

    def build(
        self,
        view: int,
        time_ms: int,
        proposer: bytes,
        transactions: Sequence[Transaction],
        late: tuple[Vote, ...] = (),
        evidence: Evidence = (),
    ) -> Executed:
        """Return a fresh block of (height after the head, view) with these transactions, late commits and evidence, executed."""
        chain = self._chain
        height = chain.height + 1
        last_commit = LastCommit(chain.certificate, late)
        applied = self._apply(height, time_ms, transactions, last_commit, evidence)
        update = chain.tree.preview(applied.changes)
        header = Header(
            version=PROTOCOL_VERSION,
            chain_id=chain.genesis.chain_id,
            height=height,
            view=view,
            time_ms=time_ms,
            parent=chain.digest,
            proposer=proposer,
            transactions_root=transactions_root([transaction.entry for transaction in transactions]),
            receipts_root=receipts_root(applied.receipts),
            state_root=update.root,
            validators_digest=chain.validators.digest(),
            next_validators_digest=applied.validators.digest(),
            last_commit_digest=last_commit.digest(),
            history_root=chain.history.root,
            evidence_digest=evidence_digest(evidence),
        )
        block = Block(header, tuple(transactions), last_commit, evidence)
        return self._remember(Executed(block, header.digest(), block.encode(), applied, update))

    def execute(self, block: Block) -> Executed:
        """Return what executing a block gives, after checking all of it. Raises Rejected with a code of REFUSALS."""
        digest = block.header.digest()
        known = self._results.get(digest)
        if known is not None:
            return known
        self._check_header(block.header)
        self._check_last_commit(block)
        check_evidence(self._chain, self._verifier, block.evidence)
        block_bytes = block.encode()
        self._check_transactions(block, len(block_bytes))
        header = block.header
        applied = self._apply(header.height, header.time_ms, block.transactions, block.last_commit, block.evidence)
        update = self._chain.tree.preview(applied.changes)
        self._check_result(header, applied, update.root)
        return self._remember(Executed(block, digest, block_bytes, applied, update))

    def _apply(
        self, height: int, time_ms: int, transactions: Sequence[Transaction], last_commit: LastCommit, evidence: Evidence
    ) -> Applied:
        chain = self._chain
        carried = Carried(last_commit, evidence, chain.header.proposer)
        self.executed_weight += sum(weight_of(transaction) for transaction in transactions)
        return apply_block(chain.state, BlockContext(height, time_ms, chain.network, chain.parameters), transactions, carried)

    def _check_header(self, header: Header) -> None:
        chain = self._chain
        if header.version != PROTOCOL_VERSION or header.chain_id != chain.genesis.chain_id:
            raise Rejected("block.network", "the block is of another network or version")
        if header.height != chain.height + 1 or header.parent != chain.digest:
            raise Rejected("block.parent", f"the block does not stand on block {chain.height} of this chain")
        if header.time_ms <= chain.header.time_ms:
            raise Rejected("block.time", "the block is not later than its parent")
        if header.proposer != primary(chain.rotation, header.height, header.view):
            raise Rejected("block.proposer", "the block was not proposed by the primary of its view")
        if header.validators_digest != chain.validators.digest():
            raise Rejected("block.validators", "the block names other validators than those in force")
        if header.history_root != chain.history.root:
            raise Rejected("block.history", "the block names another history than the decided chain's")

    def _check_last_commit(self, block: Block) -> None:
        """The parent's certificate, by the parent's validators; block 1 has none, since nobody certifies block 0."""
        chain, certificate = self._chain, block.last_commit.certificate
        if certificate is None:
            if chain.height:
                raise Rejected("block.last-commit", "the block lacks the certificate of its parent")
            if block.last_commit.late:
                raise Rejected("block.late-commits", "block 1 carries late commits, but nothing was decided before it")
            return
        if (certificate.height, certificate.digest) != (chain.height, chain.digest) or chain.height == 0:
            raise Rejected("block.last-commit", "the block carries the certificate of another block than its parent")
        if not self.is_certified(certificate, chain.head_validators):
            raise Rejected("block.last-commit", "the certificate of the block's parent does not hold")
        check_late_commits(chain, self._verifier, block.last_commit)

    def is_certified(self, certificate: Certificate, validators: ValidatorSet) -> bool:
        """Answer whether a certificate holds under a validator set."""
        try:
            return all(self._verifier.check_all(certificate.verifications(self._chain.network, validators)))
        except Malformed:
            return False

    def _check_transactions(self, block: Block, block_bytes: int) -> None:
        parameters, transactions = self._chain.parameters, block.transactions
        if block_bytes > parameters.block_bytes_max or len(transactions) > parameters.block_transactions_max:
            raise Rejected("block.too-large", "the block has more bytes or transactions than allowed")
        if sum(weight_of(transaction) for transaction in transactions) > parameters.block_weight_max:
            raise Rejected("block.too-heavy", "the block is more work than allowed")
        strange = []
        for transaction in transactions:
            if not self._is_admitted(transaction):
                self._check_origin(transaction)
                strange.append(transaction.verification(self._chain.network))
            self._check_transaction(transaction)
        if not all(self._verifier.check_all(strange)):
            raise Rejected("block.transaction", "a transaction of the block has a forged signature")

    def _check_origin(self, transaction: Transaction) -> None:
        """Network and replay. A decided id is refused however old: outside the window it is expired as well (DESIGN.md)."""
        if transaction.body.chain_id != self._chain.genesis.chain_id:
            raise Rejected("block.transaction", "a transaction of the block is another network's")
        if self._chain.archive.locate(transaction.id) is not None:
            raise Rejected("block.transaction", "a transaction of the block was decided before")

    def _check_transaction(self, transaction: Transaction) -> None:
        """Window and form."""
        try:
            check_window(self._chain, transaction)
            check_form(transaction)
        except Rejected as refusal:
            raise Rejected("block.transaction", f"a transaction of the block may not stand in it ({refusal.code})") from None

    def _check_result(self, header: Header, applied: Applied, state_root: bytes) -> None:
        if header.state_root != state_root:
            raise Rejected("block.result", "executing the block gives another state")
        if header.receipts_root != receipts_root(applied.receipts):
            raise Rejected("block.result", "executing the block gives other receipts")
        if header.next_validators_digest != applied.validators.digest():
            raise Rejected("block.result", "executing the block gives other validators")

    def _remember(self, executed: Executed) -> Executed:
        self._results[executed.digest] = executed
        while len(self._results) > RESULTS_MAX:
            del self._results[next(iter(self._results))]
        return executed
