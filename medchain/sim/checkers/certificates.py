"""Certificates: every decided block has one that is valid under the genesis set, its senders signed it, and the blocks form one chain."""

from __future__ import annotations

from medchain.chain.certificate import Certificate
from medchain.errors import Malformed
from medchain.sim.checkers.case import Case, Ending
from medchain.sim.node import Turn
from medchain.store import layout
from medchain.store.keyvalue import KeyValue, prefix_end

NAME = "certificates"


class Certificates:
    """Reads each certificate when it becomes durable, and each chain at the end."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._sound_blocks: set[bytes] = set()
        self._sound_certificates: set[tuple[int, bytes, bytes]] = set()

    def on_turn(self, turn: Turn) -> None:
        """Check the certificates of a batch against the digests of the same batch."""
        if turn.node in self._case.liars:
            return
        digests = {key[len(layout.BLOCK) :]: value for key, value in turn.puts(layout.BLOCK)}
        for key, value in turn.puts(layout.CERTIFICATE):
            place = key[len(layout.CERTIFICATE) :]
            height = int.from_bytes(place, "big")
            if height:  # genesis, written by a node that founds a wiped store, has none
                self._check(turn.node, height, digests.get(place), value)

    def on_end(self, ending: Ending) -> None:
        """Walk every chain: certificate, bytes, parent."""
        for node, store in enumerate(ending.stores):
            if node not in self._case.liars:
                self._walk(node, store)

    def _walk(self, node: int, store: KeyValue) -> None:
        parent: bytes | None = None
        expected = 1
        for key, digest in store.iterate(layout.BLOCK, prefix_end(layout.BLOCK)):
            height = int.from_bytes(key[len(layout.BLOCK) :], "big")
            if height == 0:
                continue
            if height != expected:
                self._case.find(NAME, f"node {node} has no block {expected} but has {height}")
                return
            expected += 1
            self._check(node, height, digest, store.get(layout.certificate_key(height)))
            parent = self._check_block(node, height, digest, parent, store.get(layout.body_key(digest)))

    def _check(self, node: int, height: int, digest: bytes | None, data: bytes | None) -> None:
        if data is None or digest is None:
            self._case.find(NAME, f"node {node} decided height {height} without " + ("a certificate" if data is None else "a block"))
            return
        if (height, digest, data) in self._sound_certificates:
            return
        try:
            certificate = Certificate.decode(data)
            items = certificate.verifications(self._case.network, self._case.validators)
        except Malformed as error:
            self._case.find(NAME, f"node {node}'s certificate of height {height}: {error.message}")
            return
        if (certificate.height, certificate.digest) != (height, digest):
            self._case.find(NAME, f"node {node}'s certificate of height {height} is of another block")
        elif not self._case.are_valid(items):
            self._case.find(NAME, f"node {node}'s certificate of height {height} holds a forged signature")
        else:
            self._sound_certificates.add((height, digest, data))

    def _check_block(self, node: int, height: int, digest: bytes, parent: bytes | None, data: bytes | None) -> bytes:
        """Check a block's bytes once for all nodes; return its digest, the next block's parent."""
        if data is None:
            self._case.find(NAME, f"node {node} decided height {height} and does not hold its bytes")
            return digest
        identity = digest + data
        if identity in self._sound_blocks:
            return digest
        try:
            block = self._case.block(data)
        except Malformed as error:
            self._case.find(NAME, f"node {node}'s block {height}: {error.message}")
            return digest
        header = block.header
        if header.digest() != digest or header.height != height:
            self._case.find(NAME, f"node {node}'s block {height} is not the one its digest names")
        elif parent is not None and header.parent != parent:
            self._case.find(NAME, f"node {node}'s block {height} does not follow its block {height - 1}")
        elif not self._case.are_valid([transaction.verification(self._case.network) for transaction in block.transactions]):
            self._case.find(NAME, f"node {node}'s block {height} holds a transaction that its sender did not sign")
        elif not self._case.are_valid([vote.verification(self._case.network) for vote in block.last_commit.late]):
            self._case.find(NAME, f"node {node}'s block {height} holds a late commit that its signer did not sign")
        else:
            self._sound_blocks.add(identity)
        return digest
