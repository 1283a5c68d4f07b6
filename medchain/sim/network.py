"""The pretend network: when a message from one node reaches another, if at all, and which connections stand.

Messages are bytes on directed links. A link delays, loses, doubles and reorders as its weather says, may be blocked (a partition: what is
sent is lost, or held as TCP holds it) or clogged (nothing arrives until it clears). Connections stand per pair and are seen by each end at
its own time. Knows no message and no node's inside.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

Link = tuple[int, int]
"""(from, to): a direction of its own."""


@dataclass(frozen=True, slots=True)
class Weather:
    """How links behave; the same for all links at a time."""

    delay_min_us: int = 1_000
    delay_max_us: int = 5_000
    loss_permille: int = 0
    duplicate_permille: int = 0
    reorder_permille: int = 0
    """Messages that may overtake and be overtaken; the rest of a link arrive in the order they were sent."""
    straggler_permille: int = 0
    """Messages that take `straggler_us` longer."""
    straggler_us: int = 0


CALM = Weather()
"""The weather of the healing phase."""


@dataclass(slots=True)
class Blocks:
    """Which links carry nothing now, counted, because partitions may overlap."""

    lossy: dict[Link, int] = field(default_factory=dict)
    """Blocked links on which messages are lost."""
    holding: dict[Link, int] = field(default_factory=dict)
    """Blocked links whose messages arrive when the block ends, as TCP's resending makes them."""


class Network:
    """Decides arrival times; draws only from its own dice."""

    __slots__ = ("_blocks", "_dice", "_held", "_last_arrival_us", "lost", "doubled", "reordered", "held_count", "weather")

    def __init__(self, dice: random.Random, weather: Weather) -> None:
        self._dice = dice
        self.weather = weather
        self._blocks = Blocks()
        self._last_arrival_us: dict[Link, int] = {}
        self._held: dict[Link, list[bytes]] = {}
        self.lost = 0
        self.doubled = 0
        self.reordered = 0
        self.held_count = 0

    def send(self, now_us: int, link: Link, data: bytes) -> list[int]:
        """Return when this message arrives (ascending; none = lost or held, two = doubled)."""
        if self._blocks.lossy.get(link):
            self.lost += 1
            return []
        if self._blocks.holding.get(link):
            self.held_count += 1
            self._held.setdefault(link, []).append(data)
            return []
        weather, dice = self.weather, self._dice
        if weather.loss_permille and dice.randrange(1000) < weather.loss_permille:
            self.lost += 1
            return []
        arrivals = [self._arrival_us(now_us, link)]
        if weather.duplicate_permille and dice.randrange(1000) < weather.duplicate_permille:
            self.doubled += 1
            arrivals.append(arrivals[0] + dice.randrange(weather.delay_max_us * 4 + 1))
        return arrivals

    def _arrival_us(self, now_us: int, link: Link) -> int:
        weather, dice = self.weather, self._dice
        arrival_us = now_us + dice.randint(weather.delay_min_us, weather.delay_max_us)
        if weather.straggler_permille and dice.randrange(1000) < weather.straggler_permille:
            arrival_us += weather.straggler_us
        if weather.reorder_permille and dice.randrange(1000) < weather.reorder_permille:
            self.reordered += 1
            return arrival_us + dice.randrange(weather.delay_max_us * 2 + 1)
        arrival_us = max(arrival_us, self._last_arrival_us.get(link, 0))
        self._last_arrival_us[link] = arrival_us
        return arrival_us

    def block(self, links: tuple[Link, ...], is_holding: bool) -> None:
        """Stop these links; each call is undone by one `unblock` of the same kind."""
        counts = self._blocks.holding if is_holding else self._blocks.lossy
        for link in links:
            counts[link] = counts.get(link, 0) + 1

    def unblock(self, links: tuple[Link, ...], is_holding: bool) -> list[tuple[Link, bytes]]:
        """Open links again; return what was held on those that are now free, to be sent anew."""
        counts = self._blocks.holding if is_holding else self._blocks.lossy
        released: list[tuple[Link, bytes]] = []
        for link in links:
            counts[link] = max(0, counts.get(link, 0) - 1)
            if not self.is_blocked(link):
                released += [(link, data) for data in self._held.pop(link, [])]
        return released

    def is_blocked(self, link: Link) -> bool:
        """Answer whether a link carries nothing now."""
        return bool(self._blocks.lossy.get(link) or self._blocks.holding.get(link))

    def forget_held(self, link: Link) -> None:
        """Drop what is held on a link whose connection ended."""
        self._held.pop(link, None)

    def heal(self) -> list[tuple[Link, bytes]]:
        """Open every link and calm the weather; return what was held."""
        self._blocks = Blocks()
        self.weather = CALM
        released = [(link, data) for link in sorted(self._held) for data in self._held[link]]
        self._held.clear()
        return released


class Wiring:
    """Which connections stand. Each end has its own view; a message travels only on a connection, and dies with it."""

    __slots__ = ("_epoch", "_retry_us", "_up")

    def __init__(self) -> None:
        self._up: dict[Link, bool] = {}
        self._epoch: dict[Link, int] = {}
        self._retry_us: dict[Link, int] = {}

    def is_up(self, node: int, peer: int) -> bool:
        """Answer whether `node` believes it is connected to `peer`."""
        return self._up.get((node, peer), False)

    def epoch(self, first: int, second: int) -> int:
        """Return the number of the pair's connection; frames of an earlier one never arrive."""
        return self._epoch.get(_pair(first, second), 0)

    def connect(self, first: int, second: int) -> None:
        """A handshake succeeded: both ends are up, on a new connection."""
        pair = _pair(first, second)
        self._epoch[pair] = self._epoch.get(pair, 0) + 1
        self._up[(first, second)] = self._up[(second, first)] = True

    def drop_end(self, node: int, peer: int) -> None:
        """`node` has noticed (or caused) the end of its connection to `peer`."""
        self._up[(node, peer)] = False

    def retry_at(self, first: int, second: int) -> int:
        """Return when the pair may try to connect again."""
        return self._retry_us.get(_pair(first, second), 0)

    def postpone(self, first: int, second: int, until_us: int) -> None:
        """Let the pair wait before it tries again."""
        self._retry_us[_pair(first, second)] = until_us


def _pair(first: int, second: int) -> Link:
    return (first, second) if first < second else (second, first)


def links_between(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[Link, ...]:
    """Return every directed link from `left` to `right` and back."""
    return tuple([(a, b) for a in left for b in right] + [(b, a) for a in left for b in right])
