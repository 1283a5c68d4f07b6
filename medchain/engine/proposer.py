"""Proposing: when this node is primary and has been asked for a block, when to answer and with what.

In view 0 a block is built when there is work or a heartbeat is due, no sooner than the minimum interval after the last proposal; in later
views at once, empty if need be (protocol.md, "Numbers" and "View change"). This module knows no votes.
"""

from __future__ import annotations

from typing import Final

from medchain.consensus.events import BuildProposal
from medchain.engine.admission import room_for_transactions
from medchain.engine.decided import DecidedChain, Executed
from medchain.engine.evidence import EvidencePool
from medchain.engine.executor import Executor
from medchain.engine.late import LateCommits
from medchain.engine.mempool import BlockRoom, Mempool
from medchain.engine.restraint import Restraint
from medchain.engine.turn import Turn

BUILDING_MS_MAX: Final = 20
"""How old a proposal is taken to be at most when it arrives: it was executed before it was sent. With the interval counted from its
arrival, blocks of different primaries were 14 ms further apart than the interval says."""


class Proposer:
    """Holds the open request for a block and the times that decide when it is met."""

    def __init__(
        self,
        chain: DecidedChain,
        pool: Mempool,
        late: LateCommits,
        evidence: EvidencePool,
        executor: Executor,
        turn: Turn,
        own: bytes,
    ) -> None:
        self._chain = chain
        self._pool = pool
        self._late = late
        self._evidence = evidence
        self._executor = executor
        self._turn = turn
        self._own = own
        self._asked: BuildProposal | None = None
        self._last_proposal_ms: int | None = None
        self._last_decision_ms: int | None = None
        self._restraint = Restraint()

    def ask(self, request: BuildProposal) -> None:
        """Take over a request; a newer one replaces it."""
        self._asked = request

    def saw_proposal(self, made_ms: int | None = None) -> None:
        """Note that a proposal appeared: the interval runs from when it was made.

        `made_ms` is the time in another's proposal. It is believed as far as executing and sending usually take, so that a wrong clock
        changes the interval by no more than that.
        """
        age_ms = 0 if made_ms is None else min(max(0, self._turn.wall_ms - made_ms), BUILDING_MS_MAX)
        self._last_proposal_ms = self._turn.monotonic_ms - age_ms if self._turn.is_timed else None

    def saw_turn(self, length_ms: int) -> None:
        """Note how long it took from one tick to the next."""
        self._restraint.saw_turn(length_ms)

    def saw_decision(self, view: int) -> None:
        """Note that a block was decided in `view`: the heartbeat runs from here, and a request for the old height is void."""
        self._restraint.saw_decision(view, self._chain.parameters)
        self._last_decision_ms = self._turn.monotonic_ms if self._turn.is_timed else None
        self._asked = None

    def is_heartbeat_due(self) -> bool:
        """Answer whether nothing was decided for a heartbeat's time, counted from the first tick after a start.

        By the monotonic clock: a wall clock that is wrong on one node must not make it propose or wait for blocks all the time.
        """
        if not self._turn.is_timed:
            return False
        if self._last_decision_ms is None:
            self._last_decision_ms = self._turn.monotonic_ms
        return self._turn.monotonic_ms - self._last_decision_ms >= self._chain.parameters.heartbeat_ms

    @property
    def is_asked(self) -> bool:
        """Whether a block is asked for and not built yet: without that, the end of most turns need not look further."""
        return self._asked is not None

    def due_in_ms(self) -> int | None:
        """Return how long after this turn's tick the interval lets the block be built that is asked for; None when that is not what it
        waits for."""
        last = self._last_proposal_ms
        if self._asked is None or self._asked.is_urgent or last is None or not (len(self._pool) or len(self._evidence)):
            return None
        left_ms = last + self._chain.parameters.block_interval_min_ms - self._turn.monotonic_ms
        return left_ms if left_ms > 0 else None

    def build(self, height: int, view: int, *, is_pressed: bool = False) -> Executed | None:
        """Return the block asked for if its moment has come; (height, view) is where agreement stands now.

        `is_pressed`: the timer of the view is about to run out (over a view change, when nothing waits): then an empty block is due.
        """
        request = self._asked
        if request is None or not self._turn.is_timed:
            return None
        if (request.height, request.view) != (height, view):
            self._asked = None
            return None
        if not request.is_urgent and not self._is_time(is_pressed):
            return None
        self._asked = None
        self.saw_proposal()
        time_ms = max(self._chain.header.time_ms + 1, self._turn.wall_ms)
        transactions = self._pool.select(self._room(view))
        return self._executor.build(view, time_ms, self._own, transactions, self._late.select(), self._evidence.select())

    def _is_time(self, is_pressed: bool) -> bool:
        if not len(self._pool) and not len(self._evidence) and not self.is_heartbeat_due() and not is_pressed:
            return False
        last = self._last_proposal_ms
        return last is None or self._turn.monotonic_ms - last >= self._chain.parameters.block_interval_min_ms

    def _room(self, view: int) -> BlockRoom:
        parameters = self._chain.parameters
        return BlockRoom(
            room_for_transactions(parameters),
            parameters.block_transactions_max,
            parameters.block_weight_max,
            self._restraint.weight(view, parameters),
        )
