"""What may be handed to a node in a state: every message that can exist by then, in the combinations that a rule may need at once.

A rule of agreement needs one thing at a time besides the node's own promises: votes of one kind, view and block, or view changes, or a
pre-prepare with all it carries, or a certificate. So these are handed over together, everything else one after the other. What a liar
signs is always there, what an honest node signs once it was said, and what is assembled from statements (pre-prepares, which are unsigned
envelopes, prepared proofs, certificates) once its parts were said: anybody may assemble them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from medchain.chain.certificate import Certificate
from medchain.chain.vote import COMMIT, PREPARE, ViewChange
from medchain.consensus.events import (
    BlockHeld,
    CertificateLearned,
    DecisionAdopted,
    Input,
    PrePrepareReceived,
    ProposalBuilt,
    Ticked,
    ViewChangeReceived,
    VoteReceived,
)
from medchain.consensus.messages import PrePrepare
from medchain.sim.explore.automaton import WORKING, Automaton, Move, Standing, height_started, instance_of, start_replica
from medchain.sim.explore.universe import HEIGHT, WALL_MS, SaidViewChange, SaidVote

LATER_MS: Final = 10_000_000
"""Longer than any view within bounds lasts."""
FAR_VIEW: Final = 1_000_000
"""A liar's huge view."""
EXPIRE: Final[Move] = ("expire",)
RESTART: Final[Move] = ("restart",)
BUILD: Final[Move] = ("build",)
ADOPT: Final[Move] = ("adopt",)


