"""How a peer behaves: its allowance of bytes and messages, its points, its bans. Pure: the present time is a parameter (seconds).

A peer that breaks a rule is scored, throttled, banned for a while, and named (protocol.md, "Gossip"). Bans end by themselves: a hospital
stays a member whatever its software did, and one of our own bugs must not shut somebody out for good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from medchain.network.limits import NetworkLimits

POINTS: Final[dict[str, int]] = {
    "malformed": 100,
    "oversized": 100,
    "engine": 60,
    "flooding": 25,
}
"""Kind of offence → points. Bytes that cannot be read are nobody's accident; what the engine accuses is banned at the second time within
20 s; flooding counts for each second that the peer had to be held back."""
POINTS_FORGIVEN_PER_SECOND: Final = 1
BAN_FORGOTTEN_SECONDS: Final = 900
"""After so long without a ban the next one is short again."""


class TokenBucket:
    """An allowance that refills evenly. One message may exceed it and costs a pause afterwards, so none is too large for it."""

    def __init__(self, per_second: int, burst: int, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._level = float(burst)
        self._at = now

    def take(self, amount: int, now: float) -> float:
        """Use up `amount`; return for how many seconds to pause before the next (0 while the allowance lasts)."""
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._per_second) - amount
        self._at = now
        return max(0.0, -self._level / self._per_second)


@dataclass(slots=True)
class _Record:
    points: float = 0.0
    at: float = 0.0
    bans: int = 0
    banned_until: float = 0.0


class Standings:
    """Points and bans of all peers; as many rows as hospitals."""

    def __init__(self, limits: NetworkLimits) -> None:
        self._limits = limits
        self._records: dict[bytes, _Record] = {}

    def accuse(self, peer: bytes, points: float, now: float) -> bool:
        """Add points; return whether this begins a ban."""
        record = self._records.setdefault(peer, _Record())
        if now < record.banned_until:
            return False
        record.points = max(0.0, record.points - (now - record.at) * POINTS_FORGIVEN_PER_SECOND) + points
        record.at = now
        if record.points < self._limits.ban_score:
            return False
        if now - record.banned_until > BAN_FORGOTTEN_SECONDS:
            record.bans = 0
        length_ms = min(self._limits.ban_max_ms, self._limits.ban_first_ms * 2 ** min(record.bans, 16))
        record.bans += 1
        record.points = 0.0
        record.banned_until = now + length_ms / 1000
        return True

    def score(self, peer: bytes, now: float) -> int:
        """Return the points a peer has now."""
        record = self._records.get(peer)
        return 0 if record is None else int(max(0.0, record.points - (now - record.at) * POINTS_FORGIVEN_PER_SECOND))

    def banned_for(self, peer: bytes, now: float) -> float:
        """Return for how many more seconds the peer is kept away, 0 when it is not."""
        record = self._records.get(peer)
        return 0.0 if record is None else max(0.0, record.banned_until - now)
