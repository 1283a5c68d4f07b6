"""Evidence: what an honest node found is recorded on every honest node once all is at rest, and no honest validator is ever recorded.

The second half matters more: evidence gets hospitals suspended (lessons.md: the rule that convicts an honest validator at a normal view
change). Signatures are verified here anew, and the rule of contradiction is said here in the judge's own words.
"""

from __future__ import annotations

from typing import Final

from medchain import codec
from medchain.chain.evidence import Contradiction
from medchain.chain.vote import COMMIT, ViewChange, Vote
from medchain.errors import Malformed
from medchain.sim.checkers.case import Case, Ending
from medchain.sim.node import Turn
from medchain.store import layout
from medchain.store.keyvalue import KeyValue, prefix_end

NAME = "evidence"
ROWS: Final = layout.STATE + b"evidence/"
ITEM: Final = 6
"""Place of the encoded contradiction in a recorded row (ledger/rows.py, `evidence/`)."""
INTERVAL_BLOCKS: Final = 1_000
"""Within so many heights one contradiction of each offence of an offender is recorded, and stands for the others."""


class Evidence:
    """Remembers what honest nodes kept, and compares it with what their states say at the end."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._found: dict[tuple[bytes, str], tuple[int, int]] = {}
        """(offender, offence) → (node, height) of the first contradiction that an honest node kept."""
        self._judged: dict[bytes, Contradiction | None] = {}
        self.recorded = 0

    def on_turn(self, turn: Turn) -> None:
        """Judge what became durable: kept evidence, and rows of the state."""
        if turn.node in self._case.liars:
            return
        for _, value in turn.puts(layout.EVIDENCE):
            contradiction = self._judge(turn.node, value)
            if contradiction is not None:
                place = (contradiction.offender, contradiction.offence)
                self._found.setdefault(place, (turn.node, contradiction.height))
        for key, value in turn.puts(layout.STATE):
            if key.startswith(ROWS):
                self._judge(turn.node, _item_of(value))

    def on_end(self, ending: Ending) -> None:
        """Everything found stands in every honest state, and nothing stands there twice."""
        for node, store in enumerate(ending.stores):
            if node not in self._case.liars:
                self._check_node(node, store, ending.is_at_rest)

    def _check_node(self, node: int, store: KeyValue, is_at_rest: bool) -> None:
        recorded: dict[tuple[bytes, str], list[int]] = {}
        for _, value in store.iterate(ROWS, prefix_end(ROWS)):
            contradiction = self._judge(node, _item_of(value))
            if contradiction is not None:
                recorded.setdefault((contradiction.offender, contradiction.offence), []).append(contradiction.height)
        self.recorded = sum(len(heights) for heights in recorded.values())
        for (offender, offence), heights in recorded.items():
            if len(heights) > 1 and max(heights) - min(heights) < INTERVAL_BLOCKS * (len(heights) - 1):
                self._case.find(NAME, f"node {node} recorded {offence} of {self._case.name(offender)} at heights {sorted(heights)}")
        for (offender, offence), (finder, height) in self._found.items() if is_at_rest else ():
            if not any(height < known + INTERVAL_BLOCKS for known in recorded.get((offender, offence), ())):
                who = self._case.name(offender)
                self._case.find(NAME, f"node {finder} found {offence} of {who} at height {height}, and node {node} never recorded it")

    def _judge(self, node: int, data: bytes) -> Contradiction | None:
        """Return evidence that holds; write down evidence that does not, or that convicts an honest validator. Each item is judged once."""
        if data not in self._judged:
            self._judged[data] = self._judge_anew(node, data)
        return self._judged[data]

    def _judge_anew(self, node: int, data: bytes) -> Contradiction | None:
        try:
            contradiction = Contradiction.decode(data)
        except Malformed as error:
            self._case.find(NAME, f"node {node} keeps evidence that cannot be read: {error.message}")
            return None
        who = self._case.name(contradiction.offender)
        if not self._case.are_valid(contradiction.verifications(self._case.network)):
            self._case.find(NAME, f"node {node} keeps evidence about {who} that {who} did not sign")
        elif not _contradict(contradiction):
            self._case.find(NAME, f"node {node} keeps evidence about {who} that shows no contradiction")
        elif self._case.is_honest(contradiction.offender):
            self._case.find(NAME, f"node {node} keeps evidence of {contradiction.offence} about {who}, which is honest")
        return contradiction


def _item_of(row: bytes) -> bytes:
    values = codec.decode(row)
    item: bytes = values[ITEM]
    return item


def _contradict(contradiction: Contradiction) -> bool:
    """Answer whether no honest validator signs both, as protocol.md says it: two things at one place, or a hidden commit."""
    first, second = contradiction.first, contradiction.second
    if (first.height, first.signer) != (second.height, second.signer):
        return False
    if isinstance(first, Vote) and isinstance(second, Vote):
        return (first.kind, first.view) == (second.kind, second.view) and first.digest != second.digest
    if isinstance(first, ViewChange) and isinstance(second, ViewChange):
        return first.view == second.view and (first.prepared_view, first.digest) != (second.prepared_view, second.digest)
    if isinstance(first, Vote) and isinstance(second, ViewChange) and first.kind == COMMIT:
        is_after = second.prepared_view is None or second.prepared_view < first.view
        return is_after and first.view < second.view
    return False
