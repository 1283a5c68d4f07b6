"""Late commits: commits of decided heights that no certificate holds, judged in blocks and collected for the blocks proposed here.

They show that a slow validator is alive, so that it stays in the rotation (protocol.md, "View change": slow is not dead). What is collected
is in memory only: a commit lost with this process is held by every other node that heard it, and its signer signs the next height as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from medchain.chain.block import LastCommit
from medchain.chain.vote import COMMIT, Vote
from medchain.engine.decided import DecidedChain
from medchain.engine.verification import Verifier
from medchain.errors import Rejected
from medchain.ledger.apply import signed_heights

CODE: Final = "block.late-commits"


def check_late_commits(chain: DecidedChain, verifier: Verifier, last_commit: LastCommit) -> None:
    """Raise Rejected unless each late commit of a block on the head is genuine, of the last K heights, and news.

    News: it raises its signer's newest height signed, as that stands after the certificate beside it; at most one a signer. So a commit is
    carried once, a block holds at most n - q of them, and a validator is never credited with a height below its joining.
    """
    late = last_commit.late
    if not late:
        return
    if len({vote.signer for vote in late}) != len(late) or any(_place(left) >= _place(right) for left, right in pairwise(late)):
        raise Rejected(CODE, "the late commits are not in order of height and validator, or two are by one validator")
    signed = signed_heights(chain.state, last_commit.certificate)
    for vote in late:
        if vote.kind != COMMIT or not is_recent(chain, vote.height) or vote.digest != chain.archive.digest_of(vote.height):
            raise Rejected(CODE, "a late commit is not for a block decided in the last K heights")
        if vote.height <= signed.get(vote.signer, vote.height) or not chain.validators.is_voter(vote.signer):
            raise Rejected(CODE, "a late commit says nothing new of a validator that may vote")
    if not all(verifier.check_all([vote.verification(chain.network) for vote in late])):
        raise Rejected(CODE, "a late commit has a forged signature")


def is_recent(chain: DecidedChain, height: int) -> bool:
    """Answer whether a late commit of this decided height may stand in the block after the head: heights [h - K, h - 1] of block h."""
    window_blocks = chain.parameters.rotation_window(len(chain.validators))
    return max(1, chain.height + 1 - window_blocks) <= height <= chain.height


def _place(vote: Vote) -> tuple[int, bytes]:
    return vote.height, vote.signer


class LateCommits:
    """The newest commit of each validator that seems slow: one vote a validator, so memory is bounded by their number."""

    def __init__(self, chain: DecidedChain, verifier: Verifier) -> None:
        self._chain = chain
        self._verifier = verifier
        self._newest: dict[bytes, Vote] = {}

    def take(self, vote: Vote) -> bool:
        """Take a vote of a decided height from a peer; return False when it is forged.

        It is verified only if it would be carried: a commit of a recent block by a validator that was long silent.
        """
        held = self._newest.get(vote.signer)
        if vote.kind != COMMIT or not is_recent(self._chain, vote.height) or (held is not None and held.height >= vote.height):
            return True
        if vote.signer not in self._silent(vote.height) or vote.digest != self._chain.archive.digest_of(vote.height):
            return True
        if not self._verifier.is_valid(vote.verification(self._chain.network)):
            return False
        self._newest[vote.signer] = vote
        return True

    def keep(self, votes: Sequence[Vote]) -> None:
        """Take verified commits of the block decided just now: all that were counted here, whether the certificate holds them or not."""
        for vote in votes:
            held = self._newest.get(vote.signer)
            if held is None or held.height < vote.height:
                self._newest[vote.signer] = vote

    def select(self) -> tuple[Vote, ...]:
        """Return what a block proposed on the head carries, in order; forgets what is too old to be carried ever again."""
        self._newest = {signer: vote for signer, vote in self._newest.items() if is_recent(self._chain, vote.height)}
        silent = self._silent(self._chain.height)
        return tuple(sorted((vote for vote in self._newest.values() if vote.height > silent.get(vote.signer, vote.height)), key=_place))

    def _silent(self, height: int) -> dict[bytes, int]:
        """Return voter → newest height signed, for those the chain has not seen sign in half a window before `height`.

        Half a window is a policy of the proposer, not a rule: a validator that every second certificate holds needs no late commits, and in
        the n heights left (K = 2n) every primary has its turn to carry one, an honest one too (DESIGN.md).
        """
        chain = self._chain
        half_window = chain.parameters.rotation_window(len(chain.validators)) // 2
        signed = signed_heights(chain.state, chain.certificate)
        return {key: newest for key, newest in signed.items() if newest + half_window <= height and chain.validators.is_voter(key)}
