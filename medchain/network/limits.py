"""Bounds of the peer network, each with its reason. Local settings: nothing here decides agreement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PART_BYTES: Final = 64 * 1024
"""Longest stretch of one message in a frame (a rule between peers): longer messages travel in parts of exactly this size, so that a vote
waits behind 64 KiB of a block range and not behind all of it, and a slow line shows signs of life while a long message passes."""
SOCKET_FRAME_BYTES_MAX: Final = 2 * PART_BYTES + 4 * 1024
"""Longest WebSocket frame (a rule between peers): room to coalesce many small messages, or two full parts."""
HANDSHAKE_BYTES_MAX: Final = 1024
"""A hello with its keys takes about 150 bytes."""


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """How much one lane of one peer may hold."""

    bytes_max: int
    count_max: int


@dataclass(frozen=True, slots=True)
class NetworkLimits:
    """Settings of `PeerNetwork`. Times in milliseconds."""

    consensus_lane: LaneLimits = LaneLimits(32 * 1024 * 1024, 20_000)
    """Three of the largest blocks and the votes of many heights; beyond it the peer cannot keep up and must ask again."""
    gossip_lane: LaneLimits = LaneLimits(8 * 1024 * 1024, 20_000)
    """About a second of transactions at full load; pools exchange ids later, so the oldest may go."""
    query_lane: LaneLimits = LaneLimits(16 * 1024 * 1024, 1_000)
    """Two answers of the largest block range; who asked asks again."""

    receive_bytes_per_second: int = 64 * 1024 * 1024
    """Half a gigabit: more than a node executes; beyond it the peer is read more slowly."""
    receive_bytes_burst: int = 64 * 1024 * 1024
    receive_messages_per_second: int = 2_000
    """What one honest peer has to say at twenty blocks a second: twenty proposals, forty votes, twenty statuses, fifty messages of
    transactions (one a tick) and some thirty questions and answers: below two hundred, and ten times that for machines to come. It
    does not grow with the number of validators, since nobody passes on what others say."""
    receive_messages_burst: int = 8_000
    """What a connection may have held back while one end stood still for half a minute."""

    heartbeat_ms: int = 1_000
    """Who has sent nothing for so long sends a sign of life."""
    silence_max_ms: int = 4_000
    """A peer unheard for so long is dead or frozen: a few signs of life may be late on a loaded machine."""
    handshake_ms: int = 5_000
    """For TLS, the upgrade and the handshake, each: seconds on a bad line."""
    close_ms: int = 300
    """How long a polite close may take before the connection is cut."""

    dial_pause_first_ms: int = 100
    dial_pause_max_ms: int = 2_000
    """After a healed partition all must be equal within five seconds, so nobody pauses for much of it; an attempt costs 2 ms."""
    fallback_dial_after_ms: int = 2_000
    """The larger key dials too when it was unconnected for so long: a hospital behind a firewall, or just restarted while others pause."""

    unproven_connections_max: int = 64
    """Connections in the middle of TLS: each may hold a task for `handshake_ms`."""
    unproven_per_address_max: int = 32
    connections_max: int = 1_024
    """Open connections altogether, far below the usual limit of file descriptors together with LevelDB's."""
    connections_per_peer_max: int = 24
    requests_per_peer_max: int = 16
    """Bulk requests of one peer being answered at a time: reading sealed blobs must not crowd out agreement."""
    bulk_connections_per_peer: int = 4
    bulk_connect_ms: int = 5_000
    bulk_silence_ms: int = 30_000
    """A bulk transfer that passes no byte for so long has failed; it resumes by range."""

    ban_score: int = 100
    ban_first_ms: int = 10_000
    ban_max_ms: int = 300_000
    """Each further ban lasts twice as long, up to this: a hospital is a member, and mended software must be let back in."""

    certificate_warning_days: int = 30
    """A new certificate needs a vote of the others: weeks, not days (lessons.md: fabric-ca #360)."""
