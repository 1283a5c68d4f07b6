"""Admission: which transactions enter the pool. Each no has a stable code, and a refused transaction changes nothing.

In order of cost: size and network, window, duplicates, known signer, form, room, then the signature: floods are turned away cheaply.
Whether the operations succeed is found in a block, by the ledger. Rules: protocol.md, "Nouns" (Transaction) and "Lanes and work".

Unknown signers are refused here although the ledger would answer them in a receipt: a key that nobody vouched for could otherwise fill
blocks with refusals at no cost. Every sender belongs to a hospital, whose share of the pool and of blocks it uses.
"""

from __future__ import annotations

from typing import Final

from medchain.chain.parameters import Parameters
from medchain.chain.transaction import Transaction
from medchain.engine.decided import DecidedChain
from medchain.engine.mempool import Mempool, Placement
from medchain.engine.verification import Verifier
from medchain.errors import Rejected
from medchain.ledger.apply import URGENT_LANE, check_form, lane_of, weight_of
from medchain.ledger.hospitals import organisation_of
from medchain.ledger.people import clinician_of, patient_of, pseudonym_of
from medchain.store.overlay import StateView

REFUSALS: Final[dict[str, str]] = {
    "transaction.other-network": "The transaction names another network's chain id.",
    "transaction.expired": "The transaction's valid-until height has passed.",
    "transaction.too-far": "The transaction's valid-until height lies beyond the expiry window.",
    "transaction.decided": "The transaction is already in a block.",
    "transaction.sender-unknown": "No hospital vouches for the sender's key: it is no hospital's, clinician's or patient's.",
    "transaction.too-large": "The transaction does not fit into any block.",
    "transaction.too-heavy": "The transaction's operations are more work than a block may hold.",
    "transaction.signature": "The signature is not the sender's for this transaction on this network.",
}

REMEMBERED_MAX: Final = 20_000
"""Senders whose hospital is remembered: some 4 MB."""
BLOCK_OVERHEAD_BYTES: Final = 24 * 1024
"""Bytes of a block besides its transactions: header (below 600) and a certificate of 128 validators (86 signatures of 70), 42 late commits
(155 each), evidence (16 of 512)."""


def room_for_transactions(parameters: Parameters) -> int:
    """Return how many bytes of transactions a block may hold."""
    return parameters.block_bytes_max - BLOCK_OVERHEAD_BYTES


class Admission:
    """The gate in front of the pool."""

    __slots__ = ("_chain", "_groups", "_pool", "_verifier")

    def __init__(self, chain: DecidedChain, pool: Mempool, verifier: Verifier) -> None:
        self._groups: dict[bytes, bytes] = {}
        self._chain = chain
        self._pool = pool
        self._verifier = verifier

    def check(self, transaction: Transaction) -> Placement:
        """Return where the transaction belongs in the pool, which has room for it.

        Raises Rejected with a code of REFUSALS, of the pool's or of the ledger's form check.
        """
        placement = self._check_cheaply(transaction)
        if not self._verifier.is_valid(transaction.verification(self._chain.network)):
            raise Rejected(
                "transaction.signature", "the signature is not valid: sign with the sender's key and this network's genesis document"
            )
        return placement

    def is_admissible(self, transaction: Transaction) -> bool:
        """Answer whether the signature is worth checking: no, when the transaction is in the pool already or would be refused without it.

        A hint, asked for between turns: the database may be a block behind then, so nothing that is read here is remembered. Whether the
        transaction was decided is left to `check`: it takes a search in the database, and a signature met before is remembered anyway.
        """
        if transaction.id in self._pool:
            return False
        sender = transaction.body.sender
        try:
            self._check_bounds(transaction)
            self._place(transaction, self._groups.get(sender) or hospital_behind(self._chain.rows, sender))
        except Rejected:
            return False
        return True

    def _check_cheaply(self, transaction: Transaction) -> Placement:
        """Check everything but the signature, which costs more than all of it."""
        group = self._groups.get(transaction.body.sender)
        if group is None:
            group = hospital_behind(self._chain.state, transaction.body.sender)
            if group is not None:
                self._remember(transaction.body.sender, group)
        self._check_bounds(transaction)
        if self._chain.archive.locate(transaction.id) is not None:
            raise Rejected("transaction.decided", "the transaction is already in a block: ask for its receipt")
        return self._place(transaction, group)

    def _check_bounds(self, transaction: Transaction) -> None:
        """Check what needs no state: network, window, size."""
        chain, body = self._chain, transaction.body
        if body.chain_id != chain.genesis.chain_id:
            raise Rejected("transaction.other-network", "the transaction is for another network: check the address or the genesis document")
        check_window(chain, transaction)
        if len(transaction.raw) > room_for_transactions(chain.parameters):
            raise Rejected("transaction.too-large", "the transaction does not fit into a block: split it")

    def _place(self, transaction: Transaction, group: bytes | None) -> Placement:
        """Return where a transaction of a hospital's belongs, when its operations have their form and the pool has room."""
        if group is None:
            raise Rejected(
                "transaction.sender-unknown", "the sender's key is not known to the network: a hospital has to register it first"
            )
        work = check_form(transaction)
        if work.weight > self._chain.parameters.block_weight_max:
            raise Rejected("transaction.too-heavy", "the operations are more work than a block may hold: split the transaction")
        placement = Placement(group, work.lane == URGENT_LANE, work.weight)
        self._pool.check_room(transaction, placement)
        return placement

    def _remember(self, sender: bytes, group: bytes) -> None:
        """Remember the hospital behind a key that is known: a key plays one part for ever (ledger/people.py)."""
        if len(self._groups) >= REMEMBERED_MAX:
            self._groups.clear()
        self._groups[sender] = group

    def place(self, transaction: Transaction) -> Placement:
        """Return where an entry found on disk belongs; it was checked when it was accepted."""
        group = hospital_behind(self._chain.state, transaction.body.sender) or transaction.body.sender
        return Placement(group, lane_of(transaction) == URGENT_LANE, weight_of(transaction))


def check_window(chain: DecidedChain, transaction: Transaction) -> None:
    """Raise Rejected unless the transaction may stand in the next block: h <= valid-until <= h + W."""
    height = chain.height + 1
    if transaction.body.valid_until < height:
        raise Rejected("transaction.expired", "the transaction's valid-until height has passed: make and sign a new one")
    if transaction.body.valid_until > height + chain.parameters.expiry_window_blocks:
        raise Rejected("transaction.too-far", "the transaction's valid-until height is too far ahead: choose one within the expiry window")


def hospital_behind(view: StateView, sender: bytes) -> bytes | None:
    """Return the organisation key of the hospital that answers for a key: its own, its clinician's, its patient's; None if nobody."""
    organisation = organisation_of(view, sender)
    if organisation is not None:
        return organisation
    clinician = clinician_of(view, sender)
    if clinician is not None:
        return clinician.hospital
    patient = patient_of(view, pseudonym_of(sender))
    return None if patient is None else patient.hospital