class Menu:
    """Extends the moves of standings as statements appear in the world."""

    def __init__(self, automaton: Automaton) -> None:
        self.automaton = automaton
        self.universe = automaton.universe
        self._is_acceptable: dict[Move, bool] = {}

    def extend(self, standing: Standing, said: int) -> None:
        """Try all that others may hand to this node when `said` was said by now, unless it was tried before."""
        standing.considered |= said
        if standing.problem is not None:
            return
        if standing.decided is not None:
            self._try(standing, ADOPT, (0,))
            return
        everything = standing.considered | standing.said
        for move in self._single_moves(standing):
            self._try(standing, move, (0,))
        for group in self._vote_groups(standing, everything):
            self._try_votes(standing, group)
        for move in self._certificates(everything):
            self._try(standing, move, self._masks(move[1]))
        changes = self._view_changes(standing, everything)
        for chosen in _one_each(changes, 2):
            masks = self._masks(chosen)
            self._try(standing, ("view changes", chosen), masks)
            if standing.view > 0 and len(chosen) + 1 >= self.universe.validators.quorum:
                # a timer above view 0 needs a quorum behind its view; the one of view 0 needs nobody, so there the two are two moves
                self._try(standing, ("view changes, expire", chosen), masks)
        for move, masks in self._pre_prepares(standing, everything):
            if move not in standing.tried and self._is_accepted_by_anyone(move):
                self._try(standing, move, masks)

    def _try(self, standing: Standing, move: Move, masks: tuple[int, ...]) -> bool:
        """Try a move once; return whether it changes anything (False as well when it was tried before)."""
        if move in standing.tried:
            return False
        standing.tried.add(move)
        after = self.automaton.step(standing, self.events(standing, move))
        if after is None:
            return False
        for mask in masks:
            needed = mask & ~standing.said
            if any(target == after.number and other & ~needed == 0 for other, target, _ in standing.moves):
                continue
            standing.moves = [row for row in standing.moves if not (row[1] == after.number and needed & ~row[0] == 0)]
            standing.moves.append((needed, after.number, move))
        return True

    def _masks(self, statements: tuple[SaidVote | SaidViewChange, ...]) -> tuple[int, ...]:
        """Return the least sets of honest statements, as bits, that must have been made for these to exist.

        A liar's view change with a proof exists once so many honest nodes prepared that the liars complete the quorum.
        """
        masks: tuple[int, ...] = (0,)
        for said in statements:
            if not self.universe.is_liar(said.node):
                whole = said if isinstance(said, SaidVote) or said.has_proof else _with_proof(said)
                masks = tuple(mask | self.universe.bit(whole) for mask in masks)
            elif isinstance(said, SaidViewChange) and said.prepared >= 0 and said.has_proof:
                proofs = self._prepares_for(said.prepared, said.block)
                masks = tuple(mask | proof for mask in masks for proof in proofs)
        return masks

    def _prepares_for(self, view: int, block: int) -> list[int]:
        bits = [self.universe.bit(SaidVote(node, PREPARE, view, block)) for node in self.universe.honest]
        needed = self.universe.validators.quorum - len(self.universe.bounds.liars)
        return [sum(chosen) for chosen in itertools.combinations(bits, max(0, needed))]

    # ---- moves ------------------------------------------------------------------------------------------------------------------

    def _single_moves(self, standing: Standing) -> Iterator[Move]:
        """Yield what needs nothing that others said: a timer, a crash, the answers of the own engine."""
        yield EXPIRE
        yield RESTART
        if self.universe.leader(standing.view) == standing.node:
            yield BUILD
        for number, block in enumerate(self.universe.blocks):
            if block.view < standing.view:
                yield ("held", number)

    def _topics(self) -> Iterator[tuple[int, int, int]]:
        for view in range(self.universe.bounds.views + 1):
            for number, block in enumerate(self.universe.blocks):
                if block.view <= view:
                    yield PREPARE, view, number
                    yield COMMIT, view, number

    def _vote_groups(self, standing: Standing, said: int) -> Iterator[tuple[SaidVote, ...]]:
        """Yield all votes there are of one kind, view and block by others."""
        for kind, view, block in self._topics():
            found = [SaidVote(node, kind, view, block) for node in range(self.universe.bounds.nodes) if node != standing.node]
            group = tuple(vote for vote in found if self._exists(vote, said))
            if group:
                yield group

    def _try_votes(self, standing: Standing, group: tuple[SaidVote, ...]) -> None:
        """Try the whole group; if it changes something, all smaller ones as well, the fewest votes first."""
        if ("votes", group) in standing.tried:
            return
        if not self._try(standing, ("votes", group), self._masks(group)):
            return
        for size in range(1, len(group)):
            for chosen in itertools.combinations(group, size):
                self._try(standing, ("votes", chosen), self._masks(chosen))

    def _certificates(self, said: int) -> Iterator[Move]:
        for kind, view, block in self._topics():
            if kind == COMMIT:
                votes = [SaidVote(node, COMMIT, view, block) for node in range(self.universe.bounds.nodes)]
                existing = [vote for vote in votes if self._exists(vote, said)]
                for chosen in itertools.combinations(existing, self.universe.validators.quorum):
                    yield ("certificate", chosen)

    def _view_changes(self, standing: Standing, said: int) -> dict[int, list[SaidViewChange]]:
        """Return, by node, the view changes of others that may matter in the present view or lead above it.

        What they show, and whether it is proven, is looked at by the leader of their view alone; to the others they are all alike.
        """
        found: dict[int, list[SaidViewChange]] = {}
        for node in range(self.universe.bounds.nodes):
            if node != standing.node:
                changes = (change for change in self._view_changes_of(node, said) if change.view >= max(1, standing.view))
                found[node] = [change for change in changes if self._is_plain(change) or self.universe.leader(change.view) == standing.node]
        return found

    def _is_plain(self, change: SaidViewChange) -> bool:
        """Answer whether a view change is as an honest node sends it, or a liar's that shows nothing."""
        return change.prepared < 0 if self.universe.is_liar(change.node) else change.has_proof

    def _view_changes_of(self, node: int, said: int) -> Iterator[SaidViewChange]:
        """Yield every view change that exists of a node: also without its proof, and whatever a liar makes up."""
        if not self.universe.is_liar(node):
            for change in self.universe.statements(said):
                if isinstance(change, SaidViewChange) and change.node == node:
                    yield change
                    if change.prepared >= 0:
                        yield SaidViewChange(node, change.view, change.prepared, change.block, has_proof=False)
            return
        yield SaidViewChange(node, FAR_VIEW)
        for view in range(1, self.universe.bounds.views + 1):
            yield SaidViewChange(node, view)
            for prepared in range(view):
                for number, block in enumerate(self.universe.blocks):
                    if block.view <= prepared:
                        yield SaidViewChange(node, view, prepared, number, has_proof=False)
                        if self._is_provable(prepared, number, said):
                            yield SaidViewChange(node, view, prepared, number)

    def _is_provable(self, view: int, block: int, said: int) -> bool:
        """Answer whether so many prepares exist that anybody can show the block prepared."""
        votes = (SaidVote(node, PREPARE, view, block) for node in range(self.universe.bounds.nodes))
        return sum(self._exists(vote, said) for vote in votes) >= self.universe.validators.quorum

    def _exists(self, vote: SaidVote, said: int) -> bool:
        bit = self.universe.bit_if_said(vote)
        return bit is not None and bit & ~said == 0

    def _pre_prepares(self, standing: Standing, said: int) -> Iterator[tuple[Move, tuple[int, ...]]]:
        """Yield the envelopes around the prepares of leaders: any block, any q view changes for exactly the view, or none."""
        for view in range(standing.view, self.universe.bounds.views + 1):
            leader = self.universe.leader(view)
            if leader == standing.node:
                continue
            justifications = list(self._justifications(view, said)) if view else []
            for number, block in enumerate(self.universe.blocks):
                prepare = SaidVote(leader, PREPARE, view, number)
                if block.view > view or not self._exists(prepare, said):
                    continue
                for chosen in [(), *justifications]:
                    yield ("pre-prepare", prepare, chosen), self._masks((prepare, *chosen))

    def _justifications(self, view: int, said: int) -> Iterator[tuple[SaidViewChange, ...]]:
        """Yield q view changes for exactly this view, only one of those with the highest prepared view with its proof."""
        is_liar, quorum = self.universe.is_liar, self.universe.validators.quorum
        by_node: dict[int, list[SaidViewChange]] = {}
        for node in range(self.universe.bounds.nodes):
            found = (change for change in self._view_changes_of(node, said) if change.view == view)
            by_node[node] = [change for change in found if change.has_proof or is_liar(node)]
        for chosen in _one_each(by_node, quorum, quorum):
            highest = max(change.prepared for change in chosen)
            provers = [change for change in chosen if change.prepared == highest >= 0 and change.has_proof]
            if highest < 0 or not provers:
                yield chosen
            for prover in provers:
                yield tuple(change if change == prover else _without_proof(change) for change in chosen)

    def _is_accepted_by_anyone(self, move: Move) -> bool:
        """Answer whether a node that only looks on, in the view of this pre-prepare, takes it; else it is no more than the vote inside."""
        known = self._is_acceptable.get(move)
        if known is None:
            prepare = move[1]
            onlooker = start_replica(None)
            onlooker.handle(height_started(self.universe))
            if prepare.view > 0:
                for node in range(self.universe.bounds.nodes):
                    onlooker.handle(ViewChangeReceived(self.universe.view_change(SaidViewChange(node, prepare.view))))
            for event in self._events(None, move):
                onlooker.handle(event)
            known = self._is_acceptable[move] = instance_of(onlooker).accepted is not None
        return known

    # ---- events -----------------------------------------------------------------------------------------------------------------

    def events(self, standing: Standing | None, move: Move) -> list[Input] | None:
        """Return the events that a move consists of, None for a restart."""
        return None if move == RESTART else self._events(standing, move)

    def _events(self, standing: Standing | None, move: Move) -> list[Input]:
        universe = self.universe
        match move:
            case ("expire",):
                return [WORKING, Ticked(LATER_MS, WALL_MS)]
            case ("build",):
                view = 0 if standing is None else standing.view
                return [ProposalBuilt(view, universe.blocks[universe.fresh_block(view)].proposal)]
            case ("adopt",):
                return [DecisionAdopted()]
            case ("held", number):
                return [BlockHeld(universe.blocks[number].proposal)]
            case ("votes", votes):
                return [VoteReceived(universe.vote(vote)) for vote in votes]
            case ("certificate", votes):
                rows = sorted((universe.places[vote.node], universe.vote(vote).signature) for vote in votes)
                return [CertificateLearned(Certificate(HEIGHT, votes[0].view, universe.blocks[votes[0].block].digest, tuple(rows)))]
            case ("view changes", changes):
                return [ViewChangeReceived(universe.view_change(change)) for change in changes]
            case ("view changes, expire", changes):
                return [*self._events(standing, ("view changes", changes)), *self._events(standing, EXPIRE)]
            case ("pre-prepare", prepare, changes):
                carried: list[ViewChange] = sorted((universe.view_change(change) for change in changes), key=lambda change: change.signer)
                block = universe.blocks[prepare.block].proposal
                return [PrePrepareReceived(PrePrepare(block, universe.vote(prepare), tuple(carried)))]
        raise ValueError(f"unknown move {move[0]}")


def _with_proof(change: SaidViewChange) -> SaidViewChange:
    return SaidViewChange(change.node, change.view, change.prepared, change.block)


def _without_proof(change: SaidViewChange) -> SaidViewChange:
    return change if change.prepared < 0 else SaidViewChange(change.node, change.view, change.prepared, change.block, has_proof=False)


def _one_each(changes: dict[int, list[SaidViewChange]], most: int, fewest: int = 1) -> Iterator[tuple[SaidViewChange, ...]]:
    """Yield all choices of at most one view change of each node, the smallest first."""
    for size in range(fewest, most + 1):
        for nodes in itertools.combinations(sorted(changes), size):
            yield from itertools.product(*(changes[node] for node in nodes))
