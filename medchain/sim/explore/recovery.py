"""From any state the explorer found: when messages arrive and timers run fairly again, does the height end, and how soon?

The liars are silent, which is the worst they can do where every honest vote is needed. The nodes go on as they stand, with real timers in
virtual time; every TICK_MS each is told the time and everything sent is delivered to everybody at once. The wall clock stands still, since
all blocks of the universe bear one time. The state is made anew by going the
way there, because a standing stands for all that behave alike: its replica may carry view changes that this run does not contain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from medchain.chain.certificate import Certificate
from medchain.chain.vote import ViewChange
from medchain.consensus.events import (
    BlockHeld,
    Broadcast,
    BuildProposal,
    CertificateLearned,
    CheckProposal,
    Decided,
    FetchBlock,
    Input,
    Output,
    PinnedProposal,
    PrePrepareReceived,
    ProposalBuilt,
    ProposalChecked,
    SawUnknownOwnVote,
    Ticked,
    ViewChangeReceived,
    VoteReceived,
)
from medchain.consensus.messages import PrePrepare
from medchain.consensus.replica import Replica
from medchain.errors import InvariantBroken
from medchain.sim.explore.automaton import WORKING, Standing
from medchain.sim.explore.copying import copy_of
from medchain.sim.explore.menu import LATER_MS
from medchain.sim.explore.universe import WALL_MS, Universe

TICK_MS: Final = 250
START_MS: Final = 2 * LATER_MS
"""After every moment at which a move let a timer run out."""
RECOVERY_MAX_MS: Final = 60_000
"""Sixty times the first timer: an honest leader comes within f + 1 views, each a little longer than the one before."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """How a state recovered."""

    is_decided: bool
    """Whether every honest node ends the height."""
    duration_ms: int
    view: int
    """Of the certificate, or the highest view reached without one."""
    has_disagreement: bool
    """Whether two nodes decided different blocks on the way."""


class _Node:
    """One honest node on its way on."""

    def __init__(self, standing: Standing) -> None:
        self.node = standing.node
        self.replica: Replica = copy_of(standing.replica)
        self.pinned = {record.proposal.header.digest() for record in standing.records if isinstance(record, PinnedProposal)}
        self.certificate: Certificate | None = None


class Recovery:
    """The honest nodes of one state, left alone with a network that works."""

    def __init__(self, universe: Universe, standings: Sequence[Standing]) -> None:
        self._universe = universe
        self._nodes = [_Node(standing) for standing in standings]
        self._sent: deque[tuple[_Node, Any]] = deque()
        self._decided: dict[tuple[int, int], None] = {}
        for node, standing in zip(self._nodes, standings, strict=True):
            if standing.decided is not None:
                self._decided[standing.decided] = None
                node.certificate = self._certificate(standing)

    def run(self) -> Recovered:
        """Run until every node has decided, or to the bound."""
        now_ms = 0
        for node in self._nodes:
            if node.certificate is None:
                self._feed(node, Ticked(START_MS, WALL_MS))
                self._feed(node, WORKING)
                self._feed(node, self._built(node.replica.view))
        while any(node.certificate is None for node in self._nodes) and now_ms < RECOVERY_MAX_MS:
            for node in self._nodes:
                if node.certificate is None:
                    self._feed(node, Ticked(START_MS + now_ms, WALL_MS))
                else:
                    self._sent.append((node, node.certificate))
            self._deliver()
            now_ms += TICK_MS
        certificates = [node.certificate for node in self._nodes if node.certificate is not None]
        views = [certificate.view for certificate in certificates] or [node.replica.view for node in self._nodes]
        digests = dict.fromkeys(certificate.digest for certificate in certificates)
        return Recovered(len(certificates) == len(self._nodes), now_ms, max(views), len(digests) > 1)

    def _built(self, view: int) -> ProposalBuilt:
        """Return the answer to a leader that asked for a block, perhaps long ago; whoever did not ask ignores it."""
        return ProposalBuilt(view, self._universe.blocks[self._universe.fresh_block(view)].proposal)

    def _certificate(self, standing: Standing) -> Certificate:
        """Return the certificate with which a node ended the height before."""
        decided = standing.replica.decided
        if decided is None:
            raise InvariantBroken("a node that decided has no certificate")
        return decided

    def _deliver(self) -> None:
        while self._sent:
            sender, message = self._sent.popleft()
            for node in self._nodes:
                if node is not sender and node.certificate is None:
                    self._feed(node, _received(message))

    def _feed(self, node: _Node, event: Input) -> None:
        waiting = deque([event])
        while waiting and node.certificate is None:
            for output in node.replica.handle(waiting.popleft()):
                waiting.extend(self._obey(node, output))

    def _obey(self, node: _Node, output: Output) -> list[Input]:
        universe = self._universe
        match output:
            case Broadcast(message):
                self._sent.append((node, message))
            case BuildProposal(_, view, _):
                return [self._built(view)]
            case CheckProposal(proposal):
                digest = proposal.header.digest()
                node.pinned.add(digest)
                return [ProposalChecked(digest, universe.blocks[universe.block_of[digest]].is_valid)]
            case FetchBlock(_, digest):
                if any(digest in other.pinned for other in self._nodes):
                    return [BlockHeld(universe.blocks[universe.block_of[digest]].proposal)]
            case Decided(certificate):
                node.certificate = certificate
            case SawUnknownOwnVote():
                raise InvariantBroken(f"node {node.node} was shown a statement of its own that it does not know")
        return []


def _received(message: PrePrepare | ViewChange | Certificate | Any) -> Input:
    match message:
        case PrePrepare():
            return PrePrepareReceived(message)
        case ViewChange():
            return ViewChangeReceived(message)
        case Certificate():
            return CertificateLearned(message)
    return VoteReceived(message)
