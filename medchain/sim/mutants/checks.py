"""Mutants of what a node checks before it believes or does something: execution, signatures, replay, catching up, amnesia (engine)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import medchain.engine.admission
import medchain.engine.executor
from medchain.chain.block import Block
from medchain.chain.certificate import Certificate
from medchain.chain.transaction import Transaction
from medchain.chain.validators import ValidatorSet
from medchain.consensus import events
from medchain.engine.agreement import Agreement
from medchain.engine.decided import DecidedChain
from medchain.engine.executor import Executor
from medchain.engine.mempool import Mempool
from medchain.engine.recovery import AmnesiaCheck
from medchain.engine.sync import Sync
from medchain.engine.verification import Item, Verifier
from medchain.sim.faults import Action, Backup, Crash, CrashPoint, DiskFate, Plan, quiet_plan
from medchain.sim.mutants.mutant import Mutant, PlanMaker, lying

# ---- blocks -------------------------------------------------------------------------------------------------------------------


def _believe_unread(self: Agreement, block: Block) -> None:
    self._hold(block)
    self.feed(events.ProposalChecked(block.header.digest(), True))


def _prepare_unseen(self: Agreement, request: events.CheckProposal) -> None:
    _honest_check(self, request)
    self.feed(events.ProposalChecked(request.proposal.header.digest(), True))


_honest_check: Final = Agreement._check
_honest_apply: Final = Executor._apply


def _execute_late(self: Executor, height: int, time_ms: int, *others: Any) -> Any:
    return _honest_apply(self, height, time_ms + 1, *others)


def _ignore_result(self: Executor, *anything: Any) -> None:
    return None


def _find_by_id(self: Mempool, entry: tuple[bytes, bytes]) -> Transaction | None:
    held = self._entries.get(entry[0])
    return None if held is None else held.transaction


def _hold_by_id(self: Mempool, transaction: Transaction) -> bool:
    return transaction.id in self._entries


def _refuse_no_window(chain: DecidedChain, transaction: Transaction) -> None:
    return None


class _Forgetful:
    """An archive that knows no decided transaction."""

    def __init__(self, archive: Any) -> None:
        self._archive = archive

    def __getattr__(self, name: str) -> Any:
        return getattr(self._archive, name)

    def locate(self, transaction_id: bytes) -> None:
        """Know nothing."""


_honest_founding: Final = DecidedChain.__init__


def _found_forgetful(self: DecidedChain, *arguments: Any, **named: Any) -> None:
    _honest_founding(self, *arguments, **named)
    self.archive = _Forgetful(self.archive)  # type: ignore[assignment]


BLOCKS: Final = (
    Mutant(
        "voting before executing",
        "a block is prepared before it was executed (lessons.md: FISCO-BCOS #2307)",
        ((Agreement, "_judge", _believe_unread),),
        plans=lying(4, "false blocks"),
    ),
    Mutant(
        "voting before the bytes are here",
        "a block is prepared of which only the list is here",
        ((Agreement, "_check", _prepare_unseen),),
        plans=lying(4, "hidden bytes"),
    ),
    Mutant("execution beside the rule book", "blocks are executed at another time than theirs", ((Executor, "_apply", _execute_late),)),
    Mutant(
        "roots not compared",
        "a block is valid whatever roots it names (lessons.md: cosmos-sdk #10281)",
        ((Executor, "_check_result", _ignore_result),),
        plans=lying(4, "false blocks"),
    ),
    Mutant(
        "replay let through",
        "an id that was decided before may be decided again (protocol.md, W*)",
        ((DecidedChain, "__init__", _found_forgetful),),
    ),
    Mutant(
        "window let through",
        "transactions are taken whatever their valid-until height",
        (
            (medchain.engine.executor, "check_window", _refuse_no_window),
            (medchain.engine.admission, "check_window", _refuse_no_window),
        ),
    ),
    Mutant(
        "authentication not compared",
        "a body held with one authentication stands in for the same with another (lessons.md)",
        ((Mempool, "find", _find_by_id),),
        plans=lying(4, "other authentications"),
    ),
    Mutant(
        "admitted by id alone",
        "a transaction of a block is not looked at when the pool holds the same body, with whatever authentication (lessons.md)",
        ((Mempool, "holds", _hold_by_id),),
        plans=lying(4, "other authentications"),
    ),
)

# ---- what blocks carry (late commits: rotation.py) --------------------------------------------------------------------------------


def _pass_anything(*anything: Any) -> None:
    return None


CARRIED: Final = (
    Mutant(
        "evidence unchecked",
        "a block may carry evidence that nobody signed",
        ((medchain.engine.executor, "check_evidence", _pass_anything),),
        plans=lying(4, "framer"),
    ),
)

# ---- signatures and catching up -----------------------------------------------------------------------------------------------


def _believe_all(self: Verifier, items: Sequence[Item]) -> list[bool]:
    return [True] * len(items)


_honest_check_all: Final = Verifier.check_all


def _remember_message_only(self: Verifier, items: Sequence[Item]) -> list[bool]:
    """Answer from memory by (key, message), whatever the signature."""
    known = [(key, message, b"") in self._newer for key, message, _ in items]
    answers = [is_known or is_valid for is_known, is_valid in zip(known, _honest_check_all(self, items), strict=True)]
    for (key, message, _), is_valid in zip(items, answers, strict=True):
        if is_valid:
            self._newer[key, message, b""] = True
    return answers


def _remember_signature_only(self: Verifier, items: Sequence[Item]) -> list[bool]:
    """Answer from memory by (key, signature), whatever is signed."""
    known = [(key, b"", signature) in self._newer for key, _, signature in items]
    answers = [is_known or is_valid for is_known, is_valid in zip(known, _honest_check_all(self, items), strict=True)]
    for (key, _, signature), is_valid in zip(items, answers, strict=True):
        if is_valid:
            self._newer[key, b"", signature] = True
    return answers


def _ask_check_all(self: Verifier, item: Item) -> bool:
    """Answer for one item by the memory above as well, which has to see every item to be wrong about any."""
    return self.check_all((item,))[0]


def _signing_together(kind: str) -> PlanMaker:
    """Return a maker of drawn plans in which clients sign many of their transactions in batches, and every liar is of this kind."""

    def make(seed: int) -> Plan:
        return replace(lying(4, kind)(seed), batch_permille=200, batch_max=8)

    return make


def _certified_anyway(self: Executor, certificate: Certificate, validators: ValidatorSet) -> bool:
    return True


def _condemn_nobody(self: Sync, peer: bytes, reason: str) -> None:
    self._waiting.clear()


def _catching_up(seed: int) -> Plan:
    """One node is away again and again, and a liar is among those that it asks for what it missed."""
    crashes = [Crash(500 + 900 * number, (seed + 1) % 4, CrashPoint.ANYWHERE, 600) for number in range(6)]
    return quiet_plan(seed, safety_ms=6_000, liars=((seed % 4, "sync liar"),)).with_actions(*crashes)


SIGNATURES: Final = (
    Mutant("signatures unchecked", "every signature is taken for genuine", ((Verifier, "check_all", _believe_all),)),
    Mutant(
        "remembered without the signature",
        "a forged authentication rides on a remembered id (lessons.md)",
        ((Verifier, "check_all", _remember_message_only), (Verifier, "is_valid", _ask_check_all)),
        plans=lying(4, "other authentications"),
    ),
    Mutant(
        "remembered without what is signed",
        "a batch signature found valid once is believed over roots of other ids (protocol.md, batch signature)",
        ((Verifier, "check_all", _remember_signature_only), (Verifier, "is_valid", _ask_check_all)),
        plans=_signing_together("other authentications"),
    ),
    Mutant(
        "certificates unchecked",
        "a block in a range is believed with any certificate (lessons.md: FISCO-BCOS #3307)",
        ((Executor, "is_certified", _certified_anyway),),
        plans=_catching_up,
    ),
    Mutant(
        "liars in sync not left aside",
        "who sends blocks that are not certified is asked again at once",
        ((Sync, "condemn", _condemn_nobody),),
        plans=lying(4, "sync liar"),
        harmless="peers are asked in turns, so every other question reaches an honest one: slower by a question, and nothing worse",
    ),
)

# ---- amnesia ------------------------------------------------------------------------------------------------------------------


def _votes_anyway(self: AmnesiaCheck) -> bool:
    return True


def _ask_few(self: AmnesiaCheck) -> int:
    return self._chain.validators.faults_tolerated


def _observe_never(self: AmnesiaCheck, height: int) -> None:
    return None


def _one_restored(seed: int) -> Plan:
    """One node is put back to a copy some milliseconds old, without a word, while its messages are on their way."""
    actions: list[Action] = []
    for round_number in range(5):
        at_ms, node = 1_000 + 400 * round_number + 7 * seed, (seed + round_number) % 4
        actions += [Backup(at_ms - 12, node), Crash(at_ms, node, CrashPoint.BETWEEN_SENDS, 5, 1000, fate=DiskFate.RESTORED)]
    return quiet_plan(seed).with_actions(*actions)


def _two_restored(seed: int) -> Plan:
    """Two of four are put back to an old copy and marked so; who asks q others hears of its votes. More than f: no progress is owed."""
    at_ms = 1_000 + 7 * seed
    crashes = [
        Crash(at_ms, node, CrashPoint.BETWEEN_SENDS, 5, 1000, fate=DiskFate.RESTORED, is_marked_damaged=True) for node in (0, 1)
    ]
    return quiet_plan(seed).with_actions(*[Backup(at_ms - 60, node) for node in (0, 1)], *crashes)


AMNESIA: Final = (
    Mutant(
        "no amnesia check",
        "a node votes after any start without asking (protocol.md, Amnesia)",
        ((AmnesiaCheck, "may_vote", _votes_anyway),),
        plans=_one_restored,
        is_forgetting_excused=False,
    ),
    Mutant(
        "few asked after a start",
        "f + 1 with this node are asked for its past votes, not q",
        ((AmnesiaCheck, "needed", _ask_few),),
        plans=_two_restored,
        is_forgetting_excused=False,
        unpromised=frozenset({"progress"}),
    ),
    Mutant(
        "forgotten votes ignored",
        "a node that was shown votes it forgot votes on",
        ((AmnesiaCheck, "observe_until", _observe_never),),
        plans=_two_restored,
        is_forgetting_excused=False,
        unpromised=frozenset({"progress"}),
    ),
)

CHECKS: Final = (*BLOCKS, *CARRIED, *SIGNATURES, *AMNESIA)
