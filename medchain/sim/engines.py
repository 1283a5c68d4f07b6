"""Building the engine that real nodes run, for a simulated process. The one file here that knows how an Engine is made."""

from __future__ import annotations

from collections.abc import Sequence

from medchain.chain.block import Block
from medchain.chain.genesis import Genesis
from medchain.chain.transaction import Transaction
from medchain.chain.vote import Vote
from medchain.engine.engine import Engine
from medchain.engine.executor import Executor
from medchain.engine.verification import Verifier
from medchain.sim.identity import SigningOrder
from medchain.sim.node import EngineBuilder, EngineLike, Start
from medchain.store.keyvalue import WriteBatch


def founding_batch(genesis: Genesis) -> WriteBatch:
    """Return what `node init` writes into an empty store."""
    return Engine.founding_batch(genesis)


def real_engines(genesis: Genesis, pool_bytes_max: int, signing: SigningOrder | None = None) -> EngineBuilder:
    """Return a builder of real engines that share one Verifier: equal signatures of a world are verified once, not once a node.

    With `signing`, those that the world's own keys make count as verified when they are made (DESIGN.md, "Speed").
    """
    verifier = Verifier(genesis.domain())
    if signing is not None:
        signing.witnesses.append(verifier.trust)

    def build(start: Start) -> EngineLike:
        return Engine(
            genesis=start.genesis,
            store=start.store,
            consensus_key=start.key,
            verifier=verifier,
            challenge=start.challenge,
            pool_bytes_max=pool_bytes_max,
            is_store_damaged=start.is_store_damaged,
        )

    return build


def build_block(
    engine: EngineLike,
    height: int,
    view: int,
    time_ms: int,
    proposer: bytes,
    transactions: Sequence[Transaction],
    late: tuple[Vote, ...] = (),
    evidence: tuple[bytes, ...] = (),
) -> Block | None:
    """Return a block of one's own choice on an engine's head, None unless `height` is the next one: what a liar can do with its node.

    It is true if the transactions, the `late` commits and the `evidence` are.

    Only between two turns, when the store holds what the last one wrote.
    """
    if not isinstance(engine, Engine) or height != engine.chain.height + 1:
        return None
    executor = Executor(engine.chain, Verifier(engine.chain.network))
    return executor.build(view, max(time_ms, engine.chain.header.time_ms + 1), proposer, transactions, late, evidence).block
