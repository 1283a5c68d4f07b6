"""Rotation: every decided block is by the primary that the blocks below it name, and what it carries about its parent is genuine.

Computed from the blocks alone and from the words of protocol.md ("Primary"), not by the rules that the nodes ran: the judge is not the code
under test. The validators are the founding ones.
"""

from __future__ import annotations

from medchain.chain.block import Block
from medchain.chain.evidence import Contradiction
from medchain.errors import Malformed
from medchain.sim.checkers.case import Case, Ending
from medchain.sim.node import Turn
from medchain.store import layout
from medchain.store.keyvalue import KeyValue, prefix_end

NAME = "rotation"


class TurnTaking:
    """Who takes turns at which height, told from what blocks carried so far."""

    def __init__(self, keys: tuple[bytes, ...], quorum: int, window_blocks: int) -> None:
        self._spare = len(keys) - quorum
        self._window_blocks = window_blocks
        self.newest = dict.fromkeys(keys, 0)
        """Newest height for which a block carried a signature by this key."""
        self._skips: dict[bytes, list[int]] = {key: [] for key in keys}
        """Heights at which this key let its turn pass."""
        self._convictions: dict[bytes, list[int]] = {key: [] for key in keys}
        """Heights of blocks with evidence against this key."""

    def turns(self, height: int) -> list[bytes]:
        """Return R(height), when the blocks up to height - 1 were told."""
        silent = sorted((newest, key) for key, newest in self.newest.items() if height - 2 - newest >= self._window_blocks)
        barred = sorted((-self._barred_until(key), key) for key in self.newest if self._barred_until(key) >= height)
        out = dict.fromkeys([key for _, key in silent] + [key for _, key in barred])
        left_out = list(out)[: self._spare]
        return [key for key in self.newest if key not in left_out]

    def primary(self, height: int, view: int) -> bytes:
        """Return the primary of (height, view)."""
        turns = self.turns(height)
        return turns[(height + view) % len(turns)]

    def _barred_until(self, key: bytes) -> int:
        skips, last = 0, 0
        ends = [height + 256 * self._window_blocks for height in self._convictions[key]]
        for height in self._skips[key]:
            forgotten = (height - last) // (64 * len(self.newest))
            skips, last = (0 if forgotten > skips else skips - forgotten) + 1, height
            ends.append(height + 1 + self._window_blocks * 2 ** min(skips - 1, 8))
        return max(ends, default=0)

    def tell(self, block: Block, parent_proposer: bytes, parent_turns: list[bytes]) -> None:
        """Take in what a block carries."""
        certificate = block.last_commit.certificate
        height = 1 if certificate is None else certificate.height + 1
        for data in block.evidence:
            self._convictions[Contradiction.decode(data).offender].append(height)
        if certificate is None:
            return
        keys = list(self.newest)
        seen = [(certificate.height, keys[index]) for index, _ in certificate.commits]
        for height, key in seen + [(vote.height, vote.signer) for vote in block.last_commit.late]:
            self.newest[key] = max(self.newest[key], height)
        passed = {parent_turns[(certificate.height + view) % len(parent_turns)] for view in range(min(certificate.view, len(parent_turns)))}
        for key in keys:
            if key in passed and key != parent_proposer:
                self._skips[key].append(certificate.height)


class Rotation:
    """Judges whole chains at the end."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._judged: set[bytes] = set()

    def on_turn(self, turn: Turn) -> None:
        """Nothing to see in a turn: a decided block is read at the end."""

    def on_end(self, ending: Ending) -> None:
        """Walk every chain that is not a part of one walked before."""
        chains = [_digests(store) for node, store in enumerate(ending.stores) if node not in self._case.liars]
        stores = [store for node, store in enumerate(ending.stores) if node not in self._case.liars]
        for place in sorted(range(len(chains)), key=lambda place: -len(chains[place])):
            if chains[place] and chains[place][-1] not in self._judged:
                self._walk(stores[place], chains[place])
                self._judged.update(chains[place])

    def _walk(self, store: KeyValue, digests: list[bytes]) -> None:
        validators, parameters = self._case.validators, self._case.genesis.parameters
        told = TurnTaking(validators.keys, validators.quorum, parameters.rotation_window(len(validators)))
        proposer, turns = b"", told.turns(0)
        for height, digest in enumerate(digests, 1):
            data = store.get(layout.body_key(digest))
            if data is None:
                return  # the judge of certificates says so
            try:
                block = Block.decode(data)
            except Malformed:
                return  # the judge of certificates says so
            due = told.turns(height)
            if block.header.proposer != due[(height + block.header.view) % len(due)]:
                self._case.find(NAME, f"block {height} of view {block.header.view} is not by the primary that the blocks below it name")
                return
            if not self._check_carried(block, digests, told):
                return
            told.tell(block, proposer, turns)
            proposer, turns = block.header.proposer, due

    def _check_carried(self, block: Block, digests: list[bytes], told: TurnTaking) -> bool:
        """Check the certificate and the late commits that a block carries; return whether they hold."""
        height, certificate, case = block.header.height, block.last_commit.certificate, self._case
        if certificate is None:
            if height > 1 or block.last_commit.late:
                case.find(NAME, f"block {height} carries no certificate of its parent, or late commits without one")
                return False
            return True
        try:
            items = certificate.verifications(case.network, case.validators)
        except Malformed as error:
            case.find(NAME, f"block {height} carries a certificate without a quorum: {error.message}")
            return False
        signed = dict(told.newest)
        for index, _ in certificate.commits:
            signed[case.validators.keys[index]] = max(signed[case.validators.keys[index]], certificate.height)
        window_blocks = case.genesis.parameters.rotation_window(len(case.validators))
        for vote in block.last_commit.late:
            is_recent = max(1, height - window_blocks) <= vote.height < height and digests[vote.height - 1] == vote.digest
            if not is_recent or vote.height <= signed.get(vote.signer, vote.height):
                case.find(NAME, f"block {height} carries a late commit that is old, of another block, or says nothing new")
                return False
            signed[vote.signer] = vote.height
            items.append(vote.verification(case.network))
        if (certificate.height, certificate.digest) != (height - 1, block.header.parent) or not case.are_valid(items):
            case.find(NAME, f"block {height} carries a certificate or a late commit that does not hold")
            return False
        return True


def _digests(store: KeyValue) -> list[bytes]:
    """Return the digests of a store's blocks from height 1 on, as far as there is no gap."""
    found: list[bytes] = []
    for key, digest in store.iterate(layout.BLOCK, prefix_end(layout.BLOCK)):
        height = int.from_bytes(key[len(layout.BLOCK) :], "big")
        if height == len(found) + 1:
            found.append(digest)
    return found
