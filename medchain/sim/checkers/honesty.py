"""Honesty: no honest node is accused by another one or by itself, and no bad transaction is accepted.

An engine that accuses honest peers under loss and reordering would ban its own network (lessons.md: out of consensus for hours).
"""

from __future__ import annotations

import re

from medchain.engine.ready import Alarm, PeerAccused
from medchain.sim.checkers.case import Case, Ending
from medchain.sim.node import Turn
from medchain.sim.workload import Book

NAME = "honesty"


class Honesty:
    """Watches replies."""

    def __init__(self, case: Case, book: Book) -> None:
        self._case = case
        self._book = book
        self.alarms: dict[str, int] = {}
        self.accusations: dict[str, int] = {}
        """Of liars, by reason; numbers in a reason stand as #."""

    def on_turn(self, turn: Turn) -> None:
        """An accusation of an honest peer is our bug, and so is an alarm about forgotten votes where nothing was forgotten."""
        if turn.node in self._case.liars:
            return
        for reply in turn.replies:
            if isinstance(reply, PeerAccused):
                reason = re.sub("[0-9]+", "#", reply.reason)
                self.accusations[reason] = self.accusations.get(reason, 0) + 1
                if self._case.is_honest(reply.peer):
                    self._case.find(NAME, f"node {turn.node} accused {self._case.name(reply.peer)}: {reply.reason}")
            elif isinstance(reply, Alarm):
                self.alarms[reply.code] = self.alarms.get(reply.code, 0) + 1
                if reply.code.startswith("amnesia.") and turn.node not in self._case.forgetful:
                    self._case.find(NAME, f"node {turn.node}, whose disk forgot nothing, had said what it did not keep ({reply.code})")

    def on_end(self, ending: Ending) -> None:
        """Bad transactions must have been refused."""
        for identity in self._book.wrongly_accepted:
            self._case.find(NAME, f"the bad transaction {identity[:6].hex()} was accepted")
