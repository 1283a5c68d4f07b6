"""Mutants of who takes turns: the order of primaries, penalties, and what blocks carry about who signed (ledger, engine)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import medchain.engine.executor
import medchain.ledger.rotation
from medchain.chain.block import LastCommit
from medchain.chain.certificate import Certificate
from medchain.chain.validators import ValidatorSet
from medchain.consensus.rotation import primary
from medchain.engine.decided import DecidedChain, Executed
from medchain.engine.verification import Verifier
from medchain.ledger.rotation import Standing
from medchain.sim.faults import Plan, quiet_plan
from medchain.sim.mutants.mutant import Mutant


def _believe_late_commits(chain: DecidedChain, verifier: Verifier, last_commit: LastCommit) -> None:
    return None


def _false_blocks(seed: int) -> Plan:
    """In a quiet network every proposal of the liar is heard in time to be judged."""
    return quiet_plan(seed, liars=((seed % 4, "false blocks"),))


def _punish_nobody(standings: tuple[Standing, ...], *anything: object) -> tuple[Standing, ...]:
    return standings


def _leave_nobody_out(standings: Sequence[Standing], validators: ValidatorSet, height: int, window_blocks: int) -> tuple[int, ...]:
    return tuple(range(len(validators)))


_honest_advance: Final = DecidedChain.advance


def _look_at_own_certificate(self: DecidedChain, executed: Executed, certificate: Certificate) -> None:
    """Leave the first primary of the height just decided out at once, if the certificate held here is of a later view."""
    lazy = primary(self.rotation, certificate.height, 0)
    _honest_advance(self, executed, certificate)
    if certificate.view > 0 and lazy != executed.block.header.proposer:
        self.rotation = tuple([key for key in self.rotation if key != lazy])


ROTATION: Final = (
    Mutant(
        "late commits unchecked",
        "a block may carry any late commits: forged, stale, or no news",
        ((medchain.engine.executor, "check_late_commits", _believe_late_commits),),
        plans=_false_blocks,
    ),
    Mutant(
        "nobody punished",
        "a primary that let its turn pass keeps it (lessons.md: a primary that signs but never proposes)",
        ((medchain.ledger.rotation, "punished", _punish_nobody),),
    ),
    Mutant(
        "nobody left out",
        "the silent and the barred take turns like all others (lessons.md: besu #6613)",
        ((medchain.ledger.rotation, "order", _leave_nobody_out),),
    ),
    Mutant(
        "own certificate looked at",
        "who leads depends on the certificate that a node happens to hold (lessons.md: late commits under no digest)",
        ((DecidedChain, "advance", _look_at_own_certificate),),
    ),
)
