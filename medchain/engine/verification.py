"""Signature checks with a memory: what was found valid once is not computed again.

A transaction's signature is met at admission, in the proposal and perhaps while catching up; a vote is resent every second. Only positive
answers are remembered, under everything that was checked (key, message, signature), so a forged authentication never rides on a
remembered id (lessons.md). The world may call the same verifier from worker threads before an event enters the inbox (house.md); this
module knows no thread, it only never iterates over what another thread may change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from medchain.chain.domain import Domain
from medchain.chain.transaction import Transaction
from medchain.chain.validators import ValidatorSet
from medchain.chain.vote import ViewChange, Vote
from medchain.consensus.messages import PrePrepare
from medchain.crypto.signing import verify_many
from medchain.engine.ready import Event, Received, Submitted
from medchain.errors import Malformed
from medchain.wire.peer import BlockSent, EvidenceSent, PastVotesSent, PeerMessage, RangeSent, TransactionsOffered

Item = tuple[bytes, bytes, bytes]
"""(public key, message, signature)."""
_Verifications = Callable[[Domain, ValidatorSet], list[Item]]

REMEMBERED_MAX: Final = 200_000
"""About 60 MB of remembered checks: the pool and the blocks of several minutes."""


class Verifier:
    """Checks signatures, remembering the valid ones in two generations of which the older is dropped whole."""

    __slots__ = ("_generation_max", "_newer", "_older", "network")

    def __init__(self, network: Domain, remembered_max: int = REMEMBERED_MAX) -> None:
        self.network = network
        self._generation_max = max(1, remembered_max // 2)
        self._newer: dict[Item, bool] = {}
        self._older: dict[Item, bool] = {}

    def check_all(self, items: Sequence[Item]) -> list[bool]:
        """Return for each item whether libsodium accepts it; equal checks, in `items` or of the recent past, are made once."""
        unknown = {item: False for item in items if item not in self._newer and item not in self._older}
        if not unknown:
            return [True] * len(items)
        for item, is_valid in zip(unknown, verify_many(list(unknown)), strict=True):
            unknown[item] = is_valid
            if is_valid:
                self._remember(item)
        return [unknown.get(item, True) for item in items]

    def is_valid(self, item: Item) -> bool:
        """Answer for one item."""
        return item in self._newer or item in self._older or self.check_all((item,))[0]

    def trust(self, item: Item) -> None:
        """Remember a check without making it, because the caller made the signature itself with the key that it names."""
        self._remember(item)

    def _remember(self, item: Item) -> None:
        self._newer[item] = True
        if len(self._newer) > self._generation_max:
            self._older, self._newer = self._newer, {}


def verifications_of(
    event: Event,
    network: Domain,
    validators: ValidatorSet | None = None,
    is_admissible: Callable[[Transaction], bool] = lambda transaction: True,
) -> list[Item]:
    """Return the signature checks that handling `event` will need, for warming a verifier beforehand.

    Certificates and prepared proofs name their signers by index, so they are included only when `validators` (the set of the present
    height) is given. Submitted and gossiped transactions that are not `is_admissible` will be refused before their signature is looked
    at, so they are left out. What is malformed is left to the engine.
    """
    match event:
        case Submitted():
            return [event.transaction.verification(network)] if is_admissible(event.transaction) else []
        case Received(_, TransactionsOffered(transactions)):
            return _of_transactions([transaction for transaction in transactions if is_admissible(transaction)], network)
        case Received():
            return _of_message(event.message, network, validators)
        case _:
            return []


def _of_message(message: PeerMessage, network: Domain, validators: ValidatorSet | None) -> list[Item]:
    match message:
        case Vote():
            return [message.verification(network)]
        case ViewChange():
            return view_change_verifications(message, network, validators)
        case PrePrepare():
            items = [message.prepare.verification(network)]
            items += [vote.verification(network) for vote in message.proposal.last_commit.late]
            for change in message.view_changes:
                items += view_change_verifications(change, network, validators)
            return items
        case TransactionsOffered():
            return _of_transactions(message.transactions, network)
        case BlockSent():
            return _of_transactions(message.block.transactions, network)
        case RangeSent():
            items = []
            for block, certificate in message.blocks:
                items += _of_transactions(block.transactions, network)
                if validators is not None:
                    items += _quietly(certificate.verifications, network, validators)
            return items
        case PastVotesSent():
            return [vote.verification(network) for vote in message.votes] + [
                change.verification(network) for change in message.view_changes
            ]
        case EvidenceSent():
            return [item for contradiction in message.contradictions for item in contradiction.verifications(network)]
        case _:
            return []


def view_change_verifications(change: ViewChange, network: Domain, validators: ValidatorSet | None) -> list[Item]:
    """Return the checks of a view change; those of its attached proof too when the set is known and the proof has its form."""
    items = [change.verification(network)]
    if change.proof is not None and validators is not None:
        items += _quietly(change.proof.verifications, network, validators)
    return items


def _of_transactions(transactions: Sequence[Transaction], network: Domain) -> list[Item]:
    return [transaction.verification(network) for transaction in transactions]


def _quietly(verifications: _Verifications, network: Domain, validators: ValidatorSet) -> list[Item]:
    try:
        return verifications(network, validators)
    except Malformed:
        return []  # the engine meets the same error and names the peer
