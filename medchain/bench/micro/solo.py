"""A whole network's chain in one process: all hospitals' keys at hand, a real store, the engine's own executor; no peers and no votes.

What it decides is decided as in a node: executed, certified by a quorum, adopted, written in one batch. Knows no operation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from medchain.chain.block import LastCommit
from medchain.chain.certificate import Certificate
from medchain.chain.genesis import Genesis
from medchain.chain.parameters import Parameters
from medchain.chain.transaction import Transaction, TransactionBody
from medchain.chain.vote import COMMIT, Vote
from medchain.consensus.rotation import primary
from medchain.crypto.signing import SigningKey
from medchain.engine.decided import DecidedChain, Executed, founding_batch
from medchain.engine.executor import Executor
from medchain.engine.verification import Verifier
from medchain.ledger.execution import BlockContext, Carried, Handler
from medchain.sim.identity import SigningOrder, make_identities
from medchain.store.keyvalue import KeyValue, WriteBatch
from medchain.store.layout import state_key
from medchain.store.staged import Staged

SEED: Final = 4
"""Of every key: figures must not depend on which keys were drawn."""
BLOCK_MS: Final = 50
VALID_FOR_BLOCKS: Final = 5_000
CERTIFICATE_BYTES: Final = 500
"""Of a hospital's TLS certificate, as in a real genesis document."""


class LoneChain:
    """A chain that is decided by one who holds the consensus keys of all its validators."""

    def __init__(self, store: KeyValue, genesis: Genesis, consensus: Sequence[SigningKey]) -> None:
        """`store`: founded already; `consensus`: keys in the order of the genesis document."""
        self.genesis = genesis
        self.network = genesis.domain()
        self.consensus = consensus
        self.store = store
        self.staged = Staged(store)
        self.chain = DecidedChain(self.genesis, self.staged)
        self.verifier = Verifier(self.network)
        self.executor = Executor(self.chain, self.verifier)
        self._nonce = 0

    def context(self) -> BlockContext:
        """Return what the rules of the next block know."""
        chain = self.chain
        return BlockContext(chain.height + 1, chain.header.time_ms + BLOCK_MS, chain.network, chain.parameters)

    def carried(self) -> Carried:
        """Return what the next block carries besides its transactions."""
        return Carried(LastCommit(self.chain.certificate), (), self.chain.header.proposer)

    def body(self, sender: SigningKey, *handlers: Handler) -> TransactionBody:
        """Return what `sender` signs to do all these operations; no two bodies are the same."""
        self._nonce += 1
        return TransactionBody(
            chain_id=self.genesis.chain_id,
            sender=sender.public,
            valid_until=self.chain.height + VALID_FOR_BLOCKS,
            operations=tuple([handler.operation() for handler in handlers]),
            nonce=self._nonce.to_bytes(8, "big"),
        )

    def transaction(self, sender: SigningKey, *handlers: Handler) -> Transaction:
        """Return the signed transaction of these operations."""
        return Transaction.sign(self.body(sender, *handlers), sender, self.network)

    def build(self, transactions: Sequence[Transaction], milliseconds: int = BLOCK_MS) -> Executed:
        """Return the next block, so long after the one before, executed as its primary does it."""
        chain = self.chain
        height = chain.height + 1
        return self.executor.build(0, chain.header.time_ms + milliseconds, primary(chain.rotation, height, 0), transactions)

    def remember(self, transactions: Sequence[Transaction]) -> None:
        """Let the verifier know the signatures of transactions, as admission did."""
        for transaction in transactions:
            self.verifier.trust(transaction.verification(self.network))

    def certificate_of(self, executed: Executed) -> Certificate:
        """Return the certificate of a block by a quorum; each height another one, so that nobody drops out of the rotation."""
        height, digest = executed.block.header.height, executed.digest
        chosen = sorted((height + place) % len(self.consensus) for place in range(self.chain.validators.quorum))
        votes = [Vote.sign(self.network, self.consensus[index], COMMIT, height, 0, digest) for index in chosen]
        return Certificate(height, 0, digest, tuple([(index, vote.signature) for index, vote in zip(chosen, votes, strict=True)]))

    def adopt(self, executed: Executed, certificate: Certificate) -> WriteBatch:
        """Make a block the head and return the batch that makes it durable, which the caller writes before anything else."""
        self.chain.advance(executed, certificate)
        self.executor.forget()
        return self.staged.take_batch()

    def settle(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Write what a block changes in the state, and nothing of the block: the next one executes after it at the same height."""
        self.staged.stage((state_key(key), value) for key, value in changes.items())
        self.chain.state.adopt(changes)
        self.store.write(self.staged.take_batch())

    def decide(self, transactions: Sequence[Transaction], milliseconds: int = BLOCK_MS) -> Executed:
        """Decide a block of these transactions."""
        executed = self.build(transactions, milliseconds)
        self.store.write(self.adopt(executed, self.certificate_of(executed)))
        return executed


class Solo(LoneChain):
    """The chain of a network that is alone in the world, with keys of its own making."""

    def __init__(self, store: KeyValue, hospitals: int = 4, parameters: Parameters | None = None) -> None:
        """Found the network in an empty store."""
        identities = make_identities(SEED, hospitals, parameters or Parameters(), SigningOrder())
        members = [replace(member, certificate=bytes(CERTIFICATE_BYTES)) for member in identities.genesis.hospitals]
        genesis = replace(identities.genesis, hospitals=tuple(members))
        self.organisations = [SigningKey(key.seed_bytes()) for key in identities.organisations]
        store.write(founding_batch(genesis))
        super().__init__(store, genesis, [SigningKey(key.seed_bytes()) for key in identities.consensus])
